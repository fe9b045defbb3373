//! A ruleset: rules compiled to this router's numbers, immutable, replaced as a whole.
//!
//! Each rule carries *skip steps*: for each of eight fields, the next rule whose value of that field differs. A packet
//! that fails a rule on a field fails all rules up to there on it, so evaluation jumps (D. Hartmeier, "Design and
//! Performance of the OpenBSD Stateful Packet Filter", USENIX 2002).
//!
//! For each interface and direction it is known beforehand whether a packet has to be looked at at all: `set skip`, an
//! empty list, and a plain `pass` without state are decided for a whole batch at once.

mod checksum;
mod compiled;
mod compiler;
mod constant;
mod spoken;
mod translation;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use kern::{Mbuf, PktFlags};

use self::spoken::{by_name, pool_tables, spoken_of};
use crate::{
    IfIndex,
    addr::Family,
    anchor::{self, Calls, Fresh, Kept, Kind, Lists},
    conf::{self, Limit, PfConf, Syncookies},
    env::Environment,
    ids::{Names, TooManyNames},
    log_interface::{InterfaceStats, LogInterface},
    normalise::ScrubRules,
    osfp::Known,
    random::Random,
    route::{RouteTest, Routes},
    rule::{Direction, Rule},
    slab::{RuleSlab, RuleSlot, TooManyRules},
    state::proxy,
    table::{self, Staged, TableError, Tables, Wanted},
};

pub(crate) use self::{
    compiled::{AddrTest, Compiled, FIELDS, Iface, KeepState, Rare},
    compiler::Compiler,
    constant::Constant,
    translation::Translation,
};

