//! pf, ALTQ and IPsec at once: the combination that lost clusters in NetBSD in March 2013.
//!
//! Traffic of hosts and of the gateways themselves, IPv4 and IPv6, through a tunnel whose ESP is filtered and shaped on the
//! outer interface, while rules, disciplines and keys change. Whatever happens, the books balance, and nothing that the
//! policy protects is on the wire in clear.

use super::bed::{Bed, Datagram, HOST4, HOST6, LAN4, LAN6, NAMES, Seen, Shape, classify, policies, sas};
use kern::{
    testing::{Chance, soak},
    time::Duration,
};
use router::{
    control::{
        proto::{Ping, Request, Response},
        socket::Session,
    },
    testbed::{Control, Party},
};
use std::net::IpAddr;
use wire::build;

/// Rules of the documented order: a packet is seen on `lan0`, on `enc0` without its tunnel, and on `wan0` as ESP.
const ORDER: &str = "
altq on wan0 priq bandwidth 2Mb qlimit 400 queue { voice, esp, other }
queue voice priority 7
queue esp priority 5
queue other priority 1 priq(default)
block all
pass quick inet6 proto icmp6 all icmp6-type { neighbrsol neighbradv } no state
pass on lan0 all
pass in on enc0 all
pass out on enc0 all
pass out on enc0 proto udp to port 2001 queue voice
pass on wan0 proto esp all no state
";

/// Both families on one worker and on two, with locks of either kind; the host's packets come to the last worker.
fn shapes() -> impl Iterator<Item = (bool, Shape)> {
    let locking = [1, 2].into_iter().flat_map(|workers| ["fine", "giant"].map(|locking| (workers, locking)));
    let shapes = locking.map(|(workers, locking)| Shape { workers, locking, ..Shape::default() });
    shapes.flat_map(|shape| [(false, shape.clone()), (true, shape)])
}

/// Packets that went through each class of wan0's queue.
fn classes(bed: &mut Bed, side: usize) -> Vec<(String, u64)> {
    bed.net.with_root(NAMES[side], |node, root| {
        let ifq = node.router.net().named("wan0").unwrap().ifq.clone().unwrap();
        let stats = ifq.stats(&mut root.top());
        stats
            .conf
            .classes
            .iter()
            .zip(&stats.counters)
            .map(|(class, counters)| (class.name.clone(), counters.sent.packets))
            .collect()
    })
}

#[test]
fn the_queue_of_an_inner_packet_is_that_of_its_esp_unless_a_rule_on_the_outside_says_otherwise() {
    for (v6, shape) in shapes() {
        let worker = shape.workers - 1;
        let mut bed = Bed::with_tunnel(shape, Some(ORDER));
        let udp = |port| Datagram { v6, ports: (1000, port), ..Datagram::default() }.packet();
        for port in [2000, 2001] {
            assert!(bed.send(0, worker, &udp(port)));
            bed.run(100);
        }
        let queue =
            |bed: &mut Bed, name: &str| classes(bed, 0).into_iter().find(|(n, _)| n == name).unwrap().1;
        assert_eq!((queue(&mut bed, "voice"), queue(&mut bed, "esp")), (1, 0), "v6: {v6}");
        bed.reload(
            0,
            Some(&(ORDER.to_owned() + "pass out on wan0 proto esp all no state queue esp\n")),
            &(sas(0, "") + &policies(0)),
        );
        let before = queue(&mut bed, "voice");
        assert!(bed.send(0, worker, &udp(2001)));
        bed.run(100);
        assert_eq!((queue(&mut bed, "voice"), queue(&mut bed, "esp")), (before, 1), "v6: {v6}");
        assert_eq!(bed.arrived(1).len(), 3);
        assert_eq!(bed.nothing_in_clear(), 3);
        bed.finish();
    }
}

