//! What a load makes of what is loaded. pfctl replaces the ruleset that it names, the anchors that the file fills, and of
//! both the sections it was asked for; all else in pf stays: above all the anchors that were loaded by themselves
//! (`pfctl -a`), whatever happens to the main ruleset.

use std::collections::BTreeSet;

use super::{PfConf, Table};
use crate::{
    anchor::{Fresh, Which},
    optimize::is_automatic,
    rule::{Anchor, Rules},
};

/// A section of a configuration that can be replaced without the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What `set` says; of the main ruleset only.
    Options,
    /// Ethernet rules.
    Ether,
    /// Scrub and filter rules.
    Filter,
    /// nat, rdr and binat rules.
    Nat,
    /// altq and queue; of the main ruleset only.
    Queues,
    /// Tables.
    Tables,
    /// Fingerprints of operating systems; of the main ruleset only.
    Fingerprints,
}

impl Section {
    /// All of them.
    pub const ALL: [Section; 7] = [
        Section::Options,
        Section::Ether,
        Section::Filter,
        Section::Nat,
        Section::Queues,
        Section::Tables,
        Section::Fingerprints,
    ];
}

impl PfConf {
    /// This configuration after a load of what was read for one ruleset (`Reading::anchor`; empty is the main one), and
    /// what of it is fresh. Anchors without a name below it go with it: nothing else can call them.
    #[must_use]
    pub fn with(&self, path: &str, mut new: PfConf, sections: &[Section]) -> (PfConf, Fresh) {
        let has = |section| sections.contains(&section);
        let touched = self.touched(path, &new);
        let mut conf = self.clone();
        conf.adopt_files(&mut new);
        for path in &touched {
            let (rules, preamble) = new.source(path);
            let (own, own_preamble) = conf.source_mut(path);
            if has(Section::Ether) {
                own.ether.clone_from(&rules.ether);
            }
            if has(Section::Filter) {
                own.scrub.clone_from(&rules.scrub);
                own.filter.clone_from(&rules.filter);
            }
            if has(Section::Nat) {
                own.nat.clone_from(&rules.nat);
                own.rdr.clone_from(&rules.rdr);
                own.binat.clone_from(&rules.binat);
            }
            *own_preamble = preamble.to_vec();
        }
        // Tables that the optimizer has made belong to the rules.
        let is_new = |t: &Table| has(if is_automatic(&t.name) { Section::Filter } else { Section::Tables });
        conf.tables.retain(|t| !touched.contains(&t.anchor) || !is_new(t));
        conf.tables.extend(new.tables.into_iter().filter(is_new));
        if path.is_empty() && has(Section::Options) {
            conf.options = new.options;
        }
        if path.is_empty() && has(Section::Fingerprints) {
            conf.fingerprints = new.fingerprints;
        }
        if path.is_empty() && has(Section::Queues) {
            (conf.altqs, conf.queues) = (new.altqs, new.queues);
        }
        if path.is_empty() && has(Section::Filter) {
            conf.limiters = new.limiters;
        }
        conf.warnings = new.warnings;
        conf.anchors.retain(|a| !a.rules.is_empty() || conf.tables.iter().any(|t| t.anchor == a.path));
        let these = |is: bool| if is { Which::These(touched.clone()) } else { Which::NONE };
        let fresh = Fresh {
            filter: these(has(Section::Filter)),
            nat: these(has(Section::Nat)),
            ether: these(has(Section::Ether)),
            tables: these(has(Section::Tables)),
        };
        (conf, fresh)
    }

    /// Whether both make the same interface queues, wherever their lines stand.
    pub fn same_queues(&self, other: &PfConf) -> bool {
        let altqs = |conf: &PfConf| {
            let placeless =
                conf.altqs.iter().map(|a| super::AltqSpec { at: super::Pos::default(), ..a.clone() });
            placeless.collect::<Vec<_>>()
        };
        let queues = |conf: &PfConf| {
            let placeless =
                conf.queues.iter().map(|q| super::QueueSpec { at: super::Pos::default(), ..q.clone() });
            placeless.collect::<Vec<_>>()
        };
        altqs(self) == altqs(other) && queues(self) == queues(other)
    }

    /// Adds the files of another configuration, whose rules then stand where they stand in these.
    fn adopt_files(&mut self, new: &mut PfConf) {
        let mut number = |name: &String| {
            let known = self.files.iter().position(|f| f == name);
            known.unwrap_or_else(|| {
                self.files.push(name.clone());
                self.files.len() - 1
            }) as u16
        };
        let numbers: Vec<u16> = new.files.iter().map(&mut number).collect();
        let anchors = new.anchors.iter_mut().map(|a| &mut a.rules);
        for rule in anchors.chain([&mut new.rules]).flat_map(Rules::all_mut) {
            rule.at.file = numbers.get(usize::from(rule.at.file)).copied().unwrap_or(0);
        }
    }

    /// The rulesets that a load for one replaces: itself, what the file fills, and what has no name below it.
    fn touched(&self, path: &str, new: &PfConf) -> BTreeSet<String> {
        let unnamed = self.anchors.iter().filter(|a| is_unnamed_below(&a.path, path));
        let paths = new.anchors.iter().chain(unnamed).map(|a| a.path.clone());
        paths.chain([path.to_owned()]).collect()
    }

    /// The rules at a path, and what is printed before them.
    fn source(&self, path: &str) -> (&Rules, &[String]) {
        const NOTHING: &Rules = &Rules::NONE;
        if path.is_empty() {
            return (&self.rules, &self.preamble);
        }
        let anchor = self.anchors.iter().find(|a| a.path == path);
        anchor.map_or((NOTHING, &[]), |a| (&a.rules, &a.preamble))
    }

    pub(crate) fn source_mut(&mut self, path: &str) -> (&mut Rules, &mut Vec<String>) {
        if path.is_empty() {
            return (&mut self.rules, &mut self.preamble);
        }
        let anchor = self.anchor_mut(path);
        (&mut anchor.rules, &mut anchor.preamble)
    }

    /// The anchor at a path, made if there is none.
    pub(super) fn anchor_mut(&mut self, path: &str) -> &mut Anchor {
        let i = self.anchors.iter().position(|a| a.path == path).unwrap_or_else(|| {
            self.anchors.push(Anchor { path: path.to_owned(), rules: Rules::NONE, preamble: Vec::new() });
            self.anchors.len() - 1
        });
        &mut self.anchors[i]
    }
}

/// Whether a path below another has a part without a name.
fn is_unnamed_below(path: &str, above: &str) -> bool {
    let rest = if above.is_empty() { Some(path) } else { path.strip_prefix(above) };
    rest.is_some_and(|rest| rest.split('/').any(|part| part.starts_with('_')))
}
