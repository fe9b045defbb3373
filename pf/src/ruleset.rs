//! A ruleset: rules compiled to this router's numbers, immutable, replaced as a whole.
//!
//! Each rule carries *skip steps*: for each of eight fields, the next rule whose value of that field differs. A packet
//! that fails a rule on a field fails all rules up to there on it, so evaluation jumps (D. Hartmeier, "Design and
//! Performance of the OpenBSD Stateful Packet Filter", USENIX 2002).
//!
//! For each interface and direction it is known beforehand whether a packet has to be looked at at all: `set skip`, an
//! empty list, and a plain `pass` without state are decided for a whole batch at once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use kern::{Mbuf, PktFlags, counter::Counter};

use crate::{
    IfIndex,
    addr::{AddrSet, Entry, Family, Prefix, bits},
    anchor::{self, Calls, Fresh, Kept, Kind, Lists},
    conf::{self, Limit, PfConf, Syncookies},
    env::Environment,
    ids::{Names, TooManyNames},
    limiter::{Limited, Limiter},
    nat::{FamilyChange, Item, Translate},
    normalise::{Normalise, ScrubRules},
    once::Once,
    osfp::{Asked, Fingerprints, Known},
    pool::Pool,
    random::Random,
    route::{NO_GATEWAY, RoutePool},
    rule::{
        Action, AfTo, Direction, Host, IcmpMatch, Keep, Log, On, Peer, Ports, Route, Rule, Rules,
        SourceTrack, StateKind, TcpFlags,
    },
    slab::{RuleSlab, RuleSlot, TooManyRules},
    table::{self, Counted, Staged, TableError, Tables, Wanted},
    track,
};

/// The fields that have skip steps, in the order in which they are tested.
pub(crate) const FIELDS: usize = 8;

/// Which interfaces a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Iface {
    Any,
    Is(IfIndex),
    Not(IfIndex),
    /// An interface that does not exist (yet).
    Never,
}

impl Iface {
    #[inline(always)]
    pub(crate) fn matches(self, index: IfIndex) -> bool {
        match self {
            Iface::Any => true,
            Iface::Is(i) => i == index,
            Iface::Not(i) => i != index,
            Iface::Never => false,
        }
    }
}

/// Which addresses a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AddrTest {
    Any,
    Masked { family: Family, mask: u128, value: u128, not: bool },
    Range { family: Family, low: u128, high: u128, not: bool },
    Set { set: Arc<AddrSet>, not: bool },
    Table { table: table::Shared, not: bool },
}

impl AddrTest {
    #[inline(always)]
    pub(crate) fn matches(&self, family: Family, addr: u128) -> bool {
        match self {
            AddrTest::Any => true,
            AddrTest::Masked { family: f, mask, value, not } => {
                (*f == family && addr & mask == *value) != *not
            }
            AddrTest::Range { family: f, low, high, not } => {
                (*f == family && (*low..=*high).contains(&addr)) != *not
            }
            AddrTest::Set { set, not } => set.contains(family, addr) != *not,
            AddrTest::Table { table, not } => table.contains(family, addr) != *not,
        }
    }

    /// Counts a packet of a rule with this test in its table, if it has one.
    pub(crate) fn count(&self, worker: usize, address: u128, packet: &Counted) {
        if let AddrTest::Table { table, not } = self {
            table.count(worker, &Counted { not: *not, ..*packet }, address);
        }
    }
}

