//! Where pf and IPsec meet the packet path: here and nowhere else.
//!
//! **Out:** route, SPD lookup on the *untranslated* packet; if it is protected: pf out on `enc0` (inner packet),
//! `esp_output`, `ip_output` of the outer packet, pf out on the real interface (which sees ESP), ALTQ. Otherwise pf out
//! on the real interface, ALTQ.
//!
//! **In:** pf in on the real interface (sees ESP), `esp_input`, SPD check of the inner packet, pf in on `enc0`, then
//! to us or onwards.
//!
//! Tag and queue of the inner packet travel with the outer one unless a rule on the outer sets its own. With
//! `[ipsec] enc0 = false` a decrypted packet skips pf, as in NetBSD of 2013. Never may NAT, a reload or a missing SA
//! let a packet of a *protect* policy out in clear: the policy is asked before pf may change the packet, and "protect,
//! but there is no SA" is an answer that ends it.

use crate::{
    icmp::{self, Error},
    iface::{cut, vnet},
    netconfig::NetConfig,
    worker::{Cx, Pending, Stage},
};
use ipsec::{
    esp::{self, LoopTurn},
    order,
    sa::{Sa, SaIndex},
    selector::Packet as Selected,
    spd::Decision,
};
use kern::{
    Batch, Gso, Mbuf, Owner, PktFlags, Why,
    lock::{
        Held,
        levels::{PfRules, Softnet, Top},
    },
    time::Instant,
};
use pf::{Answer, Direction, PfCx, Refused, Reset, Via};
use std::{net::IpAddr, sync::Arc};

/// The number of `enc0`, the interface at which pf sees packets inside tunnels.
pub(crate) const ENC0: pf::IfIndex = pf::IfIndex(crate::stats::INTERFACES as u16 - 1);

// ------------------------------------------------------------------------------------------------------------- pf

/// pf on packets that came in, from the wire or out of a tunnel.
#[inline]
pub(crate) fn pf_in(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, batch: &mut Batch, out: &mut Pending) {
    if cx.net.pf.is_none() || batch.is_empty() {
        return;
    }
    let opened = batch.iter().filter(|m| m.hdr().sa != 0).count();
    if opened == 0 {
        let via = same_rcvif(batch).map_or(Via::Rcvif, Via::One);
        pf_batch(cx, held, Direction::In, via, batch, out);
    } else if !cx.net.enc0 && opened == batch.len() {
        // As in 2013: what came out of a tunnel has been judged as ESP.
    } else if opened == batch.len() {
        pf_batch(cx, held, Direction::In, Via::One(ENC0), batch, out);
    } else {
        pf_mixed(cx, held, batch, out);
    }
}

fn same_rcvif(batch: &Batch) -> Option<pf::IfIndex> {
    let mut all = batch.iter().map(|m| m.hdr().rcvif);
    let first = all.next()?;
    all.all(|i| i == first).then_some(pf::IfIndex(first))
}

/// A batch with packets from wires and from tunnels, in order.
#[cold]
fn pf_mixed(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, batch: &mut Batch, out: &mut Pending) {
    let mut one = Batch::new();
    batch.sift(|m| {
        let opened = m.hdr().sa != 0;
        if opened && !cx.net.enc0 {
            return Some(m);
        }
        let index = if opened { ENC0 } else { pf::IfIndex(m.hdr().rcvif) };
        if let Err(m) = one.push(m) {
            return Some(m);
        }
        pf_batch(cx, held, Direction::In, Via::One(index), &mut one, out);
        one.pop()
    });
}

/// pf on packets that leave by the interface their header names.
#[inline]
pub(crate) fn pf_out(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, batch: &mut Batch, out: &mut Pending) {
    if cx.net.pf.is_none() || batch.is_empty() {
        return;
    }
    let first = batch.as_slice()[0].hdr().egress;
    let via = if batch.iter().all(|m| m.hdr().egress == first) {
        Via::One(pf::IfIndex(first))
    } else {
        Via::Egress
    };
    pf_batch(cx, held, Direction::Out, via, batch, out);
}

fn pf_batch(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    direction: Direction,
    via: Via,
    batch: &mut Batch,
    out: &mut Pending,
) {
    let Some(rules) = cx.net.pf.as_deref() else { return };
    cx.stats.count.pf_tests.add(batch.len() as u64);
    let mut refused = cx.local.refused.take().unwrap_or_default();
    {
        let held: Held<'_, PfRules> = held.at();
        let mut pf = PfCx::new(&cx.shared.pf, rules, &mut cx.local.pf, held, cx.now);
        let _passed = pf.test_batch(direction, via, batch, |m, refusal| refused.push((m, refusal)));
    }
    for (m, refusal) in refused.drain(..) {
        refuse(cx, m, refusal, out);
    }
    cx.local.refused = Some(refused);
}

