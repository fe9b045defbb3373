//! Many states and two workers, each on a thread of its own: a table is filled, used by both, and emptied by expiry in
//! steps none of which looks at more than its budget. `SOFTNET_SOAK=1` fills it with a million.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    net::Ipv4Addr,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use common::{IN, LAN, OUT, SERVER, router};
use kern::{
    lock::{Root, levels::PfRules},
    testing::{Fixture, soak},
    time::Instant,
};
use pf::{Names, Pf, PfCx, Ruleset, Verdict, Worker};
use wire::build;

const WORKERS: usize = 2;
/// Slots that one step of the purge looks at, as the router has it.
const BUDGET: u32 = 4096;
/// How often a worker takes a step.
const STEP: Duration = Duration::from_millis(10);
const PORTS: u32 = 50_000;

/// One worker at its instant.
struct Seat<'a> {
    pf: &'a Pf,
    rules: &'a Ruleset,
    worker: Worker,
    fixture: Fixture,
    root: Root,
    now: Instant,
}

impl Seat<'_> {
    fn with<R>(&mut self, f: impl FnOnce(&mut PfCx<'_>) -> R) -> R {
        let mut held = self.root.top();
        f(&mut PfCx::new(self.pf, self.rules, &mut self.worker, held.at::<PfRules>(), self.now))
    }

    /// The question of a flow, or the answer to it.
    fn passes(&mut self, flow: u32, upwards: bool) -> bool {
        let client = Ipv4Addr::from_bits(0x0a00_0000 + flow / PORTS);
        let port = (flow % PORTS) as u16 + 1;
        let octets = if upwards {
            build::udp4(client, SERVER, port, 53, b"q")
        } else {
            build::udp4(SERVER, client, 53, port, b"a")
        };
        let mut m = self.fixture.packet(&octets);
        m.hdr_mut().family = 4;
        let verdict = self.with(|pf| pf.test(if upwards { IN } else { OUT }, LAN, &mut m));
        self.fixture.done(m);
        matches!(verdict, Verdict::Pass(_))
    }
}

fn ruleset(pf: &Pf, limit: u32) -> Ruleset {
    let text = format!(
        "set limit states {limit}\nset timeout {{ adaptive.start 0, adaptive.end 0 }}\n\
         block all\npass in on lan0 proto udp keep state\n"
    );
    let conf = pf::conf::load_text("pf.conf", &text, &router(), &[]).unwrap();
    let rules = pf.compile(&Arc::new(conf), &router(), &mut Names::new()).unwrap();
    pf.enforce(&mut Root::claim().top().at(), &rules);
    rules
}

#[test]
fn two_workers_fill_a_table_use_it_and_empty_it_in_small_steps() {
    let flows: u32 = if soak() { 1_000_000 } else { 50_000 };
    fill_use_and_empty(&Pf::new(WORKERS, flows), flows);
}

/// Rows that were made for a thousand states hold fifty times as many.
#[test]
fn a_limit_that_is_raised_later_crowds_the_rows_and_loses_nothing() {
    let pf = Pf::new(WORKERS, 1000);
    assert_eq!(pf.states().rows(), 1024);
    fill_use_and_empty(&pf, 50_000);
    assert_eq!((pf.states().rows(), Pf::new(1, 200_000).states().rows()), (1024, 1 << 18));
}

fn fill_use_and_empty(pf: &Pf, flows: u32) {
    let rules = ruleset(pf, flows);
    let barrier = Barrier::new(WORKERS);
    thread::scope(|scope| {
        for me in 0..WORKERS {
            let (rules, barrier) = (&rules, &barrier);
            scope.spawn(move || {
                let worker = pf.worker(me);
                let (fixture, root) = (Fixture::new(64), Root::claim());
                let mut seat = Seat { pf, rules, worker, fixture, root, now: Instant::from_secs(1000) };
                for flow in (me as u32..flows).step_by(WORKERS) {
                    assert!(seat.passes(flow, true), "flow {flow}");
                }
                barrier.wait();
                if me == 0 {
                    assert_eq!(pf.states().count(), flows);
                    assert!(!seat.passes(flows, true), "the table is full");
                }
                barrier.wait();
                // The answers come by the other worker.
                for flow in ((me + 1) as u32 % 2..flows).step_by(WORKERS) {
                    assert!(seat.passes(flow, false), "the answer of {flow}");
                }
                barrier.wait();
                empty(&mut seat, barrier);
            });
        }
    });
    assert_eq!(pf.states().count(), 0);
    let counters = pf.counters();
    assert_eq!((counters.inserts.get(), counters.removals.get()), (u64::from(flows), u64::from(flows)));
    assert_eq!(pf.slab().in_use(), 2, "the rules of the ruleset");
}

/// Lets all states expire, both workers in step: time is virtual. They have a round of the purge to find them all.
fn empty(seat: &mut Seat<'_>, barrier: &Barrier) {
    seat.now += Duration::from_secs(25);
    assert_eq!(seat.with(|pf| pf.purge(BUDGET)), 0, "nothing is over yet");
    barrier.wait();
    seat.now += Duration::from_secs(6);
    for _ in 0..1200 {
        let removed = seat.with(|pf| pf.purge(BUDGET));
        assert!(removed <= BUDGET, "{removed} in one step");
        seat.now += STEP;
        barrier.wait();
        let left = seat.pf.states().count();
        barrier.wait();
        if left == 0 {
            return;
        }
    }
    panic!("{} are left", seat.pf.states().count());
}
