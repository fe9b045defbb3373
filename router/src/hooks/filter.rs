//! pf on batches: what came in, what leaves, what it has to say itself, and what becomes of what it does not pass.

use super::{ENC0, pflog, routed};
use crate::{
    icmp::{self, Error},
    reass,
    worker::{Cx, Pending, Stage},
};
use kern::{
    Batch, Mbuf, PktFlags, Survey, Why,
    lock::{
        Held,
        levels::{PfRules, Softnet},
    },
    time::Instant,
};
use pf::{Answer, Direction, Exception, PfCx, Refused, Reset, Via};

/// Where the packets of a batch have come in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    survey: Survey,
    /// The interface of the first.
    from: u16,
    /// Some came by another.
    other: bool,
    /// How many came out of an SA.
    opened: u32,
}

impl Arrived {
    /// Of these packets.
    #[inline(always)]
    pub(crate) fn of(batch: &Batch) -> Arrived {
        let from = batch.as_slice().first().map_or(0, |m| m.hdr().rcvif);
        let mut arrived = Arrived { survey: Survey::new(), from, other: false, opened: 0 };
        for m in batch {
            let h = m.hdr();
            arrived.other |= h.rcvif != from;
            arrived.opened += u32::from(h.sa != 0);
            arrived.survey.add(m);
        }
        arrived
    }
}

/// pf on packets that came in, from the wire or out of a tunnel.
#[inline]
pub(crate) fn pf_in(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Batch,
    mut arrived: Arrived,
    out: &mut Pending,
) {
    let Some(rules) = cx.net.pf.as_deref() else { return };
    if rules.gathers() && arrived.survey.any(PktFlags::FRAG) {
        reassemble(cx, rules, held, batch);
        arrived = Arrived::of(batch);
    }
    if batch.is_empty() {
        return;
    }
    let Arrived { survey, from, other, opened } = arrived;
    if opened == 0 {
        let via = if other { Via::Rcvif } else { Via::One(pf::IfIndex(from)) };
        pf_batch(cx, held, Direction::In, via, batch, &survey, out);
    } else if opened != survey.packets() {
        pf_mixed(cx, held, batch, out);
    } else if cx.net.enc0 {
        pf_batch(cx, held, Direction::In, Via::One(ENC0), batch, &survey, out);
    }
    // Without enc0 it is as in 2013: what came out of a tunnel has been judged as ESP.
}

/// Fragments of which pf wants to see the whole datagram wait for the rest of it.
#[cold]
fn reassemble(cx: &mut Cx<'_>, rules: &pf::Ruleset, held: &mut Held<'_, Softnet>, batch: &mut Batch) {
    let enc0 = cx.net.enc0;
    let routes = &cx.net.fib;
    reass::gather(cx, held, batch, |m| match m.hdr().sa {
        0 => rules.gathers_this(pf::IfIndex(m.hdr().rcvif), m, routes),
        _ if enc0 => rules.gathers_this(ENC0, m, routes),
        _ => None,
    });
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
        pf_one(cx, held, Direction::In, index, &mut one, out);
        one.pop()
    });
}

/// pf on packets that leave by the interface their header names; `via` says it too if it is one for all. Says whether it
/// left them as they were.
#[inline]
pub(crate) fn pf_out(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    via: Via,
    batch: &mut Batch,
    survey: &Survey,
    out: &mut Pending,
) -> bool {
    batch.is_empty() || pf_batch(cx, held, Direction::Out, via, batch, survey, out)
}

/// pf on one packet, which stays in its batch if it passes.
pub(super) fn pf_one(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    direction: Direction,
    index: pf::IfIndex,
    one: &mut Batch,
    out: &mut Pending,
) {
    let survey = Survey::of(one.iter());
    pf_batch(cx, held, direction, Via::One(index), one, &survey, out);
}

/// pf on a batch; says whether it left all packets as they were.
#[inline(always)]
pub(super) fn pf_batch(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    direction: Direction,
    via: Via,
    batch: &mut Batch,
    survey: &Survey,
    out: &mut Pending,
) -> bool {
    let Some(rules) = cx.net.pf.as_deref() else { return true };
    cx.stats.count.pf_tests.add(batch.len() as u64);
    if let Via::One(index) = via {
        let pf = PfCx::new(&cx.shared.pf, rules, &mut cx.local.pf, held.at(), cx.now);
        if let Some(_passed) = pf.pass_unseen_all(direction, index, survey) {
            return true;
        }
    }
    pf_each(cx, held, rules, direction, via, batch, out);
    false
}

