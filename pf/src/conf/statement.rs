//! Grammar of statements: the first word says which.

use super::{
    altq,
    ast::{Antispoof, At, HostDef, Statement, TableDef},
    cursor::Cursor,
    error::{Fault, Parsed},
    filter, host,
    lex::{Line, Tok},
    set, unsupported,
};
use crate::env::Environment;

/// The statement on a line, which is not empty.
pub(crate) fn statement(line: &Line, env: &Environment) -> Parsed<Statement> {
    let mut c = Cursor::new(line);
    if c.is_sym_after("=") {
        return macro_definition(&mut c);
    }
    let at = c.at();
    let word = match c.peek() {
        Some(Tok::Word(word)) => word.as_str(),
        _ => return Err(c.expected("a statement")),
    };
    let statement = match word {
        "pass" | "block" => Statement::Rule(Box::new(filter::rule(&mut c, env)?)),
        "set" => Statement::Set(set::settings(&mut c)?),
        "table" => Statement::Table(Box::new(table(&mut c)?)),
        "altq" => Statement::Altq(altq::altq(&mut c, env)?),
        "queue" => Statement::Queue(Box::new(altq::queue(&mut c)?)),
        "antispoof" => Statement::Antispoof(antispoof(&mut c)?),
        "include" => {
            c.skip();
            let file = c.string("the name of a file")?;
            Statement::Include(At::new(file.at, file.value.to_owned()))
        }
        other => return Err(unsupported::statement(at, other)),
    };
    c.finish()?;
    Ok(statement)
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
    let mut table = TableDef {
        name,
        constant: false,
        persist: false,
        counters: false,
        entries: Vec::new(),
        listed: false,
    };
    while !c.is_done() {
        let at = c.at();
        if c.is_sym("{") {
            table.entries.extend(table_entries(c)?);
            table.listed = true;
        } else if c.accept("const") {
            table.constant = true;
        } else if c.accept("persist") {
            table.persist = true;
        } else if c.accept("counters") {
            table.counters = true;
        } else if c.is_word("file") {
            return Err(Fault::unsupported(at, "file", "tables are read from the configuration only"));
        } else {
            return Err(c.expected("`{`, const, persist or counters"));
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
    let family = filter::family(c);
    let label = if c.accept("label") { Some(c.string("a label")?.value.to_owned()) } else { None };
    Ok(Antispoof { at, log, quick, on, family, label })
}
