//! What a policy asks for, and where it stands in the order.

use super::{Checker, ValidConf, ValidPolicy, ValidSa};
use crate::{
    conf::{
        ConfError, Place,
        statement::{DirectionWord, ModeWord, PolicyAdd, PolicyName, Request, Treatment},
    },
    selector::Selector,
    spd::{Action, Direction, Level, Tunnel},
};
use std::sync::Arc;

impl Checker<'_> {
    fn policy_at(&self, name: &PolicyName) -> Option<usize> {
        let selector = Selector { src: name.src.value, dst: name.dst.value, upper: name.upper };
        self.valid.policies.iter().position(|p| p.selector == selector && p.word == name.direction.value)
    }

    pub(super) fn policy_delete(&mut self, name: &PolicyName, place: Place) {
        match self.policy_at(name) {
            Some(at) => {
                self.valid.policies.remove(at);
            }
            None => self.errors.add(
                place,
                "there is no such policy",
                "one that was added before, with the same selectors and direction",
            ),
        }
    }

    pub(super) fn policy(&mut self, add: &PolicyAdd, place: Place, replace: bool) {
        let name = &add.name;
        let selector = Selector { src: name.src.value, dst: name.dst.value, upper: name.upper };
        if selector.src.addr().is_ipv4() != selector.dst.addr().is_ipv4() {
            self.errors.add(
                name.dst.place,
                "source and destination are of two families",
                "both IPv4 or both IPv6",
            );
        }
        let Some(action) = self.action(&add.treatment, place) else { return };
        let direction = match name.direction.value {
            DirectionWord::Out => Direction::Out,
            DirectionWord::In | DirectionWord::Fwd => Direction::In,
        };
        let word = name.direction.value;
        let policy = ValidPolicy { selector, direction, word, action, priority: add.priority, place };
        match self.policy_at(name) {
            Some(at) if replace => {
                self.valid.policies.remove(at);
                self.insert(policy);
            }
            Some(at) => {
                let line = self.valid.policies[at].place.line;
                let message = format!("the policy of line {line} has the same selectors and direction");
                self.errors.add(place, message, "spdupdate, or spddelete before");
            }
            None => self.insert(policy),
        }
    }

    /// Behind all policies of the same or a higher priority.
    fn insert(&mut self, policy: ValidPolicy) {
        let policies = &mut self.valid.policies;
        let at = policies.iter().position(|p| p.priority < policy.priority).unwrap_or(policies.len());
        policies.insert(at, policy);
    }

    fn action(&mut self, treatment: &Treatment, place: Place) -> Option<Action> {
        match treatment {
            Treatment::None => Some(Action::Bypass),
            Treatment::Discard => Some(Action::Discard),
            Treatment::Ipsec(requests) => match &requests[..] {
                [request] => self.tunnel(request).map(Action::Protect),
                [_, second, ..] => {
                    self.errors.add(
                        second.protocol.place,
                        "bundles of several protocols are not there yet",
                        "one request",
                    );
                    None
                }
                [] => {
                    self.errors.add(place, "ipsec without a request", "esp/tunnel/src-dst/require");
                    None
                }
            },
        }
    }

    fn tunnel(&mut self, request: &Request) -> Option<Tunnel> {
        let esp = self.is_esp(&request.protocol);
        if request.mode.value == ModeWord::Transport {
            self.errors.add(request.mode.place, "transport mode is not there yet", "tunnel");
            return None;
        }
        let Some((src, dst)) = &request.ends else {
            self.errors.add(request.mode.place, "a tunnel needs its ends", "esp/tunnel/src-dst/level");
            return None;
        };
        if src.value.is_ipv4() != dst.value.is_ipv4() {
            self.errors.add(
                dst.place,
                "the ends of the tunnel are of two families",
                "both IPv4 or both IPv6",
            );
            return None;
        }
        esp.then_some(Tunnel { src: src.value, dst: dst.value, level: request.level.value })
    }

    /// A policy without SAs is right if somebody will add one, and a mistake otherwise.
    pub(super) fn warn(&mut self) {
        let ValidConf { sas, policies, warnings } = &mut self.valid;
        for policy in policies {
            let Action::Protect(Tunnel { src, dst, level }) = policy.action else { continue };
            let has = |sa: &ValidSa| {
                let reqid = match level {
                    Level::Unique(id) => sa.config.reqid == id,
                    _ => true,
                };
                (sa.config.src, sa.config.dst) == (src, dst) && reqid
            };
            if level != Level::Use && !sas.iter().any(has) {
                warnings.push(ConfError {
                    file: Arc::clone(self.file),
                    place: policy.place,
                    message: format!(
                        "no SA goes from {src} to {dst} as this policy wants: what it matches is dropped"
                    ),
                    help: "an add with these ends".to_owned(),
                });
            }
        }
    }
}
