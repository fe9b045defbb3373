//! pf's Ethernet rules: on frames as they came in, before anything else is done with them, and as they leave, with their
//! header on. A tagged frame is judged once, as one of its VLAN's interface, by the type behind the tag.

use crate::{ether, worker::Cx};
use kern::{Batch, Mbuf, Why};
use pf::{Direction, Frame, FrameVerdict, IfIndex, Ruleset};

/// Judges frames that came in.
#[inline(always)]
pub(crate) fn frames_in(cx: &Cx<'_>, batch: &mut Batch) {
    if let Some(rules) = cx.net.pf.as_deref().filter(|rules| rules.looks_at_frames()) {
        judge(cx, rules, Direction::In, batch, |m| match ether::vlan_id(m.data()) {
            None => Some(m.hdr().rcvif),
            Some(id) => cx.net.vlan(m.hdr().rcvif, id),
        });
    }
}

/// Judges frames that leave by the interface their header names.
#[inline(always)]
pub(crate) fn frames_out(cx: &Cx<'_>, batch: &mut Batch) {
    if let Some(rules) = cx.net.pf.as_deref().filter(|rules| rules.looks_at_frames()) {
        judge(cx, rules, Direction::Out, batch, |m| Some(m.hdr().egress));
    }
}

/// Ends what the rules block; the rest gets the tag and the queue they say. A frame of no interface, or too short to say
/// what it is, ends further on for what is wrong with it.
#[cold]
fn judge(
    cx: &Cx<'_>,
    rules: &Ruleset,
    direction: Direction,
    batch: &mut Batch,
    at: impl Fn(&Mbuf) -> Option<u16>,
) {
    batch.sift(|mut m| {
        // Where the header says who sent the packet, its tag is gone already: `PktHdr::set_host`.
        let tag = if m.hdr().host().is_some() { 0 } else { m.hdr().tag };
        let frame = Frame::read(m.data(), tag, m.len() as u32);
        let Some((index, frame)) = at(&m).zip(frame) else { return Some(m) };
        match rules.test_frame(&cx.local.pf, direction, IfIndex(index), &frame) {
            FrameVerdict::Block => {
                m.end(Why::PfEther, &cx.stats.ledger);
                None
            }
            FrameVerdict::Pass { tag, queue } => {
                let hdr = m.hdr_mut();
                if hdr.host().is_none() {
                    hdr.tag = tag;
                }
                if queue != 0 {
                    hdr.queue = queue;
                }
                Some(m)
            }
        }
    });
}
