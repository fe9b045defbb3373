//! What follows from a configuration without being written: link-layer addresses, link-local addresses, the routes that
//! addresses bring with them, the groups a router listens to.

use super::valid::{InterfaceConf, ValidConf};
use crate::route::{NextHop, Route, Source};
use ipnet::{IpNet, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::Mac;

/// The link-layer address of an interface that has none in the file: locally administered, the same at every start,
/// another for every router and interface.
pub fn mac(router: &str, interface: &str) -> Mac {
    // FNV-1a, finished so that names that differ in the last letter differ everywhere.
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for byte in router.bytes().chain([0]).chain(interface.bytes()) {
        h = (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    let [_, _, a, b, c, d, e, f] = h.to_be_bytes();
    Mac([(a & 0xfc) | 0x02, b, c, d, e, f])
}

/// The link-local address of an interface (RFC 4291, 2.5.6).
pub fn link_local(mac: Mac) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(mac.link_local(), 64))
}

/// Every route of a configuration: those its addresses bring, and those of the file.
///
/// - each address, as a host route to ourselves;
/// - its subnet, as connected;
/// - IPv4: the subnet's broadcast and all-zeros addresses (RFC 1812, 4.2.2.11 and 5.3.5), except in /31 and /32;
/// - IPv6: the subnet-router anycast address (RFC 4291, 2.6.1), except in /127 and /128.
///
/// Link-local addresses bring none: their link is not known from the address.
pub fn routes(conf: &ValidConf) -> Vec<Route> {
    let of_addresses =
        conf.interfaces.iter().flat_map(|i| i.addrs.iter().flat_map(|net| brought_by(i, *net)));
    let of_file =
        conf.routes.iter().map(|r| Route { to: r.to, source: Source::Static, paths: r.paths.clone() });
    of_addresses.chain(of_file).collect()
}

fn brought_by(interface: &InterfaceConf, net: IpNet) -> Vec<Route> {
    let iface = interface.index;
    if matches!(net.addr(), IpAddr::V6(a) if a.is_unicast_link_local()) {
        return Vec::new();
    }
    let route = |to: IpNet, source, hop| Route { to, source, paths: vec![hop] };
    let host = |addr: IpAddr, hop| route(IpNet::from(addr), Source::Local, hop);
    // Ours last: in case of doubt an address is ours.
    let mut routes = Vec::new();
    if net.prefix_len() < net.max_prefix_len() {
        routes.push(route(net.trunc(), Source::Connected, NextHop::Connected { iface }));
    }
    if net.prefix_len() + 1 < net.max_prefix_len() {
        match net {
            IpNet::V4(_) => {
                routes.push(host(net.network(), NextHop::Broadcast { iface }));
                routes.push(host(net.broadcast(), NextHop::Broadcast { iface }));
            }
            IpNet::V6(_) => routes.push(host(net.network(), NextHop::Local { iface })),
        }
    }
    routes.push(host(net.addr(), NextHop::Local { iface }));
    routes
}

/// The multicast groups an interface listens to: all hosts and all routers of each family it has, and the solicited-node
/// group of each IPv6 address (RFC 4291, 2.8; RFC 1112).
pub fn groups(addrs: &[IpNet]) -> Vec<IpAddr> {
    let mut groups = Vec::new();
    if addrs.iter().any(|net| matches!(net, IpNet::V4(_))) {
        groups.extend([IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(224, 0, 0, 2))]);
    }
    if addrs.iter().any(|net| matches!(net, IpNet::V6(_))) {
        groups.extend([1, 2].map(|n| IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, n))));
    }
    for net in addrs {
        if let IpAddr::V6(addr) = net.addr() {
            groups.push(IpAddr::V6(solicited_node(addr)));
        }
    }
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// The solicited-node group of an address (RFC 4291, 2.7.1).
pub fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    const GROUP: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from_bits(GROUP | (addr.to_bits() & 0xff_ffff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_link_layer_address_is_stable_local_and_unicast() {
        let one = mac("gw-a", "lan0");
        assert_eq!(one, mac("gw-a", "lan0"));
        assert_ne!(one, mac("gw-a", "wan0"));
        assert_ne!(one, mac("gw-b", "lan0"));
        assert_ne!(mac("ab", "c"), mac("a", "bc"));
        assert_eq!(one.0[0] & 3, 2);
    }

    #[test]
    fn the_groups_of_an_interface_follow_from_its_addresses() {
        let addrs = ["192.0.2.1/24", "2001:db8::12:3456/64", "fe80::12:3456/64"].map(|a| a.parse().unwrap());
        let groups: Vec<String> = groups(&addrs).iter().map(ToString::to_string).collect();
        assert_eq!(groups, ["224.0.0.1", "224.0.0.2", "ff02::1", "ff02::2", "ff02::1:ff12:3456"]);
    }
}
