//! `softnet bench pf`: what pf adds to forwarding, at both hooks of a packet's way.
//!
//! Established TCP connections, each with a state at the interface it comes in by and one at the interface it leaves
//! by, and frames of flows drawn at random from all of them. What is to be compared stands side by side in routers of
//! one process, driven in alternation, slice by slice, by the same pinned threads; medians are taken. Making the frames
//! is off the clock.
//!
//! | case | what |
//! |---|---|
//! | `forward` | no pf |
//! | `state` | every packet belongs to a state at either hook; each worker draws from its own share of the flows, as a device's hash gives it |
//! | `state-shared` | the same, but every worker draws from all flows |
//! | `rules` | no state: every packet walks the ruleset at either hook |

mod flows;
mod ratio;

use super::{
    bed::{self, Bed, Texts, median, on_threads, run_for},
    frames,
    source::{Check, Generator, Lane},
};
use crate::commit::Faults;
use flows::{Drawn, ROUTES, SIZE, Share, establish};
use ipsec::transform::Engine;
use kern::{
    lock::{Locking, Root},
    time::Duration,
};
pub use ratio::PfRatio;
use serde::Serialize;
use std::{
    fmt::Write,
    sync::{Arc, Barrier},
};

/// What to measure.
#[derive(Clone, Debug)]
pub struct PfPlan {
    /// Numbers of rules.
    pub rules: Vec<u32>,
    /// Numbers of states.
    pub states: Vec<u32>,
    /// Numbers of workers.
    pub workers: Vec<usize>,
    /// Seconds a row.
    pub seconds: f64,
}

/// One row of the answer.
#[derive(Clone, Debug, Serialize)]
pub struct PfRow {
    /// Rules of the ruleset; 0 is no pf.
    pub rules: u32,
    /// States in the table.
    pub states: u32,
    /// Workers.
    pub workers: usize,
    /// What is measured.
    pub case: &'static str,
    /// Nanoseconds a packet on one worker.
    pub ns_per_packet: f64,
    /// Million packets a second, all workers together.
    pub mpps: f64,
    /// Whether the books balanced and everything that arrived was right.
    pub balanced: bool,
    /// Nanoseconds beyond forwarding in the same slices of the same run.
    #[serde(skip)]
    pub added_ns: Option<f64>,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct PfReport {
    /// `pf`.
    pub bench: &'static str,
    /// The rows.
    pub results: Vec<PfRow>,
    /// What rows of one round say of each other.
    pub ratios: Vec<PfRatio>,
}

/// Slices of each course of a round.
const SLICES: usize = 11;
/// Rules of a section: as many for one source network.
const SECTION: u32 = 100;

/// A ruleset of `rules` rules that pass the bench's flows by the last of them.
///
/// As an administrator writes it who opens ports to customers: for each customer's network a section of rules, one a
/// port. A packet of someone else's passes over a section in one skip step, and over all of them on its way out. The
/// optimizer is off: it would make a tenth of them, and what is to be measured is the evaluation of so many.
pub fn ruleset(rules: u32, states: u32) -> String {
    let mut text = format!("set limit states {}\nset ruleset-optimization none\n", states.max(1) + 1000);
    for n in 0..rules.saturating_sub(1) {
        let (customer, port) = (n / SECTION, 1000 + n % SECTION);
        let (high, low) = (customer >> 8, customer & 255);
        let _ = writeln!(
            text,
            "pass in on src inet proto tcp from 172.{}.{low}.0/24 to any port {port} no state",
            16 + high
        );
    }
    // For a family: what passes everything and has no state is known beforehand, and no rule would be evaluated.
    let _ = writeln!(text, "pass inet {}", if states > 0 { "keep state" } else { "no state" });
    text
}

/// Which flows a worker draws from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Draws {
    Own,
    All,
}

/// One thing that is measured in a round.
struct Course {
    case: &'static str,
    bed: usize,
    rules: u32,
    states: u32,
    workers: usize,
    draws: Draws,
}

/// Courses that are compared with each other, the first of each number of workers being `forward`.
struct Round {
    name: String,
    flows: u32,
    /// Rules and states of each router; none for the one without pf.
    beds: Vec<Option<(u32, u32)>>,
    courses: Vec<Course>,
}

