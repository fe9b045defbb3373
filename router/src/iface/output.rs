//! `if_output`: frames to their interface's queue or device.
//!
//! An interface without altq takes no lock: the batch goes straight to the device. With altq it goes into the
//! interface's queue, and whoever finds nobody serving the queue serves it. Kernel is entered around the device in
//! every profile (`giant` locks it; a driver that is not MP-safe is locked in all of them), for v4 and v6, forwarded,
//! reinjected and host-originated packets alike: the hole NetBSD's IPv6 and pf route-to had.

use super::{
    Interface, Kind,
    driver::{Driver, TxCx, Written},
};
use crate::{route::IfIndex, worker::Cx};
use altq::{Drain, Turn, Victims};
use kern::{
    Batch, Mbuf, Owner, Why,
    lock::{Held, levels::Softnet},
};

/// Sends a batch of frames, each to the interface its header names; `one`: it is the same for all.
pub(crate) fn if_output(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, batch: &mut Box<Batch>, one: bool) {
    while let Some(first) = batch.as_slice().first() {
        let egress = first.hdr().egress;
        let queues = cx.net.interface(egress).map_or(1, |i| u32::from(i.queues.max(1)));
        let port = port_of(queues, first);
        let is_same = |m: &Mbuf| m.hdr().egress == egress && (queues == 1 || port_of(queues, m) == port);
        if (one && queues == 1) || batch.iter().all(is_same) {
            send(cx, held, port, batch);
            return;
        }
        // All frames of the port at once: order matters within a flow only, and a flow has one port.
        let mut run = cx.local.tx.take().unwrap_or_default();
        batch.sift(|m| if is_same(&m) { run.push(m).err() } else { Some(m) });
        send(cx, held, port, &mut run);
        cx.local.tx = Some(run);
    }
}

/// Interface and queue.
type Port = (u16, u16);

/// The queue is chosen by the hash of the frame's own outer header, whichever worker holds it: Linux steers a flow
/// to the queue last written with its hash, so both directions stay on one worker and nothing is reordered.
#[inline(always)]
fn port_of(queues: u32, m: &Mbuf) -> Port {
    let h = m.hdr();
    (h.egress, queue_of(h.hash, queues))
}

/// The queue for a hash: what its upper bits say, for to divide takes long.
#[inline(always)]
fn queue_of(hash: u32, queues: u32) -> u16 {
    ((u64::from(hash) * u64::from(queues)) >> 32) as u16
}

fn send(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, (egress, queue): Port, batch: &mut Batch) {
    let Some(interface) = cx.net.interface(egress) else {
        cx.stats.ledger.end_all(batch, Why::IfDetached);
        return;
    };
    match &interface.kind {
        Kind::Device(driver) => transmit(cx, held, interface, &**driver, queue.into(), batch),
        Kind::Vlan { parent, .. } => vlan(cx, held, interface, *parent, queue, batch),
        // What is sent there went into its tunnel before it could become a frame.
        Kind::Ipsec(_) => cx.stats.ledger.end_all(batch, Why::IfDetached),
    }
}

/// A VLAN's frames are counted here and leave by the parent, through the VLAN's own queue if it has one.
fn vlan(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    vlan: &Interface,
    parent: IfIndex,
    queue: u16,
    batch: &mut Batch,
) {
    let Some((under, Kind::Device(driver))) = cx.net.interface(parent.0).map(|i| (i, &i.kind)) else {
        cx.stats.ledger.end_all(batch, Why::IfDetached);
        return;
    };
    let shaped = if vlan.ifq.is_some() { vlan } else { under };
    transmit(cx, held, shaped, &**driver, queue.into(), batch);
}