/// Why a checked configuration could not be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More names of tags or queues than there are numbers.
    #[error(transparent)]
    Names(#[from] TooManyNames),
    /// More rules than the slab holds.
    #[error(transparent)]
    Rules(#[from] TooManyRules),
    /// More tables or entries than their limits allow.
    #[error(transparent)]
    Tables(#[from] TableError),
    /// An anchor that calls itself, by way of others or not.
    #[error("anchor `{0}` calls itself")]
    Recursion(String),
    /// Calls within calls.
    #[error("anchor `{0}`: anchors call each other more than {1} deep")]
    Depth(String, usize),
    /// A source limiter that has sources, which would be counted or put into a table otherwise.
    #[error("source limiter `{0}` has sources: its masks and its table stay as they are")]
    Limiter(String),
    /// `set limit anchors`.
    #[error("{0} anchors are more than the {1} of `set limit anchors`")]
    Anchors(usize, u32),
}

/// A compiled ruleset.
#[derive(Debug)]
pub struct Ruleset {
    pub(crate) main: Arc<Lists>,
    /// By path.
    anchors: BTreeMap<String, Arc<Lists>>,
    pub(crate) calls: Calls,
    /// Column of an interface by its index; column 0 is every other.
    columns: Box<[u16]>,
    constants: Box<[[Constant; 2]]>,
    /// Whether any of them is `Look`, by direction.
    looks: [bool; 2],
    /// What the rules were made of, for printing.
    conf: Arc<PfConf>,
    /// Its tables, and those its rules speak of.
    tables: Vec<Staged>,
    pub(crate) scrub: ScrubRules,
    /// Fingerprints, if a rule asks for them.
    pub(crate) known: Known,
    /// SYNs without a state may be answered with cookies.
    pub(crate) cookies: bool,
    /// The largest segment that such a cookie says.
    pub(crate) cookie_size: u16,
    /// The interface whose statistics are counted (`set loginterface`).
    pub(crate) log_interface: Option<LogInterface>,
    /// Interfaces whose queues are fair between hosts (`cake`), and so want to know who sent what is translated.
    fair: Box<[IfIndex]>,
    /// Made when it is first asked for.
    checksum: OnceLock<u128>,
    slab: Arc<RuleSlab>,
}

/// The interfaces with a `cake` queue.
fn fair(conf: &PfConf, env: &Environment) -> Box<[IfIndex]> {
    let is_fair = |altq: &&conf::AltqSpec| {
        let on = |q: &&conf::QueueSpec| q.interface.as_ref().is_none_or(|i| *i == altq.interface);
        conf.queues.iter().filter(on).any(|q| q.options.cake)
    };
    let index = |altq: &conf::AltqSpec| env.interface(&altq.interface).map(|i| i.index);
    conf.altqs.iter().filter(is_fair).filter_map(index).collect()
}

/// A cookie is made before a rule is asked: where rules make packets of IPv6 out of those of IPv4, a segment that an IPv4
/// client is allowed must fit behind the longer header.
fn cookie_size(conf: &PfConf) -> u16 {
    let mut all = conf.rules.all().chain(conf.anchors.iter().flat_map(|anchor| anchor.rules.all()));
    let grows = |rule: &Rule| rule.af_to.as_ref().is_some_and(|to| to.family == Family::Inet6);
    if all.any(grows) { proxy::largest(Family::Inet6) } else { u16::MAX }
}

impl Ruleset {
    /// pf switched off: everything passes and nothing is counted.
    pub fn disabled(slab: &Arc<RuleSlab>) -> Ruleset {
        Ruleset {
            main: Arc::new(Lists::empty(slab)),
            anchors: BTreeMap::new(),
            calls: Calls::default(),
            columns: Box::default(),
            constants: Box::new([[Constant::Skip; 2]]),
            looks: [false; 2],
            conf: Arc::new(PfConf::default()),
            tables: Vec::new(),
            scrub: ScrubRules::default(),
            known: Known::default(),
            cookies: false,
            cookie_size: u16::MAX,
            log_interface: None,
            fair: Box::default(),
            checksum: OnceLock::new(),
            slab: Arc::clone(slab),
        }
    }

    /// Compiles a checked configuration for the interfaces of `env`. To be done again when these, or their addresses,
    /// change. What is not fresh is taken `over` from the ruleset that is in force; for that, the interfaces and their
    /// addresses must be the same.
    pub(crate) fn compile(
        conf: &Arc<PfConf>,
        env: &Environment,
        names: &mut Names,
        slab: &Arc<RuleSlab>,
        tables: &Tables,
        over: Option<(&Ruleset, &Fresh)>,
    ) -> Result<Ruleset, CompileError> {
        let limit = conf.options.limits.get(Limit::Anchors);
        if conf.anchors.len() > limit as usize {
            return Err(CompileError::Anchors(conf.anchors.len(), limit));
        }
        let fresh = |which: fn(&Fresh) -> &anchor::Which, path: &str| {
            over.is_none_or(|(_, fresh)| which(fresh).has(path))
        };
        let mut defined: HashMap<&str, Vec<&conf::Table>> = HashMap::new();
        for table in &conf.tables {
            defined.entry(&table.anchor).or_default().push(table);
        }
        let wanted = |(path, rules)| Wanted {
            anchor: path,
            defined: defined.remove(path).unwrap_or_default(),
            spoken_of: spoken_of(rules, if path.is_empty() { &conf.limiters } else { &[] }),
            pools: pool_tables(rules),
            fresh: fresh(|f| &f.tables, path),
        };
        let wanted: Vec<Wanted<'_>> = anchor::sources(conf).map(wanted).collect();
        let staged = tables.stage(&wanted, table::wall_clock())?;
        let mut known = by_name(&staged);
        let mut ruleset = Ruleset::disabled(slab);
        ruleset.conf = Arc::clone(conf);
        for (path, rules) in anchor::sources(conf) {
            let old = over.and_then(|(old, _)| old.lists(path));
            let mut before = Kept {
                lists: old.map(|lists| &**lists),
                filter: !fresh(|f| &f.filter, path),
                nat: !fresh(|f| &f.nat, path),
                ether: !fresh(|f| &f.ether, path),
                ..Kept::default()
            };
            if let Some((old, _)) = over.filter(|_| conf.options.keep_counters) {
                before.find_same(&old.conf, path, rules, env);
            }
            let same = before.filter && before.nat && before.ether && !fresh(|f| &f.tables, path);
            let kept = old.filter(|_| same).map(Arc::clone);
            let mut compiler = Compiler {
                env,
                names: &mut *names,
                tables: known.remove(path).unwrap_or_default(),
                path,
                fingerprints: &conf.fingerprints,
                random: Random::new(),
                counters: 0,
            };
            if path.is_empty() {
                let scrub = &conf.rules.scrub;
                let reassemble = conf.options.reassemble;
                ruleset.scrub = ScrubRules::compile(scrub, reassemble, |rule| compiler.rule(rule))?;
            }
            let lists = match kept {
                Some(lists) => lists,
                None => Arc::new(compiler.lists(rules, slab, &before)?),
            };
            if path.is_empty() {
                ruleset.main = lists;
            } else {
                ruleset.anchors.insert(path.to_owned(), lists);
            }
        }
        ruleset.calls = Calls::resolve(conf, &ruleset.anchors, names)?;
        ruleset.cookies = conf.options.syncookies != Syncookies::Never;
        ruleset.cookie_size = cookie_size(conf);
        ruleset.log_interface = conf.options.log_interface.as_ref().map(|name| {
            let before = over.and_then(|(old, _)| old.log_interface.as_ref());
            LogInterface::new(name, env.interface(name).map(|i| i.index), before, slab)
        });
        ruleset.decide_beforehand(env);
        ruleset.fair = fair(conf, env);
        if anchor::sources(conf).any(|(_, rules)| rules.all().any(|rule| rule.os.is_some())) {
            ruleset.known = Known::new(&conf.fingerprints, names)?;
        }
        drop(known);
        ruleset.tables = staged;
        Ok(ruleset)
    }

    /// The lists of an anchor, or of the main ruleset.
    pub(crate) fn lists(&self, path: &str) -> Option<&Arc<Lists>> {
        if path.is_empty() { Some(&self.main) } else { self.anchors.get(path) }
    }

    /// Whether packets of an interface and direction have to be looked at.
    #[inline(always)]
    pub(crate) fn constant(&self, direction: Direction, index: IfIndex) -> Constant {
        let column = self.columns.get(usize::from(index.0)).map_or(0, |&c| usize::from(c));
        self.constants.get(column).map_or(Constant::Look, |c| c[direction.index()])
    }

    /// Whether pf does nothing on an interface (`set skip`).
    pub(crate) fn skips(&self, direction: Direction, index: IfIndex) -> bool {
        self.constant(direction, index) == Constant::Skip
    }

    /// Whether pf wants to see the datagrams of some fragments whole.
    #[inline(always)]
    pub fn gathers(&self) -> bool {
        self.scrub.gathers()
    }

    /// Whether pf wants to see the datagram of this fragment whole, and if so, whether don't-fragment is forgiven; `routes`
    /// are those that rules may ask.
    pub fn gathers_this(&self, index: IfIndex, m: &Mbuf, routes: &dyn Routes) -> Option<bool> {
        if self.constant(Direction::In, index) == Constant::Skip || m.hdr().flags.has(PktFlags::NO_PF) {
            return None;
        }
        self.scrub.gathers_this(index, m, &self.known, Some(routes))
    }

    /// Whether the queues of this interface want to know who sent what is translated on its way out.
    pub(crate) fn tells_hosts(&self, index: IfIndex) -> bool {
        self.fair.contains(&index)
    }

    /// Whether there is an interface whose packets of this direction have to be looked at.
    #[inline(always)]
    pub(crate) fn looks(&self, direction: Direction) -> bool {
        self.looks[direction.index()]
    }

    /// The slot of a rule, for its counters, and how often it was evaluated.
    pub fn counted(&self, path: &str, kind: Kind, rule: usize) -> Option<(RuleSlot, u64)> {
        let lists = self.lists(path)?;
        let rule = lists.list(kind).get(rule)?;
        Some((rule.slot, lists.evaluations(rule)))
    }

    /// The same of an Ethernet rule.
    pub fn counted_ether(&self, path: &str, rule: usize) -> Option<(RuleSlot, u64)> {
        let lists = self.lists(path)?;
        let rule = lists.ether.get(rule)?;
        Some((rule.slot, lists.evaluations_at(rule.counter)))
    }

    /// The statistics of the interface of `set loginterface`, if it is set.
    pub fn interface_stats(&self) -> Option<InterfaceStats> {
        self.log_interface.as_ref().map(LogInterface::stats)
    }

    /// Lets them begin at 0 (`pfctl -F info`).
    pub fn clear_interface_stats(&self) {
        if let Some(interface) = &self.log_interface {
            interface.clear();
        }
    }

    /// Lets the counters of the rules at a path begin at 0 (`pfctl -z`).
    pub fn clear_counters(&self, path: &str) {
        if let Some(lists) = self.lists(path) {
            lists.clear();
        }
    }

    /// Whether states made by some rule look at timestamps.
    pub(crate) fn looks_at_timestamps(&self) -> bool {
        let all = std::iter::once(&self.main).chain(self.anchors.values());
        let rare = |rule: &Compiled| rule.rare.as_ref().is_some_and(|rare| rare.normalise.reassemble_tcp);
        self.scrub.looks_at_timestamps() || all.flat_map(|lists| &lists.filter).any(rare)
    }

    /// Tells rules that have kept their counters which number they have here.
    pub(crate) fn renumber(&self) {
        self.main.renumber();
        self.anchors.values().for_each(|lists| lists.renumber());
    }

    /// Whether a rule translates senders of UDP the same for all destinations.
    pub(crate) fn makes_mappings(&self) -> bool {
        let makes = |rule: &Rule| rule.nat.as_ref().is_some_and(|pool| pool.endpoint_independent);
        anchor::sources(&self.conf).any(|(_, rules)| rules.all().any(makes))
    }

    /// Whether a rule asks what routes there are.
    pub(crate) fn asks_routes(&self) -> bool {
        anchor::sources(&self.conf).any(|(_, rules)| rules.all().any(|rule| RouteTest::of(rule).is_some()))
    }

    /// What the ruleset was made of.
    pub fn conf(&self) -> &PfConf {
        &self.conf
    }

    /// Its tables, and those its rules speak of.
    pub(crate) fn tables(&self) -> &[Staged] {
        &self.tables
    }

    /// The slab its rules are in.
    pub fn slab(&self) -> &RuleSlab {
        &self.slab
    }
}
