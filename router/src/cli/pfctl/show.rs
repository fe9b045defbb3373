//! `pfctl -s`: what is asked of the router and how it is printed, with the counters that `-v` adds; most lines come from
//! the router as they are.

use super::{
    Ctl, ask,
    kinds::{Show, show_word},
    names::Names,
    rules, table,
};
use crate::{
    cli::ask::{Failure, answer, put},
    control::{
        pf::{PfRequest, SourceReport, TimeoutReport, Told},
        proto::{QueueReport, Request, StateReport},
    },
};
use altq::{
    Counters, Tally,
    show::{Measured, rate_text},
};
use serde_json::json;
use std::{collections::HashMap, fmt::Write};

impl Ctl<'_> {
    pub(super) fn show(&self, kind: Show) -> Result<(), Failure> {
        let (at, verbose) = (self.at, self.args.verbose);
        let name = show_word(kind);
        match kind {
            Show::Rules | Show::Nat | Show::Ether => {
                let which = match kind {
                    Show::Nat => Told::Nat,
                    Show::Ether => Told::Ether,
                    _ => Told::Filter,
                };
                let request = PfRequest::Rules { which, anchor: self.anchor(), numeric: self.args.numeric };
                let report = ask!(at, request, Rules);
                self.print(name, &report, || rules::text(&report, verbose))
            }
            Show::Anchors => {
                let request = PfRequest::Anchors { anchor: self.anchor().path, all: verbose > 0 };
                let report = ask!(at, request, Anchors);
                let text = || lines(report.iter().map(|path| format!("  {path}")));
                self.print(name, &json!({ "anchors": report }), text)
            }
            Show::Sources => {
                let report = ask!(at, PfRequest::Sources, Sources);
                let text = |s: &SourceReport| if verbose > 0 { s.verbose.clone() } else { s.text.clone() };
                self.print(name, &report, || lines(report.iter().map(text)))
            }
            Show::LimiterStates | Show::LimiterSources => {
                let by_source = kind == Show::LimiterSources;
                let report = ask!(at, PfRequest::Limiters { by_source }, Limiters);
                let text = if verbose > 0 { &report.verbose } else { &report.text };
                self.print(name, &report, || text.clone())
            }
            Show::States => {
                let mut report = answer!(at.ask(&Request::PfStates)?, States);
                if let Some(interface) = &self.args.interface {
                    report.retain(|s| s.interface == *interface);
                }
                let mut names = self.args.reverse.then(Names::default);
                self.print(name, &report, || {
                    states(&report, verbose, |line| Names::in_state(&mut names, line))
                })
            }
            Show::Queue => {
                let mut samples = Samples::default();
                loop {
                    let report = answer!(at.ask(&Request::PfQueues)?, Queues);
                    samples.take(&report);
                    self.print(name, &report, || queues(&report, verbose, &samples))?;
                    // As pfctl does: twice verbose shows rates, every five seconds until it is interrupted.
                    if verbose < 2 || at.json || self.args.show != Some(Show::Queue) {
                        return Ok(());
                    }
                    std::thread::sleep(std::time::Duration::from_secs(SAMPLE_SECONDS));
                }
            }
            Show::Info => {
                let report = answer!(at.ask(&Request::PfInfo)?, PfInfo);
                let texts = [&report.text, &report.verbose, &report.very_verbose];
                self.print(name, &report, || texts[usize::from(verbose.min(2))].clone())
            }
            Show::Running => {
                let report = answer!(at.ask(&Request::PfInfo)?, PfInfo);
                let word = if report.enabled { "Enabled\n" } else { "Disabled\n" };
                self.print(name, &json!({ "enabled": report.enabled }), || word.to_owned())
            }
            Show::Creators => {
                let report = ask!(at, PfRequest::Creators, Creators);
                self.print(name, &json!({ "creators": report }), || creators(&report))
            }
            Show::Labels => {
                let report = ask!(at, PfRequest::Labels, Labels);
                self.print(name, &report, || lines(report.iter().map(|l| l.text.clone())))
            }
            Show::Timeouts => {
                let report = ask!(at, PfRequest::Timeouts, Timeouts);
                let text = |t: &TimeoutReport| match t.unit.as_str() {
                    "s" => format!("{:<20} {:>10}s", t.name, t.value),
                    unit => format!("{:<20} {:>10} {unit}", t.name, t.value),
                };
                self.print(name, &report, || lines(report.iter().map(text)))
            }
            Show::Memory => {
                let report = ask!(at, PfRequest::Limits, Limits);
                self.print(name, &report, || {
                    lines(report.iter().map(|l| format!("{:<13} hard limit {:>8}", l.name, l.limit)))
                })
            }
            Show::Interfaces => {
                let report = ask!(at, PfRequest::Interfaces, Interfaces);
                let skip = |skip: bool| if skip && verbose > 0 { " (skip)" } else { "" };
                self.print(name, &report, || {
                    lines(report.iter().map(|i| format!("{}{}", i.name, skip(i.skip))))
                })
            }
            Show::Tables => {
                let report = ask!(at, PfRequest::Tables { anchor: self.anchor() }, Tables);
                self.print(name, &report, || table::list(&report, verbose))
            }
            Show::Fingerprints => {
                let report = ask!(at, PfRequest::Fingerprints, Fingerprints);
                let of_all = self.args.show == Some(Show::All);
                self.print(name, &report, || {
                    if of_all {
                        format!("{} fingerprints loaded\n", report.count)
                    } else {
                        report.text.clone()
                    }
                })
            }
            Show::All => self.show_all(),
        }
    }

    fn show_all(&self) -> Result<(), Failure> {
        let each = [
            ("ETHERNET RULES:", Show::Ether),
            ("TRANSLATION RULES:", Show::Nat),
            ("FILTER RULES:", Show::Rules),
            ("ALTQ:", Show::Queue),
            ("STATES:", Show::States),
            ("SOURCE TRACKING NODES:", Show::Sources),
            ("STATE LIMITERS:", Show::LimiterStates),
            ("SOURCE LIMITERS:", Show::LimiterSources),
            ("INFO:", Show::Info),
            ("LABEL COUNTERS:", Show::Labels),
            ("TIMEOUTS:", Show::Timeouts),
            ("LIMITS:", Show::Memory),
            ("TABLES:", Show::Tables),
            ("OS FINGERPRINTS:", Show::Fingerprints),
        ];
        for (n, (title, kind)) in each.into_iter().enumerate() {
            if !self.at.json {
                put(format!("{}{title}\n", if n > 0 { "\n" } else { "" }).as_bytes())?;
            }
            self.show(kind)?;
        }
        Ok(())
    }
}

