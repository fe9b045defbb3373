//! ESP's other algorithms: those composed of parts, a run at a time.
//!
//! They stand beside the AEADs with engines, not in their way: a [`Transform`](super::Transform) is one or the other, and
//! here the choice is one call through a table for a run of packets, each of which costs a microsecond.

use super::{
    AesKey, Cipher, HEADER, Icv, SALT, Suite,
    aead::{Failures, KeyError, RUN},
    ccm::CcmEsp,
    gcm::Gcm,
    implicit,
    mac::Mac,
    pair::{Cbc, Ctr, Encrypt, Null, Pair},
};
use aes::{
    Aes128, Aes192, Aes256,
    cipher::{
        BlockCipherEncrypt, BlockSizeUser, KeyInit,
        consts::{U8, U12, U16},
    },
};
use arrayvec::ArrayVec;
use kern::secret::Secret;
use std::fmt;

/// A packet from the SPI to the end of the ICV, its 64-bit sequence number, and a number for its IV that is used once.
pub(super) struct Job<'p> {
    pub(super) packet: &'p mut [u8],
    pub(super) seq: u64,
    pub(super) iv: u64,
}

/// A run of jobs.
pub(super) type Jobs<'p> = ArrayVec<Job<'p>, RUN>;

/// What seals and opens whole packets.
pub(super) trait RunCipher: fmt::Debug + Send + Sync {
    /// Seals each packet in place.
    fn seal(&self, run: &mut [Job<'_>]) -> Failures;

    /// Opens each packet in place.
    fn open(&self, run: &mut [Job<'_>]) -> Failures;
}

/// The sequence number's high half, where an SA has one: authenticated and not sent.
pub(super) fn high(esn: bool, seq: u64) -> ([u8; 4], usize) {
    (((seq >> 32) as u32).to_be_bytes(), if esn { 4 } else { 0 })
}

/// Sets up a suite without engines.
pub(super) fn new(suite: Suite, material: &[u8], esn: bool) -> Result<Box<dyn RunCipher>, KeyError> {
    let implicit = suite.is_implicit();
    let shape = |icv, clear| Shape { icv, clear, esn, implicit };
    match suite.explicit() {
        Suite::Gcm(key, icv) => gcm(suite, key, material, shape(icv.len(), false)),
        Suite::Gmac(key) => gcm(suite, key, material, shape(Icv::Bytes16.len(), true)),
        Suite::Ccm(AesKey::Bits128, icv) => ccm::<Aes128>(suite, icv, material, esn),
        Suite::Ccm(AesKey::Bits192, icv) => ccm::<Aes192>(suite, icv, material, esn),
        Suite::Ccm(AesKey::Bits256, icv) => ccm::<Aes256>(suite, icv, material, esn),
        Suite::Pair(cipher, _) => match cipher {
            Cipher::Null => pair::<Null>(suite, material, esn),
            Cipher::AesCbc(AesKey::Bits128) => pair::<Cbc<Aes128>>(suite, material, esn),
            Cipher::AesCbc(AesKey::Bits192) => pair::<Cbc<Aes192>>(suite, material, esn),
            Cipher::AesCbc(AesKey::Bits256) => pair::<Cbc<Aes256>>(suite, material, esn),
            Cipher::AesCtr(AesKey::Bits128) => pair::<Ctr<Aes128>>(suite, material, esn),
            Cipher::AesCtr(AesKey::Bits192) => pair::<Ctr<Aes192>>(suite, material, esn),
            Cipher::AesCtr(AesKey::Bits256) => pair::<Ctr<Aes256>>(suite, material, esn),
            #[cfg(feature = "legacy")]
            Cipher::TripleDes => pair::<Cbc<des::TdesEde3>>(suite, material, esn),
        },
        _ => Err(refused(suite)),
    }
}

pub(super) fn refused(suite: Suite) -> KeyError {
    KeyError::Refused { engine: super::Engine::RustCrypto, suite }
}

fn pair<E: Encrypt + 'static>(
    suite: Suite,
    material: &[u8],
    esn: bool,
) -> Result<Box<dyn RunCipher>, KeyError> {
    let (cipher, auth) = material.split_at(suite.key_len() + suite.salt_len());
    let cipher = Secret::new(E::new(cipher).ok_or(refused(suite))?)?;
    let mac = suite.auth().and_then(|algorithm| Mac::new(algorithm, auth)).ok_or(refused(suite))?;
    Ok(Box::new(Pair { cipher, mac: Secret::new(mac)?, icv: suite.icv_len(), esn }))
}

fn ccm<C>(suite: Suite, icv: Icv, material: &[u8], esn: bool) -> Result<Box<dyn RunCipher>, KeyError>
where
    C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send + Sync + 'static,
{
    let (key, salt) = material.split_at(suite.key_len());
    let (salt, implicit) = (salt.try_into().map_err(|_| refused(suite))?, suite.is_implicit());
    Ok(match icv {
        Icv::Bytes8 => Box::new(CcmEsp::<C, U8>::new(key, salt, esn, implicit).ok_or(refused(suite))??),
        Icv::Bytes12 => Box::new(CcmEsp::<C, U12>::new(key, salt, esn, implicit).ok_or(refused(suite))??),
        Icv::Bytes16 => Box::new(CcmEsp::<C, U16>::new(key, salt, esn, implicit).ok_or(refused(suite))??),
    })
}

fn gcm(suite: Suite, key_len: AesKey, material: &[u8], shape: Shape) -> Result<Box<dyn RunCipher>, KeyError> {
    fn boxed<C>(suite: Suite, material: &[u8], shape: Shape) -> Result<Box<dyn RunCipher>, KeyError>
    where
        C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send + Sync + 'static,
    {
        let (key, salt) = material.split_at(suite.key_len());
        let salt = salt.try_into().map_err(|_| refused(suite))?;
        let gcm = Secret::new(Gcm::<C>::new(key).ok_or(refused(suite))?)?;
        Ok(Box::new(GcmEsp { gcm, salt, shape }))
    }
    match key_len {
        AesKey::Bits128 => boxed::<Aes128>(suite, material, shape),
        AesKey::Bits192 => boxed::<Aes192>(suite, material, shape),
        AesKey::Bits256 => boxed::<Aes256>(suite, material, shape),
    }
}

/// What an SA's packets of AES-GCM look like.
#[derive(Clone, Copy)]
struct Shape {
    icv: usize,
    /// AES-GMAC: everything is additional data (RFC 4543).
    clear: bool,
    esn: bool,
    implicit: bool,
}

/// AES-GCM or AES-GMAC, as ESP uses them (RFC 4106, 4543, 8750).
struct GcmEsp<C> {
    gcm: Secret<Gcm<C>>,
    salt: [u8; SALT],
    shape: Shape,
}

impl<C> fmt::Debug for GcmEsp<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GcmEsp(..)")
    }
}

/// Octets of ESP header and IV.
const HEAD: usize = HEADER + super::IV;
/// SPI, 64-bit sequence number, half the IV: GMAC's additional data begin with it and go on in the packet.
const FIRST: usize = 16;

impl<C> GcmEsp<C>
where
    C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    /// The parts of a packet: head, payload, ICV.
    fn split<'p>(&self, packet: &'p mut [u8]) -> Option<[&'p mut [u8]; 3]> {
        let (head, rest) = packet.split_at_mut_checked(if self.shape.implicit { HEADER } else { HEAD })?;
        let (data, icv) = rest.split_at_mut(rest.len().checked_sub(self.shape.icv)?);
        Some([head, data, icv])
    }

    fn nonce(&self, head: &[u8], seq: u64) -> [u8; SALT + super::IV] {
        let mut nonce = [0; SALT + super::IV];
        nonce[..SALT].copy_from_slice(&self.salt);
        if self.shape.implicit {
            nonce[SALT..].copy_from_slice(&implicit::iv(self.shape.esn, seq));
        } else {
            nonce[SALT..].copy_from_slice(&head[HEADER..]);
        }
        nonce
    }

    /// What is authenticated in front of the ciphertext: SPI and sequence number, 12 octets with ESN; for GMAC the first
    /// 16 octets, the IV's end behind them.
    fn first(&self, head: &[u8], seq: u64) -> ([u8; FIRST], usize) {
        let mut first = [0; FIRST];
        first[..head.len()].copy_from_slice(head);
        let Shape { clear, esn, .. } = self.shape;
        if esn {
            first[4..12].copy_from_slice(&seq.to_be_bytes());
            if clear {
                first[12..].copy_from_slice(&head[HEADER..HEADER + 4]);
            }
            return (first, if clear { FIRST } else { 12 });
        }
        (first, if clear { FIRST } else { HEADER })
    }

    /// GMAC's additional data behind the first 16: with ESN the IV's other half comes before the payload, and they are one
    /// piece of the packet.
    fn behind<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        let from = if self.shape.esn { HEAD - 4 } else { HEAD };
        packet.get(from..packet.len().saturating_sub(self.shape.icv)).unwrap_or_default()
    }

    fn seal_one(&self, job: &mut Job<'_>) -> Option<()> {
        let gcm = self.gcm.expose();
        let [head, data, icv] = self.split(job.packet)?;
        if !self.shape.implicit {
            head[HEADER..].copy_from_slice(&job.iv.to_be_bytes());
        }
        let (nonce, (first, len)) = (self.nonce(head, job.seq), self.first(head, job.seq));
        if !self.shape.clear {
            let tag = gcm.seal(&nonce, &[&first[..len]], data)?;
            icv.copy_from_slice(&tag[..self.shape.icv]);
            return Some(());
        }
        let tag = gcm.seal(&nonce, &[&first[..len], self.behind(job.packet)], &mut [])?;
        let [_, _, icv] = self.split(job.packet)?;
        icv.copy_from_slice(&tag[..self.shape.icv]);
        Some(())
    }

    fn open_one(&self, job: &mut Job<'_>) -> Option<bool> {
        let gcm = self.gcm.expose();
        let [head, data, icv] = self.split(job.packet)?;
        let (nonce, (first, len)) = (self.nonce(head, job.seq), self.first(head, job.seq));
        if !self.shape.clear {
            return Some(gcm.open(&nonce, &[&first[..len]], data, icv));
        }
        let icv = <[u8; FIRST]>::try_from(&*icv).ok()?;
        Some(gcm.open(&nonce, &[&first[..len], self.behind(job.packet)], &mut [], &icv))
    }
}

impl<C> RunCipher for GcmEsp<C>
where
    C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send + Sync,
{
    fn seal(&self, run: &mut [Job<'_>]) -> Failures {
        Failures::of(run.iter_mut().map(|job| self.seal_one(job).is_some()))
    }

    fn open(&self, run: &mut [Job<'_>]) -> Failures {
        Failures::of(run.iter_mut().map(|job| self.open_one(job) == Some(true)))
    }
}
