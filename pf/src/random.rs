//! Numbers that an outsider cannot foresee: ports, initial sequence numbers, and who is honoured by `probability`.
//!
//! SipHash of a counter under a key that the system drew when the worker started; no system call a number.

use std::hash::{BuildHasher, RandomState};

/// A source of unpredictable numbers, one a worker.
#[derive(Debug)]
pub(crate) struct Random {
    key: RandomState,
    drawn: u64,
}

impl Random {
    pub(crate) fn new() -> Random {
        Random { key: RandomState::new(), drawn: 0 }
    }

    /// 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        self.key.hash_one(self.drawn)
    }

    /// 128 bits.
    pub(crate) fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    /// A number below `n`, which is at least 1.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut random = Random::new();
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[random.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|n| (700..1300).contains(n)), "{seen:?}");
        assert_ne!(Random::new().wide(), Random::new().wide());
    }
}
