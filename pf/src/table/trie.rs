//! A persistent trie of prefixes: a change copies the path to what it changes and shares the rest.
//!
//! Four bits a step. A node holds the prefixes that end within its four bits, and for each value of these four bits at
//! most one child: a longer prefix by itself, or a further node. A node whose prefixes all begin alike skips what they
//! have in common, so that 200,000 addresses are about five steps deep (after W. Eatherton, G. Varghese and Z. Dittia,
//! "Tree Bitmap", 2004, with the skipping of D. Morrison's PATRICIA).
//!
//! ```text
//!   depth 0   ┌ own: 0.0.0.0/0 ... 224.0.0.0/3 ┐
//!             └ children: 0 1 2 ... 15          ┘
//!                          │     └ 10.1.2.3/32          a prefix alone in its part stands here itself
//!                          └ node at depth 20 of 10.0.16.0   what lies between is skipped
//! ```
//!
//! Keys are left-aligned in 128 bits, whatever the family. It knows nothing of tables: what a prefix means is its value.

use std::sync::Arc;

/// Bits of one step.
const STEP: u8 = 4;

/// A prefix and what it stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<V> {
    pub(super) key: u128,
    pub(super) len: u8,
    pub(super) value: V,
}

impl<V> Item<V> {
    #[inline(always)]
    fn covers(&self, key: u128) -> bool {
        starts_alike(self.key, key, self.len)
    }
}

#[derive(Clone, Debug)]
enum Child<V> {
    Item(Item<V>),
    Node(Arc<Node<V>>),
}

#[derive(Clone, Debug)]
struct Node<V> {
    /// Bits before this node's four.
    depth: u8,
    /// These bits; all others are zero.
    path: u128,
    /// Which prefixes of 0 to 3 of its bits there are: bit `2^n - 1 + value`.
    own: u16,
    /// For which values of its four bits there are children.
    below: u16,
    items: Vec<Item<V>>,
    children: Vec<Child<V>>,
}

/// The prefixes of one family.
#[derive(Clone, Debug)]
pub(super) struct Trie<V> {
    root: Option<Arc<Node<V>>>,
    len: usize,
}

impl<V> Default for Trie<V> {
    fn default() -> Trie<V> {
        Trie { root: None, len: 0 }
    }
}

/// Whether the first `len` bits are the same.
#[inline(always)]
fn starts_alike(a: u128, b: u128, len: u8) -> bool {
    len == 0 || (a ^ b) >> (128 - u32::from(len)) == 0
}

/// The four bits behind `depth`.
#[inline(always)]
fn nibble(key: u128, depth: u8) -> u8 {
    // A depth of 128 has no bits behind it.
    ((key << (u32::from(depth) & 127)) >> 124) as u8
}

/// The bits of `own` that stand for prefixes of a value of four bits.
const COVERING: [u16; 16] = {
    let mut all = [0; 16];
    let mut value = 0;
    while value < 16 {
        all[value] = 1 | 1 << (1 + (value >> 3)) | 1 << (3 + (value >> 2)) | 1 << (7 + (value >> 1));
        value += 1;
    }
    all
};

/// Where the bit `at` of a map stands among those that are set.
#[inline(always)]
fn rank(map: u16, at: u32) -> usize {
    (map & ((1 << at) - 1)).count_ones() as usize
}

impl<V: Clone> Trie<V> {
    /// Prefixes in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The longest prefix that covers a key.
    #[inline]
    pub(super) fn longest(&self, key: u128) -> Option<&Item<V>> {
        let mut best = None;
        let mut node = self.root.as_deref()?;
        loop {
            if !starts_alike(node.path, key, node.depth) {
                return best;
            }
            let value = nibble(key, node.depth);
            let covering = node.own & COVERING[usize::from(value)];
            if covering != 0 {
                best = node.items.get(rank(node.own, covering.ilog2()));
            }
            if node.below & 1 << value == 0 {
                return best;
            }
            match node.children.get(rank(node.below, u32::from(value))) {
                Some(Child::Node(next)) => node = next,
                Some(Child::Item(item)) if item.covers(key) => return Some(item),
                Some(Child::Item(_)) | None => return best,
            }
        }
    }

