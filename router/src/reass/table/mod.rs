//! Fragments that wait for the rest, behind the lock. All memory is there from the start.
//!
//! A datagram is a list of fragments in order, without gaps in the books: fragments that overlap ruin their datagram
//! (IPv6: RFC 5722; IPv4 to the host does the same, as Linux since 2018, since no sender does it in earnest and every way of
//! mending it lets filters and hosts see different datagrams). A ruined datagram stays as a name, so that what comes after is
//! recognised. pf's table keeps what it has of an IPv4 datagram and trims what comes ([`Overlap::Trim`]), as pf does.
//!
//! One list a family, oldest first, since a family's datagrams all wait equally long: the heads are the next to run out, and
//! the first to go when there is no room. One source may have a quarter of all datagrams and half of all fragments.

mod fit;

use super::piece::{Key, Piece};
use arrayvec::ArrayVec;
use fit::Fit;
use kern::{Chain, Class, Mbuf, Owner, Why, time::Instant};
use std::{collections::HashMap, net::IpAddr};

/// How long a datagram's fragments wait for the rest: BSD's `IPFRAGTTL` for IPv4, RFC 8200, 4.5 for IPv6.
const WAIT: [u64; 2] = [30_000_000_000, 60_000_000_000];

/// What an IPv4 fragment that overlaps another does; of IPv6 it always ruins its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlap {
    /// It ruins its datagram.
    Ruin,
    /// It loses what is there already.
    Trim,
}

const NIL: u32 = u32::MAX;

/// Fragments taken out of the table, which go on or end when its lock is released.
pub(super) struct Victims {
    /// All fragments of a datagram: payloads only but for the first, which has its headers.
    pub whole: Chain,
    /// Those that had to go.
    pub packets: ArrayVec<Mbuf, { Chain::PIECES }>,
    /// Why they had to go: all for the same reason.
    pub why: Why,
}

impl Victims {
    pub(super) fn new(why: Why) -> Victims {
        Victims { whole: Chain::new(), packets: ArrayVec::new(), why }
    }
}

struct Node {
    m: Option<Mbuf>,
    offset: u32,
    len: u32,
    headers: u16,
    next: u32,
}

struct Datagram {
    key: Key,
    since: Instant,
    until: Instant,
    live: bool,
    /// Ruined: whatever comes for it is refused.
    dead: bool,
    first: u32,
    pieces: u16,
    octets: u32,
    /// Octets of the largest fragment, headers and all.
    largest: u16,
    /// Octets of the whole payload, once the last fragment is there.
    total: Option<u32>,
    /// Which ECN code points the fragments had, a bit each.
    ecn: u8,
    /// IPv6: where the octet stands that announces the fragment header of the first fragment.
    announced_at: u16,
    family: usize,
    prev: u32,
    next: u32,
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

#[derive(Clone, Copy, Default)]
struct Share {
    datagrams: u32,
    pieces: u32,
}

/// What became of a fragment.
pub(super) enum Outcome {
    /// It waits.
    Waits,
    /// It was the last one missing: all of them are in [`Victims::whole`].
    Whole(Complete),
    /// It is not taken.
    Refused(Mbuf, Why),
}

/// What the table knew about a whole datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Complete {
    /// Headers of the first fragment.
    pub headers: u16,
    pub announced_at: u16,
    /// Which ECN code points there were, a bit each.
    pub ecn: u8,
    /// Octets of the largest fragment, headers and all.
    pub largest: u16,
}

/// All datagrams that wait.
pub(super) struct Table {
    index: HashMap<Key, u32>,
    sources: HashMap<IpAddr, Share>,
    datagrams: Vec<Datagram>,
    free_datagrams: Vec<u32>,
    lists: [List; 2],
    nodes: Vec<Node>,
    free_node: u32,
    used_nodes: usize,
    jumbos: usize,
    limit: usize,
    /// Fragments at most, if that is less than there are nodes.
    most: usize,
    wait: [u64; 2],
    overlap: Overlap,
}

impl Table {
    /// A table of so many fragments and datagrams.
    pub(super) fn new(pieces: usize, datagrams: usize, overlap: Overlap) -> Table {
        let last = pieces.max(2) as u32 - 1;
        let next = |i| if i < last { i + 1 } else { NIL };
        let nodes = (0..=last).map(|i| Node { m: None, offset: 0, len: 0, headers: 0, next: next(i) });
        let datagrams = datagrams.max(1);
        Table {
            index: HashMap::with_capacity(2 * datagrams),
            sources: HashMap::with_capacity(2 * datagrams),
            datagrams: Vec::with_capacity(datagrams),
            free_datagrams: Vec::with_capacity(datagrams),
            lists: [List { head: NIL, tail: NIL }; 2],
            nodes: nodes.collect(),
            free_node: 0,
            used_nodes: 0,
            jumbos: 0,
            limit: datagrams,
            most: usize::MAX,
            wait: WAIT,
            overlap,
        }
    }

