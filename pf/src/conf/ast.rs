//! Statements of pf.conf as they stand in the file: lists not expanded, names not resolved.

use std::net::IpAddr;

use super::{
    altq::{AltqSpec, QueueSpec},
    error::Pos,
    options::{Limit, Optimizer, Syncookies},
};
use crate::{
    addr::{Entry, Family},
    limiter::Limiter,
    rule::{
        Action, Dynamic, IdMatch, Keep, Log, Method, On, PortSet, Ports, Reply, RouteKind, Rule, TcpFlags,
    },
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
    /// A rule, or the call of an anchor.
    Rule(Box<RuleDef>),
    /// An Ethernet rule, or the call of an anchor of these.
    Ether(Box<EtherDef>),
    /// `antispoof for ...`
    Antispoof(Antispoof),
    /// `load anchor "name" from "file"`
    LoadAnchor { name: At<String>, file: At<String> },
    /// `state limiter`, `source limiter`
    Limiter(Box<Limiter>),
    /// `}`: the rules of an anchor end.
    EndAnchor(Pos),
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Skip(Vec<String>),
    BlockPolicy(Reply),
    FailPolicy(Reply),
    /// `if-bound` or not.
    StatePolicy(bool),
    /// The profile, and the word that was used for it.
    Optimization(Optimization, String),
    Optimizer(Optimizer),
    Limit(Limit, u32),
    Timeout(Timeout, u32),
    StateDefaults(KeepDef),
    LogInterface(Option<String>),
    Fingerprints(String),
    HostId(u32),
    /// `reassemble yes no-df`: whether, and whether with `no-df`.
    Reassemble(bool, bool),
    Syncookies(Syncookies),
    Debug(crate::debug::Level),
    KeepCounters,
    RequireOrder(bool),
}

/// `table <name> persist const counters { ... } file "..."`
#[derive(Clone, Debug)]
pub(crate) struct TableDef {
    pub(crate) name: At<String>,
    pub(crate) constant: bool,
    pub(crate) persist: bool,
    pub(crate) counters: bool,
    pub(crate) parts: Vec<TablePart>,
}

/// What a table is made of.
#[derive(Clone, Debug)]
pub(crate) enum TablePart {
    List(Vec<HostDef>),
    /// A file, and what is in it once it has been read.
    File {
        name: At<String>,
        entries: Vec<Entry>,
    },
}

/// `antispoof log quick for { if } inet`
#[derive(Clone, Debug)]
pub(crate) struct Antispoof {
    pub(crate) at: Pos,
    pub(crate) log: Option<Log>,
    pub(crate) quick: bool,
    pub(crate) on: Vec<At<(bool, String)>>,
    pub(crate) family: Option<Family>,
    pub(crate) labels: Vec<At<String>>,
    pub(crate) ridentifier: u32,
    pub(crate) rtable: Option<u32>,
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
    NoRoute,
    UrpfFailed,
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
    /// Where `source-track` stands, if it does.
    pub(crate) track_at: Option<Pos>,
}

/// A rule as written: what is the same in all rules it expands to, and the lists. An empty list is a field that is not
/// there.
#[derive(Clone, Debug)]
pub(crate) struct RuleDef {
    pub(crate) at: Pos,
    /// What the lists below do not say. `tag` and `tagged` have their macros yet.
    pub(crate) rule: Rule,
    /// `block` alone: `set block-policy` says how.
    pub(crate) by_policy: bool,
    pub(crate) on: Vec<At<On>>,
    pub(crate) route: Option<RouteDef>,
    pub(crate) proto: Vec<At<u8>>,
    pub(crate) from: Vec<HostDef>,
    pub(crate) from_port: Vec<At<Ports>>,
    pub(crate) os: Vec<At<String>>,
    pub(crate) to: Vec<HostDef>,
    pub(crate) to_port: Vec<At<Ports>>,
    pub(crate) users: Vec<At<IdMatch>>,
    pub(crate) groups: Vec<At<IdMatch>>,
    /// Inner none is `flags any`.
    pub(crate) flags: Option<At<Option<TcpFlags>>>,
    pub(crate) icmp: Vec<IcmpDef>,
    pub(crate) state: Option<At<StateWord>>,
    pub(crate) state_limiter: Option<At<LimiterDef>>,
    pub(crate) source_limiter: Option<At<LimiterDef>>,
    pub(crate) fragment: Option<Pos>,
    pub(crate) allow_opts: Option<Pos>,
    pub(crate) labels: Vec<At<String>>,
    /// `nat-to`, or what is behind the arrow of nat and binat.
    pub(crate) nat: Option<PoolDef>,
    /// `rdr-to`, or what is behind the arrow of rdr.
    pub(crate) rdr: Option<PoolDef>,
    pub(crate) binat: Option<PoolDef>,
    pub(crate) af_to: Option<At<AfToDef>>,
}

