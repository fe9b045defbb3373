//! `reassemble tcp`: timestamps and time to live of connections, by scrub rules and by `scrub (...)`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{CLIENT, IN, LAN, OUT, SERVER, World, header};
use kern::Why;
use pf::Verdict;
use wire::{IpProto, build, checksum, ipv4, parse, tcp};

/// A segment of the connection between client and server.
#[derive(Clone, Copy)]
struct Segment {
    up: bool,
    flags: &'static str,
    seq: u32,
    ack: u32,
    stamps: Option<(u32, u32)>,
    ttl: u8,
    len: usize,
}

const UP: Segment = Segment { up: true, flags: "A", seq: 1001, ack: 5001, stamps: None, ttl: 64, len: 0 };
const DOWN: Segment = Segment { up: false, seq: 5001, ack: 1001, ..UP };

fn octets(s: Segment) -> Vec<u8> {
    let ((src, sport), (dst, dport)) =
        if s.up { ((CLIENT, 4000), (SERVER, 80)) } else { ((SERVER, 80), (CLIENT, 4000)) };
    let tcp = tcp::Repr { timestamps: s.stamps, ..header(sport, dport, s.flags, s.seq, s.ack, 8192) };
    let ip = ipv4::Repr { src, dst, proto: IpProto::TCP, ttl: s.ttl, ..ipv4::Repr::default() };
    build::tcp4_with(ip, &tcp, &vec![0; s.len])
}

/// Timestamps and time to live as the other end sees them.
fn send(w: &mut World, s: Segment) -> Result<(Option<(u32, u32)>, u8), Why> {
    let mut m = w.packet(&octets(s));
    m.set_l4(20);
    m.hdr_mut().proto = 6;
    let verdict = w.test(if s.up { IN } else { OUT }, LAN, &mut m);
    let data = m.data().to_vec();
    w.fixture.done(m);
    match verdict {
        Verdict::Pass(_) => {}
        Verdict::Block(why) => return Err(why),
        other => panic!("{other:?}"),
    }
    let p = parse::parse_ip(&data).unwrap();
    assert!(checksum::transport_ok(&data, 20, p.end as usize, p.proto));
    assert!(ipv4::Packet::new_checked(&data[..]).unwrap().checksum_ok());
    let stamps = tcp::Options::new(&data[40..20 + usize::from(data[32] >> 4) * 4])
        .map_while(Result::ok)
        .find_map(|(_, option)| match option {
            tcp::HeaderOption::Timestamps(value, echo) => Some((value, echo)),
            _ => None,
        });
    Ok((stamps, data[8]))
}

const RULES: [&str; 2] = [
    "scrub in on lan0 all reassemble tcp\npass in keep state\n",
    "pass in scrub (reassemble tcp) keep state\n",
];

/// A connection whose handshake is done; gives the offsets of both ends.
fn connected(rules: &str) -> (World, u32, u32) {
    let mut w = World::new(rules);
    let syn = Segment { flags: "S", seq: 1000, ack: 0, stamps: Some((100, 0)), ..UP };
    let (shown, 0) = send(&mut w, syn).unwrap().0.unwrap() else { panic!("an echo of nothing") };
    let offset = shown.wrapping_sub(100);
    let answer = Segment { flags: "SA", seq: 5000, stamps: Some((7000, shown)), ..DOWN };
    let (own, echo) = send(&mut w, answer).unwrap().0.unwrap();
    assert_eq!(echo, 100, "the client hears its own number");
    let other = own.wrapping_sub(7000);
    let ack = Segment { stamps: Some((101, own)), ..UP };
    assert_eq!(send(&mut w, ack), Ok((Some((101_u32.wrapping_add(offset), 7000)), 64)));
    (w, offset, other)
}

#[test]
fn both_ends_get_an_offset_and_hear_their_own_numbers() {
    for rules in RULES {
        let (mut w, client, server) = connected(rules);
        assert!(client != 0 && server != 0 && client != server);
        let data = Segment { stamps: Some((7010, 101_u32.wrapping_add(client))), len: 10, ..DOWN };
        assert_eq!(send(&mut w, data).unwrap().0, Some((7010_u32.wrapping_add(server), 101)));
    }
    let mut w = World::new("pass in keep state\n");
    let syn = Segment { flags: "S", seq: 1000, ack: 0, stamps: Some((100, 0)), ..UP };
    assert_eq!(send(&mut w, syn), Ok((Some((100, 0)), 64)));
}

#[test]
fn the_time_to_live_of_an_end_never_falls() {
    for rules in RULES {
        let (mut w, ..) = connected(rules);
        for (ttl, seen) in [(10, 64), (70, 70), (1, 70)] {
            let segment = Segment { ttl, stamps: Some((102, 0)), ..UP };
            assert_eq!(send(&mut w, segment).unwrap().1, seen);
        }
        assert_eq!(send(&mut w, Segment { ttl: 30, flags: "R", ..DOWN }).unwrap().1, 64);
    }
}

#[test]
fn a_timestamp_that_no_clock_of_the_connection_shows_is_refused() {
    let (mut w, _, server) = connected(RULES[1]);
    let echo = |n: u32| n.wrapping_add(server);
    let with = |stamp, echo| Segment { stamps: Some((stamp, echo)), len: 1, ..UP };
    assert!(send(&mut w, with(110, echo(7000))).is_ok());
    // Too old, too new, an echo of what the server has not said, and none at all.
    for wrong in [with(50, echo(7000)), with(110 + 60 * 1100, echo(7000)), with(111, echo(9999))] {
        assert_eq!(send(&mut w, wrong), Err(Why::PfTimestamp));
    }
    assert_eq!(send(&mut w, Segment { len: 1, ..UP }), Err(Why::PfTimestamp));
    assert_eq!(w.pf.counters().bad_timestamp.get(), 4);
    // Time passes, and clocks with it.
    w.advance(60);
    assert!(send(&mut w, with(110 + 60 * 1100, echo(7000))).is_ok());
}

#[test]
fn tolerance_is_that_of_the_timeout() {
    let (mut w, _, server) =
        connected("set timeout tcp.tsdiff 600\npass in scrub (reassemble tcp) keep state\n");
    let late = Segment { stamps: Some((101 + 500 * 1000, 7000_u32.wrapping_add(server))), len: 1, ..UP };
    assert!(send(&mut w, late).is_ok());
}
