//! The rules of translation, and what pools of addresses are for this router.

use super::{AddrTest, CompileError, Compiled, Compiler, compiled::link_skip_steps};
use crate::{
    IfIndex,
    addr::{Family, Prefix},
    anchor::{Kept, Kind},
    nat::{FamilyChange, Item, Translate},
    pool::Pool,
    route::{NO_GATEWAY, RoutePool},
    rule::{AfTo, Direction, Host, Ports, Route, Rule},
    slab::{RuleSlab, RuleSlot},
};

/// The rules of translation, of which the first that matches decides.
#[derive(Debug, Default)]
pub(crate) struct Translation {
    pub(crate) nat: Box<[Compiled]>,
    pub(crate) rdr: Box<[Compiled]>,
    /// By direction: what comes in has its destination translated, what leaves its source.
    pub(crate) binat: [Box<[Compiled]>; 2],
}

impl Translation {
    /// What is looked for in a packet of this direction, one kind after the other.
    pub(crate) const fn kinds(direction: Direction) -> [Kind; 2] {
        match direction {
            Direction::In => [Kind::Binat, Kind::Rdr],
            Direction::Out => [Kind::Binat, Kind::Nat],
        }
    }

    /// The lists of these kinds.
    #[inline(always)]
    pub(super) fn lists(&self, direction: Direction) -> [&[Compiled]; 2] {
        let own = match direction {
            Direction::In => &self.rdr,
            Direction::Out => &self.nat,
        };
        [&self.binat[direction.index()], own]
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self, direction: Direction) -> bool {
        self.lists(direction).iter().all(|l| l.is_empty())
    }
}

impl Compiler<'_> {
    /// The addresses of a pool as this router has them.
    fn items(&self, pool: &Pool, family: Option<Family>) -> Vec<Item> {
        pool.hosts.iter().flat_map(|host| self.items_of(&host.host, family)).collect()
    }

    fn items_of(&self, host: &Host, family: Option<Family>) -> Vec<Item> {
        if let Host::Table(name) = host {
            return self.tables.get(name.as_str()).map(Item::from).into_iter().collect();
        }
        self.prefixes_of(host, family).into_iter().map(Item::from).collect()
    }

    /// The addresses that do not change as long as the ruleset is in force.
    fn prefixes_of(&self, host: &Host, family: Option<Family>) -> Vec<Prefix> {
        match host {
            Host::Prefix(p) => vec![*p],
            Host::Range(a, b) => Prefix::covering(*a, *b),
            Host::Dynamic(d) => self.env.addresses_of(d, family),
            Host::Any | Host::NoRoute | Host::UrpfFailed | Host::Table(_) => Vec::new(),
        }
    }

    /// The next hops of a rule. Interfaces that this router does not have are number 0.
    pub(super) fn route(&mut self, route: &Route) -> RoutePool {
        let index = |name: Option<&String>| {
            name.and_then(|name| self.env.interface(name)).map_or(IfIndex(0), |i| i.index)
        };
        let mut gateways = Vec::new();
        for item in &route.pool.hosts {
            let iface = index(item.interface.as_ref());
            let items = match item.host {
                Host::Any => NO_GATEWAY.map(Item::Prefix).into(),
                _ => self.items_of(&item.host, None),
            };
            gateways.extend(items.into_iter().map(|item| (item, iface)));
        }
        RoutePool::new(route, gateways, &mut self.random)
    }

    /// The family that a rule is for: its own, or that of the addresses it translates to. A table may get those of both.
    pub(super) fn family(&self, rule: &Rule) -> Option<Family> {
        let pools = rule.nat.iter().chain(&rule.rdr).flat_map(|pool| self.items(pool, None));
        let mut families = pools.map(|item| match item {
            Item::Prefix(p) => Some(p.family()),
            Item::Table(_) => None,
        });
        let first = families.next().flatten();
        rule.family.or_else(|| first.filter(|&f| families.all(|other| other == Some(f))))
    }

    /// Compiles binat rules for what comes in and what leaves. Both have the same slots and counters.
    pub(super) fn binat(
        &mut self,
        rules: &[Rule],
        before: &Kept<'_>,
        slab: &RuleSlab,
        slots: &mut Vec<RuleSlot>,
    ) -> Result<[Box<[Compiled]>; 2], CompileError> {
        let mut outward = self.list(Kind::Binat, rules, before, slab, slots)?;
        let mut inward = Vec::with_capacity(rules.len());
        for (rule, out) in rules.iter().zip(&mut outward) {
            let outer = rule.nat.as_ref().and_then(|pool| pool.hosts.first());
            let outer = outer.and_then(|host| self.prefixes_of(&host.host, out.family).first().copied());
            let inner = match &rule.from.host {
                Host::Prefix(p) => Some(*p),
                Host::Dynamic(d) => self.env.addresses_of(d, out.family).first().copied(),
                _ => None,
            };
            let mut back = self.rule(rule)?;
            (back.slot, back.counter, back.direction) = (out.slot, out.counter, Some(Direction::In));
            out.direction = Some(Direction::Out);
            (back.src, back.sport) = (self.address(&rule.to, out.family), rule.to.port);
            (back.dst, back.dport) = (AddrTest::Any, rule.from.port);
            if let Some((outer, inner)) = outer.zip(inner) {
                let (mask, value) = outer.mask();
                back.dst = AddrTest::Masked { family: outer.family(), mask, value, not: false };
                back.translates = Box::new([Translate::binat(inner, false, &mut self.random)]);
                out.translates = Box::new([Translate::binat(outer, true, &mut self.random)]);
            }
            inward.push(back);
        }
        link_skip_steps(&mut inward);
        Ok([inward.into_boxed_slice(), outward])
    }

    pub(super) fn translates(&mut self, rule: &Rule) -> Box<[Translate]> {
        let mut translates = Vec::new();
        if let Some(pool) = &rule.rdr {
            let from = rule.to.port.map_or(0, Ports::first);
            let items = self.items(pool, rule.family);
            translates.push(Translate::destination(pool, &items, from, &mut self.random));
        }
        if let Some(pool) = &rule.nat {
            let items = self.items(pool, rule.family);
            translates.push(Translate::source(pool, &items, &mut self.random));
        }
        if let Some(to) = &rule.af_to {
            translates.push(Translate::Family(Box::new(self.family_change(to, &rule.to.host))));
        }
        translates.into_boxed_slice()
    }

    fn family_change(&mut self, to: &AfTo, destination: &Host) -> FamilyChange {
        let family = Some(to.family);
        let from = self.items(&to.from, family);
        let other = to.to.as_ref().map(|pool| (pool, self.items(pool, family)));
        let within = match destination {
            Host::Prefix(prefix) => prefix.length(),
            _ => 0,
        };
        let other = other.as_ref().map(|(pool, items)| (*pool, &items[..]));
        FamilyChange::new(to.family, (&to.from, &from), other, within, &mut self.random)
    }
}
