//! The ordered release of the runs of packets that an SA opens.
//!
//! Several workers may open packets of one tunnel at a time, each a run of them, and may finish in any order; pf must see every
//! flow in the order it was sent. (On the way out it is the numbers that must leave in order: [`crate::exit`].)
//!
//! A run has a *ticket*, taken when its packets have been looked at. Completed runs go on in the order of tickets:
//!
//! ```text
//!      head                              tail
//!       ▼                                 ▼
//!   ┌───────┬───────┬───────┬───────┬───────┐     head: the first run that has not left
//!   │ run 7 │ run 8 │ run 9 │run 10 │  ...  │     tail: the next ticket
//!   └───────┴───────┴───────┴───────┴───────┘
//!    opening  parked  parked opening              run 7 completed by worker A: A takes 7, 8 and 9
//! ```
//!
//! Whoever completes the head run gets the `releasing` bit, and with it this run and all completed ones behind it, to
//! transmit. He keeps the bit until what he took has been *written* to the device: until then nobody else may take,
//! so nothing overtakes on the way from here to the wire. Who completes a run and may not release it parks it and goes
//! on with something else; nobody waits.
//!
//! ```text
//!                complete(head)                       written(), nothing more
//!      free ──────────────────────▶ releasing by A ──────────────────────────▶ free
//!                                    │     ▲  │ ▲
//!                                    └─────┘  └─┘ written(), head completed meanwhile: A takes on
//!                         complete(head) by A
//! ```
//!
//! *Invariant:* if the head run is completed, somebody holds the bit. So nothing stays behind: whoever gives the bit up
//! has looked at the head under the same lock.
//!
//! A run that was given up is completed empty, else all behind it wait for ever. Parked runs are bounded: with
//! so many tickets out no more are given, and the caller keeps his packets. He must not insist: what is in the way may be
//! parked behind packets that he himself has not written yet, or behind those of a worker who waits for him in another
//! SA. So he writes out what he has, calls [`Turns::written`], and asks again in his next turn.
//! With one worker a run is always at the head and nothing is ever stored.
//!
//! [`Turns`] is the state alone, without its lock: an SA keeps it under its own. Not here: sequence numbers.

use kern::{Batch, Mbuf, Owner};

/// The most tickets that may be out at a time: the parked ones fit into one word.
pub const PARKED: usize = 64;

/// A worker's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Worker(pub u16);

/// A place in the order. It must be completed, be it with an empty run.
#[must_use = "a ticket that is not completed holds up all that come after it"]
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// What became of a completed run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Leave {
    /// It may go on, and the worker has just taken the bit: [`Turns::written`] must follow.
    Taken,
    /// It may go on; the worker had the bit already, or is alone and needs none.
    Kept,
    /// It waits for its turn; the run handed in is empty now.
    Parked,
}

/// A container that runs are taken from and put into.
pub trait Queue<T> {
    /// How many more fit.
    fn room(&self) -> usize;
    /// Adds at the end; gives it back if there is no room.
    fn put(&mut self, item: T) -> Result<(), T>;
    /// Takes all out, first to last, each into the next place.
    fn park<'a>(&mut self, places: impl Iterator<Item = &'a mut Option<T>>)
    where
        T: 'a;
}

impl Queue<Mbuf> for Batch {
    #[inline]
    fn room(&self) -> usize {
        Batch::room(self)
    }

    #[inline]
    fn put(&mut self, m: Mbuf) -> Result<(), Mbuf> {
        m.set_owner(Owner::Worker);
        self.push(m)
    }

    #[inline]
    fn park<'a>(&mut self, mut places: impl Iterator<Item = &'a mut Option<Mbuf>>) {
        self.sift(|m| match places.next() {
            Some(place) => {
                m.set_owner(Owner::Crypto);
                *place = Some(m);
                None
            }
            None => Some(m),
        });
    }
}

/// Who releases, what is parked, and whose turn it is.
#[derive(Debug)]
pub struct Turns<T> {
    head: u64,
    tail: u64,
    /// One bit a parked run, at its ticket's place in the ring.
    parked: u64,
    releasing: Option<Worker>,
    run_max: u32,
    slots: u32,
    places: Box<[Option<T>]>,
}

impl<T> Turns<T> {
    /// For runs of at most `run_max`, with up to `slots` tickets out (a power of two, at most [`PARKED`]); without room
    /// to park if there is one worker only.
    pub fn new(run_max: usize, slots: usize, workers: usize) -> Turns<T> {
        let slots = slots.clamp(1, PARKED).next_power_of_two();
        let places = if workers > 1 { slots * run_max } else { 0 };
        Turns {
            head: 0,
            tail: 0,
            parked: 0,
            releasing: None,
            run_max: run_max as u32,
            slots: slots as u32,
            places: std::iter::repeat_with(|| None).take(places).collect(),
        }
    }

