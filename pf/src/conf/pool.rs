//! Grammar of address pools:
//!
//! ```text
//! nat-to|rdr-to|-> HOST|{ HOSTS } [port P|P:P|P:*] [bitmask|random|source-hash [KEY]|round-robin] [sticky-address]
//!     [static-port] [map-e-portset O/L/ID] [endpoint-independent]
//! route-to|reply-to|dup-to IF|(IF HOST)|{ list of these } [options of the pool]
//! af-to inet|inet6 from HOST [to HOST] [options of the pool]
//! ```

use md5::{Digest, Md5};

use super::{
    ast::{AfToDef, At, HostDef, HostWord, PoolDef, PoolHostDef, PoolPort, RouteDef, RuleDef},
    cursor::Cursor,
    error::{Fault, Parsed, Pos},
    filter, host,
    lex::Tok,
    translate,
};
use crate::{
    env::Environment,
    rule::{Method, PortSet, RouteKind},
};

/// What follows `nat-to`, `rdr-to`, `binat-to` or an arrow at `at`.
pub(crate) fn translation(c: &mut Cursor, env: &Environment, at: Pos) -> Parsed<PoolDef> {
    let mut pool = addresses(c, env, at)?;
    options(c, &mut pool)?;
    Ok(pool)
}

fn addresses(c: &mut Cursor, env: &Environment, at: Pos) -> Parsed<PoolDef> {
    let mut pool = PoolDef::new(at);
    pool.hosts = c.list(|c| {
        let host = host::host(c, false)?;
        if host.not {
            return Err(Fault::new(host.at, "a pool cannot be negated"));
        }
        match host.what {
            HostWord::Any | HostWord::NoRoute | HostWord::UrpfFailed => {
                Err(Fault::new(host.at, "a pool needs addresses").help("an address, (if), <table> or a list"))
            }
            _ => Ok(PoolHostDef { interface: None, host: Some(host) }),
        }
    })?;
    if c.accept("port") {
        pool.port = Some(port(c, env)?);
    }
    Ok(pool)
}

/// `n`, `n:m`, `n:*`
fn port(c: &mut Cursor, env: &Environment) -> Parsed<At<PoolPort>> {
    let word = c.string("a port")?;
    let Some((a, b)) = word.value.split_once(':') else {
        return Ok(At::new(word.at, PoolPort::One(host::one_port(word.at, word.value, env)?)));
    };
    let first = host::one_port(word.at, a, env)?;
    if b == "*" {
        return Ok(At::new(word.at, PoolPort::Star(first)));
    }
    let last = host::one_port(word.at, b, env)?;
    host::ordered(word.at, first, last)?;
    Ok(At::new(word.at, PoolPort::Range(first, last)))
}

/// The options of a pool, in any order.
fn options(c: &mut Cursor, pool: &mut PoolDef) -> Parsed<()> {
    while let Some(word) = c.peek_word() {
        let at = c.at();
        let method = match word {
            "bitmask" => Some(Method::Bitmask),
            "random" => Some(Method::Random),
            "round-robin" => Some(Method::RoundRobin),
            "source-hash" => Some(Method::SourceHash(None)),
            "sticky-address" => {
                if pool.sticky {
                    return Err(Fault::new(at, "sticky-address cannot be redefined"));
                }
                pool.sticky = true;
                None
            }
            "static-port" => {
                pool.static_port = Some(at);
                None
            }
            "endpoint-independent" => {
                pool.endpoint_independent = Some(at);
                None
            }
            "map-e-portset" => {
                c.skip();
                pool.port_set = Some(At::new(at, port_set(c)?));
                continue;
            }
            _ => return Ok(()),
        };
        c.skip();
        let Some(mut method) = method else { continue };
        if pool.method.is_some() {
            return Err(Fault::new(at, "pool type cannot be redefined").help("a pool has one type"));
        }
        if let Method::SourceHash(key) = &mut method {
            *key = hash_key(c)?;
        }
        pool.method = Some(At::new(at, method));
    }
    Ok(())
}

/// `0x` and 32 digits, or any other word, of which the MD5 digest is taken; may be absent.
fn hash_key(c: &mut Cursor) -> Parsed<Option<[u32; 4]>> {
    let at = c.at();
    let word = match c.peek() {
        Some(Tok::Quoted(word)) => word.as_str(),
        Some(Tok::Word(word)) if !is_after_pool(word) => word.as_str(),
        _ => return Ok(None),
    };
    c.skip();
    let key = match word.strip_prefix("0x") {
        Some(hex) if hex.len() == 32 => u128::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None => Some(u128::from_be_bytes(Md5::digest(word).into())),
    };
    let key = key.ok_or_else(|| {
        Fault::new(at, format!("invalid hash key `{word}`")).help("0x and 32 hexadecimal digits, or a word")
    })?;
    Ok(Some([(key >> 96) as u32, (key >> 64) as u32, (key >> 32) as u32, key as u32]))
}

