//! SAs with an implicit IV (RFC 8750): a key of theirs is good for one SA, once. (That no two SAs have one is so of all keys.)

use super::{Checker, ValidSa};
use crate::conf::ConfError;
use std::sync::Arc;

impl Checker<'_> {
    /// Keys that stand in a file come again, and numbers begin again with them.
    pub(super) fn warn_of_implicit(&mut self) {
        let is_new = |sa: &&ValidSa| sa.config.suite.is_implicit() && sa.origin.file == *self.file;
        let implicit = self.valid.sas.iter().filter(is_new);
        let warnings = implicit.map(|sa| ConfError {
            file: Arc::clone(&sa.origin.file),
            place: sa.origin.place,
            message: format!("{} has implicit IVs: this key must never be added again", sa.config.suite),
            help: "it is for key managers; in a file an algorithm without -iiv".to_owned(),
        });
        self.valid.warnings.extend(warnings);
    }
}
