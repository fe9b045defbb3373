//! ALTQ in a whole router, in memory: what pf says of a packet is what happens at the interface. Time is virtual.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use kern::{
    testing::soak,
    time::{Duration, Instant},
};
use router::{
    iface::link::{LinkConfig, LinkEnd},
    testbed::{Testbed, Texts},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use wire::{Mac, build, ipv4, ipv6, tcp, udp};

const INSIDE: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const OUTSIDE: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
const OUTSIDE4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 10);
const ROUTER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 1);

/// A host inside.
fn host4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, n)
}

fn host6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, n.into())
}

/// A datagram to the host outside that says which flow it is of and its number there.
fn datagram(v6: bool, host: u8, flow: u16, number: u32, len: usize) -> Vec<u8> {
    let repr = udp::Repr { src_port: 1000 + flow, dst_port: 2000 };
    let mut payload = vec![0; len - if v6 { 48 } else { 28 }];
    payload[..2].copy_from_slice(&flow.to_be_bytes());
    payload[2..6].copy_from_slice(&number.to_be_bytes());
    payload[6] = host;
    if v6 {
        let ip = ipv6::Repr { src: host6(host), dst: OUTSIDE6, ..ipv6::Repr::default() };
        build::udp6_with(ip, &repr, &payload)
    } else {
        let ip = ipv4::Repr { src: host4(host), dst: OUTSIDE4, ..ipv4::Repr::default() };
        build::udp4_with(ip, &repr, &payload)
    }
}

/// A datagram that came out.
struct Arrived {
    at: Instant,
    flow: u16,
    number: u32,
    host: u8,
    source: IpAddr,
    frame: u64,
}

/// A router with altq on `wan0` and a wire on either side.
struct Bed {
    net: Testbed,
    conf: String,
    inside: LinkEnd,
    outside: LinkEnd,
    macs: [Mac; 2],
    workers: usize,
}

impl Bed {
    fn new(workers: usize, pf: &str) -> Bed {
        let mut net = Testbed::new();
        net.default_link(LinkConfig { queues: [workers; 2], capacity: 4096, ..LinkConfig::default() });
        let (inside, outside) = (net.end("lan").unwrap(), net.end("wan").unwrap());
        let interface = |name: &str, cable: &str, v4: &str, v6: &str| {
            format!(
                "[[interface]]\nname = \"{name}\"\ndriver = \"link\"\ndevice = \"{cable}\"\nqueues = {workers}\n\
                 address = [\"{v4}.1/24\", \"2001:db8:{v6}::1/64\"]\n"
            )
        };
        let conf = format!("[router]\nname = \"r\"\nworkers = {workers}\nclusters = 8192\njumbos = 16\n")
            + &interface("lan0", "lan", "192.0.2", "a")
            + &interface("wan0", "wan", "198.51.100", "b");
        net.add(Texts { conf: &conf, pf: Some(pf), ..Texts::default() }).unwrap();
        let macs = ["lan0", "wan0"].map(|name| net.node("r").router.net().named(name).unwrap().mac);
        net.with_root("r", |node, root| {
            let index = node.router.net().named("wan0").unwrap().index.0;
            let (shared, ledger) = (node.router.shared(), &node.router.own_stats().ledger);
            for addr in [IpAddr::V4(OUTSIDE4), IpAddr::V6(OUTSIDE6)] {
                shared.neighbours.insert_permanent(&mut root.top(), index, addr, OUTSIDE, ledger);
            }
        });
        // Duplicate address detection.
        net.run_for(Duration::from_secs(3));
        let mut bed = Bed { net, conf, inside, outside, macs, workers };
        bed.frames();
        bed
    }

    fn reload(&mut self, pf: &str) {
        self.net.reload("r", Texts { conf: &self.conf, pf: Some(pf), ..Texts::default() }).unwrap();
    }

    /// From inside; a flow's packets come by one queue of the device.
    fn send(&self, flow: u16, packet: &[u8]) {
        let frame = build::frame(self.macs[0], INSIDE, packet);
        assert!(self.inside.other().inject(usize::from(flow) % self.workers, &frame));
    }

    /// From outside.
    fn reply(&self, packet: &[u8]) {
        assert!(self.outside.other().inject(0, &build::frame(self.macs[1], OUTSIDE, packet)));
    }

    fn run(&mut self, micros: u64) {
        self.net.run_for(Duration::from_micros(micros));
    }

