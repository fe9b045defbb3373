//! BEET mode, a bound end-to-end tunnel (draft-nikander-esp-beet-mode-09): addresses as in a tunnel, octets as in transport mode.
//!
//! ```text
//!   before   │ IP header, inner addresses │ options │ upper layer
//!   after    │ IP header, outer addresses │ ESP · IV │ pseudo-header · options │ upper layer · trailer │ ICV
//! ```
//!
//! The inner addresses are those of the SA, always the same, so they need not be sent: the sender takes the inner IP header
//! off and the receiver makes it anew, from the SA's addresses and the fields of the outer header, which are the inner one's (TTL
//! or hop limit, class, and of one family flow label, identification and DF). Between families an IPv6 packet arrives with flow
//! label 0 and an IPv4 packet as one with DF, as Linux does.
//!
//! IPv4 options go behind a pseudo-header (4.2.2); extension headers of IPv6 are upper layer:
//!
//! ```text
//!   0        1          2          3          4
//!   ├────────┼──────────┼──────────┼──────────┼── padding, 0 or 4 no-operations ──┼── options ──┤
//!   │  next  │ len/8-1  │ padding  │ reserved │
//! ```
//!
//! Deliberately not here: fragments of IPv4, which the outer header would have to tell of; AH and IPComp, for which nobody has
//! described it.

use super::{
    finished, input,
    layout::{Layout, TRAILER},
};
use crate::sa::{Mode, SaConfig};
use kern::{Mbuf, Why};
use std::net::IpAddr;
use wire::{IpProto, checksum, ipv4, ipv6};

/// What announces the pseudo-header.
const BEETPH: IpProto = IpProto(94);
/// Octets of the pseudo-header without padding.
const PSEUDO: usize = 4;
/// Octets by which pseudo-header and padding make a packet grow at most.
pub(super) const PSEUDO_MAX: usize = 8;
/// The most options that an IPv4 header has, in octets.
const OPTIONS_MAX: usize = 40;
/// An option of one octet that says nothing.
const NO_OPERATION: u8 = 1;

/// The inner addresses of an SA, as packets have them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    v6: bool,
    /// Source and destination, one behind the other; of IPv4 in the first eight octets.
    addresses: [u8; 32],
}

impl Inner {
    /// Those of an SA in this mode.
    pub(super) fn of(config: &SaConfig) -> Option<Inner> {
        let (src, dst) = config.inner.filter(|_| config.mode == Mode::Beet)?;
        let mut addresses = [0; 32];
        let v6 = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                addresses[..4].copy_from_slice(&src.octets());
                addresses[4..8].copy_from_slice(&dst.octets());
                false
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                addresses[..16].copy_from_slice(&src.octets());
                addresses[16..].copy_from_slice(&dst.octets());
                true
            }
            // `ValidConf` sees to it that they are of one family.
            _ => return None,
        };
        Some(Inner { v6, addresses })
    }

    /// Octets of the inner IP header without options.
    pub(super) const fn header(&self) -> usize {
        if self.v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN }
    }

    /// Octets that the pseudo-header takes at most.
    pub(super) const fn pseudo_max(&self) -> usize {
        if self.v6 { 0 } else { PSEUDO_MAX }
    }

    fn addresses(&self) -> &[u8] {
        if self.v6 { &self.addresses } else { &self.addresses[..8] }
    }
}

/// What an IP header says that goes from the inner into the outer one and back.
#[derive(Clone, Copy, Debug)]
struct Header {
    class: u8,
    df: bool,
    ident: u16,
    ttl: u8,
    label: u32,
}

impl Header {
    fn read(packet: &[u8]) -> Option<Header> {
        if packet.first()? >> 4 == 6 {
            let h: &[u8; ipv6::HEADER_LEN] = packet.first_chunk()?;
            let first = u32::from_be_bytes([h[0], h[1], h[2], h[3]]);
            let (class, label) = ((first >> 20) as u8, first & 0x000f_ffff);
            return Some(Header { class, df: true, ident: 0, ttl: h[7], label });
        }
        let h: &[u8; ipv4::HEADER_LEN] = packet.first_chunk()?;
        let ident = u16::from_be_bytes([h[4], h[5]]);
        Some(Header { class: h[1], df: h[6] & 0x40 != 0, ident, ttl: h[8], label: 0 })
    }

