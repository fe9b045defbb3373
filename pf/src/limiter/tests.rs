//! Limiters against a plain model, and from several threads.

use std::{
    collections::BTreeMap,
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use kern::{
    lock::{Held, Root, levels::PfRules},
    testing::{Chance, soak},
};

use super::{all::Limiters, *};
use crate::addr::{Family, Prefix};

const SECOND: u64 = 1_000_000_000;

fn limiter(by_source: bool, limit: u32, rate: Option<(u32, u32)>) -> Limiter {
    Limiter {
        by_source,
        name: "l".into(),
        id: 7,
        limit,
        rate: rate.map(|(limit, seconds)| Rate { limit, seconds }),
        entries: if by_source { 6 } else { 0 },
        inet_mask: by_source.then_some(31),
        inet6_mask: None,
        table: by_source.then(|| LimiterTable { name: "t".into(), above: 2, below: 2 }),
        at: Pos::default(),
    }
}

fn limited(by_source: bool) -> Limited {
    let by = Some(LimiterRef { id: 7, block: false });
    if by_source { Limited { source: by, ..Limited::NOT } } else { Limited { state: by, ..Limited::NOT } }
}

/// A bucket as one would write it down: credit grows with time up to the whole and a token costs its part of it.
#[derive(Clone, Copy)]
struct Credit {
    credit: u64,
    since: u64,
}

impl Credit {
    fn at(self, whole: u64, now: u64) -> u64 {
        (self.credit + (now - self.since)).min(whole)
    }
}

/// One source of the model, or all states together.
#[derive(Clone, Copy)]
struct Plain {
    states: u32,
    bucket: Credit,
    in_table: bool,
}

struct Model {
    limiter: Limiter,
    sources: BTreeMap<Prefix, Plain>,
    table: Vec<Prefix>,
}

impl Model {
    fn whole(&self) -> u64 {
        self.limiter.rate.map_or(0, |r| u64::from(r.seconds) * SECOND)
    }

    fn token(&self) -> u64 {
        self.limiter.rate.map_or(0, |r| self.whole() / u64::from(r.limit))
    }

    fn key(&self, address: u128) -> Prefix {
        let len = if self.limiter.by_source { 31 } else { 0 };
        Prefix::new(Family::Inet.address(address), len)
    }

    fn take(&mut self, address: u128, now: u64) -> bool {
        let (key, whole, token) = (self.key(address), self.whole(), self.token());
        // A source without states whose bucket is full is as if it had never been.
        self.sources.retain(|_, s| s.states != 0 || s.bucket.at(whole, now) < whole);
        let is_new = !self.sources.contains_key(&key);
        if self.limiter.by_source && is_new && self.sources.len() as u32 >= self.limiter.entries {
            return false;
        }
        let bucket = Credit { credit: whole, since: now };
        let source = self.sources.entry(key).or_insert(Plain { states: 0, bucket, in_table: false });
        let credit = source.bucket.at(whole, now);
        if source.states >= self.limiter.limit || credit < token {
            return false;
        }
        source.bucket = Credit { credit: credit - token, since: now };
        source.states += 1;
        self.mind(key);
        true
    }

    fn leave(&mut self, address: u128) {
        let key = self.key(address);
        self.sources.get_mut(&key).unwrap().states -= 1;
        self.mind(key);
    }

    fn mind(&mut self, key: Prefix) {
        let Some(table) = &self.limiter.table else { return };
        let source = self.sources.get_mut(&key).unwrap();
        if !source.in_table && source.states > table.above {
            source.in_table = true;
            self.table.push(key);
        } else if source.in_table && source.states < table.below {
            source.in_table = false;
            self.table.retain(|p| *p != key);
        }
    }
}

fn purge(limiters: &Limiters, held: &mut Held<'_, PfRules>, now: u64) {
    (0..16).for_each(|_| limiters.purge(held, now));
}

/// Shares taken and given back at random: every answer, every number and the table are the model's.
#[test]
fn limiters_are_what_a_plain_model_is() {
    let mut refused = 0;
    for seed in (1..if soak() { 20_000 } else { 400 }).step_by(2) {
        println!("seed {seed}");
        let mut chance = Chance::new(seed);
        let by_source = chance.is(2);
        let rate = (!chance.is(3)).then(|| (1 + chance.below(5_u32), 1 + chance.below(9_u32)));
        let limiter = limiter(by_source, 1 + chance.below(4_u32), rate);
        let limiters = Limiters::new(1);
        let mut root = Root::claim();
        let mut top = root.top();
        let mut held = top.at::<PfRules>();
        limiters.set(&mut held, std::slice::from_ref(&limiter));
        let mut model = Model { limiter, sources: BTreeMap::new(), table: Vec::new() };
        let (mut now, mut shares, mut table) = (SECOND, Vec::new(), Vec::new());
        let (mut admitted, mut lost) = (0, 0);
        for _ in 0..300 {
            match chance.below(4_u32) {
                0 => now += chance.below(3 * SECOND),
                1 if !shares.is_empty() => {
                    let (share, address) = shares.swap_remove(chance.below(shares.len()));
                    limiters.leave(&mut held, share, (Family::Inet, address));
                    model.leave(address);
                }
                _ => {
                    let address = u128::from(chance.below(20_u32));
                    let (source, limited) = ((Family::Inet, address), limited(by_source));
                    purge(&limiters, &mut held, now);
                    let looked = limiters.look(&mut held, 0, limited, source, now).is_ok();
                    let taken = limiters.take(&mut held, 0, limited, source, now);
                    assert_eq!(looked, taken.is_some(), "nobody comes between");
                    assert_eq!(taken.is_some(), model.take(address, now), "at {now}");
                    shares.extend(taken.map(|share| (share, address)));
                    (admitted, lost) = (admitted + u64::from(looked), lost + u64::from(!looked));
                }
            }
            for TableChange { table: name, prefix, add, .. } in limiters.reported(now / SECOND) {
                assert_eq!(name, "t");
                if add { table.push(prefix) } else { table.retain(|p| *p != prefix) }
            }
            assert_eq!(table, model.table);
            let info = limiters.dump(&mut held, by_source).pop().unwrap();
            assert_eq!(info.states as usize, shares.len());
            assert_eq!((info.admitted, info.hard + info.rate + info.addresses), (admitted, lost));
            for source in &info.sources {
                let states = model.sources.get(&source.prefix).map_or(0, |s| s.states);
                assert_eq!(source.states, states, "{:?}", source.prefix);
            }
        }
        refused += lost;
        for (share, address) in shares {
            limiters.leave(&mut held, share, (Family::Inet, address));
        }
        purge(&limiters, &mut held, now + 100 * SECOND);
        let info = limiters.dump(&mut held, by_source).pop().unwrap();
        assert_eq!((info.states, info.sources.len()), (0, 0), "all is given back");
    }
    assert!(refused > 1000, "{refused} refusals are too few to mean anything");
}

/// Threads take and give back as fast as they can: at no moment are there more shares than the limits allow.
#[test]
fn racing_workers_never_exceed_a_limit() {
    const THREADS: usize = 4;
    for by_source in [false, true] {
        let limiters = Limiters::new(THREADS);
        limiters.set(&mut Root::claim().top().at(), &[limiter(by_source, 3, None)]);
        let (out, most) = (AtomicU32::new(0), AtomicU32::new(0));
        let barrier = Barrier::new(THREADS);
        thread::scope(|scope| {
            for worker in 0..THREADS {
                let (limiters, out, most, barrier) = (&limiters, &out, &most, &barrier);
                scope.spawn(move || {
                    let mut root = Root::claim();
                    let mut top = root.top();
                    let mut held = top.at::<PfRules>();
                    let source = (Family::Inet, 9);
                    let mut shares = Vec::new();
                    barrier.wait();
                    for n in 0..20_000 {
                        if let Some(share) =
                            limiters.take(&mut held, worker, limited(by_source), source, SECOND)
                        {
                            // Counted inside: whoever holds a share is in this number.
                            most.fetch_max(out.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            shares.push(share);
                        }
                        if n % 2 == 1
                            && let Some(share) = shares.pop()
                        {
                            out.fetch_sub(1, Ordering::SeqCst);
                            limiters.leave(&mut held, share, source);
                        }
                        if n % 64 == 0 {
                            thread::yield_now();
                        }
                    }
                    for share in shares {
                        out.fetch_sub(1, Ordering::SeqCst);
                        limiters.leave(&mut held, share, source);
                    }
                });
            }
        });
        let mut root = Root::claim();
        let mut top = root.top();
        let info = limiters.dump(&mut top.at::<PfRules>(), by_source).pop().unwrap();
        assert_eq!((info.states, info.sources.len()), (0, 0));
        assert_eq!(most.load(Ordering::SeqCst), 3, "as many as are allowed, and never more");
    }
}
