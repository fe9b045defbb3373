//! The tables: the report's rows, and what lies beyond the report.

use super::{
    cell::{Cell, Setting},
    profile::Profile,
    real::SetupError,
    report::Row,
    world::{Crypto, Placement, Traffic},
};
use core_affinity::CoreId;
use ipsec::sa::Protocol;

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The report's question: judged.
    Main,
    /// Single mechanisms, controls, counterfactuals: each with its own expectation.
    Beyond,
}

/// What is expected of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Clusters are lost.
    Leak,
    /// None are.
    None,
    /// Clusters wait where nobody serves.
    Stranded,
    /// Either: the scheduler decides.
    Either,
}

/// A cell with its place and expectation.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which table.
    pub which: Which,
    /// The cell.
    pub cell: Cell,
    /// What is expected.
    pub expect: Expect,
    /// What to know of it.
    pub note: &'static str,
}

const TRAFFICS: [Traffic; 3] = [Traffic::None, Traffic::Tunnel, Traffic::Transport];

/// {1, 2, 4} x {none, tunnel, transport} x {fast, kame-sk} x {netbsd2013, giant, fine} x {inet, inet6}.
pub fn main_table() -> Vec<Entry> {
    let mut entries = Vec::new();
    for v6 in [false, true] {
        for profile in [Profile::Netbsd2013, Profile::Giant, Profile::Fine] {
            for crypto in [Crypto::Fast, Crypto::KameSk] {
                for traffic in TRAFFICS {
                    for vcpus in [1, 2, 4] {
                        entries.push(main_entry(Cell::new(profile, vcpus, traffic, crypto, v6)));
                    }
                }
            }
        }
    }
    entries
}

fn main_entry(cell: Cell) -> Entry {
    Entry { which: Which::Main, cell, expect: reported(&cell), note: "" }
}

/// What the report says of a cell of its table.
fn reported(cell: &Cell) -> Expect {
    let leaks = cell.profile == Profile::Netbsd2013
        && cell.crypto == Crypto::Fast
        && cell.traffic == Traffic::Tunnel
        && cell.vcpus > 1;
    if leaks { Expect::Leak } else { Expect::None }
}

/// The report's table once more, with SAs that speak something else. The report names ESP, so this is beyond it; the paths
/// are alike, and so is what is expected.
pub fn by_transform(transform: Protocol) -> Vec<Entry> {
    let cells = main_table().into_iter().map(|entry| Cell { transform, ..entry.cell });
    cells
        .filter(|cell| cell.traffic != Traffic::None)
        .map(|cell| Entry { which: Which::Beyond, cell, expect: reported(&cell), note: "" })
        .collect()
}

/// Whether a cell of [`by_transform`] is one of the few that everyone runs: the report's own row, and one step to each side.
fn is_near(cell: &Cell) -> bool {
    let row = Cell::new(Profile::Netbsd2013, 2, Traffic::Tunnel, Crypto::Fast, false);
    let steps = [
        cell.profile != row.profile,
        cell.vcpus != row.vcpus,
        cell.traffic != row.traffic,
        cell.crypto != row.crypto,
        cell.v6 != row.v6,
    ];
    cell.vcpus <= 2 && steps.into_iter().filter(|step| *step).count() <= 1
}

