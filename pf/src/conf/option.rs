//! Grammar of the options of filter rules, which stand in any order.

use super::{
    ast::{At, LimiterDef, LimiterWord, RuleDef, StateWord},
    cursor::{Cursor, parse_number},
    error::{Fault, Parsed, Pos},
    filter, icmp, keep, pool, scrub, translate,
};
use crate::{
    addr::Family,
    env::Environment,
    once::Once,
    rule::{Action, Divert, Dummynet, IdMatch, QueueRef, Rate, StateKind, Tagged, UNKNOWN_ID},
};

/// The next option.
pub(crate) fn option(c: &mut Cursor, env: &Environment, def: &mut RuleDef) -> Parsed<()> {
    let at = c.at();
    if c.accept_sym("!") {
        if c.accept_noted("received-on") {
            let on = filter::interface(c)?.value;
            def.rule.received_on = Some(crate::rule::On { not: !on.not, ..on });
            return Ok(());
        }
        c.expect("tagged")?;
        def.rule.tagged = Some(Tagged { not: true, name: tag_name(c)?.value });
        return Ok(());
    }
    if pool::is_route(c) {
        return pool::route(c, env, def);
    }
    // A comma between options is allowed nowhere, so that a list without braces is noticed.
    let word = c.word("an option of the rule")?;
    match word.value {
        "flags" => def.flags = Some(At::new(at, icmp::flags(c)?)),
        "icmp-type" => def.icmp = icmp::icmp_types(c, Family::Inet)?,
        "icmp6-type" => def.icmp = icmp::icmp_types(c, Family::Inet6)?,
        "tos" => def.rule.tos = Some(icmp::tos(c)?),
        "keep" => state(c, at, StateKind::Keep, def)?,
        "modulate" => {
            c.note(at, "modulate");
            state(c, at, StateKind::Modulate, def)?;
        }
        "synproxy" => {
            c.note(at, "synproxy");
            state(c, at, StateKind::Synproxy, def)?;
        }
        "no" => {
            c.expect("state")?;
            def.state = Some(At::new(at, StateWord::No));
        }
        "fragment" => def.fragment = Some(at),
        "allow-opts" => def.allow_opts = Some(at),
        "label" => def.labels.push(label(c)?),
        "queue" => def.rule.queue = Some(queue(c)?),
        "tag" => def.rule.tag = Some(tag_name(c)?.value),
        "tagged" => def.rule.tagged = Some(Tagged { not: false, name: tag_name(c)?.value }),
        "from" | "to" | "port" | "proto" | "inet" | "inet6" | "on" | "in" | "out" | "quick" | "log" => {
            return Err(Fault::new(at, format!("syntax error: `{}` is out of place", word.value))
                .help("the order is: direction, log, quick, on, family, proto, from, to, options"));
        }
        other => return translation(c, env, def, At::new(at, other)),
    }
    Ok(())
}

fn translation(c: &mut Cursor, env: &Environment, def: &mut RuleDef, word: At<&str>) -> Parsed<()> {
    let at = word.at;
    match word.value {
        "nat-to" => {
            c.note(at, "nat-to");
            respecified(at, def.nat.is_some() || def.binat.is_some(), "nat-to/binat-to")?;
            def.nat = Some(pool::translation(c, env, at)?);
            translate::check_pool(Action::Nat, def.nat.as_ref())?;
        }
        "rdr-to" => {
            c.note(at, "rdr-to");
            respecified(at, def.rdr.is_some() || def.binat.is_some(), "rdr-to/binat-to")?;
            def.rdr = Some(pool::translation(c, env, at)?);
            translate::check_pool(Action::Rdr, def.rdr.as_ref())?;
        }
        "binat-to" => {
            c.note(at, "binat-to");
            respecified(
                at,
                def.nat.is_some() || def.rdr.is_some() || def.binat.is_some(),
                "nat-to/rdr-to/binat-to",
            )?;
            def.binat = Some(pool::translation(c, env, at)?);
            translate::check_pool(Action::Binat, def.binat.as_ref())?;
        }
        "af-to" => {
            def.af_to = Some(At::new(at, pool::af_to(c, env)?));
        }
        "scrub" => {
            c.parenthesised(|c| scrub::option(c, &mut def.rule.scrub))?;
        }
        "no-df" | "random-id" | "min-ttl" | "max-mss" | "set-tos" => {
            return Err(Fault::new(at, format!("syntax error: `{}` is out of place", word.value))
                .help(format!("as in scrub ({})", word.value)));
        }
        other => return rare(c, env, def, At::new(at, other)),
    }
    Ok(())
}

