//! The desk of a snapshot: what publisher and readers tell each other. The order is told in [`super`].

use crate::{
    sync::{
        Arc, Condition, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Clock, Duration},
};

/// Some readers did not come to the top of their loops in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("after {waited:?} still waiting for {}", names.join(", "))]
pub struct Late {
    /// Who.
    pub names: Vec<String>,
    /// How long they were given.
    pub waited: Duration,
}

/// Where a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At work with this version.
    Reading(u64),
    /// At the top of its loop, held there by a quiet moment.
    Stopped,
    /// Asleep, or not started: holds no snapshot.
    Parked,
    /// On the publisher's own thread, which is here and so not at work: never waited for.
    Local,
}

#[derive(Debug)]
pub(super) struct Seat {
    pub(super) name: String,
    pub(super) place: Place,
}

/// What publisher and readers tell each other, all of it under one lock.
#[derive(Debug)]
pub(crate) struct Desk<T> {
    /// The snapshot of `version`. The publisher writes, readers clone.
    pub(super) current: Arc<T>,
    pub(super) version: u64,
    /// Readers stop at the top of their loops. The publisher writes.
    pub(crate) quiet: bool,
    /// The publisher waits for `moved`: spares the readers a system call when it does not.
    pub(super) waiting: bool,
    /// Each reader writes its own.
    pub(super) seats: Vec<Option<Seat>>,
}

impl<T> Desk<T> {
    /// What the epoch says: the version, and in the lowest bit whether to stop. One word, so one load tells a worker
    /// that neither has changed.
    pub(super) fn epoch(&self) -> u64 {
        self.version << 1 | u64::from(self.quiet)
    }

    pub(super) fn sit(&mut self, seat: usize, place: Place) {
        if let Some(seat) = &mut self.seats[seat] {
            seat.place = place;
        }
    }

    pub(super) fn register(&mut self, name: &str, place: Place) -> usize {
        let seat = Some(Seat { name: name.to_owned(), place });
        let free = self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len());
        if free == self.seats.len() {
            self.seats.push(seat);
        } else {
            self.seats[free] = seat;
        }
        free
    }
}

/// The epoch has a cache line (and its neighbour, which the prefetcher fetches with it) to itself: readers load it at
/// every turn.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Epoch(pub(super) AtomicU64);

#[derive(Debug)]
pub(crate) struct Shared<T> {
    pub(super) epoch: Epoch,
    pub(super) desk: Mutex<Desk<T>>,
    /// Readers to the publisher: one of us has moved.
    pub(super) moved: Condition,
    /// Publisher to readers: the quiet moment is over.
    pub(super) resumed: Condition,
}

impl<T> Shared<T> {
    /// The desk with its first snapshot, version 1.
    pub(super) fn new(current: Arc<T>) -> Shared<T> {
        let desk = Desk { current, version: 1, quiet: false, waiting: false, seats: Vec::new() };
        Shared {
            epoch: Epoch(AtomicU64::new(desk.epoch())),
            desk: Mutex::new(desk),
            moved: Condition::new(),
            resumed: Condition::new(),
        }
    }

    /// Changes the desk and then the epoch, in this order (3).
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Desk<T>) -> R) -> R {
        let mut desk = self.desk.lock();
        let result = change(&mut desk);
        self.epoch.0.store(desk.epoch(), Ordering::Release);
        result
    }

    pub(crate) fn ask_for_quiet(&self) {
        self.change(|desk| desk.quiet = true);
    }

    pub(crate) fn let_go(&self) {
        self.change(|desk| desk.quiet = false);
        self.resumed.notify_all();
    }

    /// Waits until every reader is where `ready` wants it.
    pub(crate) fn wait_until(&self, timeout: Duration, ready: impl Fn(Place) -> bool) -> Result<(), Late> {
        let start = Clock::Real.now();
        let mut desk = self.desk.lock();
        loop {
            if desk.seats.iter().flatten().all(|seat| ready(seat.place)) {
                desk.waiting = false;
                return Ok(());
            }
            let waited = Clock::Real.now() - start;
            if waited >= timeout {
                desk.waiting = false;
                let late = desk.seats.iter().flatten().filter(|seat| !ready(seat.place));
                return Err(Late { names: late.map(|seat| seat.name.clone()).collect(), waited });
            }
            desk.waiting = true;
            desk = self.moved.wait_timeout(desk, timeout.saturating_sub(waited));
        }
    }

    /// Lets the desk go and tells the publisher, if it waits.
    pub(super) fn leave_desk(&self, desk: MutexGuard<'_, Desk<T>>) {
        let waiting = desk.waiting;
        drop(desk);
        if waiting {
            self.moved.notify_all();
        }
    }
}
