//! From statements to a configuration: settings, tables, anchors and Ethernet rules. What lists expand to is in
//! [`super::product`].

use super::{
    PfConf, Table, addresses,
    altq::{AltqSpec, QueueSpec},
    ast::{
        Antispoof, At, EtherDef, HostDef, HostWord, KeepDef, RuleDef, Setting, Statement, TableDef, TablePart,
    },
    check,
    error::{Fault, Parsed, Pos},
    options::{Limit, Options, Reassemble, Syncookies},
    product, resolve,
};
use crate::{
    env::Environment,
    ether::EtherRule,
    limiter::Limiter,
    print,
    rule::{Action, AnchorCall, Direction, Dynamic, On, Part, Peer, Reply, Rule, Rules},
    timeout::{Timeout, Timeouts},
};

/// Builds the configuration, statement by statement.
pub(crate) struct Expander<'a> {
    pub(super) env: &'a Environment,
    pub(super) conf: PfConf,
    pub(super) defaults: KeepDef,
    timeouts_set: Vec<Timeout>,
    /// Options are added to others (`pfctl -m`).
    merges: bool,
    /// `set limit states` has been said.
    limits_states: bool,
    /// The anchor that everything is in: that of `-a` or of `load anchor`.
    base: String,
    /// The anchors whose braces are open: path, and where they began.
    open: Vec<(String, Pos)>,
    /// How many anchors without a name there are.
    unnamed: usize,
    pub(crate) warnings: Vec<Fault>,
}

