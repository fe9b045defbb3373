//! From statements to a configuration: lists become rules, names become addresses, and what cannot mean anything is
//! refused.
//!
//! A list expands to the cross product, in pfctl's order, the last varying fastest: interface, protocol, ICMP type,
//! source host, source port, destination host, destination port. Combinations of two families are left out; a rule of
//! which nothing remains is an error.

use std::collections::{HashMap, HashSet};

use super::{
    PfConf, Table,
    altq::{AltqSpec, QueueSpec, Scheduler},
    ast::{
        Antispoof, At, BlockWord, HostDef, HostWord, IcmpDef, KeepDef, RuleDef, Setting, StateWord,
        Statement, TableDef,
    },
    error::{Fault, Parsed, Pos},
    host, label, set,
};
use crate::{
    addr::{Entry, Family, Prefix},
    env::Environment,
    names, print,
    rule::{
        Action, Direction, Dynamic, Host, IcmpMatch, Keep, On, Part, Peer, Ports, Reply, Rule, Tagged,
        TcpFlags,
    },
    timeout::{Timeout, Timeouts},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// Builds the configuration, statement by statement.
pub(crate) struct Expander<'a> {
    env: &'a Environment,
    conf: PfConf,
    defaults: KeepDef,
    timeouts_set: Vec<Timeout>,
    pub(crate) warnings: Vec<Fault>,
}

/// An address of a rule, resolved.
#[derive(Clone, Debug)]
struct Resolved {
    host: Host,
    not: bool,
    family: Option<Family>,
    /// Interface that a link-local address belongs to.
    scope: Option<String>,
}

impl Resolved {
    const ANY: Resolved = Resolved { host: Host::Any, not: false, family: None, scope: None };
}

