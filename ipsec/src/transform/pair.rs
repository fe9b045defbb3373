//! A cipher with separate integrity: encrypt, then authenticate everything from the SPI to the end of the ciphertext, and
//! with extended sequence numbers the high half behind it (RFC 4303, 2.2.1 and 3.3.2).
//!
//! CBC encrypts one block after the other, and a block waits for the one before: the CPU's AES unit has room for eight at a
//! time. So up to eight packets of a run are encrypted in step:
//!
//! ```text
//!   packet 0   P₀ ─▶ C₀   P₁ ─▶ C₁   P₂ ─▶ C₂        one call of the cipher does a column
//!   packet 1   P₀ ─▶ C₀   P₁ ─▶ C₁   P₂ ─▶ C₂        ▼
//!   packet 2   P₀ ─▶ C₀   P₁ ─▶ C₁
//! ```
//!
//! CBC's IV must not be predictable (RFC 3602, 3): it is the packet's number under the cipher (NIST SP 800-38A,
//! Appendix C). CTR's must only be new (RFC 3686, 3.1): it is the number itself.

use super::{
    HEADER,
    aead::Failures,
    composed::{Job, RunCipher, high},
    mac::Mac,
};
use aes::cipher::{
    Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockSizeUser, InnerIvInit, KeyInit,
    StreamCipher, array::Array, consts::U16,
};
use arrayvec::ArrayVec;
use kern::secret::Secret;
use std::fmt;

/// A cipher that knows where in a packet its IV is. `body` is from the SPI to the end of the ciphertext.
pub(super) trait Encrypt: Sized + Send + Sync {
    /// Of a key as configured, nonce included.
    fn new(key: &[u8]) -> Option<Self>;

    /// Fills in the IVs, made of the numbers, and encrypts; false for a body that is too short or no whole blocks.
    fn seal(&self, lanes: &mut [(&mut [u8], u64)]) -> bool;

    /// Decrypts.
    fn open(&self, body: &mut [u8]) -> bool;

    /// Whether a body has the right length.
    fn fits(body: &[u8]) -> bool;
}

/// NULL (RFC 2410).
pub(super) struct Null;

impl Encrypt for Null {
    fn new(key: &[u8]) -> Option<Null> {
        key.is_empty().then_some(Null)
    }

    fn seal(&self, _lanes: &mut [(&mut [u8], u64)]) -> bool {
        true
    }

    fn open(&self, _body: &mut [u8]) -> bool {
        true
    }

    fn fits(body: &[u8]) -> bool {
        body.len() >= HEADER
    }
}

/// AES-CTR (RFC 3686): the counter block is nonce, IV, and a counter from 1.
pub(super) struct Ctr<C> {
    cipher: C,
    nonce: [u8; 4],
}

const CTR_IV: usize = 8;

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>> Ctr<C> {
    fn apply(&self, body: &mut [u8]) -> bool {
        let Some((head, data)) = body.split_first_chunk_mut::<{ HEADER + CTR_IV }>() else { return false };
        let mut counter = [0; 16];
        counter[..4].copy_from_slice(&self.nonce);
        counter[4..12].copy_from_slice(&head[HEADER..]);
        counter[15] = 1;
        let core = ctr::CtrCore::<&C, ctr::flavors::Ctr32BE>::inner_iv_init(&self.cipher, &counter.into());
        ctr::cipher::StreamCipherCoreWrapper::from_core(core).try_apply_keystream(data).is_ok()
    }
}

impl<C> Encrypt for Ctr<C>
where
    C: KeyInit + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send + Sync,
{
    fn new(key: &[u8]) -> Option<Ctr<C>> {
        let (key, nonce) = key.split_last_chunk::<4>()?;
        Some(Ctr { cipher: C::new_from_slice(key).ok()?, nonce: *nonce })
    }

    fn seal(&self, lanes: &mut [(&mut [u8], u64)]) -> bool {
        lanes.iter_mut().all(|(body, iv)| {
            let Some(place) = body.get_mut(HEADER..HEADER + CTR_IV) else { return false };
            place.copy_from_slice(&iv.to_be_bytes());
            self.apply(body)
        })
    }

    fn open(&self, body: &mut [u8]) -> bool {
        self.apply(body)
    }

    fn fits(body: &[u8]) -> bool {
        body.len() >= HEADER + CTR_IV
    }
}

/// CBC (RFC 3602, RFC 2451).
pub(super) struct Cbc<C>(C);

/// Packets encrypted in step: what AES instructions are in flight on the CPUs of today.
const LANES: usize = 8;

