//! Ethernet rules (`ether pass|block`): the model, what is compiled of it, and its evaluation. They are a list of their
//! own, looked at before all others; the last that matches decides, and a frame that none matches passes.

mod compile;
mod list;
#[cfg(test)]
mod tests;

pub(crate) use list::Compiled;
pub use list::{Frame, FrameVerdict};

use crate::{
    conf::Pos,
    rule::{AnchorCall, Direction, Dummynet, On, Peer},
};

/// `! 00:11:22:33:44:55/24`, `... & ff:ff:ff:00:00:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacMatch {
    /// Every address but these.
    pub not: bool,
    /// The address.
    pub addr: [u8; 6],
    /// Which of its bits count.
    pub mask: [u8; 6],
}

/// An Ethernet rule.
#[derive(Clone, Debug)]
pub struct EtherRule {
    /// The frame ends; otherwise it goes on.
    pub block: bool,
    /// It calls an anchor instead.
    pub anchor: Option<AnchorCall>,
    /// Which way; none is both.
    pub direction: Option<Direction>,
    /// Evaluation ends here.
    pub quick: bool,
    /// Interface.
    pub on: Option<On>,
    /// Interface it is sent to instead of bridging it.
    pub bridge_to: Option<String>,
    /// EtherType; none is any.
    pub proto: Option<u16>,
    /// Source.
    pub from: Option<MacMatch>,
    /// Destination.
    pub to: Option<MacMatch>,
    /// Source address of the packet within.
    pub l3_from: Peer,
    /// Destination address of the packet within.
    pub l3_to: Peer,
    /// Labels.
    pub labels: Vec<String>,
    /// `ridentifier n`; 0 is none.
    pub ridentifier: u32,
    /// Queue of ALTQ.
    pub queue: Option<String>,
    /// Tag it puts on the frame.
    pub tag: Option<String>,
    /// Tag the frame must have.
    pub tagged: Option<crate::rule::Tagged>,
    /// Pipe or queue of dummynet.
    pub dummynet: Option<Dummynet>,
    /// Where it stood.
    pub at: Pos,
}

impl EtherRule {
    /// `ether pass` without anything else.
    pub fn all(at: Pos) -> EtherRule {
        EtherRule {
            block: false,
            anchor: None,
            direction: None,
            quick: false,
            on: None,
            bridge_to: None,
            proto: None,
            from: None,
            to: None,
            l3_from: Peer::default(),
            l3_to: Peer::default(),
            labels: Vec::new(),
            ridentifier: 0,
            queue: None,
            tag: None,
            tagged: None,
            dummynet: None,
            at,
        }
    }
}

impl PartialEq for EtherRule {
    fn eq(&self, other: &EtherRule) -> bool {
        self.block == other.block
            && self.anchor == other.anchor
            && self.direction == other.direction
            && self.quick == other.quick
            && self.on == other.on
            && self.bridge_to == other.bridge_to
            && self.proto == other.proto
            && self.from == other.from
            && self.to == other.to
            && self.l3_from == other.l3_from
            && self.l3_to == other.l3_to
            && self.labels == other.labels
            && self.ridentifier == other.ridentifier
            && self.queue == other.queue
            && self.tag == other.tag
            && self.tagged == other.tagged
            && self.dummynet == other.dummynet
    }
}

impl Eq for EtherRule {}
