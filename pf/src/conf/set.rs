//! Grammar of `set`.

use super::{
    ast::{At, Setting},
    cursor::Cursor,
    error::{Fault, Parsed, Pos},
    keep,
    options::{Limit, Optimizer, Syncookies},
};
use crate::{
    debug::Level,
    rule::Reply,
    timeout::{Optimization, Timeout},
};

/// `set option value`; an option with a list is several settings.
pub(crate) fn settings(c: &mut Cursor) -> Parsed<Vec<At<Setting>>> {
    c.expect("set")?;
    let option = c.word("an option")?;
    let at = option.at;
    match option.value {
        "skip" => {
            c.expect("on")?;
            Ok(one(at, Setting::Skip(skip_list(c)?)))
        }
        "block-policy" => Ok(one(at, Setting::BlockPolicy(reply(c)?))),
        "fail-policy" => {
            let reply = reply(c)?;
            Ok(one(at, Setting::FailPolicy(reply)))
        }
        "state-policy" => {
            let bound = either(c, "if-bound", "floating")?;
            Ok(one(at, Setting::StatePolicy(bound)))
        }
        "optimization" => {
            let word = c.word("an optimization")?;
            let optimization = Optimization::of(word.value).ok_or_else(|| {
                wrong(word.at, word.value, "normal, high-latency, satellite, aggressive or conservative")
            })?;
            Ok(one(at, Setting::Optimization(optimization, word.value.to_owned())))
        }
        "state-defaults" => Ok(one(at, Setting::StateDefaults(state_defaults(c)?))),
        "limit" => several(c, limit),
        "timeout" => several(c, timeout),
        "require-order" => Ok(one(at, Setting::RequireOrder(either(c, "yes", "no")?))),
        other => rare(c, at, other),
    }
}

/// The options that few files have.
fn rare(c: &mut Cursor, at: Pos, option: &str) -> Parsed<Vec<At<Setting>>> {
    let setting = match option {
        "ruleset-optimization" => {
            let word = c.word("none, basic or profile")?;
            let optimizer = Optimizer::of(word.value)
                .or(if word.value == "yes" { Some(Optimizer::Basic) } else { None })
                .ok_or_else(|| wrong(word.at, word.value, "none, basic or profile"))?;
            Setting::Optimizer(optimizer)
        }
        "loginterface" => {
            let name = c.string("the name of an interface, or none")?.value;
            Setting::LogInterface((name != "none").then(|| name.to_owned()))
        }
        "fingerprints" => Setting::Fingerprints(c.string("the name of a file")?.value.to_owned()),
        "hostid" => {
            let id = c.number::<u32>("a host id")?;
            if id.value == 0 {
                return Err(Fault::new(id.at, "hostid must be non-zero"));
            }
            Setting::HostId(id.value)
        }
        "reassemble" => {
            let yes = either(c, "yes", "no")?;
            Setting::Reassemble(yes, c.accept("no-df"))
        }
        "syncookies" => Setting::Syncookies(syncookies(c)?),
        "debug" => {
            let word = c.word("a level")?;
            let level = Level::of(word.value)
                .ok_or_else(|| wrong(word.at, word.value, "none, urgent, misc or loud"))?;
            Setting::Debug(level)
        }
        "keepcounters" => Setting::KeepCounters,
        other => {
            return Err(Fault::new(at, format!("syntax error: unknown option `set {other}`")).help(
                "there are skip, block-policy, state-policy, optimization, limit, timeout, state-defaults, \
                 loginterface, reassemble, syncookies, ruleset-optimization, fingerprints, hostid, debug, fail-policy, \
                 keepcounters and require-order",
            ));
        }
    };
    Ok(one(at, setting))
}

fn reply(c: &mut Cursor) -> Parsed<Reply> {
    Ok(if either(c, "return", "drop")? { Reply::Return } else { Reply::Drop })
}

/// One of two words, and whether it is the first.
fn either(c: &mut Cursor, yes: &str, no: &str) -> Parsed<bool> {
    let word = c.word(&format!("`{yes}` or `{no}`"))?;
    if word.value == yes || word.value == no {
        return Ok(word.value == yes);
    }
    Err(wrong(word.at, word.value, &format!("{yes} or {no}")))
}

/// `never`, `always`, `adaptive`, `adaptive (start 25%, end 12%)`
fn syncookies(c: &mut Cursor) -> Parsed<Syncookies> {
    let word = c.word("never, always or adaptive")?;
    match word.value {
        "never" => return Ok(Syncookies::Never),
        "always" => return Ok(Syncookies::Always),
        "adaptive" => {}
        other => return Err(wrong(word.at, other, "never, always or adaptive")),
    }
    let (mut start, mut end) = (25, 12);
    if c.is_sym("(") {
        c.parenthesised(|c| {
            let word = c.word("`start` or `end`")?;
            let slot = match word.value {
                "start" => &mut start,
                "end" => &mut end,
                other => return Err(wrong(word.at, other, "start or end")),
            };
            *slot = percent(c)?;
            Ok(())
        })?;
    }
    if end >= start {
        return Err(Fault::new(word.at, "start must be higher than end"));
    }
    Ok(Syncookies::Adaptive { start, end })
}

