//! The packet path, in memory: two gateways, a raw wire at each end and one between them.
//!
//! Closed world: a test names the counters that move, and every other must stay. Every test ends with both books exact.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "../../pf/tests/common/allocations.rs"]
mod allocations;

use allocations::allocations;
use kern::{
    Batch, Ledger, Pool,
    mbuf::PoolConfig,
    testing::{Chance, soak},
    time::Duration,
};
use pcap_file::{DataLink, pcap::PcapReader};
use router::{
    iface::{
        driver::{Driver, RxCx},
        link::{LinkConfig, LinkEnd},
    },
    testbed::{Testbed, Texts},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};
use wire::{EtherType, IpProto, Mac, build, ether, ipv4, udp};

const HOST_A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const HOST_B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
const PF: &str = "block all\npass quick inet6 proto icmp6 all no state\npass\n";

fn gateway(name: &str, n: u8, workers: usize, locking: &str) -> String {
    let (lan, far, peer) = if n == 1 { ("192.0.2", "198.51.100", 2) } else { ("198.51.100", "192.0.2", 1) };
    format!(
        "[router]\nname = \"{name}\"\nworkers = {workers}\nlocking = \"{locking}\"\nclusters = 2048\njumbos = 16\n\
         [[interface]]\nname = \"lan0\"\ndriver = \"link\"\ndevice = \"lan-{name}\"\nqueues = {workers}\n\
         address = [\"{lan}.1/24\", \"2001:db8:{name}::1/64\"]\n\
         [[interface]]\nname = \"wan0\"\ndriver = \"link\"\ndevice = \"wan\"\nqueues = {workers}\n\
         address = [\"203.0.113.{n}/24\", \"2001:db8:ffff::{n}/64\"]\n\
         [[route]]\nto = \"{far}.0/24\"\nvia = \"203.0.113.{peer}\"\n"
    )
}

const IPSEC: &str = "
add 203.0.113.1 203.0.113.2 esp 0x1001 -m tunnel -r 4 -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;
add 203.0.113.2 203.0.113.1 esp 0x1002 -m tunnel -r 4 -E aes-gcm-16 0x100102030405060708090a0b0c0d0e0f10111213;
";
const OUT_A: &str =
    "spdadd 192.0.2.0/24 198.51.100.0/24 any -P out ipsec esp/tunnel/203.0.113.1-203.0.113.2/require;
spdadd 198.51.100.0/24 192.0.2.0/24 any -P in ipsec esp/tunnel/203.0.113.2-203.0.113.1/require;";
const OUT_B: &str =
    "spdadd 198.51.100.0/24 192.0.2.0/24 any -P out ipsec esp/tunnel/203.0.113.2-203.0.113.1/require;
spdadd 192.0.2.0/24 198.51.100.0/24 any -P in ipsec esp/tunnel/203.0.113.1-203.0.113.2/require;";

/// The two gateways with hosts' ends of the wires in the test's hands.
struct Bed {
    net: Testbed,
    here: LinkEnd,
    there: LinkEnd,
    /// MAC of gateway a's and b's LAN sides.
    macs: [Mac; 2],
}

impl Bed {
    fn new(workers: usize, locking: &str, tunnel: bool, pf: Option<&str>) -> Bed {
        let mut bed = Testbed::new();
        let config = LinkConfig { queues: [workers, workers], capacity: 4096, ..LinkConfig::default() };
        for cable in ["lan-a", "lan-b", "wan"] {
            bed.cable(cable, config.clone());
        }
        let (here, there) = (bed.end("lan-a").unwrap(), bed.end("lan-b").unwrap());
        let ipsec = |policies: &str| format!("{IPSEC}{policies}");
        let (a, b) = (ipsec(OUT_A), ipsec(OUT_B));
        for (name, n, ipsec) in [("a", 1, &a), ("b", 2, &b)] {
            let conf = gateway(name, n, workers, locking);
            bed.add(Texts { conf: &conf, pf, ipsec: tunnel.then_some(ipsec) }).unwrap();
        }
        for (name, addr, mac) in [("a", "192.0.2.10", HOST_A), ("b", "198.51.100.10", HOST_B)] {
            bed.with_root(name, |node, root| {
                let lan = node.router.net().named("lan0").unwrap().index.0;
                let (shared, ledger) = (node.router.shared(), &node.router.own_stats().ledger);
                let addr: IpAddr = addr.parse().unwrap();
                shared.neighbours.insert_permanent(&mut root.top(), lan, addr, mac, ledger);
            });
        }
        let macs = ["a", "b"].map(|n| bed.node(n).router.net().named("lan0").unwrap().mac);
        let mut bed = Bed { net: bed, here, there, macs };
        // Duplicate address detection, and the gateways find each other.
        bed.net.run_for(Duration::from_secs(3));
        bed.send(&bed.frame(0, 0, 0));
        bed.net.run_for(Duration::from_millis(20));
        bed.arrived();
        bed
    }

