//! `softnet pfctl -s`, after pfctl(8). Rules and queues come as pfctl prints them; here are the counters that `-v` adds.

use super::{
    Exit,
    ask::{At, Failure, answer},
};
use crate::control::proto::{PfInfoReport, QueueReport, Request, RuleReport, StateReport};
use clap::{ArgAction, Args, ValueEnum};
use std::fmt::Write;

/// What to show.
#[derive(Clone, Debug, Args)]
pub struct Pfctl {
    /// What to show
    #[arg(short, value_name = "WHAT", required = true)]
    show: What,
    /// With counters; twice: with numbers
    #[arg(short, action = ArgAction::Count)]
    verbose: u8,
}

/// pfctl's modifiers; an unambiguous beginning will do, as there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Rules
    #[value(aliases = ["r", "rule"])]
    Rules,
    /// States
    #[value(aliases = ["s", "state"])]
    States,
    /// Queues
    #[value(aliases = ["q", "queues"])]
    Queue,
    /// Counters
    #[value(alias = "i")]
    Info,
}

/// Runs the command.
pub fn run(at: &At, args: &Pfctl) -> Result<Exit, Failure> {
    match args.show {
        What::Rules => {
            let report = answer!(at.ask(&Request::PfRules)?, Rules);
            at.print(&report, || rules(&report, args.verbose))?;
        }
        What::States => {
            let report = answer!(at.ask(&Request::PfStates)?, States);
            at.print(&report, || states(&report, args.verbose))?;
        }
        What::Queue => {
            let report = answer!(at.ask(&Request::PfQueues)?, Queues);
            at.print(&report, || queues(&report, args.verbose))?;
        }
        What::Info => {
            let report = answer!(at.ask(&Request::PfInfo)?, PfInfo);
            at.print(&report, || info(&report))?;
        }
    }
    Ok(Exit::Good)
}

/// `-s rules`.
pub fn rules(all: &[RuleReport], verbose: u8) -> String {
    let mut out = String::new();
    for r in all {
        if verbose > 1 {
            let _ = write!(out, "@{} ", r.number);
        }
        let _ = writeln!(out, "{}", r.text.trim_end_matches('\n'));
        if verbose > 0 {
            let _ = writeln!(
                out,
                "  [ Evaluations: {:<8}  Packets: {:<8}  Bytes: {:<10}  States: {:<6}]",
                r.evaluations, r.packets, r.bytes, r.states
            );
            let _ = writeln!(out, "  [ State Creations: {:<6}]", r.created);
        }
    }
    out
}

/// `-s states`.
pub fn states(all: &[StateReport], verbose: u8) -> String {
    let mut out = String::new();
    for s in all {
        let _ = writeln!(out, "{} {} {}       {}", s.interface, s.proto, s.text, s.state);
        if verbose > 0 {
            let rule = s.rule.map_or(String::new(), |rule| format!(", rule {rule}"));
            let _ = writeln!(
                out,
                "   age {}, expires in {}, {}:{} pkts, {}:{} bytes{rule}",
                clock(s.age_s),
                clock(s.expires_s),
                s.packets[0],
                s.packets[1],
                s.bytes[0],
                s.bytes[1]
            );
        }
        if verbose > 1 {
            let _ = writeln!(out, "   id: {:016x}", s.id);
        }
    }
    out
}

/// `-s queue`.
pub fn queues(all: &[QueueReport], verbose: u8) -> String {
    if all.is_empty() {
        return "No queue in use\n".to_owned();
    }
    let mut out = String::new();
    for q in all {
        let _ = writeln!(out, "{}", q.text.trim_end_matches('\n'));
        if verbose > 0 {
            let _ = writeln!(
                out,
                "  [ pkts: {:10}  bytes: {:10}  dropped pkts: {:6} bytes: {:6} ]",
                q.packets, q.bytes, q.dropped_packets, q.dropped_bytes
            );
            let _ = writeln!(out, "  [ qlength: {:3}/{:3} ]", q.length, q.limit);
        }
    }
    out
}

