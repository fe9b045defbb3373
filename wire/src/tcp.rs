//! The TCP header (RFC 9293) with the options of RFC 7323 (window scale, time stamps) and RFC 2018 (SACK). No connection state.
//!
//! ```text
//! |         source port           |       destination port        |  0
//! |                        sequence number                        |  4
//! |                     acknowledgment number                     |  8
//! | offset| rsrvd |C E U A P R S F|            window             | 12
//! |           checksum            |        urgent pointer         | 16
//! |                         options, 0..40                        | 20
//! ```

use core::{fmt, ops::BitOr};

use crate::{Malformed, checksum, view::put};

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;
/// Octets of the longest header.
pub const MAX_HEADER_LEN: usize = 60;

/// The eight control bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// Congestion experienced, echoed (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// Whether all of `other` are set.
    #[inline(always)]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    #[inline(always)]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// These without `other`.
    #[must_use]
    #[inline(always)]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The letters of pf.conf, lowest bit first.
const LETTERS: &str = "FSRPAUEW";

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in LETTERS.chars().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1) {
            debug_assert!(bit < 8);
            fmt::Write::write_char(f, letter)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({self})")
    }
}

view! {
    /// A TCP segment: header and payload.
    Packet
}

fields! { Packet:
    /// Source port.
    u16, src_port, set_src_port @ 0;
    /// Destination port.
    u16, dst_port, set_dst_port @ 2;
    /// Sequence number of the first octet.
    u32, seq, set_seq @ 4;
    /// Acknowledgment number.
    u32, ack, set_ack @ 8;
    /// Window, not scaled.
    u16, window, set_window @ 14;
    /// Checksum.
    u16, checksum, set_checksum @ 16;
    /// Urgent pointer.
    u16, urgent, set_urgent @ 18;
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Whether the header, options included, is there.
    pub fn check_len(&self) -> Result<(), Malformed> {
        let len = self.octets().len();
        if len < HEADER_LEN {
            return Err(Malformed::Truncated);
        }
        let header = self.header_len();
        if header < HEADER_LEN || header > len { Err(Malformed::HeaderLength) } else { Ok(()) }
    }

    /// Octets of the header, options included.
    pub fn header_len(&self) -> usize {
        usize::from(self.octets()[12] >> 4) * 4
    }

    /// Control bits.
    pub fn flags(&self) -> Flags {
        Flags(self.octets()[13])
    }

    /// Octets that the segment takes in sequence space: payload, SYN and FIN.
    pub fn segment_len(&self) -> usize {
        let flags = self.flags();
        self.octets().len() - self.header_len()
            + usize::from(flags.contains(Flags::SYN))
            + usize::from(flags.contains(Flags::FIN))
    }

    /// The walk over the options.
    pub fn options(&self) -> Options<'_> {
        Options::new(&self.octets()[HEADER_LEN..self.header_len()])
    }
}

impl<'a> Packet<&'a [u8]> {
    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        &self.buffer[self.header_len()..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// What follows the header, to change.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let at = self.header_len();
        &mut self.octets_mut()[at..]
    }

    /// Sets the control bits.
    pub fn set_flags(&mut self, flags: Flags) {
        self.octets_mut()[13] = flags.0;
    }

    /// Sets the octets of the header, a multiple of four from 20 to 60; reserved bits become zero.
    pub fn set_header_len(&mut self, len: usize) {
        debug_assert!(len.is_multiple_of(4) && (HEADER_LEN..=MAX_HEADER_LEN).contains(&len));
        self.octets_mut()[12] = (len as u8 / 4) << 4;
    }
}

/// One option of a TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderOption<'a> {
    /// Largest segment the sender takes.
    MaxSegmentSize(u16),
    /// Shift of the sender's window.
    WindowScale(u8),
    /// SACK may be used.
    SackPermitted,
    /// Blocks received, as they lie on the wire: see [`sack_blocks`].
    Sack(&'a [u8]),
    /// Value and echo.
    Timestamps(u32, u32),
    /// Any other.
    Other(u8, &'a [u8]),
}

/// The blocks of a SACK option, left and right edge.
pub fn sack_blocks(data: &[u8]) -> impl Iterator<Item = (u32, u32)> + '_ {
    let edge = |e: [u8; 4]| u32::from_be_bytes(e);
    data.as_chunks::<8>()
        .0
        .iter()
        .map(move |&[a, b, c, d, e, f, g, h]| (edge([a, b, c, d]), edge([e, f, g, h])))
}

/// The walk over TCP options: no-operations are passed over, an end-of-list ends it, a bad length ends it with an error. Each item comes with the
/// offset of its kind octet from the start of the area.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    area: &'a [u8],
    at: usize,
}

impl<'a> Options<'a> {
    /// Walks the options area of a header, without the fixed part.
    pub const fn new(area: &'a [u8]) -> Self {
        Self { area, at: 0 }
    }

