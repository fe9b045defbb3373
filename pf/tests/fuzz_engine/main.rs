//! The engine under damaged packets of every kind it knows, of both families and under rules that use all that it does, while
//! rules are reloaded, states killed and purged, and what workers have asked for is settled.
//!
//! Nothing may panic, a good flow beside it loses nothing, and when the states are gone so is everything that hung on them.
//! `SOFTNET_SEED` repeats a run, `SOFTNET_SOAK=1` makes it long.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod rules;
mod seeds;

use common::{
    IN, LAN, OUT, WAN, World,
    either::{BOTH, Party},
};
use kern::{
    Mbuf, PktFlags,
    lock::{Root, levels::PfRules},
    testing::{Chance, soak},
};
use pf::{Direction, IfIndex, Verdict};
use rules::{GOOD, RULES};
use seeds::{Seed, seeds};
use wire::{ipv4, parse};

/// Packets that have left by the WAN, of which the last are remembered: what comes back is made of them.
const REMEMBERED: usize = 16;

struct Play {
    world: World,
    party: Party,
    text: &'static str,
    chance: Chance,
    seeds: Vec<Seed>,
    /// Packets as they have left by the WAN.
    left: Vec<Vec<u8>>,
    /// Packets that were tried, and that passed.
    tried: u64,
    passed: u64,
    good: u32,
}

impl Play {
    fn new(text: &'static str, party: Party, chance: Chance) -> Play {
        let (world, seeds) = (World::new(text), seeds(party));
        Play { world, party, text, chance, seeds, left: Vec::new(), tried: 0, passed: 0, good: 0 }
    }

    fn step(&mut self) {
        match self.chance.below(2000) {
            0 => self.reload(),
            1 => self.kill(),
            2..=5 => self.purge(),
            6..=15 => self.settle(),
            16..=35 => self.good(),
            _ => self.noise(),
        }
    }

    /// A packet that is a little wrong, or right, one way or the other.
    fn noise(&mut self) {
        let mut seed = if !self.left.is_empty() && self.chance.is(3) {
            let about = self.left[self.chance.below(self.left.len())].clone();
            seeds::back(&about, &mut self.chance)
        } else {
            self.seeds[self.chance.below(self.seeds.len())].clone()
        };
        if self.chance.is(8) {
            (seed.direction, seed.index) =
                self.chance.one_of(&[(IN, LAN), (OUT, LAN), (IN, WAN), (OUT, WAN)]);
        }
        damage::damage(&mut seed.octets, &mut self.chance);
        let Some(mut m) = self.packet(&seed.octets) else { return };
        damage::offload(&mut m, &mut self.chance);
        self.tried += 1;
        let passes = self.through(seed.direction, seed.index, &mut m);
        // What comes in on one side leaves by the other.
        if passes && seed.direction == IN {
            self.passed += 1;
            let out = if seed.index == LAN { WAN } else { LAN };
            m.hdr_mut().egress = out.0;
            if self.through(OUT, out, &mut m) && out == WAN && m.len() < 1500 {
                let at = self.chance.below(REMEMBERED);
                self.left.resize(self.left.len().max(at + 1).min(REMEMBERED), m.data().to_vec());
                self.left[at] = m.data().to_vec();
            }
        }
        if self.chance.is(4) {
            self.world.undo(&mut m);
        }
        self.world.fixture.done(m);
        let _ = self.world.outbox();
    }

    /// A packet as `ip_input` gives it to pf, if that takes it at all.
    fn packet(&self, octets: &[u8]) -> Option<Mbuf> {
        let p = parse::parse_ip(octets).ok()?;
        if p.flags.contains(parse::Flags::ROUTING_0) {
            return None;
        }
        let mut m = self.world.packet(&octets[..p.end as usize]);
        m.set_l3(0);
        m.set_l4(p.l4.into());
        let h = m.hdr_mut();
        h.proto = p.proto.0;
        h.rcvif = LAN.0;
        let options = p.flags.contains(parse::Flags::HOP_BY_HOP) || p.flags.contains(parse::Flags::ROUTING);
        let (mut df, mut options) = (true, options);
        if octets[0] >> 4 == 4 {
            df = u16::from_be_bytes([octets[6], octets[7]]) & ipv4::DF != 0;
            options = octets[0] & 15 > 5;
        }
        for (flag, is) in
            [(PktFlags::FRAG, p.is_fragment()), (PktFlags::OPTIONS, options), (PktFlags::DF, df)]
        {
            if is {
                h.flags.set(flag);
            }
        }
        Some(m)
    }