/// Ends a packet that pf did not pass, and tells its sender if the rule says so.
#[cold]
fn refuse(cx: &mut Cx<'_>, m: Mbuf, refusal: Refused, out: &mut Pending) {
    match refusal.answer {
        None => cx.end(m, refusal.why),
        Some(Answer::Reset(reset)) => answer_reset(cx, m, reset, refusal.why, out),
        Some(Answer::Unreachable { code } | Answer::Unreachable6 { code }) => {
            icmp::error(cx, m, refusal.why, Error::Unreachable { code }, out);
        }
    }
}

/// Answers a TCP segment with a reset, which pf does not look at.
fn answer_reset(cx: &mut Cx<'_>, m: Mbuf, reset: Reset, why: Why, out: &mut Pending) {
    const TTL: u8 = 64;
    if let Some(mut reply) = cx.new_packet() {
        match pf::answer::reset(&m, reset, TTL, &mut reply) {
            Ok(()) => {
                let header = if reply.hdr().family == 4 { 20 } else { 40 };
                reply.set_l4(header);
                let h = reply.hdr_mut();
                h.flags.set(PktFlags::ORIGIN.with(PktFlags::NO_PF));
                h.rcvif = m.hdr().rcvif;
                out.push(Stage::IpOutput, reply, &cx.stats.ledger);
            }
            Err(why) => cx.end(reply, why),
        }
    }
    cx.end(m, why);
}

/// A segment for a port nobody listens on (RFC 9293 3.10.7.1). A reset is never answered.
pub(crate) fn refuse_connection(cx: &mut Cx<'_>, m: Mbuf, out: &mut Pending) {
    const RST: u8 = 4;
    let flags = m.data().get(m.l4() + 13).copied().unwrap_or(RST);
    if flags & RST != 0 {
        return cx.end(m, Why::HostClosed);
    }
    answer_reset(cx, m, Reset { ttl: 0, acknowledge: true }, Why::HostClosed, out);
}

// ----------------------------------------------------------------------------------------------------------- IPsec

/// What the SPD says of a packet on its way out.
pub(crate) enum Policy {
    /// No policy, or bypass.
    None,
    /// Into this SA.
    Protect(SaIndex),
    /// It must be protected and cannot be.
    Refuse(Why),
    /// It must not leave.
    Discard,
}

/// Looks up a packet on its way out, before anything may translate it.
#[inline(always)]
pub(crate) fn policy_out(cx: &Cx<'_>, m: &Mbuf) -> Policy {
    let spd = &cx.net.spd;
    if !spd.has_out() {
        return Policy::None;
    }
    match spd.lookup_out(&Selected::read(m)) {
        Decision::Bypass => Policy::None,
        Decision::Protect(sa) => Policy::Protect(sa),
        Decision::NoSa => Policy::Refuse(Why::SpNoSa),
        Decision::Discard => Policy::Discard,
    }
}

/// The same check for a packet that arrived in clear; what was opened has had it already.
#[inline(always)]
pub(crate) fn policy_clear(net: &NetConfig, m: &Mbuf) -> Result<(), Why> {
    if m.hdr().sa == 0 && net.spd.has_in() { policy_in(net, m) } else { Ok(()) }
}

/// Checks a packet that came in against the inbound policies: one that arrived in clear must not be of a protect
/// policy, one that came out of a tunnel must be what that tunnel is for (RFC 4301 5.2).
#[inline(always)]
fn policy_in(net: &NetConfig, m: &Mbuf) -> Result<(), Why> {
    net.spd.check_in(&Selected::read(m), SaIndex::from_header(m.hdr().sa))
}

/// Whether there are SAs at all.
pub(crate) fn has_sas(net: &NetConfig) -> bool {
    net.sad.iter().next().is_some()
}

fn worker(cx: &Cx<'_>) -> order::Worker {
    order::Worker(cx.me as u16)
}

