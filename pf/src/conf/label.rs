//! Macros in labels and tags: `$if $srcaddr $dstaddr $srcport $dstport $proto $nr`, filled in rule by rule.

use crate::{
    names, print,
    rule::{Peer, Ports, Rule},
};

/// The text with its macros filled in for a rule.
pub(crate) fn expand(text: &str, rule: &Rule, number: usize) -> String {
    if !text.contains('$') {
        return text.to_owned();
    }
    text.replace("$if", rule.on.as_ref().map_or("any", |on| &on.name))
        .replace("$srcaddr", &address(&rule.from))
        .replace("$dstaddr", &address(&rule.to))
        .replace("$srcport", &ports(rule.from.port))
        .replace("$dstport", &ports(rule.to.port))
        .replace("$proto", &protocol(rule.proto))
        .replace("$nr", &number.to_string())
}

fn address(peer: &Peer) -> String {
    let not = if peer.not { "! " } else { "" };
    format!("{not}{}", print::host(&peer.host))
}

fn protocol(proto: Option<u8>) -> String {
    match proto {
        None => "ip".to_owned(),
        Some(n) => names::protocol_name(n).map_or_else(|| n.to_string(), str::to_owned),
    }
}

/// As pfctl has it: numbers only, and nothing at all for `a:b`.
fn ports(ports: Option<Ports>) -> String {
    match ports {
        None | Some(Ports::Within(..)) => String::new(),
        Some(Ports::Equal(a)) => a.to_string(),
        Some(Ports::NotEqual(a)) => format!("!={a}"),
        Some(Ports::Less(a)) => format!("<{a}"),
        Some(Ports::LessEqual(a)) => format!("<={a}"),
        Some(Ports::Greater(a)) => format!(">{a}"),
        Some(Ports::GreaterEqual(a)) => format!(">={a}"),
        Some(Ports::Between(a, b)) => format!("{a}><{b}"),
        Some(Ports::Outside(a, b)) => format!("{a}<>{b}"),
    }
}
