//! `pfctl -s rules` and `-s nat`: with `-v` the counters below each rule, with `-vv` its number before it; with either, rules that were
//! for one packet and have had it. The rules of an
//! anchor stand in braces behind its call; pfctl sets them off only where no counters stand between.

use crate::control::{pf::RulesReport, proto::RuleReport};
use std::fmt::{self, Write};

/// The rules as pfctl prints them.
pub(super) fn text(report: &RulesReport, verbose: u8) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = Printer { report, verbose }.rules(&mut out, &report.rules, 0);
    out
}

struct Printer<'a> {
    report: &'a RulesReport,
    verbose: u8,
}

impl Printer<'_> {
    fn rules(&self, out: &mut String, rules: &[RuleReport], depth: usize) -> fmt::Result {
        let indent = if self.verbose > 0 { 0 } else { 2 * depth };
        for rule in rules.iter().filter(|rule| self.verbose > 0 || !rule.expired) {
            write!(out, "{:indent$}", "")?;
            if let Some(number) = rule.number.filter(|_| self.verbose > 1) {
                write!(out, "@{number} ")?;
            }
            out.write_str(&rule.text)?;
            out.write_str(if rule.inside.is_some() { " {\n" } else { "\n" })?;
            self.counters(out, rule)?;
            if let Some(inside) = &rule.inside {
                self.rules(out, inside, depth + 1)?;
                writeln!(out, "{:indent$}}}", "")?;
            }
        }
        Ok(())
    }

    fn counters(&self, out: &mut String, rule: &RuleReport) -> fmt::Result {
        let Some(c) = rule.counted.as_ref().filter(|_| self.verbose > 0) else { return Ok(()) };
        writeln!(
            out,
            "  [ Evaluations: {:<8}  Packets: {:<8}  Bytes: {:<10}  States: {:<6}]",
            c.evaluations, c.packets, c.bytes, c.states
        )?;
        let RulesReport { uid, pid, .. } = self.report;
        writeln!(out, "  [ Inserted: uid {uid} pid {pid} State Creations: {:<6}]", c.created)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::RuleCounters;

    fn rule(number: u32, text: &str) -> RuleReport {
        let counted = RuleCounters { evaluations: 12, packets: 5, bytes: 420, states: 1, created: 2 };
        RuleReport {
            number: Some(number),
            text: text.into(),
            counted: Some(counted),
            ..RuleReport::default()
        }
    }

    #[test]
    fn counters_come_with_v_and_numbers_with_vv() {
        let report = RulesReport { uid: 0, pid: 7, rules: vec![rule(3, "pass out all")] };
        assert_eq!(text(&report, 0), "pass out all\n");
        let counters = "  [ Evaluations: 12        Packets: 5         Bytes: 420         States: 1     ]\n  \
                        [ Inserted: uid 0 pid 7 State Creations: 2     ]\n";
        assert_eq!(text(&report, 1), format!("pass out all\n{counters}"));
        assert_eq!(text(&report, 2), format!("@3 pass out all\n{counters}"));
    }

    #[test]
    fn a_rule_that_has_had_its_packet_is_shown_with_v_only() {
        let spent = RuleReport { expired: true, ..rule(0, "pass in all once # expired") };
        let report = RulesReport { rules: vec![spent, rule(1, "pass out all")], ..RulesReport::default() };
        assert_eq!(text(&report, 0), "pass out all\n");
        assert!(text(&report, 1).starts_with("pass in all once # expired\n"));
    }

    #[test]
    fn what_an_anchor_holds_stands_in_braces() {
        let deep = RuleReport {
            text: "anchor \"b\" all".into(),
            inside: Some(vec![rule(0, "pass all")]),
            ..RuleReport::default()
        };
        let call = RuleReport { inside: Some(vec![deep]), counted: None, ..rule(0, "anchor \"a/*\" all") };
        let report = RulesReport { rules: vec![call], ..RulesReport::default() };
        let lines = "anchor \"a/*\" all {\n  anchor \"b\" all {\n    pass all\n  }\n}\n";
        assert_eq!(text(&report, 0), lines);
        assert!(
            text(&report, 1).contains("\npass all\n  [ Evaluations"),
            "no room is left before counted rules"
        );
    }
}
