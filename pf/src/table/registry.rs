//! All tables there are, and what pfctl can do to them (`pfr_add_addrs` and its like in pf_table.c). For the control
//! thread; workers look at a [`Table`] only.

mod stage;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use kern::lock::Leaf;
pub(crate) use stage::{Staged, Wanted};

use super::{Contents, Counts, EntryInfo, Shared, Table, Totals};
use crate::addr::{Entry, Prefix, bits};

/// Tables at most, unless `set limit tables` says.
pub const LIMIT_TABLES: u32 = 1000;
/// Entries of all tables at most, unless `set limit table-entries` says.
pub const LIMIT_ENTRIES: u32 = 200_000;

/// Why a table was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// There is none of that name.
    #[error("Table does not exist")]
    NoTable,
    /// It is `const`.
    #[error("Operation not permitted: table <{0}> is const")]
    Constant(String),
    /// `set limit table-entries`.
    #[error("{wanted} entries are more than the {limit} of `set limit table-entries`")]
    Entries {
        /// How many there would be.
        wanted: usize,
        /// How many there may be.
        limit: u32,
    },
    /// `set limit tables`.
    #[error("there are as many tables as `set limit tables` allows, {0}")]
    Tables(u32),
    /// More than 31 characters, or none.
    #[error("table name `{0}` is empty or longer than 31 characters")]
    Name(String),
}

/// Who changes a table: `const` keeps users from it, and pf itself adds what overloads a rule all the same (BSD:
/// `pfr_insert_kentry`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    User,
    Pf,
}

/// What was done about one address; the letter is what pfctl prints before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// Nothing.
    None,
    /// It is in the table.
    Match,
    /// Added.
    Added,
    /// Deleted.
    Deleted,
    /// Its `!` was changed.
    Changed,
    /// Its counters were set to 0.
    Cleared,
    /// It was named twice.
    Duplicate,
    /// It is there, with or without `!`, unlike what was said.
    Conflict,
}

impl Feedback {
    /// pfctl's letter.
    pub const fn letter(self) -> char {
        match self {
            Feedback::None => ' ',
            Feedback::Match => 'M',
            Feedback::Added => 'A',
            Feedback::Deleted => 'D',
            Feedback::Changed => 'C',
            Feedback::Cleared => 'Z',
            Feedback::Duplicate => 'X',
            Feedback::Conflict => 'Y',
        }
    }
}

/// What a change came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The table had to be made.
    pub created: bool,
    /// Entries added.
    pub added: usize,
    /// Entries deleted.
    pub deleted: usize,
    /// Entries whose `!` was changed.
    pub changed: usize,
    /// Entries whose counters were set to 0.
    pub cleared: usize,
    /// What was done about each.
    pub each: Vec<(Entry, Feedback)>,
}

/// What `pfctl -s Tables` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Name.
    pub name: String,
    /// Anchor, empty for the main ruleset.
    pub anchor: String,
    /// `const`.
    pub constant: bool,
    /// `persist`.
    pub persist: bool,
    /// Defined, not only spoken of.
    pub active: bool,
    /// `counters`.
    pub counters: bool,
    /// Rules that refer to it.
    pub rules: u32,
    /// Entries.
    pub addresses: usize,
    /// Seconds since 1970.
    pub cleared: u64,
    /// Addresses looked up and found, and not.
    pub matched: u64,
    /// See [`TableInfo::matched`].
    pub not_matched: u64,
    /// Packets and octets.
    pub totals: Totals,
}

impl TableInfo {
    fn of(table: &Table) -> TableInfo {
        let sum = |get: fn(&super::WorkerCounts) -> u64| table.workers.iter().map(get).sum();
        TableInfo {
            name: table.name.clone(),
            anchor: table.anchor.clone(),
            constant: table.constant.load(Ordering::Relaxed),
            persist: table.persist.load(Ordering::Relaxed),
            active: table.active.load(Ordering::Relaxed),
            counters: table.counters.load(Ordering::Relaxed),
            rules: table.rules.load(Ordering::Relaxed),
            addresses: table.len(),
            cleared: table.cleared.load(Ordering::Relaxed),
            matched: sum(|w| w.matched.get()),
            not_matched: sum(|w| w.not_matched.get()),
            totals: Counts::sum(table.workers.iter().map(|w| &w.counts)),
        }
    }
}

