//! Snapshots: one publisher, many readers, nobody locks to read.
//!
//! What all packets read and the operator rarely changes (interfaces, routes, rules, policies, SAs) is one immutable
//! value. The control thread publishes a new one; each worker takes it up between two batches, never within one.
//!
//! ```text
//!   publisher (control thread)                   reader (one a worker)
//!
//!   publish:  lock the desk                      top of the loop:
//!             put the new value there              epoch == what I saw last?  -> go on   (one load, no write)
//!             epoch := next version                otherwise:
//!             unlock                                 1. drop the old reference
//!             keep the old value                     2. lock the desk; stop here while a quiet moment lasts
//!                                                    3. take the value, write down its version; unlock
//!   wait_all: until nobody reads an older version
//!   collect:  drop what nobody can still hold    before sleeping: 1., then write down "parked"; after: 2., 3.
//! ```
//!
//! # The order that everything hangs on
//!
//! 1. A reader drops its old reference *before* it writes down that it has moved on (1 before 3, in one critical
//!    section after the drop). So when the publisher reads "moved on" under the lock, the reference is gone, the
//!    publisher's own is the last, and **the destructor runs on the publisher's thread**, never in a worker.
//! 2. The value and its version are written, and read, under one lock. A reader registers under it too, so it never
//!    writes down a version other than that of the value it has.
//! 3. The epoch is stored after the value is in place. A reader that sees the new epoch finds the new value.
//! 4. A reader comes back from parking under the lock, and looks there for a quiet moment. So a reader seen parked
//!    while a quiet moment is asked for stays parked until it is over ([`crate::quiet`]).
//!
//! This makes commands mean something: when [`Publisher::wait_all`] has returned, no packet is judged by the old
//! rules any more.
//!
//! A parked reader holds nothing and is waited for by nobody: an idle worker pins no memory.
//! The publisher should outlive its readers; what is left when it is dropped is dropped by the last of them.
//!
//! Not here: several values that change apart (they would be seen in mixtures), and readers without a registration.

mod desk;

use std::fmt;

use crate::{
    lock::{Root, witness::assert_nothing_held},
    quiet::QuietLog,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

pub use desk::Late;
pub(crate) use desk::{Place, Shared};

/// The number of a snapshot; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// The number itself, for reports.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The writing side of a snapshot: owned by the control thread.
#[derive(Debug)]
pub struct Publisher<T> {
    pub(crate) shared: Arc<Shared<T>>,
    /// What the desk has too, to read without the lock.
    latest: Arc<T>,
    version: u64,
    /// What was replaced, and the version that replaced it; oldest first.
    retired: Vec<(u64, Arc<T>)>,
    /// The quiet moments so far.
    pub(crate) quiet: QuietLog,
}

impl<T> Publisher<T> {
    /// Publishes the first snapshot, as version 1.
    pub fn new(first: T) -> Publisher<T> {
        let latest = Arc::new(first);
        let shared = Arc::new(Shared::new(Arc::clone(&latest)));
        Publisher { shared, latest, version: 1, retired: Vec::new(), quiet: QuietLog::default() }
    }

    /// Registers a reader for another thread. It is born parked: nothing waits for a thread that has not started.
    ///
    /// `name` is what [`Late`] calls it.
    pub fn reader(&self, name: &str) -> Parked<T> {
        let seat = self.shared.desk.lock().register(name, Place::Parked);
        Parked {
            reader: Reader { shared: Arc::clone(&self.shared), seat, current: None, seen: 0, local: false },
        }
    }

    /// Registers a reader that lives on this very thread. Waits do not wait for it, for while this thread waits it
    /// reads nothing; it takes up a new snapshot when it is next refreshed, as any other.
    pub fn local_reader(&self, name: &str) -> Reader<T> {
        let mut desk = self.shared.desk.lock();
        let seat = desk.register(name, Place::Local);
        let (current, seen) = (Some(Arc::clone(&desk.current)), desk.epoch());
        drop(desk);
        Reader { shared: Arc::clone(&self.shared), seat, current, seen, local: true }
    }

    /// Publishes a new snapshot. Readers take it up when they next come to the top of their loops.
    ///
    /// Drops nothing; [`wait_all`](Self::wait_all) and [`collect`](Self::collect) do.
    pub fn publish(&mut self, value: T) -> Version {
        self.latest = Arc::new(value);
        self.version += 1;
        let replaced = self.shared.change(|desk| {
            desk.version = self.version;
            std::mem::replace(&mut desk.current, Arc::clone(&self.latest))
        });
        self.retired.push((self.version, replaced));
        Version(self.version)
    }

    /// The latest snapshot.
    pub fn current(&self) -> &T {
        &self.latest
    }

    /// The number of the latest snapshot.
    pub fn version(&self) -> Version {
        Version(self.version)
    }

    /// Waits until no reader is at work with a snapshot older than `version`, then drops what nobody holds any more.
    ///
    /// # Errors
    /// [`Late`] names the readers that did not come to the top of their loops within `timeout`. The snapshot stays
    /// published.
    pub fn wait_all(
        &mut self,
        _nothing_held: &mut Root,
        version: Version,
        timeout: Duration,
    ) -> Result<(), Late> {
        assert_nothing_held("wait_all");
        self.shared.wait_until(timeout, |place| match place {
            Place::Reading(seen) => seen >= version.0,
            Place::Stopped | Place::Parked | Place::Local => true,
        })?;
        self.collect();
        Ok(())
    }

    /// Drops the old snapshots that no reader can still hold, here on this thread; says how many are left.
    pub fn collect(&mut self) -> usize {
        let oldest = {
            let desk = self.shared.desk.lock();
            let seen = desk.seats.iter().flatten().filter_map(|seat| match seat.place {
                Place::Reading(seen) => Some(seen),
                Place::Stopped | Place::Parked | Place::Local => None,
            });
            seen.min().unwrap_or(self.version)
        };
        // Replaced by a version that all have reached: nobody has it. The lock is not held while they are dropped.
        self.retired.retain(|&(replaced_by, _)| replaced_by > oldest);
        self.retired.len()
    }
}

/// The reading side of a snapshot: owned by one worker.
#[derive(Debug)]
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    seat: usize,
    /// Absent only while parked, when no caller has a `&Reader`.
    current: Option<Arc<T>>,
    /// The epoch at the last look.
    seen: u64,
    local: bool,
}

