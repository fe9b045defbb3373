//! Grammar of filter rules and of calls of anchors:
//!
//! ```text
//! pass|block|match [drop|return|return-rst|return-icmp...] [in|out] [log] [quick] [on IF] [route-to ...] [inet|inet6]
//!     [proto P] [all | from HOST [port P] [os NAME] to HOST [port P]] [options in any order]
//! anchor [NAME] [in|out] [quick] [on IF] [inet|inet6] [proto P] [from ... to ...] [options] [{ rules }]
//! ```

use super::{
    ast::{At, HostDef, HostWord, RuleDef},
    cursor::{Cursor, parse_number},
    error::{Fault, Parsed},
    host, icmp, option, pool, unsupported,
};
use crate::{
    addr::Family,
    env::Environment,
    rule::{Action, AnchorCall, Direction, Log, On, Reply},
};

/// A rule whose first word, `pass`, `block` or `match`, comes next.
pub(crate) fn rule(c: &mut Cursor, env: &Environment) -> Parsed<RuleDef> {
    let at = c.at();
    let mut rule = if c.accept("block") {
        let reply = block_word(c)?;
        let mut rule = RuleDef::new(at, Action::Block(reply.unwrap_or(Reply::Drop)));
        rule.by_policy = reply.is_none();
        rule
    } else if c.accept_noted("match") {
        RuleDef::new(at, Action::Match)
    } else {
        c.expect("pass")?;
        RuleDef::new(at, Action::Pass)
    };
    rule.rule.direction = direction(c);
    (rule.rule.log, rule.rule.quick) = log_quick(c)?;
    place(c, env, &mut rule)?;
    while !c.is_done() {
        option::option(c, env, &mut rule)?;
    }
    unsupported::note_sctp_ports(c, &rule);
    Ok(rule)
}

/// Interface, next hop, family, protocol and addresses.
pub(crate) fn place(c: &mut Cursor, env: &Environment, rule: &mut RuleDef) -> Parsed<()> {
    if c.accept("on") {
        rule.on = c.list(interface)?;
    }
    if pool::is_route(c) {
        pool::route(c, env, rule)?;
    }
    rule.rule.family = family(c);
    if c.accept("proto") {
        rule.proto = c.list(|c| protocol(c, env))?;
    }
    from_to(c, env, rule)
}

/// A call of an anchor; its first word comes next. The brace behind it, if any, is taken.
pub(crate) fn anchor(c: &mut Cursor, env: &Environment) -> Parsed<RuleDef> {
    let at = c.at();
    let word = c.word("`anchor`")?;
    let (action, keyword) = match word.value {
        "nat-anchor" => (Action::Nat, "nat-anchor"),
        "rdr-anchor" => (Action::Rdr, "rdr-anchor"),
        "binat-anchor" => (Action::Binat, "binat-anchor"),
        _ => (Action::Pass, "anchor"),
    };
    c.note(at, keyword);
    let mut rule = RuleDef::new(at, action);
    let name = anchor_name(c)?;
    if action == Action::Pass {
        rule.rule.direction = direction(c);
        rule.rule.quick = c.accept("quick");
    }
    place(c, env, &mut rule)?;
    while !c.is_done() && !c.is_sym("{") {
        let at = c.at();
        option::option(c, env, &mut rule)?;
        if rule.rule.once.is_some() {
            return Err(option::not_once(at));
        }
    }
    let inline = action == Action::Pass && c.accept_sym("{");
    rule.rule.anchor = Some(call(at, name, inline)?);
    Ok(rule)
}

/// The call itself; its path is found when it is known where the call stands.
pub(crate) fn call(at: super::Pos, name: Option<At<String>>, inline: bool) -> Parsed<AnchorCall> {
    let Some(name) = name else {
        return if inline {
            Ok(AnchorCall { name: String::new(), path: String::new(), wildcard: false, inline })
        } else {
            Err(Fault::new(at, "anchor without a name needs rules")
                .help("name it, or put rules in braces behind it"))
        };
    };
    let wildcard = name.value == "*" || name.value.ends_with("/*");
    if wildcard && inline {
        return Err(Fault::new(name.at, "a wildcard anchor has no rules of its own"));
    }
    Ok(AnchorCall { name: name.value, path: String::new(), wildcard, inline })
}

