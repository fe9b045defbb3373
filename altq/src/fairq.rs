//! FAIRQ: fair queueing by flows inside classes with guarantees (DragonFly's `altq_fairq.c`).
//!
//! ```text
//!   classes below their bandwidth      the highest priority sends
//!   else, those with a linkshare       the one that has had least of the rest, by its share, sends
//!   else                               the highest priority sends
//! ```
//!
//! Within a class, buckets of flows share byte by byte.
//!
//! A class's bandwidth is a bucket of tokens as deep as a few frames, and what it has of the rest comes on top. DragonFly measures a rate over up to eight
//! seconds instead and switches late.

use crate::{
    discipline::{ClassId, Discipline, Entry, Refused, Victims, purge_queue},
    queue::{ClassQueue, Counters},
    tbr::Regulator,
};
use kern::time::Instant;

/// A class as it is built.
pub(crate) struct FairqClass {
    pub(crate) priority: u8,
    /// Bits a second that it has before others.
    pub(crate) rate: u64,
    /// Its share of what all guarantees leave, in proportion to the others'; 0 for none.
    pub(crate) share: u64,
    pub(crate) queue: ClassQueue,
}

struct Class {
    guarantee: Regulator,
    share: u64,
    /// What it had of the rest, in nanoseconds at its share.
    tag: u128,
    queue: ClassQueue,
}

/// Classes with guarantees.
pub struct Fairq {
    classes: Vec<Class>,
    /// Places in `classes`, the highest priority first.
    order: Vec<usize>,
    /// The tag of the last one that had of the rest.
    round: u128,
}

/// A class that may send, and on what account.
enum Turn {
    Guaranteed(usize),
    Shared(usize),
    /// Nobody else wants to.
    Spare(usize),
}

impl Fairq {
    /// Over empty queues; `depth` is the bytes of a guarantee's bucket.
    pub(crate) fn new(classes: impl IntoIterator<Item = FairqClass>, depth: u32) -> Fairq {
        let (mut order, mut built) = (Vec::new(), Vec::new());
        for (i, FairqClass { priority, rate, share, queue }) in classes.into_iter().enumerate() {
            order.push((priority, i));
            built.push(Class { guarantee: Regulator::new(rate, depth), share, tag: 0, queue });
        }
        order.sort_by_key(|&(priority, _)| std::cmp::Reverse(priority));
        Fairq { classes: built, order: order.into_iter().map(|(_, i)| i).collect(), round: 0 }
    }

    /// The class that sends next.
    fn choose(&mut self, now: Instant) -> Option<Turn> {
        let (mut shared, mut highest) = (None, None);
        for &i in &self.order {
            let class = &mut self.classes[i];
            if class.queue.is_empty() {
                continue;
            }
            if class.guarantee.may_send(now) {
                return Some(Turn::Guaranteed(i));
            }
            if class.share > 0 && shared.is_none_or(|(tag, _)| class.tag < tag) {
                shared = Some((class.tag, i));
            }
            highest = highest.or(Some(i));
        }
        shared.map(|(_, i)| Turn::Shared(i)).or(highest.map(Turn::Spare))
    }
}

impl Discipline for Fairq {
    #[inline]
    fn enqueue(&mut self, entry: Entry, class: ClassId, now: Instant) -> Result<(), Refused> {
        let class = &mut self.classes[usize::from(class.0)];
        if class.queue.is_empty() {
            // Nothing is saved up while there is nothing to send.
            class.tag = class.tag.max(self.round);
        }
        class.queue.push(entry, now)
    }

    #[inline]
    fn dequeue(&mut self, now: Instant, victims: &mut Victims) -> Option<Entry> {
        loop {
            let turn = self.choose(now)?;
            let (Turn::Guaranteed(at) | Turn::Shared(at) | Turn::Spare(at)) = turn;
            let class = &mut self.classes[at];
            let Some(entry) = class.queue.pop(now, victims) else { continue };
            match turn {
                Turn::Guaranteed(_) => class.guarantee.charge(entry.cost),
                Turn::Shared(_) => {
                    self.round = class.tag;
                    class.tag += u128::from(entry.cost) * 8_000_000_000 / u128::from(class.share);
                }
                Turn::Spare(_) => {}
            }
            return Some(entry);
        }
    }

    #[inline]
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        self.classes.iter().any(|c| !c.queue.is_empty()).then_some(now)
    }

    fn purge(&mut self, take: &mut impl FnMut(ClassId, Entry)) {
        for (i, class) in self.classes.iter_mut().enumerate() {
            purge_queue(ClassId(i as u16), &mut class.queue, take);
        }
    }

    fn counters(&self, class: ClassId) -> Counters {
        self.classes[usize::from(class.0)].queue.counters()
    }
}