    /// Writes what it says over a header whose addresses and protocol are there.
    fn write(&self, packet: &mut [u8], total: usize) -> Option<()> {
        if packet.first()? >> 4 == 6 {
            let h: &mut [u8; ipv6::HEADER_LEN] = packet.first_chunk_mut()?;
            h[..4].copy_from_slice(&(6 << 28 | u32::from(self.class) << 20 | self.label).to_be_bytes());
            h[4..6].copy_from_slice(&u16::try_from(total.checked_sub(ipv6::HEADER_LEN)?).ok()?.to_be_bytes());
            h[7] = self.ttl;
            return Some(());
        }
        let header = packet.get_mut(..usize::from(packet[0] & 0x0f) * 4)?;
        let h: &mut [u8; ipv4::HEADER_LEN] = header.first_chunk_mut()?;
        h[1] = self.class;
        h[2..4].copy_from_slice(&u16::try_from(total).ok()?.to_be_bytes());
        h[4..6].copy_from_slice(&self.ident.to_be_bytes());
        h[6..8].copy_from_slice(&if self.df { ipv4::DF } else { 0 }.to_be_bytes());
        h[8] = self.ttl;
        h[10..12].fill(0);
        let sum = checksum::finish(checksum::sum(header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        Some(())
    }
}

/// Octets of the padding behind the pseudo-header that make it, itself and the options a multiple of eight.
const fn pseudo_padding(options: usize) -> usize {
    PSEUDO - (options & PSEUDO)
}

/// Puts the packet under the SA's outer addresses.
pub(super) fn encapsulate(layout: &Layout, inner: &Inner, m: &mut Mbuf, seq: u64) -> Result<(), Why> {
    finished(m)?;
    let header = Header::read(m.data()).ok_or(Why::EspProtocol)?;
    let next = take_off(inner, m)?;
    let pad = layout.pad(m.len());
    let tail = m.append(pad + TRAILER + layout.icv())?;
    if let Some(trailer) = tail.get_mut(..pad + TRAILER) {
        trailer[..pad].copy_from_slice(&layout.padding[..pad]);
        trailer[pad] = pad as u8;
        trailer[pad + 1] = next.0;
    }
    let behind = m.len() + layout.udp() + layout.esp_iv();
    let head = m.prepend(layout.head())?;
    let proto = if layout.udp() > 0 { IpProto::UDP } else { IpProto::ESP };
    let total = layout.ip() + behind;
    layout.write_ip(head, total, header.class, header.df, header.ident, proto)?;
    header.write(head, total).ok_or(Why::EspTooBig)?;
    layout.write_esp(head.get_mut(layout.ip()..).ok_or(Why::Headroom)?, behind, seq)?;
    layout.describe_outer(m, header.df, proto);
    Ok(())
}

/// Takes the inner IP header off; what is in front then. Only a packet of the SA's addresses has one that can be made anew.
fn take_off(inner: &Inner, m: &mut Mbuf) -> Result<IpProto, Why> {
    let packet = m.data_mut();
    let base = packet.get(..inner.header()).ok_or(Why::EspProtocol)?;
    let own = inner.addresses();
    let (version, proto) = if inner.v6 { (6, base[6]) } else { (4, base[9]) };
    if base[0] >> 4 != version || base[base.len() - own.len()..] != *own {
        return Err(Why::EspPolicy);
    }
    if inner.v6 {
        m.trim_front(ipv6::HEADER_LEN).map_err(|_| Why::EspMalformed)?;
        return Ok(IpProto(proto));
    }
    let options = (usize::from(base[0] & 0x0f) * 4).checked_sub(ipv4::HEADER_LEN).ok_or(Why::EspTransport)?;
    let fragment = u16::from_be_bytes([base[6], base[7]]) & !ipv4::DF != 0;
    if fragment || packet.len() < ipv4::HEADER_LEN + options {
        return Err(Why::EspTransport);
    }
    if options == 0 {
        m.trim_front(ipv4::HEADER_LEN).map_err(|_| Why::EspMalformed)?;
        return Ok(IpProto(proto));
    }
    // The options stay where they are; in front of them the end of the header makes room.
    let padding = pseudo_padding(options);
    m.trim_front(ipv4::HEADER_LEN - PSEUDO - padding).map_err(|_| Why::EspMalformed)?;
    let pseudo = m.data_mut().get_mut(..PSEUDO + padding).ok_or(Why::EspMalformed)?;
    pseudo[..PSEUDO].copy_from_slice(&[proto, (options / 8) as u8, padding as u8, 0]);
    pseudo[PSEUDO..].fill(NO_OPERATION);
    Ok(BEETPH)
}

/// What is behind the pseudo-header at the start of a payload.
struct Options {
    next: IpProto,
    /// Octets of pseudo-header and padding.
    skip: usize,
    /// Octets of options.
    len: usize,
}

fn options(payload: &[u8]) -> Option<Options> {
    let [next, words, padding, _] = *payload.first_chunk::<PSEUDO>()?;
    let (all, skip) = (8 + usize::from(words) * 8, PSEUDO + usize::from(padding));
    let len = all.checked_sub(skip).filter(|len| *len <= OPTIONS_MAX && len.is_multiple_of(4))?;
    (all <= payload.len()).then_some(Options { next: IpProto(next), skip, len })
}

/// Makes the inner IP header anew in front of the payload from `start` to `end`.
pub(super) fn decapsulate(
    inner: &Inner,
    m: &mut Mbuf,
    (start, end): (usize, usize),
    next: IpProto,
    sa: u32,
) -> Result<(), Why> {
    let payload = m.data().get(start..end).ok_or(Why::EspPadding)?;
    let Options { next, skip, len } = match next {
        IpProto::NO_NEXT => return Err(Why::EspDummy),
        BEETPH if !inner.v6 => options(payload).ok_or(Why::EspPadding)?,
        next => Options { next, skip: 0, len: 0 },
    };
    let header = Header::read(m.data()).ok_or(Why::EspMalformed)?;
    m.truncate(end);
    m.trim_front(start + skip).map_err(|_| Why::EspMalformed)?;
    let fresh = m.prepend(inner.header())?;
    fresh.fill(0);
    let own = inner.addresses();
    let at = fresh.len() - own.len();
    fresh[at..].copy_from_slice(own);
    if inner.v6 {
        (fresh[0], fresh[6]) = (0x60, next.0);
    } else {
        (fresh[0], fresh[9]) = (0x45 + (len / 4) as u8, next.0);
    }
    let total = m.len();
    header.write(m.data_mut(), total).ok_or(Why::EspTooBig)?;
    input::describe(m, if inner.v6 { 6 } else { 4 }, sa);
    Ok(())
}