/// Words that cannot be the name of an anchor without quotes.
const NOT_NAMES: &[&str] = &[
    "in",
    "out",
    "quick",
    "on",
    "inet",
    "inet6",
    "proto",
    "all",
    "from",
    "to",
    "user",
    "group",
    "flags",
    "label",
    "icmp-type",
    "icmp6-type",
    "tos",
    "prio",
    "tag",
    "tagged",
    "probability",
    "received-on",
    "rtable",
    "ridentifier",
    "queue",
    "allow-opts",
    "fragment",
    "keep",
    "max-pkt-rate",
    "max-pkt-size",
    "modulate",
    "no",
    "once",
    "scrub",
    "set",
    "synproxy",
];

/// The name behind `anchor`, if there is one.
pub(crate) fn anchor_name(c: &mut Cursor) -> Parsed<Option<At<String>>> {
    if c.is_done() || c.is_sym("{") || c.is_sym("!") || c.peek_word().is_some_and(|w| NOT_NAMES.contains(&w))
    {
        return Ok(None);
    }
    let name = c.string("the name of an anchor")?;
    let path = name.value.trim_start_matches('/');
    if path.is_empty() || path.split('/').any(|part| part.is_empty() || part.starts_with('_')) {
        return Err(Fault::new(name.at, format!("`{}` is no name for an anchor", name.value))
            .help("as in ftp-proxy/*, and no part of it begins with _"));
    }
    if name.value.len() > 1023 {
        return Err(Fault::new(name.at, "anchor name too long, at most 1023 characters"));
    }
    Ok(Some(At::new(name.at, name.value.to_owned())))
}

pub(crate) fn direction(c: &mut Cursor) -> Option<Direction> {
    if c.accept("in") {
        Some(Direction::In)
    } else if c.accept("out") {
        Some(Direction::Out)
    } else {
        None
    }
}

pub(crate) fn family(c: &mut Cursor) -> Option<Family> {
    if c.accept("inet") {
        Some(Family::Inet)
    } else if c.accept("inet6") {
        Some(Family::Inet6)
    } else {
        None
    }
}

fn block_word(c: &mut Cursor) -> Parsed<Option<Reply>> {
    let port_unreachable = Reply::Icmp { inet: 3, inet6: 4 };
    Ok(Some(if c.accept("drop") {
        Reply::Drop
    } else if c.accept("return") {
        Reply::Return
    } else if c.accept("return-rst") {
        Reply::Rst { ttl: return_ttl(c)? }
    } else if c.accept("return-icmp") {
        if !c.accept_sym("(") {
            return Ok(Some(port_unreachable));
        }
        let inet = unreachable_code(c, Family::Inet)?;
        let inet6 = if c.accept_sym(",") { unreachable_code(c, Family::Inet6)? } else { 4 };
        c.expect_sym(")")?;
        Reply::Icmp { inet, inet6 }
    } else if c.accept("return-icmp6") {
        if !c.accept_sym("(") {
            return Ok(Some(port_unreachable));
        }
        let inet6 = unreachable_code(c, Family::Inet6)?;
        c.expect_sym(")")?;
        Reply::Icmp { inet: 3, inet6 }
    } else {
        return Ok(None);
    }))
}

/// `(ttl n)`, or nothing.
fn return_ttl(c: &mut Cursor) -> Parsed<u8> {
    if !c.accept_sym("(") {
        return Ok(0);
    }
    c.expect("ttl")?;
    let ttl = c.number::<u8>("a time to live")?.value;
    c.expect_sym(")")?;
    Ok(ttl)
}

fn unreachable_code(c: &mut Cursor, family: Family) -> Parsed<u8> {
    let kind = if family == Family::Inet { 3 } else { 1 };
    icmp::code(c, family, kind)
}

