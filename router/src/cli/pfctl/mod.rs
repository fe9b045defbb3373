//! `softnet pfctl`, after pfctl(8): its flags, its words, its order of doing things. What is printed as an answer goes to
//! standard output; what was done is said on standard error, and not at all with `-q`.
//!
//! Not here: `-r` (names for addresses), `-S`, `-P`: addresses and ports are printed as the router says them.

mod check;
mod show;
mod table;

use super::{
    Exit,
    ask::{At, Failure, answer},
};
use crate::control::{
    pf::{DoneReport, Flush, Kill, Part, PfLoad, PfRequest},
    proto::Request,
};
use clap::{ArgAction, Args};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// pfctl's flags.
#[derive(Clone, Debug, Default, Args)]
#[command(disable_version_flag = true)]
pub struct Pfctl {
    /// Enable the packet filter
    #[arg(short)]
    enable: bool,
    /// Disable the packet filter
    #[arg(short, conflicts_with = "enable")]
    disable: bool,
    /// Load rules from a file; `-` is standard input
    #[arg(short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Check only, change nothing
    #[arg(short = 'n')]
    check: bool,
    /// With -n: read for the world that this file describes, and ask no router
    #[arg(long, value_name = "FILE", requires_all = ["check", "file"])]
    env: Option<PathBuf>,
    /// Say more; twice: with numbers
    #[arg(short, action = ArgAction::Count)]
    verbose: u8,
    /// Say only what was asked for, and errors
    #[arg(short)]
    quiet: bool,
    /// Ruleset optimization: none
    #[arg(short, value_name = "LEVEL", value_parser = ["none"])]
    optimization: Option<String>,
    /// Load only filter rules
    #[arg(short = 'R')]
    rules: bool,
    /// Load only queues
    #[arg(short = 'A')]
    altq: bool,
    /// Load only options
    #[arg(short = 'O')]
    options: bool,
    /// Define a macro
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = define)]
    define: Vec<(String, String)>,
    /// Act on an anchor
    #[arg(short, value_name = "ANCHOR")]
    anchor: Option<String>,
    /// Only what is bound to this interface
    #[arg(short, value_name = "INTERFACE")]
    interface: Option<String>,
    /// Show: queue, rules, states, info, Running, labels, timeouts, memory, Tables, Interfaces, all
    #[arg(short, value_name = "WHAT", value_parser = show_kind)]
    show: Option<Show>,
    /// Flush: queue, rules, states, Tables, all
    #[arg(short = 'F', value_name = "WHAT", value_parser = flush_kind)]
    flush: Option<FlushKind>,
    /// End states: HOST [-k HOST], `label` -k LABEL, `id` -k ID
    #[arg(short, value_name = "HOST")]
    kill: Vec<String>,
    /// The table of -T
    #[arg(short, value_name = "TABLE", requires = "command")]
    table: Option<String>,
    /// add, delete, replace, show, test, flush, kill, expire, zero, reset, load
    #[arg(short = 'T', value_name = "COMMAND")]
    command: Option<String>,
    /// Addresses of -T
    #[arg(requires = "command")]
    addresses: Vec<String>,
}

/// What `-s` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    Queue,
    Rules,
    States,
    Info,
    Running,
    Labels,
    Timeouts,
    Memory,
    Tables,
    Interfaces,
    All,
}

/// In the order in which pfctl tries them: a beginning is enough.
const SHOWS: [(&str, Show); 11] = [
    ("queue", Show::Queue),
    ("rules", Show::Rules),
    ("states", Show::States),
    ("info", Show::Info),
    ("Running", Show::Running),
    ("labels", Show::Labels),
    ("timeouts", Show::Timeouts),
    ("memory", Show::Memory),
    ("Tables", Show::Tables),
    ("Interfaces", Show::Interfaces),
    ("all", Show::All),
];

/// What `-F` flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlushKind {
    One(Flush),
    All,
}

const FLUSHES: [(&str, FlushKind); 5] = [
    ("queue", FlushKind::One(Flush::Queues)),
    ("rules", FlushKind::One(Flush::Rules)),
    ("states", FlushKind::One(Flush::States)),
    ("Tables", FlushKind::One(Flush::Tables)),
    ("all", FlushKind::All),
];

fn lookup<T: Copy>(kinds: &[(&str, T)], text: &str) -> Result<T, String> {
    let found = kinds.iter().find(|(word, _)| !text.is_empty() && word.starts_with(text));
    found.map(|&(_, kind)| kind).ok_or_else(|| {
        let words: Vec<&str> = kinds.iter().map(|(word, _)| *word).collect();
        format!("there are {}", words.join(", "))
    })
}

fn show_kind(text: &str) -> Result<Show, String> {
    lookup(&SHOWS, text)
}

fn flush_kind(text: &str) -> Result<FlushKind, String> {
    lookup(&FLUSHES, text)
}

