//! Fragments of IPv6 that are not the first: what they show of the upper layer, and what is made of it.

use super::*;
use wire::{ipv4, ipv6};

const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 9);
const OURS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 7);

/// A later fragment of a datagram whose fragmentable part begins with a header of this kind.
fn later(src: Ipv6Addr, dst: Ipv6Addr, begins_with: IpProto) -> Vec<u8> {
    let header = ipv6::Repr { src, dst, next_header: IpProto::FRAGMENT, ..Default::default() };
    let mut payload = [0; 72];
    [payload[0], payload[2], payload[3]] = [begins_with.0, 0x02, 0x00];
    build::raw6(header, &payload)
}

/// Selectors for part of what there is.
fn narrow() -> [Upper; 4] {
    let (src_port, dst_port) = (None, Some(Ports::one(80)));
    [
        Upper::Proto { proto: IpProto::TCP, src_port: None, dst_port: None },
        Upper::Proto { proto: IpProto::TCP, src_port, dst_port },
        Upper::Ports { src_port, dst_port },
        Upper::Icmp { proto: IpProto::ICMPV6, kind: 128, code: None },
    ]
}

/// One policy of this kind each way, alone and behind many for others.
fn databases(upper: Upper, way: impl Fn(IpAddr, IpAddr) -> Action) -> [Spd; 2] {
    let sad = Sad::new([sa(4, A, B, 0), sa(5, B, A, 0)]);
    let (here, there) = ("2001:db8:a::/48", "2001:db8:b::/48");
    [0, 40].map(|others| {
        let other = |i| {
            let net = format!("2001:db8:{i:x}00::/48");
            policy(i, Direction::Out, &net, &net, Upper::Any, Action::Discard)
        };
        let mut policies: Vec<_> = (1..=others).map(other).collect();
        policies.push(policy(others + 1, Direction::Out, here, there, upper, way(A, B)));
        policies.push(policy(others + 2, Direction::In, there, here, upper, way(B, A)));
        Spd::new(policies, &sad)
    })
}

#[test]
fn a_later_fragment_behind_an_extension_header_counts_as_what_must_be_protected() {
    for (upper, begins_with) in
        narrow().into_iter().flat_map(|u| [IpProto::DSTOPTS, IpProto::ROUTING].map(|p| (u, p)))
    {
        for spd in databases(upper, |src, dst| tunnel(src, dst, Level::Require)) {
            let leaves = later(OURS, OTHER, begins_with);
            assert_eq!(through(out(&spd, &leaves)), Some(SaIndex(4)), "{upper:?} {begins_with}");
            let arrives = later(OTHER, OURS, begins_with);
            assert_eq!(check_in(&spd, &arrives, None), Err(Why::SpClear), "{upper:?} {begins_with}");
            assert_eq!(check_in(&spd, &arrives, Some(SaIndex(5))), Ok(()), "{upper:?} {begins_with}");
        }
    }
}

#[test]
fn and_not_as_what_may_be_clear() {
    for upper in narrow() {
        for (others, spd) in [0, 40].into_iter().zip(databases(upper, |_, _| Action::Bypass)) {
            let mut policies = spd.policies().to_vec();
            let all = "2000::/3";
            for (id, direction) in [(others + 3, Direction::Out), (others + 4, Direction::In)] {
                policies.push(policy(id, direction, all, all, Upper::Any, Action::Discard));
            }
            let spd = Spd::new(policies, &Sad::default());
            let leaves = later(OURS, OTHER, IpProto::DSTOPTS);
            assert_eq!(out(&spd, &leaves), Decision::Discard, "{upper:?}");
            let arrives = later(OTHER, OURS, IpProto::DSTOPTS);
            assert_eq!(check_in(&spd, &arrives, None), Err(Why::SpDiscard), "{upper:?}");
        }
    }
}

#[test]
fn one_that_names_its_upper_layer_is_of_that() {
    let [tcp, tcp_port, ports, icmp] = narrow();
    let found = |upper, proto| {
        databases(upper, |src, dst| tunnel(src, dst, Level::Require))
            .map(|spd| through(out(&spd, &later(OURS, OTHER, proto))).is_some())
    };
    for (upper, proto, is_found) in [
        (tcp, IpProto::TCP, true),
        (tcp, IpProto::UDP, false),
        (tcp_port, IpProto::TCP, true),
        (tcp_port, IpProto::UDP, false),
        (ports, IpProto::UDP, true),
        (ports, IpProto::ICMPV6, false),
        (icmp, IpProto::ICMPV6, true),
        (icmp, IpProto::TCP, false),
    ] {
        assert_eq!(found(upper, proto), [is_found; 2], "{upper:?} {proto}");
    }
}

#[test]
fn in_ipv4_the_number_of_an_extension_header_is_a_protocol_like_any_other() {
    let sad = Sad::new([sa(4, A, B, 0)]);
    let tcp = Upper::Proto { proto: IpProto::TCP, src_port: None, dst_port: None };
    let header = ipv4::Repr {
        src: [10, 1, 0, 1].into(),
        dst: [10, 2, 0, 1].into(),
        proto: IpProto::DSTOPTS,
        ..Default::default()
    };
    let packet = build::raw4(header, &[0; 16]);
    for (upper, is_found) in [(tcp, false), (Upper::Any, true)] {
        let way = tunnel(A, B, Level::Require);
        let spd = Spd::new([policy(1, Direction::Out, "10.1.0.0/16", "10.2.0.0/16", upper, way)], &sad);
        assert_eq!(through(out(&spd, &packet)).is_some(), is_found, "{upper:?}");
    }
}

#[test]
fn what_cannot_be_parsed_counts_as_what_must_be_protected() {
    // A destination options header that goes on beyond the packet.
    let header = ipv6::Repr { src: OURS, dst: OTHER, next_header: IpProto::DSTOPTS, ..Default::default() };
    let cut_off = build::raw6(header, &[IpProto::TCP.0, 200, 0, 0, 0, 0, 0, 0]);
    for upper in narrow() {
        for spd in databases(upper, |src, dst| tunnel(src, dst, Level::Require)) {
            assert_eq!(through(out(&spd, &cut_off)), Some(SaIndex(4)), "{upper:?}");
        }
    }
}
