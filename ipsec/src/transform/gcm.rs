//! AES-GCM with the keys and ICVs that the engines do not have (RFC 4106), and AES-GMAC (RFC 4543), composed from `aes`,
//! `ctr` and `ghash` as NIST SP 800-38D has it.
//!
//! ```text
//!   H = E(0)    J0 = nonce ‖ 1    ciphertext = CTR from J0 + 1    tag = E(J0) ⊕ GHASH_H(aad, ciphertext, lengths)
//! ```
//!
//! The tag is computed over what arrived before anything is decrypted.

use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, InnerIvInit, KeyInit, StreamCipher, consts::U16};
use ctr::CtrCore;
use ctr::cipher::StreamCipherCoreWrapper;
use ghash::{GHash, universal_hash::UniversalHash};

pub(super) const TAG: usize = 16;
pub(super) const NONCE: usize = 12;

/// A block cipher of 16-byte blocks with GHASH's key made from it.
pub(super) struct Gcm<C> {
    cipher: C,
    ghash: GHash,
}

impl<C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>> Gcm<C> {
    pub(super) fn new(key: &[u8]) -> Option<Gcm<C>> {
        let cipher = C::new_from_slice(key).ok()?;
        let mut h = [0; TAG].into();
        cipher.encrypt_block(&mut h);
        let ghash = GHash::new(&h);
        zeroize::Zeroize::zeroize(&mut h);
        Some(Gcm { cipher, ghash })
    }

    /// Seals in place; the tag, to be cut by the caller.
    pub(super) fn seal(&self, nonce: &[u8; NONCE], aad: &[&[u8]], data: &mut [u8]) -> Option<[u8; TAG]> {
        self.crypt(nonce, data)?;
        Some(self.tag(nonce, aad, data))
    }

    /// Opens in place if the tag, cut or whole, is right.
    pub(super) fn open(&self, nonce: &[u8; NONCE], aad: &[&[u8]], data: &mut [u8], tag: &[u8]) -> bool {
        let expected = self.tag(nonce, aad, data);
        let right = expected
            .get(..tag.len())
            .is_some_and(|e| aws_lc_rs::constant_time::verify_slices_are_equal(e, tag).is_ok());
        right && self.crypt(nonce, data).is_some()
    }

    fn crypt(&self, nonce: &[u8; NONCE], data: &mut [u8]) -> Option<()> {
        let core =
            CtrCore::<&C, ctr::flavors::Ctr32BE>::inner_iv_init(&self.cipher, &counter(nonce, 2).into());
        StreamCipherCoreWrapper::from_core(core).try_apply_keystream(data).ok()
    }

    /// `aad` comes in pieces, each but the last of whole blocks.
    fn tag(&self, nonce: &[u8; NONCE], aad: &[&[u8]], data: &[u8]) -> [u8; TAG] {
        let mut ghash = self.ghash.clone();
        let mut aad_len = 0;
        for piece in aad {
            ghash.update_padded(piece);
            aad_len += piece.len() as u64;
        }
        ghash.update_padded(data);
        let mut lengths = [0; TAG];
        lengths[..8].copy_from_slice(&(aad_len * 8).to_be_bytes());
        lengths[8..].copy_from_slice(&(data.len() as u64 * 8).to_be_bytes());
        ghash.update(&[lengths.into()]);
        let mut mask = counter(nonce, 1).into();
        self.cipher.encrypt_block(&mut mask);
        let mut tag: [u8; TAG] = ghash.finalize().into();
        tag.iter_mut().zip(mask).for_each(|(byte, m)| *byte ^= m);
        tag
    }
}

fn counter(nonce: &[u8; NONCE], n: u32) -> [u8; TAG] {
    let mut block = [0; TAG];
    block[..NONCE].copy_from_slice(nonce);
    block[NONCE..].copy_from_slice(&n.to_be_bytes());
    block
}