#[test]
fn pf_sees_a_packet_before_encapsulation_and_its_esp_after_and_the_other_way_round_on_the_way_in() {
    // Each of these rules alone stops the flow, at the place it names and nowhere else.
    let stops = [
        (0, "block in quick on lan0 proto udp\n", 0),
        (0, "block out quick on enc0 proto udp\n", 0),
        (0, "block out quick on wan0 proto esp\n", 0),
        (1, "block in quick on wan0 proto esp\n", 1),
        (1, "block in quick on enc0 proto udp\n", 1),
        (1, "block out quick on lan0 proto udp\n", 1),
    ];
    // And these never match: ESP is not seen on enc0, the inner packet not on wan0, in neither direction.
    let idle =
        "block quick on wan0 proto udp\nblock quick on enc0 proto esp\nblock quick on lan0 proto esp\n";
    for (v6, shape) in shapes() {
        let ipsec = [0, 1].map(|side| sas(0, "") + &policies(side));
        let worker = shape.workers - 1;
        let mut bed = Bed::with_tunnel(shape, Some(ORDER));
        let (head, rules) = ORDER.split_once("block all").unwrap();
        let mut port = 1000;
        for (side, stop, esp) in stops {
            for blocked in [true, false] {
                // A flow that pf does not know yet.
                port += 1;
                let stop = if blocked { stop } else { "" };
                let text = format!("{head}{stop}{idle}block all{rules}");
                bed.reload(side, Some(&text), &ipsec[side]);
                bed.on_the_wire();
                assert!(bed.send(
                    0,
                    worker,
                    &Datagram { v6, ports: (port, 2000), ..Datagram::default() }.packet()
                ));
                bed.run(100);
                let expected = if blocked { esp } else { 1 };
                assert_eq!(bed.nothing_in_clear(), expected, "{stop}");
                assert_eq!(bed.arrived(1).len(), usize::from(!blocked), "{stop}");
            }
        }
        bed.finish();
    }
}

#[test]
fn altq_shapes_esp_by_its_outer_size() {
    for (v6, shape) in shapes() {
        let worker = shape.workers - 1;
        let mut bed = Bed::with_tunnel(shape, Some(ORDER));
        // The gateways find each other.
        assert!(bed.send(0, worker, &Datagram { v6, ..Datagram::default() }.packet()));
        bed.run(500);
        assert_eq!(bed.arrived(1).len(), 1);
        bed.on_the_wire();
        for _ in 0..50 {
            assert!(bed.send(0, worker, &Datagram { v6, len: 1000, ..Datagram::default() }.packet()));
        }
        // The queue sends what it saved up while it was idle at once.
        let start = bed.net.clock.now();
        let mut arrivals = Vec::new();
        while arrivals.len() < 50 {
            bed.run(1);
            let now = bed.net.clock.now();
            arrivals.extend(bed.arrived(1).iter().map(|_| now));
            assert!(now.since(start) < Duration::from_secs(2), "{} arrived", arrivals.len());
        }
        let frames: Vec<usize> =
            bed.on_the_wire().iter().filter(|f| classify(f) == Seen::Esp).map(Vec::len).collect();
        assert_eq!(frames.len(), 50);
        let bits = frames[10..].iter().sum::<usize>() * 8;
        let took = arrivals[49].since(arrivals[9]).as_secs_f64();
        let rate = bits as f64 / took;
        assert!((1.9e6..2.1e6).contains(&rate), "{rate} b/s, v6: {v6}");
        bed.finish();
    }
}

/// Rules that a gateway may get while packets are under way. None may stop the policy.
const RULES: &[&str] = &[
    ORDER,
    "pass no state\n",
    "altq on wan0 hfsc bandwidth 4Mb qlimit 100 queue { q }\nqueue q bandwidth 4Mb hfsc(default)\npass\n",
    "altq on wan0 cbq bandwidth 3Mb queue { q, r }\nqueue q bandwidth 60% cbq(default)\nqueue r bandwidth 40%\n\
     pass\npass out on enc0 inet6 all queue r\n",
    "altq on wan0 fairq bandwidth 3Mb queue { q }\nqueue q fairq(default)\npass\npass out on wan0 proto esp queue q\n",
    // Translations that would take a packet out of its policy come too late, on either interface.
    "nat on wan0 inet from any to any -> (wan0)\nnat on wan0 inet6 from any to any -> (wan0)\npass\n",
    "match out on wan0 inet nat-to 203.0.113.1\npass\n",
    "match out on enc0 inet from 192.0.2.0/24 nat-to 192.0.2.77\npass\n",
    "binat on wan0 inet from 192.0.2.10 to any -> 203.0.113.1\npass modulate state\n",
    "binat on wan0 inet from 198.51.100.10 to any -> 203.0.113.2\nscrub in all\npass\n",
    "rdr on wan0 inet proto udp to any port 2000 -> 192.0.2.10\npass\n",
    "set block-policy return\nblock return out on enc0 proto udp to port 2001\npass\n",
    "block return in on lan0 proto udp to port 2001\npass\nscrub in all no-df\n",
];

