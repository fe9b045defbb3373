//! Grammar of addresses and ports: `from ! { 10/8, (lan0:network), <t> } port { ssh, 1024:2048 }`.

use std::net::IpAddr;

use super::{
    ast::{At, HostDef, HostWord},
    cursor::{Cursor, parse_number},
    error::{Fault, Parsed, Pos},
    lex::Tok,
};
use crate::{
    addr::{self, Family, bits},
    env::Environment,
    rule::{Dynamic, Part, Ports},
};

/// A list of addresses; `any` is an empty list.
pub(crate) fn hosts(c: &mut Cursor) -> Parsed<Vec<HostDef>> {
    if c.accept("any") {
        return Ok(Vec::new());
    }
    c.list(|c| host(c, true))
}

/// One address, as in a rule or in a table. Ranges are for rules only.
pub(crate) fn host(c: &mut Cursor, in_rule: bool) -> Parsed<HostDef> {
    let at = c.at();
    let not = c.accept_sym("!");
    let what = host_word(c, in_rule)?;
    let len = if c.is_sym("/") { Some(prefix_length(c, &what)?) } else { None };
    Ok(HostDef { at, not, what: complete(what, len), len })
}

fn host_word(c: &mut Cursor, in_rule: bool) -> Parsed<HostWord> {
    match c.peek() {
        Some(Tok::Sym("(")) => dynamic(c),
        Some(Tok::Sym("<")) => Ok(HostWord::Table(table_name(c)?.value)),
        Some(Tok::Sym("{")) => {
            Err(Fault::new(c.at(), "a list within a list").help("write all addresses into one list"))
        }
        _ => named_or_literal(c, in_rule),
    }
}

/// `<name>`, spaces allowed within.
pub(crate) fn table_name(c: &mut Cursor) -> Parsed<At<String>> {
    c.expect_sym("<")?;
    let name = c.string("the name of a table")?;
    c.expect_sym(">")?;
    if name.value.len() > 31 {
        return Err(Fault::new(
            name.at,
            format!("table name `{}` too long, at most 31 characters", name.value),
        ));
    }
    Ok(At::new(name.at, name.value.to_owned()))
}

fn dynamic(c: &mut Cursor) -> Parsed<HostWord> {
    c.expect_sym("(")?;
    let name = c.string("the name of an interface")?;
    let dynamic = interface_parts(name.at, name.value)?;
    c.expect_sym(")")?;
    Ok(HostWord::Dynamic(dynamic))
}

/// `if:network:0` in pieces.
pub(super) fn interface_parts(at: Pos, word: &str) -> Parsed<Dynamic> {
    let mut pieces = word.split(':');
    let interface = pieces.next().unwrap_or_default().to_owned();
    let mut dynamic = Dynamic { interface, part: Part::Address, no_alias: false, len: None };
    for piece in pieces {
        let part = match piece {
            "network" => Part::Network,
            "broadcast" => Part::Broadcast,
            "peer" => Part::Peer,
            "0" => {
                dynamic.no_alias = true;
                continue;
            }
            _ => {
                return Err(Fault::new(at, format!("unknown interface modifier `:{piece}`"))
                    .help("there are :network, :broadcast, :peer and :0"));
            }
        };
        if dynamic.part != Part::Address {
            return Err(Fault::new(at, format!("interface `{word}` has more than one modifier")));
        }
        dynamic.part = part;
    }
    Ok(dynamic)
}

fn named_or_literal(c: &mut Cursor, in_rule: bool) -> Parsed<HostWord> {
    let word = c.string("an address")?;
    match word.value {
        "any" if in_rule => return Ok(HostWord::Any),
        "no-route" if in_rule => return Ok(HostWord::NoRoute),
        "urpf-failed" if in_rule => return Ok(HostWord::UrpfFailed),
        _ => {}
    }
    // `10.0.0.1 - 10.0.0.9`; a word that ends in a letter is a name, and `-` belongs to what follows.
    if in_rule && c.is_sym("-") {
        return range(c, word);
    }
    Ok(literal(word.value, c.is_sym("/")).unwrap_or_else(|| HostWord::Name(word.value.to_owned())))
}

fn range(c: &mut Cursor, first: At<&str>) -> Parsed<HostWord> {
    c.expect_sym("-")?;
    let last = c.string("the last address of the range")?;
    let end = |w: At<&str>| -> Parsed<IpAddr> {
        w.value.parse().map_err(|_| Fault::new(w.at, format!("`{}` is not an address", w.value)))
    };
    let (a, b) = (end(At::new(first.at, first.value))?, end(At::new(last.at, last.value))?);
    if Family::of(a) != Family::of(b) {
        return Err(Fault::new(first.at, "the two ends of an address range are of different families")
            .help("write two ranges"));
    }
    if bits(a) > bits(b) {
        return Err(Fault::new(first.at, format!("address range {a} - {b} ends before it begins"))
            .help("the lower address comes first"));
    }
    Ok(HostWord::Range(a, b))
}

