//! `softnet setkey`, after setkey(8) of KAME, as NetBSD and FreeBSD have it. Keys are never told.

use super::{
    Exit,
    ask::{At, Failure, answer, put},
};
use crate::control::{
    client::ClientError,
    proto::{Request, Response, SaReport},
    setkey::{SetkeyAnswer, SetkeyReport, Statements},
};
use clap::Args;
use std::{
    fmt::Write,
    io::{self, Read},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// What to show, or to change.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Setkey {
    /// Dump: security associations
    #[arg(short = 'D', group = "what")]
    dump: bool,
    /// Flush: remove all security associations
    #[arg(short = 'F', group = "what")]
    flush: bool,
    /// Policies instead
    #[arg(short = 'P', conflicts_with_all = ["stdin", "file", "monitor"])]
    policies: bool,
    /// Dead associations as well
    #[arg(short = 'a', requires = "dump")]
    all: bool,
    /// Carry out statements from standard input: all, or none
    #[arg(short = 'c', group = "what")]
    stdin: bool,
    /// Carry out statements from a file that nobody else can read
    #[arg(short = 'f', value_name = "FILE", group = "what")]
    file: Option<PathBuf>,
    /// Print what happens to associations until interrupted
    #[arg(short = 'x', group = "what")]
    monitor: bool,
    /// Check the statements and change nothing
    #[arg(short = 'n', conflicts_with_all = ["dump", "flush", "monitor"])]
    check: bool,
}

/// Runs the command.
pub fn run(at: &At, args: &Setkey) -> Result<Exit, Failure> {
    match (&args.file, args.policies) {
        (Some(path), _) => change(at, &path.display().to_string(), read_private(path)?, args.check),
        _ if args.monitor => monitor(at),
        _ if args.stdin => {
            change(at, "stdin", read_all(&mut io::stdin().lock()).map_err(Failure::Input)?, args.check)
        }
        (_, policies) if args.flush => {
            let text = if policies { "spdflush;" } else { "flush;" };
            change(at, "flush", Zeroizing::new(text.to_owned()), false)
        }
        (_, true) => {
            let report = answer!(at.ask(&Request::Policies)?, Policies);
            at.print(&report, || entries("SPD", report.iter().map(|policy| policy.text.as_str())))?;
            Ok(Exit::Good)
        }
        (_, false) => {
            let report = shown(answer!(at.ask(&Request::Sas)?, Sas), args.all);
            at.print(&report, || associations(&report))?;
            Ok(Exit::Good)
        }
    }
}

fn change(at: &At, file: &str, text: Zeroizing<String>, check: bool) -> Result<Exit, Failure> {
    let said = Statements { file: file.to_owned(), text: text.into(), check };
    let report = answer!(at.ask(&Request::Setkey(said))?, Setkey);
    for warning in &report.warnings {
        eprintln!("softnet: warning: {warning}");
    }
    at.print(&report, || answers(&report))?;
    Ok(Exit::Good)
}

/// Prints events, one a line, as they come.
fn monitor(at: &At) -> Result<Exit, Failure> {
    let mut connection = at.connect()?;
    connection.set_patience(None)?;
    connection.say(&Request::Monitor)?;
    loop {
        let event = match connection.hear()? {
            Response::SaEvent(event) => event,
            Response::End => return Ok(Exit::Good),
            Response::Refused(refusal) => return Err(ClientError::Refused(refusal).into()),
            _ => return Err(Failure::Unexpected),
        };
        let line = if at.json {
            serde_json::to_string(&event).map_err(io::Error::from)?
        } else {
            format!("{} {}", jiff::Zoned::now().strftime("%H:%M:%S%.3f"), event.text())
        };
        put((line + "\n").as_bytes())?;
    }
}

/// Reads a file with keys; refuses one that others can read.
fn read_private(path: &Path) -> Result<Zeroizing<String>, Failure> {
    ipsec::conf::check_private(path).map_err(|e| Failure::Which(e.to_string()))?;
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    std::fs::File::open(path).and_then(|mut file| read_all(&mut file)).map_err(|e| Failure::Input(named(e)))
}

fn read_all(from: &mut impl Read) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    from.read_to_string(&mut text)?;
    Ok(text)
}

/// What setkey prints of questions among the statements.
fn answers(report: &SetkeyReport) -> String {
    report.answers.iter().fold(String::new(), |mut all, answer| {
        let text = match answer {
            SetkeyAnswer::Sas(sas) => associations(sas),
            SetkeyAnswer::Policies(policies) => entries("SPD", policies.iter().map(|p| p.text.as_str())),
        };
        // Writing to a string does not fail.
        let _ = write!(all, "{text}");
        all
    })
}

/// What `-D` shows; with `-a` the dead, too.
fn shown(mut sas: Vec<SaReport>, all: bool) -> Vec<SaReport> {
    sas.retain(|sa| all || sa.state != "dead");
    sas
}

fn associations(sas: &[SaReport]) -> String {
    entries("SAD", sas.iter().map(|sa| sa.text.as_str()))
}

/// Entries one after the other, or setkey's words for none.
pub fn entries<'a>(database: &str, texts: impl Iterator<Item = &'a str>) -> String {
    let all: String = texts.collect();
    if all.is_empty() { format!("No {database} entries.\n") } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn entries_are_told_one_after_the_other() {
        assert_eq!(entries("SAD", ["a b\n\tesp\n", "b a\n\tesp\n"].into_iter()), "a b\n\tesp\nb a\n\tesp\n");
        assert_eq!(entries("SPD", std::iter::empty()), "No SPD entries.\n");
    }

    #[test]
    fn the_dead_are_told_only_to_who_asks_for_all() {
        let sa = |state: &str| SaReport {
            text: format!("a b\n\tstate={state}\n"),
            state: state.into(),
            ..Default::default()
        };
        let sas: Vec<_> = ["larval", "mature", "dying", "dead"].map(sa).into();
        let texts = |all| associations(&shown(sas.clone(), all));
        let living = "a b\n\tstate=larval\na b\n\tstate=mature\na b\n\tstate=dying\n";
        assert_eq!(texts(false), living);
        assert_eq!(texts(true), living.to_owned() + "a b\n\tstate=dead\n");
        assert_eq!(associations(&shown(vec![sa("dead")], false)), "No SAD entries.\n");
    }

    #[test]
    fn a_file_of_keys_that_others_can_read_is_refused() {
        let path = std::env::temp_dir().join(format!("softnet-setkey-{}", std::process::id()));
        std::fs::write(&path, "flush;").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = read_private(&path).unwrap_err();
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
        assert_eq!(refused.exit(), Exit::Usage);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(*read_private(&path).unwrap(), "flush;");
        std::fs::remove_file(&path).unwrap();
        assert!(read_private(&path).is_err());
    }
}
