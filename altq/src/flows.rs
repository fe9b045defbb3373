//! Flows kept apart in one queue: deficit round robin with sparse flows first, CoDel for each, fairness between hosts.
//!
//! One structure, three uses:
//!
//! | | flows | CoDel | hosts |
//! |---|---|---|---|
//! | FQ-CoDel (RFC 8290) | 1,024 | yes | |
//! | cake (after `sch_cake`'s triple isolation) | 1,024 | yes | a flow's bytes weigh as many times as its hosts have flows |
//! | FAIRQ's buckets | 256 or `buckets` | | |
//!
//! ```text
//!   new ─▶ f ─▶ f ──┐ turn used up, or empty: to the end of old
//!   old ─▶ f ─▶ f ──┴▶ f      a flow that comes new goes first, once; packets are chains in one arena of `limit` slots
//! ```
//!
//! Between hosts, `old` is no round but the order of what each flow has had, weighed: the turns of a round would be three
//! bytes long where a host has five hundred flows, and every packet would have to wait for five hundred rounds. A flow
//! that comes back is new if it has had less than those that stayed.
//!
//! A flow is put where its hash says or up to seven places further, so that a hundred flows do not meet by chance in 256
//! buckets; only when all eight are taken do flows share the first, and then until it is empty, so that none of them
//! overtakes itself. A full queue drops at the head of the longest flow.
//! Not here: cake's tins (use PRIQ or CBQ around it) and its own shaper (the regulator is the interface's).

use crate::{
    codel::{Codel, CodelConf},
    discipline::{Entry, Refused, Victims},
    ecn,
    queue::Counters,
    tournament::{ABSENT, Tournament},
};
use kern::{Owner, Why, time::Instant};

mod order;
#[cfg(test)]
mod tests;

/// The end of a chain.
const END: u32 = u32::MAX;
/// Places in which a flow may be.
const PROBES: usize = 8;
/// Host counters.
const HOSTS: usize = 1024;

/// How flows are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowsConf {
    /// How many there may be; a power of two.
    pub flows: u32,
    /// CoDel for each of them.
    pub codel: Option<CodelConf>,
    /// Fairness between hosts before fairness between flows.
    pub hosts: bool,
    /// A flow faster than this many bits a second has shorter turns; 0 for no difference.
    pub hogs: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Neither,
    New,
    Old,
}

struct Flow {
    /// Whose it is, while it has packets.
    hash: u32,
    /// Others are in it too.
    shared: bool,
    head: u32,
    tail: u32,
    bytes: u64,
    deficit: i64,
    /// What it has had, weighed, if that matters.
    had: u64,
    codel: Codel,
    on: On,
    next: u32,
    /// Counters of its source and destination host, while it is on a list.
    hosts: [u16; 2],
    /// Bytes sent since, for `hogs`.
    sent: u64,
    since: Instant,
}

struct Slot {
    entry: Option<Entry>,
    next: u32,
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

/// Flows of one queue.
pub(crate) struct Flows {
    conf: FlowsConf,
    /// Bytes of a turn.
    quantum: i64,
    slots: Box<[Slot]>,
    free: u32,
    buckets: Box<[Flow]>,
    new: List,
    old: List,
    /// In place of `old` where hosts count: who has had least is next; and how much those had who came last.
    least: Tournament,
    had: u64,
    /// The longest flow wins.
    longest: Tournament,
    /// Flows on a list, by source and by destination host.
    hosts: [Box<[u16]>; 2],
}

impl List {
    const EMPTY: List = List { head: END, tail: END };
}

impl Flows {
    /// No packets; room for `limit` of them. `frame` is a turn in bytes.
    pub(crate) fn new(conf: FlowsConf, limit: u32, frame: u32) -> Flows {
        let slot = |i: u32| Slot { entry: None, next: if i == limit { END } else { i + 1 } };
        let flow = |_| Flow {
            hash: 0,
            shared: false,
            head: END,
            tail: END,
            bytes: 0,
            deficit: 0,
            had: 0,
            codel: Codel::default(),
            on: On::Neither,
            next: END,
            hosts: [0; 2],
            sent: 0,
            since: Instant::ZERO,
        };
        let flows = conf.flows.next_power_of_two();
        let hosts = || vec![0; if conf.hosts { HOSTS } else { 0 }].into_boxed_slice();
        Flows {
            conf,
            quantum: frame.into(),
            // One more than the limit: a packet comes in before the longest flow gives one up.
            slots: (0..=limit).map(slot).collect(),
            free: 0,
            buckets: (0..flows).map(flow).collect(),
            new: List::EMPTY,
            old: List::EMPTY,
            least: Tournament::new(if conf.hosts { flows as usize } else { 1 }),
            had: 0,
            longest: Tournament::new(flows as usize),
            hosts: [hosts(), hosts()],
        }
    }

    /// Puts a packet at the end of its flow. If more than `limit` wire packets then wait, the longest flow's first
    /// comes back.
    pub(crate) fn push(&mut self, entry: Entry, counters: &mut Counters, limit: u32) -> Result<(), Refused> {
        let hash = entry.m.hdr().hash;
        let at = self.flow_of(hash);
        counters.queued += entry.charge;
        entry.m.set_owner(Owner::Ifq);
        self.append(at, hash, entry);
        if counters.queued.packets <= u64::from(limit) && self.free != END {
            return Ok(());
        }
        let longest = self.longest.winner().unwrap_or(at);
        match self.take(longest, counters) {
            Some(entry) => {
                counters.dropped += entry.charge;
                Err((entry.m, Why::QueueFull))
            }
            None => Ok(()),
        }
    }