    /// At most so many fragments from now on, and datagrams that come wait so many nanoseconds.
    pub(super) fn limit(&mut self, pieces: usize, wait: u64) {
        (self.most, self.wait) = (pieces, [wait; 2]);
    }

    /// Takes out the oldest datagram if more fragments wait than may; says whether there was one.
    pub(super) fn shrink(&mut self, victims: &mut Victims) -> bool {
        self.used_nodes > self.most && self.drain(victims)
    }

    /// Takes in a fragment. Those that go for it, or with it, are in `victims`, empty before. Of jumbo buffers no more
    /// than `jumbos` wait.
    pub(super) fn insert(
        &mut self,
        m: Mbuf,
        piece: &Piece,
        now: Instant,
        jumbos: usize,
        victims: &mut Victims,
    ) -> Outcome {
        let (at, is_new) = match self.index.get(&piece.key) {
            Some(&at) => (at, false),
            None => match self.open(piece, now, victims) {
                Some(at) => (at, true),
                None => return Outcome::Refused(m, Why::FragLimit),
            },
        };
        match self.judge(at, piece) {
            Ok(fit) => match self.put(at, &fit, m, jumbos, victims) {
                Ok(()) => self.look(at, victims),
                Err(m) => {
                    if is_new {
                        self.remove(at, victims);
                    }
                    Outcome::Refused(m, Why::FragLimit)
                }
            },
            Err(Why::FragDuplicate) => Outcome::Refused(m, Why::FragDuplicate),
            Err(why) => {
                victims.why = why;
                self.ruin(at, victims);
                Outcome::Refused(m, why)
            }
        }
    }

    /// Opens a datagram; the oldest of all goes if there is no place.
    fn open(&mut self, piece: &Piece, now: Instant, victims: &mut Victims) -> Option<u32> {
        let share = self.sources.get(&piece.key.src).copied().unwrap_or_default();
        if share.datagrams as usize >= (self.limit / 4).max(1) {
            return None;
        }
        if self.free_datagrams.is_empty() && self.datagrams.len() == self.limit {
            let oldest = self.oldest(NIL)?;
            self.remove(oldest, victims);
        }
        let family = usize::from(piece.key.src.is_ipv6());
        let datagram = Datagram {
            key: piece.key,
            since: now,
            until: now.after(self.wait[family]),
            live: true,
            dead: false,
            first: NIL,
            pieces: 0,
            octets: 0,
            largest: 0,
            total: None,
            ecn: 0,
            announced_at: 0,
            family,
            prev: NIL,
            next: NIL,
        };
        let at = if let Some(at) = self.free_datagrams.pop() {
            self.datagrams[at as usize] = datagram;
            at
        } else {
            self.datagrams.push(datagram);
            self.datagrams.len() as u32 - 1
        };
        self.index.insert(piece.key, at);
        self.sources.entry(piece.key.src).or_default().datagrams += 1;
        self.link(at);
        Some(at)
    }

    /// Puts a fragment into its datagram; gives it back if there is no room for it.
    fn put(
        &mut self,
        at: u32,
        fit: &Fit,
        mut m: Mbuf,
        jumbos: usize,
        victims: &mut Victims,
    ) -> Result<(), Mbuf> {
        let (behind, piece) = (fit.behind, &fit.piece);
        let share = self.sources.get(&piece.key.src).copied().unwrap_or_default();
        let jumbo = m.class() == Class::Jumbo;
        let many = usize::from(self.datagrams[at as usize].pieces) >= Chain::PIECES;
        if many || share.pieces as usize >= self.nodes.len() / 2 || (jumbo && self.jumbos >= jumbos) {
            return Err(m);
        }
        if (self.free_node == NIL || self.used_nodes >= self.most)
            && let Some(oldest) = self.oldest(at).filter(|_| victims.packets.is_empty())
        {
            self.remove(oldest, victims);
        }
        let node = self.free_node;
        let Some(free) = self.nodes.get_mut(node as usize).filter(|_| self.used_nodes < self.most) else {
            return Err(m);
        };
        self.free_node = free.next;
        let largest = m.len() as u16;
        // `fit` takes no more off than there is.
        let _ = m.trim_back(fit.back);
        m.set_owner(Owner::Reass);
        *free = Node { m: Some(m), offset: piece.offset, len: piece.len, headers: piece.headers, next: NIL };
        let d = &mut self.datagrams[at as usize];
        let next = match self.nodes.get_mut(behind as usize) {
            Some(before) => std::mem::replace(&mut before.next, node),
            None => std::mem::replace(&mut d.first, node),
        };
        self.nodes[node as usize].next = next;
        d.pieces += 1;
        d.octets += piece.len;
        d.largest = d.largest.max(largest);
        d.ecn |= 1 << piece.ecn;
        if !piece.more {
            d.total = Some(piece.end());
        }
        if piece.offset == 0 {
            d.announced_at = piece.announced_at;
        }
        self.used_nodes += 1;
        self.jumbos += usize::from(jumbo);
        self.sources.entry(piece.key.src).or_default().pieces += 1;
        Ok(())
    }

