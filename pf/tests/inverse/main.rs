//! Print and parse are inverse, on whole rulesets: what is printed of one is read as the same, and printed as the same.
//!
//! The rulesets are written by [`author::Author`], a statement at a time, as people write them: with lists, interface
//! names and options in any order. Macros are left out: they are printed, and what they stand for is, too.

#![allow(unreachable_pub, reason = "one program of several files")]

#[path = "../common/mod.rs"]
mod common;

mod author;
mod queues;
mod rules;
mod settings;
mod words;

use std::{fmt::Debug, time::Instant};

use kern::testing::{Chance, soak};
use pf::{
    Environment, PfConf,
    conf::{ConfError, parse_text},
    print,
};

use author::Author;

/// Rulesets, in all.
fn count() -> u64 {
    if soak() { 1_000_000 } else { 5_000 }
}

fn read(text: &str, env: &Environment, what: &str) -> Result<PfConf, String> {
    parse_text("generated", text, env, &[]).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ConfError::with_caret).collect();
        format!("{what} is rejected:\n{}", errors.join("\n"))
    })
}

/// Where things stood is not what they are.
fn bare(mut conf: PfConf) -> PfConf {
    let nowhere = pf::conf::Pos::default();
    for altq in &mut conf.altqs {
        altq.at = nowhere;
        // pfctl prints the depth that follows from the rate.
        altq.tbrsize = Some(altq.bucket());
    }
    for queue in &mut conf.queues {
        queue.at = nowhere;
        // pfctl does not print the usual one.
        queue.priority = queue.priority.or(Some(1));
    }
    conf.limiters.iter_mut().for_each(|limiter| limiter.at = nowhere);
    conf
}

/// The first thing that differs.
fn difference(a: &PfConf, b: &PfConf) -> Option<String> {
    fn of<T: PartialEq + Debug>(what: &str, a: &[T], b: &[T]) -> Option<String> {
        if a == b {
            return None;
        }
        let i = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        Some(format!("{what} {i}:\n{:?}\nis read as\n{:?}", a.get(i), b.get(i)))
    }
    of("ether rule", &a.rules.ether, &b.rules.ether)
        .or_else(|| of("scrub rule", &a.rules.scrub, &b.rules.scrub))
        .or_else(|| of("nat rule", &a.rules.nat, &b.rules.nat))
        .or_else(|| of("rdr rule", &a.rules.rdr, &b.rules.rdr))
        .or_else(|| of("binat rule", &a.rules.binat, &b.rules.binat))
        .or_else(|| of("filter rule", &a.rules.filter, &b.rules.filter))
        .or_else(|| of("anchor", &a.anchors, &b.anchors))
        .or_else(|| of("table", &a.tables, &b.tables))
        .or_else(|| of("limiter", &a.limiters, &b.limiters))
        .or_else(|| of("options", std::slice::from_ref(&a.options), std::slice::from_ref(&b.options)))
        .or_else(|| of("altq", &a.altqs, &b.altqs))
        .or_else(|| of("queue", &a.queues, &b.queues))
        .or_else(|| of("line", &a.preamble, &b.preamble))
}

/// How many rules there are in a ruleset of which the property holds.
fn check(text: &str, env: &Environment) -> Result<usize, String> {
    let first = bare(read(text, env, "what was written")?);
    let printed = print::conf(&first, env);
    let wrong = |what: String| format!("{what}\nprinted\n{printed}");
    let second = bare(read(&printed, env, "what was printed").map_err(wrong)?);
    if let Some(difference) = difference(&first, &second) {
        return Err(wrong(difference));
    }
    if print::conf(&second, env) != printed {
        return Err(wrong("what is printed again is other".to_owned()));
    }
    Ok(first.rules.all().count() + first.anchors.iter().map(|a| a.rules.all().count()).sum::<usize>())
}

/// The same of so many rulesets from `first` on.
fn check_all(seed: u64, first: u64, count: u64) -> usize {
    let env = common::router();
    let mut rules = 0;
    for n in first..first + count {
        // Each from a seed of its own, so that one can be written again alone.
        let text = Author::new(seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).ruleset();
        rules += check(&text, &env).unwrap_or_else(|wrong| panic!("ruleset {n}: {wrong}\nof\n{text}"));
    }
    rules
}

#[test]
fn what_is_printed_of_a_ruleset_is_read_as_that_ruleset() {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(8)) as u64;
    let (each, seed, begun) = (count().div_ceil(threads), Chance::seeded(6).next(), Instant::now());
    let rules: usize = std::thread::scope(|scope| {
        let one = |thread: u64| scope.spawn(move || check_all(seed, thread * each, each));
        let all: Vec<_> = (0..threads).map(one).collect();
        all.into_iter().map(|thread| thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).sum()
    });
    let (all, seconds) = (each * threads, begun.elapsed().as_secs_f64());
    let speed = all as f64 / seconds;
    println!("{all} rulesets, {rules} rules, {speed:.0} rulesets/s, {threads} threads");
    assert!(rules as u64 > 4 * all, "rulesets without rules prove nothing");
}
