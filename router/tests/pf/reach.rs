//! `no-route` and `urpf-failed` against the routes of a gateway, which change while its rules stay.

use super::bed::{Bed, Datagram, HOST4, HOST6, LAN6, Shape, policies, sas};
use std::net::{Ipv4Addr, Ipv6Addr};
use wire::{IpProto, build, parse::parse_ip};

/// Sources that the first host has not: behind the other gateway, behind both, where no packet comes from, nowhere.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const BOTH: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 7);
const REJECTED: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 7);
const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 7);

const ROUTES: &str = "[[route]]\nto = \"10.2.0.0/16\"\nvia = [\"203.0.113.2\", \"192.0.2.10\"]\n\
                      [[route]]\nto = \"10.3.0.0/16\"\ntype = \"reject\"\n";

fn shape(routes: &str) -> Shape {
    Shape { more: [routes.to_owned(), String::new()], ..Shape::default() }
}

fn bed(rules: &str) -> Bed {
    Bed::new(shape(ROUTES), [Some(rules), Some("pass all no state\n")], ["", ""])
}

/// Whether a packet of the first host's gets through the first gateway, or ends there by a rule.
fn passes(bed: &mut Bed, packet: &[u8]) -> bool {
    let blocked = bed.count(0, "pf.block");
    bed.on_the_wire();
    assert!(bed.send(0, 0, packet));
    bed.run(20);
    let is_it = |frame: &&Vec<u8>| parse_ip(&frame[14..]).is_ok_and(|p| p.proto == IpProto::UDP);
    let crossed = bed.on_the_wire().iter().filter(is_it).count();
    let blocked = bed.count(0, "pf.block") - blocked;
    assert_eq!(crossed as u64 + blocked, 1, "it crosses or is blocked");
    crossed == 1
}

fn from(source: Ipv4Addr) -> Vec<u8> {
    build::udp4(source, HOST4[1], 1000, 2000, b"a datagram")
}

fn from6(source: Ipv6Addr) -> Vec<u8> {
    build::udp6(source, HOST6[1], 1000, 2000, b"a datagram")
}

#[test]
fn sources_that_lie_elsewhere_are_stopped_where_they_come_in() {
    let mut bed = bed("pass all no state\nblock in on lan0 from urpf-failed\n");
    for (source, does) in [(HOST4[0], true), (FAR, false), (BOTH, true), (REJECTED, false), (NOWHERE, false)]
    {
        assert_eq!(passes(&mut bed, &from(source)), does, "{source}");
    }
    assert!(passes(&mut bed, &from6(HOST6[0])));
    assert!(!passes(&mut bed, &from6(HOST6[1])));
    // Its neighbours send from addresses that no table has, and are heard.
    let solicited = build::echo6("fe80::9".parse().unwrap(), LAN6[0], 1, 1, b"ping");
    assert!(bed.send(0, 0, &solicited));
    let blocked = bed.count(0, "pf.block");
    bed.run(20);
    assert_eq!(bed.count(0, "pf.block"), blocked);
    // A route to there, and the same rules.
    let more = format!("{ROUTES}[[route]]\nto = \"10.9.0.0/16\"\nvia = \"192.0.2.10\"\n");
    bed.shape = shape(&more);
    bed.reload(0, Some("pass all no state\nblock in on lan0 from urpf-failed\n"), "");
    assert!(passes(&mut bed, &from(NOWHERE)));
    bed.finish();
}

#[test]
fn addresses_without_a_route_are_known_on_either_side() {
    let mut bed =
        bed("pass all no state\nblock drop in on lan0 from no-route\nblock drop in on lan0 to no-route\n");
    for (source, does) in [(HOST4[0], true), (FAR, true), (BOTH, true), (REJECTED, true), (NOWHERE, false)] {
        assert_eq!(passes(&mut bed, &from(source)), does, "{source}");
    }
    assert!(!passes(&mut bed, &build::udp4(HOST4[0], NOWHERE, 1000, 2000, b"a datagram")));
    assert!(!passes(&mut bed, &from6("2001:db8:9::1".parse().unwrap())));
    let unreachable = bed.counts(0);
    assert_eq!(unreachable["ip.no_route"], 0, "pf was first to stop it");
    bed.finish();
}

#[test]
fn what_comes_out_of_a_tunnel_has_come_by_no_route() {
    let rules = "pass all no state\nblock in on enc0 from urpf-failed\n";
    let ipsec = [0, 1].map(|side| sas(0, "") + &policies(side));
    let mut bed = Bed::new(Shape::default(), [Some(rules); 2], [&ipsec[0], &ipsec[1]]);
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(20);
    assert_eq!(bed.arrived(1).len(), 1);
    assert_eq!(bed.nothing_in_clear(), 1);
    bed.finish();
}
