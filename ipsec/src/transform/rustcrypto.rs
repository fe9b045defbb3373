//! The engine RustCrypto: pure Rust with CPU intrinsics, the second opinion on the other two.

use super::{
    Suite,
    aead::{Aead, Open, Seal},
};
use aes_gcm::{
    Aes128Gcm, Aes256Gcm, KeyInit,
    aead::{AeadInOut, Nonce, Tag},
};
use chacha20poly1305::ChaCha20Poly1305;

/// A key of RustCrypto.
#[allow(clippy::large_enum_variant, reason = "it lies in a slot of key memory of its own, once per SA")]
pub(super) enum RustCryptoKey {
    Aes128(Aes128Gcm),
    Aes256(Aes256Gcm),
    ChaCha20(ChaCha20Poly1305),
}

impl RustCryptoKey {
    pub(super) fn new(suite: Suite, key: &[u8]) -> Option<RustCryptoKey> {
        Some(match suite {
            Suite::Aes128Gcm16 => RustCryptoKey::Aes128(Aes128Gcm::new_from_slice(key).ok()?),
            Suite::Aes256Gcm16 => RustCryptoKey::Aes256(Aes256Gcm::new_from_slice(key).ok()?),
            Suite::ChaCha20Poly1305 => RustCryptoKey::ChaCha20(ChaCha20Poly1305::new_from_slice(key).ok()?),
            _ => return None,
        })
    }
}

#[inline(always)]
fn seal<C: AeadInOut>(cipher: &C, job: Seal<'_>) -> bool {
    let (Some(place), Ok(nonce)) = (job.tag, <&Nonce<C>>::try_from(&job.nonce[..])) else { return false };
    let aad = &job.aad[..job.aad_len];
    let Ok(tag) = cipher.encrypt_inout_detached(nonce, aad, job.data.into()) else { return false };
    place.copy_from_slice(&tag);
    true
}

#[inline(always)]
fn open<C: AeadInOut>(cipher: &C, job: Open<'_>) -> bool {
    let Some(tag) = job.tag else { return false };
    let (Ok(nonce), Ok(tag)) = (<&Nonce<C>>::try_from(&job.nonce[..]), <&Tag<C>>::try_from(&tag[..])) else {
        return false;
    };
    cipher.decrypt_inout_detached(nonce, &job.aad[..job.aad_len], job.data.into(), tag).is_ok()
}

impl Aead for RustCryptoKey {
    #[inline]
    fn seal(&self, job: Seal<'_>) -> bool {
        match self {
            RustCryptoKey::Aes128(cipher) => seal(cipher, job),
            RustCryptoKey::Aes256(cipher) => seal(cipher, job),
            RustCryptoKey::ChaCha20(cipher) => seal(cipher, job),
        }
    }

    #[inline]
    fn open(&self, job: Open<'_>) -> bool {
        match self {
            RustCryptoKey::Aes128(cipher) => open(cipher, job),
            RustCryptoKey::Aes256(cipher) => open(cipher, job),
            RustCryptoKey::ChaCha20(cipher) => open(cipher, job),
        }
    }
}
