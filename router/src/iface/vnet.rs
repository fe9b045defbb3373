//! The virtio network header: how a device and we tell each other about super-frames and unfinished checksums.
//!
//! Virtual I/O Device (VIRTIO) 1.2, 5.1.6 "Device Operation": twelve bytes in front of every frame, in the byte order of
//! the host as long as nobody asked for another (`TUNSETVNETLE`).
//!
//! ```text
//!  0       1          2          4          6            8             10             12
//! | flags | gso_type | hdr_len  | gso_size | csum_start | csum_offset | num_buffers  | frame ...
//! ```
//!
//! What comes in is believed only as far as the frame agrees with it: [`VnetHdr::apply`] is the place where offload
//! fields are checked, all later stages trust them. What goes out is made of the packet's own fields
//! ([`VnetHdr::of`]). Fragmentation offload of old (`UFO`) and the ECN variant of TSO are never negotiated.

use super::driver::Caps;
use kern::{Gso, Mbuf, PktFlags, Why};
use wire::{IpProto, Parsed, checksum, parse, tcp, udp};

/// Octets of the header.
pub const LEN: usize = 12;

/// The checksum is partial: `csum_start` and `csum_offset` say where.
pub const NEEDS_CSUM: u8 = 1;
/// The transport checksum has been verified.
pub const DATA_VALID: u8 = 2;

/// One segment.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// UDP, a datagram a segment.
pub const GSO_UDP_L4: u8 = 5;

/// The header's fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHdr {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// Kind of super-frame.
    pub gso_type: u8,
    /// Octets of all headers; a hint.
    pub hdr_len: u16,
    /// Payload octets of a segment.
    pub gso_size: u16,
    /// Where summing starts.
    pub csum_start: u16,
    /// Where the checksum goes, from there.
    pub csum_offset: u16,
}

