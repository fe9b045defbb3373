//! Packets that a policy protects, into their SAs.

use super::{
    ENC0, enc, filter,
    policy::{self, Policy},
    size, turn,
    way::{self, Way},
};
use crate::{
    netconfig::NetConfig,
    worker::{Cx, Gathered, Pending, Stage},
};
use ipsec::{
    esp,
    sa::{Sa, SaIndex},
    selector::Packet as Selected,
    spd::Rest,
};
use kern::{
    Batch, Mbuf, PktFlags, Survey, Why,
    lock::{Held, levels::Softnet},
};
use pf::{Direction, Via};
use std::sync::Arc;

/// Packets that are sealed before the stages nearer to the wire have a turn, where several workers send by several SAs: until
/// these are written those that other workers seal for the same SAs wait. By a single SA the workers take turns anyway, and the
/// fewer the better.
const SHARED: usize = 16;

/// Stage: packets that a policy protects, into their tunnels.
pub(crate) fn esp_output(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    let mut survey = Survey::new();
    // What this stage left of a batch is gathered and has been shown to pf.
    let left_before = std::mem::take(&mut cx.local.gathered);
    let rest = left_before.packets == batch.len();
    let (mut plain, Gathered { mut alone, mut sealed, .. }) = (None, left_before);
    if !rest {
        alone = turn::gather(cx, batch, |m| {
            survey.add(m);
            m.hdr().sa
        });
        sealed = survey.any(PktFlags::PROTECTED);
        let unchanged = pf_enc_out(cx, held, batch, &survey, out);
        // Of whom all is known that a run must know.
        plain = (alone && unchanged).then_some(&survey);
    }
    let mut run = cx.local.run.take().unwrap_or_default();
    if !cx.local.releasing.is_empty() && !sealed {
        // The stages nearer to the wire have nothing: all that left has been written, but for what is to go into a second SA.
        turn::written_output(cx, &mut run, out);
    }
    let mut left = if cx.shared.workers > 1 && !alone { SHARED } else { usize::MAX };
    let (net, mut gathered) = (cx.net, true);
    // Groups are taken from the end, where nothing has to close up behind them.
    while left > 0
        && let Some(last) = batch.as_slice().last()
    {
        let Some(sa) = SaIndex::from_header(last.hdr().sa).and_then(|i| still(net, i)) else {
            batch.pop().into_iter().for_each(|m| cx.end(m, Why::SpNoSa));
            continue;
        };
        let room = out.room(Stage::IpOutput).min(cx.local.releasing.room());
        let limit = esp::output::RUN.min(room).min(left);
        if limit == 0 {
            break;
        }
        let way = way::way(net, sa);
        let group = size::Group { sa, link: way.mtu, survey: plain.take() };
        let before = batch.len();
        let fits = size::fill_run(cx, &group, batch, &mut run, limit, out);
        if run.is_empty() {
            if batch.len() < before {
                continue;
            }
            // Super-frames wait for room in front of this stage.
            if out.at(Stage::EspOutput).is_empty() {
                batch.pop().into_iter().for_each(|m| cx.end(m, Why::PendingFull));
            }
            gathered = false;
            break;
        }
        left -= run.len().min(left);
        // While this run is sealed.
        if let Some(next) = batch.as_slice().last().and_then(|m| SaIndex::from_header(m.hdr().sa)) {
            net.sad.get(next).into_iter().for_each(|sa| sa.prefetch_outbound());
        }
        seal(cx, held, sa, (way, fits), &mut run, out);
    }
    if !rest {
        mark_seen(cx, batch);
    }
    cx.local.gathered = Gathered { packets: if gathered { batch.len() } else { 0 }, alone, sealed };
    cx.local.run = Some(run);
}

/// The SA that a packet was given; if it went with a change between lookup and here, its successor.
#[inline(always)]
fn still(net: &NetConfig, index: SaIndex) -> Option<&Arc<Sa>> {
    net.sad.get(index).or_else(|| net.sad.successor(index))
}