    /// Whether no ticket can be had now.
    #[inline(always)]
    pub const fn is_full(&self) -> bool {
        self.tail - self.head >= self.slots as u64
    }

    /// Whether every ticket has been completed and has left, and nobody holds the bit.
    pub const fn is_idle(&self) -> bool {
        self.tail == self.head && self.releasing.is_none()
    }

    /// The next ticket; `None` while too many are out.
    #[inline(always)]
    pub fn ticket(&mut self) -> Option<Ticket> {
        if self.is_full() {
            return None;
        }
        self.tail += 1;
        Some(Ticket(self.tail - 1))
    }

    /// A run is ready to leave. Unless it is parked, `run` then has what the worker may transmit: his own run, and what
    /// was parked behind it as far as it fits.
    #[inline(always)]
    #[allow(clippy::needless_pass_by_value, reason = "a ticket is used up")]
    pub fn complete(&mut self, ticket: Ticket, worker: Worker, run: &mut impl Queue<T>) -> Leave {
        if ticket.0 == self.head {
            if self.releasing == Some(worker) || self.places.is_empty() {
                self.head += 1;
                if self.parked != 0 {
                    self.take(run);
                }
                return Leave::Kept;
            }
            if self.releasing.is_none() {
                self.head += 1;
                self.releasing = Some(worker);
                if self.parked != 0 {
                    self.take(run);
                }
                return Leave::Taken;
            }
        }
        self.park(&ticket, run);
        Leave::Parked
    }

    #[inline(always)]
    const fn slot(&self, ticket: u64) -> usize {
        ticket as usize & (self.slots as usize - 1)
    }

    const fn is_parked(&self, ticket: u64) -> bool {
        self.parked >> self.slot(ticket) & 1 == 1
    }

    #[cold]
    fn park(&mut self, ticket: &Ticket, run: &mut impl Queue<T>) {
        let (slot, each) = (self.slot(ticket.0), self.run_max as usize);
        if let Some(places) = self.places.get_mut(slot * each..(slot + 1) * each) {
            run.park(places.iter_mut());
        }
        self.parked |= 1 << slot;
    }

    /// Moves completed runs from the head to `out`, as many as fit whole.
    #[cold]
    fn take(&mut self, out: &mut impl Queue<T>) -> bool {
        let before = self.head;
        let each = self.run_max as usize;
        while self.is_parked(self.head) && out.room() >= each {
            let slot = self.slot(self.head);
            for place in self.places.iter_mut().skip(slot * each).take(each) {
                let Some(item) = place.take() else { break };
                if let Err(item) = out.put(item) {
                    *place = Some(item);
                    return true;
                }
            }
            self.parked &= !(1 << slot);
            self.head += 1;
        }
        self.head != before
    }

    /// What `worker` took has been written to the device. True if more has completed meanwhile: it is in `out`, he keeps
    /// the bit and calls again when that is written. False if the bit is free again.
    ///
    /// An `out` without room for a run counts as more to come.
    #[inline]
    pub fn written(&mut self, worker: Worker, out: &mut impl Queue<T>) -> bool {
        if self.releasing != Some(worker) {
            return false;
        }
        if self.is_parked(self.head) {
            self.take(out);
            return true;
        }
        self.releasing = None;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<T> Queue<T> for Vec<T> {
        fn room(&self) -> usize {
            1000 - self.len()
        }
        fn put(&mut self, item: T) -> Result<(), T> {
            self.push(item);
            Ok(())
        }
        fn park<'a>(&mut self, places: impl Iterator<Item = &'a mut Option<T>>)
        where
            T: 'a,
        {
            self.drain(..).zip(places).for_each(|(item, place)| *place = Some(item));
        }
    }

    const A: Worker = Worker(0);
    const B: Worker = Worker(1);

    #[test]
    fn a_lone_worker_takes_every_run_at_once_and_nothing_is_stored() {
        let mut turns = Turns::new(8, PARKED, 1);
        assert_eq!(turns.places.len(), 0);
        for n in 0..1000 {
            let ticket = turns.ticket().unwrap();
            let mut run = vec![n];
            assert_eq!(turns.complete(ticket, A, &mut run), Leave::Kept);
            assert_eq!(run, [n]);
            if n % 3 == 0 {
                assert!(!turns.written(A, &mut run));
            }
        }
    }

