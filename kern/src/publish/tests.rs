//! Who sees which snapshot, who waits for whom, and where destructors run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// A snapshot that notes where it dies.
struct Tracked {
    halves: [u64; 2],
    home: thread::ThreadId,
    dropped: Arc<AtomicUsize>,
}

impl Tracked {
    fn new(value: u64, dropped: &Arc<AtomicUsize>) -> Tracked {
        Tracked { halves: [value; 2], home: thread::current().id(), dropped: Arc::clone(dropped) }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.home, "dropped on the publisher's thread");
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_reader_keeps_its_snapshot_until_it_refreshes() {
    let mut root = Root::claim();
    let mut publisher = Publisher::new("old");
    let mut reader = publisher.local_reader("worker 0");
    assert!(!reader.is_called());
    let version = publisher.publish("new");
    assert_eq!((*publisher.current(), *reader.get(), reader.is_called()), ("new", "old", true));
    assert!(reader.refresh(&mut root) && reader.version() == version && *reader.get() == "new");
    assert_eq!((version.get(), version.to_string().as_str()), (2, "2"));
}

#[test]
fn wait_all_waits_for_the_worker_that_is_behind_and_names_it() {
    let mut root = Root::claim();
    let mut publisher = Publisher::new(1);
    let parked = publisher.reader("worker 3");
    let (to_worker, orders) = mpsc::channel::<()>();
    let (to_control, answers) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut root = Root::claim();
            let mut reader = parked.unpark(&mut root);
            to_control.send(*reader.get()).unwrap();
            while orders.recv().is_ok() {
                reader.refresh(&mut root);
                to_control.send(*reader.get()).unwrap();
            }
        });
        assert_eq!(answers.recv(), Ok(1));
        let version = publisher.publish(2);
        let late = publisher.wait_all(&mut root, version, Duration::from_millis(5)).unwrap_err();
        assert_eq!(late.names, ["worker 3"]);
        assert!(late.to_string().contains("still waiting for worker 3"), "{late}");
        assert_eq!(publisher.collect(), 1, "the worker may still read the old snapshot");
        to_worker.send(()).unwrap();
        publisher.wait_all(&mut root, version, LONG).unwrap();
        assert_eq!((answers.recv(), publisher.collect()), (Ok(2), 0));
        drop(to_worker);
    });
    let version = publisher.publish(3);
    publisher.wait_all(&mut root, version, LONG).expect("a reader gone is not waited for");
}

#[test]
fn a_parked_reader_pins_nothing_and_is_not_waited_for() {
    let mut root = Root::claim();
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut publisher = Publisher::new(Tracked::new(1, &dropped));
    let reader = publisher.reader("worker 0").unpark(&mut root);
    let parked = reader.park();
    let version = publisher.publish(Tracked::new(2, &dropped));
    publisher.wait_all(&mut root, version, Duration::ZERO).unwrap();
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    assert_eq!(parked.unpark(&mut root).get().halves, [2, 2]);
}

#[test]
fn a_seat_left_is_given_to_the_next_reader() {
    let publisher = Publisher::new(());
    let readers: Vec<_> = (0..3).map(|i| publisher.reader(&format!("worker {i}"))).collect();
    drop(readers);
    let _again: Vec<_> = (0..3).map(|i| publisher.local_reader(&format!("worker {i}"))).collect();
    assert_eq!(publisher.shared.desk.lock().seats.len(), 3);
}

#[test]
fn snapshots_are_whole_newer_never_older_and_die_at_home() {
    let mut root = Root::claim();
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut publisher = Publisher::new(Tracked::new(1, &dropped));
    let stop = AtomicBool::new(false);
    let rounds = if std::env::var_os("SOFTNET_SOAK").is_some() { 200_000 } else { 3_000 };
    thread::scope(|scope| {
        for i in 0..3 {
            let parked = publisher.reader(&format!("worker {i}"));
            let stop = &stop;
            scope.spawn(move || {
                let mut root = Root::claim();
                let mut reader = parked.unpark(&mut root);
                let (mut last, mut turn) = (0, 0u32);
                while !stop.load(Ordering::Relaxed) {
                    reader.refresh(&mut root);
                    let [a, b] = reader.get().halves;
                    assert!(a == b && a >= last && a == reader.version().get(), "{a} {b} after {last}");
                    last = a;
                    turn += 1;
                    if turn % 100 == i {
                        reader.park_while(&mut root, |_| thread::yield_now());
                    }
                }
            });
        }
        for value in 2..rounds {
            let version = publisher.publish(Tracked::new(value, &dropped));
            if value % 7 == 0 {
                publisher.wait_all(&mut root, version, LONG).unwrap();
                assert_eq!(dropped.load(Ordering::Relaxed) as u64, value - 1);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(publisher.collect(), 0);
}
