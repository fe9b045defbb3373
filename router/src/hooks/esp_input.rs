//! Packets out of their SAs, and the check that they are what the SAs are for.

use super::{enc, natt, policy, tunnel, turn};
use crate::{
    netconfig::NetConfig,
    worker::{Cx, Pending, Stage},
};
use ipsec::{
    esp,
    sa::{Protocol, Sa, SaIndex, Spi},
    spd::{Content, Path},
};
use kern::{
    Batch, Class, Mbuf, Owner, Pool, Why,
    lock::{Held, levels::Softnet},
};
use std::sync::Arc;
use wire::IpProto;

/// Stage: ESP to us, out of its tunnels and back to `ip_input`.
pub(crate) fn esp_input(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    let net = cx.net;
    natt::demultiplex(cx, batch, out);
    let mut last = None;
    let alone = turn::gather(cx, batch, |m| {
        let named = named4(m);
        let sa = match named {
            Some(named) if last.is_some_and(|(before, _)| before == named) => last.map_or(0, |(_, sa)| sa),
            Some(named) => find_sa4(net, named),
            None => find_sa(net, m),
        };
        last = named.map(|named| (named, sa));
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
            turn::keep(cx, batch, &mut run);
            break;
        }
    }
    cx.local.run = Some(run);
}

/// Why a packet names no SA that is there: what ends before its SPI names none at all.
#[cold]
fn no_sa(m: &Mbuf) -> Why {
    let (protocol, named) = match IpProto(m.hdr().proto) {
        IpProto::AH => (Protocol::Ah, 8),
        IpProto::IPCOMP => (Protocol::Ipcomp, 4),
        _ => (Protocol::Esp, 4),
    };
    protocol.why(if m.len() < m.l4() + named { Why::EspMalformed } else { Why::EspNoSa })
}

/// What names the SA of ESP over IPv4 without options: destination and SPI, which lie side by side. The next packet mostly says
/// the same.
#[inline(always)]
fn named4(m: &Mbuf) -> Option<[u8; 8]> {
    if (m.hdr().family, IpProto(m.hdr().proto)) != (4, IpProto::ESP) || m.l4() != 20 {
        return None;
    }
    m.data().get(16..24)?.first_chunk().copied()
}

/// The SA of a packet that [`named4`] told of, as its header says it.
#[inline(always)]
fn find_sa4(net: &NetConfig, [d0, d1, d2, d3, s0, s1, s2, s3]: [u8; 8]) -> u32 {
    let spi = Spi(u32::from_be_bytes([s0, s1, s2, s3]));
    net.sad.inbound_esp4([d0, d1, d2, d3], spi).map_or(0, SaIndex::to_header)
}

/// The SA of any packet.
#[inline(never)]
fn find_sa(net: &NetConfig, m: &Mbuf) -> u32 {
    net.sad.for_packet(m.data(), IpProto(m.hdr().proto), m.l4()).map_or(0, |sa| sa.index().to_header())
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
    let mut turn = turn::loop_turn(cx);
    if esp::input::esp_input(sa, run, &mut turn, held, |m, why| ledger.end(m, why)).is_err() {
        return false;
    }
    if inflates {
        resize(cx, run, |m| m.class() == Class::Jumbo && m.len() <= CLUSTER_ROOM, Class::Cluster);
    }
    let packets = run.len() as u64;
    let octets = take_opened(cx, run, sa.is_tunnel(), out);
    cx.stats.count.opened(sa.config().protocol, packets, octets);
    true
}

/// What fits into a cluster, with room for headers in front and behind.
pub(super) const CLUSTER_ROOM: usize = 1700;

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
pub(super) fn twin(pool: &Pool, m: &Mbuf, class: Class) -> Option<Mbuf> {
    let mut other = pool.alloc(class, Owner::Worker)?;
    other.append(m.len()).ok()?.copy_from_slice(m.data());
    other.hdr_mut().inherit(m.hdr());
    other.set_l3(m.l3());
    other.set_l4(m.l4());
    Some(other)
}

/// What came out of SAs must be what they are for. `tunnel`: all are of SAs that are tunnels. Returns how many octets it was.
pub(super) fn take_opened(cx: &mut Cx<'_>, run: &mut Box<Batch>, tunnel: bool, out: &mut Pending) -> u64 {
    enc::opened(cx, run);
    let (mut octets, mut content) = (0, Content::default());
    let usual = tunnel && cx.net.tunnels.is_empty();
    run.sift(|mut m| {
        octets += m.len() as u64;
        let path = Path::from_header(m.hdr().sa, m.hdr().nexthop);
        // The packets of a run are mostly of one policy.
        if usual && cx.net.spd.is_content4(m.data(), path, &cx.local.flows, &content) {
            m.hdr_mut().nexthop = 0;
            return Some(m);
        }
        take_one(cx, m, (path, tunnel), &mut content, out)
    });
    out.pass(Stage::IpInput, run, &cx.stats.ledger);
    octets
}

/// One packet that came out of SAs, by the way it has come; `tunnel`: the last of them is one. Back if it may go on.
#[inline(never)]
fn take_one(
    cx: &mut Cx<'_>,
    mut m: Mbuf,
    (path, tunnel): (Path, bool),
    content: &mut Content,
    out: &mut Pending,
) -> Option<Mbuf> {
    let tunnels = &cx.net.tunnels;
    if !tunnels.is_empty()
        && let Some(index) = tunnels.arrived(&m)
    {
        tunnel::tunnel_input(cx, index, m, out);
        return None;
    }
    let checked = policy::policy_in(cx, &m, path, content);
    // What a tunnel's policy is content with is no layer of a bundle.
    if (checked.is_err() || !tunnel) && is_ipsec(cx.net, &m) && is_layer(cx.net, &mut m, checked.is_ok()) {
        m.hdr_mut().nexthop = path.earlier();
        out.push(Stage::EspInput, m, &cx.stats.ledger);
        return None;
    }
    m.hdr_mut().nexthop = 0;
    if let Err(why) = checked {
        let opened = SaIndex::from_header(m.hdr().sa).and_then(|sa| cx.net.sad.get(sa));
        cx.end(m, opened.map_or(why, |sa| sa.config().protocol.why(why)));
        return None;
    }
    Some(m)
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
    if content && opened.is_none_or(|sa| sa.is_tunnel()) {
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
