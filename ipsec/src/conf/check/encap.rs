//! Whether an `add` asks for UDP encapsulation, and whether it can be had (RFC 3948).
//!
//! NetBSD says `esp-udp` and writes ports behind the ends; FreeBSD says `esp` and `-natt` with original addresses and ports. Either
//! is taken. Ports that are not said are 4500. One end is ours and has it; the other's is what its translator made of it.

use super::Checker;
use crate::{
    conf::statement::{Add, At, Extension, Protocol},
    natt::{Encap, KEEPALIVE, PORT},
};

impl Checker<'_> {
    /// How an SA goes in UDP, if it does.
    pub(super) fn encap(&mut self, add: &Add) -> Option<Encap> {
        let natt = last(add, |e| if let Extension::Natt(ends) = e { Some(*ends) } else { None });
        let keepalive = last(add, |e| if let Extension::Keepalive(n) = e { Some(*n) } else { None });
        if let Some(mtu) = last(add, |e| (*e == Extension::NattMtu).then_some(())) {
            let message = "the size of fragments is not told: it follows from the link and from \"too big\"";
            self.errors.add(mtu.place, message, "-frag before, to have packets fragmented before they go in");
        }
        let protocol = &add.name.protocol;
        let said = add.name.ports.iter().flatten().next();
        match (protocol.value, &natt) {
            (Protocol::EspUdp, _) | (Protocol::Esp, Some(_)) => {}
            (Protocol::Esp, None) => {
                for place in [said.map(|p| p.place), keepalive.map(|k| k.place)].into_iter().flatten() {
                    self.errors.add(place, "this SA does not go in UDP", "esp-udp instead of esp");
                }
                return None;
            }
            (other, _) => {
                let places = [said.map(|p| p.place), natt.map(|n| n.place), keepalive.map(|k| k.place)];
                for place in places.into_iter().flatten() {
                    let message = format!("{} does not go in UDP", other.name());
                    self.errors.add(place, message, "RFC 3948 is for ESP alone");
                }
                return None;
            }
        }
        if let (Some(said), Some(_)) = (said, &natt) {
            self.errors.add(said.place, "the ports are said twice", "here or in -natt");
        }
        let [src_port, dst_port] = match &natt {
            Some(natt) => natt.value.map(|(_, port)| port),
            None => [0, 1].map(|end| add.name.ports[end].as_ref().map_or(PORT, |port| port.value)),
        };
        if src_port != PORT && dst_port != PORT {
            let place = natt.as_ref().map_or(said.map_or(protocol.place, |p| p.place), |natt| natt.place);
            let message = format!("neither end has port {PORT}");
            self.errors.add(place, message, "one end is this router, and that is its port");
        }
        // A peer with another port is behind a translator and keeps it awake itself.
        let default = if src_port == PORT && dst_port == PORT { KEEPALIVE } else { 0 };
        Some(Encap {
            src_port,
            dst_port,
            original: natt.map_or([None; 2], |natt| natt.value.map(|(addr, _)| Some(addr))),
            keepalive: keepalive.map_or(default, |k| k.value),
        })
    }
}

/// The last extension of a kind.
fn last<T>(add: &Add, of: impl Fn(&Extension) -> Option<T>) -> Option<At<T>> {
    add.extensions.iter().rev().find_map(|e| of(&e.value).map(|value| At { value, place: e.place }))
}
