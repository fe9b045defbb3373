//! What a worker owes: packets on their way out of SAs, whose order others wait for, and packets that wait for others.

use super::input;
use crate::{
    exit::Exit,
    order::Worker,
    sa::{Sa, SaIndex, SaLevel},
    seq::Numbers,
};
use kern::{
    Batch, Mbuf, Owner, Why,
    lock::{Before, Held},
    mbuf::BATCH,
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

/// What a worker owes. It lives as long as the worker: an SA that a reload takes away stays until its last packets are
/// written.
///
/// Whenever everything that left has been written to the devices the worker calls [`written_output`](Self::written_output),
/// and at the end of each loop turn also [`written_input`](Self::written_input) and at last [`keep`](Self::keep); he sends on
/// what they add, and may sleep only when [`is_empty`](Self::is_empty).
#[derive(Debug, Default)]
pub struct Releasing {
    /// Runs that may be written now, at most one entry an SA and stretch of numbers.
    leaving: Vec<Leaving>,
    /// Runs that wait for those of other workers, in the order in which they were sealed.
    waiting: Vec<Waiting>,
    /// The packets of those, one run's after the other's.
    packets: Vec<Mbuf>,
    input: Vec<Arc<Sa>>,
    moved: bool,
}

/// The SA of a run. Within the turn its index will do: to count a reference is to take a cache line from the other workers.
#[derive(Debug)]
enum Of {
    /// An SA of the present configuration.
    Present(SaIndex),
    /// One that may be none any more.
    Kept(Arc<Sa>),
}

impl Of {
    fn exit<'s, 'a: 's>(&'s self, find: &impl Fn(SaIndex) -> Option<&'a Arc<Sa>>) -> Option<&'s Exit> {
        match self {
            Of::Present(index) => find(*index).and_then(|sa| sa.exit()),
            Of::Kept(sa) => sa.exit(),
        }
    }

    /// Whether both are known to be of one SA.
    fn same(&self, other: &Of) -> bool {
        match (self, other) {
            (Of::Present(a), Of::Present(b)) => a == b,
            (Of::Kept(a), Of::Kept(b)) => a.shares_numbers(b),
            _ => false,
        }
    }
}

/// A run that may be written; then the exit moves to `end`.
#[derive(Debug)]
struct Leaving {
    of: Of,
    end: u64,
}

/// A run that waits.
#[derive(Debug)]
struct Waiting {
    of: Of,
    numbers: Numbers,
    packets: usize,
    goes: bool,
}

/// Several runs of one SA wait, and no others: two workers send by it and each looks at the exit just before the other moves it,
/// so that each time only one run leaves. To wait a moment here brings them into step again.
fn fall_into_step<'a>(waiting: &[Waiting], find: &impl Fn(SaIndex) -> Option<&'a Arc<Sa>>) {
    let [first, rest @ ..] = waiting else { return };
    let Some(exit) = first.of.exit(find) else { return };
    let is_same = |run: &Waiting| run.of.exit(find).is_some_and(|its| std::ptr::eq(its, exit));
    if !rest.is_empty() && rest.iter().all(is_same) {
        exit.comes_to(first.numbers.first);
    }
}

impl Releasing {
    /// Owes nothing; has room for this many SAs each way before it allocates.
    pub fn with_capacity(sas: usize) -> Releasing {
        Releasing {
            leaving: Vec::with_capacity(sas),
            waiting: Vec::with_capacity(sas),
            packets: Vec::with_capacity(BATCH),
            input: Vec::with_capacity(sas),
            moved: false,
        }
    }