/// A rule as it is evaluated.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) skip: [u32; FIELDS],
    pub(crate) iface: Iface,
    pub(crate) direction: Option<Direction>,
    pub(crate) family: Option<Family>,
    pub(crate) proto: Option<u8>,
    pub(crate) src: AddrTest,
    pub(crate) sport: Option<Ports>,
    pub(crate) dst: AddrTest,
    pub(crate) dport: Option<Ports>,
    pub(crate) flags: Option<TcpFlags>,
    pub(crate) icmp: Option<IcmpMatch>,
    pub(crate) tos: Option<u8>,
    /// Priority it must have.
    pub(crate) prio: Option<u8>,
    pub(crate) fragment: bool,
    /// Tag it must have, or must not have.
    pub(crate) tagged: Option<(u16, bool)>,
    pub(crate) quick: bool,
    pub(crate) action: Action,
    pub(crate) keep: Option<KeepState>,
    pub(crate) allow_opts: bool,
    pub(crate) log: Option<Log>,
    /// 0 is none.
    pub(crate) tag: u16,
    /// 0 is none.
    pub(crate) queue: u16,
    /// Where low-delay packets go; `queue` if the rule does not say.
    pub(crate) low_delay_queue: u16,
    pub(crate) slot: RuleSlot,
    /// Its counter of evaluations.
    pub(crate) counter: u32,
    /// Where the packet must have come in.
    pub(crate) received: Iface,
    /// Which systems its packets come from.
    pub(crate) os: Option<Asked>,
    /// It is for one packet.
    pub(crate) once: Option<Once>,
    /// So many of 2^32 packets; none is all.
    pub(crate) probability: Option<u32>,
    /// What it does to addresses, in this order.
    pub(crate) translates: Box<[Translate]>,
    /// What it translates is not filtered.
    pub(crate) nat_pass: bool,
    /// It calls what this number stands for; 0 is no call.
    pub(crate) call: u16,
    /// What few rules say besides.
    pub(crate) rare: Option<Box<Rare>>,
}

/// What few rules say besides.
#[derive(Debug)]
pub(crate) struct Rare {
    /// Where its packets go.
    pub(crate) route: Option<RoutePool>,
    /// `scrub (...)`, `set tos`.
    pub(crate) normalise: Normalise,
    /// `set prio`: for most packets, for low-delay ones.
    pub(crate) prio: Option<(u8, u8)>,
    /// `state limiter`, `source limiter`.
    pub(crate) limited: Option<Limited>,
}

/// What a rule says of the states it makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepState {
    pub(crate) bound: bool,
    pub(crate) sloppy: bool,
    pub(crate) kind: StateKind,
    pub(crate) track: Option<SourceTrack>,
}

impl KeepState {
    fn of(keep: &Keep) -> KeepState {
        let Keep { bound, sloppy, kind, .. } = *keep;
        KeepState { bound, sloppy, kind, track: track::tracked(keep) }
    }
}

impl Compiled {
    fn same(&self, other: &Compiled, field: usize) -> bool {
        match field {
            0 => self.iface == other.iface,
            1 => self.direction == other.direction,
            2 => self.family == other.family,
            3 => self.proto == other.proto,
            4 => self.src == other.src,
            5 => self.sport == other.sport,
            6 => self.dst == other.dst,
            _ => self.dport == other.dport,
        }
    }

    /// Whether it matches every packet of its interface and direction.
    fn is_unconditional(&self) -> bool {
        self.family.is_none()
            && self.proto.is_none()
            && self.src == AddrTest::Any
            && self.dst == AddrTest::Any
            && self.flags.is_none()
            && self.tos.is_none()
            && self.prio.is_none()
            && !self.fragment
            && self.tagged.is_none()
            && self.received == Iface::Any
            && self.os.is_none()
            && self.once.is_none()
            && self.probability.is_none()
            && self.limited().is_none()
    }

    /// Its limiters, if it has any.
    #[inline(always)]
    pub(crate) fn limited(&self) -> Option<Limited> {
        self.rare.as_ref()?.limited
    }

    /// Whether being matched has an effect even if a later rule decides.
    fn has_side_effect(&self) -> bool {
        self.quick || self.tag != 0 || self.log.is_some() || self.action == Action::Match
    }
}

/// What can be said of packets of one interface and direction without looking at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Constant {
    /// pf does nothing here.
    Skip,
    /// They pass, by this rule or because none matches.
    Pass { rule: Option<u32>, allow_opts: bool },
    /// They have to be looked at.
    Look,
}

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
    /// Interfaces whose queues are fair between hosts (`cake`), and so want to know who sent what is translated.
    fair: Box<[IfIndex]>,
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

/// The rules of translation, of which the first that matches decides.
#[derive(Debug, Default)]
pub(crate) struct Translation {
    pub(crate) nat: Box<[Compiled]>,
    pub(crate) rdr: Box<[Compiled]>,
    /// By direction: what comes in has its destination translated, what leaves its source.
    pub(crate) binat: [Box<[Compiled]>; 2],
}

