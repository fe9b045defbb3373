//! The quiet moment: every worker stopped at the top of its loop, where nothing is pending.
//!
//! A busy router has no moment at which all its books agree; so one is made. The control thread asks, each worker
//! stops where it would have looked for a new snapshot anyway (the same word tells both, see [`crate::publish`]), a
//! parked worker is kept parked, and when all stand still the control thread runs a closure and lets go.
//! While it runs, everything the workers wrote before is visible to it, and nothing changes.
//!
//! It is for what must be exact: the audit of buffers, a sum of counters, taking a worker's tables apart.
//! It costs the slowest worker's loop (tens of microseconds), is meant to last under a millisecond, and is counted and
//! timed. It is not a way to change configuration: that is [published](crate::publish::Publisher::publish).

use crate::{
    lock::{Root, witness::assert_nothing_held},
    publish::{Late, Place, Publisher, Shared},
    time::{Clock, Duration},
};

/// How long a quiet moment took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// From asking until all stood still.
    pub gathered_for: Duration,
    /// From then until they were let go: what the closure took.
    pub held_for: Duration,
}

/// The quiet moments of a publisher so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuietLog {
    /// How many there were.
    pub count: u64,
    /// How many were given up because a worker did not come.
    pub given_up: u64,
    /// The last one.
    pub last: Moment,
    /// The longest of each part.
    pub longest: Moment,
}

impl QuietLog {
    fn note(&mut self, moment: Moment) {
        self.count += 1;
        self.last = moment;
        self.longest.gathered_for = self.longest.gathered_for.max(moment.gathered_for);
        self.longest.held_for = self.longest.held_for.max(moment.held_for);
    }
}

/// Lets the workers go, also when the closure panics.
struct LetGo<'a, T>(&'a Shared<T>);

