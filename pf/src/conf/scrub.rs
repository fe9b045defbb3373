//! Grammar of scrub rules, and of `scrub (...)` in filter rules.
//!
//! ```text
//! [no] scrub [in|out] [log] [quick] [on IF] [inet|inet6] [proto P] [from ... to ...] [options]
//! ```

use super::{
    ast::RuleDef,
    cursor::Cursor,
    error::{Fault, Parsed},
    filter, icmp, option,
};
use crate::{
    env::Environment,
    rule::{Action, Scrub, Tagged},
};

/// A scrub rule; `no`, if there is one, is taken already.
pub(crate) fn rule(c: &mut Cursor, env: &Environment, at: super::Pos, no: bool) -> Parsed<RuleDef> {
    c.expect("scrub")?;
    let mut def = RuleDef::new(at, if no { Action::NoScrub } else { Action::Scrub });
    def.rule.direction = filter::direction(c);
    (def.rule.log, def.rule.quick) = filter::log_quick(c)?;
    if def.rule.quick {
        return Err(Fault::new(at, "scrub rules do not support 'quick'")
            .help("the first scrub rule that matches decides"));
    }
    filter::place(c, env, &mut def)?;
    while !c.is_done() {
        rule_option(c, &mut def)?;
    }
    Ok(def)
}

fn rule_option(c: &mut Cursor, def: &mut RuleDef) -> Parsed<()> {
    let at = c.at();
    if c.accept("fragment") {
        def.rule.scrub.no_reassemble = c.accept("no");
        if c.is_word("crop") || c.is_word("drop-ovl") {
            return Err(Fault::new(c.at(), "fragments are reassembled or left as they are")
                .help("fragment reassemble, or fragment no reassemble"));
        }
        return c.expect("reassemble");
    }
    if c.accept("rtable") {
        c.note(at, "rtable");
        def.rule.rtable = Some(c.number::<u32>("a routing table")?.value);
        return Ok(());
    }
    if c.accept("label") {
        def.labels.push(option::label(c)?);
        return Ok(());
    }
    let not = c.accept_sym("!");
    if not || c.is_word("tagged") {
        c.expect("tagged")?;
        def.rule.tagged = Some(Tagged { not, name: option::tag_name(c)?.value });
        return Ok(());
    }
    option(c, &mut def.rule.scrub)
}

/// An option that both forms have.
pub(crate) fn option(c: &mut Cursor, scrub: &mut Scrub) -> Parsed<()> {
    let word = c.word("an option of scrub")?;
    match word.value {
        "no-df" => scrub.no_df = true,
        "random-id" => scrub.random_id = true,
        "min-ttl" => {
            let ttl = c.number::<u8>("a time to live")?;
            if ttl.value == 0 {
                return Err(Fault::new(ttl.at, "illegal min-ttl value 0").help("1 to 255"));
            }
            scrub.min_ttl = ttl.value;
        }
        "max-mss" => {
            let mss = c.number::<u16>("a segment size")?;
            if mss.value == 0 {
                return Err(Fault::new(mss.at, "illegal max-mss value 0").help("1 to 65535"));
            }
            scrub.max_mss = mss.value;
        }
        "set-tos" => scrub.set_tos = Some(icmp::tos(c)?),
        "reassemble" => {
            c.expect("tcp")?;
            scrub.reassemble_tcp = true;
        }
        other => {
            return Err(Fault::new(word.at, format!("syntax error: unknown option `{other}` of scrub"))
                .help("there are no-df, random-id, min-ttl, max-mss, set-tos, reassemble tcp and fragment reassemble"));
        }
    }
    Ok(())
}