    /// Takes a datagram out if it is whole.
    fn look(&mut self, at: u32, victims: &mut Victims) -> Outcome {
        let d = &self.datagrams[at as usize];
        // Without overlaps the octets add up only when there is no gap.
        if d.total != Some(d.octets) {
            return Outcome::Waits;
        }
        let headers = self.nodes.get(d.first as usize).map_or(0, |n| n.headers);
        let complete = Complete { headers, announced_at: d.announced_at, ecn: d.ecn, largest: d.largest };
        let mut first = true;
        while let Some((mut m, headers)) = self.pop(at) {
            if !std::mem::take(&mut first) {
                // The header was read when the fragment came, so it is there.
                let _ = m.trim_front(headers.into());
            }
            // `put` keeps a datagram to what a chain holds.
            if let Err(m) = victims.whole.push(m) {
                victims.packets.push(m);
            }
        }
        self.forget(at);
        Outcome::Whole(complete)
    }

    /// Takes the first fragment of a datagram out.
    fn pop(&mut self, at: u32) -> Option<(Mbuf, u16)> {
        let d = &mut self.datagrams[at as usize];
        let index = d.first;
        let node = self.nodes.get_mut(index as usize)?;
        let m = node.m.take()?;
        d.first = std::mem::replace(&mut node.next, self.free_node);
        d.pieces -= 1;
        self.free_node = index;
        self.used_nodes -= 1;
        self.jumbos -= usize::from(m.class() == Class::Jumbo);
        if let Some(share) = self.sources.get_mut(&d.key.src) {
            share.pieces -= 1;
        }
        m.set_owner(Owner::Worker);
        Some((m, node.headers))
    }

    /// Empties a datagram and keeps its name, so that later fragments are refused.
    fn ruin(&mut self, at: u32, victims: &mut Victims) {
        while let Some((m, _)) = self.pop(at) {
            victims.packets.push(m);
        }
        self.datagrams[at as usize].dead = true;
    }

    /// Takes a datagram and its fragments out.
    fn remove(&mut self, at: u32, victims: &mut Victims) {
        while let Some((m, _)) = self.pop(at) {
            victims.packets.push(m);
        }
        self.forget(at);
    }

    /// Takes an empty datagram out.
    fn forget(&mut self, at: u32) {
        self.unlink(at);
        let d = &mut self.datagrams[at as usize];
        d.live = false;
        let key = d.key;
        self.index.remove(&key);
        if let Some(share) = self.sources.get_mut(&key.src) {
            share.datagrams -= 1;
            if share.datagrams == 0 {
                self.sources.remove(&key.src);
            }
        }
        self.free_datagrams.push(at);
    }

    /// The datagram that has waited longest, but for one.
    fn oldest(&self, but: u32) -> Option<u32> {
        let head = |list: &List| {
            let skip = if list.head == but { self.datagrams.get(but as usize)?.next } else { list.head };
            self.datagrams.get(skip as usize).map(|d| (d.since, skip))
        };
        self.lists.iter().filter_map(head).min().map(|(_, at)| at)
    }

    /// Takes out one datagram whose time is over; its first fragment, if it was there, comes first. `None` when there is none:
    /// the next one's time then.
    pub(super) fn expire(&mut self, now: Instant, victims: &mut Victims) -> Result<bool, Instant> {
        let heads = self.lists.map(|l| self.datagrams.get(l.head as usize).map(|d| (d.until, l.head)));
        let next = heads.into_iter().flatten().min();
        match next {
            Some((until, at)) if until <= now => {
                let first = self.datagrams[at as usize].first;
                let has_front = self.nodes.get(first as usize).is_some_and(|n| n.offset == 0);
                self.remove(at, victims);
                Ok(has_front)
            }
            Some((until, _)) => Err(until),
            None => Err(Instant::NEVER),
        }
    }

    /// Takes out any datagram; says whether there was one.
    pub(super) fn drain(&mut self, victims: &mut Victims) -> bool {
        let oldest = self.oldest(NIL);
        if let Some(at) = oldest {
            self.remove(at, victims);
        }
        oldest.is_some()
    }

    /// Fragments and datagrams that wait.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.used_nodes, self.index.len())
    }

    fn link(&mut self, at: u32) {
        let family = self.datagrams[at as usize].family;
        let tail = std::mem::replace(&mut self.lists[family].tail, at);
        self.datagrams[at as usize].prev = tail;
        match self.datagrams.get_mut(tail as usize) {
            Some(before) => before.next = at,
            None => self.lists[family].head = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Datagram { prev, next, family, .. } = self.datagrams[at as usize];
        match self.datagrams.get_mut(prev as usize) {
            Some(before) => before.next = next,
            None => self.lists[family].head = next,
        }
        match self.datagrams.get_mut(next as usize) {
            Some(after) => after.prev = prev,
            None => self.lists[family].tail = prev,
        }
    }
}
