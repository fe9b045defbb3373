//! Transforms: what turns the payload of an ESP packet into ciphertext and back.
//!
//! A [`Transform`] sees a run of ESP packets, each one slice from the SPI to the end of the ICV, and knows what its RFC
//! does with them: where the IV is, what the nonce is made of, what is authenticated besides (RFC 4106 for AES-GCM,
//! RFC 7634 for ChaCha20-Poly1305).
//!
//! ```text
//!   0        4        8                16                                     n-16        n
//!   ├────────┼────────┼────────────────┼───────────────────────────────────────┼───────────┤
//!   │  SPI   │  seq   │ IV (64 bit)    │ payload · padding · pad len · next hdr│    ICV    │
//!   ├────────┴────────┼────────────────┼───────────────────────────────────────┼───────────┤
//!   │   AAD: SPI,     │ nonce: salt ‖ IV          encrypted in place           │    tag    │
//!   │ [seq-hi,] seq   │
//! ```
//!
//! Sealing and opening take whole runs, so the choice of engine is made once a run and an engine that works on many
//! buffers at a time can. The keys are set up once per SA and kept in [`kern::secret`].
//!
//! That is the shape of the three suites that all engines have, [`Suite::ALL`]; `implicit.rs` has them without an IV. The others (`composed.rs`) take the same
//! slices and have other IVs and ICVs; AH and IPComp take what [`Transform::mac`] gives and nothing at all.
//!
//! Not here: lengths and padding ([`crate::esp`]), sequence numbers ([`crate::seq`]).

mod aead;
mod algorithm;
mod aws_lc;
mod ccm;
mod composed;
mod engine;
mod fastest;
mod gcm;
mod implicit;
mod mac;
mod pair;
mod ring;
mod rustcrypto;
mod suite;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
mod words;

pub use aead::{AeadKey, Copied, Failures, KeyError, Open, RUN, Seal, TAG_LEN};
pub use algorithm::{AesKey, Auth, Cipher, Icv};
pub use engine::{Engine, UnknownEngine};
pub use mac::Mac;
pub use suite::{Implicit, Suite, UnknownSuite};
pub use words::NoSuite;

use arrayvec::ArrayVec;
use composed::{Job, Jobs, RunCipher};
use kern::secret::Secret;

/// Bytes of the ESP header: SPI and the low half of the sequence number.
const HEADER: usize = wire::esp::HEADER_LEN;
/// Bytes of an AEAD's IV.
const IV: usize = 8;
/// Bytes of GCM's and ChaCha20-Poly1305's salt, kept with the key and never sent.
const SALT: usize = 4;

/// A cipher with its key, as an SA uses it.
#[derive(Debug)]
pub struct Transform {
    suite: Suite,
    keyed: Keyed,
}

#[derive(Debug)]
enum Keyed {
    /// With engines.
    Aead(AeadTransform),
    /// The same without an IV in the packet.
    Implicit(AeadTransform),
    /// Of parts.
    Composed(Box<dyn RunCipher>),
    /// AH's.
    Mac(Secret<Mac>),
    /// IPComp has no key.
    Deflate,
}

/// An AEAD that has engines, with what makes nonces and additional data.
struct AeadTransform {
    key: AeadKey,
    salt: [u8; SALT],
    esn: bool,
}

impl std::fmt::Debug for AeadTransform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key.fmt(f)
    }
}

impl Transform {
    /// Sets up the key for an engine. `material` is the cipher's key followed by the salt, as RFC 4106 (8.1) and
    /// setkey(8) have it, and by the key of the separate integrity algorithm if there is one.
    pub fn new(suite: Suite, engine: Engine, material: &[u8], esn: bool) -> Result<Transform, KeyError> {
        let transform = Transform::set_up(suite, engine, material, esn);
        wipe_stack();
        transform
    }

    #[inline(never)]
    fn set_up(suite: Suite, engine: Engine, material: &[u8], esn: bool) -> Result<Transform, KeyError> {
        let expected = suite.material_len();
        if material.len() != expected {
            return Err(KeyError::Length { suite, expected, got: material.len() });
        }
        let keyed = match suite {
            Suite::Ah(auth) => {
                Keyed::Mac(Secret::new(Mac::new(auth, material).ok_or(composed::refused(suite))?)?)
            }
            Suite::Deflate => Keyed::Deflate,
            suite if suite.has_engines() => {
                let (key, salt_bytes) = material.split_at(suite.key_len());
                let mut salt = [0; SALT];
                salt.copy_from_slice(salt_bytes);
                let key = AeadKey::new(engine.resolve(suite), suite.explicit(), key)?;
                let aead = AeadTransform { key, salt, esn };
                if suite.is_implicit() { Keyed::Implicit(aead) } else { Keyed::Aead(aead) }
            }
            suite => Keyed::Composed(composed::new(suite, material, esn)?),
        };
        Ok(Transform { suite, keyed })
    }

