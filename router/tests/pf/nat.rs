//! Translation between a host behind one gateway and a host behind the other, which knows nothing of the first.

use super::bed::{Bed, Datagram, HOST4, Shape, WAN4};
use std::net::IpAddr;
use wire::{IpProto, build, parse::parse_ip};

/// The first gateway under these rules.
fn bed(rules: &str, workers: usize) -> Bed {
    let shape = Shape { workers, ..Shape::default() };
    Bed::new(shape, [Some(rules), Some("pass all no state\n")], ["", ""])
}

/// Ends of a datagram.
type Ends = [(IpAddr, u16); 2];

/// The ends of the datagrams that have reached a host.
fn arrived(bed: &Bed, side: usize) -> Vec<Ends> {
    let ends = |packet: Vec<u8>| {
        let p = parse_ip(&packet).ok().filter(|p| p.proto == IpProto::UDP)?;
        let flow = p.flow(&packet);
        Some([(flow.src(), p.src_port), (flow.dst(), p.dst_port)])
    };
    bed.arrived(side).into_iter().filter_map(ends).collect()
}

/// Sends a datagram of the first host's, and says with which source it has reached the other host.
fn leaves(bed: &mut Bed, queue: usize, ports: (u16, u16)) -> (IpAddr, u16) {
    assert!(bed.send(0, queue, &Datagram { ports, ..Datagram::default() }.packet()));
    bed.run(20);
    let [[source, _]] = arrived(bed, 1)[..] else { panic!("one datagram") };
    source
}

/// Sends a datagram of the other host's to there, and says whom it has reached.
fn answers(bed: &mut Bed, from: u16, to: u16) -> Vec<Ends> {
    assert!(bed.send(1, 0, &build::udp4(HOST4[1], WAN4[0], from, to, b"answer")));
    bed.run(20);
    arrived(bed, 0)
}

#[test]
fn flows_of_a_map_e_customer_keep_to_the_ports_of_his_set_both_ways() {
    let rules = "nat on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.1 map-e-portset 6/8/0x34\npass all\n";
    let mut bed = bed(rules, 1);
    for n in 0..20 {
        let (address, port) = leaves(&mut bed, 0, (1000 + n, 53));
        assert_eq!(address, IpAddr::V4(WAN4[0]));
        assert!(port >> 10 != 0 && port >> 2 & 0xff == 0x34, "{port}");
        let [from, to] = [(HOST4[1].into(), 53), (HOST4[0].into(), 1000 + n)];
        assert_eq!(answers(&mut bed, 53, port), [[from, to]]);
    }
    bed.finish();
}

#[test]
fn a_sender_has_one_port_whichever_worker_its_datagrams_come_to() {
    let rules = "nat on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.1 endpoint-independent\npass all\n";
    let mut bed = bed(rules, 2);
    let one = leaves(&mut bed, 0, (1000, 53));
    for n in 0..20 {
        assert_eq!(leaves(&mut bed, usize::from(n % 2), (1000, 54 + n)), one);
        let [from, to] = [(HOST4[1].into(), 54 + n), (HOST4[0].into(), 1000)];
        assert_eq!(answers(&mut bed, 54 + n, one.1), [[from, to]]);
    }
    assert_ne!(leaves(&mut bed, 1, (1001, 53)), one);
    // It has no door open to who was never sent anything.
    assert!(answers(&mut bed, 9, one.1).is_empty());
    let left = bed.net.with_root("a", |node, root| {
        let (pf, mut top) = (&node.router.shared().pf, root.top());
        let before: Vec<u32> = pf.mappings(&mut top.at()).iter().map(|mapping| mapping.states).collect();
        assert!(before.contains(&21) && before.contains(&1), "{before:?}");
        pf.kill_states(&mut top.at(), |_| true);
        pf.mappings(&mut top.at())
    });
    assert_eq!(left, []);
    bed.finish();
}
