//! From a rule as written to the rules it stands for: lists become a cross product, names become addresses, and what
//! cannot mean anything is refused.
//!
//! The order is pfctl's, the last varying fastest: interface, protocol, ICMP type, source host, source port, source
//! system, destination host, destination port, user, group. Combinations of two families are left out; a rule of which
//! nothing remains is an error.

use super::{
    ast::{At, HostDef, IcmpDef, KeepDef, LimiterDef, LimiterWord, RuleDef, StateWord},
    check,
    error::{Fault, Parsed},
    expand::Expander,
    label,
    pools::{self, Purpose},
    resolve::{self, Resolved},
    set,
};
use crate::{
    addr::Family,
    once::Once,
    rule::{
        Action, AfTo, Direction, Host, IcmpMatch, IdMatch, Keep, LimiterRef, On, Peer, PoolPorts, Ports,
        Route, Rule, SourceTrack, StateKind, Tagged, TcpFlags,
    },
    timeout::Timeout,
};

const TCP: u8 = 6;

/// Rules that one rule may expand to.
const MAX_EXPANSION: usize = 100_000;

impl Expander<'_> {
    /// Adds the rules of a definition, or says what is wrong with it.
    pub(super) fn rule(&mut self, def: &RuleDef, faults: &mut Vec<Fault>) {
        if matches!(def.rule.action, Action::Scrub | Action::NoScrub) && self.is_in_anchor() {
            self.warnings.push(
                Fault::new(def.at, "scrub has no effect in an anchor")
                    .help("write it outside of all anchors"),
            );
        }
        let base = match self.base(def) {
            Ok(base) => base,
            Err(fault) => return faults.push(fault),
        };
        let hosts = |list: &[HostDef]| resolve::list(self.env, list, base.family);
        let (from, to) = match (hosts(&def.from), hosts(&def.to)) {
            (Ok(from), Ok(to)) => (from, to),
            (from, to) => return faults.extend(from.err().into_iter().chain(to.err())),
        };
        let mut made = Vec::new();
        let first = self.rules_mut().list_mut(base.action).len();
        if let Err(fault) = self.product(def, &base, &from, &to, first, &mut made) {
            return faults.push(fault);
        }
        if made.is_empty() {
            faults.push(
                Fault::new(def.at, "rule expands to no valid combination")
                    .help("its addresses, protocol and inet/inet6 are of different families"),
            );
        }
        // A named anchor's rules stand behind its first call; the others call it by its name.
        for call in made.iter_mut().skip(1).filter_map(|r| r.anchor.as_mut()) {
            call.inline &= call.name.is_empty();
        }
        self.rules_mut().list_mut(base.action).extend(made);
    }

    /// What all rules of a definition have in common.
    fn base(&self, def: &RuleDef) -> Parsed<Rule> {
        let action =
            if def.by_policy { Action::Block(self.conf.options.block_policy) } else { def.rule.action };
        let keep = self.keep(def, action)?;
        let flags = match def.flags {
            Some(At { value, .. }) => value,
            None if keep.is_some() && def.fragment.is_none() => Some(TcpFlags::OPENING),
            None => None,
        };
        Ok(Rule {
            action,
            flags,
            keep,
            fragment: def.fragment.is_some(),
            allow_opts: def.allow_opts.is_some(),
            state_limiter: self.limiter_of(def.state_limiter.as_ref(), false)?,
            source_limiter: self.limiter_of(def.source_limiter.as_ref(), true)?,
            at: def.at,
            ..def.rule.clone()
        })
    }

    fn limiter_of(&self, def: Option<&At<LimiterDef>>, by_source: bool) -> Parsed<Option<LimiterRef>> {
        let Some(At { at, value }) = def else { return Ok(None) };
        let mut known = self.conf.limiters.iter().filter(|l| l.by_source == by_source);
        let id = match &value.which {
            LimiterWord::Id(id) => Some(*id),
            LimiterWord::Name(name) => known.find(|l| l.name == *name).map(|l| l.id),
        };
        let id = id.ok_or_else(|| {
            Fault::new(*at, "the limiter is not defined")
                .help("define it above: state limiter \"name\" id 1 limit 100")
        })?;
        Ok(Some(LimiterRef { id, block: value.block }))
    }

    fn keep(&self, def: &RuleDef, action: Action) -> Parsed<Option<Keep>> {
        let is_pass = action == Action::Pass && def.rule.anchor.is_none();
        let (at, keep) = match &def.state {
            Some(At { value: StateWord::No, .. }) => return Ok(None),
            Some(At { at, .. }) if !is_pass => {
                return Err(Fault::new(*at, "keep state is great, but only for pass rules")
                    .help("a pass rule makes the state"));
            }
            None if !is_pass => return Ok(None),
            Some(At { value: StateWord::Keep(keep), at }) => (*at, keep),
            None => (def.at, &KeepDef::default()),
        };
        let merged = set::with_defaults(keep, &self.defaults);
        let tracked = merged.track_at.is_some();
        let mut keep = merged.keep;
        keep.bound = merged.bound.unwrap_or(self.conf.options.if_bound);
        track_sources(&mut keep, tracked, at)?;
        let has = |t| keep.timeouts.iter().any(|&(timeout, _)| timeout == t);
        if keep.max != 0 && !has(Timeout::AdaptiveStart) && !has(Timeout::AdaptiveEnd) {
            let max = u64::from(keep.max);
            keep.timeouts.push((Timeout::AdaptiveStart, (max * 6 / 10) as u32));
            keep.timeouts.push((Timeout::AdaptiveEnd, (max * 12 / 10) as u32));
            keep.timeouts.sort_by_key(|&(t, _)| t);
        }
        Ok(Some(keep))
    }

    fn product(
        &self,
        def: &RuleDef,
        base: &Rule,
        from: &[Resolved],
        to: &[Resolved],
        first: usize,
        made: &mut Vec<Rule>,
    ) -> Parsed<()> {
        for on in optional(&def.on) {
            for proto in optional(&def.proto) {
                for icmp in optional(&def.icmp) {
                    for (src, sport) in pairs(from, &def.from_port) {
                        for os in optional(&def.os) {
                            for (dst, dport) in pairs(to, &def.to_port) {
                                for user in optional(&def.users) {
                                    for group in optional(&def.groups) {
                                        let c = Combination {
                                            on,
                                            proto,
                                            icmp,
                                            src,
                                            sport,
                                            os,
                                            dst,
                                            dport,
                                            user,
                                            group,
                                        };
                                        self.one(def, base, &c, first, made)?;
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn one(
        &self,
        def: &RuleDef,
        base: &Rule,
        c: &Combination,
        first: usize,
        made: &mut Vec<Rule>,
    ) -> Parsed<()> {
        let (Ok(mut family), Ok(on)) = (c.family(base.family), c.interface()) else { return Ok(()) };
        let mut rule = Rule {
            on,
            proto: c.proto.map(|p| p.value),
            os: c.os.map(|os| os.value.clone()),
            icmp: c.icmp.map(|i| IcmpMatch { kind: i.kind, code: i.code }),
            user: c.user.map(|u| u.value),
            group: c.group.map(|g| g.value),
            // Each rule of a list has a packet of its own.
            once: base.once.as_ref().map(|_| Once::default()),
            ..base.clone()
        };
        self.translate(def, c, &mut family, &mut rule)?;
        rule.family = family;
        rule.from = c.src.peer(c.sport, family);
        rule.to = c.dst.peer(c.dport, family);
        if rule.proto.is_some_and(|p| p != TCP) {
            rule.flags = None;
            if let Some(keep) = &mut rule.keep {
                keep.kind = StateKind::Keep;
            }
        }
        check::rule(def, &rule, c.proto, c.sport.or(c.dport), c.icmp)?;
        if let Some(pool) = &def.binat {
            return bidirectional(def, rule, pool, first, made);
        }
        made.push(named(def, rule, first + made.len())?);
        if made.len() > MAX_EXPANSION {
            return Err(Fault::new(def.at, format!("rule expands to more than {MAX_EXPANSION} rules"))
                .help("put the addresses into a table"));
        }
        Ok(())
    }

    /// Next hop and translation; they may decide the family.
    fn translate(
        &self,
        def: &RuleDef,
        c: &Combination,
        family: &mut Option<Family>,
        rule: &mut Rule,
    ) -> Parsed<()> {
        if let Some(route) = &def.route {
            check::route(route, rule)?;
            let mut hop = if route.prefer_inet6 { None } else { *family };
            let pool = pools::pool(self.env, &route.pool, Purpose::Route, &mut hop, None)?;
            if !route.prefer_inet6 {
                *family = hop;
            }
            rule.route = Some(Route { kind: route.kind, pool, prefer_inet6: route.prefer_inet6 });
        }
        if let Some(pool) = &def.nat {
            check::translation(pool, rule)?;
            let purpose = if rule.action == Action::Binat { Purpose::Binat } else { Purpose::Nat };
            rule.nat = Some(pools::pool(self.env, pool, purpose, family, None)?);
            if purpose == Purpose::Binat {
                check::binat(pool.at, c.src, rule.nat.as_ref())?;
            }
        }
        if let Some(pool) = &def.rdr {
            check::translation(pool, rule)?;
            rule.rdr = Some(pools::pool(self.env, pool, Purpose::Rdr, family, c.dport)?);
        }
        if let Some(pool) = &def.binat {
            check::translation(pool, rule)?;
            rule.nat = Some(pools::pool(self.env, pool, Purpose::Binat, family, None)?);
            check::binat(pool.at, c.src, rule.nat.as_ref())?;
        }
        if let Some(At { at, value }) = &def.af_to {
            check::af_to(*at, value.family, *family, rule)?;
            let mut other = Some(value.family);
            let from = pools::pool(self.env, &value.from, Purpose::Nat, &mut other, None)?;
            let to = match &value.to {
                Some(to) => Some(pools::pool(self.env, to, Purpose::Nat, &mut other, None)?),
                None => None,
            };
            rule.af_to = Some(AfTo { family: value.family, from, to });
        }
        Ok(())
    }
}

/// `binat-to` is `nat-to ... static-port` out and `rdr-to` in.
fn bidirectional(
    def: &RuleDef,
    rule: Rule,
    pool: &super::ast::PoolDef,
    first: usize,
    made: &mut Vec<Rule>,
) -> Parsed<()> {
    let Some(target) = rule.nat.clone() else { return Ok(()) };
    let (Some(inner), Some(outer)) = (rule.from.host.single(), target.hosts.first()) else {
        return Err(Fault::new(pool.at, "binat-to needs one address or network on each side"));
    };
    if rule.direction.is_some() {
        return Err(Fault::new(pool.at, "binat-to is for both directions").help("leave in and out away"));
    }
    let outward = Rule {
        direction: Some(Direction::Out),
        nat: Some(crate::pool::Pool { ports: PoolPorts::Static, ..target.clone() }),
        ..rule.clone()
    };
    let inward = Rule {
        direction: Some(Direction::In),
        from: Peer { port: rule.to.port, ..rule.to.clone() },
        to: Peer { not: false, host: outer.host.clone(), port: rule.from.port },
        nat: None,
        rdr: Some(crate::pool::Pool {
            hosts: vec![crate::pool::PoolHost { interface: None, host: inner }],
            ..target
        }),
        ..rule
    };
    for rule in [outward, inward] {
        made.push(named(def, rule, first + made.len())?);
    }
    Ok(())
}

impl Host {
    /// The host if it is one address or network.
    fn single(&self) -> Option<Host> {
        match self {
            Host::Prefix(_) | Host::Dynamic(_) => Some(self.clone()),
            _ => None,
        }
    }
}

/// The options of `keep state` that count sources imply each other.
fn track_sources(keep: &mut Keep, tracked: bool, at: super::Pos) -> Parsed<()> {
    let by_rule = keep.max_src_nodes != 0 || keep.max_src_conn != 0 || keep.max_src_conn_rate.is_some();
    if keep.track == Some(SourceTrack::Global) && by_rule {
        let word = if keep.max_src_nodes != 0 { "max-src-nodes" } else { "max-src-conn" };
        return Err(Fault::new(at, format!("'{word}' is incompatible with 'source-track global'"))
            .help("use source-track rule"));
    }
    if keep.overload.is_some() && keep.max_src_conn == 0 && keep.max_src_conn_rate.is_none() {
        return Err(Fault::new(at, "'max-src-conn' or 'max-src-conn-rate' is required for 'overload'")
            .help("add one of them"));
    }
    if keep.track.is_none() && (tracked || by_rule || keep.max_src_states != 0) {
        keep.track = Some(if by_rule { SourceTrack::Rule } else { SourceTrack::Global });
    }
    if let Some(rate) = keep.max_src_conn_rate {
        match keep.timeouts.iter_mut().find(|(t, _)| *t == Timeout::SrcTrack) {
            Some((_, seconds)) => *seconds = rate.seconds.max(*seconds),
            None => keep.timeouts.push((Timeout::SrcTrack, rate.seconds)),
        }
        keep.timeouts.sort_by_key(|&(t, _)| t);
    }
    Ok(())
}

/// Fills in the macros of labels and tags.
fn named(def: &RuleDef, mut rule: Rule, number: usize) -> Parsed<Rule> {
    rule.labels = expand_labels(def, &rule, number)?;
    rule.tag = def.rule.tag.as_ref().map(|t| label::expand(t, &rule, number));
    let expand = |t: &Tagged| Tagged { not: t.not, name: label::expand(&t.name, &rule, number) };
    rule.tagged = def.rule.tagged.as_ref().map(expand);
    Ok(rule)
}

/// The parts of a combination belong to different families or interfaces: there is no such packet.
struct Disagree;

/// One combination of a rule's lists.
struct Combination<'a> {
    on: Option<&'a At<On>>,
    proto: Option<&'a At<u8>>,
    icmp: Option<&'a IcmpDef>,
    src: &'a Resolved,
    sport: Option<&'a At<Ports>>,
    os: Option<&'a At<String>>,
    dst: &'a Resolved,
    dport: Option<&'a At<Ports>>,
    user: Option<&'a At<IdMatch>>,
    group: Option<&'a At<IdMatch>>,
}

impl Combination<'_> {
    /// The family of all parts, if any has one.
    fn family(&self, said: Option<Family>) -> Result<Option<Family>, Disagree> {
        let mut family = said;
        for part in [self.src.family, self.dst.family].into_iter().flatten() {
            match family {
                Some(f) if f != part => return Err(Disagree),
                _ => family = Some(part),
            }
        }
        Ok(family)
    }

    /// The interface of all parts, a link-local address having one.
    fn interface(&self) -> Result<Option<On>, Disagree> {
        let mut on = self.on.map(|on| on.value.clone());
        for scope in [&self.src.scope, &self.dst.scope].into_iter().flatten() {
            match &on {
                Some(known) if &known.name != scope => return Err(Disagree),
                Some(_) => {}
                None => on = Some(On { not: false, name: scope.clone() }),
            }
        }
        Ok(on)
    }
}

/// The items of a list, or once nothing if it is empty.
pub(super) fn optional<T>(list: &[T]) -> Vec<Option<&T>> {
    if list.is_empty() { vec![None] } else { list.iter().map(Some).collect() }
}

/// Hosts and ports of one side, the ports varying fastest.
fn pairs<'a>(hosts: &'a [Resolved], ports: &'a [At<Ports>]) -> Vec<(&'a Resolved, Option<&'a At<Ports>>)> {
    hosts.iter().flat_map(|host| optional(ports).into_iter().map(move |port| (host, port))).collect()
}

fn expand_labels(def: &RuleDef, rule: &Rule, number: usize) -> Parsed<Vec<String>> {
    if def.labels.len() > 5 {
        return Err(Fault::new(def.at, "a rule has at most five labels").help("leave some away"));
    }
    let mut labels = Vec::new();
    for l in &def.labels {
        let text = label::expand(&l.value, rule, number);
        if text.len() > 63 {
            return Err(Fault::new(l.at, format!("label too long: {} characters, at most 63", text.len())));
        }
        if !text.is_empty() {
            labels.push(text);
        }
    }
    Ok(labels)
}
