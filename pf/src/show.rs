//! What `pfctl -s` shows: as text in pfctl's own layout, and as plain values for JSON.

use std::fmt::Write;

use kern::counter::{Counter, CounterSet};

use crate::{
    anchor::{self, Kind},
    conf::{PfConf, Syncookies},
    counters::PfCounters,
    debug::Level,
    env::Environment,
    ether::EtherRule,
    once::Once,
    pf::Pf,
    print,
    rule::{AnchorCall, Rule},
    ruleset::Ruleset,
    slab::RuleSlot,
    state::cookie::CookieInfo,
};

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

/// `pfctl -s info`.
#[derive(Clone, Debug)]
pub struct Info {
    /// Whether pf decides anything.
    pub enabled: bool,
    /// Seconds since it was enabled.
    pub since: u64,
    /// How much pf says.
    pub debug: Level,
    /// Whose the states are that are made now (`set hostid`).
    pub host_id: u32,
    /// `set loginterface`.
    pub interface: Option<InterfaceStats>,
    /// States there are.
    pub states: u32,
    /// States there may be.
    pub limit: u32,
    /// `set syncookies`, and none if it is `never`.
    pub syncookies: Option<(Syncookies, CookieInfo)>,
    /// All counters.
    pub counters: PfCounters,
}

/// The present figures of a pf with these rules that was enabled `since` seconds ago, if it is.
pub fn info(pf: &Pf, rules: Option<&Ruleset>, since: Option<u64>) -> Info {
    let when = rules.map(|rules| rules.conf().options.syncookies).filter(|when| *when != Syncookies::Never);
    Info {
        syncookies: when.map(|when| (when, pf.states().cookies.info())),
        enabled: since.is_some(),
        since: since.unwrap_or(0),
        debug: pf.debug_level(),
        host_id: pf.states().creator(),
        interface: rules.and_then(Ruleset::interface_stats),
        states: pf.states().count(),
        limit: pf.states().limit(),
        counters: pf.counters_since_cleared(),
    }
}

impl Info {
    /// The block that pfctl prints, with `-v` or without.
    pub fn text(&self, verbose: bool) -> String {
        let mut out = String::new();
        let _ = self.write(&mut out, verbose);
        out
    }

    fn write(&self, out: &mut String, verbose: bool) -> std::fmt::Result {
        let status = if self.enabled {
            let (days, rest) = (self.since / 86_400, self.since % 86_400);
            let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
            format!("Status: Enabled for {days} days {clock}")
        } else {
            "Status: Disabled".to_owned()
        };
        writeln!(out, "{status:<44}{:>15}\n", format!("Debug: {}", self.debug.title()))?;
        if verbose {
            writeln!(out, "Hostid:   0x{:08x}\n", self.host_id)?;
        }
        if let Some(interface) = &self.interface {
            interface.write(out)?;
        }
        writeln!(out, "{:<27} {:>14} {:>16}", "State Table", "Total", "Rate")?;
        writeln!(out, "  {:<25} {:>14} {:>14}", "current entries", self.states, "")?;
        let c = &self.counters;
        for (name, counter) in [("searches", &c.searches), ("inserts", &c.inserts), ("removals", &c.removals)]
        {
            self.counter(out, name, counter)?;
        }
        writeln!(out, "Counters")?;
        let reasons = [
            ("match", &c.matched),
            ("fragment", &c.fragment),
            ("short", &c.short),
            ("normalize", &c.normalize),
            ("ip-option", &c.ip_option),
            ("state-mismatch", &c.state_mismatch),
            ("state-insert", &c.state_insert),
            ("state-limit", &c.state_limit),
            ("endpoint-limit", &c.endpoint_limit),
        ];
        reasons.into_iter().try_for_each(|(name, counter)| self.counter(out, name, counter))?;
        self.syncookies.map_or(Ok(()), |(when, now)| self.write_cookies(out, when, now))
    }

    fn write_cookies(&self, out: &mut String, when: Syncookies, now: CookieInfo) -> std::fmt::Result {
        writeln!(out, "Syncookies")?;
        writeln!(out, "  {:<25} {}", "mode", when.keyword())?;
        writeln!(out, "  {:<25} {}", "active", if now.active { "active" } else { "inactive" })?;
        if let Syncookies::Adaptive { start, end } = when {
            writeln!(out, "  {:<25} {start} %", "highwater")?;
            writeln!(out, "  {:<25} {end} %", "lowwater")?;
            writeln!(out, "  {:<25} {:>14}", "half-open states", now.half_open)?;
        }
        let c = &self.counters;
        self.counter(out, "synfloods detected", &c.synfloods)?;
        self.counter(out, "syncookies sent", &c.syncookies_sent)?;
        self.counter(out, "syncookies validated", &c.syncookies_valid)?;
        self.counter(out, "syncookies invalid", &c.syncookies_invalid)
    }

    fn counter(&self, out: &mut String, name: &str, counter: &Counter) -> std::fmt::Result {
        let total = counter.get();
        write!(out, "  {name:<25} {total:>14} ")?;
        if self.since > 0 {
            writeln!(out, "{:>14.1}/s", total as f64 / self.since as f64)
        } else {
            writeln!(out, "{:>14}", "")
        }
    }

    /// Every counter by its name, for JSON.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counters.iter().map(|(description, value)| (description.name, value))
    }
}

/// `pfctl -s queue`: the altq and queue lines.
pub fn queues(conf: &PfConf) -> Vec<String> {
    conf.altqs.iter().map(print::altq).chain(conf.queues.iter().map(print::queue)).collect()
}

/// `pfctl -s timeouts`: one a line, as pfctl aligns them.
pub fn timeouts(conf: &PfConf) -> Vec<String> {
    let line = |&t: &crate::timeout::Timeout| {
        let unit = if t.keyword().starts_with("adaptive") { "states" } else { "s" };
        match unit {
            "s" => format!("{:<20} {:>10}s", t.keyword(), conf.options.timeouts.get(t)),
            _ => format!("{:<20} {:>10} states", t.keyword(), conf.options.timeouts.get(t)),
        }
    };
    crate::timeout::Timeout::ALL.iter().map(line).collect()
}