fn define(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a macro is defined as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Asks, and takes the answer of one kind out.
macro_rules! ask {
    ($at:expr, $request:expr, $kind:ident) => {
        match answer!($at.ask(&Request::Pf($request))?, Pf) {
            crate::control::pf::PfAnswer::$kind(report) => report,
            _ => return Err(crate::cli::ask::Failure::Unexpected),
        }
    };
}
use ask;

/// Runs the command: everything that was asked for, in pfctl's order.
pub fn run(at: &At, args: &Pfctl) -> Result<Exit, Failure> {
    let ctl = Ctl { at, args };
    if let (Some(file), Some(env)) = (&args.file, &args.env) {
        return ctl.check(file, env);
    }
    if args.disable {
        ctl.order(PfRequest::Enable(false))?;
    }
    if let Some(kind) = args.flush {
        ctl.flush(kind)?;
    }
    if let Some(kill) = kill(&args.kill)? {
        ctl.order(PfRequest::Kill(kill))?;
    }
    let loads_tables = args.command.as_deref() == Some("load");
    let mut exit = Exit::Good;
    if let Some(command) = args.command.as_deref().filter(|_| !loads_tables) {
        exit = ctl.table(command)?;
    } else if let Some(file) = &args.file {
        ctl.load(file, loads_tables)?;
    } else if loads_tables {
        return Err(Failure::Which("-T load takes the tables of -f FILE".into()));
    }
    if let Some(kind) = args.show {
        ctl.show(kind)?;
    }
    if args.enable {
        ctl.order(PfRequest::Enable(true))?;
    }
    Ok(exit)
}

/// `-k`: one host, two hosts, or a word and what it is about.
fn kill(said: &[String]) -> Result<Option<Kill>, Failure> {
    let kill = match said {
        [] => return Ok(None),
        [word, label] if word == "label" => Kill::Label(label.clone()),
        [word, id] if word == "id" => Kill::Id(id.clone()),
        [word] if word == "label" || word == "id" => {
            return Err(Failure::Which(format!("-k {word} takes a further -k")));
        }
        [from] => Kill::Hosts(from.clone(), None),
        [from, to] => Kill::Hosts(from.clone(), Some(to.clone())),
        _ => return Err(Failure::Which("-k can be said twice, not more often".into())),
    };
    Ok(Some(kill))
}

struct Ctl<'a> {
    at: &'a At,
    args: &'a Pfctl,
}

