//! What a state says of its packets, and what is done to them.

use kern::{Mbuf, Why};
use wire::flow::host;

use super::{PfCx, Seen, before, choose_queue, remember, route};
use crate::{
    IfIndex, membership,
    nat::{family, rewrite},
    packet::Packet,
    rule::Direction,
    slab::RuleSlot,
    state::{Hit, Passing, Tracked},
    verdict::{Answer, Reset, Verdict},
};

impl PfCx<'_> {
    #[inline(always)]
    pub(super) fn by_state(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        seen: &Seen,
    ) -> Option<Verdict> {
        let Seen { p, lookup, .. } = seen;
        let states = &self.pf.states;
        if states.count() == 0 {
            return None;
        }
        if let Some(counters) = self.counters() {
            counters.searches.inc();
        }
        let passing =
            Passing { direction, index, p, data: m.data(), now: self.now.secs() as u32, at: self.now };
        let mut hit = Hit::NONE;
        match states.track(&mut self.held, &mut self.worker.slots, lookup, &passing, &mut hit) {
            Tracked::None => None,
            Tracked::Hit | Tracked::Changed => {
                Some(self.pass_by_state(direction, index, m, p, &hit, lookup.is_error()))
            }
            Tracked::Related => {
                let verdict = self.pass_by_state(direction, index, m, p, &hit, false);
                if !matches!(verdict, Verdict::Block(_) | Verdict::Return(..)) {
                    self.relate(direction, index, m, p, &hit);
                }
                Some(verdict)
            }
            Tracked::Ended(states) => {
                if let Some(counters) = self.counters() {
                    counters.removals.add(states.into());
                }
                None
            }
            Tracked::Mismatch => Some(self.block(Why::PfStateMismatch)),
            Tracked::BadTimestamp => Some(self.block(Why::PfTimestamp)),
            Tracked::Proxied | Tracked::Joined => Some(self.block(Why::PfSynproxy)),
            Tracked::Overloads => {
                if let Some(counters) = self.counters() {
                    counters.removals.inc();
                }
                Some(self.block(Why::PfSrcLimit))
            }
            Tracked::Reset => {
                self.note(Why::PfStateMismatch);
                Some(Verdict::Return(
                    Answer::Reset(Reset { ttl: 0, acknowledge: false }),
                    Why::PfStateMismatch,
                ))
            }
        }
    }

    #[inline(always)]
    fn pass_by_state(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        p: &Packet,
        hit: &Hit,
        is_error: bool,
    ) -> Verdict {
        self.count(hit.rule, direction, p.segments, p.bytes);
        if hit.anchor != RuleSlot::NONE {
            self.count(hit.anchor, direction, p.segments, p.bytes);
        }
        if p.options && !hit.allow_opts && !membership::only_alerts(p, m.data()) {
            return self.block(Why::PfOptions);
        }
        match before(direction, m) {
            Some(slot) => self.pf.states.set_twin(slot, hit),
            None => self.pf.states.prefetch_twin(hit),
        }
        remember(m, hit);
        if hit.tag != 0 {
            m.hdr_mut().tag = hit.tag;
        }
        choose_queue(m, p, hit.queue, hit.low_delay_queue);
        if hit.rewrites() {
            if hit.translates && !is_error && hit.nat != hit.rule {
                self.count(hit.nat, direction, p.segments, p.bytes);
            }
            if let Err(why) = self.rewrite_by(direction, index, m, p, hit, is_error) {
                return self.block(why);
            }
        }
        if hit.treatment != 0 {
            return self.treat(direction, index, m, p, hit);
        }
        Verdict::pass()
    }

    /// What few states say of their packets.
    #[cold]
    fn treat(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        p: &Packet,
        hit: &Hit,
    ) -> Verdict {
        let treatment = self.pf.slab.treatments.get(hit.treatment).copied().unwrap_or_default();
        if !treatment.admits(m, p) {
            return self.block(Why::PfNormalize);
        }
        treatment.apply(m, p, &mut self.worker.ids);
        if let Some(log) = treatment.log {
            self.log_by_state(direction, index, m, p, hit, log);
        }
        route(treatment.route, hit.forward, m)
    }

    /// Makes of a packet what its state says.
    #[cold]
    pub(super) fn rewrite_by(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        p: &Packet,
        hit: &Hit,
        is_error: bool,
    ) -> Result<(), Why> {
        if hit.restamp.is_some() {
            rewrite::restamp(m, p.l4, p.tcp.header, &hit.restamp)?;
        }
        if hit.translates && hit.key.family() != p.family {
            return self.change_family(m, p, hit, is_error);
        }
        if is_error {
            return rewrite::translate_error(m, direction, p.l4, &hit.key, hit.diffs.1);
        }
        if hit.translates {
            rewrite::translate(m, direction, &hit.key)?;
            if direction == Direction::Out && self.rules.tells_hosts(index) {
                m.hdr_mut().set_host(host(&p.src.to_be_bytes()));
            }
        }
        if hit.modulates {
            rewrite::modulate(m, p.l4, p.tcp.header, hit.diffs)?;
        }
        Ok(())
    }

    /// Makes of a packet one of the other family.
    #[cold]
    fn change_family(&mut self, m: &mut Mbuf, p: &Packet, hit: &Hit, is_error: bool) -> Result<(), Why> {
        if is_error {
            return family::translate_error(m, p.l4, &hit.key, hit.diffs.1);
        }
        if hit.modulates {
            rewrite::modulate(m, p.l4, p.tcp.header, hit.diffs)?;
        }
        family::onwards(m, &hit.key, self.worker.ids.next())
    }

    /// Undoes what translation has done to a packet on its way out, so that an error about it quotes what its sender
    /// sent, and goes there.
    pub fn undo(&mut self, m: &mut Mbuf) {
        let hint = (m.hdr().state, m.hdr().state_gen);
        let Ok(p) = Packet::read(m) else { return };
        if let Some(key) = self.pf.states.before_translation(&mut self.held, hint, &p) {
            // What was translated once can be translated back.
            let _ = if key.family() == p.family {
                rewrite::translate(m, Direction::Out, &key)
            } else {
                family::undo(m, &key, self.worker.ids.next())
            };
        }
    }
}
