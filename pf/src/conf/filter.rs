//! Grammar of filter rules:
//!
//! ```text
//! pass|block [drop|return|return-rst|return-icmp...] [in|out] [log] [quick] [on IF] [inet|inet6] [proto P]
//!     [all | from HOST [port P] to HOST [port P]] [options in any order]
//! ```

use super::{
    ast::{At, BlockWord, HostDef, IcmpDef, KeepDef, RuleDef, StateWord},
    cursor::{Cursor, parse_number},
    error::{Fault, Parsed, Pos},
    host,
    lex::Tok,
    unsupported,
};
use crate::{
    addr::Family,
    env::Environment,
    names,
    rule::{Direction, FLAG_LETTERS, Log, On, QueueRef, Reply, Tagged, TcpFlags},
    timeout::Timeout,
};

/// A rule whose first word, `pass` or `block`, comes next.
pub(crate) fn rule(c: &mut Cursor, env: &Environment) -> Parsed<RuleDef> {
    let at = c.at();
    let mut rule = RuleDef::new(at);
    if c.accept("block") {
        rule.block = Some(block_word(c)?);
    } else {
        c.expect("pass")?;
    }
    rule.direction = direction(c);
    (rule.log, rule.quick) = log_quick(c)?;
    if c.accept("on") {
        rule.on = c.list(interface)?;
    }
    unsupported::route(c)?;
    rule.family = family(c);
    if c.accept("proto") {
        rule.proto = c.list(protocol)?;
    }
    from_to(c, env, &mut rule)?;
    while !c.is_done() && !matches!(c.peek(), Some(Tok::Newline | Tok::Sym("}"))) {
        option(c, env, &mut rule)?;
    }
    c.finish()?;
    Ok(rule)
}

impl RuleDef {
    pub(crate) const fn new(at: Pos) -> RuleDef {
        RuleDef {
            at,
            block: None,
            direction: None,
            log: None,
            quick: false,
            on: Vec::new(),
            family: None,
            proto: Vec::new(),
            from: Vec::new(),
            from_port: Vec::new(),
            to: Vec::new(),
            to_port: Vec::new(),
            flags: None,
            icmp: Vec::new(),
            tos: None,
            state: None,
            fragment: None,
            allow_opts: None,
            labels: Vec::new(),
            queue: None,
            tag: None,
            tagged: None,
        }
    }
}

