//! setkey's language on a running router.
//!
//! ```text
//!   text ─► statements ─► checked on what is configured now ─► SAs and policies ─► one snapshot
//! ```
//!
//! All statements of a text take effect at once, or none does. The next snapshot has every SA that stays as it was, numbers
//! and window included; packets that had been given an SA that goes take its successor ([`ipsec::Sad::successor`]).

use super::{Sadb, publish, report};
use crate::{
    control::{
        proto::{PolicyReport, SaReport},
        setkey::{SaEvent, SaName, SetkeyAnswer, SetkeyReport, Statements},
    },
    router::Router,
};
use ipsec::conf::{
    Conf, SaId, ValidConf,
    statement::{self, Command},
    with_carets,
};
use ipsec::sa::SaConfig;
use kern::lock::Root;
use std::collections::HashMap;

impl Sadb {
    /// Carries statements out. `conf` is what is configured, and what will be. The error is for people: every fault with its
    /// line and a caret.
    pub fn setkey(
        &mut self,
        router: &mut Router,
        root: &mut Root,
        conf: &mut Option<ValidConf>,
        said: &Statements,
    ) -> Result<SetkeyReport, String> {
        let text = said.text.expose();
        let carets = |errors: Vec<_>| with_carets(&errors, text);
        let statements = Conf::parse(&said.file, text).map_err(carets)?;
        let old = conf.take().unwrap_or_default();
        let valid = statements.check(&old);
        let old = conf.insert(old);
        let valid = valid.map_err(carets)?;
        let commands: Vec<&Command> = statements.statements().iter().map(|s| &s.value).collect();
        // A question that stands before all changes is about what was before them.
        let first_change = commands.iter().position(|c| is_change(c)).unwrap_or(commands.len());
        let (before, after) = commands.split_at(first_change);
        let mut answers: Vec<_> = before.iter().filter_map(|c| answer(router, root, old, c)).collect();
        if !after.is_empty() && !said.check {
            publish(router, root, &valid)?;
            self.changed(old, &valid);
            self.unanswered.answered(&router.net().sad, router.shared().clock.now());
            *old = valid.clone();
        }
        answers.extend(after.iter().filter_map(|c| answer(router, root, old, c)));
        Ok(SetkeyReport {
            answers,
            warnings: valid.warnings().iter().map(ToString::to_string).collect(),
            sas: valid.sas().len(),
            policies: valid.policies().len(),
        })
    }

    /// Tells who listens what is another now.
    fn changed(&mut self, old: &ValidConf, new: &ValidConf) {
        let configs = |conf: &ValidConf| -> HashMap<SaId, SaConfig> {
            conf.sas().iter().map(|sa| (SaId::from(&sa.config), sa.config.clone())).collect()
        };
        let (was, is) = (configs(old), configs(new));
        for sa in old.sas().iter().filter(|sa| !is.contains_key(&SaId::from(&sa.config))) {
            self.emit(&SaEvent::Delete(SaName::new(&sa.config)));
        }
        for sa in new.sas() {
            match was.get(&SaId::from(&sa.config)) {
                None => self.emit(&SaEvent::Add(SaName::new(&sa.config))),
                Some(config) if *config != sa.config => {
                    self.emit(&SaEvent::Update(SaName::new(&sa.config)));
                }
                Some(_) => {}
            }
        }
    }
}

fn is_change(command: &Command) -> bool {
    !matches!(command, Command::Get(_) | Command::Dump(_) | Command::SpdDump | Command::Exit)
}

fn answer(router: &Router, root: &mut Root, conf: &ValidConf, command: &Command) -> Option<SetkeyAnswer> {
    let mut sas = |wanted: &dyn Fn(&SaReport) -> bool| {
        let mut all = report(router, root, Some(conf));
        all.retain(wanted);
        SetkeyAnswer::Sas(all)
    };
    match command {
        Command::Get(name) => Some(sas(&|sa| is_named(sa, name))),
        Command::Dump(protocol) => Some(sas(&|sa| protocol.is_none_or(|p| p.name() == sa.proto))),
        Command::SpdDump => Some(SetkeyAnswer::Policies(PolicyReport::all(&router.net().spd))),
        _ => None,
    }
}

fn is_named(sa: &SaReport, name: &statement::SaName) -> bool {
    let ends = [&name.src, &name.dst].map(|end| end.value.to_string());
    (&sa.src, &sa.dst) == (&ends[0], &ends[1])
        && sa.proto == name.protocol.value.name()
        && sa.spi == name.spi.value.0
}