    /// The value of exactly this prefix.
    pub(super) fn get(&self, key: u128, len: u8) -> Option<&V> {
        let mut node = self.root.as_deref()?;
        loop {
            if len < node.depth || !starts_alike(node.path, key, node.depth) {
                return None;
            }
            if len - node.depth < STEP {
                let at = own_bit(key, node.depth, len);
                let found = node.own & 1 << at != 0;
                return found.then(|| node.items.get(rank(node.own, at)).map(|i| &i.value)).flatten();
            }
            let value = u32::from(nibble(key, node.depth));
            if node.below & 1 << value == 0 {
                return None;
            }
            match node.children.get(rank(node.below, value))? {
                Child::Node(next) => node = next,
                Child::Item(item) => return (item.len == len && item.key == key).then_some(&item.value),
            }
        }
    }

    /// Puts a prefix in; gives back the value it had.
    pub(super) fn insert(&mut self, item: Item<V>) -> Option<V> {
        let root = self.root.get_or_insert_with(|| Arc::new(Node::new(0, 0)));
        let before = Arc::make_mut(root).insert(item);
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes a prefix out.
    pub(super) fn remove(&mut self, key: u128, len: u8) -> Option<V> {
        self.get(key, len)?;
        let root = self.root.as_mut()?;
        let removed = Arc::make_mut(root).remove(key, len)?;
        self.len -= 1;
        if self.len == 0 {
            self.root = None;
        }
        Some(removed)
    }

    /// All prefixes, in no order.
    pub(super) fn each(&self, visit: &mut impl FnMut(&Item<V>)) {
        if let Some(root) = &self.root {
            root.each(visit);
        }
    }
}

/// The bit of `own` for a prefix that ends within the four bits behind `depth`.
fn own_bit(key: u128, depth: u8, len: u8) -> u32 {
    let bits = u32::from(len - depth);
    let value = if bits == 0 { 0 } else { u32::from(nibble(key, depth)) >> (4 - bits) };
    (1 << bits) - 1 + value
}

/// How many bits two keys have in common, in whole steps.
fn common(a: u128, b: u128, most: u8) -> u8 {
    ((a ^ b).leading_zeros() as u8).min(most) & !(STEP - 1)
}

impl<V: Clone> Node<V> {
    fn new(depth: u8, key: u128) -> Node<V> {
        let path = if depth == 0 { 0 } else { key >> (128 - u32::from(depth)) << (128 - u32::from(depth)) };
        Node { depth, path, own: 0, below: 0, items: Vec::new(), children: Vec::new() }
    }

    fn insert(&mut self, item: Item<V>) -> Option<V> {
        if item.len - self.depth < STEP {
            let at = own_bit(item.key, self.depth, item.len);
            let place = rank(self.own, at);
            if self.own & 1 << at != 0 {
                return self.items.get_mut(place).map(|old| std::mem::replace(old, item).value);
            }
            self.own |= 1 << at;
            self.items.insert(place, item);
            return None;
        }
        let value = u32::from(nibble(item.key, self.depth));
        let place = rank(self.below, value);
        if self.below & 1 << value == 0 {
            self.below |= 1 << value;
            self.children.insert(place, Child::Item(item));
            return None;
        }
        let child = self.children.get_mut(place)?;
        child.insert(item)
    }

    fn remove(&mut self, key: u128, len: u8) -> Option<V> {
        if len - self.depth < STEP {
            let at = own_bit(key, self.depth, len);
            let place = rank(self.own, at);
            self.own &= !(1 << at);
            return (place < self.items.len()).then(|| self.items.remove(place).value);
        }
        let value = u32::from(nibble(key, self.depth));
        let place = rank(self.below, value);
        match self.children.get_mut(place)? {
            Child::Item(_) => {
                self.below &= !(1 << value);
                match self.children.remove(place) {
                    Child::Item(item) => Some(item.value),
                    Child::Node(_) => None,
                }
            }
            Child::Node(next) => {
                let node = Arc::make_mut(next);
                let removed = node.remove(key, len);
                if let Some(rest) = node.only() {
                    self.children[place] = rest;
                }
                removed
            }
        }
    }

