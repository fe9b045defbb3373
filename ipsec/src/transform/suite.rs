//! Suites: all that an SA does to the octets of a packet.

use super::{AesKey, Auth, Cipher, Icv};
use std::{fmt, str::FromStr};

/// Everything an SA does to the octets of a packet: algorithms with the lengths of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-GCM, 128-bit key, ICV of 16 bytes (RFC 4106).
    Aes128Gcm16,
    /// AES-GCM, 256-bit key, ICV of 16 bytes (RFC 4106).
    Aes256Gcm16,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-GCM with any key and ICV (RFC 4106). The two above are [`Suite::gcm`]'s.
    Gcm(AesKey, Icv),
    /// AES-GMAC: integrity without encryption (RFC 4543).
    Gmac(AesKey),
    /// AES-CCM (RFC 4309).
    Ccm(AesKey, Icv),
    /// An AEAD whose IV is the sequence number and is not sent (RFC 8750).
    Implicit(Implicit),
    /// Encryption and separate integrity, in this order on the way out.
    Pair(Cipher, Auth),
    /// AH's integrity (RFC 4302).
    Ah(Auth),
    /// IPComp's DEFLATE (RFC 2394).
    Deflate,
}

/// The AEADs that are there with an implicit IV: those that RFC 8750 names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Implicit {
    /// `ENCR_AES_GCM_16_IIV`.
    Gcm(AesKey),
    /// `ENCR_AES_CCM_8_IIV`.
    Ccm(AesKey),
    /// `ENCR_CHACHA20_POLY1305_IIV`.
    ChaCha20Poly1305,
}

impl Implicit {
    fn all() -> impl Iterator<Item = Implicit> {
        let aes = AesKey::ALL.into_iter().flat_map(|key| [Implicit::Gcm(key), Implicit::Ccm(key)]);
        aes.chain([Implicit::ChaCha20Poly1305])
    }

    /// The same with an IV in each packet.
    const fn explicit(self) -> Suite {
        match self {
            Implicit::Gcm(key) => Suite::gcm(key, Icv::Bytes16),
            Implicit::Ccm(key) => Suite::Ccm(key, Icv::Bytes8),
            Implicit::ChaCha20Poly1305 => Suite::ChaCha20Poly1305,
        }
    }
}

/// Not the name of a suite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no suite is called {0:?}; there are aes-128-gcm, aes-256-gcm, chacha20-poly1305, and others as `setkey -D` names them"
)]
pub struct UnknownSuite(String);

impl Suite {
    /// Those every engine has.
    pub const ALL: [Suite; 3] = [Suite::Aes128Gcm16, Suite::Aes256Gcm16, Suite::ChaCha20Poly1305];

    /// AES-GCM with this key and ICV.
    pub const fn gcm(key: AesKey, icv: Icv) -> Suite {
        match (key, icv) {
            (AesKey::Bits128, Icv::Bytes16) => Suite::Aes128Gcm16,
            (AesKey::Bits256, Icv::Bytes16) => Suite::Aes256Gcm16,
            (key, icv) => Suite::Gcm(key, icv),
        }
    }

    /// Everything ESP can do.
    pub fn esp() -> impl Iterator<Item = Suite> {
        let aead = AesKey::ALL.into_iter().flat_map(|key| {
            let by_icv =
                Icv::ALL.into_iter().flat_map(move |icv| [Suite::gcm(key, icv), Suite::Ccm(key, icv)]);
            by_icv.chain([Suite::Gmac(key)])
        });
        let pairs = Cipher::all().flat_map(|cipher| Auth::all().map(move |auth| Suite::Pair(cipher, auth)));
        let implicit = Implicit::all().map(Suite::Implicit);
        aead.chain([Suite::ChaCha20Poly1305]).chain(implicit).chain(pairs)
    }

    /// The suite with an IV in each packet that seals with the same keys: itself, but for [`Suite::Implicit`].
    #[must_use]
    pub const fn explicit(self) -> Suite {
        match self {
            Suite::Implicit(implicit) => implicit.explicit(),
            other => other,
        }
    }

    /// Whether its IV is the sequence number, so that no two SAs may ever have its key.
    pub const fn is_implicit(self) -> bool {
        matches!(self, Suite::Implicit(_))
    }

    /// Whether every engine has it: it is one of [`Suite::ALL`], with or without an IV in each packet.
    pub const fn has_engines(self) -> bool {
        matches!(self.explicit(), Suite::Aes128Gcm16 | Suite::Aes256Gcm16 | Suite::ChaCha20Poly1305)
    }

    /// Whether it encrypts.
    pub const fn is_confidential(self) -> bool {
        !matches!(self, Suite::Gmac(_) | Suite::Pair(Cipher::Null, _) | Suite::Ah(_) | Suite::Deflate)
    }

    /// Whether it authenticates: all do but compression.
    pub const fn is_authentic(self) -> bool {
        !matches!(self, Suite::Deflate)
    }

    /// Bytes of the cipher's key.
    pub const fn key_len(self) -> usize {
        match self {
            Suite::Aes128Gcm16 => 16,
            Suite::Aes256Gcm16 | Suite::ChaCha20Poly1305 => 32,
            Suite::Gcm(key, _) | Suite::Gmac(key) | Suite::Ccm(key, _) => key.len(),
            Suite::Implicit(implicit) => implicit.explicit().key_len(),
            Suite::Pair(cipher, _) => cipher.key_len(),
            Suite::Ah(_) | Suite::Deflate => 0,
        }
    }

