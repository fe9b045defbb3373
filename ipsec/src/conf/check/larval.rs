//! Larval SAs (RFC 2367, 3.1.1): SPIs that a key manager has been given and not made SAs of yet. Until then, or until its
//! time is up, nobody else gets such an SPI. They carry nothing, so workers never see them.

use super::{Checker, ValidConf};
use crate::sa::{Protocol, SaConfig, Spi};
use kern::time::Instant;
use std::{net::IpAddr, ops::RangeInclusive};

/// What an SA is called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SaId {
    /// Protocol.
    pub protocol: Protocol,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// SPI.
    pub spi: Spi,
}

impl From<&SaConfig> for SaId {
    fn from(config: &SaConfig) -> SaId {
        SaId { protocol: config.protocol, src: config.src, dst: config.dst, spi: config.spi }
    }
}

/// An SPI that is given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Larval {
    /// To be the name of an SA.
    pub id: SaId,
    /// Until when it waits for that.
    pub until: Instant,
}

impl ValidConf {
    /// The SPIs that are given away.
    pub fn larval(&self) -> &[Larval] {
        &self.larval
    }

    /// Gives an SPI of a range away that the destination has not; `None` if it has all of them. `random` gives numbers
    /// nobody can guess.
    pub fn reserve(
        &mut self,
        name: (Protocol, IpAddr, IpAddr),
        range: RangeInclusive<u32>,
        random: impl Fn() -> u64,
        until: Instant,
    ) -> Option<Spi> {
        let (protocol, src, dst) = name;
        let (first, size) = (*range.start(), u64::from(range.end().checked_sub(*range.start())?) + 1);
        let nth = |n: u64| Spi(first + (n % size) as u32);
        let is_free = |spi: &Spi| {
            let same = |id: SaId| (id.protocol, id.dst, id.spi) == (protocol, dst, *spi);
            !self.sas.iter().any(|sa| same((&sa.config).into())) && !self.larval.iter().any(|l| same(l.id))
        };
        let taken = (self.sas.len() + self.larval.len()) as u64;
        let start = random();
        // A few shots in the dark; in a range that is nearly full, one after the other.
        let spi = (0..8)
            .map(|_| nth(random()))
            .chain((0..size.min(taken + 1)).map(|n| nth((start % size) + n)))
            .find(is_free)?;
        self.larval.push(Larval { id: SaId { protocol, src, dst, spi }, until });
        Some(spi)
    }

    /// Forgets the SPIs whose time is up.
    pub fn expire_larval(&mut self, now: Instant) {
        self.larval.retain(|larval| larval.until > now);
    }

    /// Takes an SA away; whether there was one.
    pub fn remove(&mut self, id: &SaId) -> bool {
        let before = self.sas.len();
        self.sas.retain(|sa| SaId::from(&sa.config) != *id);
        self.sas.len() < before
    }
}

impl Checker<'_> {
    /// An SA comes out of its larva; whether there was one.
    pub(super) fn hatch(&mut self, id: &SaId) -> bool {
        let before = self.valid.larval.len();
        self.valid.larval.retain(|larval| larval.id != *id);
        self.valid.larval.len() < before
    }
}
