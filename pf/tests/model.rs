//! The state engine against a simple model: a random sequence of packets of UDP, ICMP and TCP flows, of time that passes,
//! of reloads and of flushes.
//!
//! The model knows no sequence windows. Its TCP ends behave: they send what the other end allows and acknowledge what has
//! come, in any order the script draws, across the wrap of sequence numbers. So everything they send must pass, and what a
//! stranger sends blindly must not, and must change nothing. `SOFTNET_SEED` repeats a run, `SOFTNET_SOAK=1` makes it long.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::BTreeSet;

use common::{CLIENT, Conversation, IN, LAN, OUT, SERVER, World, unreachable};
use kern::{
    Why,
    testing::{Chance, soak},
};
use pf::Verdict;
use wire::{build, icmpv4};

const RULES: &str = "block all\npass in on lan0 proto udp keep state\n\
    pass in on lan0 inet proto icmp icmp-type echoreq keep state\n\
    pass in on lan0 proto tcp flags S/SA keep state\n";
/// After this no new states are made.
const NOTHING: &str = "block all\n";
const FLOWS: u16 = 24;

/// One end of a connection that behaves.
#[derive(Clone, Debug, Default)]
struct End {
    /// The next number it sends, and the oldest that it does not know to have arrived.
    next: u32,
    acked: u32,
    /// How far the other end has allowed it.
    edge: u32,
    /// What it allows the other.
    window: u32,
    scale: Option<u8>,
    /// 0: nothing heard of it; 1: its SYN; 2: that is acknowledged; 3: its FIN; 4: that, too.
    level: u8,
}

impl End {
    fn room(&self) -> u32 {
        if self.level == 2 { self.edge.wrapping_sub(self.next).min(1400) } else { 0 }
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Udp { up: u8, down: u8 },
    Icmp,
    Tcp { ends: [End; 2], reset: bool },
}

/// A flow; `last` and `lives` are what its state has, if it has one.
#[derive(Clone, Debug)]
struct Flow {
    port: u16,
    kind: Kind,
    live: bool,
    last: u64,
    lives: u64,
}

/// What the model says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    Blocked,
    Mismatch,
}

struct Play {
    world: World,
    chance: Chance,
    flows: Vec<Flow>,
    makes: bool,
    steps: u64,
    fates: [u64; 3],
}

impl Play {
    fn new(chance: Chance) -> Play {
        let kinds = [Kind::Udp { up: 0, down: 0 }, Kind::Icmp, tcp(), tcp()];
        let flow = |n: u16| Flow {
            port: 1000 + n,
            kind: kinds[usize::from(n) % kinds.len()].clone(),
            live: false,
            last: 0,
            lives: 0,
        };
        let flows = (0..FLOWS).map(flow).collect();
        Play { world: World::new(RULES), chance, flows, makes: true, steps: 0, fates: [0; 3] }
    }

    fn step(&mut self) {
        self.steps += 1;
        match self.chance.below(400) {
            0 => self.wait(),
            1 => self.reload(),
            2 => self.flush(),
            _ => {
                let n = self.chance.below(self.flows.len());
                let mut flow = self.flows[n].clone();
                match flow.kind {
                    Kind::Udp { .. } => self.udp(&mut flow),
                    Kind::Icmp => self.icmp(&mut flow),
                    Kind::Tcp { .. } => self.tcp(&mut flow),
                }
                self.flows[n] = flow;
            }
        }
        if self.steps.is_multiple_of(256) {
            self.compare();
        }
    }

    /// Sends a packet at the LAN, upwards or downwards.
    fn send(&mut self, upwards: bool, octets: &[u8], fate: Fate, what: &str, flow: &Flow) {
        let direction = if upwards { IN } else { OUT };
        let seen = match self.world.verdict(direction, LAN, octets) {
            Verdict::Pass(_) | Verdict::Route(..) | Verdict::Copy(..) => Fate::Passes,
            Verdict::Block(Why::PfStateMismatch) => Fate::Mismatch,
            Verdict::Block(_) | Verdict::Return(..) => Fate::Blocked,
        };
        assert_eq!(seen, fate, "step {}: {what}, upwards {upwards}, of {flow:?}", self.steps);
        self.fates[fate as usize] += 1;
    }

    fn now(&self) -> u64 {
        self.world.now.secs()
    }

