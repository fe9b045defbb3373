//! What pf says of a packet, and the proof that it was asked.

use kern::Why;
use wire::IpProto;

use crate::{addr::Family, answer, packet::Packet, route::HopId, rule::Reply};

/// Proof that pf has passed a packet, or every packet of a batch. Only pf makes one; whoever transmits or forwards
/// demands it.
#[derive(Debug)]
#[must_use]
pub struct Passed(());

impl Passed {
    #[inline(always)]
    pub(crate) const fn proof() -> Passed {
        Passed(())
    }
}

/// What happens to a packet.
#[derive(Debug)]
#[must_use]
pub enum Verdict {
    /// It goes on.
    Pass(Passed),
    /// It goes on, by this next hop and no other.
    Route(Passed, HopId),
    /// It goes on, and a copy goes by this next hop.
    Copy(Passed, HopId),
    /// It ends here.
    Block(Why),
    /// It ends here, and its sender is told.
    Return(Answer, Why),
}

impl Verdict {
    #[inline(always)]
    pub(crate) const fn pass() -> Verdict {
        Verdict::Pass(Passed::proof())
    }
}

/// What a packet of a batch gets that is not just passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// It does not pass.
    Refused(Refused),
    /// It goes by this next hop.
    Route(HopId),
    /// It goes on, and a copy goes by this next hop.
    Copy(HopId),
}

/// Why a packet of a batch did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason it ends for.
    pub why: Why,
    /// What its sender is told, if anything.
    pub answer: Option<Answer>,
}

/// What the sender of a blocked packet is told. The router sends it with `PktFlags::NO_PF`, back to where the packet
/// came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A TCP reset: [`crate::answer::reset`] writes it.
    Reset(Reset),
    /// An SCTP ABORT: [`crate::answer::abort`] writes it.
    Abort,
    /// ICMP destination unreachable.
    Unreachable {
        /// ICMP code (type 3).
        code: u8,
    },
    /// ICMPv6 destination unreachable.
    Unreachable6 {
        /// ICMPv6 code (type 1).
        code: u8,
    },
}

/// Which kind of reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Time to live; 0 is the router's default.
    pub ttl: u8,
    /// Whether it acknowledges what the packet carried: yes for a blocked packet, no for a wrong answer to a SYN, whose
    /// sender believes its own numbers only.
    pub acknowledge: bool,
}

impl Exception {
    /// What a verdict is for a packet of a batch; none if it passes.
    #[inline(always)]
    pub(crate) fn of(verdict: &Verdict) -> Option<Exception> {
        match *verdict {
            Verdict::Pass(_) => None,
            Verdict::Route(_, hop) => Some(Exception::Route(hop)),
            Verdict::Copy(_, hop) => Some(Exception::Copy(hop)),
            Verdict::Block(why) => Some(Exception::Refused(Refused { why, answer: None })),
            Verdict::Return(answer, why) => Some(Exception::Refused(Refused { why, answer: Some(answer) })),
        }
    }
}

/// What a blocking rule says to the sender of a packet whose `data` begin at the IP header. Resets are never answered with
/// resets, nor ICMP with ICMP.
#[cold]
pub(crate) fn refuse(reply: Reply, p: &Packet, data: &[u8]) -> Verdict {
    if p.fragment {
        return Verdict::Block(Why::PfBlock);
    }
    let is_tcp = IpProto(p.proto) == IpProto::TCP;
    let is_icmp = matches!(IpProto(p.proto), IpProto::ICMP | IpProto::ICMPV6);
    let answer = match reply {
        Reply::Return if is_tcp => reset_for(p, 0),
        Reply::Return if IpProto(p.proto) == IpProto::SCTP => {
            answer::is_to_abort(p, data).map(|_| Answer::Abort)
        }
        Reply::Rst { ttl } if is_tcp => reset_for(p, ttl),
        Reply::Return if !is_icmp => Some(unreachable(p, 3, 4)),
        Reply::Icmp { inet, inet6 } if !is_icmp => Some(unreachable(p, inet, inet6)),
        _ => None,
    };
    match answer {
        Some(answer) => Verdict::Return(answer, Why::PfReturn),
        None => Verdict::Block(Why::PfBlock),
    }
}

fn reset_for(p: &Packet, ttl: u8) -> Option<Answer> {
    const RST: u8 = 0x04;
    (p.tcp.flags & RST == 0).then_some(Answer::Reset(Reset { ttl, acknowledge: true }))
}

fn unreachable(p: &Packet, inet: u8, inet6: u8) -> Answer {
    match p.family {
        Family::Inet => Answer::Unreachable { code: inet },
        Family::Inet6 => Answer::Unreachable6 { code: inet6 },
    }
}
