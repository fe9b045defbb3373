//! What a configuration must not be, though every word of it is right (pfctl: `filter_consistent`, `check_commit_altq`).

use std::collections::{HashMap, HashSet};

use super::{
    PfConf,
    altq::{AltqSpec, QueueSpec, Scheduler},
    ast::{At, IcmpDef, PoolDef, RouteDef, RuleDef},
    error::{Fault, Parsed, Pos},
    resolve::Resolved,
};
use crate::{
    addr::Family,
    limiter::Limiter,
    names,
    pool::Pool,
    rule::{Action, Host, Ports, Reply, Rule, TcpFlags},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// Checks what takes the whole file to know.
pub(crate) fn whole(conf: &PfConf) -> Vec<Fault> {
    let mut faults = Vec::new();
    let defined: HashSet<&str> = conf.queues.iter().map(|q| q.name.as_str()).collect();
    let mut seen = HashSet::new();
    for rule in conf.rules.all().chain(conf.anchors.iter().flat_map(|a| a.rules.all())) {
        let Some(queue) = &rule.queue else { continue };
        for name in [Some(&queue.name), queue.low_delay.as_ref()].into_iter().flatten() {
            if !defined.contains(name.as_str()) && seen.insert((rule.at, name)) {
                faults.push(
                    Fault::new(rule.at, format!("queue `{name}` is not defined"))
                        .help(format!("add a line `queue {name}`")),
                );
            }
        }
    }
    faults.extend(altq_tree(&conf.altqs, &conf.queues));
    faults
}

/// A limiter counts states, so a rule that makes none cannot have one. An anchor that is `loaded` by itself may name by
/// number what the main ruleset defines, and defines none.
pub(crate) fn limiters(conf: &PfConf, loaded: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    if loaded {
        let fault = |l: &Limiter| {
            Fault::new(l.at, "limiters are defined in the main ruleset only")
                .help("rules of an anchor name them by number: state limiter id 1")
        };
        faults.extend(conf.limiters.iter().map(fault));
    }
    for rule in conf.rules.all().chain(conf.anchors.iter().flat_map(|a| a.rules.all())) {
        for (limiter, by_source) in [(rule.state_limiter, false), (rule.source_limiter, true)] {
            let Some(limiter) = limiter else { continue };
            if rule.action != Action::Pass || rule.keep.is_none() || rule.anchor.is_some() {
                let text = "a limiter is for pass rules that keep state";
                faults.push(Fault::new(rule.at, text).help("it counts the states that a rule makes"));
            } else if !loaded && !conf.limiters.iter().any(|l| (l.by_source, l.id) == (by_source, limiter.id))
            {
                let kind = if by_source { "source" } else { "state" };
                let text = format!("{kind} limiter id {} is not defined", limiter.id);
                faults.push(Fault::new(rule.at, text).help("define it above the rules"));
            }
        }
    }
    faults
}

/// What a rule must not be; `proto`, `port` and `icmp` are where these stand.
pub(crate) fn rule(
    def: &RuleDef,
    rule: &Rule,
    proto: Option<&At<u8>>,
    port: Option<&At<Ports>>,
    icmp: Option<&IcmpDef>,
) -> Parsed<()> {
    if !matches!(rule.proto, Some(TCP | UDP | SCTP))
        && let Some(port) = port
    {
        return Err(Fault::new(port.at, "port only applies to tcp/udp/sctp")
            .help("add proto tcp, or proto { tcp udp }"));
    }
    if let Some(icmp) = icmp {
        icmp_type(icmp, rule)?;
    }
    if let (Some(proto), Some(family)) = (proto, rule.family)
        && matches!((proto.value, family), (ICMP, Family::Inet6) | (ICMP6, Family::Inet))
    {
        let name = names::protocol_name(proto.value).unwrap_or_default();
        return Err(Fault::new(
            proto.at,
            format!("proto {name} doesn't match address family {}", family.keyword()),
        )
        .help("icmp is of inet, ipv6-icmp of inet6"));
    }
    if let Some(at) = def.allow_opts
        && matches!(rule.action, Action::Block(_))
    {
        return Err(Fault::new(at, "allow-opts can only be specified for pass rules")
            .help("use pass, or leave it away"));
    }
    if let Some(at) = def.fragment
        && (rule.from.port.is_some() || rule.to.port.is_some() || rule.flags.is_some() || rule.icmp.is_some())
    {
        return Err(Fault::new(at, "fragments can be filtered only on IP header fields")
            .help("later fragments have no ports, flags or ICMP types"));
    }
    if matches!(rule.action, Action::Block(Reply::Rst { .. })) && rule.proto != Some(TCP) {
        return Err(Fault::new(def.at, "return-rst can only be applied to TCP rules")
            .help("add proto tcp, or use `block return`"));
    }
    if let Some(flags) = &def.flags
        && let Some(TcpFlags { set, mask }) = flags.value
        && set & !mask != 0
    {
        return Err(Fault::new(flags.at, "flags are wanted that are not looked at")
            .help("the flags before `/` also stand behind it"));
    }
    Ok(())
}

/// Where a next hop cannot be.
pub(crate) fn route(route: &RouteDef, rule: &Rule) -> Parsed<()> {
    let at = route.pool.at;
    if matches!(rule.action, Action::Block(_)) {
        return Err(Fault::new(at, "route-to, reply-to and dup-to are not supported on block rules"));
    }
    if rule.direction.is_none() {
        return Err(Fault::new(at, "direction must be explicit with rules that specify routing")
            .help("add in or out"));
    }
    Ok(())
}

/// Where a translation cannot be.
pub(crate) fn translation(pool: &PoolDef, rule: &Rule) -> Parsed<()> {
    if matches!(rule.action, Action::Block(_)) {
        return Err(
            Fault::new(pool.at, "translation is not supported on block rules").help("use pass or match")
        );
    }
    if rule.anchor.is_some() {
        return Err(Fault::new(pool.at, "an anchor does not translate").help("its rules do"));
    }
    Ok(())
}

/// Both sides of a binat are networks of one length, or one of them is an interface.
pub(crate) fn binat(at: Pos, src: &Resolved, pool: Option<&Pool>) -> Parsed<()> {
    let (Host::Prefix(from), Some(Host::Prefix(to))) =
        (&src.host, pool.and_then(|p| p.hosts.first()).map(|h| &h.host))
    else {
        return Ok(());
    };
    if from.length() != to.length() {
        return Err(Fault::new(at, "'binat' source mask and redirect mask must be the same")
            .help(format!("{from} and {to} are of different lengths")));
    }
    Ok(())
}

/// `af-to` changes the family, of packets that come in.
pub(crate) fn af_to(at: Pos, to: Family, from: Option<Family>, rule: &Rule) -> Parsed<()> {
    if rule.action == Action::Match {
        return Err(Fault::new(at, "af-to is not supported on match rules")
            .help("a packet changes its family by a pass rule"));
    }
    if matches!(rule.action, Action::Block(_)) || rule.anchor.is_some() {
        return Err(Fault::new(at, "af-to is for pass rules"));
    }
    if rule.nat.is_some() || rule.rdr.is_some() {
        return Err(Fault::new(at, "af-to does not go together with nat-to, rdr-to and binat-to"));
    }
    if rule.direction != Some(crate::rule::Direction::In) {
        return Err(Fault::new(at, "af-to can only be used on inbound rules").help("add in"));
    }
    match from {
        None => Err(Fault::new(at, "no address family specified").help("add inet or inet6")),
        Some(family) if family == to => {
            Err(Fault::new(at, "incorrect address family translation").help("af-to names the other family"))
        }
        Some(_) => Ok(()),
    }
}

fn icmp_type(icmp: &IcmpDef, rule: &Rule) -> Parsed<()> {
    let (proto, word) = match icmp.family {
        Family::Inet => (ICMP, "icmp-type"),
        Family::Inet6 => (ICMP6, "icmp6-type"),
    };
    if rule.proto != Some(proto) {
        let name = names::protocol_name(proto).unwrap_or_default();
        return Err(Fault::new(icmp.at, format!("{word} only applies to proto {name}"))
            .help(format!("add proto {name}")));
    }
    match rule.family {
        None => Err(Fault::new(icmp.at, format!("must indicate address family with {word}"))
            .help(format!("add {}", icmp.family.keyword()))),
        Some(family) if family != icmp.family => {
            Err(Fault::new(icmp.at, format!("{word} doesn't match address family {}", family.keyword())))
        }
        Some(_) => Ok(()),
    }
}

/// The tree of queues: every queue has one parent and one definition, every interface one default.
fn altq_tree(altqs: &[AltqSpec], queues: &[QueueSpec]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let listed: HashSet<&str> = altqs
        .iter()
        .flat_map(|a| &a.queues)
        .chain(queues.iter().flat_map(|q| &q.children))
        .map(String::as_str)
        .collect();
    let mut defined: HashMap<(&str, Option<&str>), Pos> = HashMap::new();
    for queue in queues {
        if !listed.contains(queue.name.as_str()) {
            faults.push(
                Fault::new(queue.at, format!("queue `{}` has no parent", queue.name))
                    .help("name it in an `altq` line or in the list of another queue"),
            );
        }
        if defined.insert((&queue.name, queue.interface.as_deref()), queue.at).is_some() {
            faults.push(Fault::new(queue.at, format!("queue `{}` is defined twice", queue.name)));
        }
    }
    for altq in altqs {
        altq_interface(altq, queues, &mut faults);
    }
    faults
}

fn altq_interface(altq: &AltqSpec, queues: &[QueueSpec], faults: &mut Vec<Fault>) {
    let mut names: Vec<&str> = altq.queues.iter().map(String::as_str).collect();
    let (mut defaults, mut priorities, mut i) = (0, HashSet::new(), 0);
    while let Some(&name) = names.get(i) {
        i += 1;
        let own =
            |q: &&QueueSpec| q.name == name && q.interface.as_ref().is_none_or(|on| *on == altq.interface);
        let Some(queue) = queues.iter().find(own) else {
            faults.push(
                Fault::new(altq.at, format!("queue `{name}` on {} is not defined", altq.interface))
                    .help(format!("add a line `queue {name}`")),
            );
            continue;
        };
        altq_queue(altq, queue, &mut priorities, faults);
        defaults += usize::from(queue.options.default);
        let new = queue.children.iter().map(String::as_str).filter(|c| !names.contains(c));
        let new: Vec<&str> = new.collect();
        names.extend(new);
    }
    if defaults != 1 && altq.scheduler != Scheduler::Codel && !altq.options.default {
        faults.push(Fault::new(altq.at, format!("{} has {defaults} default queues", altq.interface)).help(
            format!(
                "should have one default queue on {}: {}(default)",
                altq.interface,
                altq.scheduler.keyword()
            ),
        ));
    }
}

fn altq_queue(altq: &AltqSpec, queue: &QueueSpec, priorities: &mut HashSet<u8>, faults: &mut Vec<Fault>) {
    if let Some(scheduler) = queue.scheduler.filter(|&s| s != altq.scheduler) {
        faults.push(Fault::new(
            queue.at,
            format!(
                "queue `{}` is {} and its interface {} is {}",
                queue.name,
                scheduler.keyword(),
                altq.interface,
                altq.scheduler.keyword()
            ),
        ));
    }
    let priority = queue.priority.unwrap_or(1);
    if priority > altq.scheduler.max_priority() {
        faults.push(Fault::new(
            queue.at,
            format!("priority out of range: max {}", altq.scheduler.max_priority()),
        ));
    }
    if altq.scheduler == Scheduler::Priq {
        if queue.bandwidth.is_some() {
            faults.push(Fault::new(queue.at, "a priq queue has no bandwidth").help("give it a priority"));
        }
        if !priorities.insert(priority) {
            faults.push(Fault::new(
                queue.at,
                format!("two queues of {} have priority {priority}", altq.interface),
            ));
        }
    }
}
