//! A configuration back to text, as pfctl prints it. What is printed parses to itself.

use std::fmt::{self, Write};

use crate::{
    addr::Family,
    conf::{AltqSpec, Bandwidth, PfConf, QueueOptions, QueueSpec, Scheduler, ServiceCurve, Table},
    env::Environment,
    names,
    rule::{Action, Dynamic, FLAG_LETTERS, Host, Keep, Peer, Ports, Reply, Rule, TcpFlags},
};

/// The whole configuration, as `pfctl -nv` prints it.
pub fn conf(conf: &PfConf, env: &Environment) -> String {
    let mut out = String::new();
    for line in &conf.preamble {
        out.push_str(line);
        out.push('\n');
    }
    for r in &conf.rules {
        out.push_str(&rule(r, env));
        out.push('\n');
    }
    out
}

/// A rule on one line, without the end of the line.
pub fn rule(rule: &Rule, env: &Environment) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = RulePrinter { rule, env }.write(&mut out);
    out
}

struct RulePrinter<'a> {
    rule: &'a Rule,
    env: &'a Environment,
}

impl RulePrinter<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        let rule = self.rule;
        match rule.action {
            Action::Pass => out.write_str("pass")?,
            Action::Block(reply) => self.block(out, reply)?,
        }
        if let Some(direction) = rule.direction {
            write!(out, " {}", direction.keyword())?;
        }
        self.log_quick(out)?;
        if let Some(on) = &rule.on {
            write!(out, " on {}{}", if on.not { "! " } else { "" }, on.name)?;
        }
        if let Some(family) = rule.family {
            write!(out, " {}", family.keyword())?;
        }
        if let Some(proto) = rule.proto {
            match names::protocol_name(proto) {
                Some(name) => write!(out, " proto {name}")?,
                None => write!(out, " proto {proto}")?,
            }
        }
        self.peers(out)?;
        self.matchers(out)?;
        self.state(out)?;
        self.rest(out)
    }

    fn block(&self, out: &mut String, reply: Reply) -> fmt::Result {
        out.write_str("block ")?;
        match reply {
            Reply::Drop => out.write_str("drop"),
            Reply::Return => out.write_str("return"),
            Reply::Rst { ttl: 0 } => out.write_str("return-rst"),
            Reply::Rst { ttl } => write!(out, "return-rst(ttl {ttl})"),
            Reply::Icmp { inet, inet6 } => {
                let v4 = code_name(Family::Inet, 3, inet);
                let v6 = code_name(Family::Inet6, 1, inet6);
                match self.rule.family {
                    Some(Family::Inet) => write!(out, "return-icmp({v4})"),
                    Some(Family::Inet6) => write!(out, "return-icmp6({v6})"),
                    None => write!(out, "return-icmp({v4}, {v6})"),
                }
            }
        }
    }

    fn log_quick(&self, out: &mut String) -> fmt::Result {
        if let Some(log) = self.rule.log {
            out.write_str(" log")?;
            match (log.all, log.to) {
                (false, 0) => {}
                (true, 0) => out.write_str(" (all)")?,
                (false, n) => write!(out, " (to pflog{n})")?,
                (true, n) => write!(out, " (all, to pflog{n})")?,
            }
        }
        if self.rule.quick { out.write_str(" quick") } else { Ok(()) }
    }

    fn peers(&self, out: &mut String) -> fmt::Result {
        let (from, to) = (&self.rule.from, &self.rule.to);
        if from == &Peer::default() && to == &Peer::default() {
            return out.write_str(" all");
        }
        for (word, peer) in [("from", from), ("to", to)] {
            write!(out, " {word} {}{}", if peer.not { "! " } else { "" }, host(&peer.host))?;
            if let Some(port) = peer.port {
                self.ports(out, port)?;
            }
        }
        Ok(())
    }

    fn ports(&self, out: &mut String, ports: Ports) -> fmt::Result {
        let name = |port: u16| {
            let name = self.env.service_name(port, self.rule.proto);
            name.map_or_else(|| port.to_string(), str::to_owned)
        };
        match ports {
            Ports::Equal(a) => write!(out, " port = {}", name(a)),
            Ports::NotEqual(a) => write!(out, " port != {}", name(a)),
            Ports::Less(a) => write!(out, " port < {a}"),
            Ports::LessEqual(a) => write!(out, " port <= {a}"),
            Ports::Greater(a) => write!(out, " port > {a}"),
            Ports::GreaterEqual(a) => write!(out, " port >= {a}"),
            Ports::Within(a, b) => write!(out, " port {a}:{b}"),
            Ports::Between(a, b) => write!(out, " port {a} >< {b}"),
            Ports::Outside(a, b) => write!(out, " port {a} <> {b}"),
        }
    }

    fn matchers(&self, out: &mut String) -> fmt::Result {
        let rule = self.rule;
        match rule.flags {
            Some(TcpFlags { set, mask }) => write!(out, " flags {}/{}", letters(set), letters(mask))?,
            None if rule.says_flags_any() => out.write_str(" flags any")?,
            None => {}
        }
        if let Some(icmp) = rule.icmp {
            let family = rule.family.unwrap_or(Family::Inet);
            let word = if family == Family::Inet { "icmp-type" } else { "icmp6-type" };
            match names::icmp_type_name(family, icmp.kind) {
                Some(name) => write!(out, " {word} {name}")?,
                None => write!(out, " {word} {}", icmp.kind)?,
            }
            if let Some(code) = icmp.code {
                write!(out, " code {}", code_name(family, icmp.kind, code))?;
            }
        }
        match rule.tos {
            Some(tos) => write!(out, " tos 0x{tos:02x}"),
            None => Ok(()),
        }
    }

    fn state(&self, out: &mut String) -> fmt::Result {
        match (&self.rule.keep, self.rule.action) {
            (Some(keep), _) => {
                out.write_str(" keep state")?;
                state_options(out, keep)
            }
            (None, Action::Pass) => out.write_str(" no state"),
            (None, Action::Block(_)) => Ok(()),
        }
    }

    fn rest(&self, out: &mut String) -> fmt::Result {
        let rule = self.rule;
        if rule.fragment {
            out.write_str(" fragment")?;
        }
        if rule.allow_opts {
            out.write_str(" allow-opts")?;
        }
        for label in &rule.labels {
            write!(out, " label \"{label}\"")?;
        }
        if let Some(queue) = &rule.queue {
            match &queue.low_delay {
                Some(second) => write!(out, " queue({}, {second})", queue.name)?,
                None => write!(out, " queue {}", queue.name)?,
            }
        }
        if let Some(tag) = &rule.tag {
            write!(out, " tag {tag}")?;
        }
        match &rule.tagged {
            Some(t) => write!(out, " {}tagged {}", if t.not { "! " } else { "" }, t.name),
            None => Ok(()),
        }
    }
}

