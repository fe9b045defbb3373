//! What pf has to know of a packet, found in one pass (BSD: `struct pf_pdesc`).
//!
//! IPv4 is read at fixed offsets, since `ip_input` has verified the header; IPv6 goes through the bounded walk of
//! [`wire`]. Transport headers are looked at only as far as rules and states ask: ports, TCP sequence fields, ICMP type
//! and identifier. A super-frame is one packet here, and counts as the segments it will be on the wire.

use kern::{Gso, Mbuf, PktFlags, Why};
use wire::{IpProto, parse, sctp, tcp::Flags};

use crate::{IfIndex, addr::Family, membership};

/// TCP's fields as tracking needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window as in the header, unscaled.
    pub window: u16,
    /// Flags, FIN in the lowest bit.
    pub flags: u8,
    /// Octets of the header.
    pub header: u8,
}

/// A packet as pf sees it.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Source address.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Source port; ICMP queries: identifier; else 0.
    pub sport: u16,
    /// Destination port; ICMP queries: identifier; else 0.
    pub dport: u16,
    /// Address family.
    pub family: Family,
    /// Upper-layer protocol.
    pub proto: u8,
    /// TOS octet or traffic class.
    pub tos: u8,
    /// ICMP type, and code in `code`.
    pub icmp: u8,
    /// ICMP code.
    pub code: u8,
    /// A part of a datagram: has no ports for pf.
    pub fragment: bool,
    /// IPv4 options, or an IPv6 hop-by-hop or routing header.
    pub options: bool,
    /// Where the upper layer stands.
    pub l4: u16,
    /// TCP header, if it is TCP and not a fragment.
    pub tcp: Tcp,
    /// Octets of upper-layer payload (TCP: behind the header).
    pub payload: u32,
    /// IP octets on the wire.
    pub bytes: u32,
    /// Packets on the wire.
    pub segments: u32,
    /// 802.1p priority it came with.
    pub prio: u8,
    /// The tag it carries.
    pub tag: u16,
    /// The interface it was received on.
    pub received: IfIndex,
}

impl Packet {
    /// IP octets of the longest packet that `m`, of which this was read, is on the wire.
    #[cold]
    pub(crate) fn longest(&self, m: &Mbuf) -> u32 {
        if m.hdr().gso == Gso::None {
            return self.bytes;
        }
        let headers = m.len() as u32 - self.payload;
        (headers + u32::from(m.hdr().gso_size)).min(m.len() as u32)
    }

    /// No packet: to be filled.
    pub const EMPTY: Packet = Packet {
        src: 0,
        dst: 0,
        sport: 0,
        dport: 0,
        family: Family::Inet,
        proto: 0,
        tos: 0,
        icmp: 0,
        code: 0,
        fragment: false,
        options: false,
        l4: 0,
        tcp: Tcp { seq: 0, ack: 0, window: 0, flags: 0, header: 0 },
        payload: 0,
        bytes: 0,
        segments: 1,
        prio: 0,
        tag: 0,
        received: IfIndex(0),
    };

    /// Reads a packet; the data begin at the IP header. Whether TCP's flags make sense is not asked.
    #[inline(always)]
    pub fn read(m: &Mbuf) -> Result<Packet, Why> {
        let mut p = Packet::EMPTY;
        match p.fill(m) {
            Ok(()) | Err(Why::PfNormalize) => Ok(p),
            Err(why) => Err(why),
        }
    }

    /// Reads a packet in place: a copy of what has just been written in pieces costs more than the reading.
    ///
    /// A segment whose flags make no sense is read like any other, and refused with [`Why::PfNormalize`] (see
    /// [`is_senseless`]).
    #[inline(always)]
    pub fn fill(&mut self, m: &Mbuf) -> Result<(), Why> {
        let data = m.data();
        match data.first().map(|v| v >> 4) {
            Some(4) => self.inet(data)?,
            Some(6) => self.inet6(data)?,
            _ => return Err(Why::PfShort),
        }
        let hdr = m.hdr();
        self.fragment |= hdr.flags.has(PktFlags::FRAG);
        self.options |= hdr.flags.has(PktFlags::OPTIONS);
        self.prio = hdr.prio;
        self.tag = if hdr.host().is_none() { hdr.tag } else { 0 };
        self.received = IfIndex(hdr.rcvif);
        (self.sport, self.dport, self.icmp, self.code, self.segments) = (0, 0, 0, 0, 1);
        self.tcp = Tcp::default();
        let read = if self.fragment { Ok(()) } else { self.transport(data) };
        if hdr.gso != Gso::None {
            self.count_segments(u32::from(hdr.gso_size));
        }
        read
    }

