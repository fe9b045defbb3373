//! What the kernel's primitives cost, in nanoseconds, each the best of several rounds.
//!
//!     cargo bench -p kern --bench kern
//!
//! Figures of one thread are of a warm cache; those of two threads depend on which two cores they run on.

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use kern::{
    callout::Callouts,
    counter::Counter,
    lock::{
        BigLocks, Locking, Mutex, Root, SpinMutex,
        levels::{Ifq, PfState, PfStates},
    },
    publish::Publisher,
    ring,
    time::{Clock, Duration, Instant as At},
};

const ROUNDS: usize = 7;

/// The best of several rounds: nanoseconds for each of `count` turns of `work`.
fn measure(what: &str, count: u64, mut work: impl FnMut(u64)) {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work(count);
        best = best.min(start.elapsed().as_nanos() as f64 / count as f64);
    }
    println!("{what:<58}{best:>9.2} ns");
}

fn locks() {
    let mut root = Root::claim();
    let spin: SpinMutex<PfState, u64> = SpinMutex::new(0);
    let row: SpinMutex<PfStates, u64> = SpinMutex::new(0);
    let sleeping: Mutex<Ifq, u64> = Mutex::new(0);
    measure("spin lock, free", 10_000_000, |n| {
        for _ in 0..n {
            *root.top().lock(&spin).0 += 1;
        }
    });
    measure("row, then state, row let go", 10_000_000, |n| {
        for _ in 0..n {
            let mut top = root.top();
            let (mut row, held) = top.lock(&row);
            *row += 1;
            let (mut state, _) = held.then(&spin);
            drop(row);
            *state += 1;
        }
    });
    measure("mutex, free", 10_000_000, |n| {
        for _ in 0..n {
            *root.top().lock(&sleeping).0 += 1;
        }
    });
    for profile in [Locking::Fine, Locking::Giant] {
        let big = BigLocks::new(black_box(profile));
        measure(&format!("enter Softnet, then Kernel: {profile}"), 10_000_000, |n| {
            for _ in 0..n {
                let mut top = root.top();
                let (_softnet, mut held) = big.enter_softnet(&mut top);
                let (_kernel, held) = big.enter_kernel(&mut held);
                black_box(&held);
            }
        });
    }
    measure("spin lock, two threads fighting", 2_000_000, |n| {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut root = Root::claim();
                    for _ in 0..n / 2 {
                        *root.top().lock(&spin).0 += 1;
                    }
                });
            }
        });
    });
}

fn counters_and_clock() {
    let (counter, shared) = (Counter::new(), AtomicU64::new(0));
    measure("counter", 100_000_000, |n| {
        for _ in 0..n {
            black_box(&counter).inc();
        }
    });
    measure("  beside it: atomic addition", 20_000_000, |n| {
        for _ in 0..n {
            black_box(&shared).fetch_add(1, Ordering::Relaxed);
        }
    });
    measure("read the clock", 10_000_000, |n| {
        for _ in 0..n {
            black_box(Clock::Real.now());
        }
    });
}

fn snapshots() {
    let mut root = Root::claim();
    let mut publisher = Publisher::new(7_u64);
    let mut reader = publisher.local_reader("bench");
    measure("snapshot: look and read", 100_000_000, |n| {
        for _ in 0..n {
            black_box(&mut reader).refresh(&mut root);
            black_box(reader.get());
        }
    });
    measure("snapshot: publish and take up", 1_000_000, |n| {
        for value in 0..n {
            publisher.publish(value);
            black_box(reader.refresh(&mut root));
            publisher.collect();
        }
    });
    let mut reader = publisher.reader("bench").unpark(&mut root);
    measure("snapshot: park and come back", 5_000_000, |n| {
        for _ in 0..n {
            black_box(reader.park_while(&mut root, |_| ()));
        }
    });
}

/// How long it takes to stop a worker that does nothing but come to the top of its loop. Before each moment the
/// worker is seen to run, for one that has not woken from the last moment is still stopped.
fn quiet_moments() {
    const MOMENTS: usize = 2_000;
    let mut publisher = Publisher::new(0);
    let parked = publisher.reader("bench");
    let (stop, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut gathered: Vec<Duration> = Vec::with_capacity(MOMENTS);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut root = Root::claim();
            let mut reader = parked.unpark(&mut root);
            while !stop.load(Ordering::Relaxed) {
                reader.refresh(&mut root);
                turns.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut root = Root::claim();
        for _ in 0..MOMENTS {
            let seen = turns.load(Ordering::Relaxed);
            while turns.load(Ordering::Relaxed) < seen + 10 {
                thread::yield_now();
            }
            let moment = publisher.quiet_moment(&mut root, Duration::from_secs(10), || (), |_| ());
            moment.expect("the worker spins");
            gathered.push(publisher.quiet_log().last.gathered_for);
        }
        stop.store(true, Ordering::Relaxed);
    });
    gathered.sort_unstable();
    let [median, slow] = [MOMENTS / 2, MOMENTS * 99 / 100].map(|i| gathered[i].as_nanos());
    println!("{:<58}{median:>6}    ns, 99 % below {slow} ns", "quiet moment: stop a spinning worker");
}

