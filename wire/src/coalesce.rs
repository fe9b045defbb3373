//! Putting segments together (GRO): may packet B follow packet A in one super-frame, such that cutting it ([`crate::segment`]) restores both octet for
//! octet? Pure decisions over octets and a small state; the caller owns buffers and finds candidates by flow hash.
//!
//! The rules are those of Linux GRO, with nothing it tolerates that cutting would lose:
//!
//! - same addresses, ports, TOS or traffic class, flow label, hop count, DF; no IPv4 options, no extension headers, no fragments;
//! - IPv4 identification one more than the packet before, or the same in all (only with DF, and only if the caller can carry that to the cutter);
//! - TCP: in-order sequence, same acknowledgment, window, options and ECE; payload in each; no SYN, FIN, RST, URG; PSH only in the last, CWR only in
//!   the first;
//! - all payloads of one size, only the last may be shorter;
//! - the transport checksum of each is right, to the bit: UDP without one is left alone.
//!
//! Use: [`Merge::start`] on A; then for each candidate [`Merge::next`], copy its payload behind what is there with
//! [`crate::checksum::copy_and_sum`], [`Merge::accept`]. What `accept` refuses was copied in vain but changed nothing. At the end [`Merge::finish`] rewrites
//! A's headers to those of the super-frame.

use core::ops::Range;

use crate::{
    IpProto,
    checksum::{self, sum},
    ipv4, ipv6,
    parse::{Flags, Parsed},
    segment::Kind,
    tcp, udp,
    view::{get, put},
};

/// Octets of a super-frame from the IP header on, at most: what an IPv4 total length can say.
pub const MAX_LEN: usize = 0xffff;
/// Datagrams in a UDP super-frame, at most: what every Linux accepts (`UDP_MAX_SEGMENTS`).
pub const MAX_DATAGRAMS: u16 = 64;

/// How the IPv4 identification goes on from packet to packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ident {
    /// Only one packet so far, or IPv6.
    Open,
    /// One more each.
    Counting,
    /// The same in all.
    Fixed,
}

/// A super-frame in the making: what was learned of the packets in it. Their headers are those of the first packet until [`Merge::finish`].
#[derive(Debug, Clone, Copy)]
pub struct Merge {
    kind: Kind,
    l4: u8,
    header_len: u8,
    ident: Ident,
    fixed_allowed: bool,
    verified: bool,
    pushed: bool,
    closed: bool,
    size: u16,
    segments: u16,
    payload_len: u32,
}

/// A candidate that fits but for its checksum.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    header_len: u16,
    end: u16,
    ident: Ident,
    pushed: bool,
    expected: u16,
    header_sum: u32,
}

impl Step {
    /// Where the candidate's payload is: what the caller copies and sums.
    #[inline]
    pub const fn payload(&self) -> Range<usize> {
        self.header_len as usize..self.end as usize
    }
}

/// What a device must know of a super-frame; as in a virtio header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuperFrame {
    /// Transport and IP version.
    pub kind: Kind,
    /// Payload of each segment but the last.
    pub size: u16,
    /// How many segments.
    pub segments: u16,
    /// Octets of IP and transport header.
    pub header_len: u16,
    /// Where the checksum begins to count: the transport header, from the IP header on.
    pub checksum_start: u16,
    /// Where it belongs, from there on.
    pub checksum_offset: u16,
    /// All segments have one IPv4 identification: hand this to [`crate::segment::Cut::new`].
    pub fixed_ident: bool,
}

/// The layout of a packet that may be in a super-frame at all; no more than one look at its headers.
struct Shape {
    kind: Kind,
    l4: usize,
    header_len: usize,
    end: usize,
}

/// Looks whether a packet is plain enough.
#[inline(always)]
fn shape(packet: &[u8], parsed: &Parsed) -> Option<Shape> {
    let kind = Kind::of(parsed)?;
    let (l4, end) = (usize::from(parsed.l4), parsed.end as usize);
    if l4 != if kind.is_v6() { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN }
        || end > packet.len()
        || end > MAX_LEN
    {
        return None;
    }
    let header_len = l4 + kind.transport_len(packet, l4).ok()?;
    // No payload: nothing to merge. A header checksum of all ones verifies, but cutting writes zero.
    if end <= header_len || (!kind.is_v6() && packet[10..12] == [0xff, 0xff]) {
        return None;
    }
    let plain = if kind.is_tcp() { plain_tcp(&packet[l4..]) } else { plain_udp(&packet[l4..end]) };
    plain.then_some(Shape { kind, l4, header_len, end })
}

const MAY_BE_SET: u8 = tcp::Flags::ACK.0 | tcp::Flags::PSH.0 | tcp::Flags::ECE.0 | tcp::Flags::CWR.0;