/// Stage: packets that a policy protects, into their tunnels.
pub(crate) fn esp_output(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    pf_enc_out(cx, held, batch, out);
    let mut run = cx.local.run.take().unwrap_or_default();
    let net = cx.net;
    while let Some(first) = batch.as_slice().first() {
        let Some(sa) = SaIndex::from_header(first.hdr().sa).and_then(|i| net.sad.get(i)) else {
            // The SA went with a reload between lookup and here.
            batch.drain_front(1).for_each(|m| cx.end(m, Why::SpNoSa));
            continue;
        };
        let room = out.room(Stage::IpOutput).min(run.room());
        let limit = sa.run_max().min(room);
        if limit == 0 {
            break;
        }
        fill_run(cx, sa, batch, &mut run, limit, out);
        if run.is_empty() {
            continue;
        }
        if !seal(cx, held, sa, &mut run, out) {
            keep(cx, batch, &mut run);
            break;
        }
    }
    cx.local.run = Some(run);
}

/// pf on inner packets, once each.
fn pf_enc_out(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, batch: &mut Batch, out: &mut Pending) {
    if cx.net.pf.is_none() || !cx.net.enc0 {
        return;
    }
    let is_new = |m: &Mbuf| !m.hdr().flags.has(PktFlags::RETRIED);
    if batch.iter().all(is_new) {
        pf_batch(cx, held, Direction::Out, Via::One(ENC0), batch, out);
    } else {
        let mut one = Batch::new();
        batch.sift(|m| {
            if !is_new(&m) {
                return Some(m);
            }
            if let Err(m) = one.push(m) {
                return Some(m);
            }
            pf_batch(cx, held, Direction::Out, Via::One(ENC0), &mut one, out);
            one.pop()
        });
    }
    batch.iter_mut().for_each(|m| m.hdr_mut().flags.set(PktFlags::RETRIED));
}

/// Moves packets of one SA, at most `limit`, from the batch to the run; super-frames are cut on the way.
fn fill_run(
    cx: &mut Cx<'_>,
    sa: &Arc<Sa>,
    batch: &mut Batch,
    run: &mut Batch,
    limit: usize,
    out: &mut Pending,
) {
    let mtu = outer_mtu(cx.net, sa.config().dst);
    let index = sa.index().to_header();
    let mut stuck = false;
    batch.sift(|mut m| {
        // Packets of other SAs are left where they are: order matters within an SA only.
        if stuck || m.hdr().sa != index {
            return Some(m);
        }
        if run.len() >= limit {
            stuck = true;
            return Some(m);
        }
        let segment = match m.hdr().gso {
            Gso::None => m.len(),
            _ => vnet::header_len(&m) + usize::from(m.hdr().gso_size),
        };
        let inner_mtu = sa.inner_mtu(usize::from(mtu));
        // What the router itself says over IPv6 has nobody else to make it smaller: the outer packet is fragmented.
        let own6 = m.hdr().family == 6 && m.hdr().flags.has(PktFlags::ORIGIN);
        if segment > inner_mtu && m.hdr().flags.has(PktFlags::DF) && !own6 {
            icmp::error(cx, m, Why::EspTooBig, Error::TooBig { mtu: inner_mtu as u16 }, out);
            return None;
        }
        if m.hdr().gso == Gso::None {
            let m = crate::ip::output::finished(cx, m)?;
            return run.push(m).err();
        }
        let before = run.len();
        let done = cut::cut(&mut m, limit - before, &cx.shared.pool, &cx.stats.ledger, &mut |segment| {
            if let Err(segment) = run.push(segment) {
                segment.end(Why::PendingFull, &cx.stats.ledger);
            }
        });
        cx.stats.count.segments.add((run.len() - before) as u64);
        if matches!(done, cut::Cut::Done) {
            cx.stats.count.cut.inc();
            cx.stats.ledger.merge(m);
            return None;
        }
        stuck = true;
        Some(m)
    });
}

/// The MTU of the link by which a tunnel leaves.
fn outer_mtu(net: &NetConfig, peer: IpAddr) -> u16 {
    let iface = net.fib.route(peer, 0).iface();
    iface.and_then(|i| net.interface(i.0)).map_or(1500, |i| i.mtu)
}

/// Seals a run and sends on what may leave now; false if the SA is too busy to take it.
fn seal(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    sa: &Arc<Sa>,
    run: &mut Batch,
    out: &mut Pending,
) -> bool {
    let (packets, ledger) = (run.len() as u64, &cx.stats.ledger);
    let mut turn =
        LoopTurn { worker: order::Worker(cx.me as u16), now: cx.now, releasing: &mut cx.local.releasing };
    if esp::output::esp_output(sa, run, &mut turn, held, |m, why| ledger.end(m, why)).is_err() {
        return false;
    }
    cx.stats.count.esp_out.add(packets);
    send_sealed(cx, run, out);
    true
}

