//! Workers that take and leave mappings, in every order of their steps.
//!
//! A step is one critical section: all that several workers can do to each other is some order of such steps.

use std::collections::HashSet;

use kern::lock::Root;

use super::*;
use crate::orders;

fn end(port: u16) -> Endpoint {
    Endpoint { family: Family::Inet, address: 0xc000_0201, port }
}

/// One worker with one packet of a sender.
#[derive(Clone, Debug)]
struct Worker {
    inside: u16,
    /// Ports that it tries, in this order.
    ports: Vec<u16>,
    /// Which serve it: those from here on.
    from: u16,
    at: Step,
    /// It has had one.
    served: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Look,
    Reserve,
    /// It has reserved a port, in this entry.
    Put(u16, u32),
    /// It has another's.
    GiveUp(u16, u32, u16),
    /// It has one, and a state.
    Has(u16),
    /// The state was the last.
    Out(u16, u32),
    Done(Option<u16>),
}

impl Worker {
    fn new(inside: u16, ports: &[u16]) -> Worker {
        Worker { inside, ports: ports.to_vec(), from: 0, at: Step::Look, served: false }
    }

    fn mapping(&self, outside: u16) -> Mapping {
        Mapping { inside: end(self.inside), outside: end(outside) }
    }

    /// As [`Mappings`] does it; `ends` says whether the state ends, too.
    fn step(&mut self, rows: &Rows, held: &mut Held<'_, PfRules>, ends: bool) {
        let from = self.from;
        let serves = |outside: &Endpoint| outside.port >= from;
        self.at = match self.at {
            Step::Look => rows
                .take(held, &end(self.inside), serves)
                .map_or(Step::Reserve, |outside| Step::Has(outside.port)),
            Step::Reserve if self.ports.is_empty() => Step::Done(None),
            Step::Reserve => {
                let port = self.ports.remove(0);
                rows.reserve(held, &self.mapping(port)).map_or(Step::Reserve, |at| Step::Put(port, at))
            }
            Step::Put(port, at) => match rows.put(held, at, &self.mapping(port), serves) {
                None => Step::Has(port),
                Some(other) => Step::GiveUp(port, at, other.port),
            },
            Step::GiveUp(port, at, other) => {
                rows.give_up(held, at, &end(port));
                Step::Has(other)
            }
            Step::Has(port) if !ends => Step::Done(Some(port)),
            Step::Has(port) => {
                rows.take_out(held, &self.mapping(port)).map_or(Step::Done(None), |at| Step::Out(port, at))
            }
            Step::Out(port, at) => {
                rows.give_up(held, at, &end(port));
                Step::Done(None)
            }
            Step::Done(_) => self.at,
        };
        self.served |= self.has().is_some();
    }

    /// What it sends from at the moment, if it has a mapping.
    fn has(&self) -> Option<u16> {
        match self.at {
            Step::Has(port) | Step::GiveUp(_, _, port) | Step::Done(Some(port)) => Some(port),
            _ => None,
        }
    }
}

/// Walks through every order in which these get what they want; says how many there are, and in how many of them some worker
/// found all its ports taken.
fn every(workers: &[Worker], ends: bool) -> (u32, u32) {
    let mut starved = 0;
    let mut root = Root::claim();
    let orders = orders::every(|choose| {
        let mut top = root.top();
        let (rows, mut held, mut workers) = (Rows::new(2), top.at::<PfRules>(), workers.to_vec());
        rows.grow(1);
        loop {
            let busy: Vec<usize> =
                (0..workers.len()).filter(|&i| !matches!(workers[i].at, Step::Done(_))).collect();
            if busy.is_empty() {
                break;
            }
            let next = busy[choose(busy.len())];
            workers[next].step(&rows, &mut held, ends);
            let holders = || workers.iter().filter_map(|w| Some((w.inside, w.from, w.has()?)));
            for (inside, from, port) in holders() {
                for (other, other_from, its) in holders() {
                    assert!(its != port || inside == other, "{port} is of two senders: {workers:?}");
                    if (inside, from) == (other, other_from) {
                        assert_eq!(its, port, "one sender, one port: {workers:?}");
                    }
                }
            }
        }
        let left: HashSet<u16> = workers.iter().filter_map(Worker::has).collect();
        let [inside, outside] = [Side::Inside, Side::Outside].map(|side| rows.all(&mut held, side));
        for all in [&inside, &outside] {
            assert_eq!(all.iter().map(|it| it.0.outside.port).collect::<HashSet<_>>(), left);
            assert_eq!(all.len(), left.len(), "{all:?}");
        }
        assert!(outside.iter().all(|(_, reserved)| *reserved == 1), "{outside:?}");
        let states: u32 = inside.iter().map(|(_, states)| states).sum();
        assert_eq!(states as usize, workers.iter().filter(|w| w.has().is_some()).count());
        starved += u32::from(!workers.iter().all(|w| w.served));
    });
    (orders, starved)
}

#[test]
fn one_sender_has_one_port_whoever_is_first() {
    let three = [Worker::new(1, &[10, 11]), Worker::new(1, &[20, 21]), Worker::new(1, &[10, 20])];
    let (orders, starved) = every(&three, false);
    assert!(orders > 100 && starved == 0);
    let (orders, starved) = every(&three[..2], true);
    assert!(orders > 20 && starved == 0);
}

/// As with `static-port`: its workers claim the same port, and one may have done so when another gives it up.
#[test]
fn a_sender_who_can_have_one_port_only_gets_it_in_every_order() {
    let three = [(); 3].map(|()| Worker::new(1, &[10]));
    for ends in [false, true] {
        let (orders, starved) = every(&three, ends);
        assert!(orders > 100);
        assert_eq!(starved, 0, "{ends}");
    }
}

#[test]
fn two_senders_never_have_the_same_port() {
    let three = [Worker::new(1, &[10, 11]), Worker::new(2, &[10, 11]), Worker::new(1, &[11, 10])];
    assert!(every(&three, false).0 > 100);
    assert!(every(&three, true).0 > 100);
}

#[test]
fn a_rule_that_another_s_mapping_does_not_serve_makes_its_own() {
    let other = Worker { from: 20, ..Worker::new(1, &[20, 21]) };
    assert!(every(&[Worker::new(1, &[10]), other], true).0 > 20);
}
