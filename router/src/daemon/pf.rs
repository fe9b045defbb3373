//! pfctl's orders at the router's end: on and off, loading, flushing, killing.

use super::Daemon;
use crate::{
    commit::{Faults, environment},
    control::{
        pf::{
            DoneReport, Flush, Kill, LabelReport, LimitReport, LoadReport, Part, PfAnswer, PfInterfaceReport,
            PfLoad, PfRequest,
        },
        proto::{RefusalKind, Response},
    },
};
use pf::{
    PfConf, StateInfo,
    addr::{Family, Prefix, bits},
    conf::ConfError,
    table::parse_entry,
};
use std::{net::IpAddr, sync::Arc};

impl Daemon {
    pub(super) fn pf(&mut self, request: &PfRequest) -> Response {
        let answer = match request {
            PfRequest::Enable(on) => self.enable(*on).map(PfAnswer::Done),
            PfRequest::Load(load) => self.load(load).map(PfAnswer::Loaded),
            PfRequest::Flush { what, anchor } => self.flush(*what, anchor).map(PfAnswer::Done),
            PfRequest::Kill(kill) => self.kill(kill).map(PfAnswer::Done),
            PfRequest::Tables { anchor } => Ok(PfAnswer::Tables(self.tables(anchor))),
            PfRequest::Table(request) => self.table(request).map(PfAnswer::Table),
            PfRequest::Timeouts => {
                Ok(PfAnswer::Timeouts(self.pf_conf().map_or(Vec::new(), pf::show::timeouts)))
            }
            PfRequest::Limits => Ok(PfAnswer::Limits(self.limits())),
            PfRequest::Labels => Ok(PfAnswer::Labels(self.labels())),
            PfRequest::Interfaces => Ok(PfAnswer::Interfaces(self.pf_interfaces())),
        };
        match answer {
            Ok(answer) => Response::Pf(answer),
            Err(message) => Response::refused(RefusalKind::No, message),
        }
    }

    fn pf_conf(&self) -> Option<&PfConf> {
        self.files.pf.as_deref()
    }

    /// `-e`, `-d`: the ruleset stays compiled, its counters and states stay.
    fn enable(&mut self, on: bool) -> Result<DoneReport, String> {
        let is_on = self.router.net().pf.is_some();
        if on == is_on {
            return Err(format!("pf already {}", if on { "enabled" } else { "disabled" }));
        }
        if on && self.parked.is_none() {
            self.replace_pf(Some(Arc::default())).map_err(|faults| faults.to_string())?;
        } else {
            let mut net = self.router.net().clone();
            std::mem::swap(&mut net.pf, &mut self.parked);
            self.router.apply(&mut self.root, net).map_err(|late| late.to_string())?;
        }
        Ok(done(if on { "pf enabled" } else { "pf disabled" }, 0))
    }

    /// The ruleset, in force or parked by `-d`.
    pub(super) fn ruleset(&self) -> Option<&Arc<pf::Ruleset>> {
        self.router.net().pf.as_ref().or(self.parked.as_ref())
    }

    fn load(&mut self, load: &PfLoad) -> Result<LoadReport, String> {
        let env = environment(&self.files.conf);
        // `-n` reads all of the language; only a load needs an engine for each part of it.
        let reading =
            pf::conf::Reading { env: &env, defines: &load.defines, anchor: "", engines: !load.check };
        let conf = reading.text(&load.name, &load.text);
        let conf = conf.map_err(|errors| {
            let each: Vec<String> = errors.iter().map(ConfError::with_caret).collect();
            format!("{}\nSyntax error in config file: pf rules not loaded", each.join("\n"))
        })?;
        let conf = Arc::new(self.parts_of(conf, &load.parts));
        let report = LoadReport {
            text: pf::print::listing(&conf, &env),
            warnings: conf.warnings.iter().map(ConfError::with_caret).collect(),
            rules: conf.rules.filter.len(),
        };
        if !load.check {
            self.replace_pf(Some(conf)).map_err(|faults| faults.to_string())?;
        }
        Ok(report)
    }

