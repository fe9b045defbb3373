//! Route-based tunnels: `ipsec0`.

use super::bed::{Bed, Datagram, HOST4, HOST6, NAMES, Seen, Shape, classify, sas};
use router::{
    conf::{Host, from_text, restart_needed},
    control::setkey::SaEvent,
    testbed::Texts,
};
use std::{net::Ipv4Addr, path::Path};
use wire::build;

const TUNNEL4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 255, 0, 1), Ipv4Addr::new(10, 255, 0, 2)];

/// The tunnel's interface on one side, and the routes into it.
fn tunnel(side: usize) -> String {
    let (own, far) = (side + 1, 2 - side);
    let nets = [("192.0.2.0/24", "2001:db8:a::/64"), ("198.51.100.0/24", "2001:db8:b::/64")];
    let (net4, net6) = nets[1 - side];
    format!(
        "[[interface]]\nname = \"ipsec0\"\ndriver = \"ipsec\"\nlocal = \"203.0.113.{own}\"\nremote = \"203.0.113.{far}\"\n\
         unique = 100\nmtu = 1400\naddress = [\"10.255.0.{own}/30\", \"2001:db8:f0::{own}/64\"]\n\
         [[route]]\nto = \"{net4}\"\nvia = \"10.255.0.{far}\"\n\
         [[route]]\nto = \"{net6}\"\ndev = \"ipsec0\"\n"
    )
}

fn shape() -> Shape {
    Shape { more: [tunnel(0), tunnel(1)], routes: false, ..Shape::default() }
}

fn bed(pf: Option<&str>) -> Bed {
    let keys = sas(0, "-u 100");
    Bed::new(shape(), [pf; 2], [&keys; 2])
}

/// Packets and octets in and out of an interface.
fn traffic(bed: &mut Bed, side: usize, name: &str) -> [u64; 4] {
    let router = &bed.net.node(NAMES[side]).router;
    let index = router.net().named(name).unwrap().index.0;
    router.all_stats().fold([0; 4], |sum, stats| {
        let c = stats.interface(index);
        let own = [c.in_packets.get(), c.in_bytes.get(), c.out_packets.get(), c.out_bytes.get()];
        std::array::from_fn(|i| sum[i] + own[i])
    })
}

#[test]
fn what_is_routed_to_ipsec0_crosses_the_wire_as_esp_and_arrives_on_the_peers() {
    for workers in [1, 2] {
        for locking in ["fine", "giant"] {
            let keys = sas(0, "-u 100");
            let mut bed = Bed::new(Shape { workers, locking, ..shape() }, [None; 2], [&keys; 2]);
            for v6 in [false, true] {
                for from in [0, 1] {
                    let packet = Datagram { v6, from, ..Datagram::default() }.packet();
                    assert!(bed.send(from, 0, &packet));
                    bed.run(20);
                    let got = bed.arrived(1 - from);
                    assert_eq!(got.len(), 1, "v6: {v6}, from {from}");
                    assert_eq!(got[0][got[0].len() - 64..], packet[packet.len() - 64..]);
                }
            }
            assert_eq!(bed.nothing_in_clear(), 4);
            let octets = 28 + 64 + 48 + 64;
            for side in [0, 1] {
                assert_eq!(traffic(&mut bed, side, "ipsec0"), [2, octets, 2, octets]);
            }
            bed.finish();
        }
    }
}

#[test]
fn the_addresses_of_ipsec0_answer_through_the_tunnel() {
    let mut bed = bed(None);
    assert!(bed.send(0, 0, &build::echo4(HOST4[0], TUNNEL4[1], 1, 1, b"hello")));
    assert!(bed.send(0, 0, &build::echo6(HOST6[0], "2001:db8:f0::2".parse().unwrap(), 1, 1, b"hello")));
    bed.run(20);
    let answers = bed.arrived(0);
    assert_eq!(answers.len(), 2);
    assert_eq!((answers[0][20], &answers[0][12..16]), (0, &TUNNEL4[1].octets()[..]));
    assert_eq!(bed.nothing_in_clear(), 4);
    // A hop less, and the one who says so speaks from its end of the tunnel.
    let short = Datagram { ttl: 2, ..Datagram::default() }.packet();
    assert!(bed.send(0, 0, &short));
    bed.run(20);
    let told = bed.arrived(0);
    assert_eq!((told.len(), told[0][20], &told[0][12..16]), (1, 11, &TUNNEL4[1].octets()[..]));
    assert_eq!(bed.nothing_in_clear(), 2);
    bed.finish();
}