impl<'a> Expander<'a> {
    /// What `set` does not say is as in `options`, if there are any.
    pub(crate) fn new(env: &'a Environment, anchor: &str, options: Option<&Options>) -> Expander<'a> {
        Expander {
            env,
            conf: PfConf { options: options.cloned().unwrap_or_default(), ..PfConf::default() },
            merges: options.is_some(),
            limits_states: false,
            defaults: KeepDef::default(),
            timeouts_set: Vec::new(),
            base: anchor.trim_matches('/').to_owned(),
            open: Vec::new(),
            unnamed: 0,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn into_conf(self) -> PfConf {
        let mut conf = self.conf;
        if !self.merges || self.limits_states {
            conf.options.derive_adaptive(&self.timeouts_set);
        }
        conf
    }

    /// Checks what takes the whole file to know.
    pub(crate) fn check_whole(&self) -> Vec<Fault> {
        check::whole(&self.conf)
    }

    /// Checks what a load needs and a listing does not; `loaded` is whether it is read for an anchor alone.
    pub(crate) fn check_engines(&self, loaded: bool) -> Vec<Fault> {
        check::limiters(&self.conf, loaded)
    }

    pub(crate) fn macro_line(&mut self, name: &str, value: &str) {
        self.line(format!("{name} = \"{value}\""));
    }

    /// `load anchor` is printed where it stands.
    pub(crate) fn load_line(&mut self, name: &str, file: &str) {
        self.line(format!("load anchor {} from {}", print::quoted(name), print::quoted(file)));
    }

    /// What is printed before the rules of the present anchor.
    fn line(&mut self, line: String) {
        let path = self.path().to_owned();
        let lines =
            if path.is_empty() { &mut self.conf.preamble } else { &mut self.conf.anchor_mut(&path).preamble };
        lines.push(line);
    }

    /// The path of the anchor whose rules are being read; empty for the main ruleset.
    fn path(&self) -> &str {
        self.open.last().map_or(&self.base, |(path, _)| path)
    }

    pub(super) fn is_in_anchor(&self) -> bool {
        !self.path().is_empty()
    }

    /// The rules that are being read.
    pub(super) fn rules_mut(&mut self) -> &mut Rules {
        let path = self.path().to_owned();
        if path.is_empty() { &mut self.conf.rules } else { &mut self.conf.anchor_mut(&path).rules }
    }

    /// Where the anchor that is written like this is, seen from the present one: `a/b`, without a wildcard.
    pub(crate) fn path_of(&self, name: &str) -> String {
        let plain = name.strip_suffix('*').unwrap_or(name).trim_end_matches('/');
        match name.strip_prefix('/') {
            Some(_) => plain.trim_start_matches('/').to_owned(),
            None if self.path().is_empty() => plain.to_owned(),
            None if plain.is_empty() => self.path().to_owned(),
            None => {
                let mut parts: Vec<&str> = self.path().split('/').collect();
                for part in plain.split('/') {
                    if part == ".." {
                        parts.pop();
                    } else {
                        parts.push(part);
                    }
                }
                parts.join("/")
            }
        }
    }

    /// What follows belongs to this anchor.
    pub(crate) fn enter(&mut self, path: String) {
        self.base = path;
    }

    /// The file ends; every anchor must have ended.
    pub(crate) fn leave_all(&mut self) -> Vec<Fault> {
        let unclosed = |(_, at): (String, Pos)| {
            Fault::new(at, "the rules of this anchor never end").help("`}` on a line of its own ends them")
        };
        self.open.drain(..).map(unclosed).collect()
    }

    /// Finds the path of a call, and opens its braces.
    fn call(&mut self, call: &mut AnchorCall, at: Pos) {
        call.path = if call.name.is_empty() {
            self.unnamed += 1;
            self.path_of(&format!("_{}", self.unnamed))
        } else {
            self.path_of(&call.name)
        };
        if call.inline {
            self.open.push((call.path.clone(), at));
            self.rules_mut();
        }
    }

    /// Opens the braces of a call that is wrong, so that its rules are still checked.
    pub(crate) fn open_broken(&mut self, at: Pos) {
        self.unnamed += 1;
        let path = self.path_of(&format!("_{}", self.unnamed));
        self.open.push((path, at));
    }

    /// Takes a statement in; gives back what is wrong with it.
    pub(crate) fn statement(&mut self, statement: Statement) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(fault) = self.out_of_place(&statement) {
            return vec![fault];
        }
        match statement {
            Statement::Set(settings) => settings.into_iter().for_each(|s| self.setting(s.value)),
            Statement::Table(def) => faults.extend(self.table(&def).err()),
            Statement::Altq(specs) => specs.into_iter().for_each(|s| self.altq(s.value)),
            Statement::Queue(spec) => self.queue(spec.value),
            Statement::Rule(def) => self.rule_or_call(*def, &mut faults),
            Statement::Ether(def) => faults.extend(self.ether(*def).err()),
            Statement::Antispoof(def) => faults.extend(self.antispoof(&def).err()),
            Statement::Limiter(limiter) => faults.extend(self.limiter(*limiter).err()),
            Statement::EndAnchor(at) => {
                if self.open.pop().is_none() {
                    faults.push(Fault::new(at, "syntax error: `}` ends nothing"));
                }
            }
            Statement::Macro { .. } | Statement::Include(_) | Statement::LoadAnchor { .. } => {}
        }
        faults
    }

    /// Options and queues are those of the whole filter.
    fn out_of_place(&self, statement: &Statement) -> Option<Fault> {
        if self.path().is_empty() {
            return None;
        }
        let (at, word) = match statement {
            Statement::Set(settings) => (settings.first()?.at, "set"),
            Statement::Altq(specs) => (specs.first()?.at, "altq"),
            Statement::Queue(spec) => (spec.at, "queue"),
            Statement::Limiter(limiter) => (limiter.at, "limiter"),
            _ => return None,
        };
        Some(
            Fault::new(at, format!("`{word}` has no place in an anchor"))
                .help("write it outside of all anchors"),
        )
    }

    fn rule_or_call(&mut self, mut def: RuleDef, faults: &mut Vec<Fault>) {
        let Some(mut call) = def.rule.anchor.take() else { return self.rule(&def, faults) };
        let at = def.at;
        let open = self.open.len();
        let parent = self.path().to_owned();
        self.call(&mut call, at);
        def.rule.anchor = Some(call);
        // The call itself stands outside of its braces.
        let inner: Vec<_> = self.open.drain(open..).collect();
        debug_assert_eq!(self.path(), parent);
        self.rule(&def, faults);
        self.open.extend(inner);
    }

    fn ether(&mut self, mut def: EtherDef) -> Parsed<()> {
        let mut inner = Vec::new();
        if let Some(mut call) = def.rule.anchor.take() {
            let open = self.open.len();
            self.call(&mut call, def.rule.at);
            def.rule.anchor = Some(call);
            inner = self.open.drain(open..).collect();
        }
        let made = self.ether_rules(&def);
        match made {
            Ok(rules) => self.rules_mut().ether.extend(rules),
            Err(fault) => {
                self.open.extend(inner);
                return Err(fault);
            }
        }
        self.open.extend(inner);
        Ok(())
    }

    fn ether_rules(&self, def: &EtherDef) -> Parsed<Vec<EtherRule>> {
        let from = resolve::list(self.env, &def.l3_from, None)?;
        let to = resolve::list(self.env, &def.l3_to, None)?;
        let mut rules = Vec::new();
        for on in product::optional(&def.on) {
            for proto in product::optional(&def.proto) {
                for mac_from in product::optional(&def.from) {
                    for mac_to in product::optional(&def.to) {
                        for (src, dst) in from.iter().flat_map(|src| to.iter().map(move |dst| (src, dst))) {
                            if src.family.is_some() && dst.family.is_some() && src.family != dst.family {
                                continue;
                            }
                            rules.push(EtherRule {
                                on: on.map(|on| on.value.clone()),
                                proto: proto.copied(),
                                from: mac_from.copied(),
                                to: mac_to.copied(),
                                l3_from: Peer { not: src.not, host: src.host.clone(), port: None },
                                l3_to: Peer { not: dst.not, host: dst.host.clone(), port: None },
                                ..def.rule.clone()
                            });
                        }
                    }
                }
            }
        }
        if rules.is_empty() {
            return Err(Fault::new(def.rule.at, "rule expands to no valid combination")
                .help("its addresses are of different families"));
        }
        // The rules in its braces are printed once.
        for call in rules.iter_mut().skip(1).filter_map(|rule| rule.anchor.as_mut()) {
            call.inline &= call.name.is_empty();
        }
        Ok(rules)
    }

    fn limiter(&mut self, limiter: Limiter) -> Parsed<()> {
        let same_kind = |l: &&Limiter| l.by_source == limiter.by_source;
        for known in self.conf.limiters.iter().filter(same_kind) {
            if known.name == limiter.name || known.id == limiter.id {
                return Err(Fault::new(
                    limiter.at,
                    format!("limiter `{}` id {} is defined twice", limiter.name, limiter.id),
                )
                .help("each has a name and an id of its own"));
            }
        }
        self.line(print::limiter(&limiter));
        self.conf.limiters.push(limiter);
        Ok(())
    }

    fn setting(&mut self, setting: Setting) {
        let line = self.apply(setting);
        self.conf.preamble.push(format!("set {line}"));
    }

    /// Puts a setting into the options and says how it is printed.
    fn apply(&mut self, setting: Setting) -> String {
        let options = &mut self.conf.options;
        match setting {
            Setting::Skip(names) if names.is_empty() => "skip on none".to_owned(),
            Setting::Skip(names) => {
                let line = format!("skip on {{ {} }}", names.join(" "));
                options.skip.extend(names);
                line
            }
            Setting::BlockPolicy(reply) => {
                options.block_policy = reply;
                format!("block-policy {}", policy(reply))
            }
            Setting::FailPolicy(reply) => {
                options.fail_policy = reply;
                format!("fail-policy {}", policy(reply))
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
            Setting::Optimizer(optimizer) => {
                options.optimizer = Some(optimizer);
                format!("ruleset-optimization {}", optimizer.keyword())
            }
            Setting::Limit(limit, n) => {
                options.limits.set(limit, n);
                if limit == Limit::States {
                    (options.limit_states, self.limits_states) = (n, true);
                }
                format!("limit {} {n}", limit.keyword())
            }
            Setting::Timeout(timeout, seconds) => {
                options.timeouts.set(timeout, seconds);
                self.timeouts_set.push(timeout);
                format!("timeout {} {seconds}", timeout.keyword())
            }
            Setting::StateDefaults(def) => {
                let line = print::state_defaults(&def.keep, def.bound, def.track_at.is_some());
                self.defaults = def;
                line
            }
            other => self.apply_rare(other),
        }
    }

    fn apply_rare(&mut self, setting: Setting) -> String {
        let options = &mut self.conf.options;
        match setting {
            Setting::LogInterface(name) => {
                let line = format!("loginterface {}", name.as_deref().unwrap_or("none"));
                options.log_interface = name;
                line
            }
            Setting::Fingerprints(file) => {
                let line = format!("fingerprints {}", print::quoted(&file));
                options.fingerprints = Some(file);
                line
            }
            Setting::HostId(id) => {
                options.host_id = Some(id);
                format!("hostid 0x{id:08x}")
            }
            Setting::Reassemble(yes, no_df) => {
                options.reassemble = yes.then_some(Reassemble { no_df });
                format!("reassemble {}{}", if yes { "yes" } else { "no" }, if no_df { " no-df" } else { "" })
            }
            Setting::Syncookies(cookies) => {
                options.syncookies = cookies;
                match cookies {
                    Syncookies::Never => "syncookies never".to_owned(),
                    Syncookies::Always => "syncookies always".to_owned(),
                    Syncookies::Adaptive { start, end } => {
                        format!("syncookies adaptive (start {start}%, end {end}%)")
                    }
                }
            }
            Setting::Debug(level) => {
                options.debug = level;
                format!("debug {}", level.keyword())
            }
            Setting::KeepCounters => {
                options.keep_counters = true;
                "keepcounters".to_owned()
            }
            Setting::RequireOrder(yes) => format!("require-order {}", if yes { "yes" } else { "no" }),
            _ => String::new(),
        }
    }

    fn table(&mut self, def: &TableDef) -> Parsed<()> {
        let anchor = self.path().to_owned();
        if self.conf.tables.iter().any(|t| t.name == def.name.value && t.anchor == anchor) {
            return Err(Fault::new(def.name.at, format!("table <{}> is defined twice", def.name.value)));
        }
        let mut table = Table {
            name: def.name.value.clone(),
            anchor,
            constant: def.constant,
            persist: def.persist,
            counters: def.counters,
            keeps: def.parts.is_empty(),
            entries: Vec::new(),
        };
        let mut parts = Vec::new();
        for part in &def.parts {
            match part {
                TablePart::List(list) => {
                    let mut entries = Vec::new();
                    for entry in list {
                        entries.extend(addresses::entries(self.env, entry)?);
                    }
                    table.entries.extend(entries.iter().copied());
                    parts.push(print::TablePart::List(entries));
                }
                TablePart::File { name, entries } => {
                    table.entries.extend(entries);
                    parts.push(print::TablePart::File(name.value.clone()));
                }
            }
        }
        self.line(print::table(&table, &parts));
        self.conf.tables.push(table);
        Ok(())
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
            let rule = RuleDef::new(def.at, Action::Block(Reply::Drop));
            let base = RuleDef {
                rule: Rule {
                    direction: Some(Direction::In),
                    log: def.log,
                    quick: def.quick,
                    family: def.family,
                    ridentifier: def.ridentifier,
                    rtable: def.rtable,
                    ..rule.rule.clone()
                },
                labels: def.labels.clone(),
                ..rule
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
}

const fn policy(reply: Reply) -> &'static str {
    match reply {
        Reply::Return => "return",
        _ => "drop",
    }
}

fn interface_word(dynamic: bool, name: &str, part: Part) -> HostWord {
    if dynamic {
        HostWord::Dynamic(Dynamic { interface: name.to_owned(), part, no_alias: false, len: None })
    } else {
        HostWord::Name(format!("{name}{}", part.suffix()))
    }
}
