//! pf.conf: from text to a checked configuration.
//!
//! ```text
//!   text ── lex ──▶ tokens ── statement, filter, host, set, altq ──▶ ast ── expand ──▶ PfConf
//!                             (grammar, no meaning)                     (lists, names, checks)
//! ```
//!
//! Every stage keeps positions, and a fault on one line does not keep the others from being read: all faults of a file
//! are reported. Nothing here looks at the machine: the [`Environment`] says what interfaces, hosts and services there
//! are. What the language has and Softnet has no engine for is parsed and printed, and a load refuses it by name.

mod addresses;
mod altq;
mod ast;
mod check;
mod combine;
mod cursor;
mod error;
pub(crate) mod ether;
mod expand;
mod filter;
mod host;
mod icmp;
mod keep;
mod label;
mod lex;
mod limiter;
mod option;
mod options;
mod pool;
mod pools;
mod product;
mod resolve;
mod scrub;
mod set;
mod statement;
mod systems;
mod translate;
mod unsupported;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use addresses::{table_address, table_file};
pub use altq::{AltqSpec, Bandwidth, QueueOptions, QueueSpec, Scheduler, ServiceCurve};
pub use combine::Section;
pub use error::{ConfError, Pos};
pub use options::{LIMIT_STATES, Limit, Limits, Optimizer, Options, Reassemble, Syncookies};

use crate::{
    addr::Entry,
    env::Environment,
    limiter::Limiter,
    osfp::Fingerprints,
    rule::{Anchor, Rules},
};
use ast::{At, Statement, TableDef, TablePart};
use cursor::Use;
use error::Fault;
use expand::Expander;
use lex::{Lexer, Macros};

/// A checked configuration.
#[derive(Clone, Debug, Default)]
pub struct PfConf {
    /// The rules of the main ruleset, expanded.
    pub rules: Rules,
    /// The anchors that the configuration fills, in the order in which they are met.
    pub anchors: Vec<Anchor>,
    /// Tables of the main ruleset and of anchors.
    pub tables: Vec<Table>,
    /// Limiters.
    pub limiters: Vec<Limiter>,
    /// What `set` said.
    pub options: Options,
    /// Fingerprints of operating systems.
    pub fingerprints: Arc<Fingerprints>,
    /// Schedulers of interfaces.
    pub altqs: Vec<AltqSpec>,
    /// Queues.
    pub queues: Vec<QueueSpec>,
    /// The files that positions are in.
    pub files: Vec<String>,
    /// What is printed before the rules, in the order of the file: macros, settings, tables, altq, queues.
    pub preamble: Vec<String>,
    /// What is accepted and yet has no effect, for the operator.
    pub warnings: Vec<ConfError>,
}

/// What is read besides the text: the world it speaks of, and how it is to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The world.
    pub env: &'a Environment,
    /// Macros of the command line (`-D name=value`); they win over those of the file.
    pub defines: &'a [(String, String)],
    /// The anchor that the rules go into (`-a`); empty for the main ruleset.
    pub anchor: &'a str,
    /// The fingerprints in force, if the text speaks of them unless it names others: the rules of an anchor do (`pfctl
    /// -a`), and what changes only some options (`pfctl -m`).
    pub fingerprints: Option<&'a Arc<Fingerprints>>,
    /// The options in force, if the text is to change only those that it sets (`pfctl -m`).
    pub options: Option<&'a Options>,
    /// Refuse what has no engine: for a load. Without, it is parsed and can be printed.
    pub engines: bool,
}

/// A table of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The anchor it belongs to; empty for the main ruleset.
    pub anchor: String,
    /// May not be changed later.
    pub constant: bool,
    /// Exists without rules.
    pub persist: bool,
    /// Counts by entry.
    pub counters: bool,
    /// It has neither list nor file, and so keeps what it holds when it is loaded anew; `{ }` makes it empty.
    pub keeps: bool,
    /// Prefixes, in or out, as the lists and files have them.
    pub entries: Vec<Entry>,
}

/// Files that include each other this deep include themselves.
const INCLUDE_DEPTH: usize = 16;
/// Files that load anchors from each other without end stop here.
const MAX_ANCHOR_FILES: usize = 512;