    /// What has come out to the host outside.
    fn frames(&mut self) -> Vec<Vec<u8>> {
        let (mut frame, mut frames) = (Vec::new(), Vec::new());
        for queue in 0..self.workers {
            while self.outside.take(queue, &mut frame) {
                if frame[..6] == OUTSIDE.0 {
                    frames.push(frame.clone());
                }
            }
        }
        frames
    }

    fn arrived(&mut self) -> Vec<Arrived> {
        let at = self.net.clock.now();
        let read = |frame: &Vec<u8>| {
            let v6 = frame[12] == 0x86;
            let says = &frame[if v6 { 62 } else { 42 }..];
            let source = if v6 {
                IpAddr::from(<[u8; 16]>::try_from(&frame[22..38]).unwrap())
            } else {
                IpAddr::from(<[u8; 4]>::try_from(&frame[26..30]).unwrap())
            };
            Arrived {
                at,
                flow: u16::from_be_bytes([says[0], says[1]]),
                number: u32::from_be_bytes(says[2..6].try_into().unwrap()),
                host: says[6],
                source,
                frame: frame.len() as u64,
            }
        };
        self.frames().iter().map(read).collect()
    }

    /// Packets that came to each queue of `wan0`; each queue's books must balance.
    fn offered(&mut self) -> BTreeMap<String, u64> {
        self.net.with_root("r", |node, root| {
            let ifq = node.router.net().named("wan0").unwrap().ifq.clone().unwrap();
            let stats = ifq.stats(&mut root.top());
            assert!(stats.counters.iter().all(altq::Counters::balanced));
            let offered = stats.counters.iter().map(|c| c.offered.packets);
            stats.conf.classes.iter().map(|c| c.name.clone()).zip(offered).collect()
        })
    }
}

#[test]
fn cake_is_fair_between_the_hosts_behind_one_translated_address() {
    const NAT: &str = "nat on wan0 inet from 192.0.2.0/24 to any -> 198.51.100.1\n";
    for (word, fair) in [("cake", true), ("fq_codel", false)] {
        let pf = format!(
            "altq on wan0 priq bandwidth 10Mb qlimit 1000 queue {{ q }}\nqueue q priq({word} default)\n{NAT}pass\n"
        );
        let mut bed = Bed::new(1, &pf);
        let mut arrived = Vec::new();
        // One flow of one host, twenty of another; each host has more than the line carries.
        for n in 0..3000_u32 {
            for (host, flow) in [(10, 0), (20, 1 + n % 20), (20, 1 + (n * 7 + 3) % 20)] {
                bed.send(flow as u16, &datagram(false, host, flow as u16, n, 1000));
            }
            bed.run(700);
            arrived.extend(bed.arrived());
        }
        assert!(arrived.iter().all(|a| a.source == ROUTER4), "all were translated");
        let late = &arrived[arrived.len() / 2..];
        let share = late.iter().filter(|a| a.host == 10).count() as f64 / late.len() as f64;
        if fair {
            assert!((share - 0.5).abs() < 0.03, "{word}: {share}");
        } else {
            assert!(share < 0.25, "{word}: {share}");
        }
        bed.offered();
        bed.net.finish();
    }
}

#[test]
fn two_workers_through_one_shaped_interface_keep_the_rate_every_packet_and_each_flow_s_order() {
    const RATE: u64 = 20_000_000;
    const FLOWS: u16 = 32;
    let packets = if soak() { 20_000 } else { 2_000_u32 };
    for scheduler in ["priq", "cbq", "hfsc", "fairq"] {
        let pf = format!(
            "altq on wan0 {scheduler} bandwidth {RATE}b qlimit 4000 queue {{ q }}\nqueue q {scheduler}(default)\npass\n"
        );
        let mut bed = Bed::new(2, &pf);
        let mut arrived = Vec::new();
        for number in 0..packets {
            let flow = number as u16 % FLOWS;
            bed.send(
                flow,
                &datagram(flow.is_multiple_of(3), 10, flow, number, 400 + number as usize * 7 % 1000),
            );
            // Thirty at a time, as long as less waits than the queue holds.
            if number % 30 == 29 {
                while bed.offered()["q"] > arrived.len() as u64 + 3_000 {
                    bed.run(1_000);
                    arrived.extend(bed.arrived());
                }
                bed.run(1_000);
                arrived.extend(bed.arrived());
            }
        }
        while arrived.len() < packets as usize {
            bed.run(1_000);
            let more = bed.arrived();
            assert!(!more.is_empty(), "{scheduler}: {} of {packets} arrived", arrived.len());
            arrived.extend(more);
        }
        for flow in 0..FLOWS {
            let numbers: Vec<u32> = arrived.iter().filter(|a| a.flow == flow).map(|a| a.number).collect();
            assert!(numbers.is_sorted(), "{scheduler}: flow {flow} is out of order");
        }
        // From when the bucket's first burst is gone to the last.
        let first = arrived.iter().position(|a| a.at > arrived[0].at).unwrap();
        let bits: u64 = arrived[first + 1..].iter().map(|a| a.frame * 8).sum();
        let seconds = arrived.last().unwrap().at.since(arrived[first].at).as_secs_f64();
        let rate = bits as f64 / seconds;
        println!("{scheduler}: {:.3} Mb/s", rate / 1e6);
        assert!((rate / RATE as f64 - 1.0).abs() < 0.01, "{scheduler}: {rate} b/s");
        bed.offered();
        bed.net.finish();
    }
}

