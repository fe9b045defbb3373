//! Suites by the words of setkey(8), where the length of the key tells what the word leaves open.

use super::{AesKey, Auth, Cipher, Icv, Implicit, Suite};

/// An algorithm that setkey's words ask for and that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuite {
    /// No such word, or one that this router does without.
    #[error("{0:?} is no algorithm of this router")]
    Unknown(String),
    /// It is there, with another key.
    #[error("the key has {bits} bits, and {name} takes {lengths}")]
    Key {
        /// The algorithm.
        name: &'static str,
        /// Bits there are.
        bits: usize,
        /// Bits it takes.
        lengths: &'static str,
    },
    /// A cipher that needs an integrity algorithm (RFC 8221: encryption without it is a MUST NOT).
    #[error("{0} does not authenticate")]
    Unauthenticated(&'static str),
    /// An AEAD with an integrity algorithm besides.
    #[error("{0} authenticates by itself")]
    Twice(&'static str),
}

impl Suite {
    /// The ESP suite of setkey's `-E name key`, with the bits of the key, and `-A name key`.
    pub fn from_setkey(
        encryption: (&str, usize),
        authentication: Option<(&str, usize)>,
    ) -> Result<Suite, NoSuite> {
        let auth = authentication.map(|(name, bits)| Suite::auth_from_setkey(name, bits)).transpose()?;
        let (name, bits) = encryption;
        let aead = |name: &'static str, salt: usize, of: fn(AesKey, Icv) -> Suite, icv: Icv| {
            let lengths = match salt {
                3 => "152, 216 or 280, the 24 of salt included",
                _ => "160, 224 or 288, the 32 of salt included",
            };
            if auth.is_some() {
                return Err(NoSuite::Twice(name));
            }
            let key = bits.checked_sub(salt * 8).and_then(|bits| AesKey::of(bits / 8));
            let key = key.filter(|_| bits % 8 == 0).ok_or(NoSuite::Key { name, bits, lengths })?;
            Ok(of(key, icv))
        };
        let chacha = |name: &'static str, suite: Suite| match (auth, bits) {
            (Some(_), _) => Err(NoSuite::Twice(name)),
            (None, 288) => Ok(suite),
            (None, bits) => Err(NoSuite::Key { name, bits, lengths: "288, the 32 of salt included" }),
        };
        let cipher = |cipher: Option<Cipher>, name: &'static str, lengths: &'static str| {
            let cipher = cipher.ok_or(NoSuite::Key { name, bits, lengths })?;
            auth.map(|auth| Suite::Pair(cipher, auth)).ok_or(NoSuite::Unauthenticated(name))
        };
        let aes =
            |salt: usize| bits.checked_sub(salt * 8).filter(|b| b % 8 == 0).and_then(|b| AesKey::of(b / 8));
        match name {
            "aes-gcm-16" => aead("aes-gcm-16", 4, Suite::gcm, Icv::Bytes16),
            "aes-gcm-12" => aead("aes-gcm-12", 4, Suite::gcm, Icv::Bytes12),
            "aes-gcm-8" => aead("aes-gcm-8", 4, Suite::gcm, Icv::Bytes8),
            "aes-ccm-16" => aead("aes-ccm-16", 3, Suite::Ccm, Icv::Bytes16),
            "aes-ccm-12" => aead("aes-ccm-12", 3, Suite::Ccm, Icv::Bytes12),
            "aes-ccm-8" => aead("aes-ccm-8", 3, Suite::Ccm, Icv::Bytes8),
            "aes-gcm-16-iiv" => {
                aead("aes-gcm-16-iiv", 4, |key, _| Suite::Implicit(Implicit::Gcm(key)), Icv::Bytes16)
            }
            "aes-ccm-8-iiv" => {
                aead("aes-ccm-8-iiv", 3, |key, _| Suite::Implicit(Implicit::Ccm(key)), Icv::Bytes8)
            }
            "aes-gmac" => aead("aes-gmac", 4, |key, _| Suite::Gmac(key), Icv::Bytes16),
            "chacha20-poly1305" => chacha("chacha20-poly1305", Suite::ChaCha20Poly1305),
            "chacha20-poly1305-iiv" => {
                chacha("chacha20-poly1305-iiv", Suite::Implicit(Implicit::ChaCha20Poly1305))
            }
            "null" => cipher(Some(Cipher::Null).filter(|_| bits == 0), "null", "0"),
            "aes-cbc" | "rijndael-cbc" => cipher(aes(0).map(Cipher::AesCbc), "aes-cbc", "128, 192 or 256"),
            "aes-ctr" => {
                cipher(aes(4).map(Cipher::AesCtr), "aes-ctr", "160, 224 or 288, the 32 of nonce included")
            }
            #[cfg(feature = "legacy")]
            "3des-cbc" => cipher(Some(Cipher::TripleDes).filter(|_| bits == 192), "3des-cbc", "192"),
            _ => Err(NoSuite::Unknown(name.to_owned())),
        }
    }

    /// The integrity algorithm of setkey's `-A name key`, with the bits of the key. FreeBSD's and NetBSD's words.
    pub fn auth_from_setkey(name: &str, bits: usize) -> Result<Auth, NoSuite> {
        let auth = match name {
            "hmac-sha2-256" => Auth::HmacSha256,
            "hmac-sha2-384" => Auth::HmacSha384,
            "hmac-sha2-512" => Auth::HmacSha512,
            _ => Auth::all()
                .find(|auth| auth.setkey_name() == name)
                .ok_or_else(|| NoSuite::Unknown(name.to_owned()))?,
        };
        if bits == auth.key_len() * 8 {
            return Ok(auth);
        }
        let lengths = match auth.key_len() {
            16 => "128",
            20 => "160",
            32 => "256",
            48 => "384",
            _ => "512",
        };
        Err(NoSuite::Key { name: auth.setkey_name(), bits, lengths })
    }
}
