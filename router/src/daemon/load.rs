//! Rulesets that change while the router runs: `pfctl -f`, `-F`, and what a reload makes of pf. What a file does not fill
//! stays, with its counters, and states stay in any case. A change that leaves the interface queues as they are replaces
//! nothing but the ruleset, so no packet is lost in them.

use super::{Daemon, pf::done};
use crate::{
    commit::{Faults, Files, environment},
    control::pf::{AnchorName, DoneReport, Flush, LoadReport, Part, PfLoad},
};
use pf::{
    Fresh, PfConf, Which,
    conf::{ConfError, Section},
    osfp::Fingerprints,
};
use std::sync::Arc;

/// So many states to a row of their table still fit into it, most of the time.
const CROWDED: u32 = 4;

/// A configuration, and what of it is not as it was.
pub(super) type Change = (PfConf, Fresh);

impl Daemon {
    pub(super) fn load(&mut self, load: &PfLoad) -> Result<LoadReport, String> {
        let env = environment(&self.files.conf);
        let conf = self.read_conf(load, &env)?;
        let env = pf::Environment { numeric_ports: load.numeric, ..env };
        let mut report = LoadReport {
            text: match load.anchor.as_str() {
                "" => pf::print::listing(&conf, &env),
                anchor => pf::print::anchor(&conf, anchor, &env),
            },
            warnings: conf.warnings.iter().map(ConfError::with_caret).collect(),
            rules: conf.rules.filter.len() + conf.anchors.iter().map(|a| a.rules.filter.len()).sum::<usize>(),
        };
        if load.anchor.is_empty() {
            report.warnings.extend(self.crowded(&conf));
        }
        if !load.check {
            let change = self.changed(&load.anchor, conf, &sections(&load.parts));
            self.change_pf(change).map_err(|faults| faults.to_string())?;
        }
        Ok(report)
    }

    /// Reads a ruleset for where another is loaded, and optimises it, maybe by what that has counted; `Err` is what pfctl
    /// says.
    pub(super) fn read_conf(&self, load: &PfLoad, env: &pf::Environment) -> Result<PfConf, String> {
        let loaded = self.ruleset().map(Arc::as_ref);
        // `-n` reads all of the language; only a load needs an engine for each part of it.
        let reading = pf::conf::Reading {
            env,
            defines: &load.defines,
            anchor: &load.anchor,
            fingerprints: fingerprints_for(load, loaded.map(pf::Ruleset::conf)),
            engines: !load.check,
            options: self.pf_conf().filter(|_| load.merge).map(|conf| &conf.options),
        };
        let mut conf = reading.text(&load.name, &load.text).map_err(|errors| {
            let each: Vec<String> = errors.iter().map(ConfError::with_caret).collect();
            format!("{}\nSyntax error in config file: pf rules not loaded", each.join("\n"))
        })?;
        pf::optimize::optimize(&mut conf, load.optimizer, loaded);
        Ok(conf)
    }

    /// What is to be said of a limit of states that is much higher than it was when the table's rows were made.
    pub(super) fn crowded(&self, conf: &PfConf) -> Option<String> {
        let (limit, rows) = (conf.options.limit_states, self.router.shared().pf.states().rows());
        (limit / CROWDED > rows).then(|| {
            format!(
                "set limit states {limit}: since its start the router has rows for {rows} states; it takes more, and \
                 finds them faster after a restart"
            )
        })
    }

    /// What is loaded now, with what was read for one ruleset put into it.
    fn changed(&self, anchor: &str, new: PfConf, sections: &[Section]) -> Change {
        match self.pf_conf() {
            Some(old) => old.with(anchor, new, sections),
            None => PfConf::default().with(anchor, new, sections),
        }
    }

    /// Puts a changed configuration of pf into force, or changes nothing. A pf that is off stays so, as one that never was
    /// on: loading does not enable.
    pub(super) fn change_pf(&mut self, (conf, fresh): Change) -> Result<(), Faults> {
        let never_on = self.ruleset().is_none();
        if never_on {
            self.parked = Some(Arc::new(self.router.shared().pf.disabled()));
        }
        let same_queues = self.pf_conf().is_some_and(|old| old.same_queues(&conf));
        let old = self.files.pf.replace(Arc::new(conf));
        let done = if same_queues { self.commit_ruleset(&fresh) } else { self.commit_files(Some(&fresh)) };
        done.inspect_err(|_| {
            self.files.pf = old;
            if never_on {
                self.parked = None;
            }
        })
    }

    /// Compiles the rules and publishes them, all else being as it is. A pf that is off stays so.
    fn commit_ruleset(&mut self, fresh: &Fresh) -> Result<(), Faults> {
        let old = self.ruleset().cloned();
        let over = old.as_deref().map(|old| (old, fresh));
        if self.parked.is_some() {
            let rules = self.commit.ruleset(&self.router, &self.files, over)?;
            self.park(rules.map(Arc::new));
            return Ok(());
        }
        self.commit.replace_rules(&mut self.router, &mut self.root, &self.files, over)?;
        self.loaded_at = std::time::Instant::now();
        Ok(())
    }

