//! What `pfctl -s` shows: as text in pfctl's own layout, and as plain values for JSON.

mod status;

use std::fmt::Write;

use crate::{
    anchor::{self, Kind},
    conf::PfConf,
    env::Environment,
    ether::EtherRule,
    once::Once,
    print,
    rule::{AnchorCall, Rule},
    ruleset::Ruleset,
    slab::RuleSlot,
    timeout::Timeout,
};

pub use self::status::{Info, info};
pub use crate::log_interface::InterfaceStats;

/// A rule and its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its number.
    pub number: usize,
    /// As pfctl prints it.
    pub text: String,
    /// The anchor it calls.
    pub anchor: Option<AnchorCall>,
    /// It was for one packet and has had it (`once`).
    pub expired: bool,
    /// Its labels.
    pub labels: Vec<String>,
    /// How often it was evaluated.
    pub evaluations: u64,
    /// Packets it decided, in and out, states included.
    pub packets: [u64; 2],
    /// Their IP octets.
    pub bytes: [u64; 2],
    /// States of it there are.
    pub states: u32,
    /// States it has made.
    pub states_made: u64,
}

/// The rules of a kind, of an anchor or of the main ruleset, with their counters.
pub fn rules(ruleset: &Ruleset, path: &str, kind: Kind, env: &Environment) -> Vec<RuleInfo> {
    let each = |(number, rule): (usize, &Rule)| {
        let expired = rule.once.as_ref().is_some_and(Once::is_spent);
        RuleInfo {
            text: print::rule(rule, env) + if expired { " # expired" } else { "" },
            expired,
            anchor: rule.anchor.clone(),
            labels: rule.labels.clone(),
            ..RuleInfo::counted(ruleset, number, ruleset.counted(path, kind, number))
        }
    };
    let rules = anchor::sources(ruleset.conf()).find(|(p, _)| *p == path).map(|(_, rules)| rules.list(kind));
    rules.unwrap_or_default().iter().enumerate().map(each).collect()
}

/// The Ethernet rules of an anchor or of the main ruleset, with their counters.
pub fn ether(ruleset: &Ruleset, path: &str) -> Vec<RuleInfo> {
    let each = |(number, rule): (usize, &EtherRule)| RuleInfo {
        text: print::ether(rule),
        anchor: rule.anchor.clone(),
        labels: rule.labels.clone(),
        ..RuleInfo::counted(ruleset, number, ruleset.counted_ether(path, number))
    };
    let rules = anchor::sources(ruleset.conf()).find(|(p, _)| *p == path).map(|(_, rules)| &rules.ether);
    rules.into_iter().flatten().enumerate().map(each).collect()
}

/// The scrub rules of an anchor or of the main ruleset.
pub fn scrub(ruleset: &Ruleset, path: &str, env: &Environment) -> Vec<String> {
    let rules = anchor::sources(ruleset.conf()).find(|(p, _)| *p == path).map(|(_, rules)| &rules.scrub);
    rules.into_iter().flatten().map(|rule| print::rule(rule, env)).collect()
}

impl RuleInfo {
    /// What was counted of a rule, by its slot and how often it was evaluated.
    fn counted(ruleset: &Ruleset, number: usize, counted: Option<(RuleSlot, u64)>) -> RuleInfo {
        let (slot, evaluations) = counted.unzip();
        let totals = slot.map(|slot| ruleset.slab().totals(slot)).unwrap_or_default();
        RuleInfo {
            number,
            text: String::new(),
            expired: false,
            anchor: None,
            labels: Vec::new(),
            evaluations: evaluations.unwrap_or(0),
            packets: totals.packets,
            bytes: totals.bytes,
            states: totals.states,
            states_made: totals.states_made,
        }
    }

    /// The line of `pfctl -s rules`; with `verbose` 1 the counters below it, with 2 its number before it.
    pub fn line(&self, verbose: u8) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out, verbose);
        out
    }

    fn write(&self, out: &mut String, verbose: u8) -> std::fmt::Result {
        if verbose > 1 {
            write!(out, "@{} ", self.number)?;
        }
        out.write_str(&self.text)?;
        if verbose > 0 {
            write!(
                out,
                "\n  [ Evaluations: {:<8}  Packets: {:<8}  Bytes: {:<10}  States: {:<6}]",
                self.evaluations,
                self.packets.iter().sum::<u64>(),
                self.bytes.iter().sum::<u64>(),
                self.states
            )?;
        }
        Ok(())
    }

    /// The lines of `pfctl -s labels`: label, evaluations, packets, bytes, packets and bytes in, packets and bytes out,
    /// states made.
    pub fn label_lines(&self) -> Vec<String> {
        let [packets_in, packets_out] = self.packets;
        let [bytes_in, bytes_out] = self.bytes;
        let numbers = format!(
            "{} {} {} {packets_in} {bytes_in} {packets_out} {bytes_out} {}",
            self.evaluations,
            packets_in + packets_out,
            bytes_in + bytes_out,
            self.states_made
        );
        self.labels.iter().map(|label| format!("{label} {numbers}")).collect()
    }
}

/// `pfctl -s queue`: the altq and queue lines.
pub fn queues(conf: &PfConf) -> Vec<String> {
    conf.altqs.iter().map(print::altq).chain(conf.queues.iter().map(print::queue)).collect()
}

/// A timeout of `pfctl -s timeouts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutInfo {
    /// Its keyword.
    pub name: &'static str,
    /// How many of its unit.
    pub value: u32,
    /// `s`, or `states` of the adaptive pair.
    pub unit: &'static str,
}

/// All timeouts, in pfctl's order.
pub fn timeouts(conf: &PfConf) -> Vec<TimeoutInfo> {
    let info = |&timeout: &Timeout| {
        let adaptive = matches!(timeout, Timeout::AdaptiveStart | Timeout::AdaptiveEnd);
        TimeoutInfo {
            name: timeout.keyword(),
            value: conf.options.timeouts.get(timeout),
            unit: if adaptive { "states" } else { "s" },
        }
    };
    Timeout::ALL.iter().map(info).collect()
}