    /// Bytes of salt or nonce behind the cipher's key.
    pub const fn salt_len(self) -> usize {
        match self {
            Suite::Aes128Gcm16
            | Suite::Aes256Gcm16
            | Suite::ChaCha20Poly1305
            | Suite::Gcm(..)
            | Suite::Gmac(_) => super::SALT,
            Suite::Ccm(..) => 3,
            Suite::Implicit(implicit) => implicit.explicit().salt_len(),
            Suite::Pair(cipher, _) => cipher.salt_len(),
            Suite::Ah(_) | Suite::Deflate => 0,
        }
    }

    /// Bytes of the separate integrity algorithm's key.
    pub const fn auth_key_len(self) -> usize {
        match self {
            Suite::Pair(_, auth) | Suite::Ah(auth) => auth.key_len(),
            _ => 0,
        }
    }

    /// Bytes to be configured: the cipher's key, its salt, the integrity algorithm's key, in this order.
    pub const fn material_len(self) -> usize {
        self.key_len() + self.salt_len() + self.auth_key_len()
    }

    /// Bytes of IV in each packet.
    pub const fn iv_len(self) -> usize {
        match self {
            Suite::Pair(cipher, _) => cipher.iv_len(),
            Suite::Implicit(_) | Suite::Ah(_) | Suite::Deflate => 0,
            _ => super::IV,
        }
    }

    /// Bytes of ICV in each packet.
    pub const fn icv_len(self) -> usize {
        match self {
            Suite::Gcm(_, icv) | Suite::Ccm(_, icv) => icv.len(),
            Suite::Implicit(implicit) => implicit.explicit().icv_len(),
            Suite::Pair(_, auth) | Suite::Ah(auth) => auth.icv_len(),
            Suite::Deflate => 0,
            _ => super::TAG_LEN,
        }
    }

    /// What payload, padding and trailer together are a multiple of: 4 (RFC 4303), or the cipher's block.
    pub const fn align(self) -> usize {
        match self {
            Suite::Pair(cipher, _) => cipher.align(),
            Suite::Deflate => 1,
            _ => 4,
        }
    }

    /// The word of setkey(8) for what encrypts or compresses, where the length of the key tells the rest; that of the
    /// integrity algorithm for AH.
    pub const fn setkey_name(self) -> &'static str {
        match self {
            Suite::Aes128Gcm16 | Suite::Aes256Gcm16 | Suite::Gcm(_, Icv::Bytes16) => "aes-gcm-16",
            Suite::ChaCha20Poly1305 => "chacha20-poly1305",
            Suite::Gcm(_, Icv::Bytes12) => "aes-gcm-12",
            Suite::Gcm(_, Icv::Bytes8) => "aes-gcm-8",
            Suite::Ccm(_, Icv::Bytes16) => "aes-ccm-16",
            Suite::Ccm(_, Icv::Bytes12) => "aes-ccm-12",
            Suite::Ccm(_, Icv::Bytes8) => "aes-ccm-8",
            Suite::Gmac(_) => "aes-gmac",
            Suite::Implicit(Implicit::Gcm(_)) => "aes-gcm-16-iiv",
            Suite::Implicit(Implicit::Ccm(_)) => "aes-ccm-8-iiv",
            Suite::Implicit(Implicit::ChaCha20Poly1305) => "chacha20-poly1305-iiv",
            Suite::Pair(cipher, _) => cipher.setkey_name(),
            Suite::Ah(auth) => auth.setkey_name(),
            Suite::Deflate => "deflate",
        }
    }

    /// The separate integrity algorithm.
    pub const fn auth(self) -> Option<Auth> {
        match self {
            Suite::Pair(_, auth) | Suite::Ah(auth) => Some(auth),
            _ => None,
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.key_len() * 8;
        match self {
            Suite::Aes128Gcm16 | Suite::Aes256Gcm16 | Suite::Gcm(_, Icv::Bytes16) => {
                write!(f, "aes-{bits}-gcm")
            }
            Suite::ChaCha20Poly1305 => f.write_str("chacha20-poly1305"),
            Suite::Gcm(_, icv) => write!(f, "aes-{bits}-gcm-{}", icv.len()),
            Suite::Gmac(_) => write!(f, "aes-{bits}-gmac"),
            Suite::Ccm(_, icv) => write!(f, "aes-{bits}-ccm-{}", icv.len()),
            Suite::Implicit(implicit) => write!(f, "{}-iiv", implicit.explicit()),
            Suite::Pair(cipher, auth) => {
                let name = cipher.setkey_name();
                match name.strip_prefix("aes-") {
                    Some(mode) => write!(f, "aes-{bits}-{mode}")?,
                    None => f.write_str(name)?,
                }
                write!(f, "+{}", auth.setkey_name())
            }
            Suite::Ah(auth) => f.write_str(auth.setkey_name()),
            Suite::Deflate => f.write_str("deflate"),
        }
    }
}

impl FromStr for Suite {
    type Err = UnknownSuite;
    fn from_str(name: &str) -> Result<Suite, UnknownSuite> {
        Suite::esp().find(|s| s.to_string() == name).ok_or_else(|| UnknownSuite(name.to_owned()))
    }
}
