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
    pub fn sift(&mut self, decide: impl FnMut(Mbuf) -> Option<Mbuf>) {
        self.sift_from(0, decide);
    }

    /// [`sift`](Self::sift) from a place on; those before stay.
    #[inline(always)]
    pub fn sift_from(&mut self, from: usize, mut decide: impl FnMut(Mbuf) -> Option<Mbuf>) {
        let total = self.packets.len();
        let from = from.min(total);
        let base = self.packets.as_mut_ptr();
        let mut state = Sifting { batch: self, base, total, next: from, kept: from };
        // SAFETY: elements `next..total` are initialised and owned by `state` from here on: the vector's own length
        // is `from` until `Sifting::drop` sets it, also when `decide` unwinds.
        unsafe { state.batch.packets.set_len(from) };
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

    /// Brings packets with the same key together: groups in the order of their first packets, each in its own order.
    ///
    /// `spare` is empty before and after; the two change places unless there is nothing to do. The key of a packet is
    /// asked for once. Says whether all have the same.
    #[inline(always)]
    pub fn gather(
        self: &mut Box<Batch>,
        spare: &mut Box<Batch>,
        mut key: impl FnMut(&mut Mbuf) -> u32,
    ) -> bool {
        debug_assert!(spare.is_empty());
        let mut packets = self.iter_mut();
        let Some(first) = packets.next().map(&mut key) else { return true };
        let mut same = 1;
        while let Some(next) = packets.next().map(&mut key) {
            if next != first {
                self.gather_groups(spare, first, same, next, key);
                return false;
            }
            same += 1;
        }
        true
    }

    /// What is left to do when the first `same` packets have one key and the next has another.
    fn gather_groups(
        self: &mut Box<Batch>,
        spare: &mut Box<Batch>,
        first: u32,
        same: usize,
        other: u32,
        mut key: impl FnMut(&mut Mbuf) -> u32,
    ) {
        let mut groups = Groups::new(first, same);
        let mut of = [0u8; BATCH];
        of[same] = groups.find(other);
        for (m, group) in self.iter_mut().zip(&mut of).skip(same + 1) {
            *group = groups.find(key(m));
        }
        if !spare.is_empty() {
            return;
        }
        groups.place();
        let (n, from, to) = (self.len(), self.packets.as_mut_ptr(), spare.packets.as_mut_ptr());
        // SAFETY: from here on nothing unwinds. `place` and `next` give each of the `n` packets a place of its own
        // below `n`, so each is read once and each place of the spare one is written once.
        unsafe {
            self.packets.set_len(0);
            for (at, group) in of[..n].iter().enumerate() {
                to.add(groups.next(*group)).write(from.add(at).read());
            }
            spare.packets.set_len(n);
        }
        std::mem::swap(self, spare);
    }

    /// Where the packets at the end that have the key of the last one begin.
    #[inline]
    pub fn last_group(&self, key: impl Fn(&Mbuf) -> u32) -> usize {
        let Some(last) = self.packets.last().map(&key) else { return 0 };
        self.len() - self.iter().rev().take_while(|m| key(m) == last).count()
    }

    /// Moves up to `n` packets from place `from` on (as many as there are and fit) over to the end of `to`.
    #[inline]
    pub fn move_from(&mut self, from: usize, n: usize, to: &mut Batch) {
        let (total, before) = (self.len(), to.len());
        let from = from.min(total);
        let n = n.min(to.room()).min(total - from);
        let left = total - n;
        // SAFETY: `from + n <= total` and `before + n` is at most the capacity; the two are different batches. Each of the `n`
        // packets is read once, and belongs to `to` alone once the lengths are set; nothing in between unwinds.
        unsafe {
            let first = self.packets.as_mut_ptr().add(from);
            std::ptr::copy_nonoverlapping(first, to.packets.as_mut_ptr().add(before), n);
            std::ptr::copy(first.add(n), first, left - from);
            self.packets.set_len(left);
            to.packets.set_len(before + n);
        }
    }

    /// Moves packets over to the end of `to`, first to last, as many as fit.
    pub fn move_to(&mut self, to: &mut Batch) {
        self.move_from(0, self.len(), to);
    }

    /// Says who has them all now.
    #[inline]
    pub fn set_owner(&self, owner: Owner) {
        self.iter().for_each(|m| m.set_owner(owner));
    }
}

