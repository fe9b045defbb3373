//! Pools as written become pools: names are looked up, one family is left, and what a kind of pool cannot have is
//! refused.

use super::{
    ast::{At, PoolDef, PoolHostDef, PoolPort},
    error::{Fault, Parsed},
    resolve,
};
use crate::{
    addr::Family,
    env::Environment,
    pool::NAT_PORTS,
    rule::{Dynamic, Host, Method, Pool, PoolHost, PoolPorts, Ports},
};

/// What a pool is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Nat,
    Rdr,
    Binat,
    Route,
}

impl Purpose {
    const fn word(self) -> &'static str {
        match self {
            Purpose::Route => "routing",
            _ => "translation",
        }
    }
}

/// The pool for rules of `family`; where that is none, the pool may decide it.
pub(crate) fn pool(
    env: &Environment,
    def: &PoolDef,
    purpose: Purpose,
    family: &mut Option<Family>,
    port: Option<&At<Ports>>,
) -> Parsed<Pool> {
    let mut hosts: Vec<(PoolHost, Option<Family>)> = Vec::new();
    for host in &def.hosts {
        hosts.extend(addresses(env, host)?);
    }
    decide_family(def, purpose, &hosts, family)?;
    hosts.retain(|(_, f)| f.is_none_or(|f| family.is_none_or(|wanted| wanted == f)));
    if hosts.is_empty() {
        let message = format!("no {} address with matching address family found.", purpose.word());
        return Err(Fault::new(def.at, message).help("the rule and the pool are of different families"));
    }
    let whole = |host| match host {
        Host::Dynamic(d) if family.is_some_and(|f| d.len.is_some_and(|len| len >= f.width())) => {
            Host::Dynamic(Dynamic { len: None, ..d })
        }
        other => other,
    };
    let hosts: Vec<PoolHost> =
        hosts.into_iter().map(|(h, _)| PoolHost { host: whole(h.host), ..h }).collect();
    Ok(Pool {
        method: method(def, purpose, &hosts)?,
        hosts,
        sticky: def.sticky,
        ports: ports(def, purpose, port)?,
        endpoint_independent: def.endpoint_independent.is_some(),
    })
}

fn addresses(env: &Environment, def: &PoolHostDef) -> Parsed<Vec<(PoolHost, Option<Family>)>> {
    let interface = || def.interface.clone();
    let Some(host) = &def.host else {
        return Ok(vec![(PoolHost { interface: interface(), host: Host::Any }, None)]);
    };
    let found = resolve::one(env, host, None)?;
    Ok(found.into_iter().map(|r| (PoolHost { interface: interface(), host: r.host }, r.family)).collect())
}

/// The rule takes the pool's family if it has none of its own.
fn decide_family(
    def: &PoolDef,
    purpose: Purpose,
    hosts: &[(PoolHost, Option<Family>)],
    family: &mut Option<Family>,
) -> Parsed<()> {
    let Some(first) = hosts.iter().find_map(|(_, f)| *f).filter(|_| family.is_none()) else { return Ok(()) };
    // As in pfctl the first next hop decides; a translation has to be told.
    if purpose != Purpose::Route && hosts.iter().any(|(_, f)| f.is_some_and(|f| f != first)) {
        return Err(Fault::new(
            def.at,
            "address family not given and translation address expands to multiple address families",
        )
        .help("add inet or inet6"));
    }
    *family = Some(first);
    Ok(())
}

/// Whether `(if)` may stand for several addresses. Without `:0` it may, and so may a group of interfaces.
fn may_be_several(d: &Dynamic) -> bool {
    !d.no_alias || !d.interface.ends_with(|c: char| c.is_ascii_digit())
}

fn method(def: &PoolDef, purpose: Purpose, hosts: &[PoolHost]) -> Parsed<Option<Method>> {
    if purpose == Purpose::Binat {
        return Ok(None);
    }
    let several = hosts.len() > 1
        || hosts.iter().any(|h| match &h.host {
            Host::Table(_) => true,
            Host::Dynamic(d) => may_be_several(d),
            _ => false,
        });
    let Some(method) = &def.method else {
        return Ok(several.then_some(Method::RoundRobin));
    };
    if method.value == Method::Bitmask {
        for host in hosts {
            match &host.host {
                Host::Table(_) => return Err(Fault::new(method.at, "tables are not supported by pool type")),
                Host::Dynamic(d) if may_be_several(d) => {
                    return Err(Fault::new(
                        method.at,
                        format!("interface ({}) is not supported by pool type", d.interface),
                    ));
                }
                _ => {}
            }
        }
    }
    if hosts.len() > 1 && method.value != Method::RoundRobin {
        return Err(Fault::new(method.at, "only round-robin valid for multiple translation addresses")
            .help("put the addresses into a table"));
    }
    Ok(Some(method.value))
}

fn ports(def: &PoolDef, purpose: Purpose, port: Option<&At<Ports>>) -> Parsed<PoolPorts> {
    if def.static_port.is_some() {
        return Ok(PoolPorts::Static);
    }
    if let Some(set) = def.port_set {
        return Ok(PoolPorts::PortSet(set.value));
    }
    let Some(At { at, value }) = def.port else { return Ok(PoolPorts::Default) };
    let (first, last) = match value {
        PoolPort::One(first) => (first, first),
        PoolPort::Range(first, last) => (first, last),
        PoolPort::Star(first) => match port.map(|p| p.value).filter(|_| purpose == Purpose::Rdr) {
            Some(Ports::Within(a, b)) => {
                let last = first.checked_add(b - a).ok_or_else(|| {
                    Fault::new(at, format!("{first}:* goes beyond port 65535"))
                        .help("the destination ports are too many")
                })?;
                (first, last)
            }
            _ => (first, first),
        },
    };
    if first == 0 {
        return Err(Fault::new(at, "port 0 is no port to translate to"));
    }
    if purpose == Purpose::Nat && (first, last) == NAT_PORTS {
        return Ok(PoolPorts::Default);
    }
    Ok(PoolPorts::Range(first, last))
}