impl<'a> Expander<'a> {
    pub(crate) fn new(env: &'a Environment) -> Expander<'a> {
        Expander {
            env,
            conf: PfConf::default(),
            defaults: KeepDef::default(),
            timeouts_set: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn into_conf(self) -> PfConf {
        let mut conf = self.conf;
        conf.options.derive_adaptive(&self.timeouts_set);
        conf
    }

    pub(crate) fn macro_line(&mut self, name: &str, value: &str) {
        self.conf.preamble.push(format!("{name} = \"{value}\""));
    }

    /// Takes a statement in; gives back what is wrong with it.
    pub(crate) fn statement(&mut self, statement: Statement) -> Vec<Fault> {
        let mut faults = Vec::new();
        match statement {
            Statement::Set(settings) => settings.into_iter().for_each(|s| self.setting(s.value)),
            Statement::Table(def) => faults.extend(self.table(&def).err()),
            Statement::Altq(specs) => specs.into_iter().for_each(|s| self.altq(s.value)),
            Statement::Queue(spec) => self.queue(spec.value),
            Statement::Rule(def) => self.rule(&def, &mut faults),
            Statement::Antispoof(def) => faults.extend(self.antispoof(&def).err()),
            Statement::Macro { .. } | Statement::Include(_) => {}
        }
        faults
    }

    fn setting(&mut self, setting: Setting) {
        let options = &mut self.conf.options;
        let line = match setting {
            Setting::Skip(names) if names.is_empty() => "skip on none".to_owned(),
            Setting::Skip(names) => {
                let line = format!("skip on {{ {} }}", names.join(" "));
                options.skip.extend(names);
                line
            }
            Setting::BlockPolicy(reply) => {
                options.block_policy = reply;
                format!("block-policy {}", if reply == Reply::Return { "return" } else { "drop" })
            }
            Setting::StatePolicy(bound) => {
                options.if_bound = bound;
                format!("state-policy {}", if bound { "if-bound" } else { "floating" })
            }
            Setting::Optimization(optimization, word) => {
                options.timeouts = Timeouts::new(optimization);
                self.timeouts_set.clear();
                format!("optimization {word}")
            }
            Setting::LimitStates(n) => {
                options.limit_states = n;
                format!("limit states {n}")
            }
            Setting::Timeout(timeout, seconds) => {
                options.timeouts.set(timeout, seconds);
                self.timeouts_set.push(timeout);
                format!("timeout {} {seconds}", timeout.keyword())
            }
            Setting::StateDefaults(def) => {
                let line = defaults_line(&def);
                self.defaults = def;
                line
            }
            Setting::AsIs(line) => line,
        };
        self.conf.preamble.push(format!("set {line}"));
    }

    fn table(&mut self, def: &TableDef) -> Parsed<()> {
        if self.conf.tables.iter().any(|t| t.name == def.name.value) {
            return Err(Fault::new(def.name.at, format!("table <{}> is defined twice", def.name.value)));
        }
        let mut entries = Vec::new();
        for entry in &def.entries {
            entries.extend(self.table_entry(entry)?);
        }
        let table = Table {
            name: def.name.value.clone(),
            constant: def.constant,
            persist: def.persist,
            counters: def.counters,
            entries,
        };
        self.conf.preamble.push(print::table(&table, def.listed));
        self.conf.tables.push(table);
        Ok(())
    }

    fn table_entry(&self, def: &HostDef) -> Parsed<Vec<Entry>> {
        self.resolve(def, None)?
            .into_iter()
            .map(|r| match r.host {
                Host::Prefix(prefix) => Ok(Entry { not: r.not, prefix }),
                Host::Any => Ok(Entry { not: r.not, prefix: zero(r.family.unwrap_or(Family::Inet)) }),
                _ => Err(Fault::new(def.at, "a table holds addresses and networks only")),
            })
            .collect()
    }

    fn altq(&mut self, spec: AltqSpec) {
        self.conf.preamble.push(print::altq(&spec));
        self.conf.altqs.push(spec);
    }

    fn queue(&mut self, spec: QueueSpec) {
        self.conf.preamble.push(print::queue(&spec));
        self.conf.queues.push(spec);
    }

    /// `block in on ! if from if:network`, and `block in from if`, for each interface.
    fn antispoof(&mut self, def: &Antispoof) -> Parsed<()> {
        for on in &def.on {
            let (dynamic, name) = &on.value;
            let base = RuleDef {
                block: Some(BlockWord::Reply(Reply::Drop)),
                direction: Some(Direction::In),
                log: def.log,
                quick: def.quick,
                family: def.family,
                labels: def.label.iter().map(|l| At::new(def.at, l.clone())).collect(),
                ..RuleDef::new(def.at)
            };
            let source = |part| HostDef {
                at: on.at,
                not: false,
                what: interface_word(*dynamic, name, part),
                len: None,
            };
            let mut faults = Vec::new();
            self.rule(
                &RuleDef {
                    on: vec![At::new(on.at, On { not: true, name: name.clone() })],
                    from: vec![source(Part::Network)],
                    ..base.clone()
                },
                &mut faults,
            );
            // A loopback has no other addresses than those of its networks.
            if !name.starts_with("lo") {
                self.rule(&RuleDef { from: vec![source(Part::Address)], ..base }, &mut faults);
            }
            if let Some(fault) = faults.into_iter().next() {
                return Err(fault);
            }
        }
        Ok(())
    }

    fn rule(&mut self, def: &RuleDef, faults: &mut Vec<Fault>) {
        if def.log.is_some() {
            self.warnings.push(Fault::new(def.at, "`log` has no effect: there is no packet log yet"));
        }
        let base = match self.base(def) {
            Ok(base) => base,
            Err(fault) => return faults.push(fault),
        };
        let hosts = |list: &[HostDef]| self.resolve_list(list, def.family);
        let (from, to) = match (hosts(&def.from), hosts(&def.to)) {
            (Ok(from), Ok(to)) => (from, to),
            (from, to) => return faults.extend(from.err().into_iter().chain(to.err())),
        };
        let first = self.conf.rules.len();
        if let Err(fault) = self.product(def, &base, &from, &to) {
            self.conf.rules.truncate(first);
            return faults.push(fault);
        }
        if self.conf.rules.len() == first {
            faults.push(
                Fault::new(def.at, "rule expands to no valid combination")
                    .help("its addresses, protocol and inet/inet6 are of different families"),
            );
        }
    }

    /// What all rules of a definition have in common.
    fn base(&self, def: &RuleDef) -> Parsed<Rule> {
        let action = match def.block {
            None => Action::Pass,
            Some(BlockWord::Policy) => Action::Block(self.conf.options.block_policy),
            Some(BlockWord::Reply(reply)) => Action::Block(reply),
        };
        let keep = self.keep(def, action)?;
        let flags = match def.flags {
            Some(At { value, .. }) => value,
            None if keep.is_some() && def.fragment.is_none() => Some(TcpFlags::OPENING),
            None => None,
        };
        Ok(Rule {
            direction: def.direction,
            log: def.log,
            quick: def.quick,
            flags,
            tos: def.tos,
            keep,
            fragment: def.fragment.is_some(),
            allow_opts: def.allow_opts.is_some(),
            queue: def.queue.clone(),
            at: def.at,
            ..Rule::all(action)
        })
    }

    fn keep(&self, def: &RuleDef, action: Action) -> Parsed<Option<Keep>> {
        let keep = match &def.state {
            Some(At { value: StateWord::No, .. }) => return Ok(None),
            Some(At { at, .. }) if action != Action::Pass => {
                return Err(Fault::new(*at, "keep state is great, but only for pass rules"));
            }
            None if action != Action::Pass => return Ok(None),
            Some(At { value: StateWord::Keep(keep), .. }) => keep,
            None => &KeepDef::default(),
        };
        let merged = set::with_defaults(keep, &self.defaults);
        let mut keep = merged.keep;
        keep.bound = merged.bound.unwrap_or(self.conf.options.if_bound);
        let has = |t| keep.timeouts.iter().any(|&(timeout, _)| timeout == t);
        if keep.max != 0 && !has(Timeout::AdaptiveStart) && !has(Timeout::AdaptiveEnd) {
            let max = u64::from(keep.max);
            keep.timeouts.push((Timeout::AdaptiveStart, (max * 6 / 10) as u32));
            keep.timeouts.push((Timeout::AdaptiveEnd, (max * 12 / 10) as u32));
        }
        Ok(Some(keep))
    }

    fn product(&mut self, def: &RuleDef, base: &Rule, from: &[Resolved], to: &[Resolved]) -> Parsed<()> {
        for on in optional(&def.on) {
            for proto in optional(&def.proto) {
                for icmp in optional(&def.icmp) {
                    for src in from {
                        for sport in optional(&def.from_port) {
                            for dst in to {
                                for dport in optional(&def.to_port) {
                                    let combination = Combination { on, proto, icmp, src, sport, dst, dport };
                                    self.one(def, base, &combination)?;
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, def: &RuleDef, base: &Rule, c: &Combination) -> Parsed<()> {
        let Some(family) = c.family(def.family) else { return Ok(()) };
        let Some(on) = c.interface() else { return Ok(()) };
        let mut rule = Rule {
            on,
            family,
            proto: c.proto.map(|p| p.value),
            from: c.src.peer(c.sport, family),
            to: c.dst.peer(c.dport, family),
            icmp: c.icmp.map(|i| IcmpMatch { kind: i.kind, code: i.code }),
            ..base.clone()
        };
        if rule.proto.is_some_and(|p| p != TCP) {
            rule.flags = None;
        }
        check(def, &rule, c)?;
        let number = self.conf.rules.len();
        rule.labels = expand_labels(def, &rule, number)?;
        rule.tag = def.tag.as_ref().map(|t| label::expand(&t.value, &rule, number));
        let expand = |t: &Tagged| Tagged { not: t.not, name: label::expand(&t.name, &rule, number) };
        rule.tagged = def.tagged.as_ref().map(expand);
        self.conf.rules.push(rule);
        Ok(())
    }

    fn resolve_list(&self, list: &[HostDef], family: Option<Family>) -> Parsed<Vec<Resolved>> {
        if list.is_empty() {
            return Ok(vec![Resolved::ANY]);
        }
        let mut all = Vec::new();
        for def in list {
            all.extend(self.resolve(def, family)?);
        }
        Ok(all)
    }

    fn resolve(&self, def: &HostDef, family: Option<Family>) -> Parsed<Vec<Resolved>> {
        let not = def.not;
        let one = |host, family| Ok(vec![Resolved { host, not, family, scope: None }]);
        match &def.what {
            HostWord::Any if not => Err(Fault::new(def.at, "`! any` matches nothing")),
            HostWord::Any => one(Host::Any, None),
            HostWord::Literal(addr, scope) => {
                let prefix = Prefix::new(*addr, def.len.unwrap_or(128));
                Ok(vec![Resolved { scope: scope.clone(), ..prefix_host(prefix, not, def.at)? }])
            }
            HostWord::Range(a, b) => one(Host::Range(*a, *b), Some(Family::of(*a))),
            HostWord::Dynamic(d) => one(Host::Dynamic(d.clone()), None),
            HostWord::Table(name) => one(Host::Table(name.clone()), None),
            HostWord::Name(name) => self.resolve_name(def, name, family),
        }
    }

    fn resolve_name(&self, def: &HostDef, name: &str, family: Option<Family>) -> Parsed<Vec<Resolved>> {
        let base = name.split(':').next().unwrap_or_default();
        if base == "self" || self.env.interface(base).is_some() {
            return self.resolve_interface(def, name, family);
        }
        let Some(addresses) = self.env.host(name) else {
            return Err(Fault::new(
                def.at,
                format!("`{name}` is no address, no interface and no known host"),
            )
            .help("write an address, or (if) for an interface that comes later"));
        };
        let wanted = addresses.iter().filter(|a| family.is_none_or(|f| f == Family::of(**a)));
        wanted.map(|a| prefix_host(Prefix::new(*a, def.len.unwrap_or(128)), def.not, def.at)).collect()
    }

    fn resolve_interface(&self, def: &HostDef, name: &str, family: Option<Family>) -> Parsed<Vec<Resolved>> {
        let dynamic = Dynamic { len: def.len, ..host::interface_parts(def.at, name)? };
        let addresses = self.env.addresses_of(&dynamic, family);
        if addresses.is_empty() {
            return Err(Fault::new(def.at, format!("no address found for `{name}`"))
                .help(format!("give it one, or write ({name})")));
        }
        let mut seen = HashSet::new();
        addresses.into_iter().filter(|p| seen.insert(*p)).map(|p| prefix_host(p, def.not, def.at)).collect()
    }

    /// Checks what takes the whole file to know.
    pub(crate) fn check_whole(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let defined: HashSet<&str> = self.conf.queues.iter().map(|q| q.name.as_str()).collect();
        let mut seen = HashSet::new();
        for rule in &self.conf.rules {
            let Some(queue) = &rule.queue else { continue };
            for name in [Some(&queue.name), queue.low_delay.as_ref()].into_iter().flatten() {
                if !defined.contains(name.as_str()) && seen.insert((rule.at, name)) {
                    faults.push(
                        Fault::new(rule.at, format!("queue `{name}` is not defined"))
                            .help(format!("add a line `queue {name}`")),
                    );
                }
            }
        }
        faults.extend(check_altq(&self.conf.altqs, &self.conf.queues));
        faults
    }
}

/// One combination of a rule's lists.
struct Combination<'a> {
    on: Option<&'a At<On>>,
    proto: Option<&'a At<u8>>,
    icmp: Option<&'a IcmpDef>,
    src: &'a Resolved,
    sport: Option<&'a At<Ports>>,
    dst: &'a Resolved,
    dport: Option<&'a At<Ports>>,
}

impl Combination<'_> {
    /// The family of all parts; outer none if they disagree.
    fn family(&self, said: Option<Family>) -> Option<Option<Family>> {
        let mut family = said;
        for part in [self.src.family, self.dst.family].into_iter().flatten() {
            match family {
                Some(f) if f != part => return None,
                _ => family = Some(part),
            }
        }
        Some(family)
    }

    /// The interface of all parts, a link-local address having one; outer none if they disagree.
    fn interface(&self) -> Option<Option<On>> {
        let mut on = self.on.map(|on| on.value.clone());
        for scope in [&self.src.scope, &self.dst.scope].into_iter().flatten() {
            match &on {
                Some(known) if &known.name != scope => return None,
                Some(_) => {}
                None => on = Some(On { not: false, name: scope.clone() }),
            }
        }
        Some(on)
    }
}

impl Resolved {
    fn peer(&self, port: Option<&At<Ports>>, family: Option<Family>) -> Peer {
        let host = match &self.host {
            // A length of all bits says nothing.
            Host::Dynamic(d) if family.is_some_and(|f| d.len.is_some_and(|len| len >= f.width())) => {
                Host::Dynamic(Dynamic { len: None, ..d.clone() })
            }
            other => other.clone(),
        };
        Peer { not: self.not, host, port: port.map(|p| p.value) }
    }
}

/// The items of a list, or once nothing if it is empty.
fn optional<T>(list: &[T]) -> Vec<Option<&T>> {
    if list.is_empty() { vec![None] } else { list.iter().map(Some).collect() }
}

const fn zero(family: Family) -> Prefix {
    Prefix::new(family.address(0), 0)
}

/// A prefix in a rule; the one of all addresses is `any` of its family.
fn prefix_host(prefix: Prefix, not: bool, at: Pos) -> Parsed<Resolved> {
    let family = Some(prefix.family());
    if prefix.length() > 0 {
        return Ok(Resolved { host: Host::Prefix(prefix), not, family, scope: None });
    }
    if not {
        return Err(Fault::new(at, format!("`! {prefix}` matches nothing")));
    }
    Ok(Resolved { host: Host::Any, not, family, scope: None })
}

fn interface_word(dynamic: bool, name: &str, part: Part) -> HostWord {
    if dynamic {
        HostWord::Dynamic(Dynamic { interface: name.to_owned(), part, no_alias: false, len: None })
    } else {
        HostWord::Name(format!("{name}{}", part.suffix()))
    }
}

fn defaults_line(def: &KeepDef) -> String {
    let words = [
        (def.keep.no_sync, "no-sync"),
        (def.keep.sloppy, "sloppy"),
        (def.bound == Some(true), "if-bound"),
        (def.bound == Some(false), "floating"),
    ];
    let words: Vec<_> = words.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
    format!("state-defaults {}", words.join(", "))
}

fn expand_labels(def: &RuleDef, rule: &Rule, number: usize) -> Parsed<Vec<String>> {
    if def.labels.len() > 5 {
        return Err(Fault::new(def.at, "a rule has at most five labels"));
    }
    let mut labels = Vec::new();
    for l in &def.labels {
        let text = label::expand(&l.value, rule, number);
        if text.len() > 63 {
            return Err(Fault::new(l.at, format!("label too long: {} characters, at most 63", text.len())));
        }
        if !text.is_empty() {
            labels.push(text);
        }
    }
    Ok(labels)
}

/// What a rule must not be (pfctl: `filter_consistent`).
fn check(def: &RuleDef, rule: &Rule, c: &Combination) -> Parsed<()> {
    if !matches!(rule.proto, Some(TCP | UDP | SCTP))
        && let Some(port) = c.sport.or(c.dport)
    {
        return Err(Fault::new(port.at, "port only applies to tcp/udp/sctp")
            .help("add proto tcp, or proto { tcp udp }"));
    }
    if let Some(icmp) = c.icmp {
        check_icmp(icmp, rule)?;
    }
    if let (Some(proto), Some(family)) = (c.proto, rule.family)
        && matches!((proto.value, family), (ICMP, Family::Inet6) | (ICMP6, Family::Inet))
    {
        let name = names::protocol_name(proto.value).unwrap_or_default();
        return Err(Fault::new(
            proto.at,
            format!("proto {name} doesn't match address family {}", family.keyword()),
        ));
    }
    if let Some(at) = def.allow_opts
        && rule.action != Action::Pass
    {
        return Err(Fault::new(at, "allow-opts can only be specified for pass rules"));
    }
    if let Some(at) = def.fragment
        && (rule.from.port.is_some() || rule.to.port.is_some() || rule.flags.is_some() || rule.icmp.is_some())
    {
        return Err(Fault::new(at, "fragments can be filtered only on IP header fields"));
    }
    if matches!(rule.action, Action::Block(Reply::Rst { .. })) && rule.proto != Some(TCP) {
        return Err(Fault::new(def.at, "return-rst can only be applied to TCP rules")
            .help("add proto tcp, or use `block return`"));
    }
    if let Some(flags) = &def.flags
        && let Some(TcpFlags { set, mask }) = flags.value
        && set & !mask != 0
    {
        return Err(Fault::new(flags.at, "flags are wanted that are not looked at")
            .help("the flags before `/` also stand behind it"));
    }
    Ok(())
}

fn check_icmp(icmp: &IcmpDef, rule: &Rule) -> Parsed<()> {
    let (proto, word) = match icmp.family {
        Family::Inet => (ICMP, "icmp-type"),
        Family::Inet6 => (ICMP6, "icmp6-type"),
    };
    if rule.proto != Some(proto) {
        let name = names::protocol_name(proto).unwrap_or_default();
        return Err(Fault::new(icmp.at, format!("{word} only applies to proto {name}")));
    }
    match rule.family {
        None => Err(Fault::new(icmp.at, format!("must indicate address family with {word}"))
            .help(format!("add {}", icmp.family.keyword()))),
        Some(family) if family != icmp.family => {
            Err(Fault::new(icmp.at, format!("{word} doesn't match address family {}", family.keyword())))
        }
        Some(_) => Ok(()),
    }
}

/// The tree of queues: every queue has one parent and one definition, every interface one default.
fn check_altq(altqs: &[AltqSpec], queues: &[QueueSpec]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let listed: HashSet<&str> = altqs
        .iter()
        .flat_map(|a| &a.queues)
        .chain(queues.iter().flat_map(|q| &q.children))
        .map(String::as_str)
        .collect();
    let mut defined: HashMap<(&str, Option<&str>), Pos> = HashMap::new();
    for queue in queues {
        if !listed.contains(queue.name.as_str()) {
            faults.push(
                Fault::new(queue.at, format!("queue `{}` has no parent", queue.name))
                    .help("name it in an `altq` line or in the list of another queue"),
            );
        }
        if defined.insert((&queue.name, queue.interface.as_deref()), queue.at).is_some() {
            faults.push(Fault::new(queue.at, format!("queue `{}` is defined twice", queue.name)));
        }
    }
    for altq in altqs {
        check_interface(altq, queues, &mut faults);
    }
    faults
}

fn check_interface(altq: &AltqSpec, queues: &[QueueSpec], faults: &mut Vec<Fault>) {
    let mut names: Vec<&str> = altq.queues.iter().map(String::as_str).collect();
    let (mut defaults, mut priorities, mut i) = (0, HashSet::new(), 0);
    while let Some(&name) = names.get(i) {
        i += 1;
        let own =
            |q: &&QueueSpec| q.name == name && q.interface.as_ref().is_none_or(|on| *on == altq.interface);
        let Some(queue) = queues.iter().find(own) else {
            faults.push(
                Fault::new(altq.at, format!("queue `{name}` on {} is not defined", altq.interface))
                    .help(format!("add a line `queue {name}`")),
            );
            continue;
        };
        check_queue(altq, queue, &mut priorities, faults);
        defaults += usize::from(queue.options.default);
        let new = queue.children.iter().map(String::as_str).filter(|c| !names.contains(c));
        let new: Vec<&str> = new.collect();
        names.extend(new);
    }
    if defaults != 1 && altq.scheduler != Scheduler::Codel && !altq.options.default {
        faults.push(Fault::new(altq.at, format!("{} has {defaults} default queues", altq.interface)).help(
            format!(
                "should have one default queue on {}: {}(default)",
                altq.interface,
                altq.scheduler.keyword()
            ),
        ));
    }
}

fn check_queue(altq: &AltqSpec, queue: &QueueSpec, priorities: &mut HashSet<u8>, faults: &mut Vec<Fault>) {
    if let Some(scheduler) = queue.scheduler.filter(|&s| s != altq.scheduler) {
        faults.push(Fault::new(
            queue.at,
            format!(
                "queue `{}` is {} and its interface {} is {}",
                queue.name,
                scheduler.keyword(),
                altq.interface,
                altq.scheduler.keyword()
            ),
        ));
    }
    let priority = queue.priority.unwrap_or(1);
    if priority > altq.scheduler.max_priority() {
        faults.push(Fault::new(
            queue.at,
            format!("priority out of range: max {}", altq.scheduler.max_priority()),
        ));
    }
    if altq.scheduler == Scheduler::Priq {
        if queue.bandwidth.is_some() {
            faults.push(Fault::new(queue.at, "a priq queue has no bandwidth").help("give it a priority"));
        }
        if !priorities.insert(priority) {
            faults.push(Fault::new(
                queue.at,
                format!("two queues of {} have priority {priority}", altq.interface),
            ));
        }
    }
}
