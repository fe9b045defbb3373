//! `ip_output`: a packet leaves. A route if it has none yet (what the router itself sends, and outer packets), the SPD
//! for the former, pf out, and the MTU of the link.
//!
//! Larger than the link: refused with the size that fits (DF and IPv6), or fragmented. A super-frame goes out whole
//! where the device takes it and every segment fits; otherwise it is cut first, and what comes out is looked at again.

use super::fragment::{Fragmented, fragment};
use crate::{
    ether, hooks,
    hooks::Policy,
    icmp::{self, Error},
    iface::{Interface, cut, driver::Caps, vnet},
    route::NextHop,
    worker::{Cx, Pending, Stage},
};
use kern::{
    Batch, Gso, Mbuf, PktFlags, Survey, Why,
    lock::{Held, levels::Softnet},
};
use pf::Via;
use std::net::IpAddr;
use wire::siit;

/// Stage: packets on their way out, to `ether_output`.
pub(crate) fn ip_output(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    let mut ways = Ways::of(batch);
    if ways.unrouted {
        let mut last = None;
        batch.sift(|m| if is_unrouted(&m) { route(cx, m, &mut last, out) } else { Some(m) });
        ways = Ways::of(batch);
    }
    let unchanged = hooks::pf_out(cx, held, ways.via, batch, &ways.survey, out);
    cx.stats.count.ip_output.add(batch.len() as u64);
    if (unchanged && ways.fit(cx)) || all_fit(cx, batch) {
        out.pass(Stage::EtherOutput, batch, &cx.stats.ledger);
    } else {
        resize(cx, held, batch, out);
    }
}

/// Where the packets of a batch go.
struct Ways {
    /// Some have no route yet.
    unrouted: bool,
    /// The interface, if it is one for all.
    via: Via,
    survey: Survey,
}

impl Ways {
    #[inline(always)]
    fn of(batch: &Batch) -> Ways {
        let egress = batch.as_slice().first().map_or(0, |m| m.hdr().egress);
        let (mut unrouted, mut other, mut survey) = (false, false, Survey::new());
        for m in batch {
            unrouted |= is_unrouted(m);
            other |= m.hdr().egress != egress;
            survey.add(m);
        }
        Ways { unrouted, via: if other { Via::Egress } else { Via::One(pf::IfIndex(egress)) }, survey }
    }

    /// Whether all packets may go to one device as they are, as far as the survey tells.
    #[inline(always)]
    fn fit(&self, cx: &Cx<'_>) -> bool {
        let Via::One(egress) = self.via else { return false };
        !self.survey.any_super()
            && !self.survey.any(PktFlags::PARTIAL.with(PktFlags::REFRAG))
            && cx.net.interface(egress.0).is_some_and(|i| self.survey.longest() <= usize::from(i.mtu))
    }
}

#[inline(always)]
fn is_unrouted(m: &Mbuf) -> bool {
    m.hdr().nexthop == 0 && m.hdr().egress == 0
}

/// The route of the packet before: outer packets come in runs for one peer.
type Last = Option<(IpAddr, u32, u16)>;

/// Finds the route of a packet that the router itself sends, or of an outer packet.
#[inline(always)]
fn route(cx: &mut Cx<'_>, mut m: Mbuf, last: &mut Last, out: &mut Pending) -> Option<Mbuf> {
    let dst = ether::destination(&m);
    if let Some((to, nexthop, egress)) = *last
        && to == dst
        && m.hdr().flags.has(PktFlags::PROTECTED)
    {
        let h = m.hdr_mut();
        (h.nexthop, h.egress) = (nexthop, egress);
        return Some(m);
    }
    route_anew(cx, m, dst, last, out)
}

fn route_anew(cx: &mut Cx<'_>, mut m: Mbuf, dst: IpAddr, last: &mut Last, out: &mut Pending) -> Option<Mbuf> {
    let (id, hop, is_one) = if is_on_link(dst) {
        // The interface is not known from the address: replies to link-local and group traffic leave where the
        // packet that caused them came in.
        (0, NextHop::Connected { iface: crate::route::IfIndex(m.hdr().rcvif) }, false)
    } else {
        let found = cx.net.fib.lookup(dst);
        let (id, hop) = cx.net.fib.resolve(found, m.hdr().hash);
        // A choice between paths has another number than the path that this flow takes.
        (id.0, *hop, id == found)
    };
    let egress = match hop {
        NextHop::Connected { iface } | NextHop::Gateway { iface, .. } | NextHop::Broadcast { iface } => {
            iface.0
        }
        NextHop::Local { .. } => {
            // To ourselves: straight back in.
            m.hdr_mut().rcvif = m.hdr().rcvif.max(hop.iface().map_or(0, |i| i.0));
            out.push(Stage::IpInput, m, &cx.stats.ledger);
            return None;
        }
        _ => {
            cx.end(m, Why::NoRoute);
            return None;
        }
    };
    let h = m.hdr_mut();
    h.egress = egress;
    h.nexthop = id;
    if h.flags.has(PktFlags::PROTECTED) {
        *last = is_one.then_some((dst, id, egress));
        return Some(m);
    }
    protect(cx, m, out)
}

