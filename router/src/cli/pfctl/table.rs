//! `pfctl -t TABLE -T COMMAND` in pfctl's own words. Exit status: 0, and 2 if not all addresses of `test` are in.

use super::{
    Ctl, ask,
    names::{Names, in_table},
    read,
};
use crate::{
    cli::{
        Exit,
        ask::{Failure, answer, put},
    },
    control::{
        pf::{
            AddressFile, EntryReport, PfRequest, TableCommand, TableCount, TableInfoReport, TableReport,
            TableRequest,
        },
        proto::Request,
    },
};
use std::{collections::BTreeMap, fmt::Write};

impl Ctl<'_> {
    pub(super) fn table(&self, word: &str) -> Result<Exit, Failure> {
        let usage = |text: &str| Failure::Which(text.to_owned());
        let table = self.args.table.clone().ok_or_else(|| usage("-T takes a table: -t TABLE"))?;
        let command = self.command(word)?;
        let file = self.address_file()?;
        let request =
            TableRequest { anchor: self.anchor().path, table, dummy: self.args.check, command, file };
        let report = ask!(self.at, PfRequest::Table(request.clone()), Table);
        if self.at.json {
            self.print("table", &report, String::new)?;
        } else {
            for line in said(&request.command, &report) {
                self.tell(&line);
            }
            let mut text = entries(&request.command, &report, self.args.verbose);
            if self.args.reverse && matches!(request.command, TableCommand::Show) {
                let mut names = Names::default();
                text = in_table(&text, |address| names.of(address).map(str::to_owned));
            }
            put(text.as_bytes())?;
        }
        let tested = matches!(request.command, TableCommand::Test(_));
        Ok(if tested && report.matched < report.named { Exit::Usage } else { Exit::Good })
    }

    fn command(&self, word: &str) -> Result<TableCommand, Failure> {
        let alone = |command: TableCommand| {
            if self.args.addresses.is_empty() && self.args.file.is_none() {
                Ok(command)
            } else {
                Err(Failure::Which(format!("-T {word} takes no addresses")))
            }
        };
        let addresses = || self.args.addresses.clone();
        match word {
            "show" => alone(TableCommand::Show),
            "flush" => alone(TableCommand::Flush),
            "kill" => alone(TableCommand::Kill),
            "reset" => alone(TableCommand::Reset),
            "add" => Ok(TableCommand::Add(addresses())),
            "delete" => Ok(TableCommand::Delete(addresses())),
            "replace" => Ok(TableCommand::Replace(addresses())),
            "test" => Ok(TableCommand::Test(addresses())),
            "zero" => Ok(TableCommand::Zero(addresses())),
            "expire" => match &self.args.addresses[..] {
                [age] if self.args.file.is_none() => {
                    let age = age
                        .parse()
                        .map_err(|_| Failure::Which(format!("expiry time: {age} is no number")))?;
                    Ok(TableCommand::Expire(age))
                }
                _ => Err(Failure::Which("-T expire takes a number of seconds".into())),
            },
            _ => Err(Failure::Which(format!("unknown command '{word}' of -T"))),
        }
    }

    /// The file of more addresses than the command line has.
    fn address_file(&self) -> Result<Option<AddressFile>, Failure> {
        let Some(file) = &self.args.file else { return Ok(None) };
        let name = if file.as_os_str() == "-" { "stdin".into() } else { file.display().to_string() };
        Ok(Some(AddressFile { name, text: read(file)? }))
    }
}

/// What pfctl says was done.
fn said(command: &TableCommand, r: &TableReport) -> Vec<String> {
    let mut lines = Vec::new();
    if r.created {
        lines.push("1 table created.".to_owned());
    }
    let part = |n: usize, what: &str| format!("{n}/{} addresses {what}.", r.named);
    match command {
        TableCommand::Show => {}
        TableCommand::Add(_) => lines.push(part(r.added, "added")),
        TableCommand::Delete(_) => lines.push(part(r.deleted, "deleted")),
        TableCommand::Test(_) => lines.push(part(r.matched, "match")),
        TableCommand::Expire(_) => lines.push(part(r.deleted, "expired")),
        TableCommand::Zero(_) if r.named == 0 => lines.push("1 table/stats cleared.".to_owned()),
        TableCommand::Zero(_) => lines.push(part(r.cleared, "cleared")),
        TableCommand::Reset => lines.push(format!("{}/{} stats cleared.", r.cleared, r.named)),
        TableCommand::Flush => lines.push(format!("{} addresses deleted.", r.deleted)),
        TableCommand::Kill => lines.push("1 table deleted.".to_owned()),
        TableCommand::Replace(_) => {
            let changes = [(r.added, "added"), (r.deleted, "deleted"), (r.changed, "changed")];
            let some = changes.iter().filter(|(n, _)| *n > 0);
            lines.extend(some.map(|(n, what)| format!("{n} addresses {what}.")));
            if changes.iter().all(|(n, _)| *n == 0) {
                lines.push("no changes.".to_owned());
            }
        }
    }
    lines
}