    #[inline(always)]
    fn inet(&mut self, data: &[u8]) -> Result<(), Why> {
        let h: &[u8; 20] = data.first_chunk().ok_or(Why::PfShort)?;
        let l4 = u16::from(h[0] & 0x0f) * 4;
        let bytes = u32::from(be16(h, 2)).min(data.len() as u32);
        if l4 < 20 || u32::from(l4) > bytes {
            return Err(Why::PfShort);
        }
        self.src = u128::from(be32(h, 12));
        self.dst = u128::from(be32(h, 16));
        (self.family, self.proto, self.tos) = (Family::Inet, h[9], h[1]);
        self.fragment = be16(h, 6) & 0x3fff != 0;
        (self.options, self.l4) = (l4 > 20, l4);
        (self.payload, self.bytes) = (bytes - u32::from(l4), bytes);
        Ok(())
    }

    #[inline(always)]
    fn inet6(&mut self, data: &[u8]) -> Result<(), Why> {
        let parsed = parse::parse_ipv6(data).map_err(|_| Why::PfShort)?;
        let h: &[u8; 40] = data.first_chunk().ok_or(Why::PfShort)?;
        (self.src, self.dst) = (be128(h, 8), be128(h, 24));
        (self.family, self.proto, self.tos) = (Family::Inet6, parsed.proto.0, (be16(h, 0) >> 4) as u8);
        self.fragment = parsed.is_fragment();
        let flags = parsed.flags;
        self.options = flags.contains(parse::Flags::HOP_BY_HOP) || flags.contains(parse::Flags::ROUTING);
        self.l4 = parsed.l4;
        (self.payload, self.bytes) = (parsed.l4_len() as u32, parsed.end);
        Ok(())
    }

    #[inline(always)]
    fn transport(&mut self, data: &[u8]) -> Result<(), Why> {
        let l4 = data.get(usize::from(self.l4)..self.bytes as usize).ok_or(Why::PfShort)?;
        match IpProto(self.proto) {
            IpProto::TCP => self.read_tcp(l4),
            IpProto::UDP => self.read_udp(l4),
            IpProto::ICMP if self.family == Family::Inet => self.read_icmp(l4, data),
            IpProto::ICMPV6 if self.family == Family::Inet6 => self.read_icmp(l4, data),
            IpProto::SCTP => self.read_sctp(l4),
            IpProto::IGMP if self.family == Family::Inet => membership::igmp(data),
            _ => Ok(()),
        }
    }

    #[inline(always)]
    fn read_tcp(&mut self, l4: &[u8]) -> Result<(), Why> {
        let h: &[u8; 20] = l4.first_chunk().ok_or(Why::PfShort)?;
        let header = (h[12] >> 4) * 4;
        if header < 20 || usize::from(header) > l4.len() {
            return Err(Why::PfShort);
        }
        self.sport = be16(h, 0);
        self.dport = be16(h, 2);
        self.tcp = Tcp { seq: be32(h, 4), ack: be32(h, 8), window: be16(h, 14), flags: h[13], header };
        self.payload = l4.len() as u32 - u32::from(header);
        if SENSELESS >> (h[13] & 0x3f) & 1 == 0 { Ok(()) } else { Err(Why::PfNormalize) }
    }

    #[inline(always)]
    fn read_udp(&mut self, l4: &[u8]) -> Result<(), Why> {
        let h: &[u8; 8] = l4.first_chunk().ok_or(Why::PfShort)?;
        let length = u32::from(be16(h, 4));
        // A super-frame's length field may be that of the whole or of one segment.
        if be16(h, 2) == 0 || length < 8 || length > l4.len() as u32 {
            return Err(Why::PfShort);
        }
        self.sport = be16(h, 0);
        self.dport = be16(h, 2);
        self.payload = l4.len() as u32 - 8;
        Ok(())
    }

    #[inline(always)]
    fn read_icmp(&mut self, l4: &[u8], data: &[u8]) -> Result<(), Why> {
        let h: &[u8; 8] = l4.first_chunk().ok_or(Why::PfShort)?;
        self.icmp = h[0];
        self.code = h[1];
        self.payload = l4.len() as u32 - 8;
        if icmp_query(self.family, h[0]).is_some() {
            let id = be16(h, 4);
            (self.sport, self.dport) = (id, id);
            return Ok(());
        }
        membership::mld(self, data)
    }

