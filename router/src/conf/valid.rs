//! A configuration that holds together. Only [`check`](super::check::check) makes one; everything behind it may trust it.

use super::diag::Diagnostic;
use crate::route::{IfIndex, NextHop};
use ipnet::IpNet;
use kern::{lock::Locking, mbuf::PoolConfig};
use std::{
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};
use wire::Mac;

/// The whole configuration.
#[derive(Clone, Debug)]
#[allow(clippy::manual_non_exhaustive, reason = "the rest of this crate must not make one either")]
pub struct ValidConf {
    /// The file it came from.
    pub file: PathBuf,
    /// Name of the router.
    pub name: String,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// The processors they run on: worker *n* on `cpus[n % cpus.len()]`. Not empty.
    pub cpus: Vec<usize>,
    /// How long a worker spins before it sleeps.
    pub spin: Duration,
    /// How coarse locking is.
    pub locking: Locking,
    /// Packet buffers.
    pub pool: PoolConfig,
    /// Path of the control socket.
    pub control: PathBuf,
    /// pf.conf, if pf is on.
    pub pf: Option<PathBuf>,
    /// ipsec.conf, if there is IPsec.
    pub ipsec: Option<PathBuf>,
    /// Whether pf sees packets inside tunnels, on `enc0`.
    pub enc0: bool,
    /// ICMP errors a second that a worker may send; 0 for no limit.
    pub icmp_rate: u32,
    /// In the order of the file: index *n* is at place *n* - 1.
    pub interfaces: Vec<InterfaceConf>,
    /// Routes of the file.
    pub routes: Vec<RouteConf>,
    /// What is strange and yet no error.
    pub warnings: Vec<Diagnostic>,
    /// Nobody else makes one.
    pub(super) _checked: (),
}

impl ValidConf {
    /// The interface with this number.
    pub fn interface(&self, index: IfIndex) -> Option<&InterfaceConf> {
        self.interfaces.get(index.slot()?)
    }

    /// The name of the interface with this number; the number itself if there is none.
    pub fn name_of(&self, index: IfIndex) -> String {
        self.interface(index).map_or_else(|| index.to_string(), |i| i.name.clone())
    }

    /// The interface with this name.
    pub fn named(&self, name: &str) -> Option<&InterfaceConf> {
        self.interfaces.iter().find(|i| i.name == name)
    }
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConf {
    /// Its number.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// What it sits on.
    pub driver: DriverConf,
    /// Its addresses with the lengths of their subnets, the link-local one (derived from `mac` unless given) included.
    pub addrs: Vec<IpNet>,
    /// Octets of the largest IP packet.
    pub mtu: u16,
    /// Device queues, at least 1.
    pub queues: usize,
    /// Whether super-frames may cross the device.
    pub offload: bool,
    /// Its link-layer address.
    pub mac: Mac,
    /// What it advertises to hosts, if anything.
    pub advertise: Option<Advertise>,
}

impl InterfaceConf {
    /// The link-local IPv6 address.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.addrs.iter().find_map(|net| match net.addr() {
            IpAddr::V6(a) if a.is_unicast_link_local() => Some(a),
            _ => None,
        })
    }
}

/// What an interface sits on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverConf {
    /// A TAP device; `device` is the kernel's name of its other end.
    Tap {
        /// The kernel's network interface.
        device: String,
    },
    /// Tagged frames of another interface.
    Vlan {
        /// That interface.
        parent: IfIndex,
        /// VLAN identifier, 1 to 4094.
        tag: u16,
    },
    /// A cable inside the process: the two interfaces that name it are its ends.
    Link {
        /// The cable's name.
        device: String,
    },
    /// A tunnel: what is routed here goes into SAs.
    Ipsec(Ends),
}

/// The ends of a tunnel, and which SAs between them are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Ours.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// The `-u` of its SAs.
    pub unique: u32,
}

/// Router advertisements (RFC 4861, 6.2.1) for every /64 of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertise {
    /// Between two unsolicited ones, at most (`MaxRtrAdvInterval`).
    pub interval: Duration,
    /// How long this is a default router after one (`AdvDefaultLifetime`).
    pub lifetime: Duration,
    /// The M flag: addresses come from DHCPv6.
    pub managed: bool,
    /// The O flag: other things come from DHCPv6.
    pub other: bool,
    /// `AdvValidLifetime` of each prefix.
    pub valid: Duration,
    /// `AdvPreferredLifetime` of each prefix.
    pub preferred: Duration,
}

impl Default for Advertise {
    fn default() -> Self {
        Advertise {
            interval: Duration::from_mins(10),
            lifetime: Duration::from_mins(30),
            managed: false,
            other: false,
            valid: Duration::from_hours(30 * 24),
            preferred: Duration::from_hours(7 * 24),
        }
    }
}

/// A route of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConf {
    /// Destinations.
    pub to: IpNet,
    /// One next hop, or several of equal cost.
    pub paths: Vec<NextHop>,
}
