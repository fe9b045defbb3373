//! The tables against a list that is searched from end to end.

use super::*;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

fn via(n: u32) -> NextHop {
    NextHop::Gateway { iface: IfIndex((n % 3) as u16 + 1), addr: IpAddr::V4(Ipv4Addr::from_bits(n)) }
}

fn route(to: &str, n: u32) -> Route {
    Route { to: to.parse().expect("a prefix"), source: Source::Static, paths: vec![via(n)] }
}

fn rib(routes: &[Route]) -> Rib {
    let mut rib = Rib::new();
    for r in routes {
        rib.insert(r.clone());
    }
    rib
}

fn to(fib: &Fib, addr: &str) -> NextHop {
    *fib.route(addr.parse().expect("an address"), 0)
}

/// The oracle: every route in a map, the longest that has the address.
#[derive(Default)]
struct Naive(HashMap<IpNet, u32>);

impl Naive {
    fn lookup(&self, addr: IpAddr) -> NextHop {
        let hits = self.0.iter().filter(|(net, _)| net.contains(&addr));
        hits.max_by_key(|(net, _)| net.prefix_len()).map_or(NextHop::Unreachable, |(_, n)| via(*n))
    }
}

/// Prefixes close together, so that they overlap, at lengths where the tables change their ways.
fn net4() -> impl Strategy<Value = IpNet> {
    let len = prop_oneof![0..=32_u8, Just(12), Just(24), Just(32), 22..=32_u8];
    let bits = prop_oneof![any::<u32>(), (0..0x2_0000_u32).prop_map(|n| 0x0a0f_f000 + n)];
    (bits, len).prop_map(|(bits, len)| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), len).trunc()))
}

fn net6() -> impl Strategy<Value = IpNet> {
    let len = prop_oneof![0..=128_u8, Just(7), Just(8), Just(16), Just(48), Just(64), Just(128), 40..=66_u8];
    (near6(), len)
        .prop_map(|(bits, len)| IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), len).trunc()))
}

fn near6() -> impl Strategy<Value = u128> {
    let base = 0x2001_0db8_0000_0000_u128 << 64;
    prop_oneof![
        any::<u128>(),
        any::<u32>().prop_map(move |n| base | u128::from(n) << 60),
        (any::<u8>(), any::<u8>()).prop_map(move |(a, b)| base | u128::from(a) << 80 | u128::from(b)),
    ]
}

fn addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|n| IpAddr::V4(Ipv4Addr::from_bits(n))),
        (0..0x2_0000_u32).prop_map(|n| IpAddr::V4(Ipv4Addr::from_bits(0x0a0f_f000 + n))),
        near6().prop_map(|n| IpAddr::V6(Ipv6Addr::from_bits(n))),
    ]
}

