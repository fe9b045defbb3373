//! Policies against a list gone through one by one, and the rules of RFC 4301 one by one.

mod beet;
mod later;
mod many;
mod workers;

use super::*;
use crate::{
    esp::tests::config,
    sa::{Life, Lifetime, Mode, Protocol, SaConfig, SaIndex, Setup, Spi},
    selector::{Addresses, Ends, Match, Ports, Prefix, Upper},
    transform::Suite,
};
use kern::{secret::SecretBytes, time::Instant};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{IpProto, build, ipv4};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));

fn sa(index: u32, src: IpAddr, dst: IpAddr, reqid: u32) -> Arc<Sa> {
    sa_of(Mode::Tunnel, index, src, dst, reqid)
}

fn sa_of(mode: Mode, index: u32, src: IpAddr, dst: IpAddr, reqid: u32) -> Arc<Sa> {
    let config = SaConfig { spi: Spi(0x1000 + index), mode, reqid, ..config([src, dst], Suite::Aes128Gcm16) };
    let key = Arc::new(SecretBytes::copy_of(&[index as u8; 20]).unwrap());
    Arc::new(Sa::new(SaIndex(index), config, key, &Setup::new(Instant::ZERO)).unwrap())
}

fn prefix(text: &str) -> Prefix {
    let (addr, len) = text.split_once('/').unwrap();
    Prefix::new(addr.parse().unwrap(), len.parse().unwrap()).unwrap()
}

fn policy(id: u32, direction: Direction, src: &str, dst: &str, upper: Upper, action: Action) -> Policy {
    Policy {
        id,
        direction,
        selector: Selector { src: prefix(src).into(), dst: prefix(dst).into(), upper },
        action,
    }
}

fn tunnel(src: IpAddr, dst: IpAddr, level: Level) -> Action {
    Action::Protect([Request::tunnel(src, dst, level)].into())
}

/// What the database says of a packet, with a cache that knows nothing.
fn out(spd: &Spd, packet: &[u8]) -> Decision {
    spd.lookup_out(&Packet::of(packet), &mut FlowCache::new())
}

/// The SA that is found.
fn through(decision: Decision) -> Option<SaIndex> {
    match decision {
        Decision::Protect(hop) => Some(hop.sa()),
        _ => None,
    }
}

fn check_in(spd: &Spd, packet: &[u8], via: Option<SaIndex>) -> Result<(), Why> {
    let path = via.map_or(Path::CLEAR, Path::of);
    spd.check_in(&Packet::of(packet), path, &mut FlowCache::new(), &mut Content::default())
}

fn udp(src: [u8; 4], dst: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    build::udp4(src.into(), dst.into(), ports.0, ports.1, b"data")
}

const INSIDE: [u8; 4] = [192, 0, 2, 7];
const THERE: [u8; 4] = [198, 51, 100, 9];

fn two_ways(level: Level) -> Vec<Policy> {
    vec![
        policy(1, Direction::Out, "192.0.2.0/24", "198.51.100.0/24", Upper::Any, tunnel(A, B, level)),
        policy(2, Direction::In, "198.51.100.0/24", "192.0.2.0/24", Upper::Any, tunnel(B, A, level)),
    ]
}

#[test]
fn a_protected_packet_goes_through_its_sa_and_others_pass_in_clear() {
    let sad = Sad::new([sa(4, A, B, 0), sa(5, B, A, 0)]);
    let spd = Spd::new(two_ways(Level::Require), &sad);
    assert!(spd.has_out() && spd.has_in());
    let out = |p: &[u8]| out(&spd, p);
    assert_eq!(out(&udp(INSIDE, THERE, (1, 2))), Decision::Protect(Hop::new(SaIndex(4), Rest::NONE)));
    assert_eq!(out(&udp(INSIDE, [198, 51, 101, 9], (1, 2))), Decision::Bypass);
    assert_eq!(out(&udp([192, 0, 3, 7], THERE, (1, 2))), Decision::Bypass);
}

