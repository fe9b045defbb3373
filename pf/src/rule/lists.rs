//! The rules of the main ruleset and of anchors, each kind in a list of its own.

use super::{Action, Rule};
use crate::{anchor::Kind, ether::EtherRule};

/// A call of an anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorCall {
    /// As it is written: relative to the anchor it stands in unless it begins with `/`; empty for one without a name.
    pub name: String,
    /// The anchor from the main ruleset down: `a/b`, without the `/*` of a wildcard.
    pub path: String,
    /// `/*`: all anchors below, in the order of their names.
    pub wildcard: bool,
    /// Its rules stand in braces behind it.
    pub inline: bool,
}

/// The rules of the main ruleset or of one anchor, each kind in the order of evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rules {
    /// Ethernet rules.
    pub ether: Vec<EtherRule>,
    /// Scrub rules.
    pub scrub: Vec<Rule>,
    /// Nat rules and calls.
    pub nat: Vec<Rule>,
    /// Rdr rules and calls.
    pub rdr: Vec<Rule>,
    /// Binat rules and calls.
    pub binat: Vec<Rule>,
    /// Filter rules and calls.
    pub filter: Vec<Rule>,
}

impl Rules {
    /// None.
    pub const NONE: Rules = Rules {
        ether: Vec::new(),
        scrub: Vec::new(),
        nat: Vec::new(),
        rdr: Vec::new(),
        binat: Vec::new(),
        filter: Vec::new(),
    };

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ether.is_empty() && self.all().next().is_none()
    }

    /// The list that rules with this action are in.
    pub const fn list_mut(&mut self, action: Action) -> &mut Vec<Rule> {
        match action {
            Action::Pass | Action::Block(_) | Action::Match => &mut self.filter,
            Action::Scrub | Action::NoScrub => &mut self.scrub,
            Action::Nat | Action::NoNat => &mut self.nat,
            Action::Binat | Action::NoBinat => &mut self.binat,
            Action::Rdr | Action::NoRdr => &mut self.rdr,
        }
    }

    /// The rules of a kind.
    pub fn list(&self, kind: Kind) -> &[Rule] {
        match kind {
            Kind::Filter => &self.filter,
            Kind::Nat => &self.nat,
            Kind::Rdr => &self.rdr,
            Kind::Binat => &self.binat,
        }
    }

    /// The calls of anchors, those of Ethernet rules first.
    pub fn calls(&self) -> impl Iterator<Item = &AnchorCall> {
        let ether = self.ether.iter().filter_map(|rule| rule.anchor.as_ref());
        ether.chain(self.all().filter_map(|rule| rule.anchor.as_ref()))
    }

    /// All but the Ethernet rules, in the order in which pfctl prints them.
    pub fn all(&self) -> impl Iterator<Item = &Rule> {
        [&self.scrub, &self.nat, &self.rdr, &self.binat, &self.filter].into_iter().flatten()
    }

    /// The same, to be changed.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Rule> {
        [&mut self.scrub, &mut self.nat, &mut self.rdr, &mut self.binat, &mut self.filter]
            .into_iter()
            .flatten()
    }
}

/// The rules of an anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// From the main ruleset down: `a/b`. An anchor without a name is `_1`, `_2` and so on.
    pub path: String,
    /// Its rules.
    pub rules: Rules,
    /// What is printed before them: its tables.
    pub preamble: Vec<String>,
}