    /// A numbered datagram of a flow from host a to host b.
    fn frame(&self, flow: u16, number: u32, hops: u8) -> Vec<u8> {
        self.frame_from(0, flow, number, hops)
    }

    /// The same from one of the hosts, a being 0 and b 1, to the other.
    fn frame_from(&self, host: usize, flow: u16, number: u32, hops: u8) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 8 + 32];
        let (header, packet) = frame.split_at_mut(14);
        let (macs, addrs) =
            ([HOST_A, HOST_B], [Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(198, 51, 100, 10)]);
        ether::write_header(header.first_chunk_mut().unwrap(), self.macs[host], macs[host], EtherType::IPV4);
        let ip = ipv4::Repr {
            src: addrs[host],
            dst: addrs[host ^ 1],
            proto: IpProto::UDP,
            ttl: if hops == 0 { 64 } else { hops },
            payload_len: 40,
            ..ipv4::Repr::default()
        };
        packet[28..32].copy_from_slice(&number.to_be_bytes());
        let udp = udp::Repr { src_port: 1000 + flow, dst_port: 2000 };
        build::ipv4_packet(packet, &ip, |area, pseudo| udp.emit(area, pseudo)).unwrap();
        frame
    }

    fn send(&self, frame: &[u8]) -> bool {
        self.here.other().inject(0, frame)
    }

    /// Flow and number of every datagram that has reached host b.
    fn arrived(&mut self) -> Vec<(u16, u32)> {
        drain(&self.there).iter().filter_map(|f| number_of(f)).collect()
    }

    fn counts(&mut self) -> [BTreeMap<String, u64>; 2] {
        ["a", "b"].map(|n| self.net.counts(n))
    }

    /// Runs until idle and demands that just these counters moved.
    fn expect(&mut self, before: &[BTreeMap<String, u64>; 2], moved: [&[(&str, u64)]; 2]) {
        self.net.run_for(Duration::from_millis(50));
        // Turns of the loop and pf's lookups are work, not events.
        let quiet = ["worker.", "pf.tests"];
        for ((was, now), (moved, name)) in
            before.iter().zip(self.counts()).zip(moved.into_iter().zip(["a", "b"]))
        {
            let changed: Vec<(&str, u64)> = now
                .iter()
                .filter(|(k, _)| !quiet.iter().any(|q| k.starts_with(q)))
                .map(|(k, v)| (k.as_str(), v - was.get(k).copied().unwrap_or(0)))
                .filter(|(_, d)| *d > 0)
                .collect();
            let mut moved = moved.to_vec();
            moved.sort_unstable();
            assert_eq!(changed, moved, "router {name}");
        }
    }
}

/// Reads everything that has arrived at an end of a wire.
fn drain(end: &LinkEnd) -> Vec<Vec<u8>> {
    thread_local! { static OWN: (Pool, Ledger) = (
    Pool::new(PoolConfig { clusters: 1024, jumbos: 4 }).unwrap(), Ledger::new()) }
    OWN.with(|(pool, ledger)| {
        let mut frames = Vec::new();
        for queue in 0..end.queues() {
            let Some(mut rx) = end.rx(queue) else { continue };
            loop {
                let mut batch = Batch::new();
                rx.read(&RxCx { pool, ledger }, 256, &mut batch);
                if batch.is_empty() {
                    break;
                }
                frames.extend(batch.iter().map(|m| m.data().to_vec()));
                ledger.end_all(&mut batch, kern::Why::Sink);
            }
        }
        frames
    })
}

