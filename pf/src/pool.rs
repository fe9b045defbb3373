//! Address pools: what `nat-to`, `rdr-to`, `route-to` and the arrow of translation rules choose from.
//!
//! A pool is a list of addresses, networks, tables or dynamic interfaces and a method to choose one of them for a new
//! state. This is the model as it stands in a rule; the engine compiles it.

use crate::rule::Host;

/// How an address is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The network's bits are the pool's, the host's bits stay.
    Bitmask,
    /// Any.
    Random,
    /// By a keyed hash of the source; without a key one is drawn when the rule is loaded.
    SourceHash(Option<[u32; 4]>),
    /// One after the other.
    RoundRobin,
}

/// One item of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolHost {
    /// Interface of a next hop, in the pools of routes only.
    pub interface: Option<String>,
    /// The address; [`Host::Any`] is none, for a next hop that is an interface alone.
    pub host: Host,
}

/// Which ports a translation may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PoolPorts {
    /// nat: 50001 to 65535. rdr: as it was.
    #[default]
    Default,
    /// From one to another, both included.
    Range(u16, u16),
    /// `static-port`: as it was.
    Static,
    /// `map-e-portset` (RFC 7597).
    PortSet(PortSet),
}

/// A set of ports by the bits in their middle (RFC 7597, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSet {
    /// Bits before the identifier.
    pub offset: u8,
    /// Bits of the identifier.
    pub length: u8,
    /// The identifier.
    pub id: u16,
}

/// The first and the last port that `nat` chooses from unless the rule says otherwise.
pub const NAT_PORTS: (u16, u16) = (50001, 65535);

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Pool {
    /// What it chooses from; never empty.
    pub hosts: Vec<PoolHost>,
    /// How; none where there is nothing to choose.
    pub method: Option<Method>,
    /// `sticky-address`: a source keeps the address it got as long as it has states.
    pub sticky: bool,
    /// Ports.
    pub ports: PoolPorts,
    /// `endpoint-independent`: one mapping of a UDP source for all its destinations (RFC 4787).
    pub endpoint_independent: bool,
}

impl Pool {
    /// The method, where `sticky-address` is kept by a hash of the source instead of by states.
    pub(crate) fn method_by_source(&self) -> Option<Method> {
        match self.method {
            Some(Method::Random | Method::RoundRobin) if self.sticky => Some(Method::SourceHash(None)),
            method => method,
        }
    }
}
