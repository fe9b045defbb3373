//! SAs of single workers (RFC 9611): two workers, one policy.

use super::bed::{Bed, Datagram, NAMES, Seen, Shape, classify, policies};
use router::control::setkey::SaEvent;
use std::{collections::BTreeMap, fmt::Write};

/// SAs from a to b: the fallback 0x1000, and of each of these workers.
fn text(workers: &[u16]) -> String {
    let sa = |spi: u32, own: &str| {
        format!("add 203.0.113.1 203.0.113.2 esp {spi:#x} -m tunnel -r 4 {own} -E aes-gcm-16 0x{spi:040x};\n")
    };
    let own = workers.iter().map(|n| sa(0x1001 + u32::from(*n), &format!("-pcpu-num {n}")));
    own.fold(sa(0x1000, ""), |text, sa| text + &sa)
}

/// Sequence numbers on the wire, by SPI, in their order.
fn numbers(bed: &Bed) -> BTreeMap<u32, Vec<u32>> {
    let mut seen = BTreeMap::<u32, Vec<u32>>::new();
    for frame in bed.on_the_wire().iter().filter(|frame| classify(frame) == Seen::Esp) {
        let word = |at: usize| u32::from_be_bytes(*frame[at..].first_chunk().unwrap());
        seen.entry(word(34)).or_default().push(word(38));
    }
    seen
}

/// Datagrams by both workers in turn; all of them arrive.
fn send(bed: &mut Bed, count: u16) {
    for n in 0..count {
        for worker in [0, 1] {
            let datagram = Datagram { ports: (1000 + n, 2000 + worker as u16), ..Datagram::default() };
            assert!(bed.send(0, worker, &datagram.packet()));
        }
        bed.run(1);
    }
    bed.run(50);
    assert_eq!(bed.arrived(1).len(), 2 * usize::from(count));
}

/// The workers for which an SA was asked since the last time.
fn asked(bed: &mut Bed) -> Vec<Option<u16>> {
    let one = |event: SaEvent| match event {
        SaEvent::Acquire(acquire) => Some(acquire.worker),
        _ => None,
    };
    bed.net.sa_events(NAMES[0]).into_iter().filter_map(one).collect()
}

#[test]
fn two_workers_send_by_their_own_sas_in_order_and_ask_once_each_while_they_have_none() {
    let both = [0, 1].map(|side| text(&[0, 1]) + &policies(side));
    let shape = Shape { workers: 2, ..Shape::default() };
    let mut bed = Bed::new(shape, [None; 2], [&both[0], &both[1]]);
    bed.on_the_wire();
    asked(&mut bed);
    send(&mut bed, 100);
    let all: Vec<u32> = (1..=100).collect();
    assert_eq!(numbers(&bed), BTreeMap::from([(0x1001, all.clone()), (0x1002, all)]));
    assert_eq!(asked(&mut bed), []);

    // Without its own a worker goes on by the fallback, and asks for one: once.
    bed.setkey(0, "delete 203.0.113.1 203.0.113.2 esp 0x1002;");
    send(&mut bed, 50);
    let seen = numbers(&bed);
    assert_eq!(seen[&0x1000], (1..=50).collect::<Vec<_>>());
    assert_eq!(seen[&0x1001], (101..=150).collect::<Vec<_>>());
    assert_eq!((seen.len(), asked(&mut bed)), (2, vec![Some(1)]));
    send(&mut bed, 50);
    assert_eq!(asked(&mut bed), []);

    // An answer to the question.
    let answer = "add 203.0.113.1 203.0.113.2 esp 0x1009 -m tunnel -r 4 -pcpu-num 1 -E aes-gcm-16 0x00000000000000000000000000000000000000ff;";
    bed.setkey(1, answer);
    bed.setkey(0, answer);
    numbers(&bed);
    send(&mut bed, 20);
    let seen = numbers(&bed);
    assert_eq!((seen.len(), &seen[&0x1009]), (2, &(1..=20).collect::<Vec<_>>()));
    assert_eq!(asked(&mut bed), []);

    // A worker asks the same once a second.
    bed.run(2000);
    // Both without: each asks, and nobody sends by another's.
    bed.setkey(0, "delete 203.0.113.1 203.0.113.2 esp 0x1009;");
    bed.setkey(0, "delete 203.0.113.1 203.0.113.2 esp 0x1001;");
    bed.setkey(0, "add 203.0.113.1 203.0.113.2 esp 0x100a -m tunnel -pcpu-num 7 -E aes-gcm-16 0x00000000000000000000000000000000000000fe;");
    numbers(&bed);
    send(&mut bed, 20);
    let mut who = asked(&mut bed);
    who.sort();
    assert_eq!(
        (numbers(&bed).keys().copied().collect::<Vec<_>>(), who),
        (vec![0x1000], vec![Some(0), Some(1)])
    );
    let shown = bed.setkey(0, "dump;");
    let text = format!("{shown:?}");
    assert!(text.contains("\\tpcpu-num 7\\n"), "{text}");
    assert_eq!(bed.count(0, "spd.no_sa"), 0);
    bed.finish();
}

