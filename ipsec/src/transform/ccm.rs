//! AES-CCM as ESP uses it (RFC 4309): three octets of salt, eight of IV, a nonce of eleven.

use super::{
    HEADER, IV,
    aead::Failures,
    composed::{Job, RunCipher},
    implicit,
};
use aes::cipher::{
    BlockCipherEncrypt, BlockSizeUser, KeyInit,
    array::ArraySize,
    consts::{U11, U16},
};
use aes_gcm::aead::{AeadInOut, Nonce, Tag};
pub(super) use ccm::Ccm;
use ccm::TagSize;
use kern::secret::{OutOfSecretMemory, Secret};
use std::fmt;

const SALT: usize = 3;

/// See the head of the file. `M` is the length of the ICV.
pub(super) struct CcmEsp<C, M>
where
    C: BlockSizeUser<BlockSize = U16> + BlockCipherEncrypt,
    M: ArraySize + TagSize,
{
    key: Secret<Ccm<C, M, U11>>,
    salt: [u8; SALT],
    esn: bool,
    implicit: bool,
}

impl<C, M> CcmEsp<C, M>
where
    C: BlockSizeUser<BlockSize = U16> + BlockCipherEncrypt + KeyInit,
    M: ArraySize + TagSize,
{
    /// `None` for a key of the wrong length.
    pub(super) fn new(
        key: &[u8],
        salt: [u8; SALT],
        esn: bool,
        implicit: bool,
    ) -> Option<Result<Self, OutOfSecretMemory>> {
        let key = Ccm::new_from_slice(key).ok()?;
        Some(Secret::new(key).map(|key| CcmEsp { key, salt, esn, implicit }))
    }

    /// Nonce and additional data (RFC 4309, 4 and 5) of a packet that begins with `head`.
    fn words(&self, head: &[u8], seq: u64) -> ([u8; SALT + IV], [u8; 12], usize) {
        let (mut nonce, mut aad) = ([0; SALT + IV], [0; 12]);
        nonce[..SALT].copy_from_slice(&self.salt);
        if self.implicit {
            nonce[SALT..].copy_from_slice(&implicit::iv(self.esn, seq));
        } else {
            nonce[SALT..].copy_from_slice(&head[HEADER..]);
        }
        aad[..HEADER].copy_from_slice(&head[..HEADER]);
        if self.esn {
            aad[4..].copy_from_slice(&seq.to_be_bytes());
            return (nonce, aad, 12);
        }
        (nonce, aad, HEADER)
    }

    fn crypt(&self, job: &mut Job<'_>, seals: bool) -> Option<()> {
        let head = if self.implicit { HEADER } else { HEADER + IV };
        let (head, rest) = job.packet.split_at_mut_checked(head)?;
        let (data, icv) = rest.split_at_mut(rest.len().checked_sub(M::USIZE)?);
        if seals && !self.implicit {
            head[HEADER..].copy_from_slice(&job.iv.to_be_bytes());
        }
        let (nonce, aad, len) = self.words(head, job.seq);
        let (key, nonce) = (self.key.expose(), <&Nonce<Ccm<C, M, U11>>>::try_from(&nonce[..]).ok()?);
        if seals {
            let tag = key.encrypt_inout_detached(nonce, &aad[..len], data.into()).ok()?;
            icv.copy_from_slice(&tag);
            return Some(());
        }
        let tag = <&Tag<Ccm<C, M, U11>>>::try_from(&*icv).ok()?;
        key.decrypt_inout_detached(nonce, &aad[..len], data.into(), tag).ok()
    }
}

impl<C, M> fmt::Debug for CcmEsp<C, M>
where
    C: BlockSizeUser<BlockSize = U16> + BlockCipherEncrypt,
    M: ArraySize + TagSize,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CcmEsp(..)")
    }
}

impl<C, M> RunCipher for CcmEsp<C, M>
where
    C: BlockSizeUser<BlockSize = U16> + BlockCipherEncrypt + KeyInit + Send + Sync,
    M: ArraySize + TagSize + Send + Sync,
{
    fn seal(&self, run: &mut [Job<'_>]) -> Failures {
        Failures::of(run.iter_mut().map(|job| self.crypt(job, true).is_some()))
    }

    fn open(&self, run: &mut [Job<'_>]) -> Failures {
        Failures::of(run.iter_mut().map(|job| self.crypt(job, false).is_some()))
    }
}
