//! An [`Environment`] written down: what `softnet pfctl --env FILE` reads.
//!
//! ```toml
//! [[interface]]
//! name = "lo0"
//! address = ["::1/128", "127.0.0.1/8"]
//! peer = "10.0.0.2"          # the other end of a point-to-point link
//! mtu = 1500
//! bandwidth = 1000000000     # bits a second
//!
//! [hosts]
//! localhost = ["::1", "127.0.0.1"]
//! [services]
//! backup = { port = 12000, proto = "tcp" }
//! [protocols]
//! mine = 253
//! [users]
//! alice = 1001
//! [groups]
//! staff = 20
//! ```
//!
//! Services, protocols, users and groups are added to the built-in ones of a BSD system.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use serde::Deserialize;

use crate::{
    Environment, IfIndex,
    env::{IfAddress, Interface},
    names,
};

/// Why a file does not describe an environment.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// It cannot be read.
    #[error("{file}: {error}")]
    Read {
        /// Its name.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// It is not of this form.
    #[error("{0}")]
    Form(#[from] toml::de::Error),
    /// An address, a protocol or a number is none.
    #[error("`{value}` of {of} is {what}")]
    Value {
        /// What is wrong.
        value: String,
        /// Where it stands.
        of: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    interface: Vec<InterfaceEntry>,
    #[serde(default)]
    hosts: BTreeMap<String, Vec<IpAddr>>,
    #[serde(default)]
    services: BTreeMap<String, Service>,
    #[serde(default)]
    protocols: BTreeMap<String, u8>,
    #[serde(default)]
    users: BTreeMap<String, u32>,
    #[serde(default)]
    groups: BTreeMap<String, u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InterfaceEntry {
    name: String,
    #[serde(default)]
    address: Vec<String>,
    peer: Option<IpAddr>,
    #[serde(default = "ethernet_mtu")]
    mtu: u16,
    bandwidth: Option<u64>,
}

const fn ethernet_mtu() -> u16 {
    1500
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    port: u16,
    proto: String,
}

impl Environment {
    /// Reads a file of this form.
    pub fn from_file(path: &Path) -> Result<Environment, EnvError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| EnvError::Read { file: path.display().to_string(), error })?;
        Environment::from_toml(&text)
    }

    /// Reads a text of this form.
    pub fn from_toml(text: &str) -> Result<Environment, EnvError> {
        let file: File = toml::from_str(text)?;
        let interfaces: Result<Vec<_>, EnvError> =
            file.interface.into_iter().enumerate().map(|(i, entry)| entry.interface(i + 1)).collect();
        let services: Result<Vec<_>, EnvError> = file
            .services
            .into_iter()
            .map(|(name, s)| match names::protocol(&s.proto) {
                Some(proto) => Ok((name, s.port, proto)),
                None => Err(EnvError::Value { value: s.proto, of: name, what: "no protocol" }),
            })
            .collect();
        Ok(Environment {
            interfaces: interfaces?,
            hosts: file.hosts.into_iter().collect(),
            services: services?,
            protocols: file.protocols.into_iter().collect(),
            users: file.users.into_iter().collect(),
            groups: file.groups.into_iter().collect(),
            fingerprints: None,
            numeric_ports: false,
        })
    }
}

impl InterfaceEntry {
    fn interface(self, index: usize) -> Result<Interface, EnvError> {
        let value =
            |value: &str, what| EnvError::Value { value: value.to_owned(), of: self.name.clone(), what };
        let index = u16::try_from(index).map_err(|_| value("interface", "one too many"))?;
        let mut addresses = Vec::new();
        for text in &self.address {
            let (addr, len) = text.split_once('/').ok_or_else(|| value(text, "without a prefix length"))?;
            let addr: IpAddr = addr.parse().map_err(|_| value(text, "no address"))?;
            let len: u8 = len.parse().map_err(|_| value(text, "no prefix"))?;
            if len > crate::addr::Family::of(addr).width() {
                return Err(value(text, "longer than an address"));
            }
            let peer = self.peer.filter(|p| p.is_ipv4() == addr.is_ipv4());
            addresses.push(IfAddress { peer, ..IfAddress::new(addr, len) });
        }
        Ok(Interface {
            name: self.name,
            index: IfIndex(index),
            addresses,
            mtu: self.mtu,
            bandwidth: self.bandwidth,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_describes_interfaces_and_names() {
        let env = Environment::from_toml(
            "[[interface]]\nname = \"ppp0\"\naddress = [\"10.0.0.1/32\"]\npeer = \"10.0.0.2\"\n\
             [hosts]\nh = [\"192.0.2.1\"]\n[services]\nbackup = { port = 12000, proto = \"udp\" }\n\
             [protocols]\nmine = 253\n[users]\nalice = 1001\n[groups]\nops = 2000\n",
        )
        .unwrap();
        assert_eq!(env.interfaces[0].addresses[0].peer, Some("10.0.0.2".parse().unwrap()));
        assert_eq!(env.host("h").map(<[_]>::len), Some(1));
        assert_eq!((env.service("backup"), env.service_name(12000, Some(17))), (Some(12000), Some("backup")));
        assert_eq!((env.protocol("mine"), env.protocol_name(253)), (Some(253), Some("mine")));
        assert_eq!(
            (env.user("alice"), env.user("root"), env.group("ops")),
            (Some(1001), Some(0), Some(2000))
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        for (text, wanted) in [
            (
                "[[interface]]\nname = \"a\"\naddress = [\"10.0.0.1\"]",
                "`10.0.0.1` of a is without a prefix length",
            ),
            (
                "[[interface]]\nname = \"a\"\naddress = [\"10.0.0.1/40\"]",
                "`10.0.0.1/40` of a is longer than an address",
            ),
            ("[services]\nx = { port = 1, proto = \"nope\" }", "`nope` of x is no protocol"),
        ] {
            assert_eq!(Environment::from_toml(text).unwrap_err().to_string(), wanted);
        }
        assert!(Environment::from_toml("colour = 1").unwrap_err().to_string().contains("colour"));
    }
}
