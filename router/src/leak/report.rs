//! What the tables say: rows, verdicts, words.

use super::{
    run::Outcome,
    table::{Entry, Expect, Which},
    world::Traffic,
};
use serde::Serialize;

/// What a cell came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Clusters were lost.
    Leak,
    /// None were seen to be lost.
    None,
    /// Clusters wait where nobody serves.
    Stranded,
    /// It was not run to its end, or the scheduler decides.
    Indeterminate,
}

/// A lock's figures in one cell.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LockUse {
    /// Times taken, recursion apart.
    pub taken: u64,
    /// ... with a wait.
    pub waited: u64,
    /// Mean wait of those, nanoseconds.
    pub wait_ns: u64,
    /// Mean hold, nanoseconds, of one in 64.
    pub hold_ns: u64,
}

/// A row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// "main" or "beyond".
    pub table: &'static str,
    /// Profile.
    pub profile: &'static str,
    /// Crypto style.
    pub crypto: &'static str,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Traffic.
    pub traffic: &'static str,
    /// What its SAs speak, "none" without any.
    pub transform: &'static str,
    /// "inet" or "inet6".
    pub family: &'static str,
    /// Who runs where.
    pub placement: String,
    /// Packets raised.
    pub packets: u64,
    /// Clusters nobody can reach.
    pub leaked: u64,
    /// Clusters on a queue nobody serves.
    pub stranded: u64,
    /// Queues that ended early.
    pub incidents: u64,
    /// Epochs that ended with a queue empty and full.
    pub jammed: u64,
    /// Packets refused by a full queue.
    pub qfull: u64,
    /// Queue nodes in the wrong state.
    pub corrupt_seen: u64,
    /// Odd verdicts (J), drifted counts (H).
    pub odd: u64,
    /// What it came to.
    pub verdict: Verdict,
    /// What was expected.
    pub expected: &'static str,
    /// It is as expected.
    pub as_expected: bool,
    /// The pool's books agree with the sweep.
    pub books: bool,
    /// The pool was empty after so many packets.
    pub exhausted_after: Option<u64>,
    /// Where lost clusters were last: queue, path that put them there, how many.
    pub last_seen: Vec<(String, String, u64)>,
    /// `softnet_lock`.
    pub softnet: LockUse,
    /// `KERNEL_LOCK`.
    pub kernel: LockUse,
    /// Million packets a second.
    pub mpps: f64,
    /// Seconds.
    pub seconds: f64,
    /// Leaked after so many packets.
    pub series: Vec<(u64, u64)>,
    /// What the watchdog saw.
    pub stuck: Option<String>,
    /// What to know of it.
    pub note: &'static str,
}

/// All rows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The rows.
    pub rows: Vec<Row>,
    /// Every row of the main table is as in the report of 2013.
    pub matches_report: bool,
}

impl Row {
    /// What `entry` came to.
    pub fn new(entry: &Entry, outcome: &Outcome, books: bool) -> Row {
        let (cell, counts, found) = (&entry.cell, &outcome.counts, &outcome.found);
        let seconds = outcome.nanos as f64 / 1e9;
        let verdict = if outcome.stuck.is_some() || !books || entry.expect == Expect::Either {
            Verdict::Indeterminate
        } else if found.leaked > 0 {
            Verdict::Leak
        } else if found.stranded > 0 {
            Verdict::Stranded
        } else {
            Verdict::None
        };
        let (expected, as_expected) = match entry.expect {
            Expect::Leak => ("leak", verdict == Verdict::Leak),
            Expect::None => ("none", verdict == Verdict::None),
            Expect::Stranded => ("stranded", verdict == Verdict::Stranded),
            Expect::Either => ("either", outcome.stuck.is_none() && books),
        };
        let lock = |n: usize| LockUse {
            taken: counts.taken[n],
            waited: counts.waited[n],
            wait_ns: counts.wait_ns[n] / counts.waited[n].max(1),
            hold_ns: counts.hold_ns[n] / counts.timed[n].max(1),
        };
        let mut last_seen: Vec<_> =
            found.last_seen.iter().map(|((queue, path), n)| (queue.clone(), path.clone(), *n)).collect();
        last_seen.sort_by_key(|place| std::cmp::Reverse(place.2));
        Row {
            table: if entry.which == Which::Main { "main" } else { "beyond" },
            profile: cell.profile.name(),
            crypto: cell.crypto.name(),
            vcpus: cell.vcpus,
            traffic: cell.traffic.name(),
            transform: if cell.traffic == Traffic::None { "none" } else { cell.transform.name() },
            family: if cell.v6 { "inet6" } else { "inet" },
            placement: cell.placement.name(),
            packets: counts.raised,
            leaked: found.leaked,
            stranded: found.stranded,
            incidents: counts.incidents,
            jammed: counts.jammed,
            qfull: counts.qfull,
            corrupt_seen: counts.corrupt,
            odd: counts.odd,
            verdict,
            expected,
            as_expected,
            books,
            exhausted_after: counts.exhausted.then_some(counts.raised),
            last_seen,
            softnet: lock(0),
            kernel: lock(1),
            mpps: if seconds > 0.0 { counts.raised as f64 / seconds / 1e6 } else { 0.0 },
            seconds,
            series: outcome.series.clone(),
            stuck: outcome.stuck.clone(),
            note: entry.note,
        }
    }

