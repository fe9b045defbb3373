//! Passive fingerprints of operating systems (pf.conf(5), `os "..."`; pf.os(5)): what a SYN betrays of the system that
//! sent it by its window, time to live, size and options.
//!
//! ```text
//!   pf.os ── file ──▶ Fingerprints ── by number ──▶ Known, in the ruleset
//!                     names, for rules and people        │
//!   SYN ── signature::Syn ────────────────────────▶ the first signature that it fits ──▶ the systems with this signature
//! ```
//!
//! A SYN is looked at when a rule with `os` is otherwise met, once for all rules, and no other packet ever. One that fits
//! no signature is `unknown`, and so is, as in pf, each TCP segment that opens nothing.

mod file;
mod known;
mod signature;

use std::{collections::BTreeMap, fmt::Write};

pub use file::Wrong;
pub(crate) use known::{Asked, Known, Sender};
use signature::{Signature, Syn};

/// The word for hosts whose SYN fits no signature.
const UNKNOWN: &str = "unknown";

/// All fingerprints of a file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprints {
    all: Vec<(Signature, Vec<System>)>,
}

/// An operating system as pf.os names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// `Windows`, `Linux`, `FreeBSD`.
    pub class: String,
    /// `2000`, `2.4`; empty if there is none.
    pub version: String,
    /// `SP4`, `18`; empty if there is none.
    pub subtype: String,
}

impl Fingerprints {
    /// Reads the text of a pf.os file: all lines that are right, and what is wrong with the others.
    pub fn parse(text: &str) -> (Fingerprints, Vec<Wrong>) {
        file::parse(text)
    }

    /// How many there are. Each is for both families, which pf counts one by one.
    pub fn count(&self) -> usize {
        2 * self.systems().count()
    }

    fn systems(&self) -> impl Iterator<Item = &System> {
        self.all.iter().flat_map(|(_, systems)| systems)
    }

    /// Whether `os "name"` stands for something: the word `unknown`, or a system that some fingerprint is of.
    pub fn knows(&self, name: &str) -> bool {
        is_unknown(name) || self.find(name).is_some()
    }

    /// The system that a rule means: a class, a class and a version, or these and a subtype, whatever stands between
    /// them. The parts it does not name are empty.
    fn find(&self, name: &str) -> Option<System> {
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        let (version, subtype) = (String::new(), String::new());
        if let Some(s) = self.systems().find(|s| same(&s.class, name)) {
            return Some(System { class: s.class.clone(), version, subtype });
        }
        let (class, rest) = name.split_once(' ')?;
        let of_class = || self.systems().filter(move |s| same(&s.class, class) && !s.version.is_empty());
        if let Some(s) = of_class().find(|s| same(&s.version, rest)) {
            return Some(System { subtype, ..s.clone() });
        }
        let is_whole = |s: &&System| {
            let joint = rest.get(s.version.len()..).and_then(|tail| tail.strip_prefix(['.', ' ', '\t', '-']));
            let version = rest.get(..s.version.len());
            version.is_some_and(|v| same(v, &s.version)) && joint.is_some_and(|tail| same(tail, &s.subtype))
        };
        of_class().filter(|s| !s.subtype.is_empty()).find(is_whole).cloned()
    }

    /// Adds a system to a signature; says whether it is new there.
    fn add(&mut self, signature: Signature, system: System) -> bool {
        let Some((_, systems)) = self.all.iter_mut().find(|(known, _)| *known == signature) else {
            self.all.push((signature, vec![system]));
            return true;
        };
        let is_new = !systems.contains(&system);
        if is_new {
            systems.push(system);
        }
        is_new
    }

    /// The table of `pfctl -s osfp`: classes, their versions, and the subtypes of these.
    pub fn table(&self) -> String {
        let mut out = String::new();
        if self.all.is_empty() {
            return out;
        }
        out.push_str("Class\tVersion\tSubtype(subversion)\n-----\t-------\t-------------------\n");
        let mut names: BTreeMap<[String; 3], String> = BTreeMap::new();
        for s in self.systems() {
            let parts = [&*s.class, &*s.version, &*s.subtype];
            for n in 1..=parts.iter().take_while(|part| !part.is_empty()).count() {
                let key =
                    std::array::from_fn(
                        |i| {
                            if i < n { parts[i].to_ascii_lowercase() } else { String::new() }
                        },
                    );
                let line = parts[..n].iter().flat_map(|part| [*part, "\t"]).collect();
                names.entry(key).or_insert(line);
            }
        }
        for line in names.values() {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{line}");
        }
        out
    }
}

fn is_unknown(name: &str) -> bool {
    name.eq_ignore_ascii_case(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprints() -> Fingerprints {
        let (all, wrong) = Fingerprints::parse(
            "S4:64:1:60:M*,S,T,N,W7:Linux:2.6::one\n\
             S4:64:1:60:M*,S,T,N,W0:Linux:2.4:18:two\n\
             S4:64:1:60:M*,S,T,N,W0:linux:2.4:SMP:three\n\
             65535:128:1:48:M*,N,N,S:Windows:XP:SP1:four\n\
             1024:64:0:40:.:@Printer:::five\n",
        );
        assert!(wrong.is_empty(), "{wrong:?}");
        all
    }

    #[test]
    fn a_rule_names_a_class_a_version_or_a_subtype_with_anything_between_them() {
        let all = fingerprints();
        let find = |name: &str| all.find(name).map(|s| [s.class, s.version, s.subtype].join("/"));
        for (name, found) in [
            ("Linux", "Linux//"),
            ("LINUX 2.4", "Linux/2.4/"),
            ("Linux 2.4.18", "Linux/2.4/18"),
            ("linux 2.4 smp", "linux/2.4/SMP"),
            ("Windows XP-SP1", "Windows/XP/SP1"),
            ("printer", "Printer//"),
        ] {
            assert_eq!(find(name).as_deref(), Some(found), "{name}");
        }
        for name in ["Linux 2.2", "Linux2.4", "Linux 2.4x18", "Windows XP SP2", "Windows  XP", "Printer ", ""]
        {
            assert_eq!(find(name), None, "{name}");
        }
        assert!(all.knows("Unknown") && !all.knows("BeOS"));
    }

    #[test]
    fn the_table_has_each_name_once_by_class_version_and_subtype() {
        let lines = fingerprints().table();
        let lines: Vec<&str> = lines.lines().skip(2).collect();
        let wanted = [
            "Linux\t",
            "Linux\t2.4\t",
            "Linux\t2.4\t18\t",
            "linux\t2.4\tSMP\t",
            "Linux\t2.6\t",
            "Printer\t",
            "Windows\t",
            "Windows\tXP\t",
            "Windows\tXP\tSP1\t",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(Fingerprints::default().table(), "");
        assert_eq!(fingerprints().count(), 10);
    }
}