/// All tables.
#[derive(Debug)]
pub struct Tables {
    workers: usize,
    /// For the control thread; workers never come here.
    inner: Leaf<Registry>,
}

#[derive(Debug)]
struct Registry {
    all: BTreeMap<(String, String), Shared>,
    /// Tables that are only counted, and their entries.
    elsewhere: (usize, usize),
    limit_tables: u32,
    limit_entries: u32,
    /// Versions that a worker may be looking at.
    retired: Vec<Arc<Contents>>,
}

impl Tables {
    pub(crate) fn new(workers: usize) -> Tables {
        let registry = Registry {
            all: BTreeMap::new(),
            elsewhere: (0, 0),
            limit_tables: LIMIT_TABLES,
            limit_entries: LIMIT_ENTRIES,
            retired: Vec::new(),
        };
        Tables { workers, inner: Leaf::new(registry) }
    }

    /// `set limit tables`, `set limit table-entries`.
    pub fn set_limits(&self, tables: u32, entries: u32) {
        self.inner.with(|r| (r.limit_tables, r.limit_entries) = (tables, entries));
    }

    /// Adds to the table of an anchor if that has one of its own, else to that of the main ruleset.
    pub(crate) fn add_where_active(
        &self,
        anchor: &str,
        name: &str,
        entries: &[Entry],
        now: u64,
    ) -> Result<Changes, TableError> {
        let own = self.find(anchor, name).is_some_and(|t| t.active.load(Ordering::Relaxed));
        self.add_by_rule(if own { anchor } else { "" }, name, entries, now)
    }

    /// Adds what a rule or a limiter has found, to `const` tables too.
    pub(crate) fn add_by_rule(
        &self,
        anchor: &str,
        name: &str,
        entries: &[Entry],
        now: u64,
    ) -> Result<Changes, TableError> {
        self.add_as(Who::Pf, anchor, name, entries, now)
    }

    /// Takes out what a limiter has put in.
    pub(crate) fn delete_by_rule(
        &self,
        anchor: &str,
        name: &str,
        entries: &[Entry],
    ) -> Result<Changes, TableError> {
        self.delete_as(Who::Pf, anchor, name, entries)
    }

    /// A table by its name.
    pub fn find(&self, anchor: &str, name: &str) -> Option<Shared> {
        self.inner.with(|r| r.find(anchor, name))
    }

    /// All tables that are defined, in order of anchor and name.
    pub fn list(&self, anchor: Option<&str>) -> Vec<TableInfo> {
        self.inner.with(|r| {
            let all = r.all.values().filter(|t| anchor.is_none_or(|a| t.anchor == a));
            all.map(|t| TableInfo::of(t)).collect()
        })
    }

    /// Tables of which only this one is there, with what is in it now: to see what a change would come to (`-n`). The
    /// others count against the limits.
    #[must_use]
    pub fn rehearsal(&self, anchor: &str, name: &str) -> Tables {
        let registry = self.inner.with(|r| {
            let own = r.find(anchor, name).map(|table| Arc::new(table.rehearsal()));
            let all: BTreeMap<_, _> =
                own.map(|table| ((anchor.to_owned(), name.to_owned()), table)).into_iter().collect();
            let of_own = all.values().map(|t| t.len()).sum::<usize>();
            let elsewhere = (r.count() - all.len(), r.entries() - of_own);
            Registry { all, elsewhere, retired: Vec::new(), ..*r }
        });
        Tables { workers: 1, inner: Leaf::new(registry) }
    }