impl Rule {
    /// Whether it must say `flags any`, since without it would be read as `flags S/SA`.
    fn says_flags_any(&self) -> bool {
        self.keep.is_some() && self.proto.is_none_or(|p| p == 6) && !self.fragment
    }
}

fn state_options(out: &mut String, keep: &Keep) -> fmt::Result {
    let mut options = Vec::new();
    if keep.max != 0 {
        options.push(format!("max {}", keep.max));
    }
    for (set, word) in [(keep.no_sync, "no-sync"), (keep.bound, "if-bound"), (keep.sloppy, "sloppy")] {
        if set {
            options.push(word.to_owned());
        }
    }
    options.extend(keep.timeouts.iter().map(|(t, seconds)| format!("{} {seconds}", t.keyword())));
    if options.is_empty() { Ok(()) } else { write!(out, " ({})", options.join(", ")) }
}

fn code_name(family: Family, kind: u8, code: u8) -> String {
    names::icmp_code_name(family, kind, code).map_or_else(|| code.to_string(), str::to_owned)
}

fn letters(flags: u8) -> String {
    FLAG_LETTERS
        .iter()
        .enumerate()
        .filter(|(bit, _)| flags >> bit & 1 != 0)
        .map(|(_, &l)| char::from(l))
        .collect()
}

/// An address as it stands in a rule.
pub(crate) fn host(host: &Host) -> String {
    match host {
        Host::Any => "any".to_owned(),
        Host::Prefix(p) => p.to_string(),
        Host::Range(a, b) => format!("{a} - {b}"),
        Host::Dynamic(d) => dynamic(d),
        Host::Table(name) => format!("<{name}>"),
    }
}

fn dynamic(d: &Dynamic) -> String {
    let alias = if d.no_alias { ":0" } else { "" };
    let len = d.len.map_or_else(String::new, |len| format!("/{len}"));
    format!("({}{}{alias}){len}", d.interface, d.part.suffix())
}

/// `table <t> const { 10.0.0.0/8 !10.1.2.3 }`
pub fn table(table: &Table, listed: bool) -> String {
    let mut out = format!("table <{}>", table.name);
    for (set, word) in [(table.constant, "const"), (table.persist, "persist"), (table.counters, "counters")] {
        if set {
            let _ = write!(out, " {word}");
        }
    }
    if listed {
        out.push_str(" {");
        for entry in &table.entries {
            let _ = write!(out, " {}{}", if entry.not { "!" } else { "" }, entry.prefix);
        }
        out.push_str(" }");
    }
    out
}

