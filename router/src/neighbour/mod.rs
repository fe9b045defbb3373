//! Neighbours: link-layer addresses of the hosts and routers on our links, learned by ARP (RFC 826) and neighbour discovery
//! (RFC 4861).
//!
//! ```text
//!  ether_output ─► resolve ─► worker's cache ──hit──► the frame's destination, no lock
//!                                  │ miss (once a second and neighbour)
//!                                  ▼
//!                        table, under Neighbours ──known──► into the cache
//!                                  │ not known
//!                                  ▼
//!               the packet waits (16 a neighbour), a question goes out
//! ```
//!
//! One table for all workers and both families. Entries follow [`nud`]; `expire` drives them; `learn` is what ARP and ND
//! tell. Packets that wait are bounded per neighbour and in all (a sixteenth of the clusters), and a scan of empty addresses
//! pushes out its own questions only. No packet ends under the lock. Not done: static entries, proxies, NetBSD's choice between
//! several answers.

mod cache;
mod nud;
mod question;
mod table;
mod timer;

pub use cache::Cache;
pub use nud::{Claim, State};
pub(crate) use question::own_frame;
pub(crate) use timer::expire;

use crate::{
    entropy,
    iface::Interface,
    route::{NextHop, NextHopId},
    worker::{Cx, Pending, Stage},
};
use cache::Name;
use kern::{
    Class, Ledger, Mbuf, Pool, Why,
    lock::{
        Held, Mutex,
        levels::{self, Before, Softnet},
    },
    time::{Duration, Instant},
};
use nud::{ARP, ND, Nud, Timing};
use question::question;
use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};
use table::{Key, Table, Taken};
use wire::Mac;

/// Neighbours a router knows at most.
pub const LIMIT: usize = 4096;

/// All neighbours of a router.
pub struct Neighbours {
    table: Mutex<levels::Neighbours, Table>,
    /// Moves when a known address changes or a known neighbour goes: workers' caches are void then.
    generation: AtomicU64,
    /// Our own side of neighbour discovery: addresses being checked, advertisements that are due.
    pub(crate) links: Mutex<levels::Neighbours, crate::nd::Links>,
}

/// What [`resolve`] came to.
pub(crate) enum Resolved {
    /// Send it there.
    Mac(Mbuf, Mac),
    /// It waits for an answer, or has ended.
    Waits,
}

/// One neighbour, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourEntry {
    /// Index of the interface.
    pub interface: u16,
    /// Its address.
    pub addr: IpAddr,
    /// Its link-layer address, if known.
    pub mac: Option<Mac>,
    /// How sure we are of it.
    pub state: State,
    /// It called itself a router.
    pub router: bool,
    /// Packets that wait for it.
    pub held: usize,
    /// Time until the state ends by itself.
    pub expires_in: Duration,
}

/// What the table answered a packet.
enum Answer {
    Known(Mac, u64),
    Waits { ask: bool },
}

impl Neighbours {
    /// An empty table for this many neighbours, for which this many packets may wait in all.
    pub fn new(limit: usize, packets: usize) -> Neighbours {
        Neighbours {
            table: Mutex::new(Table::new(limit, packets)),
            generation: AtomicU64::new(1),
            links: Mutex::new(crate::nd::Links::default()),
        }
    }