pub(crate) fn log_quick(c: &mut Cursor) -> Parsed<(Option<Log>, bool)> {
    let (mut log, mut quick) = (None, false);
    loop {
        if c.accept("quick") {
            quick = true;
        } else if let Some(options) = log_word(c)? {
            log = Some(options);
        } else {
            return Ok((log, quick));
        }
    }
}

/// `log (all, to pflog1)`, or nothing.
pub(crate) fn log_word(c: &mut Cursor) -> Parsed<Option<Log>> {
    if !c.accept("log") {
        return Ok(None);
    }
    let mut log = Log::default();
    if !c.is_sym("(") {
        return Ok(Some(log));
    }
    c.parenthesised(|c| {
        let word = c.word("`all`, `matches`, `user` or `to pflogN`")?;
        match word.value {
            "all" => log.all = true,
            "matches" => {
                log.matches = true;
                c.note(word.at, "log (matches)");
            }
            "user" => log.user = true,
            "to" => log.to = pflog_number(c)?,
            other => {
                return Err(Fault::new(word.at, format!("unknown log option `{other}`"))
                    .help("there are all, matches, user and to pflogN"));
            }
        }
        Ok(())
    })?;
    Ok(Some(log))
}

fn pflog_number(c: &mut Cursor) -> Parsed<u8> {
    let word = c.string("the name of a pflog interface")?;
    let number = word.value.strip_prefix("pflog").and_then(|n| n.parse().ok());
    number.ok_or_else(|| {
        Fault::new(word.at, format!("`{}` is not a pflog interface", word.value)).help("as in pflog0")
    })
}

pub(crate) fn interface(c: &mut Cursor) -> Parsed<At<On>> {
    let at = c.at();
    let not = c.accept_sym("!");
    if c.is_word("rdomain") {
        return Err(Fault::unsupported(at, "rdomain", "there is one routing domain"));
    }
    let name = c.string("the name of an interface")?.value.to_owned();
    Ok(At::new(at, On { not, name }))
}

pub(crate) fn protocol(c: &mut Cursor, env: &Environment) -> Parsed<At<u8>> {
    let word = c.string("a protocol")?;
    let number = match parse_number(word.value) {
        Some(n) => u8::try_from(n).ok(),
        None => env.protocol(word.value),
    };
    match number {
        Some(0) => {
            Err(Fault::new(word.at, "protocol 0 cannot be filtered")
                .help("leave proto away for all protocols"))
        }
        Some(n) => Ok(At::new(word.at, n)),
        None => Err(Fault::new(word.at, format!("unknown protocol `{}`", word.value))
            .help("a number from 1 to 255, or a name as tcp, udp, icmp, ipv6-icmp, esp")),
    }
}

fn from_to(c: &mut Cursor, env: &Environment, rule: &mut RuleDef) -> Parsed<()> {
    if c.accept("all") {
        return Ok(());
    }
    if c.accept("from") {
        (rule.from, rule.from_port) = peer(c, env)?;
    }
    if c.accept("os") {
        rule.os = c.list(|c| {
            let name = c.string("the name of an operating system")?;
            Ok(At::new(name.at, name.value.to_owned()))
        })?;
    }
    if c.accept("to") {
        (rule.to, rule.to_port) = peer(c, env)?;
        let back = rule.to.iter().find(|host| matches!(host.what, HostWord::UrpfFailed));
        if let Some(host) = back {
            return Err(Fault::new(host.at, "\"urpf-failed\" is not permitted in a destination address")
                .help("it is about where a source sends from"));
        }
    }
    Ok(())
}

pub(crate) fn peer(c: &mut Cursor, env: &Environment) -> Parsed<(Vec<HostDef>, Vec<At<crate::rule::Ports>>)> {
    let hosts = if c.is_word("port") { Vec::new() } else { host::hosts(c)? };
    let ports = if c.accept("port") { host::ports(c, env)? } else { Vec::new() };
    Ok((hosts, ports))
}