/// A gateway's keys: none, one generation, or the next beside it, in either order.
fn keys(chance: &mut Chance, generation: u32) -> String {
    let options = chance.one_of(&["", "-df set", "-df clear", "-r 64"]);
    match chance.below(6) {
        0 => String::new(),
        1 => sas(generation + 1, options) + &sas(generation, options),
        2 | 3 => sas(generation, options) + &sas(generation + 1, options),
        _ => sas(generation, options),
    }
}

/// What setkey may be told meanwhile: SAs that go, come, or are replaced; policies replaced in one input.
fn statements(chance: &mut Chance, policies: &str, round: u32) -> String {
    let fresh = sas(20_000 + round, chance.one_of(&["", "-ps 20 -ph 40", "-lh 1"]));
    match chance.below(6) {
        0 => "flush;".into(),
        1 => "flush;".to_owned() + &keys(chance, round / 40),
        2 => "spdflush;".to_owned() + policies,
        3 => "flush; spdflush;".to_owned() + &sas(round / 40, "") + policies,
        4 => "deleteall 203.0.113.1 203.0.113.2 esp; deleteall 2001:db8:ffff::2 2001:db8:ffff::1 esp;".into(),
        _ => fresh,
    }
}

/// What somebody on a host's wire may send.
fn packet(chance: &mut Chance, from: usize) -> Vec<u8> {
    let v6 = chance.is(2);
    if chance.is(5) {
        // The far gateway answers, out of its own mouth.
        let data = vec![0x42; chance.below(1200)];
        return if v6 {
            build::echo6(HOST6[from], LAN6[1 - from], 7, 1, &data)
        } else {
            build::echo4(HOST4[from], LAN4[1 - from], 7, 1, &data)
        };
    }
    Datagram {
        v6,
        from,
        ports: (1000 + chance.below(16) as u16, 2000 + chance.below(3) as u16),
        len: chance.one_of(&[8, 64, 600, 1300, 1400, 1450]),
        df: chance.is(2),
        ttl: chance.one_of(&[64, 64, 64, 64, 1, 2]),
        class: chance.below(256) as u8,
        fill: None,
    }
    .packet()
}

/// The gateways' own pings through the tunnel.
struct Pings {
    controls: [Control; 2],
    heard: Vec<Response>,
    answered: usize,
}

const ME: Session = Session(1);

impl Pings {
    fn new(bed: &mut Bed) -> Pings {
        let controls = NAMES.map(|name| Control::of(&mut bed.net, name));
        Pings { controls, heard: Vec::new(), answered: 0 }
    }

    /// Begins one if none is under way, and lets all go on.
    fn turn(&mut self, bed: &mut Bed, v6: bool) {
        for (side, control) in self.controls.iter_mut().enumerate() {
            let to = if v6 { IpAddr::V6(LAN6[1 - side]) } else { IpAddr::V4(LAN4[1 - side]) };
            let ping = Ping { to, count: Some(3), interval_ms: 1, size: 100, timeout_ms: 20 };
            // Refused while the one before is under way.
            bed.net.with_root(NAMES[side], |node, _| {
                control.sessions.handle(ME, Request::Ping(ping), &node.router).map(drop).unwrap();
            });
            control.turn(&mut bed.net);
            control.sessions.poll(ME, &mut self.heard);
            let is_answer = |r: &Response| matches!(r, Response::Echo(echo) if echo.error.is_none());
            self.answered += self.heard.drain(..).filter(is_answer).count();
        }
    }

    fn end(self, bed: &mut Bed) {
        self.controls.into_iter().for_each(|control| control.end(&mut bed.net));
    }
}

/// What goes through an ordeal, and what must hold of it.
pub(super) struct Case {
    /// A gateway's policies.
    pub(super) policies: fn(usize) -> String,
    /// What stands in front of the rules, whichever they are.
    pub(super) before_rules: &'static str,
    /// Puts what somebody on a side's wire may send on it, on some queue.
    pub(super) send: fn(&mut Bed, &mut Chance, usize),
    /// Demands that nothing of what is protected has crossed the wire in clear; says how much was ESP.
    pub(super) nothing_in_clear: fn(&Bed) -> usize,
    /// Demands that what has reached a host may have.
    pub(super) may_arrive: fn(&[Vec<u8>]),
}

