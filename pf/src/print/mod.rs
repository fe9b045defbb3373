//! A configuration back to text, as pfctl prints it. What is printed parses to itself.

mod altq;
pub(crate) mod ether;
mod pool;
mod rule;

use std::fmt::Write;

pub use altq::{altq, bandwidth, queue};
pub use ether::ether;
pub use rule::rule;
pub(crate) use rule::{host, quoted};

use crate::{
    addr::Entry,
    conf::{PfConf, Table},
    env::Environment,
    limiter::Limiter,
    rule::{Action, AnchorCall, Keep, Peer, PoolPorts, Rule, Rules},
};

/// The whole configuration: what is printed parses to it.
pub fn conf(conf: &PfConf, env: &Environment) -> String {
    let mut out = String::new();
    for line in &conf.preamble {
        out.push_str(line);
        out.push('\n');
    }
    rules(&mut out, conf, &conf.rules, env, 0);
    out
}

/// The whole configuration as `pfctl -nv` lists it.
///
/// It differs from [`conf`] in one thing. FreeBSD's own expectation for a file with `rdr ... proto tcp from any to any ->
/// host port n` (its parser test for problem report 231323) does not list that rule. It is left out of the listing alone;
/// it is loaded, counted and shown as any other.
pub fn listing(conf: &PfConf, env: &Environment) -> String {
    let mut shown = conf.clone();
    shown.rules.rdr.retain(|r| !is_unlisted(r));
    self::conf(&shown, env)
}

/// A redirection of all addresses and all ports to one port.
fn is_unlisted(rule: &Rule) -> bool {
    rule.action == Action::Rdr
        && rule.anchor.is_none()
        && rule.proto.is_some()
        && (&rule.from, &rule.to) == (&Peer::default(), &Peer::default())
        && rule.rdr.as_ref().is_some_and(|pool| pool.ports != PoolPorts::Default)
}

/// What an anchor holds, in the same way; nothing if the configuration does not fill it.
pub fn anchor(conf: &PfConf, path: &str, env: &Environment) -> String {
    let mut out = String::new();
    contents(&mut out, conf, path, env, 0);
    out
}

fn contents(out: &mut String, conf: &PfConf, path: &str, env: &Environment, depth: usize) {
    let Some(anchor) = conf.anchors.iter().find(|a| a.path == path) else { return };
    for line in &anchor.preamble {
        line_at(out, depth, line);
    }
    rules(out, conf, &anchor.rules, env, depth);
}

fn rules(out: &mut String, conf: &PfConf, list: &Rules, env: &Environment, depth: usize) {
    for r in &list.ether {
        line_at(out, depth, &ether(r));
        inline(out, conf, r.anchor.as_ref(), env, depth);
    }
    for r in list.all() {
        line_at(out, depth, &rule(r, env));
        inline(out, conf, r.anchor.as_ref(), env, depth);
    }
}

fn line_at(out: &mut String, depth: usize, line: &str) {
    for _ in 0..depth {
        out.push_str("  ");
    }
    out.push_str(line);
    out.push('\n');
}

/// The rules in the braces behind a call.
fn inline(out: &mut String, conf: &PfConf, call: Option<&AnchorCall>, env: &Environment, depth: usize) {
    let Some(call) = call.filter(|c| c.inline) else { return };
    out.pop();
    out.push_str(" {\n");
    contents(out, conf, &call.path, env, depth + 1);
    line_at(out, depth, "}");
}

/// ` "name"`, or nothing for an anchor without a name.
fn anchor_name(call: &AnchorCall) -> String {
    if call.name.is_empty() { String::new() } else { format!(" {}", quoted(&call.name)) }
}

/// A part of a table as it stands in a file.
pub enum TablePart {
    /// A list.
    List(Vec<Entry>),
    /// A file of more.
    File(String),
}

