//! What is wrong with a pf.conf: where, what, and what would be right.

use std::fmt;

/// A place in one of the files of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Pos {
    /// Which file, as an index into the list of files.
    pub file: u16,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A fault in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfError {
    /// Name of the file.
    pub file: String,
    /// Where in it.
    pub at: Pos,
    /// What is wrong.
    pub message: String,
    /// What would be right, if that is known.
    pub help: Option<String>,
    /// The line itself.
    pub excerpt: String,
}

impl ConfError {
    /// The message with the line and a caret under the place, for a terminal.
    pub fn with_caret(&self) -> String {
        let mut pad = String::new();
        for c in self.excerpt.chars().take(self.at.column.saturating_sub(1) as usize) {
            pad.push(if c == '\t' { '\t' } else { ' ' });
        }
        format!("{self}\n  {}\n  {pad}^", self.excerpt)
    }
}

impl fmt::Display for ConfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.at.line, self.at.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfError {}

/// A fault without its file: what the stages of the parser pass on.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) at: Pos,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Fault {
    pub(crate) fn new(at: Pos, message: impl Into<String>) -> Fault {
        Fault { at, message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Fault {
        self.help = Some(help.into());
        self
    }

    /// The fault as it is told, with the name of its file and the line it is on.
    pub(crate) fn named(self, file: String, excerpt: String) -> ConfError {
        ConfError { file, at: self.at, message: self.message, help: self.help, excerpt }
    }

    /// A part of the language for which there is no engine.
    pub(crate) fn unsupported(at: Pos, keyword: &str, why: &str) -> Fault {
        Fault::new(at, format!("`{keyword}` is not supported: {why}"))
    }
}

pub(crate) type Parsed<T> = Result<T, Fault>;
