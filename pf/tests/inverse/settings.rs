//! `set`, tables and limiters.

use std::fmt::Write;

use pf::{conf::Limit, timeout::Timeout};

use super::{author::Author, words::Of};

impl Author {
    pub fn settings(&mut self, out: &mut String) {
        self.repeat(out, 5, |author, out| {
            let line = author.setting();
            let _ = writeln!(out, "set {line}");
        });
    }

    fn setting(&mut self) -> String {
        match self.chance.below(20) {
            0..=2 => self.list("timeout", |author| {
                let timeout = author.chance.one_of(Timeout::ALL);
                format!("{} {}", timeout.keyword(), author.number())
            }),
            3..=5 => self.list("limit", |author| {
                format!("{} {}", author.chance.one_of(&Limit::ALL).1, author.number())
            }),
            6 => {
                let words = ["normal", "high-latency", "satellite", "aggressive", "conservative"];
                format!("optimization {}", self.chance.one_of(&words))
            }
            7 => format!("block-policy {}", self.chance.one_of(&["drop", "return"])),
            8 => {
                let policy = self.chance.one_of(&["if-bound", "floating"]);
                self.bound |= policy == "if-bound";
                format!("state-policy {policy}")
            }
            9 => "skip on { enc0, tun9 }".to_owned(),
            10 => format!("loginterface {}", self.chance.one_of(&["wan0", "none"])),
            11 => format!("ruleset-optimization {}", self.chance.one_of(&["none", "basic", "profile"])),
            12 => format!("hostid {}", self.number()),
            13 => format!("reassemble {}", self.chance.one_of(&["yes", "no", "yes no-df"])),
            14 => {
                let words = ["never", "always", "adaptive", "adaptive (start 40%, end 7%)"];
                format!("syncookies {}", self.chance.one_of(&words))
            }
            15 => format!("debug {}", self.chance.one_of(&["none", "urgent", "misc", "loud"])),
            16 => self.chance.one_of(&["keepcounters", "require-order no", "require-order yes"]).to_owned(),
            17 => format!("fail-policy {}", self.chance.one_of(&["drop", "return"])),
            18 => "skip on lan0".to_owned(),
            _ => {
                let words =
                    ["no-sync", "pflow", "sloppy", "max 100", "no-sync, tcp.first 9", "max-src-states 5"];
                format!("state-defaults {}", self.chance.one_of(&words))
            }
        }
    }

    /// `word item`, or `word { item, item }`.
    fn list(&mut self, word: &str, item: impl Fn(&mut Author) -> String) -> String {
        if self.chance.is(2) {
            return format!("{word} {}", item(self));
        }
        let items: Vec<String> = (0..=self.chance.below(3)).map(|_| item(self)).collect();
        format!("{word} {{ {} }}", items.join(self.chance.one_of(&[", ", " "])))
    }

    pub fn tables(&mut self, out: &mut String, margin: &str) {
        for n in 0..self.chance.below(4) {
            let mut line = format!("{margin}table <t{n}>");
            for word in ["const", "persist", "counters"] {
                if self.chance.is(3) {
                    line = format!("{line} {word}");
                }
            }
            for _ in 0..self.chance.below(3) {
                let entries: Vec<String> = (0..self.chance.below(4)).map(|_| self.entry()).collect();
                line = format!("{line} {{ {} }}", entries.join(", "));
            }
            let _ = writeln!(out, "{line}");
        }
    }

    fn entry(&mut self) -> String {
        let not = if self.chance.is(4) { "!" } else { "" };
        let of = self.chance.one_of(&[Of::Inet, Of::Inet6]);
        match self.chance.below(6) {
            0 => format!("{not}{}", self.chance.one_of(&["lan0", "wan0:network", "self"])),
            _ => format!("{not}{}", self.prefix(of)),
        }
    }

    pub fn limiters(&mut self, out: &mut String) {
        if !self.chance.is(3) {
            return;
        }
        self.limiters = true;
        let rate = |author: &mut Author| {
            if author.chance.is(2) {
                format!(" rate {}/{}", author.number(), author.number())
            } else {
                String::new()
            }
        };
        let (first, second) = (rate(self), rate(self));
        let _ = writeln!(out, "state limiter few id 1 limit {}{first}", self.number());
        let more =
            self.some(&[" inet mask 24", " inet mask 8 inet6 mask 64", " table <many> above 8 below 2"]);
        let (entries, limit) = (self.number(), self.number());
        let _ = writeln!(out, "source limiter \"per\" id 2 entries {entries} limit {limit}{second}{more}");
    }
}
