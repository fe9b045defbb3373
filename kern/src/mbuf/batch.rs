//! A batch: up to 256 packets between two stages.

use super::{Mbuf, Owner};
use arrayvec::ArrayVec;

/// Packets a batch can hold.
pub const BATCH: usize = 256;

/// Packets on their way from one stage to the next, in order.
#[derive(Default)]
pub struct Batch {
    packets: ArrayVec<Mbuf, BATCH>,
}

impl Batch {
    /// An empty batch.
    pub const fn new() -> Batch {
        Batch { packets: ArrayVec::new_const() }
    }

    /// How many packets.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there are none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether no further packet fits.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.packets.is_full()
    }

    /// How many more fit.
    #[inline(always)]
    pub fn room(&self) -> usize {
        self.packets.remaining_capacity()
    }

    /// Adds a packet at the end; a full batch gives it back.
    #[inline(always)]
    pub fn push(&mut self, m: Mbuf) -> Result<(), Mbuf> {
        self.packets.try_push(m).map_err(arrayvec::CapacityError::element)
    }

    /// Takes the last packet.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.packets.pop()
    }

    /// The packets, first to last.
    #[inline(always)]
    pub fn iter(&self) -> std::slice::Iter<'_, Mbuf> {
        self.packets.iter()
    }

    /// The packets, to change.
    #[inline(always)]
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Mbuf> {
        self.packets.iter_mut()
    }

    /// The packets as a slice.
    #[inline(always)]
    pub fn as_slice(&self) -> &[Mbuf] {
        &self.packets
    }

    /// The packets as a slice, to change.
    #[inline(always)]
    pub fn as_mut_slice(&mut self) -> &mut [Mbuf] {
        &mut self.packets
    }

    /// Takes all packets out, first to last.
    #[inline(always)]
    pub fn drain(&mut self) -> arrayvec::Drain<'_, Mbuf, BATCH> {
        self.packets.drain(..)
    }

    /// Takes the first `n` packets (or as many as there are) out, first to last.
    #[inline(always)]
    pub fn drain_front(&mut self, n: usize) -> arrayvec::Drain<'_, Mbuf, BATCH> {
        let n = n.min(self.packets.len());
        self.packets.drain(..n)
    }

    /// Decides on each packet, first to last: what comes back stays, in order; what does not went elsewhere.
    ///
    /// This is a stage's loop: packets that take the expected way are compacted in place, and the batch moves on as
    /// a whole.
    #[inline(always)]
    pub fn sift(&mut self, mut decide: impl FnMut(Mbuf) -> Option<Mbuf>) {
        let total = self.packets.len();
        let base = self.packets.as_mut_ptr();
        let mut state = Sifting { batch: self, base, total, next: 0, kept: 0 };
        // SAFETY: elements `next..total` are initialised and owned by `state` from here on: the vector's own length
        // is 0 until `Sifting::drop` sets it, also when `decide` unwinds.
        unsafe { state.batch.packets.set_len(0) };
        while state.next < total {
            // SAFETY: `next < total`, and each element is read once.
            let m = unsafe { base.add(state.next).read() };
            state.next += 1;
            if let Some(m) = decide(m) {
                // SAFETY: `kept < next`: the place has been read from.
                unsafe { base.add(state.kept).write(m) };
                state.kept += 1;
            }
        }
    }

    /// Moves packets over to the end of `to`, first to last, as many as fit.
    pub fn move_to(&mut self, to: &mut Batch) {
        let n = to.room().min(self.len());
        to.packets.extend(self.packets.drain(..n));
    }

    /// Says who has them all now.
    #[inline]
    pub fn set_owner(&self, owner: Owner) {
        self.iter().for_each(|m| m.set_owner(owner));
    }
}

/// A batch while it is being sifted; its drop closes the gap, also when the decision unwinds.
struct Sifting<'a> {
    batch: &'a mut Batch,
    base: *mut Mbuf,
    total: usize,
    next: usize,
    kept: usize,
}

impl Drop for Sifting<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let rest = self.total - self.next;
        if rest > 0 {
            // SAFETY: `kept <= next`, both ranges lie within the `total` initialised elements; `copy` may overlap.
            unsafe { std::ptr::copy(self.base.add(self.next), self.base.add(self.kept), rest) };
        }
        // SAFETY: the first `kept + rest` elements are initialised and owned by nobody else.
        unsafe { self.batch.packets.set_len(self.kept + rest) };
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Mbuf;
    type IntoIter = std::slice::Iter<'a, Mbuf>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Batch {
    type Item = &'a mut Mbuf;
    type IntoIter = std::slice::IterMut<'a, Mbuf>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}
