//! States as the operator sees them: `pfctl -s states`.

use std::{
    fmt::{self, Write},
    net::IpAddr,
    sync::atomic::Ordering::Relaxed,
};

use kern::lock::{Held, levels::PfRules};

use super::{
    States,
    entry::{PEER_SEEN, Phase, State, Tally, WSCALE_MASK, WSCALE_SEEN, flag},
    key::Key,
    other, sctp,
    table::NEVER,
    tcp,
};
use crate::{
    names,
    rule::Direction,
    slab::{RuleSlot, Slot},
};

/// One end of a TCP state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Name of how far it has come.
    pub level: &'static str,
    /// Highest sequence number sent.
    pub seqlo: u32,
    /// Highest allowed by the other end.
    pub seqhi: u32,
    /// Largest window offered.
    pub max_win: u16,
    /// Shift of its windows, if both ends scale.
    pub wscale: Option<u8>,
    /// Whether it has sent anything.
    pub seen: bool,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateInfo {
    /// Number that no other state of this process has.
    pub id: u64,
    /// Whose it is (`set hostid`).
    pub creator: u32,
    /// Protocol.
    pub proto: u8,
    /// Direction of its first packet.
    pub direction: Direction,
    /// The interface it was made at.
    pub ifindex: u16,
    /// Whether it holds for that interface only.
    pub bound: bool,
    /// Source and destination of its first packet, with ports, as on the wire.
    pub wire: [(IpAddr, u16); 2],
    /// The same on the stack's side; different when addresses are translated.
    pub stack: [(IpAddr, u16); 2],
    /// The end that sent the first packet.
    pub src: PeerInfo,
    /// The other end.
    pub dst: PeerInfo,
    /// Seconds since the first packet.
    pub age: u32,
    /// Seconds until it ends if no further packet comes.
    pub expires: u32,
    /// Packets from `src`, from `dst`.
    pub packets: [u64; 2],
    /// IP octets from `src`, from `dst`.
    pub bytes: [u64; 2],
    /// Number of its rule when that was loaded.
    pub rule: Option<u32>,
    /// Number of the rule that translates it, when that was loaded.
    pub nat_rule: Option<u32>,
    /// Number of the call of the anchor that its rule stands in, when that was loaded.
    pub anchor: Option<u32>,
    /// The router that `route-to`, `reply-to` or `dup-to` of its rule has chosen.
    pub gateway: Option<IpAddr>,
    /// Slot of its rule.
    pub slot: RuleSlot,
    /// Only flags drive it.
    pub sloppy: bool,
    /// IP options may pass.
    pub allow_opts: bool,
    /// Tag its packets get; 0 is none.
    pub tag: u16,
    /// Queue its packets go to; 0 is none.
    pub queue: u16,
}

impl States {
    /// All live states, one lock at a time. `now` is in seconds of the workers' clock.
    pub fn dump(&self, held: &mut Held<'_, PfRules>, now: u32) -> Vec<StateInfo> {
        let mut all = Vec::with_capacity(self.count() as usize);
        for slot in 0..self.table.capacity() {
            if self.table.due(slot).is_some_and(|due| due.load(Relaxed) != NEVER) {
                all.extend(self.info(held, slot, now));
            }
        }
        all
    }

    pub(super) fn info(&self, held: &mut Held<'_, PfRules>, slot: u32, now: u32) -> Option<StateInfo> {
        let place = self.table.slot(slot)?;
        let state = {
            let (state, _held) = held.lock(&place.state);
            (state.phase == Phase::Live).then(|| state.clone())?
        };
        let rule = RuleSlot(state.rule);
        let number = self.slab.slot(rule).map(Slot::number);
        let translated = RuleSlot(state.nat);
        let nat_rule = self.slab.slot(translated).map(Slot::number);
        let anchor = self.slab.slot(RuleSlot(state.anchor)).map(Slot::number);
        let treatment = self.slab.treatments.get(u32::from(state.treatment));
        let hop = treatment.and_then(|t| self.slab.next_hop(t.route?.hop));
        let gateway = hop.and_then(|hop| hop.gateway);
        Some(StateInfo {
            creator: self.creators.get(u32::from(state.creator)).copied().unwrap_or(0),
            nat_rule,
            anchor,
            gateway,
            ..state.describe(slot, number, now, self.expiry(&state))
        })
    }
}

