//! The world that a pf.conf speaks of: interfaces and their addresses, services, protocols, hosts.
//!
//! It is given to the parser, never looked up: the running router describes itself, a test describes whatever it needs,
//! and `pfctl -n` means the same on every machine. Services and protocols begin as BSD's /etc/services and
//! /etc/protocols have them, as far as [`crate::names`] goes.

use std::{net::IpAddr, path::PathBuf};

use crate::{
    IfIndex,
    addr::{Entry, Family, Prefix, bits},
    names,
    rule::{Dynamic, Part},
};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name in pf.conf.
    pub name: String,
    /// Its number in packets.
    pub index: IfIndex,
    /// Its addresses; the first of each family is no alias.
    pub addresses: Vec<IfAddress>,
    /// Largest IP packet, for ALTQ's token bucket.
    pub mtu: u16,
    /// Bits a second, if known, for ALTQ.
    pub bandwidth: Option<u64>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IfAddress {
    /// The address.
    pub addr: IpAddr,
    /// Length of its network's prefix.
    pub len: u8,
    /// The other end of a point-to-point link.
    pub peer: Option<IpAddr>,
}

impl IfAddress {
    /// An address in a network.
    pub const fn new(addr: IpAddr, len: u8) -> IfAddress {
        IfAddress { addr, len, peer: None }
    }

    fn is_link_local(&self) -> bool {
        matches!(self.addr, IpAddr::V6(a) if wire::ipv6::is_link_local(a))
    }

    fn part(&self, part: Part) -> Option<Prefix> {
        match part {
            Part::Address => Some(Prefix::host(self.addr)),
            // Every link has the same link-local network: it says nothing about this one.
            Part::Network => (!self.is_link_local()).then(|| Prefix::new(self.addr, self.len)),
            Part::Broadcast => match (self.addr, Prefix::new(self.addr, self.len).range()) {
                (IpAddr::V4(_), (_, last)) if self.len < 31 => Some(Prefix::host(Family::Inet.address(last))),
                _ => None,
            },
            Part::Peer => self.peer.map(Prefix::host),
        }
    }
}

/// The world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Interfaces.
    pub interfaces: Vec<Interface>,
    /// Host names and their addresses.
    pub hosts: Vec<(String, Vec<IpAddr>)>,
    /// Service names beyond the built-in ones: name, port, protocol. The first of several for one port is printed.
    pub services: Vec<(String, u16, u8)>,
    /// Protocol names beyond the built-in ones.
    pub protocols: Vec<(String, u8)>,
    /// User names beyond the built-in ones.
    pub users: Vec<(String, u32)>,
    /// Group names beyond the built-in ones.
    pub groups: Vec<(String, u32)>,
    /// Where the fingerprints of operating systems are unless `set fingerprints` says.
    pub fingerprints: Option<PathBuf>,
    /// Ports are printed as numbers, whatever their services are called (`pfctl -P`).
    pub numeric_ports: bool,
}

impl Environment {
    /// A world with these interfaces.
    pub fn new(interfaces: Vec<Interface>) -> Environment {
        Environment { interfaces, ..Environment::default() }
    }

