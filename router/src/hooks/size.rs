//! Packets too large for their tunnel, and what is known of the tunnel's way (RFC 4301, 8; RFC 2473, 7).
//!
//! What an SA can carry follows from the link by which it leaves and from what routers on the way have said, [`too_big_input`].
//! A packet that is larger
//!
//! - may not be fragmented: its sender is told what fits. To an IPv6 sender that is never less than what every IPv6 link
//!   carries; a smaller tunnel carries such a packet in a fragmented outer one.
//! - may be fragmented: in front of the tunnel if the SA says so (`-frag before`, or `-df set`), else the outer packet is, here, into
//!   pieces that fit all the way, for routers of IPv6 do not.
//! - is the router's own, or was put together by pf, or is sealed already: there is nobody to tell, and the outer packet is
//!   fragmented.
//!
//! In transport mode there is no packet in front that could be fragmented (RFC 4303, 3.3.4).

use super::{esp_output::mark_seen, way};
use crate::{
    icmp::{self, Error},
    iface::{cut, vnet},
    ip::output::{cut_into, finished, fragment_into},
    worker::{Cx, Pending, Stage},
};
use ipsec::{sa::Sa, spd::Rest};
use kern::{
    Batch, Gso, Mbuf, PktFlags, PktHdr, Survey, Why,
    lock::{Held, levels::Softnet},
};
use wire::ipv6;

/// The packets at the end of a batch that are for one SA.
pub(super) struct Group<'a> {
    /// The SA.
    pub(super) sa: &'a Sa,
    /// MTU of the link by which its packets leave.
    pub(super) link: u16,
    /// Of the whole batch, if that is the group and has not changed since.
    pub(super) survey: Option<&'a Survey>,
}

/// Moves packets of the last SA, at most `limit`, from the batch to the run; super-frames are cut on the way. Says how large a packet
/// of the run may be to fit the way: where bundles differ, in the narrowest.
pub(super) fn fill_run(
    cx: &mut Cx<'_>,
    group: &Group<'_>,
    batch: &mut Box<Batch>,
    run: &mut Box<Batch>,
    limit: usize,
    out: &mut Pending,
) -> usize {
    let sa = group.sa;
    let mtu = sa.path_mtu(group.link, cx.now);
    let inner_mtu = sa.inner_mtu(mtu.into());
    if let Some(survey) = group.survey
        && batch.len() <= limit
        && run.is_empty()
        && is_plain_all(survey, inner_mtu)
        && batch.iter().all(|m| m.hdr().nexthop == 0)
    {
        std::mem::swap(batch, run);
        return inner_mtu;
    }
    let from = batch.last_group(|m| m.hdr().sa);
    let room = limit.saturating_sub(run.len());
    if is_plain(batch.as_slice().get(from..).unwrap_or_default().iter().take(room), inner_mtu) {
        batch.move_from(from, room, run);
        return inner_mtu;
    }
    mark_seen(cx, batch);
    let (mut stuck, waiting, mut narrowest) = (false, batch.len(), inner_mtu);
    batch.sift_from(from, |m| {
        if stuck || run.len() >= limit {
            stuck = true;
            return Some(m);
        }
        let fits = Fits::of(cx, sa, &m, mtu);
        narrowest = narrowest.min(fits.inner);
        match fit(cx, sa, m, fits, (&mut *run, limit), waiting, out) {
            Fitted::All => None,
            Fitted::Rest(m) => {
                stuck = true;
                Some(m)
            }
            Fitted::Later(m) => Some(m),
        }
    });
    narrowest
}

/// What fits of a packet, over all that is left of its bundle.
#[derive(Clone, Copy)]
struct Fits {
    /// Of the last outer packet.
    outer: u16,
    /// Of the packet as it is.
    inner: usize,
}

impl Fits {
    /// Of a packet for an SA whose own packets may be so large.
    fn of(cx: &Cx<'_>, sa: &Sa, m: &Mbuf, mtu: u16) -> Fits {
        let rest = Rest::from_header(m.hdr().nexthop);
        let outer = cx.net.spd.path_mtu(rest, mtu, cx.now);
        let inner = sa.inner_mtu(usize::from(outer).saturating_sub(cx.net.spd.overhead(rest)));
        Fits { outer, inner }
    }
}

/// What became of a packet.
enum Fitted {
    /// Nothing of it is left.
    All,
    /// The run is full.
    Rest(Mbuf),
    /// There is no room in front of this stage for its segments, which come behind what waits there.
    Later(Mbuf),
}

impl From<Option<Mbuf>> for Fitted {
    fn from(rest: Option<Mbuf>) -> Fitted {
        rest.map_or(Fitted::All, Fitted::Rest)
    }
}

/// Whether all packets of a survey can be sealed as they are, bundles apart.
#[inline(always)]
fn is_plain_all(survey: &Survey, mtu: usize) -> bool {
    !survey.any_super() && survey.longest() <= mtu && !survey.any(PktFlags::PARTIAL)
}

/// Whether all these packets can be sealed as they are.
#[inline(always)]
fn is_plain<'m>(mut packets: impl Iterator<Item = &'m Mbuf>, mtu: usize) -> bool {
    packets.all(|m| {
        let h = m.hdr();
        // What is left of a bundle makes a packet grow, too.
        h.gso == Gso::None && m.len() <= mtu && h.nexthop == 0 && !h.flags.has(PktFlags::PARTIAL)
    })
}

