//! The IP headers in front of an IPsec header: where it goes in transport mode, which octet announces it, and what changes
//! in them when it comes or goes (RFC 4302, 3.1; RFC 4303, 3.1; RFC 3173, 3).
//!
//! ```text
//!  v4:  IPv4 · options │ here │ upper layer
//!  v6:  IPv6 · hop-by-hop · options for the routing header's stops · routing │ here │ destination options · upper layer
//! ```
//!
//! Fragments have no place: IPsec comes before fragmentation and after reassembly.

use kern::Why;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{IpProto, checksum, ipv4, ipv6};

/// The source address of a packet that begins with its IP header.
pub(crate) fn source(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 12, 8)
}

/// The destination address of a packet that begins with its IP header.
#[inline(always)]
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 16, 24)
}

/// The address at one place in an IPv4 header, at another in one of IPv6.
#[inline(always)]
fn address(packet: &[u8], v4: usize, v6: usize) -> Option<IpAddr> {
    Some(match packet.first()? >> 4 {
        4 => IpAddr::V4(Ipv4Addr::from_octets(*packet.get(v4..)?.first_chunk::<4>()?)),
        _ => IpAddr::V6(Ipv6Addr::from_octets(*packet.get(v6..)?.first_chunk::<16>()?)),
    })
}

/// A place for an IPsec header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    /// Where it goes.
    pub(crate) at: usize,
    /// The octet that says what stands there.
    pub(crate) field: usize,
    /// What it says now.
    pub(crate) next: IpProto,
}

/// Where an IPsec header goes into this packet.
pub(crate) fn front(packet: &[u8]) -> Result<Front, Why> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => front4(packet),
        Some(6) => front6(packet),
        _ => Err(Why::EspProtocol),
    }
}

fn front4(packet: &[u8]) -> Result<Front, Why> {
    let header: &[u8; ipv4::HEADER_LEN] = packet.first_chunk().ok_or(Why::EspTransport)?;
    let at = usize::from(header[0] & 0x0f) * 4;
    let fragment = u16::from_be_bytes([header[6], header[7]]) & !ipv4::DF != 0;
    if at < ipv4::HEADER_LEN || at > packet.len() || fragment {
        return Err(Why::EspTransport);
    }
    Ok(Front { at, field: 9, next: IpProto(header[9]) })
}

fn front6(packet: &[u8]) -> Result<Front, Why> {
    let next = *packet.get(6).ok_or(Why::EspTransport)?;
    let mut front = Front { at: ipv6::HEADER_LEN, field: 6, next: IpProto(next) };
    while let IpProto::HOPOPTS | IpProto::ROUTING | IpProto::DSTOPTS | IpProto::FRAGMENT = front.next {
        let [next, words] = *packet.get(front.at..).and_then(<[u8]>::first_chunk).ok_or(Why::EspTransport)?;
        match front.next {
            IpProto::FRAGMENT => return Err(Why::EspTransport),
            IpProto::DSTOPTS if next != IpProto::ROUTING.0 => break,
            _ => {}
        }
        front = Front { field: front.at, at: front.at + 8 + usize::from(words) * 8, next: IpProto(next) };
    }
    if front.at > packet.len() { Err(Why::EspTransport) } else { Ok(front) }
}

/// The octet that announces the header of `proto` at `at`.
pub(crate) fn announcing(packet: &[u8], at: usize, proto: IpProto) -> Result<usize, Why> {
    if packet.first().is_some_and(|first| first >> 4 == 4) {
        return Ok(9);
    }
    let chain = wire::ipv6_ext::walk(packet, packet.len()).map_err(|_| Why::EspTransport)?;
    if usize::from(chain.l4) == at && chain.proto == proto {
        Ok(chain.announced_at.into())
    } else {
        Err(Why::EspTransport)
    }
}

/// Sets what the octet at `field` announces, and the length that the packet has now.
pub(crate) fn announce(packet: &mut [u8], field: usize, next: IpProto) -> Result<(), Why> {
    let total = packet.len();
    *packet.get_mut(field).ok_or(Why::EspTransport)? = next.0;
    let first = *packet.first().ok_or(Why::EspTransport)?;
    if first >> 4 == 6 {
        let payload = u16::try_from(total - ipv6::HEADER_LEN.min(total)).map_err(|_| Why::EspTooBig)?;
        packet.get_mut(4..6).ok_or(Why::EspTransport)?.copy_from_slice(&payload.to_be_bytes());
        return Ok(());
    }
    let total = u16::try_from(total).map_err(|_| Why::EspTooBig)?;
    let header = packet.get_mut(..usize::from(first & 0x0f) * 4).ok_or(Why::EspTransport)?;
    if header.len() < ipv4::HEADER_LEN {
        return Err(Why::EspTransport);
    }
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}
