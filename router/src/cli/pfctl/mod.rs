//! `softnet pfctl`, after pfctl(8): its flags, its words, its order of doing things. What is printed as an answer goes to
//! standard output; what was done is said on standard error, and not at all with `-q`.

mod check;
mod document;
mod kinds;
mod names;
mod rules;
mod show;
mod table;

use super::{
    Exit,
    ask::{At, Failure, answer, put},
    capture::{self, Capture},
};
use crate::control::{
    pf::{AnchorName, DoneReport, ExplainReport, Flush, Kill, Part, PfLoad, PfRequest},
    proto::Request,
};
use ::pf::{conf::Optimizer, debug::Level};
use clap::{ArgAction, Args};
use document::Document;
use kinds::{FlushKind, Show, flush_kind, flush_word, show_kind};
use serde::Serialize;
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
    /// Say what the rules do to a packet, and which of them: `in on lan0 proto tcp from 192.0.2.9 port 4000 to
    /// 198.51.100.1 port 443 flags S`; with -n -f FILE by those of the file
    #[arg(long, value_name = "PACKET")]
    explain: Option<String>,
    /// Say more; twice: with numbers
    #[arg(short, action = ArgAction::Count)]
    verbose: u8,
    /// Show the names of addresses, of states and tables
    #[arg(short = 'r')]
    reverse: bool,
    /// Ask no name server about a ruleset: nobody ever does, names are those of the hosts that the router knows
    #[arg(short = 'S')]
    no_dns: bool,
    /// Show ports of rules as numbers
    #[arg(short = 'P')]
    numeric: bool,
    /// Say only what was asked for, and errors
    #[arg(short)]
    quiet: bool,
    /// Ruleset optimization: none, basic or profile, whatever the file says; else basic
    #[arg(short = 'o', value_name = "LEVEL", value_parser = optimizer)]
    optimizer: Option<Optimizer>,
    /// Load only filter rules
    #[arg(short = 'R')]
    rules: bool,
    /// Load only nat, rdr and binat rules
    #[arg(short = 'N')]
    nat: bool,
    /// Load only queues
    #[arg(short = 'A')]
    altq: bool,
    /// Let rule counters begin at 0
    #[arg(short = 'z')]
    zero: bool,
    /// Keep options that the file does not set
    #[arg(short = 'm')]
    merge: bool,
    /// Load only options
    #[arg(short = 'O')]
    options: bool,
    /// Define a macro
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = define)]
    define: Vec<(String, String)>,
    /// Act on an anchor; with `/*` behind it, on those below it, too
    #[arg(short, value_name = "ANCHOR")]
    anchor: Option<String>,
    /// Only what is bound to this interface
    #[arg(short, value_name = "INTERFACE")]
    interface: Option<String>,
    /// Show: ether, nat, queue, rules, Anchors, states, Sources, info, Running, labels, timeouts, memory, Tables, osfp,
    /// Interfaces, LimiterStates, LimiterSrcs, creatorids, all
    #[arg(short, value_name = "WHAT", value_parser = show_kind)]
    show: Option<Show>,
    /// How much pf says in the router's log: none, urgent, misc or loud
    #[arg(short = 'x', value_name = "LEVEL", value_parser = level)]
    debug: Option<Level>,
    /// Flush: ether, nat, queue, rules, states, Sources, info, Tables, osfp, Reset, all
    #[arg(short = 'F', value_name = "WHAT", value_parser = flush_kind)]
    flush: Option<FlushKind>,
    /// End states: HOST [-k HOST], `label` -k LABEL, `id` -k ID, `nat` -k HOST, `gateway` -k HOST,
    /// `key` -k KEY; with -I ID, `source` -k HOST: its source limiter forgets it
    #[arg(short, value_name = "HOST")]
    kill: Vec<String>,
    /// The source limiter of `-k source`
    #[arg(short = 'I', value_name = "ID", requires = "kill")]
    limiter: Option<u8>,
    /// Forget source nodes of a host or network [and with an address of another: -K HOST]
    #[arg(short = 'K', value_name = "HOST")]
    kill_sources: Vec<String>,
    /// Write packets that rules log to pflog0 into a file, pcapng, until interrupted; `softnet capture` does more
    #[arg(long, value_name = "FILE")]
    pflog: Option<PathBuf>,
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

fn optimizer(word: &str) -> Result<Optimizer, String> {
    Optimizer::of(word).ok_or_else(|| "there are none, basic and profile".to_owned())
}

/// A beginning is enough.
fn level(word: &str) -> Result<Level, String> {
    let found = Level::ALL.iter().find(|(_, keyword)| !word.is_empty() && keyword.starts_with(word));
    found.map(|&(level, _)| level).ok_or_else(|| "there are none, urgent, misc and loud".to_owned())
}

