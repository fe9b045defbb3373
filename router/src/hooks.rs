//! Where pf and IPsec meet the packet path: here and nowhere else.
//!
//! **Out:** route, SPD lookup on the *untranslated* packet; if it is protected: pf out on `enc0` (inner packet),
//! `esp_output`, `ip_output` of the outer packet, pf out on the real interface (which sees ESP), ALTQ. Otherwise pf out
//! on the real interface, ALTQ.
//!
//! **In:** pf in on the real interface (sees ESP), `esp_input`, SPD check of the inner packet, pf in on `enc0`, then
//! to us or onwards.
//!
//! **Frames:** Ethernet rules judge them before all of this on the way in, and after it on the way out (`frames.rs`).
//!
//! Tag and queue of the inner packet travel with the outer one unless a rule on the outer sets its own. With
//! `[ipsec] enc0 = false` a decrypted packet skips pf, as in NetBSD of 2013. Never may NAT, a reload or a missing SA
//! let a packet of a *protect* policy out in clear: the policy is asked before pf may change the packet, and "protect,
//! but there is no SA" is an answer that ends it.

mod enc;
mod frames;
mod natt;
mod pflog;
mod routed;
mod size;
mod tunnel;
mod way;

pub(crate) use frames::{frames_in, frames_out};
pub(crate) use natt::{Keepalives, follow_peers, install_sad, is_for_natt, keep_alive};
pub(crate) use routed::{gateway, is_routed};
pub(crate) use size::too_big_input;
pub(crate) use tunnel::{Tunnels, tunnel_output};
pub(crate) use way::Ways;

use crate::{
    ether,
    icmp::{self, Error},
    netconfig::NetConfig,
    reass,
    worker::{Cx, Pending, Stage},
};
use ipsec::{
    esp::{self, LoopTurn},
    order,
    sa::{Mode, Protocol, Sa, SaIndex},
    selector::Packet as Selected,
    spd::{Decision, Path, Rest},
};
use kern::{
    Batch, Class, Mbuf, Owner, PktFlags, Pool, Survey, Why,
    lock::{
        Held,
        levels::{PfRules, Softnet, Top},
    },
    time::Instant,
};
use pf::{Answer, Direction, Exception, PfCx, Refused, Reset, Via};
use std::sync::Arc;
use way::Way;
use wire::IpProto;

/// The number of `enc0`, the interface at which pf sees packets inside tunnels.
pub(crate) const ENC0: pf::IfIndex = pf::IfIndex(crate::stats::INTERFACES as u16 - 1);

// ------------------------------------------------------------------------------------------------------------- pf