#[test]
fn a_protect_policy_without_an_sa_never_means_clear() {
    let empty = Sad::default();
    for level in [Level::Require, Level::Default, Level::Unique(7)] {
        let spd = Spd::new(two_ways(level), &empty);
        assert_eq!(out(&spd, &udp(INSIDE, THERE, (1, 2))), Decision::NoSa, "{level:?}");
        let clear = udp(THERE, INSIDE, (1, 2));
        assert_eq!(check_in(&spd, &clear, None), Err(Why::SpClear));
    }
    let spd = Spd::new(two_ways(Level::Use), &empty);
    assert_eq!(out(&spd, &udp(INSIDE, THERE, (1, 2))), Decision::Without);
    assert_eq!(check_in(&spd, &udp(THERE, INSIDE, (1, 2)), None), Ok(()));
}

#[test]
fn what_came_out_of_an_sa_must_be_what_the_sa_is_for() {
    let sad = Sad::new([sa(4, A, B, 0), sa(5, B, A, 0), sa(6, B, A, 9)]);
    let spd = Spd::new(two_ways(Level::Require), &sad);
    let check = |p: &[u8], via| check_in(&spd, p, via);
    let right = udp(THERE, INSIDE, (1, 2));
    let other = udp([10, 0, 0, 1], INSIDE, (1, 2));
    assert_eq!(check(&right, Some(SaIndex(5))), Ok(()));
    assert_eq!(check(&right, Some(SaIndex(6))), Ok(()), "both inbound SAs of the tunnel will do");
    assert_eq!(check(&right, Some(SaIndex(4))), Err(Why::EspPolicy));
    assert_eq!(check(&right, None), Err(Why::SpClear));
    assert_eq!(check(&other, Some(SaIndex(5))), Err(Why::EspPolicy));
    assert_eq!(check(&other, None), Ok(()));
}

#[test]
fn a_unique_policy_wants_the_sa_with_its_number() {
    let sad = Sad::new([sa(0, A, B, 0), sa(1, A, B, 7)]);
    let spd = Spd::new(two_ways(Level::Unique(7)), &sad);
    let packet = udp(INSIDE, THERE, (1, 2));
    assert_eq!(out(&spd, &packet), Decision::Protect(Hop::new(SaIndex(1), Rest::NONE)));
    let spd = Spd::new(two_ways(Level::Unique(8)), &sad);
    assert_eq!(out(&spd, &packet), Decision::NoSa);
}

#[test]
fn of_several_sas_the_newest_that_lives_is_used() {
    let sas = [sa(0, A, B, 0), sa(1, A, B, 0), sa(2, A, B, 0)];
    let spd = Spd::new(two_ways(Level::Require), &Sad::new(sas.clone()));
    let packet = udp(INSIDE, THERE, (1, 2));
    let chosen = || out(&spd, &packet);
    assert_eq!(chosen(), Decision::Protect(Hop::new(SaIndex(2), Rest::NONE)));
    sas[2].note(Life::Dying);
    assert_eq!(chosen(), Decision::Protect(Hop::new(SaIndex(2), Rest::NONE)));
    sas[2].note(Life::Dead);
    assert_eq!(chosen(), Decision::Protect(Hop::new(SaIndex(1), Rest::NONE)));
    sas[1].note(Life::Dead);
    sas[0].note(Life::Dead);
    assert_eq!(
        chosen(),
        Decision::Protect(Hop::new(SaIndex(2), Rest::NONE)),
        "dead as it is: esp_output ends the packet"
    );
}

const C: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 3));

/// Into a tunnel from A to B, and its packets through a transport SA between the same two.
fn two_layers(level: Level) -> (Sad, Spd) {
    let request =
        |mode, ends, level| Request { protocol: Protocol::Esp, mode, ends, ports: [None; 2], level };
    let bundle = |src, dst| {
        let tunnel = request(Mode::Tunnel, Some((src, dst)), level);
        Action::Protect([tunnel, request(Mode::Transport, None, Level::Require)].into())
    };
    let sad = Sad::new([
        sa(0, A, B, 0),
        sa(1, B, A, 0),
        sa_of(Mode::Transport, 2, A, B, 0),
        sa_of(Mode::Transport, 3, B, A, 0),
        sa_of(Mode::Transport, 4, A, C, 0),
    ]);
    let policies = vec![
        policy(1, Direction::Out, "192.0.2.0/24", "198.51.100.0/24", Upper::Any, bundle(A, B)),
        policy(2, Direction::In, "198.51.100.0/24", "192.0.2.0/24", Upper::Any, bundle(B, A)),
    ];
    let spd = Spd::new(policies, &sad);
    (sad, spd)
}