/// Only a rule that decides has a packet of its own.
pub(crate) fn not_once(at: Pos) -> Fault {
    Fault::new(at, "'once' only applies to pass/block rules").help("say it of the rule that decides")
}

fn respecified(at: Pos, twice: bool, what: &str) -> Parsed<()> {
    if twice { Err(Fault::new(at, format!("cannot respecify {what}")).help("say it once")) } else { Ok(()) }
}

/// The options of which a rule seldom has any.
fn rare(c: &mut Cursor, env: &Environment, def: &mut RuleDef, word: At<&str>) -> Parsed<()> {
    let at = word.at;
    match word.value {
        "user" => {
            c.note(at, "user");
            let list = c.list(|c| id(c, |name| env.user(name), "user"))?;
            def.users.splice(0..0, list);
        }
        "group" => {
            c.note(at, "group");
            let list = c.list(|c| id(c, |name| env.group(name), "group"))?;
            def.groups.splice(0..0, list);
        }
        "probability" => {
            c.note(at, "probability");
            def.rule.probability = Some(probability(c)?);
        }
        "once" => {
            if def.rule.action == Action::Match {
                return Err(not_once(at));
            }
            def.rule.once = Some(Once::default());
        }
        "prio" => {
            def.rule.prio = Some(priority(c)?);
        }
        "set" => {
            if c.is_sym("(") {
                c.parenthesised(|c| set_option(c, def))?;
            } else {
                set_option(c, def)?;
            }
        }
        "received-on" => {
            c.note(at, "received-on");
            def.rule.received_on = Some(filter::interface(c)?.value);
        }
        "rtable" => {
            c.note(at, "rtable");
            def.rule.rtable = Some(c.number::<u32>("a routing table")?.value);
        }
        "ridentifier" => {
            def.rule.ridentifier = c.number::<u32>("an identifier")?.value;
        }
        "max-pkt-rate" => {
            def.rule.max_pkt_rate = Some(rate(c)?);
        }
        "max-pkt-size" => {
            def.rule.max_pkt_size = c.number::<u16>("a number of octets")?.value;
        }
        "divert-to" | "divert-reply" | "divert-packet" => divert(c, def, word)?,
        "dnpipe" | "dnqueue" => {
            let pipe = word.value == "dnpipe";
            c.note(at, if pipe { "dnpipe" } else { "dnqueue" });
            def.rule.dummynet = Some(dummynet(c, pipe)?);
        }
        "state" => {
            def.state_limiter = Some(At::new(at, limiter(c)?));
        }
        "source" => {
            def.source_limiter = Some(At::new(at, limiter(c)?));
        }
        other => {
            return Err(Fault::new(at, format!("syntax error: unknown option `{other}`")).help(
                "options are flags, icmp-type, tos, keep state, no state, fragment, allow-opts, label, queue, tag, \
                 tagged, nat-to, rdr-to, binat-to, af-to, route-to, scrub, set prio, probability and others",
            ));
        }
    }
    Ok(())
}

