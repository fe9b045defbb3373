//! AH (RFC 4302): integrity of a whole packet, but for what changes on its way.
//!
//! ```text
//!   0        1        2                4        8        12                    12+n
//!   ├────────┼────────┼────────────────┼────────┼────────┼─────────────────────┼─────────┤
//!   │  next  │ len-2  │    reserved    │  SPI   │  seq   │  ICV, n octets      │ padding │
//! ```
//!
//! The padding makes the header a multiple of four octets over IPv4 and of eight over IPv6 (3.3.3.2.1); a Linux peer pads
//! to eight over IPv4 too unless told otherwise, and `align8` does as it does. On the way in either is taken, for the ICV
//! is over the padding as it came. With extended sequence numbers the high half counts behind the packet (2.5.1).
//!
//! Sequence numbers, the window, order and lives are ESP's ([`crate::esp`]), and so are `begin` and `finish`: this module
//! is what they call for an SA of AH. What is muted is in `mute.rs`.
//!
//! Deliberately not here: packets with a routing header that has stops left, of which the final form would have to be
//! predicted; and GMAC.

mod mute;

use crate::{
    esp::{
        Layout, finished,
        input::{seq_of, settle},
        output::inherited,
        transport::{self, describe},
    },
    ip,
    sa::Sa,
    transform::{Failures, Mac},
};
use kern::{Batch, Mbuf, Why};
use wire::{IpProto, ah::HEADER_LEN};

/// The longest IP header with extensions in front of AH that is taken.
const FRONT: usize = 512;
/// No ICV is longer.
const ICV: usize = 32;

/// Octets of the header over an IP header of this family.
pub(crate) const fn header_len(icv: usize, v6: bool, align8: bool) -> usize {
    (HEADER_LEN + icv).next_multiple_of(if v6 || align8 { 8 } else { 4 })
}

/// Puts AH, its ICV zero, and in tunnel mode an outer header into the packet.
pub(crate) fn encapsulate(layout: &Layout, m: &mut Mbuf, seq: u64) -> Result<(), Why> {
    finished(m)?;
    let (at, next) = if layout.is_tunnel() {
        let (class, df, next) = inherited(m.data())?;
        let total = layout.ip() + layout.ah(layout.is_v6()) + m.len();
        m.prepend(layout.ip() + layout.ah(layout.is_v6()))?;
        layout.write_ip(m.data_mut(), total, class, df, seq as u16, IpProto::AH)?;
        layout.label(m);
        layout.describe_outer(m, df, IpProto::AH);
        (layout.ip(), next)
    } else {
        let front = ip::front(m.data())?;
        let v6 = m.hdr().family == 6;
        transport::open_gap(m, front.at, layout.ah(v6))?;
        ip::announce(m.data_mut(), front.field, IpProto::AH)?;
        describe(layout, m, front.at, IpProto::AH);
        (front.at, front.next)
    };
    let len = layout.ah(m.hdr().family == 6);
    let header = m.data_mut().get_mut(at..at + len).ok_or(Why::Headroom)?;
    header.fill(0);
    header[0] = next.0;
    header[1] = (len / 4 - 2) as u8;
    header[4..8].copy_from_slice(&layout.spi);
    header[8..12].copy_from_slice(&(seq as u32).to_be_bytes());
    Ok(())
}

/// Fills in the ICVs.
pub(crate) fn seal_run(sa: &Sa, run: &mut Batch, first: u64) -> Failures {
    let esn = sa.config().esn;
    Failures::of(run.iter_mut().map(|m| {
        let Some(mac) = sa.transform.mac() else { return false };
        let low = low_seq(m.data(), m.l4());
        let seq = first + u64::from(low.wrapping_sub(first as u32));
        let (mut icv, len, at) = ([0; ICV], sa.layout.icv(), m.l4() + HEADER_LEN);
        with_parts(m, len, esn.then_some(seq), |parts| mac.sign(parts, &mut icv[..len])) == Some(true)
            && m.data_mut().get_mut(at..at + len).map(|place| place.copy_from_slice(&icv[..len])).is_some()
    }))
}

/// Verifies the ICVs.
pub(crate) fn open_run(sa: &Sa, run: &mut Batch) -> Failures {
    let esn = sa.config().esn;
    Failures::of(run.iter_mut().map(|m| sa.transform.mac().is_some_and(|mac| verify(sa, mac, m, esn))))
}

fn verify(sa: &Sa, mac: &Mac, m: &Mbuf, esn: bool) -> bool {
    let (len, at) = (sa.layout.icv(), m.l4() + HEADER_LEN);
    let Some(icv) = m.data().get(at..at + len) else { return false };
    with_parts(m, len, esn.then(|| seq_of(m)), |parts| mac.verify(parts, icv)) == Some(true)
}

/// Hands over what the ICV is about, in parts: the front with its mutable fields muted, AH up to the ICV, zeros for the
/// ICV, the rest of the packet, and the high half of an extended sequence number.
fn with_parts<R>(m: &Mbuf, icv: usize, seq: Option<u64>, f: impl FnOnce(&[&[u8]]) -> R) -> Option<R> {
    let (packet, at) = (m.data(), m.l4());
    let mut muted = [0; FRONT];
    let muted = muted.get_mut(..at)?;
    muted.copy_from_slice(packet.get(..at)?);
    mute::mute(muted)?;
    let (header, behind) = packet.get(at..)?.split_at_checked(HEADER_LEN)?;
    let high = seq.map(|seq| ((seq >> 32) as u32).to_be_bytes());
    let high = high.as_ref().map_or(&[][..], |high| &high[..]);
    Some(f(&[muted, header, &[0; ICV][..icv], behind.get(icv..)?, high]))
}

/// The low half of the sequence number of the AH at `at`; 0 if there is none.
fn low_seq(packet: &[u8], at: usize) -> u32 {
    let seq = packet.get(at + 8..).and_then(<[u8]>::first_chunk);
    seq.map_or(0, |seq| u32::from_be_bytes(*seq))
}

/// Octets of the AH at `at`, whose ICV has `icv` octets.
fn len_of(packet: &[u8], at: usize, icv: usize) -> Option<usize> {
    let len = (usize::from(*packet.get(at + 1)?) + 2) * 4;
    let bare = HEADER_LEN + icv;
    ((bare..bare + 8).contains(&len) && at + len <= packet.len()).then_some(len)
}

/// Whether this can be an AH packet of the SA at all; the low half of its number.
pub(crate) fn look(layout: &Layout, m: &Mbuf) -> Result<u32, Why> {
    len_of(m.data(), m.l4(), layout.icv()).ok_or(Why::AhMalformed)?;
    Ok(low_seq(m.data(), m.l4()))
}

/// Octets of payload.
pub(crate) fn payload(layout: &Layout, m: &Mbuf) -> usize {
    let header = len_of(m.data(), m.l4(), layout.icv()).unwrap_or(0);
    m.len().saturating_sub(m.l4() + header)
}

/// Takes AH, and in tunnel mode the outer header, off a verified packet.
pub(crate) fn decapsulate(layout: &Layout, m: &mut Mbuf, sa: u32) -> Result<(), Why> {
    let at = m.l4();
    let len = len_of(m.data(), at, layout.icv()).ok_or(Why::AhMalformed)?;
    let next = IpProto(*m.data().get(at).ok_or(Why::AhMalformed)?);
    let end = m.len();
    if layout.takes_off(next)? {
        settle(layout, m, at + len, end, next, sa)
    } else {
        transport::decapsulate(m, IpProto::AH, len, end, next, sa)
    }
}