#[test]
fn a_bundle_leads_through_its_sas_innermost_first_and_ends() {
    let (_, spd) = two_layers(Level::Require);
    let Decision::Protect(hop) = out(&spd, &udp(INSIDE, THERE, (1, 2))) else { panic!() };
    let (SaIndex(0), rest) = (hop.sa(), hop.rest()) else { panic!() };
    assert!(!rest.is_none() && spd.overhead(rest) > 0);
    let outer = build::udp4(Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2), 1, 2, b"");
    let rest = Rest::from_header(rest.to_header());
    let next = spd.go_on(rest, &Packet::of(&outer), &FlowCache::new());
    assert_eq!(
        next,
        Decision::Protect(Hop::new(SaIndex(2), Rest::NONE)),
        "the ends are now those of the tunnel"
    );
    assert_eq!(spd.go_on(Rest::NONE, &Packet::of(&outer), &FlowCache::new()), Decision::Bypass);
}

#[test]
fn a_half_protected_packet_of_another_configuration_does_not_leave() {
    let (_, first) = two_layers(Level::Require);
    let (_, second) = two_layers(Level::Require);
    let packet = udp(INSIDE, THERE, (1, 2));
    let Decision::Protect(hop) = out(&first, &packet) else { panic!() };
    let rest = hop.rest();
    assert_eq!(second.go_on(rest, &Packet::of(&packet), &FlowCache::new()), Decision::NoSa);
}

#[test]
fn an_optional_transform_without_an_sa_is_left_out_and_the_next_is_not() {
    let bundle = Action::Protect(
        [
            Request { protocol: Protocol::Ipcomp, ..Request::tunnel(A, B, Level::Use) },
            Request::tunnel(A, B, Level::Require),
        ]
        .into(),
    );
    let policies = vec![policy(1, Direction::Out, "0.0.0.0/0", "0.0.0.0/0", Upper::Any, bundle)];
    let packet = udp(INSIDE, THERE, (1, 2));
    let spd = Spd::new(policies.clone(), &Sad::new([sa(3, A, B, 0)]));
    assert_eq!(out(&spd, &packet), Decision::Protect(Hop::new(SaIndex(3), Rest::NONE)));
    assert_eq!(out(&Spd::new(policies, &Sad::default()), &packet), Decision::NoSa);
}

#[test]
fn what_came_in_must_have_come_out_of_all_sas_of_its_bundle_in_their_order() {
    let paths = |level| {
        let (_, spd) = two_layers(level);
        let inner = udp(THERE, INSIDE, (1, 2));
        let check = |way: &[u32]| {
            let path = way.iter().fold(Path::CLEAR, |path, sa| {
                Path::from_header(SaIndex(*sa).to_header(), if path.is_clear() { 0 } else { path.earlier() })
            });
            spd.check_in(&Packet::of(&inner), path, &mut FlowCache::new(), &mut Content::default())
        };
        [&[][..], &[1], &[3], &[3, 1], &[1, 3], &[3, 3, 1], &[3, 1, 1], &[3, 3, 3, 1]].map(check)
    };
    use Why::{EspPolicy, SpClear};
    let no = Err(EspPolicy);
    assert_eq!(paths(Level::Require), [Err(SpClear), no, no, Ok(()), no, no, no, no]);
    assert_eq!(paths(Level::Use), [Err(SpClear), no, Ok(()), Ok(()), no, no, no, no]);
}

#[test]
fn a_transport_policy_of_networks_takes_the_sa_of_the_packet_s_own_pair() {
    let (sad, _) = two_layers(Level::Require);
    let transport = Request { mode: Mode::Transport, ends: None, ..Request::tunnel(A, B, Level::Require) };
    let policies = vec![policy(
        1,
        Direction::Out,
        "203.0.113.0/24",
        "203.0.113.0/24",
        Upper::Any,
        Action::Protect([transport].into()),
    )];
    let spd = Spd::new(policies, &sad);
    let to = |last| through(out(&spd, &udp([203, 0, 113, 1], [203, 0, 113, last], (1, 2))));
    assert_eq!((to(2), to(3), to(4)), (Some(SaIndex(2)), Some(SaIndex(4)), None));
}

