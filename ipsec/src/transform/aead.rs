//! Authenticated encryption over many buffers at a time (RFC 5116), whichever library does it.
//!
//! The jobs of a run come as an iterator, not as a slice: an engine that takes one buffer after the other (all three of
//! today) needs no array of them in between, and one that interleaves many collects as many as it wants.

use super::{Engine, Suite, aws_lc::AwsLcKey, ring::RingKey, rustcrypto::RustCryptoKey};
use kern::secret::{OutOfSecretMemory, Secret};

/// Bytes of the tag.
pub const TAG_LEN: usize = 16;

/// The most packets a run has: a run's failures fit into one word.
pub const RUN: usize = 64;

/// A key could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Wrong length.
    #[error("{suite} takes {expected} bytes of key and salt, not {got}")]
    Length {
        /// The algorithm.
        suite: Suite,
        /// Bytes it takes.
        expected: usize,
        /// Bytes there are.
        got: usize,
    },
    /// The engine has no such algorithm on this machine.
    #[error("engine {engine} refuses {suite}")]
    Refused {
        /// The engine.
        engine: Engine,
        /// The algorithm.
        suite: Suite,
    },
    /// No memory for keys.
    #[error(transparent)]
    Memory(#[from] OutOfSecretMemory),
}

/// One buffer to seal in place.
#[derive(Debug)]
pub struct Seal<'a> {
    /// Used once with this key.
    pub nonce: [u8; 12],
    /// Authenticated but not encrypted, the first `aad_len` bytes.
    pub aad: [u8; 12],
    /// How much of `aad` counts.
    pub aad_len: usize,
    /// Clear before, encrypted after.
    pub data: &'a mut [u8],
    /// Where the tag goes; a job without a place for it fails.
    pub tag: Option<&'a mut [u8; TAG_LEN]>,
}

/// One buffer to open in place.
#[derive(Debug)]
pub struct Open<'a> {
    /// The nonce it was sealed with.
    pub nonce: [u8; 12],
    /// Authenticated but not encrypted, the first `aad_len` bytes.
    pub aad: [u8; 12],
    /// How much of `aad` counts.
    pub aad_len: usize,
    /// Encrypted before, clear after, worthless if the tag does not verify.
    pub data: &'a mut [u8],
    /// The tag that came; a job without one fails.
    pub tag: Option<&'a mut [u8; TAG_LEN]>,
}

/// One buffer to seal or open from one place to another: cutting a super-frame while sealing it.
#[derive(Debug)]
pub struct Copied<'a> {
    /// The nonce.
    pub nonce: [u8; 12],
    /// Authenticated but not encrypted, the first `aad_len` bytes.
    pub aad: [u8; 12],
    /// How much of `aad` counts.
    pub aad_len: usize,
    /// What is read.
    pub from: &'a [u8],
    /// What is written, as long as `from`.
    pub to: &'a mut [u8],
}

impl Seal<'_> {
    /// A job that fails: for a packet too short to be one.
    pub(super) fn impossible() -> Self {
        Seal { nonce: [0; 12], aad: [0; 12], aad_len: 0, data: &mut [], tag: None }
    }
}

impl Open<'_> {
    /// A job that fails: for a packet too short to be one.
    pub(super) fn impossible() -> Self {
        Open { nonce: [0; 12], aad: [0; 12], aad_len: 0, data: &mut [], tag: None }
    }
}

/// Which packets of a run failed, by their place in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures(u64);

impl Failures {
    /// Whether any did.
    #[inline(always)]
    pub const fn any(self) -> bool {
        self.0 != 0
    }

    /// Whether the packet at this place did.
    #[inline(always)]
    pub const fn has(self, place: usize) -> bool {
        self.0 >> (place % RUN) & 1 == 1
    }

    /// Marks the packet at this place if `failed`.
    #[inline(always)]
    pub const fn mark(&mut self, place: usize, failed: bool) {
        self.0 |= (failed as u64) << (place % RUN);
    }

    /// Of what became of each packet, in order.
    pub(crate) fn of(well: impl Iterator<Item = bool>) -> Failures {
        let mut failures = Failures::default();
        well.enumerate().for_each(|(place, well)| failures.mark(place, !well));
        failures
    }

    /// How many did.
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }
}

/// An engine with a key.
pub(super) trait Aead {
    /// Seals one buffer in place; false if it could not.
    fn seal(&self, job: Seal<'_>) -> bool;

    /// Opens one buffer in place; false if the tag does not verify.
    fn open(&self, job: Open<'_>) -> bool;

    /// Seals from one place to another, the tag to a third.
    fn seal_to(&self, job: Copied<'_>, tag: &mut [u8; TAG_LEN]) -> bool {
        if job.from.len() != job.to.len() {
            return false;
        }
        job.to.copy_from_slice(job.from);
        self.seal(Seal { nonce: job.nonce, aad: job.aad, aad_len: job.aad_len, data: job.to, tag: Some(tag) })
    }

    /// Opens from one place to another.
    fn open_to(&self, job: Copied<'_>, tag: &[u8; TAG_LEN]) -> bool {
        if job.from.len() != job.to.len() {
            return false;
        }
        job.to.copy_from_slice(job.from);
        let mut tag = *tag;
        self.open(Open {
            nonce: job.nonce,
            aad: job.aad,
            aad_len: job.aad_len,
            data: job.to,
            tag: Some(&mut tag),
        })
    }

    /// Seals a run.
    #[inline(always)]
    fn seal_batch<'a>(&self, jobs: impl Iterator<Item = Seal<'a>>) -> Failures {
        let mut failures = Failures::default();
        for (place, job) in jobs.enumerate() {
            failures.mark(place, !self.seal(job));
        }
        failures
    }

    /// Opens a run.
    #[inline(always)]
    fn open_batch<'a>(&self, jobs: impl Iterator<Item = Open<'a>>) -> Failures {
        let mut failures = Failures::default();
        for (place, job) in jobs.enumerate() {
            failures.mark(place, !self.open(job));
        }
        failures
    }
}

