//! From a checked configuration to the two databases.

use super::{ValidConf, ValidSa};
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
#[error("SA {spi} from {src} to {dst}: {cause}")]
pub struct BuildError {
    /// Its SPI.
    pub spi: Spi,
    /// Its source.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// Why.
    pub cause: KeyError,
}

/// Builds SAs and policies; changes nothing that workers see before the result is published.
///
/// An SA of `previous` with the same ends, SPI and key lives on: the very same if nothing of it changed, else one that
/// goes on with its sequence numbers, window and counters. So a reload sends no number twice and accepts no packet twice.
pub fn build(
    conf: &ValidConf,
    previous: Option<&Sad>,
    setup: &Setup,
    held: &mut Held<'_, impl Before<SaLevel>>,
) -> Result<(Sad, Spd), BuildError> {
    let nothing = Sad::default();
    let previous = previous.unwrap_or(&nothing);
    let old: HashMap<_, _> = previous.iter().map(|sa| (name_of(sa.config()), sa)).collect();
    let mut free = previous.free_indexes();
    let mut sas = Vec::with_capacity(conf.sas().len());
    let policies = conf.policies();
    for valid in conf.sas() {
        let name = name_of(&valid.config);
        let before =
            old.get(&name).filter(|sa| sa.has_key(&valid.key) && sa.config().suite == valid.config.suite);
        let config = SaConfig { mode: mode(&valid.config, &policies), ..valid.config.clone() };
        let sa = one(valid, config, before.copied(), &mut free, setup, held);
        sas.push(sa.map_err(|cause| BuildError { spi: name.3, src: name.1, dst: name.2, cause })?);
    }
    let sad = Sad::new(sas).after(previous);
    let spd = Spd::new(policies, &sad);
    Ok((sad, spd))
}

/// What an SA is called by.
fn name_of(config: &SaConfig) -> (Protocol, IpAddr, IpAddr, Spi) {
    (config.protocol, config.src, config.dst, config.spi)
}

/// The mode of an SA: where it leaves that open, transport mode if the first policy that sends by it asks for that.
/// Else it stays open, which is a tunnel's on the way out and takes both on the way in.
fn mode(config: &SaConfig, policies: &[Policy]) -> Mode {
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
        // Extended numbers are another sequence: nothing to go on with.
        Some(sa) if sa.config().esn == config.esn => Ok(Arc::new(Sa::continuing(sa, config, setup, held)?)),
        _ => {
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
