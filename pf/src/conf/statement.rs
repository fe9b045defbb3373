//! Grammar of statements: the first word says which.

use super::{
    altq,
    ast::{Antispoof, At, HostDef, Statement, TableDef, TablePart},
    cursor::{Cursor, Use},
    error::{Fault, Parsed},
    ether, filter, host,
    lex::Line,
    limiter, option, scrub, set, translate,
};
use crate::env::Environment;

/// The statement on a line, which is not empty, and the keywords it uses.
pub(crate) fn statement(line: &Line, env: &Environment) -> Parsed<(Statement, Vec<Use>)> {
    let mut c = Cursor::new(line);
    let statement = any(&mut c, env)?;
    c.finish()?;
    Ok((statement, c.uses))
}

fn any(c: &mut Cursor, env: &Environment) -> Parsed<Statement> {
    let at = c.at();
    if c.accept_sym("}") {
        return Ok(Statement::EndAnchor(at));
    }
    if c.is_sym_after("=") {
        return macro_definition(c);
    }
    let Some(word) = c.peek_word() else { return Err(c.expected("a statement")) };
    Ok(match word {
        "pass" | "block" | "match" => Statement::Rule(Box::new(filter::rule(c, env)?)),
        "nat" | "rdr" | "binat" => Statement::Rule(Box::new(translate::rule(c, env, at, false)?)),
        "scrub" => Statement::Rule(Box::new(scrub::rule(c, env, at, false)?)),
        "no" => {
            c.skip();
            match c.peek_word() {
                Some("nat" | "rdr" | "binat") => {
                    Statement::Rule(Box::new(translate::rule(c, env, at, true)?))
                }
                Some("scrub") => Statement::Rule(Box::new(scrub::rule(c, env, at, true)?)),
                _ => return Err(c.expected("nat, rdr, binat or scrub")),
            }
        }
        "anchor" | "nat-anchor" | "rdr-anchor" | "binat-anchor" => {
            Statement::Rule(Box::new(filter::anchor(c, env)?))
        }
        "ether" => Statement::Ether(Box::new(ether::ether(c)?)),
        "load" => load_anchor(c)?,
        "state" | "source" => Statement::Limiter(Box::new(limiter::limiter(c)?)),
        "set" => Statement::Set(set::settings(c)?),
        "table" => Statement::Table(Box::new(table(c)?)),
        "altq" => Statement::Altq(altq::altq(c, env)?),
        "queue" => Statement::Queue(Box::new(altq::queue(c)?)),
        "antispoof" => Statement::Antispoof(antispoof(c)?),
        "include" => {
            c.skip();
            let file = c.string("the name of a file")?;
            Statement::Include(At::new(file.at, file.value.to_owned()))
        }
        other => {
            return Err(Fault::new(at, format!("syntax error: unknown statement `{other}`")).help(
                "a statement begins with a macro name, set, table, altq, queue, nat, rdr, binat, scrub, antispoof, \
                 anchor, include, pass, block or match",
            ));
        }
    })
}

/// `load anchor name from "file"`
fn load_anchor(c: &mut Cursor) -> Parsed<Statement> {
    let at = c.at();
    c.note(at, "load anchor");
    c.expect("load")?;
    c.expect("anchor")?;
    let Some(name) = filter::anchor_name(c)? else { return Err(c.expected("the name of an anchor")) };
    if name.value.ends_with('*') {
        return Err(Fault::new(name.at, "rules are loaded into one anchor, not into a wildcard"));
    }
    c.expect("from")?;
    let file = c.string("the name of a file")?;
    Ok(Statement::LoadAnchor { name, file: At::new(file.at, file.value.to_owned()) })
}

/// `name = value`; several words become one value with a space between.
fn macro_definition(c: &mut Cursor) -> Parsed<Statement> {
    let name = c.string("the name of a macro")?;
    if !name.value.chars().all(|ch| ch.is_alphanumeric() || ch == '_') {
        return Err(Fault::new(name.at, format!("`{}` is no name for a macro", name.value))
            .help("letters, digits and _"));
    }
    c.expect_sym("=")?;
    let mut words = Vec::new();
    while !c.is_done() {
        if c.is_sym("{") {
            return Err(c.expected("a value").help("quote a list: name = \"{ a, b }\""));
        }
        words.push(c.string("a value")?.value);
    }
    if words.is_empty() {
        return Err(c.expected("a value"));
    }
    Ok(Statement::Macro { name: name.value.to_owned(), value: words.join(" ") })
}

fn table(c: &mut Cursor) -> Parsed<TableDef> {
    c.expect("table")?;
    let name = host::table_name(c)?;
    let mut table = TableDef { name, constant: false, persist: false, counters: false, parts: Vec::new() };
    while !c.is_done() {
        if c.is_sym("{") {
            table.parts.push(TablePart::List(table_entries(c)?));
        } else if c.accept("const") {
            table.constant = true;
        } else if c.accept("persist") {
            table.persist = true;
        } else if c.accept("counters") {
            table.counters = true;
        } else if c.accept("file") {
            let file = c.string("the name of a file")?;
            let name = At::new(file.at, file.value.to_owned());
            table.parts.push(TablePart::File { name, entries: Vec::new() });
        } else {
            return Err(c.expected("`{`, file, const, persist or counters"));
        }
    }
    Ok(table)
}

/// `{ }` is allowed here.
fn table_entries(c: &mut Cursor) -> Parsed<Vec<HostDef>> {
    let mut entries = Vec::new();
    c.expect_sym("{")?;
    loop {
        c.skip_newlines();
        if c.accept_sym("}") {
            return Ok(entries);
        }
        entries.push(host::host(c, false)?);
        c.skip_newlines();
        c.accept_sym(",");
    }
}

/// `antispoof [log] [quick] for if|{ if } [inet|inet6] [label l]`
fn antispoof(c: &mut Cursor) -> Parsed<Antispoof> {
    let at = c.at();
    c.expect("antispoof")?;
    let (log, quick) = filter::log_quick(c)?;
    c.expect("for")?;
    let on = c.list(|c| {
        let at = c.at();
        let dynamic = c.accept_sym("(");
        let name = c.string("the name of an interface")?.value.to_owned();
        if dynamic {
            c.expect_sym(")")?;
        }
        Ok(At::new(at, (dynamic, name)))
    })?;
    let mut def = Antispoof {
        at,
        log,
        quick,
        on,
        family: filter::family(c),
        labels: Vec::new(),
        ridentifier: 0,
        rtable: None,
    };
    while !c.is_done() {
        let at = c.at();
        if c.accept("label") {
            def.labels.push(option::label(c)?);
        } else if c.accept("ridentifier") {
            def.ridentifier = c.number::<u32>("an identifier")?.value;
        } else if c.accept("rtable") {
            c.note(at, "rtable");
            def.rtable = Some(c.number::<u32>("a routing table")?.value);
        } else {
            return Err(c.expected("label, ridentifier or rtable"));
        }
    }
    Ok(def)
}
