//! What pfctl asks of a router and what it is told: tables, rulesets, what is flushed, killed and cleared.

use super::report::RuleReport;
use pf::conf::Optimizer;
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
        /// Of which ruleset.
        anchor: AnchorName,
        /// `-i`: only states of this interface.
        interface: Option<String>,
    },
    /// `-k`.
    Kill {
        /// Which states.
        which: Kill,
        /// `-i`: only those of this interface.
        interface: Option<String>,
    },
    /// `-K`: source nodes of a host or network, and with an address of another if it is said.
    KillSources(String, Option<String>),
    /// `-I ID -k source -k HOST`: a source of a source limiter is forgotten.
    ForgetSource(u8, String),
    /// `-z`: rule counters.
    ClearCounters(AnchorName),
    /// `-x`.
    Debug(pf::debug::Level),
    /// `-s creatorids`.
    Creators,
    /// `-s Sources`.
    Sources,
    /// `-s LimiterStates`, or of those by source `-s LimiterSrcs`.
    Limiters {
        /// Which.
        by_source: bool,
    },
    /// `-s rules`, `-s nat`, `-s ether`.
    Rules {
        /// Which rules.
        which: Told,
        /// Of which ruleset.
        anchor: AnchorName,
        /// `-P`: ports as numbers.
        #[serde(default)]
        numeric: bool,
    },
    /// `-s Anchors`.
    Anchors {
        /// Below which ruleset, empty for the main one.
        anchor: String,
        /// Those without a name and those deeper down, too.
        all: bool,
    },
    /// `-s Tables`.
    Tables {
        /// Of which ruleset.
        anchor: AnchorName,
    },
    /// `-t ... -T ...`.
    Table(TableRequest),
    /// `--explain`.
    Explain {
        /// A packet in words.
        packet: String,
        /// `-n -f`: by this ruleset instead of the one in force.
        load: Option<PfLoad>,
    },
    /// `-s timeouts`.
    Timeouts,
    /// `-s memory`.
    Limits,
    /// `-s osfp`.
    Fingerprints,
    /// `-s labels`.
    Labels,
    /// `-s Interfaces`.
    Interfaces,
}

/// Which rules are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Scrub and filter rules.
    Filter,
    /// nat, rdr and binat rules.
    Nat,
    /// Ethernet rules.
    Ether,
}

/// A ruleset, as `-a` names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorName {
    /// The path of an anchor; empty for the main ruleset.
    pub path: String,
    /// `a/*`: and all below it.
    pub recurse: bool,
}

/// A ruleset to load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PfLoad {
    /// Name of the file, for messages and as where `include` starts from.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The anchor that it fills; empty for the main ruleset.
    pub anchor: String,
    /// `-n`: check only.
    pub check: bool,
    /// `-P`: ports as numbers in what is printed.
    #[serde(default)]
    pub numeric: bool,
    /// `-m`: options that the text does not set stay as they are.
    #[serde(default)]
    pub merge: bool,
    /// `-D`.
    pub defines: Vec<(String, String)>,
    /// `-N -R -A -O -T load`: these parts only; none for all.
    pub parts: Vec<Part>,
    /// `-o`: instead of what the text says.
    #[serde(default)]
    pub optimizer: Option<Optimizer>,
}

/// A part of a ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// `-O`.
    Options,
    /// `-R`.
    Rules,
    /// `-N`.
    Nat,
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

/// Rules with what `-v` says of all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RulesReport {
    /// User of the process that put them in: the router.
    pub uid: u32,
    /// Its number.
    pub pid: u32,
    /// In order.
    pub rules: Vec<RuleReport>,
}

/// What pf does to one packet, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExplainReport {
    /// The packet in words.
    pub packet: String,
    /// `pass`, `block` or `return`.
    pub verdict: String,
    /// That and all else that becomes of it, in a line.
    pub outcome: String,
    /// The state that decides before any rule is asked, as `-s states` has it.
    pub state: Option<String>,
    /// The rules that were tried, in order.
    pub rules: Vec<TriedReport>,
    /// Whether a state is made.
    pub keeps_state: bool,
    /// Source and destination as translation makes them.
    pub becomes: Option<[String; 2]>,
    /// The next hop that a rule has chosen.
    pub next_hop: Option<String>,
    /// The queue it goes to.
    pub queue: Option<String>,
    /// The tag it leaves with.
    pub tag: Option<String>,
    /// All of this for people.
    pub text: String,
    /// The same with the rules that do not match.
    pub verbose: String,
}

/// A rule that was tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TriedReport {
    /// Its anchor; empty for the main ruleset.
    pub anchor: String,
    /// Its number.
    pub number: usize,
    /// As pfctl prints it.
    pub text: String,
    /// File and line.
    pub place: String,
    /// What of it does not match; nothing if it matches.
    pub fails: Option<String>,
    /// It decides, or translates.
    pub decides: bool,
}

