//! The router's own ping, TCP and UDP, with a host on a cable and through a tunnel, under virtual time. Every test ends
//! with exact books.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use kern::{
    Mbuf, Owner, Why,
    testing::{Chance, soak},
    time::Duration,
};
use router::{
    control::{
        proto::{EchoReport, Nc, Octets, Ping, RefusalKind, Request, Response},
        socket::{Reply, Session},
    },
    host::Transport,
    iface::link::{LinkConfig, LinkEnd},
    testbed::{
        Control, Party, Testbed, Texts,
        peer::{self, Peer},
    },
};
use std::net::IpAddr;
use wire::{IpProto, Mac, build, ipv4, ipv6};

const ONE: &str = r#"
[router]
name = "one"
workers = 1
clusters = 1024
jumbos = 32
[[interface]]
name = "lan0"
driver = "link"
device = "lan"
address = ["192.0.2.1/24", "2001:db8:a::1/64"]
[[route]]
to = "198.51.100.0/24"
via = "192.0.2.10"
"#;

const ROUTER4: &str = "192.0.2.1";
const ROUTER6: &str = "2001:db8:a::1";
const HOST4: &str = "192.0.2.10";
const HOST6: &str = "2001:db8:a::10";
const ME: Session = Session(1);

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A router, its control thread, and a host.
struct Scene {
    bed: Testbed,
    control: Control,
    peer: Peer,
    heard: Vec<Response>,
}

impl Scene {
    fn new(cable: LinkConfig) -> Scene {
        Scene::with(ONE, cable)
    }

    fn with(conf: &str, cable: LinkConfig) -> Scene {
        let mut bed = Testbed::new();
        bed.cable("lan", cable);
        bed.add(Texts { conf, ..Texts::default() }).unwrap();
        let control = Control::of(&mut bed, "one");
        let host = peer::host(
            [192, 0, 2, 10],
            "2001:db8:a::10".parse().unwrap(),
            "192.0.2.1".parse().unwrap(),
            "2001:db8:a::1".parse().unwrap(),
        );
        let peer = Peer::new(&host, bed.end("lan").unwrap(), &bed.clock.clone());
        let mut scene = Scene { bed, control, peer, heard: Vec::new() };
        // Addresses are checked for duplicates first.
        scene.run(3000);
        scene
    }

    fn run(&mut self, millis: u64) {
        self.bed.run_with(Duration::from_millis(millis), &mut [&mut self.control, &mut self.peer]);
    }

    /// Runs until there is an answer to everything, polling the client's stream now and then.
    fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Scene) -> bool) {
        for _ in 0..20_000 {
            self.run(5);
            self.control.sessions.poll(ME, &mut self.heard);
            if done(self) {
                return;
            }
        }
        panic!(
            "{what} does not come to an end; heard so far: {} answers, last {:?}",
            self.heard.len(),
            self.heard.last()
        );
    }

    fn until_end(&mut self) {
        self.run_until("the stream", |s| s.heard.last() == Some(&Response::End));
    }

    fn ask(&mut self, request: Request) -> Option<Response> {
        let sessions = &mut self.control.sessions;
        match self.bed.with_root("one", |node, _| sessions.handle(ME, request, &node.router)) {
            Ok(Reply::Stream) => None,
            Ok(Reply::Now(response)) => Some(response),
            Err(request) => panic!("{request:?} is not for the host stack"),
        }
    }

    fn ping(&mut self, to: &str, count: u32, size: u16) -> Vec<EchoReport> {
        let ping = Ping { to: addr(to), count: Some(count), interval_ms: 100, size, timeout_ms: 500 };
        assert_eq!(self.ask(Request::Ping(ping)), None);
        self.until_end();
        let echo = |r| match r {
            Response::Echo(echo) => Some(echo),
            _ => None,
        };
        std::mem::take(&mut self.heard).into_iter().filter_map(echo).collect()
    }

    /// Octets that the client was told.
    fn octets(&self) -> Vec<u8> {
        let data = self.heard.iter().filter_map(|r| match r {
            Response::Data(Octets(octets)) => Some(&octets[..]),
            _ => None,
        });
        data.collect::<Vec<_>>().concat()
    }

    /// Says octets as a client does, as far as there is room; gives the rest.
    fn say<'a>(&mut self, mut octets: &'a [u8]) -> &'a [u8] {
        while !octets.is_empty() && self.control.sessions.has_room(ME) {
            let (now, rest) = octets.split_at(octets.len().min(8192));
            assert_eq!(self.ask(Request::Data(Octets(now.to_vec()))), None);
            octets = rest;
        }
        octets
    }

    fn refusal(&self) -> &str {
        match &self.heard[..] {
            [.., Response::Refused(refusal), Response::End] => {
                assert_eq!(refusal.kind, RefusalKind::No);
                &refusal.message
            }
            other => panic!("no refusal: {other:?}"),
        }
    }

    fn is_open(&mut self, transport: Transport, port: u16) -> bool {
        self.bed.node("one").router.shared().host.ports().is_open(transport, port)
    }

    fn finish(self) {
        let Scene { mut bed, control, .. } = self;
        control.end(&mut bed);
        bed.finish();
    }
}

