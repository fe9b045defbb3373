//! Next hops: what a route leads to, once, in a table; FIB entries are indices into it.
//!
//! Equal-cost multipath (RFC 2992) is a next hop of its own, a [`Group`]: 64 slots dealt out by rendezvous hashing, so
//! that every flow keeps its path, and a path that goes away moves only its own flows. Not done: weights, and paths
//! of different cost.

use std::{fmt, net::IpAddr};

/// An interface, by its place in the configuration file; the first is 1, and 0 is none.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct IfIndex(pub u16);

impl IfIndex {
    /// No interface.
    pub const NONE: IfIndex = IfIndex(0);

    /// Its place in an array of interfaces, if it is one.
    pub fn slot(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A next hop's place in the table. What one number means never changes while the router runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHopId(pub u32);

impl NextHopId {
    /// No route. Its entry in the table is [`NextHop::Unreachable`].
    pub const NONE: NextHopId = NextHopId(0);
    /// Ids are below this: FIB entries need the bits above for themselves.
    pub const LIMIT: u32 = 1 << 24;
}

/// Where a packet goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHop {
    /// No route matched: ICMP unreachable.
    Unreachable,
    /// The destination is on this link.
    Connected {
        /// The link.
        iface: IfIndex,
    },
    /// Through a router on this link.
    Gateway {
        /// The link.
        iface: IfIndex,
        /// The router's address. It may be of the other family (RFC 8950).
        addr: IpAddr,
    },
    /// One of our own addresses.
    Local {
        /// The interface that has it.
        iface: IfIndex,
    },
    /// A subnet's broadcast address, or its all-zeros address. Local hosts may send to it; it is never forwarded to
    /// (RFC 2644).
    Broadcast {
        /// The subnet's link.
        iface: IfIndex,
    },
    /// Refused by configuration: ICMP administratively prohibited.
    Reject,
    /// Dropped silently by configuration.
    Blackhole,
    /// One of several, by the flow's hash.
    Ecmp(GroupId),
}

impl NextHop {
    /// The interface it leads out of, or the one that has the address.
    pub fn iface(&self) -> Option<IfIndex> {
        match *self {
            NextHop::Connected { iface }
            | NextHop::Gateway { iface, .. }
            | NextHop::Local { iface }
            | NextHop::Broadcast { iface } => Some(iface),
            NextHop::Unreachable | NextHop::Reject | NextHop::Blackhole | NextHop::Ecmp(_) => None,
        }
    }
}

/// A multipath group's place in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// Paths of equal cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    members: Vec<NextHopId>,
    slots: [NextHopId; Group::SLOTS],
}

impl Group {
    const SLOTS: usize = 64;

    /// Deals the slots out to the members, each slot to the member it likes best.
    pub fn new(members: &[(NextHopId, NextHop)]) -> Group {
        let best = |slot: usize| {
            let member = members.iter().max_by_key(|(_, hop)| (affinity(slot, hop), *hop));
            member.map_or(NextHopId::NONE, |(id, _)| *id)
        };
        Group { members: members.iter().map(|(id, _)| *id).collect(), slots: std::array::from_fn(best) }
    }

    /// The path of a flow.
    #[inline(always)]
    pub fn select(&self, hash: u32) -> NextHopId {
        // Multiplied, so that the slot depends on all bits of the hash; other tables use the low ones.
        self.slots[(hash.wrapping_mul(0x9e37_79b1) >> 26) as usize]
    }

    /// The paths, in the order of configuration.
    pub fn members(&self) -> &[NextHopId] {
        &self.members
    }
}

/// How much a slot likes a next hop. Depends on what the hop is and not on its number, so that a restart or another
/// order of configuration deals alike.
fn affinity(slot: usize, hop: &NextHop) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64 ^ slot as u64;
    let mut eat = |byte: u8| h = (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    if let NextHop::Gateway { addr, .. } = hop {
        match addr {
            IpAddr::V4(a) => a.octets().into_iter().for_each(&mut eat),
            IpAddr::V6(a) => a.octets().into_iter().for_each(&mut eat),
        }
    }
    hop.iface().unwrap_or_default().0.to_be_bytes().into_iter().for_each(&mut eat);
    mix(h)
}