impl<T> Reader<T> {
    /// Comes to the top of the loop, with nothing pending: takes up a new snapshot, stops for a quiet moment.
    /// True if the snapshot is another than before. Costs one load if there is nothing to do.
    #[inline(always)]
    pub fn refresh(&mut self, nothing_held: &mut Root) -> bool {
        self.is_called() && self.take_up(nothing_held)
    }

    /// Whether [`refresh`](Self::refresh) has something to do: there is a new snapshot, or a quiet moment asked for.
    #[inline(always)]
    pub fn is_called(&self) -> bool {
        self.shared.epoch.0.load(Ordering::Acquire) != self.seen
    }

    /// The snapshot; the same until the next [`refresh`](Self::refresh).
    #[inline(always)]
    pub fn get(&self) -> &T {
        match &self.current {
            Some(snapshot) => snapshot,
            None => unreachable!("a parked reader is borrowed by park_while or is a Parked"),
        }
    }

    /// The number of the snapshot.
    pub fn version(&self) -> Version {
        Version(self.seen >> 1)
    }

    /// Gives the snapshot up, runs `sleep` (which may block for as long as it likes), and takes up the latest.
    /// Comes back only when no quiet moment is going on. True if the snapshot is another than before.
    pub fn park_while<R>(
        &mut self,
        nothing_held: &mut Root,
        sleep: impl FnOnce(&mut Root) -> R,
    ) -> (R, bool) {
        self.leave();
        let result = sleep(nothing_held);
        let changed = self.take_up(nothing_held);
        (result, changed)
    }

    /// Gives the snapshot up for longer, or to move to another thread.
    pub fn park(mut self) -> Parked<T> {
        self.leave();
        Parked { reader: self }
    }

    /// (1) Drops the reference, then says so.
    fn leave(&mut self) {
        if !self.local {
            self.current = None;
            self.write_down(Place::Parked);
        }
    }

    fn write_down(&self, place: Place) {
        let mut desk = self.shared.desk.lock();
        desk.sit(self.seat, place);
        self.shared.leave_desk(desk);
    }

    #[cold]
    fn take_up(&mut self, _nothing_held: &mut Root) -> bool {
        assert_nothing_held("a reader");
        let before = self.seen >> 1;
        // (1) before the desk says that we have moved on.
        self.current = None;
        let mut desk = self.shared.desk.lock();
        // (4) Under the lock: the publisher either sees us stopped or parked, or we see that it asked.
        while desk.quiet && !self.local {
            desk.sit(self.seat, Place::Stopped);
            if desk.waiting {
                self.shared.moved.notify_all();
            }
            desk = self.shared.resumed.wait(desk);
        }
        // (2) Value and version from the same critical section.
        self.current = Some(Arc::clone(&desk.current));
        self.seen = desk.epoch();
        if !self.local {
            let version = desk.version;
            desk.sit(self.seat, Place::Reading(version));
        }
        self.shared.leave_desk(desk);
        self.seen >> 1 != before
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.current = None;
        let mut desk = self.shared.desk.lock();
        desk.seats[self.seat] = None;
        self.shared.leave_desk(desk);
    }
}

/// A reader that holds no snapshot and is waited for by nobody.
#[derive(Debug)]
#[must_use = "a parked reader dropped is a reader gone"]
pub struct Parked<T> {
    reader: Reader<T>,
}

impl<T> Parked<T> {
    /// Takes up the latest snapshot, once no quiet moment is going on.
    pub fn unpark(mut self, nothing_held: &mut Root) -> Reader<T> {
        self.reader.take_up(nothing_held);
        self.reader
    }
}

#[cfg(test)]
mod tests;
