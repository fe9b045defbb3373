//! The order of a block's rules: those that share a field stand together.
//!
//! A packet that fails a rule on a field passes over all rules behind it with the same value there. So the largest group
//! of rules that share a field comes first and is ordered within itself in the same way, then the largest of what is
//! left, and so on. A field that all share, or no two, says nothing. Every rule leaves the groups of its other fields
//! when it is placed; the heap learns of that when such a group comes to its top.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
};

use super::criteria::{Criteria, Field};
use crate::{
    anchor::{self, Kind},
    rule::Rule,
    ruleset::{FIELDS, Ruleset},
};

/// Orders the rules of a block for skip steps.
pub(super) fn for_skip_steps(block: Vec<Rule>) -> Vec<Rule> {
    let all: Vec<Criteria<'_>> = block.iter().map(Criteria::of).collect();
    let mut order = Vec::with_capacity(block.len());
    arrange(&all, (0..block.len()).collect(), &mut order);
    permuted(block, &order)
}

fn permuted(block: Vec<Rule>, order: &[usize]) -> Vec<Rule> {
    let mut rules: Vec<Option<Rule>> = block.into_iter().map(Some).collect();
    order.iter().filter_map(|&i| rules[i].take()).collect()
}

/// Rules that share a field.
struct Group {
    field: usize,
    members: Vec<usize>,
    /// Those that have no place yet.
    left: usize,
}

/// How early a group is placed: by how many it has, then by its field, then by its first rule.
type Rank = (usize, Reverse<usize>, Reverse<usize>);

fn arrange(all: &[Criteria<'_>], rules: Vec<usize>, order: &mut Vec<usize>) {
    let (mut groups, of_rule) = share(all, &rules);
    let rank = |number: usize, group: &Group| -> Rank { (group.left, Reverse(group.field), Reverse(number)) };
    let mut heap: BinaryHeap<Rank> = groups.iter().enumerate().map(|(n, group)| rank(n, group)).collect();
    let mut placed: HashSet<usize> = HashSet::with_capacity(rules.len());
    while let Some((was, _, Reverse(number))) = heap.pop() {
        let left = groups[number].left;
        if left < 2 {
            continue;
        }
        if left < was {
            heap.push(rank(number, &groups[number]));
            continue;
        }
        let members: Vec<usize> =
            groups[number].members.iter().copied().filter(|i| !placed.contains(i)).collect();
        for &member in &members {
            placed.insert(member);
            for &of in of_rule.get(&member).into_iter().flatten() {
                groups[of].left -= 1;
            }
        }
        if members.len() > 2 { arrange(all, members, order) } else { order.extend(members) }
    }
    order.extend(rules.into_iter().filter(|i| !placed.contains(i)));
}

/// The numbers of the groups that each rule is in.
type Membership = HashMap<usize, Vec<usize>>;

/// The groups of these rules, and in which each rule is.
fn share(all: &[Criteria<'_>], rules: &[usize]) -> (Vec<Group>, Membership) {
    let mut groups: Vec<Group> = Vec::new();
    let mut of_rule = Membership::new();
    for field in 0..FIELDS {
        let mut known: HashMap<Field<'_>, usize> = HashMap::new();
        let first = groups.len();
        for &i in rules.iter().filter(|&&i| all[i].0[field] != Field::Any) {
            let number = *known.entry(all[i].0[field]).or_insert_with(|| {
                groups.push(Group { field, members: Vec::new(), left: 0 });
                groups.len() - 1
            });
            groups[number].members.push(i);
        }
        // Nothing is gained by a field that is the same in all.
        if groups[first..].iter().any(|group| group.members.len() == rules.len()) {
            groups.truncate(first);
        }
    }
    for (number, group) in groups.iter_mut().enumerate() {
        group.left = group.members.len();
        for &i in &group.members {
            of_rule.entry(i).or_default().push(number);
        }
    }
    (groups, of_rule)
}

/// What the rules of a list in force have decided.
pub(super) struct Profile<'r>(HashMap<Criteria<'r>, Vec<(&'r Rule, u64)>>);

impl<'r> Profile<'r> {
    /// What the ruleset in force has counted at a path.
    pub(super) fn of(ruleset: &'r Ruleset, path: &str) -> Profile<'r> {
        let rules =
            anchor::sources(ruleset.conf()).find(|(p, _)| *p == path).map(|(_, rules)| &rules.filter[..]);
        let counted = rules.unwrap_or_default().iter().enumerate().filter_map(|(number, rule)| {
            let (slot, _) = ruleset.counted(path, Kind::Filter, number)?;
            Some((rule, ruleset.slab().totals(slot).packets.iter().sum()))
        });
        Profile::new(counted)
    }

    /// Rules, and how many packets each has decided.
    pub(super) fn new(counted: impl Iterator<Item = (&'r Rule, u64)>) -> Profile<'r> {
        let mut profile: HashMap<Criteria<'_>, Vec<(&Rule, u64)>> = HashMap::new();
        for (rule, packets) in counted {
            profile.entry(Criteria::of(rule)).or_default().push((rule, packets));
        }
        Profile(profile)
    }

    /// How many packets the same rule has decided.
    fn packets(&self, rule: &Rule) -> u64 {
        let same = self.0.get(&Criteria::of(rule)).and_then(|all| all.iter().find(|(r, _)| *r == rule));
        same.map_or(0, |&(_, packets)| packets)
    }

    /// Orders quick rules: those that have decided most packets first. Skip steps say what comes first of those that have
    /// decided as many, which is all of them where nothing was counted yet.
    pub(super) fn order(&self, block: Vec<Rule>) -> Vec<Rule> {
        let mut block = for_skip_steps(block);
        block.sort_by_cached_key(|rule| Reverse(self.packets(rule)));
        block
    }
}
