//! Whether an `add` of BEET mode can be had: the addresses of the packets it is for are part of it.

use super::Checker;
use crate::{
    conf::statement::{Add, At, Extension},
    sa::{Mode, Protocol, SaConfig},
};

impl Checker<'_> {
    /// An SA of BEET mode has inner addresses of one family, and no other SA has any. What makes an outer header is not for it:
    /// it has the inner one's.
    pub(super) fn beet(&mut self, add: &Add, config: &SaConfig) {
        let place = |of: &dyn Fn(&Extension) -> bool| {
            add.extensions.iter().rev().find(|e| of(&e.value)).map_or(add.name.src.place, |e| e.place)
        };
        let mode = place(&|e| matches!(e, Extension::Mode(_)));
        let inner = place(&|e| matches!(e, Extension::Inner(..)));
        match (config.mode == Mode::Beet, config.inner) {
            (false, None) => return,
            (false, Some(_)) => {
                return self.errors.add(
                    inner,
                    "only BEET mode has inner addresses",
                    "-m beet, or leave -inner out",
                );
            }
            (true, None) => {
                let help = "-inner and source and destination of the packets it is for";
                self.errors.add(mode, "BEET mode without inner addresses", help);
            }
            (true, Some((src, dst))) if src.is_ipv4() != dst.is_ipv4() => {
                self.errors.add(inner, "the inner addresses are of two families", "both IPv4 or both IPv6");
            }
            (true, Some(_)) => {}
        }
        if config.protocol != Protocol::Esp {
            self.errors.add(mode, "only ESP has a BEET mode", "-m tunnel or -m transport");
        }
        for At { value, place } in &add.extensions {
            if is_of_outer_headers(value) {
                let message = "in BEET mode the outer header has the fields of the inner one";
                self.errors.add(*place, message, "-m tunnel, whose outer header is its own");
            }
        }
    }
}

/// Whether an extension is about the outer headers of tunnels, or about what is behind packets in them.
const fn is_of_outer_headers(extension: &Extension) -> bool {
    matches!(
        extension,
        Extension::Df(_)
            | Extension::Fragment(_)
            | Extension::Dscp(_)
            | Extension::NoEcn
            | Extension::Ttl(_)
            | Extension::FlowLabel
            | Extension::Tfc(_)
    )
}
