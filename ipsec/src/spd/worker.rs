//! SAs of single workers (the per-resource SAs of RFC 9611): each worker sends by one of its own, and none waits for another.
//!
//! Beside SAs for everybody, the *fallback*, there may be SAs bound to a worker (`-pcpu-num n`), with the same ends and of the same
//! policy. A worker sends by its own; without one, by the fallback; it never sends by another's. As soon as one worker
//! has an SA of its own, the others ask for theirs (an acquire that names the worker). What arrives is opened by whichever SA its
//! SPI says, on whichever worker.

use crate::sa::{Life, Sa};
use std::sync::Arc;

/// The SA by which a worker sends, of those that come the newest first: its own, else one for everybody; one that is alive, else
/// the newest that it may use, which then ends the packet.
pub fn preferred<'a>(sas: impl Iterator<Item = &'a Arc<Sa>> + Clone, worker: u16) -> Option<&'a Arc<Sa>> {
    let bound_to = |bound: Option<u16>| move |sa: &&Arc<Sa>| sa.config().worker == bound;
    let (own, shared) = (sas.clone().filter(bound_to(Some(worker))), sas.filter(bound_to(None)));
    let mut both = own.chain(shared);
    let first = both.next()?;
    let alive = |sa: &&Arc<Sa>| sa.life() != Life::Dead;
    std::iter::once(first).chain(both).find(alive).or(Some(first))
}

/// Whether a worker that sends by this one of these SAs should have one of its own.
pub(super) fn lacks_own<'a>(chosen: &Sa, mut sas: impl Iterator<Item = &'a Arc<Sa>>) -> bool {
    chosen.config().worker.is_none() && sas.any(|sa| sa.config().worker.is_some())
}