/// What can be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flush {
    /// Ethernet rules.
    Ether,
    /// Filter rules.
    Rules,
    /// nat, rdr and binat rules.
    Nat,
    /// Queues.
    Queues,
    /// States.
    States,
    /// Tables that rules do not define.
    Tables,
    /// Source nodes.
    Sources,
    /// The counters of `-s info`.
    Info,
    /// Fingerprints of operating systems.
    Fingerprints,
    /// What `set` says: all as it is without.
    Reset,
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
    /// Translated ones, with an address of this host or network as translation makes it.
    Nat(String),
    /// Those whose rule has chosen a router of this host or network.
    Gateway(String),
    /// The one with this key: `tcp 10.0.0.1:22 <- 10.0.0.101:32123`.
    Key(String),
}

/// What was flushed or killed, or otherwise done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DoneReport {
    /// As pfctl says it.
    pub text: String,
    /// How many.
    pub count: u64,
}

/// A source node: `-s Sources`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceReport {
    /// As pfctl prints it.
    pub text: String,
    /// The same with what `-v` adds.
    pub verbose: String,
    /// The source.
    pub source: String,
    /// The address it has from a pool.
    pub address: Option<String>,
    /// States.
    pub states: u32,
    /// Connections whose handshake is complete.
    pub connections: u32,
    /// Connections of late.
    pub rate: f64,
    /// Over how many seconds these are; 0 if the rule does not say.
    pub rate_s: u32,
    /// Number of its rule; none of all rules together.
    pub rule: Option<u32>,
    /// Seconds since it was made.
    pub age_s: u32,
    /// Seconds until it goes, if it has no states.
    pub expires_s: u32,
}

/// Limiters of a kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitersReport {
    /// As pfctl prints them, its head first.
    pub text: String,
    /// The same with the sources of each, as `-v` does.
    pub verbose: String,
    /// By number.
    pub limiters: Vec<LimiterReport>,
}

/// A limiter: `-s LimiterStates`, `-s LimiterSrcs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimiterReport {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u8,
    /// States at most, of one source if it is by source.
    pub limit: u32,
    /// States now.
    pub states: u32,
    /// States let through.
    pub admitted: u64,
    /// Packets refused because of the limit.
    pub hard_limited: u64,
    /// Packets refused because of the rate.
    pub rate_limited: u64,
    /// Packets refused because of the number of sources.
    pub address_limited: u64,
    /// Its sources, if it is by source.
    pub sources: Vec<LimiterSourceReport>,
}

/// A source of a limiter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimiterSourceReport {
    /// Its addresses.
    pub source: String,
    /// States now.
    pub states: u32,
    /// States let through.
    pub admitted: u64,
    /// Packets refused because of the limit.
    pub hard_limited: u64,
    /// Packets refused because of the rate.
    pub rate_limited: u64,
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
    /// `-f`: a file of more addresses, beside those of the command.
    #[serde(default)]
    pub file: Option<AddressFile>,
}

/// A file of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressFile {
    /// Its name, for messages.
    pub name: String,
    /// What is in it: `pf::conf::table_file`.
    pub text: String,
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

/// A timeout: `-s timeouts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutReport {
    /// Its keyword.
    pub name: String,
    /// How many of its unit.
    pub value: u32,
    /// `s`, or `states` of the adaptive pair.
    pub unit: String,
}

/// The fingerprints of operating systems: `-s osfp`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FingerprintsReport {
    /// How many there are, counted for each family.
    pub count: usize,
    /// As pfctl prints them: class, version and subtype of systems, a line each.
    pub text: String,
}

/// A label of a rule: `-s labels`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LabelReport {
    /// The label.
    pub label: String,
    /// As pfctl prints it: label, evaluations, packets, octets, and these by direction, states.
    pub text: String,
    /// How often its rule was tried.
    pub evaluations: u64,
    /// Packets in and out.
    pub packets: [u64; 2],
    /// Octets likewise.
    pub bytes: [u64; 2],
    /// States made.
    pub created: u64,
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
    /// Rules.
    Rules(RulesReport),
    /// The paths of anchors.
    Anchors(Vec<String>),
    /// One table.
    Table(TableReport),
    /// All tables.
    Tables(Vec<TableInfoReport>),
    /// What pf does to a packet.
    Explained(Box<ExplainReport>),
    /// Timeouts.
    Timeouts(Vec<TimeoutReport>),
    /// Limits.
    Limits(Vec<LimitReport>),
    /// Fingerprints.
    Fingerprints(FingerprintsReport),
    /// Labels.
    Labels(Vec<LabelReport>),
    /// Source nodes.
    Sources(Vec<SourceReport>),
    /// Limiters.
    Limiters(LimitersReport),
    /// The numbers of who has made states.
    Creators(Vec<u32>),
    /// Interfaces.
    Interfaces(Vec<PfInterfaceReport>),
}