fn define(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a macro is defined as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Asks, and takes the answer of one kind out.
macro_rules! ask {
    ($at:expr, $request:expr, $kind:ident) => {
        match answer!($at.ask(&Request::Pf(Box::new($request)))?, Pf) {
            crate::control::pf::PfAnswer::$kind(report) => report,
            _ => return Err(crate::cli::ask::Failure::Unexpected),
        }
    };
}
use ask;

/// Runs the command.
pub fn run(at: &At, args: &Pfctl) -> Result<Exit, Failure> {
    let ctl = Ctl { at, args, document: Document::default() };
    let done = ctl.run();
    // What was done before something failed is told, too.
    if let Some(document) = ctl.document.finish() {
        at.print(&document, String::new)?;
    }
    done
}

/// `-I ID -k source -k HOST`
fn limited_source(said: &[String]) -> Result<String, Failure> {
    match said {
        [word, host] if word == "source" => Ok(host.clone()),
        _ => Err(Failure::Which("-I takes -k source -k HOST".into())),
    }
}

/// `-k`: one host, two hosts, or a word and what it is about.
fn kill(said: &[String]) -> Result<Option<Kill>, Failure> {
    let kill = match said {
        [] => return Ok(None),
        [word, label] if word == "label" => Kill::Label(label.clone()),
        [word, id] if word == "id" => Kill::Id(id.clone()),
        [word, host] if word == "nat" => Kill::Nat(host.clone()),
        [word, key] if word == "key" => Kill::Key(key.clone()),
        [word, host] if word == "gateway" => Kill::Gateway(host.clone()),
        [word, ..] if word == "source" => {
            return Err(Failure::Which("-k source takes -k HOST and the number of a limiter, -I ID".into()));
        }
        [word] if ["label", "id", "nat", "key", "gateway"].contains(&word.as_str()) => {
            return Err(Failure::Which(format!("-k {word} takes a further -k")));
        }
        [from] => Kill::Hosts(from.clone(), None),
        [from, to] => Kill::Hosts(from.clone(), Some(to.clone())),
        _ => return Err(Failure::Which("-k can be said twice, not more often".into())),
    };
    Ok(Some(kill))
}

/// Anchors without a name are the business of the file that they stand in.
fn may_modify(args: &Pfctl) -> Result<(), Failure> {
    let anchor = args.anchor.as_deref().unwrap_or("");
    let modifies = (args.file.is_some() && !args.check) || args.flush.is_some();
    if modifies && (anchor.starts_with('_') || anchor.contains("/_")) {
        let text = "anchor names beginning with '_' cannot be modified from the command line";
        return Err(Failure::Which(text.into()));
    }
    Ok(())
}

struct Ctl<'a> {
    at: &'a At,
    args: &'a Pfctl,
    /// What is printed with `--json`.
    document: Document,
}