#[test]
fn ranges_have_both_their_ends() {
    let span = |a: [u8; 4], b: [u8; 4]| Addresses::span(IpAddr::from(a), IpAddr::from(b));
    assert_eq!(span([10, 0, 0, 0], [10, 0, 0, 255]), Some(prefix("10.0.0.0/24").into()), "a prefix is one");
    assert_eq!(span([10, 0, 0, 2], [10, 0, 0, 1]), None);
    let selector = Selector {
        src: prefix("0.0.0.0/0").into(),
        dst: span([10, 0, 0, 250], [10, 0, 1, 5]).unwrap(),
        upper: Upper::Ports { src_port: None, dst_port: Ports::span(1000, 2000) },
    };
    let spd = Spd::new(
        vec![Policy { id: 1, direction: Direction::Out, selector, action: Action::Discard }],
        &Sad::default(),
    );
    let found = |dst, port| out(&spd, &udp(INSIDE, dst, (1, port))) == Decision::Discard;
    let inside = [([10, 0, 0, 250], 1000), ([10, 0, 1, 5], 2000), ([10, 0, 0, 255], 1500)];
    let outside =
        [([10, 0, 0, 249], 1000), ([10, 0, 1, 6], 2000), ([10, 0, 0, 255], 999), ([10, 0, 1, 0], 2001)];
    assert!(inside.into_iter().all(|(dst, port)| found(dst, port)));
    assert!(outside.into_iter().all(|(dst, port)| !found(dst, port)));
}

#[test]
fn discard_and_bypass_are_what_they_say_and_the_first_match_decides() {
    let policies = vec![
        policy(1, Direction::Out, "0.0.0.0/0", "198.51.100.9/32", Upper::Any, Action::Bypass),
        policy(2, Direction::Out, "0.0.0.0/0", "198.51.100.0/24", Upper::Any, Action::Discard),
        policy(3, Direction::Out, "0.0.0.0/0", "0.0.0.0/0", Upper::Any, tunnel(A, B, Level::Require)),
        policy(4, Direction::In, "10.0.0.0/8", "0.0.0.0/0", Upper::Any, Action::Discard),
        policy(5, Direction::In, "11.0.0.0/8", "0.0.0.0/0", Upper::Any, Action::Bypass),
    ];
    let spd = Spd::new(policies, &Sad::new([sa(0, A, B, 0)]));
    let out = |dst| out(&spd, &udp(INSIDE, dst, (1, 2)));
    assert_eq!(out(THERE), Decision::Bypass);
    assert_eq!(out([198, 51, 100, 10]), Decision::Discard);
    assert_eq!(out([1, 1, 1, 1]), Decision::Protect(Hop::new(SaIndex(0), Rest::NONE)));
    let check = |src, via| check_in(&spd, &udp(src, INSIDE, (1, 2)), via);
    assert_eq!(check([10, 0, 0, 1], None), Err(Why::SpDiscard));
    assert_eq!(check([10, 0, 0, 1], Some(SaIndex(0))), Err(Why::SpDiscard));
    assert_eq!(check([11, 0, 0, 1], None), Ok(()));
    assert_eq!(check([11, 0, 0, 1], Some(SaIndex(0))), Err(Why::EspPolicy));
}

#[test]
fn ports_and_icmp_types_select() {
    let web = Upper::Proto { proto: IpProto::TCP, src_port: None, dst_port: Some(Ports::one(80)) };
    let dns = Upper::Ports { src_port: None, dst_port: Some(Ports::one(53)) };
    let echo = Upper::Icmp { proto: IpProto::ICMP, kind: 8, code: None };
    let all = "0.0.0.0/0";
    let policies = vec![
        policy(1, Direction::Out, all, all, web, Action::Discard),
        policy(2, Direction::Out, all, all, dns, Action::Discard),
        policy(3, Direction::Out, all, all, echo, Action::Discard),
    ];
    let spd = Spd::new(policies, &Sad::default());
    let discards = |p: &[u8]| out(&spd, p) == Decision::Discard;
    let tcp = |dst_port| {
        let repr = wire::tcp::Repr { src_port: 80, dst_port, ..Default::default() };
        build::tcp4(INSIDE.into(), THERE.into(), &repr, b"")
    };
    assert!(discards(&tcp(80)) && !discards(&tcp(81)) && discards(&tcp(53)));
    assert!(discards(&udp(INSIDE, THERE, (80, 53))) && !discards(&udp(INSIDE, THERE, (53, 80))));
    let mut echo = build::echo4(INSIDE.into(), THERE.into(), 1, 1, b"x");
    assert!(discards(&echo));
    echo[20] = 0;
    assert!(!discards(&echo));
}