    /// Whether nothing is owed.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.leaving.is_empty() && self.input.is_empty() && self.waiting.is_empty()
    }

    /// How many more packets may wait.
    #[inline(always)]
    pub fn room(&self) -> usize {
        BATCH.saturating_sub(self.packets.len())
    }

    /// A run has been sealed. It stays in `run` if it may leave now.
    #[inline(always)]
    pub(super) fn leave(&mut self, sa: &Sa, numbers: Numbers, run: &mut Batch) {
        // A run that got no numbers has no place in the order.
        if let Some(exit) = sa.exit().filter(|_| numbers.len != 0) {
            self.leave_in_order(sa.index(), exit, numbers, run);
        }
    }

    #[inline]
    fn leave_in_order(&mut self, sa: SaIndex, exit: &Exit, numbers: Numbers, run: &mut Batch) {
        let of = Of::Present(sa);
        if !exit.is_turn_of(numbers.first) {
            if self.follow(&of, numbers) {
                return;
            }
            // Whoever has to look again later has others who wait for him: then nobody spins.
            if !self.waiting.is_empty() || !exit.comes_to(numbers.first) {
                self.wait(of, numbers, run);
                return;
            }
        }
        self.leaving.push(Leaving { of, end: numbers.end() });
    }

    /// A run stays here until its turn, with the one before it if that is the last that waits.
    fn wait(&mut self, of: Of, numbers: Numbers, run: &mut Batch) {
        run.set_owner(Owner::Crypto);
        match self.waiting.last_mut() {
            Some(last) if last.numbers.end() == numbers.first && last.of.same(&of) => {
                last.numbers.len += numbers.len;
                last.packets += run.len();
            }
            _ => self.waiting.push(Waiting { of, numbers, packets: run.len(), goes: false }),
        }
        self.packets.extend(run.drain());
    }

    /// Goes along with the run just before, if that is one which this worker is about to write; says whether it is.
    fn follow(&mut self, of: &Of, numbers: Numbers) -> bool {
        let before = self.leaving.iter_mut().find(|run| run.end == numbers.first && run.of.same(of));
        before.map(|run| run.end = numbers.end()).is_some()
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

    /// All packets that [`output::finish`](super::output::finish) let go have been written. Adds to `out` those whose turn
    /// has come meanwhile, `room` of them at most, to be sent on likewise. True if any run's turn has come: call again when it is
    /// written. `find` knows the SAs of the present configuration.
    pub fn written_output<'a>(
        &mut self,
        find: impl Fn(SaIndex) -> Option<&'a Arc<Sa>>,
        out: &mut Batch,
        room: usize,
    ) -> bool {
        for run in self.leaving.drain(..) {
            if let Some(exit) = run.of.exit(&find) {
                exit.written_up_to(run.end);
            }
        }
        if !self.waiting.is_empty() {
            self.look(find, out, room.min(out.room()));
        }
        !self.leaving.is_empty()
    }

    /// Which of those that wait may go.
    #[cold]
    fn look<'a>(&mut self, find: impl Fn(SaIndex) -> Option<&'a Arc<Sa>>, out: &mut Batch, mut room: usize) {
        let mut waiting = std::mem::take(&mut self.waiting);
        fall_into_step(&waiting, &find);
        for run in &mut waiting {
            if run.packets > room {
                continue;
            }
            // Where there is no exit there is no order.
            let first = run.of.exit(&find).is_none_or(|exit| exit.is_turn_of(run.numbers.first));
            run.goes = first || self.follow(&run.of, run.numbers);
            if run.goes {
                room -= run.packets;
            }
            if first {
                let of = std::mem::replace(&mut run.of, Of::Present(SaIndex(0)));
                self.leaving.push(Leaving { of, end: run.numbers.end() });
            }
        }
        if waiting.iter().any(|run| run.goes) {
            self.hand_out(&waiting, out);
            waiting.retain(|run| !run.goes);
        }
        self.waiting = waiting;
    }

    /// The turn is over, and the configuration may change: what is owed keeps its SA.
    pub fn keep<'a>(&mut self, find: impl Fn(SaIndex) -> Option<&'a Arc<Sa>>) {
        let waiting = self.waiting.iter_mut().map(|run| &mut run.of);
        for of in waiting.chain(self.leaving.iter_mut().map(|run| &mut run.of)) {
            if let Of::Present(index) = of
                && let Some(sa) = find(*index)
            {
                *of = Of::Kept(Arc::clone(sa));
            }
        }
    }

    fn hand_out(&mut self, waiting: &[Waiting], out: &mut Batch) {
        let mut goes = waiting.iter().flat_map(|run| std::iter::repeat_n(run.goes, run.packets));
        for m in self.packets.extract_if(.., |_| goes.next() == Some(true)) {
            m.set_owner(Owner::Worker);
            // There was room.
            let _ = out.push(m);
        }
    }

    /// Takes what waits, to be ended: the worker stops.
    pub fn give_up(&mut self) -> impl Iterator<Item = Mbuf> {
        self.waiting.clear();
        self.packets.drain(..)
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
