//! Integrity algorithms: what fills AH's ICV and that of ESP beside a cipher without one.
//!
//! | algorithm | RFC | from |
//! |---|---|---|
//! | HMAC-SHA1-96 | 2404 | `ring` |
//! | HMAC-SHA2-256-128, -384-192, -512-256 | 4868 | `ring` |
//! | AES-CMAC-96 | 4493, 4494 | `cmac` |
//! | AES-XCBC-MAC-96 | 3566 | `cbc-mac` and `aes`: no crate has it, and it is CBC-MAC with another last block |
//! | HMAC-MD5-96 | 2403 | `hmac`, `md-5`, in a build with `legacy` |
//!
//! `ring`'s keys are plain values and its SHA-2 uses the CPU's instructions; so a key lies in key memory with all of
//! its schedule.

use super::Auth;
use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use cbc_mac::{CbcMac, Mac as _};
use cmac::Cmac;
use ring::hmac;

/// The longest untruncated result.
const LONGEST: usize = 64;
const BLOCK: usize = 16;

/// An integrity algorithm with its key.
pub struct Mac {
    keyed: Keyed,
    icv: usize,
}

#[allow(clippy::large_enum_variant, reason = "it lies in a slot of key memory of its own, once per SA")]
enum Keyed {
    Hmac(hmac::Key),
    Cmac(Cmac<Aes128>),
    Xcbc(Xcbc),
    #[cfg(feature = "legacy")]
    Md5(::hmac::Hmac<md5::Md5>),
}

impl Mac {
    pub(super) fn new(auth: Auth, key: &[u8]) -> Option<Mac> {
        if key.len() != auth.key_len() {
            return None;
        }
        let hmac = |algorithm| Keyed::Hmac(hmac::Key::new(algorithm, key));
        let keyed = match auth {
            Auth::HmacSha1 => hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Auth::HmacSha256 => hmac(hmac::HMAC_SHA256),
            Auth::HmacSha384 => hmac(hmac::HMAC_SHA384),
            Auth::HmacSha512 => hmac(hmac::HMAC_SHA512),
            Auth::AesCmac => Keyed::Cmac(KeyInit::new_from_slice(key).ok()?),
            Auth::AesXcbc => Keyed::Xcbc(Xcbc::new(key.try_into().ok()?)),
            #[cfg(feature = "legacy")]
            Auth::HmacMd5 => Keyed::Md5(KeyInit::new_from_slice(key).ok()?),
        };
        Some(Mac { keyed, icv: auth.icv_len() })
    }

    /// The ICV over these parts, one behind the other.
    pub fn sign(&self, parts: &[&[u8]], icv: &mut [u8]) -> bool {
        let mut whole = [0; LONGEST];
        self.whole(parts, &mut whole);
        if icv.len() != self.icv {
            return false;
        }
        icv.copy_from_slice(&whole[..self.icv]);
        true
    }

    /// Whether this is the ICV over these parts. Takes the same time wherever it is wrong.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], icv: &[u8]) -> bool {
        let mut whole = [0; LONGEST];
        self.whole(parts, &mut whole);
        aws_lc_rs::constant_time::verify_slices_are_equal(&whole[..self.icv], icv).is_ok()
    }

    /// The result before it is cut.
    fn whole(&self, parts: &[&[u8]], to: &mut [u8; LONGEST]) {
        match &self.keyed {
            Keyed::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                for part in parts {
                    context.update(part);
                }
                let tag = context.sign();
                to[..tag.as_ref().len()].copy_from_slice(tag.as_ref());
            }
            Keyed::Cmac(key) => {
                let mut context = key.clone();
                for part in parts {
                    context.update(part);
                }
                to[..BLOCK].copy_from_slice(&context.finalize().into_bytes());
            }
            Keyed::Xcbc(key) => to[..BLOCK].copy_from_slice(&key.sum(parts)),
            #[cfg(feature = "legacy")]
            Keyed::Md5(key) => {
                let mut context = key.clone();
                for part in parts {
                    context.update(part);
                }
                to[..BLOCK].copy_from_slice(&context.finalize().into_bytes());
            }
        }
    }
}

/// AES-XCBC-MAC (RFC 3566, 4): CBC-MAC under K1, with the last block mixed with K2 if it is whole, else padded and mixed
/// with K3.
struct Xcbc {
    k1: CbcMac<Aes128>,
    k2: [u8; BLOCK],
    k3: [u8; BLOCK],
}

impl Xcbc {
    fn new(key: &[u8; BLOCK]) -> Xcbc {
        let cipher = Aes128::new(key.into());
        let derived = |n: u8| {
            let mut block = [n; BLOCK].into();
            cipher.encrypt_block(&mut block);
            <[u8; BLOCK]>::from(block)
        };
        let mut k1 = derived(1);
        let xcbc = Xcbc { k1: CbcMac::new((&k1).into()), k2: derived(2), k3: derived(3) };
        zeroize::Zeroize::zeroize(&mut k1);
        xcbc
    }

    fn sum(&self, parts: &[&[u8]]) -> [u8; BLOCK] {
        let mut context = self.k1.clone();
        let total: usize = parts.iter().map(|part| part.len()).sum();
        // All but the last 1 to 16 bytes as they are.
        let mut left = total.saturating_sub(1) / BLOCK * BLOCK;
        let (mut last, mut filled) = ([0; BLOCK], 0);
        for part in parts {
            let (body, tail) = part.split_at(left.min(part.len()));
            left -= body.len();
            context.update(body);
            last[filled..filled + tail.len()].copy_from_slice(tail);
            filled += tail.len();
        }
        let mix = if filled == BLOCK {
            &self.k2
        } else {
            last[filled] = 0x80;
            &self.k3
        };
        last.iter_mut().zip(mix).for_each(|(byte, k)| *byte ^= k);
        context.update(&last);
        context.finalize().into_bytes().into()
    }
}

impl Drop for Xcbc {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.k2);
        zeroize::Zeroize::zeroize(&mut self.k3);
    }
}
