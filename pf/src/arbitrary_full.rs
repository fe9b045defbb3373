//! Rules of the whole language at random, for the property that what is printed is read as itself. A rule is one that
//! the parser could have made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use crate::{
    addr::{Family, Prefix},
    arbitrary,
    once::Once,
    pool::NAT_PORTS,
    rule::{
        Action, AfTo, Direction, Divert, Dummynet, Dynamic, Flush, Host, IdMatch, Keep, Log, Method, On,
        Overload, Part, Pool, PoolHost, PoolPorts, PortSet, Rate, Route, RouteKind, Rule, Scrub, SourceTrack,
        StateKind, UNKNOWN_ID,
    },
    timeout::Timeout,
};

/// Numbers drawn beforehand, taken one after the other.
struct Dice<'a>(std::slice::Iter<'a, u32>);

impl Dice<'_> {
    fn below(&mut self, n: u32) -> u32 {
        self.0.next().map_or(0, |&r| r % n)
    }

    /// Once in `n` times.
    fn once_in(&mut self, n: u32) -> bool {
        self.below(n) == 1
    }

    fn maybe<T>(&mut self, n: u32, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.once_in(n) { Some(make(self)) } else { None }
    }

    fn rate(&mut self) -> Rate {
        Rate { limit: 1 + self.below(1000), seconds: 1 + self.below(100) }
    }

    fn id(&mut self) -> IdMatch {
        let (a, b) = (self.below(100), self.below(100));
        match self.below(10) {
            0 => IdMatch::NotEqual(a),
            1 => IdMatch::Less(a),
            2 => IdMatch::LessEqual(a),
            3 => IdMatch::Greater(a),
            4 => IdMatch::GreaterEqual(a),
            5 => IdMatch::Within(a, b),
            6 => IdMatch::Between(a, b),
            7 => IdMatch::Outside(a, b),
            8 => IdMatch::Equal(UNKNOWN_ID),
            _ => IdMatch::Equal(a),
        }
    }

    fn prefix(&mut self, family: Family) -> Host {
        let n = self.below(1000);
        let address = match family {
            Family::Inet => IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)),
            Family::Inet6 => IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n))),
        };
        Host::Prefix(Prefix::new(address, if self.once_in(2) { family.width() } else { family.width() - 8 }))
    }

    fn pool_host(&mut self, family: Option<Family>) -> Host {
        match (self.below(4), family) {
            (0, _) => Host::Table("t".into()),
            (_, Some(family)) if self.below(3) > 0 => self.prefix(family),
            _ => Host::Dynamic(Dynamic {
                interface: "wan0".into(),
                part: Part::Address,
                no_alias: self.once_in(2),
                len: None,
            }),
        }
    }

    fn pool(&mut self, family: Option<Family>, interface: bool) -> Pool {
        let count = if self.once_in(3) { 2 } else { 1 };
        let hosts: Vec<PoolHost> = (0..count)
            .map(|_| PoolHost {
                interface: interface.then(|| "wan0".to_owned()),
                host: self.pool_host(family),
            })
            .collect();
        let several = hosts.len() > 1
            || hosts.iter().any(|h| match &h.host {
                Host::Table(_) => true,
                Host::Dynamic(d) => !d.no_alias,
                _ => false,
            });
        let method = match self.below(4) {
            _ if hosts.len() > 1 => Some(Method::RoundRobin),
            0 => Some(Method::Random),
            1 => Some(Method::SourceHash(Some([self.below(9), 2, u32::MAX, self.below(77)]))),
            2 if !several => Some(Method::Bitmask),
            _ if several => Some(Method::RoundRobin),
            _ => None,
        };
        Pool { hosts, method, sticky: self.once_in(3), ..Pool::default() }
    }

    fn range(&mut self) -> (u16, u16) {
        let first = 1 + self.below(60_000) as u16;
        (first, first + self.below(5000) as u16)
    }

    fn nat(&mut self, family: Option<Family>) -> Pool {
        let ports = match self.below(5) {
            0 => PoolPorts::Static,
            1 => PoolPorts::PortSet(PortSet { offset: 6, length: 8, id: self.below(256) as u16 }),
            2 => match self.range() {
                range if range == NAT_PORTS => PoolPorts::Default,
                (a, b) => PoolPorts::Range(a, b),
            },
            _ => PoolPorts::Default,
        };
        Pool { ports, endpoint_independent: self.once_in(5), ..self.pool(family, false) }
    }

    fn rdr(&mut self, family: Option<Family>) -> Pool {
        let ports = if self.once_in(2) {
            let (a, b) = self.range();
            PoolPorts::Range(a, b)
        } else {
            PoolPorts::Default
        };
        Pool { ports, ..self.pool(family, false) }
    }

    fn log(&mut self) -> Log {
        Log { all: self.once_in(2), matches: self.once_in(3), user: self.once_in(3), to: self.below(3) as u8 }
    }

    fn scrub(&mut self) -> Scrub {
        Scrub {
            no_df: self.once_in(2),
            random_id: self.once_in(3),
            min_ttl: self.below(3) as u8,
            max_mss: (self.below(3) * 700) as u16,
            set_tos: self.maybe(3, |d| 1 + d.below(255) as u8),
            reassemble_tcp: self.once_in(3),
            no_reassemble: false,
        }
    }

    /// Source tracking, as far as its parts go together.
    fn track(&mut self, keep: &mut Keep, is_tcp: bool) {
        keep.kind = match self.below(3) {
            1 if is_tcp => StateKind::Modulate,
            2 if is_tcp => StateKind::Synproxy,
            _ => StateKind::Keep,
        };
        keep.pflow = self.once_in(9);
        keep.allow_related = self.once_in(9);
        match self.below(4) {
            0 => {
                keep.track = Some(SourceTrack::Rule);
                keep.max_src_nodes = self.below(3);
                keep.max_src_conn = 1 + self.below(9);
                keep.max_src_conn_rate = self.maybe(2, Dice::rate);
                let flush = match self.below(3) {
                    0 => None,
                    1 => Some(Flush::Rule),
                    _ => Some(Flush::Global),
                };
                keep.overload = self.maybe(2, |_| Overload { table: "bad".into(), flush });
                if let Some(rate) = keep.max_src_conn_rate {
                    keep.timeouts.push((Timeout::SrcTrack, rate.seconds));
                }
            }
            1 => {
                keep.track = Some(SourceTrack::Global);
                keep.max_src_states = self.below(3);
            }
            _ => {}
        }
        keep.timeouts.sort_by_key(|&(t, _)| t);
    }

    fn options(&mut self, rule: &mut Rule) {
        let on = |d: &mut Self| On { not: d.once_in(2), name: "lan0".into() };
        rule.log = self.maybe(4, Dice::log);
        rule.received_on = self.maybe(6, on);
        rule.os = self.maybe(8, |_| "OpenBSD 3.3".to_owned());
        rule.user = self.maybe(8, Dice::id);
        rule.group = self.maybe(8, Dice::id);
        rule.prio = self.maybe(8, |d| d.below(8) as u8);
        rule.set_prio = self.maybe(8, |d| (d.below(8) as u8, d.below(8) as u8));
        rule.max_pkt_rate = self.maybe(8, Dice::rate);
        rule.max_pkt_size = self.maybe(8, |d| d.below(2000) as u16).unwrap_or(0);
        rule.ridentifier = self.maybe(6, |d| d.below(1000)).unwrap_or(0);
        rule.once = self.maybe(8, |_| Once::default()).filter(|_| rule.action != Action::Match);
        rule.rtable = self.maybe(8, |d| d.below(16));
        rule.dummynet = self.maybe(8, |d| Dummynet {
            pipe: d.once_in(2),
            number: d.below(9) as u16,
            reverse: d.maybe(2, |d| d.below(9) as u16),
        });
        rule.scrub = self.maybe(5, Dice::scrub).unwrap_or_default();
        rule.probability =
            self.maybe(6, |d| ((1 + d.below(1000)) as f64 / 1000.0 * f64::from(u32::MAX)) as u32);
        if rule.action == Action::Pass && self.once_in(8) {
            rule.divert =
                Some(if self.once_in(2) { Divert::Reply } else { Divert::To(1 + self.below(999) as u16) });
        }
    }

    /// Next hop and translation.
    fn redirect(&mut self, rule: &mut Rule) {
        if rule.direction.is_some() && self.once_in(3) {
            let kind = RouteKind::ALL[self.below(3) as usize].0;
            let mut pool = self.pool(rule.family, true);
            if self.once_in(3) {
                pool = Pool {
                    hosts: vec![PoolHost { interface: Some("wan0".into()), host: Host::Any }],
                    method: None,
                    ..pool
                };
            }
            rule.route = Some(Route { kind, pool, prefer_inet6: false });
        }
        match (self.below(4), rule.family) {
            (0, family) => rule.nat = Some(self.nat(family)),
            (1, family) => rule.rdr = Some(self.rdr(family)),
            (2, Some(family)) if rule.direction == Some(Direction::In) && rule.action == Action::Pass => {
                let other = if family == Family::Inet { Family::Inet6 } else { Family::Inet };
                let to = self.maybe(2, |d| d.pool(Some(other), false));
                let mut from = self.pool(Some(other), false);
                if to.is_some() {
                    // Options behind `to` are those of both.
                    from = Pool {
                        hosts: vec![PoolHost { interface: None, host: self.prefix(other) }],
                        ..Pool::default()
                    };
                }
                rule.af_to = Some(AfTo { family: other, from, to });
            }
            _ => {}
        }
    }
}

