//! The model that evaluation is held against: rules one after the other, field by field, by name, as the manual has it,
//! without skip steps or numbers.

use std::{collections::BTreeMap, net::IpAddr};

use super::*;
use crate::{
    Environment, Names,
    addr::{Entry, Family, Prefix, bits},
    anchor,
    conf::{PfConf, Table},
    env::{IfAddress, Interface},
    route::Routes,
    rule::{AnchorCall, Host, Peer, Rule},
};

/// Two interfaces, with two addresses each.
pub(crate) fn env() -> Environment {
    let interface = |name: &str, index, addr: &str| Interface {
        name: name.into(),
        index: IfIndex(index),
        addresses: vec![
            IfAddress::new(addr.parse().unwrap(), 30),
            IfAddress::new("2001:db8::1".parse().unwrap(), 126),
        ],
        mtu: 1500,
        bandwidth: None,
    };
    Environment::new(vec![interface("lan0", 1, "192.0.2.1"), interface("wan0", 2, "192.0.2.5")])
}

/// The table that rules speak of, as the main ruleset or an anchor has it.
pub(crate) fn table(anchor: &str) -> Table {
    let own = !anchor.is_empty();
    let entry = |not, text: &str, len| Entry { not, prefix: Prefix::new(text.parse().unwrap(), len) };
    Table {
        name: "t".into(),
        anchor: anchor.into(),
        constant: false,
        persist: false,
        counters: false,
        entries: vec![
            entry(own, "192.0.2.0", 30),
            entry(!own, "192.0.2.2", 32),
            entry(false, "2001:db8::4", 127),
        ],
        keeps: false,
    }
}

/// Routes of which none leads to one address of six, one out of both interfaces, and others out of one of them.
pub(crate) struct Model;

impl Routes for Model {
    fn lead(&self, to: IpAddr, out_of: Option<IfIndex>) -> bool {
        let ways: &[u16] = [&[][..], &[1], &[2], &[1, 2], &[1], &[9]][(bits(to) % 6) as usize];
        out_of.map_or(!ways.is_empty(), |way| ways.contains(&way.0))
    }
}

/// The evaluation of one packet.
pub(crate) struct Linear<'a> {
    rules: BTreeMap<String, &'a [Rule]>,
    /// The anchors that have a table of their own.
    own_tables: Vec<&'a str>,
    env: Environment,
    names: &'a mut Names,
    direction: Direction,
    index: IfIndex,
    /// The rule that decides, and the call in the main ruleset that led there.
    pub(crate) decides: Option<(String, usize)>,
    pub(crate) through: Option<usize>,
    pub(crate) outcome: Outcome<'a>,
}

impl<'a> Linear<'a> {
    /// Evaluates the rules of a configuration for a packet; match rules change it.
    pub(crate) fn decide(
        conf: &'a PfConf,
        names: &'a mut Names,
        direction: Direction,
        index: IfIndex,
        p: &mut Packet,
    ) -> Linear<'a> {
        let mut linear = Linear {
            rules: anchor::sources(conf).map(|(path, r)| (path.to_owned(), &r.filter[..])).collect(),
            own_tables: conf.tables.iter().map(|t| t.anchor.as_str()).collect(),
            env: env(),
            names,
            direction,
            index,
            decides: None,
            through: None,
            outcome: Outcome::decided(p.tag),
        };
        linear.evaluate("", None, p);
        linear
    }

    /// The rule that decides.
    pub(crate) fn rule(&self) -> Option<&'a Rule> {
        let (path, rule) = self.decides.as_ref()?;
        self.rules.get(path)?.get(*rule)
    }

    /// Whether evaluation has ended.
    fn evaluate(&mut self, path: &str, through: Option<usize>, p: &mut Packet) -> bool {
        let table = table(if self.own_tables.contains(&path) { path } else { "" });
        for (i, rule) in self.rules.get(path).copied().unwrap_or(&[]).iter().enumerate() {
            let tag = self.outcome.tag;
            if !rule.probability.is_none_or(honours)
                || !matches(rule, &self.env, &table, self.names, self.direction, self.index, p, tag)
            {
                continue;
            }
            let tag = rule.tag.as_ref().map_or(0, |tag| self.names.tag(tag).unwrap());
            if tag != 0 {
                self.outcome.tag = tag;
            }
            if let Some(call) = &rule.anchor {
                if self.call(call, rule.quick, through.or(Some(i)), p) {
                    return true;
                }
                continue;
            }
            if rule.action == Action::Match {
                translate(tag, p);
                self.outcome.allow_opts |= rule.allow_opts;
                if rule.max_pkt_size != 0 {
                    self.outcome.treatment.max_size = rule.max_pkt_size;
                }
                if let Some(queue) = &rule.queue {
                    let mut number = |name: &String| self.names.queue(name).unwrap();
                    self.outcome.queue = number(&queue.name);
                    self.outcome.low_delay_queue = number(queue.low_delay.as_ref().unwrap_or(&queue.name));
                }
            } else {
                (self.decides, self.through) = (Some((path.to_owned(), i)), through);
            }
            if rule.quick {
                return true;
            }
        }
        false
    }

    fn call(&mut self, call: &AnchorCall, quick: bool, through: Option<usize>, p: &mut Packet) -> bool {
        let called: Vec<String> = if call.wildcard {
            let below = |path: &&String| path.rsplit_once('/').map_or("", |(up, _)| up) == call.path;
            self.rules.keys().filter(|path| !path.is_empty()).filter(below).cloned().collect()
        } else {
            vec![call.path.clone()]
        };
        let before = self.decides.take();
        let ended = called.iter().any(|path| self.evaluate(path, through, p));
        let decided = self.decides.is_some();
        if !decided {
            self.decides = before;
        }
        ended || (quick && decided)
    }
}