/// Where the packets of a batch have come in, found while `ip_input` goes through them.
#[derive(Clone, Copy, Debug, Default)]
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
    /// One packet more.
    #[inline(always)]
    pub(crate) fn add(&mut self, m: &Mbuf) {
        let h = m.hdr();
        if self.survey.packets() == 0 {
            self.from = h.rcvif;
        }
        self.other |= h.rcvif != self.from;
        self.opened += u32::from(h.sa != 0);
        self.survey.add(m);
    }

    fn of(batch: &Batch) -> Arrived {
        let mut arrived = Arrived::default();
        batch.iter().for_each(|m| arrived.add(m));
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
    reass::gather(cx, held, batch, |m| match m.hdr().sa {
        0 => rules.gathers_this(pf::IfIndex(m.hdr().rcvif), m),
        _ if enc0 => rules.gathers_this(ENC0, m),
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
fn pf_one(
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
fn pf_batch(
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
        let mut log = pflog::Pflog::new(&mut cx.local.captures, cx.net, cx.now);
        let mut pf = PfCx::new(&cx.shared.pf, rules, &mut cx.local.pf, held, cx.now);
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
    const TTL: u8 = 64;
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
    /// Into the SA that its header now names.
    Protect,
    /// It must be protected and cannot be.
    Refuse(Why),
    /// It must not leave.
    Discard,
}

/// Looks up a packet on its way out, before anything may translate it.
#[inline(always)]
pub(crate) fn policy_out(cx: &mut Cx<'_>, m: &mut Mbuf) -> Policy {
    let spd = &cx.net.spd;
    if !spd.has_out() {
        return Policy::None;
    }
    let decision = spd.lookup_out(&Selected::read(m), &mut cx.local.flows);
    if matches!(decision, Decision::NoSa | Decision::Without) {
        acquire(cx, m);
    }
    follow(decision, m)
}

/// Tells the control thread which SA this packet wants.
#[cold]
fn acquire(cx: &mut Cx<'_>, m: &Mbuf) {
    let packet = Selected::read(m);
    if let Some(wanted) = cx.net.spd.wanted(&packet, &mut cx.local.flows) {
        cx.local.asked.ask(&cx.shared.acquires, wanted, &packet, cx.now);
    }
}

/// Whether a policy protects this packet of the router's own, or does not let it out at all.
#[cold]
pub(crate) fn is_covered(cx: &mut Cx<'_>, m: &Mbuf) -> bool {
    let net = cx.net;
    let spd = &net.spd;
    let by_route = || net.fib.route(ether::destination(m), 0).iface().and_then(|i| net.interface(i.0));
    if !net.tunnels.is_empty() && by_route().is_some_and(|i| !i.has_link()) {
        return true;
    }
    let passes = |decision| matches!(decision, Decision::Bypass | Decision::Without);
    spd.has_out() && !passes(spd.lookup_out(&Selected::read(m), &mut cx.local.flows))
}

/// What a decision means for a packet. Until it is sealed, `nexthop` has what is left of its bundle.
#[inline(always)]
fn follow(decision: Decision, m: &mut Mbuf) -> Policy {
    match decision {
        Decision::Bypass | Decision::Without => Policy::None,
        Decision::Protect(sa, rest) => {
            let h = m.hdr_mut();
            (h.sa, h.nexthop) = (sa.to_header(), rest.to_header());
            Policy::Protect
        }
        Decision::NoSa => Policy::Refuse(Why::SpNoSa),
        Decision::Discard => Policy::Discard,
    }
}

/// Checks a packet that arrived in clear: it must not be of a protect policy (RFC 4301 5.2). What was opened has been
/// checked.
#[inline(always)]
pub(crate) fn policy_clear(cx: &mut Cx<'_>, m: &Mbuf) -> Result<(), Why> {
    if m.hdr().sa == 0 && cx.net.spd.has_in() { policy_in(cx, m, Path::CLEAR) } else { Ok(()) }
}

#[inline(always)]
fn policy_in(cx: &mut Cx<'_>, m: &Mbuf, path: Path) -> Result<(), Why> {
    cx.net.spd.check_in(&Selected::read(m), path, &mut cx.local.flows)
}

fn worker(cx: &Cx<'_>) -> order::Worker {
    order::Worker(cx.me as u16)
}

/// What an SA needs to know of the turn of the loop in which a run goes through it.
fn loop_turn<'t>(cx: &'t mut Cx<'_>) -> LoopTurn<'t> {
    LoopTurn { worker: worker(cx), now: cx.now, releasing: &mut cx.local.releasing }
}

/// Stage: packets that a policy protects, into their tunnels.
pub(crate) fn esp_output(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    let mut survey = Survey::new();
    let alone = gather(cx, batch, |m| {
        survey.add(m);
        m.hdr().sa
    });
    let unchanged = pf_enc_out(cx, held, batch, &survey, out);
    // Of whom all is known that a run must know.
    let mut plain = (alone && unchanged).then_some(&survey);
    let mut run = cx.local.run.take().unwrap_or_default();
    let net = cx.net;
    // Groups are taken from the end, where nothing has to close up behind them.
    while let Some(last) = batch.as_slice().last() {
        let Some(sa) = SaIndex::from_header(last.hdr().sa).and_then(|i| still(net, i)) else {
            batch.pop().into_iter().for_each(|m| cx.end(m, Why::SpNoSa));
            continue;
        };
        let room = out.room(Stage::IpOutput).min(run.room());
        let limit = sa.run_max().min(room);
        if limit == 0 {
            break;
        }
        let way = way::way(net, sa);
        let group = size::Group { sa, link: way.mtu, survey: plain.take() };
        size::fill_run(cx, &group, batch, &mut run, limit, out);
        if run.is_empty() {
            continue;
        }
        if !seal(cx, held, sa, way, &mut run, out) {
            keep(cx, batch, &mut run);
            break;
        }
    }
    mark_seen(cx, batch);
    cx.local.run = Some(run);
}

/// The SA that a packet was given; if it went with a change between lookup and here, its successor.
#[inline(always)]
fn still(net: &NetConfig, index: SaIndex) -> Option<&Arc<Sa>> {
    net.sad.get(index).or_else(|| net.sad.successor(index))
}

/// Brings packets of one SA together: order matters within an SA only, and a run is of one SA. Says whether all are of one.
#[inline(always)]
fn gather(cx: &mut Cx<'_>, batch: &mut Box<Batch>, sa: impl FnMut(&mut Mbuf) -> u32) -> bool {
    let mut spare = cx.local.run.take().unwrap_or_default();
    let alone = batch.gather(&mut spare, sa);
    cx.local.run = Some(spare);
    alone
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
    pf_batch(cx, held, Direction::Out, Via::One(ENC0), batch, survey, out)
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
        pf_one(cx, held, Direction::Out, ENC0, &mut one, out);
        one.pop()
    });
}

/// Packets that pf has seen and that come here again, or their pieces, are not shown to it twice.
#[inline(always)]
fn mark_seen(cx: &Cx<'_>, batch: &mut Batch) {
    if sees_inner(cx.net) {
        batch.iter_mut().for_each(|m| m.hdr_mut().flags.set(PktFlags::RETRIED));
    }
}

/// Seals a run and sends on what may leave now; false if the SA is too busy to take it.
fn seal(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    sa: &Arc<Sa>,
    way: Way,
    run: &mut Box<Batch>,
    out: &mut Pending,
) -> bool {
    let (packets, ledger) = (run.len() as u64, &cx.stats.ledger);
    enc::before_seal(cx, sa, run);
    let mut turn = loop_turn(cx);
    let taken = esp::output::esp_output(sa, run, &mut turn, held, |m, why| ledger.end(m, why));
    enc::sealed(cx, taken.is_ok());
    let Ok(octets) = taken else { return false };
    cx.stats.count.sealed(sa.config().protocol, packets, octets);
    send_sealed(cx, way.egress, way.nexthop, run, out);
    true
}

/// Outer packets go the way of their SA (0: `ip_output` is to find it), or into another SA first.
#[inline(always)]
fn send_sealed(cx: &Cx<'_>, egress: u16, nexthop: u32, run: &mut Box<Batch>, out: &mut Pending) {
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
    let decision = cx.net.spd.go_on(rest, &Selected::read(&m));
    match follow(decision, &mut m) {
        Policy::None => out.push(Stage::IpOutput, m, &cx.stats.ledger),
        Policy::Protect => {
            m.hdr_mut().flags.set(PktFlags::RETRIED);
            out.push(Stage::EspOutput, m, &cx.stats.ledger);
        }
        Policy::Refuse(why) => cx.end(m, why),
        Policy::Discard => cx.end(m, Why::SpDiscard),
    }
}

/// Stage: ESP to us, out of its tunnels and back to `ip_input`.
pub(crate) fn esp_input(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    let net = cx.net;
    natt::demultiplex(cx, batch, out);
    let alone = gather(cx, batch, |m| {
        let sa = find_sa(net, m).map_or(0, |sa| sa.index().to_header());
        m.hdr_mut().sa = sa;
        sa
    });
    let mut run = cx.local.run.take().unwrap_or_default();
    while let Some(last) = batch.as_slice().last() {
        let Some(sa) = SaIndex::from_header(last.hdr().sa).and_then(|i| net.sad.get(i)) else {
            batch.pop().into_iter().for_each(|m| {
                let why = no_sa(&m);
                cx.end(m, why);
            });
            continue;
        };
        let limit = ipsec::transform::RUN.min(out.room(Stage::IpInput));
        if limit == 0 {
            break;
        }
        if alone && batch.len() <= limit {
            std::mem::swap(batch, &mut run);
        } else {
            let from = batch.last_group(|m| m.hdr().sa);
            batch.move_from(from, limit, &mut run);
        }
        if !open(cx, held, sa, &mut run, out) {
            keep(cx, batch, &mut run);
            break;
        }
    }
    cx.local.run = Some(run);
}

#[cold]
fn no_sa(m: &Mbuf) -> Why {
    match IpProto(m.hdr().proto) {
        IpProto::AH => Why::AhNoSa,
        IpProto::IPCOMP => Why::IpcompNoSa,
        _ => Why::EspNoSa,
    }
}

#[inline(always)]
fn find_sa<'a>(net: &'a NetConfig, m: &Mbuf) -> Option<&'a Arc<Sa>> {
    net.sad.for_packet(m.data(), IpProto(m.hdr().proto), m.l4())
}