impl<C: BlockCipherEncrypt> Cbc<C> {
    /// Up to `LANES` packets in step; each is the block chained into the next and what is left to encrypt.
    fn in_step(&self, lanes: &mut [(&mut [u8], u64)]) {
        let size = C::block_size();
        let mut chain: ArrayVec<Block<C>, LANES> = lanes
            .iter()
            .map(|(_, number)| {
                let mut block = Block::<C>::default();
                block[..8].copy_from_slice(&number.to_be_bytes());
                block
            })
            .collect();
        self.0.encrypt_blocks(&mut chain);
        for ((body, _), iv) in lanes.iter_mut().zip(&chain) {
            body[HEADER..HEADER + size].copy_from_slice(iv);
        }
        let longest = lanes.iter().map(|(body, _)| body.len()).max().unwrap_or(0);
        let shortest = lanes.iter().map(|(body, _)| body.len()).min().unwrap_or(0);
        for at in (HEADER + size..longest).step_by(size) {
            for ((body, _), block) in lanes.iter().zip(&mut chain) {
                if let Some(plain) = body.get(at..at + size) {
                    block.iter_mut().zip(plain).for_each(|(b, p)| *b ^= p);
                }
            }
            // Lanes that have ended are encrypted along, to nobody's use.
            self.0.encrypt_blocks(&mut chain);
            for ((body, _), block) in lanes.iter_mut().zip(&chain) {
                if at < shortest || at < body.len() {
                    body[at..at + size].copy_from_slice(block);
                }
            }
        }
    }
}

impl<C> Encrypt for Cbc<C>
where
    C: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + Send + Sync,
{
    fn new(key: &[u8]) -> Option<Cbc<C>> {
        Some(Cbc(C::new_from_slice(key).ok()?))
    }

    fn seal(&self, lanes: &mut [(&mut [u8], u64)]) -> bool {
        lanes.chunks_mut(LANES).for_each(|lanes| self.in_step(lanes));
        true
    }

    fn open(&self, body: &mut [u8]) -> bool {
        let size = C::block_size();
        let (head, data) = body.split_at_mut(HEADER + size);
        let Ok(iv) = <&Block<C>>::try_from(&head[HEADER..]) else { return false };
        let mut cbc = cbc::Decryptor::<&C>::inner_iv_init(&self.0, iv);
        let (blocks, rest) = Array::slice_as_chunks_mut(data);
        cbc.decrypt_blocks(blocks);
        rest.is_empty()
    }

    fn fits(body: &[u8]) -> bool {
        let size = C::block_size();
        body.len() >= HEADER + size && (body.len() - HEADER).is_multiple_of(size)
    }
}

/// The two together.
pub(super) struct Pair<E> {
    pub(super) cipher: Secret<E>,
    pub(super) mac: Secret<Mac>,
    pub(super) icv: usize,
    pub(super) esn: bool,
}

impl<E> fmt::Debug for Pair<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair(..)")
    }
}

impl<E: Encrypt> Pair<E> {
    /// Where the ICV begins, in a packet that has a body of the right length in front of it.
    fn end(&self, packet: &[u8]) -> Option<usize> {
        let end = packet.len().checked_sub(self.icv)?;
        E::fits(&packet[..end]).then_some(end)
    }

    fn open_one(&self, job: &mut Job<'_>) -> Option<bool> {
        let end = self.end(job.packet)?;
        let (body, icv) = job.packet.split_at_mut(end);
        let (seq, len) = high(self.esn, job.seq);
        let verified = self.mac.expose().verify(&[body, &seq[..len]], icv);
        Some(verified && self.cipher.expose().open(body))
    }
}

impl<E: Encrypt> RunCipher for Pair<E> {
    fn seal(&self, run: &mut [Job<'_>]) -> Failures {
        let failures = Failures::of(run.iter().map(|job| self.end(job.packet).is_some()));
        let sealed = {
            let right = run.iter_mut().enumerate().filter(|(place, _)| !failures.has(*place));
            let mut lanes: ArrayVec<_, { super::RUN }> = right
                .filter_map(|(_, job)| {
                    let end = job.packet.len() - self.icv;
                    Some((job.packet.get_mut(..end)?, job.iv))
                })
                .collect();
            self.cipher.expose().seal(&mut lanes)
        };
        if !sealed {
            return Failures::of(run.iter().map(|_| false));
        }
        for (_, job) in run.iter_mut().enumerate().filter(|(place, _)| !failures.has(*place)) {
            let (body, icv) = job.packet.split_at_mut(job.packet.len() - self.icv);
            let (seq, len) = high(self.esn, job.seq);
            self.mac.expose().sign(&[body, &seq[..len]], icv);
        }
        failures
    }

    fn open(&self, run: &mut [Job<'_>]) -> Failures {
        Failures::of(run.iter_mut().map(|job| self.open_one(job) == Some(true)))
    }
}