#[test]
fn forwarded_v4_and_v6_and_the_router_s_own_packets_are_all_shaped_alike() {
    const RATE: f64 = 5e6;
    let pf = "altq on wan0 priq bandwidth 5Mb qlimit 2000 queue { q }\nqueue q priq(default)\npass\n";
    type Packet = fn(u32) -> Vec<u8>;
    let kinds: [(&str, bool, Packet); 4] = [
        ("IPv4", true, |n| datagram(false, 10, 0, n, 1000)),
        ("IPv6", true, |n| datagram(true, 10, 0, n, 1000)),
        ("own IPv4", false, |n| build::echo4(OUTSIDE4, ROUTER4, 7, n as u16, &[0; 972])),
        ("own IPv6", false, |n| build::echo6(OUTSIDE6, ROUTER6, 7, n as u16, &[0; 952])),
    ];
    for (name, forwarded, packet) in kinds {
        let mut bed = Bed::new(1, pf);
        let before = bed.offered()["q"];
        for n in 0..500 {
            if forwarded {
                bed.send(0, &packet(n));
            } else {
                bed.reply(&packet(n));
            }
            bed.run(100);
        }
        let mut arrivals = Vec::new();
        while arrivals.len() < 500 {
            let frames = bed.frames();
            let now = bed.net.clock.now();
            arrivals.extend(frames.iter().filter(|f| f.len() == 1014).map(|_| now));
            bed.run(200);
            assert!(now.secs() < 10, "{name}: {} arrived", arrivals.len());
        }
        let seconds = arrivals[499].since(arrivals[99]).as_secs_f64();
        let rate = 400.0 * 1014.0 * 8.0 / seconds;
        assert!((rate / RATE - 1.0).abs() < 0.01, "{name}: {rate} b/s");
        assert!(bed.offered()["q"] >= before + 500, "{name} went through the queue");
        bed.net.finish();
    }
}

#[test]
fn the_second_of_two_queues_has_empty_acknowledgements_and_what_asks_for_low_delay() {
    let pf = "altq on wan0 priq bandwidth 10Mb queue { bulk, ack, rest }\nqueue bulk\nqueue ack priority 7\n\
              queue rest priority 2 priq(default)\npass\npass out on wan0 proto { tcp udp } to port 2000 queue (bulk, ack)\n";
    for v6 in [false, true] {
        let mut bed = Bed::new(1, pf);
        let segment = |from_inside: bool, flags, seq, ack, tos: u8, payload: &[u8]| {
            let (a, b) = if from_inside { (1000, 2000) } else { (2000, 1000) };
            let repr = tcp::Repr {
                src_port: a,
                dst_port: b,
                seq,
                ack,
                flags,
                window: 60_000,
                ..tcp::Repr::default()
            };
            if v6 {
                let (src, dst) = if from_inside { (host6(10), OUTSIDE6) } else { (OUTSIDE6, host6(10)) };
                let ip = ipv6::Repr { src, dst, traffic_class: tos, ..ipv6::Repr::default() };
                build::tcp6_with(ip, &repr, payload)
            } else {
                let (src, dst) = if from_inside { (host4(10), OUTSIDE4) } else { (OUTSIDE4, host4(10)) };
                let ip = ipv4::Repr { src, dst, tos, ..ipv4::Repr::default() };
                build::tcp4_with(ip, &repr, payload)
            }
        };
        use tcp::Flags;
        let queue_of = |bed: &mut Bed, packet: &[u8]| {
            let before = bed.offered();
            bed.send(0, packet);
            bed.run(5_000);
            let moved = |(name, n): (String, u64)| (n != before[&name]).then_some(name);
            bed.offered().into_iter().filter_map(moved).collect::<Vec<_>>().join(" ")
        };
        // The rule decides on the first packet, the state on all others.
        assert_eq!(queue_of(&mut bed, &segment(true, Flags::SYN, 1, 0, 0, &[])), "bulk", "v6: {v6}");
        bed.reply(&segment(false, Flags::SYN | Flags::ACK, 100, 2, 0, &[]));
        bed.run(5_000);
        assert_eq!(queue_of(&mut bed, &segment(true, Flags::ACK, 2, 101, 0, &[])), "ack", "v6: {v6}");
        assert_eq!(queue_of(&mut bed, &segment(true, Flags::ACK, 2, 101, 0, &[1; 500])), "bulk", "v6: {v6}");
        assert_eq!(
            queue_of(&mut bed, &segment(true, Flags::ACK, 502, 101, 0x10, &[1; 500])),
            "ack",
            "v6: {v6}"
        );
        let mut other = datagram(v6, 10, 0, 1, 200);
        let port = if v6 { 42 } else { 22 };
        other[port..port + 2].copy_from_slice(&2001_u16.to_be_bytes());
        // The checksum is that of the other port; a router does not look.
        assert_eq!(queue_of(&mut bed, &other), "rest", "v6: {v6}");
        bed.net.finish();
    }
}

