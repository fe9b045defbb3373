//! The depot: the buffers of one class that no thread has in its magazine.
//!
//! A stack under a leaf lock; threads move half a magazine at a time, so the lock is taken once per some hundred
//! packets. Its capacity is that of the class, hence it never grows.

use crate::lock::Leaf;

/// A stack of free things shared by all threads.
pub struct Depot<T> {
    stack: Leaf<Vec<T>>,
}

impl<T> Depot<T> {
    /// An empty depot with room for `capacity` things.
    pub fn new(capacity: usize) -> Self {
        Depot { stack: Leaf::new(Vec::with_capacity(capacity)) }
    }

    /// How many are there.
    pub fn len(&self) -> usize {
        self.stack.with(|s| s.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes up to `want`, giving each to `take`; says how many there were.
    pub fn take(&self, want: usize, mut take: impl FnMut(T)) -> usize {
        self.stack.with(|s| {
            let n = want.min(s.len());
            let rest = s.len() - n;
            s.drain(rest..).for_each(&mut take);
            n
        })
    }

    /// Gives things back.
    pub fn give(&self, things: impl IntoIterator<Item = T>) {
        self.stack.with(|s| s.extend(things));
    }
}