/// Octets no two of which near each other look alike.
fn octets(n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn a_router_answers_the_pings_of_a_host() {
    let mut scene = Scene::new(LinkConfig::default());
    for (to, size) in [(ROUTER4, 56), (ROUTER6, 56), (ROUTER4, 1400), (ROUTER6, 1400)] {
        let id = scene.peer.ping(addr(to), 5, Duration::from_millis(10), size);
        // smoltcp asks for one neighbour a second.
        scene.run(1500);
        let echo = scene.peer.echo(id);
        assert_eq!((echo.sent, echo.received, echo.wrong), (5, 5, 0), "{to} {size}");
    }
    let counts = scene.bed.counts("one");
    assert_eq!(counts["icmp.echo_replies"], 20);
    scene.finish();
}

#[test]
fn a_router_pings_a_host() {
    let mut scene = Scene::new(LinkConfig { delay: Duration::from_millis(3), ..LinkConfig::default() });
    for (to, size) in [(HOST4, 56), (HOST6, 56), (HOST4, 0), (HOST6, 1400)] {
        let echoes = scene.ping(to, 4, size);
        assert_eq!(echoes.len(), 4);
        for (i, echo) in echoes.iter().enumerate() {
            assert_eq!(echo.sequence, i as u32);
            assert_eq!((echo.from.as_deref(), &echo.error, echo.ttl), (Some(to), &None, 64));
            assert_eq!(echo.size, u32::from(size) + 8);
        }
        // The first waits for the neighbour.
        let rtts: Vec<_> = echoes[1..].iter().map(|e| e.rtt_us).collect();
        assert!(rtts.iter().all(|rtt| (6000..7000).contains(rtt)), "{rtts:?}");
    }
    scene.finish();
}

#[test]
fn a_router_pings_itself() {
    let mut scene = Scene::new(LinkConfig::default());
    for to in [ROUTER4, ROUTER6] {
        let echoes = scene.ping(to, 3, 3000);
        assert_eq!(echoes.len(), 3);
        assert!(echoes.iter().all(|e| e.from.as_deref() == Some(to) && e.error.is_none()), "{echoes:?}");
    }
    scene.finish();
}

#[test]
fn link_local_neighbours_and_groups_are_reached_where_the_link_is_clear() {
    let mut scene = Scene::new(LinkConfig::default());
    let host = Mac([2, 0, 192, 0, 2, 10]).link_local();
    let echoes = scene.ping(&host.to_string(), 2, 56);
    assert!(echoes.iter().all(|e| e.from == Some(host.to_string())), "{echoes:?}");
    let echoes = scene.ping("ff02::1", 2, 56);
    assert!(echoes.iter().all(|e| e.from == Some(host.to_string())), "{echoes:?}");

    // Whoever speaks to us from a link is answered there.
    let router = scene.bed.node("one").router.net().named("lan0").unwrap().link_local().unwrap();
    assert_eq!(scene.ask(Request::Nc(Nc { to: None, port: 5001, udp: false })), None);
    assert_eq!(scene.ask(Request::Shut), None);
    scene.peer.connect(router.into(), 5001, 20_000);
    scene.until_end();
    assert_eq!(scene.octets(), peer::stream(20_000));
    scene.finish();

    // With two links it is not clear.
    let two = format!(
        "{ONE}[[interface]]\nname = \"lan1\"\ndriver = \"link\"\ndevice = \"other\"\naddress = [\"2001:db8:c::1/64\"]\n"
    );
    let mut scene = Scene::with(
        &two.replacen("[[route]]\nto = \"198.51.100.0/24\"\nvia = \"192.0.2.10\"\n", "", 1),
        LinkConfig::default(),
    );
    let ping = Ping { to: host.into(), count: Some(1), interval_ms: 1, size: 8, timeout_ms: 1 };
    match scene.ask(Request::Ping(ping)) {
        Some(Response::Refused(refusal)) => {
            assert!(refusal.message.contains("several links"), "{}", refusal.message);
        }
        other => panic!("{other:?}"),
    }
    scene.finish();
}

#[test]
fn no_answer_and_no_way_are_told_apart() {
    let mut scene = Scene::new(LinkConfig::default());
    let echoes = scene.ping("192.0.2.77", 2, 56);
    assert_eq!(
        echoes.iter().map(|e| (e.sequence, e.from.is_some())).collect::<Vec<_>>(),
        [(0, false), (1, false)]
    );
    let ping = |to| Ping { to: addr(to), count: Some(1), interval_ms: 1, size: 8, timeout_ms: 1 };
    for (to, why) in [("203.0.113.1", "no route"), ("0.0.0.0", "nobody")] {
        match scene.ask(Request::Ping(ping(to))) {
            Some(Response::Refused(refusal)) => assert!(refusal.message.contains(why), "{}", refusal.message),
            other => panic!("{to}: {other:?}"),
        }
    }
    // A host that is no router says nothing about what is not for it.
    assert_eq!(scene.ping("198.51.100.7", 1, 56)[0].from, None);
    scene.finish();
}

/// The two gateways that `configs/` describes, on cables in memory.
fn gateway(name: &str) -> (String, String, String) {
    let file = |f: &str| {
        std::fs::read_to_string(format!("{}/../configs/gateway-{name}/{f}", env!("CARGO_MANIFEST_DIR")))
            .unwrap()
    };
    let of_machine = |line: &&str| {
        !["cpus", "control", "pf", "ipsec"].iter().any(|key| line.starts_with(&format!("{key} =")))
    };
    let conf = file("softnet.toml").lines().filter(of_machine).collect::<Vec<_>>().join("\n");
    let conf = conf
        .replace("\"tap\"", "\"link\"")
        .replace(&format!("gw{name}-wan"), "wan")
        .replace("\"gw-a\"", "\"one\"");
    (conf, file("pf.conf"), file("ipsec.conf"))
}

#[test]
fn a_gateway_speaks_through_its_own_tunnel() {
    let mut bed = Testbed::new();
    let passes = "pass out on enc0\npass in on enc0\n";
    for name in ["a", "b"] {
        let (conf, pf, ipsec) = gateway(name);
        let texts = Texts { conf: &conf, pf: Some(&format!("{pf}\n{passes}")), ipsec: Some(&ipsec) };
        bed.add(texts).unwrap();
    }
    let control = Control::of(&mut bed, "one");
    let host = peer::host(
        [198, 51, 100, 10],
        "2001:db8:b::10".parse().unwrap(),
        "198.51.100.1".parse().unwrap(),
        "2001:db8:b::1".parse().unwrap(),
    );
    let peer = Peer::new(&host, bed.end("gwb-lan").unwrap(), &bed.clock.clone());
    let wan = bed.watch("wan").unwrap().clone();
    let mut scene = Scene { bed, control, peer, heard: Vec::new() };
    scene.run(3000);
    for end in &wan {
        end.capture(true);
    }
    // The last two are the other gateway's own: fragments, there and back.
    let pings = [
        ("198.51.100.10", 56, 63),
        ("2001:db8:b::10", 56, 63),
        ("198.51.100.1", 4000, 64),
        ("2001:db8:b::1", 4000, 64),
    ];
    for (to, octets, ttl) in pings {
        let echoes = scene.ping(to, 3, octets);
        assert!(
            echoes.len() == 3 && echoes.iter().all(|e| e.from.as_deref() == Some(to)),
            "{to}: {echoes:?}"
        );
        assert_eq!(echoes[0].ttl, ttl);
    }
    for (to, octets) in [("198.51.100.10", 100_000), ("2001:db8:b::10", 100_000)] {
        let id = scene.peer.listen(5001, octets);
        assert_eq!(scene.ask(Request::Nc(Nc { to: Some(addr(to)), port: 5001, udp: false })), None);
        assert_eq!(scene.ask(Request::Shut), None);
        scene.until_end();
        assert_eq!(scene.octets().len() as u64, octets);
        assert!(scene.peer.bulk(id).is_done());
        scene.heard.clear();
    }
    let protos: std::collections::BTreeMap<u8, u32> = wan.iter().flat_map(LinkEnd::captured).fold(
        std::collections::BTreeMap::default(),
        |mut counts, frame| {
            let ip = wire::parse_frame(&frame).unwrap().ip;
            *counts.entry(ip.map_or(0, |ip| ip.proto.0)).or_default() += 1;
            counts
        },
    );
    // ARP (no IP), ND, ESP.
    assert!(protos.keys().all(|p| [0, 58, 50].contains(p)) && protos[&50] > 200, "{protos:?}");
    scene.finish();
}

#[test]
fn closed_ports_are_refused() {
    let mut scene = Scene::new(LinkConfig::default());
    let id = scene.peer.connect(addr(ROUTER4), 4444, 1);
    let id6 = scene.peer.connect(addr(ROUTER6), 4444, 1);
    scene.run(3000);
    assert!(scene.peer.bulk(id).failed && scene.peer.bulk(id6).failed, "a reset at once");
    scene.peer.send_datagrams(addr(ROUTER4), 4444, 3, 100);
    scene.run(100);
    let counts = scene.bed.counts("one");
    assert_eq!(counts[Why::HostClosed.path()], 5, "{counts:?}");
    assert_eq!(counts["icmp.sent"], 3);

    // The other way: a host's closed ports refuse the router.
    for (to, udp) in [(HOST4, false), (HOST6, false), (HOST4, true), (HOST6, true)] {
        assert_eq!(scene.ask(Request::Nc(Nc { to: Some(addr(to)), port: 9, udp })), None);
        assert_eq!(scene.ask(Request::Data(Octets(b"anyone?".to_vec()))), None);
        scene.until_end();
        let text = scene.refusal();
        assert!(text.contains(if udp { "Port Unreachable" } else { "refused" }), "{text}");
        scene.heard.clear();
    }
    scene.finish();
}

#[test]
fn a_megabyte_goes_both_ways_over_a_lossy_cable() {
    const SIZE: usize = 1 << 20;
    let seed = 7;
    println!("seed {seed}");
    for (name, to, locking) in [("IPv4", HOST4, "fine"), ("IPv6", HOST6, "fine"), ("IPv4", HOST4, "giant")] {
        let cable = LinkConfig { loss: 0.01, delay: Duration::from_millis(1), seed, ..LinkConfig::default() };
        let conf = ONE.replace("workers = 1", &format!("workers = 1\nlocking = \"{locking}\""));
        let mut scene = Scene::with(&conf, cable);
        let id = scene.peer.listen(5001, SIZE as u64);
        assert_eq!(scene.ask(Request::Nc(Nc { to: Some(addr(to)), port: 5001, udp: false })), None);
        // What a host sends shows its place in the stream; what it takes must show it too.
        let stream = peer::stream(SIZE);
        let mut left = &stream[..];
        let mut is_shut = false;
        scene.run_until("the transfer", |scene| {
            left = scene.say(left);
            if left.is_empty() && !is_shut {
                is_shut = true;
                assert_eq!(scene.ask(Request::Shut), None);
            }
            scene.heard.last() == Some(&Response::End)
        });
        assert_eq!(scene.octets(), stream, "{name}: what came");
        let bulk = scene.peer.bulk(id);
        assert_eq!((bulk.received, bulk.intact, bulk.failed), (SIZE as u64, true, false), "{name}");
        assert!(
            matches!(&scene.heard[0], Response::Connected(text) if text.contains(&format!("{to} port 5001")))
        );
        scene.finish();
    }
}

#[test]
fn a_router_awaits_a_connection() {
    let mut scene = Scene::new(LinkConfig::default());
    assert_eq!(scene.ask(Request::Nc(Nc { to: None, port: 5001, udp: false })), None);
    assert!(scene.is_open(Transport::Tcp, 5001));
    let id = scene.peer.connect(addr(ROUTER6), 5001, 100_000);
    assert_eq!(scene.ask(Request::Data(Octets(peer::stream(5000)))), None);
    assert_eq!(scene.ask(Request::Shut), None);
    scene.until_end();
    assert_eq!(scene.octets(), peer::stream(100_000));
    assert_eq!((scene.peer.bulk(id).received, scene.peer.bulk(id).intact), (5000, true));
    // The port stays open for what may still come, then it is free.
    scene.run(30_000);
    assert!(!scene.is_open(Transport::Tcp, 5001));
    scene.finish();
}

#[test]
fn datagrams_go_both_ways() {
    let mut scene = Scene::new(LinkConfig::default());
    assert_eq!(scene.ask(Request::Nc(Nc { to: None, port: 6001, udp: true })), None);
    let id = scene.peer.send_datagrams(addr(ROUTER4), 6001, 50, 700);
    scene.run(200);
    scene.control.sessions.poll(ME, &mut scene.heard);
    assert!(scene.peer.datagrams(id).is_done());
    let numbers: Vec<u32> =
        scene.octets().chunks(700).map(|d| u32::from_be_bytes(*d.first_chunk().unwrap())).collect();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    // An answer finds the sender, in as many datagrams as it takes.
    assert_eq!(scene.ask(Request::Data(Octets(octets(3000)))), None);
    scene.run(100);
    assert_eq!(scene.peer.datagrams(id).received, 3);
    scene.control.sessions.closed(ME);
    scene.run(1);
    assert!(!scene.is_open(Transport::Udp, 6001));
    scene.finish();
}

#[test]
fn a_client_that_hangs_up_resets_its_connection() {
    let mut scene = Scene::new(LinkConfig::default());
    let id = scene.peer.listen(5001, 10_000_000);
    assert_eq!(scene.ask(Request::Nc(Nc { to: Some(addr(HOST4)), port: 5001, udp: false })), None);
    scene.run(50);
    // Nobody takes what comes: the window closes, and nothing is lost or piled up.
    let stuck = scene.peer.bulk(id).sent;
    assert!((100_000..2_000_000).contains(&stuck), "{stuck}");
    scene.run(2000);
    assert_eq!(scene.peer.bulk(id).sent, stuck);
    scene.control.sessions.closed(ME);
    scene.run(50);
    assert!(scene.peer.bulk(id).failed);
    scene.finish();
}

#[test]
fn packets_for_the_stack_that_find_its_queue_full_end_and_are_counted() {
    let mut scene = Scene::new(LinkConfig { capacity: 1024, ..LinkConfig::default() });
    assert_eq!(scene.ask(Request::Nc(Nc { to: None, port: 6001, udp: true })), None);
    scene.run(10);
    scene.peer.send_datagrams(addr(ROUTER4), 6001, 400, 100);
    // The control thread does not get a turn.
    scene.bed.run_with(Duration::from_millis(100), &mut [&mut scene.peer]);
    assert_eq!(scene.bed.counts("one")[Why::HostFull.path()], 400 - 256);
    let books = scene.bed.books("one");
    assert!(books.balanced(), "{books:#?}");
    scene.run(100);
    scene.control.sessions.poll(ME, &mut scene.heard);
    // The socket holds 128.
    assert_eq!(scene.octets().len(), 128 * 100);
    scene.finish();
}

#[test]
fn with_no_buffer_left_the_stack_waits_and_goes_on() {
    let mut scene = Scene::with(&ONE.replace("clusters = 1024", "clusters = 256"), LinkConfig::default());
    let id = scene.peer.listen(5001, 0);
    assert_eq!(scene.ask(Request::Nc(Nc { to: Some(addr(HOST4)), port: 5001, udp: false })), None);
    scene.run(100);
    scene.control.sessions.poll(ME, &mut scene.heard);
    assert!(matches!(&scene.heard[..], [Response::Connected(_)]));
    assert_eq!(scene.ask(Request::Data(Octets(peer::stream(50_000)))), None);
    let pool = scene.bed.node("one").router.shared().pool.clone();
    let all: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc(kern::Class::Cluster, Owner::Control)).collect();
    assert!(all.len() > 128, "{}", all.len());
    scene.run(300);
    let received = scene.peer.bulk(id).received;
    drop(all);
    scene.run(5000);
    assert!(received < 50_000, "it was sent without buffers");
    assert_eq!((scene.peer.bulk(id).received, scene.peer.bulk(id).intact), (50_000, true));
    scene.finish();
}

