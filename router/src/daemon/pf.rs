//! pfctl's orders at the router's end: on and off, and what is shown.

use super::Daemon;
use crate::{
    commit::environment,
    control::{
        pf::{
            AnchorName, DoneReport, FingerprintsReport, LabelReport, LimitReport, PfAnswer,
            PfInterfaceReport, PfRequest, RulesReport, SourceReport, TimeoutReport, Told,
        },
        proto::{RefusalKind, Response},
        tell::Telling,
    },
};
use pf::{Environment, Fresh, PfConf, anchor, conf::Limit, debug::Level};
use std::{collections::BTreeSet, sync::Arc};

impl Daemon {
    pub(super) fn pf(&mut self, request: &PfRequest) -> Response {
        let answer = match request {
            PfRequest::Enable(on) => self.enable(*on).map(PfAnswer::Done),
            PfRequest::Load(load) => self.load(load).map(PfAnswer::Loaded),
            PfRequest::Flush { what, anchor, interface } => {
                self.flush(*what, anchor, interface.as_deref()).map(PfAnswer::Done)
            }
            PfRequest::Kill { which, interface } => {
                self.kill(which, interface.as_deref()).map(PfAnswer::Done)
            }
            PfRequest::KillSources(from, to) => self.kill_sources(from, to.as_deref()).map(PfAnswer::Done),
            PfRequest::ClearCounters(anchor) => self.clear_rules(anchor).map(PfAnswer::Done),
            PfRequest::ForgetSource(id, host) => self.forget_source(*id, host).map(PfAnswer::Done),
            PfRequest::Limiters { by_source } => Ok(PfAnswer::Limiters(self.limiters(*by_source))),
            PfRequest::Debug(level) => Ok(PfAnswer::Done(self.debug(*level))),
            PfRequest::Creators => Ok(PfAnswer::Creators(self.creators())),
            PfRequest::Sources => Ok(PfAnswer::Sources(self.sources())),
            PfRequest::Rules { which, anchor, numeric } => {
                self.rules(*which, anchor, *numeric).map(PfAnswer::Rules)
            }
            PfRequest::Anchors { anchor, all } => self.anchors_below(anchor, *all).map(PfAnswer::Anchors),
            PfRequest::Tables { anchor } => Ok(PfAnswer::Tables(self.tables(anchor))),
            PfRequest::Table(request) => self.table(request).map(PfAnswer::Table),
            PfRequest::Explain { packet, load } => {
                self.explain(packet, load.as_ref()).map(|e| PfAnswer::Explained(Box::new(e)))
            }
            PfRequest::Timeouts => Ok(PfAnswer::Timeouts(self.timeouts())),
            PfRequest::Limits => Ok(PfAnswer::Limits(self.limits())),
            PfRequest::Fingerprints => Ok(PfAnswer::Fingerprints(self.fingerprints())),
            PfRequest::Labels => Ok(PfAnswer::Labels(self.labels())),
            PfRequest::Interfaces => Ok(PfAnswer::Interfaces(self.pf_interfaces())),
        };
        match answer {
            Ok(answer) => Response::Pf(answer),
            Err(message) => Response::refused(RefusalKind::No, message),
        }
    }

    pub(super) fn pf_conf(&self) -> Option<&PfConf> {
        self.files.pf.as_deref()
    }

    /// `-e`, `-d`: the ruleset stays compiled, its counters and states stay.
    fn enable(&mut self, on: bool) -> Result<DoneReport, String> {
        let is_on = self.router.net().pf.is_some();
        if on == is_on {
            return Err(format!("pf already {}", if on { "enabled" } else { "disabled" }));
        }
        if on && self.parked.is_none() {
            self.change_pf((PfConf::default(), Fresh::default())).map_err(|faults| faults.to_string())?;
        }
        let mut net = self.router.net().clone();
        std::mem::swap(&mut net.pf, &mut self.parked);
        self.router.apply(&mut self.root, net).map_err(|late| late.to_string())?;
        self.disabled = !on;
        if on {
            self.loaded_at = std::time::Instant::now();
        }
        Ok(done(if on { "pf enabled" } else { "pf disabled" }, 0))
    }

    /// `-x`: until something that sets options is loaded.
    fn debug(&mut self, level: Level) -> DoneReport {
        self.router.shared().pf.set_debug_level(level);
        // A load of rules alone, or with `-m`, leaves options as they are.
        if let Some(conf) = &mut self.files.pf {
            Arc::make_mut(conf).options.debug = level;
        }
        done(&format!("debug level set to '{}'", level.keyword()), 0)
    }

    /// Who has made the states that there are.
    fn creators(&mut self) -> Vec<u32> {
        let shared = self.router.shared().clone();
        let states = shared.pf.states().dump(&mut self.root.top().at(), 0);
        let ids: BTreeSet<u32> = states.iter().map(|state| state.creator).collect();
        ids.into_iter().collect()
    }

    /// The ruleset, in force or parked by `-d`.
    pub(super) fn ruleset(&self) -> Option<&Arc<pf::Ruleset>> {
        self.router.net().pf.as_ref().or(self.parked.as_ref())
    }

    /// The anchors there are: those of the rules, and those that only have tables.
    pub(super) fn anchor_paths(&self) -> BTreeSet<String> {
        let mut paths = self.pf_conf().map(anchor::paths).unwrap_or_default();
        for table in self.router.shared().pf.tables().list(None) {
            anchor::add_path(&mut paths, &table.anchor);
        }
        paths
    }

