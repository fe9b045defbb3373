//! Whether routes lead somewhere, as rules of pf ask (`no-route`, `urpf-failed`; BSD: `pf_routable`, `fib4_check_urpf`).
//!
//! A route that rejects its packets is a route, but leads out of no interface; one's own address is reached by the
//! interface that has it. What came out of a tunnel came by no route, so on `enc0` none fails.

use super::ENC0;
use crate::route::{Fib, IfIndex, NextHop};
use std::net::{IpAddr, Ipv6Addr};

impl pf::Routes for Fib {
    fn lead(&self, to: IpAddr, out_of: Option<pf::IfIndex>) -> bool {
        if matches!(to, IpAddr::V6(to) if is_of_a_link(to)) {
            return true;
        }
        let id = self.lookup(to);
        match out_of {
            None => *self.hop(id) != NextHop::Unreachable,
            Some(ENC0) => true,
            Some(interface) => self.hops.any_path(id, |hop| hop.iface() == Some(IfIndex(interface.0))),
        }
    }
}

/// Whether an address means something on one link, or within one host, alone: no table has it, and it is on any link.
fn is_of_a_link(address: Ipv6Addr) -> bool {
    let scope = address.segments()[0] & 0x000f;
    address.is_unicast_link_local() || (address.is_multicast() && scope <= 2)
}