/// The entries that are printed.
fn entries(command: &TableCommand, r: &TableReport, verbose: u8) -> String {
    let mut out = String::new();
    for e in &r.entries {
        let changed = e.feedback != " ";
        match command {
            TableCommand::Show => {
                let _ = writeln!(out, "{}", line(e));
                if verbose > 0 {
                    statistics(&mut out, e);
                }
            }
            TableCommand::Test(_) if verbose > 1 => {
                let decided = e.decided_by.as_deref().map_or("\t nomatch".to_owned(), |by| {
                    format!("\t{}{by}", if by.starts_with('!') { "" } else { " " })
                });
                let _ = writeln!(out, "{}{decided}", line(e));
            }
            _ if verbose > 1 || (verbose > 0 && changed) => {
                let _ = writeln!(out, "{}", line(e));
            }
            _ => {}
        }
    }
    out
}

fn line(e: &EntryReport) -> String {
    format!("{} {}{}", e.feedback, if e.not { '!' } else { ' ' }, e.address)
}

fn statistics(out: &mut String, e: &EntryReport) {
    let _ = writeln!(out, "\tCleared:     {}", date(e.cleared));
    counters(out, &e.counters, &["Block", "Pass"]);
}

fn counters(out: &mut String, all: &BTreeMap<String, TableCount>, fates: &[&str]) {
    for direction in ["In", "Out"] {
        for fate in fates {
            let name = format!("{direction}/{fate}");
            if let Some(c) = all.get(&name) {
                let name = name + ":";
                let _ = writeln!(out, "\t{name:<12} [ Packets: {:<18} Bytes: {:<18} ]", c.packets, c.bytes);
            }
        }
    }
}

/// A moment as ctime(3) has it.
fn date(seconds: u64) -> String {
    let moment = jiff::Timestamp::from_second(seconds as i64).unwrap_or_default();
    moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// `-s Tables`.
pub(super) fn list(all: &[TableInfoReport], verbose: u8) -> String {
    let mut out = String::new();
    for t in all.iter().filter(|t| t.flags.contains('a')) {
        if verbose == 0 {
            let _ = writeln!(out, "{}", t.name);
            continue;
        }
        let _ = write!(out, "{}\t{}", t.flags, t.name);
        if !t.anchor.is_empty() {
            let _ = write!(out, "\t{}", t.anchor);
        }
        let _ = writeln!(out);
        if verbose > 1 {
            let _ = writeln!(out, "\tAddresses:   {}", t.addresses);
            let _ = writeln!(out, "\tCleared:     {}", date(t.cleared));
            let _ = writeln!(out, "\tReferences:  [ Anchors: {:<18} Rules: {:<18} ]", 0, t.rules);
            counters(&mut out, &t.counters, &["Block", "Pass", "XPass"]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(feedback: &str, address: &str, not: bool) -> EntryReport {
        EntryReport { feedback: feedback.into(), address: address.into(), not, ..EntryReport::default() }
    }

    #[test]
    fn changes_are_told_in_pfctls_words() {
        let report = TableReport {
            named: 3,
            created: true,
            added: 2,
            entries: vec![entry("A", "10.0.0.1", false), entry(" ", "10.0.0.2", true)],
            ..TableReport::default()
        };
        let add = TableCommand::Add(Vec::new());
        assert_eq!(said(&add, &report), ["1 table created.", "2/3 addresses added."]);
        assert_eq!(entries(&add, &report, 0), "");
        assert_eq!(entries(&add, &report, 1), "A  10.0.0.1\n");
        assert_eq!(entries(&add, &report, 2), "A  10.0.0.1\n  !10.0.0.2\n");
        let replace = TableCommand::Replace(Vec::new());
        assert_eq!(said(&replace, &TableReport::default()), ["no changes."]);
        let report = TableReport { added: 1, deleted: 2, ..TableReport::default() };
        assert_eq!(said(&replace, &report), ["1 addresses added.", "2 addresses deleted."]);
    }

    #[test]
    fn a_test_shows_what_decided_and_a_listing_what_was_counted() {
        let decided = EntryReport { decided_by: Some("10.0.0.0/8".into()), ..entry("M", "10.0.0.1", false) };
        let report =
            TableReport { entries: vec![decided, entry(" ", "11.0.0.1", false)], ..TableReport::default() };
        let test = TableCommand::Test(Vec::new());
        assert_eq!(entries(&test, &report, 2), "M  10.0.0.1\t 10.0.0.0/8\n   11.0.0.1\t nomatch\n");
        let count = TableCount { packets: 3, bytes: 180 };
        let counters = [("In/Pass".to_owned(), count), ("In/Block".to_owned(), TableCount::default())].into();
        let shown = EntryReport { counters, ..entry(" ", "10.0.0.0/8", true) };
        let report = TableReport { entries: vec![shown], ..TableReport::default() };
        assert_eq!(entries(&TableCommand::Show, &report, 0), "  !10.0.0.0/8\n");
        let verbose = entries(&TableCommand::Show, &report, 1);
        assert!(
            verbose.ends_with(
                "\tIn/Block:    [ Packets: 0                  Bytes: 0                  ]\n\
             \tIn/Pass:     [ Packets: 3                  Bytes: 180                ]\n"
            ),
            "{verbose}"
        );
    }

    #[test]
    fn tables_that_are_only_spoken_of_are_not_listed() {
        let table = |name: &str, flags: &str| TableInfoReport {
            name: name.into(),
            flags: flags.into(),
            ..TableInfoReport::default()
        };
        let all = [table("known", "-pa-r--"), table("spoken_of", "----r--")];
        assert_eq!(list(&all, 0), "known\n");
        assert_eq!(list(&all, 1), "-pa-r--\tknown\n");
    }
}