#[inline(always)]
fn plain_tcp(t: &[u8]) -> bool {
    t[13] & !MAY_BE_SET == 0 && t[13] & tcp::Flags::ACK.0 != 0
}

#[inline(always)]
fn plain_udp(t: &[u8]) -> bool {
    usize::from(get::<u16>(t, 4)) == t.len() && t[6..8] != [0, 0]
}

/// The checksum a packet must have, given the sum of headers (without the checksum field) with pseudo-header, and of the payload.
#[inline(always)]
const fn exact(kind: Kind, header_sum: u32, payload_sum: u32) -> u16 {
    if kind.is_tcp() {
        checksum::finish(header_sum + payload_sum)
    } else {
        checksum::finish_udp(header_sum + payload_sum)
    }
}

/// The sum of the pseudo-header and the transport header without its checksum.
#[inline(always)]
fn header_sum(packet: &[u8], s: &Shape) -> u32 {
    let t = &packet[s.l4..s.header_len];
    let at = s.kind.checksum_offset();
    s.kind.pseudo(packet) + (s.end - s.l4) as u32 + sum(&t[..at]) + sum(&t[at + 2..])
}

impl Merge {
    /// Begins with packet A, which `parsed` describes and which holds no octet of padding. `None`: it goes its way alone. `verified`: its transport checksum is known to be right (or is partial);
    /// otherwise it is looked at when the first candidate fits. `fixed_ident`: the caller can carry [`SuperFrame::fixed_ident`] to the cutter.
    #[inline]
    pub fn start(packet: &[u8], parsed: &Parsed, verified: bool, fixed_ident: bool) -> Option<Self> {
        let s = shape(packet, parsed)?;
        if s.kind.is_tcp() && packet[s.l4 + 13] & tcp::Flags::PSH.0 != 0 {
            return None;
        }
        let size = s.end - s.header_len;
        Some(Self {
            kind: s.kind,
            l4: s.l4 as u8,
            header_len: s.header_len as u8,
            ident: Ident::Open,
            fixed_allowed: fixed_ident,
            verified,
            pushed: false,
            closed: false,
            size: size as u16,
            segments: 1,
            payload_len: size as u32,
        })
    }

    /// Whether nothing can follow any more: the last was shorter, or pushed.
    #[inline]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// How many packets are in it.
    #[inline]
    pub const fn segments(&self) -> u16 {
        self.segments
    }

    /// Octets of headers and all payloads: where the next payload is copied to.
    #[inline]
    pub const fn len(&self) -> usize {
        self.header_len as usize + self.payload_len as usize
    }

    /// Never: there is a packet in it from the start.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Whether `packet`, which `parsed` describes, may follow, but for its checksum. `first` is the super-frame so far: it has the first packet's headers
    /// and, while it is alone and not verified, its payload.
    #[inline]
    pub fn next(&mut self, first: &[u8], packet: &[u8], parsed: &Parsed) -> Option<Step> {
        if self.closed {
            return None;
        }
        let s = shape(packet, parsed)?;
        let (l4, header_len) = (usize::from(self.l4), usize::from(self.header_len));
        let first = first.get(..header_len.max(self.len() * usize::from(!self.verified)))?;
        let payload = s.end - s.header_len;
        let room = self.len() + payload <= MAX_LEN && (self.kind.is_tcp() || self.segments < MAX_DATAGRAMS);
        if s.kind != self.kind || s.header_len != header_len || payload > usize::from(self.size) || !room {
            return None;
        }
        let ident = self.same_network(first, packet)?;
        let same = if self.kind.is_tcp() {
            self.same_tcp(&first[l4..header_len], &packet[l4..header_len])
        } else {
            first[l4..l4 + 4] == packet[l4..l4 + 4]
        };
        if !same || !self.verify_first(first) {
            return None;
        }
        Some(Step {
            header_len: s.header_len as u16,
            end: s.end as u16,
            ident,
            pushed: self.kind.is_tcp() && packet[l4 + 13] & tcp::Flags::PSH.0 != 0,
            expected: get(packet, l4 + self.kind.checksum_offset()),
            header_sum: header_sum(packet, &s),
        })
    }

    /// Takes the candidate in, if the sum of its payload shows that its checksum is right to the bit.
    #[inline]
    pub fn accept(&mut self, step: &Step, payload_sum: u32) -> bool {
        let right = exact(self.kind, step.header_sum, payload_sum) == step.expected;
        if right {
            self.accept_verified(step);
        }
        right
    }

