//! `pfctl -t ... -T ...` and `pfctl -s Tables` at the router's end.

use super::Daemon;
use crate::{
    commit::environment,
    control::pf::{
        AnchorName, EntryReport, TableCommand, TableCount, TableInfoReport, TableReport, TableRequest,
    },
};
use pf::{
    addr::Entry,
    conf::{ConfError, table_address, table_file},
    table::{Changes, EntryInfo, Feedback, TableError, TableInfo, Tables, Totals, wall_clock},
};
use std::collections::BTreeMap;

impl Daemon {
    /// Does something to a table; `Err` is what pfctl says.
    pub(super) fn table(&self, request: &TableRequest) -> Result<TableReport, String> {
        let (anchor, name) = (request.anchor.as_str(), request.table.as_str());
        let mut tables = self.router.shared().pf.tables();
        let rehearsal;
        if request.dummy {
            rehearsal = tables.rehearsal(anchor, name);
            tables = &rehearsal;
        }
        let now = wall_clock();
        let done = |named: usize, changes: Result<Changes, TableError>| {
            changes.map(|c| report(named, c)).map_err(|e| e.to_string())
        };
        match &request.command {
            TableCommand::Show => show(tables, anchor, name),
            TableCommand::Test(addresses) => test(tables, anchor, name, &self.entries(addresses, request)?),
            TableCommand::Add(addresses) => {
                let entries = self.entries(addresses, request)?;
                done(entries.len(), tables.add(anchor, name, &entries, now))
            }
            TableCommand::Delete(addresses) => {
                let entries = self.entries(addresses, request)?;
                done(entries.len(), tables.delete(anchor, name, &entries))
            }
            TableCommand::Replace(addresses) => {
                let entries = self.entries(addresses, request)?;
                done(entries.len(), tables.set(anchor, name, &entries, now))
            }
            TableCommand::Flush => done(0, tables.flush(anchor, name)),
            TableCommand::Kill => done(0, tables.kill(anchor, name)),
            TableCommand::Expire(age) => {
                let changes = tables.expire(anchor, name, *age, now);
                done(changes.as_ref().map_or(0, |c| c.each.len()), changes)
            }
            TableCommand::Zero(addresses) if addresses.is_empty() && request.file.is_none() => {
                done(0, tables.zero(anchor, name, None, now))
            }
            TableCommand::Zero(addresses) => {
                let entries = self.entries(addresses, request)?;
                done(entries.len(), tables.zero(anchor, name, Some(&entries), now))
            }
            TableCommand::Reset => reset(tables, anchor, name, now),
        }
    }

    /// All tables of an anchor, and of those below it if they are asked for.
    pub(super) fn tables(&self, anchor: &AnchorName) -> Vec<TableInfoReport> {
        let tables = self.router.shared().pf.tables();
        self.named(anchor).iter().flat_map(|path| tables.list(Some(path))).map(info).collect()
    }

    /// The addresses of a request and of its file; an interface stands for its addresses.
    fn entries(&self, texts: &[String], request: &TableRequest) -> Result<Vec<Entry>, String> {
        let env = environment(&self.files.conf);
        let mut entries = Vec::with_capacity(texts.len());
        for text in texts {
            entries.extend(table_address(&env, text)?);
        }
        if let Some(file) = &request.file {
            let read = table_file(&env, &file.name, &file.text);
            entries.extend(read.map_err(|errors| lines(&errors))?);
        }
        Ok(entries)
    }
}

fn lines(errors: &[ConfError]) -> String {
    errors.iter().map(ConfError::with_caret).collect::<Vec<_>>().join("\n")
}

fn report(named: usize, changes: Changes) -> TableReport {
    let one = |(entry, feedback): (Entry, Feedback)| EntryReport {
        feedback: feedback.letter().into(),
        ..entry_report(&entry)
    };
    TableReport {
        named,
        created: changes.created,
        added: changes.added,
        deleted: changes.deleted,
        changed: changes.changed,
        cleared: changes.cleared,
        matched: 0,
        entries: changes.each.into_iter().map(one).collect(),
    }
}

fn entry_report(entry: &Entry) -> EntryReport {
    EntryReport {
        address: entry.prefix.to_string(),
        not: entry.not,
        feedback: " ".into(),
        ..EntryReport::default()
    }
}

fn show(tables: &Tables, anchor: &str, name: &str) -> Result<TableReport, String> {
    let table = tables.find(anchor, name).ok_or(TableError::NoTable).map_err(|e| e.to_string())?;
    let one = |e: EntryInfo| EntryReport {
        cleared: e.cleared,
        counters: e.counts.as_ref().map_or_else(BTreeMap::new, |c| counters(c, false)),
        ..entry_report(&e.entry)
    };
    Ok(TableReport { entries: table.entries().into_iter().map(one).collect(), ..TableReport::default() })
}

fn test(tables: &Tables, anchor: &str, name: &str, entries: &[Entry]) -> Result<TableReport, String> {
    let table = tables.find(anchor, name).ok_or(TableError::NoTable).map_err(|e| e.to_string())?;
    let mut report = TableReport { named: entries.len(), ..TableReport::default() };
    for entry in entries {
        let decides = table.test(entry);
        let is_in = decides.is_some_and(|e| !e.not);
        report.matched += usize::from(is_in);
        report.entries.push(EntryReport {
            feedback: if is_in { "M" } else { " " }.into(),
            decided_by: decides.map(|e| format!("{}{}", if e.not { "!" } else { "" }, e.prefix)),
            ..entry_report(entry)
        });
    }
    Ok(report)
}

fn reset(tables: &Tables, anchor: &str, name: &str, now: u64) -> Result<TableReport, String> {
    let table = tables.find(anchor, name).ok_or(TableError::NoTable).map_err(|e| e.to_string())?;
    let all = table.entries();
    let used = |e: &&EntryInfo| e.counts.is_some_and(|c| c != Totals::default());
    let used: Vec<Entry> = all.iter().filter(used).map(|e| e.entry).collect();
    let changes = tables.zero(anchor, name, Some(&used), now).map_err(|e| e.to_string())?;
    Ok(report(all.len(), changes))
}

/// What pfctl calls the counters; an entry has none for packets that passed although it is not in.
fn counters(totals: &Totals, whole_table: bool) -> BTreeMap<String, TableCount> {
    let mut all = BTreeMap::new();
    for (direction, fates) in ["In", "Out"].iter().zip(totals) {
        for (fate, &[packets, bytes]) in ["Block", "Pass", "XPass"].iter().zip(fates) {
            if whole_table || *fate != "XPass" {
                all.insert(format!("{direction}/{fate}"), TableCount { packets, bytes });
            }
        }
    }
    all
}

fn info(table: TableInfo) -> TableInfoReport {
    let letters = [
        (table.constant, 'c'),
        (table.persist, 'p'),
        (table.active, 'a'),
        (false, 'i'),
        (table.rules > 0, 'r'),
        (!table.anchor.is_empty(), 'h'),
        (table.counters, 'C'),
    ];
    TableInfoReport {
        flags: letters.into_iter().map(|(is, letter)| if is { letter } else { '-' }).collect(),
        counters: counters(&table.totals, true),
        name: table.name,
        anchor: table.anchor,
        addresses: table.addresses,
        cleared: table.cleared,
        rules: table.rules,
    }
}
