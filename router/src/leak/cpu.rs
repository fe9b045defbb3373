//! A virtual CPU: an OS thread, its interrupt level, the locks it holds, what it has counted.
//!
//! `splnet` masks interrupts on *this* CPU and keeps nobody else out. So that this means something, the NIC's interrupt is
//! delivered nested, on the same thread, at preemption points where the level is low.

use super::{freight::Freight, world::Parcel};

/// What a virtual CPU has counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Packets that the NIC or the host raised.
    pub raised: u64,
    /// Packets sent by the device.
    pub sent: u64,
    /// Packets delivered.
    pub delivered: u64,
    /// Packets refused by a full queue.
    pub qfull: u64,
    /// Queue nodes in the wrong state.
    pub corrupt: u64,
    /// Spliced queues that ended early: a batch is lost with each.
    pub incidents: u64,
    /// Epochs that ended with a queue empty and full.
    pub jammed: u64,
    /// Verdicts by half a ruleset (J), references too many or too few (H).
    pub odd: u64,
    /// The pool was empty.
    pub exhausted: bool,
    /// Softnet and Kernel taken.
    pub taken: [u64; 2],
    /// ... with a wait, and how long in all.
    pub waited: [u64; 2],
    /// Nanoseconds waited.
    pub wait_ns: [u64; 2],
    /// Holds that were timed, and for how long.
    pub timed: [u64; 2],
    /// Nanoseconds held in those.
    pub hold_ns: [u64; 2],
}

impl Counts {
    /// Adds another's.
    pub fn add(&mut self, other: &Counts) {
        self.raised += other.raised;
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.qfull += other.qfull;
        self.corrupt += other.corrupt;
        self.incidents += other.incidents;
        self.jammed += other.jammed;
        self.odd += other.odd;
        self.exhausted |= other.exhausted;
        for n in 0..2 {
            self.taken[n] += other.taken[n];
            self.waited[n] += other.waited[n];
            self.wait_ns[n] += other.wait_ns[n];
            self.timed[n] += other.timed[n];
            self.hold_ns[n] += other.hold_ns[n];
        }
    }
}

/// A virtual CPU, with what its freight keeps for it.
pub struct Cpu<'a, F: Freight> {
    /// Its number.
    pub id: u32,
    /// What the freight keeps.
    pub hand: &'a mut F::Hand,
    /// Interrupts are masked when not zero.
    pub spl: u32,
    /// How often it holds Softnet and Kernel.
    pub depth: [u32; 2],
    /// Since when, if this hold is timed.
    pub since: [Option<kern::time::Instant>; 2],
    /// It is in an interrupt.
    pub in_interrupt: bool,
    /// What the device has put into memory and not yet told of.
    pub arrived: std::collections::VecDeque<Parcel<F>>,
    /// Free slots it keeps.
    pub free: Vec<u32>,
    /// Counted.
    pub counts: Counts,
    /// Packets the host has sent in this epoch, and what the ioctl was last.
    pub turns: u32,
    random: u64,
}

impl<'a, F: Freight> Cpu<'a, F> {
    /// Number `id`.
    pub fn new(id: u32, seed: u64, hand: &'a mut F::Hand) -> Self {
        Cpu {
            id,
            hand,
            spl: 0,
            depth: [0; 2],
            since: [None; 2],
            in_interrupt: false,
            arrived: std::collections::VecDeque::new(),
            free: Vec::new(),
            counts: Counts::default(),
            turns: 0,
            random: (seed ^ u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1,
        }
    }

    /// One chance in `n`, by the seed (xorshift64).
    pub fn chance(&mut self, n: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11).is_multiple_of(n)
    }
}