impl Ctl<'_> {
    /// Everything that was asked for, in pfctl's order.
    fn run(&self) -> Result<Exit, Failure> {
        let Ctl { at, args, .. } = self;
        may_modify(args)?;
        if let (Some(file), Some(env)) = (&args.file, &args.env) {
            return self.check(file, env);
        }
        if let Some(packet) = &args.explain {
            return self.explain(packet);
        }
        if args.disable {
            self.order("disable", PfRequest::Enable(false))?;
        }
        if let Some(kind) = args.flush {
            self.flush(kind)?;
        }
        self.kill()?;
        let loads_tables = args.command.as_deref() == Some("load");
        let mut exit = Exit::Good;
        if let Some(command) = args.command.as_deref().filter(|_| !loads_tables) {
            exit = self.table(command)?;
        } else if let Some(file) = &args.file {
            self.load(file, loads_tables)?;
        } else if loads_tables {
            return Err(Failure::Which("-T load takes the tables of -f FILE".into()));
        }
        if let Some(kind) = args.show {
            self.show(kind)?;
        }
        if args.zero {
            self.order("zero", PfRequest::ClearCounters(self.anchor()))?;
        }
        if args.enable {
            self.order("enable", PfRequest::Enable(true))?;
        }
        if let Some(level) = args.debug {
            self.order("debug", PfRequest::Debug(level))?;
        }
        if let Some(file) = &args.pflog {
            return capture::run(at, &Capture::all("pflog0", file.clone()));
        }
        Ok(exit)
    }

    /// `-k`, `-K`.
    fn kill(&self) -> Result<(), Failure> {
        let args = self.args;
        if let Some(id) = args.limiter {
            self.order("kill", PfRequest::ForgetSource(id, limited_source(&args.kill)?))?;
        } else if let Some(which) = kill(&args.kill)? {
            self.order("kill", PfRequest::Kill { which, interface: args.interface.clone() })?;
        }
        let (from, to) = match &args.kill_sources[..] {
            [] => return Ok(()),
            [from] => (from, None),
            [from, to] => (from, Some(to.clone())),
            _ => return Err(Failure::Which("-K can be said twice, not more often".into())),
        };
        self.order("kill_sources", PfRequest::KillSources(from.clone(), to))
    }

    /// Prints an answer: now as text, or when all is done as a part of the document.
    fn print(
        &self,
        name: &str,
        report: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.at.json { self.document.add(name, report) } else { put(text().as_bytes()) }
    }

    fn anchor(&self) -> AnchorName {
        let said = self.args.anchor.as_deref().unwrap_or("");
        let plain = said.strip_suffix('*').unwrap_or(said);
        AnchorName { path: plain.trim_matches('/').to_owned(), recurse: plain.len() < said.len() }
    }

    /// Says on standard error what was done.
    fn tell(&self, text: &str) {
        if !self.args.quiet {
            eprintln!("{text}");
        }
    }

    /// Has something done and says so.
    fn order(&self, name: &str, request: PfRequest) -> Result<(), Failure> {
        let done: DoneReport = ask!(self.at, request, Done);
        if self.at.json {
            return self.document.add(name, &done);
        }
        // About `-z` pfctl says nothing.
        if !done.text.is_empty() {
            self.tell(&done.text);
        }
        Ok(())
    }

    fn flush(&self, kind: FlushKind) -> Result<(), Failure> {
        let all = [
            Flush::Ether,
            Flush::Rules,
            Flush::Nat,
            Flush::Tables,
            Flush::Queues,
            Flush::States,
            Flush::Sources,
            Flush::Info,
            Flush::Fingerprints,
        ];
        let one;
        let kinds = match kind {
            FlushKind::One(flush) => {
                one = [flush];
                &one[..]
            }
            // Queues and states are those of the whole filter.
            FlushKind::All if self.args.anchor.is_some() => &all[..4],
            FlushKind::All => &all[..],
        };
        for &what in kinds {
            let interface = self.args.interface.clone();
            let name = format!("flush_{}", flush_word(what));
            self.order(&name, PfRequest::Flush { what, anchor: self.anchor(), interface })?;
        }
        Ok(())
    }

    /// The file as it is sent to the router.
    fn load_of(&self, file: &PathBuf, tables_only: bool) -> Result<PfLoad, Failure> {
        let text = read(file)?;
        let parts = [
            (self.args.options, Part::Options),
            (self.args.rules, Part::Rules),
            (self.args.nat, Part::Nat),
            (self.args.altq, Part::Queues),
            (tables_only, Part::Tables),
        ];
        Ok(PfLoad {
            name: std::path::absolute(file).unwrap_or_else(|_| file.clone()).display().to_string(),
            text,
            anchor: self.anchor().path,
            check: self.args.check,
            numeric: self.args.numeric,
            merge: self.args.merge,
            defines: self.args.define.clone(),
            parts: parts.into_iter().filter_map(|(is, part)| is.then_some(part)).collect(),
            optimizer: self.args.optimizer,
        })
    }

    fn load(&self, file: &PathBuf, tables_only: bool) -> Result<(), Failure> {
        let load = self.load_of(file, tables_only)?;
        let report = ask!(self.at, PfRequest::Load(load), Loaded);
        report.warnings.iter().for_each(|w| self.tell(w));
        if self.at.json || self.args.verbose > 0 {
            self.print("load", &report, || report.text.clone())?;
        }
        Ok(())
    }

    /// `--explain`: exit status 0 if the packet passes, 1 if not.
    fn explain(&self, packet: &str) -> Result<Exit, Failure> {
        let load = match &self.args.file {
            Some(file) if self.args.check => Some(self.load_of(file, false)?),
            Some(_) => return Err(Failure::Which("--explain asks about a file with -n -f FILE".into())),
            None => None,
        };
        let report = ask!(self.at, PfRequest::Explain { packet: packet.to_owned(), load }, Explained);
        self.print_explained(&report)
    }

    fn print_explained(&self, report: &ExplainReport) -> Result<Exit, Failure> {
        let text = if self.args.verbose > 0 { &report.verbose } else { &report.text };
        self.print("explain", report, || text.clone())?;
        Ok(if report.verdict == "pass" { Exit::Good } else { Exit::No })
    }
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
    fn states_are_killed_by_host_pair_label_or_id() {
        let said = |words: &[&str]| kill(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(said(&["10.0.0.1"]).unwrap(), Some(Kill::Hosts("10.0.0.1".into(), None)));
        assert_eq!(said(&["a", "b"]).unwrap(), Some(Kill::Hosts("a".into(), Some("b".into()))));
        assert_eq!(said(&["label", "web"]).unwrap(), Some(Kill::Label("web".into())));
        assert_eq!(said(&["id", "0f"]).unwrap(), Some(Kill::Id("0f".into())));
        assert_eq!(said(&["gateway", "10/8"]).unwrap(), Some(Kill::Gateway("10/8".into())));
        assert!(said(&["source", "10.0.0.1"]).is_err(), "of which limiter?");
        assert_eq!(limited_source(&["source".into(), "10.0.0.1".into()]).unwrap(), "10.0.0.1");
        assert!(limited_source(&["10.0.0.1".into()]).is_err());
        assert!(said(&["gateway"]).is_err() && said(&["id"]).is_err() && said(&["a", "b", "c"]).is_err());
    }

    #[test]
    fn a_beginning_says_the_debug_level() {
        assert_eq!(level("m"), Ok(Level::Misc));
        assert_eq!(level("none"), Ok(Level::None));
        assert!(level("").is_err() && level("x").is_err());
    }

    #[test]
    fn a_macro_of_the_command_line_has_a_name_and_a_value() {
        assert_eq!(define("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(define("a").is_err());
    }
}
