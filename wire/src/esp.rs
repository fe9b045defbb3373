//! ESP as it lies on the wire (RFC 4303): header before, trailer and integrity value behind the payload. No cryptography.
//!
//! ```text
//! | spi (4) | sequence number (4) | iv (0, 8, 16) | payload | padding (0..255) | pad length (1) | next header (1) | icv (0..32) |
//!                                                  '------------------ encrypted ----------------------------'
//! ```

use crate::{IpProto, Malformed};

/// Octets before the initialisation vector.
pub const HEADER_LEN: usize = 8;
/// Octets of the trailer without padding.
pub const TRAILER_LEN: usize = 2;

view! {
    /// An ESP packet.
    Packet
}

fields! { Packet:
    /// Security parameters index. Zero is never on the wire; 1 to 255 are reserved.
    u32, spi, set_spi @ 0;
    /// Low 32 bits of the sequence number.
    u32, seq, set_seq @ 4;
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Whether the header is there.
    pub fn check_len(&self) -> Result<(), Malformed> {
        if self.octets().len() < HEADER_LEN { Err(Malformed::Truncated) } else { Ok(()) }
    }
}

/// The part of an ESP packet that stands before the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Security parameters index.
    pub spi: u32,
    /// Low 32 bits of the sequence number.
    pub seq: u32,
}

impl Repr {
    /// Reads the header; refuses SPI zero, which means "no SA".
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self, Malformed> {
        packet.check_len()?;
        match packet.spi() {
            0 => Err(Malformed::Field),
            spi => Ok(Self { spi, seq: packet.seq() }),
        }
    }

    /// Octets that [`Self::emit`] writes.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Malformed> {
        let mut packet = Packet::new_unchecked(out.get_mut(..HEADER_LEN).ok_or(Malformed::Truncated)?);
        packet.set_spi(self.spi);
        packet.set_seq(self.seq);
        Ok(HEADER_LEN)
    }
}

/// Octets of padding that make payload and trailer a multiple of `align`, a power of two from 4 to 64.
#[inline(always)]
pub const fn padding(payload_len: usize, align: usize) -> usize {
    debug_assert!(align.is_power_of_two() && align >= 4 && align <= 64);
    (payload_len + TRAILER_LEN).wrapping_neg() & (align - 1)
}

/// Writes padding 1, 2, 3, ..., its length and the next header: all of `out`, at most 257 octets.
#[inline]
pub fn write_trailer(out: &mut [u8], next: IpProto) -> Result<(), Malformed> {
    let pad = out.len().checked_sub(TRAILER_LEN).ok_or(Malformed::Truncated)?;
    let pad_len = u8::try_from(pad).map_err(|_| Malformed::Length)?;
    for (octet, n) in out.iter_mut().zip(1..=pad_len) {
        *octet = n;
    }
    out[pad] = pad_len;
    out[pad + 1] = next.0;
    Ok(())
}

/// Reads the trailer at the end of a decrypted packet. Returns the octets of payload and what they are; refuses padding that is not 1, 2, 3, ...
/// (RFC 4303, 2.4: the receiver should look).
#[inline]
pub fn read_trailer(plain: &[u8]) -> Result<(usize, IpProto), Malformed> {
    let (rest, &[pad_len, next]) = plain.split_last_chunk::<TRAILER_LEN>().ok_or(Malformed::Truncated)?;
    let payload_len = rest.len().checked_sub(usize::from(pad_len)).ok_or(Malformed::Length)?;
    let in_order = rest[payload_len..].iter().zip(1..=u8::MAX).all(|(&octet, n)| octet == n);
    if in_order { Ok((payload_len, IpProto(next))) } else { Err(Malformed::Field) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_of_every_length_survives() {
        for payload in 0..300 {
            for align in [4, 8, 16, 64] {
                let pad = padding(payload, align);
                assert!(pad < align && (payload + pad + 2).is_multiple_of(align));
                let mut plain = vec![0xaa; payload + pad + 2];
                write_trailer(&mut plain[payload..], IpProto::IPV4).unwrap();
                assert_eq!(read_trailer(&plain), Ok((payload, IpProto::IPV4)));
            }
        }
        let mut most = [0; 257];
        write_trailer(&mut most, IpProto::IPV6).unwrap();
        assert_eq!(read_trailer(&most), Ok((0, IpProto::IPV6)));
        assert_eq!(write_trailer(&mut [0; 258], IpProto::IPV6), Err(Malformed::Length));
    }

    #[test]
    fn a_trailer_that_lies_is_refused() {
        assert_eq!(read_trailer(&[4]), Err(Malformed::Truncated));
        assert_eq!(read_trailer(&[1, 2, 3, 4]), Err(Malformed::Length));
        assert_eq!(read_trailer(&[1, 3, 2, 4]), Err(Malformed::Field));
    }

    #[test]
    fn spi_zero_is_refused() {
        let mut out = [0; 8];
        Repr { spi: 0, seq: 1 }.emit(&mut out).unwrap();
        assert_eq!(Repr::parse(&Packet::new_unchecked(out)), Err(Malformed::Field));
    }
}