impl Ctl<'_> {
    fn anchor(&self) -> String {
        self.args.anchor.as_deref().unwrap_or("").trim_matches('/').to_owned()
    }

    /// Says on standard error what was done.
    fn tell(&self, text: &str) {
        if !self.args.quiet {
            eprintln!("{text}");
        }
    }

    /// Has something done and says so.
    fn order(&self, request: PfRequest) -> Result<(), Failure> {
        let done: DoneReport = ask!(self.at, request, Done);
        if self.at.json {
            self.at.print(&done, String::new)?;
        } else {
            self.tell(&done.text);
        }
        Ok(())
    }

    fn flush(&self, kind: FlushKind) -> Result<(), Failure> {
        let all = [Flush::Rules, Flush::Queues, Flush::States, Flush::Tables];
        let one;
        let kinds = match kind {
            FlushKind::One(flush) => {
                one = [flush];
                &one[..]
            }
            FlushKind::All => &all[..],
        };
        for &what in kinds {
            if what != Flush::Tables {
                self.main_only("-F")?;
            }
            self.order(PfRequest::Flush { what, anchor: self.anchor() })?;
        }
        Ok(())
    }

    /// What has no engine for one anchor must not fall upon the main ruleset instead.
    fn main_only(&self, option: &str) -> Result<(), Failure> {
        match self.anchor().as_str() {
            "" => Ok(()),
            anchor => Err(Failure::Which(format!(
                "{option} cannot act on the anchor {anchor} alone: load it from pf.conf with \"load anchor\""
            ))),
        }
    }

    fn load(&self, file: &PathBuf, tables_only: bool) -> Result<(), Failure> {
        self.main_only("-f")?;
        let text = read(file)?;
        let parts = [
            (self.args.options, Part::Options),
            (self.args.rules, Part::Rules),
            (self.args.altq, Part::Queues),
            (tables_only, Part::Tables),
        ];
        let load = PfLoad {
            name: std::path::absolute(file).unwrap_or_else(|_| file.clone()).display().to_string(),
            text,
            check: self.args.check,
            defines: self.args.define.clone(),
            parts: parts.into_iter().filter_map(|(is, part)| is.then_some(part)).collect(),
        };
        let report = ask!(self.at, PfRequest::Load(load), Loaded);
        report.warnings.iter().for_each(|w| self.tell(w));
        if self.at.json || self.args.verbose > 0 {
            self.at.print(&report, || report.text.clone())?;
        }
        Ok(())
    }

    fn show(&self, kind: Show) -> Result<(), Failure> {
        let (at, verbose) = (self.at, self.args.verbose);
        match kind {
            Show::Rules => {
                let report = answer!(at.ask(&Request::PfRules)?, Rules);
                at.print(&report, || show::rules(&report, verbose))
            }
            Show::States => {
                let mut report = answer!(at.ask(&Request::PfStates)?, States);
                if let Some(interface) = &self.args.interface {
                    report.retain(|s| s.interface == *interface);
                }
                at.print(&report, || show::states(&report, verbose))
            }
            Show::Queue => {
                let mut samples = show::Samples::default();
                loop {
                    let report = answer!(at.ask(&Request::PfQueues)?, Queues);
                    samples.take(&report);
                    at.print(&report, || show::queues(&report, verbose, &samples))?;
                    // As pfctl does: twice verbose shows rates, every five seconds until it is interrupted.
                    if verbose < 2 || at.json || self.args.show != Some(Show::Queue) {
                        return Ok(());
                    }
                    std::thread::sleep(std::time::Duration::from_secs(show::SAMPLE_SECONDS));
                }
            }
            Show::Info => {
                let report = answer!(at.ask(&Request::PfInfo)?, PfInfo);
                at.print(&report, || report.text.clone())
            }
            Show::Running => {
                let report = answer!(at.ask(&Request::PfInfo)?, PfInfo);
                let word = if report.enabled { "Enabled\n" } else { "Disabled\n" };
                at.print(&report.enabled, || word.to_owned())
            }
            Show::Labels => {
                let report = ask!(at, PfRequest::Labels, Labels);
                at.print(&report, || lines(report.iter().map(|l| l.text.clone())))
            }
            Show::Timeouts => {
                let report = ask!(at, PfRequest::Timeouts, Timeouts);
                at.print(&report, || lines(report.iter().cloned()))
            }
            Show::Memory => {
                let report = ask!(at, PfRequest::Limits, Limits);
                at.print(&report, || {
                    lines(report.iter().map(|l| format!("{:<13} hard limit {:>10}", l.name, l.limit)))
                })
            }
            Show::Interfaces => {
                let report = ask!(at, PfRequest::Interfaces, Interfaces);
                let skip = |skip: bool| if skip && verbose > 0 { " (skip)" } else { "" };
                at.print(&report, || lines(report.iter().map(|i| format!("{}{}", i.name, skip(i.skip)))))
            }
            Show::Tables => {
                let report = ask!(at, PfRequest::Tables { anchor: self.anchor() }, Tables);
                at.print(&report, || table::list(&report, verbose))
            }
            Show::All => self.show_all(),
        }
    }

    fn show_all(&self) -> Result<(), Failure> {
        let each = [
            ("FILTER RULES:", Show::Rules),
            ("ALTQ:", Show::Queue),
            ("STATES:", Show::States),
            ("INFO:", Show::Info),
            ("LABEL COUNTERS:", Show::Labels),
            ("TIMEOUTS:", Show::Timeouts),
            ("LIMITS:", Show::Memory),
            ("TABLES:", Show::Tables),
        ];
        for (n, (title, kind)) in each.into_iter().enumerate() {
            if !self.at.json {
                super::ask::put(format!("{}{title}\n", if n > 0 { "\n" } else { "" }).as_bytes())?;
            }
            self.show(kind)?;
        }
        Ok(())
    }
}

fn lines(all: impl Iterator<Item = String>) -> String {
    all.flat_map(|line| [line, "\n".to_owned()]).collect()
}

/// Reads a file, or standard input for `-`.
fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut f| f.read_to_string(&mut text))
    };
    read.map_err(|e| Failure::Which(format!("{}: {}", file.display(), crate::conf::diag::reason(&e))))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_says_what_to_show_as_in_pfctl() {
        for (text, kind) in [
            ("r", Show::Rules),
            ("s", Show::States),
            ("T", Show::Tables),
            ("t", Show::Timeouts),
            ("memory", Show::Memory),
            ("R", Show::Running),
            ("a", Show::All),
        ] {
            assert_eq!(show_kind(text), Ok(kind), "{text}");
        }
        assert!(show_kind("x").is_err() && show_kind("").is_err());
    }

    #[test]
    fn states_are_killed_by_host_pair_label_or_id() {
        let said = |words: &[&str]| kill(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(said(&["10.0.0.1"]).unwrap(), Some(Kill::Hosts("10.0.0.1".into(), None)));
        assert_eq!(said(&["a", "b"]).unwrap(), Some(Kill::Hosts("a".into(), Some("b".into()))));
        assert_eq!(said(&["label", "web"]).unwrap(), Some(Kill::Label("web".into())));
        assert_eq!(said(&["id", "0f"]).unwrap(), Some(Kill::Id("0f".into())));
        assert!(said(&["id"]).is_err() && said(&["a", "b", "c"]).is_err());
    }

    #[test]
    fn a_macro_of_the_command_line_has_a_name_and_a_value() {
        assert_eq!(define("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(define("a").is_err());
    }
}
