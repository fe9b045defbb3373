//! Words that rules of every kind have: interfaces, addresses, ports, labels.

use super::author::Author;

/// A family, if the rule is to have one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Inet,
    Inet6,
    Any,
}

impl Of {
    /// Its word, with a space behind it.
    pub const fn word(self) -> &'static str {
        match self {
            Of::Inet => "inet ",
            Of::Inet6 => "inet6 ",
            Of::Any => "",
        }
    }

    pub const fn other(self) -> Of {
        match self {
            Of::Inet => Of::Inet6,
            _ => Of::Inet,
        }
    }
}

impl Author {
    /// One of these, or with their number as odds none of them: nothing, then.
    pub fn some(&mut self, words: &[&'static str]) -> &'static str {
        let i = self.chance.below(words.len() * 2);
        words.get(i).copied().unwrap_or("")
    }

    pub fn interface(&mut self) -> &'static str {
        self.chance.one_of(&["lan0", "wan0", "enc0", "tun9"])
    }

    /// `on lan0 `, `on { lan0 wan0 } `, `on ! lan0 `, or nothing.
    pub fn on(&mut self) -> String {
        match self.chance.below(6) {
            0 | 1 => format!("on {} ", self.interface()),
            2 => format!("on ! {} ", self.interface()),
            3 => "on { lan0, wan0 } ".to_owned(),
            _ => String::new(),
        }
    }

    pub fn prefix(&mut self, of: Of) -> String {
        let n = self.chance.below(200_u32);
        let short = self.chance.is(2);
        match of {
            Of::Inet6 if short => format!("2001:db8:{n:x}::/48"),
            Of::Inet6 => format!("2001:db8::{n:x}"),
            _ if short => format!("10.{n}.0.0/16"),
            _ => format!("192.0.2.{n}"),
        }
    }

    fn dynamic(&mut self) -> &'static str {
        self.chance.one_of(&[
            "(lan0)",
            "(wan0:network)",
            "(wan0:0)",
            "(tun9:broadcast)",
            "(self)",
            "(lan0:network:0)",
        ])
    }

    /// One address of a rule of this family.
    fn host(&mut self, of: Of) -> String {
        match (self.chance.below(9), of) {
            (0, _) => "<t0>".to_owned(),
            (1, _) => "! <t1>".to_owned(),
            (2, _) => self.dynamic().to_owned(),
            (3, _) => format!("! {}", self.dynamic()),
            (_, Of::Any) => "any".to_owned(),
            (4, Of::Inet) => "192.0.2.7 - 192.0.2.70".to_owned(),
            (4, _) => "2001:db8::7 - 2001:db8::70".to_owned(),
            (5, _) => self.chance.one_of(&["lan0", "wan0:network", "lan0:network"]).to_owned(),
            (6, of) => format!("! {}", self.prefix(of)),
            (_, of) => self.prefix(of),
        }
    }

    /// Addresses of a rule: one or a list.
    pub fn hosts(&mut self, of: Of) -> String {
        if of == Of::Any || !self.chance.is(5) {
            return self.host(of);
        }
        let list: Vec<String> = (0..2 + self.chance.below(3)).map(|_| self.prefix(of)).collect();
        format!("{{ {} }}", list.join(self.chance.one_of(&[", ", " "])))
    }

    /// ` port ...`, or nothing.
    pub fn port(&mut self) -> String {
        let (a, b) = (1 + self.chance.below(5000_u16), 6000 + self.chance.below(5000_u16));
        match self.chance.below(12) {
            0 => format!(" port {a}"),
            1 => format!(" port != {a}"),
            2 => format!(" port < {a}"),
            3 => format!(" port >= {a}"),
            4 => format!(" port {a}:{b}"),
            5 => format!(" port {a} >< {b}"),
            6 => format!(" port {a} <> {b}"),
            7 => format!(" port {{ {a}, ssh, {b} }}"),
            8 => " port domain".to_owned(),
            _ => String::new(),
        }
    }

    /// `from ... to ...`, or `all`, or nothing.
    pub fn addresses(&mut self, of: Of, ports: bool) -> String {
        let end = |author: &mut Author, word: &str| {
            let hosts = author.hosts(of);
            let port = if ports { author.port() } else { String::new() };
            format!("{word} {hosts}{port} ")
        };
        match self.chance.below(5) {
            0 => "all ".to_owned(),
            1 => end(self, "from"),
            2 => end(self, "to"),
            3 => String::new(),
            _ => end(self, "from") + &end(self, "to"),
        }
    }

    pub fn label(&mut self) -> &'static str {
        self.chance.one_of(&[
            "label web ",
            "label \"$if $srcaddr\" ",
            "label \"a b\" label c ",
            "label \"$proto:$dstport\" ",
        ])
    }

    pub fn number(&mut self) -> u32 {
        1 + self.chance.below(999_u32)
    }
}