impl State {
    fn describe(&self, slot: u32, rule: Option<u32>, now: u32, expiry: u32) -> StateInfo {
        let scaled = self.src.wscale & self.dst.wscale & WSCALE_SEEN != 0;
        let names: &[&'static str] = match self.wire.proto {
            6 => &tcp::level::NAMES,
            132 => &sctp::level::NAMES,
            _ => &other::level::NAMES,
        };
        let peer = |p: &super::entry::PeerState| PeerInfo {
            level: names.get(usize::from(p.level)).copied().unwrap_or("?"),
            seqlo: p.seqlo,
            seqhi: p.seqhi,
            max_win: p.max_win,
            wscale: scaled.then_some(p.wscale & WSCALE_MASK),
            seen: p.wscale & PEER_SEEN != 0,
        };
        StateInfo {
            id: self.id(slot),
            creator: 0,
            proto: self.wire.proto,
            direction: self.direction,
            ifindex: self.ifindex,
            bound: self.has(flag::BOUND),
            wire: ends(&self.wire, self.direction),
            stack: ends(&self.stack, self.stack_direction()),
            src: peer(&self.src),
            dst: peer(&self.dst),
            age: now.saturating_sub(self.created),
            expires: expiry.saturating_sub(now),
            packets: self.packets.map(Tally::get),
            bytes: self.bytes.map(Tally::get),
            rule,
            nat_rule: None,
            anchor: None,
            gateway: None,
            slot: RuleSlot(self.rule),
            sloppy: self.has(flag::SLOPPY),
            allow_opts: self.has(flag::ALLOW_OPTS),
            tag: self.tag,
            queue: self.queue,
        }
    }
}

/// Source and destination of a key, seen from the direction of the first packet.
fn ends(key: &Key, direction: Direction) -> [(IpAddr, u16); 2] {
    let end = |side: usize| (key.family().address(key.bits(side)), key.port[side]);
    match direction {
        Direction::In => [end(0), end(1)],
        Direction::Out => [end(1), end(0)],
    }
}

impl StateInfo {
    /// The source of its first packet, as that was before translation.
    pub fn stack_source(&self) -> IpAddr {
        match self.direction {
            Direction::In => self.wire[0].0,
            Direction::Out => self.stack[0].0,
        }
    }

    /// The line, or with `verbose` the lines, that pfctl prints; `interface` names the interface of a bound state.
    pub fn line(&self, interface: Option<&str>, verbose: bool) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out, interface, verbose);
        out
    }

    fn write(&self, out: &mut String, interface: Option<&str>, verbose: bool) -> fmt::Result {
        out.write_str(if self.bound { interface.unwrap_or("?") } else { "all" })?;
        match names::protocol_name(self.proto) {
            Some(name) => write!(out, " {name} ")?,
            None => write!(out, " {} ", self.proto)?,
        }
        // pfctl puts the router's side first: the destination of what came in, the source of what goes out.
        let (first, second, arrow) = match self.direction {
            Direction::In => (1, 0, "<-"),
            Direction::Out => (0, 1, "->"),
        };
        self.end(out, first)?;
        write!(out, " {arrow} ")?;
        self.end(out, second)?;
        let (left, right) = match self.direction {
            Direction::In => (&self.dst, &self.src),
            Direction::Out => (&self.src, &self.dst),
        };
        match self.proto {
            1 | 58 => out.write_str("       0:0")?,
            _ => write!(out, "       {}:{}", left.level, right.level)?,
        }
        if verbose { self.details(out, left, right) } else { Ok(()) }
    }

    /// An end on the stack's side, and in parentheses as on the wire if that differs.
    fn end(&self, out: &mut String, which: usize) -> fmt::Result {
        address(out, self.stack[which])?;
        if self.stack[which] != self.wire[which] {
            out.write_str(" (")?;
            address(out, self.wire[which])?;
            out.write_str(")")?;
        }
        Ok(())
    }

    fn details(&self, out: &mut String, left: &PeerInfo, right: &PeerInfo) -> fmt::Result {
        if self.proto == 6 {
            out.write_str("\n   ")?;
            window(out, left)?;
            out.write_str("  ")?;
            window(out, right)?;
        }
        write!(out, "\n   age {}, expires in {}", clock(self.age), clock(self.expires))?;
        write!(
            out,
            ", {}:{} pkts, {}:{} bytes",
            self.packets[0], self.packets[1], self.bytes[0], self.bytes[1]
        )?;
        if let Some(anchor) = self.anchor {
            write!(out, ", anchor {anchor}")?;
        }
        if let Some(rule) = self.rule {
            write!(out, ", rule {rule}")?;
        }
        for (set, word) in [(self.allow_opts, "allow-opts"), (self.sloppy, "sloppy")] {
            if set {
                write!(out, ", {word}")?;
            }
        }
        Ok(())
    }
}

fn address(out: &mut String, (addr, port): (IpAddr, u16)) -> fmt::Result {
    match (addr, port) {
        (_, 0) => write!(out, "{addr}"),
        (IpAddr::V4(a), port) => write!(out, "{a}:{port}"),
        (IpAddr::V6(a), port) => write!(out, "{a}[{port}]"),
    }
}

fn window(out: &mut String, p: &PeerInfo) -> fmt::Result {
    write!(out, "[{} + {}]", p.seqlo, p.seqhi.wrapping_sub(p.seqlo))?;
    match p.wscale {
        Some(shift) => write!(out, " wscale {shift}"),
        None => Ok(()),
    }
}

fn clock(seconds: u32) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
