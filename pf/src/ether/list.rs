//! Ethernet rules as they are evaluated (BSD: `pf_test_eth_rule`): the last that matches decides, `quick` at once, and a
//! frame that none matches passes. Each rule has skip steps over seven fields, as other rules have (see
//! [`crate::ruleset`]).
//!
//! What `l3` says is asked of IPv4 and IPv6 alone: as in pf, a frame with anything else in it has no addresses that could
//! be wrong. An address that a rule negates (`l3 from ! 10.0.0.1`) is not that of a frame of the other family.

use std::sync::Arc;

use kern::counter::Counter;

use super::MacMatch;
use crate::{
    IfIndex,
    addr::Family,
    anchor::{Calls, Lists},
    counters::NOBODY,
    eval::Trial,
    pf::Worker,
    rule::Direction,
    ruleset::{AddrTest, Iface, Ruleset},
    slab::RuleSlot,
};

/// The fields that have skip steps, in the order in which they are tested.
const FIELDS: usize = 7;

/// What a rule asks of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Address it is from, in the low 48 bits.
    pub from: u64,
    /// Address it is to.
    pub to: u64,
    /// EtherType of what is in it, behind a tag if it has one.
    pub kind: u16,
    /// Source and destination of the IP packet in it.
    pub within: Option<(Family, u128, u128)>,
    /// The mark that rules have put on it; 0 is none.
    pub tag: u16,
    /// Octets, with the header.
    pub len: u32,
}

impl Frame {
    /// Reads a frame of `len` octets that begins with these; none if it is too short for what it says it is.
    pub fn read(octets: &[u8], tag: u16, len: u32) -> Option<Frame> {
        const TAG: u16 = 0x8100;
        let kind_at = |at: usize| octets.get(at..at + 2).map(|k| u16::from_be_bytes([k[0], k[1]]));
        let (kind, inner) = match kind_at(12)? {
            TAG => (kind_at(16)?, 18),
            kind => (kind, 14),
        };
        let v4 = |at: usize| Some(u128::from(u32::from_be_bytes(*octets.get(inner + at..)?.first_chunk()?)));
        let v6 = |at: usize| Some(u128::from_be_bytes(*octets.get(inner + at..)?.first_chunk()?));
        let within = match kind {
            0x0800 => Some((Family::Inet, v4(12)?, v4(16)?)),
            0x86dd => Some((Family::Inet6, v6(8)?, v6(24)?)),
            _ => None,
        };
        Some(Frame { from: number(octets, 6)?, to: number(octets, 0)?, kind, within, tag, len })
    }
}

/// Six octets as a number.
fn number(octets: &[u8], at: usize) -> Option<u64> {
    let six: &[u8; 6] = octets.get(at..)?.first_chunk()?;
    Some(six.iter().fold(0, |n, &octet| n << 8 | u64::from(octet)))
}

/// Which Ethernet addresses a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MacTest {
    mask: u64,
    value: u64,
    not: bool,
}

impl MacTest {
    pub(crate) fn new(mac: &MacMatch) -> MacTest {
        let all = |octets: [u8; 6]| number(&octets, 0).unwrap_or_default();
        let mask = all(mac.mask);
        MacTest { mask, value: all(mac.addr) & mask, not: mac.not }
    }

    fn matches(self, address: u64) -> bool {
        (address & self.mask == self.value) != self.not
    }
}

/// An Ethernet rule as it is evaluated.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) skip: [u32; FIELDS],
    pub(crate) iface: Iface,
    pub(crate) direction: Option<Direction>,
    pub(crate) kind: Option<u16>,
    pub(crate) from: Option<MacTest>,
    pub(crate) to: Option<MacTest>,
    pub(crate) within_from: AddrTest,
    pub(crate) within_to: AddrTest,
    /// Tag it must have, or must not have.
    pub(crate) tagged: Option<(u16, bool)>,
    pub(crate) quick: bool,
    pub(crate) block: bool,
    /// 0 is none.
    pub(crate) tag: u16,
    /// 0 is none.
    pub(crate) queue: u16,
    pub(crate) slot: RuleSlot,
    pub(crate) counter: u32,
    /// It calls what this number stands for; 0 is no call.
    pub(crate) call: u16,
}

impl Compiled {
    /// The first of the fields with skip steps that does not match.
    fn mismatch(&self, direction: Direction, index: IfIndex, f: &Frame) -> Option<usize> {
        if !self.iface.matches(index) {
            return Some(0);
        }
        if self.direction.is_some_and(|d| d != direction) {
            return Some(1);
        }
        if self.kind.is_some_and(|kind| kind != f.kind) {
            return Some(2);
        }
        if self.from.is_some_and(|mac| !mac.matches(f.from)) {
            return Some(3);
        }
        if self.to.is_some_and(|mac| !mac.matches(f.to)) {
            return Some(4);
        }
        let (family, from, to) = f.within?;
        if !self.within_from.matches(family, from) {
            return Some(5);
        }
        (!self.within_to.matches(family, to)).then_some(6)
    }

