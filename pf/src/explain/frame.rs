//! What Ethernet rules do to the frame that carries the packet asked about: ahead of all others where it comes in, behind
//! them where it leaves. A frame is described by `ether from MAC to MAC`.

use std::collections::HashMap;

use super::{Tried, place, question::Question};
use crate::{
    addr::Family,
    anchor::{self, Kind},
    ether::{EtherRule, Frame, FrameVerdict},
    eval::Trial,
    print,
    ruleset::Ruleset,
    slab::RuleSlot,
};

/// Addresses of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who sends it.
    pub from: [u8; 6],
    /// For whom it is.
    pub to: [u8; 6],
}

/// The fields of Ethernet rules with skip steps, in their order.
const FIELDS: [&str; 7] = [
    "interface",
    "direction",
    "EtherType",
    "Ethernet source",
    "Ethernet destination",
    "source address",
    "destination address",
];

impl Ruleset {
    /// Whether there are Ethernet rules that the question says too little for.
    pub(super) fn frame_is_missing(&self, question: &Question) -> bool {
        let asks = self.looks_at_frames() && !self.skips(question.direction, question.on);
        asks && question.ether.is_none()
    }

    /// What Ethernet rules do to the frame around these octets, which has this tag, and the rules that were tried.
    pub(super) fn explain_frame(
        &self,
        question: &Question,
        packet: &[u8],
        tag: u16,
    ) -> (FrameVerdict, Vec<Tried>) {
        let untouched = (FrameVerdict::Pass { tag, queue: 0 }, Vec::new());
        let Some(ends) = question.ether else { return untouched };
        let kind: [u8; 2] =
            if Family::of(question.from.0) == Family::Inet { [0x08, 0] } else { [0x86, 0xdd] };
        let octets = [&ends.to[..], &ends.from, &kind, packet].concat();
        let Some(frame) = Frame::read(&octets, tag, octets.len() as u32) else { return untouched };
        let mut steps = Vec::new();
        let (verdict, decides) =
            self.trace_frame(question.direction, question.on, &frame, &mut |slot, trial| {
                steps.push((slot, trial));
            });
        (verdict, self.tried_on_frame(&steps, decides))
    }

    fn tried_on_frame(&self, steps: &[(RuleSlot, Trial)], decides: Option<RuleSlot>) -> Vec<Tried> {
        let known = self.ether_by_slot();
        let last = steps.iter().rposition(|(slot, trial)| Some(*slot) == decides && *trial == Trial::Matches);
        let one = |(at, (slot, trial)): (usize, &(RuleSlot, Trial))| {
            let (path, number, rule) = known.get(slot)?;
            Some(Tried {
                anchor: (*path).to_owned(),
                kind: Kind::Filter,
                number: *number,
                text: print::ether(rule),
                place: place(self.conf(), rule.at),
                fails: match *trial {
                    Trial::Matches => None,
                    Trial::Field(field) => FIELDS.get(field).copied(),
                    // Ethernet rules have no limiters that could be full.
                    Trial::Rest | Trial::Full => Some("tag"),
                },
                decides: last == Some(at),
            })
        };
        steps.iter().enumerate().filter_map(one).collect()
    }

    fn ether_by_slot(&self) -> HashMap<RuleSlot, (&str, usize, &EtherRule)> {
        let mut known = HashMap::new();
        for (path, rules) in anchor::sources(self.conf()) {
            for (number, rule) in rules.ether.iter().enumerate() {
                if let Some((slot, _)) = self.counted_ether(path, number) {
                    known.insert(slot, (path, number, rule));
                }
            }
        }
        known
    }
}