    /// Takes the candidate in, whose checksum is known to be right (or is partial).
    #[inline]
    pub fn accept_verified(&mut self, step: &Step) {
        let payload = step.payload().len();
        self.segments += 1;
        self.payload_len += payload as u32;
        self.ident = step.ident;
        self.pushed = step.pushed;
        self.closed = step.pushed || payload < usize::from(self.size);
    }

    /// Makes the headers at the front of `first` those of the super-frame, its transport checksum partial. `None`, and nothing changes, when there is only
    /// one packet in it.
    pub fn finish(&self, first: &mut [u8]) -> Option<SuperFrame> {
        let (l4, header_len) = (usize::from(self.l4), usize::from(self.header_len));
        let headers = first.get_mut(..header_len)?;
        if self.segments < 2 {
            return None;
        }
        let transport_len = (self.len() - l4) as u16;
        if self.kind.is_v6() {
            put(headers, 4, transport_len);
        } else {
            let fixed: &mut [u8; ipv4::HEADER_LEN] = headers.first_chunk_mut()?;
            ipv4::set_word(fixed, 2, l4 as u16 + transport_len);
        }
        if self.kind.is_tcp() {
            headers[l4 + 13] |= if self.pushed { tcp::Flags::PSH.0 } else { 0 };
        } else {
            put(headers, l4 + 4, transport_len);
        }
        let partial = checksum::fold(self.kind.pseudo(headers) + u32::from(transport_len));
        put(headers, l4 + self.kind.checksum_offset(), partial);
        Some(SuperFrame {
            kind: self.kind,
            size: self.size,
            segments: self.segments,
            header_len: u16::from(self.header_len),
            checksum_start: u16::from(self.l4),
            checksum_offset: self.kind.checksum_offset() as u16,
            fixed_ident: self.ident == Ident::Fixed,
        })
    }

    /// Whether the network header goes on as it should, and how its identification does.
    #[inline(always)]
    fn same_network(&self, a: &[u8], b: &[u8]) -> Option<Ident> {
        if self.kind.is_v6() {
            // Version, class, label; next header and hop limit; addresses.
            let same = a[..4] == b[..4] && a[6..8] == b[6..8] && a[8..40] == b[8..40];
            return same.then_some(Ident::Open);
        }
        // Version, length, TOS; flags, TTL, protocol; addresses.
        if a[..2] != b[..2] || a[6..10] != b[6..10] || a[12..20] != b[12..20] {
            return None;
        }
        let (first, ident): (u16, u16) = (get(a, 4), get(b, 4));
        let counting = ident == first.wrapping_add(self.segments);
        let fixed = ident == first && self.fixed_allowed && a[6] & (ipv4::DF >> 8) as u8 != 0;
        match self.ident {
            Ident::Open | Ident::Counting if counting => Some(Ident::Counting),
            Ident::Open | Ident::Fixed if fixed => Some(Ident::Fixed),
            _ => None,
        }
    }

    /// Whether the TCP header goes on as it should.
    #[inline(always)]
    fn same_tcp(&self, a: &[u8], b: &[u8]) -> bool {
        let expected = get::<u32>(a, 4).wrapping_add(self.payload_len);
        let later = u16::from((tcp::Flags::PSH | tcp::Flags::CWR).0);
        let (flags_a, flags_b): (u16, u16) = (get(a, 12), get(b, 12));
        get::<u32>(b, 4) == expected
            && (flags_a ^ flags_b) & !later == 0
            && flags_b & u16::from(tcp::Flags::CWR.0) == 0
            && a[..4] == b[..4]
            && a[8..12] == b[8..12]
            && a[14..16] == b[14..16]
            && a[18..] == b[18..]
    }

    /// Looks at the checksum of the first packet, once.
    fn verify_first(&mut self, first: &[u8]) -> bool {
        if self.verified {
            return true;
        }
        let s = Shape {
            kind: self.kind,
            l4: usize::from(self.l4),
            header_len: usize::from(self.header_len),
            end: self.len(),
        };
        let found: u16 = get(first, s.l4 + self.kind.checksum_offset());
        self.verified = exact(self.kind, header_sum(first, &s), sum(&first[s.header_len..s.end])) == found;
        // A wrong one stays alone: whoever gets it shall see that it is wrong.
        self.closed = !self.verified;
        self.verified
    }
}

/// Whether a packet could be merged with anything, by its first look: lets the caller skip the search for candidates.
#[inline]
pub const fn is_candidate(parsed: &Parsed) -> bool {
    matches!(parsed.proto, IpProto::TCP | IpProto::UDP)
        && !parsed.is_fragment()
        && !parsed.flags.contains(Flags::OPTIONS)
        && !parsed.flags.contains(Flags::SHORT)
        && parsed.l4_len() > udp::HEADER_LEN
}
