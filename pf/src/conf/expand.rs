//! From statements to a configuration: lists become rules, names become addresses, and what cannot mean anything is
//! refused.
//!
//! A list expands to the cross product, in pfctl's order, the last varying fastest: interface, protocol, ICMP type,
//! source host, source port, destination host, destination port. Combinations of two families are left out; a rule of
//! which nothing remains is an error.

use super::{
    PfConf, Table,
    altq::{AltqSpec, QueueSpec},
    ast::{
        Antispoof, At, BlockWord, HostDef, HostWord, IcmpDef, KeepDef, RuleDef, Setting, StateWord,
        Statement, TableDef,
    },
    check,
    error::{Fault, Parsed},
    label,
    resolve::{self, Resolved},
    set,
};
use crate::{
    addr::{Entry, Family},
    env::Environment,
    print,
    rule::{
        Action, Direction, Dynamic, Host, IcmpMatch, Keep, On, Part, Ports, Reply, Rule, Tagged, TcpFlags,
    },
    timeout::{Timeout, Timeouts},
};

const TCP: u8 = 6;

/// Builds the configuration, statement by statement.
pub(crate) struct Expander<'a> {
    env: &'a Environment,
    conf: PfConf,
    defaults: KeepDef,
    timeouts_set: Vec<Timeout>,
    pub(crate) warnings: Vec<Fault>,
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

    /// Checks what takes the whole file to know.
    pub(crate) fn check_whole(&self) -> Vec<Fault> {
        check::whole(&self.conf)
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
        resolve::one(self.env, def, None)?
            .into_iter()
            .map(|r| match r.host {
                Host::Prefix(prefix) => Ok(Entry { not: r.not, prefix }),
                Host::Any => {
                    Ok(Entry { not: r.not, prefix: resolve::everything(r.family.unwrap_or(Family::Inet)) })
                }
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
        let hosts = |list: &[HostDef]| resolve::list(self.env, list, def.family);
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
        let (Ok(family), Ok(on)) = (c.family(def.family), c.interface()) else { return Ok(()) };
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
        check::rule(def, &rule, c.proto, c.sport.or(c.dport), c.icmp)?;
        let number = self.conf.rules.len();
        rule.labels = expand_labels(def, &rule, number)?;
        rule.tag = def.tag.as_ref().map(|t| label::expand(&t.value, &rule, number));
        let expand = |t: &Tagged| Tagged { not: t.not, name: label::expand(&t.name, &rule, number) };
        rule.tagged = def.tagged.as_ref().map(expand);
        self.conf.rules.push(rule);
        Ok(())
    }
}

/// The parts of a combination belong to different families or interfaces: there is no such packet.
struct Disagree;

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
    /// The family of all parts, if any has one.
    fn family(&self, said: Option<Family>) -> Result<Option<Family>, Disagree> {
        let mut family = said;
        for part in [self.src.family, self.dst.family].into_iter().flatten() {
            match family {
                Some(f) if f != part => return Err(Disagree),
                _ => family = Some(part),
            }
        }
        Ok(family)
    }

    /// The interface of all parts, a link-local address having one.
    fn interface(&self) -> Result<Option<On>, Disagree> {
        let mut on = self.on.map(|on| on.value.clone());
        for scope in [&self.src.scope, &self.dst.scope].into_iter().flatten() {
            match &on {
                Some(known) if &known.name != scope => return Err(Disagree),
                Some(_) => {}
                None => on = Some(On { not: false, name: scope.clone() }),
            }
        }
        Ok(on)
    }
}

/// The items of a list, or once nothing if it is empty.
fn optional<T>(list: &[T]) -> Vec<Option<&T>> {
    if list.is_empty() { vec![None] } else { list.iter().map(Some).collect() }
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
