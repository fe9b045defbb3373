//! Statements of pf.conf as they stand in the file: lists not expanded, names not resolved.

use std::net::IpAddr;

use super::{
    altq::{AltqSpec, QueueSpec},
    error::Pos,
};
use crate::{
    addr::Family,
    rule::{Direction, Dynamic, Keep, Log, On, Ports, QueueRef, Reply, Tagged, TcpFlags},
    timeout::{Optimization, Timeout},
};

/// Something and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) at: Pos,
    pub(crate) value: T,
}

impl<T> At<T> {
    pub(crate) const fn new(at: Pos, value: T) -> At<T> {
        At { at, value }
    }
}

/// A statement.
#[derive(Clone, Debug)]
pub(crate) enum Statement {
    /// `name = value`
    Macro { name: String, value: String },
    /// `include "file"`
    Include(At<String>),
    /// `set ...`
    Set(Vec<At<Setting>>),
    /// `table <name> ...`
    Table(Box<TableDef>),
    /// `altq on ...`, for each interface of its list.
    Altq(Vec<At<AltqSpec>>),
    /// `queue ...`
    Queue(Box<At<QueueSpec>>),
    /// A filter rule.
    Rule(Box<RuleDef>),
    /// `antispoof for ...`
    Antispoof(Antispoof),
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Skip(Vec<String>),
    BlockPolicy(Reply),
    /// `if-bound` or not.
    StatePolicy(bool),
    /// The profile, and the word that was used for it.
    Optimization(Optimization, String),
    LimitStates(u32),
    Timeout(Timeout, u32),
    StateDefaults(KeepDef),
    /// Accepted, printed, and without effect since it states what is so anyway.
    AsIs(String),
}

/// `table <name> persist const counters { ... } file "..."`
#[derive(Clone, Debug)]
pub(crate) struct TableDef {
    pub(crate) name: At<String>,
    pub(crate) constant: bool,
    pub(crate) persist: bool,
    pub(crate) counters: bool,
    pub(crate) entries: Vec<HostDef>,
    /// Whether there was a list at all, be it empty.
    pub(crate) listed: bool,
}

/// `antispoof log quick for { if } inet`
#[derive(Clone, Debug)]
pub(crate) struct Antispoof {
    pub(crate) at: Pos,
    pub(crate) log: Option<Log>,
    pub(crate) quick: bool,
    pub(crate) on: Vec<At<(bool, String)>>,
    pub(crate) family: Option<Family>,
    pub(crate) label: Option<String>,
}

/// An address as written.
#[derive(Clone, Debug)]
pub(crate) struct HostDef {
    pub(crate) at: Pos,
    pub(crate) not: bool,
    pub(crate) what: HostWord,
    /// `/n`
    pub(crate) len: Option<u8>,
}

/// What an address can be written as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostWord {
    Any,
    /// An address, and the interface behind `%`.
    Literal(IpAddr, Option<String>),
    Range(IpAddr, IpAddr),
    /// An interface with modifiers, or a host.
    Name(String),
    Dynamic(Dynamic),
    Table(String),
}

/// An ICMP type as written; names are resolved when the family is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IcmpDef {
    pub(crate) at: Pos,
    pub(crate) family: Family,
    pub(crate) kind: u8,
    pub(crate) code: Option<u8>,
}

/// What a rule says about state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateWord {
    /// `no state`
    No,
    /// `keep state (...)`
    Keep(KeepDef),
}

/// `keep state (...)` as written.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct KeepDef {
    pub(crate) keep: Keep,
    /// `if-bound` or `floating`, if it says.
    pub(crate) bound: Option<bool>,
}

/// A rule as written. An empty list is a field that is not there.
#[derive(Clone, Debug)]
pub(crate) struct RuleDef {
    pub(crate) at: Pos,
    /// None is pass.
    pub(crate) block: Option<BlockWord>,
    pub(crate) direction: Option<Direction>,
    pub(crate) log: Option<Log>,
    pub(crate) quick: bool,
    pub(crate) on: Vec<At<On>>,
    pub(crate) family: Option<Family>,
    pub(crate) proto: Vec<At<u8>>,
    pub(crate) from: Vec<HostDef>,
    pub(crate) from_port: Vec<At<Ports>>,
    pub(crate) to: Vec<HostDef>,
    pub(crate) to_port: Vec<At<Ports>>,
    /// Inner none is `flags any`.
    pub(crate) flags: Option<At<Option<TcpFlags>>>,
    pub(crate) icmp: Vec<IcmpDef>,
    pub(crate) tos: Option<u8>,
    pub(crate) state: Option<At<StateWord>>,
    pub(crate) fragment: Option<Pos>,
    pub(crate) allow_opts: Option<Pos>,
    pub(crate) labels: Vec<At<String>>,
    pub(crate) queue: Option<QueueRef>,
    pub(crate) tag: Option<At<String>>,
    pub(crate) tagged: Option<Tagged>,
}

/// What follows `block`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockWord {
    /// Nothing: `set block-policy` says.
    Policy,
    /// An answer, or that there is none.
    Reply(Reply),
}