    /// A packet of a flow without sequence numbers: passes if there is a state, or if it may make one.
    fn plain(&mut self, flow: &mut Flow, upwards: bool, octets: &[u8], what: &str) -> bool {
        let passes = flow.live || (upwards && self.makes);
        self.send(upwards, octets, if passes { Fate::Passes } else { Fate::Blocked }, what, flow);
        if passes {
            flow.last = self.now();
        }
        passes
    }

    fn udp(&mut self, flow: &mut Flow) {
        let upwards = self.chance.is(2);
        let octets = if upwards {
            build::udp4(CLIENT, SERVER, flow.port, 53, b"q")
        } else {
            build::udp4(SERVER, CLIENT, 53, flow.port, b"a")
        };
        if self.chance.is(8) {
            // An error about what the client has sent, from somebody on the way.
            let about = build::udp4(CLIENT, SERVER, flow.port, 53, b"q");
            let error = unreachable("203.0.113.9".parse().unwrap(), CLIENT, &about);
            let fate = if flow.live { Fate::Passes } else { Fate::Blocked };
            return self.send(false, &error, fate, "an error", flow);
        }
        let was_live = flow.live;
        if !self.plain(flow, upwards, &octets, "a datagram") {
            return;
        }
        let Kind::Udp { up, down } = &mut flow.kind else { return };
        if !was_live {
            (*up, *down, flow.live, flow.lives) = (1, 0, true, 60);
            return;
        }
        let (own, other) = if upwards { (up, down) } else { (down, up) };
        *own = (*own).max(1);
        if *other == 1 {
            *other = 2;
        }
        flow.lives = if (*own, *other) == (2, 2) { 60 } else { 30 };
    }

    fn icmp(&mut self, flow: &mut Flow) {
        let upwards = self.chance.is(2);
        let octets = if upwards {
            build::echo4(CLIENT, SERVER, flow.port, 1, b"ping")
        } else {
            let reply = icmpv4::Repr::EchoReply { ident: flow.port, seq: 1, data: b"ping" };
            build::icmp4(SERVER, CLIENT, &reply)
        };
        let was_live = flow.live;
        if self.plain(flow, upwards, &octets, "an echo") {
            (flow.live, flow.lives) = (true, if was_live { 10 } else { 20 });
        }
    }

    fn tcp(&mut self, flow: &mut Flow) {
        let Kind::Tcp { ends, reset } = &flow.kind else { return };
        let over = *reset || ends.iter().all(|e| e.level == 4);
        match (flow.live, ends[0].level, ends[1].level) {
            (false, ..) => self.stray_or_connect(flow),
            _ if over => self.connect(flow),
            (_, 1, 0) => self.opening(flow),
            (_, 2, 1) => self.segment(flow, 0, ""),
            _ => self.converse(flow),
        }
    }

    /// Without a state nothing passes but a SYN.
    fn stray_or_connect(&mut self, flow: &mut Flow) {
        if self.chance.is(2) {
            return self.connect(flow);
        }
        let upwards = self.chance.is(2);
        let flags = self.chance.one_of(&["A", "SA", "FA", "R", "PA"]);
        let octets = octets(flow.port, upwards, flags, 0, 0, 0);
        self.send(upwards, &octets, Fate::Blocked, "a stray segment", flow);
    }

    fn connect(&mut self, flow: &mut Flow) {
        if !self.makes {
            // A SYN on a state that is over ends it all the same.
            let octets = octets(flow.port, true, "S", 0, 0, 0);
            self.send(true, &octets, Fate::Blocked, "a SYN that no rule passes", flow);
            (flow.live, flow.kind) = (false, tcp());
            return;
        }
        let scaled = self.chance.is(2);
        let mut end = || {
            let scale = (scaled && !self.chance.is(4)).then(|| self.chance.below(9_u8));
            // Numbers that soon wrap are as likely as others.
            let first = if self.chance.is(2) {
                u32::MAX - self.chance.below(5000)
            } else {
                self.chance.next() as u32
            };
            End {
                next: first,
                acked: first,
                edge: first,
                window: 2000 + self.chance.below(60_000),
                scale,
                level: 0,
            }
        };
        let mut ends = [end(), end()];
        if ends[0].scale.is_none() || ends[1].scale.is_none() {
            // The server answers an offer to scale, and makes none; a client's offer stands alone.
            ends[1].scale = None;
        }
        flow.kind = Kind::Tcp { ends, reset: false };
        self.opening(flow);
    }