fn is_on_link(dst: IpAddr) -> bool {
    match dst {
        IpAddr::V4(a) => a.is_multicast() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_multicast() || a.is_unicast_link_local(),
    }
}

/// What the router itself sends meets the SPD like any other packet.
fn protect(cx: &mut Cx<'_>, mut m: Mbuf, out: &mut Pending) -> Option<Mbuf> {
    match hooks::policy_out(cx, &mut m) {
        Policy::None => return Some(m),
        Policy::Protect => out.push(Stage::EspOutput, m, &cx.stats.ledger),
        Policy::Refuse(why) => cx.end(m, why),
        Policy::Discard => cx.end(m, Why::SpDiscard),
    }
    None
}

/// Whether all packets may go to their devices as they are.
#[inline(always)]
fn all_fit(cx: &Cx<'_>, batch: &Batch) -> bool {
    let mut to: Option<&Interface> = None;
    batch.iter().all(|m| {
        if to.is_none_or(|i| i.index.0 != m.hdr().egress) {
            to = cx.net.interface(m.hdr().egress);
        }
        to.is_none_or(|interface| fits_in(interface, m))
    })
}

/// Whether a packet may go to its device as it is.
fn fits(cx: &Cx<'_>, m: &Mbuf) -> bool {
    cx.net.interface(m.hdr().egress).is_none_or(|interface| fits_in(interface, m))
}

#[inline(always)]
fn fits_in(interface: &Interface, m: &Mbuf) -> bool {
    if m.hdr().gso == Gso::None {
        return m.len() <= usize::from(interface.mtu)
            && (!m.hdr().flags.any(PktFlags::PARTIAL.with(PktFlags::REFRAG)) || fits_as_it_is(interface, m));
    }
    whole(interface, m)
}

#[cold]
fn fits_as_it_is(interface: &Interface, m: &Mbuf) -> bool {
    let flags = m.hdr().flags;
    (!flags.has(PktFlags::PARTIAL) || interface.caps.checksum)
        && (!flags.has(PktFlags::REFRAG) || m.len() <= usize::from(m.hdr().gso_size))
}

/// Whether a super-frame may go out whole.
fn whole(interface: &Interface, m: &Mbuf) -> bool {
    takes(interface.caps, m.hdr().gso)
        && vnet::header_len(m) + usize::from(m.hdr().gso_size) <= usize::from(interface.mtu)
        && interface.ifq.as_ref().is_none_or(|q| !q.must_cut(m))
}

fn takes(caps: Caps, gso: Gso) -> bool {
    match gso {
        Gso::None => true,
        Gso::Tcp4 | Gso::Tcp6 => caps.tso,
        Gso::Udp4 | Gso::Udp6 => caps.uso,
    }
}

/// Sends packets on one by one, cutting and fragmenting; stops when there is no room ahead and leaves the rest.
fn resize(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, batch: &mut Box<Batch>, out: &mut Pending) {
    let mut stuck = false;
    batch.sift(|m| {
        if stuck || out.room(Stage::EtherOutput) == 0 {
            return Some(kept(m));
        }
        let rest = resize_one(cx, held, m, out);
        stuck = rest.is_some();
        rest.map(kept)
    });
}

/// A packet that comes here again: pf has passed, and perhaps translated, it already.
fn kept(mut m: Mbuf) -> Mbuf {
    m.hdr_mut().flags.set(PktFlags::NO_PF);
    m
}

/// Sends one packet on; gives it back if more of it is to come.
fn resize_one(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, mut m: Mbuf, out: &mut Pending) -> Option<Mbuf> {
    if fits(cx, &m) {
        out.push(Stage::EtherOutput, m, &cx.stats.ledger);
        return None;
    }
    let net = cx.net;
    let interface = net.interface(m.hdr().egress)?;
    let mtu = usize::from(interface.mtu);
    if m.hdr().flags.has(PktFlags::REFRAG) {
        return refragment(cx, held, m, interface.mtu, out);
    }
    if m.hdr().gso != Gso::None {
        let segment = vnet::header_len(&m) + usize::from(m.hdr().gso_size);
        if segment > mtu && m.hdr().flags.has(PktFlags::DF) {
            return too_big(cx, held, m, interface.mtu, out);
        }
        return cut_one(cx, m, segment > mtu, out);
    }
    if m.hdr().flags.has(PktFlags::PARTIAL) && !interface.caps.checksum {
        m = finished(cx, m)?;
    }
    if m.len() <= mtu {
        out.push(Stage::EtherOutput, m, &cx.stats.ledger);
        return None;
    }
    // The outer packet of a tunnel is ours too (RFC 2473, 7.2).
    let own = m.hdr().flags.any(PktFlags::ORIGIN.with(PktFlags::PROTECTED));
    if m.hdr().flags.has(PktFlags::DF) && !(own && m.hdr().family == 6) {
        return too_big(cx, held, m, interface.mtu, out);
    }
    let m = finished(cx, m)?;
    fragment_one(cx, m, mtu, out)
}