/// Opens a run and sends on what may leave now; false if the SA is too busy to take it.
fn open(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    sa: &Arc<Sa>,
    run: &mut Box<Batch>,
    out: &mut Pending,
) -> bool {
    let inflates = sa.config().protocol == Protocol::Ipcomp;
    if inflates {
        resize(cx, run, |m| m.class() == Class::Cluster, Class::Jumbo);
    }
    let ledger = &cx.stats.ledger;
    let mut turn = loop_turn(cx);
    if esp::input::esp_input(sa, run, &mut turn, held, |m, why| ledger.end(m, why)).is_err() {
        return false;
    }
    if inflates {
        resize(cx, run, |m| m.class() == Class::Jumbo && m.len() <= CLUSTER_ROOM, Class::Cluster);
    }
    let packets = run.len() as u64;
    let octets = take_opened(cx, run, out);
    cx.stats.count.opened(sa.config().protocol, packets, octets);
    true
}

/// What fits into a cluster, with room for headers in front and behind.
const CLUSTER_ROOM: usize = 1700;

/// Moves packets to buffers of another class: what IPComp inflates may be longer than a cluster, and rarely is.
fn resize(cx: &Cx<'_>, run: &mut Batch, is_wrong: impl Fn(&Mbuf) -> bool, class: Class) {
    run.sift(|m| if is_wrong(&m) { moved(cx, m, class) } else { Some(m) });
}

