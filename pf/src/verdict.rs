//! What pf says of a packet, and the proof that it was asked.

use kern::Why;

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
