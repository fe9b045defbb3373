//! What `set` says.

use crate::{
    debug,
    rule::Reply,
    timeout::{Timeout, Timeouts},
};

/// A bound of `set limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Limit {
    /// States.
    States,
    /// Source nodes.
    SrcNodes,
    /// Fragments that wait for others.
    Frags,
    /// Tables.
    Tables,
    /// Entries of all tables.
    TableEntries,
    /// Anchors.
    Anchors,
}

impl Limit {
    /// All, with their keywords.
    pub const ALL: [(Limit, &'static str); 6] = [
        (Limit::States, "states"),
        (Limit::SrcNodes, "src-nodes"),
        (Limit::Frags, "frags"),
        (Limit::Tables, "tables"),
        (Limit::TableEntries, "table-entries"),
        (Limit::Anchors, "anchors"),
    ];

    /// The keyword of pf.conf.
    pub const fn keyword(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The limit with this keyword.
    pub fn of(word: &str) -> Option<Limit> {
        Self::ALL.iter().find(|(_, k)| *k == word).map(|&(l, _)| l)
    }
}

/// All limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits([u32; Limit::ALL.len()]);

impl Default for Limits {
    fn default() -> Limits {
        Limits([LIMIT_STATES, 10_000, 5_000, 1_000, 200_000, 512])
    }
}

impl Limits {
    /// One of them.
    pub const fn get(&self, limit: Limit) -> u32 {
        self.0[limit as usize]
    }

    /// Sets one.
    pub const fn set(&mut self, limit: Limit, value: u32) {
        self.0[limit as usize] = value;
    }
}

/// `set ruleset-optimization`, `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Rules are evaluated as written.
    None,
    /// Rules without effect go, tables replace lists, skip steps get longer.
    #[default]
    Basic,
    /// And quick rules that match often come first.
    Profile,
}

impl Optimizer {
    /// All, with their keywords.
    pub const ALL: [(Optimizer, &'static str); 3] =
        [(Optimizer::None, "none"), (Optimizer::Basic, "basic"), (Optimizer::Profile, "profile")];

    /// The keyword of pf.conf.
    pub const fn keyword(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The optimizer with this keyword.
    pub fn of(word: &str) -> Option<Optimizer> {
        Self::ALL.iter().find(|(_, k)| *k == word).map(|&(o, _)| o)
    }
}

/// `set syncookies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Syncookies {
    /// Never.
    #[default]
    Never,
    /// Always.
    Always,
    /// When half-open states reach a share of the state limit, until they are below another; in per cent.
    Adaptive {
        /// They begin here.
        start: u8,
        /// They end here.
        end: u8,
    },
}

impl Syncookies {
    /// Its word in pf.conf.
    pub const fn keyword(self) -> &'static str {
        match self {
            Syncookies::Never => "never",
            Syncookies::Always => "always",
            Syncookies::Adaptive { .. } => "adaptive",
        }
    }
}

/// `set reassemble`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reassemble {
    /// Fragments with don't-fragment set are taken, too.
    pub no_df: bool,
}

/// What `set` said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Interfaces on which pf does nothing.
    pub skip: Vec<String>,
    /// What `block` without a reply does.
    pub block_policy: Reply,
    /// What becomes of a packet whose state cannot be made.
    pub fail_policy: Reply,
    /// Whether states are bound to their interface.
    pub if_bound: bool,
    /// States at most; the same as `limits` has.
    pub limit_states: u32,
    /// All limits.
    pub limits: Limits,
    /// All timeouts, the adaptive pair derived from the limit unless set.
    pub timeouts: Timeouts,
    /// How rules are rewritten; none if the file does not say.
    pub optimizer: Option<Optimizer>,
    /// The interface whose statistics `-s info` shows.
    pub log_interface: Option<String>,
    /// File of operating system fingerprints.
    pub fingerprints: Option<String>,
    /// Number of this router among those it shares states with.
    pub host_id: Option<u32>,
    /// Fragments are reassembled without scrub rules.
    pub reassemble: Option<Reassemble>,
    /// SYN cookies.
    pub syncookies: Syncookies,
    /// Counters of a rule that stays the same survive a reload.
    pub keep_counters: bool,
    /// `set debug`: how much pf says.
    pub debug: debug::Level,
}

/// States at most, unless `set limit states` says.
pub const LIMIT_STATES: u32 = 100_000;

impl Default for Options {
    fn default() -> Options {
        let mut timeouts = Timeouts::default();
        timeouts.adapt(LIMIT_STATES);
        Options {
            skip: Vec::new(),
            block_policy: Reply::Drop,
            fail_policy: Reply::Drop,
            if_bound: false,
            limit_states: LIMIT_STATES,
            limits: Limits::default(),
            timeouts,
            optimizer: None,
            log_interface: None,
            fingerprints: None,
            host_id: None,
            reassemble: None,
            syncookies: Syncookies::Never,
            keep_counters: false,
            debug: debug::Level::default(),
        }
    }
}

impl Options {
    /// The default if the adaptive pair was not set by hand.
    pub(super) fn derive_adaptive(&mut self, set: &[Timeout]) {
        if !set.contains(&Timeout::AdaptiveStart) && !set.contains(&Timeout::AdaptiveEnd) {
            self.timeouts.adapt(self.limit_states);
        }
    }
}