fn direction(c: &mut Cursor) -> Option<Direction> {
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

fn block_word(c: &mut Cursor) -> Parsed<BlockWord> {
    let port_unreachable = Reply::Icmp { inet: 3, inet6: 4 };
    Ok(if c.accept("drop") {
        BlockWord::Reply(Reply::Drop)
    } else if c.accept("return") {
        BlockWord::Reply(Reply::Return)
    } else if c.accept("return-rst") {
        BlockWord::Reply(Reply::Rst { ttl: return_ttl(c)? })
    } else if c.accept("return-icmp") {
        if !c.accept_sym("(") {
            return Ok(BlockWord::Reply(port_unreachable));
        }
        let inet = unreachable_code(c, Family::Inet)?;
        let inet6 = if c.accept_sym(",") { unreachable_code(c, Family::Inet6)? } else { 4 };
        c.expect_sym(")")?;
        BlockWord::Reply(Reply::Icmp { inet, inet6 })
    } else if c.accept("return-icmp6") {
        if !c.accept_sym("(") {
            return Ok(BlockWord::Reply(port_unreachable));
        }
        let inet6 = unreachable_code(c, Family::Inet6)?;
        c.expect_sym(")")?;
        BlockWord::Reply(Reply::Icmp { inet: 3, inet6 })
    } else {
        BlockWord::Policy
    })
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
    code_of(c, family, kind)
}

fn code_of(c: &mut Cursor, family: Family, kind: u8) -> Parsed<u8> {
    let word = c.string("an ICMP code")?;
    let number = match parse_number(word.value) {
        Some(n) => u8::try_from(n).ok(),
        None => names::icmp_code(family, kind, word.value),
    };
    number.ok_or_else(|| Fault::new(word.at, format!("unknown icmp code `{}`", word.value)))
}

pub(crate) fn log_quick(c: &mut Cursor) -> Parsed<(Option<Log>, bool)> {
    let (mut log, mut quick) = (None, false);
    loop {
        if c.accept("quick") {
            quick = true;
        } else if c.accept("log") {
            log = Some(log_options(c)?);
        } else {
            return Ok((log, quick));
        }
    }
}

fn log_options(c: &mut Cursor) -> Parsed<Log> {
    let mut log = Log::default();
    if !c.is_sym("(") {
        return Ok(log);
    }
    c.parenthesised(|c| {
        let word = c.word("`all` or `to pflogN`")?;
        match word.value {
            "all" => log.all = true,
            "to" => log.to = pflog_number(c)?,
            "user" | "matches" => {
                return Err(Fault::unsupported(word.at, word.value, "there is no packet log yet"));
            }
            other => return Err(Fault::new(word.at, format!("unknown log option `{other}`"))),
        }
        Ok(())
    })?;
    Ok(log)
}

fn pflog_number(c: &mut Cursor) -> Parsed<u8> {
    let word = c.string("the name of a pflog interface")?;
    let number = word.value.strip_prefix("pflog").and_then(|n| n.parse().ok());
    number.ok_or_else(|| {
        Fault::new(word.at, format!("`{}` is not a pflog interface", word.value)).help("as in pflog0")
    })
}

fn interface(c: &mut Cursor) -> Parsed<At<On>> {
    let at = c.at();
    let not = c.accept_sym("!");
    if c.is_word("rdomain") {
        return Err(Fault::unsupported(at, "rdomain", "there is one routing domain"));
    }
    let name = c.string("the name of an interface")?.value.to_owned();
    Ok(At::new(at, On { not, name }))
}

fn protocol(c: &mut Cursor) -> Parsed<At<u8>> {
    let word = c.string("a protocol")?;
    let number = match parse_number(word.value) {
        Some(n) => u8::try_from(n).ok(),
        None => names::protocol(word.value),
    };
    match number {
        Some(0) => Err(Fault::new(word.at, "protocol 0 cannot be filtered")),
        Some(n) => Ok(At::new(word.at, n)),
        None => Err(Fault::new(word.at, format!("unknown protocol `{}`", word.value))),
    }
}

fn from_to(c: &mut Cursor, env: &Environment, rule: &mut RuleDef) -> Parsed<()> {
    if c.accept("all") {
        return Ok(());
    }
    if c.accept("from") {
        (rule.from, rule.from_port) = peer(c, env)?;
    }
    unsupported::os(c)?;
    if c.accept("to") {
        (rule.to, rule.to_port) = peer(c, env)?;
    }
    Ok(())
}

fn peer(c: &mut Cursor, env: &Environment) -> Parsed<(Vec<HostDef>, Vec<At<crate::rule::Ports>>)> {
    let hosts = if c.is_word("port") { Vec::new() } else { host::hosts(c)? };
    let ports = if c.accept("port") { host::ports(c, env)? } else { Vec::new() };
    Ok((hosts, ports))
}

fn option(c: &mut Cursor, env: &Environment, rule: &mut RuleDef) -> Parsed<()> {
    let at = c.at();
    if c.accept_sym("!") {
        c.expect("tagged")?;
        rule.tagged = Some(Tagged { not: true, name: tag_name(c)?.value });
        return Ok(());
    }
    // A comma between options is allowed nowhere, so that a list without braces is noticed.
    let word = c.word("an option of the rule")?;
    match word.value {
        "flags" => rule.flags = Some(At::new(at, flags(c)?)),
        "icmp-type" => rule.icmp = icmp_types(c, Family::Inet)?,
        "icmp6-type" => rule.icmp = icmp_types(c, Family::Inet6)?,
        "tos" => rule.tos = Some(tos(c)?),
        "keep" => rule.state = Some(At::new(at, keep(c)?)),
        "no" => {
            c.expect("state")?;
            rule.state = Some(At::new(at, StateWord::No));
        }
        "fragment" => rule.fragment = Some(at),
        "allow-opts" => rule.allow_opts = Some(at),
        "label" => rule.labels.push(label(c)?),
        "queue" => rule.queue = Some(queue(c)?),
        "tag" => rule.tag = Some(tag_name(c)?),
        "tagged" => rule.tagged = Some(Tagged { not: false, name: tag_name(c)?.value }),
        "from" | "to" | "port" | "proto" | "inet" | "inet6" | "on" | "in" | "out" | "quick" | "log" => {
            return Err(Fault::new(at, format!("syntax error: `{}` is out of place", word.value))
                .help("the order is: direction, log, quick, on, family, proto, from, to, options"));
        }
        other => {
            let _ = env;
            return Err(unsupported::option(at, other));
        }
    }
    Ok(())
}

fn flags(c: &mut Cursor) -> Parsed<Option<TcpFlags>> {
    if c.accept("any") {
        return Ok(None);
    }
    let set = if c.is_sym("/") { 0 } else { flag_letters(c)? };
    c.expect_sym("/")?;
    let mask = flag_letters(c)?;
    Ok(Some(TcpFlags { set, mask }))
}

fn flag_letters(c: &mut Cursor) -> Parsed<u8> {
    let word = c.string("TCP flags")?;
    let mut set = 0;
    for letter in word.value.bytes() {
        let bit = FLAG_LETTERS.iter().position(|&l| l == letter).ok_or_else(|| {
            Fault::new(word.at, format!("unknown TCP flag `{}`", char::from(letter)))
                .help("the flags are F S R P A U E W")
        })?;
        set |= 1 << bit;
    }
    Ok(set)
}

fn icmp_types(c: &mut Cursor, family: Family) -> Parsed<Vec<IcmpDef>> {
    c.list(|c| {
        let word = c.string("an ICMP type")?;
        let kind = match parse_number(word.value) {
            Some(n) => u8::try_from(n).ok(),
            None => names::icmp_type(family, word.value),
        };
        let kind = kind.ok_or_else(|| Fault::new(word.at, format!("unknown icmp-type `{}`", word.value)))?;
        let code = if c.accept("code") { Some(code_of(c, family, kind)?) } else { None };
        Ok(IcmpDef { at: word.at, family, kind, code })
    })
}

fn tos(c: &mut Cursor) -> Parsed<u8> {
    let word = c.string("a TOS value")?;
    let value = match parse_number(word.value) {
        Some(n) => u8::try_from(n).ok(),
        None => names::tos(word.value),
    };
    match value {
        Some(0) | None => Err(Fault::new(word.at, format!("illegal tos value `{}`", word.value))
            .help("a number from 1 to 255, or lowdelay, throughput, reliability, or a DSCP name")),
        Some(n) => Ok(n),
    }
}

fn keep(c: &mut Cursor) -> Parsed<StateWord> {
    c.expect("state")?;
    Ok(StateWord::Keep(if c.is_sym("(") { state_options(c)? } else { KeepDef::default() }))
}

/// `(max 10, tcp.first 2, if-bound)`
pub(crate) fn state_options(c: &mut Cursor) -> Parsed<KeepDef> {
    let mut def = KeepDef::default();
    c.parenthesised(|c| {
        let word = c.word("a state option")?;
        match word.value {
            "max" => {
                let max = c.number::<u32>("a number of states")?;
                if max.value == 0 {
                    return Err(Fault::new(max.at, "`max` must be above 0"));
                }
                def.keep.max = max.value;
            }
            "no-sync" => def.keep.no_sync = true,
            "sloppy" => def.keep.sloppy = true,
            "if-bound" => def.bound = Some(true),
            "floating" => def.bound = Some(false),
            other => match Timeout::of(other) {
                Some(timeout) if timeout != Timeout::Interval => {
                    let seconds = c.number::<u32>("seconds")?;
                    if def.keep.timeouts.iter().any(|&(t, _)| t == timeout) {
                        return Err(Fault::new(word.at, format!("`{other}` is given twice")));
                    }
                    def.keep.timeouts.push((timeout, seconds.value));
                }
                _ => return Err(unsupported::state_option(word.at, other)),
            },
        }
        Ok(())
    })?;
    def.keep.timeouts.sort_by_key(|&(t, _)| t);
    Ok(def)
}

fn label(c: &mut Cursor) -> Parsed<At<String>> {
    let word = c.string("a label")?;
    Ok(At::new(word.at, word.value.to_owned()))
}

pub(crate) fn tag_name(c: &mut Cursor) -> Parsed<At<String>> {
    let word = c.string("a tag")?;
    if word.value.len() > 63 {
        return Err(Fault::new(
            word.at,
            format!("tag too long: {} characters, at most 63", word.value.len()),
        ));
    }
    Ok(At::new(word.at, word.value.to_owned()))
}

fn queue(c: &mut Cursor) -> Parsed<QueueRef> {
    if !c.accept_sym("(") {
        return Ok(QueueRef { name: c.string("the name of a queue")?.value.to_owned(), low_delay: None });
    }
    let name = c.string("the name of a queue")?.value.to_owned();
    c.accept_sym(",");
    let low_delay =
        if c.is_sym(")") { None } else { Some(c.string("the name of a queue")?.value.to_owned()) };
    c.expect_sym(")")?;
    Ok(QueueRef { name, low_delay })
}
