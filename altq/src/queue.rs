//! A class's packets, first in first out, and what is counted about them (`class_queue_t` of ALTQ).
//!
//! What a dropper does to them is here too: RED and RIO judge a packet that comes, CoDel one that is about to leave.
//! FQ-CoDel, cake and FAIRQ keep flows apart instead of one ring.
//!
//! The ring is as large as the limit from the start, so that waiting costs no allocation. The limit counts wire
//! packets: a queue takes whatever comes while fewer than the limit wait, so a super-frame may overshoot it once.

use crate::{
    blue::Blue,
    charge::Charge,
    codel::{Codel, CodelConf},
    delay::{Delay, Histogram},
    discipline::{Entry, Refused, Victims},
    ecn,
    flows::{Flows, FlowsConf},
    red::{Red, Verdict},
    rio::Rio,
    valve::Valve,
};
use kern::{Owner, Why, time::Instant};
use std::{collections::VecDeque, ops};

/// Bytes in front of the packet in a frame.
const ETHER_HEADER: u32 = 14;

/// Packets and bytes, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Wire packets.
    pub packets: u64,
    /// Frame bytes.
    pub bytes: u64,
}

impl ops::AddAssign<Charge> for Tally {
    #[inline(always)]
    fn add_assign(&mut self, charge: Charge) {
        self.packets += u64::from(charge.packets);
        self.bytes += u64::from(charge.bytes);
    }
}

impl ops::SubAssign<Charge> for Tally {
    #[inline(always)]
    fn sub_assign(&mut self, charge: Charge) {
        self.packets -= u64::from(charge.packets);
        self.bytes -= u64::from(charge.bytes);
    }
}

impl ops::Add for Tally {
    type Output = Tally;
    fn add(self, other: Tally) -> Tally {
        Tally { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

/// What a class has counted. Always: offered = sent + dropped + queued, in packets and in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Came to the queue.
    pub offered: Tally,
    /// Left it for the device.
    pub sent: Tally,
    /// Were dropped, on arrival or later.
    pub dropped: Tally,
    /// Wait now; the packets are pfctl's `qlength`.
    pub queued: Tally,
    /// Packets marked with congestion instead of dropped.
    pub marked: u64,
    /// Packets sent on an ancestor's account (CBQ).
    pub borrows: u64,
    /// Times the class had to wait for its rate (CBQ).
    pub suspends: u64,
    /// How long the packets that left had waited.
    pub delay: Delay,
}

impl Counters {
    /// Whether the books of this class balance.
    pub fn balanced(&self) -> bool {
        self.offered == self.sent + self.dropped + self.queued
    }
}

/// What drops packets of a queue, besides its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropperConf {
    /// Nothing else.
    #[default]
    Tail,
    /// Random early detection.
    Red {
        /// Marks instead of early drops.
        ecn: bool,
        /// Holds flows that do not respond.
        valve: bool,
    },
    /// BLUE.
    Blue {
        /// Marks instead of early drops.
        ecn: bool,
    },
    /// RED with three precedences.
    Rio {
        /// Marks instead of early drops.
        ecn: bool,
    },
    /// Controlled delay.
    Codel(CodelConf),
    /// Flows kept apart: FQ-CoDel, cake, FAIRQ's buckets.
    Flows(FlowsConf),
}

/// What a queue is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConf {
    /// Wire packets that may wait.
    pub limit: u32,
    /// What drops them before.
    pub dropper: DropperConf,
    /// Zeroes the DSCP of what leaves.
    pub clear_dscp: bool,
    /// Bits a second at which it is served, for averages.
    pub rate: u64,
    /// Bytes of the largest packet of the interface.
    pub mtu: u32,
    /// For the dropper's dice.
    pub seed: u64,
}

enum Dropper {
    Tail,
    Red { red: Red, ecn: bool, valve: Option<Box<Valve>> },
    Blue { blue: Blue, ecn: bool },
    Rio { rio: Box<Rio>, ecn: bool },
    Codel { codel: Codel, conf: CodelConf },
    Flows(Box<Flows>),
}

/// One class's queue.
pub struct ClassQueue {
    ring: VecDeque<Entry>,
    limit: u32,
    dropper: Dropper,
    clear_dscp: bool,
    /// Bytes of a frame; a queue of less does not stand.
    frame: u32,
    counters: Counters,
    delay: Histogram,
}

impl ClassQueue {
    /// An empty queue.
    pub fn new(conf: &QueueConf) -> ClassQueue {
        let QueueConf { limit, dropper, clear_dscp, rate, mtu, seed } = *conf;
        let dropper = match dropper {
            DropperConf::Tail => Dropper::Tail,
            DropperConf::Red { ecn, valve } => Dropper::Red {
                red: Red::new(limit, rate, mtu, seed),
                ecn,
                valve: valve.then(|| Box::new(Valve::new(mtu + ETHER_HEADER))),
            },
            DropperConf::Blue { ecn } => Dropper::Blue { blue: Blue::new(seed), ecn },
            DropperConf::Rio { ecn } => Dropper::Rio { rio: Box::new(Rio::new(limit, rate, mtu, seed)), ecn },
            DropperConf::Codel(conf) => Dropper::Codel { codel: Codel::default(), conf },
            // An inner class has no room and no flows.
            DropperConf::Flows(_) if limit == 0 => Dropper::Tail,
            DropperConf::Flows(conf) => Dropper::Flows(Box::new(Flows::new(conf, limit, mtu + ETHER_HEADER))),
        };
        let ring = if matches!(dropper, Dropper::Flows(_)) { 0 } else { limit as usize };
        ClassQueue {
            ring: VecDeque::with_capacity(ring),
            limit,
            dropper,
            clear_dscp,
            frame: mtu + ETHER_HEADER,
            counters: Counters::default(),
            delay: Histogram::new(),
        }
    }

