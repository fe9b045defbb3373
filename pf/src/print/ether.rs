//! Ethernet rules back to text.

use std::fmt::{self, Write};

use super::{anchor_name, rule};
use crate::{
    ether::{EtherRule, MacMatch},
    rule::Peer,
};

/// An Ethernet rule on one line, without the end of the line.
pub fn ether(rule: &EtherRule) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_ether(&mut out, rule);
    out
}

fn write_ether(out: &mut String, r: &EtherRule) -> fmt::Result {
    match &r.anchor {
        Some(call) => write!(out, "ether anchor{}", anchor_name(call))?,
        None => write!(out, "ether {}", if r.block { "block" } else { "pass" })?,
    }
    if let Some(direction) = r.direction {
        write!(out, " {}", direction.keyword())?;
    }
    if r.quick {
        out.write_str(" quick")?;
    }
    if let Some(on) = &r.on {
        write!(out, " on {}{}", if on.not { "! " } else { "" }, on.name)?;
    }
    if let Some(bridge) = &r.bridge_to {
        write!(out, " bridge-to {bridge}")?;
    }
    if let Some(proto) = r.proto {
        write!(out, " proto 0x{proto:04x}")?;
    }
    for (word, mac) in [("from", &r.from), ("to", &r.to)] {
        if let Some(mac) = mac {
            write!(out, " {word} ")?;
            write_mac(out, mac)?;
        }
    }
    out.write_str(" l3")?;
    if r.l3_from == Peer::default() && r.l3_to == Peer::default() {
        out.write_str(" all")?;
    } else {
        for (word, peer) in [("from", &r.l3_from), ("to", &r.l3_to)] {
            write!(out, " {word} {}{}", if peer.not { "! " } else { "" }, rule::host(&peer.host))?;
        }
    }
    for label in &r.labels {
        write!(out, " label {}", rule::quoted(label))?;
    }
    if r.ridentifier != 0 {
        write!(out, " ridentifier {}", r.ridentifier)?;
    }
    if let Some(queue) = &r.queue {
        write!(out, " queue {queue}")?;
    }
    if let Some(tag) = &r.tag {
        write!(out, " tag {tag}")?;
    }
    if let Some(t) = &r.tagged {
        write!(out, " {}tagged {}", if t.not { "! " } else { "" }, t.name)?;
    }
    match r.dummynet {
        Some(d) => rule::dummynet(out, d),
        None => Ok(()),
    }
}

fn write_mac(out: &mut String, mac: &MacMatch) -> fmt::Result {
    if mac.not {
        out.write_str("! ")?;
    }
    write_octets(out, mac.addr)?;
    let bits = mac.mask.iter().fold(0_u64, |bits, &octet| bits << 8 | u64::from(octet));
    let len = bits.count_ones();
    if len == 48 {
        Ok(())
    } else if bits.trailing_zeros().min(48) == 48 - len {
        write!(out, "/{len}")
    } else {
        out.write_str("&")?;
        write_octets(out, mac.mask)
    }
}

pub(crate) fn write_octets(out: &mut impl Write, octets: [u8; 6]) -> fmt::Result {
    for (i, octet) in octets.iter().enumerate() {
        write!(out, "{}{octet:02x}", if i == 0 { "" } else { ":" })?;
    }
    Ok(())
}
