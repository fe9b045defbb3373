//! Several workers on one inbound SA, in schedules that shuttle chooses: what `begin` and `finish` do under the SA's lock,
//! with the same window and the same tickets, and shuttle's lock in place of ours (which loom tries in kern).

use crate::{
    order::{Leave, Turns, Worker},
    replay::Window,
};
use shuttle::{
    sync::{Arc, Mutex},
    thread,
};

const SIZE: u32 = 64;
/// Numbers that are sent; each arrives twice.
const NUMBERS: u64 = 40;

struct Inbound {
    turns: Turns<u64>,
    window: Window,
    accepted: Vec<u64>,
}

impl Inbound {
    fn mark(&mut self, run: &mut Vec<u64>) {
        for seq in run.drain(..) {
            if self.window.mark(seq, SIZE) {
                self.accepted.push(seq);
            }
        }
    }
}

fn deliver(sa: &Mutex<Inbound>, worker: Worker, arriving: &[u64]) {
    for run in arriving.chunks(5) {
        let (ticket, mut run) = loop {
            let mut inbound = sa.lock().unwrap();
            if let Some(ticket) = inbound.turns.ticket() {
                let passed = run.iter().copied().filter(|seq| inbound.window.check(*seq, SIZE)).collect();
                break (ticket, passed);
            }
            drop(inbound);
            thread::yield_now();
        };
        // Here the cipher works, without the lock.
        thread::yield_now();
        let leave = {
            let mut inbound = sa.lock().unwrap();
            let leave = inbound.turns.complete(ticket, worker, &mut run);
            inbound.mark(&mut run);
            leave
        };
        let mut owes = leave == Leave::Taken;
        while owes {
            thread::yield_now();
            let mut inbound = sa.lock().unwrap();
            owes = inbound.turns.written(worker, &mut run);
            inbound.mark(&mut run);
        }
    }
}

fn three_workers() {
    let inbound = Inbound { turns: Turns::new(8, 16, 3), window: Window::new(SIZE), accepted: Vec::new() };
    let sa = Arc::new(Mutex::new(inbound));
    // Each number reaches two of the three, every second run in reverse.
    let arriving = |worker: u64| {
        let mut own: Vec<u64> = (1..=NUMBERS).filter(|seq| seq % 3 != worker).collect();
        own.chunks_mut(5).skip(worker as usize % 2).step_by(2).for_each(<[u64]>::reverse);
        own
    };
    let workers: Vec<_> = (0..3)
        .map(|n| {
            let (sa, arriving) = (Arc::clone(&sa), arriving(n));
            thread::spawn(move || deliver(&sa, Worker(n as u16), &arriving))
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let mut inbound = sa.lock().unwrap();
    assert!(inbound.turns.is_idle(), "something stayed behind");
    inbound.accepted.sort_unstable();
    assert_eq!(inbound.accepted, (1..=NUMBERS).collect::<Vec<_>>(), "each exactly once");
}

#[test]
fn every_number_is_accepted_exactly_once_however_three_workers_are_scheduled() {
    let soak = std::env::var_os("SOFTNET_SOAK").is_some_and(|v| v == "1");
    let schedules = if soak { 100_000 } else { 2000 };
    shuttle::check_random(three_workers, schedules / 2);
    shuttle::check_pct(three_workers, schedules / 2, 3);
}
