//! What pfctl asks of a router and what it is told: tables, rulesets, what is flushed, killed and cleared.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What pfctl asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PfRequest {
    /// `-e`, `-d`.
    Enable(bool),
    /// `-f`.
    Load(PfLoad),
    /// `-F`.
    Flush {
        /// What.
        what: Flush,
        /// Of which anchor, empty for the main ruleset.
        anchor: String,
    },
    /// `-k`.
    Kill(Kill),
    /// `-s Tables`.
    Tables {
        /// Of which anchor, empty for the main ruleset.
        anchor: String,
    },
    /// `-t ... -T ...`.
    Table(TableRequest),
    /// `-s timeouts`.
    Timeouts,
    /// `-s memory`.
    Limits,
    /// `-s labels`.
    Labels,
    /// `-s Interfaces`.
    Interfaces,
}

/// A ruleset to load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PfLoad {
    /// Name of the file, for messages and as where `include` starts from.
    pub name: String,
    /// Its text.
    pub text: String,
    /// `-n`: check only.
    pub check: bool,
    /// `-D`.
    pub defines: Vec<(String, String)>,
    /// `-N -R -A -O -T load`: these parts only; none for all.
    pub parts: Vec<Part>,
}

/// A part of a ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// `-O`.
    Options,
    /// `-R`.
    Rules,
    /// `-A`.
    Queues,
    /// `-T load`.
    Tables,
}

/// What came of loading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// The ruleset as `-v` prints it.
    pub text: String,
    /// What is strange and yet no fault.
    pub warnings: Vec<String>,
    /// Filter rules.
    pub rules: usize,
}

/// What can be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flush {
    /// Filter rules.
    Rules,
    /// Queues.
    Queues,
    /// States.
    States,
    /// Tables that rules do not define.
    Tables,
}

/// Which states to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kill {
    /// From a host or network, and to another if it is said.
    Hosts(String, Option<String>),
    /// Those of rules with this label.
    Label(String),
    /// The one with this number, in hexadecimal.
    Id(String),
}

/// What was flushed or killed, or otherwise done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DoneReport {
    /// As pfctl says it.
    pub text: String,
    /// How many.
    pub count: u64,
}

/// Something about one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableRequest {
    /// Its anchor, empty for the main ruleset.
    pub anchor: String,
    /// Its name.
    pub table: String,
    /// `-n`: say what would be done.
    pub dummy: bool,
    /// What.
    pub command: TableCommand,
}

/// `-T`. Addresses as pfctl takes them: an address, a prefix, `!` before it, the name of an interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableCommand {
    /// Entries of the table.
    Show,
    /// Adds entries, and the table if there is none.
    Add(Vec<String>),
    /// Takes entries out.
    Delete(Vec<String>),
    /// Gives it these entries.
    Replace(Vec<String>),
    /// Whether addresses are in it.
    Test(Vec<String>),
    /// Takes all entries out.
    Flush,
    /// Takes the table away.
    Kill,
    /// Takes out what was added, or last cleared, more seconds ago than this.
    Expire(u64),
    /// Clears counters: of these entries, or of the table and all its entries.
    Zero(Vec<String>),
    /// Clears counters of entries that have counted something.
    Reset,
}

/// What became of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableReport {
    /// Entries that were named.
    pub named: usize,
    /// The table was made.
    pub created: bool,
    /// Entries added.
    pub added: usize,
    /// Entries deleted.
    pub deleted: usize,
    /// Entries whose `!` was changed.
    pub changed: usize,
    /// Entries cleared.
    pub cleared: usize,
    /// Addresses that are in the table.
    pub matched: usize,
    /// One by one.
    pub entries: Vec<EntryReport>,
}

/// An entry of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EntryReport {
    /// The address or prefix.
    pub address: String,
    /// Its addresses are not in.
    pub not: bool,
    /// What was done about it, by pfctl's letter; a space for nothing.
    pub feedback: String,
    /// The entry that decides about it, of `test`.
    pub decided_by: Option<String>,
    /// Seconds since 1970 when its counters were 0.
    pub cleared: u64,
    /// By `In/Pass` and the like, of a table with `counters`.
    pub counters: BTreeMap<String, TableCount>,
}

/// Packets and octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCount {
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub bytes: u64,
}

/// A table: `-s Tables`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableInfoReport {
    /// Its name.
    pub name: String,
    /// Its anchor, empty for the main ruleset.
    pub anchor: String,
    /// pfctl's seven letters: const, persist, active, inactive, referenced, in an anchor, counters.
    pub flags: String,
    /// Entries.
    pub addresses: usize,
    /// Seconds since 1970 when its counters were 0.
    pub cleared: u64,
    /// Rules that refer to it.
    pub rules: u32,
    /// By `In/Pass` and the like.
    pub counters: BTreeMap<String, TableCount>,
}

/// A limit: `-s memory`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitReport {
    /// Of what.
    pub name: String,
    /// How many at most.
    pub limit: u64,
}

/// A label of a rule: `-s labels`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LabelReport {
    /// The label.
    pub label: String,
    /// As pfctl prints it: label, evaluations, packets, octets, and these by direction, states.
    pub text: String,
}

/// An interface as pf knows it: `-s Interfaces`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PfInterfaceReport {
    /// Its name.
    pub name: String,
    /// `set skip`.
    pub skip: bool,
}

/// What pfctl is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PfAnswer {
    /// It was done.
    Done(DoneReport),
    /// A ruleset was loaded, or checked.
    Loaded(LoadReport),
    /// One table.
    Table(TableReport),
    /// All tables.
    Tables(Vec<TableInfoReport>),
    /// Timeouts, a line each.
    Timeouts(Vec<String>),
    /// Limits.
    Limits(Vec<LimitReport>),
    /// Labels.
    Labels(Vec<LabelReport>),
    /// Interfaces.
    Interfaces(Vec<PfInterfaceReport>),
}