/// Takes a datagram apart that was put together for pf. An IPv6 sender whose fragments are too large is told so.
fn refragment(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    m: Mbuf,
    mtu: u16,
    out: &mut Pending,
) -> Option<Mbuf> {
    let size = m.hdr().gso_size;
    if m.hdr().family == 6 && size > mtu {
        return too_big(cx, held, m, mtu, out);
    }
    let m = finished(cx, m)?;
    fragment_one(cx, m, size.min(mtu).into(), out)
}

/// The packet with its transport checksum whole; a packet whose offload fields lie ends.
pub(crate) fn finished(cx: &Cx<'_>, mut m: Mbuf) -> Option<Mbuf> {
    match cut::finish_checksum(&mut m) {
        Ok(()) => Some(m),
        Err(why) => {
            cx.end(m, why);
            None
        }
    }
}

/// Tells the sender what fits; it knows its packet as it was before pf translated it.
fn too_big(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    mut m: Mbuf,
    mtu: u16,
    out: &mut Pending,
) -> Option<Mbuf> {
    let family = m.hdr().family;
    hooks::untranslate(cx, held, &mut m);
    // What fits is told in the family that the sender speaks.
    let mtu = match (family, m.hdr().family) {
        (4, 6) => mtu.saturating_add(siit::DIFFERENCE),
        (6, 4) => mtu - siit::DIFFERENCE,
        _ => mtu,
    };
    icmp::error(cx, m, Why::TooBig, Error::TooBig { mtu }, out);
    None
}

/// Cuts as many segments as fit ahead. Segments that are still too big come back here, to be fragmented.
fn cut_one(cx: &mut Cx<'_>, mut m: Mbuf, again: bool, out: &mut Pending) -> Option<Mbuf> {
    let ahead = if again { Stage::IpOutput } else { Stage::EtherOutput };
    if again {
        // pf has passed, and perhaps translated, the whole.
        m.hdr_mut().flags.set(PktFlags::NO_PF);
    }
    let limit = out.room(ahead).min(cut::LIMIT);
    cut_into(cx, m, limit, |segment| out.push(ahead, segment, &cx.stats.ledger))
}

fn fragment_one(cx: &mut Cx<'_>, m: Mbuf, mtu: usize, out: &mut Pending) -> Option<Mbuf> {
    let limit = out.room(Stage::EtherOutput).min(cut::LIMIT);
    fragment_into(cx, m, mtu, limit, |cx, piece| out.push(Stage::EtherOutput, piece, &cx.stats.ledger))
}

/// Cuts up to `limit` segments off a super-frame, counts them, and gives it back if more are to come.
pub(crate) fn cut_into(cx: &Cx<'_>, mut m: Mbuf, limit: usize, mut push: impl FnMut(Mbuf)) -> Option<Mbuf> {
    let mut made = 0;
    let done = cut::cut(&mut m, limit, &cx.shared.pool, &cx.stats.ledger, &mut |segment| {
        made += 1;
        push(segment);
    });
    cx.stats.count.segments.add(made);
    finish(cx, m, matches!(done, cut::Cut::Done), true)
}

/// Makes up to `limit` fragments of a packet, counts them, and gives it back if more are to come.
pub(crate) fn fragment_into(
    cx: &mut Cx<'_>,
    mut m: Mbuf,
    mtu: usize,
    limit: usize,
    mut push: impl FnMut(&Cx<'_>, Mbuf),
) -> Option<Mbuf> {
    let done = fragment(cx, &mut m, mtu, limit, |cx, piece| {
        cx.stats.count.fragments_made.inc();
        push(cx, piece);
    });
    match done {
        Fragmented::Failed(why) => {
            cx.end(m, why);
            None
        }
        Fragmented::Done => finish(cx, m, true, false),
        Fragmented::More => Some(m),
    }
}

fn finish(cx: &Cx<'_>, m: Mbuf, done: bool, was_cut: bool) -> Option<Mbuf> {
    if !done {
        return Some(m);
    }
    let count = &cx.stats.count;
    if was_cut {
        count.cut.inc();
    } else {
        count.fragmented.inc();
    }
    cx.stats.ledger.merge(m);
    None
}