/// `-s info`.
pub fn info(r: &PfInfoReport) -> String {
    let word = if r.enabled { "Enabled" } else { "Disabled" };
    let days = r.since_s / 86_400;
    let mut out = format!("Status: {word} for {days} days {}\n\n", clock(r.since_s % 86_400));
    let rate = |n: u64| n as f64 / r.since_s.max(1) as f64;
    let mut line = |name: &str, n: u64, with_rate: bool| {
        let rate = if with_rate { format!("{:14.1}/s", rate(n)) } else { String::new() };
        let _ = writeln!(out, "  {name:<25} {n:>14}{rate}");
    };
    line("current entries", r.states, false);
    line("limit", r.limit, false);
    r.table.iter().for_each(|(name, n)| line(name, *n, true));
    r.reasons.iter().for_each(|(name, n)| line(name, *n, true));
    let head = "State Table                          Total             Rate\n";
    let counters = "Counters\n";
    let at = out.find("  current").unwrap_or(out.len());
    out.insert_str(at, head);
    if let Some((first, _)) = r.reasons.first()
        && let Some(at) = out.find(&format!("\n  {first:<25} "))
    {
        out.insert_str(at + 1, counters);
    }
    out
}

/// Seconds as `00:00:00`.
fn clock(secs: u64) -> String {
    format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_with_v_and_numbers_with_vv() {
        let rule = RuleReport {
            number: 3,
            text: "pass out all".into(),
            evaluations: 12,
            packets: 5,
            bytes: 420,
            states: 1,
            created: 2,
        };
        assert_eq!(rules(std::slice::from_ref(&rule), 0), "pass out all\n");
        assert_eq!(
            rules(&[rule], 2),
            "@3 pass out all\n  [ Evaluations: 12        Packets: 5         Bytes: 420         States: 1     ]\n  \
             [ State Creations: 2     ]\n"
        );
    }

    #[test]
    fn a_state_is_told_as_pfctl_does() {
        let state = StateReport {
            interface: "all".into(),
            proto: "tcp".into(),
            text: "192.0.2.1:22 <- 198.51.100.7:5555".into(),
            state: "ESTABLISHED:ESTABLISHED".into(),
            age_s: 3661,
            expires_s: 86_400,
            packets: [3, 2],
            bytes: [180, 120],
            rule: Some(4),
            id: 0xabc,
        };
        assert_eq!(
            states(&[state], 2),
            "all tcp 192.0.2.1:22 <- 198.51.100.7:5555       ESTABLISHED:ESTABLISHED\n   \
             age 01:01:01, expires in 24:00:00, 3:2 pkts, 180:120 bytes, rule 4\n   id: 0000000000000abc\n"
        );
    }

    #[test]
    fn a_queue_is_told_as_pfctl_does() {
        let queue = QueueReport {
            text: "queue bulk on wan0 ".into(),
            packets: 7,
            bytes: 700,
            limit: 50,
            ..Default::default()
        };
        assert_eq!(
            queues(&[queue], 1),
            "queue bulk on wan0 \n  [ pkts:          7  bytes:        700  dropped pkts:      0 bytes:      0 ]\n  \
             [ qlength:   0/ 50 ]\n"
        );
        assert_eq!(queues(&[], 0), "No queue in use\n");
    }

    #[test]
    fn the_info_block_has_states_and_counters_with_rates() {
        let report = PfInfoReport {
            enabled: true,
            since_s: 90_000,
            states: 2,
            limit: 10_000,
            table: vec![("searches".into(), 900_000)],
            reasons: vec![("match".into(), 45_000)],
        };
        assert_eq!(
            info(&report),
            "Status: Enabled for 1 days 01:00:00\n\n\
             State Table                          Total             Rate\n  \
             current entries                        2\n  \
             limit                              10000\n  \
             searches                          900000          10.0/s\n\
             Counters\n  \
             match                              45000           0.5/s\n"
        );
    }
}
