//! Evaluation with a record of every rule that is tried: what [`crate::explain`] is made of. It goes the way of
//! `by_rules` up to the decision and stops there: nothing is counted, no state is made.

use kern::{Mbuf, PktFlags, Why};

use super::{PfCx, Seen, walk::Walk};
use crate::{
    IfIndex,
    anchor::Kind,
    eval::{Effects, Trial, evaluate, first_match},
    limiter::Limited,
    osfp::Asked,
    packet::Packet,
    route::Routes,
    rule::Direction,
    ruleset::{Compiled, Constant, Translation},
    slab::RuleSlot,
};

/// A rule that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) slot: RuleSlot,
    pub(crate) trial: Trial,
}

/// How a decision was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    /// In order; rules that are jumped over are not among them.
    pub(crate) steps: Vec<Step>,
    /// The filter rule that decides.
    pub(crate) decides: Option<RuleSlot>,
    /// The nat, rdr or binat rule that translates.
    pub(crate) translates: Option<RuleSlot>,
    /// That rule lets pass what it translates.
    pub(crate) nat_pass: bool,
    /// pf does nothing at this interface.
    pub(crate) skipped: bool,
}

struct Tracing<'w, 'a, 'r> {
    walk: Walk<'w, 'a, 'r>,
    kind: Kind,
    steps: Vec<Step>,
}

impl<'r> Effects<'r> for Tracing<'_, '_, 'r> {
    /// A question is about what may happen: rules that chance decides on are taken.
    fn honours(&mut self, _: u32) -> bool {
        true
    }

    fn is_from(&mut self, wanted: Asked, p: &Packet) -> bool {
        self.walk.is_from(wanted, p)
    }

    fn routes(&self) -> Option<&dyn Routes> {
        self.walk.routes()
    }

    fn looks_at(&mut self, rule: &Compiled, limited: Limited, packets: u32) -> Result<(), Option<Why>> {
        self.walk.looks_at(rule, limited, packets)
    }

    fn matched(
        &mut self,
        rule: &'r Compiled,
        within: Option<&'r Compiled>,
        p: &mut Packet,
    ) -> Result<(), Why> {
        self.walk.matched(rule, within, p)
    }

    fn tried(&mut self, rule: &'r Compiled, _: Option<&'r Compiled>, trial: Trial) {
        self.steps.push(Step { kind: self.kind, slot: rule.slot, trial });
    }
}

impl PfCx<'_> {
    /// Evaluates the rules for a packet without a state.
    pub(crate) fn trace(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf) -> Trace {
        let mut trace = Trace::default();
        let constant = self.rules.constant(direction, index);
        if constant == Constant::Skip {
            trace.skipped = true;
            return trace;
        }
        let plain = !m.hdr().flags.has(PktFlags::OPTIONS);
        let unseen = self.pf.states.count() == 0
            && matches!(constant, Constant::Pass { allow_opts, .. } if allow_opts || plain);
        let mut seen = Seen { scrubbed: self.normalise(direction, index, m), ..Seen::NOTHING };
        self.look(direction, m, &mut seen);
        self.forgive(direction, m, &mut seen);
        // What passes unseen is not refused for what it is.
        if seen.refused.is_none() || unseen {
            // A translation that finds no address ends the way here; the engine's verdict says so.
            let _ = self.trace_rules(direction, index, m, &seen, &mut trace);
            self.pf.states.let_go(&mut self.held, &mut self.worker.choices);
        }
        trace
    }

    fn trace_rules(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &Mbuf,
        seen: &Seen,
        trace: &mut Trace,
    ) -> Result<(), Why> {
        let (rules, worker) = (self.rules, self.worker.id);
        let mut p = seen.p;
        let opens = seen.lookup.opens_state(&p);
        let mut tracing = Tracing {
            walk: self.walk(direction, index, opens, m, &seen.p),
            kind: Kind::Filter,
            steps: Vec::new(),
        };
        let mut evaluated = || {
            if opens && !rules.main.translation.is_empty(direction) {
                for kind in Translation::kinds(direction) {
                    tracing.kind = kind;
                    if let Some(rule) =
                        first_match(rules, worker, kind, direction, index, &mut p, &mut tracing)
                    {
                        (trace.translates, trace.nat_pass) = (Some(rule.slot), rule.nat_pass);
                        tracing.walk.translate(rule, &mut p)?;
                        break;
                    }
                }
            }
            if !trace.nat_pass {
                tracing.kind = Kind::Filter;
                let outcome = evaluate(rules, worker, direction, index, &mut p, &mut tracing)?;
                trace.decides = outcome.rule.map(|rule| rule.slot);
            }
            Ok(())
        };
        let done = evaluated();
        trace.steps = tracing.steps;
        done
    }
}
