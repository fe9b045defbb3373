//! Next hops that rules choose: `route-to`, `reply-to`, `dup-to` (BSD: `pf_route`).
//!
//! pf says where a packet goes, the router sends it there. A next hop is an interface and perhaps a gateway; packets and
//! states carry its number. The pool of a rule names interfaces with addresses; the next hop is chosen when a state is made,
//! and for each packet of a rule without state.
//!
//! The other way round, rules ask the router where a packet would go without them: `no-route`, `urpf-failed`. That is asked
//! when a packet comes to such a rule, since routes change while a ruleset stays (BSD: `pf_routable`).
//!
//! `sticky-address` makes a pool choose by a hash of the source, so a source keeps its next hop also when it has no states.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kern::Why;

use crate::{
    IfIndex,
    addr::{Family, Prefix},
    intern::Interned,
    nat::{Addresses, Item},
    packet::Packet,
    random::Random,
    rule::{Direction, Host, Route, RouteKind, Rule},
};

/// The routes of the router that pf is part of.
pub trait Routes {
    /// Whether a route leads to an address, a default route among them. With `out_of`: whether it leads out of that
    /// interface, by any of its paths if there are several of the same cost.
    fn lead(&self, to: IpAddr, out_of: Option<IfIndex>) -> bool;
}

/// What a rule asks of the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteTest {
    source: Option<Unreached>,
    /// None leads to the destination.
    destination: bool,
}

/// How a source is that a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unreached {
    /// `no-route`.
    ByAny,
    /// `urpf-failed`: by none that leads back out of the interface where its packet is.
    ByThis,
}

impl RouteTest {
    /// What a rule asks, if it does.
    pub(crate) fn of(rule: &Rule) -> Option<RouteTest> {
        let source = match rule.from.host {
            Host::NoRoute => Some(Unreached::ByAny),
            Host::UrpfFailed => Some(Unreached::ByThis),
            _ => None,
        };
        let destination = rule.to.host == Host::NoRoute;
        (source.is_some() || destination).then_some(RouteTest { source, destination })
    }

    /// Which address of a packet at an interface is reached all the same, and so does not match: by its field with skip
    /// steps. Where there are no routes to ask, all are.
    #[inline(never)]
    pub(crate) fn mismatch(self, index: IfIndex, p: &Packet, routes: Option<&dyn Routes>) -> Option<usize> {
        const SOURCE: usize = 4;
        const DESTINATION: usize = 6;
        let leads = |address: u128, out_of: Option<IfIndex>| {
            routes.is_none_or(|routes| routes.lead(p.family.address(address), out_of))
        };
        let reached = match self.source {
            None => false,
            Some(Unreached::ByAny) => leads(p.src, None),
            Some(Unreached::ByThis) => leads(p.src, Some(index)),
        };
        if reached {
            return Some(SOURCE);
        }
        (self.destination && leads(p.dst, None)).then_some(DESTINATION)
    }
}

/// Where a packet goes that a rule routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The interface; 0 is one that this router does not have.
    pub iface: IfIndex,
    /// The router there; none is the packet's own destination.
    pub gateway: Option<IpAddr>,
}

/// All next hops that rules have chosen.
pub(crate) type NextHops = Interned<NextHop>;

/// The number of a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HopId(pub(crate) u32);

/// In `PktHdr::nexthop`: pf has chosen it.
const CHOSEN: u32 = 1 << 31;
/// How often, in the bits from here to [`CHOSEN`].
const TIMES: u32 = 28;
/// Times that a packet is routed by rules at most (BSD: `pf_route` counts to 3).
const MOST: u32 = 4;

impl HopId {
    /// What `PktHdr::nexthop` is to be when it was `before`; none if the packet has been routed too often.
    pub const fn to_header(self, before: u32) -> Option<u32> {
        let times = if before & CHOSEN != 0 { (before & !CHOSEN) >> TIMES } else { 0 };
        if times < MOST { Some(CHOSEN | (times + 1) << TIMES | self.0) } else { None }
    }