#[derive(Clone, Debug)]
enum Change {
    Put(IpNet, u32),
    Take(IpNet),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let net = || prop_oneof![net4(), net6()];
    let change = prop_oneof![
        4 => (net(), 0..9_u32).prop_map(|(net, n)| Change::Put(net, n)),
        1 => net().prop_map(Change::Take),
    ];
    prop::collection::vec(change, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("SOFTNET_SOAK").is_some() { 5000 } else { 200 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn lookup_is_longest_prefix_match_after_every_batch_of_changes(
        batches in prop::collection::vec(changes(), 1..5),
        addrs in prop::collection::vec(addr(), 50),
    ) {
        let (mut rib, mut naive) = (Rib::new(), Naive::default());
        for batch in batches {
            for change in &batch {
                match *change {
                    Change::Put(to, n) => {
                        rib.insert(Route { to, source: Source::Static, paths: vec![via(n)] });
                        naive.0.insert(to, n);
                    }
                    Change::Take(to) => {
                        prop_assert_eq!(rib.remove(to, Source::Static), naive.0.remove(&to).is_some());
                    }
                }
            }
            let fib = rib.commit();
            let ends = naive.0.keys().flat_map(|net| [net.network(), net.broadcast()]);
            for addr in addrs.iter().copied().chain(ends) {
                prop_assert_eq!(fib.route(addr, 0), &naive.lookup(addr), "{}", addr);
            }
        }
    }
}

#[test]
fn an_old_table_does_not_see_a_later_change() {
    let mut rib = rib(&[route("0.0.0.0/0", 1), route("::/0", 2)]);
    let old = rib.commit();
    rib.insert(route("192.0.2.0/24", 3));
    rib.insert(route("2001:db8::/32", 4));
    let new = rib.commit();
    assert_eq!((to(&old, "192.0.2.1"), to(&old, "2001:db8::1")), (via(1), via(2)));
    assert_eq!((to(&new, "192.0.2.1"), to(&new, "2001:db8::1")), (via(3), via(4)));
}

#[test]
fn a_change_shares_all_parts_but_its_own() {
    let mut rib =
        rib(&[route("0.0.0.0/0", 1), route("192.0.2.0/24", 2), route("10.0.0.0/9", 3), route("::/0", 4)]);
    let old = rib.commit();
    rib.insert(route("198.51.100.0/25", 5));
    let new = rib.commit();
    assert_eq!(new.v4.shared_with(&old.v4), 4095);
    assert!(std::sync::Arc::ptr_eq(&new.v6, &old.v6));
    rib.insert(route("2001:db8::/32", 6));
    assert_eq!(rib.commit().v6.pages_shared_with(&new.v6), 255);
}

#[test]
fn a_small_table_takes_little_memory() {
    let mut rib =
        rib(&[route("0.0.0.0/0", 1), route("192.0.2.0/24", 2), route("::/0", 4), route("2001:db8::/32", 3)]);
    let fib = rib.commit();
    assert!(fib.v4.bytes() < 100_000, "{}", fib.v4.bytes());
    assert!(fib.v6.bytes() < 20_000, "{}", fib.v6.bytes());
}

#[test]
fn nothing_changes_when_the_same_routes_are_put_again() {
    let routes = [route("0.0.0.0/0", 1), route("192.0.2.0/24", 2), route("2001:db8::/32", 3)];
    let mut rib = rib(&routes);
    let old = rib.commit();
    assert_eq!(rib.replace_all(routes.clone()), 0);
    let new = rib.commit();
    assert!(std::sync::Arc::ptr_eq(&new.v4, &old.v4) && std::sync::Arc::ptr_eq(&new.v6, &old.v6));
    assert_eq!(rib.replace_all([route("192.0.2.0/24", 7)]), 3);
    let last = rib.commit();
    assert_eq!(to(&last, "192.0.2.9"), via(7));
    assert_eq!(to(&last, "198.51.100.1"), NextHop::Unreachable);
    assert_eq!(to(&last, "2001:db8::1"), NextHop::Unreachable);
}

#[test]
fn the_nearest_source_counts() {
    let mut rib = rib(&[route("192.0.2.0/24", 1)]);
    let connected = NextHop::Connected { iface: IfIndex(9) };
    let near =
        Route { to: "192.0.2.0/24".parse().unwrap(), source: Source::Connected, paths: vec![connected] };
    rib.insert(near);
    assert_eq!(to(&rib.commit(), "192.0.2.1"), connected);
    let counts: Vec<_> = rib.routes().map(|s| (s.route.source, s.counts)).collect();
    assert_eq!(counts, [(Source::Connected, true), (Source::Static, false)]);
    rib.remove("192.0.2.0/24".parse().unwrap(), Source::Connected);
    assert_eq!(to(&rib.commit(), "192.0.2.1"), via(1));
}

#[test]
fn a_link_that_goes_down_takes_its_paths_along_and_brings_them_back() {
    let local = Route {
        to: "192.0.2.1/32".parse().unwrap(),
        source: Source::Local,
        paths: vec![NextHop::Local { iface: IfIndex(1) }],
    };
    let both = Route { paths: vec![via(0), via(1)], ..route("198.51.100.0/24", 0) };
    let mut rib = rib(&[local, both, route("0.0.0.0/0", 2), route("203.0.113.0/24", 3)]);
    let up = rib.commit();
    assert_eq!(up.hops.paths(up.lookup4("198.51.100.7".parse().unwrap())), [via(0), via(1)]);

    rib.set_link(IfIndex(1), false);
    let down = rib.commit();
    assert_eq!(to(&down, "192.0.2.1"), NextHop::Local { iface: IfIndex(1) });
    assert_eq!(down.hops.paths(down.lookup4("198.51.100.7".parse().unwrap())), [via(1)]);
    assert_eq!(to(&down, "203.0.113.1"), via(2), "the default route takes over");

    rib.set_link(IfIndex(1), true);
    let again = rib.commit();
    assert_eq!(to(&again, "203.0.113.1"), via(3));
    assert_eq!(again.hops.paths(again.lookup4("198.51.100.7".parse().unwrap())), [via(0), via(1)]);
}