    fn through(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf) -> bool {
        let verdict = self.world.test(direction, index, m);
        matches!(verdict, Verdict::Pass(_) | Verdict::Route(..) | Verdict::Copy(..))
    }

    /// A datagram of a flow that has nothing to do with the rest: it passes, both ways, with what it carries.
    fn good(&mut self) {
        let Party { neighbour, server, .. } = self.party;
        let text = self.good.to_be_bytes();
        let octets = common::either::udp(neighbour, server, GOOD.0, GOOD.1, &text);
        let mut m = self.packet(&octets).unwrap();
        assert!(self.through(IN, LAN, &mut m), "good datagram {} comes in", self.good);
        m.hdr_mut().egress = WAN.0;
        assert!(self.through(OUT, WAN, &mut m), "good datagram {} goes out", self.good);
        assert!(m.data().ends_with(&text));
        let back = seeds::mirror(m.data()).unwrap();
        self.world.fixture.done(m);
        let mut m = self.packet(&back).unwrap();
        assert!(self.through(IN, WAN, &mut m), "the answer to good datagram {} comes in", self.good);
        m.hdr_mut().egress = LAN.0;
        assert!(self.through(OUT, LAN, &mut m), "the answer to good datagram {} goes out", self.good);
        let p = parse::parse_ip(m.data()).unwrap();
        let to = (p.flow(m.data()).dst(), p.dst_port);
        assert_eq!(to, (neighbour, GOOD.0), "it is for the sender");
        assert!(m.data().ends_with(&text));
        self.world.fixture.done(m);
        self.good += 1;
    }

    fn reload(&mut self) {
        // Once in a while the same flow is judged by rules that make nothing.
        let text = if self.chance.is(2) { "pass all no state\n" } else { self.text };
        self.world.load(text);
        if text != self.text {
            for _ in 0..50 {
                self.noise();
            }
            self.world.load(self.text);
        }
    }

    fn kill(&mut self) {
        let odd = self.chance.below(2_u16);
        self.world.kill(|state| state.wire[0].1 % 2 == odd);
    }

    fn purge(&mut self) {
        let seconds = self.chance.one_of(&[1, 10, 31, 61, 100, 1000, 100_000]);
        self.world.advance(seconds);
        self.world.purge();
        // The table must not fill up: the good flow is to find room.
        if self.world.pf.states().count() > 5000 {
            self.world.kill(|_| true);
        }
    }

    fn settle(&mut self) {
        let mut root = Root::claim();
        let mut held = root.top();
        let now = self.world.now.secs();
        assert_eq!(self.world.pf.settle(&mut held.at::<PfRules>(), now).errors, []);
    }

    /// Nothing is left when the states have gone.
    fn end(mut self, slots: usize) {
        self.good();
        self.world.kill(|_| true);
        self.settle();
        self.world.load("block all\n");
        self.world.load(self.text);
        let pf = self.world.pf.clone();
        assert_eq!(pf.states().count(), 0);
        assert_eq!(pf.source_count(), 0, "source nodes");
        {
            let mut root = Root::claim();
            let mut held = root.top();
            assert_eq!(pf.mappings(&mut held.at::<PfRules>()), []);
        }
        assert_eq!(pf.slab().in_use(), slots, "rules of old states are given back");
        let counters = pf.counters();
        assert_eq!(counters.inserts.get(), counters.removals.get(), "states made and gone");
        println!("{} of {} passed, {} states were made", self.passed, self.tried, counters.inserts.get());
        assert!(self.passed > self.tried / 50, "{} of {}", self.passed, self.tried);
        assert!(self.good > 5);
    }
}

fn run(party: Party, name: &str, text: &'static str) {
    let steps = if soak() { 1_000_000 } else { 6_000 };
    println!("{name}, {}", party.word);
    let mut play = Play::new(text, party, Chance::seeded(0x5eed_0f02));
    let slots = play.world.pf.slab().in_use();
    for _ in 0..steps {
        play.step();
    }
    play.end(slots);
}

#[test]
fn damaged_packets_leave_nothing_behind_and_harm_no_other_flow() {
    for party in BOTH {
        for (name, text) in RULES {
            run(party, name, text);
        }
    }
}
