//! Rules that differ in one address alone become one rule, and the addresses a table.
//!
//! Looking into a table costs about as much as six rules (`TABLE_THRESHOLD` of pfctl). Only addresses that are not
//! negated are joined: a packet is outside of each of two prefixes less often than it is outside of one of them.

use std::collections::HashMap;

use super::criteria::{Criteria, DESTINATION, Field, SOURCE};
use crate::{
    addr::{Entry, Prefix, bits},
    conf::Table,
    print::{self, TablePart},
    rule::{Host, Peer, Rule},
};

/// Rules that are worth a table.
const WORTH: usize = 6;
/// How names of tables begin that were made here.
pub(super) const PREFIX: &str = "__automatic_";

/// The tables that are made for one list of rules.
pub(super) struct Automatic {
    anchor: String,
    /// Those of the configuration, and those made here.
    tables: Vec<Table>,
    /// How many of them are the configuration's.
    given: usize,
}

impl Automatic {
    pub(super) fn new(anchor: &str, tables: &[Table]) -> Automatic {
        let tables: Vec<Table> = tables.iter().filter(|t| t.anchor == anchor).cloned().collect();
        Automatic { anchor: anchor.to_owned(), given: tables.len(), tables }
    }

    /// The name of the table of these addresses, which is made if there is none. It is made of the addresses, so that a
    /// ruleset has the same names whenever it is loaded.
    fn name(&mut self, mut prefixes: Vec<Prefix>) -> String {
        prefixes.sort_unstable();
        prefixes.dedup();
        let entries: Vec<Entry> = prefixes.into_iter().map(|prefix| Entry { not: false, prefix }).collect();
        let digest = digest(&entries);
        let mut n = 0;
        let table = loop {
            let table = self.table(format!("{PREFIX}{digest:08x}_{n}"), &entries);
            // Another may have the name: by its digest, or because somebody gave it.
            match self.tables.iter().find(|known| known.name == table.name) {
                Some(known) if *known != table => n += 1,
                _ => break table,
            }
        };
        if !self.tables.contains(&table) {
            self.tables.push(table.clone());
        }
        table.name
    }

    fn table(&self, name: String, entries: &[Entry]) -> Table {
        let (anchor, entries) = (self.anchor.clone(), entries.to_vec());
        Table { name, anchor, constant: true, persist: false, counters: false, entries, keeps: false }
    }

    /// Those that were made.
    pub(super) fn into_tables(mut self) -> Vec<Table> {
        self.tables.split_off(self.given)
    }
}

/// A number for a list of addresses (FNV-1a).
fn digest(entries: &[Entry]) -> u32 {
    let octets = entries.iter().flat_map(|Entry { prefix, .. }| {
        let bits = bits(prefix.addr()).to_be_bytes();
        bits.into_iter().chain([prefix.length(), prefix.family() as u8])
    });
    octets.fold(0x811c_9dc5, |hash, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193))
}

/// The line that defines such a table.
pub(super) fn line(table: &Table) -> String {
    print::table(table, &[TablePart::List(table.entries.clone())])
}

/// Joins the rules of a block as long as there are enough to join: first by one address, and what comes of that by the
/// other.
pub(super) fn combine(mut block: Vec<Rule>, tables: &mut Automatic) -> Vec<Rule> {
    loop {
        let groups = groups(&block);
        if groups.is_empty() {
            return block;
        }
        let mut joined = vec![false; block.len()];
        for Group { field, members } in groups {
            let [first, rest @ ..] = &members[..] else { continue };
            let prefixes = members.iter().filter_map(|&i| prefix(peer(&block[i], field))).collect();
            let host = Host::Table(tables.name(prefixes));
            peer_mut(&mut block[*first], field).host = host;
            for &i in rest {
                joined[i] = true;
            }
        }
        let mut joined = joined.into_iter();
        block.retain(|_| !joined.next().unwrap_or(false));
    }
}

/// Rules that differ in one address, and in which; by their numbers in the block.
struct Group {
    field: usize,
    members: Vec<usize>,
}

/// Finds what is to be joined, no rule twice: in the order of the rules, each in the larger of its two groups.
fn groups(block: &[Rule]) -> Vec<Group> {
    let fields = [DESTINATION, SOURCE];
    let all: Vec<Criteria<'_>> = block.iter().map(Criteria::of).collect();
    let mut alike: [HashMap<Criteria<'_>, Vec<usize>>; 2] = Default::default();
    for (alike, field) in alike.iter_mut().zip(fields) {
        for (i, criteria) in all.iter().enumerate() {
            if matches!(criteria.0[field], Field::Prefix(_)) {
                alike.entry(criteria.without(field)).or_default().push(i);
            }
        }
    }
    let mut taken = vec![false; block.len()];
    let mut found = Vec::new();
    for (i, criteria) in all.iter().enumerate() {
        if taken[i] {
            continue;
        }
        let candidates = alike.iter_mut().zip(fields).filter_map(|(alike, field)| {
            let is_prefix = matches!(criteria.0[field], Field::Prefix(_));
            let members = alike.get_mut(&criteria.without(field)).filter(|_| is_prefix)?;
            members.retain(|&i| !taken[i]);
            (members.len() >= WORTH).then(|| Group { field, members: members.clone() })
        });
        // Of two that are as large, that of destinations: `max_by_key` takes the last.
        let candidates: Vec<Group> = candidates.collect();
        if let Some(group) = candidates.into_iter().rev().max_by_key(|group| group.members.len()) {
            for &i in &group.members {
                taken[i] = true;
            }
            found.push(group);
        }
    }
    found
}

fn peer(rule: &Rule, field: usize) -> &Peer {
    if field == SOURCE { &rule.from } else { &rule.to }
}

fn peer_mut(rule: &mut Rule, field: usize) -> &mut Peer {
    if field == SOURCE { &mut rule.from } else { &mut rule.to }
}

fn prefix(peer: &Peer) -> Option<Prefix> {
    match peer.host {
        Host::Prefix(prefix) => Some(prefix),
        _ => None,
    }
}