impl Translation {
    /// What is looked for in a packet of this direction, one kind after the other.
    pub(crate) const fn kinds(direction: Direction) -> [Kind; 2] {
        match direction {
            Direction::In => [Kind::Binat, Kind::Rdr],
            Direction::Out => [Kind::Binat, Kind::Nat],
        }
    }

    /// The lists of these kinds.
    #[inline(always)]
    fn lists(&self, direction: Direction) -> [&[Compiled]; 2] {
        let own = match direction {
            Direction::In => &self.rdr,
            Direction::Out => &self.nat,
        };
        [&self.binat[direction.index()], own]
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self, direction: Direction) -> bool {
        self.lists(direction).iter().all(|l| l.is_empty())
    }
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
            fair: Box::default(),
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
            let before = Kept {
                lists: old.map(|lists| &**lists),
                filter: !fresh(|f| &f.filter, path),
                nat: !fresh(|f| &f.nat, path),
                ether: !fresh(|f| &f.ether, path),
            };
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

    /// Whether pf wants to see the datagram of this fragment whole, and if so, whether don't-fragment is forgiven.
    pub fn gathers_this(&self, index: IfIndex, m: &Mbuf) -> Option<bool> {
        if self.constant(Direction::In, index) == Constant::Skip || m.hdr().flags.has(PktFlags::NO_PF) {
            return None;
        }
        self.scrub.gathers_this(index, m, &self.known)
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

    /// Lets the counters of the rules at a path begin at 0 (`pfctl -z`).
    pub fn clear_counters(&self, path: &str) {
        if let Some(lists) = self.lists(path) {
            lists.clear();
        }
    }

    /// The slots of the filter rules with a label, in anchors too.
    pub fn labelled(&self, label: &str) -> Vec<RuleSlot> {
        let of = |(path, rules): (&str, &Rules)| {
            let compiled = self.lists(path).map_or(&[][..], |lists| lists.list(Kind::Filter));
            let with_label =
                rules.filter.iter().zip(compiled).filter(|(r, _)| r.labels.iter().any(|l| l == label));
            with_label.map(|(_, compiled)| compiled.slot).collect::<Vec<_>>()
        };
        anchor::sources(&self.conf).flat_map(of).collect()
    }

    /// Whether states made by some rule look at timestamps.
    pub(crate) fn looks_at_timestamps(&self) -> bool {
        let all = std::iter::once(&self.main).chain(self.anchors.values());
        let rare = |rule: &Compiled| rule.rare.as_ref().is_some_and(|rare| rare.normalise.reassemble_tcp);
        self.scrub.looks_at_timestamps() || all.flat_map(|lists| &lists.filter).any(rare)
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

    fn decide_beforehand(&mut self, env: &Environment) {
        let skipped: HashSet<&str> = self.conf.options.skip.iter().map(String::as_str).collect();
        let highest = env.interfaces.iter().map(|i| usize::from(i.index.0)).max();
        let mut columns = vec![0; highest.map_or(0, |h| h + 1)];
        // No interface has index 0 as its own, so it stands for all that are unknown.
        let mut constants = vec![[Direction::In, Direction::Out].map(|d| self.constant_of(d, IfIndex(0)))];
        for interface in &env.interfaces {
            columns[usize::from(interface.index.0)] = constants.len() as u16;
            constants.push([Direction::In, Direction::Out].map(|d| {
                if skipped.contains(interface.name.as_str()) {
                    Constant::Skip
                } else {
                    self.constant_of(d, interface.index)
                }
            }));
        }
        self.columns = columns.into_boxed_slice();
        self.looks = [0, 1].map(|d| constants.iter().any(|c| c[d] == Constant::Look));
        self.constants = constants.into_boxed_slice();
    }

    fn constant_of(&self, direction: Direction, index: IfIndex) -> Constant {
        let translates =
            self.main.translation.lists(direction).into_iter().flatten().any(|r| r.iface.matches(index));
        let answers = self.cookies && direction == Direction::In;
        if translates || answers || !self.scrub.is_empty() {
            return Constant::Look;
        }
        let mut last: Option<(usize, &Compiled)> = None;
        let mut open = false;
        for (i, rule) in self.main.filter.iter().enumerate() {
            if !rule.iface.matches(index) || rule.direction.is_some_and(|d| d != direction) {
                continue;
            }
            if rule.call != 0 {
                if rule.tag != 0 || self.calls.of(rule.call).iter().any(|lists| !lists.filter.is_empty()) {
                    return Constant::Look;
                }
                continue;
            }
            if rule.is_unconditional() {
                (last, open) = (Some((i, rule)), false);
                if rule.quick {
                    break;
                }
            } else {
                open = true;
            }
            if rule.has_side_effect() {
                return Constant::Look;
            }
        }
        match last {
            _ if open => Constant::Look,
            None => Constant::Pass { rule: None, allow_opts: false },
            Some((_, r)) if r.action != Action::Pass || r.keep.is_some() || r.queue != 0 => Constant::Look,
            Some((_, r)) if r.log.is_some() || r.tag != 0 || !r.translates.is_empty() || r.rare.is_some() => {
                Constant::Look
            }
            Some((i, r)) => Constant::Pass { rule: Some(i as u32), allow_opts: r.allow_opts },
        }
    }
}

fn link_skip_steps(rules: &mut [Compiled]) {
    for i in (0..rules.len()).rev() {
        for field in 0..FIELDS {
            let same =
                rules.get(i + 1).filter(|next| rules[i].same(next, field)).map(|next| next.skip[field]);
            rules[i].skip[field] = same.unwrap_or(i as u32 + 1);
        }
    }
}

pub(crate) struct Compiler<'a> {
    env: &'a Environment,
    pub(crate) names: &'a mut Names,
    tables: HashMap<&'a str, table::Shared>,
    /// The anchor whose rules they are; empty for the main ruleset.
    pub(crate) path: &'a str,
    /// What `os` of a rule may mean.
    fingerprints: &'a Fingerprints,
    random: Random,
    /// Counters of evaluations given out.
    pub(crate) counters: u32,
}

/// Tables by anchor and name.
fn by_name(staged: &[Staged]) -> HashMap<&str, HashMap<&str, table::Shared>> {
    let mut all: HashMap<&str, HashMap<&str, table::Shared>> = HashMap::new();
    for s in staged {
        all.entry(s.table.anchor()).or_default().insert(s.table.name(), Arc::clone(&s.table));
    }
    all
}

/// What the pools of a rule choose from.
fn pool_hosts(rule: &Rule) -> impl Iterator<Item = &Host> {
    let routes = rule.route.iter().map(|route| &route.pool);
    let families = rule.af_to.iter().flat_map(|to| std::iter::once(&to.from).chain(&to.to));
    let pools = rule.nat.iter().chain(&rule.rdr).chain(routes).chain(families);
    pools.flat_map(|pool| pool.hosts.iter().map(|h| &h.host))
}

/// The names of the tables that pools choose from.
fn pool_tables(rules: &Rules) -> HashSet<&str> {
    let hosts = rules.all().flat_map(pool_hosts);
    hosts.filter_map(|host| if let Host::Table(name) = host { Some(name.as_str()) } else { None }).collect()
}

/// The names of all tables that rules and limiters speak of, and how often.
fn spoken_of<'r>(rules: &'r Rules, limiters: &'r [Limiter]) -> HashMap<&'r str, u32> {
    let mut names = HashMap::new();
    for table in limiters.iter().filter_map(|limiter| limiter.table.as_ref()) {
        *names.entry(table.name.as_str()).or_default() += 1;
    }
    for host in rules.ether.iter().flat_map(|rule| [&rule.l3_from.host, &rule.l3_to.host]) {
        if let Host::Table(name) = host {
            *names.entry(name.as_str()).or_default() += 1;
        }
    }
    for rule in rules.all() {
        for host in [&rule.from.host, &rule.to.host].into_iter().chain(pool_hosts(rule)) {
            if let Host::Table(name) = host {
                *names.entry(name.as_str()).or_default() += 1;
            }
        }
        if let Some(overload) = rule.keep.as_ref().and_then(|keep| keep.overload.as_ref()) {
            *names.entry(overload.table.as_str()).or_default() += 1;
        }
    }
    names
}

impl Compiler<'_> {
    /// Compiles the rules of an anchor or of the main ruleset; some may be what they were before.
    fn lists(
        &mut self,
        rules: &Rules,
        slab: &Arc<RuleSlab>,
        before: &Kept<'_>,
    ) -> Result<Lists, CompileError> {
        // Built step by step: whatever has been taken is given back by `Drop` if a later step fails.
        let mut lists = Lists::empty(slab);
        lists.filter = self.list(&rules.filter, before.rules(Kind::Filter), slab, &mut lists.slots)?;
        lists.translation.nat = self.list(&rules.nat, before.rules(Kind::Nat), slab, &mut lists.slots)?;
        lists.translation.rdr = self.list(&rules.rdr, before.rules(Kind::Rdr), slab, &mut lists.slots)?;
        lists.translation.binat =
            self.binat(&rules.binat, before.rules(Kind::Binat), slab, &mut lists.slots)?;
        lists.ether = self.ether(&rules.ether, before.ether_rules(), slab, &mut lists.slots)?;
        let counted = self.counters as usize;
        lists.evaluations = slab.per_worker(|| (0..counted).map(|_| Counter::new()).collect());
        lists.go_on(before);
        Ok(lists)
    }

