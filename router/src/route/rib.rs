//! The routing information base: every route there is, who said so, and which one counts.
//!
//! The control thread owns it. Changes are collected; [`Rib::commit`] turns them into the next [`Fib`], which shares with the
//! last one every part that did not change. Of several routes to one prefix the one from the nearest [`Source`] counts, as
//! long as one of its paths leads over a link that is up.
//!
//! Not done: routing protocols; recursive next hops (a gateway is on a connected link, which the configuration checks).

use super::{
    fib::Fib,
    fib4::{self, Chunk},
    fib6::{self, Fib6, Slot, Subtrie},
    hop::{Hops, IfIndex, NextHop, NextHopId},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::{Prefix, PrefixMap};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// Who said so, nearest first: of routes to the same prefix the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// An address of ours, or a subnet's broadcast address.
    Local,
    /// A subnet that one of our addresses is in.
    Connected,
    /// A `[[route]]` of the configuration.
    Static,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Local => "local",
            Source::Connected => "connected",
            Source::Static => "static",
        })
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Destinations it is for.
    pub to: IpNet,
    /// Who said so.
    pub source: Source,
    /// Where they go: one next hop, or several of equal cost. None of them is [`NextHop::Ecmp`].
    pub paths: Vec<NextHop>,
}

/// What is known about one prefix.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// In the order of [`Source`], one of each at most.
    routes: Vec<Route>,
    /// What the forwarding table has for it.
    hop: NextHopId,
}

/// One family's routes, and which prefixes changed since the last commit.
struct Table<P: Prefix> {
    map: PrefixMap<P, Entry>,
    changed: Vec<P>,
}

impl<P: Prefix + Copy> Table<P> {
    fn new() -> Self {
        Table { map: PrefixMap::new(), changed: Vec::new() }
    }

    fn insert(&mut self, prefix: P, route: Route) -> bool {
        let routes = &mut self.map.entry(prefix).or_default().routes;
        match routes.binary_search_by_key(&route.source, |r| r.source) {
            Ok(at) if routes[at] == route => return false,
            Ok(at) => routes[at] = route,
            Err(at) => routes.insert(at, route),
        }
        self.changed.push(prefix);
        true
    }

    fn remove(&mut self, prefix: P, source: Source) -> bool {
        let Some(entry) = self.map.get_mut(&prefix) else { return false };
        let before = entry.routes.len();
        entry.routes.retain(|r| r.source != source);
        let removed = entry.routes.len() != before;
        if removed {
            self.changed.push(prefix);
        }
        removed
    }

    /// Settles which route counts at each changed prefix. Gives the prefixes whose next hop is another now.
    fn settle(&mut self, down: &HashSet<IfIndex>, hops: &mut Hops) -> Vec<P> {
        let mut moved = Vec::new();
        for prefix in std::mem::take(&mut self.changed) {
            let Some(entry) = self.map.get_mut(&prefix) else { continue };
            let hop = hops.intern(&usable(&entry.routes, down).map_or(Vec::new(), |(_, paths)| paths));
            if hop != entry.hop {
                entry.hop = hop;
                moved.push(prefix);
            }
            if hop == NextHopId::NONE {
                self.drop_if_empty(prefix);
            }
        }
        moved
    }

    fn drop_if_empty(&mut self, prefix: P) {
        if self.map.get(&prefix).is_some_and(|e| e.routes.is_empty()) {
            self.map.remove(&prefix);
        }
    }

    /// Marks the prefixes that have a path over a link.
    fn touch(&mut self, link: IfIndex) {
        let over = |route: &Route| route.paths.iter().any(|path| path.iface() == Some(link));
        let hit = self.map.iter().filter(|(_, entry)| entry.routes.iter().any(over));
        self.changed.extend(hit.map(|(prefix, _)| prefix));
    }

    /// The next hop that covers a prefix as a whole.
    fn cover(&self, prefix: P) -> NextHopId {
        // Prefixes without a usable route are in the map too, and do not hide what is above them.
        let covers = self.map.cover(&prefix).map(|(_, entry)| entry.hop);
        covers.filter(|hop| *hop != NextHopId::NONE).last().unwrap_or_default()
    }

