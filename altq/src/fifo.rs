//! FIFO: one queue with a limit, for an interface that only wants its rate regulated.
//!
//! pf.conf of old has no word for it; here it is the scheduler `fifo`.

use crate::{
    discipline::{ClassId, Discipline, Entry, Refused, Victims, purge_queue},
    queue::{ClassQueue, Counters},
};
use kern::time::Instant;

/// First in, first out.
pub struct Fifo {
    queue: ClassQueue,
}

impl Fifo {
    /// Over an empty queue.
    pub(crate) fn new(queue: ClassQueue) -> Fifo {
        Fifo { queue }
    }
}

impl Discipline for Fifo {
    #[inline]
    fn enqueue(&mut self, entry: Entry, _class: ClassId, now: Instant) -> Result<(), Refused> {
        self.queue.push(entry, now)
    }

    #[inline]
    fn dequeue(&mut self, now: Instant, victims: &mut Victims) -> Option<Entry> {
        self.queue.pop(now, victims)
    }

    #[inline]
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(now)
    }

    fn purge(&mut self, take: &mut impl FnMut(ClassId, Entry)) {
        purge_queue(ClassId(0), &mut self.queue, take);
    }

    fn counters(&self, _class: ClassId) -> Counters {
        self.queue.counters()
    }
}
