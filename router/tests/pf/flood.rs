//! Floods through a whole router, in memory: who overloads a rule goes to its table, and SYNs that nobody stands behind
//! cost no state.

use super::bed::{Bed, HOST4, NAMES, Shape};
use std::net::Ipv4Addr;
use wire::{build, tcp};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn bed(rules: &str) -> Bed {
    Bed::new(Shape::default(), [Some(rules), Some("pass all no state\n")], ["", ""])
}

/// A segment of `source`, or of host 1 to host 0 if there is none.
fn segment(source: Option<Ipv4Addr>, port: u16, flags: u8, (seq, ack): (u32, u32), data: &[u8]) -> Vec<u8> {
    let (src_port, dst_port) = if source.is_some() { (port, 80) } else { (80, port) };
    let header = tcp::Repr {
        src_port,
        dst_port,
        seq,
        ack,
        flags: tcp::Flags(flags),
        window: 1000,
        ..tcp::Repr::default()
    };
    match source {
        Some(source) => build::tcp4(source, HOST4[1], &header, data),
        None => build::tcp4(HOST4[1], HOST4[0], &header, data),
    }
}

/// Numbers and flags of the segments that have reached a host, and their data.
fn arrived(bed: &Bed, side: usize) -> Vec<(u8, u32, u32, Vec<u8>)> {
    let read = |packet: Vec<u8>| {
        let end = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let segment = tcp::Packet::new_checked(&packet[20..end]).unwrap();
        let repr = tcp::Repr::parse(&segment, None).unwrap();
        let data = 20 + usize::from(packet[32] >> 4) * 4;
        (repr.flags.0, repr.seq, repr.ack, packet[data..end].to_vec())
    };
    bed.arrived(side).into_iter().filter(|packet| packet[0] == 0x45 && packet[9] == 6).map(read).collect()
}

/// Sends a segment of a host and lets it arrive, and whatever is said to it.
fn send(bed: &mut Bed, side: usize, octets: &[u8]) {
    assert!(bed.send(side, 0, octets));
    bed.run(20);
}

fn states(bed: &mut Bed) -> u32 {
    bed.net.node(NAMES[0]).router.shared().pf.states().count()
}

/// Completes a handshake, and does what the router's control thread does a few times a second: how many sources that says.
fn connect(bed: &mut Bed, port: u16) -> usize {
    send(bed, 0, &segment(Some(HOST4[0]), port, SYN, (1000, 0), b""));
    send(bed, 1, &segment(None, port, SYN | ACK, (7000, 1001), b""));
    send(bed, 0, &segment(Some(HOST4[0]), port, ACK, (1001, 7001), b""));
    bed.net.with_root(NAMES[0], |node, root| {
        node.router.shared().pf.settle(&mut root.top().at(), 0).sources.len()
    })
}

#[test]
fn a_flood_of_connections_puts_its_source_into_the_overload_table() {
    let mut bed = bed("table <bad> persist\nblock in quick on lan0 from <bad>\npass all no state\n\
         pass in on lan0 inet proto tcp keep state (max-src-conn-rate 10/30, overload <bad> flush global)\n");
    for port in 0..10 {
        assert_eq!(connect(&mut bed, 4000 + port), 0, "{port}");
    }
    assert_eq!((states(&mut bed), arrived(&bed, 1).len()), (10, 20));
    assert_eq!(connect(&mut bed, 4010), 1, "one connection more than ten in thirty seconds");
    assert_eq!(states(&mut bed), 0, "all of its states are gone");
    let table = bed.net.node(NAMES[0]).router.shared().pf.tables().find("", "bad").unwrap();
    let listed: Vec<String> = table.entries().iter().map(|e| e.entry.prefix.to_string()).collect();
    assert_eq!(listed, [HOST4[0].to_string()]);
    arrived(&bed, 1);
    connect(&mut bed, 4011);
    assert!(arrived(&bed, 1).is_empty(), "nothing of it passes any more");
    bed.finish();
}

#[test]
fn cookies_answer_a_flood_and_open_connections_in_the_middle_of_it() {
    let mut bed =
        bed("set syncookies always\npass all no state\npass in on lan0 inet proto tcp keep state\n");
    let spoofed = |bed: &mut Bed, n: u32| {
        let source = Ipv4Addr::from_bits(0x0a00_0000 + n);
        send(bed, 0, &segment(Some(source), 1024 + n as u16, SYN, (n, 0), b""));
    };
    (0..100).for_each(|n| spoofed(&mut bed, n));
    send(&mut bed, 0, &segment(Some(HOST4[0]), 4000, SYN, (1000, 0), b""));
    assert_eq!((states(&mut bed), arrived(&bed, 1)), (0, Vec::new()), "the server hears nothing");
    let answers = arrived(&bed, 0);
    assert_eq!(answers.len(), 1, "those that do not exist have no route");
    let (flags, cookie, ack, _) = answers[0];
    assert_eq!((flags, ack), (SYN | ACK, 1001));
    (100..200).for_each(|n| spoofed(&mut bed, n));
    send(&mut bed, 0, &segment(Some(HOST4[0]), 4000, ACK, (1001, cookie.wrapping_add(1)), b""));
    let syn = arrived(&bed, 1);
    assert_eq!((syn.len(), syn[0].0, states(&mut bed)), (1, SYN, 1));
    send(&mut bed, 1, &segment(None, 4000, SYN | ACK, (7000, syn[0].1.wrapping_add(1)), b""));
    assert_eq!(arrived(&bed, 0), [(ACK, cookie.wrapping_add(1), 1001, Vec::new())], "the window is open");
    send(&mut bed, 0, &segment(Some(HOST4[0]), 4000, ACK, (1001, cookie.wrapping_add(1)), b"request"));
    let at_server = arrived(&bed, 1);
    let expected = (ACK, syn[0].1.wrapping_add(1), 7001, b"request".to_vec());
    assert_eq!(at_server.last(), Some(&expected));
    (200..300).for_each(|n| spoofed(&mut bed, n));
    assert_eq!(states(&mut bed), 1);
    let counters = bed.net.node(NAMES[0]).router.shared().pf.counters();
    assert_eq!((counters.syncookies_sent.get(), counters.syncookies_valid.get()), (301, 1));
    bed.finish();
}