/// `-s creatorids`
fn creators(ids: &[u32]) -> String {
    ids.iter().fold("Creator IDs:\n".to_owned(), |text, id| format!("{text}{id:08x}\n"))
}

fn lines(all: impl Iterator<Item = String>) -> String {
    all.flat_map(|line| [line, "\n".to_owned()]).collect()
}

/// `-s states`.
fn states(all: &[StateReport], verbose: u8, mut named: impl FnMut(&str) -> String) -> String {
    let mut out = String::new();
    for s in all {
        let _ = writeln!(out, "{}", named(if verbose > 0 { &s.verbose } else { &s.text }));
        if verbose > 1 {
            let _ = writeln!(out, "   id: {:016x} creatorid: {:08x}", s.id, s.creator);
        }
    }
    out
}

/// Seconds between two samples of `-vv`.
const SAMPLE_SECONDS: u64 = 5;

/// Averages of every queue, for `-vv`.
#[derive(Default)]
struct Samples(HashMap<(String, String), Measured>);

impl Samples {
    /// Takes in what the router said now.
    fn take(&mut self, all: &[QueueReport]) {
        for q in all {
            let sent = Tally { packets: q.packets, bytes: q.bytes };
            let measured = self.0.entry((q.interface.clone(), q.name.clone())).or_default();
            measured.sample(Counters { sent, ..Counters::default() });
        }
    }

    fn rates(&self, q: &QueueReport) -> Option<(f64, f64)> {
        self.0.get(&(q.interface.clone(), q.name.clone()))?.rates(SAMPLE_SECONDS as f64)
    }
}

/// `-s queue`.
fn queues(all: &[QueueReport], verbose: u8, samples: &Samples) -> String {
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
            let _ = write!(out, "  [ qlength: {:3}/{:3} ", q.length, q.limit);
            if let (Some(borrows), Some(suspends)) = (q.borrows, q.suspends) {
                let _ = write!(out, " borrows: {borrows:6}  suspends: {suspends:6} ");
            }
            let _ = writeln!(out, "]");
            if let Some((packets, bits)) = samples.rates(q) {
                let bits = rate_text(bits);
                let _ = writeln!(out, "  [ measured: {packets:7.1} packets/s, {bits}/s ]");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_as_pf_words_it() {
        let state = StateReport {
            text: "all tcp a <- b".into(),
            verbose: "all tcp a <- b\n   age".into(),
            id: 0xabc,
            creator: 0xf,
            ..Default::default()
        };
        assert_eq!(states(std::slice::from_ref(&state), 0, str::to_owned), "all tcp a <- b\n");
        assert_eq!(
            states(&[state], 2, str::to_owned),
            "all tcp a <- b\n   age\n   id: 0000000000000abc creatorid: 0000000f\n"
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
            queues(std::slice::from_ref(&queue), 1, &Samples::default()),
            "queue bulk on wan0 \n  [ pkts:          7  bytes:        700  dropped pkts:      0 bytes:      0 ]\n  \
             [ qlength:   0/ 50 ]\n"
        );
        assert_eq!(queues(&[], 0, &Samples::default()), "No queue in use\n");
        let mut samples = Samples::default();
        samples.take(std::slice::from_ref(&queue));
        let later = QueueReport { packets: 57, bytes: 5_700, borrows: Some(3), suspends: Some(4), ..queue };
        samples.take(std::slice::from_ref(&later));
        assert!(queues(&[later], 2, &samples).ends_with(
            "  [ qlength:   0/ 50  borrows:      3  suspends:      4 ]\n  [ measured:    10.0 packets/s, 8Kb/s ]\n"
        ));
    }
}
