//! The engines: who does the arithmetic of the suites that all of them have.

use super::{Suite, fastest::fastest};
use std::{fmt, str::FromStr};

/// Who does the arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// The fastest one for the suite on this machine.
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

    /// Whether it does the arithmetic of a suite when it is asked for by name. Suites that no other has are composed from
    /// RustCrypto's parts.
    pub const fn serves(self, suite: Suite) -> bool {
        suite.has_engines() || matches!(self, Engine::Auto | Engine::RustCrypto)
    }

    /// The engine behind `Auto`; itself for the others, where the suite has it.
    #[must_use]
    pub fn resolve(self, suite: Suite) -> Engine {
        match self {
            // Composed from RustCrypto's parts, whatever is asked for.
            _ if !suite.has_engines() => Engine::RustCrypto,
            Engine::Auto => fastest(suite.explicit()),
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