    /// The algorithm.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The engine that does the work, never [`Engine::Auto`].
    pub fn engine(&self) -> Engine {
        match &self.keyed {
            Keyed::Aead(aead) | Keyed::Implicit(aead) => aead.key.engine(),
            _ => Engine::RustCrypto,
        }
    }

    /// AH's integrity algorithm.
    pub fn mac(&self) -> Option<&Mac> {
        match &self.keyed {
            Keyed::Mac(mac) => Some(mac.expose()),
            _ => None,
        }
    }

    /// Seals up to [`RUN`] packets in place: fills in the IV and the ICV, encrypts what is between.
    ///
    /// Each packet is a slice from the SPI to the end of the ICV with its payload and trailer in clear, its 64-bit
    /// sequence number and its IV, which must be used once with this key. The header is authenticated as it stands.
    /// A packet marked in the result must not be sent.
    #[inline]
    pub fn seal_run<'p>(&self, packets: impl Iterator<Item = (&'p mut [u8], u64, u64)>) -> Failures {
        match &self.keyed {
            Keyed::Aead(aead) => {
                aead.key.seal_batch(packets.map(|(packet, seq, iv)| aead.seal_job(packet, seq, iv)))
            }
            Keyed::Implicit(aead) => {
                aead.key.seal_batch(packets.map(|(packet, seq, _)| aead.seal_implicit(packet, seq)))
            }
            Keyed::Composed(cipher) => {
                cipher.seal(&mut packets.map(|(packet, seq, iv)| Job { packet, seq, iv }).collect::<Jobs>())
            }
            Keyed::Mac(_) | Keyed::Deflate => Failures::of(packets.map(|_| false)),
        }
    }

    /// Opens up to [`RUN`] packets in place. What was encrypted is clear afterwards, except in the packets marked in
    /// the result: theirs is worthless.
    #[inline]
    pub fn open_run<'p>(&self, packets: impl Iterator<Item = (&'p mut [u8], u64)>) -> Failures {
        match &self.keyed {
            Keyed::Aead(aead) => aead.key.open_batch(packets.map(|(packet, seq)| aead.open_job(packet, seq))),
            Keyed::Implicit(aead) => {
                aead.key.open_batch(packets.map(|(packet, seq)| aead.open_implicit(packet, seq)))
            }
            Keyed::Composed(cipher) => {
                cipher.open(&mut packets.map(|(packet, seq)| Job { packet, seq, iv: 0 }).collect::<Jobs>())
            }
            Keyed::Mac(_) | Keyed::Deflate => Failures::of(packets.map(|_| false)),
        }
    }

    /// As [`seal_run`](Self::seal_run), of packets that lie in something else, each of which is prepared just before: its
    /// headers are written while the cipher is busy with the packet in front, and it finds them in the cache. What
    /// `prepare` makes nothing of is left as it is.
    #[inline]
    pub fn seal_each<T, P>(
        &self,
        items: &mut [T],
        mut prepare: impl FnMut(usize, &mut T) -> Option<P>,
        part: impl for<'t> Fn(&'t mut T, P) -> (&'t mut [u8], u64, u64),
    ) -> Failures {
        match &self.keyed {
            Keyed::Aead(aead) => aead.key.seal_each(items, prepare, |item, prepared| {
                let (packet, seq, iv) = part(item, prepared);
                aead.seal_job(packet, seq, iv)
            }),
            Keyed::Implicit(aead) => aead.key.seal_each(items, prepare, |item, prepared| {
                let (packet, seq, _) = part(item, prepared);
                aead.seal_implicit(packet, seq)
            }),
            Keyed::Composed(cipher) => {
                let (mut places, mut jobs) = (ArrayVec::<usize, RUN>::new(), Jobs::new());
                for (place, item) in items.iter_mut().enumerate() {
                    if let Some(prepared) = prepare(place, item) {
                        let (packet, seq, iv) = part(item, prepared);
                        places.push(place);
                        jobs.push(Job { packet, seq, iv });
                    }
                }
                let (failed, mut failures) = (cipher.seal(&mut jobs), Failures::default());
                places.iter().enumerate().for_each(|(i, place)| failures.mark(*place, failed.has(i)));
                failures
            }
            Keyed::Mac(_) | Keyed::Deflate => {
                items.iter_mut().enumerate().for_each(|(place, item)| {
                    prepare(place, item);
                });
                Failures::default()
            }
        }
    }

    /// As [`open_run`](Self::open_run), of packets that lie in something else, and what is open goes to `after` at once: what
    /// is done with it there is done while the cipher waits for its last multiplications, and finds the packet in the cache.
    #[inline]
    pub fn open_each<T>(
        &self,
        items: &mut [T],
        part: impl for<'t> Fn(&'t mut T) -> (&'t mut [u8], u64),
        mut after: impl FnMut(&mut T),
    ) -> Failures {
        let open = |(packet, seq)| Job { packet, seq, iv: 0 };
        match &self.keyed {
            Keyed::Aead(aead) => aead.key.open_each(
                items,
                |item| {
                    let (packet, seq) = part(item);
                    aead.open_job(packet, seq)
                },
                after,
            ),
            Keyed::Implicit(aead) => aead.key.open_each(
                items,
                |item| {
                    let (packet, seq) = part(item);
                    aead.open_implicit(packet, seq)
                },
                after,
            ),
            Keyed::Composed(cipher) => {
                let failures = cipher.open(&mut items.iter_mut().map(&part).map(open).collect::<Jobs>());
                let opened = items.iter_mut().enumerate().filter(|(place, _)| !failures.has(*place));
                opened.for_each(|(_, item)| after(item));
                failures
            }
            Keyed::Mac(_) | Keyed::Deflate => Failures::of(items.iter().map(|_| false)),
        }
    }
}