fn moved(cx: &Cx<'_>, m: Mbuf, class: Class) -> Option<Mbuf> {
    let ledger = &cx.stats.ledger;
    let Some(mut other) = twin(&cx.shared.pool, &m, class) else {
        cx.end(m, Why::NoBuffer);
        return None;
    };
    ledger.split(&mut other);
    ledger.merge(m);
    Some(other)
}

/// A buffer with the octets of a packet and what its header says of it; offloads apart. Not in the books yet.
fn twin(pool: &Pool, m: &Mbuf, class: Class) -> Option<Mbuf> {
    let mut other = pool.alloc(class, Owner::Worker)?;
    other.append(m.len()).ok()?.copy_from_slice(m.data());
    other.hdr_mut().inherit(m.hdr());
    other.set_l3(m.l3());
    other.set_l4(m.l4());
    Some(other)
}

/// Too many runs of an SA are out on other workers: its packets wait, ahead of the rest.
#[cold]
fn keep(cx: &Cx<'_>, batch: &mut Box<Batch>, run: &mut Box<Batch>) {
    batch.move_to(run);
    cx.stats.ledger.end_all(batch, Why::PendingFull);
    std::mem::swap(batch, run);
}

/// What came out of SAs must be what they are for. Returns how many octets it was.
fn take_opened(cx: &mut Cx<'_>, run: &mut Box<Batch>, out: &mut Pending) -> u64 {
    enc::opened(cx, run);
    let (tunnels, mut octets) = (&cx.net.tunnels, 0);
    run.sift(|mut m| {
        octets += m.len() as u64;
        if !tunnels.is_empty()
            && let Some(index) = tunnels.arrived(&m)
        {
            tunnel::tunnel_input(cx, index, m, out);
            return None;
        }
        let path = Path::from_header(m.hdr().sa, m.hdr().nexthop);
        let checked = policy_in(cx, &m, path);
        if is_ipsec(cx.net, &m) && is_layer(cx.net, &mut m, checked.is_ok()) {
            m.hdr_mut().nexthop = path.earlier();
            out.push(Stage::EspInput, m, &cx.stats.ledger);
            return None;
        }
        m.hdr_mut().nexthop = 0;
        if let Err(why) = checked {
            cx.end(m, why);
            return None;
        }
        Some(m)
    });
    out.pass(Stage::IpInput, run, &cx.stats.ledger);
    octets
}

