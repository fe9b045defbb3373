//! What threads do to each other, under every interleaving that loom can think of.
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p kern --test loom --release
//!
//! A wait has no time-out here, so a lost wake-up is found as a deadlock. The models bound the number of preemptions
//! (`LOOM_MAX_PREEMPTIONS` overrides it): almost every known fault of this kind shows within two.

#![cfg(loom)]

use std::time::Duration;

use kern::{
    lock::{Leaf, Root, SpinMutex, levels::Sa},
    mbuf::depot::Depot,
    publish::Publisher,
    ring::ring,
};
use loom::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

const FOR_EVER: Duration = Duration::MAX;

/// Runs a model with at most `preemptions` preemptions.
fn model(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(run);
}

/// A snapshot that must die where it was made, once.
struct Tracked {
    value: u64,
    home: thread::ThreadId,
    dropped: Arc<AtomicUsize>,
}

impl Tracked {
    fn new(value: u64, dropped: &Arc<AtomicUsize>) -> Tracked {
        Tracked { value, home: thread::current().id(), dropped: Arc::clone(dropped) }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.home, "dropped on the publisher's thread");
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn ring_hands_over_every_item_once_and_in_order() {
    model(3, || {
        let (mut producer, mut consumer) = ring::<Box<u32>>(2);
        let filler = thread::spawn(move || {
            let mut items = (0..3).map(Box::new);
            for _ in 0..2 {
                producer.push_from(&mut items.by_ref().take(2));
                thread::yield_now();
            }
        });
        let mut next = 0;
        let mut expect = |item: Box<u32>| {
            assert_eq!(*item, next);
            next += 1;
        };
        for _ in 0..2 {
            consumer.drain(2, &mut expect);
            thread::yield_now();
        }
        if let Some(item) = consumer.pop() {
            expect(item);
        }
        drop(consumer);
        filler.join().unwrap();
    });
}

#[test]
fn ring_drops_what_is_left_whoever_goes_last() {
    model(3, || {
        let (mut producer, mut consumer) = ring(4);
        let items = Arc::new(());
        let item = Arc::clone(&items);
        let filler = thread::spawn(move || {
            for _ in 0..2 {
                assert!(producer.push(Arc::clone(&item)).is_ok());
            }
        });
        drop(consumer.pop());
        drop(consumer);
        filler.join().unwrap();
        assert_eq!(Arc::strong_count(&items), 1);
    });
}

#[test]
fn spin_lock_excludes_and_publishes() {
    model(3, || {
        let lock: Arc<SpinMutex<Sa, u32>> = Arc::new(SpinMutex::new(0));
        let other = Arc::clone(&lock);
        let thread = thread::spawn(move || {
            let mut root = Root::claim();
            *root.top().lock(&*other).0 += 1;
        });
        let mut root = Root::claim();
        *root.top().lock(&*lock).0 += 1;
        thread.join().unwrap();
        assert_eq!(*root.top().lock(&*lock).0, 2);
    });
}

#[test]
fn publish_is_seen_whole_and_old_snapshots_die_at_home() {
    model(3, || {
        let dropped = Arc::new(AtomicUsize::new(0));
        let mut publisher = Publisher::new(Tracked::new(1, &dropped));
        let parked = publisher.reader("worker");
        let worker = thread::spawn(move || {
            let mut root = Root::claim();
            let mut reader = parked.unpark(&mut root);
            let first = reader.get().value;
            assert_eq!(first, reader.version().get());
            reader.refresh(&mut root);
            let second = reader.get().value;
            assert!(second >= first && second == reader.version().get());
        });
        let mut root = Root::claim();
        let version = publisher.publish(Tracked::new(2, &dropped));
        publisher.collect();
        publisher.wait_all(&mut root, version, FOR_EVER).unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1, "nobody reads the old one after wait_all");
        worker.join().unwrap();
    });
}