    fn void_caches(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Enters a neighbour that nobody need ask for: on a link without ARP or ND, such as a bench's.
    pub fn insert_permanent(
        &self,
        held: &mut Held<'_, impl Before<levels::Neighbours>>,
        ifindex: u16,
        addr: IpAddr,
        mac: Mac,
        ledger: &Ledger,
    ) {
        let mut evicted = Taken::new();
        {
            let (mut table, _held) = held.lock(&self.table);
            let key = Key { ifindex, addr };
            if let Some(place) = table.find(&key) {
                table.remove(place, &mut evicted);
                self.void_caches();
            }
            let mut more = Taken::new();
            add(self, &mut table, key, Nud::permanent(mac), &mut more);
            evicted.extend(more.drain(..).take(evicted.remaining_capacity()));
        }
        evicted.drain(..).for_each(|m| m.end(Why::NeighbourTable, ledger));
    }

    /// Every neighbour there is, by interface and address.
    pub fn report(
        &self,
        held: &mut Held<'_, impl Before<levels::Neighbours>>,
        now: Instant,
    ) -> Vec<NeighbourEntry> {
        let (table, guard_held) = held.lock(&self.table);
        let mut all: Vec<NeighbourEntry> = (0..table.places() as u32)
            .filter_map(|place| table.at(place))
            .map(|e| NeighbourEntry {
                interface: e.key.ifindex,
                addr: e.key.addr,
                mac: e.nud.known(),
                state: e.nud.state,
                router: e.nud.router,
                held: e.held.into(),
                expires_in: e.nud.at.since(now),
            })
            .collect();
        drop((table, guard_held));
        all.sort_by_key(|e| (e.interface, e.addr));
        all
    }

    /// Forgets the neighbours of an interface that is gone; what waited for them ends.
    pub fn forget(
        &self,
        held: &mut Held<'_, impl Before<levels::Neighbours>>,
        ledger: &Ledger,
        interface: u16,
    ) {
        self.remove_where(held, ledger, Why::IfDetached, |key| key.ifindex == interface);
    }

    /// Forgets everyone; what waited ends. For the end of the router.
    pub fn purge(&self, held: &mut Held<'_, impl Before<levels::Neighbours>>, ledger: &Ledger) {
        self.remove_where(held, ledger, Why::Shutdown, |_| true);
    }

    fn remove_where(
        &self,
        held: &mut Held<'_, impl Before<levels::Neighbours>>,
        ledger: &Ledger,
        why: Why,
        which: impl Fn(&Key) -> bool,
    ) {
        let mut place = 0;
        loop {
            let mut victims = Taken::new();
            {
                let (mut table, _held) = held.lock(&self.table);
                if place as usize >= table.places() {
                    break;
                }
                if table.at(place).is_some_and(|e| which(&e.key)) {
                    table.remove(place, &mut victims);
                }
                place += 1;
            }
            victims.drain(..).for_each(|m| m.end(why, ledger));
        }
        self.void_caches();
    }
}

/// Jumbo buffers that may wait: an eighth, since there are few.
fn jumbos(pool: &Pool) -> usize {
    pool.count(Class::Jumbo) / 8
}

fn timing(addr: IpAddr) -> Timing {
    if addr.is_ipv4() { ARP } else { ND }
}

/// Finds the link-layer address for a packet whose next stop on this interface is `to`; lets the packet wait where the
/// address is not known yet.
#[inline(always)]
pub(crate) fn resolve(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    interface: &Interface,
    to: IpAddr,
    m: Mbuf,
) -> Resolved {
    let name = Name::new(interface.index.0, to);
    let generation = cx.shared.neighbours.generation.load(Ordering::Acquire);
    match cx.local.neighbours.get(name, generation, cx.now) {
        Some(mac) => Resolved::Mac(m, mac),
        None => resolve_in_table(cx, held, interface, to, m),
    }
}

#[cold]
#[inline(never)]
fn resolve_in_table(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    interface: &Interface,
    to: IpAddr,
    m: Mbuf,
) -> Resolved {
    if let Some(mac) = group(cx, &m, to) {
        return Resolved::Mac(m, mac);
    }
    let mut waiting = Some(m);
    let (mut evicted, mut pushed_out) = (Taken::new(), None);
    let key = Key { ifindex: interface.index.0, addr: to };
    let answer = {
        let shared = cx.shared;
        let (mut table, _held) = held.lock(&shared.neighbours.table);
        let (place, ask) = match table.find(&key) {
            Some(place) => (place, false),
            None => (add(&shared.neighbours, &mut table, key, Nud::asked(cx.now), &mut evicted), true),
        };
        if let Some(mac) = known(&mut table, place, cx.now) {
            Answer::Known(mac, shared.neighbours.generation.load(Ordering::Relaxed))
        } else {
            pushed_out = waiting.take().and_then(|m| table.hold(place, m, jumbos(&shared.pool)));
            Answer::Waits { ask }
        }
    };
    evicted.drain(..).for_each(|m| cx.end(m, Why::NeighbourTable));
    if let Some(m) = pushed_out {
        cx.end(m, Why::NeighbourHeld);
    }
    match (answer, waiting) {
        (Answer::Known(mac, generation), Some(m)) => {
            let name = Name::new(interface.index.0, to);
            cx.local.neighbours.put(name, mac, generation, cx.now);
            Resolved::Mac(m, mac)
        }
        (answer, _) => {
            if matches!(answer, Answer::Waits { ask: true })
                && let Some(question) = question(cx, interface, to, None)
            {
                late(cx, question);
            }
            Resolved::Waits
        }
    }
}

/// Leaves a question for the loop to send: the stage that asks has no batch at hand.
fn late(cx: &mut Cx<'_>, question: Mbuf) {
    if cx.local.late.len() < cx.local.late.capacity() {
        cx.local.late.push((Stage::EtherOutput, question));
    } else {
        cx.end(question, Why::PendingFull);
    }
}

/// Adds an entry; caches are void if a known one had to go for it.
fn add(neighbours: &Neighbours, table: &mut Table, key: Key, nud: Nud, evicted: &mut Taken) -> u32 {
    let (place, lost_known) = table.add(key, nud, evicted);
    if lost_known {
        neighbours.void_caches();
    }
    place
}

/// The address of an entry that is about to be used.
fn known(table: &mut Table, place: u32, now: Instant) -> Option<Mac> {
    let entry = table.at_mut(place)?;
    let mac = entry.nud.known()?;
    entry.nud.used(now);
    table.touch(place);
    Some(mac)
}

/// Groups and broadcasts need no neighbour (RFC 1112, 6.4; RFC 2464, 7).
fn group(cx: &Cx<'_>, m: &Mbuf, to: IpAddr) -> Option<Mac> {
    match to {
        IpAddr::V4(a) if a.is_multicast() => Some(Mac::multicast_v4(a)),
        IpAddr::V6(a) if a.is_multicast() => Some(Mac::multicast_v6(a)),
        IpAddr::V4(a) if a.is_broadcast() => Some(Mac::BROADCAST),
        _ => {
            let hop = cx.net.fib.hop(NextHopId(m.hdr().nexthop));
            matches!(hop, NextHop::Broadcast { .. }).then_some(Mac::BROADCAST)
        }
    }
}

/// What a message says about a neighbour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct News {
    /// Interface it came in on.
    pub interface: u16,
    /// Whose link-layer address is told.
    pub addr: IpAddr,
    /// The address, if told.
    pub mac: Option<Mac>,
    /// In what way.
    pub claim: Claim,
    /// Whether a neighbour nobody asked for becomes an entry.
    pub create: bool,
}

