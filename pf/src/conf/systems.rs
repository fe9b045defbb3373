//! `os "..."` and `set fingerprints`: the file of fingerprints is read, and every name must be one of its systems.
//!
//! A line of that file that is wrong is left out with a warning, as pfctl does. The rules of an anchor speak of the
//! fingerprints that are in force, and so does a text that changes only the options that it sets.

use std::{path::Path, sync::Arc};

use super::{
    File, Loader,
    ast::{At, Setting, Statement},
    error::{Fault, Pos},
};
use crate::osfp::Fingerprints;

/// What has been met of fingerprints.
#[derive(Default)]
pub(super) struct Systems {
    /// The names that rules ask for.
    named: Vec<At<String>>,
    /// What `set fingerprints` has read.
    read: Option<Arc<Fingerprints>>,
    pub(super) warnings: Vec<Fault>,
}

impl Loader<'_> {
    /// Notes what a statement of a file says of fingerprints.
    pub(super) fn systems(&mut self, statement: &Statement, file: u16) {
        match statement {
            Statement::Rule(def) => self.systems.named.extend(def.os.iter().cloned()),
            Statement::Set(settings) => {
                for setting in settings {
                    if let Setting::Fingerprints(name) = &setting.value {
                        self.set_fingerprints(name, setting.at, file);
                    }
                }
            }
            _ => {}
        }
    }

    fn set_fingerprints(&mut self, name: &str, at: Pos, file: u16) {
        let from = self.files.get(usize::from(file)).and_then(|f| f.path.parent());
        let path = from.map_or_else(|| name.into(), |dir| dir.join(name));
        match self.read_fingerprints(&path) {
            Ok(read) => self.systems.read = Some(read),
            // `-n` may be asked on another machine than the one with the file.
            Err(_) if !self.reading.engines => {}
            Err(error) => {
                self.faults.push(Fault::new(at, format!("`{}` cannot be read: {error}", path.display())));
            }
        }
    }

    /// Reads a file; what is wrong in it becomes a warning at its place.
    fn read_fingerprints(&mut self, path: &Path) -> std::io::Result<Arc<Fingerprints>> {
        let text = std::fs::read_to_string(path)?;
        let (read, wrong) = Fingerprints::parse(&text);
        if !wrong.is_empty() {
            let file = self.files.len() as u16;
            self.files.push(File { path: path.to_owned(), lines: text.lines().map(str::to_owned).collect() });
            let fault = |w: crate::osfp::Wrong| {
                Fault::new(Pos { file, line: w.line, column: w.column }, w.message)
                    .help("the line is left out")
            };
            self.systems.warnings.extend(wrong.into_iter().map(fault));
        }
        Ok(Arc::new(read))
    }

    /// Finds the fingerprints that the rules speak of, and that these are of the systems that they name.
    pub(super) fn check_systems(&mut self) -> Arc<Fingerprints> {
        if let Some(known) = self.systems.read.as_ref().or(self.reading.fingerprints).map(Arc::clone) {
            self.check_names(&known);
            return known;
        }
        let path = self.reading.env.fingerprints.clone();
        let read = path.as_ref().map(|path| self.read_fingerprints(path));
        match read {
            Some(Ok(known)) => {
                self.check_names(&known);
                known
            }
            other => {
                let why = match (path, other) {
                    (Some(path), Some(Err(error))) => format!("{}: {error}", path.display()),
                    _ => "no file of them is known".to_owned(),
                };
                if self.reading.engines {
                    self.refuse_names(&why);
                }
                Arc::default()
            }
        }
    }

    fn check_names(&mut self, known: &Fingerprints) {
        for os in self.systems.named.iter().filter(|os| !known.knows(&os.value)) {
            let fault = Fault::new(os.at, format!("no fingerprint is of `{}`", os.value));
            self.faults
                .push(fault.help("`pfctl -s osfp` shows the systems there are; `unknown` is any other"));
        }
    }

    /// There are no fingerprints: no rule can ask for any but `unknown`.
    fn refuse_names(&mut self, why: &str) {
        let nothing = Fingerprints::default();
        for os in self.systems.named.iter().filter(|os| !nothing.knows(&os.value)) {
            let fault =
                Fault::new(os.at, format!("there are no fingerprints to tell `{}` by: {why}", os.value));
            self.faults.push(fault.help("`set fingerprints \"FILE\"` names a file in the format of pf.os"));
        }
    }
}
