//! The ruleset optimizer (pfctl(8), `-o`; pf.conf(5), `set ruleset-optimization`; BSD: `pfctl_optimize.c`): a ruleset
//! that decides the same of every packet and looks at fewer rules.
//!
//! ```text
//!   filter rules ── block ──▶ neighbours of the same effect; of these:
//!                             criteria   a rule that matches nothing which another of them does not match, goes
//!                             combine    six or more that differ in one address become one, with a table
//!                             order      rules that share a field stand together, so skip steps reach further;
//!                                        with `profile`, quick rules that decided most packets come first
//! ```
//!
//! Within a block it makes no difference which rule matches, so its rules may change places. What an administrator tells
//! apart by rule stays where it is, and alone: labels, limits, chance, calls, translation (see `block`). As with pfctl,
//! counters are those of the rules that are left, and `pfctl -s rules` shows these.
//!
//! Where pfctl.c and equality part, this keeps to equality: rules that negate an address are never joined, and rules
//! with timeouts or answers of their own are blocks of their own. Tables of the same addresses are one table.

mod block;
mod combine;
mod criteria;
mod order;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use crate::{
    anchor,
    conf::{Optimizer, PfConf},
    rule::Rule,
    ruleset::Ruleset,
};
use combine::Automatic;
use order::Profile;

/// Rewrites the filter rules of a configuration that was read; tables that this makes are added to its own.
///
/// What the command line `said` goes before what the configuration says; neither is [`Optimizer::Basic`]. `loaded` is the
/// ruleset in force, whose counters say which rules decide most packets; only [`Optimizer::Profile`] looks at it.
pub fn optimize(conf: &mut PfConf, said: Option<Optimizer>, loaded: Option<&Ruleset>) {
    let optimizer = said.or(conf.options.optimizer).unwrap_or_default();
    if optimizer == Optimizer::None {
        return;
    }
    let loaded = loaded.filter(|_| optimizer == Optimizer::Profile);
    let paths: Vec<String> = anchor::sources(conf).map(|(path, _)| path.to_owned()).collect();
    for path in paths {
        let counted = conf.tables.iter().filter(|t| t.counters).map(|t| t.name.clone()).collect();
        let mut tables = Automatic::new(&path, &conf.tables);
        let (rules, preamble) = conf.source_mut(&path);
        let profile = loaded.map(|ruleset| Profile::of(ruleset, &path));
        let filter = std::mem::take(&mut rules.filter);
        rules.filter = rewrite(filter, &counted, &mut tables, profile.as_ref());
        let tables = tables.into_tables();
        preamble.extend(tables.iter().map(combine::line));
        conf.tables.extend(tables);
    }
}

/// Rewrites the filter rules of one list. `counted` are the tables whose entries count packets.
fn rewrite(
    rules: Vec<Rule>,
    counted: &HashSet<String>,
    tables: &mut Automatic,
    profile: Option<&Profile<'_>>,
) -> Vec<Rule> {
    let mut all = Vec::with_capacity(rules.len());
    for block in block::split(rules, counted) {
        let block = combine::combine(criteria::without_covered(block), tables);
        all.extend(match profile.filter(|_| block.iter().any(|rule| rule.quick)) {
            Some(profile) => profile.order(block),
            None => order::for_skip_steps(block),
        });
    }
    all
}

/// Whether a table with this name was made here.
pub(crate) fn is_automatic(name: &str) -> bool {
    name.starts_with(combine::PREFIX)
}
