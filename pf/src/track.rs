//! Source nodes: what pf remembers of the addresses that flows come from (`source-track`, `max-src-*`, `overload`,
//! `sticky-address`; BSD: `struct pf_src_node`).
//!
//! A node belongs to a rule and a source, or to a source alone (`source-track global`). States count at their nodes: a
//! new one is counted, or refused, before it gets a place in the state table, and an ended one is taken off. A node
//! without states goes after `src.track` seconds, at once if that is 0. A node holds its rule's slot.
//!
//! A worker decides nothing about tables or other states: who overloads a rule is reported, and the control thread adds
//! it to the table and removes its states.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use kern::lock::{
    Held, Leaf, SpinMutex,
    levels::{PfRules, PfSrcNodes},
};

use crate::{
    addr::Family,
    counters::PfCounters,
    rule::{Flush, Keep, Overload, SourceTrack},
    slab::{RuleSlab, RuleSlot, Slot},
};

const ROWS: usize = 1 << 12;
/// Sources that may be reported before the control thread looks.
const REPORTS: usize = 4096;

/// Whose node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeKey {
    /// Slot of the rule; [`RuleSlot::NONE`] for all rules that track globally.
    pub(crate) rule: RuleSlot,
    /// It remembers an address of a pool, and not how many states there are.
    pub(crate) sticky: bool,
    pub(crate) family: Family,
    pub(crate) source: u128,
}

/// What a rule allows a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Sources of the rule at a time.
    pub(crate) nodes: u32,
    pub(crate) states: u32,
    pub(crate) connections: u32,
    /// So many connections in so many seconds.
    pub(crate) rate: (u32, u32),
}

impl Limits {
    pub(crate) fn of(keep: &Keep) -> Limits {
        Limits {
            nodes: keep.max_src_nodes,
            states: keep.max_src_states,
            connections: keep.max_src_conn,
            rate: keep.max_src_conn_rate.map_or((0, 0), |r| (r.limit, r.seconds.max(1))),
        }
    }
}

/// Whether, and under whose name, a rule's states count at a source node.
pub(crate) fn tracked(keep: &Keep) -> Option<SourceTrack> {
    let limited = Limits::of(keep) != Limits::default();
    keep.track.or(limited.then_some(SourceTrack::Rule))
}

#[derive(Clone, Copy, Debug)]
struct Node {
    key: NodeKey,
    states: u32,
    connections: u32,
    /// Connections of late in thousandths, which fade with time.
    rate: u64,
    counted: u32,
    created: u32,
    /// The address of a pool.
    address: u128,
    /// When it goes, once it has no states; 0 until the purge has seen it so.
    expires: u32,
}

/// A source that has gone beyond what its rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overloading {
    /// Anchor of the rule; empty for the main ruleset.
    pub anchor: String,
    /// The rule.
    pub rule: RuleSlot,
    /// The source's family.
    pub family: Family,
    /// The source.
    pub source: u128,
    /// Where it goes, and what becomes of its states.
    pub overload: Overload,
}

impl Overloading {
    /// Whether a state is one that goes with its source.
    pub fn takes(&self, state: &crate::StateInfo) -> bool {
        let source = state.stack_source();
        let same = Family::of(source) == self.family && crate::addr::bits(source) == self.source;
        match self.overload.flush {
            None => false,
            Some(Flush::Rule) => same && state.slot == self.rule,
            Some(Flush::Global) => same,
        }
    }
}

/// A source node as the operator sees it: `pfctl -s Sources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// The source.
    pub source: std::net::IpAddr,
    /// The address it has from a pool.
    pub address: Option<std::net::IpAddr>,
    /// Slot of the rule; none for all rules together.
    pub rule: RuleSlot,
    /// States.
    pub states: u32,
    /// Connections whose handshake is complete.
    pub connections: u32,
    /// Connections of late in thousandths, and over how many seconds that is.
    pub rate: (u64, u32),
    /// Number of the rule when it was loaded.
    pub number: Option<u32>,
    /// Seconds since it was made.
    pub age: u32,
    /// Seconds until it goes, if it has no states.
    pub expires: u32,
}