/// Whether the packet is of a protocol that SAs are for.
#[inline(always)]
fn is_ipsec(net: &NetConfig, m: &Mbuf) -> bool {
    let at = if m.hdr().family == 4 { 9 } else { 6 };
    m.data().get(at).is_some_and(|proto| is_for_sas(net, *proto))
}

/// ESP, AH, IPComp; IP in IP where there are tunnels of IPComp.
#[inline(always)]
pub(crate) fn is_for_sas(net: &NetConfig, proto: u8) -> bool {
    match proto {
        50 | 51 | 108 => !net.sad.is_empty(),
        4 | 41 => net.sad.takes_ip_in_ip(),
        _ => false,
    }
}

/// Whether the next SA of the same bundle is to open it; then its header says where. A tunnel's packet that a policy is
/// content with goes the way of all packets instead: it belongs to a tunnel inside a tunnel, which has its own policy.
#[cold]
fn is_layer(net: &NetConfig, m: &mut Mbuf, content: bool) -> bool {
    let opened = SaIndex::from_header(m.hdr().sa).and_then(|sa| net.sad.get(sa));
    if content && opened.is_none_or(|sa| sa.config().mode != Mode::Transport) {
        return false;
    }
    let Ok(parsed) = wire::parse::parse_ip(m.data()) else { return false };
    if parsed.is_fragment() || net.sad.for_packet(m.data(), parsed.proto, parsed.l4.into()).is_none() {
        return false;
    }
    m.set_l4(parsed.l4.into());
    m.hdr_mut().proto = parsed.proto.0;
    true
}

/// The loop has written everything it had: what was parked behind it may follow.
#[inline]
pub(crate) fn esp_written(cx: &mut Cx<'_>, top: &mut Held<'_, Top>, out: &mut Pending) {
    natt::tell_moves(cx);
    if cx.local.releasing.is_empty() {
        return;
    }
    let (_softnet, mut held) = cx.shared.locks.enter_softnet(top);
    let mut run = cx.local.run.take().unwrap_or_default();
    cx.local.releasing.written_output(order::Worker(cx.me as u16), &mut run, &mut held);
    run.set_owner(Owner::Worker);
    send_sealed(cx, 0, 0, &mut run, out);
    let (ledger, me, now) = (&cx.stats.ledger, worker(cx), cx.now);
    cx.local.releasing.written_input(me, now, &mut run, &mut held, |m, why| ledger.end(m, why));
    run.set_owner(Owner::Worker);
    for m in run.iter() {
        let sa = SaIndex::from_header(m.hdr().sa).and_then(|i| cx.net.sad.get(i));
        let protocol = sa.map_or(Protocol::Esp, |sa| sa.config().protocol);
        cx.stats.count.opened(protocol, 1, m.len() as u64);
    }
    take_opened(cx, &mut run, out);
    cx.local.run = Some(run);
    natt::tell_moves(cx);
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
