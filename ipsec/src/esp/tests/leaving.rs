//! Several workers that seal for the same SAs, step by step: whatever one does between two steps of another, the device sees
//! the numbers of each SA in order.

use super::{V4, config, material, v4};
use crate::{
    esp::{LoopTurn, Releasing, output},
    order::Worker,
    sa::{Sa, SaConfig, SaIndex, Setup, Spi},
    transform::Suite,
};
use kern::{
    Batch, Ledger, Mbuf, Pool,
    lock::Root,
    testing::{Chance, Fixture, soak},
    time::Instant,
};
use std::{collections::BTreeMap, sync::Arc};

const NOW: Instant = Instant::from_secs(2);
const SAS: u32 = 3;

type Pending = output::Pending<Arc<Sa>, Box<Batch>>;

/// What a worker does next: it numbers a run, seals it, writes what it may, says so.
struct Actor {
    owed: Releasing,
    sealing: Option<Pending>,
    /// To be written.
    out: Vec<Mbuf>,
    runs: u32,
}

struct World {
    sas: Vec<Arc<Sa>>,
    actors: Vec<Actor>,
    device: BTreeMap<u32, Vec<u32>>,
    sent: BTreeMap<u32, u32>,
}

impl World {
    fn new(workers: usize, runs: u32) -> World {
        let setup = Setup { workers, ..Setup::new(NOW) };
        let sa = |n| {
            let suite = Suite::Aes128Gcm16;
            let config = SaConfig { spi: Spi(n), ..config(V4, suite) };
            Arc::new(Sa::new(SaIndex(n), config, material(suite), &setup).unwrap())
        };
        let actor = || Actor { owed: Releasing::with_capacity(4), sealing: None, out: vec![], runs };
        World {
            sas: (0..SAS).map(sa).collect(),
            actors: std::iter::repeat_with(actor).take(workers).collect(),
            device: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    fn is_done(&self, w: usize) -> bool {
        let actor = &self.actors[w];
        actor.runs == 0 && actor.sealing.is_none() && actor.out.is_empty() && actor.owed.is_empty()
    }

    fn step(&mut self, w: usize, chance: &mut Chance, pool: &Pool, ledger: &Ledger, root: &mut Root) {
        let (sas, actor) = (&self.sas, &mut self.actors[w]);
        if let Some(pending) = actor.sealing.take() {
            let mut run = output::finish(pending, &mut actor.owed, &mut root.top(), super::no_failure);
            actor.out.extend(run.drain());
        } else if actor.runs > 0 && chance.below(3) > 0 {
            actor.runs -= 1;
            let sa = chance.below(u64::from(SAS)) as u32;
            // Some are given up: a run without packets.
            let len = chance.below(4) as u32;
            *self.sent.entry(sa).or_default() += len;
            let run = Box::new(packets(len, pool, ledger));
            let begun = output::begin(Arc::clone(&sas[sa as usize]), run, NOW, &mut root.top());
            actor.sealing = begun.ok();
            assert!(actor.sealing.is_some());
        } else {
            for m in actor.out.drain(..) {
                let word = |at: usize| u32::from_be_bytes(m.data()[at..at + 4].try_into().unwrap());
                self.device.entry(word(20)).or_default().push(word(24));
                ledger.sent(m);
            }
            let mut more = Batch::new();
            actor.owed.written_output(|sa| sas.get(sa.0 as usize), &mut more, 256);
            actor.out.extend(more.drain());
        }
    }

    fn check(&self, seed: u64) {
        for (sa, sent) in &self.sent {
            let seen = self.device.get(sa).map_or(&[][..], Vec::as_slice);
            assert!(seen.iter().copied().eq(1..=*sent), "seed {seed}, SA {sa}: {seen:?}");
        }
    }
}

fn packets(len: u32, pool: &Pool, ledger: &Ledger) -> Batch {
    let mut run = Batch::new();
    for _ in 0..len {
        let mut m = pool.alloc(kern::Class::Cluster, kern::Owner::Worker).unwrap();
        m.append(60).unwrap().copy_from_slice(&v4(60));
        ledger.receive(&mut m);
        run.push(m).unwrap();
    }
    run
}

#[test]
fn whatever_one_worker_does_between_two_steps_of_another_each_sa_leaves_in_order() {
    let schedules = if soak() { 100_000 } else { 1000 };
    let (fixture, mut root) = (Fixture::new(256), Root::claim());
    let mut waited = 0u32;
    for seed in 0..schedules {
        let mut chance = Chance::new(0x9e37_79b9_7f4a_7c15 ^ seed);
        let mut world = World::new(2 + (seed % 3) as usize, 6);
        loop {
            let ready: Vec<_> = (0..world.actors.len()).filter(|w| !world.is_done(*w)).collect();
            if ready.is_empty() {
                break;
            }
            // A worker runs a few steps on, as on a real core.
            let w = chance.one_of(&ready);
            for _ in 0..=chance.below(5) {
                world.step(w, &mut chance, &fixture.pool, &fixture.ledger, &mut root);
            }
            waited += u32::from(world.actors[w].owed.room() < 256);
        }
        world.check(seed);
    }
    assert!(waited as u64 > schedules, "some had to wait: {waited}");
}

#[test]
fn what_waits_when_its_worker_stops_is_given_back() {
    let (fixture, mut root) = (Fixture::new(300), Root::claim());
    let mut world = World::new(2, 0);
    let sa = Arc::clone(&world.sas[0]);
    let begin =
        |run, root: &mut Root| output::begin(Arc::clone(&sa), Box::new(run), NOW, &mut root.top()).ok();
    let first = begin(Batch::new(), &mut root).unwrap();
    let run = packets(3, &fixture.pool, &fixture.ledger);
    let first = (first, begin(packets(1, &fixture.pool, &fixture.ledger), &mut root).unwrap());
    let later = begin(run, &mut root).unwrap();
    let owed = &mut world.actors[1].owed;
    let mut finish =
        |pending: Pending| output::finish(pending, owed, &mut root.top(), super::no_failure).len();
    assert_eq!(finish(later), 0, "the run with number 1 is still out");
    assert_eq!((owed.room(), owed.is_empty()), (253, false));
    // A caller who brings more than may wait has them all ended.
    let (mut many, mut ended) = (packets(254, &fixture.pool, &fixture.ledger), 0);
    let mut turn = LoopTurn { worker: Worker(1), now: NOW, releasing: &mut *owed };
    let octets = output::esp_output(&sa, &mut many, usize::MAX, &mut turn, &mut root.top(), |m, why| {
        assert_eq!(why, kern::Why::PendingFull);
        m.end(why, &fixture.ledger);
        ended += 1;
    });
    assert_eq!((octets, ended, many.len()), (0, 254, 0));
    let kept: Vec<_> = owed.give_up().collect();
    assert_eq!(kept.len(), 3);
    for m in kept {
        m.end(kern::Why::Shutdown, &fixture.ledger);
    }
    let mut other = Releasing::with_capacity(1);
    for pending in [first.0, first.1] {
        let mut run = output::finish(pending, &mut other, &mut root.top(), super::no_failure);
        fixture.ledger.sent_all(&mut run);
    }
}

#[test]
fn a_run_of_which_nothing_is_left_is_owed_until_its_numbers_have_passed() {
    let (fixture, mut root) = (Fixture::new(64), Root::claim());
    let mut world = World::new(2, 0);
    let sa = Arc::clone(&world.sas[0]);
    let begin = |run, root: &mut Root| {
        output::begin(Arc::clone(&sa), Box::new(run), NOW, &mut root.top()).ok().unwrap()
    };
    let first = begin(packets(1, &fixture.pool, &fixture.ledger), &mut root);
    // What is no IP packet cannot be sealed.
    let mut bad = packets(2, &fixture.pool, &fixture.ledger);
    bad.iter_mut().for_each(|m| m.data_mut()[0] = 0);
    let failing = begin(bad, &mut root);
    let after = begin(packets(1, &fixture.pool, &fixture.ledger), &mut root);
    let [a, b] = &mut world.actors[..] else { panic!() };
    let mut finish = |pending: Pending, owed: &mut Releasing| {
        let mut run = output::finish(pending, owed, &mut root.top(), |m, why| m.end(why, &fixture.ledger));
        let len = run.len();
        fixture.ledger.sent_all(&mut run);
        len
    };
    let (find, mut more) = (|_: SaIndex| Some(&sa), Batch::new());
    assert_eq!(finish(failing, &mut b.owed), 0);
    assert_eq!(finish(first, &mut a.owed), 1);
    assert!(!a.owed.written_output(find, &mut more, 256));
    // Its turn has come: there is nothing to write, but others wait for it to be said.
    assert!(b.owed.written_output(find, &mut more, 256) && more.is_empty() && !b.owed.is_empty());
    assert_eq!(finish(after, &mut a.owed), 0, "not before");
    assert!(!b.owed.written_output(find, &mut more, 256) && b.owed.is_empty());
    assert!(a.owed.written_output(find, &mut more, 256));
    assert_eq!(more.len(), 1);
    fixture.ledger.sent_all(&mut more);
    assert!(!a.owed.written_output(find, &mut more, 256) && a.owed.is_empty());
}
