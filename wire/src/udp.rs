//! The UDP header (RFC 768).
//!
//! ```text
//! |         source port           |       destination port        |  0
//! |            length             |           checksum            |  4
//! ```

use crate::{Malformed, checksum, view::put};

/// Octets of the header.
pub const HEADER_LEN: usize = 8;

view! {
    /// A UDP datagram: header and payload. Octets after its length belong to nobody.
    Packet
}

fields! { Packet:
    /// Source port.
    u16, src_port, set_src_port @ 0;
    /// Destination port.
    u16, dst_port, set_dst_port @ 2;
    /// Octets of header and payload.
    u16, len, set_len @ 4;
    /// Checksum; zero when the sender made none.
    u16, checksum, set_checksum @ 6;
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Whether header and payload are there.
    pub fn check_len(&self) -> Result<(), Malformed> {
        let octets = self.octets();
        if octets.len() < HEADER_LEN {
            return Err(Malformed::Truncated);
        }
        let len = usize::from(self.len());
        if len < HEADER_LEN || len > octets.len() { Err(Malformed::Length) } else { Ok(()) }
    }

    /// Whether there is no payload.
    pub fn is_empty(&self) -> bool {
        usize::from(self.len()) == HEADER_LEN
    }
}

impl<'a> Packet<&'a [u8]> {
    /// What follows the header, up to the length.
    pub fn payload(&self) -> &'a [u8] {
        &self.buffer[HEADER_LEN..usize::from(self.len())]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// What follows the header, to change.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let end = usize::from(self.len());
        &mut self.octets_mut()[HEADER_LEN..end]
    }
}

/// A legal UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Source port; zero when no answer is wanted.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

impl Repr {
    /// Reads a header. `pseudo` is the sum of the pseudo-header with the datagram's own length, or `None` when the checksum is known to be right (or
    /// partial). A datagram without checksum passes: whether that is allowed (IPv4) or not (IPv6) the caller knows.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>, pseudo: Option<u32>) -> Result<Self, Malformed> {
        packet.check_len()?;
        let datagram = &packet.octets()[..usize::from(packet.len())];
        let wrong = |pseudo| packet.checksum() != 0 && checksum::transport_sum(pseudo, datagram) != 0;
        if pseudo.is_some_and(wrong) {
            return Err(Malformed::Checksum);
        }
        Ok(Self { src_port: packet.src_port(), dst_port: packet.dst_port() })
    }

    /// Octets of the header that [`Self::emit`] writes.
    pub const fn header_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header to the front of `datagram`, whose payload is already in place behind it, and the checksum over all of it.
    pub fn emit(&self, datagram: &mut [u8], pseudo: u32) -> Result<usize, Malformed> {
        let len = u16::try_from(datagram.len()).map_err(|_| Malformed::Length)?;
        let header = datagram.get_mut(..HEADER_LEN).ok_or(Malformed::Truncated)?;
        let mut packet = Packet::new_unchecked(header);
        packet.set_src_port(self.src_port);
        packet.set_dst_port(self.dst_port);
        packet.set_len(len);
        packet.set_checksum(0);
        let checksum = checksum::finish_udp(pseudo + checksum::sum(datagram));
        put(datagram, 6, checksum);
        Ok(HEADER_LEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_survives_emit_and_parse() {
        let repr = Repr { src_port: 53, dst_port: 5353 };
        let mut out = *b"........hello";
        repr.emit(&mut out, 9).unwrap();
        let packet = Packet::new_checked(&out[..]).unwrap();
        assert_eq!(Repr::parse(&packet, Some(9)), Ok(repr));
        assert_eq!(Repr::parse(&packet, Some(8)), Err(Malformed::Checksum));
        assert_eq!(packet.payload(), b"hello");
    }

    #[test]
    fn a_checksum_is_never_written_as_none() {
        let mut out = [0; 8];
        Repr { src_port: 0xffff, dst_port: 0xfff7 }.emit(&mut out, 0).unwrap();
        let before = Packet::new_unchecked(&out).checksum();
        Repr { src_port: 0xffff, dst_port: 0xfff7 }.emit(&mut out, u32::from(before)).unwrap();
        assert_eq!(Packet::new_unchecked(&out).checksum(), 0xffff);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for len in [0_u16, 7, 13] {
            let mut out = [0; 12];
            put(&mut out, 4, len);
            assert_eq!(Packet::new_checked(&out[..]).err(), Some(Malformed::Length), "{len}");
        }
    }
}
