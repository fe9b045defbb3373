//! ipsec.conf, in the language of setkey(8).
//!
//! ```text
//! flush [protocol] ;                              spdflush ;
//! add       [-46n] src dst protocol spi [extensions] algorithm ... ;
//! update    [-46n] src dst protocol spi [extensions] [algorithm ...] ;
//! get | delete     [-46n] src dst protocol spi ;
//! deleteall        [-46n] src dst protocol ;
//! spdadd | spdupdate [-46n] src_range dst_range upperspec -P direction [priority n] treatment ;
//! spddelete        [-46n] src_range dst_range upperspec -P direction ;
//! dump [protocol] ; spddump ; exit ;              # comment
//!
//! src, dst     address, of esp-udp address[\[port\]]
//! extensions   -m tunnel|transport|beet|any  -inner src dst  -u id  -pcpu-num worker  -r bytes  -f seq-pad|zero-pad|nocyclic-seq|align8  -esn
//!              -lh -ls seconds  -bh -bs bytes  -ph -ps packets  -seq number
//!              -df copy|set|clear  -frag before|after  -dscp n  -noecn  -ttl n  -flow-label  -tfc octets  -threshold octets
//!              -natt oai[sport] oar[dport]  -keepalive seconds
//! algorithm    -E aes-gcm-8|12|16 key | -E aes-ccm-8|12|16 key | -E aes-gmac key | -E chacha20-poly1305 key
//!              | -E aes-cbc|aes-ctr|3des-cbc key -A hash key | -E null -A hash key     of esp
//!              | -A hash key     of ah     | -C deflate     of ipcomp
//! hash         hmac-sha1 | hmac-sha256 | hmac-sha384 | hmac-sha512 | aes-cmac | aes-xcbc-mac | hmac-md5
//! src_range    address[/prefixlen][\[port\]] | address-address[\[port-port\]]
//! upperspec    any | protocol | icmp type[,code] | icmp6 type[,code]
//! direction    in | out | fwd
//! treatment    none | discard | ipsec request ...       up to three, innermost first
//! request      esp|ah|ipcomp/tunnel/src[\[port\]]-dst[\[port\]]/level | esp|ah|ipcomp/transport//level
//!              | esp/beet/src[\[port\]]-dst[\[port\]]/level
//! level        default | use | require | unique[:id]
//! key          0x... | "..."                      cipher key, then salt or nonce: 4 bytes, 3 of CCM
//! ```
//!
//! Ours beyond setkey: `-ph` and `-ps`, lifetimes in packets as `-bh` and `-bs` are in bytes; ranges
//! of addresses and of ports with a hyphen; `-inner`, source and destination of the packets that an SA in BEET mode is for, what
//! `ip xfrm state` calls `sel`; `-pcpu-num`, the worker that alone sends by the SA (RFC 9611, [`preferred`](crate::spd::preferred)), as in
//! `ip xfrm state`; `-seq`, the last sequence number that was used already, each way, for an SA that
//! another machine had before; `update` is PF_KEY's (RFC 2367, 3.1.2): what is not named stays, and a key is never replaced,
//! for that takes an SA with an SPI of its own; `-f align8` and what follows `-df`, which are [`Handling`](crate::sa::Handling)'s. `-esn` is
//! FreeBSD's, as is `-natt`; `esp-udp` with ports is NetBSD's. `-keepalive` says after how many seconds without a packet a NAT
//! keepalive is sent (20 where both ports are 4500, else none). `fwd` is taken as `in`: as in a BSD kernel, what arrives is checked, be it for us or not.
//! What is read and can not be done (ciphers nobody should use) is refused and said to be.
//! Names of hosts are not resolved.
//!
//! Text becomes [`Conf`] (syntax, with places), [`Conf::check`] makes it [`ValidConf`] (every statement carried out, what
//! they mean together checked), and [`build`] makes that SAs and policies. Each step reports all errors, not the first.
//! Keys go into key memory as they are read and are in no message and no `Debug` output; the text they were read from is
//! the caller's to wipe.

mod build;
mod caret;
mod check;
mod lex;
mod mark;
mod parse;
mod permission;
pub mod statement;
#[cfg(test)]
mod tests;

pub use build::{BuildCause, BuildError, build};
pub use caret::with_carets;
pub use check::{Larval, Origin, SaId, ValidConf, ValidSa, algorithm_words};
pub use lex::Place;
pub use mark::{Mark, Marker};
pub use permission::{Exposed, check_private};

use statement::{At, Command};
use std::{fmt, sync::Arc};

/// An error in an ipsec.conf: where, what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfError {
    /// The file, as the caller named it.
    pub file: Arc<str>,
    /// Where in it.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
}

impl fmt::Display for ConfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column } = self.place;
        write!(f, "{}:{line}:{column}: {}", self.file, self.message)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, " ({})", self.help) }
    }
}

/// The statements of a file.
#[derive(Clone, Debug)]
pub struct Conf {
    file: Arc<str>,
    statements: Vec<At<Command>>,
}

impl Conf {
    /// Reads a text. `file` is what errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Conf, Vec<ConfError>> {
        let file: Arc<str> = file.into();
        let statements = parse::parse(&file, text)?;
        Ok(Conf { file, statements })
    }

    /// The statements, in order.
    pub fn statements(&self) -> &[At<Command>] {
        &self.statements
    }

    /// The file's name.
    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// Carries the statements out on `base` (what is configured already; nothing for a whole file) and checks what
    /// comes of it.
    pub fn check(&self, base: &ValidConf) -> Result<ValidConf, Vec<ConfError>> {
        check::check(self, base)
    }
}

/// Collects errors of one file.
struct Errors {
    file: Arc<str>,
    list: Vec<ConfError>,
}

impl Errors {
    fn new(file: &Arc<str>) -> Errors {
        Errors { file: Arc::clone(file), list: vec![] }
    }

    fn add(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        let message: String = message.into();
        self.list.push(ConfError {
            file: Arc::clone(&self.file),
            place,
            message: caret::scrubbed(&message),
            help: help.into(),
        });
    }
}
