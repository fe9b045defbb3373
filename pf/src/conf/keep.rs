//! Grammar of what stands behind `keep state`.

use super::{
    ast::KeepDef,
    cursor::Cursor,
    error::{Fault, Parsed, Pos},
    host, option,
};
use crate::{
    rule::{Flush, Overload, SourceTrack},
    timeout::Timeout,
};

/// `(max 10, tcp.first 2, if-bound)`
pub(crate) fn options(c: &mut Cursor) -> Parsed<KeepDef> {
    let mut def = KeepDef::default();
    c.parenthesised(|c| one(c, &mut def))?;
    def.keep.timeouts.sort_by_key(|&(t, _)| t);
    Ok(def)
}

/// One of them.
pub(crate) fn one(c: &mut Cursor, def: &mut KeepDef) -> Parsed<()> {
    let word = c.word("a state option")?;
    match word.value {
        "max" => def.keep.max = positive(c, "max", "a number of states")?,
        "no-sync" | "nopfsync" => def.keep.no_sync = true,
        "sloppy" => def.keep.sloppy = true,
        "if-bound" => def.bound = Some(true),
        "floating" => def.bound = Some(false),
        "pflow" => {
            c.note(word.at, "pflow");
            def.keep.pflow = true;
        }
        "allow-related" => {
            def.keep.allow_related = true;
        }
        "source-track" => {
            c.note(word.at, "source-track");
            def.track_at = Some(word.at);
            if c.accept("rule") {
                def.keep.track = Some(SourceTrack::Rule);
            } else if c.accept("global") {
                def.keep.track = Some(SourceTrack::Global);
            }
        }
        "max-src-states" => {
            c.note(word.at, "max-src-states");
            def.keep.max_src_states = positive(c, "max-src-states", "a number of states")?;
        }
        "max-src-nodes" => {
            c.note(word.at, "max-src-nodes");
            def.keep.max_src_nodes = positive(c, "max-src-nodes", "a number of sources")?;
        }
        "max-src-conn" => {
            c.note(word.at, "max-src-conn");
            def.keep.max_src_conn = positive(c, "max-src-conn", "a number of connections")?;
        }
        "max-src-conn-rate" => {
            c.note(word.at, "max-src-conn-rate");
            def.keep.max_src_conn_rate = Some(option::rate(c)?);
        }
        "overload" => {
            c.note(word.at, "overload");
            let table = host::table_name(c)?.value;
            let flush =
                c.accept("flush").then(|| if c.accept("global") { Flush::Global } else { Flush::Rule });
            def.keep.overload = Some(Overload { table, flush });
        }
        other => timeout(c, def, word.at, other)?,
    }
    Ok(())
}

fn timeout(c: &mut Cursor, def: &mut KeepDef, at: Pos, word: &str) -> Parsed<()> {
    let Some(timeout) = Timeout::of(word).filter(|&t| t != Timeout::Interval && t != Timeout::Fragment)
    else {
        return Err(Fault::new(at, format!("syntax error: unknown state option `{word}`"))
            .help("as in max 100, source-track rule, tcp.first 30"));
    };
    c.note(at, timeout.keyword());
    let seconds = c.number::<u32>("seconds")?;
    if def.keep.timeouts.iter().any(|&(t, _)| t == timeout) {
        return Err(Fault::new(at, format!("`{word}` is given twice")).help("say it once"));
    }
    def.keep.timeouts.push((timeout, seconds.value));
    Ok(())
}

fn positive(c: &mut Cursor, word: &str, what: &str) -> Parsed<u32> {
    let number = c.number::<u32>(what)?;
    if number.value == 0 {
        return Err(
            Fault::new(number.at, format!("`{word}` must be above 0")).help("leave it away for no limit")
        );
    }
    Ok(number.value)
}