    #[test]
    fn a_later_run_waits_for_the_earlier_one_and_leaves_with_it() {
        let mut turns = Turns::new(2, PARKED, 2);
        let (first, second) = (turns.ticket().unwrap(), turns.ticket().unwrap());
        let mut run = vec![3, 4];
        assert_eq!(turns.complete(second, B, &mut run), Leave::Parked);
        assert!(run.is_empty());
        let mut run = vec![1, 2];
        assert_eq!(turns.complete(first, A, &mut run), Leave::Taken);
        assert_eq!(run, [1, 2, 3, 4]);
        assert!(!turns.written(A, &mut vec![]));
        assert!(turns.is_idle());
    }

    #[test]
    fn nobody_releases_while_another_has_packets_on_the_way_to_the_device() {
        let mut turns = Turns::new(2, PARKED, 2);
        let (first, second) = (turns.ticket().unwrap(), turns.ticket().unwrap());
        assert_eq!(turns.complete(first, A, &mut vec![1]), Leave::Taken);
        let mut run = vec![2];
        assert_eq!(turns.complete(second, B, &mut run), Leave::Parked, "A has not written yet");
        assert!(!turns.written(B, &mut run), "B has nothing to report");
        assert!(turns.written(A, &mut run));
        assert_eq!(run, [2]);
        assert!(!turns.written(A, &mut run));
        assert!(turns.is_idle());
    }

    #[test]
    fn a_run_that_was_given_up_lets_the_next_one_pass() {
        let mut turns = Turns::new(2, PARKED, 2);
        let (first, second) = (turns.ticket().unwrap(), turns.ticket().unwrap());
        assert_eq!(turns.complete(second, B, &mut vec![2]), Leave::Parked);
        let mut run = vec![];
        assert_eq!(turns.complete(first, A, &mut run), Leave::Taken);
        assert_eq!(run, [2]);
    }

    #[test]
    fn tickets_run_out_while_the_head_is_slow_and_come_back_when_it_is_done() {
        let mut turns = Turns::new(1, PARKED, 2);
        let head = turns.ticket().unwrap();
        for n in 1..PARKED {
            let ticket = turns.ticket().unwrap();
            assert_eq!(turns.complete(ticket, B, &mut vec![n]), Leave::Parked);
        }
        assert!(turns.is_full() && turns.ticket().is_none());
        let mut run = vec![0];
        assert_eq!(turns.complete(head, A, &mut run), Leave::Taken);
        assert_eq!(run, (0..PARKED).collect::<Vec<_>>());
        assert!(turns.ticket().is_some());
    }