impl SourceInfo {
    /// As pfctl prints it, without what `-v` adds.
    pub fn line(&self) -> String {
        let address = self.address.map_or_else(String::new, |address| format!(" -> {address}"));
        let (rate, seconds) = self.rate;
        let (whole, tenth) = (rate / 1000, rate % 1000 / 100);
        let SourceInfo { source, states, connections, .. } = self;
        format!(
            "{source}{address} ( states {states}, connections {connections}, rate {whole}.{tenth}/{seconds}s )"
        )
    }

    /// What `-v` adds.
    pub fn details(&self) -> String {
        let clock = |s: u32| format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
        let expires = || format!(", expires in {}", clock(self.expires));
        let expires = if self.states == 0 { expires() } else { String::new() };
        let kind = if self.address.is_some() { "nat" } else { "filter" };
        let rule = self.number.map_or_else(String::new, |number| format!(", {kind} rule {number}"));
        format!("   age {}{expires}{rule}", clock(self.age))
    }
}

/// What was done about source nodes, and what was refused. Workers share it: nodes are for flows that begin, not for packets.
#[derive(Debug, Default)]
struct Counts {
    searches: AtomicU64,
    inserts: AtomicU64,
    removals: AtomicU64,
    max_states: AtomicU64,
    max_nodes: AtomicU64,
    max_connections: AtomicU64,
    max_rate: AtomicU64,
}

fn inc(count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
}

/// All source nodes.
#[derive(Debug)]
pub(crate) struct SrcNodes {
    rows: Box<[SpinMutex<PfSrcNodes, Vec<Node>>]>,
    count: AtomicU32,
    limit: AtomicU32,
    /// Row that the purge looks at next.
    at: AtomicU32,
    counts: Counts,
    reports: Leaf<Vec<(RuleSlot, Family, u128)>>,
}

