//! FAIRQ: fair queueing by flows inside classes with guarantees (DragonFly's `altq_fairq.c`).
//!
//! Classes have a priority each and a bandwidth. The highest class that is below its bandwidth sends; if all are above,
//! the highest that has packets sends, so what is left goes by priority. Within a class, buckets of flows share byte
//! by byte.
//!
//! A class's bandwidth is a bucket of tokens as deep as a few frames. DragonFly measures a rate over up to eight
//! seconds instead and switches late.

use crate::{
    discipline::{ClassId, Discipline, Entry, Refused, Victims, purge_queue},
    queue::{ClassQueue, Counters},
    tbr::Regulator,
};
use kern::time::Instant;

struct Class {
    priority: u8,
    guarantee: Regulator,
    queue: ClassQueue,
}

/// Classes with guarantees.
pub struct Fairq {
    classes: Vec<Class>,
    /// Places in `classes`, the highest priority first.
    order: Vec<usize>,
}

impl Fairq {
    /// Over empty queues, each with its priority and its bandwidth; `depth` is the bytes of a guarantee's bucket.
    pub(crate) fn new(classes: impl IntoIterator<Item = (u8, u64, ClassQueue)>, depth: u32) -> Fairq {
        let class =
            |(priority, rate, queue)| Class { priority, guarantee: Regulator::new(rate, depth), queue };
        let classes: Vec<Class> = classes.into_iter().map(class).collect();
        let mut order: Vec<usize> = (0..classes.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(classes[i].priority));
        Fairq { classes, order }
    }

    /// The class that sends next.
    fn choose(&mut self, now: Instant) -> Option<usize> {
        let mut highest = None;
        for &i in &self.order {
            let class = &mut self.classes[i];
            if !class.queue.is_empty() {
                if class.guarantee.may_send(now) {
                    return Some(i);
                }
                highest = highest.or(Some(i));
            }
        }
        highest
    }
}

impl Discipline for Fairq {
    #[inline]
    fn enqueue(&mut self, entry: Entry, class: ClassId, now: Instant) -> Result<(), Refused> {
        self.classes[usize::from(class.0)].queue.push(entry, now)
    }

    #[inline]
    fn dequeue(&mut self, now: Instant, victims: &mut Victims) -> Option<Entry> {
        loop {
            let at = self.choose(now)?;
            let class = &mut self.classes[at];
            if let Some(entry) = class.queue.pop(now, victims) {
                class.guarantee.charge_to_limit(entry.cost);
                return Some(entry);
            }
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