fn percent(c: &mut Cursor) -> Parsed<u8> {
    let word = c.string("per cent")?;
    let number = word.value.strip_suffix('%').and_then(|n| n.parse().ok()).filter(|n| (1..=100).contains(n));
    number.ok_or_else(|| Fault::new(word.at, format!("invalid share `{}`", word.value)).help("as in 25%"))
}

fn one(at: Pos, setting: Setting) -> Vec<At<Setting>> {
    vec![At::new(at, setting)]
}

fn wrong(at: Pos, found: &str, right: &str) -> Fault {
    Fault::new(at, format!("unknown value `{found}`")).help(format!("it is {right}"))
}

fn skip_list(c: &mut Cursor) -> Parsed<Vec<String>> {
    if c.accept("none") {
        return Ok(Vec::new());
    }
    c.list(|c| {
        if c.is_sym("!") {
            return Err(Fault::new(c.at(), "skip on ! <interface> is not supported")
                .help("name the interfaces to skip"));
        }
        Ok(c.string("the name of an interface")?.value.to_owned())
    })
}

/// `name value`, or `{ name value, name value }`.
fn several(c: &mut Cursor, item: impl Fn(&mut Cursor) -> Parsed<At<Setting>>) -> Parsed<Vec<At<Setting>>> {
    c.list(item)
}

fn limit(c: &mut Cursor) -> Parsed<At<Setting>> {
    let name = c.word("the name of a limit")?;
    let limit = Limit::of(name.value).ok_or_else(|| {
        let names = Limit::ALL.map(|(_, keyword)| keyword).join(", ");
        Fault::new(name.at, format!("syntax error: unknown limit `{}`", name.value))
            .help(format!("there are {names}"))
    })?;
    match limit {
        Limit::States | Limit::Frags | Limit::Tables | Limit::TableEntries => {}
        Limit::SrcNodes => c.note(name.at, "limit src-nodes"),
        Limit::Anchors => c.note(name.at, "limit anchors"),
    }
    let number = c.number::<u32>(&format!("a number of {}", name.value))?;
    if number.value == 0 && limit == Limit::States {
        return Err(Fault::new(number.at, "a limit of 0 states lets none be made")
            .help("use `no state` rules instead"));
    }
    Ok(At::new(name.at, Setting::Limit(limit, number.value)))
}

fn timeout(c: &mut Cursor) -> Parsed<At<Setting>> {
    let name = c.word("the name of a timeout")?;
    let timeout = Timeout::of(name.value).ok_or_else(|| {
        let names: Vec<_> = Timeout::ALL.iter().map(|t| t.keyword()).collect();
        Fault::new(name.at, format!("unknown timeout `{}`", name.value))
            .help(format!("there are {}", names.join(", ")))
    })?;
    c.note(name.at, timeout.keyword());
    let seconds = c.number::<u32>("seconds")?;
    if timeout == Timeout::Interval && seconds.value == 0 {
        return Err(Fault::new(seconds.at, "interval must be above 0"));
    }
    Ok(At::new(name.at, Setting::Timeout(timeout, seconds.value)))
}

fn state_defaults(c: &mut Cursor) -> Parsed<super::ast::KeepDef> {
    let mut def = super::ast::KeepDef::default();
    while !c.is_done() {
        keep::one(c, &mut def)?;
        c.accept_sym(",");
    }
    def.keep.timeouts.sort_by_key(|&(t, _)| t);
    Ok(def)
}

/// Merges `set state-defaults` into what a rule says: what the rule says of one thing wins.
pub(crate) fn with_defaults(
    def: &super::ast::KeepDef,
    defaults: &super::ast::KeepDef,
) -> super::ast::KeepDef {
    let mut merged = def.clone();
    let (keep, other) = (&mut merged.keep, &defaults.keep);
    keep.no_sync |= other.no_sync;
    keep.sloppy |= other.sloppy;
    keep.pflow |= other.pflow;
    keep.allow_related |= other.allow_related;
    for (own, default) in [
        (&mut keep.max, other.max),
        (&mut keep.max_src_states, other.max_src_states),
        (&mut keep.max_src_conn, other.max_src_conn),
        (&mut keep.max_src_nodes, other.max_src_nodes),
    ] {
        if *own == 0 {
            *own = default;
        }
    }
    keep.max_src_conn_rate = keep.max_src_conn_rate.or(other.max_src_conn_rate);
    keep.track = keep.track.or(other.track);
    if keep.overload.is_none() {
        keep.overload.clone_from(&other.overload);
    }
    for &(timeout, seconds) in &other.timeouts {
        if keep.timeouts.iter().all(|&(t, _)| t != timeout) {
            keep.timeouts.push((timeout, seconds));
        }
    }
    keep.timeouts.sort_by_key(|&(t, _)| t);
    merged.bound = merged.bound.or(defaults.bound);
    merged
}
