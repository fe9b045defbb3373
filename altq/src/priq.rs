//! PRIQ: sixteen levels, each a FIFO, strictly one before the other (`altq_priq.c`).
//!
//! Higher goes first. A packet of the highest level that waits is only behind the packet on the wire and what the
//! regulator still owes for it. Lower levels starve while higher ones have packets: by design, as in BSD.
//!
//! ```text
//!  waiting  15 14 13 ... 2 1 0      one bit a level: the highest bit set is the level that sends
//!            0  1  0     1 0 1
//! ```

use crate::{
    discipline::{ClassId, Discipline, Entry, Refused, Victims, purge_queue},
    queue::{ClassQueue, Counters},
};
use kern::time::Instant;

/// How many levels there are; priorities are 0 to 15.
pub const PRIORITIES: usize = 16;

/// Strict priorities.
pub struct Priq {
    /// By class.
    classes: Vec<Level>,
    /// The class of each level; `u8::MAX` where there is none.
    class_at: [u8; PRIORITIES],
    /// Levels with packets, one bit each.
    waiting: u16,
}

struct Level {
    priority: u8,
    queue: ClassQueue,
}

impl Priq {
    /// Over empty queues, one a class, with its priority (below 16, each once).
    pub(crate) fn new(classes: impl IntoIterator<Item = (u8, ClassQueue)>) -> Priq {
        let classes: Vec<Level> =
            classes.into_iter().map(|(priority, queue)| Level { priority, queue }).collect();
        let mut class_at = [u8::MAX; PRIORITIES];
        for (class, level) in classes.iter().enumerate() {
            class_at[usize::from(level.priority)] = class as u8;
        }
        Priq { classes, class_at, waiting: 0 }
    }

    /// The class that sends next.
    #[inline]
    fn first(&self) -> Option<usize> {
        let level = self.waiting.checked_ilog2()?;
        Some(usize::from(self.class_at[level as usize]))
    }
}

impl Discipline for Priq {
    #[inline]
    fn enqueue(&mut self, entry: Entry, class: ClassId, now: Instant) -> Result<(), Refused> {
        let level = &mut self.classes[usize::from(class.0)];
        level.queue.push(entry, now)?;
        self.waiting |= 1 << level.priority;
        Ok(())
    }

    #[inline]
    fn dequeue(&mut self, now: Instant, victims: &mut Victims) -> Option<Entry> {
        loop {
            let class = self.first()?;
            let level = &mut self.classes[class];
            let entry = level.queue.pop(now, victims);
            if level.queue.is_empty() {
                self.waiting &= !(1 << level.priority);
            }
            if entry.is_some() {
                return entry;
            }
        }
    }

    #[inline]
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        (self.waiting != 0).then_some(now)
    }

    fn purge(&mut self, take: &mut impl FnMut(ClassId, Entry)) {
        for (class, level) in self.classes.iter_mut().enumerate() {
            purge_queue(ClassId(class as u16), &mut level.queue, take);
        }
        self.waiting = 0;
    }

    fn counters(&self, class: ClassId) -> Counters {
        self.classes[usize::from(class.0)].queue.counters()
    }
}