#[test]
fn pf_sees_packets_on_ipsec0_both_ways_and_not_on_enc0_too() {
    let base = "pass all no state\nblock quick on enc0 all\n";
    let stops =
        [(0, "block out quick on ipsec0 all\n", 0), (1, "block in quick on ipsec0 all\n", 1), (1, "", 1)];
    for v6 in [false, true] {
        let keys = sas(0, "-u 100");
        let mut bed = bed(Some(base));
        for (side, stop, esp) in stops {
            bed.reload(side, Some(&format!("{base}{stop}")), &keys);
            assert!(bed.send(0, 0, &Datagram { v6, ..Datagram::default() }.packet()));
            bed.run(20);
            assert_eq!(bed.arrived(1).len(), usize::from(stop.is_empty()), "{stop}");
            assert_eq!(bed.nothing_in_clear(), esp, "{stop}");
            bed.reload(side, Some(base), &keys);
        }
        bed.finish();
    }
}

#[test]
fn a_translation_on_ipsec0_is_inside_the_tunnel() {
    let mut bed = bed(None);
    bed.reload(0, Some("match out on ipsec0 inet nat-to (ipsec0)\npass\n"), &sas(0, "-u 100"));
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(20);
    let got = bed.arrived(1);
    assert_eq!((got.len(), &got[0][12..16]), (1, &TUNNEL4[0].octets()[..]));
    // And the answer finds its way back.
    let mut answer = got[0].clone();
    answer[12..16].copy_from_slice(&got[0][16..20]);
    answer[16..20].copy_from_slice(&got[0][12..16]);
    answer[20..22].copy_from_slice(&got[0][22..24]);
    answer[22..24].copy_from_slice(&got[0][20..22]);
    assert!(bed.send(1, 0, &answer));
    bed.run(20);
    let back = bed.arrived(0);
    assert_eq!((back.len(), &back[0][16..20]), (1, &HOST4[0].octets()[..]));
    assert_eq!(bed.nothing_in_clear(), 2);
    bed.finish();
}

#[test]
fn a_packet_larger_than_ipsec0_is_answered_or_fragmented_as_on_any_link() {
    let mut bed = bed(None);
    let big = |v6, df| Datagram { v6, df, len: 1450, ..Datagram::default() }.packet();
    for (packet, v6) in [(big(false, true), false), (big(true, true), true)] {
        assert!(bed.send(0, 0, &packet));
        bed.run(20);
        let told = bed.arrived(0);
        assert_eq!(told.len(), 1);
        let mtu = if v6 { &told[0][46..48] } else { &told[0][26..28] };
        assert_eq!(mtu, 1400u16.to_be_bytes(), "v6: {v6}");
    }
    assert_eq!(bed.nothing_in_clear(), 0);
    assert!(bed.send(0, 0, &big(false, false)));
    bed.run(20);
    assert_eq!(bed.arrived(1).len(), 2);
    assert_eq!(bed.nothing_in_clear(), 2);
    bed.finish();
}

#[test]
fn without_an_sa_nothing_leaves_and_it_is_counted() {
    let mut bed = bed(None);
    bed.reload(0, None, "");
    for v6 in [false, true] {
        assert!(bed.send(0, 0, &Datagram { v6, ..Datagram::default() }.packet()));
    }
    bed.run(20);
    assert_eq!((bed.count(0, "spd.no_sa"), bed.nothing_in_clear()), (2, 0));
    // SAs of another number, or other ends, are not its own.
    bed.reload(0, None, &sas(0, "-u 101"));
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(20);
    assert_eq!((bed.count(0, "spd.no_sa"), bed.nothing_in_clear()), (3, 0));
    // And what comes out of them is nobody's.
    bed.reload(0, None, &sas(0, "-u 100"));
    bed.reload(1, None, &sas(0, "-u 101"));
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(20);
    assert_eq!((bed.count(1, "esp.policy"), bed.arrived(1).len()), (1, 0));
    bed.finish();
}

#[test]
fn a_tunnel_that_is_routed_into_itself_ends_its_packets() {
    let mut shape = shape();
    shape.more[0] += "[[route]]\nto = \"203.0.113.2\"\ndev = \"ipsec0\"\n";
    let keys = sas(0, "-u 100");
    let mut bed = Bed::new(shape, [None; 2], [&keys; 2]);
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(20);
    assert_eq!((bed.count(0, "ip.passes"), bed.nothing_in_clear()), (1, 0));
    bed.finish();
}

