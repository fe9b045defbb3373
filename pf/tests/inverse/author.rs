//! Writes rulesets at random, each of which is right.

use kern::testing::Chance;

/// Writes one ruleset.
pub struct Author {
    pub chance: Chance,
    /// Names of anchors so far: inline ones have one each.
    names: u32,
    /// The queues `qa` and `qb` are defined.
    pub queues: bool,
    /// The limiters `few` (1) and `per` (2) are defined.
    pub limiters: bool,
    /// `set state-policy if-bound`: pfctl does not print that a rule's states float all the same.
    pub bound: bool,
}

impl Author {
    pub fn new(seed: u64) -> Author {
        let mut chance = Chance::quiet(seed);
        // The first numbers of seeds that are alike are alike.
        for _ in 0..8 {
            chance.next();
        }
        Author { chance, names: 0, queues: false, limiters: false, bound: false }
    }

    /// In pf's order: options, tables and limiters, queues, Ethernet rules, normalisation, translation, filter rules.
    pub fn ruleset(&mut self) -> String {
        let mut out = String::new();
        self.settings(&mut out);
        self.tables(&mut out, "");
        self.limiters(&mut out);
        self.altqs(&mut out);
        self.repeat(&mut out, 2, |author, out| author.ether(out, "", 0));
        self.repeat(&mut out, 2, |author, out| author.scrub(out, ""));
        self.repeat(&mut out, 3, |author, out| author.translation(out, ""));
        self.repeat(&mut out, 8, |author, out| author.filter_line(out, "", 0));
        out
    }

    /// Up to so many times.
    pub fn repeat(&mut self, out: &mut String, at_most: usize, write: impl Fn(&mut Author, &mut String)) {
        for _ in 0..self.chance.below(at_most + 1) {
            write(self, out);
        }
    }

    pub fn name(&mut self) -> String {
        self.names += 1;
        format!("a{}", self.names)
    }

    /// A rule, an anchor or an antispoof line.
    fn filter_line(&mut self, out: &mut String, margin: &str, depth: usize) {
        match self.chance.below(12) {
            0 => self.antispoof(out, margin),
            1 | 2 => self.anchor(out, margin, depth),
            _ => self.filter(out, margin),
        }
    }

    /// What stands in braces.
    pub fn contents(&mut self, out: &mut String, margin: &str, depth: usize) {
        let margin = &format!("{margin}\t");
        if self.chance.is(3) {
            self.tables(out, margin);
        }
        if self.chance.is(4) {
            self.scrub(out, margin);
        }
        if self.chance.is(4) {
            self.translation(out, margin);
        }
        self.repeat(out, 3, |author, out| author.filter_line(out, margin, depth + 1));
    }
}