    /// Compiles the rules of a list, which have the slots that they had `before` if they stay; `slots` gets what has been
    /// taken even if it fails.
    fn list(
        &mut self,
        rules: &[Rule],
        before: &[Compiled],
        slab: &RuleSlab,
        slots: &mut Vec<RuleSlot>,
    ) -> Result<Box<[Compiled]>, CompileError> {
        let mut list = Vec::with_capacity(rules.len());
        for (number, rule) in rules.iter().enumerate() {
            let before = before.get(number).map(|old| old.slot);
            let slot = self.slot(number, before, rule.keep.as_ref(), slab, slots)?;
            let mut compiled = self.rule(rule)?;
            compiled.slot = slot;
            compiled.counter = self.counters;
            self.counters += 1;
            list.push(compiled);
        }
        link_skip_steps(&mut list);
        Ok(list.into_boxed_slice())
    }

    /// The slot of a rule: that which it had before, or a new one. `slots` gets it.
    pub(crate) fn slot(
        &self,
        number: usize,
        before: Option<RuleSlot>,
        keep: Option<&Keep>,
        slab: &RuleSlab,
        slots: &mut Vec<RuleSlot>,
    ) -> Result<RuleSlot, CompileError> {
        let slot = match before {
            Some(old) => slab.share(old),
            None => slab.take(number as u32, keep, self.path)?,
        };
        slots.push(slot);
        Ok(slot)
    }