/// The finish of `SplitMix64`: every input bit reaches every output bit.
fn mix(mut h: u64) -> u64 {
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

/// All next hops and groups, and the numbers they have.
#[derive(Clone, Debug)]
pub struct Hops {
    hops: Vec<NextHop>,
    groups: Vec<Group>,
}

impl Default for Hops {
    fn default() -> Self {
        Hops { hops: vec![NextHop::Unreachable], groups: Vec::new() }
    }
}

impl Hops {
    /// The next hop with this number; [`NextHop::Unreachable`] for a number never given.
    #[inline(always)]
    pub fn get(&self, id: NextHopId) -> &NextHop {
        self.hops.get(id.0 as usize).unwrap_or(&self.hops[0])
    }

    /// One path, and its number: the next hop itself, or the group's member for this flow.
    #[inline(always)]
    pub fn resolve(&self, id: NextHopId, hash: u32) -> (NextHopId, &NextHop) {
        match self.get(id) {
            NextHop::Ecmp(_) => {
                let member = self.select(id, hash);
                (member, self.get(member))
            }
            hop => (id, hop),
        }
    }

    /// The number of one path: itself, or the group's member for this flow.
    #[inline(always)]
    pub fn select(&self, id: NextHopId, hash: u32) -> NextHopId {
        match self.get(id) {
            NextHop::Ecmp(group) => {
                self.groups.get(group.0 as usize).map_or(NextHopId::NONE, |g| g.select(hash))
            }
            _ => id,
        }
    }

    /// Whether any of the paths of a next hop is such a one.
    pub fn any_path(&self, id: NextHopId, is_such: impl Fn(&NextHop) -> bool) -> bool {
        match self.get(id) {
            NextHop::Ecmp(group) => self
                .groups
                .get(group.0 as usize)
                .is_some_and(|group| group.members().iter().any(|&id| is_such(self.get(id)))),
            hop => is_such(hop),
        }
    }

    /// The paths of a next hop: itself, or the group's members.
    pub fn paths(&self, id: NextHopId) -> Vec<NextHop> {
        match self.get(id) {
            NextHop::Ecmp(group) => {
                self.groups[group.0 as usize].members().iter().map(|&id| *self.get(id)).collect()
            }
            hop => vec![*hop],
        }
    }

    /// How many numbers are in use; all are below this.
    pub fn len(&self) -> usize {
        self.hops.len()
    }

    /// Never: number 0 is always there.
    pub fn is_empty(&self) -> bool {
        self.hops.is_empty()
    }

    /// The number that [`intern`](Self::intern) would find.
    pub(super) fn find(&self, paths: &[NextHop]) -> Option<NextHopId> {
        let at = |hop: &NextHop| self.hops.iter().position(|h| h == hop).map(|i| NextHopId(i as u32));
        match paths {
            [] => Some(NextHopId::NONE),
            [one] => at(one),
            many => {
                let ids: Vec<NextHopId> = many.iter().map(at).collect::<Option<_>>()?;
                let group = self.groups.iter().position(|g| g.members() == ids)?;
                at(&NextHop::Ecmp(GroupId(group as u32)))
            }
        }
    }

    /// Gives a next hop or a set of equal paths a number, the one it had if it had one.
    pub(super) fn intern(&mut self, paths: &[NextHop]) -> NextHopId {
        if let Some(known) = self.find(paths) {
            return known;
        }
        if let [one] = paths {
            return self.push(*one);
        }
        let members: Vec<_> = paths.iter().map(|hop| (self.intern(&[*hop]), *hop)).collect();
        self.groups.push(Group::new(&members));
        self.push(NextHop::Ecmp(GroupId(self.groups.len() as u32 - 1)))
    }

    fn push(&mut self, hop: NextHop) -> NextHopId {
        assert!((self.hops.len() as u32) < NextHopId::LIMIT, "sixteen million next hops");
        self.hops.push(hop);
        NextHopId(self.hops.len() as u32 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(n: u8) -> NextHop {
        NextHop::Gateway { iface: IfIndex(1), addr: IpAddr::from([10, 0, 0, n]) }
    }

    #[test]
    fn the_same_next_hop_keeps_its_number() {
        let mut hops = Hops::default();
        let one = hops.intern(&[gateway(1)]);
        let two = hops.intern(&[gateway(1), gateway(2)]);
        assert_ne!(one, two);
        assert_eq!(hops.intern(&[gateway(1)]), one);
        assert_eq!(hops.intern(&[gateway(1), gateway(2)]), two);
        assert_eq!(hops.intern(&[]), NextHopId::NONE);
        assert_eq!(hops.get(one), &gateway(1));
        assert_eq!(hops.paths(two), [gateway(1), gateway(2)]);
        assert_eq!(hops.get(NextHopId(12345)), &NextHop::Unreachable);
    }

    #[test]
    fn flows_spread_over_equal_paths_and_each_keeps_its_own() {
        let mut hops = Hops::default();
        let id = hops.intern(&[gateway(1), gateway(2), gateway(3), gateway(4)]);
        let mut counts = std::collections::HashMap::new();
        for flow in 0..10_000_u32 {
            let hash = flow.wrapping_mul(0x85eb_ca6b);
            let path = hops.select(id, hash);
            assert_eq!(path, hops.select(id, hash));
            *counts.entry(*hops.get(path)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 4);
        assert!(counts.values().all(|&n| (1000..5000).contains(&n)), "{counts:?}");
    }

    #[test]
    fn a_path_that_goes_away_moves_only_its_own_flows() {
        let mut hops = Hops::default();
        let three = hops.intern(&[gateway(1), gateway(2), gateway(3)]);
        let two = hops.intern(&[gateway(3), gateway(1)]);
        for hash in (0..10_000_u32).map(|f| f.wrapping_mul(0x85eb_ca6b)) {
            let before = hops.get(hops.select(three, hash));
            if *before != gateway(2) {
                assert_eq!(hops.get(hops.select(two, hash)), before);
            }
        }
    }
}
