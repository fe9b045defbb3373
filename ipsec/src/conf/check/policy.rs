//! What a policy asks for, and where it stands in the order.

use super::{Checker, ValidConf, ValidPolicy};
use crate::{
    conf::{
        ConfError, Place,
        statement::{DirectionWord, ModeWord, PolicyAdd, PolicyName, Request, Treatment},
    },
    sa::{Mode, Protocol},
    selector::{Addresses, Prefix, Selector},
    spd::{self, Action, Direction, Level},
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
        if selector.src.is_ipv4() != selector.dst.is_ipv4() {
            self.errors.add(
                name.dst.place,
                "source and destination are of two families",
                "both IPv4 or both IPv6",
            );
        }
        let Some(action) = self.action(&add.treatment, &selector, place) else { return };
        let direction = match name.direction.value {
            DirectionWord::Out => Direction::Out,
            DirectionWord::In | DirectionWord::Fwd => Direction::In,
        };
        let word = name.direction.value;
        let origin = self.origin(place);
        let policy = ValidPolicy { selector, direction, word, action, priority: add.priority, origin };
        match self.policy_at(name) {
            Some(at) if replace => {
                self.valid.policies.remove(at);
                self.insert(policy);
            }
            Some(at) => {
                let there = self.valid.policies[at].origin.seen_from(self.file);
                let message = format!("the policy of {there} has the same selectors and direction");
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

    fn action(&mut self, treatment: &Treatment, selector: &Selector, place: Place) -> Option<Action> {
        let requests = match treatment {
            Treatment::None => return Some(Action::Bypass),
            Treatment::Discard => return Some(Action::Discard),
            Treatment::Ipsec(requests) => requests,
        };
        if requests.is_empty() {
            self.errors.add(place, "ipsec without a request", "esp/tunnel/src-dst/require");
            return None;
        }
        if let Some(more) = requests.get(spd::BUNDLE) {
            let message = format!("a bundle of {} transforms", requests.len());
            self.errors.add(more.protocol.place, message, format!("at most {}", spd::BUNDLE));
            return None;
        }
        let (mut src, mut dst) = (selector.src, selector.dst);
        let mut bundle = Vec::with_capacity(requests.len());
        for request in requests {
            let checked = self.request(request, &src, &dst);
            if let Some((a, b)) = checked.and_then(|request| request.outer()) {
                (src, dst) = (Prefix::host(a).into(), Prefix::host(b).into());
            }
            bundle.extend(checked);
        }
        (bundle.len() == requests.len()).then(|| Action::Protect(bundle.into()))
    }

    /// One request of a policy for packets between these addresses.
    fn request(&mut self, request: &Request, src: &Addresses, dst: &Addresses) -> Option<spd::Request> {
        let protocol = self.ipsec(&request.protocol);
        let level = request.level.value;
        let ends = match &request.ends {
            Some((a, b)) if a.value.is_ipv4() != b.value.is_ipv4() => {
                let message = "the ends of the tunnel are of two families";
                self.errors.add(b.place, message, "both IPv4 or both IPv6");
                return None;
            }
            ends => ends.as_ref().map(|(a, b)| (a.value, b.value)),
        };
        if let (Some(port), false) = (request.ports.iter().flatten().next(), protocol == Some(Protocol::Esp))
        {
            self.errors.add(port.place, "only ESP goes in UDP", "the addresses alone");
            return None;
        }
        let ports = request.ports.each_ref().map(|port| port.as_ref().map(|port| port.value));
        let outer = match request.mode.value {
            ModeWord::Tunnel => Some((Mode::Tunnel, "a tunnel needs its ends", "esp/tunnel/src-dst/level")),
            ModeWord::Beet => Some((Mode::Beet, "BEET mode needs the SA's ends", "esp/beet/src-dst/level")),
            ModeWord::Transport | ModeWord::Any => None,
        };
        if let Some((mode, message, help)) = outer {
            if ends.is_none() {
                self.errors.add(request.mode.place, message, help);
                return None;
            }
            if mode == Mode::Beet && protocol? != Protocol::Esp {
                self.errors.add(request.mode.place, "only ESP has a BEET mode", "tunnel or transport");
                return None;
            }
            return Some(spd::Request { protocol: protocol?, mode, ends, ports, level });
        }
        if let (Some((a, b)), Some((place, _))) = (ends, &request.ends)
            && !(src.contains(a) && dst.contains(b))
        {
            let message = "transport mode keeps the packet's addresses, and these are no such packet's";
            self.errors.add(place.place, message, "esp/transport//level");
            return None;
        }
        Some(spd::Request { protocol: protocol?, mode: Mode::Transport, ends, ports, level })
    }

    /// A policy without SAs is right if somebody will add one, and a mistake otherwise.
    pub(super) fn warn(&mut self) {
        let ValidConf { sas, policies, warnings, .. } = &mut self.valid;
        for policy in policies {
            let Action::Protect(bundle) = &policy.action else { continue };
            let (mut src, mut dst) = (policy.selector.src, policy.selector.dst);
            for request in bundle.iter() {
                if request.level != Level::Use && !sas.iter().any(|sa| request.has(&sa.config, &src, &dst)) {
                    let (a, b) = request.ends.map_or_else(
                        || (src.to_string(), dst.to_string()),
                        |(a, b)| (a.to_string(), b.to_string()),
                    );
                    warnings.push(ConfError {
                        file: Arc::clone(&policy.origin.file),
                        place: policy.origin.place,
                        message: format!(
                            "no {} SA goes from {a} to {b} as this policy wants: what it matches is dropped",
                            request.protocol.name()
                        ),
                        help: "an add with these ends".to_owned(),
                    });
                }
                if let Some((a, b)) = request.outer() {
                    (src, dst) = (Prefix::host(a).into(), Prefix::host(b).into());
                }
            }
        }
    }
}
