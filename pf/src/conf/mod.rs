//! pf.conf: from text to a checked configuration.
//!
//! ```text
//!   text ── lex ──▶ tokens ── statement, filter, host, set, altq ──▶ ast ── expand ──▶ PfConf
//!                             (grammar, no meaning)                     (lists, names, checks)
//! ```
//!
//! Every stage keeps positions, and a fault on one line does not keep the others from being read: all faults of a file
//! are reported. Nothing here looks at the machine: the [`Environment`] says what interfaces, hosts and services there
//! are. What the language has and Softnet has no engine for is recognised and refused by name.

mod altq;
mod ast;
mod check;
mod cursor;
mod error;
mod expand;
mod filter;
mod host;
mod label;
mod lex;
mod resolve;
mod set;
mod statement;
mod unsupported;

use std::path::{Path, PathBuf};

pub use altq::{AltqSpec, Bandwidth, QueueOptions, QueueSpec, Scheduler, ServiceCurve};
pub use error::{ConfError, Pos};

use crate::{
    addr::Entry,
    env::Environment,
    rule::{Reply, Rule},
    timeout::{Timeout, Timeouts},
};
use ast::{At, Statement};
use error::Fault;
use expand::Expander;
use lex::{Lexer, Macros};

/// A checked configuration.
#[derive(Clone, Debug, Default)]
pub struct PfConf {
    /// Filter rules, expanded, in order.
    pub rules: Vec<Rule>,
    /// Tables.
    pub tables: Vec<Table>,
    /// What `set` said.
    pub options: Options,
    /// Schedulers of interfaces.
    pub altqs: Vec<AltqSpec>,
    /// Queues.
    pub queues: Vec<QueueSpec>,
    /// What is printed before the rules, in the order of the file: macros, settings, tables, altq, queues.
    pub preamble: Vec<String>,
    /// What is accepted and yet has no effect, for the operator.
    pub warnings: Vec<ConfError>,
}

/// What `set` said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Interfaces on which pf does nothing.
    pub skip: Vec<String>,
    /// What `block` without a reply does.
    pub block_policy: Reply,
    /// Whether states are bound to their interface.
    pub if_bound: bool,
    /// States at most.
    pub limit_states: u32,
    /// All timeouts, the adaptive pair derived from the limit unless set.
    pub timeouts: Timeouts,
}

/// States at most, unless `set limit states` says.
pub const LIMIT_STATES: u32 = 100_000;

impl Default for Options {
    fn default() -> Options {
        let mut timeouts = Timeouts::default();
        timeouts.adapt(LIMIT_STATES);
        Options {
            skip: Vec::new(),
            block_policy: Reply::Drop,
            if_bound: false,
            limit_states: LIMIT_STATES,
            timeouts,
        }
    }
}

/// A table of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// May not be changed later.
    pub constant: bool,
    /// Exists without rules.
    pub persist: bool,
    /// Counts by entry.
    pub counters: bool,
    /// Prefixes, in or out.
    pub entries: Vec<Entry>,
}

/// Files that include each other this deep include themselves.
const INCLUDE_DEPTH: usize = 16;

/// Reads and checks a file. Either everything is right, or all that is wrong is reported.
pub fn load_file(
    path: &Path,
    env: &Environment,
    defines: &[(String, String)],
) -> Result<PfConf, Vec<ConfError>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        vec![ConfError {
            file: path.display().to_string(),
            at: Pos { file: 0, line: 0, column: 0 },
            message: format!("cannot be read: {error}"),
            help: None,
            excerpt: String::new(),
        }]
    })?;
    load_text(&path.display().to_string(), &text, env, defines)
}

/// Checks a text; `name` stands for its file in messages, and is where `include` starts from.
pub fn load_text(
    name: &str,
    text: &str,
    env: &Environment,
    defines: &[(String, String)],
) -> Result<PfConf, Vec<ConfError>> {
    let mut loader = Loader {
        env,
        files: Vec::new(),
        macros: defines.iter().cloned().collect(),
        fixed: defines.iter().map(|(name, _)| name.clone()).collect(),
        faults: Vec::new(),
        expander: Expander::new(env),
    };
    loader.file(PathBuf::from(name), text, 0);
    loader.finish()
}

struct File {
    path: PathBuf,
    lines: Vec<String>,
}

struct Loader<'a> {
    env: &'a Environment,
    files: Vec<File>,
    macros: Macros,
    /// Macros of the command line, which the file does not change.
    fixed: Vec<String>,
    faults: Vec<Fault>,
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
            let statement = match line {
                Ok(line) if line.tokens.is_empty() => continue,
                Ok(line) => statement::statement(&line, self.env),
                Err(fault) => Err(fault),
            };
            match statement {
                Ok(statement) => self.statement(statement, file, depth),
                Err(fault) => self.faults.push(fault),
            }
        }
    }

    fn statement(&mut self, statement: Statement, file: u16, depth: usize) {
        match statement {
            Statement::Macro { name, value } => {
                if !self.fixed.contains(&name) {
                    self.expander.macro_line(&name, &value);
                    self.macros.insert(name, value);
                }
            }
            Statement::Include(name) => self.include(&name, file, depth),
            other => {
                let faults = self.expander.statement(other);
                self.faults.extend(faults);
            }
        }
    }

    fn include(&mut self, name: &At<String>, file: u16, depth: usize) {
        if depth + 1 >= INCLUDE_DEPTH {
            self.faults.push(Fault::new(name.at, format!("includes more than {INCLUDE_DEPTH} files deep")));
            return;
        }
        let from = self.files.get(usize::from(file)).and_then(|f| f.path.parent());
        let path = from.map_or_else(|| PathBuf::from(&name.value), |dir| dir.join(&name.value));
        match std::fs::read_to_string(&path) {
            Ok(text) => self.file(path, &text, depth + 1),
            Err(error) => {
                self.faults
                    .push(Fault::new(name.at, format!("`{}` cannot be read: {error}", path.display())));
            }
        }
    }

    fn finish(mut self) -> Result<PfConf, Vec<ConfError>> {
        self.faults.extend(self.expander.check_whole());
        let errors = self.name(&self.faults);
        if !errors.is_empty() {
            return Err(errors);
        }
        let warnings = self.name(&self.expander.warnings);
        Ok(PfConf { warnings, ..self.expander.into_conf() })
    }

    /// Faults with the names of their files and the lines they are on, by place.
    fn name(&self, faults: &[Fault]) -> Vec<ConfError> {
        let mut faults = faults.to_vec();
        faults.sort_by_key(|f| f.at);
        let name = |f: Fault| {
            let file = self.files.get(usize::from(f.at.file));
            let excerpt = file.and_then(|file| file.lines.get((f.at.line as usize).checked_sub(1)?));
            ConfError {
                file: file.map_or_else(String::new, |file| file.path.display().to_string()),
                at: f.at,
                message: f.message,
                help: f.help,
                excerpt: excerpt.cloned().unwrap_or_default(),
            }
        };
        faults.into_iter().map(name).collect()
    }
}

impl Options {
    /// The default if the adaptive pair was not set by hand.
    fn derive_adaptive(&mut self, set: &[Timeout]) {
        if !set.contains(&Timeout::AdaptiveStart) && !set.contains(&Timeout::AdaptiveEnd) {
            self.timeouts.adapt(self.limit_states);
        }
    }
}
