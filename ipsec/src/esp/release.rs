//! What a worker owes: the SAs whose `releasing` bit it holds until its packets are written.

use super::input;
use crate::{
    order::Worker,
    sa::{Sa, SaLevel},
};
use kern::{
    Batch, Mbuf, Why,
    lock::{Before, Held},
    time::Instant,
};
use std::sync::Arc;

/// One turn of a worker's loop, as far as ESP must know it.
#[derive(Debug)]
pub struct LoopTurn<'a> {
    /// Who.
    pub worker: Worker,
    /// The clock, read once a turn.
    pub now: Instant,
    /// What the worker owes.
    pub releasing: &'a mut Releasing,
}

/// The SAs whose `releasing` bit a worker holds. It lives as long as the worker: an SA that a reload takes away stays
/// until its last packets are written.
///
/// At the end of each loop turn, when everything has been written to the devices, the worker calls
/// [`written_output`](Self::written_output) and [`written_input`](Self::written_input) and sends on what they add; it may
/// sleep or answer a quiet moment only when [`is_empty`](Self::is_empty).
#[derive(Debug, Default)]
pub struct Releasing {
    output: Vec<Arc<Sa>>,
    input: Vec<Arc<Sa>>,
    moved: bool,
}

impl Releasing {
    /// Owes nothing; has room for this many SAs each way before it allocates.
    pub fn with_capacity(sas: usize) -> Releasing {
        Releasing { output: Vec::with_capacity(sas), input: Vec::with_capacity(sas), moved: false }
    }

    /// Whether nothing is owed.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.output.is_empty() && self.input.is_empty()
    }

    /// [`output::finish`](super::output::finish) said `Taken`.
    pub fn note_output(&mut self, sa: &Arc<Sa>) {
        self.output.push(Arc::clone(sa));
    }

    /// [`input::finish`] said `Taken`.
    pub fn note_input(&mut self, sa: &Arc<Sa>) {
        self.input.push(Arc::clone(sa));
    }

    /// A run of an SA has been opened.
    #[inline(always)]
    pub(super) fn note_moved(&mut self, sa: &Sa) {
        self.moved |= sa.take_moved();
    }

    /// Whether a peer has moved since the last call: the control thread should [follow](crate::natt::followed).
    #[inline(always)]
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// All packets that `esp_output` let go in this turn have been written. Adds to `out` what was parked meanwhile, to
    /// be sent on as `esp_output`'s own. True if anything is still owed: call again when that is written.
    pub fn written_output(
        &mut self,
        worker: Worker,
        out: &mut Batch,
        held: &mut Held<'_, impl Before<SaLevel>>,
    ) -> bool {
        self.output.retain(|sa| held.lock(sa.outbound()).0.turns.written(worker, out));
        !self.output.is_empty()
    }

    /// All packets that `esp_input` let go in this turn have gone their ways. Adds to `out` what was parked meanwhile,
    /// to be sent on as `esp_input`'s own. True if anything is still owed.
    pub fn written_input(
        &mut self,
        worker: Worker,
        now: Instant,
        out: &mut Batch,
        held: &mut Held<'_, impl Before<SaLevel>>,
        mut sink: impl FnMut(Mbuf, Why),
    ) -> bool {
        let moved = &mut self.moved;
        self.input.retain(|sa| {
            let more = input::written(sa, worker, now, out, held, &mut sink);
            *moved |= sa.take_moved();
            more
        });
        !self.input.is_empty()
    }
}
