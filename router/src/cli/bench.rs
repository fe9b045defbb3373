//! `softnet bench`: throughput in one process.

use super::{
    Exit,
    ask::{At, Failure},
    table::{self, Align, row},
};
use crate::bench::{self, PfPlan, PfRatio, PfRow, Plan, Report, Row, What};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use ipsec::transform::{Engine, Suite};
use kern::lock::{Locking, Root};
use std::str::FromStr;

/// Which path.
#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// Plain forwarding, from ether_input to ether_output
    Forward(Path),
    /// Into an ESP tunnel and out of one
    Esp(Tunnel),
    /// Longest prefix match
    Fib(Fib),
    /// Interface queues
    Altq(Altq),
    /// What pf adds to forwarding
    Pf(Pf),
}

/// What pf takes. Lists make a row of every combination.
#[derive(Clone, Debug, Args)]
pub struct Pf {
    /// Rules
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000,10000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rules: Vec<u32>,
    /// States
    #[arg(long, value_delimiter = ',', default_value = "1000,100000,1000000", value_parser = clap::value_parser!(u32).range(2..=4_000_000))]
    states: Vec<u32>,
    /// Workers
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = at_least_one)]
    workers: Vec<usize>,
    /// Seconds a row
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    seconds: f64,
}

/// What interface queues take.
#[derive(Clone, Debug, Args)]
pub struct Altq {
    /// Classes, for the disciplines that have trees
    #[arg(long, value_delimiter = ',', default_value = "8,64,1000", value_parser = clap::value_parser!(u16).range(1..=4095))]
    classes: Vec<u16>,
    /// Rounds of 4,096 packets a row
    #[arg(long, default_value = "200", value_parser = at_least_one)]
    rounds: usize,
}

/// What every path takes. Lists make a row of every combination.
#[derive(Clone, Debug, Args)]
pub struct Path {
    /// Workers
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = at_least_one)]
    workers: Vec<usize>,
    /// Bytes of the (inner) IP packet
    #[arg(long, value_delimiter = ',', default_value = "64,570,1400", value_parser = size)]
    sizes: Vec<usize>,
    /// Flows
    #[arg(long, default_value = "64", value_parser = at_least_one)]
    flows: usize,
    /// Routes in the table
    #[arg(long, default_value = "1000")]
    routes: usize,
    /// Seconds a row
    #[arg(long, default_value = "2", value_parser = seconds)]
    seconds: f64,
    /// Locking profiles
    #[arg(long, value_delimiter = ',', default_value = "fine")]
    locking: Vec<Locking>,
    /// Without pf, instead of a pass-all ruleset without state
    #[arg(long)]
    no_pf: bool,
}

/// What a tunnel takes.
#[derive(Clone, Debug, Args)]
pub struct Tunnel {
    #[command(flatten)]
    path: Path,
    /// Which way
    #[arg(long, default_value = "both")]
    direction: Direction,
    /// Algorithms, as `setkey -D` names them, or all
    #[arg(long, value_delimiter = ',', default_value = "aes-128-gcm", value_parser = one_or_all::<Suite>)]
    suite: Vec<OneOrAll<Suite>>,
    /// Who does the arithmetic: auto, ring, aws-lc, rustcrypto, or all that can
    #[arg(long, value_delimiter = ',', default_value = "auto", value_parser = one_or_all::<Engine>)]
    engine: Vec<OneOrAll<Engine>>,
    /// Security associations
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = at_least_one)]
    sas: Vec<usize>,
}

/// What the table takes.
#[derive(Clone, Debug, Args)]
pub struct Fib {
    /// Routes in the table
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,1000000")]
    routes: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Direction {
    Out,
    In,
    Both,
}

/// A word of a list, or `all`.
#[derive(Clone, Copy, Debug)]
enum OneOrAll<T> {
    One(T),
    All,
}

impl<T> OneOrAll<T> {
    fn of(self, all: impl IntoIterator<Item = T>) -> Vec<T> {
        match self {
            OneOrAll::One(one) => vec![one],
            OneOrAll::All => all.into_iter().collect(),
        }
    }
}

fn one_or_all<T: FromStr<Err: ToString>>(text: &str) -> Result<OneOrAll<T>, String> {
    match text {
        "all" => Ok(OneOrAll::All),
        one => one.parse().map(OneOrAll::One).map_err(|e: T::Err| e.to_string()),
    }
}

/// Every suite with every engine that is asked for and does it.
fn with_engines(
    suites: Vec<OneOrAll<Suite>>,
    engines: &[OneOrAll<Engine>],
) -> Result<Vec<(Suite, Engine)>, Failure> {
    let mut pairs = Vec::new();
    for suite in suites.into_iter().flat_map(|suite| suite.of(Suite::esp())) {
        let before = pairs.len();
        let asked = engines.iter().flat_map(|engine| engine.of(Engine::ALL));
        pairs.extend(asked.filter(|engine| engine.serves(suite)).map(|engine| (suite, engine)));
        if pairs.len() == before {
            return Err(Failure::Which(format!("{suite} is done by rustcrypto alone: --engine rustcrypto")));
        }
    }
    Ok(pairs)
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "1 or more".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (64..=1446).contains(n)).ok_or_else(|| "64 to 1446".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|s| (0.05..=3600.0).contains(s)).ok_or_else(|| "0.05 to 3600".to_owned())
}