/// Brings one packet into the run, whole or in pieces. `waiting` packets stay in front of this stage at most.
fn fit(
    cx: &mut Cx<'_>,
    sa: &Sa,
    mut m: Mbuf,
    Fits { outer, inner: inner_mtu }: Fits,
    (run, limit): (&mut Batch, usize),
    waiting: usize,
    out: &mut Pending,
) -> Fitted {
    let least = if m.hdr().family == 6 { ipv6::MIN_MTU } else { 0 };
    let is_super = m.hdr().gso != Gso::None;
    let segment = if is_super { vnet::header_len(&m) + usize::from(m.hdr().gso_size) } else { m.len() };
    if segment <= inner_mtu {
        return if is_super { cut_run(cx, m, run, limit) } else { enter(cx, m, run) }.into();
    }
    let flags = m.hdr().flags;
    let own = flags.any(PktFlags::ORIGIN.with(PktFlags::REFRAG).with(PktFlags::PROTECTED));
    if segment > inner_mtu.max(least) && flags.has(PktFlags::DF) && !own {
        let mtu = inner_mtu.max(least) as u16;
        icmp::error(cx, m, sa.config().protocol.why(Why::EspTooBig), Error::TooBig { mtu }, out);
        return Fitted::All;
    }
    if is_super {
        return cut_again(cx, m, waiting, out).map_or(Fitted::All, Fitted::Later);
    }
    if m.hdr().family == 4 && sa.fragments_before() && !flags.has(PktFlags::DF) {
        let Some(m) = finished(cx, m) else { return Fitted::All };
        return fragment_run(cx, m, inner_mtu, run, limit).into();
    }
    // How large the pieces of the outer packet may be; `send_sealed` looks.
    if Rest::from_header(m.hdr().nexthop).is_none() {
        m.hdr_mut().cursor = outer;
    }
    enter(cx, m, run).into()
}

/// One packet as it is. There is room for it.
fn enter(cx: &Cx<'_>, m: Mbuf, run: &mut Batch) -> Option<Mbuf> {
    let m = finished(cx, m)?;
    run.push(m).err()
}

/// A super-frame, cut into segments that fit.
fn cut_run(cx: &Cx<'_>, m: Mbuf, run: &mut Batch, limit: usize) -> Option<Mbuf> {
    cut_into(cx, m, limit - run.len(), |segment| join(cx, segment, run))
}

/// A super-frame whose segments are too large themselves: they come here again, behind those that stay.
fn cut_again(cx: &Cx<'_>, m: Mbuf, waiting: usize, out: &mut Pending) -> Option<Mbuf> {
    let limit = out.room(Stage::EspOutput).saturating_sub(waiting).min(cut::LIMIT);
    cut_into(cx, m, limit, |segment| out.push(Stage::EspOutput, segment, &cx.stats.ledger))
}

/// A packet in pieces that fit.
fn fragment_run(cx: &mut Cx<'_>, m: Mbuf, mtu: usize, run: &mut Batch, limit: usize) -> Option<Mbuf> {
    fragment_into(cx, m, mtu, limit - run.len(), |cx, piece| join(cx, piece, run))
}

/// A part of a packet, for which there is room.
fn join(cx: &Cx<'_>, part: Mbuf, run: &mut Batch) {
    if let Err(part) = run.push(part) {
        cx.end(part, Why::PendingFull);
    }
}

/// A sealed packet is larger than its way: `ip_output` makes pieces.
#[cold]
pub(super) fn refragment(h: &mut PktHdr) {
    h.flags.set(PktFlags::REFRAG);
    h.gso_size = std::mem::take(&mut h.cursor);
}

/// Fragmentation needed, or packet too big, about a packet that an SA of ours has sent: believed if we have such an SA, between
/// these ends, and it has sent such a number. False: it is about something else.
pub(crate) fn too_big_input(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, m: &Mbuf) -> bool {
    let Some((rest, quoted)) = m.data().get(m.l4() + 4..).and_then(<[u8]>::split_first_chunk::<4>) else {
        return false;
    };
    let Some((sa, seq)) = cx.net.sad.sent(quoted) else { return false };
    let said = u32::from_be_bytes(*rest);
    let mtu = match m.hdr().family {
        4 if said as u16 == 0 => plateau(quoted),
        4 => u32::from(said as u16),
        _ => said,
    };
    let count = &cx.stats.count;
    let believed = seq.is_none_or(|seq| sa.has_sent(u32::from_be_bytes(*seq), held))
        && sa.note_path_mtu(mtu, way::way(cx.net, sa).mtu, cx.now);
    if believed {
        count.path_mtu_learned.inc();
    } else {
        count.path_mtu_ignored.inc();
    }
    true
}

/// What an old router means that does not say what fits: the next size below that is usual (RFC 1191, 7.1).
fn plateau(quoted: &[u8]) -> u32 {
    const USUAL: [u16; 8] = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 576];
    let total = quoted.get(2..4).map_or(0, |n| u16::from_be_bytes([n[0], n[1]]));
    USUAL.into_iter().find(|usual| *usual < total).unwrap_or(576).into()
}
