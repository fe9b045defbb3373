//! The neighbours' timer: who is asked again, who is forgotten, and what happens to the packets that waited in vain.
//!
//! The table is walked in pieces: what is to be done is noted under the lock and done without it.

use super::{
    Neighbours,
    nud::Fired,
    question,
    table::{HOLD, Key, Table, Taken},
    timing,
};
use crate::{
    hooks,
    icmp::{self, Error},
    worker::{Cx, Pending, Stage},
};
use arrayvec::ArrayVec;
use kern::{
    Mbuf, Why,
    lock::{Held, levels::Softnet},
    time::Instant,
};
use wire::Mac;

/// Entries looked at while the lock is held once.
const STEP: u32 = 256;
/// Entries acted on at once.
const ACTIONS: usize = 32;
/// Packets an action moves at most, over all actions of a step.
const MOVED: usize = 64;

/// The timer runs again after this at the latest, and after this much at the earliest.
const LATEST: u64 = 1_000_000_000;
const SOONEST: u64 = 10_000_000;

/// What a step found to do.
#[derive(Default)]
struct Todo {
    ask: ArrayVec<(Key, Option<Mac>), ACTIONS>,
    /// Packets whose neighbour has become known.
    send: ArrayVec<Mbuf, MOVED>,
    /// Packets whose neighbour did not answer, or whose interface is gone.
    dead: ArrayVec<(Mbuf, Why), MOVED>,
}

impl Todo {
    fn has_room(&self) -> bool {
        !self.ask.is_full()
            && self.send.remaining_capacity() >= HOLD
            && self.dead.remaining_capacity() >= HOLD
    }
}

/// Where the walk stands.
struct Walk {
    place: u32,
    next: Instant,
}

/// The timer: moves every entry on whose time has come. Says when to run again.
pub(crate) fn expire(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, out: &mut Pending) -> Instant {
    let mut walk = Walk { place: 0, next: cx.now.after(LATEST) };
    loop {
        if out.room(Stage::EtherOutput) < ACTIONS + MOVED || out.room(Stage::IpOutput) < MOVED {
            return cx.now.after(SOONEST);
        }
        let mut todo = Todo::default();
        let more = {
            let neighbours = &cx.shared.neighbours;
            let (mut table, _held) = held.lock(&neighbours.table);
            step(cx, neighbours, &mut table, &mut walk, &mut todo)
        };
        act(cx, held, todo, out);
        if !more {
            return walk.next.max(cx.now.after(SOONEST));
        }
    }
}

/// Looks at some entries; says whether there are more.
fn step(cx: &Cx<'_>, neighbours: &Neighbours, table: &mut Table, walk: &mut Walk, todo: &mut Todo) -> bool {
    let end = walk.place + STEP;
    while walk.place < end && todo.has_room() {
        if walk.place as usize >= table.places() {
            return false;
        }
        if table.is_due(walk.place, cx.now) {
            look_at(cx, neighbours, table, walk.place, todo);
        }
        if let Some(entry) = table.at(walk.place) {
            walk.next = walk.next.min(entry.nud.at);
        }
        walk.place += 1;
    }
    true
}

fn look_at(cx: &Cx<'_>, neighbours: &Neighbours, table: &mut Table, place: u32, todo: &mut Todo) {
    let Some(entry) = table.at_mut(place) else { return };
    let (key, known) = (entry.key, entry.nud.known().is_some());
    let mut taken = Taken::new();
    if cx.net.interface(key.ifindex).is_none() {
        table.remove(place, &mut taken);
        todo.dead.extend(taken.into_iter().map(|m| (m, Why::IfDetached)));
        return;
    }
    let fired =
        if entry.nud.at <= cx.now { entry.nud.fire(cx.now, timing(key.addr)) } else { Fired::Nothing };
    match fired {
        Fired::Nothing => {}
        Fired::AskAll => todo.ask.push((key, None)),
        Fired::AskOne(mac) => todo.ask.push((key, Some(mac))),
        Fired::Unreachable | Fired::Unused => {
            table.remove(place, &mut taken);
            if known {
                neighbours.void_caches();
            }
            todo.dead.extend(taken.into_iter().map(|m| (m, Why::NeighbourUnresolved)));
            return;
        }
    }
    if known {
        table.take(place, HOLD, &mut taken);
        todo.send.extend(taken);
    }
}

fn act(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, mut todo: Todo, out: &mut Pending) {
    let net = cx.net;
    for (key, mac) in todo.ask.drain(..) {
        if let Some(interface) = net.interface(key.ifindex)
            && let Some(m) = question(cx, interface, key.addr, mac)
        {
            out.push(Stage::EtherOutput, m, &cx.stats.ledger);
        }
    }
    for m in todo.send.drain(..) {
        out.push(Stage::EtherOutput, m, &cx.stats.ledger);
    }
    for (mut m, why) in todo.dead.drain(..) {
        if why == Why::NeighbourUnresolved {
            hooks::untranslate(cx, held, &mut m);
            icmp::error(cx, m, why, Error::HostUnreachable, out);
        } else {
            cx.end(m, why);
        }
    }
}