    #[test]
    fn what_does_not_fit_is_taken_the_next_time() {
        struct Small(Vec<u32>);
        impl Queue<u32> for Small {
            fn room(&self) -> usize {
                3 - self.0.len()
            }
            fn put(&mut self, item: u32) -> Result<(), u32> {
                self.0.push(item);
                Ok(())
            }
            fn park<'a>(&mut self, places: impl Iterator<Item = &'a mut Option<u32>>) {
                self.0.drain(..).zip(places).for_each(|(item, place)| *place = Some(item));
            }
        }
        let mut turns = Turns::new(2, PARKED, 2);
        let tickets: Vec<_> = (0..3).map(|_| turns.ticket().unwrap()).collect();
        let mut tickets = tickets.into_iter();
        let head = tickets.next().unwrap();
        for (n, ticket) in (1..).zip(tickets) {
            assert_eq!(turns.complete(ticket, B, &mut Small(vec![n])), Leave::Parked);
        }
        let mut run = Small(vec![0, 0]);
        assert_eq!(turns.complete(head, A, &mut run), Leave::Taken);
        assert_eq!(run.0, [0, 0], "one place left is less than a run may need");
        assert!(turns.written(A, &mut run), "no room: more to come");
        run.0.clear();
        assert!(turns.written(A, &mut run));
        assert_eq!(run.0, [1, 2]);
        assert!(!turns.written(A, &mut run));
    }

    /// Every operation is one critical section, so all that several workers can do to each other is some order of
    /// whole operations: the tests below walk through the orders.
    mod interleavings {
        use super::*;
        use kern::testing::{Chance, soak};

        #[derive(Clone)]
        struct Model {
            turns: Turns<u32>,
            next: u32,
            device: Vec<u32>,
            workers: Vec<Actor>,
        }

        impl Clone for Turns<u32> {
            fn clone(&self) -> Self {
                Turns { places: self.places.clone(), ..*self }
            }
        }

        /// A worker of the model: `turns` loop turns, in each of which it seals `runs` runs and writes what it got.
        #[derive(Clone)]
        struct Actor {
            turns: u32,
            runs: u32,
            sealing: Option<(u64, Vec<u32>)>,
            sealed: u32,
            got: Vec<u32>,
            /// Told to come again: writes out what it has first.
            stalled: bool,
            owes: bool,
            wrote: bool,
        }

        impl Actor {
            fn new(turns: u32, runs: u32) -> Actor {
                Actor {
                    turns,
                    runs,
                    sealing: None,
                    sealed: 0,
                    got: vec![],
                    stalled: false,
                    owes: false,
                    wrote: false,
                }
            }
        }

        impl Model {
            fn new(workers: &[(u32, u32)]) -> Model {
                let workers = workers.iter().map(|&(turns, runs)| Actor::new(turns, runs)).collect();
                Model { turns: Turns::new(2, PARKED, 2), next: 0, device: vec![], workers }
            }

            fn is_done(&self, w: usize) -> bool {
                self.workers[w].turns == 0
            }

            /// The next operation of worker `w`.
            fn step(&mut self, w: usize) {
                let (me, actor) = (Worker(w as u16), &mut self.workers[w]);
                if let Some((ticket, mut run)) = actor.sealing.take() {
                    let leave = self.turns.complete(Ticket(ticket), me, &mut run);
                    assert_eq!(leave == Leave::Kept, actor.owes && leave != Leave::Parked);
                    if leave != Leave::Parked {
                        actor.owes = true;
                        actor.got.append(&mut run);
                    }
                    assert!(run.is_empty());
                    actor.sealed += 1;
                } else if actor.sealed < actor.runs && !actor.stalled {
                    let Some(ticket) = self.turns.ticket() else {
                        actor.stalled = true;
                        return;
                    };
                    // One run in five is given up.
                    let len = if ticket.0 % 5 == 3 { 0 } else { 1 + ticket.0 as u32 % 2 };
                    actor.sealing = Some((ticket.0, (self.next..self.next + len).collect()));
                    self.next += len;
                } else if !actor.got.is_empty() || !actor.wrote {
                    self.device.append(&mut actor.got);
                    actor.wrote = true;
                } else if actor.owes && self.turns.written(me, &mut actor.got) {
                    actor.wrote = false;
                } else if actor.sealed < actor.runs {
                    (actor.stalled, actor.owes, actor.wrote) = (false, false, false);
                } else {
                    *actor = Actor::new(actor.turns - 1, actor.runs);
                }
            }

            fn check(&self, schedule: &[usize]) {
                assert!(self.turns.is_idle(), "something stayed behind: {schedule:?}");
                assert_eq!(self.device, (0..self.next).collect::<Vec<_>>(), "{schedule:?}");
                assert!(self.turns.places.iter().all(Option::is_none));
            }

            fn explore(&self, schedule: &mut Vec<usize>, count: &mut u64) {
                let mut ended = true;
                for w in 0..self.workers.len() {
                    if self.is_done(w) {
                        continue;
                    }
                    ended = false;
                    let mut next = self.clone();
                    next.step(w);
                    schedule.push(w);
                    next.explore(schedule, count);
                    schedule.pop();
                }
                if ended {
                    self.check(schedule);
                    *count += 1;
                }
            }
        }

        #[test]
        fn every_order_of_two_workers_keeps_the_order_and_loses_nothing() {
            for workers in [[(1, 2), (1, 2)], [(2, 1), (2, 1)], [(1, 3), (2, 1)]] {
                let mut count = 0;
                Model::new(&workers).explore(&mut vec![], &mut count);
                println!("{workers:?}: {count} schedules");
                assert!(count > 1000);
            }
        }

        #[test]
        fn every_order_of_three_workers_keeps_the_order_and_loses_nothing() {
            let mut count = 0;
            Model::new(&[(1, 1), (1, 1), (1, 1)]).explore(&mut vec![], &mut count);
            println!("{count} schedules");
            assert!(count > 10_000);
        }

        #[test]
        fn random_orders_of_four_workers_keep_the_order_and_lose_nothing() {
            let schedules = if soak() { 100_000 } else { 2000 };
            let mut chance = Chance::new(0x2545_f491_4f6c_dd1d);
            for _ in 0..schedules {
                let mut model = Model::new(&[(9, 4), (5, 8), (20, 1), (9, 2)]);
                let mut schedule = vec![];
                loop {
                    let ready: Vec<_> = (0..4).filter(|&w| !model.is_done(w)).collect();
                    if ready.is_empty() {
                        break;
                    }
                    // A worker runs a few steps on, as on a real core.
                    let w = chance.one_of(&ready);
                    for _ in 0..=chance.below(6) {
                        if !model.is_done(w) {
                            model.step(w);
                            schedule.push(w);
                        }
                    }
                }
                model.check(&schedule);
            }
        }
    }
}