/// `table <t> const { 10.0.0.0/8 !10.1.2.3 } file "more"`
pub fn table(table: &Table, parts: &[TablePart]) -> String {
    let mut out = format!("table <{}>", table.name);
    for (set, word) in [(table.constant, "const"), (table.persist, "persist"), (table.counters, "counters")] {
        if set {
            let _ = write!(out, " {word}");
        }
    }
    let mut in_list = false;
    for part in parts {
        match part {
            TablePart::List(entries) => {
                // Lists that follow each other are one.
                if !in_list {
                    out.push_str(" {");
                }
                in_list = true;
                for entry in entries {
                    let _ = write!(out, " {}{}", if entry.not { "!" } else { "" }, entry.prefix);
                }
            }
            TablePart::File(name) => {
                if in_list {
                    out.push_str(" }");
                }
                in_list = false;
                let _ = write!(out, " file {}", quoted(name));
            }
        }
    }
    if in_list {
        out.push_str(" }");
    }
    out
}

/// `state limiter dns id 1 limit 1000 rate 1/10`
pub fn limiter(l: &Limiter) -> String {
    let kind = if l.by_source { "source" } else { "state" };
    let mut out = format!("{kind} limiter {} id {}", rule::word(&l.name), l.id);
    if l.entries != 0 {
        let _ = write!(out, " entries {}", l.entries);
    }
    let _ = write!(out, " limit {}", l.limit);
    if let Some(rate) = l.rate {
        let _ = write!(out, " rate {}/{}", rate.limit, rate.seconds);
    }
    for (mask, word) in [(l.inet_mask, "inet"), (l.inet6_mask, "inet6")] {
        if let Some(mask) = mask {
            let _ = write!(out, " {word} mask {mask}");
        }
    }
    if let Some(table) = &l.table {
        let _ = write!(out, " table <{}> above {}", table.name, table.above);
        if table.below != 0 {
            let _ = write!(out, " below {}", table.below);
        }
    }
    out
}

/// `state-defaults no-sync, if-bound`
pub(crate) fn state_defaults(keep: &Keep, bound: Option<bool>, tracked: bool) -> String {
    let mut words = rule::state_words(keep, tracked);
    words.extend(bound.map(|bound| if bound { "if-bound" } else { "floating" }.to_owned()));
    format!("state-defaults {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, arbitrary, arbitrary_full};
    use proptest::prelude::*;

    const QUEUES: &str =
        "altq on lan0 priq bandwidth 1Mb queue { a b }\nqueue a priq(default)\nqueue b priority 3\n";

    /// Cases of a property that has `of` thousand in a thorough run.
    fn cases(few: u32) -> ProptestConfig {
        ProptestConfig::with_cases(if std::env::var_os("SOFTNET_SOAK").is_some() { 1_000_000 } else { few })
    }

    fn read(text: &str, env: &Environment) -> Result<PfConf, TestCaseError> {
        let again = crate::conf::parse_text("printed", &format!("{QUEUES}{text}\n"), env, &[]);
        again.map_err(|e| TestCaseError::fail(format!("{text}\n{}", e[0].with_caret())))
    }

    proptest! {
        #![proptest_config(cases(1000))]

        #[test]
        fn what_is_printed_of_a_rule_that_has_an_engine_is_read_as_that_rule(r in arbitrary::rule()) {
            let env = Environment::default();
            let text = rule(&r, &env);
            prop_assert_eq!(&read(&text, &env)?.rules.filter, &[r], "{}", text);
        }

        #[test]
        fn what_is_printed_of_a_translation_or_scrub_rule_is_read_as_that_rule(r in arbitrary_full::other()) {
            let env = Environment::default();
            let text = rule(&r, &env);
            let again = read(&text, &env)?;
            prop_assert_eq!(again.rules.all().collect::<Vec<_>>(), [&r], "{}", text);
        }
    }

    proptest! {
        #![proptest_config(cases(3000))]

        #[test]
        fn what_is_printed_of_any_filter_rule_is_read_as_that_rule(r in arbitrary_full::filter()) {
            let env = Environment::default();
            let text = rule(&r, &env);
            prop_assert_eq!(&read(&text, &env)?.rules.filter, &[r], "{}", text);
        }
    }
}
