//! ESP in UDP, for peers behind a translator of addresses (RFC 3948; RFC 7296, 2.23).
//!
//! ```text
//!   ESP        │ IP │ UDP, port 4500 │ SPI (not 0) · number · ...
//!   IKE        │ IP │ UDP, port 4500 │ 0 0 0 0 · IKE header · ...
//!   keepalive  │ IP │ UDP, port 4500 │ 0xff
//! ```
//!
//! On the way out the UDP header is part of an SA's [`Layout`](crate::esp::Layout). On the way in [`arrive`] tells the three apart
//! and takes the header off ESP, which then goes the way of all ESP; the packet keeps the port it came from, in its header's `cursor`,
//! until it is opened. ESP is taken in UDP and without, whatever the SA says, as RFC 7296 asks.
//!
//! A checksum of 0 means that there is none, over IPv6 too: the ICV is stronger (RFC 6935, 5; RFC 6936, 4). What we send has
//! none over IPv4 (RFC 3948, 2.1) and one over IPv6, for its routers and hosts may insist. In transport mode the checksum
//! inside covers addresses that a translator has changed; once the tag has verified it is made anew (3.1.2), so the original
//! addresses (*OA*) that a file may tell are needed for nothing and only reported.
//!
//! Our port is always [`PORT`]; that of the peer is the translator's choice.

mod peers;

pub use peers::followed;

use crate::{esp::transport::close_gap, ip, sa::Sa};
use kern::{Mbuf, PktFlags, Why};
use std::net::{IpAddr, SocketAddr};
use wire::{IpProto, checksum};

/// The port of IKE and ESP behind translators, and ours.
pub const PORT: u16 = 4500;
/// Octets of a UDP header.
pub(crate) const HEADER: usize = 8;
/// Seconds after which something is sent, that a translator may remember (RFC 3948, 4).
pub const KEEPALIVE: u16 = 20;
/// Payload of a keepalive.
pub const KEEPALIVE_OCTET: u8 = 0xff;

/// How an SA's packets go in UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encap {
    /// The port of the SA's source.
    pub src_port: u16,
    /// The port of its destination.
    pub dst_port: u16,
    /// The addresses its ends have on their side of the translators, where the file tells them: source, destination.
    pub original: [Option<IpAddr>; 2],
    /// Seconds of silence after which a keepalive is sent; 0 for none.
    pub keepalive: u16,
}

/// What has arrived at [`PORT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// ESP; the packet has lost its UDP header.
    Esp,
    /// For an IKE daemon; the packet is as it was.
    Ike,
    /// Nothing but a sign of life.
    Keepalive,
}

/// Whether a whole UDP packet, its header at `l4`, is for [`PORT`].
#[inline]
pub fn is_to_port(m: &Mbuf) -> bool {
    m.data().get(m.l4() + 2..).and_then(<[u8]>::first_chunk) == Some(&PORT.to_be_bytes())
}

/// Tells what a whole UDP packet is, its header at `l4`, and makes ESP of ESP.
pub fn arrive(m: &mut Mbuf) -> Result<Arrived, Why> {
    let at = m.l4();
    let header: [u8; HEADER] = *m.data().get(at..).and_then(<[u8]>::first_chunk).ok_or(Why::NattMalformed)?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let datagram = m.data().get(at..at + len).ok_or(Why::NattMalformed)?;
    let arrived = match datagram.get(HEADER..).unwrap_or_default() {
        [KEEPALIVE_OCTET] => Arrived::Keepalive,
        [0, 0, 0, 0, ..] => return Ok(Arrived::Ike),
        [_, _, _, _, ..] => Arrived::Esp,
        _ => return Err(Why::NattMalformed),
    };
    let port = u16::from_be_bytes([header[0], header[1]]);
    // Nobody can be answered there.
    if port == 0 {
        return Err(Why::NattMalformed);
    }
    let is_trusted = m.hdr().flags.has(PktFlags::CSUM_OK) || header[6..] == [0, 0];
    if !is_trusted && !checksum::transport_ok(m.data(), at, at + len, IpProto::UDP) {
        return Err(Why::NattChecksum);
    }
    if arrived == Arrived::Esp {
        m.truncate(at + len);
        take_off(m, port)?;
    }
    Ok(arrived)
}

/// Takes the UDP header out of a packet.
fn take_off(m: &mut Mbuf, port: u16) -> Result<(), Why> {
    let at = m.l4();
    let field = ip::announcing(m.data(), at, IpProto::UDP).map_err(|_| Why::NattMalformed)?;
    close_gap(m, at, HEADER)?;
    ip::announce(m.data_mut(), field, IpProto::ESP)?;
    m.set_l3(0);
    m.set_l4(at);
    let h = m.hdr_mut();
    (h.proto, h.cursor) = (IpProto::ESP.0, port);
    h.flags.clear(PktFlags::CSUM_OK);
    Ok(())
}

/// Where a packet came from whose UDP header has been taken off.
pub(crate) fn source(m: &Mbuf) -> Option<SocketAddr> {
    let port = m.hdr().cursor;
    Some(SocketAddr::new(ip::source(m.data())?, port)).filter(|_| port != 0)
}

/// Writes a keepalive to the peer of an SA in UDP into a blank packet.
pub fn write_keepalive(sa: &Sa, m: &mut Mbuf) -> Result<(), Why> {
    let layout = &sa.layout;
    let total = layout.ip() + HEADER + 1;
    let packet = m.append(total)?;
    layout.write_ip(packet, total, 0, true, 0, IpProto::UDP)?;
    let datagram = packet.get_mut(layout.ip()..).ok_or(Why::Headroom)?;
    let header: &mut [u8; HEADER + 1] = datagram.first_chunk_mut().ok_or(Why::Headroom)?;
    header[..4].copy_from_slice(&layout.ports());
    header[4..].copy_from_slice(&[0, HEADER as u8 + 1, 0, 0, KEEPALIVE_OCTET]);
    layout.describe_outer(m, true, IpProto::UDP);
    if layout.has_checksum() {
        fill_checksum(m);
    }
    Ok(())
}

/// Makes the checksum of the upper layer at `at` anew: a translator has changed the addresses that it covers.
pub(crate) fn mend(m: &mut Mbuf, at: usize, upper: IpProto) -> Result<(), Why> {
    let end = m.len();
    let packet = m.data_mut();
    let has_none = upper == IpProto::UDP && packet.get(at + 6..at + 8).is_some_and(|sum| sum == [0, 0]);
    if has_none || upper.checksum_offset().is_none() {
        return Ok(());
    }
    checksum::transport_fill(packet, at, end, upper).map_err(|_| Why::EspMalformed)
}

/// Fills the UDP checksum in of a sealed packet, where one is sent: over IPv6.
pub(crate) fn fill_checksum(m: &mut Mbuf) {
    let (at, end) = (m.l4(), m.len());
    // There is a header at `at`, for encapsulation has put it there; without a checksum the peer would refuse the packet.
    let _ = checksum::transport_fill(m.data_mut(), at, end, IpProto::UDP);
}
