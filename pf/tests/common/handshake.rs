//! Segments of a client and a server whose handshake the router completes, and what becomes of them.

use kern::Why;
use pf::{Direction, Segment, Verdict};
use wire::{build, tcp};

use super::{CLIENT, LAN, SERVER, World, header};

/// A segment of the client, whose window is 1000.
pub fn up(port: u16, flags: &str, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    build::tcp4(CLIENT, SERVER, &header(port, 80, flags, seq, ack, 1000), data)
}

/// A segment of the server, whose window is 2000.
pub fn down(port: u16, flags: &str, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    build::tcp4(SERVER, CLIENT, &header(80, port, flags, seq, ack, 2000), data)
}

/// A packet that the router keeps, and what it says instead.
pub fn kept(w: &mut World, direction: Direction, octets: &[u8]) -> Vec<Segment> {
    let verdict = w.verdict(direction, LAN, octets);
    assert!(matches!(verdict, Verdict::Block(Why::PfSynproxy)), "{verdict:?}");
    w.outbox()
}

/// Sequence and acknowledgement number of a packet that passes.
pub fn passed(w: &mut World, direction: Direction, octets: &[u8]) -> (u32, u32) {
    let mut m = w.packet(octets);
    let verdict = w.test(direction, LAN, &mut m);
    assert!(matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
    let segment = tcp::Packet::new_checked(&m.data()[20..]).expect("a TCP header");
    let repr = tcp::Repr::parse(&segment, None).expect("a segment");
    w.fixture.done(m);
    (repr.seq, repr.ack)
}
