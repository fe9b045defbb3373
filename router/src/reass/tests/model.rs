//! The table against a model that keeps every fragment as it came: several datagrams of both families at once, fragments
//! on a grid so coarse that they meet all the time, under both rules for overlaps. `SOFTNET_SOAK=1` is the full length.

use super::*;
use kern::testing::{Chance, soak};
use std::collections::HashMap;

/// Blocks of eight octets that a datagram has.
const BLOCKS: usize = 7;
/// Octets of its last fragment's last block.
const TAIL: usize = 5;
/// Datagrams of each family.
const IDENTS: u16 = 4;

/// A fragment that is in.
#[derive(Clone, Copy, Debug)]
struct Kept {
    start: usize,
    end: usize,
    value: u8,
}

/// A datagram that waits.
#[derive(Clone, Debug)]
struct Waiting {
    until: Instant,
    kept: Vec<Kept>,
    total: Option<usize>,
    ruined: bool,
}

/// What comes.
#[derive(Clone, Copy, Debug)]
struct Coming {
    v6: bool,
    ident: u16,
    start: usize,
    end: usize,
    more: bool,
    value: u8,
}

impl Coming {
    /// One of the four that make up a datagram, or once in six times any.
    fn draw(chance: &mut Chance, value: u8) -> Coming {
        let any = chance.is(6);
        let first = if any { chance.below(BLOCKS) } else { 2 * chance.below(4_usize) };
        let behind = (first + if any { 1 + chance.below(3_usize) } else { 2 }).min(BLOCKS);
        // Once in a while one says that it is the last, wherever it stands. The first never is: it would be no fragment.
        let last = behind == BLOCKS || (any && chance.is(6));
        let first = if last { first.max(1) } else { first };
        let behind = behind.max(first + 1);
        let (v6, ident) = (chance.is(2), chance.below(IDENTS));
        let end = 8 * behind - if last { 8 - TAIL } else { 0 };
        Coming { v6, ident, start: 8 * first, end, more: !last, value }
    }

    fn packet(&self) -> Vec<u8> {
        let body = vec![self.value; self.end - self.start];
        if self.v6 {
            let fragment = Fragment {
                at: 40,
                announced_at: 6,
                next_header: IpProto(200),
                offset: self.start as u16,
                more: self.more,
                ident: self.ident.into(),
            };
            let header =
                ipv6::Repr { src: A6, dst: B6, next_header: IpProto::FRAGMENT, ..ipv6::Repr::default() };
            return build::raw6(header, &[&fragment.octets()[..], &body].concat());
        }
        let frag = (self.start / 8) as u16 | if self.more { ipv4::MF } else { 0 };
        let (proto, ident) = (IpProto(200), self.ident);
        build::raw4(ipv4::Repr { src: A, dst: B, proto, ident, frag, ..ipv4::Repr::default() }, &body)
    }
}

impl Waiting {
    /// Takes a fragment; gives back the datagram if it is whole.
    fn take(&mut self, c: &Coming, trims: bool) -> Option<Vec<u8>> {
        if self.ruined || self.kept.iter().any(|k| (k.start, k.end) == (c.start, c.end)) {
            return None;
        }
        let (mut start, mut end, mut more) = (c.start, c.end, c.more);
        let meets = self.kept.iter().any(|k| k.start < end && start < k.end);
        let highest = self.kept.iter().map(|k| k.end).max().unwrap_or(0);
        let wrong_end = match self.total {
            Some(total) if meets => {
                if more {
                    end > total
                } else {
                    end != total
                }
            }
            Some(total) => !more || end > total,
            None => false,
        };
        if (meets && !trims) || wrong_end || (!more && highest > end) {
            self.ruined = true;
        } else if meets {
            // The first run of octets that are not there yet is taken, and no more.
            let is_there = |at: usize| self.kept.iter().any(|k| (k.start..k.end).contains(&at));
            let first = (start..end).find(|&at| !is_there(at))?;
            let behind = (first..end).find(|&at| is_there(at)).unwrap_or(end);
            more |= behind < end;
            (start, end) = (first, behind);
            self.ruined = more && (end - start) % 8 != 0;
        }
        if self.ruined {
            self.kept.clear();
            return None;
        }
        if !more {
            self.total = Some(end);
        }
        self.kept.push(Kept { start, end, value: c.value });
        let octets: usize = self.kept.iter().map(|k| k.end - k.start).sum();
        (self.total == Some(octets)).then(|| {
            let mut whole = vec![0; octets];
            self.kept.iter().for_each(|k| whole[k.start..k.end].fill(k.value));
            whole
        })
    }
}

#[test]
fn the_table_joins_trims_ruins_and_forgets_as_the_model_does() {
    let steps = if soak() { 5_000_000 } else { 40_000 };
    let mut chance = Chance::seeded(0x0f4a_96ed);
    for overlap in [Overlap::Trim, Overlap::Ruin] {
        let mut world = World::with(1024, 64, overlap);
        let mut model: HashMap<(bool, u16), Waiting> = HashMap::new();
        let (mut clock, mut joined, mut ruined) = (NOW, 0_u64, 0_u64);
        for step in 0..steps {
            clock = clock.after(chance.below(500_000_000_u64));
            forget(&mut world, clock);
            model.retain(|_, waiting| waiting.until > clock);
            let coming = Coming::draw(&mut chance, step as u8);
            let wait = if coming.v6 { 60_000_000_000 } else { 30_000_000_000 };
            let key = (coming.v6, coming.ident);
            let new = || Waiting { until: clock.after(wait), kept: Vec::new(), total: None, ruined: false };
            let waiting = model.entry(key).or_insert_with(new);
            let was_ruined = waiting.ruined;
            let wanted = waiting.take(&coming, overlap == Overlap::Trim && !coming.v6);
            ruined += u64::from(waiting.ruined && !was_ruined);
            let whole = world.hear(&coming.packet(), clock);
            let found = whole.as_ref().map(|w| &w[if coming.v6 { 40 } else { 20 }..]);
            assert_eq!(found, wanted.as_deref(), "step {step}, {overlap:?}: {coming:?} to {waiting:?}");
            if wanted.is_some() {
                joined += 1;
                model.remove(&key);
            }
            world.ended.clear();
        }
        println!("{overlap:?}: {joined} datagrams joined, {ruined} ruined, of {steps} fragments");
        assert!(joined > steps / 1000 && ruined > steps / 1000, "{joined} joined, {ruined} ruined");
        world.finish();
    }
}

/// Lets run out what has waited long enough.
fn forget(world: &mut World, clock: Instant) {
    let mut victims = Victims::new(Why::FragTimeout);
    while world.table.expire(clock, &mut victims).is_ok() {
        end(&mut victims, &world.fixture.ledger);
    }
}