    /// The usable prefixes below one, longer than it, parents first.
    fn below(&self, prefix: P) -> impl Iterator<Item = (P, NextHopId)> + '_ {
        let all = self.map.children(&prefix).map(|(p, entry)| (p, entry.hop));
        all.filter(move |(p, hop)| p.prefix_len() > prefix.prefix_len() && *hop != NextHopId::NONE)
    }
}

/// The route that counts, with its paths over links that are up. An address of ours is ours even on a link that is down.
fn usable<'a>(routes: &'a [Route], down: &HashSet<IfIndex>) -> Option<(&'a Route, Vec<NextHop>)> {
    let up = |path: &&NextHop| {
        matches!(path, NextHop::Local { .. }) || path.iface().is_none_or(|link| !down.contains(&link))
    };
    routes.iter().find_map(|route| {
        let paths: Vec<NextHop> = route.paths.iter().filter(up).copied().collect();
        (!paths.is_empty()).then_some((route, paths))
    })
}

/// All routes.
pub struct Rib {
    v4: Table<Ipv4Net>,
    v6: Table<Ipv6Net>,
    down: HashSet<IfIndex>,
    uniform4: HashMap<NextHopId, Arc<Chunk>>,
    uniform6: HashMap<NextHopId, Arc<fib6::Page>>,
    fib: Fib,
}

impl Default for Rib {
    fn default() -> Self {
        Rib {
            v4: Table::new(),
            v6: Table::new(),
            down: HashSet::new(),
            uniform4: HashMap::new(),
            uniform6: HashMap::new(),
            fib: Fib::default(),
        }
    }
}

impl Rib {
    /// One without routes, all links up.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a route, in place of one to the same prefix from the same source. Says whether anything changed.
    pub fn insert(&mut self, route: Route) -> bool {
        match route.to {
            IpNet::V4(net) => self.v4.insert(net.trunc(), route),
            IpNet::V6(net) => self.v6.insert(net.trunc(), route),
        }
    }

    /// Takes a route away. Says whether there was one.
    pub fn remove(&mut self, to: IpNet, source: Source) -> bool {
        match to {
            IpNet::V4(net) => self.v4.remove(net.trunc(), source),
            IpNet::V6(net) => self.v6.remove(net.trunc(), source),
        }
    }

    /// Makes these the only routes. Says how many were put or taken away.
    pub fn replace_all(&mut self, routes: impl IntoIterator<Item = Route>) -> usize {
        let routes: Vec<Route> = routes.into_iter().collect();
        let wanted: HashSet<(IpNet, Source)> = routes.iter().map(|r| (r.to.trunc(), r.source)).collect();
        let gone: Vec<_> = self
            .routes()
            .map(|s| (s.route.to.trunc(), s.route.source))
            .filter(|key| !wanted.contains(key))
            .collect();
        let removed = gone.into_iter().filter(|&(to, source)| self.remove(to, source)).count();
        removed + routes.into_iter().filter(|route| self.insert(route.clone())).count()
    }

    /// Says that a link went down or came up. Routes over a link that is down do not count.
    pub fn set_link(&mut self, link: IfIndex, up: bool) {
        let changed = if up { self.down.remove(&link) } else { self.down.insert(link) };
        if changed {
            self.v4.touch(link);
            self.v6.touch(link);
        }
    }

    /// The forwarding table with all changes up to now. Parts that did not change are shared with the last one.
    pub fn commit(&mut self) -> Fib {
        let mut hops = (*self.fib.hops).clone();
        let known = hops.len();
        let moved4 = self.v4.settle(&self.down, &mut hops);
        let moved6 = self.v6.settle(&self.down, &mut hops);
        if hops.len() != known {
            self.fib.hops = Arc::new(hops);
        }
        self.commit4(&moved4);
        self.commit6(&moved6);
        self.fib.clone()
    }

