//! What a ruleset makes of the tables, in two steps: *staged* while it is compiled, which changes nothing that is in force,
//! and committed when it is published.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use super::{Contents, Registry, Shared, Table, TableError, Tables, check_name};
use crate::{conf, optimize::is_automatic};

/// What an anchor, or the main ruleset, wants of tables.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) anchor: &'a str,
    pub(crate) defined: Vec<&'a conf::Table>,
    /// Tables that rules name, and how many do.
    pub(crate) spoken_of: HashMap<&'a str, u32>,
    /// Those that pools choose from.
    pub(crate) pools: HashSet<&'a str>,
    /// What is defined counts; otherwise tables stay what they are.
    pub(crate) fresh: bool,
}

/// A table of a ruleset that is not in force yet.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    pub(crate) table: Shared,
    define: Option<Define>,
    /// Rules that speak of it.
    rules: u32,
}

/// The anchors and names of tables.
fn names(staged: &[Staged]) -> HashSet<(&str, &str)> {
    staged.iter().map(|s| (s.table.anchor.as_str(), s.table.name.as_str())).collect()
}

#[derive(Clone, Copy, Debug)]
struct Define {
    constant: bool,
    persist: bool,
    counters: bool,
}

impl Tables {
    /// The tables that a ruleset and its anchors define and those they speak of, as they will be when it is in force;
    /// nothing that is in force is changed.
    pub(crate) fn stage(&self, wanted: &[Wanted<'_>], now: u64) -> Result<Vec<Staged>, TableError> {
        self.inner.with(|r| {
            let mut staged = Vec::new();
            for Wanted { anchor, defined, spoken_of, fresh, .. } in wanted {
                let rules_of = |name: &str| spoken_of.get(name).copied().unwrap_or(0);
                let mut known = HashSet::new();
                if *fresh {
                    for table in defined {
                        let old = r.find(anchor, &table.name);
                        let rules = rules_of(&table.name);
                        staged.push(Staged { rules, ..self.stage_one(anchor, table, old.as_ref(), now)? });
                        known.insert(table.name.clone());
                    }
                } else {
                    let kept = self.kept(r, anchor, defined, rules_of, now)?;
                    known.extend(kept.iter().map(|s| s.table.name.clone()));
                    staged.extend(kept);
                }
                for (name, &rules) in spoken_of.iter().filter(|(name, _)| !known.contains(**name)) {
                    let table = r.find(anchor, name);
                    let table =
                        table.unwrap_or_else(|| Arc::new(Table::new(anchor, name, self.workers, now)));
                    staged.push(Staged { table, define: None, rules });
                }
            }
            r.fits(&staged)?;
            r.number_pools(wanted, &staged);
            Ok(staged)
        })
    }

    /// The tables of an anchor as they are. Those that the optimizer has made come and go with the rules; one that has the
    /// same name has the same contents.
    fn kept(
        &self,
        r: &Registry,
        anchor: &str,
        defined: &[&conf::Table],
        rules_of: impl Fn(&str) -> u32,
        now: u64,
    ) -> Result<Vec<Staged>, TableError> {
        let own = r.of_anchor(anchor).filter(|t| !is_automatic(&t.name)).map(Arc::clone);
        let mut staged: Vec<Staged> =
            own.map(|table| Staged { rules: rules_of(&table.name), define: None, table }).collect();
        for table in defined.iter().filter(|t| is_automatic(&t.name)) {
            let rules = rules_of(&table.name);
            staged.push(match r.find(anchor, &table.name) {
                Some(table) => Staged { table, define: None, rules },
                None => Staged { rules, ..self.stage_one(anchor, table, None, now)? },
            });
        }
        Ok(staged)
    }

    fn stage_one(
        &self,
        anchor: &str,
        wanted: &conf::Table,
        old: Option<&Shared>,
        now: u64,
    ) -> Result<Staged, TableError> {
        check_name(&wanted.name)?;
        let define = Define { constant: wanted.constant, persist: wanted.persist, counters: wanted.counters };
        // A table without contents of its own keeps what it has.
        if let Some(old) = old
            && wanted.keeps
            && old.counters.load(Ordering::Relaxed) == wanted.counters
        {
            return Ok(Staged { table: Arc::clone(old), define: Some(define), rules: 0 });
        }
        let table = Table::new(anchor, &wanted.name, self.workers, now);
        table.counters.store(wanted.counters, Ordering::Relaxed);
        let before = old.map(|t| t.current.load_full());
        let mut contents = Contents::default();
        for entry in &wanted.entries {
            if contents.get(entry.prefix).is_some() {
                continue;
            }
            let kept = before.as_ref().and_then(|b| b.get(entry.prefix)).filter(|a| a.not == entry.not);
            let kept = kept.filter(|a| a.counts.is_some() == wanted.counters).cloned();
            contents.insert(entry.prefix, kept.unwrap_or_else(|| table.address(entry.not, now)));
        }
        table.current.store(Arc::new(contents));
        Ok(Staged { table: Arc::new(table), define: Some(define), rules: 0 })
    }

    /// Puts tables into force together with their ruleset; those that it does not name go unless they are `persist`.
    pub(crate) fn commit(&self, staged: &[Staged]) {
        self.inner.with(|r| {
            let named = names(staged);
            r.all.retain(|(anchor, name), table| {
                named.contains(&(anchor.as_str(), name.as_str())) || table.persist.load(Ordering::Relaxed)
            });
            for table in r.all.values() {
                table.rules.store(0, Ordering::Relaxed);
            }
            for s in staged {
                s.table.rules.store(s.rules, Ordering::Relaxed);
                if let Some(define) = &s.define {
                    s.table.constant.store(define.constant, Ordering::Relaxed);
                    s.table.persist.store(define.persist, Ordering::Relaxed);
                    s.table.counters.store(define.counters, Ordering::Relaxed);
                    s.table.active.store(true, Ordering::Relaxed);
                }
                r.all.insert((s.table.anchor.clone(), s.table.name.clone()), Arc::clone(&s.table));
            }
            r.link();
        });
    }
}

impl Registry {
    /// Numbers the addresses of the tables that pools choose from: those of a ruleset that is not in force yet, and
    /// those of the main ruleset that decide for anchors.
    fn number_pools(&mut self, wanted: &[Wanted<'_>], staged: &[Staged]) {
        for Wanted { anchor, pools, .. } in wanted {
            for name in pools {
                let of = |s: &&Staged| {
                    s.table.name == **name && (s.table.anchor == **anchor || s.table.anchor.is_empty())
                };
                let known = self.find("", name);
                staged.iter().filter(of).map(|s| &s.table).chain(&known).for_each(|t| self.number(t));
            }
        }
    }

    /// Whether these tables fit in beside those that stay.
    fn fits(&self, staged: &[Staged]) -> Result<(), TableError> {
        let (limit_tables, limit) = (self.limit_tables, self.limit_entries);
        let named = names(staged);
        let stay = |t: &&Shared| {
            !named.contains(&(t.anchor.as_str(), t.name.as_str())) && t.persist.load(Ordering::Relaxed)
        };
        let staying: Vec<usize> = self.all.values().filter(stay).map(|t| t.len()).collect();
        if staying.len() + staged.len() > limit_tables as usize {
            return Err(TableError::Tables(limit_tables));
        }
        let wanted = staying.iter().sum::<usize>() + staged.iter().map(|s| s.table.len()).sum::<usize>();
        if wanted > limit as usize { Err(TableError::Entries { wanted, limit }) } else { Ok(()) }
    }
}