    /// What `PktHdr::nexthop` says, if pf has written it.
    #[inline(always)]
    pub const fn from_header(nexthop: u32) -> Option<HopId> {
        if nexthop & CHOSEN == 0 { None } else { Some(HopId(nexthop & ((1 << TIMES) - 1))) }
    }
}

/// What a rule says about routes, for one packet or for those of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Routed {
    pub(crate) kind: RouteKind,
    pub(crate) hop: HopId,
}

impl Routed {
    /// Whether this is for a packet that goes the way of the rule (`forward`), or the other way.
    pub(crate) fn is_for(self, forward: bool) -> bool {
        match self.kind {
            RouteKind::RouteTo => forward,
            RouteKind::ReplyTo => !forward,
            RouteKind::DupTo => true,
        }
    }

    /// The interface that a state made here is bound to, if its rule wants it bound: none if that is not known yet.
    pub(crate) fn binds(
        routed: Option<Routed>,
        hops: &NextHops,
        direction: Direction,
        at: IfIndex,
    ) -> Option<IfIndex> {
        match routed {
            Some(Routed { kind: RouteKind::ReplyTo, .. }) => None,
            Some(Routed { kind: RouteKind::RouteTo, hop }) if direction == Direction::Out => {
                hops.get(hop.0).map(|hop| hop.iface)
            }
            _ => Some(at),
        }
    }
}

/// The next hops of a rule.
#[derive(Debug)]
pub(crate) struct RoutePool {
    kind: RouteKind,
    prefer_inet6: bool,
    addresses: Addresses,
    /// Behind which interface those of each item are.
    interfaces: Box<[IfIndex]>,
}

/// What stands in a pool for an interface alone, which is a next hop for packets of both families: no address.
pub(crate) const NO_GATEWAY: [Prefix; 2] =
    [Prefix::host(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), Prefix::host(IpAddr::V6(Ipv6Addr::UNSPECIFIED))];

impl RoutePool {
    /// The pool of a rule; `gateways` are its addresses on this router, and [`NO_GATEWAY`] for interfaces alone.
    pub(crate) fn new(route: &Route, gateways: Vec<(Item, IfIndex)>, random: &mut Random) -> RoutePool {
        let (items, interfaces): (Vec<Item>, Vec<IfIndex>) = gateways.into_iter().unzip();
        let addresses = Addresses::new(&items, route.pool.method_by_source(), false, random);
        let (kind, prefer_inet6) = (route.kind, route.prefer_inet6);
        RoutePool { kind, prefer_inet6, addresses, interfaces: interfaces.into() }
    }

    /// Chooses for a packet.
    #[cold]
    pub(crate) fn choose(&self, p: &Packet, hops: &NextHops, random: &mut Random) -> Result<Routed, Why> {
        let mut pick = |family: Family| {
            let (item, address) = self.addresses.pick_item(family, p.src, p.src, random)?;
            let iface = *self.interfaces.get(item)?;
            Some(NextHop { iface, gateway: (address != 0).then(|| family.address(address)) })
        };
        let preferred = self.prefer_inet6.then(|| pick(Family::Inet6)).flatten();
        let hop = preferred.or_else(|| pick(p.family)).ok_or(Why::PfRoute)?;
        if hop.iface == IfIndex(0) {
            return Err(Why::PfRoute);
        }
        hops.number(hop).map(|n| Routed { kind: self.kind, hop: HopId(n) }).ok_or(Why::PfRoute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_which_next_hop_and_ends_a_loop() {
        let mut header = 77;
        for _ in 0..MOST {
            header = HopId(5).to_header(header).unwrap();
            assert_eq!(HopId::from_header(header), Some(HopId(5)));
        }
        assert_eq!(HopId(5).to_header(header), None);
        assert_eq!(HopId::from_header(77), None, "a next hop of the routing table");
    }
}