/// Words that go on with a rule behind a pool, and so are no key.
fn is_after_pool(word: &str) -> bool {
    const WORDS: &[&str] = &[
        "sticky-address",
        "static-port",
        "endpoint-independent",
        "map-e-portset",
        "bitmask",
        "random",
        "round-robin",
        "source-hash",
        "inet",
        "inet6",
        "proto",
        "all",
        "from",
        "to",
        "flags",
        "icmp-type",
        "icmp6-type",
        "tos",
        "keep",
        "modulate",
        "synproxy",
        "no",
        "fragment",
        "allow-opts",
        "label",
        "queue",
        "tag",
        "tagged",
        "nat-to",
        "rdr-to",
        "binat-to",
        "af-to",
        "route-to",
        "reply-to",
        "dup-to",
        "scrub",
        "user",
        "group",
        "probability",
        "once",
        "prio",
        "set",
        "received-on",
        "rtable",
        "ridentifier",
        "max-pkt-rate",
        "max-pkt-size",
        "divert-to",
        "divert-reply",
        "divert-packet",
        "dnpipe",
        "dnqueue",
        "state",
        "source",
        "prefer-ipv6-nexthop",
    ];
    WORDS.contains(&word)
}

/// `offset/length/id`
fn port_set(c: &mut Cursor) -> Parsed<PortSet> {
    let offset = c.number::<u8>("the offset of a port set")?;
    c.expect_sym("/")?;
    let length = c.number::<u8>("the length of a port set")?;
    c.expect_sym("/")?;
    let id = c.number::<u16>("the number of a port set")?;
    if !(1..=16).contains(&offset.value) {
        return Err(Fault::new(offset.at, "MAP-E PSID offset must be 1-16"));
    }
    if length.value == 0 || u16::from(offset.value) + u16::from(length.value) > 16 {
        return Err(
            Fault::new(length.at, "invalid MAP-E PSID length").help("offset and length make at most 16")
        );
    }
    if u32::from(id.value) >> length.value != 0 {
        return Err(Fault::new(id.at, "invalid MAP-E PSID").help("it has more bits than the length says"));
    }
    Ok(PortSet { offset: offset.value, length: length.value, id: id.value })
}

/// Whether a next hop comes next.
pub(crate) fn is_route(c: &Cursor) -> bool {
    c.peek_word().is_some_and(|w| RouteKind::ALL.iter().any(|(_, k)| *k == w))
}

/// `route-to (if host) ...`
pub(crate) fn route(c: &mut Cursor, env: &Environment, def: &mut RuleDef) -> Parsed<()> {
    let word = c.word("route-to")?;
    let Some(&(kind, _)) = RouteKind::ALL.iter().find(|(_, k)| *k == word.value) else {
        return Err(c.expected("route-to, reply-to or dup-to"));
    };
    if def.route.is_some() {
        return Err(Fault::new(word.at, "cannot respecify route-to/reply-to/dup-to"));
    }
    let mut pool = PoolDef::new(word.at);
    pool.hosts = c.list(route_host)?;
    options(c, &mut pool)?;
    let prefer_inet6 = c.accept("prefer-ipv6-nexthop");
    options(c, &mut pool)?;
    translate::check_ports(&pool)?;
    let _ = env;
    def.route = Some(RouteDef { kind, pool, prefer_inet6 });
    Ok(())
}

/// `if`, `(if)`, `(if host)`; the host `?`, as pfctl prints it, is none.
fn route_host(c: &mut Cursor) -> Parsed<PoolHostDef> {
    if !c.accept_sym("(") {
        let interface = c.string("the name of an interface")?.value.to_owned();
        return Ok(PoolHostDef { interface: Some(interface), host: None });
    }
    let interface = c.string("the name of an interface")?.value.to_owned();
    let host = if c.is_sym(")") || c.accept("?") { None } else { Some(route_address(c)?) };
    c.expect_sym(")")?;
    Ok(PoolHostDef { interface: Some(interface), host })
}

fn route_address(c: &mut Cursor) -> Parsed<HostDef> {
    let host = host::host(c, false)?;
    match host.what {
        HostWord::Any | HostWord::NoRoute | HostWord::UrpfFailed => {
            Err(Fault::new(host.at, "a next hop is an address"))
        }
        _ if host.not => Err(Fault::new(host.at, "a next hop cannot be negated")),
        _ => Ok(host),
    }
}

/// What follows `af-to`.
pub(crate) fn af_to(c: &mut Cursor, env: &Environment) -> Parsed<AfToDef> {
    let Some(family) = filter::family(c) else { return Err(c.expected("`inet` or `inet6`")) };
    let at = c.at();
    c.expect("from")?;
    let mut from = addresses(c, env, at)?;
    let at = c.at();
    let mut to = if c.accept("to") { Some(addresses(c, env, at)?) } else { None };
    options(c, to.as_mut().unwrap_or(&mut from))?;
    // Of the two, only the source gets another port.
    to.as_ref().map_or(Ok(()), translate::check_ports)?;
    if let Some(at) = from.endpoint_independent {
        return Err(translate::only_nat(at, "endpoint-independent"));
    }
    Ok(AfToDef { family, from, to })
}
