//! Numbers for random tests: the same from the same seed everywhere, and the seed is printed, so that a failing run can be
//! repeated. Never for anything that an outsider must not foresee.

/// A small generator (xorshift64, Marsaglia 2003).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From this seed.
    pub fn new(seed: u64) -> Chance {
        println!("seed {seed:#x}");
        // Zero would stay zero.
        Chance(seed | 1)
    }

    /// From this seed, of which the test says itself what it was: for one of very many.
    pub const fn quiet(seed: u64) -> Chance {
        Chance(seed | 1)
    }

    /// From the seed that `SOFTNET_SEED` gives, or this one.
    pub fn seeded(otherwise: u64) -> Chance {
        let given = std::env::var("SOFTNET_SEED").ok().and_then(|s| s.parse().ok());
        let seed = given.unwrap_or(otherwise);
        println!("SOFTNET_SEED={seed}");
        Chance(seed | 1)
    }

    /// 64 bits.
    #[expect(clippy::should_implement_trait, reason = "there is no end to it")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `n`, which is at least 1.
    pub fn below<N: TryInto<u64> + TryFrom<u64>>(&mut self, n: N) -> N {
        let n = n.try_into().ok().filter(|n| *n > 0).expect("a bound of at least 1");
        N::try_from(self.next() % n).ok().expect("less than the bound fits where that fits")
    }

    /// Yes, once in `n` times.
    pub fn is(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// One of these, of which there is at least one.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// So many octets.
    pub fn octets(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Whether tests are to run at their full size (`SOFTNET_SOAK=1`).
pub fn soak() -> bool {
    std::env::var_os("SOFTNET_SOAK").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_run_and_numbers_reach_all_below_their_bound() {
        let (mut a, mut b) = (Chance::new(7), Chance::new(7));
        let mut seen = [0; 6];
        for _ in 0..6000 {
            let n = a.below(6_usize);
            assert_eq!(n, b.below(6));
            seen[n] += 1;
        }
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
        assert_ne!(a.octets(16), Chance::new(8).octets(16));
        assert_ne!(Chance::new(0).next(), 0);
    }
}
