//! Rules back to text.

use std::fmt::{self, Write};

use super::{anchor_name, pool};
use crate::{
    addr::Family,
    env::Environment,
    names,
    rule::{
        Action, Divert, Dummynet, Dynamic, FLAG_LETTERS, Flush, Host, IdMatch, Keep, Peer, Ports, Reply,
        Rule, Scrub, SourceTrack, StateKind, TcpFlags, UNKNOWN_ID,
    },
};

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
        match &rule.anchor {
            Some(call) => write!(out, "{}{}", rule.action.anchor_keyword(), anchor_name(call))?,
            None => out.write_str(rule.action.keyword())?,
        }
        if rule.nat_pass {
            out.write_str(" pass")?;
        }
        if let Action::Block(reply) = rule.action {
            self.block(out, reply)?;
        }
        if let Some(direction) = rule.direction {
            write!(out, " {}", direction.keyword())?;
        }
        self.log_quick(out)?;
        if let Some(on) = &rule.on {
            write!(out, " on {}{}", if on.not { "! " } else { "" }, on.name)?;
        }
        if let Some(route) = &rule.route {
            pool::route(out, route)?;
        }
        if let Some(family) = rule.family {
            write!(out, " {}", family.keyword())?;
        }
        if let Some(proto) = rule.proto {
            match self.env.protocol_name(proto) {
                Some(name) => write!(out, " proto {name}")?,
                None => write!(out, " proto {proto}")?,
            }
        }
        self.peers(out)?;
        self.matchers(out)?;
        self.state(out)?;
        self.normalisation(out)?;
        self.rest(out)?;
        self.translation(out)
    }

    fn block(&self, out: &mut String, reply: Reply) -> fmt::Result {
        match reply {
            Reply::Drop => out.write_str(" drop"),
            Reply::Return => out.write_str(" return"),
            Reply::Rst { ttl: 0 } => out.write_str(" return-rst"),
            Reply::Rst { ttl } => write!(out, " return-rst(ttl {ttl})"),
            Reply::Icmp { inet, inet6 } => {
                let v4 = code_name(Family::Inet, 3, inet);
                let v6 = code_name(Family::Inet6, 1, inet6);
                match self.rule.family {
                    Some(Family::Inet) => write!(out, " return-icmp({v4})"),
                    Some(Family::Inet6) => write!(out, " return-icmp6({v6})"),
                    None => write!(out, " return-icmp({v4}, {v6})"),
                }
            }
        }
    }

    fn log_quick(&self, out: &mut String) -> fmt::Result {
        if let Some(log) = self.rule.log {
            let words = [(log.all, "all"), (log.matches, "matches"), (log.user, "user")];
            let mut words: Vec<String> =
                words.iter().filter(|(set, _)| *set).map(|(_, word)| (*word).to_owned()).collect();
            if log.to != 0 {
                words.push(format!("to pflog{}", log.to));
            }
            out.write_str(" log")?;
            if !words.is_empty() {
                write!(out, " ({})", words.join(", "))?;
            }
        }
        if self.rule.quick { out.write_str(" quick") } else { Ok(()) }
    }

    fn peers(&self, out: &mut String) -> fmt::Result {
        let (from, to) = (&self.rule.from, &self.rule.to);
        if from == &Peer::default() && to == &Peer::default() && self.rule.os.is_none() {
            return out.write_str(" all");
        }
        for (word, peer) in [("from", from), ("to", to)] {
            write!(out, " {word} {}{}", if peer.not { "! " } else { "" }, host(&peer.host))?;
            if let Some(port) = peer.port {
                self.ports(out, port)?;
            }
            if let Some(os) = self.rule.os.as_ref().filter(|_| word == "from") {
                write!(out, " os {}", quoted(os))?;
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
        if let Some(on) = &rule.received_on {
            write!(out, " received-on {}{}", if on.not { "! " } else { "" }, on.name)?;
        }
        for (word, id) in [("user", rule.user), ("group", rule.group)] {
            if let Some(id) = id {
                write!(out, " {word} {}", id_match(id))?;
            }
        }
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
        if let Some(tos) = rule.tos {
            write!(out, " tos 0x{tos:02x}")?;
        }
        if let Some(prio) = rule.prio {
            write!(out, " prio {prio}")?;
        }
        if let Some(rate) = rule.max_pkt_rate {
            write!(out, " max-pkt-rate {}/{}", rate.limit, rate.seconds)?;
        }
        if rule.max_pkt_size != 0 {
            write!(out, " max-pkt-size {}", rule.max_pkt_size)?;
        }
        match rule.set_prio {
            Some((a, b)) if a == b => write!(out, " set ( prio {a} )"),
            Some((a, b)) => write!(out, " set ( prio({a}, {b}) )"),
            None => Ok(()),
        }
    }

    fn state(&self, out: &mut String) -> fmt::Result {
        let rule = self.rule;
        match &rule.keep {
            Some(keep) => {
                out.write_str(match keep.kind {
                    StateKind::Keep => " keep state",
                    StateKind::Modulate => " modulate state",
                    StateKind::Synproxy => " synproxy state",
                })?;
                let words = state_words(keep, false);
                if !words.is_empty() {
                    write!(out, " ({})", words.join(", "))?;
                }
            }
            None if rule.action == Action::Pass && rule.anchor.is_none() => out.write_str(" no state")?,
            None => {}
        }
        if let Some(probability) = rule.probability {
            write!(out, " probability {}%", percent(probability))?;
        }
        for (limiter, word) in [(&rule.state_limiter, "state"), (&rule.source_limiter, "source")] {
            if let Some(l) = limiter {
                write!(out, " {word} limiter id {} ({})", l.id, if l.block { "block" } else { "no-match" })?;
            }
        }
        Ok(())
    }

    fn normalisation(&self, out: &mut String) -> fmt::Result {
        let rule = self.rule;
        if rule.fragment {
            out.write_str(" fragment")?;
        }
        let mut words = scrub_words(&rule.scrub);
        if matches!(rule.action, Action::Scrub | Action::NoScrub) {
            if rule.action == Action::Scrub {
                words.push(format!(
                    "fragment {}reassemble",
                    if rule.scrub.no_reassemble { "no " } else { "" }
                ));
            }
            for word in words {
                write!(out, " {word}")?;
            }
        } else if !words.is_empty() {
            write!(out, " scrub ({})", words.join(" "))?;
        }
        if rule.allow_opts { out.write_str(" allow-opts") } else { Ok(()) }
    }

    fn rest(&self, out: &mut String) -> fmt::Result {
        let rule = self.rule;
        for label in &rule.labels {
            write!(out, " label {}", quoted(label))?;
        }
        if rule.ridentifier != 0 {
            write!(out, " ridentifier {}", rule.ridentifier)?;
        }
        if rule.once.is_some() {
            out.write_str(" once")?;
        }
        if let Some(d) = rule.dummynet {
            dummynet(out, d)?;
        }
        if let Some(queue) = &rule.queue {
            match &queue.low_delay {
                Some(second) => write!(out, " queue({}, {second})", queue.name)?,
                None => write!(out, " queue {}", queue.name)?,
            }
        }
        if let Some(tag) = &rule.tag {
            write!(out, " tag {}", word(tag))?;
        }
        if let Some(t) = &rule.tagged {
            write!(out, " {}tagged {}", if t.not { "! " } else { "" }, word(&t.name))?;
        }
        if let Some(table) = rule.rtable {
            write!(out, " rtable {table}")?;
        }
        match rule.divert {
            Some(Divert::To(port)) => write!(out, " divert-to {port}"),
            Some(Divert::Reply) => out.write_str(" divert-reply"),
            None => Ok(()),
        }
    }

    fn translation(&self, out: &mut String) -> fmt::Result {
        let rule = self.rule;
        let old = matches!(rule.action, Action::Nat | Action::Rdr | Action::Binat);
        for (translation, word) in [(&rule.nat, "nat-to"), (&rule.rdr, "rdr-to")] {
            if let Some(to) = translation {
                write!(out, " {} ", if old { "->" } else { word })?;
                pool::pool(out, to)?;
            }
        }
        match &rule.af_to {
            Some(to) => pool::af_to(out, to),
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

/// A word as it is, or quoted if it would not be read as one.
pub(super) fn word(text: &str) -> String {
    let within = |c: char| c.is_alphanumeric() || (c.is_ascii_punctuation() && !"(){}<>!=/#,\\".contains(c));
    let plain = text.starts_with(|c: char| within(c) && !"\"'$-".contains(c)) && text.chars().all(within);
    if plain { text.to_owned() } else { quoted(text) }
}

/// A string in quotes. A quote inside, and a blank behind a backslash, has a backslash of its own when it is read.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        if c == '"' || (matches!(c, ' ' | '\t') && quoted.ends_with('\\')) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// A share of 2^32 in per cent, with as many decimals as it needs, at most six.
fn percent(of_all: u32) -> String {
    let text = format!("{:.6}", f64::from(of_all) * 100.0 / (f64::from(u32::MAX) + 1.0));
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// ` dnpipe 3`, ` dnqueue(3, 4)`
pub(super) fn dummynet(out: &mut String, d: Dummynet) -> fmt::Result {
    let word = if d.pipe { "dnpipe" } else { "dnqueue" };
    match d.reverse {
        Some(reverse) => write!(out, " {word}({}, {reverse})", d.number),
        None => write!(out, " {word} {}", d.number),
    }
}

fn scrub_words(scrub: &Scrub) -> Vec<String> {
    let mut words = Vec::new();
    for (set, word) in [(scrub.no_df, "no-df"), (scrub.random_id, "random-id")] {
        if set {
            words.push(word.to_owned());
        }
    }
    if scrub.min_ttl != 0 {
        words.push(format!("min-ttl {}", scrub.min_ttl));
    }
    if scrub.max_mss != 0 {
        words.push(format!("max-mss {}", scrub.max_mss));
    }
    words.extend(scrub.set_tos.map(|tos| format!("set-tos 0x{tos:02x}")));
    if scrub.reassemble_tcp {
        words.push("reassemble tcp".to_owned());
    }
    words
}

fn id_match(id: IdMatch) -> String {
    let name = |id: u32| if id == UNKNOWN_ID { "unknown".to_owned() } else { id.to_string() };
    match id {
        IdMatch::Equal(a) => format!("= {}", name(a)),
        IdMatch::NotEqual(a) => format!("!= {}", name(a)),
        IdMatch::Less(a) => format!("< {a}"),
        IdMatch::LessEqual(a) => format!("<= {a}"),
        IdMatch::Greater(a) => format!("> {a}"),
        IdMatch::GreaterEqual(a) => format!(">= {a}"),
        IdMatch::Within(a, b) => format!("{a}:{b}"),
        IdMatch::Between(a, b) => format!("{a} >< {b}"),
        IdMatch::Outside(a, b) => format!("{a} <> {b}"),
    }
}

/// The options of `keep state`; `tracked` if `source-track` stands there without a word behind it.
pub(super) fn state_words(keep: &Keep, tracked: bool) -> Vec<String> {
    let mut words = Vec::new();
    let number = |words: &mut Vec<String>, n: u32, word: &str| {
        if n != 0 {
            words.push(format!("{word} {n}"));
        }
    };
    number(&mut words, keep.max, "max");
    if keep.no_sync {
        words.push("no-sync".to_owned());
    }
    match keep.track {
        Some(SourceTrack::Global) => words.push("source-track global".to_owned()),
        Some(SourceTrack::Rule) => words.push("source-track rule".to_owned()),
        None if tracked => words.push("source-track".to_owned()),
        None => {}
    }
    number(&mut words, keep.max_src_states, "max-src-states");
    number(&mut words, keep.max_src_conn, "max-src-conn");
    words.extend(keep.max_src_conn_rate.map(|r| format!("max-src-conn-rate {}/{}", r.limit, r.seconds)));
    number(&mut words, keep.max_src_nodes, "max-src-nodes");
    if let Some(overload) = &keep.overload {
        let flush = match overload.flush {
            None => "",
            Some(Flush::Rule) => " flush",
            Some(Flush::Global) => " flush global",
        };
        words.push(format!("overload <{}>{flush}", overload.table));
    }
    for (set, word) in [
        (keep.bound, "if-bound"),
        (keep.sloppy, "sloppy"),
        (keep.pflow, "pflow"),
        (keep.allow_related, "allow-related"),
    ] {
        if set {
            words.push(word.to_owned());
        }
    }
    words.extend(keep.timeouts.iter().map(|(t, seconds)| format!("{} {seconds}", t.keyword())));
    words
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
        Host::NoRoute => "no-route".to_owned(),
        Host::UrpfFailed => "urpf-failed".to_owned(),
    }
}

fn dynamic(d: &Dynamic) -> String {
    let alias = if d.no_alias { ":0" } else { "" };
    let len = d.len.map_or_else(String::new, |len| format!("/{len}"));
    format!("({}{}{alias}){len}", d.interface, d.part.suffix())
}