impl SrcNodes {
    pub(crate) fn new(limit: u32) -> SrcNodes {
        SrcNodes {
            rows: (0..ROWS).map(|_| SpinMutex::new(Vec::new())).collect(),
            count: AtomicU32::new(0),
            limit: AtomicU32::new(limit),
            at: AtomicU32::new(0),
            counts: Counts::default(),
            reports: Leaf::new(Vec::with_capacity(REPORTS)),
        }
    }

    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Relaxed);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// Adds what was counted here to what workers have counted.
    pub(crate) fn count_into(&self, sum: &PfCounters) {
        let c = &self.counts;
        for (place, count) in [
            (&sum.src_searches, &c.searches),
            (&sum.src_inserts, &c.inserts),
            (&sum.src_removals, &c.removals),
            (&sum.max_src_states, &c.max_states),
            (&sum.max_src_nodes, &c.max_nodes),
            (&sum.max_src_conn, &c.max_connections),
            (&sum.max_src_conn_rate, &c.max_rate),
        ] {
            place.add(count.load(Relaxed));
        }
    }

    /// A node is gone.
    fn gone(&self, slab: &RuleSlab, rule: RuleSlot) {
        self.count.fetch_sub(1, Relaxed);
        inc(&self.counts.removals);
        slab.node_gone(rule);
    }

    fn row(&self, key: &NodeKey) -> &SpinMutex<PfSrcNodes, Vec<Node>> {
        let folded = (key.source as u64 ^ (key.source >> 64) as u64) ^ u64::from(key.rule.0) << 32;
        let mixed = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.rows[(mixed >> 32) as usize % ROWS]
    }

    /// The address that a source has from a pool.
    pub(crate) fn address(&self, held: &mut Held<'_, PfRules>, key: &NodeKey) -> Option<u128> {
        if self.count() == 0 {
            return None;
        }
        inc(&self.counts.searches);
        let (row, _held) = held.lock(self.row(key));
        row.iter().find(|n| n.key == *key).map(|n| n.address)
    }

    /// Counts a new state at its node, which is made if it has to be. `false`: the rule, or the limit of nodes, does not
    /// allow it.
    pub(crate) fn enter(
        &self,
        held: &mut Held<'_, PfRules>,
        slab: &RuleSlab,
        key: &NodeKey,
        limits: &Limits,
        address: u128,
        now: u32,
    ) -> bool {
        inc(&self.counts.searches);
        let (mut row, _held) = held.lock(self.row(key));
        if let Some(node) = row.iter_mut().find(|n| n.key == *key) {
            let allowed = limits.states == 0 || node.states < limits.states;
            if allowed {
                node.states += 1;
                (node.expires, node.address) = (0, address);
            } else {
                inc(&self.counts.max_states);
            }
            return allowed;
        }
        if self.count.fetch_add(1, Relaxed) >= self.limit.load(Relaxed) {
            self.count.fetch_sub(1, Relaxed);
            return false;
        }
        if !slab.node_made(key.rule, limits.nodes) {
            self.count.fetch_sub(1, Relaxed);
            inc(&self.counts.max_nodes);
            return false;
        }
        inc(&self.counts.inserts);
        let node = Node {
            key: *key,
            states: 1,
            connections: 0,
            rate: 0,
            counted: now,
            created: now,
            address,
            expires: 0,
        };
        row.push(node);
        true
    }

    /// Takes an ended state off its node; `keeps` says whether nodes live on without states.
    pub(crate) fn leave(
        &self,
        held: &mut Held<'_, PfRules>,
        slab: &RuleSlab,
        key: &NodeKey,
        connected: bool,
        keeps: bool,
    ) {
        let (mut row, _held) = held.lock(self.row(key));
        let Some(at) = row.iter().position(|n| n.key == *key) else { return };
        let node = &mut row[at];
        node.states = node.states.saturating_sub(1);
        node.connections = node.connections.saturating_sub(connected.into());
        if node.states == 0 && !keeps {
            row.swap_remove(at);
            self.gone(slab, key.rule);
        }
    }

    /// A state's handshake is complete. `false`: the source has too many connections, or made them too fast.
    pub(crate) fn connected(
        &self,
        held: &mut Held<'_, PfRules>,
        key: &NodeKey,
        limits: &Limits,
        now: u32,
    ) -> bool {
        let (mut row, _held) = held.lock(self.row(key));
        let Some(node) = row.iter_mut().find(|n| n.key == *key) else { return true };
        node.connections += 1;
        let (limit, seconds) = limits.rate;
        let too_many = limits.connections != 0 && node.connections > limits.connections;
        let mut too_fast = false;
        if seconds != 0 {
            let passed = now.saturating_sub(node.counted);
            let faded = node.rate * u64::from(passed.min(seconds)) / u64::from(seconds);
            node.rate = node.rate - faded + 1000;
            node.counted = now;
            too_fast = node.rate > u64::from(limit) * 1000;
        }
        if too_many {
            inc(&self.counts.max_connections);
        }
        if too_fast {
            inc(&self.counts.max_rate);
        }
        !too_many && !too_fast
    }

    /// Tells the control thread of a source that has gone too far.
    pub(crate) fn report(&self, rule: RuleSlot, key: &NodeKey) {
        let entry = (rule, key.family, key.source);
        self.reports.with(|reports| {
            if reports.len() < REPORTS && !reports.contains(&entry) {
                reports.push(entry);
            }
        });
    }

    /// The sources that have been reported; for the control thread.
    pub(crate) fn reported(&self, slab: &RuleSlab) -> Vec<Overloading> {
        let mut room = Vec::with_capacity(REPORTS);
        self.reports.with(|reports| std::mem::swap(reports, &mut room));
        let overloading = |(rule, family, source)| {
            let (anchor, overload) = slab.overload(rule)?;
            Some(Overloading { anchor, rule, family, source, overload })
        };
        room.into_iter().filter_map(overloading).collect()
    }

    /// Looks at some rows and removes nodes that have been without states for `seconds`.
    pub(crate) fn purge(&self, held: &mut Held<'_, PfRules>, slab: &RuleSlab, now: u32, seconds: u32) {
        const STEP: u32 = 16;
        if self.count() == 0 {
            return;
        }
        let at = self.at.fetch_add(STEP, Relaxed);
        for i in 0..STEP {
            let (mut row, _held) = held.lock(&self.rows[at.wrapping_add(i) as usize % ROWS]);
            row.retain_mut(|node| {
                if node.states != 0 {
                    return true;
                }
                if node.expires == 0 {
                    node.expires = now.saturating_add(seconds).max(1);
                }
                let stays = node.expires > now;
                if !stays {
                    self.gone(slab, node.key.rule);
                }
                stays
            });
        }
    }

    /// All nodes, one lock at a time.
    pub(crate) fn dump(&self, held: &mut Held<'_, PfRules>, slab: &RuleSlab, now: u32) -> Vec<SourceInfo> {
        let mut all = Vec::new();
        for row in &self.rows {
            let (row, _held) = held.lock(row);
            all.extend(row.iter().map(|n| SourceInfo {
                source: n.key.family.address(n.key.source),
                address: n.key.sticky.then(|| n.key.family.address(n.address)),
                rule: n.key.rule,
                states: n.states,
                connections: n.connections,
                rate: (n.rate, slab.slot(n.key.rule).map_or(0, |s| s.source_limits().rate.1)),
                number: slab.slot(n.key.rule).map(Slot::number),
                age: now.saturating_sub(n.created),
                expires: n.expires.saturating_sub(now),
            }));
        }
        all
    }

    /// Forgets the nodes that `doomed` names (`pfctl -F Sources`, `-K`): their states count nowhere any more.
    pub(crate) fn kill(
        &self,
        held: &mut Held<'_, PfRules>,
        slab: &RuleSlab,
        mut doomed: impl FnMut(std::net::IpAddr, Option<std::net::IpAddr>) -> bool,
    ) -> u32 {
        let mut killed = 0;
        for row in &self.rows {
            let (mut row, _held) = held.lock(row);
            row.retain(|node| {
                let family = node.key.family;
                let address = node.key.sticky.then(|| family.address(node.address));
                let stays = !doomed(family.address(node.key.source), address);
                if !stays {
                    killed += 1;
                    self.gone(slab, node.key.rule);
                }
                stays
            });
        }
        killed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::lock::Root;

    fn key(source: u128) -> NodeKey {
        NodeKey { rule: RuleSlot::NONE, sticky: false, family: Family::Inet, source }
    }

    #[test]
    fn connections_fade_over_the_seconds_of_their_rate() {
        let (nodes, slab) = (SrcNodes::new(10), RuleSlab::new(1));
        let mut root = Root::claim();
        let mut top = root.top();
        let mut held = top.at::<PfRules>();
        let limits = Limits { rate: (3, 10), ..Limits::default() };
        assert!(nodes.enter(&mut held, &slab, &key(1), &limits, 0, 100));
        let mut at = |now| nodes.connected(&mut held, &key(1), &limits, now);
        assert_eq!([100, 100, 100, 100].map(&mut at), [true, true, true, false]);
        assert!(!at(101), "four fifths and one more are still too many");
        assert!(at(111), "after ten seconds all is forgotten");
    }

    #[test]
    fn nodes_are_limited_and_come_back_when_their_states_are_gone() {
        let (nodes, slab) = (SrcNodes::new(2), RuleSlab::new(1));
        let mut root = Root::claim();
        let mut top = root.top();
        let mut held = top.at::<PfRules>();
        let limits = Limits { states: 2, ..Limits::default() };
        let mut enter = |source| nodes.enter(&mut held, &slab, &key(source), &limits, 0, 1);
        assert_eq!([1, 1, 1, 2, 3].map(&mut enter), [true, true, false, true, false]);
        nodes.leave(&mut held, &slab, &key(2), false, false);
        assert_eq!(nodes.count(), 1);
        nodes.leave(&mut held, &slab, &key(1), false, true);
        nodes.leave(&mut held, &slab, &key(1), false, true);
        for now in 0..ROWS as u32 {
            nodes.purge(&mut held, &slab, 100 + now / 300, 5);
        }
        assert_eq!(nodes.count(), 0, "kept for five seconds and not longer");
    }
}
