//! Implicit IVs (RFC 8750): the sequence number is the IV, and is not sent a second time.
//!
//! ```text
//!   0        4        8                                              n-16        n
//!   ├────────┼────────┼───────────────────────────────────────────────┼───────────┤
//!   │  SPI   │  seq   │ payload · padding · pad len · next hdr        │    ICV    │
//!   ├────────┴────────┼───────────────────────────────────────────────┼───────────┤
//!   │   AAD: SPI,     │ nonce: salt ‖ seq (64 bits), encrypted        │    tag    │
//! ```
//!
//! So a key must never serve two SAs, nor the same SA again from the first number on: it is for keys that a key exchange
//! has made. Keys of a file are such only until the router is started the second time, and [`conf`](crate::conf) warns.

use super::{
    AeadTransform, HEADER, IV, SALT,
    aead::{Open, Seal, TAG_LEN},
};

/// The IV of a packet: its number; with short numbers a half of zeros in front (RFC 8750, 4).
#[inline(always)]
pub(super) const fn iv(esn: bool, seq: u64) -> [u8; IV] {
    let number = if esn { seq } else { seq & 0xffff_ffff };
    number.to_be_bytes()
}

impl AeadTransform {
    #[inline(always)]
    pub(super) fn seal_implicit<'p>(&self, packet: &'p mut [u8], seq: u64) -> Seal<'p> {
        let Some((header, rest)) = packet.split_first_chunk_mut::<HEADER>() else {
            return Seal::impossible();
        };
        let Some((data, tag)) = rest.split_last_chunk_mut::<TAG_LEN>() else {
            return Seal::impossible();
        };
        let (aad, aad_len) = self.aad(header, seq);
        Seal { nonce: self.implicit_nonce(seq), aad, aad_len, data, tag: Some(tag) }
    }

    #[inline(always)]
    pub(super) fn open_implicit<'p>(&self, packet: &'p mut [u8], seq: u64) -> Open<'p> {
        let Some((header, rest)) = packet.split_first_chunk_mut::<HEADER>() else {
            return Open::impossible();
        };
        let Some((data, tag)) = rest.split_last_chunk_mut::<TAG_LEN>() else {
            return Open::impossible();
        };
        let (aad, aad_len) = self.aad(header, seq);
        Open { nonce: self.implicit_nonce(seq), aad, aad_len, data, tag: Some(tag) }
    }

    #[inline(always)]
    fn implicit_nonce(&self, seq: u64) -> [u8; SALT + IV] {
        let mut nonce = [0; SALT + IV];
        nonce[..SALT].copy_from_slice(&self.salt);
        nonce[SALT..].copy_from_slice(&iv(self.esn, seq));
        nonce
    }
}