    /// A SYN, for the first time or again; or the answer to it.
    fn opening(&mut self, flow: &mut Flow) {
        let Kind::Tcp { ends, .. } = &flow.kind else { return };
        let [mut client, mut server] = ends.clone();
        let again = client.level == 1;
        if again && self.chance.is(2) {
            let octets = octets(flow.port, false, &syn("SA", server.scale), server.next, client.next, 0);
            let octets = with_window(octets, server.window);
            self.send(false, &octets, Fate::Passes, "a SYN+ACK", flow);
            server.acked = server.next;
            server.next = server.next.wrapping_add(1);
            (client.level, server.level, client.acked) = (2, 1, client.next);
            client.edge = client.next.wrapping_add(server.window);
            self.moved(flow, [client, server], 30);
            return;
        }
        let seq = client.acked;
        let octets = octets(flow.port, true, &syn("S", client.scale), seq, 0, 0);
        let octets = with_window(octets, client.window);
        self.send(true, &octets, Fate::Passes, "a SYN", flow);
        client.next = seq.wrapping_add(1);
        client.level = 1;
        server.edge = server.next.wrapping_add(1).wrapping_add(client.window);
        flow.live = true;
        self.moved(flow, [client, server], if again { 30 } else { 120 });
    }

    fn converse(&mut self, flow: &mut Flow) {
        let from = self.chance.below(2_usize);
        match self.chance.below(40) {
            0 => self.segment(flow, from, "F"),
            1 => self.reset(flow, from),
            2..=4 => self.blind(flow, from),
            _ => self.segment(flow, from, ""),
        }
    }

    /// An end sends something new, something again, or an acknowledgement; with a FIN if it has sent none.
    fn segment(&mut self, flow: &mut Flow, from: usize, fin: &str) {
        let Kind::Tcp { ends, .. } = &flow.kind else { return };
        let mut ends = ends.clone();
        let scaled = ends.iter().all(|e| e.scale.is_some());
        let (me, other) = (ends[from].clone(), ends[from ^ 1].clone());
        let fin = if me.level == 2 && other.level >= 2 { fin } else { "" };
        let pending = me.next.wrapping_sub(me.acked);
        let again = fin.is_empty() && me.level == 2 && pending > 0 && self.chance.is(4);
        let (seq, len) = if again {
            (me.acked, 1 + self.chance.below(pending.min(1400)))
        } else {
            (me.next, self.chance.below(me.room() + 1))
        };
        let len = if other.level < 1 || (from == 1 && other.level < 2) { 0 } else { len };
        let shift = if scaled { me.scale.unwrap_or(0) } else { 0 };
        let field = me.window.min(0xffff) >> shift;
        let octets = octets(flow.port, from == 0, &format!("{fin}A"), seq, other.next, len as usize);
        let octets = with_window(octets, field);
        self.send(from == 0, &octets, Fate::Passes, "a segment", flow);
        let me = &mut ends[from];
        if !again {
            me.next = me.next.wrapping_add(len + u32::from(!fin.is_empty()));
        }
        if !fin.is_empty() {
            me.level = 3;
        }
        let sent_by_other = other.next;
        let you = &mut ends[from ^ 1];
        you.acked = sent_by_other;
        let edge = sent_by_other.wrapping_add(field << shift);
        if (edge.wrapping_sub(you.edge) as i32) > 0 {
            you.edge = edge;
        }
        you.level = match you.level {
            1 => 2,
            3 => 4,
            level => level,
        };
        let levels = [ends[0].level, ends[1].level];
        let lives = match (levels[0].min(levels[1]), levels[0].max(levels[1])) {
            (4, _) => 90,
            (3, _) => 45,
            (0 | 1, _) => 30,
            (_, 3 | 4) => 900,
            _ => 86_400,
        };
        self.moved(flow, ends, lives);
    }

    fn reset(&mut self, flow: &mut Flow, from: usize) {
        let Kind::Tcp { ends, .. } = &flow.kind else { return };
        let (ends, seq) = (ends.clone(), ends[from].next);
        if ends.iter().any(|e| e.level < 2) {
            return;
        }
        let octets = octets(flow.port, from == 0, "R", seq, 0, 0);
        self.send(from == 0, &octets, Fate::Passes, "a reset", flow);
        self.moved(flow, ends, 90);
        if let Kind::Tcp { reset, .. } = &mut flow.kind {
            *reset = true;
        }
    }

