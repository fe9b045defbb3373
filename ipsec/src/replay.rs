//! The anti-replay window of an inbound SA (RFC 4303, 3.4.3; the ring of words is that of RFC 6479).
//!
//! ```text
//!                 too old            window: `size` numbers            ahead
//!          ──────────────────┬───────────────────────────────────┬──────────────────▶ sequence number
//!                 refused    │ 1 0 1 1 0 1 ...               0 1 │  accepted, the window
//!                            │ accepted once each            ▲   │  moves right
//!                            top - size + 1                  │   top
//!                                                            a number not seen yet
//! ```
//!
//! A packet is *checked* before it is opened, which is cheap and keeps the cipher from working for a replayer, and
//! *marked* after its ICV has verified; only marking changes anything, so nobody can move the window with packets he
//! cannot seal. As several packets of one number may be between check and mark, marking checks again.
//!
//! The bits lie in a ring of words, and the word of a number is the number over 64, modulo the length of the ring:
//!
//! ```text
//!     word:    w+1 │  w+2  │  ...  │  w-1  │   w          cleared when `top` enters it, so moving the window
//!              oldest                      │ top is here   shifts nothing and costs a word's clearing in 64 numbers
//! ```
//!
//! The ring has at least one word more than the window, hence the word that `top` is in never holds an old number.
//! How large the window is belongs to the SA's configuration and is handed in: a reload that changes it keeps the bits.
//!
//! With extended sequence numbers only the low half is sent, and [`Window::extend`] guesses the high one
//! (RFC 4303, Appendix A2). Not here: the lock around it, and the counters.

/// What has been seen of an inbound SA's sequence numbers.
#[derive(Clone, Debug)]
pub struct Window {
    top: u64,
    words: Box<[u64]>,
}

/// The smallest window there is.
pub const MIN: u32 = 32;
/// The largest.
pub const MAX: u32 = 65_536;

const fn words_for(size: u32) -> usize {
    (size.div_ceil(64) as usize + 1).next_power_of_two()
}

impl Window {
    /// Nothing seen yet; room for windows of up to `size` numbers.
    pub fn new(size: u32) -> Window {
        Window { top: 0, words: vec![0; words_for(size)].into_boxed_slice() }
    }

    /// Makes room for a window of `size` numbers and forgets nothing that was in one before.
    pub fn grow(&mut self, size: u32) {
        if words_for(size) <= self.words.len() {
            return;
        }
        let old = std::mem::replace(&mut self.words, vec![0; words_for(size)].into_boxed_slice());
        let (newest, mask) = (self.top / 64, self.words.len() as u64 - 1);
        for word in newest.saturating_sub(old.len() as u64 - 1)..=newest {
            self.words[(word & mask) as usize] = old[(word & (old.len() as u64 - 1)) as usize];
        }
        // Numbers that the old ring had no bits for count as seen: accepting one twice would be worse.
        for word in
            (newest + 1).saturating_sub(self.words.len() as u64)..newest.saturating_sub(old.len() as u64 - 1)
        {
            self.words[(word & mask) as usize] = u64::MAX;
        }
    }

    /// The highest number marked; 0 if none.
    pub const fn top(&self) -> u64 {
        self.top
    }

    #[inline(always)]
    fn place(&self, seq: u64) -> (usize, u64) {
        ((seq / 64) as usize & (self.words.len() - 1), 1 << (seq % 64))
    }

    /// Whether a packet of this number would be accepted by a window of `size` numbers. A size of 0 accepts all.
    #[inline(always)]
    pub fn check(&self, seq: u64, size: u32) -> bool {
        if seq > self.top || size == 0 {
            return seq != 0 || size == 0;
        }
        if self.top - seq >= u64::from(size) || seq == 0 {
            return false;
        }
        let (word, bit) = self.place(seq);
        self.words[word] & bit == 0
    }

    /// Marks a number whose packet has verified; false if it was marked meanwhile or the window has passed it.
    #[inline(always)]
    pub fn mark(&mut self, seq: u64, size: u32) -> bool {
        // The next one, of the word that is at hand: most are.
        if seq.wrapping_sub(1) == self.top && !seq.is_multiple_of(64) && size != 0 {
            self.top = seq;
            let (word, bit) = self.place(seq);
            self.words[word] |= bit;
            return true;
        }
        self.mark_far(seq, size)
    }

