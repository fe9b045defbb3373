//! `softnet top`: what a router does now. Rates between two looks at its counters, after systat(1).
//!
//! Interfaces in frames and bits a second, counters and reasons of ended packets by how fast they move, and who has the
//! buffers. Nothing is kept: each screen is the difference of two answers.

use super::{
    Exit,
    ask::{At, Failure, answer},
    table::{self, Align::Left, Align::Right, row},
};
use crate::control::proto::{InterfaceReport, MbufReport, Request, Stat, StatsReport};
use clap::Args;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::Write,
    io::IsTerminal,
    time::{Duration, Instant},
};

/// How often, and how many times.
#[derive(Clone, Debug, Args)]
pub struct Top {
    /// Seconds between two looks
    #[arg(short, default_value_t = 1.0, value_parser = seconds)]
    delay: f64,
    /// Screens; without it until interrupted
    #[arg(short = 'c', value_name = "COUNT")]
    count: Option<u64>,
    /// Counters shown
    #[arg(short, default_value_t = 12)]
    lines: usize,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(n) if (0.1..=3600.0).contains(&n) => Ok(n),
        _ => Err("seconds from 0.1 to 3600".to_owned()),
    }
}

/// One look.
struct Look {
    at: Instant,
    interfaces: Vec<InterfaceReport>,
    stats: StatsReport,
    mbufs: MbufReport,
}

/// The difference of two looks, by second.
#[derive(Debug, Default, Serialize)]
struct Rates {
    seconds: f64,
    interfaces: Vec<InterfaceRate>,
    counters: Vec<Rate>,
    ended: Vec<Rate>,
    by_owner: BTreeMap<String, u64>,
    free: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct InterfaceRate {
    name: String,
    up: bool,
    in_pps: f64,
    in_bps: f64,
    out_pps: f64,
    out_bps: f64,
    errors: u64,
}

#[derive(Debug, Serialize)]
struct Rate {
    name: String,
    per_second: f64,
    text: String,
}

/// Runs the command.
pub fn run(at: &At, args: &Top) -> Result<Exit, Failure> {
    let clear = std::io::stdout().is_terminal() && !at.json;
    let mut before = look(at)?;
    for screen in 0_u64.. {
        if args.count.is_some_and(|count| screen >= count) {
            break;
        }
        std::thread::sleep(Duration::from_secs_f64(args.delay));
        let now = look(at)?;
        let rates = Rates::between(&before, &now);
        at.print(&rates, || {
            // Home, and clear to the end: the terminal's own scrollback stays.
            let home = if clear { "\x1b[H\x1b[J" } else { "" };
            format!("{home}{}\n", screen_of(&rates, args.lines))
        })?;
        before = now;
    }
    Ok(Exit::Good)
}

fn look(at: &At) -> Result<Look, Failure> {
    Ok(Look {
        at: Instant::now(),
        interfaces: answer!(at.ask(&Request::Interfaces)?, Interfaces),
        stats: answer!(at.ask(&Request::Stats)?, Stats),
        mbufs: answer!(at.ask(&Request::Mbuf)?, Mbuf),
    })
}

impl Rates {
    fn between(before: &Look, now: &Look) -> Rates {
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
        Rates {
            seconds,
            interfaces: interface_rates(&before.interfaces, &now.interfaces, seconds),
            counters: rates(&before.stats.counters, &now.stats.counters, seconds),
            ended: rates(&before.stats.ended, &now.stats.ended, seconds),
            by_owner: now.mbufs.by_owner.clone(),
            free: now.mbufs.classes.iter().map(|(name, c)| (name.clone(), c.depot + c.magazines)).collect(),
        }
    }
}

/// An interface that was not there before, or came anew and counts from 0, has moved as much as it has counted.
fn interface_rates(before: &[InterfaceReport], now: &[InterfaceReport], seconds: f64) -> Vec<InterfaceRate> {
    let fresh = InterfaceReport::default();
    let of = |i: &InterfaceReport| {
        let old = before.iter().find(|b| b.name == i.name).unwrap_or(&fresh);
        let rate = |new: u64, old: u64| moved(old, new) as f64 / seconds;
        InterfaceRate {
            name: i.name.clone(),
            up: i.up,
            in_pps: rate(i.in_packets, old.in_packets),
            in_bps: rate(i.in_bytes, old.in_bytes) * 8.0,
            out_pps: rate(i.out_packets, old.out_packets),
            out_bps: rate(i.out_bytes, old.out_bytes) * 8.0,
            errors: moved(old.in_errors + old.out_errors, i.in_errors + i.out_errors),
        }
    };
    now.iter().map(of).collect()
}

/// Those that moved, the fastest first.
fn rates(before: &BTreeMap<String, Stat>, now: &BTreeMap<String, Stat>, seconds: f64) -> Vec<Rate> {
    let mut all: Vec<Rate> = now
        .iter()
        .filter_map(|(name, stat)| {
            let n = moved(before.get(name).map_or(0, |old| old.value), stat.value);
            let rate =
                || Rate { name: name.clone(), per_second: n as f64 / seconds, text: stat.text.clone() };
            (n > 0).then(rate)
        })
        .collect();
    all.sort_by(|a, b| b.per_second.total_cmp(&a.per_second));
    all
}

fn moved(old: u64, new: u64) -> u64 {
    new.checked_sub(old).unwrap_or(new)
}

fn screen_of(rates: &Rates, lines: usize) -> String {
    let mut rows = vec![row(["Interface", "In/s", "In bit/s", "Out/s", "Out bit/s", "Errs"])];
    rows.extend(rates.interfaces.iter().map(|i| {
        let name = if i.up { i.name.clone() } else { format!("{}*", i.name) };
        let numbers = [i.in_pps, i.in_bps, i.out_pps, i.out_bps].map(short);
        [vec![name], numbers.to_vec(), vec![i.errors.to_string()]].concat()
    }));
    let mut out = table::set(&[Left, Right, Right, Right, Right, Right], &rows);
    let held: Vec<String> =
        rates.by_owner.iter().filter(|(_, n)| **n > 0).map(|(owner, n)| format!("{n} {owner}")).collect();
    let free: Vec<String> = rates.free.iter().map(|(class, n)| format!("{n} {class}s")).collect();
    let held = if held.is_empty() { "none".to_owned() } else { held.join(", ") };
    let _ = writeln!(out, "\nbuffers: {held} held; {} free\n", free.join(", "));
    for (title, list) in [("Counter/s", &rates.counters), ("Ended/s", &rates.ended)] {
        let mut rows = vec![row([title, "", ""])];
        rows.extend(
            list.iter().take(lines).map(|r| vec![short(r.per_second), r.name.clone(), r.text.clone()]),
        );
        if rows.len() > 1 {
            out.push_str(&table::set(&[Right, Left, Left], &rows));
        }
    }
    out
}

/// Three digits and what they are multiplied by, powers of 1,000.
fn short(n: f64) -> String {
    let (n, unit) = match n {
        n if n < 1e3 => (n, ""),
        n if n < 1e6 => (n / 1e3, "k"),
        n if n < 1e9 => (n / 1e6, "M"),
        n => (n / 1e9, "G"),
    };
    let is_whole = n >= 100.0 || (unit.is_empty() && n.fract() == 0.0);
    if is_whole { format!("{n:.0}{unit}") } else { format!("{n:.1}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let all = [0.0, 0.5, 7.0, 999.0, 1_500.0, 123_456.0, 9.87e6, 2.5e9].map(short);
        assert_eq!(all, ["0", "0.5", "7", "999", "1.5k", "123k", "9.9M", "2.5G"]);
    }

    fn stats(values: &[(&str, u64)]) -> BTreeMap<String, Stat> {
        values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Stat { value: *value, text: "x".into() }))
            .collect()
    }