/// A filter rule of the whole language.
pub(crate) fn filter() -> impl Strategy<Value = Rule> {
    (arbitrary::rule(), proptest::collection::vec(any::<u32>(), 120)).prop_map(|(mut rule, numbers)| {
        let mut dice = Dice(numbers.iter());
        if rule.action == Action::Pass && dice.once_in(3) {
            rule.action = Action::Match;
            rule.keep = None;
        }
        dice.options(&mut rule);
        if matches!(rule.action, Action::Block(_)) {
            return rule;
        }
        dice.redirect(&mut rule);
        let is_tcp = rule.proto.is_none_or(|p| p == 6);
        if let Some(keep) = &mut rule.keep {
            dice.track(keep, is_tcp);
        }
        rule
    })
}

/// A translation or scrub rule.
pub(crate) fn other() -> impl Strategy<Value = Rule> {
    (arbitrary::rule(), proptest::collection::vec(any::<u32>(), 60)).prop_map(|(base, numbers)| {
        let mut dice = Dice(numbers.iter());
        let action =
            [Action::Nat, Action::Rdr, Action::NoNat, Action::NoRdr, Action::Scrub][dice.below(5) as usize];
        let mut rule = Rule {
            on: base.on,
            family: base.family,
            proto: base.proto,
            from: base.from,
            to: base.to,
            tagged: base.tagged,
            rtable: dice.maybe(5, |d| d.below(9)),
            log: dice.maybe(4, Dice::log),
            ..Rule::all(action)
        };
        match action {
            Action::Scrub => {
                rule.direction = base.direction;
                rule.os = dice.maybe(5, |_| "OpenBSD 3.3".to_owned());
                rule.scrub = Scrub { no_reassemble: dice.once_in(2), ..dice.scrub() };
            }
            Action::Nat => {
                rule.nat = Some(dice.nat(rule.family));
                rule.nat_pass = dice.once_in(2);
                rule.tag = base.tag;
            }
            Action::Rdr => {
                rule.rdr = Some(dice.rdr(rule.family));
                rule.nat_pass = dice.once_in(2);
                rule.tag = base.tag;
            }
            _ => {}
        }
        rule
    })
}