    /// `-T add`: makes the table if there is none.
    pub fn add(&self, anchor: &str, name: &str, entries: &[Entry], now: u64) -> Result<Changes, TableError> {
        self.add_as(Who::User, anchor, name, entries, now)
    }

    fn add_as(
        &self,
        who: Who,
        anchor: &str,
        name: &str,
        entries: &[Entry],
        now: u64,
    ) -> Result<Changes, TableError> {
        self.inner.with(|r| {
            let (table, created) = r.find_or_make(who, anchor, name, self.workers, now)?;
            let mut changes = Changes { created, ..Changes::default() };
            let mut next = (*table.current.load_full()).clone();
            for (entry, twice) in once_each(entries) {
                let feedback = match next.get(entry.prefix) {
                    _ if twice => Feedback::Duplicate,
                    Some(a) if a.not == entry.not => Feedback::None,
                    Some(_) => Feedback::Conflict,
                    None => {
                        next.insert(entry.prefix, table.address(entry.not, now));
                        changes.added += 1;
                        Feedback::Added
                    }
                };
                changes.each.push((entry, feedback));
            }
            r.replace(&table, next)?;
            Ok(changes)
        })
    }

    /// `-T delete`.
    pub fn delete(&self, anchor: &str, name: &str, entries: &[Entry]) -> Result<Changes, TableError> {
        self.delete_as(Who::User, anchor, name, entries)
    }

    fn delete_as(
        &self,
        who: Who,
        anchor: &str,
        name: &str,
        entries: &[Entry],
    ) -> Result<Changes, TableError> {
        self.inner.with(|r| {
            let table = r.changeable(who, anchor, name)?;
            let mut changes = Changes::default();
            let mut next = (*table.current.load_full()).clone();
            for (entry, twice) in once_each(entries) {
                let feedback = match next.get(entry.prefix) {
                    _ if twice => Feedback::Duplicate,
                    None => Feedback::None,
                    Some(a) if a.not != entry.not => Feedback::Conflict,
                    Some(_) => {
                        next.remove(entry.prefix);
                        changes.deleted += 1;
                        Feedback::Deleted
                    }
                };
                changes.each.push((entry, feedback));
            }
            r.replace(&table, next)?;
            Ok(changes)
        })
    }

    /// `-T replace`: afterwards it has these entries and no others.
    pub fn set(&self, anchor: &str, name: &str, entries: &[Entry], now: u64) -> Result<Changes, TableError> {
        self.inner.with(|r| {
            let (table, created) = r.find_or_make(Who::User, anchor, name, self.workers, now)?;
            let mut changes = Changes { created, ..Changes::default() };
            let before = table.current.load_full();
            let mut next = Contents::default();
            for (entry, twice) in once_each(entries) {
                let feedback = match before.get(entry.prefix) {
                    _ if twice => Feedback::Duplicate,
                    Some(a) if a.not == entry.not => {
                        next.insert(entry.prefix, a.clone());
                        Feedback::None
                    }
                    Some(_) => {
                        next.insert(entry.prefix, table.address(entry.not, now));
                        changes.changed += 1;
                        Feedback::Changed
                    }
                    None => {
                        next.insert(entry.prefix, table.address(entry.not, now));
                        changes.added += 1;
                        Feedback::Added
                    }
                };
                changes.each.push((entry, feedback));
            }
            for (entry, _) in before.entries() {
                if next.get(entry.prefix).is_none() {
                    changes.deleted += 1;
                    changes.each.push((entry, Feedback::Deleted));
                }
            }
            r.replace(&table, next)?;
            Ok(changes)
        })
    }

    /// `-T expire`: deletes what was added, or last set to 0, more than so many seconds ago.
    pub fn expire(&self, anchor: &str, name: &str, age: u64, now: u64) -> Result<Changes, TableError> {
        let old: Vec<Entry> = {
            let table = self.find(anchor, name).ok_or(TableError::NoTable)?;
            let old = |e: &EntryInfo| now.saturating_sub(e.cleared) > age;
            table.entries().into_iter().filter(old).map(|e| e.entry).collect()
        };
        self.delete(anchor, name, &old)
    }

