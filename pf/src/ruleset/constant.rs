//! What is known of packets beforehand: for each interface and direction, whether they have to be looked at at all.

use std::collections::HashSet;

use super::{Compiled, Ruleset};
use crate::{
    IfIndex,
    env::Environment,
    rule::{Action, Direction},
};

/// What can be said of packets of one interface and direction without looking at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Constant {
    /// pf does nothing here.
    Skip,
    /// They pass, by this rule or because none matches.
    Pass { rule: Option<u32>, allow_opts: bool },
    /// They have to be looked at.
    Look,
}

impl Ruleset {
    pub(super) fn decide_beforehand(&mut self, env: &Environment) {
        let skipped: HashSet<&str> = self.conf.options.skip.iter().map(String::as_str).collect();
        let highest = env.interfaces.iter().map(|i| usize::from(i.index.0)).max();
        let mut columns = vec![0; highest.map_or(0, |h| h + 1)];
        // No interface has index 0 as its own, so it stands for all that are unknown.
        let mut constants = vec![[Direction::In, Direction::Out].map(|d| self.constant_of(d, IfIndex(0)))];
        for interface in &env.interfaces {
            columns[usize::from(interface.index.0)] = constants.len() as u16;
            constants.push([Direction::In, Direction::Out].map(|d| {
                if skipped.contains(interface.name.as_str()) {
                    Constant::Skip
                } else {
                    self.constant_of(d, interface.index)
                }
            }));
        }
        self.columns = columns.into_boxed_slice();
        self.looks = [0, 1].map(|d| constants.iter().any(|c| c[d] == Constant::Look));
        self.constants = constants.into_boxed_slice();
    }

    fn constant_of(&self, direction: Direction, index: IfIndex) -> Constant {
        let translates =
            self.main.translation.lists(direction).into_iter().flatten().any(|r| r.iface.matches(index));
        let answers = self.cookies && direction == Direction::In;
        let watched = self.log_interface.as_ref().is_some_and(|watched| watched.is(index));
        if watched || translates || answers || !self.scrub.is_empty() {
            return Constant::Look;
        }
        let mut last: Option<(usize, &Compiled)> = None;
        let mut open = false;
        for (i, rule) in self.main.filter.iter().enumerate() {
            if !rule.iface.matches(index) || rule.direction.is_some_and(|d| d != direction) {
                continue;
            }
            if rule.call != 0 {
                if rule.tag != 0 || self.calls.of(rule.call).iter().any(|lists| !lists.filter.is_empty()) {
                    return Constant::Look;
                }
                continue;
            }
            if rule.is_unconditional() {
                (last, open) = (Some((i, rule)), false);
                if rule.quick {
                    break;
                }
            } else {
                open = true;
            }
            if rule.has_side_effect() {
                return Constant::Look;
            }
        }
        match last {
            _ if open => Constant::Look,
            None => Constant::Pass { rule: None, allow_opts: false },
            Some((_, r)) if r.action != Action::Pass || r.keep.is_some() || r.queue != 0 => Constant::Look,
            Some((_, r)) if r.log.is_some() || r.tag != 0 || !r.translates.is_empty() || r.rare.is_some() => {
                Constant::Look
            }
            Some((i, r)) => Constant::Pass { rule: Some(i as u32), allow_opts: r.allow_opts },
        }
    }
}
