//! What an `add` asks for, and whether it can be had.

use super::{Checker, ValidSa};
use crate::{
    conf::{
        Place,
        statement::{Add, Algorithm, At, Extension, FlagWord, ModeWord},
    },
    replay,
    sa::{Handling, Lifetime, Mode, Padding, Protocol, SaConfig},
    transform::Suite,
};
use kern::secret::SecretBytes;
use std::sync::Arc;

/// The peer's replay window if the file does not say: what Linux has.
const PEER_WINDOW: u32 = 32;

impl Checker<'_> {
    pub(super) fn add(&mut self, add: &Add, place: Place) {
        let name = &add.name;
        let protocol = self.ipsec(&name.protocol);
        if let Some(Protocol::Ah | Protocol::Ipcomp) = protocol {
            let message = format!("{} is not there yet", name.protocol.value.name());
            self.errors.add(name.protocol.place, message, "esp is");
            return;
        }
        let (src, dst, spi) = (name.src.value, name.dst.value, name.spi.value);
        if src.is_ipv4() != dst.is_ipv4() {
            self.errors.add(
                name.dst.place,
                "the ends of an SA are of two families",
                "both IPv4 or both IPv6",
            );
        }
        // RFC 4301: the destination, the protocol and the SPI alone must tell an SA.
        let told = |c: &SaConfig| (Some(c.protocol), c.dst, c.spi);
        if let Some(other) = self.valid.sas.iter().find(|sa| told(&sa.config) == (protocol, dst, spi)) {
            let message = format!("SPI {spi} of {dst} is taken by the SA of line {}", other.place.line);
            self.errors.add(
                name.spi.place,
                message,
                "an SPI that this destination has not, or delete the other first",
            );
        }
        let before = self.errors.list.len();
        let config = self.extensions(
            add,
            SaConfig {
                src,
                dst,
                spi,
                protocol: protocol.unwrap_or_default(),
                mode: Mode::Any,
                reqid: 0,
                suite: Suite::Aes128Gcm16,
                esn: false,
                replay: 0,
                peer_window: PEER_WINDOW,
                padding: Padding::default(),
                handling: Handling::default(),
                soft: Lifetime::default(),
                hard: Lifetime::default(),
            },
        );
        if protocol.is_none() {
            return;
        }
        if let Some((suite, key)) = self.algorithms(add, place)
            && self.errors.list.len() == before
        {
            self.valid.sas.push(ValidSa { config: SaConfig { suite, ..config }, key, place });
        }
    }

    fn extensions(&mut self, add: &Add, mut config: SaConfig) -> SaConfig {
        for At { value, place } in &add.extensions {
            let place = *place;
            match value {
                Extension::Mode(ModeWord::Tunnel) => config.mode = Mode::Tunnel,
                Extension::Mode(ModeWord::Any) => config.mode = Mode::Any,
                Extension::Mode(ModeWord::Transport) => {
                    self.errors.add(place, "transport mode is not there yet", "-m tunnel");
                }
                Extension::Reqid(id) => config.reqid = *id,
                Extension::Replay(bytes) => config.replay = self.window(*bytes, place),
                Extension::Flag(FlagWord::SeqPad) => config.padding = Padding::Seq,
                Extension::Flag(FlagWord::ZeroPad) => config.padding = Padding::Zero,
                Extension::Flag(FlagWord::RandomPad) => {
                    self.errors.add(
                        place,
                        "random padding is not there",
                        "-f seq-pad, which RFC 4303 asks for",
                    );
                }
                // Sequence numbers never cycle here.
                Extension::Flag(FlagWord::NocyclicSeq) => {}
                Extension::HardSeconds(n) => config.hard.seconds = Some(*n),
                Extension::SoftSeconds(n) => config.soft.seconds = Some(*n),
                Extension::HardBytes(n) => config.hard.bytes = Some(*n),
                Extension::SoftBytes(n) => config.soft.bytes = Some(*n),
                Extension::HardPackets(n) => config.hard.packets = Some(*n),
                Extension::SoftPackets(n) => config.soft.packets = Some(*n),
                Extension::Esn => config.esn = true,
                Extension::PeerWindow(n) if (1..=replay::MAX).contains(n) => config.peer_window = *n,
                Extension::PeerWindow(_) => {
                    self.errors.add(
                        place,
                        "no peer has such a window",
                        format!("1 to {} packets", replay::MAX),
                    );
                }
                Extension::Context => {
                    self.errors.add(place, "security contexts are not there", "leave -ctx out");
                }
            }
        }
        self.lifetimes(add, &mut config);
        if config.esn
            && config.replay == 0
            && add.extensions.iter().all(|e| !matches!(e.value, Extension::Replay(n) if n > 0))
        {
            let place = add
                .extensions
                .iter()
                .find(|e| e.value == Extension::Esn)
                .map_or(add.name.spi.place, |e| e.place);
            self.errors.add(
                place,
                "extended sequence numbers need a replay window",
                "-r as well, for example -r 8",
            );
        }
        config
    }

    /// setkey counts the bytes of the bitmap; 0 is no window.
    fn window(&mut self, bytes: u32, place: Place) -> u32 {
        let packets = u64::from(bytes) * 8;
        if bytes != 0 && !(u64::from(replay::MIN)..=u64::from(replay::MAX)).contains(&packets) {
            let help = format!(
                "{} to {}, in bytes of eight packets each; 0 for no window",
                replay::MIN / 8,
                replay::MAX / 8
            );
            self.errors.add(place, format!("a replay window of {packets} packets"), help);
            return 0;
        }
        packets as u32
    }

    /// 0 means no limit, as in setkey.
    fn lifetimes(&mut self, add: &Add, config: &mut SaConfig) {
        let SaConfig { soft, hard, .. } = config;
        for limit in [
            &mut soft.bytes,
            &mut soft.packets,
            &mut soft.seconds,
            &mut hard.bytes,
            &mut hard.packets,
            &mut hard.seconds,
        ] {
            *limit = limit.filter(|n| *n > 0);
        }
        let pairs = [
            ("bytes", soft.bytes, hard.bytes),
            ("packets", soft.packets, hard.packets),
            ("seconds", soft.seconds, hard.seconds),
        ];
        for (what, soft, hard) in pairs {
            if let (Some(soft), Some(hard)) = (soft, hard)
                && soft > hard
            {
                let message = format!("the soft lifetime of {soft} {what} ends after the hard one of {hard}");
                self.errors.add(add.name.src.place, message, "a soft lifetime that ends first");
            }
        }
    }

    fn algorithms(&mut self, add: &Add, place: Place) -> Option<(Suite, Arc<SecretBytes>)> {
        if let Some(auth) = &add.authentication {
            let help = "-E aes-gcm-16 or chacha20-poly1305 alone: they authenticate, too";
            self.errors.add(auth.name.place, "separate authentication is not there yet", help);
        }
        if let Some(compression) = &add.compression {
            self.errors.add(compression.name.place, "compression is not there yet", "leave -C out");
        }
        let Some(encryption) = &add.encryption else {
            self.errors.add(place, "this SA has no algorithm", "-E aes-gcm-16 and a key");
            return None;
        };
        let suite = self.suite(encryption);
        let key = encryption.key.as_ref()?;
        let suite = suite?;
        if let Some(other) = self.valid.sas.iter().find(|sa| *sa.key == *key.value) {
            let message = format!("the SA of line {} has the same key", other.place.line);
            let help =
                "a key of its own for each SA, each way: counter modes give both plaintexts away otherwise";
            self.errors.add(key.place, message, help);
            return None;
        }
        Some((suite, Arc::clone(&key.value)))
    }

    fn suite(&mut self, encryption: &Algorithm) -> Option<Suite> {
        let At { value: name, place } = &encryption.name;
        let bits = encryption.key.as_ref().map(|key| (key.value.len() * 8, key.place));
        let (suite, lengths) = match (name.as_str(), bits.map(|b| b.0)) {
            ("aes-gcm-16", Some(160)) => (Some(Suite::Aes128Gcm16), ""),
            ("aes-gcm-16", Some(288)) => (Some(Suite::Aes256Gcm16), ""),
            ("aes-gcm-16", _) => (None, "160 (AES-128) or 288 (AES-256), salt included"),
            ("chacha20-poly1305", Some(288)) => (Some(Suite::ChaCha20Poly1305), ""),
            ("chacha20-poly1305", _) => (None, "288, salt included"),
            _ => {
                let known = OTHER_CIPHERS.contains(&name.as_str());
                let message = if known {
                    format!("{name} is not there yet")
                } else {
                    format!("{name:?} is not a cipher")
                };
                self.errors.add(*place, message, "aes-gcm-16 or chacha20-poly1305");
                return None;
            }
        };
        if let (None, Some((bits, place))) = (suite, bits) {
            self.errors.add(place, format!("the key has {bits} bits"), format!("for {name}: {lengths}"));
        }
        suite
    }
}

/// Ciphers that setkey knows and this router does not have.
const OTHER_CIPHERS: [&str; 16] = [
    "null",
    "simple",
    "des-cbc",
    "3des-cbc",
    "des-deriv",
    "des-32iv",
    "3des-deriv",
    "blowfish-cbc",
    "cast128-cbc",
    "twofish-cbc",
    "rijndael-cbc",
    "aes-cbc",
    "aes-ctr",
    "aes-gmac",
    "camellia-cbc",
    "aes-ccm-16",
];
