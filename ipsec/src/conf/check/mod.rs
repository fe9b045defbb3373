//! What the statements of an ipsec.conf mean together, and whether this router can do it.

mod beet;
mod encap;
mod implicit;
mod larval;
mod padded;
mod policy;
mod sa;
mod words;

pub use larval::{Larval, SaId};
pub use words::algorithm_words;

use super::{
    Conf, ConfError, Errors, Place,
    statement::{At, Command, DirectionWord, Protocol, SaName},
};
use crate::{
    sa::{Protocol as IpsecProtocol, SaConfig},
    selector::Selector,
    spd::{Action, Direction, Policy},
};
use kern::secret::SecretBytes;
use std::{fmt, sync::Arc};

/// An SA that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidSa {
    /// Everything but the key.
    pub config: SaConfig,
    /// Cipher key, salt, integrity key.
    pub key: Arc<SecretBytes>,
    /// The last sequence number used already, each way.
    pub sequence: u64,
    /// Where it was added.
    pub origin: Origin,
}

/// Where a statement stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file, as the caller named it.
    pub file: Arc<str>,
    /// Where in it.
    pub place: Place,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column } = self.place;
        write!(f, "{}:{line}:{column}", self.file)
    }
}

impl Origin {
    /// As a message in `file` says it: the line alone if it is in the same.
    fn seen_from(&self, file: &Arc<str>) -> String {
        let line = self.place.line;
        if *file == self.file { format!("line {line}") } else { format!("{}:{line}", self.file) }
    }
}

/// A policy and its place in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ValidPolicy {
    selector: Selector,
    direction: Direction,
    /// `fwd` and `in` are two policies although they do the same.
    word: DirectionWord,
    action: Action,
    priority: i64,
    origin: Origin,
}

/// All SAs and policies that statements have made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidConf {
    sas: Vec<ValidSa>,
    policies: Vec<ValidPolicy>,
    larval: Vec<Larval>,
    warnings: Vec<ConfError>,
}

impl ValidConf {
    /// The SAs, in the order in which they were added.
    pub fn sas(&self) -> &[ValidSa] {
        &self.sas
    }

    /// The policies, numbered from 1 in the order in which they are asked.
    pub fn policies(&self) -> Vec<Policy> {
        let numbered = (1..).zip(&self.policies);
        numbered
            .map(|(id, p)| Policy {
                id,
                direction: p.direction,
                selector: p.selector,
                action: p.action.clone(),
            })
            .collect()
    }

    /// What can be done but is probably not meant.
    pub fn warnings(&self) -> &[ConfError] {
        &self.warnings
    }
}

struct Checker<'c> {
    valid: ValidConf,
    errors: Errors,
    file: &'c Arc<str>,
}

pub(super) fn check(conf: &Conf, base: &ValidConf) -> Result<ValidConf, Vec<ConfError>> {
    let mut valid = base.clone();
    valid.warnings.clear();
    let mut checker = Checker { valid, errors: Errors::new(conf.file()), file: conf.file() };
    for statement in conf.statements() {
        checker.carry_out(&statement.value, statement.place);
    }
    checker.warn();
    checker.warn_of_implicit();
    checker.padded_as_policies_say();
    if checker.errors.list.is_empty() { Ok(checker.valid) } else { Err(checker.errors.list) }
}

impl Checker<'_> {
    fn carry_out(&mut self, command: &Command, place: Place) {
        match command {
            Command::Add(add) => self.add(add, place),
            Command::Update(add) => self.update(add, place),
            Command::Delete(name) => self.delete(name, place),
            Command::DeleteAll { src, dst, protocol } => {
                if let Some(protocol) = self.ipsec(protocol) {
                    let name = |c: &SaConfig| (c.protocol, c.src, c.dst);
                    let gone = (protocol, src.value, dst.value);
                    self.valid.sas.retain(|sa| name(&sa.config) != gone);
                    self.valid.larval.retain(|l| (l.id.protocol, l.id.src, l.id.dst) != gone);
                }
            }
            Command::Flush(None) => {
                self.valid.sas.clear();
                self.valid.larval.clear();
            }
            Command::Flush(Some(protocol)) => {
                let gone = protocol.ipsec();
                self.valid.sas.retain(|sa| Some(sa.config.protocol) != gone);
                self.valid.larval.retain(|l| Some(l.id.protocol) != gone);
            }
            Command::SpdAdd(policy) => self.policy(policy, place, false),
            Command::SpdUpdate(policy) => self.policy(policy, place, true),
            Command::SpdDelete(name) => self.policy_delete(name, place),
            Command::SpdFlush => self.valid.policies.clear(),
            Command::Get(name) => {
                self.named(name, place);
            }
            // Questions change nothing.
            Command::Dump(_) | Command::SpdDump | Command::Exit => {}
        }
    }

    fn origin(&self, place: Place) -> Origin {
        Origin { file: Arc::clone(self.file), place }
    }

    /// The protocol of IPsec that a word means.
    fn ipsec(&mut self, protocol: &At<Protocol>) -> Option<IpsecProtocol> {
        let ipsec = protocol.value.ipsec();
        if ipsec.is_none() {
            let (message, help) = match protocol.value {
                Protocol::EspOld => ("esp-old is the ESP of RFC 1827, without integrity", "esp"),
                Protocol::AhOld => ("ah-old is the AH of RFC 1826, without protection from replay", "ah"),
                Protocol::TcpMd5 => ("TCP MD5 signatures (RFC 2385) are not there", "esp, ah or ipcomp"),
                _ => ("this is no protocol of a policy or an SA", "esp, ah or ipcomp"),
            };
            self.errors.add(protocol.place, message, help);
        }
        ipsec
    }

    /// What a name means, if its protocol is one of IPsec.
    fn id(&mut self, name: &SaName) -> Option<SaId> {
        let protocol = self.ipsec(&name.protocol)?;
        Some(SaId { protocol, src: name.src.value, dst: name.dst.value, spi: name.spi.value })
    }

    /// Where an SA is that must be there.
    fn named(&mut self, name: &SaName, place: Place) -> Option<usize> {
        let id = self.id(name)?;
        let found = self.valid.sas.iter().position(|sa| SaId::from(&sa.config) == id);
        if found.is_none() {
            let help = "one that was added before, with the same ends and SPI";
            self.errors.add(place, "there is no such SA", help);
        }
        found
    }

    fn delete(&mut self, name: &SaName, place: Place) {
        if name.protocol.value.ipsec().is_some()
            && let Some(id) = self.id(name)
            && self.hatch(&id)
        {
            return;
        }
        if let Some(at) = self.named(name, place) {
            self.valid.sas.remove(at);
        }
    }
}