/// Runs the command.
pub fn run(at: &At, bench: Bench) -> Result<Exit, Failure> {
    match bench {
        Bench::Forward(path) => measure(at, &path.plan(vec![What::Forward])),
        Bench::Esp(Tunnel { path, direction, suite: suites, engine, sas }) => {
            let what = match direction {
                Direction::Out => vec![What::EspOut],
                Direction::In => vec![What::EspIn],
                Direction::Both => vec![What::EspOut, What::EspIn],
            };
            let suites = with_engines(suites, &engine)?;
            measure(at, &Plan { suites, sas, ..path.plan(what) })
        }
        Bench::Fib(args) => fib(at, &args.routes),
        Bench::Altq(args) => altq(at, &args),
        Bench::Pf(args) => pf(at, args),
    }
}

impl Path {
    fn plan(self, what: Vec<What>) -> Plan {
        Plan {
            what,
            workers: self.workers,
            sizes: self.sizes,
            suites: vec![(Suite::Aes128Gcm16, Engine::Auto)],
            sas: vec![1],
            flows: self.flows,
            routes: self.routes,
            seconds: self.seconds,
            locking: self.locking,
            pf: !self.no_pf,
        }
    }
}

fn measure(at: &At, plan: &Plan) -> Result<Exit, Failure> {
    let report = shown(|progress| bench::bench(plan, &mut Root::claim(), progress))?;
    at.print(&report, || text(&report))?;
    Ok(if report.results.iter().all(|row| row.balanced) { Exit::Good } else { Exit::No })
}

/// Runs a bench and shows how far it is, on a terminal only, and on standard error.
fn shown<R>(
    work: impl FnOnce(&mut bench::Progress<'_>) -> Result<R, crate::commit::Faults>,
) -> Result<R, Failure> {
    let bar = ProgressBar::new(1).with_style(
        ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let result = work(&mut |done: usize, all: usize, name: &str| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        bar.set_message(name.to_owned());
    });
    bar.finish_and_clear();
    result.map_err(|faults| Failure::Which(faults.to_string()))
}

fn pf(at: &At, args: Pf) -> Result<Exit, Failure> {
    let Pf { rules, states, workers, seconds } = args;
    let plan = PfPlan { rules, states, workers, seconds };
    let report = shown(|progress| bench::pf(&plan, &mut Root::claim(), progress))?;
    at.print(&report, || {
        let most = plan.rules.iter().max().copied().unwrap_or(1);
        let ruleset = abridged(&bench::ruleset(most, plan.states.iter().max().copied().unwrap_or(0)));
        let (rows, ratios) = (pf_text(&report.results), ratios_text(&report.ratios));
        format!("{rows}\n{ratios}\nThe ruleset, at {most} rules with states:\n\n{ruleset}")
    })?;
    Ok(if report.results.iter().all(|row| row.balanced) { Exit::Good } else { Exit::No })
}

/// What pf adds, beside forwarding in the same slices.
fn pf_text(results: &[PfRow]) -> String {
    let mut rows = vec![row(["pf", "rules", "states", "workers", "Mpps", "ns", "added", "books"])];
    rows.extend(results.iter().map(|r| {
        vec![
            r.case.to_owned(),
            r.rules.to_string(),
            r.states.to_string(),
            r.workers.to_string(),
            format!("{:.2}", r.mpps),
            format!("{:.1}", r.ns_per_packet),
            r.added_ns.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.1}")),
            if r.balanced { "balance" } else { "DO NOT" }.to_owned(),
        ]
    }));
    let columns: Vec<Align> =
        (0..8).map(|n| if [0, 7].contains(&n) { Align::Left } else { Align::Right }).collect();
    table::set(&columns, &rows)
}

/// What rows of one round say of each other.
fn ratios_text(ratios: &[PfRatio]) -> String {
    let mut rows = vec![row(["ratio", ""])];
    rows.extend(ratios.iter().map(|r| vec![r.what.clone(), format!("{:.2}", r.ratio)]));
    table::set(&[Align::Left, Align::Right], &rows)
}

/// The first and the last lines of a long text.
fn abridged(text: &str) -> String {
    const ENDS: usize = 4;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= 2 * ENDS {
        return text.to_owned();
    }
    let (first, last) = (lines[..ENDS].join("\n"), lines[lines.len() - ENDS..].join("\n"));
    format!("{first}\n... {} more like these\n{last}\n", lines.len() - 2 * ENDS)
}