    /// `-T flush`.
    pub fn flush(&self, anchor: &str, name: &str) -> Result<Changes, TableError> {
        self.inner.with(|r| {
            let table = r.changeable(Who::User, anchor, name)?;
            let deleted = table.len();
            r.replace(&table, Contents::default())?;
            Ok(Changes { deleted, ..Changes::default() })
        })
    }

    /// `-T zero`: of these entries, or of the table and all of its.
    pub fn zero(
        &self,
        anchor: &str,
        name: &str,
        entries: Option<&[Entry]>,
        now: u64,
    ) -> Result<Changes, TableError> {
        self.inner.with(|r| {
            let table = r.find(anchor, name).ok_or(TableError::NoTable)?;
            let mut changes = Changes::default();
            let mut next = (*table.current.load_full()).clone();
            let all: Vec<Entry> = match entries {
                Some(entries) => entries.to_vec(),
                None => next.entries().into_iter().map(|(e, _)| e).collect(),
            };
            for (entry, twice) in once_each(&all) {
                let feedback = match next.get(entry.prefix) {
                    _ if twice => Feedback::Duplicate,
                    None => Feedback::None,
                    Some(a) if a.not != entry.not => Feedback::Conflict,
                    Some(_) => {
                        next.insert(entry.prefix, table.address(entry.not, now));
                        changes.cleared += 1;
                        Feedback::Cleared
                    }
                };
                changes.each.push((entry, feedback));
            }
            r.replace(&table, next)?;
            if entries.is_none() {
                table.cleared.store(now, Ordering::Relaxed);
            }
            Ok(changes)
        })
    }

    /// `-T kill`: the table goes unless rules refer to it, and its entries in any case.
    pub fn kill(&self, anchor: &str, name: &str) -> Result<Changes, TableError> {
        self.inner.with(|r| {
            let table = r.changeable(Who::User, anchor, name)?;
            let deleted = table.len();
            r.replace(&table, Contents::default())?;
            table.active.store(false, Ordering::Relaxed);
            table.persist.store(false, Ordering::Relaxed);
            if table.rules.load(Ordering::Relaxed) == 0 {
                r.all.remove(&(anchor.to_owned(), name.to_owned()));
                r.link();
            }
            Ok(Changes { deleted, ..Changes::default() })
        })
    }

    /// `-F Tables`: every table of an anchor is empty and no longer defined; those that no rule refers to go.
    pub fn clear(&self, anchor: &str) -> u64 {
        self.inner.with(|r| {
            let all: Vec<Shared> = r.all.values().filter(|t| t.anchor == anchor).cloned().collect();
            let mut cleared = 0;
            for table in all {
                cleared += u64::from(table.active.swap(false, Ordering::Relaxed));
                table.persist.store(false, Ordering::Relaxed);
                let old = table.current.swap(Arc::default());
                r.retired.push(old);
            }
            r.all.retain(|(a, _), t| a != anchor || t.rules.load(Ordering::Relaxed) > 0);
            r.link();
            r.collect();
            cleared
        })
    }

    /// How many tables, and entries of all together, there may be.
    pub fn limits(&self) -> (u32, u32) {
        self.inner.with(|r| (r.limit_tables, r.limit_entries))
    }

    /// Frees versions that no worker looks at any more.
    pub fn collect(&self) {
        self.inner.with(Registry::collect);
    }
}

fn check_name(name: &str) -> Result<(), TableError> {
    if name.is_empty() || name.len() > super::NAME { Err(TableError::Name(name.to_owned())) } else { Ok(()) }
}

/// Entries, and whether each was there before, `!` apart.
fn once_each(entries: &[Entry]) -> impl Iterator<Item = (Entry, bool)> + '_ {
    let mut seen: HashSet<Prefix> = HashSet::with_capacity(entries.len());
    entries.iter().map(move |&entry| (entry, !seen.insert(entry.prefix)))
}

