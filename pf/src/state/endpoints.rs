//! The addresses of SCTP hosts that have several (multihoming; FreeBSD: `struct pf_sctp_endpoint`).
//!
//! An INIT, an INIT ACK or an ASCONF names further addresses of its sender. A state knows two addresses; a path between two
//! others is a state of its own, made when the addresses are named. Which addresses an end has is kept here, under a tag
//! that it has drawn and its port, as long as there is a state whose packets have named some.

use std::{collections::HashMap, net::IpAddr};

use arrayvec::ArrayVec;
use kern::lock::Leaf;

use crate::addr::Family;

/// Addresses of an end that are followed.
pub(crate) const ADDRESSES: usize = 8;

/// Addresses of one end.
pub(crate) type Addresses = ArrayVec<IpAddr, ADDRESSES>;

/// The tag that an end had drawn when it first named addresses, and its port. It may draw another until its association is
/// up, and stays the same end.
pub(crate) type EndpointId = (u32, u16);

/// Every path between the addresses of two ends, the one between their first first.
pub(crate) fn paths<'a>(
    from: &'a Addresses,
    to: &'a Addresses,
) -> impl Iterator<Item = (IpAddr, IpAddr)> + 'a {
    from.iter().flat_map(move |from| to.iter().map(move |to| (*from, *to)))
}

#[derive(Debug)]
struct Endpoint {
    /// States that keep it.
    holders: u32,
    addresses: Addresses,
    /// At whose share it counts.
    source: Source,
}

/// Ends that are kept at most.
const ENDS: usize = 4096;
/// Those among them of associations that one source has opened: whoever opens as many as he can leaves room for others.
const SHARE: u32 = 512;

/// Who opens associations: an IPv4 address, or the network of an IPv6 address, which has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source(Family, u128);

impl Source {
    pub(super) fn of(family: Family, address: u128) -> Source {
        match family {
            Family::Inet => Source(family, address),
            Family::Inet6 => Source(family, address >> 64),
        }
    }
}

#[derive(Debug)]
struct All {
    ends: HashMap<EndpointId, Endpoint>,
    /// How many ends a source has, if it has any.
    sources: HashMap<Source, u32>,
}

/// All ends that have named addresses.
#[derive(Debug)]
pub(crate) struct Endpoints(Leaf<All>);

impl Endpoints {
    pub(super) fn new() -> Endpoints {
        // Workers add to it: that must never allocate, and a map that is half full makes room where entries have left.
        Endpoints(Leaf::new(All {
            ends: HashMap::with_capacity(2 * ENDS),
            sources: HashMap::with_capacity(2 * ENDS),
        }))
    }

    /// A state keeps an end from now on, if there is room for it; `source` has opened its association.
    pub(super) fn enter(&self, id: EndpointId, source: Source) -> bool {
        self.0.with(|All { ends, sources }| {
            if let Some(endpoint) = ends.get_mut(&id) {
                endpoint.holders += 1;
                return true;
            }
            let fits = ends.len() < ENDS && sources.get(&source).is_none_or(|count| *count < SHARE);
            if fits {
                *sources.entry(source).or_default() += 1;
                ends.insert(id, Endpoint { holders: 1, addresses: Addresses::new(), source });
            }
            fits
        })
    }

    /// A state keeps it no longer.
    pub(super) fn leave(&self, id: EndpointId) {
        self.0.with(|All { ends, sources }| {
            let Some(endpoint) = ends.get_mut(&id) else { return };
            endpoint.holders = endpoint.holders.saturating_sub(1);
            if endpoint.holders != 0 {
                return;
            }
            let source = endpoint.source;
            ends.remove(&id);
            if let Some(count) = sources.get_mut(&source) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    sources.remove(&source);
                }
            }
        });
    }

    /// The end has this address; what is beyond [`ADDRESSES`] is not followed. Only of ends that somebody keeps.
    pub(crate) fn add(&self, id: EndpointId, address: IpAddr) {
        self.0.with(|all| {
            if let Some(endpoint) = all.ends.get_mut(&id)
                && !endpoint.addresses.contains(&address)
            {
                let _ = endpoint.addresses.try_push(address);
            }
        });
    }

    /// It has it no longer.
    pub(crate) fn remove(&self, id: EndpointId, address: IpAddr) {
        self.0.with(|all| {
            if let Some(endpoint) = all.ends.get_mut(&id) {
                endpoint.addresses.retain(|a| *a != address);
            }
        });
    }

    /// The addresses of an end, `own` first.
    pub(crate) fn of(&self, id: EndpointId, own: IpAddr) -> Addresses {
        let known = self.0.with(|all| all.ends.get(&id).map(|e| e.addresses.clone()).unwrap_or_default());
        let mut addresses = Addresses::new();
        addresses.push(own);
        for address in known.into_iter().filter(|a| *a != own) {
            let _ = addresses.try_push(address);
        }
        addresses
    }

    /// How many ends are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.with(|all| all.ends.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_kept_as_long_as_a_state_keeps_it() {
        let all = Endpoints::new();
        let (id, own) = ((7, 80), IpAddr::from([192, 0, 2, 1]));
        let further: Vec<IpAddr> = (2..20).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        all.add(id, own);
        assert_eq!(all.len(), 0, "of an end that nobody keeps nothing is known");
        let source = |n| Source::of(Family::Inet, n);
        assert!(all.enter(id, source(1)) && all.enter(id, source(2)));
        for address in &further {
            all.add(id, *address);
        }
        all.add(id, further[0]);
        all.remove(id, further[1]);
        let known = all.of(id, own);
        assert_eq!((known[0], known[1], known[2], known.len()), (own, further[0], further[2], ADDRESSES));
        all.leave(id);
        assert_eq!(all.len(), 1);
        all.leave(id);
        all.leave(id);
        assert_eq!((all.len(), &all.of(id, own)[..]), (0, &[own][..]));
        // Of the first source as many as it may have, and of others until it is full.
        let of = |n: u32| source(u128::from(n / SHARE));
        assert!((0..SHARE).all(|tag| all.enter((tag, 80), of(tag))));
        assert!(!all.enter((0, 81), of(0)) && all.enter((0, 80), of(0)) && all.enter((0, 81), of(SHARE)));
        all.leave((0, 81));
        assert!((SHARE..ENDS as u32).all(|tag| all.enter((tag, 80), of(tag))) && all.len() == ENDS);
        assert!(!all.enter((0, 81), source(1000)));
        for tag in 0..ENDS as u32 {
            all.leave((tag, 80));
        }
        all.leave((0, 80));
        assert_eq!(all.0.with(|all| (all.ends.len(), all.sources.len())), (0, 0));
        // A host has a whole network of IPv6.
        let net = |low: u128| Source::of(Family::Inet6, 0x2001_0db8 << 96 | low);
        assert_eq!((net(1), net(1) == net(1 << 64)), (net(u64::MAX.into()), false));
    }
}