    /// All chunks are looked at (FreeBSD: `pf_scan_sctp`): a packet that RFC 9260 forbids goes no further.
    #[cold]
    #[inline(never)]
    fn read_sctp(&mut self, l4: &[u8]) -> Result<(), Why> {
        let scan = sctp::scan(l4).map_err(|_| Why::PfShort)?;
        (self.sport, self.dport) = (scan.src_port, scan.dst_port);
        self.payload = l4.len() as u32 - sctp::HEADER_LEN as u32;
        Ok(())
    }

    /// What a super-frame will be on the wire: its headers before each segment.
    fn count_segments(&mut self, size: u32) {
        let segments = self.payload.div_ceil(size.max(1)).max(1);
        let headers = self.bytes - self.payload;
        self.bytes += (segments - 1) * headers;
        self.segments = segments;
    }

    /// Whether this opens a TCP connection.
    pub fn is_syn(&self) -> bool {
        self.proto == IpProto::TCP.0 && !self.fragment && self.tcp.flags & 0x17 == 0x02
    }

    /// Whether this is TCP with ACK and nothing else to say: it may go to the second queue.
    #[inline(always)]
    pub fn is_empty_ack(&self) -> bool {
        self.proto == IpProto::TCP.0 && !self.fragment && self.tcp.flags & 0x17 == 0x10 && self.payload == 0
    }

    /// Whether it goes to the second queue, or gets the second priority, of a rule that names two.
    #[inline(always)]
    pub fn wants_low_delay(&self) -> bool {
        self.is_low_delay() || self.is_empty_ack()
    }

    /// Whether the TOS octet asks for low delay (RFC 1349).
    #[inline(always)]
    pub fn is_low_delay(&self) -> bool {
        self.tos & 0x10 != 0
    }
}

/// Whether an ICMP type is a question (`true`) or an answer (`false`) of those that carry an identifier.
#[inline(always)]
pub fn icmp_query(family: Family, kind: u8) -> Option<bool> {
    match (family, kind) {
        (Family::Inet, 8 | 13 | 15 | 17) | (Family::Inet6, 128) => Some(true),
        (Family::Inet, 0 | 14 | 16 | 18) | (Family::Inet6, 129) => Some(false),
        _ => None,
    }
}

/// Whether these flags of TCP make no sense together (FreeBSD: `pf_normalize_tcp`): a SYN that resets or ends what it opens,
/// a segment that is neither SYN nor RST and acknowledges nothing, and FIN, PSH or URG without ACK.
const fn is_senseless(flags: u8) -> bool {
    const FIN: u8 = Flags::FIN.0;
    const SYN: u8 = Flags::SYN.0;
    const RST: u8 = Flags::RST.0;
    const PSH: u8 = Flags::PSH.0;
    const ACK: u8 = Flags::ACK.0;
    const URG: u8 = Flags::URG.0;
    let opens_and_ends = flags & SYN != 0 && flags & (FIN | RST) != 0;
    let says_nothing = flags & (SYN | RST | ACK) == 0;
    let needs_ack = flags & ACK == 0 && flags & (FIN | PSH | URG) != 0;
    opens_and_ends || says_nothing || needs_ack
}

/// A bit for each of the 64 sets of flags that make no sense: looking it up costs a segment a shift.
const SENSELESS: u64 = {
    let (mut set, mut flags) = (0, 0);
    while flags < 64 {
        set |= (is_senseless(flags) as u64) << flags;
        flags += 1;
    }
    set
};

/// Whether an ICMP type reports an error and quotes the packet that caused it.
#[inline(always)]
pub fn icmp_error(family: Family, kind: u8) -> bool {
    match family {
        Family::Inet => matches!(kind, 3 | 4 | 5 | 11 | 12),
        Family::Inet6 => matches!(kind, 1..=4),
    }
}

#[inline(always)]
fn be128(h: &[u8; 40], at: usize) -> u128 {
    let high = u64::from(be32(h, at)) << 32 | u64::from(be32(h, at + 4));
    let low = u64::from(be32(h, at + 8)) << 32 | u64::from(be32(h, at + 12));
    u128::from(high) << 64 | u128::from(low)
}

#[inline(always)]
pub(crate) fn be16<const N: usize>(h: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([h[at], h[at + 1]])
}

#[inline(always)]
pub(crate) fn be32<const N: usize>(h: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]])
}