    /// Somebody who does not see the connection.
    fn blind(&mut self, flow: &mut Flow, from: usize) {
        let Kind::Tcp { ends, .. } = &flow.kind else { return };
        if ends.iter().any(|e| e.level < 2) {
            return;
        }
        let (seq, ack) = (ends[from].next, ends[from ^ 1].next);
        let off = 0x0100_0000 + self.chance.below(0xfe00_0000_u32);
        let flags = self.chance.one_of(&["A", "PA", "R", "RA", "FA", "SA"]);
        let seq = seq.wrapping_add(off);
        let octets = octets(flow.port, from == 0, flags, seq, ack, 10);
        self.send(from == 0, &octets, Fate::Mismatch, "a blind segment", flow);
    }

    fn moved(&mut self, flow: &mut Flow, ends: [End; 2], lives: u64) {
        (flow.last, flow.lives) = (self.now(), lives);
        flow.kind = Kind::Tcp { ends, reset: false };
    }

    /// Time passes: a round of the purge or more, so that everything which is over by then has been looked at.
    fn wait(&mut self) {
        let seconds = self.chance.one_of(&[11, 21, 31, 61, 100, 1000, 100_000]);
        self.world.advance(seconds);
        self.world.purge();
        let now = self.now();
        for flow in self.flows.iter_mut().filter(|f| f.live && f.last + f.lives <= now) {
            flow.forget();
        }
        self.compare();
    }

    /// States outlive the rules that made them.
    fn reload(&mut self) {
        self.makes = !self.makes;
        self.world.load(if self.makes { RULES } else { NOTHING });
    }

    fn flush(&mut self) {
        let odd = self.chance.below(2_u16);
        let doomed: Vec<bool> = self.flows.iter().map(|f| f.live && f.port % 2 == odd).collect();
        let killed = self.world.kill(|state| state.wire[0].1 % 2 == odd);
        assert_eq!(killed as usize, doomed.iter().filter(|d| **d).count());
        self.flows.iter_mut().zip(doomed).filter(|(_, d)| *d).for_each(|(f, _)| f.forget());
        self.compare();
    }

    /// The table holds the model's states, with the model's lives, and no others.
    fn compare(&mut self) {
        let now = self.now();
        let states = self.world.states();
        let there: BTreeSet<_> = states.iter().map(|s| (s.wire[0].1, u64::from(s.expires))).collect();
        let left = |f: &&Flow| (f.port, (f.last + f.lives).saturating_sub(now));
        let wanted: BTreeSet<_> = self.flows.iter().filter(|f| f.live).map(|f| left(&f)).collect();
        assert_eq!(there, wanted, "step {}", self.steps);
        assert_eq!(self.world.pf.states().count() as usize, states.len());
    }
}

impl Flow {
    fn forget(&mut self) {
        self.live = false;
        if let Kind::Tcp { .. } = self.kind {
            self.kind = tcp();
        }
    }
}

fn tcp() -> Kind {
    Kind::Tcp { ends: [End::default(), End::default()], reset: false }
}

fn octets(port: u16, upwards: bool, flags: &str, seq: u32, ack: u32, len: usize) -> Vec<u8> {
    let web = Conversation { client_port: port, server_port: 80 };
    if upwards { web.up(flags, seq, ack, 1000, len) } else { web.down(flags, seq, ack, 1000, len) }
}

/// Flags of a SYN with its offer to scale.
fn syn(flags: &str, scale: Option<u8>) -> String {
    scale.map_or_else(|| flags.to_owned(), |s| format!("{flags}w{s}"))
}

/// The same segment with another window; pf does not look at the checksum.
fn with_window(mut octets: Vec<u8>, window: u32) -> Vec<u8> {
    octets[34..36].copy_from_slice(&(window.min(0xffff) as u16).to_be_bytes());
    octets
}

#[test]
fn the_engine_says_of_every_packet_what_the_model_says() {
    let steps = if soak() { 20_000_000 } else { 200_000 };
    let mut play = Play::new(Chance::seeded(0x5eed_0003));
    for _ in 0..steps {
        play.step();
    }
    println!("passed, blocked, mismatched: {:?}", play.fates);
    assert!(play.fates.iter().all(|n| *n > steps / 1000), "{:?}", play.fates);
    play.world.kill(|_| true);
    play.flows.iter_mut().for_each(Flow::forget);
    play.compare();
    play.world.load(NOTHING);
    assert_eq!(play.world.pf.slab().in_use(), 1, "rules of old states are given back");
}