/// SAs from a to b and their policies, one for datagrams of each source port from 1000 on.
fn by_port(side: usize, sas: u16) -> String {
    let (mut text, way) = (String::new(), if side == 0 { "out" } else { "in" });
    for n in 0..sas {
        let (port, spi, id) = (1000 + n, 0x1000 + n, n + 1);
        write!(
            text,
            "add 203.0.113.1 203.0.113.2 esp {spi:#x} -m tunnel -r 4 -u {id} -E aes-gcm-16 0x{spi:040x};\n\
             spdadd 192.0.2.0/24[{port}] 198.51.100.0/24 udp -P {way} \
             ipsec esp/tunnel/203.0.113.1-203.0.113.2/unique:{id};\n"
        )
        .unwrap();
    }
    text
}

/// Lets the gateways find each other by a packet for the first SA.
fn acquaint(bed: &mut Bed) {
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(20);
    assert_eq!((bed.arrived(1).len(), numbers(bed).len()), (1, 1));
}

#[test]
fn what_another_worker_seals_for_an_sa_leaves_after_the_pieces_of_a_super_frame() {
    let shape = Shape { workers: 2, offload: true, ..Shape::default() };
    let mut bed = Bed::new(shape, [None; 2], [&by_port(0, 2), &by_port(1, 2)]);
    acquaint(&mut bed);
    for round in 0..20 {
        let small = |ports| Datagram { ports, ..Datagram::default() }.packet();
        // More pieces than are sealed at a time, behind a packet for another SA.
        assert!(bed.send(0, 0, &small((1000, 7))));
        bed.send_super(0, 0, (1001, 7), (18 + round, 1000));
        assert!(bed.send(0, 1, &small((1001, 8))));
        bed.run(5);
    }
    bed.run(20);
    let seen = numbers(&bed);
    let pieces: u32 = (18..38).sum();
    assert_eq!(seen[&0x1000], (2..=21).collect::<Vec<_>>());
    assert_eq!(seen[&0x1001], (1..=pieces + 20).collect::<Vec<_>>(), "in the order of the numbers");
    assert_eq!(bed.arrived(1).len() as u32, 20 + pieces + 20);
    bed.finish();
}

#[test]
fn a_burst_of_super_frames_whose_parts_are_too_large_for_the_tunnel_passes_in_turns() {
    let shape = Shape { offload: true, ..Shape::default() };
    let mut bed = Bed::new(shape, [None; 2], [&by_port(0, 1), &by_port(1, 1)]);
    acquaint(&mut bed);
    // Each part is a frame of its own on the host's wire, and in the tunnel a packet in two fragments.
    for flow in 0..7 {
        bed.send_super(0, 0, (1000, 7 + flow), (44, 1472));
    }
    bed.run(100);
    assert_eq!(bed.arrived(1).len(), 7 * 44);
    bed.finish();
}
