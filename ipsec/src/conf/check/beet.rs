//! Whether an `add` of BEET mode can be had: the addresses of the packets it is for are part of it.

use super::Checker;
use crate::{
    conf::statement::{Add, At, Extension, ModeWord},
    sa::{Handling, Mode, Protocol, SaConfig},
};
use std::net::IpAddr;

impl Checker<'_> {
    /// An SA of BEET mode has inner addresses of one family, and no other SA has any. What makes an outer header is not for it:
    /// it has the inner one's.
    ///
    /// `config` is what an `update` has made of an SA, too, and may have from before what is not for this mode.
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
        let message = "in BEET mode the outer header has the fields of the inner one";
        let said: Vec<_> = add.extensions.iter().filter(|e| is_of_outer_headers(&e.value)).collect();
        for At { place, .. } in &said {
            self.errors.add(*place, message, "-m tunnel, whose outer header is its own");
        }
        if said.is_empty()
            && let Some(word) = kept(&config.handling)
        {
            let help = "a new SA with an SPI of its own, without it";
            self.errors.add(mode, format!("the SA has {word}, and {message}"), help);
        }
    }
}

/// What an `update` leaves of the inner addresses: they belong to the mode, and go with it.
pub(super) fn inner_left(add: &Add, config: &SaConfig) -> Option<(IpAddr, IpAddr)> {
    let mode = add.extensions.iter().rev().find_map(|e| match e.value {
        Extension::Mode(mode) => Some(mode),
        _ => None,
    });
    config.inner.filter(|_| mode.is_none_or(|mode| mode == ModeWord::Beet))
}

/// An option for outer headers that an SA has.
fn kept(handling: &Handling) -> Option<&'static str> {
    let none = Handling::default();
    let options = [
        ("-df", handling.df != none.df),
        ("-frag", handling.fragment != none.fragment),
        ("-dscp", handling.dscp != none.dscp),
        ("-noecn", handling.ecn != none.ecn),
        ("-ttl", handling.ttl != none.ttl),
        ("-flow-label", handling.flow_label != none.flow_label),
        ("-tfc", handling.tfc != none.tfc),
    ];
    options.into_iter().find_map(|(word, is_there)| is_there.then_some(word))
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