#[test]
fn a_reload_adds_and_removes_ipsec0_and_what_needs_a_restart_is_the_rest() {
    let keys = sas(0, "-u 100");
    let mut bed = Bed::new(Shape { routes: false, ..Shape::default() }, [None; 2], [&keys; 2]);
    let send = |bed: &mut Bed| {
        assert!(bed.send(0, 0, &Datagram::default().packet()));
        bed.run(20);
        bed.arrived(1).len()
    };
    assert_eq!(send(&mut bed), 0, "no route");
    for there in [true, false, true] {
        bed.shape.more = if there { [tunnel(0), tunnel(1)] } else { [String::new(), String::new()] };
        (0..2).for_each(|side| bed.reload(side, None, &keys));
        bed.run(10);
        bed.arrived(0);
        assert_eq!(send(&mut bed), usize::from(there));
    }
    bed.nothing_in_clear();
    let conf = |shape: &Shape| from_text(Path::new("softnet.toml"), &shape.conf(0), &Host::this()).unwrap();
    let (without, with) = (conf(&Shape { routes: false, ..Shape::default() }), conf(&shape()));
    assert_eq!(restart_needed(&without, &with), [""; 0]);
    assert_eq!(restart_needed(&with, &without), [""; 0]);
    let in_front = shape().conf(0).replacen(
        "[[interface]]",
        &(tunnel(0).split("[[route]]").next().unwrap().to_owned() + "[[interface]]"),
        1,
    );
    let in_front = in_front.split("[[route]]").next().unwrap();
    let text = in_front.rsplit_once("[[interface]]\nname = \"ipsec0\"").unwrap().0;
    let moved = from_text(Path::new("softnet.toml"), text, &Host::this()).unwrap();
    assert_eq!(restart_needed(&without, &moved).len(), 1, "others would get other numbers");
    bed.finish();
}

#[test]
fn what_a_tunnel_cannot_be_is_refused_with_a_reason() {
    let with = |from: &str, to: &str| {
        let text = shape().conf(0).replace(from, to);
        from_text(Path::new("softnet.toml"), &text, &Host::this()).unwrap_err().to_string()
    };
    for (from, to, complaint) in [
        ("unique = 100\n", "", "a tunnel needs unique"),
        ("local = \"203.0.113.1\"\n", "", "a tunnel needs local"),
        ("remote = \"203.0.113.2\"\n", "", "a tunnel needs remote"),
        ("local = \"203.0.113.1\"", "local = \"203.0.113.9\"", "203.0.113.9 is no address of ours"),
        ("remote = \"203.0.113.2\"", "remote = \"192.0.2.1\"", "192.0.2.1 is no peer"),
        ("remote = \"203.0.113.2\"", "remote = \"2001:db8::2\"", "the ends of a tunnel are of one family"),
        ("unique = 100\n", "unique = 100\ndevice = \"x\"\n", "a tunnel has no device"),
        ("unique = 100\n", "unique = 100\ntag = 5\n", "tag is for VLANs"),
        ("device = \"wan\"\n", "device = \"wan\"\nunique = 5\n", "unique is for tunnels"),
        ("driver = \"ipsec\"", "driver = \"ipsecif\"", "\"ipsec\""),
    ] {
        let said = with(from, to);
        assert!(said.contains(complaint), "{to}: {said}");
    }
    let twice = tunnel(0)
        .split("[[route]]")
        .next()
        .unwrap()
        .replace("ipsec0", "ipsec1")
        .replace("10.255.0.1/30", "10.254.0.1/30");
    let twice = shape().conf(0) + &twice.replace("2001:db8:f0::1/64", "2001:db8:f1::1/64");
    let said = from_text(Path::new("softnet.toml"), &twice, &Host::this()).unwrap_err().to_string();
    assert!(said.contains("ipsec0 is between these ends already"), "{said}");
}

#[test]
fn altq_on_ipsec0_is_refused_and_a_rule_on_ipsec0_says_the_queue_of_its_esp() {
    let keys = sas(0, "-u 100");
    let mut bed = bed(None);
    let conf = bed.shape.conf(0);
    let pf = "altq on ipsec0 priq bandwidth 1Mb queue { q }\nqueue q priq(default)\npass\n";
    let said =
        bed.net.reload("a", Texts { conf: &conf, pf: Some(pf), ipsec: Some(&keys) }).unwrap_err().to_string();
    assert!(said.contains("a tunnel has no line of its own"), "{said}");
    let pf = "altq on wan0 priq bandwidth 1Mb queue { q, r }\nqueue q priq(default)\nqueue r priority 3\n\
              pass\npass out on ipsec0 all queue r\npass out on wan0 all no state\n";
    bed.reload(0, Some(pf), &keys);
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(50);
    assert_eq!(bed.arrived(1).len(), 1);
    let sent = bed.net.with_root("a", |node, root| {
        let ifq = node.router.net().named("wan0").unwrap().ifq.clone().unwrap();
        let stats = ifq.stats(&mut root.top());
        let r = stats.conf.classes.iter().position(|c| c.name == "r").unwrap();
        stats.counters[r].sent.packets
    });
    assert_eq!(sent, 1);
    let frames = bed.on_the_wire();
    assert_eq!(frames.iter().filter(|f| classify(f) == Seen::Esp).count(), 1);
    bed.finish();
}