/// `altq on em0 priq bandwidth 100Kb tbrsize 1500 queue { a b }`
pub fn altq(spec: &AltqSpec) -> String {
    let mut out =
        format!("altq on {} {}{} ", spec.interface, spec.scheduler.keyword(), options(&spec.options));
    match spec.bandwidth.or(spec.speed.map(Bandwidth::Bits)) {
        Some(bw) if spec.scheduler != Scheduler::Codel => {
            let _ = write!(out, "bandwidth {} ", bandwidth(bw));
        }
        _ => {}
    }
    if let Some(limit) = spec.qlimit {
        let _ = write!(out, "qlimit {limit} ");
    }
    let _ = write!(out, "tbrsize {} ", spec.bucket());
    if !spec.queues.is_empty() {
        let _ = write!(out, "queue {{ {} }}", spec.queues.join(" "));
    }
    out
}

/// `queue a priority 4 priq( default ) `
pub fn queue(spec: &QueueSpec) -> String {
    let mut out = format!("queue {} ", spec.name);
    if let Some(on) = &spec.interface {
        let _ = write!(out, "on {on} ");
    }
    match spec.bandwidth {
        Some(bw) if bw != Bandwidth::Percent(100) => {
            let _ = write!(out, "bandwidth {} ", bandwidth(bw));
        }
        _ => {}
    }
    if let Some(priority) = spec.priority.filter(|&p| p != 1) {
        let _ = write!(out, "priority {priority} ");
    }
    if let Some(limit) = spec.qlimit {
        let _ = write!(out, "qlimit {limit} ");
    }
    if let Some(scheduler) = spec.scheduler {
        let _ = write!(out, "{}{} ", scheduler.keyword(), options(&spec.options));
    }
    if !spec.children.is_empty() {
        let _ = write!(out, "{{ {} }}", spec.children.join(", "));
    }
    out
}

/// A rate with the largest unit that leaves at least one before the point.
pub fn bandwidth(bandwidth: Bandwidth) -> String {
    let bits = match bandwidth {
        Bandwidth::Percent(p) => return format!("{p}%"),
        Bandwidth::Bits(bits) => bits,
    };
    let (factor, unit) = match bits {
        1_000_000_000.. => (1e9, "Gb"),
        1_000_000.. => (1e6, "Mb"),
        1000.. => (1e3, "Kb"),
        _ => (1.0, "b"),
    };
    let value = bits as f64 / factor;
    if value.fract() == 0.0 { format!("{value:.0}{unit}") } else { format!("{value:.2}{unit}") }
}

fn options(o: &QueueOptions) -> String {
    let mut words: Vec<String> = Vec::new();
    let flags = [
        (o.red && !o.ecn, "red"),
        (o.ecn, "ecn"),
        (o.rio, "rio"),
        (o.codel, "codel"),
        (o.cleardscp, "cleardscp"),
        (o.flowvalve, "flowvalve"),
        (o.borrow, "borrow"),
        (o.efficient, "efficient"),
        (o.default, "default"),
    ];
    words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, word)| (*word).to_owned()));
    let curves = [("realtime", o.realtime), ("linkshare", o.linkshare), ("upperlimit", o.upperlimit)];
    words.extend(curves.iter().filter_map(|(word, c)| c.map(|c| format!("{word} {}", curve(c)))));
    let numbers = [("buckets", o.buckets), ("target", o.target), ("interval", o.interval)];
    words.extend(numbers.iter().filter_map(|(word, n)| n.map(|n| format!("{word} {n}"))));
    words.extend(o.hogs.map(|bw| format!("hogs {}", bandwidth(bw))));
    if words.is_empty() { String::new() } else { format!("( {} )", words.join(" ")) }
}

fn curve(curve: ServiceCurve) -> String {
    match curve.first {
        None => bandwidth(curve.second),
        Some((m1, d)) => format!("({} {d} {})", bandwidth(m1), bandwidth(curve.second)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, arbitrary};
    use proptest::prelude::*;

    const QUEUES: &str =
        "altq on lan0 priq bandwidth 1Mb queue { a b }\nqueue a priq(default)\nqueue b priority 3\n";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("SOFTNET_SOAK").is_some() { 1_000_000 } else { 5000 }))]

        #[test]
        fn what_is_printed_of_a_rule_is_read_as_that_rule(r in arbitrary::rule()) {
            let env = Environment::default();
            let text = rule(&r, &env);
            let again = crate::conf::load_text("printed", &format!("{QUEUES}{text}\n"), &env, &[]);
            let again = again.map_err(|e| TestCaseError::fail(format!("{text}\n{}", e[0])))?;
            prop_assert_eq!(&again.rules, &[r], "{}", text);
        }
    }

    #[test]
    fn rates_have_the_largest_unit_and_no_decimals_without_need() {
        for (bits, text) in [(64, "64b"), (100_000, "100Kb"), (4_500_000, "4.50Mb"), (2_000_000_000, "2Gb")] {
            assert_eq!(bandwidth(Bandwidth::Bits(bits)), text);
        }
    }
}
