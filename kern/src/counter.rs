//! Counters: one writer, any reader.
//!
//! Each worker owns its own set; only the owner adds, so adding is a plain load and store (0.3 ns) where an atomic
//! addition costs 5 ns and a shared line far more. Readers sum the sets. A sum taken while workers run is a sum of
//! instants; a sum taken at a [quiet moment](crate::quiet) is exact.
//!
//! [`counters!`](crate::counters) declares a set, each counter with the name a report shows and one line of text.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// A number that one thread adds to and any thread may read.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at 0.
    pub const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Adds; for the owner alone. Two threads adding would lose counts (and no more than counts).
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds one; for the owner alone.
    #[inline(always)]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Keeps the larger of the counter and `n`: a high-water mark; for the owner alone.
    #[inline(always)]
    pub fn raise_to(&self, n: u64) {
        if n > self.get() {
            self.0.store(n, Ordering::Relaxed);
        }
    }

    /// The number now.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clone for Counter {
    fn clone(&self) -> Counter {
        Counter(AtomicU64::new(self.get()))
    }
}

impl PartialEq for Counter {
    fn eq(&self, other: &Counter) -> bool {
        self.get() == other.get()
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// What a counter is called and what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Dotted path, as in `ip.received`.
    pub name: &'static str,
    /// One line for people: what it counts.
    pub text: &'static str,
}

/// A set of counters, declared by [`counters!`](crate::counters).
pub trait CounterSet: Default + Send + Sync + 'static {
    /// The counters in the order of declaration.
    const DESCRIPTIONS: &'static [Description];

    /// The counter at a place of [`Self::DESCRIPTIONS`], if there is one.
    fn at(&self, index: usize) -> Option<&Counter>;

    /// Every counter with its description.
    fn iter(&self) -> impl Iterator<Item = (&'static Description, u64)> + '_ {
        Self::DESCRIPTIONS.iter().enumerate().map(|(i, d)| (d, self.at(i).map_or(0, Counter::get)))
    }

    /// Adds another set to this one; for the owner of this one.
    fn add_set(&self, other: &Self) {
        for i in 0..Self::DESCRIPTIONS.len() {
            if let (Some(mine), Some(theirs)) = (self.at(i), other.at(i)) {
                mine.add(theirs.get());
            }
        }
    }

    /// The sum over all workers' sets.
    fn sum<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        let total = Self::default();
        for set in sets {
            total.add_set(set);
        }
        total
    }
}

/// Declares a set of counters in cache lines of its own.
///
/// ```
/// kern::counters! {
///     /// What IP input counts.
///     pub struct IpCounters {
///         received: "ip.received" "packets handed to ip_input",
///         bad_sum: "ip.bad_sum" "packets with a wrong header checksum",
///     }
/// }
/// use kern::counter::CounterSet;
///
/// let workers = [IpCounters::new(), IpCounters::new()];
/// workers[0].received.inc();
/// workers[1].received.add(2);
/// let total: Vec<_> = IpCounters::sum(&workers).iter().map(|(d, n)| (d.name, n)).collect();
/// assert_eq!(total, [("ip.received", 3), ("ip.bad_sum", 0)]);
/// ```
#[macro_export]
macro_rules! counters {
    ( $(#[$meta:meta])* $vis:vis struct $set:ident { $( $field:ident: $name:literal $text:literal ),+ $(,)? } ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default)]
        #[repr(align(128))]
        $vis struct $set {
            $( #[doc = $text] pub $field: $crate::counter::Counter, )+
        }

        impl $set {
            /// All counters at 0.
            #[allow(dead_code, reason = "Default does as well")]
            $vis const fn new() -> Self {
                $set { $( $field: $crate::counter::Counter::new(), )+ }
            }
        }

        impl $crate::counter::CounterSet for $set {
            const DESCRIPTIONS: &'static [$crate::counter::Description] =
                &[ $( $crate::counter::Description { name: $name, text: $text } ),+ ];

            fn at(&self, index: usize) -> Option<&$crate::counter::Counter> {
                [ $( &self.$field ),+ ].get(index).copied()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::counters! {
        /// A set for the tests.
        struct Fruit {
            apples: "fruit.apples" "apples eaten",
            pears: "fruit.pears" "pears eaten",
        }
    }

    #[test]
    fn sets_are_summed_over_workers_by_name() {
        let sets = [Fruit::new(), Fruit::new(), Fruit::new()];
        sets[0].apples.inc();
        sets[1].apples.add(4);
        sets[2].pears.raise_to(7);
        sets[2].pears.raise_to(3);
        let sum = Fruit::sum(sets.iter());
        let read: Vec<_> = sum.iter().map(|(d, n)| (d.name, d.text, n)).collect();
        assert_eq!(read, [("fruit.apples", "apples eaten", 5), ("fruit.pears", "pears eaten", 7)]);
        assert_eq!(sets[1].clone().apples, sets[1].apples);
    }

    #[test]
    fn a_set_has_its_cache_lines_to_itself() {
        assert_eq!((align_of::<Fruit>(), size_of::<Fruit>()), (128, 128));
    }

    #[test]
    fn a_reader_on_another_thread_sees_every_count_after_the_join() {
        let set = Fruit::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..100_000).for_each(|_| set.apples.inc()));
            let mut last = 0;
            for _ in 0..1000 {
                let now = set.apples.get();
                assert!(now >= last);
                last = now;
            }
        });
        assert_eq!(set.apples.get(), 100_000);
    }
}