fn transmit(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    interface: &Interface,
    driver: &dyn Driver,
    queue: usize,
    batch: &mut Batch,
) {
    let Some(ifq) = &interface.ifq else {
        write(cx, held, interface, driver, queue, batch);
        return;
    };
    let mut victims = cx.local.victims.take().unwrap_or_default();
    // Not when this turn of the loop began: a drainer that is late by now is relieved of its turn.
    let now = cx.shared.clock.now();
    let turn = ifq.enqueue_batch(held, batch, now, &mut victims);
    end_victims(cx, &mut victims);
    cx.local.victims = Some(victims);
    if let Some(turn) = turn {
        serve(cx, held, interface.index, turn);
    }
}

/// What a queue refused or dropped ends here, after its lock is released.
fn end_victims(cx: &Cx<'_>, victims: &mut Victims) {
    victims.drain().for_each(|(m, why)| m.end(why, &cx.stats.ledger));
}

/// Serves an interface's queue: dequeues what may leave now and writes it. If the rest must wait, this worker keeps
/// the turn and the timer.
pub(crate) fn serve(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, index: IfIndex, mut turn: Turn) {
    const BURST: usize = 64;
    /// Bursts before the worker looks at its own input again.
    const BURSTS: usize = 8;
    let net = cx.net;
    // An interface that went with a reload took its queue with it; the commit has ended what waited there.
    let (Some(interface), Some(driver)) = (net.interface(index.0), net.driver(index)) else { return };
    let Some(ifq) = &interface.ifq else { return };
    let mut victims = cx.local.victims.take().unwrap_or_default();
    let mut burst = cx.local.burst.take().unwrap_or_default();
    for round in 0.. {
        let now = cx.shared.clock.now();
        if round == BURSTS {
            cx.local.turns.push((index, now, turn));
            break;
        }
        let drained = ifq.next_burst(held, turn, now, &mut burst, &mut victims, BURST);
        end_victims(cx, &mut victims);
        match drained {
            Drain::More(again) => turn = again,
            Drain::Until(at, again) => {
                cx.local.turns.push((index, at, again));
                break;
            }
            Drain::Empty => break,
        }
        write_by_queue(cx, held, interface, driver, &mut burst);
    }
    cx.local.burst = Some(burst);
    cx.local.victims = Some(victims);
}

/// Serves the queues whose time has come; says whether there were any.
pub(crate) fn serve_due(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>) -> bool {
    let mut any = false;
    while let Some(i) = cx.local.turns.iter().position(|(_, at, _)| *at <= cx.now) {
        let (index, _, turn) = cx.local.turns.swap_remove(i);
        serve(cx, held, index, turn);
        any = true;
    }
    any
}

/// A burst from an interface queue may hold frames for several device queues.
fn write_by_queue(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    interface: &Interface,
    driver: &dyn Driver,
    burst: &mut Batch,
) {
    let queues = driver.queues().max(1) as u32;
    burst.set_owner(Owner::Worker);
    if queues == 1 {
        write(cx, held, interface, driver, 0, burst);
        return;
    }
    for queue in 0..queues {
        let mut some = Batch::new();
        burst.sift(|m| {
            if u32::from(queue_of(m.hdr().hash, queues)) == queue { some.push(m).err() } else { Some(m) }
        });
        write(cx, held, interface, driver, queue as usize, &mut some);
    }
}

/// The device itself, under Kernel.
fn write(
    cx: &Cx<'_>,
    held: &mut Held<'_, Softnet>,
    interface: &Interface,
    driver: &dyn Driver,
    queue: usize,
    batch: &mut Batch,
) {
    if batch.is_empty() {
        return;
    }
    let locks = &cx.shared.locks;
    let tx = TxCx { pool: &cx.shared.pool, ledger: &cx.stats.ledger };
    let written = if driver.mp_safe() {
        let (_kernel, _held) = locks.enter_kernel(held);
        driver.write(queue, batch, &tx)
    } else {
        let (_kernel, _held) = locks.enter_kernel_always(held);
        driver.write(queue, batch, &tx)
    };
    count(cx, interface, written);
}

#[inline]
fn count(cx: &Cx<'_>, interface: &Interface, written: Written) {
    cx.stats.interface(interface.index.0).sent(written.frames, written.bytes, written.refused);
}