#[test]
fn an_open_connection_gives_everything_back_when_the_router_stops() {
    let mut scene = Scene::new(LinkConfig::default());
    scene.peer.listen(5001, 1_000_000);
    assert_eq!(scene.ask(Request::Nc(Nc { to: Some(addr(HOST6)), port: 5001, udp: false })), None);
    scene.run(7);
    assert_eq!(scene.ask(Request::Data(Octets(octets(30_000)))), None);
    // A turn of the control thread only: what it sends stays in the queue.
    let Scene { bed, control, .. } = &mut scene;
    assert!(control.turn(bed));
    scene.finish();
}

/// Something for one of these ports that a worker may let through: checksums are right, and hardly anything else.
fn noise(chance: &mut Chance, ports: &[u16]) -> Vec<u8> {
    let proto = chance.one_of(&[6_u8, 6, 6, 17, 17, 1, 58]);
    let len = chance.one_of(&[0, 4, 8, 12, 19, 20, 24, 60, 61, 100, 1000]);
    let mut upper = chance.octets(len);
    if len >= 8 && (proto == 6 || proto == 17) {
        upper[2..4].copy_from_slice(&chance.one_of(ports).to_be_bytes());
    }
    if proto == 17 && len >= 8 && !chance.is(4) {
        upper[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    }
    if proto == 6 && len >= 20 && !chance.is(4) {
        // A header length that fits, and flags that make sense now and then.
        upper[12] = (5 + chance.below((len / 4).min(15) - 4) as u8) << 4;
        upper[13] = chance.one_of(&[2, 16, 18, 4, 1, 17, upper[13]]);
    }
    if proto == 1 && len >= 8 {
        upper[0] = chance.one_of(&[0, 3, 3, 11, 12]);
    }
    let host = chance.below(251) as u8;
    let (mut packet, l4, from_to) = if proto != 58 && chance.is(2) {
        let header = ipv4::Repr {
            src: [192, 0, 2, host].into(),
            dst: [192, 0, 2, 1].into(),
            proto: IpProto(proto),
            ..ipv4::Repr::default()
        };
        (build::raw4(header, &upper), 20, proto != 1 || len >= 8)
    } else {
        let proto = if proto == 1 { 58 } else { proto };
        let header = ipv6::Repr {
            src: format!("2001:db8:a::1:{host:x}").parse().unwrap(),
            dst: ROUTER6.parse().unwrap(),
            next_header: IpProto(proto),
            ..ipv6::Repr::default()
        };
        (build::raw6(header, &upper), 40, true)
    };
    let end = packet.len();
    let proto = IpProto(if l4 == 20 { packet[9] } else { packet[6] });
    if from_to && !chance.is(51) {
        // What is too short for a checksum has none.
        let _ = wire::checksum::transport_fill(&mut packet, l4, end, proto);
    }
    packet
}

#[test]
fn noise_at_open_ports_ends_accounted_for_and_disturbs_no_transfer() {
    const SIZE: usize = 1 << 20;
    let rounds = if soak() { 200_000 } else { 2000 };
    println!("{rounds} rounds of 50 frames");
    let mut chance = Chance::new(11);
    let cable = LinkConfig { delay: Duration::from_micros(300), ..LinkConfig::default() };
    let mut scene = Scene::new(cable);
    let id = scene.peer.connect(addr(ROUTER4), 5001, SIZE as u64);
    assert_eq!(scene.ask(Request::Nc(Nc { to: None, port: 5001, udp: false })), None);
    for (session, port, udp) in [(Session(2), 5002, false), (Session(3), 6001, true)] {
        let Scene { bed, control, .. } = &mut scene;
        let ask = Request::Nc(Nc { to: None, port, udp });
        let reply = bed.with_root("one", |node, _| control.sessions.handle(session, ask, &node.router));
        assert!(matches!(reply, Ok(Reply::Stream)));
    }
    scene.run(10);
    let mac = scene.bed.node("one").router.net().named("lan0").unwrap().mac;
    let router = scene.bed.watch("lan").unwrap()[0].clone();
    let (mut void, mut shut) = (Vec::new(), false);
    for _ in 0..rounds {
        for _ in 0..50 {
            let packet = noise(&mut chance, &[5001, 5002, 6001, 7]);
            router.inject(0, &build::frame(mac, Mac([2, 0, 0, 0, 0, 9]), &packet));
        }
        scene.run(1);
        for session in [Session(2), Session(3)] {
            scene.control.sessions.poll(session, &mut void);
        }
        void.clear();
        let before = scene.heard.len();
        scene.control.sessions.poll(ME, &mut scene.heard);
        // The peer does not wait for our end for as long as there may be noise.
        if !shut && scene.heard.len() > before && scene.octets().len() == SIZE {
            assert_eq!(scene.ask(Request::Shut), None);
            shut = true;
        }
    }
    if !shut {
        assert_eq!(scene.ask(Request::Shut), None);
    }
    scene.until_end();
    assert!(scene.octets() == peer::stream(SIZE));
    assert!(scene.peer.bulk(id).is_done() && !scene.peer.bulk(id).failed);
    let counts = scene.bed.counts("one");
    println!("{:?}", counts.iter().filter(|(_, n)| **n > 0).collect::<Vec<_>>());
    // Less than at first: noise ends the second stream before long.
    assert!(counts["packet.delivered"] > 50 * rounds / 5);
    scene.finish();
}

#[test]
fn there_are_only_so_many_sockets() {
    let mut scene = Scene::new(LinkConfig::default());
    let Scene { bed, control, .. } = &mut scene;
    let mut open = |n: u64, port| {
        let ask = Request::Nc(Nc { to: None, port, udp: n.is_multiple_of(2) });
        bed.with_root("one", |node, _| control.sessions.handle(Session(n), ask, &node.router)).unwrap()
    };
    for n in 0..128 {
        assert!(matches!(open(n, 1000 + n as u16), Reply::Stream), "{n}");
    }
    let refusal = |reply| match reply {
        Reply::Now(Response::Refused(refusal)) => refusal.message,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(open(128, 80)), "too many connections");
    assert_eq!(refusal(open(5, 80)), "a stream is open already");
    for n in 0..128 {
        control.sessions.closed(Session(n));
    }
    scene.run(1);
    assert_eq!(scene.ask(Request::Nc(Nc { to: None, port: 80, udp: true })), None);
    let taken = |scene: &mut Scene, session| {
        let Scene { bed, control, .. } = scene;
        let ask = Request::Nc(Nc { to: None, port: 80, udp: true });
        bed.with_root("one", |node, _| control.sessions.handle(session, ask, &node.router)).unwrap()
    };
    assert_eq!(refusal(taken(&mut scene, Session(2))), "port 80 is in use");
    scene.finish();
}