/// Policies for everything.
const ALL: Case = Case {
    policies,
    before_rules: "",
    send: |bed, chance, side| {
        let packet = packet(chance, side);
        assert!(bed.send(side, chance.below(bed.shape.workers), &packet));
    },
    nothing_in_clear: Bed::nothing_in_clear,
    may_arrive: |_| (),
};

/// Rounds of traffic under changes; says how many frames of ESP there were.
pub(super) fn ordeal(case: &Case, shape: Shape, rounds: u32, chance: &mut Chance) {
    let Case { policies, nothing_in_clear, .. } = *case;
    let (workers, locking) = (shape.workers, shape.locking);
    let with_rules = |rules: &str| case.before_rules.to_owned() + rules;
    let order = with_rules(ORDER);
    let ipsec = [0, 1].map(|side| sas(0, "") + &policies(side));
    let mut bed = Bed::new(shape, [Some(&order); 2], [&ipsec[0], &ipsec[1]]);
    let mut pings = Pings::new(&mut bed);
    let (mut esp, mut got) = (0, 0);
    for round in 0..rounds {
        if chance.is(3) {
            let side = chance.below(2);
            let rules = with_rules(chance.one_of(RULES));
            let ipsec = keys(chance, round / 40) + &policies(side);
            bed.reload(side, (!chance.is(4)).then_some(&rules), &ipsec);
        }
        if chance.is(3) {
            let side = chance.below(2);
            let text = statements(chance, &policies(side), round);
            bed.setkey(side, &text);
        }
        for _ in 0..chance.below(40) {
            let side = chance.below(2);
            (case.send)(&mut bed, chance, side);
        }
        if chance.is(4) {
            pings.turn(&mut bed, round % 2 == 0);
        }
        // Workers take turns as chance has it; time passes, or does not.
        for _ in 0..chance.below(24) {
            let (name, worker) = (NAMES[chance.below(2)], chance.below(workers));
            bed.net.with_root(name, |node, root| node.router.step_one(root, worker));
        }
        if chance.is(2) {
            bed.net.run_for(Duration::from_micros(chance.below(3000) as u64));
        }
        for name in NAMES {
            bed.net.sa_events(name);
        }
        for side in [0, 1] {
            let arrived = bed.arrived(side);
            (case.may_arrive)(&arrived);
            got += arrived.len();
        }
        esp += nothing_in_clear(&bed);
    }
    // With the rules and keys of the beginning, all is as in the beginning.
    for side in [0, 1] {
        bed.reload(side, Some(&order), &(sas(9999, "") + &policies(side)));
    }
    bed.run(5000);
    for side in [0, 1] {
        bed.arrived(side);
    }
    nothing_in_clear(&bed);
    for v6 in [false, true] {
        for from in [0, 1] {
            let packet = Datagram { v6, from, ports: (5000, 2000), ..Datagram::default() }.packet();
            (0..10).for_each(|_| assert!(bed.send(from, 0, &packet)));
            bed.run(200);
            let arrived = bed.arrived(1 - from);
            assert_eq!(arrived.len(), 10, "v6: {v6}, from {from}, {workers} workers, {locking}");
            assert!(arrived.iter().all(|p| p[p.len() - 64..] == packet[packet.len() - 64..]));
        }
    }
    assert_eq!(bed.nothing_in_clear(), 40);
    let answered = pings.answered;
    pings.end(&mut bed);
    let counts = [0, 1].map(|side| bed.counts(side));
    let sum = |name: &str| counts.iter().map(|c| c[name]).sum::<u64>();
    println!(
        "{workers} workers, {locking}: {esp} frames of ESP, {got} packets arrived, {answered} pings answered, \
         {} without SA, {} unknown SPIs",
        sum("spd.no_sa"),
        sum("esp.no_sa")
    );
    assert!(esp > 100 && got > 100 && answered > 0 && sum("spd.no_sa") > 0 && sum("esp.no_sa") > 0);
    bed.finish();
}

#[test]
fn nothing_is_lost_or_in_clear_while_rules_disciplines_and_keys_change_under_traffic() {
    let mut chance = Chance::seeded(0x5eed_2013);
    let rounds = if soak() { 20_000 } else { 250 };
    for workers in [1, 2] {
        for locking in ["fine", "giant"] {
            ordeal(&ALL, Shape { workers, locking, ..Shape::default() }, rounds, &mut chance);
        }
    }
}
