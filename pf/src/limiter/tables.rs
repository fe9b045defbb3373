//! Sources on their way into the tables of limiters, and out of them.
//!
//! A worker that finds that a source has come to belong into a table, or out of it, reports that, and the control thread
//! does it. What cannot be put in, since a limit of tables is reached, is owed: it is tried again from time to time, until
//! the source is to be taken out.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kern::lock::Leaf;

use crate::addr::Prefix;

/// Changes of tables that may wait for the control thread.
const REPORTS: usize = 4096;

/// A source that is to be put into the table of a limiter, or taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) id: u8,
    pub(super) prefix: Prefix,
    pub(super) add: bool,
}

/// What is to be done about a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableChange {
    pub(crate) table: String,
    pub(crate) prefix: Prefix,
    /// It is to be in; otherwise it is to be out.
    pub(crate) add: bool,
    /// It was tried before, and has been complained of.
    pub(crate) again: bool,
    pub(super) id: u8,
}

impl TableChange {
    pub(super) fn of(report: Report, table: &str, again: bool) -> TableChange {
        let Report { id, prefix, add } = report;
        TableChange { table: table.to_owned(), prefix, add, again, id }
    }
}

/// What has been reported.
#[derive(Debug)]
pub(super) struct Reports {
    heard: Leaf<Vec<Report>>,
    owed: Leaf<Vec<Report>>,
    /// When what is owed was last tried, in seconds.
    tried: AtomicU64,
}

impl Reports {
    pub(super) fn new() -> Reports {
        Reports {
            heard: Leaf::new(Vec::with_capacity(REPORTS)),
            owed: Leaf::new(Vec::new()),
            tried: AtomicU64::new(0),
        }
    }

    /// Tells the control thread, unless it has more to do than it can hear of.
    pub(super) fn tell(&self, report: Report) -> bool {
        self.heard.with(|reports| {
            let heard = reports.len() < REPORTS;
            if heard {
                reports.push(report);
            }
            heard
        })
    }

    /// What has been told, in order.
    pub(super) fn take(&self) -> Vec<Report> {
        let mut heard = Vec::new();
        self.heard.with(|reports| {
            if !reports.is_empty() {
                heard = std::mem::replace(reports, Vec::with_capacity(REPORTS));
            }
        });
        let settles = |owed: &Report| heard.iter().any(|r| (r.id, r.prefix) == (owed.id, owed.prefix));
        self.owed.with(|owed| owed.retain(|o| !settles(o)));
        heard
    }

    /// The same of one limiter, of which then nothing is owed.
    pub(super) fn take_of(&self, id: u8) -> Vec<Report> {
        self.owed.with(|owed| owed.retain(|r| r.id != id));
        self.heard.with(|heard| heard.extract_if(.., |r| r.id == id).collect())
    }

    /// Remembers what could not be done.
    pub(super) fn owe(&self, report: Report) {
        self.owed.with(|owed| owed.push(report));
    }

    /// What is owed, once in each second.
    pub(super) fn take_owed(&self, now: u64) -> Vec<Report> {
        if self.tried.swap(now, Relaxed) == now { Vec::new() } else { self.owed.with(std::mem::take) }
    }
}