impl Registry {
    fn find(&self, anchor: &str, name: &str) -> Option<Shared> {
        self.all.get(&(anchor.to_owned(), name.to_owned())).cloned()
    }

    /// The tables of an anchor, by name.
    fn of_anchor(&self, anchor: &str) -> impl Iterator<Item = &Shared> {
        let from = (anchor.to_owned(), String::new());
        self.all.range(from..).take_while(move |((a, _), _)| a == anchor).map(|(_, table)| table)
    }

    /// Tells each table of an anchor which one decides while it is not active.
    fn link(&mut self) {
        let mut pooled = Vec::new();
        for ((_, name), table) in self.all.iter().filter(|((anchor, _), _)| !anchor.is_empty()) {
            let root = self.find("", name);
            pooled.extend(root.clone().filter(|_| table.pooled.load(Ordering::Relaxed)));
            table.root.store(root);
        }
        for root in &pooled {
            self.number(root);
        }
    }

    /// Numbers the addresses of a table, from now on with each of its versions.
    fn number(&mut self, table: &Table) {
        if !table.pooled.swap(true, Ordering::Relaxed) {
            self.store(table, (*table.current.load_full()).clone());
        }
    }

    fn changeable(&self, who: Who, anchor: &str, name: &str) -> Result<Shared, TableError> {
        let table = self.find(anchor, name).ok_or(TableError::NoTable)?;
        if who == Who::User && table.constant.load(Ordering::Relaxed) {
            return Err(TableError::Constant(name.to_owned()));
        }
        Ok(table)
    }

    fn find_or_make(
        &mut self,
        who: Who,
        anchor: &str,
        name: &str,
        workers: usize,
        now: u64,
    ) -> Result<(Shared, bool), TableError> {
        check_name(name)?;
        let created = match self.find(anchor, name) {
            Some(_) => {
                let table = self.changeable(who, anchor, name)?;
                let created = !table.active.load(Ordering::Relaxed);
                (table, created)
            }
            None if self.count() >= self.limit_tables as usize => {
                return Err(TableError::Tables(self.limit_tables));
            }
            None => (Arc::new(Table::new(anchor, name, workers, now)), true),
        };
        if created.1 {
            created.0.active.store(true, Ordering::Relaxed);
            created.0.persist.store(true, Ordering::Relaxed);
            self.all.insert((anchor.to_owned(), name.to_owned()), Arc::clone(&created.0));
            self.link();
        }
        Ok(created)
    }

    fn count(&self) -> usize {
        self.all.len() + self.elsewhere.0
    }

    fn entries(&self) -> usize {
        self.all.values().map(|t| t.len()).sum::<usize>() + self.elsewhere.1
    }

    /// Stores the next version of a table.
    fn replace(&mut self, table: &Table, next: Contents) -> Result<(), TableError> {
        let before = table.len();
        if next.len() > before {
            let wanted = self.entries() - before + next.len();
            if wanted > self.limit_entries as usize {
                return Err(TableError::Entries { wanted, limit: self.limit_entries });
            }
        }
        self.store(table, next);
        Ok(())
    }

    fn store(&mut self, table: &Table, mut next: Contents) {
        next.number(table.pooled.load(Ordering::Relaxed));
        let old = table.current.swap(Arc::new(next));
        self.retired.push(old);
        self.collect();
    }

    fn collect(&mut self) {
        // Nobody can come to have a version that is no longer current: one reference is ours and the last.
        self.retired.retain(|version| Arc::strong_count(version) > 1);
    }
}

impl Table {
    /// Whether an address is in it, for `-T test`.
    pub fn test(&self, entry: &Entry) -> Option<Entry> {
        let current = self.current.load();
        let family = entry.prefix.family();
        current.entry_for(family, bits(entry.prefix.addr()))
    }
}
