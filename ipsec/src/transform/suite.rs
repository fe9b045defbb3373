//! The algorithms and the engines that have them.

use std::{fmt, str::FromStr};

/// An algorithm with its key length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-GCM, 128-bit key, ICV of 16 bytes (RFC 4106).
    Aes128Gcm16,
    /// AES-GCM, 256-bit key, ICV of 16 bytes (RFC 4106).
    Aes256Gcm16,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
}

/// Not the name of a suite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no suite is called {0:?}; there are aes-128-gcm, aes-256-gcm and chacha20-poly1305")]
pub struct UnknownSuite(String);

impl Suite {
    /// All of them.
    pub const ALL: [Suite; 3] = [Suite::Aes128Gcm16, Suite::Aes256Gcm16, Suite::ChaCha20Poly1305];

    /// Bytes of the cipher's key.
    pub const fn key_len(self) -> usize {
        match self {
            Suite::Aes128Gcm16 => 16,
            Suite::Aes256Gcm16 | Suite::ChaCha20Poly1305 => 32,
        }
    }

    /// Bytes of salt behind the key.
    pub const fn salt_len(self) -> usize {
        super::SALT
    }

    /// Bytes to be configured: key and salt.
    pub const fn material_len(self) -> usize {
        self.key_len() + self.salt_len()
    }

    /// Bytes of IV in each packet.
    pub const fn iv_len(self) -> usize {
        super::IV
    }

    /// Bytes of ICV at the end of each packet.
    pub const fn icv_len(self) -> usize {
        super::TAG_LEN
    }

    /// What payload, padding and trailer together are a multiple of. RFC 4303 asks for 4 of any cipher; these two ask
    /// for no more.
    pub const fn align(self) -> usize {
        4
    }

    /// The word of setkey(8), where the length of the key tells the two AES apart.
    pub const fn setkey_name(self) -> &'static str {
        match self {
            Suite::Aes128Gcm16 | Suite::Aes256Gcm16 => "aes-gcm-16",
            Suite::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// The word of `softnet bench --suite`.
    pub const fn name(self) -> &'static str {
        match self {
            Suite::Aes128Gcm16 => "aes-128-gcm",
            Suite::Aes256Gcm16 => "aes-256-gcm",
            Suite::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Suite {
    type Err = UnknownSuite;
    fn from_str(name: &str) -> Result<Suite, UnknownSuite> {
        Suite::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| UnknownSuite(name.to_owned()))
    }
}

/// Who does the arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// The fastest one for the suite, by `cargo bench -p ipsec --bench aead`.
    #[default]
    Auto,
    /// `ring`.
    Ring,
    /// AWS-LC through `aws-lc-rs`.
    AwsLc,
    /// RustCrypto's `aes-gcm` and `chacha20poly1305`: no C and no assembly.
    RustCrypto,
}

/// Not the name of an engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no engine is called {0:?}; there are auto, ring, aws-lc and rustcrypto")]
pub struct UnknownEngine(String);

impl Engine {
    /// The real ones, without `Auto`.
    pub const ALL: [Engine; 3] = [Engine::Ring, Engine::AwsLc, Engine::RustCrypto];

    /// The engine behind `Auto`: itself for the others.
    #[must_use]
    pub const fn resolve(self, _suite: Suite) -> Engine {
        match self {
            // 1400 and 8900 bytes of AES-128-GCM, by benches/aead.rs: AWS-LC 264 and 861 ns on Zen 4, 179 and 483 on
            // Zen 5; ring 262 and 1004, 239 and 939. Below 600 bytes ring is up to 7 % ahead; ChaCha20 is even.
            Engine::Auto => Engine::AwsLc,
            engine => engine,
        }
    }

    /// The word of `--engine`.
    pub const fn name(self) -> &'static str {
        match self {
            Engine::Auto => "auto",
            Engine::Ring => "ring",
            Engine::AwsLc => "aws-lc",
            Engine::RustCrypto => "rustcrypto",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Engine {
    type Err = UnknownEngine;
    fn from_str(name: &str) -> Result<Engine, UnknownEngine> {
        let all = [Engine::Auto, Engine::Ring, Engine::AwsLc, Engine::RustCrypto];
        all.into_iter().find(|e| e.name() == name).ok_or_else(|| UnknownEngine(name.to_owned()))
    }
}