/// SAs of single workers for `ipsec0` between the gateways, from a to b.
fn of_workers(workers: &[Option<u16>]) -> String {
    let one = |worker: &Option<u16>| {
        let spi = 0x2000 + worker.map_or(0, |n| u32::from(n) + 1);
        let own = worker.map_or_else(String::new, |n| format!("-pcpu-num {n}"));
        format!(
            "add 203.0.113.1 203.0.113.2 esp {spi:#x} -m tunnel -u 100 -r 4 {own} -E aes-gcm-16 0x{spi:040x};\n"
        )
    };
    workers.iter().map(one).collect()
}

#[test]
fn each_worker_asks_for_an_sa_of_ipsec0_of_its_own_as_soon_as_another_has_one() {
    let shape = Shape { workers: 2, ..shape() };
    let both = of_workers(&[None]);
    let mut bed = Bed::new(shape, [None; 2], [&both; 2]);
    // Datagrams by both workers; how many arrive, and which workers ask.
    let send = |bed: &mut Bed| {
        for n in 0..10 {
            for worker in [0, 1] {
                let ports = (1000 + n, 2000 + worker as u16);
                assert!(bed.send(0, worker, &Datagram { ports, ..Datagram::default() }.packet()));
            }
            bed.run(1);
        }
        bed.run(50);
        let one = |event: SaEvent| match event {
            SaEvent::Acquire(acquire) => Some((acquire.worker, acquire.policy, acquire.reqid)),
            _ => None,
        };
        let mut asked: Vec<_> = bed.net.sa_events(NAMES[0]).into_iter().filter_map(one).collect();
        asked.sort_unstable();
        (bed.arrived(1).len(), asked)
    };
    let own = |worker| (Some(worker), 0, 100);
    assert_eq!(send(&mut bed), (20, vec![]), "nobody has one of his own");
    let install = |bed: &mut Bed, text: &str| [1, 0].iter().for_each(|&side| drop(bed.setkey(side, text)));
    install(&mut bed, &of_workers(&[Some(0)]));
    assert_eq!(send(&mut bed), (20, vec![own(1)]), "the other goes on by the one for all");
    assert_eq!(send(&mut bed), (20, vec![]), "and has asked");
    install(&mut bed, &of_workers(&[Some(1)]));
    assert_eq!(send(&mut bed), (20, vec![]));
    // Without one for all a worker's packets end, and it asks for its own.
    bed.run(2000);
    install(
        &mut bed,
        "delete 203.0.113.1 203.0.113.2 esp 0x2000; delete 203.0.113.1 203.0.113.2 esp 0x2001;",
    );
    assert_eq!(send(&mut bed), (10, vec![own(0)]));
    assert_eq!(bed.count(0, "spd.no_sa"), 10);
    bed.run(2000);
    install(&mut bed, "flush;");
    assert_eq!(send(&mut bed), (0, vec![(None, 0, 100)]), "without any they ask for one for all");
    bed.nothing_in_clear();
    bed.finish();
}

#[test]
fn a_tunnel_without_an_sa_asks_for_one() {
    let mut bed = Bed::new(shape(), [None; 2], [""; 2]);
    for _ in 0..20 {
        assert!(bed.send(0, 0, &Datagram::default().packet()));
        bed.run(1);
    }
    let events = bed.net.sa_events(NAMES[0]);
    let [SaEvent::Acquire(asked)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((asked.src.to_string(), asked.dst.to_string()), ("203.0.113.1".into(), "203.0.113.2".into()));
    assert_eq!((&*asked.proto, &*asked.mode, asked.reqid, asked.policy), ("esp", "tunnel", 100, 0));
    assert_eq!(asked.packet_dst.to_string(), HOST4[1].to_string());
    assert!(bed.arrived(1).is_empty());
    for side in [0, 1] {
        bed.setkey(side, &sas(0, "-u 100"));
    }
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(20);
    assert_eq!(bed.arrived(1).len(), 1);
    bed.finish();
}
