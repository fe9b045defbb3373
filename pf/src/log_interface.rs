//! `set loginterface`: packets and octets of one interface, as `pfctl -s info` shows them.
//!
//! Only that interface is counted, and only while it is set: pf looks at its packets, one by one, and each worker counts
//! what has become of them after a chunk of a batch. An interface that there is not has counted nothing.

use std::{fmt::Write, sync::Arc};

use kern::{Mbuf, PktFlags, counter::Counter, lock::Leaf};

use crate::{IfIndex, addr::Family, engine::Seen, rule::Direction, slab::RuleSlab};

/// Families, directions, and what becomes of a packet: each two.
const PLACES: usize = 8;

/// What has been counted: packets and octets by family, direction, and whether they were blocked.
type Sums = [[u64; 2]; PLACES];

/// The interface, and what is counted of it.
#[derive(Clone, Debug)]
pub(crate) struct LogInterface {
    name: String,
    /// None if there is no such interface.
    index: Option<IfIndex>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    workers: Box<[Worker]>,
    /// What had been counted when `pfctl -F info` last was said.
    cleared: Leaf<Sums>,
}

/// What one worker has counted.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Worker([[Counter; 2]; PLACES]);

/// Statistics of the interface. Index 0 is IPv4, 1 is IPv6; then 0 is in, 1 is out.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InterfaceStats {
    /// Its name.
    pub name: String,
    /// Octets of IP, blocked ones too.
    pub bytes: [[u64; 2]; 2],
    /// Packets that passed.
    pub passed: [[u64; 2]; 2],
    /// Packets that did not.
    pub blocked: [[u64; 2]; 2],
}

fn place(family: Family, direction: Direction, blocked: bool) -> usize {
    usize::from(family == Family::Inet6) * 4 + direction.index() * 2 + usize::from(blocked)
}

impl LogInterface {
    /// The interface of this name; it goes on counting where that of an earlier ruleset has stopped, if it is the same.
    pub(crate) fn new(
        name: &str,
        index: Option<IfIndex>,
        before: Option<&LogInterface>,
        slab: &RuleSlab,
    ) -> LogInterface {
        let counts = before.filter(|before| before.name == name).map(|before| Arc::clone(&before.counts));
        let none = || {
            Arc::new(Counts {
                workers: slab.per_worker(Worker::default),
                cleared: Leaf::new(Sums::default()),
            })
        };
        LogInterface { name: name.to_owned(), index, counts: counts.unwrap_or_else(none) }
    }

    /// Whether it is this one.
    pub(crate) fn is(&self, index: IfIndex) -> bool {
        self.index == Some(index)
    }

    /// Counts a packet, as it was when it came to pf.
    #[cold]
    pub(crate) fn count(&self, worker: usize, direction: Direction, m: &Mbuf, seen: &Seen, blocked: bool) {
        if m.hdr().flags.has(PktFlags::NO_PF) {
            return;
        }
        let Some(Worker(places)) = self.counts.workers.get(worker) else { return };
        let (family, packets, bytes) = seen.weight(m);
        let [p, b] = &places[place(family, direction, blocked)];
        p.add(u64::from(packets));
        b.add(u64::from(bytes));
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for Worker(places) in &self.counts.workers {
            for (sum, place) in sums.iter_mut().zip(places) {
                *sum = [sum[0] + place[0].get(), sum[1] + place[1].get()];
            }
        }
        sums
    }

    /// Lets its counters begin at 0.
    pub(crate) fn clear(&self) {
        let sums = self.sums();
        self.counts.cleared.with(|cleared| *cleared = sums);
    }

    /// What has been counted since.
    pub(crate) fn stats(&self) -> InterfaceStats {
        let (sums, cleared) = (self.sums(), self.counts.cleared.with(|cleared| *cleared));
        let mut stats = InterfaceStats { name: self.name.clone(), ..InterfaceStats::default() };
        for (f, family) in [Family::Inet, Family::Inet6].into_iter().enumerate() {
            for direction in [Direction::In, Direction::Out] {
                let of = |blocked, what: usize| {
                    let at = place(family, direction, blocked);
                    sums[at][what] - cleared[at][what]
                };
                let d = direction.index();
                stats.passed[f][d] = of(false, 0);
                stats.blocked[f][d] = of(true, 0);
                stats.bytes[f][d] = of(false, 1) + of(true, 1);
            }
        }
        stats
    }
}

impl InterfaceStats {
    /// The block that pfctl prints.
    pub(crate) fn write(&self, out: &mut String) -> std::fmt::Result {
        let InterfaceStats { name, bytes, passed, blocked } = self;
        writeln!(out, "Interface Stats for {name:<16} {:>5} {:>16}", "IPv4", "IPv6")?;
        for (d, word) in ["In", "Out"].into_iter().enumerate() {
            writeln!(out, "  {:<25} {:>14} {:>16}", format!("Bytes {word}"), bytes[0][d], bytes[1][d])?;
        }
        for (d, word) in ["In", "Out"].into_iter().enumerate() {
            writeln!(out, "  Packets {word}")?;
            for (what, count) in [("Passed", passed), ("Blocked", blocked)] {
                writeln!(out, "    {what:<23} {:>14} {:>16}", count[0][d], count[1][d])?;
            }
        }
        writeln!(out)
    }
}
