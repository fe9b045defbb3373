//! The engine AWS-LC, through the safe crate `aws-lc-rs`.
//!
//! Its keys lie where it puts them, which is key memory ([`kern::secret::keep_aws_lc`]); what we hold is the address.
//! The safe wrapper costs some 14 ns a packet over the C interface below it; it is the price of no `unsafe` here.

use super::{
    Suite,
    aead::{Aead, Copied, Open, Seal, TAG_LEN},
};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// A key of AWS-LC.
pub(super) struct AwsLcKey(LessSafeKey);

impl AwsLcKey {
    pub(super) fn new(suite: Suite, key: &[u8]) -> Option<AwsLcKey> {
        if !kern::secret::keep_aws_lc() {
            return None;
        }
        let algorithm = match suite {
            Suite::Aes128Gcm16 => &AES_128_GCM,
            Suite::Aes256Gcm16 => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            _ => return None,
        };
        Some(AwsLcKey(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?)))
    }
}

impl Aead for AwsLcKey {
    #[inline(always)]
    fn seal(&self, job: Seal<'_>) -> bool {
        let Some(tag) = job.tag else { return false };
        let aad = Aad::from(&job.aad[..job.aad_len]);
        let nonce = Nonce::assume_unique_for_key(job.nonce);
        self.0.seal_in_place_scatter(nonce, aad, job.data, &[], tag).is_ok()
    }

    #[inline(always)]
    fn open(&self, job: Open<'_>) -> bool {
        let Some(tag) = job.tag else { return false };
        let aad = Aad::from(&job.aad[..job.aad_len]);
        let nonce = Nonce::assume_unique_for_key(job.nonce);
        self.0.open_in_place_separate_tag(nonce, aad, tag.as_slice(), job.data).is_ok()
    }

    #[inline(always)]
    fn seal_to(&self, job: Copied<'_>, tag: &mut [u8; TAG_LEN]) -> bool {
        let aad = Aad::from(&job.aad[..job.aad_len]);
        let nonce = Nonce::assume_unique_for_key(job.nonce);
        self.0.seal_out_of_place_scatter(nonce, aad, job.from, job.to, &[], tag).is_ok()
    }

    #[inline(always)]
    fn open_to(&self, job: Copied<'_>, tag: &[u8; TAG_LEN]) -> bool {
        let aad = Aad::from(&job.aad[..job.aad_len]);
        let nonce = Nonce::assume_unique_for_key(job.nonce);
        self.0.open_separate_gather(nonce, aad, job.from, tag, job.to).is_ok()
    }
}