/// Measures everything.
pub fn pf(plan: &PfPlan, root: &mut Root, progress: &mut super::Progress<'_>) -> Result<PfReport, Faults> {
    let rounds: Vec<Round> = rounds(plan);
    let (mut results, mut ratios) = (Vec::new(), Vec::new());
    for (done, round) in rounds.iter().enumerate() {
        progress(done, rounds.len(), &round.name);
        let rows = round.run(plan, root)?;
        ratios.extend(ratio::of(&rows));
        results.extend(rows);
    }
    progress(rounds.len(), rounds.len(), "");
    Ok(PfReport { bench: "pf", results, ratios })
}

fn rounds(plan: &PfPlan) -> Vec<Round> {
    let mut rounds = vec![rules_round(plan)];
    for &states in &plan.states {
        rounds.extend(plan.rules.iter().map(|&rules| states_round(plan, rules, states)));
    }
    rounds
}

/// All rulesets beside each other, without states.
fn rules_round(plan: &PfPlan) -> Round {
    let mut beds = vec![None];
    beds.extend(plan.rules.iter().map(|&rules| Some((rules, 0))));
    let mut courses = Vec::new();
    for &workers in &plan.workers {
        for (bed, of) in beds.iter().enumerate() {
            let case = if of.is_none() { "forward" } else { "rules" };
            let (rules, states) = of.unwrap_or((0, 0));
            courses.push(Course { case, bed, rules, states, workers, draws: Draws::Own });
        }
    }
    Round { name: "rules".to_owned(), flows: 1000, beds, courses }
}

/// One table of states: few and many workers, with and without shares.
fn states_round(plan: &PfPlan, rules: u32, states: u32) -> Round {
    let mut courses = Vec::new();
    for &workers in &plan.workers {
        let mut add = |case, bed, draws| {
            let rules = if bed == 0 { 0 } else { rules };
            courses.push(Course { case, bed, rules, states, workers, draws });
        };
        add("forward", 0, Draws::Own);
        add("state", 1, Draws::Own);
        if workers > 1 {
            add("state-shared", 1, Draws::All);
        }
    }
    let name = format!("{states} states, {rules} rules");
    Round { name, flows: states.div_ceil(2), beds: vec![None, Some((rules, states))], courses }
}

impl Round {
    fn run(&self, plan: &PfPlan, root: &mut Root) -> Result<Vec<PfRow>, Faults> {
        let workers = plan.workers.iter().copied().max().unwrap_or(1);
        let shares: Vec<Arc<Share>> = (0..workers).map(|_| Arc::default()).collect();
        let mut beds = Vec::new();
        for of in &self.beds {
            let bed = self.bed(*of, workers, &shares, root)?;
            if let Some((_, states @ 1..)) = of {
                let made = establish(&bed, self.flows, root).map_err(|e| Faults(vec![e]))?;
                if made != states.next_multiple_of(2) {
                    return Err(Faults(vec![format!("{made} states instead of {states}")]));
                }
            }
            beds.push(bed);
        }
        let lanes: Vec<_> = beds.iter().map(|bed| bed.lanes.clone()).collect();
        let barrier = Barrier::new(workers);
        let slice = Duration::from_secs_f64(plan.seconds / SLICES as f64);
        let rates = on_threads(&mut beds, workers, |me, mine, root| {
            let mut rates = vec![Vec::new(); self.courses.len()];
            for slice_number in 0..=SLICES {
                for (course, rates) in self.courses.iter().zip(&mut rates) {
                    match course.draws {
                        Draws::Own => shares[me].set(me as u32, course.workers as u32),
                        Draws::All => shares[me].set(0, 1),
                    }
                    barrier.wait();
                    if me >= course.workers {
                        continue;
                    }
                    let (ns, packets) = run_for(slice, &mut mine[course.bed], root, &lanes[course.bed][me]);
                    // The first slices warm caches and page tables.
                    if slice_number > 0 {
                        rates.push(packets as f64 / ns.max(1) as f64 * 1e3);
                    }
                }
            }
            rates
        });
        let balanced = settle(beds, &lanes, root)?;
        Ok(self.rows(&rates, &balanced))
    }