fn state(c: &mut Cursor, at: Pos, kind: StateKind, def: &mut RuleDef) -> Parsed<()> {
    c.expect("state")?;
    let mut options = if c.is_sym("(") { keep::options(c)? } else { super::ast::KeepDef::default() };
    options.keep.kind = kind;
    def.state = Some(At::new(at, StateWord::Keep(options)));
    Ok(())
}

/// `root`, `!= 5`, `1000 >< 2000`, `unknown`
fn id(c: &mut Cursor, number: impl Fn(&str) -> Option<u32>, what: &str) -> Parsed<At<IdMatch>> {
    let at = c.at();
    let one = |c: &mut Cursor| -> Parsed<u32> {
        let word = c.string(&format!("a {what}"))?;
        let id = match parse_number(word.value) {
            Some(n) => u32::try_from(n).ok(),
            None if word.value == "unknown" => Some(UNKNOWN_ID),
            None => number(word.value),
        };
        id.ok_or_else(|| {
            Fault::new(word.at, format!("unknown {what} `{}`", word.value))
                .help("a number, a name that is known, or unknown")
        })
    };
    for (symbol, make) in UNARY {
        if c.accept_sym(symbol) {
            let id = one(c)?;
            if id == UNKNOWN_ID && !matches!(symbol, "=" | "!=") {
                return Err(Fault::new(at, "unknown requires operator = or !=").help("as in user != unknown"));
            }
            return Ok(At::new(at, make(id)));
        }
    }
    if let Some((a, b)) = c.peek_word().and_then(|w| w.split_once(':')) {
        let numbers = parse_number(a).zip(parse_number(b));
        let ids = numbers.and_then(|(a, b)| Some((u32::try_from(a).ok()?, u32::try_from(b).ok()?)));
        let (a, b) = ids.ok_or_else(|| c.expected(&format!("two {what} ids as in 1000:2000")))?;
        c.skip();
        return Ok(At::new(at, IdMatch::Within(a, b)));
    }
    let a = one(c)?;
    for (symbol, make) in BINARY {
        if c.accept_sym(symbol) {
            let b = one(c)?;
            if a == UNKNOWN_ID || b == UNKNOWN_ID {
                return Err(Fault::new(at, "unknown requires operator = or !=").help("as in user != unknown"));
            }
            return Ok(At::new(at, make(a, b)));
        }
    }
    Ok(At::new(at, IdMatch::Equal(a)))
}

type MakeOne = fn(u32) -> IdMatch;
type MakeTwo = fn(u32, u32) -> IdMatch;

const UNARY: [(&str, MakeOne); 6] = [
    ("=", IdMatch::Equal),
    ("!=", IdMatch::NotEqual),
    ("<=", IdMatch::LessEqual),
    (">=", IdMatch::GreaterEqual),
    ("<", IdMatch::Less),
    (">", IdMatch::Greater),
];
const BINARY: [(&str, MakeTwo); 2] = [("><", IdMatch::Between), ("<>", IdMatch::Outside)];

/// `20%`, `0.2`: as a share of 2^32.
fn probability(c: &mut Cursor) -> Parsed<u32> {
    let word = c.string("a probability")?;
    let share = match word.value.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok().map(|p| p / 100.0),
        None => word.value.parse::<f64>().ok().map(|p| if p > 1.0 { p / 100.0 } else { p }),
    };
    let share = share.filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| {
        Fault::new(word.at, format!("invalid probability `{}`", word.value)).help("as in 20% or 0.2")
    })?;
    let of_all = (share * f64::from(u32::MAX)) as u32;
    if of_all == 0 {
        return Err(Fault::new(
            word.at,
            format!("invalid probability `{}`: the rule would never match", word.value),
        )
        .help("as in 20% or 0.2"));
    }
    Ok(of_all)
}

fn priority(c: &mut Cursor) -> Parsed<u8> {
    let n = c.number::<u8>("a priority")?;
    if n.value > 7 {
        return Err(Fault::new(n.at, format!("prio {} is out of range", n.value)).help("0 to 7"));
    }
    Ok(n.value)
}