/// Single mechanisms, controls, counterfactuals, KAME by placement, and AH and IPComp.
pub fn beyond() -> Vec<Entry> {
    use Crypto::{Fast, KameS, KameSk};
    use Profile::{A, A6, ALen, B, C, D, E, F, G, H, I, J, Netbsd2013, SplOff, X1, X2};
    use Traffic::{None, Transport, Tunnel};
    let bounded = "bounded by ifq_maxlen, then the queue is jammed";
    let entry = |cell, expect, note| Entry { which: Which::Beyond, cell, expect, note };
    let new = Cell::new;
    let at =
        |cell: Cell, nic, soft, cryptoret| Cell { placement: Placement { nic, soft, cryptoret }, ..cell };
    let mut entries = vec![
        entry(new(A, 2, Tunnel, Fast, false), Expect::Leak, "batches"),
        entry(new(A, 2, Transport, Fast, false), Expect::None, "no second producer"),
        entry(new(A, 2, Tunnel, KameSk, false), Expect::None, ""),
        entry(new(ALen, 2, Tunnel, Fast, false), Expect::Leak, "about one a splice"),
        entry(new(A6, 2, Tunnel, Fast, true), Expect::Leak, bounded),
        entry(new(C, 2, Tunnel, Fast, false), Expect::Leak, bounded),
        entry(new(C, 2, None, Fast, false), Expect::None, ""),
        entry(new(B, 2, Tunnel, Fast, true), Expect::Leak, "needs no ESP"),
        entry(new(B, 2, None, Fast, true), Expect::Either, "needs no ESP; found by shuttle"),
        entry(new(D, 2, Tunnel, Fast, true), Expect::Leak, "needs no ESP either"),
        entry(new(E, 2, None, Fast, false), Expect::Leak, bounded),
        entry(at(new(F, 2, None, Fast, false), 0, Some(1), 1), Expect::Leak, "needs no ESP"),
        entry(new(G, 2, Tunnel, Fast, false), Expect::Stranded, "on crp_q, for ever"),
        entry(new(H, 2, Tunnel, Fast, false), Expect::None, "the SA's count drifts"),
        entry(new(I, 2, Tunnel, Fast, false), Expect::None, "grows, and drains"),
        entry(new(J, 2, None, Fast, false), Expect::None, "odd verdicts, no clusters"),
        entry(new(X1, 2, None, Fast, false), Expect::Leak, "counterfactual"),
        entry(new(X2, 1, Tunnel, Fast, false), Expect::Leak, "counterfactual: on one CPU too"),
        entry(new(SplOff, 1, Tunnel, Fast, false), Expect::Leak, "the positive control of one CPU"),
    ];
    let kame = |soft, crypto| at(new(Netbsd2013, 2, Tunnel, crypto, false), 0, soft, 1);
    entries.extend([
        entry(kame(Option::None, KameS), Expect::None, "softint where it was raised: splnet holds"),
        entry(kame(Some(0), KameS), Expect::None, "softint on the NIC's CPU: splnet holds"),
        entry(kame(Some(1), KameS), Expect::Leak, "softint elsewhere: as FAST"),
        entry(kame(Some(1), KameSk), Expect::None, "K over ip_input"),
        entry(at(new(Netbsd2013, 2, Tunnel, Fast, false), 0, Some(0), 0), Expect::None, "all on CPU 0 of 2"),
        entry(at(new(Netbsd2013, 4, Tunnel, Fast, false), 0, Option::None, 1), Expect::Either, "same core"),
    ]);
    let others = [Protocol::Ah, Protocol::Ipcomp].into_iter().flat_map(by_transform);
    entries.extend(others.filter(|entry| is_near(&entry.cell)));
    entries
}

/// Runs entries, those of one virtual CPU two at a time, and tells of each.
pub fn run(
    entries: &[Entry],
    setting: &Setting,
    told: &(dyn Fn(&Row) + Sync),
) -> Result<Vec<Row>, SetupError> {
    let mut rows: Vec<Option<Row>> = entries.iter().map(|_| None).collect();
    let (alone, together): (Vec<usize>, Vec<usize>) =
        (0..entries.len()).partition(|&n| entries[n].cell.vcpus > 1);
    let one = |n: usize, core: Option<CoreId>| -> Result<Row, SetupError> {
        let mut setting = setting.clone();
        if let Some(core) = core {
            setting.cores = vec![core];
        }
        let (outcome, agrees) = entries[n].cell.run(&setting)?;
        let row = Row::new(&entries[n], &outcome, agrees);
        told(&row);
        Ok(row)
    };
    let lanes: Vec<CoreId> = setting.cores.iter().copied().take(2).collect();
    for pair in together.chunks(lanes.len().max(1)) {
        let results: Vec<_> = std::thread::scope(|scope| {
            let one = &one;
            let threads: Vec<_> = pair
                .iter()
                .zip(&lanes)
                .map(|(&n, &core)| (n, scope.spawn(move || one(n, Some(core)))))
                .collect();
            threads.into_iter().map(|(n, thread)| (n, thread.join())).collect()
        });
        for (n, result) in results {
            match result {
                Ok(row) => rows[n] = Some(row?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    }
    for n in alone {
        rows[n] = Some(one(n, None)?);
    }
    Ok(rows.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_table_has_108_cells_and_expects_four_of_them_to_leak() {
        let table = main_table();
        assert_eq!(table.len(), 108);
        let leaking = table.iter().filter(|e| e.expect == Expect::Leak).count();
        assert_eq!(leaking, 4);
    }

    #[test]
    fn ah_and_ipcomp_have_the_report_s_rows_beyond_it() {
        for transform in [Protocol::Ah, Protocol::Ipcomp] {
            let all = by_transform(transform);
            assert_eq!((all.len(), all.iter().filter(|e| e.expect == Expect::Leak).count()), (72, 4));
            let near: Vec<_> = beyond().into_iter().filter(|e| e.cell.transform == transform).collect();
            let leaking: Vec<_> =
                near.iter().filter(|e| e.expect == Expect::Leak).map(|e| (e.cell.vcpus, e.cell.v6)).collect();
            assert_eq!((near.len(), leaking), (7, vec![(2, false), (2, true)]));
        }
        assert!(main_table().iter().all(|e| e.cell.transform == Protocol::Esp));
    }

    #[test]
    fn every_profile_stands_in_a_table() {
        for profile in Profile::ALL {
            let all = main_table().into_iter().chain(beyond());
            assert!(all.into_iter().any(|e| e.cell.profile == profile), "{}", profile.name());
        }
    }
}