    /// [`mark`](Self::mark)s `count` numbers from `first` on, at most 64, if they are the next ones: mostly the packets of a run
    /// are. Otherwise nothing happened.
    #[inline(always)]
    pub fn mark_next(&mut self, first: u64, count: usize, size: u32) -> bool {
        if first.wrapping_sub(1) != self.top || size == 0 || !(1..=64).contains(&count) {
            return false;
        }
        self.top += count as u64;
        let (bits, bit) = (u64::MAX >> (64 - count), first % 64);
        // No number of a word has been seen before its first one comes.
        let (word, _) = self.place(first);
        self.words[word] = if bit == 0 { bits } else { self.words[word] | bits << bit };
        if bit + count as u64 > 64 {
            let (word, _) = self.place(self.top);
            self.words[word] = bits >> (64 - bit);
        }
        true
    }

    #[inline(never)]
    fn mark_far(&mut self, seq: u64, size: u32) -> bool {
        if !self.check(seq, size) {
            return false;
        }
        if size == 0 {
            self.top = self.top.max(seq);
            return true;
        }
        if seq > self.top {
            self.advance(seq);
        }
        let (word, bit) = self.place(seq);
        self.words[word] |= bit;
        true
    }

    #[inline(always)]
    fn advance(&mut self, seq: u64) {
        let entered = seq / 64 - self.top / 64;
        if entered > 0 {
            self.clear(self.top / 64 + 1, entered);
        }
        self.top = seq;
    }

    fn clear(&mut self, from: u64, count: u64) {
        let mask = self.words.len() as u64 - 1;
        for word in from..from + count.min(self.words.len() as u64) {
            self.words[(word & mask) as usize] = 0;
        }
    }