    /// What is loaded now, with these parts taken from the new; all of the new if none is named.
    fn parts_of(&self, new: PfConf, parts: &[Part]) -> PfConf {
        if parts.is_empty() {
            return new;
        }
        let mut conf = self.pf_conf().cloned().unwrap_or_default();
        for part in parts {
            match part {
                Part::Options => conf.options = new.options.clone(),
                Part::Rules => {
                    conf.rules.clone_from(&new.rules);
                    conf.anchors.clone_from(&new.anchors);
                }
                Part::Tables => conf.tables.clone_from(&new.tables),
                Part::Queues => {
                    conf.altqs.clone_from(&new.altqs);
                    conf.queues.clone_from(&new.queues);
                }
            }
        }
        PfConf { preamble: new.preamble, warnings: new.warnings, ..conf }
    }

    fn replace_pf(&mut self, conf: Option<Arc<PfConf>>) -> Result<(), Faults> {
        let old = std::mem::replace(&mut self.files.pf, conf);
        self.commit_files().inspect_err(|_| self.files.pf = old)
    }

    fn flush(&mut self, what: Flush, anchor: &str) -> Result<DoneReport, String> {
        let mut conf = self.pf_conf().cloned().unwrap_or_default();
        match what {
            Flush::States => {
                let count = self.kill_states(|_| true);
                return Ok(done(&format!("{count} states cleared"), count));
            }
            Flush::Tables => {
                let count = self.router.shared().pf.tables().clear(anchor);
                return Ok(done(&format!("{count} tables deleted"), count));
            }
            Flush::Rules => {
                conf.rules = pf::rule::Rules::default();
                conf.anchors.clear();
            }
            Flush::Queues => {
                conf.altqs.clear();
                conf.queues.clear();
                conf.rules.filter.iter_mut().for_each(|r| r.queue = None);
            }
        }
        self.replace_pf(Some(Arc::new(conf))).map_err(|faults| faults.to_string())?;
        Ok(done(if what == Flush::Rules { "rules cleared" } else { "altq cleared" }, 0))
    }

    fn kill(&mut self, kill: &Kill) -> Result<DoneReport, String> {
        let count = match kill {
            Kill::Id(id) => {
                let id = id.split('/').next().unwrap_or("");
                let id = u64::from_str_radix(id, 16).map_err(|_| format!("cannot parse state id `{id}`"))?;
                self.kill_states(|s| s.id == id)
            }
            Kill::Label(label) => {
                let slots = self.ruleset().map_or_else(Vec::new, |rules| rules.labelled(label));
                self.kill_states(|s| slots.contains(&s.slot))
            }
            Kill::Hosts(from, to) => {
                let from = host(from)?;
                let to = to.as_deref().map(host).transpose()?;
                let count = self.kill_states(|s| {
                    let [(a, _), (b, _)] = s.wire;
                    within(&from, a) && to.as_ref().is_none_or(|to| within(to, b))
                });
                let text = format!(
                    "killed {count} states from 1 sources and {} destinations",
                    u8::from(to.is_some())
                );
                return Ok(done(&text, count));
            }
        };
        Ok(done(&format!("killed {count} states"), count))
    }

    fn kill_states(&mut self, doomed: impl FnMut(&StateInfo) -> bool) -> u64 {
        let shared = self.router.shared().clone();
        u64::from(shared.pf.kill_states(&mut self.root.top().at(), doomed))
    }

    fn limits(&self) -> Vec<LimitReport> {
        let limit = |name: &str, limit: u64| LimitReport { name: name.into(), limit };
        let pf = &self.router.shared().pf;
        let (tables, entries) = pf.tables().limits();
        vec![
            limit("states", pf.states().limit().into()),
            limit("tables", tables.into()),
            limit("table-entries", entries.into()),
        ]
    }

    /// The labels of the main ruleset, then those of each anchor.
    fn labels(&self) -> Vec<LabelReport> {
        let Some(rules) = self.ruleset() else { return Vec::new() };
        let env = environment(&self.files.conf);
        let each = |rule: pf::show::RuleInfo| {
            let lines = rule.label_lines();
            rule.labels
                .into_iter()
                .zip(lines)
                .map(|(label, text)| LabelReport { label, text })
                .collect::<Vec<_>>()
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

fn done(text: &str, count: u64) -> DoneReport {
    DoneReport { text: text.to_owned(), count }
}

/// A host or network of `-k`.
fn host(text: &str) -> Result<Prefix, String> {
    parse_entry(text).map(|e| e.prefix)
}

fn within(prefix: &Prefix, address: IpAddr) -> bool {
    let (first, last) = prefix.range();
    prefix.family() == Family::of(address) && (first..=last).contains(&bits(address))
}
