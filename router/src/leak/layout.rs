//! Where the words are: locks, queues and flags in cache lines of their own, then four words a slot.
//!
//! A slot is what links packets: NetBSD's `m_nextpkt`. Links hold a slot's number plus one; 0 is the null pointer.

use super::memory::At;

/// Words in a cache line.
const LINE: u32 = 16;

/// The null pointer.
pub const NIL: u32 = 0;

/// A queue or list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Q {
    /// `ipintrq`.
    Ip = 0,
    /// `ip6intrq`.
    Ip6 = 1,
    /// `if_snd` without ALTQ.
    IfSnd = 2,
    /// One class of ALTQ: a circular list.
    Class = 3,
    /// pf's fragments.
    Frags = 4,
    /// `crp_q`, requests that a crypto driver has not taken.
    Crp = 5,
    /// `la_hold`, one packet.
    Hold = 6,
}

impl Q {
    /// All of them.
    pub const ALL: [Q; 7] = [Q::Ip, Q::Ip6, Q::IfSnd, Q::Class, Q::Frags, Q::Crp, Q::Hold];

    /// BSD's name.
    pub const fn name(self) -> &'static str {
        match self {
            Q::Ip => "ipintrq",
            Q::Ip6 => "ip6intrq",
            Q::IfSnd => "if_snd",
            Q::Class => "altq class",
            Q::Frags => "pf_fragqueue",
            Q::Crp => "crp_q",
            Q::Hold => "la_hold",
        }
    }

    const fn word(self, n: u32) -> At {
        At((8 + self as u32) * LINE + n)
    }

    /// `ifq_head`; `la_hold` itself.
    pub const fn head(self) -> At {
        self.word(0)
    }

    /// `ifq_tail`; the tail pointer of a circular list.
    pub const fn tail(self) -> At {
        self.word(1)
    }

    /// `ifq_len`.
    pub const fn len(self) -> At {
        self.word(2)
    }

    /// The lock of its own.
    pub const fn lock(self) -> At {
        At((16 + self as u32) * LINE)
    }
}

/// `softnet_lock`.
pub const SOFTNET: At = At(0);
/// `KERNEL_LOCK`.
pub const KERNEL: At = At(LINE);

const fn flag(n: u32) -> At {
    At((24 + n) * LINE)
}

/// What the virtual CPUs are to do: see [`run`](super::run).
pub const PHASE: At = flag(0);
/// Packets the NIC has raised.
pub const RAISED: At = flag(1);
/// What `RAISED` was when the input queue was last seen empty.
pub const SERVED: At = flag(2);
/// What `RAISED` may become in this epoch.
pub const TARGET: At = flag(3);
/// The reference count of the SA (H).
pub const SA_REFS: At = flag(4);
/// The two halves of pf's configuration (J).
pub const RULES: [At; 2] = [flag(5), flag(6)];
/// The crypto driver is at work (G).
pub const HW_BUSY: At = flag(7);
/// `cc_qblocked` (G).
pub const BLOCKED: At = flag(8);
/// Who counts `SA_REFS` as it should be (H).
pub const SA_TRUE: At = flag(9);

/// A lock was not to be had for seconds: everyone stops.
pub const STUCK: At = flag(10);

/// What virtual CPU `cpu` says of itself: 1 parked.
pub const fn idle(cpu: u32) -> At {
    flag(16 + cpu)
}

/// A softint pending on virtual CPU `cpu`.
pub const fn pending(cpu: u32, v6: bool) -> At {
    At((24 + 32 + cpu) * LINE + v6 as u32)
}

/// The most virtual CPUs.
pub const CPUS: usize = 16;

const SLOTS: u32 = (24 + 48) * LINE;

/// Words for this many slots.
pub const fn words(slots: u32) -> usize {
    (SLOTS + slots * 4) as usize
}

/// `m_nextpkt`.
pub const fn next(link: u32) -> At {
    At(SLOTS + (link - 1) * 4)
}

/// [`State`].
pub const fn state(link: u32) -> At {
    At(SLOTS + (link - 1) * 4 + 1)
}

/// The cluster's reference count (X1).
pub const fn refs(link: u32) -> At {
    At(SLOTS + (link - 1) * 4 + 2)
}

/// Where the packet was last, as a number of the path's step.
pub const fn seen(link: u32) -> At {
    At(SLOTS + (link - 1) * 4 + 3)
}

/// Who has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody.
    Free,
    /// A path.
    Owned,
    /// A queue.
    Queued(Q),
}

impl State {
    /// The state word.
    pub const fn word(self) -> u32 {
        match self {
            State::Free => 0,
            State::Owned => 1,
            State::Queued(q) => 16 + q as u32,
        }
    }
}