/// Reads and checks a file for a load. Either everything is right, or all that is wrong is reported.
pub fn load_file(
    path: &Path,
    env: &Environment,
    defines: &[(String, String)],
) -> Result<PfConf, Vec<ConfError>> {
    Reading { env, defines, anchor: "", fingerprints: None, options: None, engines: true }.file(path)
}

/// Checks a text for a load; `name` stands for its file in messages, and is where `include` starts from.
pub fn load_text(
    name: &str,
    text: &str,
    env: &Environment,
    defines: &[(String, String)],
) -> Result<PfConf, Vec<ConfError>> {
    Reading { env, defines, anchor: "", fingerprints: None, options: None, engines: true }.text(name, text)
}

/// Reads a file of the whole language, whether there are engines for it or not (`pfctl -n`).
pub fn parse_file(
    path: &Path,
    env: &Environment,
    defines: &[(String, String)],
) -> Result<PfConf, Vec<ConfError>> {
    Reading { env, defines, anchor: "", fingerprints: None, options: None, engines: false }.file(path)
}

/// Reads a text of the whole language, whether there are engines for it or not.
pub fn parse_text(
    name: &str,
    text: &str,
    env: &Environment,
    defines: &[(String, String)],
) -> Result<PfConf, Vec<ConfError>> {
    Reading { env, defines, anchor: "", fingerprints: None, options: None, engines: false }.text(name, text)
}

impl Reading<'_> {
    /// Reads and checks a file.
    pub fn file(self, path: &Path) -> Result<PfConf, Vec<ConfError>> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            vec![ConfError {
                file: path.display().to_string(),
                at: Pos { file: 0, line: 0, column: 0 },
                message: format!("cannot be read: {error}"),
                help: None,
                excerpt: String::new(),
            }]
        })?;
        self.text(&path.display().to_string(), &text)
    }

    /// Checks a text; `name` stands for its file in messages, and is where `include` starts from.
    pub fn text(self, name: &str, text: &str) -> Result<PfConf, Vec<ConfError>> {
        let mut loader = Loader {
            reading: self,
            files: Vec::new(),
            macros: self.defines.iter().cloned().collect(),
            faults: Vec::new(),
            uses: Vec::new(),
            anchors: Vec::new(),
            systems: systems::Systems::default(),
            expander: Expander::new(self.env, self.anchor, self.options),
        };
        loader.file(PathBuf::from(name), text, 0);
        loader.finish()
    }
}

struct File {
    path: PathBuf,
    lines: Vec<String>,
}

struct Loader<'a> {
    reading: Reading<'a>,
    files: Vec<File>,
    macros: Macros,
    faults: Vec<Fault>,
    uses: Vec<Use>,
    /// Files of `load anchor`: read when everything else is. The number is that of the file that names it.
    anchors: Vec<(String, At<String>, u16)>,
    systems: systems::Systems,
    expander: Expander<'a>,
}

