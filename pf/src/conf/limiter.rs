//! Grammar of limiters:
//!
//! ```text
//! state limiter NAME id N limit N [rate N/S]
//! source limiter NAME id N entries N limit N [rate N/S] [table <T> above N [below N]] [inet mask N] [inet6 mask N]
//! ```

use super::{
    cursor::Cursor,
    error::{Fault, Parsed},
    host, option,
};
use crate::{
    addr::Family,
    limiter::{Limiter, LimiterTable},
};

/// A limiter whose first word comes next.
pub(crate) fn limiter(c: &mut Cursor) -> Parsed<Limiter> {
    let at = c.at();
    let by_source = c.accept("source");
    if !by_source {
        c.expect("state")?;
    }
    c.expect("limiter")?;
    let name = c.string("the name of a limiter")?;
    if name.value.is_empty() || name.value.len() > 15 {
        return Err(Fault::new(
            name.at,
            format!("limiter name `{}` is empty or longer than 15 characters", name.value),
        ));
    }
    let mut limiter = Limiter {
        by_source,
        name: name.value.to_owned(),
        id: 0,
        limit: 0,
        rate: None,
        entries: 0,
        inet_mask: None,
        inet6_mask: None,
        table: None,
        at,
    };
    while !c.is_done() {
        one(c, &mut limiter)?;
    }
    for (value, word) in [(u32::from(limiter.id), "id"), (limiter.limit, "limit")] {
        if value == 0 {
            return Err(c.expected(&format!("`{word}`")).help(format!("a limiter says its {word}, above 0")));
        }
    }
    if by_source && limiter.entries == 0 {
        return Err(c.expected("`entries`").help("a source limiter says how many sources it counts at most"));
    }
    Ok(limiter)
}

fn one(c: &mut Cursor, limiter: &mut Limiter) -> Parsed<()> {
    let word = c.word("id, limit or rate")?;
    match word.value {
        "id" => limiter.id = c.number::<u8>("the number of a limiter")?.value,
        "limit" => limiter.limit = c.number::<u32>("a number of states")?.value,
        "rate" => limiter.rate = Some(option::rate(c)?),
        "entries" if limiter.by_source => limiter.entries = c.number::<u32>("a number of sources")?.value,
        "table" if limiter.by_source => {
            let name = host::table_name(c)?.value;
            c.expect("above")?;
            let above = c.number::<u32>("a number of states")?.value;
            let below = if c.accept("below") { c.number::<u32>("a number of states")?.value } else { 0 };
            limiter.table = Some(LimiterTable { name, above, below });
        }
        "inet" if limiter.by_source => limiter.inet_mask = Some(mask(c, Family::Inet)?),
        "inet6" if limiter.by_source => limiter.inet6_mask = Some(mask(c, Family::Inet6)?),
        other => {
            return Err(Fault::new(word.at, format!("syntax error: unknown option `{other}` of a limiter"))
                .help("id, limit, rate; of a source limiter also entries, table, inet mask and inet6 mask"));
        }
    }
    Ok(())
}

fn mask(c: &mut Cursor, family: Family) -> Parsed<u8> {
    c.expect("mask")?;
    let mask = c.number::<u8>("a prefix length")?;
    if mask.value == 0 || mask.value > family.width() {
        return Err(Fault::new(
            mask.at,
            format!("mask {} is not between 1 and {}", mask.value, family.width()),
        ));
    }
    Ok(mask.value)
}