/// An address, perhaps with an interface behind `%`; before a length trailing zeros may be left out (`10/8`).
pub(super) fn literal(word: &str, before_length: bool) -> Option<HostWord> {
    let (address, scope) = match word.split_once('%') {
        Some((address, scope)) => (address, Some(scope.to_owned())),
        None => (word, None),
    };
    let short = || addr::short_inet(address).filter(|_| before_length);
    let address = address.parse::<IpAddr>().ok().or_else(short)?;
    Some(HostWord::Literal(address, scope))
}

fn prefix_length(c: &mut Cursor, what: &HostWord) -> Parsed<u8> {
    c.expect_sym("/")?;
    let len = c.number::<u8>("a prefix length")?;
    let width = match what {
        HostWord::Literal(a, _) => Family::of(*a).width(),
        HostWord::Any
        | HostWord::Table(_)
        | HostWord::Range(..)
        | HostWord::NoRoute
        | HostWord::UrpfFailed => {
            return Err(Fault::new(len.at, "a prefix length does not belong here"));
        }
        HostWord::Name(_) | HostWord::Dynamic(_) => 128,
    };
    if len.value > width {
        return Err(Fault::new(len.at, format!("prefix length {} is more than {width}", len.value)));
    }
    Ok(len.value)
}

fn complete(what: HostWord, len: Option<u8>) -> HostWord {
    match what {
        HostWord::Dynamic(d) => HostWord::Dynamic(Dynamic { len, ..d }),
        other => other,
    }
}

/// A list of ports.
pub(crate) fn ports(c: &mut Cursor, env: &Environment) -> Parsed<Vec<At<Ports>>> {
    c.list(|c| port(c, env))
}

fn port(c: &mut Cursor, env: &Environment) -> Parsed<At<Ports>> {
    let at = c.at();
    for (symbol, make) in UNARY {
        if c.accept_sym(symbol) {
            let (a, b) = port_range(c, env)?;
            return match b {
                None => Ok(At::new(at, make(a))),
                Some(_) => Err(Fault::new(at, format!("`{symbol}` and a range of ports do not go together"))),
            };
        }
    }
    let (a, b) = port_range(c, env)?;
    if let Some(b) = b {
        return ordered(at, a, b).map(|()| At::new(at, Ports::Within(a, b)));
    }
    for (symbol, make) in BINARY {
        if c.accept_sym(symbol) {
            let (b, more) = port_range(c, env)?;
            if more.is_some() {
                return Err(Fault::new(at, format!("`{symbol}` takes two ports, not a range")));
            }
            return ordered(at, a, b).map(|()| At::new(at, make(a, b)));
        }
    }
    Ok(At::new(at, Ports::Equal(a)))
}

type MakeOne = fn(u16) -> Ports;
type MakeTwo = fn(u16, u16) -> Ports;

const UNARY: [(&str, MakeOne); 6] = [
    ("=", Ports::Equal),
    ("!=", Ports::NotEqual),
    ("<=", Ports::LessEqual),
    (">=", Ports::GreaterEqual),
    ("<", Ports::Less),
    (">", Ports::Greater),
];
const BINARY: [(&str, MakeTwo); 2] = [("><", Ports::Between), ("<>", Ports::Outside)];

pub(crate) fn ordered(at: Pos, a: u16, b: u16) -> Parsed<()> {
    if a > b {
        return Err(Fault::new(at, format!("invalid port range: {a} is above {b}"))
            .help("the lower port comes first"));
    }
    Ok(())
}

/// `a` or `a:b`, numbers or services.
fn port_range(c: &mut Cursor, env: &Environment) -> Parsed<(u16, Option<u16>)> {
    let word = c.string("a port")?;
    if let Some((a, b)) = word.value.split_once(':') {
        return Ok((one_port(word.at, a, env)?, Some(one_port(word.at, b, env)?)));
    }
    Ok((one_port(word.at, word.value, env)?, None))
}

pub(crate) fn one_port(at: Pos, word: &str, env: &Environment) -> Parsed<u16> {
    if let Some(number) = parse_number(word) {
        return u16::try_from(number).map_err(|_| {
            Fault::new(at, format!("port {number} is out of range")).help("ports go from 0 to 65535")
        });
    }
    env.service(word).ok_or_else(|| {
        Fault::new(at, format!("unknown port `{word}`")).help("it is neither a number nor a known service")
    })
}
