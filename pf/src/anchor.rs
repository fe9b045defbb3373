//! Anchors: rulesets by name within the ruleset (pf.conf(5), ANCHORS; BSD: `struct pf_kanchor`).
//!
//! The main ruleset and every anchor are compiled to [`Lists`] of their own, with slots and counters of their own. A call
//! is a rule as any other, with conditions and skip steps. If it matches, the lists that it calls are evaluated, and then
//! the rule behind the call.
//!
//! ```text
//!   Ruleset ─ main ──▶ Lists ""     pass ..., anchor "a/*" (call 1), block ...
//!           ├ anchors ▶ Lists "a/x", Lists "a/y"
//!           └ calls ──▶ 1: [a/x, a/y]
//! ```
//!
//! Lists name what they call by a number, and the ruleset knows what is behind the number at the moment. So loading one
//! anchor makes one new [`Lists`] and a new table of calls; all other lists belong to the old and to the new ruleset.
//!
//! As in pf, a wildcard calls the anchors directly below, by name; `quick` on a call ends evaluation if a rule inside has
//! decided, and `quick` inside ends all of it. A ruleset in which an anchor calls itself is refused: pf would notice for
//! each packet that its stack is full.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use kern::{counter::Counter, lock::Leaf};

use crate::{
    conf::PfConf,
    env::Environment,
    ether,
    ids::Names,
    print,
    rule::{Action, AnchorCall, Rule, Rules},
    ruleset::{CompileError, Compiled, Translation},
    slab::{RuleSlab, RuleSlot},
};

/// Calls within calls (BSD: `PF_ANCHOR_STACK_MAX`).
const DEPTH: usize = 64;

/// What is new in a configuration. The rest is what it was: rules keep their counters and tables their contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    /// Whose filter rules.
    pub filter: Which,
    /// Whose nat, rdr and binat rules.
    pub nat: Which,
    /// Whose Ethernet rules.
    pub ether: Which,
    /// Whose tables.
    pub tables: Which,
}

/// The main ruleset, whose path is empty, and anchors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// All.
    #[default]
    All,
    /// Those at these paths.
    These(BTreeSet<String>),
}

impl Which {
    /// None of them.
    pub const NONE: Which = Which::These(BTreeSet::new());

    /// Those at these paths.
    pub fn these<'a>(paths: impl IntoIterator<Item = &'a str>) -> Which {
        Which::These(paths.into_iter().map(str::to_owned).collect())
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        match self {
            Which::All => true,
            Which::These(paths) => paths.contains(path),
        }
    }
}

/// The kinds of rules that are evaluated in lists of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// pass, block, match.
    Filter,
    /// nat.
    Nat,
    /// rdr.
    Rdr,
    /// binat.
    Binat,
}

impl Kind {
    /// All of them, in the order in which lists have their slots.
    pub(crate) const ALL: [Kind; 4] = [Kind::Filter, Kind::Nat, Kind::Rdr, Kind::Binat];

    /// The kind of a rule; scrub rules are not among them.
    pub const fn of(action: Action) -> Option<Kind> {
        match action {
            Action::Pass | Action::Block(_) | Action::Match => Some(Kind::Filter),
            Action::Nat | Action::NoNat => Some(Kind::Nat),
            Action::Rdr | Action::NoRdr => Some(Kind::Rdr),
            Action::Binat | Action::NoBinat => Some(Kind::Binat),
            Action::Scrub | Action::NoScrub => None,
        }
    }
}

/// The rules of an anchor or of the main ruleset.
#[derive(Debug)]
pub(crate) struct Lists {
    /// Ethernet rules.
    pub(crate) ether: Box<[ether::Compiled]>,
    /// Filter rules.
    pub(crate) filter: Box<[Compiled]>,
    pub(crate) translation: Translation,
    /// By worker, then by rule.
    pub(crate) evaluations: Box<[Box<[Counter]>]>,
    /// What had been counted of evaluations when they were last cleared, by rule; empty if they never were. Less than
    /// nothing, wrapped, for a rule that was evaluated in other lists before.
    cleared: Leaf<Box<[u64]>>,
    /// The slots of all rules: filter, nat, rdr, binat, Ethernet.
    pub(crate) slots: Vec<RuleSlot>,
    slab: Arc<RuleSlab>,
}

impl Lists {
    pub(crate) fn empty(slab: &Arc<RuleSlab>) -> Lists {
        Lists {
            ether: Box::default(),
            filter: Box::default(),
            translation: Translation::default(),
            evaluations: Box::default(),
            cleared: Leaf::new(Box::default()),
            slots: Vec::new(),
            slab: Arc::clone(slab),
        }
    }

    /// The evaluation counters of a worker.
    #[inline(always)]
    pub(crate) fn evaluations_of(&self, worker: usize) -> &[Counter] {
        self.evaluations.get(worker).map_or(&[], |e| e)
    }

    /// The rules of a kind, `binat` as they are for what leaves.
    pub(crate) fn list(&self, kind: Kind) -> &[Compiled] {
        match kind {
            Kind::Filter => &self.filter,
            Kind::Nat => &self.translation.nat,
            Kind::Rdr => &self.translation.rdr,
            Kind::Binat => &self.translation.binat[1],
        }
    }