    pub(crate) fn iface(&self, on: Option<&On>) -> Iface {
        match on {
            None => Iface::Any,
            Some(on) => match (self.env.interface(&on.name), on.not) {
                (Some(i), false) => Iface::Is(i.index),
                (Some(i), true) => Iface::Not(i.index),
                (None, false) => Iface::Never,
                (None, true) => Iface::Any,
            },
        }
    }

    /// The addresses of a pool as this router has them.
    fn items(&self, pool: &Pool, family: Option<Family>) -> Vec<Item> {
        pool.hosts.iter().flat_map(|host| self.items_of(&host.host, family)).collect()
    }

    fn items_of(&self, host: &Host, family: Option<Family>) -> Vec<Item> {
        if let Host::Table(name) = host {
            return self.tables.get(name.as_str()).map(Item::from).into_iter().collect();
        }
        self.prefixes_of(host, family).into_iter().map(Item::from).collect()
    }

    /// The addresses that do not change as long as the ruleset is in force.
    fn prefixes_of(&self, host: &Host, family: Option<Family>) -> Vec<Prefix> {
        match host {
            Host::Prefix(p) => vec![*p],
            Host::Range(a, b) => Prefix::covering(*a, *b),
            Host::Dynamic(d) => self.env.addresses_of(d, family),
            Host::Any | Host::NoRoute | Host::UrpfFailed | Host::Table(_) => Vec::new(),
        }
    }