    /// Keeps rules for when pf is on again; their tables and limits are in force already.
    pub(super) fn park(&mut self, rules: Option<Arc<pf::Ruleset>>) {
        if let Some(rules) = &rules {
            let pf = &self.router.shared().pf;
            pf.enforce(&mut self.root.top().at(), rules);
            pf.retire();
        }
        self.parked = rules;
    }

    /// What of pf is fresh in files that were read again. The anchors that they do not fill come into them from what is
    /// loaded; none is fresh if there is nothing to keep.
    pub(super) fn kept_by(&self, files: &mut Files) -> Option<Fresh> {
        let (old, new) = (self.files.pf.as_ref()?, files.pf.take()?);
        let (conf, fresh) = old.with("", Arc::unwrap_or_clone(new), &Section::ALL);
        files.pf = Some(Arc::new(conf));
        // Rules are compiled for the addresses of interfaces.
        let same_world = environment(&self.files.conf) == environment(&files.conf);
        let rules = |fresh| if same_world { fresh } else { Which::All };
        Some(Fresh {
            filter: rules(fresh.filter),
            nat: rules(fresh.nat),
            ether: rules(fresh.ether),
            tables: fresh.tables,
        })
    }

    pub(super) fn flush(
        &mut self,
        what: Flush,
        anchor: &AnchorName,
        interface: Option<&str>,
    ) -> Result<DoneReport, String> {
        let shared = self.router.shared().clone();
        match what {
            Flush::States => {
                let count = self.kill_states(interface, |_| true)?;
                Ok(done(&format!("{count} states cleared"), count))
            }
            Flush::Tables => {
                let count = self.named(anchor).iter().map(|path| shared.pf.tables().clear(path)).sum();
                Ok(done(&format!("{count} tables deleted"), count))
            }
            Flush::Sources => {
                let count = shared.pf.kill_sources(&mut self.root.top().at(), |_, _| true);
                Ok(done("source tracking entries cleared", count.into()))
            }
            Flush::Info => {
                shared.pf.clear_counters();
                if let Some(rules) = self.ruleset() {
                    rules.clear_interface_stats();
                }
                Ok(done("pf: statistics cleared", 0))
            }
            Flush::Ether => self.empty(&self.named(anchor), Section::Ether, "Ethernet rules cleared"),
            Flush::Rules => self.empty(&self.named(anchor), Section::Filter, "rules cleared"),
            Flush::Nat => self.empty(&self.named(anchor), Section::Nat, "nat cleared"),
            Flush::Queues => self.empty(&[String::new()], Section::Queues, "altq cleared"),
            Flush::Fingerprints => {
                self.empty(&[String::new()], Section::Fingerprints, "OS fingerprints cleared")
            }
            Flush::Reset => self.empty(&[String::new()], Section::Options, "options reset"),
        }
    }

    /// Empties a section of some rulesets.
    fn empty(&mut self, paths: &[String], section: Section, said: &str) -> Result<DoneReport, String> {
        for path in paths {
            let (mut conf, fresh) = self.changed(path, PfConf::default(), &[section]);
            if section == Section::Queues {
                conf.rules.filter.iter_mut().for_each(|r| r.queue = None);
            }
            self.change_pf((conf, fresh)).map_err(|faults| faults.to_string())?;
        }
        Ok(done(said, 0))
    }
}

/// The fingerprints that a text speaks of unless it names others, instead of those that it would look for: an anchor's rules
/// mean those in force, and what is merged leaves them as they are. Where there are none, since they were flushed or never
/// read, a merge looks for them as any load does.
fn fingerprints_for<'c>(load: &PfLoad, loaded: Option<&'c PfConf>) -> Option<&'c Arc<Fingerprints>> {
    let known = &loaded?.fingerprints;
    (!load.anchor.is_empty() || (load.merge && known.count() != 0)).then_some(known)
}

/// The sections that pfctl was asked to load; all if it was not asked for any.
fn sections(parts: &[Part]) -> Vec<Section> {
    if parts.is_empty() {
        return Section::ALL.to_vec();
    }
    // Rules mean systems by the fingerprints that they were read with.
    let some = |part: &Part| match part {
        Part::Options => &[Section::Options, Section::Fingerprints][..],
        Part::Rules => &[Section::Filter, Section::Fingerprints],
        Part::Nat => &[Section::Nat, Section::Fingerprints],
        Part::Queues => &[Section::Queues],
        Part::Tables => &[Section::Tables],
    };
    parts.iter().flat_map(some).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_and_a_merge_speak_of_the_fingerprints_that_are_loaded() {
        let load = |anchor: &str, merge| PfLoad {
            name: "pf.conf".into(),
            text: String::new(),
            anchor: anchor.into(),
            check: false,
            numeric: false,
            merge,
            defines: Vec::new(),
            parts: Vec::new(),
            optimizer: None,
        };
        let text = "set fingerprints \"../pf/tests/pf.os\"\n";
        let loaded = pf::conf::load_text("pf.conf", text, &pf::Environment::default(), &[]).unwrap();
        let speaks = |anchor, merge, conf| fingerprints_for(&load(anchor, merge), conf).is_some();
        assert!(speaks("", true, Some(&loaded)) && speaks("a", false, Some(&loaded)));
        assert!(!speaks("", false, Some(&loaded)), "a load that is no merge begins anew");
        assert!(!speaks("", true, None) && !speaks("", true, Some(&PfConf::default())), "there are none");
    }
}