/// Outer packets need a route of their own.
fn send_sealed(cx: &Cx<'_>, run: &mut Batch, out: &mut Pending) {
    for mut m in run.drain() {
        let h = m.hdr_mut();
        h.egress = 0;
        h.nexthop = 0;
        h.sa = 0;
        h.flags.clear(PktFlags::RETRIED);
        out.push(Stage::IpOutput, m, &cx.stats.ledger);
    }
}

/// Stage: ESP to us, out of its tunnels and back to `ip_input`.
pub(crate) fn esp_input(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    let mut run = cx.local.run.take().unwrap_or_default();
    let net = cx.net;
    while let Some(first) = batch.as_slice().first() {
        let Some(sa) = find_sa(net, first) else {
            batch.drain_front(1).for_each(|m| cx.end(m, Why::EspNoSa));
            continue;
        };
        let limit = ipsec::transform::RUN.min(out.room(Stage::IpInput));
        if limit == 0 {
            break;
        }
        // All packets of this SA at once: order matters within an SA only.
        batch.sift(|m| {
            let same = run.len() < limit && find_sa(net, &m).is_some_and(|other| Arc::ptr_eq(other, sa));
            if same { run.push(m).err() } else { Some(m) }
        });
        if !open(cx, held, sa, &mut run, out) {
            keep(cx, batch, &mut run);
            break;
        }
    }
    cx.local.run = Some(run);
}

#[inline(always)]
fn find_sa<'a>(net: &'a NetConfig, m: &Mbuf) -> Option<&'a Arc<Sa>> {
    net.sad.for_packet(m.data(), m.l4())
}

/// Opens a run and sends on what may leave now; false if the SA is too busy to take it.
fn open(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    sa: &Arc<Sa>,
    run: &mut Batch,
    out: &mut Pending,
) -> bool {
    let ledger = &cx.stats.ledger;
    let mut turn =
        LoopTurn { worker: order::Worker(cx.me as u16), now: cx.now, releasing: &mut cx.local.releasing };
    if esp::input::esp_input(sa, run, &mut turn, held, |m, why| ledger.end(m, why)).is_err() {
        return false;
    }
    take_opened(cx, run, out);
    true
}

/// Too many runs of an SA are out on other workers: its packets wait, ahead of the rest.
#[cold]
fn keep(cx: &Cx<'_>, batch: &mut Box<Batch>, run: &mut Box<Batch>) {
    batch.move_to(run);
    cx.stats.ledger.end_all(batch, Why::PendingFull);
    std::mem::swap(batch, run);
}

/// What came out of a tunnel must be what the tunnel is for.
fn take_opened(cx: &Cx<'_>, run: &mut Batch, out: &mut Pending) {
    cx.stats.count.esp_in.add(run.len() as u64);
    for m in run.drain() {
        match policy_in(cx.net, &m) {
            Ok(()) => out.push(Stage::IpInput, m, &cx.stats.ledger),
            Err(why) => cx.end(m, why),
        }
    }
}

/// The loop has written everything it had: what was parked behind it may follow.
#[inline]
pub(crate) fn esp_written(cx: &mut Cx<'_>, top: &mut Held<'_, Top>, out: &mut Pending) {
    if cx.local.releasing.is_empty() {
        return;
    }
    let (_softnet, mut held) = cx.shared.locks.enter_softnet(top);
    let mut run = cx.local.run.take().unwrap_or_default();
    cx.local.releasing.written_output(order::Worker(cx.me as u16), &mut run, &mut held);
    run.set_owner(Owner::Worker);
    send_sealed(cx, &mut run, out);
    let (ledger, me, now) = (&cx.stats.ledger, worker(cx), cx.now);
    cx.local.releasing.written_input(me, now, &mut run, &mut held, |m, why| ledger.end(m, why));
    run.set_owner(Owner::Worker);
    take_opened(cx, &mut run, out);
    cx.local.run = Some(run);
}

/// Looks after pf's states; returns when to come again.
pub(crate) fn expire_states(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>) -> Instant {
    /// A step every 10 ms that looks at up to 4,096 slots covers a million states in less than 3 s.
    const STEP_NS: u64 = 10_000_000;
    const BUDGET: u32 = 4096;
    if let Some(rules) = cx.net.pf.as_deref() {
        PfCx::new(&cx.shared.pf, rules, &mut cx.local.pf, held.at(), cx.now).purge(BUDGET);
    }
    cx.now.after(STEP_NS)
}
