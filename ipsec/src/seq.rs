//! Sequence numbers of an outbound SA (RFC 4303, 2.2 and 3.3.3).
//!
//! Numbers are reserved by the run, not one by one, and never twice: with a counter-mode cipher a number used twice
//! under one key gives both plaintexts away. So the counter does not wrap. When it is used up the SA is at its end, and
//! somebody has to make a new one.
//!
//! Not here: who may transmit what he has sealed ([`crate::exit`]), and how a receiver guesses the high half of an
//! extended number ([`crate::replay`]).

/// The numbers an SA has left.
#[derive(Clone, Debug)]
pub struct Sequence {
    next: u64,
    last: u64,
}

/// Numbers that were reserved: `first`, and as many as `len` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The first of them.
    pub first: u64,
    /// How many.
    pub len: u32,
}

impl Numbers {
    /// The number behind the last of them.
    #[inline(always)]
    pub const fn end(&self) -> u64 {
        self.first.wrapping_add(self.len as u64)
    }
}

impl Sequence {
    /// The first number of an SA (RFC 4303, 3.3.3).
    pub const FIRST: u64 = 1;

    /// A new SA's numbers: 1 to 2³² - 1, with extended numbers (ESN) to 2⁶⁴ - 1.
    pub const fn new(esn: bool) -> Sequence {
        Sequence { next: Self::FIRST, last: if esn { u64::MAX } else { u32::MAX as u64 } }
    }

    /// Goes on from a number: for tests of what happens near the end.
    #[must_use]
    pub const fn starting_at(self, next: u64) -> Sequence {
        Sequence { next, last: self.last }
    }

    /// Reserves `want` numbers, or fewer if there are no more. `None` when they are used up.
    #[inline(always)]
    pub fn reserve(&mut self, want: u32) -> Option<Numbers> {
        // It would be 2^64 for a virgin ESN counter starting at 0; it starts at 1, so it fits.
        let left = self.left();
        if left == 0 {
            return None;
        }
        let len = u64::from(want).min(left) as u32;
        let numbers = Numbers { first: self.next, len };
        self.next = self.next.wrapping_add(u64::from(len));
        Some(numbers)
    }

    /// How many are left; of 2⁶⁴ - 1, so many.
    pub const fn left(&self) -> u64 {
        if self.next == 0 { 0 } else { self.last.wrapping_sub(self.next).wrapping_add(1) }
    }

    /// Whether 15 of 16 are used up: time for a new SA.
    pub const fn is_low(&self) -> bool {
        self.left() <= self.last / 16
    }

    /// The last number that was reserved; 0 if none.
    pub const fn used(&self) -> u64 {
        self.next.wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_begin_at_one_and_follow_each_other() {
        let mut s = Sequence::new(false);
        assert_eq!(s.used(), 0);
        assert_eq!(s.reserve(8), Some(Numbers { first: 1, len: 8 }));
        assert_eq!(s.reserve(1), Some(Numbers { first: 9, len: 1 }));
        assert_eq!(s.used(), 9);
    }

    #[test]
    fn thirty_two_bits_end_at_their_last_number_and_never_wrap() {
        let mut s = Sequence::new(false).starting_at(u64::from(u32::MAX) - 2);
        assert_eq!(s.reserve(64), Some(Numbers { first: u64::from(u32::MAX) - 2, len: 3 }));
        assert_eq!(s.reserve(64), None);
        assert_eq!(s.reserve(1), None);
        assert_eq!((s.used(), s.left()), (u64::from(u32::MAX), 0));
        assert!(s.is_low() && !Sequence::new(false).is_low() && !Sequence::new(true).is_low());
    }

    #[test]
    fn extended_numbers_pass_two_to_the_thirty_two_and_end_at_two_to_the_sixty_four() {
        let mut s = Sequence::new(true).starting_at(u64::from(u32::MAX));
        assert_eq!(s.reserve(2), Some(Numbers { first: u64::from(u32::MAX), len: 2 }));
        let mut s = s.starting_at(u64::MAX - 1);
        assert_eq!(s.reserve(9), Some(Numbers { first: u64::MAX - 1, len: 2 }));
        assert_eq!(s.reserve(1), None);
        assert_eq!(s.reserve(1), None);
    }

    proptest! {
        #[test]
        fn no_number_is_given_out_twice_whatever_is_asked(
            start in prop_oneof![1u64..1000, u64::from(u32::MAX) - 500..=u64::from(u32::MAX)],
            wants in proptest::collection::vec(0u32..100, 1..50),
        ) {
            let mut s = Sequence::new(false).starting_at(start);
            let mut expected = start;
            for want in wants {
                let Some(n) = s.reserve(want) else {
                    prop_assert_eq!(expected, u64::from(u32::MAX) + 1);
                    continue;
                };
                prop_assert_eq!(n.first, expected);
                prop_assert!(n.len <= want);
                expected += u64::from(n.len);
                prop_assert!(expected <= u64::from(u32::MAX) + 1);
            }
        }
    }
}
