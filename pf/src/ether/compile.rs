//! Ethernet rules to this router's numbers.

use super::{
    Compiled, EtherRule,
    list::{self, MacTest},
};
use crate::{
    ruleset::{CompileError, Compiler},
    slab::{Described, RuleSlab, RuleSlot},
};

impl Compiler<'_> {
    /// Compiles the Ethernet rules of a list, which have the slots that they had `before` if they stay; `slots` gets what
    /// has been taken even if it fails.
    pub(crate) fn ether(
        &mut self,
        rules: &[EtherRule],
        before: &[Compiled],
        slab: &RuleSlab,
        slots: &mut Vec<RuleSlot>,
    ) -> Result<Box<[Compiled]>, CompileError> {
        let mut list = Vec::with_capacity(rules.len());
        for (number, rule) in rules.iter().enumerate() {
            let before = before.get(number).map(|old| old.slot);
            let described = Described {
                number: number as u32,
                path: self.path,
                identifier: rule.ridentifier,
                ..Described::default()
            };
            let slot = slab.share_or_take(before, &described)?;
            slots.push(slot);
            list.push(self.ether_rule(rule, slot)?);
            self.counters += 1;
        }
        list::link(&mut list);
        Ok(list.into_boxed_slice())
    }

    fn ether_rule(&mut self, rule: &EtherRule, slot: RuleSlot) -> Result<Compiled, CompileError> {
        let tagged = match &rule.tagged {
            Some(tagged) => Some((self.names.tag(&tagged.name)?, tagged.not)),
            None => None,
        };
        Ok(Compiled {
            skip: Default::default(),
            iface: self.iface(rule.on.as_ref()),
            direction: rule.direction,
            kind: rule.proto,
            from: rule.from.as_ref().map(MacTest::new),
            to: rule.to.as_ref().map(MacTest::new),
            within_from: self.address(&rule.l3_from, None),
            within_to: self.address(&rule.l3_to, None),
            tagged,
            quick: rule.quick,
            block: rule.block,
            tag: rule.tag.as_deref().map_or(Ok(0), |tag| self.names.tag(tag))?,
            queue: rule.queue.as_deref().map_or(Ok(0), |queue| self.names.queue(queue))?,
            slot,
            counter: self.counters,
            call: rule.anchor.as_ref().map_or(Ok(0), |call| self.names.call(&call.target()))?,
        })
    }
}