impl RuleDef {
    pub(crate) fn new(at: Pos, action: Action) -> RuleDef {
        RuleDef {
            at,
            rule: Rule { at, ..Rule::all(action) },
            by_policy: false,
            on: Vec::new(),
            route: None,
            proto: Vec::new(),
            from: Vec::new(),
            from_port: Vec::new(),
            os: Vec::new(),
            to: Vec::new(),
            to_port: Vec::new(),
            users: Vec::new(),
            groups: Vec::new(),
            flags: None,
            icmp: Vec::new(),
            state: None,
            state_limiter: None,
            source_limiter: None,
            fragment: None,
            allow_opts: None,
            labels: Vec::new(),
            nat: None,
            rdr: None,
            binat: None,
            af_to: None,
        }
    }
}

/// `state limiter "name" (block)` of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LimiterDef {
    pub(crate) which: LimiterWord,
    pub(crate) block: bool,
}

/// How a rule names a limiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LimiterWord {
    Name(String),
    Id(u8),
}

/// `route-to (if host) ...`
#[derive(Clone, Debug)]
pub(crate) struct RouteDef {
    pub(crate) kind: RouteKind,
    pub(crate) pool: PoolDef,
    pub(crate) prefer_inet6: bool,
}

/// `af-to inet from ... to ...`
#[derive(Clone, Debug)]
pub(crate) struct AfToDef {
    pub(crate) family: Family,
    pub(crate) from: PoolDef,
    pub(crate) to: Option<PoolDef>,
}

/// A pool as written.
#[derive(Clone, Debug)]
pub(crate) struct PoolDef {
    pub(crate) at: Pos,
    pub(crate) hosts: Vec<PoolHostDef>,
    pub(crate) port: Option<At<PoolPort>>,
    pub(crate) method: Option<At<Method>>,
    pub(crate) sticky: bool,
    pub(crate) static_port: Option<Pos>,
    pub(crate) port_set: Option<At<PortSet>>,
    pub(crate) endpoint_independent: Option<Pos>,
}

impl PoolDef {
    pub(crate) const fn new(at: Pos) -> PoolDef {
        PoolDef {
            at,
            hosts: Vec::new(),
            port: None,
            method: None,
            sticky: false,
            static_port: None,
            port_set: None,
            endpoint_independent: None,
        }
    }
}

/// An item of a pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolHostDef {
    pub(crate) interface: Option<String>,
    /// None for a next hop that is an interface alone.
    pub(crate) host: Option<HostDef>,
}

/// `port a`, `port a:b`, `port a:*`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolPort {
    One(u16),
    Range(u16, u16),
    /// As many as the rule's destination ports.
    Star(u16),
}

/// An Ethernet rule as written.
#[derive(Clone, Debug)]
pub(crate) struct EtherDef {
    pub(crate) rule: crate::ether::EtherRule,
    pub(crate) on: Vec<At<On>>,
    pub(crate) proto: Vec<u16>,
    pub(crate) from: Vec<crate::ether::MacMatch>,
    pub(crate) to: Vec<crate::ether::MacMatch>,
    pub(crate) l3_from: Vec<HostDef>,
    pub(crate) l3_to: Vec<HostDef>,
}