    fn decode(kind: u8, data: &'a [u8]) -> Result<HeaderOption<'a>, Malformed> {
        Ok(match (kind, data) {
            (2, &[a, b]) => HeaderOption::MaxSegmentSize(u16::from_be_bytes([a, b])),
            (3, &[shift]) => HeaderOption::WindowScale(shift),
            (4, []) => HeaderOption::SackPermitted,
            (5, blocks) if blocks.len() % 8 == 0 && !blocks.is_empty() => HeaderOption::Sack(blocks),
            (8, &[a, b, c, d, e, f, g, h]) => {
                HeaderOption::Timestamps(u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
            }
            (2..=5 | 8, _) => return Err(Malformed::Option),
            (kind, data) => HeaderOption::Other(kind, data),
        })
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<(usize, HeaderOption<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (at, rest) = (self.at, &self.area[self.at..]);
            match *rest {
                [] | [0, ..] => return None,
                [1, ..] => self.at += 1,
                [kind, len, ..] if len >= 2 && usize::from(len) <= rest.len() => {
                    self.at += usize::from(len);
                    return Some(Self::decode(kind, &rest[2..usize::from(len)]).map(|option| (at, option)));
                }
                _ => {
                    self.at = self.area.len();
                    return Some(Err(Malformed::Option));
                }
            }
        }
    }
}

/// A legal TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number; zero without [`Flags::ACK`] when we emit.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window, not scaled.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Largest segment the sender takes.
    pub max_segment_size: Option<u16>,
    /// Shift of the sender's window.
    pub window_scale: Option<u8>,
    /// SACK may be used.
    pub sack_permitted: bool,
    /// Blocks received.
    pub sack: [Option<(u32, u32)>; 4],
    /// Value and echo.
    pub timestamps: Option<(u32, u32)>,
}

impl Repr {
    /// Reads a header. `pseudo` is the sum of the pseudo-header, or `None` when the checksum is known to be right (or partial).
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>, pseudo: Option<u32>) -> Result<Self, Malformed> {
        packet.check_len()?;
        if pseudo.is_some_and(|pseudo| checksum::transport_sum(pseudo, packet.octets()) != 0) {
            return Err(Malformed::Checksum);
        }
        let mut repr = Self {
            src_port: packet.src_port(),
            dst_port: packet.dst_port(),
            seq: packet.seq(),
            ack: packet.ack(),
            flags: packet.flags(),
            window: packet.window(),
            urgent: packet.urgent(),
            ..Self::default()
        };
        for option in packet.options() {
            match option?.1 {
                HeaderOption::MaxSegmentSize(mss) => repr.max_segment_size = Some(mss),
                HeaderOption::WindowScale(shift) => repr.window_scale = Some(shift),
                HeaderOption::SackPermitted => repr.sack_permitted = true,
                HeaderOption::Sack(data) => {
                    for (slot, block) in repr.sack.iter_mut().zip(sack_blocks(data)) {
                        *slot = Some(block);
                    }
                }
                HeaderOption::Timestamps(value, echo) => repr.timestamps = Some((value, echo)),
                HeaderOption::Other(..) => {}
            }
        }
        Ok(repr)
    }

    fn sack_count(&self) -> usize {
        self.sack.iter().flatten().count()
    }

    /// Octets of the header that [`Self::emit`] writes, options included.
    pub fn header_len(&self) -> usize {
        let sack = match self.sack_count() {
            0 => 0,
            n => 2 + 8 * n,
        };
        let options = usize::from(self.max_segment_size.is_some()) * 4
            + usize::from(self.window_scale.is_some()) * 3
            + usize::from(self.sack_permitted) * 2
            + usize::from(self.timestamps.is_some()) * 10
            + sack;
        HEADER_LEN + options.next_multiple_of(4)
    }

    /// Writes the header to the front of `segment`, whose payload is already in place behind it, and the checksum over all of it.
    pub fn emit(&self, segment: &mut [u8], pseudo: u32) -> Result<usize, Malformed> {
        let len = self.header_len();
        if len > MAX_HEADER_LEN {
            return Err(Malformed::Option);
        }
        let header = segment.get_mut(..len).ok_or(Malformed::Truncated)?;
        let mut packet = Packet::new_unchecked(header);
        packet.set_src_port(self.src_port);
        packet.set_dst_port(self.dst_port);
        packet.set_seq(self.seq);
        packet.set_ack(self.ack);
        packet.set_header_len(len);
        packet.set_flags(self.flags);
        packet.set_window(self.window);
        packet.set_checksum(0);
        packet.set_urgent(self.urgent);
        self.emit_options(packet.payload_from(HEADER_LEN));
        let checksum = checksum::transport_sum(pseudo, segment);
        put(segment, 16, checksum);
        Ok(len)
    }