    fn rare(&mut self, rule: &Rule) -> Option<Box<Rare>> {
        let route = rule.route.as_ref().map(|route| self.route(route));
        // A scrub rule's own is in its list.
        let is_filter = Kind::of(rule.action) == Some(Kind::Filter);
        let normalise = if is_filter { Normalise::from(&rule.scrub) } else { Normalise::NONE };
        let limited = Limited { state: rule.state_limiter, source: rule.source_limiter };
        let limited = (limited.state.is_some() || limited.source.is_some()).then_some(limited);
        let rare = Rare { route, normalise, prio: rule.set_prio, limited };
        let is_some = rare.route.is_some()
            || !rare.normalise.is_none()
            || rare.prio.is_some()
            || rare.limited.is_some();
        is_some.then(|| Box::new(rare))
    }

    /// The next hops of a rule. Interfaces that this router does not have are number 0.
    fn route(&mut self, route: &Route) -> RoutePool {
        let index = |name: Option<&String>| {
            name.and_then(|name| self.env.interface(name)).map_or(IfIndex(0), |i| i.index)
        };
        let mut gateways = Vec::new();
        for item in &route.pool.hosts {
            let iface = index(item.interface.as_ref());
            let items = match item.host {
                Host::Any => NO_GATEWAY.map(Item::Prefix).into(),
                _ => self.items_of(&item.host, None),
            };
            gateways.extend(items.into_iter().map(|item| (item, iface)));
        }
        RoutePool::new(route, gateways, &mut self.random)
    }

    /// The family that a rule is for: its own, or that of the addresses it translates to. A table may get those of both.
    fn family(&self, rule: &Rule) -> Option<Family> {
        let pools = rule.nat.iter().chain(&rule.rdr).flat_map(|pool| self.items(pool, None));
        let mut families = pools.map(|item| match item {
            Item::Prefix(p) => Some(p.family()),
            Item::Table(_) => None,
        });
        let first = families.next().flatten();
        rule.family.or_else(|| first.filter(|&f| families.all(|other| other == Some(f))))
    }

    /// Compiles binat rules for what comes in and what leaves. Both have the same slots and counters.
    fn binat(
        &mut self,
        rules: &[Rule],
        before: &[Compiled],
        slab: &RuleSlab,
        slots: &mut Vec<RuleSlot>,
    ) -> Result<[Box<[Compiled]>; 2], CompileError> {
        let mut outward = self.list(rules, before, slab, slots)?;
        let mut inward = Vec::with_capacity(rules.len());
        for (rule, out) in rules.iter().zip(&mut outward) {
            let outer = rule.nat.as_ref().and_then(|pool| pool.hosts.first());
            let outer = outer.and_then(|host| self.prefixes_of(&host.host, out.family).first().copied());
            let inner = match &rule.from.host {
                Host::Prefix(p) => Some(*p),
                Host::Dynamic(d) => self.env.addresses_of(d, out.family).first().copied(),
                _ => None,
            };
            let mut back = self.rule(rule)?;
            (back.slot, back.counter, back.direction) = (out.slot, out.counter, Some(Direction::In));
            out.direction = Some(Direction::Out);
            (back.src, back.sport) = (self.address(&rule.to, out.family), rule.to.port);
            (back.dst, back.dport) = (AddrTest::Any, rule.from.port);
            if let Some((outer, inner)) = outer.zip(inner) {
                let (mask, value) = outer.mask();
                back.dst = AddrTest::Masked { family: outer.family(), mask, value, not: false };
                back.translates = Box::new([Translate::binat(inner, false, &mut self.random)]);
                out.translates = Box::new([Translate::binat(outer, true, &mut self.random)]);
            }
            inward.push(back);
        }
        link_skip_steps(&mut inward);
        Ok([inward.into_boxed_slice(), outward])
    }

