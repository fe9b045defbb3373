//! Pools back to text.

use std::fmt::{self, Write};

use super::rule::host;
use crate::rule::{AfTo, Host, Method, Pool, PoolHost, PoolPorts, Route};

/// The addresses of a pool, its ports and its options.
pub(super) fn pool(out: &mut String, pool: &Pool) -> fmt::Result {
    let items: Vec<String> = pool.hosts.iter().map(item).collect();
    match items.as_slice() {
        [one] => out.write_str(one)?,
        several => write!(out, "{{ {} }}", several.join(", "))?,
    }
    match pool.ports {
        PoolPorts::Range(a, b) if a == b => write!(out, " port {a}")?,
        PoolPorts::Range(a, b) => write!(out, " port {a}:{b}")?,
        _ => {}
    }
    match pool.method {
        None => {}
        Some(Method::Bitmask) => out.write_str(" bitmask")?,
        Some(Method::Random) => out.write_str(" random")?,
        Some(Method::RoundRobin) => out.write_str(" round-robin")?,
        Some(Method::SourceHash(None)) => out.write_str(" source-hash")?,
        Some(Method::SourceHash(Some([a, b, c, d]))) => {
            write!(out, " source-hash 0x{a:08x}{b:08x}{c:08x}{d:08x}")?;
        }
    }
    if pool.sticky {
        out.write_str(" sticky-address")?;
    }
    if pool.endpoint_independent {
        out.write_str(" endpoint-independent")?;
    }
    match pool.ports {
        PoolPorts::Static => out.write_str(" static-port"),
        PoolPorts::PortSet(s) => write!(out, " map-e-portset {}/{}/{}", s.offset, s.length, s.id),
        _ => Ok(()),
    }
}

fn item(h: &PoolHost) -> String {
    match (&h.interface, &h.host) {
        (None, address) => host(address),
        (Some(interface), Host::Any) => format!("({interface} ?)"),
        (Some(interface), address) => format!("({interface} {})", host(address)),
    }
}

/// ` route-to (if host)`
pub(super) fn route(out: &mut String, route: &Route) -> fmt::Result {
    write!(out, " {} ", route.kind.keyword())?;
    pool(out, &route.pool)?;
    if route.prefer_inet6 { out.write_str(" prefer-ipv6-nexthop") } else { Ok(()) }
}

/// ` af-to inet6 from pool to pool`
pub(super) fn af_to(out: &mut String, to: &AfTo) -> fmt::Result {
    write!(out, " af-to {} from ", to.family.keyword())?;
    pool(out, &to.from)?;
    match &to.to {
        Some(to) => {
            out.write_str(" to ")?;
            pool(out, to)
        }
        None => Ok(()),
    }
}