    #[test]
    fn what_moved_comes_fastest_first_and_a_counter_that_began_anew_has_moved_by_what_it_says() {
        let before = stats(&[("a", 10), ("b", 5), ("c", 100)]);
        let now = stats(&[("a", 10), ("b", 9), ("c", 7), ("d", 1)]);
        let got: Vec<_> = rates(&before, &now, 2.0).into_iter().map(|r| (r.name, r.per_second)).collect();
        assert_eq!(got, [("c".to_owned(), 3.5), ("b".to_owned(), 2.0), ("d".to_owned(), 0.5)]);
    }

    #[test]
    fn a_screen_shows_interfaces_buffers_and_what_moves() {
        let old = InterfaceReport { name: "lan0".into(), up: true, in_packets: 10, ..Default::default() };
        let new = InterfaceReport { in_packets: 2010, in_bytes: 125_000, ..old.clone() };
        let rates = Rates {
            seconds: 1.0,
            interfaces: interface_rates(&[old], &[new], 1.0),
            counters: rates(&stats(&[]), &stats(&[("ip.forwarded", 2000)]), 1.0),
            by_owner: [("rx".to_owned(), 2), ("ifq".to_owned(), 0)].into(),
            free: [("cluster".to_owned(), 16_382)].into(),
            ..Rates::default()
        };
        let screen = screen_of(&rates, 5);
        assert!(screen.contains("lan0       2.0k      1.0M      0          0     0"), "{screen}");
        assert!(screen.contains("buffers: 2 rx held; 16382 clusters free"), "{screen}");
        assert!(screen.contains("2.0k  ip.forwarded  x"), "{screen}");
        assert!(!screen.contains("Ended"), "{screen}");
    }
}
