//! Where a packet comes from and goes to, as a rule says it: interfaces, addresses and ports.

use std::net::IpAddr;

use super::Ports;
use crate::addr::Prefix;

/// `on IF`, `on ! IF`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct On {
    /// Every interface but this one.
    pub not: bool,
    /// Name of the interface.
    pub name: String,
}

/// One side of a rule: address and port.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub struct Peer {
    /// Every address but these.
    pub not: bool,
    /// Which addresses.
    pub host: Host,
    /// Which ports.
    pub port: Option<Ports>,
}

/// Which addresses.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub enum Host {
    /// All.
    #[default]
    Any,
    /// Those of a prefix.
    Prefix(Prefix),
    /// From one to another, both included.
    Range(IpAddr, IpAddr),
    /// Those an interface has whenever a packet is looked at.
    Dynamic(Dynamic),
    /// Those in a table.
    Table(String),
    /// `no-route`: those to which no route leads.
    NoRoute,
    /// `urpf-failed`: sources to which the route leads through another interface.
    UrpfFailed,
}

/// `(if)`, with its modifiers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dynamic {
    /// Name of the interface; `self` is all of them.
    pub interface: String,
    /// What of it.
    pub part: Part,
    /// `:0`: without aliases.
    pub no_alias: bool,
    /// `/n` behind the parenthesis.
    pub len: Option<u8>,
}

/// Which addresses of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum Part {
    /// Its own.
    #[default]
    Address,
    /// The networks it is in.
    Network,
    /// The broadcast addresses of these.
    Broadcast,
    /// The other end of a point-to-point link.
    Peer,
}

impl Part {
    /// How pf.conf writes it, behind the interface's name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Part::Address => "",
            Part::Network => ":network",
            Part::Broadcast => ":broadcast",
            Part::Peer => ":peer",
        }
    }
}