    /// How often a rule was evaluated, over all workers, since that was cleared.
    pub(crate) fn evaluations(&self, rule: &Compiled) -> u64 {
        self.evaluations_at(rule.counter)
    }

    /// The same by the counter of a rule.
    pub(crate) fn evaluations_at(&self, counter: u32) -> u64 {
        let rule = counter as usize;
        self.evaluated(rule)
            .wrapping_sub(self.cleared.with(|cleared| cleared.get(rule).copied().unwrap_or(0)))
    }

    fn evaluated(&self, rule: usize) -> u64 {
        self.evaluations.iter().map(|worker| worker.get(rule).map_or(0, Counter::get)).sum()
    }

    /// Lets the counters of rules that stay go on where those of other lists are.
    pub(crate) fn go_on(&self, before: &Kept<'_>) {
        let Some(old) = before.lists else { return };
        let counters = self.evaluations.first().map_or(0, |worker| worker.len());
        let mut cleared = vec![0_u64; counters];
        let rules = Kind::ALL.iter().flat_map(|&kind| {
            let all = self.list(kind).iter().enumerate();
            all.filter_map(move |(n, new)| Some((new.counter, before.rule(kind, n)?.counter)))
        });
        let ether = self.ether.iter().zip(before.ether_rules()).map(|(new, old)| (new.counter, old.counter));
        for (new, counter) in rules.chain(ether) {
            if let Some(place) = cleared.get_mut(new as usize) {
                *place = old.evaluations_at(counter).wrapping_neg();
            }
        }
        self.cleared.with(|place| *place = cleared.into_boxed_slice());
    }

    /// Tells the slots of rules that were in other lists before which number they have now.
    pub(crate) fn renumber(&self) {
        for kind in Kind::ALL {
            for (number, rule) in self.list(kind).iter().enumerate() {
                self.slab.renumber(rule.slot, number as u32);
            }
        }
    }

    /// Lets the counters of all rules begin at 0.
    pub(crate) fn clear(&self) {
        let rules = self.evaluations.first().map_or(0, |worker| worker.len());
        let evaluated = (0..rules).map(|rule| self.evaluated(rule)).collect();
        self.cleared.with(|cleared| *cleared = evaluated);
        self.slots.iter().for_each(|&slot| self.slab.clear(slot));
    }
}

/// What of the lists in force stays as it is when others are made in their place: the rules of some kinds, with their
/// slots and counters; with `set keepcounters` those of the other kinds, too, that say the same as before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept<'a> {
    pub(crate) lists: Option<&'a Lists>,
    pub(crate) filter: bool,
    pub(crate) nat: bool,
    pub(crate) ether: bool,
    /// For the rules of each kind, which of the old ones says the same; empty if nobody asks.
    pub(crate) same: [Vec<Option<usize>>; Kind::ALL.len()],
}

impl<'a> Kept<'a> {
    /// What a rule was before, if it was there.
    pub(crate) fn rule(&self, kind: Kind, number: usize) -> Option<&'a Compiled> {
        let stay = if kind == Kind::Filter { self.filter } else { self.nat };
        let before = if stay { number } else { (*self.same[kind as usize].get(number)?)? };
        self.lists?.list(kind).get(before)
    }

    /// Finds out which rules at a path say the same as one of the configuration in force. Of several that do, the first is
    /// the first.
    pub(crate) fn find_same(&mut self, old: &PfConf, path: &str, rules: &Rules, env: &Environment) {
        let Some((_, before)) = sources(old).find(|(p, _)| *p == path) else { return };
        for kind in Kind::ALL {
            self.same[kind as usize] = same(before.list(kind), rules.list(kind), env);
        }
    }

    /// The Ethernet rules, if they stay.
    pub(crate) fn ether_rules(&self) -> &'a [ether::Compiled] {
        self.lists.filter(|_| self.ether).map_or(&[], |lists| &lists.ether)
    }
}

/// For each rule, which of the old ones is the same; each of those once.
fn same(old: &[Rule], new: &[Rule], env: &Environment) -> Vec<Option<usize>> {
    // What is printed tells nearly all rules apart, and so finds them fast.
    let mut known: HashMap<String, VecDeque<usize>> = HashMap::new();
    for (number, rule) in old.iter().enumerate() {
        known.entry(print::rule(rule, env)).or_default().push_back(number);
    }
    let take = |rule: &Rule| {
        let numbers = known.get_mut(&print::rule(rule, env))?;
        let at = numbers.iter().position(|&number| old.get(number) == Some(rule))?;
        numbers.remove(at)
    };
    new.iter().map(take).collect()
}

impl Drop for Lists {
    fn drop(&mut self) {
        self.slots.iter().for_each(|&slot| self.slab.release(slot));
    }
}

/// What is behind the numbers of calls.
#[derive(Debug, Default)]
pub(crate) struct Calls(Vec<Box<[Arc<Lists>]>>);