impl Loader<'_> {
    fn file(&mut self, path: PathBuf, text: &str, depth: usize) {
        let file = self.files.len() as u16;
        self.files.push(File { path, lines: text.lines().map(str::to_owned).collect() });
        let chars: Vec<char> = text.chars().collect();
        let (mut i, mut at) = (0, Pos { file, line: 1, column: 1 });
        while i < chars.len() {
            let mut lexer = Lexer::new(&chars, i, at, &self.macros);
            let line = lexer.line();
            if line.is_err() {
                lexer.skip_line();
            }
            (i, at) = lexer.stand();
            let line = match line {
                Ok(line) if line.tokens.is_empty() => continue,
                Ok(line) => line,
                Err(fault) => {
                    self.faults.push(fault);
                    continue;
                }
            };
            match statement::statement(&line, self.reading.env) {
                Ok((statement, uses)) => {
                    self.uses.extend(uses);
                    self.statement(statement, file, depth);
                }
                Err(fault) => {
                    // What is in its braces is still read, and its end ends something.
                    if line.begins_rules() {
                        self.expander.open_broken(fault.at);
                    }
                    self.faults.push(fault);
                }
            }
        }
    }

    fn statement(&mut self, statement: Statement, file: u16, depth: usize) {
        match statement {
            Statement::Macro { name, value } => {
                if !self.reading.defines.iter().any(|(n, _)| *n == name) {
                    self.expander.macro_line(&name, &value);
                    self.macros.insert(name, value);
                }
            }
            Statement::Include(name) => self.include(&name, file, depth),
            Statement::LoadAnchor { name, file: from } => {
                self.expander.load_line(&name.value, &from.value);
                let path = self.expander.path_of(&name.value);
                self.anchors.push((path, from, file));
            }
            Statement::Table(mut def) => {
                self.table_files(&mut def, file);
                self.expand(Statement::Table(def));
            }
            other => {
                self.systems(&other, file);
                self.expand(other);
            }
        }
    }

    fn expand(&mut self, statement: Statement) {
        let faults = self.expander.statement(statement);
        self.faults.extend(faults);
    }

    /// Reads the files that a table of file `file` names.
    fn table_files(&mut self, def: &mut TableDef, file: u16) {
        for part in &mut def.parts {
            let TablePart::File { name, entries } = part else { continue };
            let Some((path, text)) = self.open(name, file) else { continue };
            // Only a file in which something is wrong is one that positions are in.
            match addresses::file(self.reading.env, self.files.len() as u16, &text) {
                Ok(read) => *entries = read,
                Err(faults) => {
                    self.faults.extend(faults);
                    self.files.push(File { path, lines: text.lines().map(str::to_owned).collect() });
                }
            }
        }
    }

    /// Reads the files of `load anchor`; one may name others.
    fn load_anchors(&mut self) {
        let mut i = 0;
        while let Some((path, name, file)) = self.anchors.get(i).cloned() {
            i += 1;
            if i > MAX_ANCHOR_FILES {
                self.faults
                    .push(Fault::new(name.at, format!("more than {MAX_ANCHOR_FILES} files of anchors")));
                return;
            }
            self.expander.enter(path);
            self.include(&name, file, 0);
            self.faults.extend(self.expander.leave_all());
        }
    }

    fn include(&mut self, name: &At<String>, file: u16, depth: usize) {
        if depth + 1 >= INCLUDE_DEPTH {
            self.faults.push(Fault::new(name.at, format!("includes more than {INCLUDE_DEPTH} files deep")));
            return;
        }
        if let Some((path, text)) = self.open(name, file) {
            self.file(path, &text, depth + 1);
        }
    }

    /// The path and the text of a file that file `from` names.
    fn open(&mut self, name: &At<String>, from: u16) -> Option<(PathBuf, String)> {
        let from = self.files.get(usize::from(from)).and_then(|f| f.path.parent());
        let path = from.map_or_else(|| PathBuf::from(&name.value), |dir| dir.join(&name.value));
        match std::fs::read_to_string(&path) {
            Ok(text) => Some((path, text)),
            Err(error) => {
                self.faults
                    .push(Fault::new(name.at, format!("`{}` cannot be read: {error}", path.display())));
                None
            }
        }
    }

    fn finish(mut self) -> Result<PfConf, Vec<ConfError>> {
        self.faults.extend(self.expander.leave_all());
        self.load_anchors();
        self.faults.extend(self.expander.check_whole());
        let fingerprints = self.check_systems();
        if self.reading.engines {
            self.faults.extend(unsupported::check(&self.uses));
            self.faults
                .extend(self.expander.check_engines(!self.reading.anchor.trim_matches('/').is_empty()));
        }
        let errors = self.name(&self.faults);
        if !errors.is_empty() {
            return Err(errors);
        }
        let warnings = self.name(&[&self.expander.warnings[..], &self.systems.warnings].concat());
        let files = self.files.iter().map(|file| file.path.display().to_string()).collect();
        Ok(PfConf { fingerprints, files, warnings, ..self.expander.into_conf() })
    }

    /// Faults with the names of their files and the lines they are on, by place.
    fn name(&self, faults: &[Fault]) -> Vec<ConfError> {
        let mut faults = faults.to_vec();
        faults.sort_by_key(|f| f.at);
        let name = |f: Fault| {
            let file = self.files.get(usize::from(f.at.file));
            let excerpt = file.and_then(|file| file.lines.get((f.at.line as usize).checked_sub(1)?));
            let name = file.map_or_else(String::new, |file| file.path.display().to_string());
            f.named(name, excerpt.cloned().unwrap_or_default())
        };
        faults.into_iter().map(name).collect()
    }
}