#[test]
fn publish_waits_for_no_sleeper_and_a_sleeper_wakes_up_to_the_latest() {
    model(3, || {
        let dropped = Arc::new(AtomicUsize::new(0));
        let mut publisher = Publisher::new(Tracked::new(1, &dropped));
        let parked = publisher.reader("worker");
        let published = Arc::new(AtomicUsize::new(1));
        let latest = Arc::clone(&published);
        let worker = thread::spawn(move || {
            let mut root = Root::claim();
            let mut reader = parked.unpark(&mut root);
            let (at_least, _) = reader.park_while(&mut root, |_| latest.load(Ordering::Acquire));
            assert!(reader.get().value >= at_least as u64);
            // Asleep until the end, without ever refreshing again.
            reader.park()
        });
        let mut root = Root::claim();
        let version = publisher.publish(Tracked::new(2, &dropped));
        published.store(2, Ordering::Release);
        publisher.wait_all(&mut root, version, FOR_EVER).unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        drop(worker.join().unwrap());
    });
}

#[test]
fn publish_and_registration_agree_on_value_and_version() {
    model(3, || {
        let mut publisher = Publisher::new(1);
        let parked = publisher.reader("worker");
        let worker = thread::spawn(move || {
            let reader = parked.unpark(&mut Root::claim());
            assert_eq!(*reader.get(), reader.version().get());
        });
        publisher.publish(2);
        worker.join().unwrap();
    });
}

/// A worker's loop: it changes two numbers one after the other, and outside the loop they agree.
fn count_in_step(counts: &[AtomicUsize; 2]) {
    for count in counts {
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

#[test]
fn quiet_moment_finds_a_worker_between_its_loops_and_sees_what_it_did() {
    model(2, || {
        let mut publisher = Publisher::new(());
        let parked = publisher.reader("worker");
        let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let mine = Arc::clone(&counts);
        let worker = thread::spawn(move || {
            let mut root = Root::claim();
            let mut reader = parked.unpark(&mut root);
            count_in_step(&mine);
            reader.refresh(&mut root);
            count_in_step(&mine);
            reader.park_while(&mut root, |_| ());
            count_in_step(&mine);
        });
        let mut root = Root::claim();
        let read = || counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let [a, b] = publisher.quiet_moment(&mut root, FOR_EVER, || (), |()| read()).unwrap();
        assert_eq!(a, b);
        // A second one right after: a worker that has not woken from the first is still stopped.
        let [c, d] = publisher.quiet_moment(&mut root, FOR_EVER, || (), |()| read()).unwrap();
        assert!(c == d && c >= a);
        worker.join().unwrap();
        assert_eq!(read(), [3, 3]);
    });
}

#[test]
fn quiet_moment_with_two_workers_holds_both() {
    model(2, || {
        let mut publisher = Publisher::new(());
        let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let workers = [0, 1].map(|i| {
            let (parked, counts) = (publisher.reader("worker"), Arc::clone(&counts));
            thread::spawn(move || {
                let mut root = Root::claim();
                let mut reader = parked.unpark(&mut root);
                counts[i].store(1, Ordering::Relaxed);
                counts[i].store(2, Ordering::Relaxed);
                reader.refresh(&mut root);
            })
        });
        let read = || counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let seen = publisher.quiet_moment(&mut Root::claim(), FOR_EVER, || (), |()| read()).unwrap();
        assert!(seen.iter().all(|&count| count != 1), "{seen:?}");
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn depot_neither_loses_nor_doubles_what_threads_give_and_take() {
    model(3, || {
        let depot = Arc::new(Depot::new(3));
        depot.give(0..3);
        let workers = [1, 2].map(|want| {
            let depot = Arc::clone(&depot);
            thread::spawn(move || {
                let mut mine = Vec::new();
                let taken = depot.take(want, |thing| mine.push(thing));
                assert_eq!(taken, mine.len());
                depot.give(mine);
            })
        });
        let mut mine = Vec::new();
        depot.take(1, |thing| mine.push(thing));
        depot.give(mine);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        let mut all = Vec::new();
        depot.take(4, |thing| all.push(thing));
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
    });
}

#[test]
fn leaf_excludes() {
    model(3, || {
        let leaf: Arc<Leaf<u32>> = Arc::new(Leaf::new(0));
        let other = Arc::clone(&leaf);
        let thread = thread::spawn(move || other.with(|count| *count += 1));
        leaf.with(|count| *count += 1);
        thread.join().unwrap();
        leaf.with(|count| assert_eq!(*count, 2));
    });
}