/// A key set up for one engine, in key memory.
///
/// That of AWS-LC is a pointer into its own heap, which is key memory too.
#[derive(Debug)]
pub struct AeadKey(Keyed);

#[derive(Debug)]
enum Keyed {
    Ring(Secret<RingKey>),
    AwsLc(Secret<AwsLcKey>),
    RustCrypto(Secret<RustCryptoKey>),
}

/// Chooses the engine once, then runs code compiled for it alone.
macro_rules! with_engine {
    ($key:expr, $name:ident => $run:expr) => {
        match &$key.0 {
            Keyed::Ring(secret) => {
                let $name = secret.expose();
                $run
            }
            Keyed::AwsLc(secret) => {
                let $name = secret.expose();
                $run
            }
            Keyed::RustCrypto(secret) => {
                let $name = secret.expose();
                $run
            }
        }
    };
}

impl AeadKey {
    /// Sets a key up. `Engine::Auto` is resolved first.
    pub fn new(engine: Engine, suite: Suite, key: &[u8]) -> Result<AeadKey, KeyError> {
        let engine = engine.resolve(suite);
        let refused = KeyError::Refused { engine, suite };
        let keyed = match engine {
            Engine::Ring => Keyed::Ring(Secret::new(RingKey::new(suite, key).ok_or(refused)?)?),
            Engine::RustCrypto => {
                Keyed::RustCrypto(Secret::new(RustCryptoKey::new(suite, key).ok_or(refused)?)?)
            }
            Engine::AwsLc | Engine::Auto => {
                Keyed::AwsLc(Secret::new(AwsLcKey::new(suite, key).ok_or(refused)?)?)
            }
        };
        Ok(AeadKey(keyed))
    }

    /// The engine that was chosen.
    pub fn engine(&self) -> Engine {
        match self.0 {
            Keyed::Ring(_) => Engine::Ring,
            Keyed::AwsLc(_) => Engine::AwsLc,
            Keyed::RustCrypto(_) => Engine::RustCrypto,
        }
    }

    /// Seals up to [`RUN`] buffers.
    #[inline]
    pub fn seal_batch<'a>(&self, jobs: impl Iterator<Item = Seal<'a>>) -> Failures {
        with_engine!(self, key => key.seal_batch(jobs))
    }

    /// Opens up to [`RUN`] buffers, each of which goes to `after` with its place as soon as it is open.
    #[inline]
    pub(super) fn open_each<T>(
        &self,
        items: &mut [T],
        job: impl for<'t> Fn(&'t mut T) -> Open<'t>,
        mut after: impl FnMut(&mut T),
    ) -> Failures {
        with_engine!(self, key => {
            let mut failures = Failures::default();
            for (place, item) in items.iter_mut().enumerate() {
                if key.open(job(item)) {
                    after(item);
                } else {
                    failures.mark(place, true);
                }
            }
            failures
        })
    }

    /// Seals up to [`RUN`] buffers, each prepared just before; those of which `prepare` makes nothing are left out.
    #[inline]
    pub(super) fn seal_each<T, P>(
        &self,
        items: &mut [T],
        mut prepare: impl FnMut(usize, &mut T) -> Option<P>,
        job: impl for<'t> Fn(&'t mut T, P) -> Seal<'t>,
    ) -> Failures {
        with_engine!(self, key => {
            let mut failures = Failures::default();
            for (place, item) in items.iter_mut().enumerate() {
                if let Some(prepared) = prepare(place, item) {
                    failures.mark(place, !key.seal(job(item, prepared)));
                }
            }
            failures
        })
    }

    /// Opens up to [`RUN`] buffers.
    #[inline]
    pub fn open_batch<'a>(&self, jobs: impl Iterator<Item = Open<'a>>) -> Failures {
        with_engine!(self, key => key.open_batch(jobs))
    }

    /// Seals one buffer in place; false if it could not.
    pub fn seal(&self, job: Seal<'_>) -> bool {
        with_engine!(self, key => key.seal(job))
    }

    /// Opens one buffer in place; false if the tag does not verify.
    pub fn open(&self, job: Open<'_>) -> bool {
        with_engine!(self, key => key.open(job))
    }

    /// Seals one buffer into another place. AWS-LC does it in one pass, the others copy first.
    pub fn seal_to(&self, job: Copied<'_>, tag: &mut [u8; TAG_LEN]) -> bool {
        with_engine!(self, key => key.seal_to(job, tag))
    }

    /// Opens one buffer into another place. AWS-LC does it in one pass, the others copy first.
    pub fn open_to(&self, job: Copied<'_>, tag: &[u8; TAG_LEN]) -> bool {
        with_engine!(self, key => key.open_to(job, tag))
    }
}
