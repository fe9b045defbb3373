//! What an `add` asks for, and whether it can be had.

use super::{
    Checker, Larval, SaId, ValidSa,
    beet::inner_left,
    words::{CIPHERS, HASHES, Words},
};
use crate::{
    conf::{
        Place,
        statement::{Add, Algorithm, At, Extension, FlagWord, ModeWord},
    },
    replay,
    sa::{Handling, Lifetime, Mode, Padding, Protocol, SaConfig},
    transform::{NoSuite, Suite},
};
use kern::secret::SecretBytes;
use std::sync::Arc;
use zeroize::Zeroizing;

impl Checker<'_> {
    pub(super) fn add(&mut self, add: &Add, place: Place) {
        let name = &add.name;
        let protocol = self.ipsec(&name.protocol);
        let (src, dst, spi) = (name.src.value, name.dst.value, name.spi.value);
        if protocol == Some(Protocol::Ipcomp) && spi.0 > u16::MAX.into() {
            self.errors.add(name.spi.place, "a CPI has 16 bits", "256 to 61439 (RFC 3173, 3.3)");
        }
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
            let there = other.origin.seen_from(self.file);
            self.errors.add(
                name.spi.place,
                format!("SPI {spi} of {dst} is taken by the SA of {there}"),
                "an SPI that this destination has not, or delete the other first",
            );
        }
        let taken = |l: &Larval| (Some(l.id.protocol), l.id.dst, l.id.spi) == (protocol, dst, spi);
        if self.valid.larval.iter().any(|l| taken(l) && l.id.src != src) {
            let message = format!("SPI {spi} of {dst} is given away to another peer");
            self.errors.add(name.spi.place, message, "the source for which get-spi was asked");
        }
        let before = self.errors.list.len();
        let encap = self.encap(add);
        let Some(protocol) = protocol else {
            self.extensions(add, blank(add, Protocol::default()));
            return;
        };
        self.hatch(&SaId { protocol, src, dst, spi });
        let config = SaConfig { encap, ..blank(add, protocol) };
        if let Some(sa) = self.sa(add, config, None, place)
            && self.errors.list.len() == before
        {
            self.valid.sas.push(sa);
        }
    }

    /// What is named of an SA changes; its key, its numbers and its age stay. A larval one is added.
    pub(super) fn update(&mut self, add: &Add, place: Place) {
        if add.name.protocol.value.ipsec().is_some()
            && let Some(id) = self.id(&add.name)
            && self.valid.larval.iter().any(|l| l.id == id)
        {
            return self.add(add, place);
        }
        let Some(at) = self.named(&add.name, place) else { return };
        // Out of the way meanwhile, for its key is taken by nobody else.
        let old = self.valid.sas.remove(at);
        let new = self.sa(add, old.config.clone(), Some(&old.key), place);
        self.valid.sas.insert(at, old);
        let (Some(new), Some(old)) = (new, self.valid.sas.get_mut(at)) else { return };
        let same = *new.key == *old.key && new.config.suite == old.config.suite;
        if same && new.config.esn == old.config.esn {
            *old = ValidSa { sequence: old.sequence, ..new };
        } else {
            let message = "an update leaves algorithm, key and length of sequence numbers as they are";
            self.errors.add(place, message, "a new SA with an SPI of its own, then delete this one");
        }
    }

    /// What a statement asks for, on top of `config`; without an algorithm, that and the key it had.
    fn sa(
        &mut self,
        add: &Add,
        config: SaConfig,
        key: Option<&Arc<SecretBytes>>,
        place: Place,
    ) -> Option<ValidSa> {
        let before = self.errors.list.len();
        let config = self.extensions(add, config);
        let named = [&add.encryption, &add.authentication, &add.compression];
        let (suite, key) = match key {
            Some(key) if named.iter().all(|a| a.is_none()) => (config.suite, Arc::clone(key)),
            _ => self.algorithms(add, config.protocol, place)?,
        };
        if self.errors.list.len() > before {
            return None;
        }
        let sequence = self.sequence(add, &config);
        Some(ValidSa { config: SaConfig { suite, ..config }, key, sequence, origin: self.origin(place) })
    }

    fn extensions(&mut self, add: &Add, mut config: SaConfig) -> SaConfig {
        config.inner = inner_left(add, &config);
        for At { value, place } in &add.extensions {
            let place = *place;
            match value {
                Extension::Mode(ModeWord::Tunnel) => config.mode = Mode::Tunnel,
                Extension::Mode(ModeWord::Beet) => config.mode = Mode::Beet,
                Extension::Inner(src, dst) => config.inner = Some((*src, *dst)),
                Extension::Mode(ModeWord::Any) => config.mode = Mode::Any,
                Extension::Mode(ModeWord::Transport) => config.mode = Mode::Transport,
                Extension::Reqid(id) => config.reqid = *id,
                Extension::Worker(n) => config.worker = Some(*n),
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
                // Sequence numbers never cycle here, and where they go on is not part of what was agreed. `encap` has the others.
                Extension::Flag(FlagWord::NocyclicSeq)
                | Extension::Sequence(_)
                | Extension::Natt(_)
                | Extension::NattMtu
                | Extension::Keepalive(_) => {}
                Extension::HardSeconds(n) => config.hard.seconds = Some(*n),
                Extension::SoftSeconds(n) => config.soft.seconds = Some(*n),
                Extension::HardBytes(n) => config.hard.bytes = Some(*n),
                Extension::SoftBytes(n) => config.soft.bytes = Some(*n),
                Extension::HardPackets(n) => config.hard.packets = Some(*n),
                Extension::SoftPackets(n) => config.soft.packets = Some(*n),
                Extension::Esn => config.esn = true,
                Extension::Flag(FlagWord::Align8) => config.handling.align8 = true,
                Extension::Df(df) => config.handling.df = *df,
                Extension::Fragment(when) => config.handling.fragment = *when,
                Extension::Dscp(n) => config.handling.dscp = Some(*n),
                Extension::NoEcn => config.handling.ecn = false,
                Extension::Ttl(n) => config.handling.ttl = *n,
                Extension::FlowLabel => config.handling.flow_label = true,
                Extension::Tfc(n) => config.handling.tfc = *n,
                Extension::Threshold(n) => config.handling.threshold = *n,
                Extension::Context => {
                    self.errors.add(place, "security contexts are not there", "leave -ctx out");
                }
            }
        }
        self.lifetimes(add, &mut config);
        self.beet(add, &config);
        self.padded(add, &config);
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

    /// `-seq`: where to go on.
    fn sequence(&mut self, add: &Add, config: &SaConfig) -> u64 {
        let said = add.extensions.iter().rev().find_map(|e| match e.value {
            Extension::Sequence(n) => Some(n),
            _ => None,
        });
        let sequence = said.unwrap_or(0);
        if !config.esn && config.protocol != Protocol::Ipcomp && sequence > u32::MAX.into() {
            let message = format!("{sequence} is no sequence number of 32 bits");
            self.errors.add(add.name.src.place, message, "-esn for longer ones");
        }
        sequence
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

    fn algorithms(
        &mut self,
        add: &Add,
        protocol: Protocol,
        place: Place,
    ) -> Option<(Suite, Arc<SecretBytes>)> {
        let (suite, parts) = match protocol {
            Protocol::Esp => self.esp(add, place)?,
            Protocol::Ah => self.ah(add, place)?,
            Protocol::Ipcomp => (self.ipcomp(add, place)?, vec![]),
        };
        let key = match &parts[..] {
            [one] => Arc::clone(&one.value),
            _ => self.joined(&parts, place)?,
        };
        let same = self.valid.sas.iter().find(|sa| !key.is_empty() && *sa.key == *key);
        if let (Some(other), Some(part)) = (same, parts.first()) {
            let message = format!("the SA of {} has the same key", other.origin.seen_from(self.file));
            let help =
                "a key of its own for each SA, each way: counter modes give both plaintexts away otherwise";
            self.errors.add(part.place, message, help);
            return None;
        }
        Some((suite, key))
    }

    /// The keys of cipher and integrity, one behind the other.
    fn joined(&mut self, parts: &[&At<Arc<SecretBytes>>], place: Place) -> Option<Arc<SecretBytes>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.value.len()).sum()));
        for part in parts {
            bytes.extend_from_slice(part.value.expose());
        }
        match SecretBytes::take(&mut bytes) {
            Ok(key) => Some(Arc::new(key)),
            Err(error) => {
                self.errors.add(place, error.to_string(), "");
                None
            }
        }
    }

    fn esp<'a>(&mut self, add: &'a Add, place: Place) -> Option<(Suite, Vec<&'a At<Arc<SecretBytes>>>)> {
        if let Some(compression) = &add.compression {
            self.errors.add(compression.name.place, "ESP does not compress", "an SA of ipcomp as well");
        }
        let Some(encryption) = &add.encryption else {
            let help = "-E aes-gcm-16 and a key, or -E null with -A for integrity alone";
            self.errors.add(place, "this SA has no algorithm", help);
            return None;
        };
        // Words without a meaning here are named one by one.
        let known = [
            self.is_known(encryption, CIPHERS),
            add.authentication.as_ref().is_none_or(|a| self.is_known(a, HASHES)),
        ];
        if known.contains(&false) {
            return None;
        }
        let auth = add.authentication.as_ref().filter(|a| a.name.value != "null");
        match Suite::from_setkey(asked(encryption), auth.map(asked)) {
            Ok(suite) => {
                let keys = [Some(encryption), auth].into_iter().flatten().filter_map(|a| a.key.as_ref());
                Some((suite, keys.collect()))
            }
            Err(error) => {
                self.no_suite(encryption, auth, &error);
                None
            }
        }
    }

    fn ah<'a>(&mut self, add: &'a Add, place: Place) -> Option<(Suite, Vec<&'a At<Arc<SecretBytes>>>)> {
        for other in [&add.encryption, &add.compression].into_iter().flatten() {
            self.errors.add(other.name.place, "AH only authenticates", "-A alone, or an SA of esp");
        }
        let Some(auth) = &add.authentication else {
            self.errors.add(place, "this SA has no algorithm", "-A hmac-sha256 and a key");
            return None;
        };
        if !self.is_known(auth, HASHES) {
            return None;
        }
        let (name, bits) = asked(auth);
        match Suite::auth_from_setkey(name, bits) {
            Ok(suite) => Some((Suite::Ah(suite), auth.key.iter().collect())),
            Err(error) => {
                self.no_suite(auth, None, &error);
                None
            }
        }
    }

    fn ipcomp(&mut self, add: &Add, place: Place) -> Option<Suite> {
        for other in [&add.encryption, &add.authentication].into_iter().flatten() {
            self.errors.add(other.name.place, "IPComp only compresses", "-C deflate alone");
        }
        match &add.compression {
            Some(algorithm) if algorithm.name.value == "deflate" => Some(Suite::Deflate),
            Some(algorithm) => {
                let message = format!("{:?} is no compression of this router", algorithm.name.value);
                self.errors.add(algorithm.name.place, message, "deflate");
                None
            }
            None => {
                self.errors.add(place, "this SA has no algorithm", "-C deflate");
                None
            }
        }
    }

    /// Whether a word of setkey(8) means something here; says so if not.
    fn is_known(&mut self, algorithm: &Algorithm, table: &Words) -> bool {
        let name = algorithm.name.value.as_str();
        if table.known.contains(&name) {
            return true;
        }
        let message = match table.refused.iter().find(|(word, _)| *word == name) {
            Some((_, why)) => format!("{name} is not there: {why}"),
            None => format!("{name:?} is not {}", table.what),
        };
        self.errors.add(algorithm.name.place, message, table.help);
        false
    }

    fn no_suite(&mut self, algorithm: &Algorithm, auth: Option<&Algorithm>, error: &NoSuite) {
        let of_auth = |name: &str| {
            auth.filter(|a| a.name.value == name || a.name.value.replace("sha2-", "sha") == name)
        };
        let (place, message, help) = match error {
            NoSuite::Key { name, bits, lengths } => {
                let at = of_auth(name).unwrap_or(algorithm);
                let place = at.key.as_ref().map_or(at.name.place, |key| key.place);
                (place, format!("the key has {bits} bits"), format!("for {name}: {lengths}"))
            }
            NoSuite::Unauthenticated(_) => {
                (algorithm.name.place, error.to_string(), "-A hmac-sha256 and a key besides".to_owned())
            }
            NoSuite::Twice(_) => {
                let place = auth.map_or(algorithm.name.place, |a| a.name.place);
                (place, error.to_string(), "-E alone".to_owned())
            }
            NoSuite::Unknown(name) => {
                let place = of_auth(name).map_or(algorithm.name.place, |a| a.name.place);
                let message = format!("{name} is not in this program");
                (place, message, "a build with the feature \"legacy\"".to_owned())
            }
        };
        self.errors.add(place, message, help);
    }
}

/// What an SA is like of which nothing is said but its name.
fn blank(add: &Add, protocol: Protocol) -> SaConfig {
    SaConfig {
        src: add.name.src.value,
        dst: add.name.dst.value,
        spi: add.name.spi.value,
        protocol,
        mode: Mode::Any,
        inner: None,
        worker: None,
        encap: None,
        reqid: 0,
        suite: Suite::Aes128Gcm16,
        esn: false,
        replay: 0,
        padding: Padding::default(),
        handling: Handling::default(),
        soft: Lifetime::default(),
        hard: Lifetime::default(),
    }
}

/// An algorithm's word and the bits of its key.
fn asked(algorithm: &Algorithm) -> (&str, usize) {
    (&algorithm.name.value, algorithm.key.as_ref().map_or(0, |key| key.value.len() * 8))
}
