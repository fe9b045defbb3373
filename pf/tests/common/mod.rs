//! The world that the parser suite assumes, and one of two routers' interfaces for the engine's tests.
#![allow(dead_code, reason = "each test program uses a part")]

use pf::{
    Environment, IfIndex,
    env::{IfAddress, Interface},
};

/// An interface with these addresses.
pub fn interface(name: &str, index: u16, addresses: &[&str]) -> Interface {
    let addresses = addresses.iter().map(|text| {
        let (addr, len) = text.split_once('/').expect("address/length");
        IfAddress::new(addr.parse().expect("an address"), len.parse().expect("a length"))
    });
    Interface {
        name: name.into(),
        index: IfIndex(index),
        addresses: addresses.collect(),
        mtu: 1500,
        bandwidth: None,
    }
}

/// lo0 and localhost, as the suite's README says.
pub fn suite() -> Environment {
    let mut env = Environment::new(vec![interface("lo0", 1, &["::1/128", "fe80::1/64", "127.0.0.1/8"])]);
    env.hosts.push(("localhost".into(), vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]));
    for n in 1057..=1064_u16 {
        env.interfaces.push(interface(&format!("vlan{n}"), n, &["203.0.113.5/24", "2001:db8::cb00:7105/64"]));
    }
    env
}

/// A router with a LAN and a WAN.
pub fn router() -> Environment {
    Environment::new(vec![
        interface("lan0", 1, &["192.0.2.1/24", "2001:db8:a::1/64"]),
        interface("wan0", 2, &["203.0.113.1/24", "2001:db8:b::1/64"]),
        interface("enc0", 3, &[]),
    ])
}
