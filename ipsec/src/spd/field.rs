//! One field of many rules: for each of its values, which rules it matches, a bit each.
//!
//! ```text
//!   destination     0.0.0.0       10.1.0.0      10.1.2.0      10.1.3.0      10.2.0.0
//!   rules           1       5     1   3   5     1 2 3   5     1   3   5     1       5
//! ```
//!
//! Where rules begin and end cuts the values into intervals, at most two a rule and one more. Rows of all of them would take memory with
//! the square of the rules; but from an interval to the next little changes. So a row is a list of blocks of 256 bits, blocks with the same bits
//! are one, and so are rows with the same blocks: behind a network comes again what was before it. What is made is at most two
//! blocks a rule, and a row a interval, of a number for each block: 5 MB for ten thousand rules, if no two have an edge in common.
//!
//! Each row has a word that says which of its blocks have any bit (the *aggregate*).

use super::intervals::{Intervals, Value};
use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// Bits of a block.
pub(super) const BLOCK: usize = 256;
/// Rules that a field can have: a bit of the aggregate for each block.
pub(super) const RULES: usize = BLOCK * 64;

/// A bit for each rule, the first the lowest. Aligned, so that none lies in two cache lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(align(32))]
pub(super) struct Block([u64; BLOCK / 64]);

impl Block {
    const EMPTY: Block = Block([0; BLOCK / 64]);

    fn toggle(&mut self, rule: usize) {
        self.0[rule % BLOCK / 64] ^= 1 << (rule % 64);
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |any, word| any | word) == 0
    }

    /// Those in both.
    #[inline(always)]
    pub(super) fn and(&self, other: &Block) -> Block {
        Block(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// The place of the first.
    #[inline(always)]
    pub(super) fn first(&self) -> Option<usize> {
        let at = self.0.iter().position(|word| *word != 0)?;
        Some(at * 64 + self.0[at].trailing_zeros() as usize)
    }
}

impl From<&Block> for Block {
    fn from(block: &Block) -> Block {
        *block
    }
}

/// The rules that a value matches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'f> {
    /// Which blocks have any.
    pub(super) aggregate: u64,
    numbers: &'f [u16],
    blocks: &'f [Block],
}

impl Row<'_> {
    #[inline(always)]
    pub(super) fn block(&self, at: usize) -> &Block {
        let number = self.numbers.get(at).copied().unwrap_or_default();
        self.blocks.get(usize::from(number)).unwrap_or(&Block::EMPTY)
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Field<K> {
    intervals: Intervals<K>,
    /// The row of each interval, and behind them that of a value which can not be seen.
    row_of: Box<[u16]>,
    rows: Rows,
}

impl<K: Value> Field<K> {
    /// Of so many rules: `spans` has the values of each, from the first to the last with its number, `unseen` those that match a value
    /// which can not be seen.
    pub(super) fn new(
        rules: usize,
        spans: impl Iterator<Item = (K, K, usize)>,
        unseen: impl Iterator<Item = usize>,
    ) -> Field<K> {
        let edges = |(first, last, rule): (K, K, usize)| {
            let end = last.next().map(|behind| (behind, rule));
            std::iter::once((first, rule)).chain(end)
        };
        let mut edges: Vec<_> = spans.flat_map(edges).collect();
        edges.sort_unstable();
        let mut builder = Builder::new(rules);
        let (mut lasts, mut row_of) = (vec![], vec![]);
        let mut edges = edges.into_iter().peekable();
        let mut first = K::MIN;
        loop {
            while let Some((_, rule)) = edges.next_if(|(value, _)| *value == first) {
                builder.toggle(rule);
            }
            row_of.push(builder.row());
            let Some((next, _)) = edges.peek() else { break };
            lasts.extend(next.before());
            first = *next;
        }
        lasts.push(K::MAX);
        builder.clear();
        unseen.for_each(|rule| builder.toggle(rule));
        row_of.push(builder.row());
        Field { intervals: Intervals::new(&lasts), row_of: row_of.into(), rows: builder.rows() }
    }

    /// The rules that a value matches.
    #[inline(always)]
    pub(super) fn row(&self, value: K) -> Row<'_> {
        self.rows.get(self.row_of.get(self.intervals.find(value)).copied().unwrap_or_default())
    }

    /// The rules that match a value which can not be seen.
    pub(super) fn unseen(&self) -> Row<'_> {
        self.rows.get(self.row_of.last().copied().unwrap_or_default())
    }
}

