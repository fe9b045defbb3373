//! What a rule says of the states that it makes, and what bounds them.

use crate::timeout::Timeout;

/// How much pf takes part in a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StateKind {
    /// `keep state`
    #[default]
    Keep,
    /// `modulate state`: other initial sequence numbers.
    Modulate,
    /// `synproxy state`: the handshake is completed before the server hears of it; implies modulation.
    Synproxy,
}

/// `source-track`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceTrack {
    /// Sources are counted over all rules that track globally.
    Global,
    /// Sources are counted for this rule alone.
    Rule,
}

/// `overload <t> [flush [global]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overload {
    /// The table that the source goes to.
    pub table: String,
    /// Whether its states go, and which.
    pub flush: Option<Flush>,
}

/// Which states of an overloading source are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Those that this rule made.
    Rule,
    /// All.
    Global,
}

/// `n/s`: so many in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub limit: u32,
    /// In how many seconds.
    pub seconds: u32,
}

/// `keep state` with its options.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Keep {
    /// Keep, modulate or synproxy.
    pub kind: StateKind,
    /// `max n`: states of the rule; 0 is no limit.
    pub max: u32,
    /// `no-sync`.
    pub no_sync: bool,
    /// `source-track`.
    pub track: Option<SourceTrack>,
    /// `max-src-states n`: states of one source; 0 is no limit.
    pub max_src_states: u32,
    /// `max-src-conn n`: connections of one source whose handshake is complete; 0 is no limit.
    pub max_src_conn: u32,
    /// `max-src-conn-rate n/s`: new connections of one source.
    pub max_src_conn_rate: Option<Rate>,
    /// `max-src-nodes n`: sources at a time; 0 is no limit.
    pub max_src_nodes: u32,
    /// What happens to a source beyond `max-src-conn` or `max-src-conn-rate`.
    pub overload: Option<Overload>,
    /// `if-bound` or `floating`, where the rule differs from `set state-policy`.
    pub bound: bool,
    /// No sequence window: only flags drive the state.
    pub sloppy: bool,
    /// `pflow`: flows are exported.
    pub pflow: bool,
    /// `allow-related`: further associations of SCTP hosts.
    pub allow_related: bool,
    /// Timeouts in seconds that differ from the global ones, in pfctl's order.
    pub timeouts: Vec<(Timeout, u32)>,
}

/// `state limiter name (block)`, `source limiter ...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterRef {
    /// Number of the limiter.
    pub id: u8,
    /// Beyond the limit the packet is blocked; otherwise the rule does not match.
    pub block: bool,
}