    fn must_exist(&self, path: &str) -> Result<(), String> {
        if path.is_empty() || self.anchor_paths().contains(path) {
            return Ok(());
        }
        Err(format!("Anchor '{path}' not found."))
    }

    /// The paths that `-a` names, of these that there are.
    pub(super) fn named(&self, name: &AnchorName) -> Vec<String> {
        let below = anchor::join(&name.path, "");
        let more = self
            .anchor_paths()
            .into_iter()
            .filter(|p| name.recurse && p.starts_with(&below) && *p != name.path);
        std::iter::once(name.path.clone()).chain(more).collect()
    }

    fn rules(&self, which: Told, anchor: &AnchorName, numeric: bool) -> Result<RulesReport, String> {
        self.must_exist(&anchor.path)?;
        let env = Environment { numeric_ports: numeric, ..environment(&self.files.conf) };
        let tell = |rules: &Arc<pf::Ruleset>| {
            Telling { rules, env: &env, which, recurse: anchor.recurse }.at(&anchor.path)
        };
        let rules = self.ruleset().map(tell).unwrap_or_default();
        Ok(RulesReport { uid: rustix::process::getuid().as_raw(), pid: std::process::id(), rules })
    }

    /// `-z`, about which pfctl says nothing.
    fn clear_rules(&self, anchor: &AnchorName) -> Result<DoneReport, String> {
        self.must_exist(&anchor.path)?;
        if let Some(rules) = self.ruleset() {
            self.named(anchor).iter().for_each(|path| rules.clear_counters(path));
        }
        Ok(DoneReport::default())
    }

    fn sources(&mut self) -> Vec<SourceReport> {
        let now = self.router.shared().clock.now().secs() as u32;
        let all = self.router.shared().pf.sources(&mut self.root.top().at(), now);
        let one = |s: pf::track::SourceInfo| SourceReport {
            text: s.line(),
            verbose: format!("{}\n{}", s.line(), s.details()),
            source: s.source.to_string(),
            address: s.address.map(|a| a.to_string()),
            states: s.states,
            connections: s.connections,
            rate: s.rate.0 as f64 / 1000.0,
            rate_s: s.rate.1,
            rule: s.number,
            age_s: s.age,
            expires_s: s.expires,
        };
        all.into_iter().map(one).collect()
    }

    fn anchors_below(&self, path: &str, all: bool) -> Result<Vec<String>, String> {
        self.must_exist(path)?;
        let mut found = Vec::new();
        descend(&self.anchor_paths(), path, all, &mut found);
        Ok(found)
    }

    fn timeouts(&self) -> Vec<TimeoutReport> {
        let none = PfConf::default();
        let report = |t: pf::show::TimeoutInfo| TimeoutReport {
            name: t.name.into(),
            value: t.value,
            unit: t.unit.into(),
        };
        pf::show::timeouts(self.pf_conf().unwrap_or(&none)).into_iter().map(report).collect()
    }

    fn limits(&self) -> Vec<LimitReport> {
        let limits = self.pf_conf().map(|conf| conf.options.limits).unwrap_or_default();
        let report =
            |(limit, name): (Limit, &str)| LimitReport { name: name.into(), limit: limits.get(limit).into() };
        Limit::ALL.into_iter().map(report).collect()
    }

    fn fingerprints(&self) -> FingerprintsReport {
        let known = self.pf_conf().map(|conf| &conf.fingerprints);
        known.map_or_else(FingerprintsReport::default, |known| FingerprintsReport {
            count: known.count(),
            text: known.table(),
        })
    }

    /// The labels of the main ruleset, then those of each anchor.
    fn labels(&self) -> Vec<LabelReport> {
        let Some(rules) = self.ruleset() else { return Vec::new() };
        let env = environment(&self.files.conf);
        let each = |rule: pf::show::RuleInfo| {
            let lines = rule.label_lines();
            let report = |(label, text)| LabelReport {
                label,
                text,
                evaluations: rule.evaluations,
                packets: rule.packets,
                bytes: rule.bytes,
                created: rule.states_made,
            };
            rule.labels.into_iter().zip(lines).map(report).collect::<Vec<_>>()
        };
        let paths = std::iter::once(String::new()).chain(pf::anchor::paths(rules.conf()));
        let all = paths.flat_map(|path| pf::show::rules(rules, &path, pf::Kind::Filter, &env));
        all.flat_map(each).collect()
    }

    fn pf_interfaces(&self) -> Vec<PfInterfaceReport> {
        let skipped = |name: &str| self.pf_conf().is_some_and(|c| c.options.skip.iter().any(|s| s == name));
        let env = environment(&self.files.conf);
        let one = |i: pf::env::Interface| PfInterfaceReport { skip: skipped(&i.name), name: i.name };
        env.interfaces.into_iter().map(one).collect()
    }
}

/// Finds the anchors below a path, each before those below it.
fn descend(paths: &BTreeSet<String>, path: &str, all: bool, found: &mut Vec<String>) {
    for name in anchor::names_below(paths, path) {
        let below = anchor::join(path, name);
        if all || !below.starts_with('_') {
            found.push(below.clone());
        }
        if all {
            descend(paths, &below, all, found);
        }
    }
}

pub(super) fn done(text: &str, count: u64) -> DoneReport {
    DoneReport { text: text.to_owned(), count }
}
