//! Rules and packets at random, for property tests. A rule is one that the parser could have made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::{option::of, prelude::*, sample::select};

use crate::{
    addr::{Family, Prefix},
    conf::{Options, PfConf},
    packet::{Packet, Tcp},
    rule::{
        Action, Direction, Dynamic, Host, IcmpMatch, Keep, On, Part, Peer, Ports, QueueRef, Reply, Rule,
        Tagged, TcpFlags,
    },
    timeout::Timeout,
};

/// Addresses are few, so that rules and packets meet.
fn address(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::Inet => (0_u32..6).prop_map(|n| IpAddr::V4(Ipv4Addr::from_bits(0xc000_0200 + n))).boxed(),
        Family::Inet6 => {
            (0_u128..6).prop_map(|n| IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | n))).boxed()
        }
    }
}

fn host(family: Option<Family>) -> BoxedStrategy<(bool, Host)> {
    let dynamic = (
        select(vec!["lan0", "wan0", "tun9", "self"]),
        select(vec![Part::Address, Part::Network]),
        any::<bool>(),
    )
        .prop_map(|(interface, part, no_alias)| {
            Host::Dynamic(Dynamic { interface: interface.into(), part, no_alias, len: None })
        });
    let table = Just(Host::Table("t".into()));
    let any_family = prop_oneof![dynamic, table];
    let any_family = any_family.prop_flat_map(|h| any::<bool>().prop_map(move |not| (not, h.clone())));
    let no_route = Just((false, Host::NoRoute));
    let Some(family) = family else {
        return prop_oneof![4 => Just((false, Host::Any)), 2 => any_family, 1 => no_route].boxed();
    };
    let prefix = (address(family), family.width() - 3..=family.width())
        .prop_map(|(a, len)| Host::Prefix(Prefix::new(a, len)));
    let range = (address(family), address(family)).prop_map(|(a, b)| Host::Range(a.min(b), a.max(b)));
    let own = (any::<bool>(), prop_oneof![3 => prefix, 1 => range]);
    prop_oneof![4 => Just((false, Host::Any)), 2 => any_family, 1 => no_route, 8 => own].boxed()
}

/// Those of a source.
fn source(family: Option<Family>) -> impl Strategy<Value = (bool, Host)> {
    prop_oneof![12 => host(family), 1 => Just((false, Host::UrpfFailed))]
}

fn ports() -> impl Strategy<Value = Ports> {
    let one = 1_u16..6;
    let two = (1_u16..6, 1_u16..6).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        one.clone().prop_map(Ports::Equal),
        one.clone().prop_map(Ports::NotEqual),
        one.clone().prop_map(Ports::Less),
        one.clone().prop_map(Ports::LessEqual),
        one.clone().prop_map(Ports::Greater),
        one.prop_map(Ports::GreaterEqual),
        two.clone().prop_map(|(a, b)| Ports::Within(a, b)),
        two.clone().prop_map(|(a, b)| Ports::Between(a, b)),
        two.prop_map(|(a, b)| Ports::Outside(a, b)),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        3 => Just(Reply::Drop),
        1 => Just(Reply::Return),
        1 => any::<u8>().prop_map(|ttl| Reply::Rst { ttl }),
        1 => (0_u8..20, 0_u8..8).prop_map(|(inet, inet6)| Reply::Icmp { inet, inet6 }),
    ]
}

fn keep() -> impl Strategy<Value = Keep> {
    let timeouts = proptest::sample::subsequence(Timeout::ALL[..Timeout::CLASSES].to_vec(), 0..3);
    (of(1_u32..100), any::<[bool; 3]>(), timeouts, 1_u32..1000).prop_map(
        |(max, [no_sync, bound, sloppy], timeouts, s)| {
            let mut timeouts: Vec<_> = timeouts.into_iter().map(|t| (t, s)).collect();
            if let Some(max) = max {
                timeouts
                    .extend([(Timeout::AdaptiveStart, max * 6 / 10), (Timeout::AdaptiveEnd, max * 12 / 10)]);
            }
            timeouts.sort_by_key(|&(t, _)| t);
            Keep { max: max.unwrap_or(0), no_sync, bound, sloppy, timeouts, ..Keep::default() }
        },
    )
}

fn word() -> impl Strategy<Value = String> {
    select(vec!["web", "ssh_in", "x1"]).prop_map(str::to_owned)
}

#[derive(Clone, Debug)]
struct Where {
    family: Option<Family>,
    proto: Option<u8>,
    from: Peer,
    to: Peer,
}