    /// The interface of that name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.name == name)
    }

    /// The addresses of a host.
    pub fn host(&self, name: &str) -> Option<&[IpAddr]> {
        self.hosts.iter().find(|(n, _)| n == name).map(|(_, a)| a.as_slice())
    }

    /// The number of a protocol.
    pub fn protocol(&self, name: &str) -> Option<u8> {
        find(&self.protocols, name).or_else(|| names::protocol(name))
    }

    /// The name of a protocol.
    pub fn protocol_name(&self, number: u8) -> Option<&str> {
        let own = self.protocols.iter().find(|&&(_, n)| n == number).map(|(name, _)| name.as_str());
        own.or_else(|| names::protocol_name(number))
    }

    /// The number of a user.
    pub fn user(&self, name: &str) -> Option<u32> {
        find(&self.users, name).or_else(|| names::user(name))
    }

    /// The number of a group.
    pub fn group(&self, name: &str) -> Option<u32> {
        find(&self.groups, name).or_else(|| names::group(name))
    }

    /// The port of a service.
    pub fn service(&self, name: &str) -> Option<u16> {
        let own = self.services.iter().find(|(n, ..)| n == name).map(|&(_, port, _)| port);
        own.or_else(|| names::service(name))
    }

    /// The name of a service, if it is to be printed.
    pub fn service_name(&self, port: u16, proto: Option<u8>) -> Option<&str> {
        if self.numeric_ports {
            return None;
        }
        let fits = |p: u8| proto.is_none_or(|proto| proto == p);
        let own =
            self.services.iter().find(|&&(_, n, p)| n == port && fits(p)).map(|(name, ..)| name.as_str());
        own.or_else(|| names::service_name(port, proto))
    }

    /// The addresses that `if`, `if:network` and so on stand for, `self` being all interfaces.
    pub fn addresses_of(&self, dynamic: &Dynamic, family: Option<Family>) -> Vec<Prefix> {
        let mut found = Vec::new();
        for interface in &self.interfaces {
            if dynamic.interface == "self" || interface.name == dynamic.interface {
                interface.add_parts(dynamic, family, &mut found);
            }
        }
        found
    }

    /// The same as the entries of a set.
    pub(crate) fn entries_of(&self, dynamic: &Dynamic, family: Option<Family>) -> Vec<Entry> {
        self.addresses_of(dynamic, family).into_iter().map(|prefix| Entry { not: false, prefix }).collect()
    }
}

fn find<T: Copy>(names: &[(String, T)], name: &str) -> Option<T> {
    names.iter().find(|(n, _)| n == name).map(|&(_, number)| number)
}

impl Interface {
    fn add_parts(&self, dynamic: &Dynamic, family: Option<Family>, found: &mut Vec<Prefix>) {
        let mut seen = [false; 2];
        for address in &self.addresses {
            let its = Family::of(address.addr);
            let first = !std::mem::replace(&mut seen[usize::from(its == Family::Inet6)], true);
            if family.is_some_and(|f| f != its) || (dynamic.no_alias && !first) {
                continue;
            }
            let Some(prefix) = address.part(dynamic.part) else { continue };
            let prefix = match dynamic.len {
                Some(len) if len <= its.width() => Prefix::new(prefix.addr(), len),
                _ => prefix,
            };
            found.push(prefix);
        }
    }

    /// Whether the interface has this address.
    pub fn has(&self, family: Family, address: u128) -> bool {
        self.addresses.iter().any(|a| Family::of(a.addr) == family && bits(a.addr) == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_stands_for_its_addresses_networks_and_broadcasts() {
        let lan = Interface {
            name: "lan0".into(),
            index: IfIndex(1),
            addresses: vec![
                IfAddress::new("192.0.2.1".parse().unwrap(), 24),
                IfAddress::new("192.0.2.7".parse().unwrap(), 24),
                IfAddress::new("2001:db8::1".parse().unwrap(), 64),
            ],
            mtu: 1500,
            bandwidth: None,
        };
        let env = Environment::new(vec![lan]);
        let ask = |part, no_alias, family| -> Vec<String> {
            let dynamic = Dynamic { interface: "lan0".into(), part, no_alias, len: None };
            env.addresses_of(&dynamic, family).iter().map(ToString::to_string).collect()
        };
        assert_eq!(ask(Part::Address, false, None), ["192.0.2.1", "192.0.2.7", "2001:db8::1"]);
        assert_eq!(ask(Part::Address, true, None), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(ask(Part::Network, true, Some(Family::Inet)), ["192.0.2.0/24"]);
        assert_eq!(ask(Part::Broadcast, true, None), ["192.0.2.255"]);
        assert!(ask(Part::Peer, false, None).is_empty());
    }
}
