//! Grammar of `set`.

use super::{
    ast::{At, Setting},
    cursor::Cursor,
    error::{Fault, Parsed, Pos},
    unsupported,
};
use crate::{
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
        "block-policy" => {
            let word = c.word("`drop` or `return`")?;
            match word.value {
                "drop" => Ok(one(at, Setting::BlockPolicy(Reply::Drop))),
                "return" => Ok(one(at, Setting::BlockPolicy(Reply::Return))),
                other => Err(wrong(word.at, other, "drop or return")),
            }
        }
        "state-policy" => {
            let word = c.word("`if-bound` or `floating`")?;
            match word.value {
                "if-bound" => Ok(one(at, Setting::StatePolicy(true))),
                "floating" => Ok(one(at, Setting::StatePolicy(false))),
                other => Err(wrong(word.at, other, "if-bound or floating")),
            }
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
        "require-order" => as_is(c, at, option.value, &["yes", "no"]),
        "fail-policy" | "ruleset-optimization" | "debug" | "syncookies" | "reassemble" | "loginterface" => {
            neutral(c, at, option.value)
        }
        other => Err(unsupported::setting(at, other)),
    }
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
    if name.value != "states" {
        return Err(unsupported::limit(name.at, name.value));
    }
    let number = c.number::<u32>("a number of states")?;
    if number.value == 0 {
        return Err(Fault::new(number.at, "a limit of 0 states lets none be made")
            .help("use `no state` rules instead"));
    }
    Ok(At::new(name.at, Setting::LimitStates(number.value)))
}

fn timeout(c: &mut Cursor) -> Parsed<At<Setting>> {
    let name = c.word("the name of a timeout")?;
    let timeout = Timeout::of(name.value).ok_or_else(|| timeout_fault(name.at, name.value))?;
    let seconds = c.number::<u32>("seconds")?;
    if timeout == Timeout::Interval && seconds.value == 0 {
        return Err(Fault::new(seconds.at, "interval must be above 0"));
    }
    Ok(At::new(name.at, Setting::Timeout(timeout, seconds.value)))
}

fn timeout_fault(at: Pos, word: &str) -> Fault {
    match word {
        "frag" | "src.track" | "tcp.tsdiff" => unsupported::state_option(at, word),
        _ if word.starts_with("sctp.") => unsupported::state_option(at, word),
        _ => {
            let names: Vec<_> = Timeout::ALL.iter().map(|t| t.keyword()).collect();
            Fault::new(at, format!("unknown timeout `{word}`"))
                .help(format!("there are {}", names.join(", ")))
        }
    }
}

fn state_defaults(c: &mut Cursor) -> Parsed<super::ast::KeepDef> {
    let mut def = super::ast::KeepDef::default();
    while !c.is_done() {
        let word = c.word("a state option")?;
        match word.value {
            "no-sync" => def.keep.no_sync = true,
            "sloppy" => def.keep.sloppy = true,
            "if-bound" => def.bound = Some(true),
            "floating" => def.bound = Some(false),
            other => return Err(unsupported::state_option(word.at, other)),
        }
        c.accept_sym(",");
    }
    Ok(def)
}

fn as_is(c: &mut Cursor, at: Pos, option: &str, values: &[&str]) -> Parsed<Vec<At<Setting>>> {
    let word = c.word("a value")?;
    if values.contains(&word.value) {
        return Ok(one(at, Setting::AsIs(format!("{option} {}", word.value))));
    }
    Err(wrong(word.at, word.value, &values.join(" or ")))
}

/// Options that are accepted as far as they ask for what pf does anyway.
fn neutral(c: &mut Cursor, at: Pos, option: &str) -> Parsed<Vec<At<Setting>>> {
    let value = c.string("a value")?;
    let fits = matches!(
        (option, value.value),
        ("fail-policy", "drop")
            | ("ruleset-optimization" | "loginterface" | "debug", "none")
            | ("syncookies", "never")
            | ("reassemble", "no")
    );
    if fits {
        Ok(one(at, Setting::AsIs(format!("{option} {}", value.value))))
    } else {
        Err(unsupported::setting(at, option))
    }
}

/// Merges `set state-defaults` into what a rule says.
pub(crate) fn with_defaults(
    def: &super::ast::KeepDef,
    defaults: &super::ast::KeepDef,
) -> super::ast::KeepDef {
    let mut merged = def.clone();
    merged.keep.no_sync |= defaults.keep.no_sync;
    merged.keep.sloppy |= defaults.keep.sloppy;
    merged.bound = merged.bound.or(defaults.bound);
    merged
}