impl VnetHdr {
    /// The header of a frame that is what it looks like.
    pub const PLAIN: VnetHdr =
        VnetHdr { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

    /// Reads it.
    #[inline]
    pub fn parse(octets: &[u8; LEN]) -> VnetHdr {
        let at = |i: usize| u16::from_ne_bytes([octets[i], octets[i + 1]]);
        VnetHdr {
            flags: octets[0],
            gso_type: octets[1],
            hdr_len: at(2),
            gso_size: at(4),
            csum_start: at(6),
            csum_offset: at(8),
        }
    }

    /// Writes it.
    #[inline]
    pub fn emit(&self) -> [u8; LEN] {
        let mut octets = [0; LEN];
        octets[0] = self.flags;
        octets[1] = self.gso_type;
        octets[2..4].copy_from_slice(&self.hdr_len.to_ne_bytes());
        octets[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        octets[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
        octets[8..10].copy_from_slice(&self.csum_offset.to_ne_bytes());
        octets
    }

    /// What to tell the device about a packet.
    #[inline]
    pub fn of(m: &Mbuf) -> VnetHdr {
        let hdr = m.hdr();
        if !hdr.flags.has(PktFlags::PARTIAL) {
            let flags = if hdr.flags.has(PktFlags::CSUM_OK) { DATA_VALID } else { 0 };
            return VnetHdr { flags, ..VnetHdr::PLAIN };
        }
        let mut vnet = VnetHdr {
            flags: NEEDS_CSUM,
            csum_start: m.csum_start() as u16,
            csum_offset: hdr.csum_offset,
            ..VnetHdr::PLAIN
        };
        if hdr.gso != Gso::None {
            vnet.gso_type = gso_type(hdr.gso);
            vnet.gso_size = hdr.gso_size;
            vnet.hdr_len = header_len(m) as u16;
        }
        vnet
    }

    /// Takes what the device said about a frame into the packet's header, if the frame agrees.
    ///
    /// A partial checksum in a place we do not look at later (inside a tunnel, say) is finished here.
    #[inline]
    pub fn apply(&self, m: &mut Mbuf) -> Result<(), Why> {
        if self.flags & NEEDS_CSUM == 0 {
            if self.gso_type != GSO_NONE {
                return Err(Why::IfOffload);
            }
            if self.flags & DATA_VALID != 0 {
                m.hdr_mut().flags.set(PktFlags::CSUM_OK);
            }
            return Ok(());
        }
        self.apply_partial(m)
    }

    fn apply_partial(&self, m: &mut Mbuf) -> Result<(), Why> {
        let (start, offset) = (usize::from(self.csum_start), usize::from(self.csum_offset));
        if start + offset + 2 > m.len() {
            return Err(Why::IfOffload);
        }
        let transport = Transport::find(m.data());
        let ours = transport.as_ref().is_some_and(|t| t.at == start && t.sum_at() == Some(offset));
        match (self.gso_type, transport) {
            (GSO_NONE, _) if !ours => {
                checksum::finish_partial(m.data_mut(), start, offset).map_err(|_| Why::IfOffload)?;
            }
            (GSO_NONE, _) => m.set_partial(start, self.csum_offset),
            (_, Some(transport)) if ours => {
                let gso = self.gso_of(&transport, m.data()).ok_or(Why::IfOffload)?;
                m.set_partial(start, self.csum_offset);
                m.set_gso(gso, if gso == Gso::None { 0 } else { self.gso_size });
            }
            _ => return Err(Why::IfOffload),
        }
        Ok(())
    }

    /// The kind of super-frame, `None` if it is not what the header says. Payload of one segment makes no super-frame.
    fn gso_of(&self, transport: &Transport, frame: &[u8]) -> Option<Gso> {
        let gso = match (self.gso_type, transport.ip.proto, transport.ip.is_v6()) {
            (GSO_TCPV4, IpProto::TCP, false) => Gso::Tcp4,
            (GSO_TCPV6, IpProto::TCP, true) => Gso::Tcp6,
            (GSO_UDP_L4, IpProto::UDP, false) => Gso::Udp4,
            (GSO_UDP_L4, IpProto::UDP, true) => Gso::Udp6,
            _ => return None,
        };
        let l4 = &frame[transport.at..];
        let header = match gso {
            Gso::Udp4 | Gso::Udp6 => udp_header_len(l4)?,
            _ => tcp_header_len(l4)?,
        };
        // The packet fills the frame exactly: padding would become payload of the last segment.
        let end = transport.l3 + transport.ip.end as usize;
        if self.gso_size == 0 || l4.len() < header || end != frame.len() {
            return None;
        }
        Some(if l4.len() - header > usize::from(self.gso_size) { gso } else { Gso::None })
    }
}

/// The upper layer of a frame, if it is an unfragmented IP packet.
struct Transport {
    ip: Parsed,
    l3: usize,
    at: usize,
}

impl Transport {
    fn find(frame: &[u8]) -> Option<Transport> {
        let parsed = parse::parse_frame(frame).ok()?;
        let ip = parsed.ip.filter(|ip| !ip.is_fragment())?;
        let l3 = usize::from(parsed.link.l3);
        Some(Transport { ip, l3, at: l3 + usize::from(ip.l4) })
    }

    fn sum_at(&self) -> Option<usize> {
        self.ip.proto.checksum_offset()
    }
}

/// Octets of the TCP header at the front of `l4`, if that can be.
pub(super) fn tcp_header_len(l4: &[u8]) -> Option<usize> {
    let len = usize::from(*l4.get(12)? >> 4) * 4;
    (len >= tcp::HEADER_LEN && len <= l4.len()).then_some(len)
}

/// Octets of the UDP header, if the datagram's length is that of `l4`.
fn udp_header_len(l4: &[u8]) -> Option<usize> {
    let len = u16::from_be_bytes([*l4.get(4)?, *l4.get(5)?]);
    (usize::from(len) == l4.len() && l4.len() >= udp::HEADER_LEN).then_some(udp::HEADER_LEN)
}

pub(super) const fn gso_type(gso: Gso) -> u8 {
    match gso {
        Gso::None => GSO_NONE,
        Gso::Tcp4 => GSO_TCPV4,
        Gso::Tcp6 => GSO_TCPV6,
        Gso::Udp4 | Gso::Udp6 => GSO_UDP_L4,
    }
}

/// Whether a device with these capabilities takes this kind of super-frame.
pub const fn takes(caps: Caps, gso: Gso) -> bool {
    match gso {
        Gso::None => true,
        Gso::Tcp4 | Gso::Tcp6 => caps.tso,
        Gso::Udp4 | Gso::Udp6 => caps.uso,
    }
}

/// Octets of all headers in front of a super-frame's payload, counted from the start of the data.
#[inline]
pub fn header_len(m: &Mbuf) -> usize {
    let start = m.csum_start();
    let transport = match m.hdr().gso {
        Gso::Udp4 | Gso::Udp6 => udp::HEADER_LEN,
        Gso::Tcp4 | Gso::Tcp6 | Gso::None => m.data().get(start + 12).map_or(0, |b| usize::from(b >> 4) * 4),
    };
    (start + transport).min(m.len())
}

/// Segments that a packet is on the wire: 1 unless it is a super-frame.
#[inline]
pub fn segments(m: &Mbuf) -> usize {
    match m.hdr().gso {
        Gso::None => 1,
        _ => (m.len() - header_len(m)).div_ceil(usize::from(m.hdr().gso_size).max(1)).max(1),
    }
}

/// Frames and octets that a packet is on the wire, the headers of every segment counted.
#[inline]
pub fn on_the_wire(m: &Mbuf) -> (u64, u64) {
    let segments = segments(m) as u64;
    let repeated = if segments > 1 { header_len(m) as u64 } else { 0 };
    (segments, m.len() as u64 + (segments - 1) * repeated)
}