/// The groups of a batch, by key. Few as a rule, so a key is mostly found at the place where it was left.
struct Groups {
    keys: [u32; BATCH],
    counts: [u16; BATCH],
    hints: [u8; Self::HINTS],
    len: usize,
}

impl Groups {
    const HINTS: usize = 64;

    /// Groups with a first one of some packets.
    #[inline(always)]
    fn new(key: u32, packets: usize) -> Groups {
        let mut groups = Groups { keys: [0; BATCH], counts: [0; BATCH], hints: [0; Self::HINTS], len: 1 };
        (groups.keys[0], groups.counts[0]) = (key, packets as u16);
        groups
    }

    /// The number of the group with this key, one packet larger.
    #[inline(always)]
    fn find(&mut self, key: u32) -> u8 {
        let hint = &mut self.hints[key as usize % Self::HINTS];
        let mut at = usize::from(*hint);
        if at >= self.len || self.keys[at] != key {
            at = self.keys[..self.len].iter().position(|k| *k == key).unwrap_or(self.len);
            *hint = at as u8;
            if at == self.len {
                self.keys[at] = key;
                self.len += 1;
            }
        }
        self.counts[at] += 1;
        at as u8
    }

    /// From the size of each group to the place of its first packet.
    fn place(&mut self) {
        let mut next = 0;
        for count in &mut self.counts[..self.len] {
            next += std::mem::replace(count, next);
        }
    }

    /// The place of the next packet of a group.
    #[inline(always)]
    fn next(&mut self, group: u8) -> usize {
        let place = &mut self.counts[usize::from(group)];
        *place += 1;
        usize::from(*place - 1)
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

#[cfg(test)]
mod tests {
    use crate::{Batch, Why, testing::Fixture};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn gathering_is_a_stable_sort_by_the_first_of_each_key(keys in prop::collection::vec(0u32..40, 0..=256)) {
            let side = Fixture::new(300);
            let (mut batch, mut spare) = (Box::<Batch>::default(), Box::<Batch>::default());
            for (n, key) in keys.iter().enumerate() {
                let mut m = side.packet(&[0]);
                m.hdr_mut().sa = *key * 64;
                m.hdr_mut().state = n as u32;
                batch.push(m).unwrap();
            }
            let mut expected: Vec<(usize, u32)> = keys.iter().copied().enumerate().collect();
            expected.sort_by_key(|(_, key)| keys.iter().position(|k| k == key));
            batch.gather(&mut spare, |m| m.hdr().sa);
            let got: Vec<_> = batch.iter().map(|m| (m.hdr().state as usize, m.hdr().sa / 64)).collect();
            prop_assert_eq!(&got, &expected);
            prop_assert!(spare.is_empty());
            let at = batch.last_group(|m| m.hdr().sa);
            let last = expected.last().map_or(0, |(_, key)| keys.iter().filter(|k| *k == key).count());
            prop_assert_eq!(keys.len() - at, last);
            let mut seen = 0;
            batch.sift_from(at, |m| { seen += 1; Some(m) });
            prop_assert_eq!((seen, batch.len()), (last, keys.len()));
            batch.move_from(at, 3, &mut spare);
            prop_assert_eq!((spare.len(), batch.len()), (last.min(3), keys.len() - last.min(3)));
            side.ledger.end_all(&mut batch, Why::Sink);
            side.ledger.end_all(&mut spare, Why::Sink);
            prop_assert_eq!(side.audit().held(), 0);
        }
    }
}
