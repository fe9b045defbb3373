//! Cutting a super-frame into the segments it stands for, in software: what a device does for TSO and USO.
//!
//! The arithmetic is `wire::segment`'s; here are the buffers and the books. Each segment begins as *split*; the
//! super-frame stays with the caller, who ends it as *merged* when [`Cut::Done`] comes back. At most `limit` segments are made
//! a call and `hdr.cursor` remembers how far it came, so that a stage can stop with its batch full. Segments for which there is no
//! buffer are counted as split and ended: the books stay exact, and TCP will send them again.
//!
//! ```text
//!  link header | IP | TCP | payload 0 | payload 1 | payload 2 |      one super-frame, l3 offset set, checksum partial
//!  link header | IP'| TCP'| payload 0 |                              three clusters, checksums whole
//!  link header | IP'| TCP'| payload 1 | ...
//! ```
//!
//! The data may begin at the Ethernet header or at the IP header (l3 offset 0). Not here: fragmentation, and the decision
//! whether to cut at all.

use super::vnet;
use kern::{Class, Gso, Ledger, Mbuf, Owner, PktFlags, Pool, Why, mbuf::HEADROOM};
use wire::{
    checksum,
    segment::{self, Kind},
};

/// Segments that a stage makes in one turn.
pub const LIMIT: usize = 64;

/// Octets of data that go into a cluster, with room left behind for a trailer.
const CLUSTER_ROOM: usize = Class::Cluster.capacity() - HEADROOM - 64;

/// How far cutting came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All segments are made, or counted as lost: the super-frame ends as merged.
    Done,
    /// The limit was reached: call again.
    More,
}

const fn kind(gso: Gso) -> Option<Kind> {
    match gso {
        Gso::None => None,
        Gso::Tcp4 => Some(Kind::Tcp4),
        Gso::Tcp6 => Some(Kind::Tcp6),
        Gso::Udp4 => Some(Kind::Udp4),
        Gso::Udp6 => Some(Kind::Udp6),
    }
}

/// Makes up to `limit` more segments of a super-frame and gives them to `emit`, in order.
#[inline]
pub fn cut(m: &mut Mbuf, limit: usize, pool: &Pool, ledger: &Ledger, emit: &mut impl FnMut(Mbuf)) -> Cut {
    let (l3, start) = (m.l3(), m.csum_start());
    let first = usize::from(m.hdr().cursor);
    let (link, packet) = m.data().split_at(l3.min(m.len()));
    let (headers, payload) = packet.split_at(vnet::header_len(m).saturating_sub(l3).min(packet.len()));
    let size = usize::from(m.hdr().gso_size);
    let plan = kind(m.hdr().gso).and_then(|kind| {
        segment::Cut::new(headers, kind, start.checked_sub(l3)?, size, payload.len(), false).ok()
    });
    let Some(plan) = plan else {
        ledger.split_away(1, Why::IfOffload);
        return Cut::Done;
    };
    let last = plan.segments().min(first + limit);
    for index in first..last {
        match make(m, &plan, index, link, payload, pool, ledger) {
            Ok(segment) => emit(segment),
            Err(why) => {
                ledger.split_away((plan.segments() - index) as u64, why);
                return Cut::Done;
            }
        }
    }
    let done = last == plan.segments();
    m.hdr_mut().cursor = last as u16;
    if done { Cut::Done } else { Cut::More }
}

/// Makes segment `index`.
#[inline(always)]
fn make(
    whole: &Mbuf,
    plan: &segment::Cut<'_>,
    index: usize,
    link: &[u8],
    payload: &[u8],
    pool: &Pool,
    ledger: &Ledger,
) -> Result<Mbuf, Why> {
    let len = link.len() + plan.segment_len(index);
    let class = if len <= CLUSTER_ROOM { Class::Cluster } else { Class::Jumbo };
    let mut segment = pool.alloc(class, Owner::Worker).ok_or(Why::NoBuffer)?;
    let octets = segment.append(len)?;
    octets[..link.len()].copy_from_slice(link);
    plan.write_segment(index, payload, &mut octets[link.len()..]).map_err(|_| Why::IfOffload)?;
    ledger.split(&mut segment);
    let hdr = segment.hdr_mut();
    hdr.inherit(whole.hdr());
    hdr.flags.clear(PktFlags::PARTIAL);
    hdr.flags.set(PktFlags::CSUM_OK);
    segment.set_l3(link.len());
    segment.set_l4(whole.csum_start());
    Ok(segment)
}

/// Finishes a partial checksum; other packets are left as they are. A super-frame becomes one large packet.
pub fn finish_checksum(m: &mut Mbuf) -> Result<(), Why> {
    if !m.hdr().flags.has(PktFlags::PARTIAL) {
        return Ok(());
    }
    let (start, offset) = (m.csum_start(), usize::from(m.hdr().csum_offset));
    checksum::finish_partial(m.data_mut(), start, offset).map_err(|_| Why::IfOffload)?;
    m.set_gso(Gso::None, 0);
    m.hdr_mut().flags.clear(PktFlags::PARTIAL);
    m.hdr_mut().flags.set(PktFlags::CSUM_OK);
    Ok(())
}