fn place() -> impl Strategy<Value = Where> {
    let family = of(select(vec![Family::Inet, Family::Inet6]));
    (family, of(select(vec![6_u8, 17, 1, 58, 47, 166]))).prop_flat_map(|(family, proto)| {
        // A family that contradicts the protocol is refused.
        let family = match proto {
            Some(1) => Some(Family::Inet),
            Some(58) => Some(Family::Inet6),
            _ => family,
        };
        let ports =
            move || if matches!(proto, Some(6 | 17)) { of(ports()).boxed() } else { Just(None).boxed() };
        (source(family), ports(), host(family), ports()).prop_map(
            move |((from_not, from), sport, (to_not, to), dport)| Where {
                family,
                proto,
                from: Peer { not: from_not, host: from, port: sport },
                to: Peer { not: to_not, host: to, port: dport },
            },
        )
    })
}

/// A rule.
pub(crate) fn rule() -> impl Strategy<Value = Rule> {
    let on = of((any::<bool>(), select(vec!["lan0", "wan0", "tun9"]))
        .prop_map(|(not, name)| On { not, name: name.into() }));
    let first = (
        any::<bool>(),
        reply(),
        of(select(vec![Direction::In, Direction::Out])),
        prop::bool::weighted(0.2),
        on,
        place(),
    );
    let flags =
        of((0_u8..=0xff, 0_u8..=0xff).prop_map(|(set, mask)| TcpFlags { set: set & mask, mask: mask | 1 }));
    let icmp =
        of((select(vec![0_u8, 3, 8, 128, 200]), of(0_u8..4))
            .prop_map(|(kind, code)| IcmpMatch { kind, code }));
    let tagged = of((any::<bool>(), word()).prop_map(|(not, name)| Tagged { not, name }));
    let queue = of(of(Just("b".to_owned())).prop_map(|low_delay| QueueRef { name: "a".into(), low_delay }));
    let rest = (
        flags,
        icmp,
        of(select(vec![0x10_u8, 0xb8])),
        of(keep()),
        any::<[bool; 2]>(),
        of(word()),
        queue,
        of(word()),
        tagged,
        of(select(vec![120_u16, 576, 1280])),
    );
    (first, rest).prop_map(|((pass, reply, direction, quick, on, place), rest)| {
        let (flags, icmp, tos, keep, [fragment, allow_opts], label, queue, tag, tagged, size) = rest;
        let action = if pass { Action::Pass } else { Action::Block(reply) };
        let mut rule = Rule {
            direction,
            quick,
            on,
            family: place.family,
            proto: place.proto,
            from: place.from,
            to: place.to,
            flags,
            icmp,
            tos,
            max_pkt_size: size.unwrap_or(0),
            keep,
            fragment,
            allow_opts,
            labels: label.into_iter().collect(),
            queue,
            tag,
            tagged,
            ..Rule::all(action)
        };
        make_consistent(&mut rule);
        rule
    })
}

fn make_consistent(rule: &mut Rule) {
    let is_tcp = rule.proto == Some(6);
    if rule.proto.is_some() && !is_tcp {
        rule.flags = None;
    }
    if !matches!(rule.proto, Some(1 | 58)) {
        rule.icmp = None;
    }
    rule.fragment &=
        rule.from.port.is_none() && rule.to.port.is_none() && rule.icmp.is_none() && rule.flags.is_none();
    let family = rule.family;
    match &mut rule.action {
        Action::Block(reply @ Reply::Rst { .. }) if !is_tcp => *reply = Reply::Drop,
        Action::Block(Reply::Icmp { inet, inet6 }) => match family {
            Some(Family::Inet) => *inet6 = 4,
            Some(Family::Inet6) => *inet = 3,
            None => {}
        },
        Action::Block(_) => {}
        _ => return,
    }
    rule.keep = None;
    rule.allow_opts = false;
}

/// A configuration without rules, for few states: room for the usual number takes longer to make than a case to try.
pub(crate) fn conf() -> PfConf {
    PfConf { options: Options { limit_states: 16, ..Options::default() }, ..PfConf::default() }
}

/// A packet as pf sees it.
pub(crate) fn packet() -> impl Strategy<Value = Packet> {
    let place =
        select(vec![Family::Inet, Family::Inet6]).prop_flat_map(|f| (Just(f), address(f), address(f)));
    let numbers = (
        select(vec![6_u8, 17, 1, 58, 47, 166]),
        0_u16..7,
        0_u16..7,
        any::<u8>(),
        select(vec![0_u8, 0x10, 0xb8]),
    );
    (place, numbers, select(vec![0_u8, 3, 8, 128, 200]), 0_u8..4, prop::bool::weighted(0.1), 0_u16..4)
        .prop_map(|((family, src, dst), (proto, sport, dport, flags, tos), icmp, code, fragment, tag)| {
            Packet {
                src: crate::addr::bits(src),
                dst: crate::addr::bits(dst),
                sport,
                dport,
                family,
                proto,
                tos,
                icmp,
                code,
                fragment,
                tcp: Tcp { flags, ..Tcp::default() },
                tag,
                ..Packet::EMPTY
            }
        })
}