#[test]
fn another_discipline_at_run_time_loses_nothing_and_states_find_their_queue_by_its_name() {
    let before = "altq on wan0 priq bandwidth 1Mb qlimit 400 queue { a, b }\nqueue a priority 3\nqueue b priq(default)\n\
                  pass\npass out on wan0 proto udp from any port 1001 queue a\n";
    // Other queues before it, another scheduler, and no rule that speaks of it.
    let after = [
        "altq on wan0 hfsc bandwidth 2Mb qlimit 400 queue { z, y, b, a }\nqueue z bandwidth 10%\n\
         queue y bandwidth 10%\nqueue b bandwidth 30% hfsc(default)\nqueue a bandwidth 40%\npass\n",
        "altq on wan0 cbq bandwidth 2Mb qlimit 400 queue { x, a }\nqueue x bandwidth 60% { y, b }\n\
         queue y bandwidth 20%\nqueue b bandwidth 20% cbq(default borrow)\nqueue a bandwidth 30% cbq(borrow)\npass\n",
        "altq on wan0 fairq bandwidth 2Mb qlimit 400 queue { c, b, a }\nqueue c bandwidth 100Kb priority 5\n\
         queue b bandwidth 1Mb priority 2 fairq(default)\nqueue a bandwidth 500Kb\npass\n",
        "altq on wan0 priq bandwidth 2Mb qlimit 400 queue { b, a }\nqueue b priority 9 priq(default)\nqueue a\npass\n",
    ];
    let mut bed = Bed::new(1, before);
    let mut numbers = [0_u32; 2];
    let mut arrived = Vec::new();
    let mut burst = |bed: &Bed, count: u32| {
        for _ in 0..count {
            for flow in [0, 1] {
                bed.send(flow, &datagram(false, 10, flow, numbers[usize::from(flow)], 500));
                numbers[usize::from(flow)] += 1;
            }
        }
        numbers
    };
    let mut sent = [0; 2];
    for pf in after.into_iter().chain([before]) {
        sent = burst(&bed, 60);
        bed.run(20_000);
        arrived.extend(bed.arrived());
        let waiting = u64::from(sent[0] + sent[1]) - arrived.len() as u64;
        assert!(waiting > 50, "{waiting} wait");
        bed.reload(pf);
        // What waited came to the new tree's queues of the same names; what comes now goes by the states.
        let was = bed.offered();
        assert_eq!(was["a"] + was["b"], waiting, "{was:?}");
        assert!(was["a"] > 0 || pf == before, "{was:?}");
        sent = burst(&bed, 1);
        bed.run(1_000);
        let now = bed.offered();
        assert_eq!((now["a"] - was["a"], now["b"] - was["b"]), (1, 1), "{pf}");
        arrived.extend(bed.arrived());
    }
    bed.run(10_000_000);
    arrived.extend(bed.arrived());
    for flow in [0, 1] {
        let numbers: Vec<u32> = arrived.iter().filter(|a| a.flow == flow).map(|a| a.number).collect();
        assert_eq!(numbers, (0..sent[usize::from(flow)]).collect::<Vec<_>>(), "flow {flow}");
    }
    bed.net.finish();
}