    fn same(&self, other: &Compiled, field: usize) -> bool {
        match field {
            0 => self.iface == other.iface,
            1 => self.direction == other.direction,
            2 => self.kind == other.kind,
            3 => self.from == other.from,
            4 => self.to == other.to,
            5 => self.within_from == other.within_from,
            _ => self.within_to == other.within_to,
        }
    }
}

/// Links the skip steps of a list.
pub(crate) fn link(rules: &mut [Compiled]) {
    for i in (0..rules.len()).rev() {
        for field in 0..FIELDS {
            let same =
                rules.get(i + 1).filter(|next| rules[i].same(next, field)).map(|next| next.skip[field]);
            rules[i].skip[field] = same.unwrap_or(i as u32 + 1);
        }
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameVerdict {
    /// It goes on, with this tag, and to this queue unless a later rule names another; 0 is none.
    Pass {
        /// The mark.
        tag: u16,
        /// The queue.
        queue: u16,
    },
    /// It ends.
    Block,
}

impl Ruleset {
    /// Whether there are Ethernet rules.
    #[inline(always)]
    pub fn looks_at_frames(&self) -> bool {
        !self.main.ether.is_empty()
    }

    /// What the Ethernet rules say of a frame, which is counted.
    pub fn test_frame(
        &self,
        worker: &Worker,
        direction: Direction,
        index: IfIndex,
        frame: &Frame,
    ) -> FrameVerdict {
        let (verdict, rule) = self.judge_frame(worker.id, direction, index, frame, &mut |_, _| ());
        if let Some(counts) = rule.and_then(|rule| self.slab().counts(worker.id, rule.slot)) {
            counts.count(direction.index(), 1, frame.len);
        }
        verdict
    }

    /// The same without a count: `tried` hears of every rule that is tried, and the rule that decides is said too.
    pub(crate) fn trace_frame(
        &self,
        direction: Direction,
        index: IfIndex,
        frame: &Frame,
        tried: &mut impl FnMut(RuleSlot, Trial),
    ) -> (FrameVerdict, Option<RuleSlot>) {
        let (verdict, rule) = self.judge_frame(NOBODY, direction, index, frame, tried);
        (verdict, rule.map(|rule| rule.slot))
    }

    fn judge_frame(
        &self,
        worker: usize,
        direction: Direction,
        index: IfIndex,
        frame: &Frame,
        tried: &mut impl FnMut(RuleSlot, Trial),
    ) -> (FrameVerdict, Option<&Compiled>) {
        let pass = FrameVerdict::Pass { tag: frame.tag, queue: 0 };
        if self.skips(direction, index) {
            return (pass, None);
        }
        let mut evaluation =
            Evaluation { calls: &self.calls, worker, direction, index, frame: *frame, decides: None };
        evaluation.run(&self.main, tried);
        let verdict = match evaluation.decides {
            None => pass,
            Some(rule) if rule.block => FrameVerdict::Block,
            Some(rule) => FrameVerdict::Pass { tag: evaluation.frame.tag, queue: rule.queue },
        };
        (verdict, evaluation.decides)
    }
}

struct Evaluation<'r> {
    calls: &'r Calls,
    worker: usize,
    direction: Direction,
    index: IfIndex,
    /// With the tag that rules have put on it so far.
    frame: Frame,
    decides: Option<&'r Compiled>,
}

impl<'r> Evaluation<'r> {
    /// Evaluates the rules of the main ruleset or of an anchor; says whether a `quick` has ended evaluation.
    fn run(&mut self, lists: &'r Arc<Lists>, tried: &mut impl FnMut(RuleSlot, Trial)) -> bool {
        let evaluations: &[Counter] = lists.evaluations_of(self.worker);
        let mut i = 0;
        while let Some(rule) = lists.ether.get(i) {
            if let Some(counter) = evaluations.get(rule.counter as usize) {
                counter.inc();
            }
            if let Some(field) = rule.mismatch(self.direction, self.index, &self.frame) {
                tried(rule.slot, Trial::Field(field));
                i = rule.skip[field] as usize;
                continue;
            }
            i += 1;
            if rule.tagged.is_some_and(|(tag, not)| (tag == self.frame.tag) == not) {
                tried(rule.slot, Trial::Rest);
                continue;
            }
            tried(rule.slot, Trial::Matches);
            if rule.tag != 0 {
                self.frame.tag = rule.tag;
            }
            let ended = if rule.call == 0 {
                self.decides = Some(rule);
                rule.quick
            } else {
                self.call(rule, tried)
            };
            if ended {
                return true;
            }
        }
        false
    }

    /// Evaluates what a rule calls. Depth is bounded: no ruleset is compiled in which an anchor calls itself.
    fn call(&mut self, call: &'r Compiled, tried: &mut impl FnMut(RuleSlot, Trial)) -> bool {
        let before = self.decides.take();
        let calls = self.calls;
        let ended = calls.of(call.call).iter().any(|lists| self.run(lists, tried));
        let decided = self.decides.is_some();
        self.decides = self.decides.or(before);
        ended || (call.quick && decided)
    }
}
