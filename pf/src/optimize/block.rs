//! Blocks: neighbouring rules of the same *effect*, which is all that a rule says besides what a packet must be for it to
//! match. Whichever of them matches, the same happens.
//!
//! A tag that they set is part of the effect, one that they ask for is not. That holds: up to the first of them that
//! matches, in whatever order, a packet has the tag with which it came to the block, and what happens then is settled.

use std::collections::HashSet;

use crate::{
    rule::{Action, Host, Keep, Peer, Rule},
    timeout::Timeout,
};

/// Cuts rules into blocks.
pub(super) fn split(rules: Vec<Rule>, counted: &HashSet<String>) -> Vec<Vec<Rule>> {
    let mut blocks: Vec<Vec<Rule>> = Vec::new();
    // The effect of the last block, unless nothing may join it.
    let mut open: Option<Rule> = None;
    for rule in rules {
        let effect = (!stays(&rule, counted)).then(|| effect(&rule));
        match blocks.last_mut().filter(|_| effect.is_some() && effect == open) {
            Some(block) => block.push(rule),
            None => blocks.push(vec![rule]),
        }
        open = effect;
    }
    blocks
}

/// What a rule says besides what a packet must be. A field that is not named here is taken for a part of it.
pub(super) fn effect(rule: &Rule) -> Rule {
    Rule {
        direction: None,
        on: None,
        family: None,
        proto: None,
        from: Peer::default(),
        os: None,
        to: Peer::default(),
        received_on: None,
        user: None,
        group: None,
        flags: None,
        icmp: None,
        tos: None,
        prio: None,
        fragment: false,
        tagged: None,
        ..rule.clone()
    }
}

/// Whether a rule keeps its place because it matters which rule it is that matches: it is told apart by name, it counts
/// states or sources of its own, chance decides, it calls, it is gone afterwards, or it changes what later rules see.
fn stays(rule: &Rule, counted: &HashSet<String>) -> bool {
    let counts = |peer: &Peer| matches!(&peer.host, Host::Table(name) if counted.contains(name));
    !rule.labels.is_empty()
        || rule.action == Action::Match
        || rule.anchor.is_some()
        || rule.probability.is_some()
        || rule.once.is_some()
        || rule.max_pkt_rate.is_some()
        || rule.state_limiter.is_some()
        || rule.source_limiter.is_some()
        || rule.log.is_some_and(|log| log.matches)
        || rule.nat.is_some()
        || rule.rdr.is_some()
        || rule.af_to.is_some()
        || rule.route.is_some()
        || rule.keep.as_ref().is_some_and(has_counts)
        || counts(&rule.from)
        || counts(&rule.to)
}

/// Whether states depend on how many this very rule has made.
fn has_counts(keep: &Keep) -> bool {
    let adaptive = [Timeout::AdaptiveStart, Timeout::AdaptiveEnd];
    keep.max != 0
        || keep.track.is_some()
        || keep.max_src_nodes != 0
        || keep.max_src_states != 0
        || keep.max_src_conn != 0
        || keep.max_src_conn_rate.is_some()
        || keep.timeouts.iter().any(|(timeout, _)| adaptive.contains(timeout))
}
