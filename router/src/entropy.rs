//! Numbers nobody can guess, without asking the system for each: IPv6 fragment identifications (RFC 7739), nonces, jitter.
//!
//! The standard library keys its `SipHash` from the system once a thread and gives every instance another key; the hash of
//! nothing under such a key is the number. Not for keys.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_differ_and_use_all_their_bits() {
        let numbers: std::collections::HashSet<u64> = (0..1000).map(|_| super::random()).collect();
        assert_eq!(numbers.len(), 1000);
        let (all, any) = numbers.iter().fold((u64::MAX, 0), |(all, any), n| (all & n, any | n));
        assert_eq!((all, any), (0, u64::MAX));
    }
}
