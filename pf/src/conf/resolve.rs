//! Addresses as written become addresses: interfaces and hosts are looked up in the environment, once for each of their
//! addresses.

use std::collections::HashSet;

use super::{
    ast::{At, HostDef, HostWord},
    error::{Fault, Parsed, Pos},
    host,
};
use crate::{
    addr::{Family, Prefix},
    env::Environment,
    rule::{Dynamic, Host, Peer, Ports},
};

/// An address of a rule, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) host: Host,
    pub(crate) not: bool,
    pub(crate) family: Option<Family>,
    /// Interface that a link-local address belongs to.
    pub(crate) scope: Option<String>,
}

impl Resolved {
    const ANY: Resolved = Resolved { host: Host::Any, not: false, family: None, scope: None };
}

impl Resolved {
    /// One side of a rule.
    pub(crate) fn peer(&self, port: Option<&At<Ports>>, family: Option<Family>) -> Peer {
        let host = match &self.host {
            // A length of all bits says nothing.
            Host::Dynamic(d) if family.is_some_and(|f| d.len.is_some_and(|len| len >= f.width())) => {
                Host::Dynamic(Dynamic { len: None, ..d.clone() })
            }
            other => other.clone(),
        };
        Peer { not: self.not, host, port: port.map(|p| p.value) }
    }
}

/// All addresses of a list; an empty one is `any`.
pub(crate) fn list(env: &Environment, list: &[HostDef], family: Option<Family>) -> Parsed<Vec<Resolved>> {
    if list.is_empty() {
        return Ok(vec![Resolved::ANY]);
    }
    let mut all = Vec::new();
    for def in list {
        all.extend(one(env, def, family)?);
    }
    Ok(all)
}

/// What one item of a list stands for.
pub(crate) fn one(env: &Environment, def: &HostDef, family: Option<Family>) -> Parsed<Vec<Resolved>> {
    let not = def.not;
    let single = |host, family| Ok(vec![Resolved { host, not, family, scope: None }]);
    match &def.what {
        HostWord::Any if not => {
            Err(Fault::new(def.at, "`! any` matches nothing").help("name what is not to match"))
        }
        HostWord::Any => single(Host::Any, None),
        HostWord::Literal(addr, scope) => {
            let prefix = Prefix::new(*addr, def.len.unwrap_or(128));
            Ok(vec![Resolved { scope: scope.clone(), ..prefix_host(prefix, not, def.at)? }])
        }
        HostWord::Range(a, b) => single(Host::Range(*a, *b), Some(Family::of(*a))),
        HostWord::Dynamic(d) => single(Host::Dynamic(d.clone()), None),
        HostWord::Table(name) => single(Host::Table(name.clone()), None),
        HostWord::NoRoute if not => Err(Fault::new(def.at, "`! no-route` is not possible").help("use any")),
        HostWord::NoRoute => single(Host::NoRoute, None),
        HostWord::UrpfFailed if not => {
            Err(Fault::new(def.at, "`! urpf-failed` is not possible").help("use any"))
        }
        HostWord::UrpfFailed => single(Host::UrpfFailed, None),
        HostWord::Name(name) => named(env, def, name, family),
    }
}

fn named(env: &Environment, def: &HostDef, name: &str, family: Option<Family>) -> Parsed<Vec<Resolved>> {
    let base = name.split(':').next().unwrap_or_default();
    if base == "self" || env.interface(base).is_some() {
        return interface(env, def, name, family);
    }
    let Some(addresses) = env.host(name) else {
        return Err(Fault::new(def.at, format!("`{name}` is no address, no interface and no known host"))
            .help("write an address, or (if) for an interface that comes later"));
    };
    let wanted = addresses.iter().filter(|a| family.is_none_or(|f| f == Family::of(**a)));
    wanted.map(|a| prefix_host(Prefix::new(*a, def.len.unwrap_or(128)), def.not, def.at)).collect()
}

fn interface(env: &Environment, def: &HostDef, name: &str, family: Option<Family>) -> Parsed<Vec<Resolved>> {
    let dynamic = Dynamic { len: def.len, ..host::interface_parts(def.at, name)? };
    let addresses = env.addresses_of(&dynamic, family);
    if addresses.is_empty() {
        return Err(Fault::new(def.at, format!("no address found for `{name}`"))
            .help(format!("give it one, or write ({name})")));
    }
    let mut seen = HashSet::new();
    addresses.into_iter().filter(|p| seen.insert(*p)).map(|p| prefix_host(p, def.not, def.at)).collect()
}

/// The prefix of all addresses.
pub(crate) const fn everything(family: Family) -> Prefix {
    Prefix::new(family.address(0), 0)
}

/// A prefix in a rule; the one of all addresses is `any` of its family.
fn prefix_host(prefix: Prefix, not: bool, at: Pos) -> Parsed<Resolved> {
    let family = Some(prefix.family());
    if prefix.length() > 0 {
        return Ok(Resolved { host: Host::Prefix(prefix), not, family, scope: None });
    }
    if not {
        return Err(Fault::new(at, format!("`! {prefix}` matches nothing")));
    }
    Ok(Resolved { host: Host::Any, not, family, scope: None })
}