    /// The one thing that is left in a node, if there is one only: it can stand where the node stands.
    fn only(&mut self) -> Option<Child<V>> {
        match (self.items.len(), self.children.len()) {
            (1, 0) => self.items.pop().map(Child::Item),
            (0, 1) => self.children.pop(),
            _ => None,
        }
    }

    fn each(&self, visit: &mut impl FnMut(&Item<V>)) {
        self.items.iter().for_each(&mut *visit);
        for child in &self.children {
            match child {
                Child::Item(item) => visit(item),
                Child::Node(node) => node.each(visit),
            }
        }
    }
}

impl<V: Clone> Child<V> {
    fn insert(&mut self, item: Item<V>) -> Option<V> {
        let (key, reach) = match self {
            Child::Item(old) if old.len == item.len && old.key == item.key => {
                return Some(std::mem::replace(old, item).value);
            }
            Child::Item(old) => (old.key, old.len),
            Child::Node(node) => (node.path, node.depth),
        };
        let split = common(key, item.key, reach.min(item.len));
        if let Child::Node(node) = self
            && split == node.depth
        {
            return Arc::make_mut(node).insert(item);
        }
        let mut node = Node::new(split, item.key);
        let old = std::mem::replace(self, Child::Item(item.clone()));
        match old {
            Child::Item(old) => drop(node.insert(old)),
            Child::Node(old) => {
                node.below = 1 << nibble(old.path, split);
                node.children.push(Child::Node(old));
            }
        }
        node.insert(item);
        *self = Child::Node(Arc::new(node));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn masked(key: u128, len: u8) -> u128 {
        if len == 0 { 0 } else { key >> (128 - u32::from(len)) << (128 - u32::from(len)) }
    }

    fn key() -> impl Strategy<Value = u128> {
        // Few bits, in several places, so that prefixes nest, share and part.
        (0_u128..64, prop_oneof![Just(0_u32), Just(58), Just(96), Just(122)]).prop_map(|(v, at)| v << at)
    }

    proptest! {
        #[test]
        fn a_trie_is_a_map_of_prefixes_of_which_the_longest_decides(
            steps in proptest::collection::vec((any::<bool>(), key(), prop_oneof![0_u8..=8, 64_u8..=72, 120_u8..=128]), 0..80),
            probes in proptest::collection::vec(key(), 20),
        ) {
            let (mut trie, mut model) = (Trie::default(), HashMap::new());
            let mut history = Vec::new();
            for (n, (insert, key, len)) in steps.into_iter().enumerate() {
                let key = masked(key, len);
                if insert {
                    prop_assert_eq!(trie.insert(Item { key, len, value: n }), model.insert((key, len), n));
                } else {
                    prop_assert_eq!(trie.remove(key, len), model.remove(&(key, len)));
                }
                prop_assert_eq!(trie.len(), model.len());
                if n % 16 == 0 {
                    history.push((trie.clone(), model.clone()));
                }
            }
            history.push((trie, model));
            // Earlier versions must be what they were.
            for (trie, model) in history {
                let mut seen = HashMap::new();
                trie.each(&mut |i| { seen.insert((i.key, i.len), i.value); });
                prop_assert_eq!(&seen, &model);
                for (&(key, len), value) in &model {
                    prop_assert_eq!(trie.get(key, len), Some(value));
                }
                for &probe in &probes {
                    let longest = model.iter().filter(|((k, l), _)| masked(probe, *l) == *k).max_by_key(|((_, l), _)| *l);
                    prop_assert_eq!(trie.longest(probe).map(|i| i.value), longest.map(|(_, &v)| v));
                }
            }
        }
    }
}
