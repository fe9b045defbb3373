//! Grammar of Ethernet rules:
//!
//! ```text
//! ether pass|block [in|out] [quick] [on IF] [bridge-to IF] [proto 0xTTTT] [from MAC] [to MAC] [l3 from ... to ...]
//!     [queue Q] [tag T] [tagged T] [label L] [ridentifier N] [dnpipe N]
//! ether anchor NAME [in|out] [quick] [on IF] ... [{ rules }]
//! ```

use super::{
    ast::{EtherDef, HostDef, HostWord},
    cursor::{Cursor, parse_number},
    error::{Fault, Parsed},
    filter, host, option,
};
use crate::{
    ether::{EtherRule, MacMatch},
    rule::Tagged,
};

/// An Ethernet rule or call; `ether` comes next.
pub(crate) fn ether(c: &mut Cursor) -> Parsed<EtherDef> {
    let at = c.at();
    c.expect("ether")?;
    let mut rule = EtherRule::all(at);
    let mut name = None;
    let is_anchor = c.accept("anchor");
    if is_anchor {
        name = filter::anchor_name(c)?;
    } else if c.accept("block") {
        rule.block = true;
    } else {
        c.expect("pass")?;
    }
    rule.direction = filter::direction(c);
    rule.quick = c.accept("quick");
    let mut def = EtherDef {
        rule,
        on: Vec::new(),
        proto: Vec::new(),
        from: Vec::new(),
        to: Vec::new(),
        l3_from: Vec::new(),
        l3_to: Vec::new(),
    };
    place(c, &mut def)?;
    while !c.is_done() && !c.is_sym("{") {
        rule_option(c, &mut def)?;
    }
    if is_anchor {
        let inline = c.accept_sym("{");
        def.rule.anchor = Some(filter::call(at, name, inline)?);
    }
    Ok(def)
}

fn place(c: &mut Cursor, def: &mut EtherDef) -> Parsed<()> {
    if c.accept("on") {
        def.on = c.list(filter::interface)?;
    }
    let at = c.at();
    if c.accept("bridge-to") {
        c.note(at, "bridge-to");
        def.rule.bridge_to = Some(c.string("the name of an interface")?.value.to_owned());
    }
    if c.accept("proto") {
        def.proto = c.list(|c| Ok(c.number::<u16>("an EtherType, as in 0x0800")?.value))?;
    }
    if c.accept("from") {
        def.from = c.list(mac)?;
    }
    if c.accept("to") {
        def.to = c.list(mac)?;
    }
    if c.accept("l3") && !c.accept("all") {
        let at = c.at();
        if c.accept("from") {
            def.l3_from = l3(c)?;
        }
        if c.accept("to") {
            def.l3_to = l3(c)?;
        }
        if def.l3_from.is_empty() && def.l3_to.is_empty() && c.at() == at {
            return Err(c.expected("`all`, `from` or `to`"));
        }
    }
    Ok(())
}

fn l3(c: &mut Cursor) -> Parsed<Vec<HostDef>> {
    let hosts = host::hosts(c)?;
    for host in &hosts {
        match host.what {
            HostWord::NoRoute => c.note(host.at, "l3 no-route"),
            HostWord::UrpfFailed => c.note(host.at, "l3 urpf-failed"),
            _ => {}
        }
    }
    Ok(hosts)
}

/// `! 00:11:22:33:44:55`, with `/n` or `& mask`.
fn mac(c: &mut Cursor) -> Parsed<MacMatch> {
    let not = c.accept_sym("!");
    let word = c.string("a MAC address")?;
    let (addr, masked) = match word.value.split_once('&') {
        Some((addr, mask)) => (addr, Some(mask)),
        None => (word.value, None),
    };
    let wrong = |what: &str| {
        Fault::new(word.at, format!("invalid MAC address `{what}`")).help("as in 00:11:22:33:44:55")
    };
    let addr = octets(addr).ok_or_else(|| wrong(addr))?;
    let mut mask = [0xff; 6];
    if let Some(text) = masked.filter(|m| !m.is_empty()) {
        mask = octets(text).ok_or_else(|| wrong(text))?;
    } else if masked.is_some() || c.accept("&") {
        let word = c.string("a mask")?;
        mask = octets(word.value).ok_or_else(|| wrong(word.value))?;
    } else if c.accept_sym("/") {
        let len = c.number::<u8>("a number of bits")?;
        if len.value > 48 {
            return Err(Fault::new(len.at, format!("mask length {} is more than 48", len.value)));
        }
        let bits = if len.value == 0 { 0 } else { u64::MAX << (48 - len.value) };
        mask.copy_from_slice(&bits.to_be_bytes()[2..]);
    }
    Ok(MacMatch { not, addr, mask })
}

/// `00:11:22:33:44:55`
pub(crate) fn octets(text: &str) -> Option<[u8; 6]> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        *octet = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(octets)
}

fn rule_option(c: &mut Cursor, def: &mut EtherDef) -> Parsed<()> {
    let at = c.at();
    let rule = &mut def.rule;
    if c.accept_sym("!") {
        c.expect("tagged")?;
        rule.tagged = Some(Tagged { not: true, name: option::tag_name(c)?.value });
        return Ok(());
    }
    let word = c.word("an option of the rule")?;
    match word.value {
        "queue" => rule.queue = Some(c.string("the name of a queue")?.value.to_owned()),
        "tag" => rule.tag = Some(option::tag_name(c)?.value),
        "tagged" => rule.tagged = Some(Tagged { not: false, name: option::tag_name(c)?.value }),
        "label" => {
            if rule.labels.len() == 5 {
                return Err(Fault::new(at, "a rule has at most five labels"));
            }
            rule.labels.push(option::label(c)?.value);
        }
        "ridentifier" => {
            rule.ridentifier = c.number::<u32>("an identifier")?.value;
        }
        "dnpipe" => {
            c.note(at, "dnpipe");
            rule.dummynet = Some(option::dummynet(c, true)?);
        }
        "dnqueue" => {
            c.note(at, "dnqueue");
            rule.dummynet = Some(option::dummynet(c, false)?);
        }
        other if parse_number(other).is_some() => return Err(c.expected("an option of the rule")),
        other => {
            return Err(Fault::new(at, format!("syntax error: unknown option `{other}`"))
                .help("there are l3, queue, tag, tagged, label, ridentifier, dnpipe and dnqueue"));
        }
    }
    Ok(())
}
