//! An explanation for people.

use std::fmt::{self, Write};

use super::{Explanation, Fate, Tried};
use crate::{anchor::Kind, verdict::Answer};

impl Explanation {
    /// What happens and the rules that make it happen; with `all`, also the rules that were tried in vain.
    pub fn text(&self, all: bool) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out, all);
        out
    }

    fn write(&self, out: &mut String, all: bool) -> fmt::Result {
        writeln!(out, "{}", self.packet)?;
        for rule in self.rules().filter(|rule| all || rule.fails.is_none()) {
            rule.write(out)?;
        }
        if self.skipped {
            writeln!(out, "pf does nothing at this interface: set skip")?;
        } else if !self.rules().any(|rule| rule.decides) {
            writeln!(out, "no rule decides")?;
        }
        if self.frame_is_missing {
            writeln!(out, "Ethernet rules were not asked: `ether from MAC to MAC` says what frame it is in")?;
        }
        if self.routes_are_missing {
            writeln!(
                out,
                "there are no routes to ask: for `no-route` and `urpf-failed` every address is reached"
            )?;
        }
        writeln!(out, "{}", self.outcome())
    }

    /// In one line.
    pub fn outcome(&self) -> String {
        let mut out = match self.fate {
            Fate::Passes => "passes".to_owned(),
            Fate::Blocked(why) => format!("blocked: {}", why.text()),
            Fate::Returned(answer) => format!("blocked, answered with {}", self::answer(answer)),
        };
        if self.keeps_state {
            out.push_str(", keeps state");
        }
        if let Some([from, to]) = self.becomes {
            let end = |(addr, port)| std::net::SocketAddr::new(addr, port);
            let _ = write!(out, ", becomes {} -> {}", end(from), end(to));
        }
        if let Some(hop) = &self.next_hop {
            let _ = write!(out, ", {} by {hop}", if self.copied { "a copy goes" } else { "goes" });
        }
        for (word, name) in [("queue", &self.queue), ("tag", &self.tag)] {
            if let Some(name) = name {
                let _ = write!(out, ", {word} {name}");
            }
        }
        out
    }
}

impl Tried {
    fn write(&self, out: &mut String) -> fmt::Result {
        let word = match (self.fails, self.decides, self.kind) {
            (Some(_), ..) => "no match",
            (None, true, Kind::Filter) => "decides",
            (None, true, _) => "translates",
            (None, false, _) => "matches",
        };
        write!(out, "  {word:<10} {}", self.place)?;
        if !self.anchor.is_empty() {
            write!(out, " anchor {}", self.anchor)?;
        }
        write!(out, " @{} {}", self.number, self.text)?;
        if let Some(field) = self.fails {
            write!(out, "  [{field}]")?;
        }
        writeln!(out)
    }
}

fn answer(answer: Answer) -> String {
    match answer {
        Answer::Reset(_) => "a TCP reset".to_owned(),
        Answer::Abort => "an SCTP ABORT".to_owned(),
        Answer::Unreachable { code } => format!("ICMP unreachable, code {code}"),
        Answer::Unreachable6 { code } => format!("ICMPv6 unreachable, code {code}"),
    }
}