    fn translates(&mut self, rule: &Rule) -> Box<[Translate]> {
        let mut translates = Vec::new();
        if let Some(pool) = &rule.rdr {
            let from = rule.to.port.map_or(0, Ports::first);
            let items = self.items(pool, rule.family);
            translates.push(Translate::destination(pool, &items, from, &mut self.random));
        }
        if let Some(pool) = &rule.nat {
            let items = self.items(pool, rule.family);
            translates.push(Translate::source(pool, &items, &mut self.random));
        }
        if let Some(to) = &rule.af_to {
            translates.push(Translate::Family(Box::new(self.family_change(to, &rule.to.host))));
        }
        translates.into_boxed_slice()
    }

    fn family_change(&mut self, to: &AfTo, destination: &Host) -> FamilyChange {
        let family = Some(to.family);
        let from = self.items(&to.from, family);
        let other = to.to.as_ref().map(|pool| (pool, self.items(pool, family)));
        let within = match destination {
            Host::Prefix(prefix) => prefix.length(),
            _ => 0,
        };
        let other = other.as_ref().map(|(pool, items)| (*pool, &items[..]));
        FamilyChange::new(to.family, (&to.from, &from), other, within, &mut self.random)
    }

    fn rule(&mut self, rule: &Rule) -> Result<Compiled, CompileError> {
        let iface = self.iface(rule.on.as_ref());
        let family = self.family(rule);
        let tag = rule.tag.as_deref().map_or(Ok(0), |t| self.names.tag(t))?;
        let tagged = match &rule.tagged {
            Some(tagged) => Some((self.names.tag(&tagged.name)?, tagged.not)),
            None => None,
        };
        let (queue, low_delay_queue) = match &rule.queue {
            None => (0, 0),
            Some(q) => {
                let queue = self.names.queue(&q.name)?;
                (queue, q.low_delay.as_deref().map_or(Ok(queue), |n| self.names.queue(n))?)
            }
        };
        Ok(Compiled {
            skip: [0; FIELDS],
            iface,
            direction: rule.direction,
            family,
            proto: rule.proto,
            src: self.address(&rule.from, family),
            sport: rule.from.port,
            dst: self.address(&rule.to, family),
            dport: rule.to.port,
            flags: rule.flags.filter(|f| f.mask != 0),
            icmp: rule.icmp,
            tos: rule.tos,
            prio: rule.prio,
            fragment: rule.fragment,
            tagged,
            quick: rule.quick,
            action: rule.action,
            keep: rule.keep.as_ref().map(KeepState::of),
            allow_opts: rule.allow_opts,
            log: rule.log,
            tag,
            queue,
            low_delay_queue,
            slot: RuleSlot::NONE,
            counter: 0,
            received: self.iface(rule.received_on.as_ref()),
            os: rule.os.as_deref().map(|os| Asked::of(os, self.fingerprints, self.names)).transpose()?,
            once: rule.once.clone(),
            probability: rule.probability,
            translates: self.translates(rule),
            nat_pass: rule.nat_pass,
            rare: self.rare(rule),
            call: rule.anchor.as_ref().map_or(Ok(0), |call| self.names.call(&call.target()))?,
        })
    }

    pub(crate) fn address(&self, peer: &Peer, family: Option<Family>) -> AddrTest {
        let not = peer.not;
        match &peer.host {
            Host::Any => AddrTest::Any,
            Host::Prefix(p) => {
                let (mask, value) = p.mask();
                AddrTest::Masked { family: p.family(), mask, value, not }
            }
            Host::Range(a, b) => {
                AddrTest::Range { family: Family::of(*a), low: bits(*a), high: bits(*b), not }
            }
            Host::Dynamic(d) => {
                let entries: Vec<Entry> = self.env.entries_of(d, family);
                AddrTest::Set { set: Arc::new(AddrSet::new(&entries)), not }
            }
            // A load refuses these until there is somebody to ask; they match nothing.
            Host::NoRoute | Host::UrpfFailed => AddrTest::Set { set: Arc::default(), not: false },
            Host::Table(name) => match self.tables.get(name.as_str()) {
                Some(table) => AddrTest::Table { table: Arc::clone(table), not },
                None => AddrTest::Set { set: Arc::default(), not },
            },
        }
    }
}
