//! The interface of a queueing discipline: which packet goes next, and when.
//!
//! A discipline is entered under its interface queue's lock, so it neither ends a packet nor waits: what it does not
//! want it gives back. Adding one means a file, a line in [`Engine`] and one in `conf.rs`; the interface queue calls
//! them through an enum, because a call through a pointer costs 12 ns a packet.

use crate::{
    cbq::Cbq,
    charge::{Charge, Framing},
    fairq::Fairq,
    fifo::Fifo,
    hfsc::Hfsc,
    priq::Priq,
    queue::{ClassQueue, Counters},
};
use kern::{Mbuf, Owner, Why, time::Instant};

/// A class of one tree: its place in the tree's list of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClassId(pub u16);

/// A packet that waits, with what it costs; worked out once, when it came.
#[derive(Debug)]
pub struct Entry {
    /// The packet.
    pub m: Mbuf,
    /// What is counted.
    pub charge: Charge,
    /// Bytes of link time, which the regulator and the scheduler charge.
    pub cost: u32,
    /// When it came.
    pub came: Instant,
    /// Its drop precedence, where the queue looks at it (RIO).
    pub(crate) precedence: u8,
}

impl Entry {
    /// A packet that is about to wait.
    #[inline]
    pub fn new(m: Mbuf, framing: &Framing, now: Instant) -> Entry {
        let charge = Charge::of(&m);
        Entry { cost: framing.cost(&m, charge), charge, came: now, precedence: 0, m }
    }
}

/// A packet that was not wanted, and why.
pub type Refused = (Mbuf, Why);

/// How many victims a discipline may leave behind in one turn.
pub const VICTIMS: usize = kern::mbuf::BATCH;

/// Packets dropped under a queue's lock, to be ended by the caller after it.
pub struct Victims {
    list: Vec<Refused>,
}

impl Victims {
    /// Room for a batch of them.
    pub fn new() -> Victims {
        Victims { list: Vec::with_capacity(VICTIMS) }
    }

    /// Adds one.
    #[inline]
    pub fn push(&mut self, (m, why): Refused) {
        m.set_owner(Owner::Worker);
        self.list.push((m, why));
    }

    /// Whether a discipline should drop no more before the caller has ended these.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.list.len() >= VICTIMS
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Takes them all out.
    #[inline]
    pub fn drain(&mut self) -> impl Iterator<Item = Refused> + '_ {
        self.list.drain(..)
    }
}

impl Default for Victims {
    fn default() -> Self {
        Victims::new()
    }
}

/// Which packet goes next, and when.
///
/// Times never go back. `dequeue` after `ready_at` said *now or earlier* yields a packet, unless dropping has emptied
/// the queue or filled `victims`.
pub trait Discipline {
    /// Takes a packet in. The one given back on a full queue need not be the one that came.
    fn enqueue(&mut self, entry: Entry, class: ClassId, now: Instant) -> Result<(), Refused>;

    /// The next packet to send, if one may go now. Packets dropped on the way out go to `victims`.
    fn dequeue(&mut self, now: Instant, victims: &mut Victims) -> Option<Entry>;

    /// When `dequeue` will have a packet: `now` or earlier if it has one, `None` if nothing waits.
    fn ready_at(&self, now: Instant) -> Option<Instant>;

    /// Gives up all packets, first to last within each class, counted as dropped.
    fn purge(&mut self, take: &mut impl FnMut(ClassId, Entry));

    /// What a class has counted.
    fn counters(&self, class: ClassId) -> Counters;
}

/// The disciplines there are.
pub enum Engine {
    /// First in, first out.
    Fifo(Box<Fifo>),
    /// Strict priorities.
    Priq(Priq),
    /// Hierarchical fair service curves.
    Hfsc(Box<Hfsc>),
    /// Class-based queueing.
    Cbq(Box<Cbq>),
    /// Fair queueing by flows.
    Fairq(Fairq),
}

/// The same call on whichever discipline it is.
macro_rules! each {
    ($engine:expr, $discipline:ident => $call:expr) => {
        match $engine {
            Engine::Fifo($discipline) => $call,
            Engine::Priq($discipline) => $call,
            Engine::Hfsc($discipline) => $call,
            Engine::Cbq($discipline) => $call,
            Engine::Fairq($discipline) => $call,
        }
    };
}

impl Discipline for Engine {
    #[inline]
    fn enqueue(&mut self, entry: Entry, class: ClassId, now: Instant) -> Result<(), Refused> {
        each!(self, d => d.enqueue(entry, class, now))
    }

    #[inline]
    fn dequeue(&mut self, now: Instant, victims: &mut Victims) -> Option<Entry> {
        each!(self, d => d.dequeue(now, victims))
    }

    #[inline]
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        each!(self, d => d.ready_at(now))
    }

    fn purge(&mut self, take: &mut impl FnMut(ClassId, Entry)) {
        each!(self, d => d.purge(take));
    }

    fn counters(&self, class: ClassId) -> Counters {
        each!(self, d => d.counters(class))
    }
}

/// Empties one class's queue into `take`.
pub(crate) fn purge_queue(class: ClassId, queue: &mut ClassQueue, take: &mut impl FnMut(ClassId, Entry)) {
    while let Some(entry) = queue.drop_head() {
        take(class, entry);
    }
}
