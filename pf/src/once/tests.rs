//! Workers that race for the one packet of a rule, in every order of their steps: a look at whether it is spent, the attempt
//! to spend it, and that to take a share of the rule's limiters. Each worker is a thread with the engine itself, and stops
//! before each step until it is told to go on; one thread walks through the orders.

use std::{
    cell::RefCell,
    net::Ipv4Addr,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use kern::{
    lock::{Root, levels::PfRules},
    testing::{Fixture, soak},
    time::Instant,
};
use wire::build;

use super::Once;
use crate::{Direction, Environment, IfIndex, Names, Pf, PfCx, Ruleset, Verdict, arbitrary, conf, orders};

/// What a worker tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It stands before a step.
    Stands,
    /// Its packet has passed, or not.
    Done(bool),
}

struct Line {
    go: Receiver<()>,
    tell: Sender<Told>,
}

thread_local! {
    /// A worker's line to who says in which order; no other thread has one.
    static LINE: RefCell<Option<Line>> = const { RefCell::new(None) };
}

/// The next thing that is done can be seen by other workers.
pub(crate) fn step() {
    LINE.with_borrow(|line| {
        if let Some(line) = line {
            line.tell.send(Told::Stands).unwrap();
            line.go.recv().unwrap();
        }
    });
}

/// A worker, as who says in which order sees it.
struct Steered {
    go: Sender<()>,
    told: Receiver<Told>,
}

impl Steered {
    fn step(&self) -> Told {
        self.go.send(()).unwrap();
        self.told.recv().unwrap()
    }
}

/// A packet of a flow, again and again, whenever it is told to.
fn work(pf: &Pf, rules: &Ruleset, me: usize, port: u16, line: Line) {
    let (fixture, mut root, mut worker) = (Fixture::new(8), Root::claim(), pf.worker(me));
    let packet =
        build::udp4(Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::new(198, 51, 100, 1), port, 53, b"question");
    LINE.set(Some(line));
    let goes = || LINE.with_borrow(|line| line.as_ref().is_some_and(|line| line.go.recv().is_ok()));
    while goes() {
        let mut m = fixture.packet(&packet);
        m.hdr_mut().family = 4;
        let mut held = root.top();
        let mut cx = PfCx::new(pf, rules, &mut worker, held.at::<PfRules>(), Instant::from_secs(1000));
        let passes = matches!(cx.test(Direction::In, IfIndex(1), &mut m), Verdict::Pass(_));
        fixture.done(m);
        LINE.with_borrow(|line| line.as_ref().unwrap().tell.send(Told::Done(passes)).unwrap());
    }
}

/// In every order the packets of as many workers as there are rules with `once` pass, each worker's packet being of the
/// flow with its port. Says how many orders there are.
fn race(text: &str, ports: &[u16]) -> u32 {
    race_for(text, ports, |rules| rules.min(ports.len()))
}

/// The same where of so many rules only some have a packet, and those are spent that do.
fn race_for(text: &str, ports: &[u16], pass: impl Fn(usize) -> usize) -> u32 {
    let conf = conf::load_text("pf.conf", text, &Environment::default(), &[]).unwrap();
    let conf = conf::PfConf { options: arbitrary::conf().options, ..conf };
    let once: Vec<Once> = conf.rules.filter.iter().filter_map(|rule| rule.once.clone()).collect();
    let pf = Pf::new(ports.len(), 16);
    let rules = pf.compile(&Arc::new(conf), &Environment::default(), &mut Names::new()).unwrap();
    pf.enforce(&mut Root::claim().top().at(), &rules);
    thread::scope(|scope| {
        let workers: Vec<Steered> = ports
            .iter()
            .enumerate()
            .map(|(me, &port)| {
                let ((go, on_go), (tell, told)) = (channel(), channel());
                let (pf, rules) = (&pf, &rules);
                scope.spawn(move || work(pf, rules, me, port, Line { go: on_go, tell }));
                Steered { go, told }
            })
            .collect();
        let (mut root, mut least, mut most) = (Root::claim(), usize::MAX, 0);
        let orders = orders::every(|choose| {
            for once in &once {
                once.0.store(false, super::Ordering::Relaxed);
            }
            pf.kill_states(&mut root.top().at(), |_| true);
            let mut told: Vec<Told> = workers.iter().map(Steered::step).collect();
            let mut steps = 0;
            loop {
                let ready: Vec<usize> = (0..told.len()).filter(|&n| told[n] == Told::Stands).collect();
                if ready.is_empty() {
                    break;
                }
                let n = ready[choose(ready.len())];
                told[n] = workers[n].step();
                steps += 1;
            }
            (least, most) = (least.min(steps), most.max(steps));
            let passed = told.iter().filter(|&&told| told == Told::Done(true)).count();
            assert_eq!(passed, pass(once.len()), "{text}");
            let spent = once.iter().filter(|once| once.is_spent()).count();
            assert_eq!(spent, passed.min(once.len()), "{text}");
            let used = [text.contains("state limiter s ("), text.contains("source limiter t (")];
            for by_source in [false, true].into_iter().filter(|&by_source| used[usize::from(by_source)]) {
                let shares =
                    pf.limiters(&mut root.top().at(), by_source).pop().map(|info| info.states as usize);
                assert!(shares.is_none_or(|shares| shares == passed), "{text}: {shares:?}");
            }
        });
        assert!(least < most, "in no order had a worker to begin again");
        orders
    })
}

#[test]
fn in_every_order_of_steps_one_packet_has_the_rule() {
    const TWO: &str = "pass quick proto udp no state once\npass quick proto udp no state once\nblock all\n";
    let mut orders = 0;
    for keep in ["no state", "keep state"] {
        let one = format!("block all\npass proto udp {keep} once\n");
        // Packets of several flows, and of one.
        for ports in [&[1, 2][..], &[1, 2, 3], &[1, 1], &[1, 1, 2]] {
            orders += race(&one, ports);
        }
    }
    orders += race(TWO, &[1, 2]) + race(TWO, &[1, 2, 3]);
    if soak() {
        orders += race("block all\npass proto udp no state once\n", &[1, 2, 3, 4]);
    }
    println!("{orders} orders");
    assert!(orders > if soak() { 10_000 } else { 2000 });
}

#[test]
fn in_every_order_a_rule_whose_limiter_is_full_is_not_spent() {
    const LIMITERS: &str = "state limiter s id 1 limit 1\nsource limiter t id 1 entries 1 limit 2\n";
    let mut orders = 0;
    for by in ["state limiter s (no-match)", "source limiter t (no-match) state limiter s (no-match)"] {
        // Each packet has a rule of its own; there is room for one state.
        let own = |port| format!("pass proto udp from any port {port} {by} once\n");
        let text = [LIMITERS, "block all\n", &own(1), &own(2), &own(3)].concat();
        orders += race_for(&text, &[1, 2], |_| 1) + race_for(&text, &[1, 2, 3], |_| 1);
        // All have one rule: whoever is too late for it gives back what it has taken.
        let one =
            [LIMITERS, "block all\npass proto udp ", by, " once\n"].concat().replace("limit 1", "limit 9");
        orders += race_for(&one, &[1, 2], |_| 1) + race_for(&one, &[1, 2, 3], |_| 1);
    }
    println!("{orders} orders");
    assert!(orders > 100);
}