/// `prio 3`, `prio (5 2)`, `tos lowdelay`
fn set_option(c: &mut Cursor, def: &mut RuleDef) -> Parsed<()> {
    let word = c.word("`prio` or `tos`")?;
    match word.value {
        "prio" => {
            if c.accept_sym("(") {
                let first = priority(c)?;
                c.accept_sym(",");
                def.rule.set_prio = Some((first, priority(c)?));
                return c.expect_sym(")");
            }
            let both = priority(c)?;
            def.rule.set_prio = Some((both, both));
        }
        "tos" => {
            def.rule.scrub.set_tos = Some(icmp::tos(c)?);
        }
        other => {
            return Err(
                Fault::new(word.at, format!("unknown option `set {other}`")).help("there are prio and tos")
            );
        }
    }
    Ok(())
}

/// `100/10`
pub(crate) fn rate(c: &mut Cursor) -> Parsed<Rate> {
    let limit = c.number::<u32>("a number")?;
    c.expect_sym("/")?;
    let seconds = c.number::<u32>("seconds")?;
    if limit.value == 0 || seconds.value == 0 {
        return Err(Fault::new(limit.at, "a rate of 0").help("as in 100/10: 100 in 10 seconds"));
    }
    Ok(Rate { limit: limit.value, seconds: seconds.value })
}

/// `divert-to port n`, `divert-to n`, `divert-to address port n`, `divert-reply`, `divert-packet port n`
fn divert(c: &mut Cursor, def: &mut RuleDef, word: At<&str>) -> Parsed<()> {
    if word.value == "divert-reply" {
        c.note(word.at, "divert-reply");
        def.rule.divert = Some(Divert::Reply);
        return Ok(());
    }
    c.note(word.at, if word.value == "divert-to" { "divert-to" } else { "divert-packet" });
    if def.rule.action != Action::Pass {
        return Err(Fault::new(word.at, format!("{} is for pass rules only", word.value)).help("use pass"));
    }
    if !c.is_word("port") && !c.is_sym("=") && c.peek_word().is_some_and(|w| parse_number(w).is_none()) {
        // The address of a divert socket has no meaning (divert(4)).
        c.string("an address")?;
    }
    c.accept("port");
    let port = c.number::<u16>("a port")?;
    if port.value == 0 {
        return Err(Fault::new(port.at, "port 0 is no divert port").help("1 to 65535"));
    }
    def.rule.divert = Some(Divert::To(port.value));
    Ok(())
}

/// `3`, `(3, 4)`, `(3)`
pub(crate) fn dummynet(c: &mut Cursor, pipe: bool) -> Parsed<Dummynet> {
    if !c.accept_sym("(") {
        return Ok(Dummynet { pipe, number: c.number::<u16>("a number of dummynet")?.value, reverse: None });
    }
    let number = c.number::<u16>("a number of dummynet")?.value;
    c.accept_sym(",");
    let reverse = if c.is_sym(")") { None } else { Some(c.number::<u16>("a number of dummynet")?.value) };
    c.expect_sym(")")?;
    Ok(Dummynet { pipe, number, reverse })
}

/// `limiter "name" (block)`, `limiter id 1 (no-match)`
fn limiter(c: &mut Cursor) -> Parsed<LimiterDef> {
    c.expect("limiter")?;
    let which = if c.accept("id") {
        LimiterWord::Id(c.number::<u8>("the number of a limiter")?.value)
    } else {
        LimiterWord::Name(c.string("the name of a limiter")?.value.to_owned())
    };
    let mut block = false;
    if c.accept_sym("(") {
        block = c.accept("block");
        if !block {
            c.expect("no-match")?;
        }
        c.expect_sym(")")?;
    }
    Ok(LimiterDef { which, block })
}

pub(crate) fn label(c: &mut Cursor) -> Parsed<At<String>> {
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