/// All the different rows of a field.
#[derive(Debug)]
struct Rows {
    /// Blocks of a row.
    width: usize,
    aggregates: Box<[u64]>,
    /// Row by row, the numbers of its blocks.
    numbers: Box<[u16]>,
    blocks: Box<[Block]>,
}

impl Rows {
    #[inline(always)]
    fn get(&self, number: u16) -> Row<'_> {
        let number = usize::from(number);
        let aggregate = self.aggregates.get(number).copied().unwrap_or_default();
        let numbers = self.numbers.get(number * self.width..).unwrap_or_default();
        Row { aggregate, numbers, blocks: &self.blocks }
    }
}

/// Makes rows, each out of the one before.
struct Builder {
    row: Vec<Block>,
    /// The number of each block, and of those that have changed since.
    numbers: Vec<u16>,
    changed: u64,
    blocks: Numbered<Block>,
    rows: Numbered<Box<[u16]>>,
}

impl Builder {
    fn new(rules: usize) -> Builder {
        let width = rules.div_ceil(BLOCK);
        let mut blocks = Numbered::default();
        blocks.number(&Block::EMPTY);
        let (row, numbers) = (vec![Block::EMPTY; width], vec![0; width]);
        Builder { row, numbers, changed: 0, blocks, rows: Numbered::default() }
    }

    fn toggle(&mut self, rule: usize) {
        self.row[rule / BLOCK].toggle(rule);
        self.changed |= 1 << (rule / BLOCK);
    }

    fn clear(&mut self) {
        self.row.fill(Block::EMPTY);
        self.changed = u64::MAX;
    }

    /// The number of the row as it is.
    fn row(&mut self) -> u16 {
        for (at, (block, number)) in self.row.iter().zip(&mut self.numbers).enumerate() {
            if self.changed >> at & 1 == 1 {
                *number = self.blocks.number(block);
            }
        }
        self.changed = 0;
        self.rows.number(self.numbers.as_slice())
    }

    fn rows(self) -> Rows {
        let rows = self.rows.in_order();
        let bit = |(at, number): (usize, &u16)| u64::from(*number != 0) << at;
        let aggregate = |row: &[u16]| row.iter().enumerate().map(bit).sum();
        Rows {
            width: self.row.len(),
            aggregates: rows.iter().map(|row| aggregate(row)).collect(),
            numbers: rows.concat().into(),
            blocks: self.blocks.in_order().into(),
        }
    }
}

/// Things that are numbered when they are first seen. The numbers are short: a block or a row is new only where a rule begins or ends,
/// in a field with few values at each of them, so that there are about twice as many as [`RULES`] at most.
struct Numbered<T>(HashMap<T, u16>);

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered(HashMap::new())
    }
}

impl<T: Eq + Hash> Numbered<T> {
    fn number<'t, Q>(&mut self, thing: &'t Q) -> u16
    where
        Q: Eq + Hash + ?Sized,
        T: Borrow<Q> + From<&'t Q>,
    {
        if let Some(number) = self.0.get(thing) {
            return *number;
        }
        let next = self.0.len() as u16;
        self.0.insert(thing.into(), next);
        next
    }

    fn in_order(self) -> Vec<T> {
        let mut things: Vec<_> = self.0.into_iter().collect();
        things.sort_unstable_by_key(|(_, number)| *number);
        things.into_iter().map(|(thing, _)| thing).collect()
    }
}