/// Takes in what ARP or ND tells of a neighbour. Packets that waited for it go on to `ether_output`, as many as there is
/// room for; the timer sends the rest.
pub(crate) fn learn(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, news: News, out: &mut Pending) {
    let (mut freed, mut evicted) = (Taken::new(), Taken::new());
    let key = Key { ifindex: news.interface, addr: news.addr };
    {
        let neighbours = &cx.shared.neighbours;
        let (mut table, _held) = held.lock(&neighbours.table);
        match (table.find(&key), news.mac) {
            (Some(place), _) => {
                tell(neighbours, &mut table, place, &news, cx.now);
                if table.at(place).is_some_and(|e| e.nud.known().is_some() && e.held > 0) {
                    table.take(place, out.room(Stage::EtherOutput), &mut freed);
                }
            }
            (None, Some(mac)) if news.create => {
                add(neighbours, &mut table, key, Nud::introduced(mac, cx.now), &mut evicted);
            }
            _ => {}
        }
    }
    evicted.drain(..).for_each(|m| cx.end(m, Why::NeighbourTable));
    freed.drain(..).for_each(|m| out.push(Stage::EtherOutput, m, &cx.stats.ledger));
}

/// Gives the news to an entry.
fn tell(neighbours: &Neighbours, table: &mut Table, place: u32, news: &News, now: Instant) {
    let Some(entry) = table.at_mut(place) else { return };
    let heard = entry.nud.heard(news.mac, news.claim, now, timing(news.addr), entropy::random());
    if heard.changed {
        neighbours.void_caches();
    }
    if heard.resolved {
        table.touch(place);
    }
}