impl<T> Drop for LetGo<'_, T> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl<T> Publisher<T> {
    /// Makes a quiet moment and runs `look` in it, with the latest snapshot.
    ///
    /// `wake` is called once the workers have been asked: it rouses those that block without being parked.
    ///
    /// # Errors
    /// [`Late`] if a worker does not stop within `timeout`; then `look` has not run, and the others go on.
    pub fn quiet_moment<R>(
        &mut self,
        _nothing_held: &mut Root,
        timeout: Duration,
        wake: impl FnOnce(),
        look: impl FnOnce(&T) -> R,
    ) -> Result<R, Late> {
        assert_nothing_held("a quiet moment");
        let asked = Clock::Real.now();
        self.shared.ask_for_quiet();
        let stopped = LetGo(&self.shared);
        wake();
        if let Err(late) = self.shared.wait_until(timeout, |place| !matches!(place, Place::Reading(_))) {
            drop(stopped);
            self.quiet.given_up += 1;
            return Err(late);
        }
        let gathered = Clock::Real.now();
        let result = look(self.current());
        let done = Clock::Real.now();
        drop(stopped);
        self.quiet.note(Moment { gathered_for: gathered - asked, held_for: done - gathered });
        Ok(result)
    }

    /// The quiet moments so far.
    pub fn quiet_log(&self) -> QuietLog {
        self.quiet
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::atomic::{AtomicBool, AtomicU64, Ordering},
        thread,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Runs `control` beside `workers` threads that count in step on two counters each, and park now and then.
    fn beside_workers(
        workers: usize,
        control: impl FnOnce(&mut Publisher<u32>, &mut Root, &[[AtomicU64; 2]]),
    ) {
        let mut publisher = Publisher::new(0);
        let counts: Vec<[AtomicU64; 2]> = (0..workers).map(|_| Default::default()).collect();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for (i, count) in counts.iter().enumerate() {
                let parked = publisher.reader(&format!("worker {i}"));
                let stop = &stop;
                scope.spawn(move || {
                    let mut root = Root::claim();
                    let mut reader = parked.unpark(&mut root);
                    while !stop.load(Ordering::Relaxed) {
                        reader.refresh(&mut root);
                        let n = count[0].load(Ordering::Relaxed) + 1;
                        count[0].store(n, Ordering::Relaxed);
                        if n % 64 == 0 {
                            thread::yield_now();
                        }
                        count[1].store(n, Ordering::Relaxed);
                        if n % 1000 == 0 {
                            reader.park_while(&mut root, |_| thread::sleep(Duration::from_micros(100)));
                        }
                    }
                });
            }
            // The workers stop also when the test fails.
            let outcome =
                catch_unwind(AssertUnwindSafe(|| control(&mut publisher, &mut Root::claim(), &counts)));
            stop.store(true, Ordering::Relaxed);
            if let Err(panic) = outcome {
                std::panic::resume_unwind(panic);
            }
        });
    }

    #[test]
    fn in_a_quiet_moment_no_worker_is_within_a_loop_and_nothing_moves() {
        beside_workers(3, |publisher, root, counts| {
            let read =
                || counts.iter().map(|c| c.each_ref().map(|c| c.load(Ordering::Relaxed))).collect::<Vec<_>>();
            let mut last = read();
            for round in 0..200 {
                let now = publisher
                    .quiet_moment(
                        root,
                        LONG,
                        || (),
                        |_| {
                            let first = read();
                            thread::sleep(Duration::from_micros(50));
                            assert_eq!(first, read(), "round {round}: somebody moved");
                            first
                        },
                    )
                    .unwrap();
                assert!(now.iter().all(|[a, b]| a == b), "round {round}: {now:?}");
                assert!(now.iter().zip(&last).all(|(now, last)| now[0] >= last[0]));
                last = now;
            }
            let log = publisher.quiet_log();
            assert_eq!((log.count, log.given_up), (200, 0));
            assert!(
                log.longest.held_for >= Duration::from_micros(50)
                    && log.longest.gathered_for > Duration::ZERO
            );
        });
    }

    #[test]
    fn workers_are_let_go_when_the_closure_panics() {
        beside_workers(1, |publisher, root, counts| {
            let panic = catch_unwind(AssertUnwindSafe(|| {
                publisher.quiet_moment(root, LONG, || (), |_| panic!("look"))
            }));
            assert!(panic.is_err());
            let before = counts[0][1].load(Ordering::Relaxed);
            while counts[0][1].load(Ordering::Relaxed) == before {
                thread::yield_now();
            }
            assert_eq!(publisher.quiet_log().count, 0);
        });
    }

    #[test]
    fn a_worker_that_does_not_come_is_named_and_the_moment_given_up() {
        let mut publisher = Publisher::new(());
        let parked = publisher.reader("worker 7");
        let (ready, busy) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                let _reader = parked.unpark(&mut Root::claim());
                ready.send(()).unwrap();
                wait.recv().unwrap();
            });
            busy.recv().unwrap();
            let mut root = Root::claim();
            let late =
                publisher.quiet_moment(&mut root, Duration::from_millis(5), || (), |()| ()).unwrap_err();
            assert_eq!(late.names, ["worker 7"]);
            assert_eq!(publisher.quiet_log().given_up, 1);
            done.send(()).unwrap();
        });
        publisher.quiet_moment(&mut Root::claim(), LONG, || (), |()| ()).unwrap();
    }

    #[test]
    fn readers_on_the_publishers_own_thread_do_not_hold_it_up() {
        let mut publisher = Publisher::new(1);
        let mut reader = publisher.local_reader("worker 0");
        let mut root = Root::claim();
        let mut woken = 0;
        assert_eq!(publisher.quiet_moment(&mut root, LONG, || woken += 1, |value| *value), Ok(1));
        let version = publisher.publish(2);
        publisher.wait_all(&mut root, version, LONG).unwrap();
        assert_eq!((*reader.get(), reader.refresh(&mut root), *reader.get(), woken), (1, true, 2, 1));
        assert!(!reader.refresh(&mut root));
        assert_eq!(reader.park_while(&mut root, |_| 5), (5, false));
    }
}