#[test]
fn a_later_fragment_counts_as_what_must_be_protected_and_not_as_what_may_be_clear() {
    let udp_only =
        |port| Upper::Proto { proto: IpProto::UDP, src_port: None, dst_port: Some(Ports::one(port)) };
    let all = "0.0.0.0/0";
    let fragment = |proto| {
        let header =
            ipv4::Repr { src: INSIDE.into(), dst: THERE.into(), proto, frag: 100, ..Default::default() };
        build::raw4(header, &[0; 64])
    };
    let policies = vec![
        policy(1, Direction::Out, all, all, udp_only(53), Action::Bypass),
        policy(2, Direction::Out, all, all, udp_only(500), tunnel(A, B, Level::Require)),
    ];
    let spd = Spd::new(policies, &Sad::new([sa(0, A, B, 0)]));
    assert_eq!(out(&spd, &fragment(IpProto::UDP)), Decision::Protect(Hop::new(SaIndex(0), Rest::NONE)));
    assert_eq!(out(&spd, &fragment(IpProto::TCP)), Decision::Bypass);
}

#[test]
fn families_do_not_mix() {
    let policies = vec![policy(1, Direction::Out, "::/0", "::/0", Upper::Any, Action::Discard)];
    let spd = Spd::new(policies, &Sad::default());
    assert_eq!(out(&spd, &udp(INSIDE, THERE, (1, 2))), Decision::Bypass);
    let six = build::udp6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 1, 2, b"");
    assert_eq!(out(&spd, &six), Decision::Discard);
}

#[test]
fn an_sa_is_found_by_spi_and_destination() {
    let sas: Vec<_> = (0..200).map(|i| sa(i * 3, A, if i % 2 == 0 { A } else { B }, 0)).collect();
    let sad = Sad::new(sas.clone());
    assert_eq!((sad.len(), sad.is_empty()), (200, false));
    for sa in &sas {
        let (spi, dst) = (sa.config().spi, sa.config().dst);
        assert_eq!(sad.inbound(Protocol::Esp, spi, dst).map(|s| s.index()), Some(sa.index()));
        assert!(sad.inbound(Protocol::Esp, spi, "192.0.2.1".parse().unwrap()).is_none());
        assert!(Arc::ptr_eq(sad.find(Protocol::Esp, A, dst, spi).unwrap(), sa));
    }
    assert!(
        sad.inbound(Protocol::Esp, Spi(77), A).is_none()
            && Sad::default().inbound(Protocol::Ah, Spi(77), A).is_none()
    );
    assert_eq!(sad.free_indexes().take(3).collect::<Vec<_>>(), [SaIndex(1), SaIndex(2), SaIndex(4)]);
}

#[test]
fn age_is_the_order_of_adding_whatever_the_index_and_who_left_has_the_newest_of_its_kind_as_successor() {
    let old = Sad::new([sa(0, A, B, 0), sa(1, A, B, 0), sa(2, B, A, 0)]);
    // The place of the oldest is taken by the newest.
    let [one, other, newest] = [sa(1, A, B, 0), sa(3, A, B, 9), sa(0, A, B, 0)];
    let sad = Sad::new([one.clone(), other, newest.clone()]).after(&old);
    let order: Vec<_> = sad.newest_first().map(|sa| sa.index().0).collect();
    assert_eq!(order, [0, 3, 1]);
    assert!(sad.successor(SaIndex(2)).is_none(), "none goes from B to A any more");
    assert!(sad.successor(SaIndex(1)).is_none(), "it has not left");
    let sad = Sad::new([newest.clone()]).after(&old);
    assert_eq!(sad.successor(SaIndex(1)).map(|sa| sa.index()), Some(SaIndex(0)));
    newest.note(Life::Dead);
    assert!(sad.successor(SaIndex(1)).is_none());
}