#[inline(never)]
fn pf_each(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    rules: &pf::Ruleset,
    direction: Direction,
    via: Via,
    batch: &mut Batch,
    out: &mut Pending,
) {
    let mut exceptions = cx.local.exceptions.take().unwrap_or_default();
    {
        let held: Held<'_, PfRules> = held.at();
        let place = routed::Place::new(cx.shared, &cx.stats.ledger, direction, via);
        let mut log = pflog::Pflog::new(&mut cx.local.captures, cx.net, cx.shared.host.ports(), cx.now);
        let mut pf = PfCx::new(&cx.shared.pf, rules, &mut cx.local.pf, held, cx.now).ask(&cx.net.fib);
        if let Some(log) = &mut log {
            pf = pf.show(log);
        }
        let _passed = pf.test_batch(direction, via, batch, |m, exception| {
            place.stays(m, exception, &mut cx.local.late).map_or_else(
                |other| {
                    exceptions.push(other);
                    None
                },
                Some,
            )
        });
    }
    for (m, exception) in exceptions.drain(..) {
        match exception {
            Exception::Refused(refusal) => refuse(cx, m, refusal, out),
            Exception::Route(hop) | Exception::Copy(hop) => routed::divert(cx, m, hop, direction, out),
        }
    }
    cx.local.exceptions = Some(exceptions);
    send_own(cx, out);
    if cx.net.hash_flows {
        // What pf has translated is another flow on the wire.
        batch.iter_mut().filter(|m| m.hdr().hash == 0).for_each(|m| rehash(cx, m));
    }
}

/// Sends what pf itself has to say (`synproxy state`).
#[inline(always)]
fn send_own(cx: &mut Cx<'_>, out: &mut Pending) {
    if cx.local.pf.has_segments() {
        send_segments(cx, out);
    }
}

#[cold]
fn send_segments(cx: &mut Cx<'_>, out: &mut Pending) {
    let segments = cx.local.pf.take_segments();
    for segment in &segments {
        send_segment(cx, segment, out);
    }
    cx.local.pf.give_back(segments);
}

fn send_segment(cx: &mut Cx<'_>, segment: &pf::Segment, out: &mut Pending) {
    let Some(mut m) = cx.new_packet() else { return };
    if let Err(why) = pf::answer::emit(segment, TTL, &mut m) {
        return cx.end(m, why);
    }
    m.set_l4(if m.hdr().family == 4 { 20 } else { 40 });
    let h = m.hdr_mut();
    h.flags.set(PktFlags::ORIGIN);
    if !segment.filtered {
        h.flags.set(PktFlags::NO_PF);
    }
    out.push(Stage::IpOutput, m, &cx.stats.ledger);
}

#[cold]
fn rehash(cx: &Cx<'_>, m: &mut Mbuf) {
    if let Ok(parsed) = wire::parse::parse_ip(m.data()) {
        m.hdr_mut().hash = parsed.hash(m.data(), &cx.shared.seed).max(1);
    }
}

/// Gives a packet that pf has translated on its way out the addresses its sender knows: an error is to be sent about it.
#[cold]
pub(crate) fn untranslate(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, m: &mut Mbuf) {
    if let Some(rules) = cx.net.pf.as_deref() {
        PfCx::new(&cx.shared.pf, rules, &mut cx.local.pf, held.at(), cx.now).undo(m);
    }
}

/// Time to live of an answer whose rule does not say.
const TTL: u8 = 64;

/// Ends a packet that pf did not pass, and tells its sender if the rule says so.
#[cold]
fn refuse(cx: &mut Cx<'_>, m: Mbuf, refusal: Refused, out: &mut Pending) {
    match refusal.answer {
        None => cx.end(m, refusal.why),
        Some(Answer::Reset(reset)) => answer_reset(cx, m, reset, refusal.why, out),
        Some(Answer::Abort) => {
            answer_with(cx, m, refusal.why, out, |m, reply| pf::answer::abort(m, TTL, reply));
        }
        Some(Answer::Unreachable { code } | Answer::Unreachable6 { code }) => {
            icmp::error(cx, m, refusal.why, Error::Unreachable { code }, out);
        }
    }
}

/// Answers a TCP segment with a reset.
fn answer_reset(cx: &mut Cx<'_>, m: Mbuf, reset: Reset, why: Why, out: &mut Pending) {
    answer_with(cx, m, why, out, |m, reply| pf::answer::reset(m, reset, TTL, reply));
}

/// Answers a packet with what `write` makes of it, which pf does not look at.
fn answer_with(
    cx: &mut Cx<'_>,
    m: Mbuf,
    why: Why,
    out: &mut Pending,
    write: impl FnOnce(&Mbuf, &mut Mbuf) -> Result<(), Why>,
) {
    if let Some(mut reply) = cx.new_packet() {
        match write(&m, &mut reply) {
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