#[expect(clippy::too_many_arguments, reason = "the model spells everything out")]
fn matches(
    rule: &Rule,
    env: &Environment,
    table: &Table,
    names: &mut Names,
    direction: Direction,
    index: IfIndex,
    p: &Packet,
    tag: u16,
) -> bool {
    let here = |name: &str| env.interface(name).is_some_and(|i| i.index == index);
    let is_port = |ports: Option<Ports>, port| ports.is_none_or(|ports| !p.fragment && ports.matches(port));
    rule.on.as_ref().is_none_or(|on| here(&on.name) != on.not)
        && rule.direction.is_none_or(|d| d == direction)
        && rule.family.is_none_or(|f| f == p.family)
        && rule.proto.is_none_or(|n| n == p.proto)
        && address(&rule.from, env, table, index, p.family, p.src)
        && address(&rule.to, env, table, index, p.family, p.dst)
        && is_port(rule.from.port, p.sport)
        && is_port(rule.to.port, p.dport)
        && (!rule.fragment || p.fragment)
        && rule.tos.is_none_or(|tos| tos == p.tos)
        && rule.tagged.as_ref().is_none_or(|t| (names.tag(&t.name).unwrap() == tag) != t.not)
        && (p.proto != 6 || rule.flags.is_none_or(|f| !p.fragment && p.tcp.flags & f.mask == f.set))
        && (!matches!(p.proto, 1 | 58)
            || rule
                .icmp
                .is_none_or(|i| !p.fragment && i.kind == p.icmp && i.code.is_none_or(|c| c == p.code)))
}

fn address(
    peer: &Peer,
    env: &Environment,
    table: &Table,
    index: IfIndex,
    family: Family,
    addr: u128,
) -> bool {
    let within = |prefix: &Prefix| {
        let (first, last) = prefix.range();
        prefix.family() == family && (first..=last).contains(&addr)
    };
    let is_in = match &peer.host {
        Host::Any => return true,
        Host::NoRoute => return !Model.lead(family.address(addr), None),
        Host::UrpfFailed => return !Model.lead(family.address(addr), Some(index)),
        Host::Prefix(prefix) => within(prefix),
        Host::Range(a, b) => Family::of(*a) == family && (bits(*a)..=bits(*b)).contains(&addr),
        Host::Dynamic(d) => env.addresses_of(d, None).iter().any(within),
        Host::Table(_) => table
            .entries
            .iter()
            .filter(|e| within(&e.prefix))
            .max_by_key(|e| e.prefix.length())
            .is_some_and(|e| !e.not),
    };
    is_in != peer.not
}

/// What a match rule with a tag does to a packet in this test, in place of a translation.
fn translate(tag: u16, p: &mut Packet) {
    if tag != 0 {
        (p.dport, p.src) = (tag % 7, p.src ^ 1);
    }
}

/// Chance, as it is in this test.
fn honours(share: u32) -> bool {
    share.is_multiple_of(2)
}

/// What the model does, to the evaluator.
pub(crate) struct Translating;

impl Effects<'_> for Translating {
    fn looks_at(&mut self, _: &Compiled, _: Limited, _: u32) -> Result<(), Option<Why>> {
        Ok(())
    }

    fn honours(&mut self, share: u32) -> bool {
        honours(share)
    }

    fn routes(&self) -> Option<&dyn Routes> {
        Some(&Model)
    }

    fn is_from(&mut self, _: Asked, _: &Packet) -> bool {
        unreachable!("no rule here asks for a system")
    }

    fn matched(&mut self, rule: &Compiled, _: Option<&Compiled>, p: &mut Packet) -> Result<(), Why> {
        translate(rule.tag, p);
        Ok(())
    }
}