/// pf on inner packets, once each; says whether it left all of them as they were.
#[inline(always)]
fn pf_enc_out(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Batch,
    survey: &Survey,
    out: &mut Pending,
) -> bool {
    if !sees_inner(cx.net) {
        return true;
    }
    if survey.any(PktFlags::RETRIED) {
        pf_enc_again(cx, held, batch, out);
        return false;
    }
    filter::pf_batch(cx, held, Direction::Out, Via::One(ENC0), batch, survey, out)
}

/// Whether pf sees packets inside tunnels.
#[inline(always)]
fn sees_inner(net: &NetConfig) -> bool {
    net.pf.is_some() && net.enc0
}

/// A batch with packets that pf has seen.
#[cold]
fn pf_enc_again(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, batch: &mut Batch, out: &mut Pending) {
    let mut one = Batch::new();
    batch.sift(|m| {
        if m.hdr().flags.has(PktFlags::RETRIED) {
            return Some(m);
        }
        if let Err(m) = one.push(m) {
            return Some(m);
        }
        filter::pf_one(cx, held, Direction::Out, ENC0, &mut one, out);
        one.pop()
    });
}

/// Packets that pf has seen and that come here again, or their pieces, are not shown to it twice.
#[inline(always)]
pub(super) fn mark_seen(cx: &Cx<'_>, batch: &mut Batch) {
    if sees_inner(cx.net) {
        batch.iter_mut().for_each(|m| m.hdr_mut().flags.set(PktFlags::RETRIED));
    }
}

/// Seals a run, of no more packets than may wait, and sends on what may leave now. So many octets of a packet fit the way.
fn seal(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    sa: &Arc<Sa>,
    (way, fits): (Way, usize),
    run: &mut Box<Batch>,
    out: &mut Pending,
) {
    let (packets, ledger) = (run.len() as u64, &cx.stats.ledger);
    enc::before_seal(cx, sa, run);
    let mut turn = turn::loop_turn(cx);
    let octets = esp::output::esp_output(sa, run, fits, &mut turn, held, |m, why| ledger.end(m, why));
    cx.stats.count.sealed(sa.config().protocol, packets, octets);
    send_sealed(cx, way.egress, way.nexthop, run, out);
}

/// Outer packets go the way of their SA (0: `ip_output` is to find it), or into another SA first.
#[inline(always)]
pub(super) fn send_sealed(cx: &Cx<'_>, egress: u16, nexthop: u32, run: &mut Box<Batch>, out: &mut Pending) {
    run.sift(|mut m| {
        let h = m.hdr_mut();
        let rest = Rest::from_header(h.nexthop);
        (h.egress, h.nexthop) = (egress, nexthop);
        h.sa = 0;
        h.flags.clear(PktFlags::RETRIED.with(PktFlags::REFRAG));
        if h.cursor != 0 {
            size::refragment(h);
        }
        if rest.is_none() {
            return Some(m);
        }
        go_on(cx, m, rest, out);
        None
    });
    out.pass(Stage::IpOutput, run, &cx.stats.ledger);
}

/// The next SA of a bundle. pf has seen the packet that is inside all of them.
#[cold]
fn go_on(cx: &Cx<'_>, mut m: Mbuf, rest: Rest, out: &mut Pending) {
    let h = m.hdr_mut();
    (h.egress, h.nexthop) = (0, 0);
    let decision = cx.net.spd.go_on(rest, &Selected::read(&m), &cx.local.flows);
    match policy::follow(decision, &mut m) {
        Policy::None => out.push(Stage::IpOutput, m, &cx.stats.ledger),
        Policy::Protect => {
            m.hdr_mut().flags.set(PktFlags::RETRIED);
            out.push(Stage::EspOutput, m, &cx.stats.ledger);
        }
        Policy::Refuse(why) => cx.end(m, why),
        Policy::Discard => cx.end(m, Why::SpDiscard),
    }
}
