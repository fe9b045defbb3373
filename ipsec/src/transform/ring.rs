//! The engine `ring`: BoringSSL's assembly. Its keys are plain values, so all of them lies in key memory.

use super::{
    Suite,
    aead::{Aead, Open, Seal},
};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

/// A key of `ring`. "Less safe" is ring's word for leaving the nonces to the caller, which ESP must.
pub(super) struct RingKey(LessSafeKey);

impl RingKey {
    pub(super) fn new(suite: Suite, key: &[u8]) -> Option<RingKey> {
        let algorithm = match suite {
            Suite::Aes128Gcm16 => &AES_128_GCM,
            Suite::Aes256Gcm16 => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            _ => return None,
        };
        Some(RingKey(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?)))
    }
}

impl Aead for RingKey {
    #[inline(always)]
    fn seal(&self, job: Seal<'_>) -> bool {
        let Some(place) = job.tag else { return false };
        let aad = Aad::from(&job.aad[..job.aad_len]);
        let nonce = Nonce::assume_unique_for_key(job.nonce);
        let Ok(tag) = self.0.seal_in_place_separate_tag(nonce, aad, job.data) else { return false };
        place.copy_from_slice(tag.as_ref());
        true
    }

    #[inline(always)]
    fn open(&self, job: Open<'_>) -> bool {
        let Some(tag) = job.tag else { return false };
        let aad = Aad::from(&job.aad[..job.aad_len]);
        let nonce = Nonce::assume_unique_for_key(job.nonce);
        self.0.open_in_place_separate_tag(nonce, aad, Tag::from(*tag), job.data, 0..).is_ok()
    }
}