    fn bed(
        &self,
        of: Option<(u32, u32)>,
        workers: usize,
        shares: &[Arc<Share>],
        root: &mut Root,
    ) -> Result<Bed, Faults> {
        let texts = Texts {
            conf: bed::conf_text(workers, Locking::Fine, ROUTES),
            pf: of.map(|(rules, states)| ruleset(rules, states)),
            ipsec: None,
            engine: Engine::Auto,
        };
        let source = |to| {
            let one = |(me, share): (usize, &Arc<Share>)| {
                Box::new(Drawn::new(to, self.flows, Arc::clone(share), me as u64 + 1)) as Box<dyn Generator>
            };
            Ok(shares.iter().enumerate().map(one).collect())
        };
        let check = || -> Result<Check, String> {
            Ok(Box::new(|m| frames::is_forwarded(m.data()) && m.len() == frames::ETHER + SIZE))
        };
        Bed::new(&texts, workers, source, check, root)
    }

    fn rows(&self, rates: &[Vec<Vec<f64>>], balanced: &[bool]) -> Vec<PfRow> {
        let mut forward = None;
        let row = |(n, course): (usize, &Course)| {
            let together = |slice: usize| rates.iter().filter_map(|w| w[n].get(slice)).sum();
            let mpps = median(&mut (0..SLICES).map(together).collect::<Vec<f64>>());
            let ns_per_packet = if mpps > 0.0 { course.workers as f64 * 1e3 / mpps } else { 0.0 };
            if course.case == "forward" {
                forward = Some(ns_per_packet);
            }
            let added_ns = forward.filter(|_| course.case != "forward").map(|ns| ns_per_packet - ns);
            let Course { case, bed, rules, states, workers, .. } = *course;
            PfRow { rules, states, workers, case, ns_per_packet, mpps, balanced: balanced[bed], added_ns }
        };
        self.courses.iter().enumerate().map(row).collect()
    }
}

/// Ends routers: whether the books of each balanced and what arrived was right.
fn settle(beds: Vec<Bed>, lanes: &[Vec<Arc<Lane>>], root: &mut Root) -> Result<Vec<bool>, Faults> {
    let mut all = Vec::new();
    for (bed, lanes) in beds.into_iter().zip(lanes) {
        let books = bed.stop(root)?;
        let right = books.balanced() && books.audit.held() == 0 && Bed::is_right(lanes);
        if !right {
            tracing::error!("wrong at the sink, or off balance: {books:?}");
        }
        all.push(right);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short slices say nothing of time, and all of what is right.
    #[test]
    fn every_case_has_its_row_and_everything_arrives() {
        let plan = PfPlan { rules: vec![1, 10], states: vec![100], workers: vec![1, 2], seconds: 0.05 };
        let report = pf(&plan, &mut Root::claim(), &mut |_, _, _| {}).unwrap();
        let names: Vec<_> = report.results.iter().map(|r| (r.case, r.rules, r.states, r.workers)).collect();
        let mut wanted = Vec::new();
        for workers in [1, 2] {
            wanted.extend([("forward", 0, 0, workers), ("rules", 1, 0, workers), ("rules", 10, 0, workers)]);
        }
        for rules in [1, 10] {
            wanted.extend([("forward", 0, 100, 1), ("state", rules, 100, 1), ("forward", 0, 100, 2)]);
            wanted.extend([("state", rules, 100, 2), ("state-shared", rules, 100, 2)]);
        }
        assert_eq!(names, wanted);
        assert!(report.results.iter().all(|r| r.balanced && r.mpps > 0.0), "{report:?}");
        let json = serde_json::to_value(&report).unwrap();
        let keys_of = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(
            (keys_of(&json), &json["bench"]),
            (["bench", "ratios", "results"].map(String::from).to_vec(), &"pf".into())
        );
        assert_eq!(
            keys_of(&json["results"][1]),
            ["balanced", "case", "mpps", "ns_per_packet", "rules", "states", "workers"]
        );
    }

    #[test]
    fn a_ruleset_has_as_many_rules_as_it_says() {
        for rules in [1, 2, 10, 1000] {
            assert_eq!(ruleset(rules, 0).lines().count() as u32, rules + 2);
        }
        assert!(ruleset(1, 5).ends_with("pass inet keep state\n"));
        assert_eq!(flows::PORT, 443, "no rule of a section is for it");
    }
}
