//! `pfctl -s`: rules, states and queues with the counters that `-v` adds; the lines themselves come from the router.

use crate::control::proto::{QueueReport, RuleReport, StateReport};
use altq::{
    Counters, Tally,
    show::{Measured, rate_text},
};
use std::{collections::HashMap, fmt::Write};

/// `-s rules`.
pub(super) fn rules(all: &[RuleReport], verbose: u8) -> String {
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
        }
    }
    out
}

/// `-s states`.
pub(super) fn states(all: &[StateReport], verbose: u8) -> String {
    let mut out = String::new();
    for s in all {
        let _ = writeln!(out, "{}", if verbose > 0 { &s.verbose } else { &s.text });
        if verbose > 1 {
            let _ = writeln!(out, "   id: {:016x}", s.id);
        }
    }
    out
}

/// Seconds between two samples of `-vv`.
pub(super) const SAMPLE_SECONDS: u64 = 5;

/// Averages of every queue, for `-vv`.
#[derive(Default)]
pub(super) struct Samples(HashMap<(String, String), Measured>);

impl Samples {
    /// Takes in what the router said now.
    pub(super) fn take(&mut self, all: &[QueueReport]) {
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
pub(super) fn queues(all: &[QueueReport], verbose: u8, samples: &Samples) -> String {
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
            "@3 pass out all\n  [ Evaluations: 12        Packets: 5         Bytes: 420         States: 1     ]\n"
        );
    }

    #[test]
    fn a_state_is_told_as_pf_words_it() {
        let state = StateReport {
            text: "all tcp a <- b".into(),
            verbose: "all tcp a <- b\n   age".into(),
            id: 0xabc,
            ..Default::default()
        };
        assert_eq!(states(std::slice::from_ref(&state), 0), "all tcp a <- b\n");
        assert_eq!(states(&[state], 2), "all tcp a <- b\n   age\n   id: 0000000000000abc\n");
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