    /// Traffic, and the transform where it is not the report's.
    pub fn carried(&self) -> String {
        match self.transform {
            "none" | "esp" => self.traffic.to_owned(),
            other => format!("{} ({other})", self.traffic),
        }
    }
}

impl Report {
    /// The rows, judged: only the main table says whether the report is reproduced.
    pub fn new(rows: Vec<Row>) -> Report {
        let mut judged = rows.iter().filter(|row| row.table == "main").peekable();
        let matches_report = judged.peek().is_some() && judged.all(|row| row.as_expected);
        Report { rows, matches_report }
    }

    /// Whether every row is as expected.
    pub fn all_as_expected(&self) -> bool {
        self.rows.iter().all(|row| row.as_expected)
    }

    /// What consistent locks cost: `giant` and `fine`, one CPU and two, as measured. Nothing if not all was run.
    pub fn throughput(&self) -> String {
        let cell = |profile: &str, vcpus: u32, traffic: &str| {
            self.rows.iter().find(|r| {
                let which = (r.table, r.crypto, r.family) == ("main", "fast", "inet");
                which && (r.profile, r.vcpus, r.traffic) == (profile, vcpus, traffic)
            })
        };
        let mut lines = String::new();
        for profile in ["giant", "fine"] {
            let figures: Option<Vec<String>> = ["none", "tunnel", "transport"]
                .iter()
                .map(|traffic| {
                    let (one, two) = (cell(profile, 1, traffic)?, cell(profile, 2, traffic)?);
                    Some(format!("{traffic} {:.2} and {:.2}", one.mpps, two.mpps))
                })
                .collect();
            let Some(figures) = figures else { return String::new() };
            lines.extend(["  ", profile, ": ", &figures.join(", "), "\n"]);
        }
        format!("throughput of FAST, inet, in Mpps, on 1 CPU and on 2:\n{lines}")
    }

    /// Which rows of the report of 2013 are reproduced, in words.
    pub fn words(&self) -> String {
        let main = |keep: &dyn Fn(&Row) -> bool| -> Vec<&Row> {
            self.rows.iter().filter(|r| r.table == "main" && r.profile == "netbsd2013" && keep(r)).collect()
        };
        let mut text = String::new();
        let mut say = |claim: &str, rows: &[&Row], leak: bool| {
            if rows.is_empty() {
                return;
            }
            let wanted = if leak { Verdict::Leak } else { Verdict::None };
            let right = rows.iter().filter(|r| r.verdict == wanted).count();
            let verdict = if right == rows.len() { "reproduced" } else { "NOT reproduced" };
            text += &[
                "  ",
                claim,
                ": ",
                verdict,
                " (",
                &right.to_string(),
                " of ",
                &rows.len().to_string(),
                " cells)\n",
            ]
            .concat();
        };
        let is_reported = |r: &Row| r.crypto == "fast" && r.traffic == "tunnel" && r.vcpus > 1;
        say("FAST_IPSEC, more than one CPU, ESP tunnel: clusters leak", &main(&is_reported), true);
        say("one CPU: none", &main(&|r| r.vcpus == 1), false);
        say("KAME_IPSEC (kame-sk): none", &main(&|r| r.crypto == "kame-sk" && r.vcpus > 1), false);
        let without = |r: &Row| r.crypto == "fast" && r.traffic != "tunnel" && r.vcpus > 1;
        say("no tunnel (no ESP, transport mode): none", &main(&without), false);
        let ours: Vec<&Row> =
            self.rows.iter().filter(|r| r.table == "main" && r.profile != "netbsd2013").collect();
        say("and with consistent locks, giant or fine: none", &ours, false);
        if text.is_empty() {
            text
        } else {
            format!("the report of 2013, under the locks of February 2013:\n{text}")
        }
    }
}