fn number_of(frame: &[u8]) -> Option<(u16, u32)> {
    let ip = frame.get(14..)?;
    let udp = ip.get(20..)?;
    let flow = u16::from_be_bytes([*udp.first()?, *udp.get(1)?]).checked_sub(1000)?;
    let number = u32::from_be_bytes(udp.get(8..12)?.try_into().ok()?);
    (ip[9] == 17 && udp[2..4] == [0x07, 0xd0]).then_some((flow, number))
}

#[test]
fn a_packet_crosses_two_routers_and_nothing_else_happens() {
    let mut bed = Bed::new(1, "fine", false, None);
    let before = bed.counts();
    bed.send(&bed.frame(3, 7, 0));
    let one: &[_] = &[
        ("ip.forwarded", 1),
        ("ip.output", 1),
        ("ip.received", 1),
        ("packet.received", 1),
        ("packet.sent", 1),
    ];
    bed.expect(&before, [one, one]);
    let frames = drain(&bed.there);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][..6], HOST_B.0);
    assert_eq!(frames[0][14 + 8], 62, "two hops less");
    assert_eq!(number_of(&frames[0]), Some((3, 7)));
    bed.net.finish();
}

#[test]
fn a_packet_of_a_protected_flow_crosses_the_wire_as_esp() {
    for locking in ["fine", "giant"] {
        let mut bed = Bed::new(1, locking, true, Some(PF));
        bed.net.watch("wan").unwrap().iter().for_each(|end| end.capture(true));
        let before = bed.counts();
        bed.send(&bed.frame(3, 7, 0));
        let sent: &[_] = &[
            ("esp.bytes_out", 60),
            ("esp.out", 1),
            ("ip.forwarded", 0),
            ("ip.output", 1),
            ("ip.received", 1),
            ("packet.received", 1),
            ("packet.sent", 1),
        ];
        let sent: Vec<_> = sent.iter().copied().filter(|(_, n)| *n > 0).collect();
        let got: &[_] = &[
            ("esp.bytes_in", 60),
            ("esp.in", 1),
            ("ip.delivered", 1),
            ("ip.forwarded", 1),
            ("ip.output", 1),
            ("ip.received", 2),
            ("packet.received", 1),
            ("packet.sent", 1),
        ];
        bed.expect(&before, [&sent, got]);
        assert_eq!(bed.arrived(), [(3, 7)]);
        let wire: Vec<_> = bed.net.watch("wan").unwrap().iter().flat_map(LinkEnd::captured).collect();
        assert_eq!(wire.len(), 1);
        assert_eq!(wire[0][14 + 9], 50, "ESP");
        bed.net.finish();
    }
}

#[test]
fn an_expired_packet_is_told_of_and_counted() {
    let mut bed = Bed::new(1, "fine", false, None);
    let before = bed.counts();
    bed.send(&bed.frame(0, 1, 1));
    let told: &[_] = &[
        ("icmp.sent", 1),
        ("ip.output", 1),
        ("ip.received", 1),
        ("ip.ttl", 1),
        ("packet.created", 1),
        ("packet.received", 1),
        ("packet.sent", 1),
    ];
    bed.expect(&before, [told, &[]]);
    bed.net.finish();
}

/// Ethernet frames of the captures in the directory that `SOFTNET_CAPTURES` names (`.ci/captures` fetches those that tcpdump tests
/// itself with); how many they are is printed.
fn captured() -> Vec<Vec<u8>> {
    let Some(folder) = std::env::var_os("SOFTNET_CAPTURES") else {
        println!("SOFTNET_CAPTURES is not set: no captures");
        return vec![];
    };
    let (mut frames, mut captures) = (vec![], 0);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|ext| ext == "pcap")) {
        let Ok(mut capture) = PcapReader::new(std::fs::File::open(path).unwrap()) else { continue };
        if capture.header().datalink != DataLink::ETHERNET {
            continue;
        }
        captures += 1;
        // Some are spoiled themselves: what comes before.
        while let Some(Ok(packet)) = capture.next_raw_packet() {
            if (34..=1600).contains(&packet.data.len()) {
                frames.push(packet.data.into_owned());
            }
        }
    }
    println!("{} frames of {captures} captures", frames.len());
    frames
}

