//! `pfctl --explain`: what the rules in force, or those of a file, do to a packet in words.

use super::Daemon;
use crate::{
    commit::environment,
    control::pf::{ExplainReport, PfLoad},
    route::IfIndex,
};
use pf::{Direction, Pf, StateInfo, explain::Question};
use std::sync::Arc;

impl Daemon {
    pub(super) fn explain(&mut self, packet: &str, load: Option<&PfLoad>) -> Result<ExplainReport, String> {
        let env = environment(&self.files.conf);
        let question = Question::parse(packet, &env).map_err(|wrong| wrong.to_string())?;
        if let Some(load) = load {
            let conf = self.read_conf(load, &env)?;
            return explain_conf(conf, &question, &env, Some(&self.router.net().fib), &mut self.root);
        }
        let rules = self.ruleset().cloned().ok_or("there are no rules: pf is disabled")?;
        let routes = &self.router.net().fib;
        let explained =
            rules.explain(&question, &env, self.commit.names_mut(), Some(routes), &mut self.root.top());
        let mut report = ExplainReport::new(&explained.map_err(|e| e.to_string())?);
        let states = self.router.shared().pf.states();
        let now = self.router.shared().clock.now().secs() as u32;
        let states = states.dump(&mut self.root.top().at(), now);
        if let Some(state) = states.iter().find(|state| is_of(state, &question)) {
            let interface = self.files.conf.name_of(IfIndex(state.ifindex));
            let line = state.line(Some(&interface), false);
            let before = format!("a state decides, and no rule is asked: {line}\nwithout it:\n");
            report.text.insert_str(0, &before);
            report.verbose.insert_str(0, &before);
            report.state = Some(line);
        }
        Ok(report)
    }
}

/// What the rules of a file do to a packet, where there are these routes, if any.
pub(crate) fn explain_conf(
    conf: pf::PfConf,
    question: &Question,
    env: &pf::Environment,
    routes: Option<&dyn pf::Routes>,
    root: &mut kern::lock::Root,
) -> Result<ExplainReport, String> {
    let (pf, mut names) = (Pf::new(1, 16), pf::Names::new());
    let rules = pf.compile(&Arc::new(conf), env, &mut names).map_err(|e| e.to_string())?;
    pf.enforce(&mut root.top().at(), &rules);
    let explained = rules.explain(question, env, &mut names, routes, &mut root.top());
    explained.map(|e| ExplainReport::new(&e)).map_err(|e| e.to_string())
}

/// Whether a packet is of a state.
fn is_of(state: &StateInfo, question: &Question) -> bool {
    let [a, b] = if question.direction == Direction::In { state.wire } else { state.stack };
    let (from, to) = (question.from, question.to);
    let here = !state.bound || state.ifindex == question.on.0;
    here && state.proto == question.proto && ((a, b) == (from, to) || (a, b) == (to, from))
}
