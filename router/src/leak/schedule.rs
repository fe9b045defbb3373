//! A deterministic scheduler: threads of which one runs at a time, and a seed that says which.
//!
//! Before every read and write of a shared word the seed chooses who goes on. The threads hand a baton over channels, so a
//! schedule is a function of the seed alone, on every machine, in the ordinary binary.

use super::memory::{At, Memory};
use crossbeam_channel::{Receiver, Sender, bounded};
use kern::lock::{Leaf, levels};
use std::cell::Cell;

thread_local! {
    /// Which of the scheduled threads this is.
    static ME: Cell<usize> = const { Cell::new(0) };
}

/// What only the thread with the baton looks at.
struct Table {
    words: Vec<u32>,
    alive: Vec<bool>,
    random: u64,
    lines: Vec<String>,
    names: Vec<&'static str>,
}

/// Memory whose every access is a choice of the seed.
pub struct Scheduled {
    table: Leaf<Table, levels::Log>,
    batons: Vec<(Sender<()>, Receiver<()>)>,
}

impl Scheduled {
    /// `words` words for threads of these names.
    pub fn new(words: usize, names: &[&'static str], seed: u64) -> Scheduled {
        let table = Table {
            words: vec![0; words],
            alive: vec![true; names.len()],
            // splitmix64: neighbouring seeds become strangers.
            random: (seed.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            lines: Vec::new(),
            names: names.to_vec(),
        };
        Scheduled { table: Leaf::new(table), batons: names.iter().map(|_| bounded(1)).collect() }
    }

    /// Runs `body` as thread `me`: it waits until it is chosen.
    pub fn scheduled(&self, me: usize, body: impl FnOnce()) {
        ME.set(me);
        self.wait(me);
        body();
        let next = self.table.with(|t| {
            t.alive[me] = false;
            t.choose(None)
        });
        if let Some(next) = next {
            self.give(next);
        }
    }

    /// Lets the first thread go.
    pub fn start(&self) {
        if let Some(first) = self.table.with(|t| t.choose(None)) {
            self.give(first);
        }
    }

    /// From here on there is one thread: the one that looks at the result.
    pub fn alone(&self, name: &'static str) {
        ME.set(0);
        self.table.with(|t| {
            t.names[0] = name;
            t.alive.fill(false);
        });
    }

    /// What was told.
    pub fn lines(&self) -> Vec<String> {
        self.table.with(|t| t.lines.clone())
    }

    fn wait(&self, me: usize) {
        // The other end lives as long as we do.
        let _ = self.batons[me].1.recv();
    }

    fn give(&self, to: usize) {
        let _ = self.batons[to].0.send(());
    }

    /// Somebody may go on here; with `away`, somebody else if there is one.
    fn choice(&self, away: bool) {
        let me = ME.get();
        let next = self.table.with(|t| if t.alive[me] { t.choose(away.then_some(me)) } else { None });
        if let Some(next) = next
            && next != me
        {
            self.give(next);
            self.wait(me);
        }
    }
}

impl Table {
    fn choose(&mut self, but: Option<usize>) -> Option<usize> {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let others: Vec<usize> = (0..self.alive.len()).filter(|&t| self.alive[t] && Some(t) != but).collect();
        let n = others.len().max(1);
        others.get((self.random >> 33) as usize % n).copied().or(but)
    }
}

impl Memory for Scheduled {
    const TOLD: bool = true;

    fn load(&self, at: At) -> u32 {
        self.choice(false);
        self.table.with(|t| t.words[at.0 as usize])
    }

    fn store(&self, at: At, value: u32) {
        self.choice(false);
        self.table.with(|t| t.words[at.0 as usize] = value);
    }

    fn swap_if(&self, at: At, old: u32, new: u32) -> bool {
        self.choice(false);
        self.table.with(|t| {
            let word = &mut t.words[at.0 as usize];
            let same = *word == old;
            if same {
                *word = new;
            }
            same
        })
    }

    fn add(&self, at: At, n: u32) -> u32 {
        self.choice(false);
        self.table.with(|t| {
            let word = &mut t.words[at.0 as usize];
            std::mem::replace(word, word.wrapping_add(n))
        })
    }

    fn pause(&self) {
        self.choice(true);
    }

    fn tell(&self, line: impl FnOnce() -> String) {
        let (me, line) = (ME.get(), line());
        self.table.with(|t| {
            let indent = if me == 0 { "" } else { "                                        " };
            let name = t.names[me];
            t.lines.push(format!("{indent}{name:<10} {line}"));
        });
    }
}