impl Calls {
    /// The lists that a call evaluates, in order.
    #[inline]
    pub(crate) fn of(&self, call: u16) -> &[Arc<Lists>] {
        self.0.get(usize::from(call)).map_or(&[], |lists| lists)
    }

    /// Finds what is called, and that nothing calls itself.
    pub(crate) fn resolve(
        conf: &PfConf,
        anchors: &BTreeMap<String, Arc<Lists>>,
        names: &mut Names,
    ) -> Result<Calls, CompileError> {
        check_depth(conf)?;
        let mut calls = Vec::new();
        for (_, rules) in sources(conf) {
            for call in rules.calls() {
                let number = usize::from(names.call(&call.target())?);
                if calls.len() <= number {
                    calls.resize_with(number + 1, Box::default);
                }
                calls[number] = callees(anchors, call).map(|(_, lists)| Arc::clone(lists)).collect();
            }
        }
        Ok(Calls(calls))
    }
}

impl AnchorCall {
    /// Whether the anchor is written in braces without a name.
    pub fn is_unnamed(&self) -> bool {
        self.name.is_empty()
    }

    /// What it calls, from the main ruleset down: `a/b`, `a/*`.
    pub fn target(&self) -> String {
        match (self.wildcard, self.path.as_str()) {
            (false, path) => path.to_owned(),
            (true, "") => "*".to_owned(),
            (true, path) => format!("{path}/*"),
        }
    }
}

/// The rules of the main ruleset and of all anchors, with their paths.
pub(crate) fn sources(conf: &PfConf) -> impl Iterator<Item = (&str, &Rules)> {
    let anchors = conf.anchors.iter().map(|a| (a.path.as_str(), &a.rules));
    std::iter::once(("", &conf.rules)).chain(anchors)
}

/// What a call calls, of these that there are.
pub(crate) fn callees<'a, T>(
    all: &'a BTreeMap<String, T>,
    call: &AnchorCall,
) -> impl Iterator<Item = (&'a str, &'a T)> {
    let one = (!call.wildcard).then(|| all.get_key_value(&call.path)).flatten();
    let below = call.wildcard.then(|| children(all, &call.path));
    one.into_iter().chain(below.into_iter().flatten()).map(|(path, value)| (path.as_str(), value))
}

/// The anchors directly below a path, by name.
pub(crate) fn children<'a, T>(
    all: &'a BTreeMap<String, T>,
    path: &str,
) -> impl Iterator<Item = (&'a String, &'a T)> {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    all.range(prefix.clone()..)
        .map_while(move |(path, value)| Some((path, value, path.strip_prefix(prefix.as_str())?)))
        .filter(|(_, _, name)| !name.is_empty() && !name.contains('/'))
        .map(|(path, value, _)| (path, value))
}

/// Every anchor that there is, by path: filled, called, or above one of these.
pub fn paths(conf: &PfConf) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let called = sources(conf).flat_map(|(_, rules)| rules.calls());
    let filled = conf.anchors.iter().map(|a| a.path.as_str());
    filled.chain(called.map(|call| call.path.as_str())).for_each(|path| add_path(&mut paths, path));
    paths
}

/// Adds an anchor and those above it.
pub fn add_path(paths: &mut BTreeSet<String>, mut path: &str) {
    while !path.is_empty() && paths.insert(path.to_owned()) {
        path = path.rfind('/').map_or("", |at| &path[..at]);
    }
}

/// The path of an anchor directly below another.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// The names of the anchors directly below a path, of these.
pub fn names_below<'a>(paths: &'a BTreeSet<String>, path: &str) -> impl Iterator<Item = &'a str> {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    paths.iter().filter_map(move |p| p.strip_prefix(prefix.as_str())).filter(|name| !name.contains('/'))
}

/// Nothing may call itself, and calls may not go deeper than [`DEPTH`].
fn check_depth(conf: &PfConf) -> Result<(), CompileError> {
    let all: BTreeMap<String, &Rules> = sources(conf).map(|(path, r)| (path.to_owned(), r)).collect();
    let mut known = HashMap::new();
    depth(&all, "", &mut Vec::new(), &mut known)?;
    for path in all.keys() {
        depth(&all, path, &mut Vec::new(), &mut known)?;
    }
    Ok(())
}

/// How deep the calls of an anchor go; `above` are those whose calls lead here.
fn depth<'a>(
    all: &'a BTreeMap<String, &Rules>,
    path: &'a str,
    above: &mut Vec<&'a str>,
    known: &mut HashMap<&'a str, usize>,
) -> Result<usize, CompileError> {
    if let Some(&depth) = known.get(path) {
        return Ok(depth);
    }
    if above.contains(&path) {
        return Err(CompileError::Recursion(path.to_owned()));
    }
    above.push(path);
    let mut deepest = 0;
    for call in all.get(path).into_iter().flat_map(|r| r.calls()) {
        for (callee, _) in callees(all, call) {
            deepest = deepest.max(1 + depth(all, callee, above, known)?);
        }
    }
    above.pop();
    if deepest > DEPTH {
        return Err(CompileError::Depth(path.to_owned(), DEPTH));
    }
    known.insert(path, deepest);
    Ok(deepest)
}