    fn commit4(&mut self, moved: &[Ipv4Net]) {
        for chunk in moved.iter().copied().flat_map(chunks_of).collect::<BTreeSet<_>>() {
            let built = self.chunk(chunk);
            Arc::make_mut(&mut self.fib.v4).replace(chunk, built);
        }
        self.uniform4.retain(|_, chunk| Arc::strong_count(chunk) > 1);
    }

    fn chunk(&mut self, index: usize) -> Arc<Chunk> {
        let net = net4((index as u32) << (32 - u32::from(fib4::CHUNK_BITS)), fib4::CHUNK_BITS);
        let cover = self.v4.cover(net);
        let uniform = self.uniform4.entry(cover).or_insert_with(|| Arc::new(Chunk::uniform(cover)));
        let mut below = self.v4.below(net).peekable();
        if below.peek().is_none() {
            return uniform.clone();
        }
        let mut chunk = Arc::new(Chunk::clone(uniform));
        let laying = Arc::make_mut(&mut chunk);
        for (net, hop) in below {
            laying.lay(net.addr().to_bits(), net.prefix_len(), hop);
        }
        chunk
    }

    fn commit6(&mut self, moved: &[Ipv6Net]) {
        let (wide, narrow): (Vec<&Ipv6Net>, Vec<_>) = moved.iter().partition(|net| net.prefix_len() < 8);
        let mut slots: BTreeSet<usize> =
            narrow.into_iter().flat_map(|net| slots_of(net, fib6::SLOT_BITS)).collect();
        for page in wide.into_iter().flat_map(|net| slots_of(net, 8)).collect::<BTreeSet<_>>() {
            let net = net6((page as u128) << 120, 8);
            if self.v6.below(net).next().is_some() {
                slots.extend(page << 8..(page + 1) << 8);
            } else {
                let cover = self.v6.cover(net);
                let uniform = self.uniform6.entry(cover).or_insert_with(|| Fib6::uniform(cover));
                Arc::make_mut(&mut self.fib.v6).replace_page(page, uniform.clone());
            }
        }
        for slot in slots {
            let built = self.slot(slot);
            Arc::make_mut(&mut self.fib.v6).replace(slot, built);
        }
        self.uniform6.retain(|_, page| Arc::strong_count(page) > 1);
    }

    fn slot(&self, slot: usize) -> Slot {
        let net = net6((slot as u128) << 112, fib6::SLOT_BITS);
        let cover = self.v6.cover(net);
        let prefix = |(net, hop): (Ipv6Net, NextHopId)| fib6::Prefix {
            bits: net.addr().to_bits(),
            len: net.prefix_len(),
            hop,
        };
        let below: Vec<_> = self.v6.below(net).map(prefix).collect();
        if below.is_empty() { Slot::Hop(cover) } else { Slot::Below(Arc::new(Subtrie::new(&below, cover))) }
    }

    /// Every route, and whether it is the one that counts; IPv4 first, in the order of prefixes.
    pub fn routes(&self) -> impl Iterator<Item = Shown<'_>> + '_ {
        let v4 = self.v4.map.iter().map(|(_, entry)| entry);
        let v6 = self.v6.map.iter().map(|(_, entry)| entry);
        v4.chain(v6).flat_map(|entry| {
            let counts = usable(&entry.routes, &self.down).map(|(route, _)| route.source);
            entry.routes.iter().map(move |route| Shown { route, counts: counts == Some(route.source) })
        })
    }
}

/// A route with its standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// The route.
    pub route: &'a Route,
    /// Whether packets follow it.
    pub counts: bool,
}

fn net4(bits: u32, len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), len)
}

fn net6(bits: u128, len: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), len)
}

/// The chunks that a prefix reaches into.
fn chunks_of(net: Ipv4Net) -> std::ops::RangeInclusive<usize> {
    fib4::chunk_of(net.network().to_bits())..=fib4::chunk_of(net.broadcast().to_bits())
}

/// The places of a table indexed by the first `bits` bits that a prefix reaches into.
fn slots_of(net: &Ipv6Net, bits: u8) -> std::ops::RangeInclusive<usize> {
    let at = |addr: Ipv6Addr| (addr.to_bits() >> (128 - u32::from(bits))) as usize;
    at(net.network())..=at(net.broadcast())
}