    /// Puts a packet at the end, or gives it back because the queue is full or its dropper does not want it.
    #[inline]
    pub fn push(&mut self, mut entry: Entry, now: Instant) -> Result<(), Refused> {
        self.counters.offered += entry.charge;
        if let Dropper::Flows(flows) = &mut self.dropper {
            return flows.push(entry, &mut self.counters, self.limit);
        }
        if let Err(why) = self.admit(&mut entry, now) {
            self.counters.dropped += entry.charge;
            return Err((entry.m, why));
        }
        self.counters.queued += entry.charge;
        entry.m.set_owner(Owner::Ifq);
        self.ring.push_back(entry);
        Ok(())
    }

    /// Whether a packet may come in.
    #[inline]
    fn admit(&mut self, entry: &mut Entry, now: Instant) -> Result<(), Why> {
        let length = self.counters.queued.packets;
        let (verdict, ecn) = match &mut self.dropper {
            Dropper::Tail | Dropper::Codel { .. } | Dropper::Flows(_) => (Verdict::Pass, false),
            Dropper::Red { red, ecn, valve: None } => (red.arrive(length, now), *ecn),
            Dropper::Red { red, ecn, valve: Some(valve) } => {
                if !valve.admits(entry.m.hdr().hash, entry.cost, now) {
                    return Err(Why::QueueEarly);
                }
                let verdict = red.arrive(length, now);
                valve.judged(verdict != Verdict::Pass);
                (verdict, *ecn)
            }
            Dropper::Blue { blue, ecn } => {
                if length >= u64::from(self.limit) {
                    blue.overflow(now);
                }
                (blue.arrive(), *ecn)
            }
            Dropper::Rio { rio, ecn } => {
                entry.precedence = ecn::drop_precedence(&entry.m);
                (rio.arrive(entry.precedence, now), *ecn)
            }
        };
        match verdict {
            Verdict::Forced => return Err(Why::QueueEarly),
            _ if length >= u64::from(self.limit) => return Err(Why::QueueFull),
            Verdict::Early if ecn && ecn::mark(&mut entry.m) => {
                self.counters.marked += u64::from(entry.charge.packets);
            }
            Verdict::Early => return Err(Why::QueueEarly),
            Verdict::Pass => {}
        }
        if let Dropper::Rio { rio, .. } = &mut self.dropper {
            rio.entered(entry.precedence, entry.charge.packets);
        }
        Ok(())
    }

    /// Takes the first packet that the dropper lets go, to be sent.
    #[inline]
    pub fn pop(&mut self, now: Instant, victims: &mut Victims) -> Option<Entry> {
        let mut entry = match &mut self.dropper {
            Dropper::Flows(flows) => flows.pop(&mut self.counters, self.frame, now, victims)?,
            _ => self.pop_ring(now, victims)?,
        };
        self.counters.sent += entry.charge;
        self.delay.add(now.nanos_since(entry.came));
        if self.clear_dscp {
            ecn::clear_dscp(&mut entry.m);
        }
        Some(entry)
    }

    #[inline]
    fn pop_ring(&mut self, now: Instant, victims: &mut Victims) -> Option<Entry> {
        loop {
            let mut entry = self.take(now)?;
            if !self.condemns(&mut entry, now, victims) {
                return Some(entry);
            }
            self.counters.dropped += entry.charge;
            victims.push((entry.m, Why::QueueEarly));
        }
    }

    /// Whether CoDel drops this packet; with ECN it is marked instead.
    #[inline]
    fn condemns(&mut self, entry: &mut Entry, now: Instant, victims: &Victims) -> bool {
        let Dropper::Codel { codel, conf } = &mut self.dropper else { return false };
        let behind = self.counters.queued.bytes;
        if victims.is_full() || !codel.drops(conf, entry.came, behind, self.frame.into(), now) {
            return false;
        }
        if conf.ecn && ecn::mark(&mut entry.m) {
            self.counters.marked += u64::from(entry.charge.packets);
            return false;
        }
        true
    }

    /// Takes the first packet, to be dropped.
    #[inline]
    pub fn drop_head(&mut self) -> Option<Entry> {
        let entry = match &mut self.dropper {
            Dropper::Flows(flows) => flows.take_any(&mut self.counters)?,
            _ => self.take(Instant::ZERO)?,
        };
        self.counters.dropped += entry.charge;
        Some(entry)
    }

    #[inline]
    fn take(&mut self, now: Instant) -> Option<Entry> {
        let entry = self.ring.pop_front()?;
        self.counters.queued -= entry.charge;
        entry.m.set_owner(Owner::Worker);
        match &mut self.dropper {
            Dropper::Rio { rio, .. } => rio.left(entry.precedence, entry.charge.packets, now),
            Dropper::Red { red, .. } if self.ring.is_empty() => red.idle(now),
            Dropper::Blue { blue, .. } if self.ring.is_empty() => blue.idle(now),
            Dropper::Codel { codel, .. } if self.ring.is_empty() => codel.empty(),
            _ => {}
        }
        Some(entry)
    }

    /// Whether nothing waits.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.counters.queued.packets == 0
    }

    /// Bytes of link time of the packet that is likely to leave next; 0 if nothing waits.
    #[inline]
    pub fn next_cost(&self) -> u32 {
        match &self.dropper {
            Dropper::Flows(flows) => flows.next_cost(),
            _ => self.ring.front().map_or(0, |entry| entry.cost),
        }
    }

    /// Wire packets that may wait.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        Counters { delay: self.delay.summary(), ..self.counters }
    }

    /// The counters to add to.
    pub(crate) fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }
}