/// The report as a table: every figure beside its ceiling.
pub fn text(report: &Report) -> String {
    let mut rows = vec![row([
        report.bench,
        "suite",
        "engine",
        "bytes",
        "workers",
        "SAs",
        "locking",
        "Mpps",
        "Gb/s",
        "ns",
        "added",
        "ceiling",
        "ratio",
        "books",
    ])];
    rows.extend(report.results.iter().map(cells));
    let columns: Vec<Align> =
        (0..14).map(|n| if [0, 1, 2, 6, 13].contains(&n) { Align::Left } else { Align::Right }).collect();
    table::set(&columns, &rows)
}

fn cells(row: &Row) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let number = |n: Option<f64>, digits: usize| or_dash(n.map(|n| format!("{n:.digits$}")));
    vec![
        or_dash(row.direction.map(str::to_owned)),
        or_dash(row.suite.clone()),
        or_dash(row.engine.clone()),
        row.size.to_string(),
        row.workers.to_string(),
        or_dash(row.sas.map(|n| n.to_string())),
        row.locking.clone(),
        format!("{:.2}", row.mpps),
        format!("{:.2}", row.gbps),
        format!("{:.1}", row.ns_per_packet),
        number(row.added_ns, 1),
        number(row.ceiling_gbps, 2),
        number(row.ratio, 2),
        if row.balanced { "balance" } else { "DO NOT" }.to_owned(),
    ]
}

fn fib(at: &At, routes: &[usize]) -> Result<Exit, Failure> {
    let rows = crate::route::bench::run(routes);
    let report = serde_json::json!({ "bench": "fib", "results": rows });
    at.print(&report, || rows.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "\n")?;
    Ok(Exit::Good)
}

fn altq(at: &At, args: &Altq) -> Result<Exit, Failure> {
    let report = bench::altq(&args.classes, args.rounds, &mut Root::claim()).map_err(Failure::Which)?;
    at.print(&report, || {
        let mut rows = vec![row(["altq", "classes", "ns", "Mpps", "books"])];
        rows.extend(report.results.iter().map(|r| {
            let books = if r.balanced { "balance" } else { "DO NOT" };
            let (ns, mpps) = (format!("{:.1}", r.ns_per_packet), format!("{:.2}", r.mpps));
            vec![r.discipline.to_owned(), r.classes.to_string(), ns, mpps, books.to_owned()]
        }));
        table::set(&[Align::Left, Align::Right, Align::Right, Align::Right, Align::Left], &rows)
    })?;
    Ok(if report.results.iter().all(|row| row.balanced) { Exit::Good } else { Exit::No })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_every_figure_beside_its_ceiling() {
        let forward = Row {
            direction: None,
            suite: None,
            engine: None,
            size: 64,
            workers: 1,
            sas: None,
            flows: 64,
            locking: "fine".into(),
            mpps: 31.25,
            gbps: 16.0,
            ns_per_packet: 32.0,
            added_ns: None,
            ceiling_engine: None,
            ceiling_gbps: None,
            ratio: None,
            balanced: true,
        };
        let text = text(&Report { bench: "forward", results: vec![forward] });
        assert_eq!(
            text,
            "forward  suite  engine  bytes  workers  SAs  locking   Mpps   Gb/s    ns  added  ceiling  ratio  books\n\
             -        -      -          64        1    -  fine     31.25  16.00  32.0      -        -      -  balance\n"
        );
    }

    #[test]
    fn all_is_every_pair_of_suite_and_engine_that_there_is() {
        use OneOrAll::{All, One};
        let pairs = |suites, engines: &[OneOrAll<Engine>]| with_engines(suites, engines).unwrap();
        let gcm = Suite::Aes128Gcm16;
        let with_all = Suite::esp().filter(|suite| suite.has_engines()).count();
        let others = Engine::ALL.map(|engine| (gcm, engine));
        assert_eq!(pairs(vec![One(gcm)], &[All]), others);
        assert_eq!(pairs(vec![All], &[One(Engine::Auto)]).len(), Suite::esp().count());
        assert_eq!(pairs(vec![All], &[All]).len(), Suite::esp().count() + 2 * with_all);
        let cbc: Suite = "aes-128-cbc+hmac-sha256".parse().unwrap();
        assert_eq!(pairs(vec![One(cbc)], &[All]), [(cbc, Engine::RustCrypto)]);
        let refused = with_engines(vec![One(cbc)], &[One(Engine::Ring)]).unwrap_err().to_string();
        assert_eq!(refused, "aes-128-cbc+hmac-sha256 is done by rustcrypto alone: --engine rustcrypto");
        assert!(one_or_all::<Engine>("abacus").unwrap_err().contains("abacus"));
    }
}
