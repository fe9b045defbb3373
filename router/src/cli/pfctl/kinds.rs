//! The words behind `-s` and `-F`.

use crate::control::pf::Flush;

/// What `-s` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Ether,
    Nat,
    Queue,
    Rules,
    Anchors,
    Sources,
    States,
    Info,
    Running,
    Labels,
    Timeouts,
    Memory,
    Tables,
    Fingerprints,
    Interfaces,
    LimiterStates,
    LimiterSources,
    Creators,
    All,
}

/// In the order in which pfctl tries them: a beginning is enough.
const SHOWS: [(&str, Show); 19] = [
    ("ether", Show::Ether),
    ("nat", Show::Nat),
    ("queue", Show::Queue),
    ("rules", Show::Rules),
    ("Anchors", Show::Anchors),
    ("states", Show::States),
    ("Sources", Show::Sources),
    ("info", Show::Info),
    ("Running", Show::Running),
    ("labels", Show::Labels),
    ("timeouts", Show::Timeouts),
    ("memory", Show::Memory),
    ("Tables", Show::Tables),
    ("osfp", Show::Fingerprints),
    ("Interfaces", Show::Interfaces),
    ("LimiterStates", Show::LimiterStates),
    ("LimiterSrcs", Show::LimiterSources),
    ("creatorids", Show::Creators),
    ("all", Show::All),
];

/// What `-F` flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlushKind {
    One(Flush),
    All,
}

const FLUSHES: [(&str, FlushKind); 11] = [
    ("ether", FlushKind::One(Flush::Ether)),
    ("nat", FlushKind::One(Flush::Nat)),
    ("queue", FlushKind::One(Flush::Queues)),
    ("rules", FlushKind::One(Flush::Rules)),
    ("states", FlushKind::One(Flush::States)),
    ("Sources", FlushKind::One(Flush::Sources)),
    ("info", FlushKind::One(Flush::Info)),
    ("Tables", FlushKind::One(Flush::Tables)),
    ("osfp", FlushKind::One(Flush::Fingerprints)),
    ("Reset", FlushKind::One(Flush::Reset)),
    ("all", FlushKind::All),
];

fn lookup<T: Copy>(kinds: &[(&str, T)], text: &str) -> Result<T, String> {
    let found = kinds.iter().find(|(word, _)| !text.is_empty() && word.starts_with(text));
    found.map(|&(_, kind)| kind).ok_or_else(|| {
        let words: Vec<&str> = kinds.iter().map(|(word, _)| *word).collect();
        format!("there are {}", words.join(", "))
    })
}

pub(super) fn show_kind(text: &str) -> Result<Show, String> {
    lookup(&SHOWS, text)
}

pub(super) fn flush_kind(text: &str) -> Result<FlushKind, String> {
    lookup(&FLUSHES, text)
}

/// The word of what is shown.
pub(super) fn show_word(kind: Show) -> &'static str {
    SHOWS.iter().find(|(_, show)| *show == kind).map_or("", |(word, _)| word)
}

/// The word of what is flushed.
pub(super) fn flush_word(what: Flush) -> &'static str {
    FLUSHES.iter().find(|(_, kind)| *kind == FlushKind::One(what)).map_or("", |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_says_what_to_show_as_in_pfctl() {
        for (text, kind) in [
            ("r", Show::Rules),
            ("e", Show::Ether),
            ("s", Show::States),
            ("T", Show::Tables),
            ("t", Show::Timeouts),
            ("memory", Show::Memory),
            ("R", Show::Running),
            ("LimiterSr", Show::LimiterSources),
            ("creatorids", Show::Creators),
            ("a", Show::All),
        ] {
            assert_eq!(show_kind(text), Ok(kind), "{text}");
        }
        assert!(show_kind("x").is_err() && show_kind("").is_err());
    }
}
