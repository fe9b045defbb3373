//! The authentication header (RFC 4302). No cryptography, and no list of mutable fields: that is IPsec's.
//!
//! ```text
//! |  next header  |  length - 2   |            reserved           |  0
//! |                  security parameters index                    |  4
//! |                       sequence number                         |  8
//! |                  integrity check value, 4n                    | 12
//! ```

use crate::{IpProto, Malformed};

/// Octets before the integrity check value.
pub const HEADER_LEN: usize = 12;

view! {
    /// An authentication header and what follows it.
    Packet
}

fields! { Packet:
    /// What follows the header.
    IpProto, next_header, set_next_header @ 0;
    /// Length of the header in words of four octets, less two.
    u8, words_less_two, set_words_less_two @ 1;
    /// Reserved, zero, and authenticated.
    u16, reserved, set_reserved @ 2;
    /// Security parameters index.
    u32, spi, set_spi @ 4;
    /// Low 32 bits of the sequence number.
    u32, seq, set_seq @ 8;
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Whether the header with its integrity check value is there.
    pub fn check_len(&self) -> Result<(), Malformed> {
        let len = self.octets().len();
        if len < HEADER_LEN {
            return Err(Malformed::Truncated);
        }
        let header = self.header_len();
        if header < HEADER_LEN || header > len { Err(Malformed::HeaderLength) } else { Ok(()) }
    }

    /// Octets of the header, integrity check value included.
    pub fn header_len(&self) -> usize {
        (usize::from(self.words_less_two()) + 2) * 4
    }

    /// The integrity check value with its padding.
    pub fn icv(&self) -> &[u8] {
        &self.octets()[HEADER_LEN..self.header_len()]
    }
}

impl<'a> Packet<&'a [u8]> {
    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        &self.buffer[self.header_len()..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// The integrity check value, to change.
    pub fn icv_mut(&mut self) -> &mut [u8] {
        let end = self.header_len();
        &mut self.octets_mut()[HEADER_LEN..end]
    }
}

/// The fields of an authentication header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// What follows the header.
    pub next_header: IpProto,
    /// Security parameters index.
    pub spi: u32,
    /// Low 32 bits of the sequence number.
    pub seq: u32,
    /// Octets of the integrity check value with its padding: a multiple of four (of eight over IPv6).
    pub icv_len: usize,
}

impl Repr {
    /// Reads the header; refuses SPI zero and reserved bits.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self, Malformed> {
        packet.check_len()?;
        if packet.spi() == 0 || packet.reserved() != 0 {
            return Err(Malformed::Field);
        }
        Ok(Self {
            next_header: packet.next_header(),
            spi: packet.spi(),
            seq: packet.seq(),
            icv_len: packet.header_len() - HEADER_LEN,
        })
    }

    /// Octets that [`Self::emit`] writes.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN + self.icv_len
    }

    /// Writes the header with an integrity check value of zeros, as it is authenticated, to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Malformed> {
        let len = self.buffer_len();
        let words = u8::try_from(len / 4 - 2).map_err(|_| Malformed::Length)?;
        if !len.is_multiple_of(4) {
            return Err(Malformed::Length);
        }
        let out = out.get_mut(..len).ok_or(Malformed::Truncated)?;
        out[HEADER_LEN..].fill(0);
        let mut packet = Packet::new_unchecked(out);
        packet.set_next_header(self.next_header);
        packet.set_words_less_two(words);
        packet.set_reserved(0);
        packet.set_spi(self.spi);
        packet.set_seq(self.seq);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_emit_and_parse() {
        let repr = Repr { next_header: IpProto::IPV4, spi: 0x100, seq: 7, icv_len: 12 };
        let mut out = [0xff; 30];
        assert_eq!(repr.emit(&mut out), Ok(24));
        let packet = Packet::new_checked(&out[..]).unwrap();
        assert_eq!(Repr::parse(&packet), Ok(repr));
        assert_eq!((packet.icv(), packet.payload()), (&[0; 12][..], &[0xff; 6][..]));
    }

    #[test]
    fn a_header_shorter_than_itself_is_refused() {
        let mut out = [0; 16];
        for words in [0, 3] {
            out[1] = words;
            assert_eq!(Packet::new_checked(&out[..]).err(), Some(Malformed::HeaderLength), "{words}");
        }
    }
}