fn callouts() {
    let now = At::from_secs(1);
    let mut callouts: Callouts<u32> = Callouts::new(now, Duration::from_millis(1), 100_000);
    let delay = |i: u64| now.after(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 30_000_000_000);
    measure("callout: arm and cancel, 50,000 armed", 2_000_000, |n| {
        let standing: Vec<_> = (0..50_000).map(|i| callouts.arm(delay(i), i as u32)).collect();
        for i in 0..n - 100_000 {
            let handle = callouts.arm(delay(i), 0);
            callouts.cancel(black_box(handle));
        }
        for handle in standing {
            callouts.cancel(handle);
        }
    });
    let mut now = now;
    measure("callout: arm and fire, 100,000 over 30 s", 100_000, |n| {
        for i in 0..n {
            callouts.arm(now.after(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 30_000_000_000), i as u32);
        }
        now += Duration::from_secs(31);
        while let Some(key) = callouts.pop(now) {
            black_box(key);
        }
    });
    measure("callout: nothing due", 100_000_000, |n| {
        for _ in 0..n {
            black_box(black_box(&callouts).is_due(now));
        }
    });
}

/// Both ends of a ring in one thread: the cost of the instructions.
fn rings_in_one_thread() {
    let (mut producer, mut consumer) = ring::ring(1024);
    measure("ring, one thread, in runs of 32", 32_000_000, |n| {
        for run in 0..n / 32 {
            producer.push_from(&mut (run..run + 32));
            consumer.drain(32, |item| {
                black_box(item);
            });
        }
    });
    measure("ring, one thread, one by one", 32_000_000, |n| {
        for item in 0..n {
            let _ = producer.push(item);
            black_box(consumer.pop());
        }
    });
    let (mut producer, mut consumer) = rtrb::RingBuffer::new(1024);
    measure("  beside it: rtrb in chunks of 32", 32_000_000, |n| {
        for run in 0..n / 32 {
            if let Ok(chunk) = producer.write_chunk_uninit(32) {
                chunk.fill_from_iter(run..run + 32);
            }
            if let Ok(chunk) = consumer.read_chunk(32) {
                for item in chunk {
                    black_box(item);
                }
            }
        }
    });
    measure("  beside it: rtrb one by one", 32_000_000, |n| {
        for item in 0..n {
            let _ = producer.push(item);
            let _ = black_box(consumer.pop());
        }
    });
}

/// From one thread to another.
fn rings_between_threads() {
    const RUN: u64 = 32;
    measure("ring, two threads, in runs of 32", 20_000_000, |n| {
        let (mut producer, mut consumer) = ring::ring(1024);
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut items = 0..n;
                while !items.is_empty() {
                    if producer.push_from(&mut items.by_ref().take(RUN as usize)) == 0 {
                        std::hint::spin_loop();
                    }
                }
            });
            let mut taken = 0;
            while taken < n {
                let run = consumer.drain(RUN as usize, |item| {
                    black_box(item);
                });
                taken += run as u64;
                if run == 0 {
                    std::hint::spin_loop();
                }
            }
        });
    });
    measure("  beside it: rtrb in chunks of at most 32", 20_000_000, |n| {
        let (mut producer, mut consumer) = rtrb::RingBuffer::new(1024);
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut items = 0..n;
                while !items.is_empty() {
                    let run = (producer.slots() as u64).min(RUN).min(items.end - items.start);
                    match producer.write_chunk_uninit(run as usize) {
                        Ok(chunk) if run > 0 => drop(chunk.fill_from_iter(&mut items)),
                        _ => std::hint::spin_loop(),
                    }
                }
            });
            let mut taken = 0;
            while taken < n {
                let run = consumer.slots().min(RUN as usize);
                match consumer.read_chunk(run) {
                    Ok(chunk) if run > 0 => {
                        for item in chunk {
                            black_box(item);
                        }
                    }
                    _ => std::hint::spin_loop(),
                }
                taken += run as u64;
            }
        });
    });
}

fn main() {
    locks();
    counters_and_clock();
    snapshots();
    quiet_moments();
    callouts();
    rings_in_one_thread();
    rings_between_threads();
}