    /// Where this flow is or may be.
    fn flow_of(&self, hash: u32) -> usize {
        let mask = self.buckets.len() - 1;
        let start = (hash.wrapping_mul(0x9e37_79b1) >> 8) as usize;
        let probes = (0..PROBES.min(self.buckets.len())).map(|i| (start + i) & mask);
        let mut free = None;
        for at in probes {
            let flow = &self.buckets[at];
            if flow.head == END {
                free = free.or(Some(at));
            } else if flow.hash == hash {
                return at;
            }
        }
        let first = &self.buckets[start & mask];
        if first.head != END && first.shared { start & mask } else { free.unwrap_or(start & mask) }
    }

    fn append(&mut self, at: usize, hash: u32, entry: Entry) {
        let slot = self.free;
        let Some(place) = self.slots.get_mut(slot as usize) else { return };
        let cost = u64::from(entry.cost);
        let on_list = self.buckets[at].on != On::Neither;
        // It may be on a list still and have become another's.
        let other = self.buckets[at].head == END && self.buckets[at].hash != hash;
        let counts = other || !on_list;
        let hosts = if self.conf.hosts && counts { ecn::hosts(&entry.m) } else { [0; 2] };
        self.free = place.next;
        *place = Slot { entry: Some(entry), next: END };
        let flow = &mut self.buckets[at];
        if flow.head == END {
            (flow.hash, flow.shared, flow.head) = (hash, false, slot);
        } else {
            flow.shared |= flow.hash != hash;
            self.slots[flow.tail as usize].next = slot;
        }
        let flow = &mut self.buckets[at];
        flow.tail = slot;
        flow.bytes += cost;
        self.longest.set(at, !flow.bytes);
        if on_list && other {
            self.count_hosts(at, -1);
        }
        if counts {
            self.buckets[at].hosts = hosts.map(|host| host % HOSTS as u16);
            self.count_hosts(at, 1);
        }
        if !on_list {
            self.begin(at, other);
        }
    }

    /// The next packet. What CoDel drops goes to `victims`.
    pub(crate) fn pop(
        &mut self,
        counters: &mut Counters,
        frame: u32,
        now: Instant,
        victims: &mut Victims,
    ) -> Option<Entry> {
        loop {
            let at = self.first()?;
            let on = self.buckets[at].on;
            let in_turns = on == On::New || !self.conf.hosts;
            if in_turns && self.buckets[at].deficit <= 0 {
                self.end_turn(at);
                continue;
            }
            let Some(entry) = self.pop_flow(at, counters, frame, now, victims) else {
                self.unlink_head(at);
                // An empty new flow waits its turn once, or it would come first again and again.
                if on == On::New && self.old.head != END {
                    self.link(at, On::Old);
                } else {
                    self.count_hosts(at, -1);
                }
                continue;
            };
            self.charge(at, entry.cost, now);
            return Some(entry);
        }
    }

    /// A flow's next packet, past what its CoDel drops.
    fn pop_flow(
        &mut self,
        at: usize,
        counters: &mut Counters,
        frame: u32,
        now: Instant,
        victims: &mut Victims,
    ) -> Option<Entry> {
        loop {
            let Some(mut entry) = self.take(at, counters) else {
                self.buckets[at].codel.empty();
                return None;
            };
            let Some(codel) = self.conf.codel.filter(|_| !victims.is_full()) else { return Some(entry) };
            let flow = &mut self.buckets[at];
            if !flow.codel.drops(&codel, entry.came, flow.bytes, frame.into(), now) {
                return Some(entry);
            }
            if codel.ecn && ecn::mark(&mut entry.m) {
                counters.marked += u64::from(entry.charge.packets);
                return Some(entry);
            }
            counters.dropped += entry.charge;
            victims.push((entry.m, Why::QueueEarly));
        }
    }

    /// Takes a flow's first packet.
    fn take(&mut self, at: usize, counters: &mut Counters) -> Option<Entry> {
        let flow = &mut self.buckets[at];
        let slot = flow.head;
        let place = self.slots.get_mut(slot as usize)?;
        let entry = place.entry.take()?;
        flow.head = std::mem::replace(&mut place.next, self.free);
        self.free = slot;
        flow.bytes -= u64::from(entry.cost);
        self.longest.set(at, if flow.head == END { ABSENT } else { !flow.bytes });
        counters.queued -= entry.charge;
        entry.m.set_owner(Owner::Worker);
        Some(entry)
    }

    /// Takes any packet, first to last within each flow.
    pub(crate) fn take_any(&mut self, counters: &mut Counters) -> Option<Entry> {
        let at = self.longest.winner()?;
        self.take(at, counters)
    }

    /// Cost of the packet that is likely to be next.
    pub(crate) fn next_cost(&self) -> u32 {
        let waiting = |at: usize| self.slots.get(self.buckets[at].head as usize)?.entry.as_ref();
        let entry = self.first().and_then(waiting).or_else(|| waiting(self.longest.winner()?));
        entry.map_or(0, |e| e.cost)
    }
}
