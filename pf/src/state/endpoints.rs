//! The addresses of SCTP hosts that have several (multihoming; FreeBSD: `struct pf_sctp_endpoint`).
//!
//! An INIT, an INIT ACK or an ASCONF names further addresses of its sender. A state knows two addresses; a path between two
//! others is a state of its own, made when the addresses are named. Which addresses an end has is kept here, under a tag
//! that it has drawn and its port, as long as there is a state whose packets have named some.

use std::{collections::HashMap, net::IpAddr};

use arrayvec::ArrayVec;
use kern::lock::Leaf;

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

#[derive(Debug, Default)]
struct Endpoint {
    /// States that keep it.
    holders: u32,
    addresses: Addresses,
}

/// Ends that are kept at most.
const ENDS: usize = 4096;

/// All ends that have named addresses.
#[derive(Debug)]
pub(crate) struct Endpoints(Leaf<HashMap<EndpointId, Endpoint>>);

impl Endpoints {
    pub(super) fn new() -> Endpoints {
        // Workers add to it: that must never allocate, and a map that is half full makes room where entries have left.
        Endpoints(Leaf::new(HashMap::with_capacity(2 * ENDS)))
    }

    /// A state keeps an end from now on, if there is room for it.
    pub(super) fn enter(&self, id: EndpointId) -> bool {
        self.0.with(|all| {
            let fits = all.len() < ENDS || all.contains_key(&id);
            if fits {
                all.entry(id).or_default().holders += 1;
            }
            fits
        })
    }

    /// A state keeps it no longer.
    pub(super) fn leave(&self, id: EndpointId) {
        self.0.with(|all| {
            if let Some(endpoint) = all.get_mut(&id) {
                endpoint.holders = endpoint.holders.saturating_sub(1);
                if endpoint.holders == 0 {
                    all.remove(&id);
                }
            }
        });
    }

    /// The end has this address; what is beyond [`ADDRESSES`] is not followed. Only of ends that somebody keeps.
    pub(crate) fn add(&self, id: EndpointId, address: IpAddr) {
        self.0.with(|all| {
            if let Some(endpoint) = all.get_mut(&id)
                && !endpoint.addresses.contains(&address)
            {
                let _ = endpoint.addresses.try_push(address);
            }
        });
    }

    /// It has it no longer.
    pub(crate) fn remove(&self, id: EndpointId, address: IpAddr) {
        self.0.with(|all| {
            if let Some(endpoint) = all.get_mut(&id) {
                endpoint.addresses.retain(|a| *a != address);
            }
        });
    }

    /// The addresses of an end, `own` first.
    pub(crate) fn of(&self, id: EndpointId, own: IpAddr) -> Addresses {
        let known = self.0.with(|all| all.get(&id).map(|e| e.addresses.clone()).unwrap_or_default());
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
        self.0.with(|all| all.len())
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
        assert!(all.enter(id) && all.enter(id));
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
        assert!((0..ENDS as u32).all(|tag| all.enter((tag, 80))) && !all.enter((0, 81)));
    }
}
