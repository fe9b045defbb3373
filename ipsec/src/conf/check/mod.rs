//! What the statements of an ipsec.conf mean together, and whether this router can do it.

mod policy;
mod sa;

use super::{
    Conf, ConfError, Errors, Place,
    statement::{At, Command, DirectionWord, Protocol, SaName},
};
use crate::{
    sa::{SaConfig, Spi},
    selector::Selector,
    spd::{Action, Direction, Policy},
};
use kern::secret::SecretBytes;
use std::{net::IpAddr, sync::Arc};

/// An SA that can be built.
#[derive(Clone, Debug)]
pub struct ValidSa {
    /// Everything but the key.
    pub config: SaConfig,
    /// Cipher key and salt.
    pub key: Arc<SecretBytes>,
    /// Where it was added.
    pub place: Place,
}

/// A policy and its place in the order.
#[derive(Clone, Debug)]
struct ValidPolicy {
    selector: Selector,
    direction: Direction,
    /// `fwd` and `in` are two policies although they do the same.
    word: DirectionWord,
    action: Action,
    priority: i64,
    place: Place,
}

/// All SAs and policies that statements have made.
#[derive(Clone, Debug, Default)]
pub struct ValidConf {
    sas: Vec<ValidSa>,
    policies: Vec<ValidPolicy>,
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
            .map(|(id, p)| Policy { id, direction: p.direction, selector: p.selector, action: p.action })
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
    if checker.errors.list.is_empty() { Ok(checker.valid) } else { Err(checker.errors.list) }
}

impl Checker<'_> {
    fn carry_out(&mut self, command: &Command, place: Place) {
        match command {
            Command::Add(add) => self.add(add, place),
            Command::Delete(name) => self.delete(name, place),
            Command::DeleteAll { src, dst, protocol } => {
                if self.is_esp(protocol) {
                    let (src, dst) = (src.value, dst.value);
                    self.valid.sas.retain(|sa| (sa.config.src, sa.config.dst) != (src, dst));
                }
            }
            Command::Flush(None | Some(Protocol::Esp)) => self.valid.sas.clear(),
            Command::SpdAdd(policy) => self.policy(policy, place, false),
            Command::SpdUpdate(policy) => self.policy(policy, place, true),
            Command::SpdDelete(name) => self.policy_delete(name, place),
            Command::SpdFlush => self.valid.policies.clear(),
            // Other protocols have no SAs to flush, and questions change nothing.
            Command::Flush(Some(_))
            | Command::Get(_)
            | Command::Dump(_)
            | Command::SpdDump
            | Command::Exit => {}
        }
    }

    fn is_esp(&mut self, protocol: &At<Protocol>) -> bool {
        let esp = protocol.value == Protocol::Esp;
        if !esp {
            let name = protocol.value.name();
            self.errors.add(protocol.place, format!("{name} is not there yet"), "esp is");
        }
        esp
    }

    fn find(&self, src: IpAddr, dst: IpAddr, spi: Spi) -> Option<usize> {
        self.valid.sas.iter().position(|sa| (sa.config.src, sa.config.dst, sa.config.spi) == (src, dst, spi))
    }

    fn delete(&mut self, name: &SaName, place: Place) {
        if !self.is_esp(&name.protocol) {
            return;
        }
        match self.find(name.src.value, name.dst.value, name.spi.value) {
            Some(at) => {
                self.valid.sas.remove(at);
            }
            None => self.errors.add(
                place,
                "there is no such SA",
                "one that was added before, with the same ends and SPI",
            ),
        }
    }
}
