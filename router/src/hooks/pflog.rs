//! The taps `pflog0` to `pflog15`: packets that rules of pf log.

use crate::{
    capture::{Copiers, Seen, Tap},
    netconfig::NetConfig,
};
use kern::time::Instant;
use pf::{
    Direction,
    log::{Logger, Record},
};

/// Copies logged packets of a batch for those who look.
pub(super) struct Pflog<'a> {
    captures: &'a mut Copiers,
    net: &'a NetConfig,
    at: Instant,
}

impl<'a> Pflog<'a> {
    /// None if nobody looks.
    #[inline(always)]
    pub(super) fn new(captures: &'a mut Copiers, net: &'a NetConfig, at: Instant) -> Option<Pflog<'a>> {
        captures.look_at_any(|tap| matches!(tap, Tap::Pflog(_))).then_some(Pflog { captures, net, at })
    }
}

impl Logger for Pflog<'_> {
    #[cold]
    fn log(&mut self, record: &Record<'_>, packet: &[u8]) {
        let tap = Tap::Pflog(record.to);
        if !self.captures.look_at(tap) {
            return;
        }
        let name = match record.interface {
            super::ENC0 => "enc0",
            index => self.net.interface(index.0).map_or("", |interface| &interface.name),
        };
        let header = record.header(name, packet);
        let inbound = record.direction == Direction::In;
        self.captures.copy(tap, &Seen { at: self.at, inbound, header: &header, packet });
        self.captures.show(tap);
    }
}