/// The definition: go through all policies.
fn model(policies: &[Policy], packet: &[u8]) -> Option<u32> {
    let p = Packet::of(packet);
    let (src, dst) = match p.ends {
        Ends::V4 { src, dst } => (IpAddr::V4(src.into()), IpAddr::V4(dst.into())),
        Ends::V6 { src, dst } => (IpAddr::V6(src.into()), IpAddr::V6(dst.into())),
        Ends::None => return None,
    };
    let matches = |policy: &&Policy| {
        let s = policy.selector;
        let seen = match s.upper.compare(p.shown()) {
            Match::Yes => true,
            Match::No => false,
            Match::Unseen => policy.action != Action::Bypass,
        };
        s.src.contains(src) && s.dst.contains(dst) && seen
    };
    policies.iter().find(matches).map(|p| p.id)
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    // Few different addresses, so that policies and packets meet.
    prop_oneof![
        (0u32..8, 0u8..=32).prop_map(|(a, len)| {
            Prefix::new(IpAddr::V4((a.wrapping_mul(0x2400_0101)).into()), len).unwrap()
        }),
        (0u128..8, 0u8..=128)
            .prop_map(|(a, len)| Prefix::new(IpAddr::V6((a << 125 | a).into()), len).unwrap()),
    ]
}

fn any_addresses() -> impl Strategy<Value = Addresses> {
    prop_oneof![
        2 => any_prefix().prop_map(Addresses::from),
        1 => (any_prefix(), any_prefix()).prop_filter_map("two families", |(a, b)| {
            let (a, b) = (a.addr(), b.addr());
            Addresses::span(a.min(b), a.max(b))
        }),
    ]
}

fn any_ports() -> impl Strategy<Value = Ports> {
    (0u16..3, 0u16..3).prop_map(|(a, b)| Ports::span(a.min(b), a.max(b)).unwrap())
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let upper = prop_oneof![
        3 => Just(Upper::Any),
        1 => (prop_oneof![Just(IpProto::UDP), Just(IpProto::TCP)], proptest::option::of(any_ports())).prop_map(
            |(proto, dst_port)| Upper::Proto { proto, src_port: None, dst_port }),
        1 => any_ports().prop_map(|p| Upper::Ports { src_port: Some(p), dst_port: None }),
    ];
    (any_addresses(), any_addresses(), upper, any::<bool>()).prop_map(|(src, dst, upper, bypass)| Policy {
        id: 0,
        direction: Direction::Out,
        selector: Selector { src, dst, upper },
        action: if bypass { Action::Bypass } else { Action::Discard },
    })
}

proptest! {
    #[test]
    fn lookup_finds_what_going_through_all_policies_finds(
        mut policies in prop_oneof![
            proptest::collection::vec(any_policy(), 0..6),
            proptest::collection::vec(any_policy(), 0..200),
        ],
        packets in proptest::collection::vec((0u32..8, 0u32..8, 0u16..3, 0u16..3, any::<bool>()), 1..40),
    ) {
        // A policy's two prefixes are of one family.
        policies.retain(|p| p.selector.src.is_ipv4() == p.selector.dst.is_ipv4());
        (1..).zip(&mut policies).for_each(|(id, p)| p.id = id);
        let spd = Spd::new(policies.clone(), &Sad::default());
        let mut cache = FlowCache::new();
        for (a, b, sport, dport, six) in packets {
            let packet = if six {
                let addr = |a: u32| Ipv6Addr::from_bits(u128::from(a) << 125 | u128::from(a));
                build::udp6(addr(a), addr(b), sport, dport, b"")
            } else {
                let addr = |a: u32| Ipv4Addr::from_bits(a.wrapping_mul(0x2400_0101));
                build::udp4(addr(a), addr(b), sport, dport, b"")
            };
            let found = spd.out.first(&Packet::of(&packet)).map(|at| policies[at as usize].id);
            prop_assert_eq!(found, model(&policies, &packet));
            for _ in 0..2 {
                let cached = cache.first(spd.generation, &spd.out, Direction::Out, &Packet::of(&packet));
                prop_assert_eq!(cached.map(|at| policies[at as usize].id), found);
            }
        }
    }
}