    fn emit_options(&self, area: &mut [u8]) {
        area.fill(1);
        let mut at = 0;
        let mut write = |octets: &[u8]| {
            area[at..at + octets.len()].copy_from_slice(octets);
            at += octets.len();
        };
        if let Some(mss) = self.max_segment_size {
            let [a, b] = mss.to_be_bytes();
            write(&[2, 4, a, b]);
        }
        if self.sack_permitted {
            write(&[4, 2]);
        }
        if let Some((value, echo)) = self.timestamps {
            write(&[8, 10]);
            write(&value.to_be_bytes());
            write(&echo.to_be_bytes());
        }
        if let Some(shift) = self.window_scale {
            write(&[3, 3, shift]);
        }
        if self.sack_count() > 0 {
            write(&[5, 2 + 8 * self.sack_count() as u8]);
            for (left, right) in self.sack.iter().flatten() {
                write(&left.to_be_bytes());
                write(&right.to_be_bytes());
            }
        }
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    fn payload_from(&mut self, at: usize) -> &mut [u8] {
        &mut self.octets_mut()[at..]
    }
}

/// Lowers the maximum segment size of a SYN to `max`, if it offers more, and keeps the checksum right. `partial`: the checksum is the pseudo-header's
/// sum, which does not cover options. Returns whether anything changed.
pub fn clamp_mss(segment: &mut [u8], max: u16, partial: bool) -> bool {
    let Ok(packet) = Packet::new_checked(&*segment) else {
        return false;
    };
    if !packet.flags().contains(Flags::SYN) {
        return false;
    }
    let found = packet.options().find_map(|option| match option {
        Ok((at, HeaderOption::MaxSegmentSize(mss))) if mss > max => Some((HEADER_LEN + at + 2, mss)),
        _ => None,
    });
    let Some((at, mss)) = found else {
        return false;
    };
    put(segment, at, max);
    if !partial {
        // An option may begin at an odd offset: the value then straddles two words, which is the same as both octets swapped.
        let (old, new) = if at % 2 == 1 { (mss.swap_bytes(), max.swap_bytes()) } else { (mss, max) };
        let checksum = Packet::new_unchecked(&*segment).checksum();
        put(segment, 16, checksum::update16(checksum, old, new));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn() -> Repr {
        Repr {
            src_port: 49_152,
            dst_port: 443,
            seq: 0xfffffff0,
            flags: Flags::SYN,
            window: 64_240,
            max_segment_size: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some((1, 2)),
            ..Repr::default()
        }
    }

    #[test]
    fn flags_print_as_in_pf_conf() {
        assert_eq!((Flags::SYN | Flags::ACK).to_string(), "SA");
        assert_eq!((Flags::CWR | Flags::FIN).to_string(), "FW");
    }

    #[test]
    fn a_header_with_every_option_survives_emit_and_parse() {
        let with_sack =
            Repr { flags: Flags::ACK, sack: [Some((1, 2)), Some((3, 4)), Some((5, 6)), None], ..syn() };
        let with_sack =
            Repr { max_segment_size: None, window_scale: None, sack_permitted: false, ..with_sack };
        for repr in [syn(), with_sack, Repr::default()] {
            let mut out = vec![0x55; repr.header_len() + 9];
            repr.emit(&mut out, 77).unwrap();
            let packet = Packet::new_checked(&out[..]).unwrap();
            assert_eq!(Repr::parse(&packet, Some(77)), Ok(repr));
            assert_eq!(Repr::parse(&packet, Some(78)), Err(Malformed::Checksum));
            assert_eq!(packet.payload(), [0x55; 9]);
        }
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        let repr = Repr { sack: [Some((1, 2)); 4], ..syn() };
        assert_eq!(repr.emit(&mut [0; 100], 0), Err(Malformed::Option));
    }

    #[test]
    fn the_mss_of_a_syn_is_lowered_at_odd_and_even_offsets() {
        let mut even = vec![0; 24];
        Repr { flags: Flags::SYN, max_segment_size: Some(9000), ..Repr::default() }
            .emit(&mut even, 5)
            .unwrap();
        let mut odd = vec![0; 28];
        Repr { flags: Flags::SYN, max_segment_size: Some(9000), window_scale: Some(7), ..Repr::default() }
            .emit(&mut odd, 5)
            .unwrap();
        odd[20..28].copy_from_slice(&[3, 3, 7, 2, 4, 0x23, 0x28, 1]);
        for mut segment in [even, odd] {
            put(&mut segment, 16, 0_u16);
            let checksum = checksum::transport_sum(5, &segment);
            put(&mut segment, 16, checksum);
            assert!(clamp_mss(&mut segment, 1400, false));
            assert!(!clamp_mss(&mut segment, 1400, false));
            let parsed = Repr::parse(&Packet::new_checked(&segment).unwrap(), Some(5)).unwrap();
            assert_eq!(parsed.max_segment_size, Some(1400));
        }
    }
}