/// Overwrites the part of the stack that setting up a key has used: schedules are made there before they are moved to key
/// memory, and compilers copy.
#[inline(never)]
#[allow(clippy::large_stack_arrays, reason = "the stack is what it is about")]
fn wipe_stack() {
    let mut used = [0xff_u8; 32 * 1024];
    std::hint::black_box(&mut used);
    zeroize::Zeroize::zeroize(&mut used[..]);
    std::hint::black_box(&used);
}

impl AeadTransform {
    #[inline(always)]
    fn seal_job<'p>(&self, packet: &'p mut [u8], seq: u64, iv: u64) -> Seal<'p> {
        let Some((header, rest)) = packet.split_first_chunk_mut::<{ HEADER + IV }>() else {
            return Seal::impossible();
        };
        let Some((data, tag)) = rest.split_last_chunk_mut::<TAG_LEN>() else {
            return Seal::impossible();
        };
        header[HEADER..].copy_from_slice(&iv.to_be_bytes());
        let (aad, aad_len) = self.aad(header, seq);
        Seal { nonce: self.nonce(header), aad, aad_len, data, tag: Some(tag) }
    }

    #[inline(always)]
    fn open_job<'p>(&self, packet: &'p mut [u8], seq: u64) -> Open<'p> {
        let Some((header, rest)) = packet.split_first_chunk_mut::<{ HEADER + IV }>() else {
            return Open::impossible();
        };
        let Some((data, tag)) = rest.split_last_chunk_mut::<TAG_LEN>() else {
            return Open::impossible();
        };
        let (aad, aad_len) = self.aad(header, seq);
        Open { nonce: self.nonce(header), aad, aad_len, data, tag: Some(tag) }
    }

    #[inline(always)]
    fn nonce(&self, header: &[u8; HEADER + IV]) -> [u8; SALT + IV] {
        // Salt and IV in halves as a reader takes them up: written 4 and 8 octets and read 8 and 4, each packet would wait for
        // the writes to reach the cache.
        let [.., i0, i1, i2, i3, i4, i5, i6, i7] = *header;
        let iv = u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]);
        let first = u64::from(u32::from_le_bytes(self.salt)) | iv << 32;
        let mut nonce = [0; SALT + IV];
        let (low, high) = nonce.split_at_mut(8);
        low.copy_from_slice(&first.to_le_bytes());
        high.copy_from_slice(&((iv >> 32) as u32).to_le_bytes());
        nonce
    }

    /// RFC 4106, section 5: SPI and sequence number; with ESN all 64 bits of it, the high half first.
    #[inline(always)]
    fn aad<const N: usize>(&self, header: &[u8; N], seq: u64) -> ([u8; 12], usize) {
        let mut aad = [0; 12];
        if self.esn {
            aad[..4].copy_from_slice(&header[..4]);
            aad[4..].copy_from_slice(&seq.to_be_bytes());
            (aad, 12)
        } else {
            aad[..HEADER].copy_from_slice(&header[..HEADER]);
            (aad, HEADER)
        }
    }
}