    /// The 64-bit number of a packet that shows `low`, in a window of `size` numbers. `None` for a number from before
    /// the first.
    ///
    /// ```text
    ///  A: the window lies in one 2³² block          B: it reaches back into the block before
    ///      block Th                                     block Th - 1   │   block Th
    ///   ├──────────[Bl ═════ Tl]────────┤            ──────[Bl ═══════╪════ Tl]──────────
    ///    low < Bl │   low >= Bl: Th                    low >= Bl: Th-1 │ low < Bl: Th
    ///    : Th + 1
    /// ```
    #[inline]
    pub const fn extend(&self, low: u32, size: u32) -> Option<u64> {
        let (high, top_low) = (self.top >> 32, self.top as u32);
        let bottom = top_low.wrapping_sub(size).wrapping_add(1);
        let block = if top_low >= size.wrapping_sub(1) {
            if low >= bottom { Some(high) } else { high.checked_add(1) }
        } else if low >= bottom {
            high.checked_sub(1)
        } else {
            Some(high)
        };
        match block {
            Some(block) if block <= u32::MAX as u64 => Some(block << 32 | low as u64),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::testing::{Chance, soak};
    use std::collections::HashSet;

    /// The definition of a window: the set of what was marked.
    #[derive(Default)]
    struct Model {
        top: u64,
        seen: HashSet<u64>,
    }

    impl Model {
        fn check(&self, seq: u64, size: u32) -> bool {
            seq != 0 && seq + u64::from(size) > self.top && !self.seen.contains(&seq)
        }

        fn mark(&mut self, seq: u64, size: u32) -> bool {
            let new = self.check(seq, size);
            if new {
                self.seen.insert(seq);
                self.top = self.top.max(seq);
            }
            new
        }

        /// Keeps the set small: what is too old for any window need not be remembered.
        fn forget(&mut self) {
            let bottom = self.top.saturating_sub(u64::from(MAX));
            self.seen.retain(|s| *s >= bottom);
        }
    }

    #[test]
    fn a_window_accepts_what_the_set_model_accepts() {
        let mut random = Chance::new(0x9e37_79b9_7f4a_7c15);
        for size in [32u32, 33, 64, 100, 128, 1024, 2048, 65_536] {
            let (mut window, mut model) = (Window::new(size), Model::default());
            let numbers = if soak() { 10_000_000 / 8 } else { 100_000 / 8 };
            for turn in 0..numbers {
                let span = u64::from(size);
                let seq = match random.below(20) {
                    0 => model.top + random.below(4 * span),
                    1 => model.top.saturating_sub(random.below(3 * span)),
                    _ => (model.top + 5).saturating_sub(random.below(span + 10)),
                };
                assert_eq!(window.check(seq, size), model.check(seq, size), "size {size} seq {seq}");
                if random.below(10) > 0 {
                    assert_eq!(window.mark(seq, size), model.mark(seq, size), "size {size} seq {seq}");
                }
                assert_eq!(window.top(), model.top);
                if turn % 4096 == 0 {
                    model.forget();
                }
            }
        }
    }

    #[test]
    fn a_run_of_next_numbers_is_marked_as_each_of_them_is() {
        let mut random = Chance::new(0x2026_1130_0000_0001);
        for size in [0u32, 32, 33, 64, 100, 1024] {
            let (mut runs, mut each) = (Window::new(size), Window::new(size));
            for _ in 0..if soak() { 500_000 } else { 5_000 } {
                let jump = if random.below(8) == 0 { random.below(300) } else { 0 };
                let first = (runs.top() + 1 + jump).saturating_sub(random.below(8) / 7);
                let count = 1 + random.below(64);
                let next = first == runs.top() + 1 && size != 0;
                assert_eq!(runs.mark_next(first, count as usize, size), next, "size {size} first {first}");
                for seq in first..first + count {
                    let new = each.mark(seq, size);
                    assert!(next || runs.mark(seq, size) == new, "size {size} seq {seq}");
                    assert!(!next || new, "size {size} seq {seq}");
                }
                assert_eq!(runs.top(), each.top());
                let oldest = each.top().saturating_sub(200);
                for seq in oldest..each.top() + 70 {
                    assert_eq!(runs.check(seq, size), each.check(seq, size), "size {size} seq {seq}");
                }
            }
        }
        let mut window = Window::new(64);
        assert!(!window.mark_next(1, 0, 64) && !window.mark_next(1, 65, 64) && !window.mark_next(0, 1, 64));
        assert_eq!(window.top(), 0);
    }

    #[test]
    fn a_number_is_accepted_exactly_once_in_any_order_within_the_window() {
        let mut window = Window::new(64);
        for seq in (1..=64).rev() {
            assert!(window.mark(seq, 64), "{seq}");
        }
        for seq in 1..=64 {
            assert!(!window.check(seq, 64) && !window.mark(seq, 64), "{seq}");
        }
    }

    #[test]
    fn number_zero_is_never_accepted() {
        let mut window = Window::new(32);
        assert!(!window.mark(0, 32));
        window.mark(5, 32);
        assert!(!window.check(0, 32));
    }

    #[test]
    fn without_a_window_everything_is_accepted_again_and_again() {
        let mut window = Window::new(0);
        assert!(window.mark(9, 0) && window.mark(9, 0) && window.mark(0, 0) && window.mark(1, 0));
        assert_eq!(window.top(), 9);
    }

    #[test]
    fn growing_keeps_what_was_seen_and_refuses_what_nobody_remembers() {
        let mut window = Window::new(64);
        for seq in (1..=5000).step_by(2) {
            window.mark(seq, 64);
        }
        window.grow(2048);
        for seq in 1..=5000 {
            let remembered = seq > 4999 - 64 && seq % 2 == 0;
            assert_eq!(window.check(seq, 64), remembered, "{seq}");
            if seq > 4999 - 64 {
                assert_eq!(window.check(seq, 2048), remembered, "{seq}");
            } else if seq < 4800 {
                assert!(!window.check(seq, 2048), "{seq}");
            }
        }
        assert!(window.mark(7000, 2048) && window.check(6999, 2048));
    }

    #[test]
    fn growing_an_empty_window_makes_an_empty_window() {
        let mut window = Window::new(0);
        window.grow(1024);
        assert!((1..=1024).rev().all(|seq| window.mark(seq, 1024)));
    }

    /// RFC 4303, Appendix A2.1, both cases.
    #[test]
    fn the_high_half_is_guessed_as_appendix_a_says() {
        let at = |top: u64| {
            let mut window = Window::new(64);
            window.mark(top, 64);
            window
        };
        let window = at((5 << 32) + 1000);
        assert_eq!(window.extend(1000 - 63, 64), Some((5 << 32) + 937));
        assert_eq!(window.extend(1001, 64), Some((5 << 32) + 1001));
        assert_eq!(window.extend(936, 64), Some((6 << 32) + 936));
        let window = at((5 << 32) + 10);
        assert_eq!(window.extend(11, 64), Some((5 << 32) + 11));
        assert_eq!(window.extend(u32::MAX - 20, 64), Some((4 << 32) + u64::from(u32::MAX - 20)));
        assert_eq!(window.extend(u32::MAX - 60, 64), Some((5 << 32) + u64::from(u32::MAX - 60)));
    }

    #[test]
    fn there_is_no_number_before_the_first_block_nor_after_the_last() {
        let window = Window::new(64);
        assert_eq!(window.extend(1, 64), Some(1));
        assert_eq!(window.extend(u32::MAX - 3, 64), None);
        let mut window = Window::new(64);
        window.mark(u64::MAX - 5, 64);
        assert_eq!(window.extend(u32::MAX - 5, 64), Some(u64::MAX - 5));
        assert_eq!(window.extend(3, 64), None);
    }

    #[test]
    fn extended_numbers_cross_the_wrap_of_the_low_half_in_both_orders() {
        let mut window = Window::new(64);
        let start = (1u64 << 32) - 40;
        window.mark(start - 1, 64);
        for i in 0..80 {
            let seq = start + (i ^ 1);
            assert_eq!(window.extend(seq as u32, 64), Some(seq));
            assert!(window.mark(seq, 64), "{seq:#x}");
        }
        assert_eq!(window.top(), start + 79);
    }

    #[test]
    fn low_halves_alone_are_accepted_as_the_set_model_accepts_the_whole_number_across_the_wrap() {
        let mut random = Chance::new(0x2013_0312_beef_0001);
        for size in (5..=16).map(|bits| 1u32 << bits) {
            let span = u64::from(size);
            let (mut window, mut model) = (Window::new(size), Model::default());
            let start = (3 << 32) - 4 * span;
            assert!(window.mark(start, size) && model.mark(start, size));
            let turns = if soak() { 10_000_000 / 12 } else { 100_000 / 12 };
            for turn in 0..turns {
                // A sender leaves the window's lower edge behind and may jump ahead.
                let jumps = random.below(50) == 0;
                let ahead = random.below(if jumps { 2 * span } else { 8 });
                let seq = if random.below(2) == 0 {
                    model.top + ahead
                } else {
                    model.top - random.below(span).min(span - 1)
                };
                assert_eq!(window.extend(seq as u32, size), Some(seq), "size {size} top {:#x}", model.top);
                assert_eq!(window.check(seq, size), model.check(seq, size), "size {size} seq {seq:#x}");
                assert_eq!(window.mark(seq, size), model.mark(seq, size), "size {size} seq {seq:#x}");
                if turn % 4096 == 0 {
                    model.forget();
                }
            }
            assert!(window.top() > 3 << 32, "size {size}: the low half has wrapped");
        }
    }

    #[test]
    fn guessing_agrees_with_the_sender_wherever_the_window_stands() {
        let mut random = Chance::new(0x1234_5678_9abc_def1);
        for _ in 0..100_000 {
            let size = 32 << random.below(8);
            let mut window = Window::new(size);
            let top = random.below(1 << 34) + u64::from(size);
            window.mark(top, size);
            let seq = top - u64::from(size) + 1 + random.below(u64::from(size) * 2);
            assert_eq!(window.extend(seq as u32, size), Some(seq), "top {top:#x} seq {seq:#x} size {size}");
        }
    }
}