/// A frame that was sound once, of ours or of others.
fn spoiled(bed: &Bed, chance: &mut Chance, captured: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = bed.frame(9, 9, 0);
    if !captured.is_empty() && chance.is(2) {
        let ours = frame[..6].to_vec();
        frame.clone_from(&captured[chance.below(captured.len())]);
        // To one that takes it in.
        frame[..6].copy_from_slice(&ours);
        if chance.is(2) {
            return frame;
        }
    }
    match chance.below(6) {
        0 => frame = (0..chance.below(1600)).map(|_| chance.next() as u8).collect(),
        1 => frame.truncate(chance.below(frame.len())),
        2 => frame[12..14]
            .copy_from_slice(&[[0x86, 0xdd], [0x08, 0x06], [0x81, 0x00], [0x88, 0x64]][chance.below(4)]),
        3 => frame[23] = chance.next() as u8,
        _ => {}
    }
    for _ in 0..chance.below(6) {
        if !frame.is_empty() {
            let at = chance.below(frame.len());
            frame[at] = chance.next() as u8;
        }
    }
    // Half of them with a good checksum, so that they get further.
    if frame.len() > 34 && chance.below(2) == 0 {
        frame[24..26].fill(0);
        let sum = !wire::checksum::fold(wire::checksum::sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

#[test]
fn malformed_frames_panic_nothing_lose_nothing_and_leave_a_good_flow_alone() {
    let total: u32 = if soak() { 1_000_000 } else { 100_000 };
    let mut chance = Chance::seeded(0x5eed_0001);
    let mut bed = Bed::new(1, "fine", true, Some(PF));
    let wan = bed.net.watch("wan").unwrap()[0].clone();
    let mut lost = std::collections::BTreeSet::new();
    let captured = captured();
    for turn in 0..total / 50 {
        for _ in 0..50 {
            let frame = spoiled(&bed, &mut chance, &captured);
            if chance.below(3) == 0 {
                wan.inject(0, &frame);
            } else {
                bed.here.other().inject(0, &frame);
            }
        }
        bed.send(&bed.frame(3, turn, 0));
        lost.insert(turn);
        while bed.net.step() {}
        bed.net.clock.advance(Duration::from_micros(200));
        bed.arrived().iter().filter(|(flow, _)| *flow == 3).for_each(|(_, n)| {
            lost.remove(n);
        });
    }
    bed.net.run_for(Duration::from_secs(70));
    assert!(lost.is_empty(), "the good flow lost {lost:?}");
    drain(&bed.here);
    bed.net.finish();
}

#[test]
fn flows_of_one_tunnel_stay_in_order_through_two_workers_and_a_window_of_32_refuses_none() {
    /// Flows of each direction.
    const FLOWS: usize = 8;
    // Of each direction, which share both gateways and their workers.
    let total: u32 = if soak() { 1_000_000 } else { 15_000 };
    for locking in ["fine", "giant"] {
        let mut bed = Bed::new(2, locking, true, Some(PF));
        let mut chance = Chance::seeded(0x5eed_0001);
        let (mut next, mut seen) = ([[0u32; FLOWS]; 2], [[0u32; FLOWS]; 2]);
        let mut sent = [0; 2];
        while sent.iter().any(|sent| *sent < total) {
            for _ in 0..128 {
                let (host, flow) = (chance.below(2), chance.below(FLOWS));
                let frame = bed.frame_from(host, flow as u16, next[host][flow], 0);
                let end = if host == 0 { &bed.here } else { &bed.there };
                // A device spreads flows over queues by their hash; here by their number.
                assert!(end.other().inject(flow % 2, &frame));
                next[host][flow] += 1;
                sent[host] += 1;
            }
            // Workers take turns as chance has it.
            for _ in 0..chance.below(24) {
                let (router, worker) = (["a", "b"][chance.below(2)], chance.below(2));
                bed.net.with_root(router, |node, root| node.router.step_one(root, worker));
            }
            while bed.net.step() {}
            for (host, end) in [&bed.there, &bed.here].into_iter().enumerate() {
                for (flow, number) in drain(end).iter().filter_map(|f| number_of(f)) {
                    let seen = &mut seen[host][usize::from(flow)];
                    assert_eq!(number, *seen, "host {host}, flow {flow}: out of order or lost, {locking}");
                    *seen += 1;
                }
            }
        }
        assert_eq!(seen, next);
        for router in ["a", "b"] {
            let counts = bed.net.counts(router);
            assert_eq!(counts["esp.replay"], 0);
            assert!(counts["esp.in"] >= u64::from(total), "{router}: {}", counts["esp.in"]);
        }
        bed.net.finish();
    }
}

#[test]
fn nothing_lets_a_packet_of_a_protect_policy_out_in_clear() {
    let mut chance = Chance::seeded(0x5eed_0001);
    let rounds = if soak() { 2000 } else { 100 };
    let mut bed = Bed::new(1, "fine", true, Some(PF));
    bed.net.watch("wan").unwrap().iter().for_each(|end| end.capture(true));
    let conf = gateway("a", 1, 1, "fine");
    let rules = [
        PF,
        "pass no state\n",
        "pass out on wan0 tag x\n",
        "pass quick on lan0\npass\n",
        // A translation that would take the packet out of its policy comes too late.
        "nat on wan0 inet from any to any -> (wan0)\npass\n",
        "match out on wan0 inet nat-to 203.0.113.1\npass\n",
        "binat on wan0 inet from 192.0.2.10 to any -> 203.0.113.1\npass modulate state\n",
    ];
    for round in 0..rounds {
        // Keys come and go, rules change; the policy stays.
        let sas: String =
            IPSEC.lines().filter(|_| chance.below(2) == 0).fold(String::new(), |s, l| s + l + "\n");
        let ipsec = format!("{sas}{OUT_A}");
        let texts = Texts { conf: &conf, pf: Some(rules[chance.below(rules.len())]), ipsec: Some(&ipsec) };
        bed.net.reload("a", texts).unwrap();
        for i in 0..5 {
            bed.send(&bed.frame(i, round, 0));
        }
        bed.net.run_for(Duration::from_millis(5));
    }
    for frame in bed.net.watch("wan").unwrap().iter().flat_map(LinkEnd::captured) {
        if frame[12..14] == [0x08, 0x00] && frame[14 + 9] != 50 {
            let dst = &frame[14 + 16..14 + 20];
            assert_ne!(dst[..3], [198, 51, 100], "in clear on the wire: {frame:x?}");
        }
    }
    let counts = bed.net.counts("a");
    assert!(counts["spd.no_sa"] > 0 && counts["esp.out"] > 0, "both kinds of round happened");
    drain(&bed.there);
    bed.net.finish();
}

#[test]
fn a_steady_state_allocates_nothing() {
    let mut bed = Bed::new(1, "fine", true, Some(PF));
    let frames: Vec<_> = (0..32).map(|i| bed.frame(i, 0, 0)).collect();
    let turn = |bed: &mut Bed| {
        for frame in &frames {
            assert!(bed.send(frame));
        }
        let allocated = allocations(|| while bed.net.step() {});
        bed.net.clock.advance(Duration::from_micros(500));
        (bed.arrived().len(), allocated)
    };
    for _ in 0..200 {
        turn(&mut bed);
    }
    let (mut got, mut allocated) = (0, 0);
    for _ in 0..500 {
        let (arrived, more) = turn(&mut bed);
        got += arrived;
        allocated += more;
    }
    assert_eq!(got, 500 * 32);
    assert_eq!(allocated, 0, "allocations in 500 turns of both routers");
    bed.net.finish();
}
