//! Which of many intervals a value lies in.
//!
//! The intervals lie side by side and leave nothing out, so their last values say all: a value lies in the first whose last is not less. They
//! are searched as a static B-tree (the S-tree of Khuong and Morin, "Array Layouts for Comparison-Based Searching", 2017, with nodes of 16): a
//! node of IPv4 addresses is a cache line, compared at once and without a branch, so twenty thousand intervals are four lines that
//! wait for each other, the upper two of which every packet keeps in the cache.

/// What a field holds.
pub(super) trait Value: Copy + Ord {
    const MIN: Self;
    const MAX: Self;
    /// The one behind it.
    fn next(self) -> Option<Self>;
    /// The one before it.
    fn before(self) -> Option<Self>;
    /// How many of a node's values are less, of which they ascend and the last is not.
    fn rank(self, node: &[Self; NODE]) -> usize;
}

/// Values of a node.
const NODE: usize = 16;

macro_rules! value {
    ($type:ty, $rank:expr) => {
        impl Value for $type {
            const MIN: $type = <$type>::MIN;
            const MAX: $type = <$type>::MAX;
            fn next(self) -> Option<$type> {
                self.checked_add(1)
            }
            fn before(self) -> Option<$type> {
                self.checked_sub(1)
            }
            #[inline(always)]
            fn rank(self, node: &[$type; NODE]) -> usize {
                $rank(self, node)
            }
        }
    };
}

/// All are compared, several at a time; counted in their own width, or it would widen them first.
macro_rules! count {
    ($type:ty) => {
        |value: $type, node: &[$type; NODE]| {
            node.iter().map(|last| <$type>::from(*last < value)).sum::<$type>() as usize
        }
    };
}

/// A processor compares no two of 128 bits at a time: halved four times. Never are all less.
#[inline(always)]
fn halve(value: u128, node: &[u128; NODE]) -> usize {
    [8, 4, 2, 1].into_iter().fold(0, |rank: usize, half| {
        // The sum stays below 16; so written, nobody checks.
        rank + if node[(rank + half - 1) % NODE] < value { half } else { 0 }
    })
}

value!(u16, count!(u16));
value!(u32, count!(u32));
value!(u128, halve);

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Intervals<K> {
    /// Level by level, the root first. A node's places beyond the last value hold the greatest, which is less than none.
    nodes: Box<[[K; NODE]]>,
    /// Where each level begins.
    levels: Box<[u32]>,
}

impl<K: Value> Intervals<K> {
    /// Intervals by the last value of each, which ascend up to the greatest that there is.
    pub(super) fn new(lasts: &[K]) -> Intervals<K> {
        let mut levels: Vec<Vec<[K; NODE]>> = vec![];
        let mut values = lasts.to_vec();
        // Of one interval, or of one node, nothing need be asked.
        while values.len() > 1 {
            let level = filled(&values);
            values = level.iter().map(|node| node[NODE - 1]).collect();
            levels.insert(0, level);
        }
        let starts = levels.iter().scan(0, |next, level| {
            let start = *next;
            *next += level.len() as u32;
            Some(start)
        });
        Intervals { levels: starts.collect(), nodes: levels.concat().into() }
    }

    /// The number of the interval in which a value lies.
    #[inline(always)]
    pub(super) fn find(&self, value: K) -> usize {
        self.levels.iter().fold(0, |at, level| {
            let rank = self.nodes.get(*level as usize + at).map_or(0, |node| value.rank(node));
            at * NODE + rank
        })
    }
}

/// Values in nodes.
fn filled<K: Value>(values: &[K]) -> Vec<[K; NODE]> {
    let one = |part: &[K]| {
        let mut node = [K::MAX; NODE];
        node[..part.len()].copy_from_slice(part);
        node
    };
    values.chunks(NODE).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether a value is found in the first interval whose last is not less.
    fn agrees<K: Value>(lasts: &[K], value: K) -> bool {
        Some(Intervals::new(lasts).find(value)) == lasts.iter().position(|last| *last >= value)
    }

    fn ascending<K: Value>(mut lasts: Vec<K>) -> Vec<K> {
        lasts.push(K::MAX);
        lasts.sort_unstable();
        lasts.dedup();
        lasts
    }

    proptest! {
        #[test]
        fn a_value_lies_in_the_first_interval_whose_last_is_not_less(
            lasts in proptest::collection::vec(any::<u16>(), 0..5000),
            random in any::<u16>(),
            nth in any::<proptest::sample::Index>(),
        ) {
            let lasts = ascending(lasts);
            let last = *nth.get(&lasts);
            for value in [random, last, last.next().unwrap_or(0), last.before().unwrap_or(0), 0, u16::MAX] {
                prop_assert!(agrees(&lasts, value), "{value} in {} intervals", lasts.len());
                let wide: Vec<u32> = ascending(lasts.iter().map(|last| u32::from(*last) << 15).collect());
                prop_assert!(agrees(&wide, u32::from(value) << 15), "{value} of 32 bits");
                let widest: Vec<u128> = ascending(lasts.iter().map(|last| u128::from(*last) << 99).collect());
                prop_assert!(agrees(&widest, u128::from(value) << 99), "{value} of 128 bits");
            }
        }
    }
}
