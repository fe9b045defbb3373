//! What the rows of one round say of each other: they were measured in alternation, so their ratios hold where the machine
//! changes its speed between rounds.

use super::PfRow;
use serde::Serialize;

/// How two rows compare.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PfRatio {
    /// Of what to what, in words.
    pub what: String,
    /// The ratio.
    pub ratio: f64,
}

/// Rules whose evaluation the others are compared with.
const FEW: u32 = 10;

/// The ratios of a round.
pub(super) fn of(rows: &[PfRow]) -> Vec<PfRatio> {
    let mut ratios = Vec::new();
    for row in rows {
        ratios.extend(against_few(rows, row));
        ratios.extend(against_one(rows, row));
    }
    ratios
}

/// What more rules cost beyond forwarding, against what few cost.
fn against_few(rows: &[PfRow], row: &PfRow) -> Option<PfRatio> {
    let few = rows.iter().find(|r| r.case == "rules" && (r.rules, r.workers) == (FEW, row.workers))?;
    if row.case != "rules" || row.rules <= FEW {
        return None;
    }
    let (many_ns, few_ns) = (row.added_ns?, few.added_ns?);
    let what = format!(
        "evaluation of {} rules ({many_ns:.1} ns) to that of {FEW} ({few_ns:.1} ns), workers {}",
        row.rules, row.workers
    );
    (few_ns > 0.0).then(|| PfRatio { what, ratio: many_ns / few_ns })
}

/// What several workers forward together, against what one does.
fn against_one(rows: &[PfRow], row: &PfRow) -> Option<PfRatio> {
    // One worker has no share to leave to others.
    let alone = if row.case == "state-shared" { "state" } else { row.case };
    let is_alone = |r: &&PfRow| r.workers == 1 && r.case == alone && r.rules == row.rules;
    let one = rows.iter().find(is_alone).filter(|_| row.workers > 1)?;
    let PfRow { case, rules, states, workers, .. } = row;
    let what = format!("{workers} workers to one, {case}, {rules} rules, {states} states");
    (one.mpps > 0.0).then(|| PfRatio { what, ratio: row.mpps / one.mpps })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(case: &'static str, rules: u32, workers: usize, mpps: f64, added_ns: Option<f64>) -> PfRow {
        PfRow { rules, states: 0, workers, case, ns_per_packet: 0.0, mpps, balanced: true, added_ns }
    }

    fn said(rows: &[PfRow]) -> Vec<String> {
        of(rows).iter().map(|r| format!("{:.1}", r.ratio)).collect()
    }

    #[test]
    fn rules_compare_by_what_they_add_and_workers_by_what_they_forward() {
        let rows = [
            row("forward", 0, 1, 30.0, None),
            row("rules", 10, 1, 20.0, Some(20.0)),
            row("rules", 1000, 1, 10.0, Some(90.0)),
            row("forward", 0, 2, 57.0, None),
            row("rules", 10, 2, 38.0, Some(25.0)),
        ];
        assert_eq!(said(&rows), ["4.5", "1.9", "1.9"]);
    }

    #[test]
    fn a_shared_table_is_compared_with_that_of_one_worker() {
        let rows = [row("state", 1, 1, 10.0, None), row("state-shared", 1, 2, 15.0, None)];
        assert_eq!(said(&rows), ["1.5"]);
    }
}
