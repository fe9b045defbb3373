//! How an SA's life goes on, as the control thread asks for it (RFC 4301, 4.4.2.1; the events are SADB_EXPIRE of RFC 2367).
//!
//! Workers end what an SA may no longer carry by themselves, on counters that their run has at hand under its lock. Here is
//! the rest: time that passes for an SA nobody uses, and who is to be told, once.

use super::{Life, Limit, Sa, SaLevel};
use kern::{
    lock::{Before, Held},
    time::Instant,
};
use std::sync::atomic::Ordering;

/// What an SA has used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Bytes.
    Bytes,
    /// Packets.
    Packets,
    /// Seconds.
    Seconds,
    /// Sequence numbers: all of them, or 15 of 16.
    Sequence,
}

impl Cause {
    /// In a report.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Bytes => "bytes",
            Cause::Packets => "packets",
            Cause::Seconds => "seconds",
            Cause::Sequence => "sequence",
        }
    }
}

impl Sa {
    /// How its life has gone on since this was asked last, and why.
    pub fn news(&self, now: Instant, held: &mut Held<'_, impl Before<SaLevel>>) -> Option<(Life, Cause)> {
        let sequence = held.lock(self.outbound()).0.sequence.clone();
        let status = self.status(held);
        let by_use =
            |limit: &Limit| limit.cause(&status.sent, now).or_else(|| limit.cause(&status.received, now));
        let soft = by_use(&self.soft).or_else(|| sequence.is_low().then_some(Cause::Sequence));
        let hard = by_use(&self.hard).or_else(|| (sequence.left() == 0).then_some(Cause::Sequence));
        let causes = [(Life::Dying, soft), (Life::Dead, hard)];
        causes.iter().filter(|(_, cause)| cause.is_some()).for_each(|(life, _)| self.note(*life));
        let life = self.life();
        let told = self.moving.told.swap(life as u8, Ordering::Relaxed);
        let (_, cause) = causes.into_iter().find(|(at, _)| *at == life)?;
        (told < life as u8).then_some((life, cause.unwrap_or(Cause::Sequence)))
    }
}
