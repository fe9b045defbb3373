//! From a checked configuration to the two databases.

use super::{Origin, ValidConf, ValidSa};
use crate::{
    sa::{Mode, Protocol, Sa, SaConfig, SaIndex, SaLevel, Setup, Spi},
    sad::Sad,
    spd::{Direction, Policy, Spd},
    transform::KeyError,
};
use kern::lock::{Before, Held};
use std::{collections::HashMap, net::IpAddr, sync::Arc};

/// An SA could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: SA {spi} from {src} to {dst}: {cause}")]
pub struct BuildError {
    /// Where it was added.
    pub origin: Origin,
    /// Its SPI.
    pub spi: Spi,
    /// Its source.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// Why.
    pub cause: BuildCause,
}

/// Why an SA could not be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildCause {
    /// Its key could not be.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It would be numbered anew under the key of an SA that is there, and its nonces are those numbers (RFC 8750, 7).
    #[error(
        "the SA {0} has this key, and with the numbers its implicit IVs would begin again (a new key; the same one only where ends, SPI and -esn stay)"
    )]
    NoncesAgain(Spi),
}

/// Builds SAs and policies; changes nothing that workers see before the result is published.
///
/// An SA of `previous` with the same ends, SPI and key lives on: the very same if nothing of it changed, else one that
/// goes on with its sequence numbers, window and counters. So a reload sends no number twice and accepts no packet twice. Where
/// the numbers are all that nonces are made of, no other SA gets such a key.
pub fn build(
    conf: &ValidConf,
    previous: Option<&Sad>,
    setup: &Setup,
    held: &mut Held<'_, impl Before<SaLevel>>,
) -> Result<(Sad, Spd), BuildError> {
    let nothing = Sad::default();
    let previous = previous.unwrap_or(&nothing);
    let old: HashMap<_, _> = previous.iter().map(|sa| (name_of(sa.config()), sa)).collect();
    let goes_on = |valid: &ValidSa| {
        let before = old.get(&name_of(&valid.config)).copied();
        before.filter(|sa| has_numbers_of(sa, valid))
    };
    let failed = |valid: &ValidSa, cause| {
        let SaConfig { spi, src, dst, .. } = valid.config;
        BuildError { origin: valid.origin.clone(), spi, src, dst, cause }
    };
    // What goes on is changed by it: so first whether all can be had.
    for valid in conf.sas().iter().filter(|valid| goes_on(valid).is_none()) {
        if let Some(other) = with_its_nonces(valid, previous) {
            return Err(failed(valid, BuildCause::NoncesAgain(other.config().spi)));
        }
    }
    let mut free = previous.free_indexes();
    let mut sas = Vec::with_capacity(conf.sas().len());
    let policies = conf.policies();
    for valid in conf.sas() {
        let config = SaConfig { mode: mode(&valid.config, &policies), ..valid.config.clone() };
        let sa = one(valid, config, goes_on(valid), &mut free, setup, held);
        sas.push(sa.map_err(|cause| failed(valid, cause.into()))?);
    }
    let sad = Sad::new(sas).after(previous);
    let spd = Spd::new(policies, &sad);
    Ok((sad, spd))
}

/// Whether what is asked for can go on with the numbers of the SA that was called so before.
fn has_numbers_of(before: &Sa, valid: &ValidSa) -> bool {
    let (old, new) = (before.config(), &valid.config);
    // Extended numbers are another sequence: nothing to go on with.
    before.has_key(&valid.key) && old.suite == new.suite && old.esn == new.esn
}

/// An SA whose nonces would come again if this one were numbered from the beginning: of the same key, and both with implicit IVs.
fn with_its_nonces<'s>(valid: &ValidSa, previous: &'s Sad) -> Option<&'s Arc<Sa>> {
    if !valid.config.suite.is_implicit() {
        return None;
    }
    previous.iter().find(|sa| sa.config().suite.is_implicit() && sa.has_key(&valid.key))
}

/// What an SA is called by.
fn name_of(config: &SaConfig) -> (Protocol, IpAddr, IpAddr, Spi) {
    (config.protocol, config.src, config.dst, config.spi)
}

/// The mode of an SA: where it leaves that open, transport mode if the first policy that sends by it asks for that.
/// Else it stays open, which is a tunnel's on the way out and takes both on the way in.
pub(super) fn mode(config: &SaConfig, policies: &[Policy]) -> Mode {
    if config.mode != Mode::Any {
        return config.mode;
    }
    let mut out = policies.iter().filter(|policy| policy.direction == Direction::Out);
    let transport = out.find_map(|policy| policy.asks_for(config));
    transport.filter(|mode| *mode == Mode::Transport).unwrap_or(Mode::Any)
}

fn one(
    valid: &ValidSa,
    config: SaConfig,
    before: Option<&Arc<Sa>>,
    free: &mut impl Iterator<Item = SaIndex>,
    setup: &Setup,
    held: &mut Held<'_, impl Before<SaLevel>>,
) -> Result<Arc<Sa>, KeyError> {
    match before {
        Some(sa) if *sa.config() == config && setup.engine.resolve(config.suite) == sa.engine() => {
            Ok(Arc::clone(sa))
        }
        Some(sa) => Ok(Arc::new(Sa::continuing(sa, config, setup, held)?)),
        None => {
            // The list of free indexes has no end.
            let index = free.next().unwrap_or(SaIndex(u32::MAX - 1));
            let sa = Sa::new(index, config, Arc::clone(&valid.key), setup)?;
            if valid.sequence > 0 {
                sa.set_next_sequence(held, valid.sequence.saturating_add(1));
                sa.set_window_top(held, valid.sequence);
            }
            Ok(Arc::new(sa))
        }
    }
}
