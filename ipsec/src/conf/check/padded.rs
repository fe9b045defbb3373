//! `-tfc`: who asks for padding against traffic analysis (RFC 4303, 2.7) and would get none is told.
//!
//! It stands behind the packet in a tunnel, whose own length says where it begins. In transport mode nothing does, and AH and IPComp
//! have no room for any.

use super::{Checker, ConfError, ValidSa};
use crate::{
    conf::{
        build::mode,
        statement::{Add, Extension},
    },
    sa::{Mode, Protocol, SaConfig},
};
use std::sync::Arc;

const MESSAGE: &str = "only ESP in a tunnel is padded";
const HELP: &str = "esp and -m tunnel, or leave -tfc out";

impl Checker<'_> {
    /// What an SA says of itself. In BEET mode `-tfc` is refused with all that is of tunnels.
    pub(super) fn padded(&mut self, add: &Add, config: &SaConfig) {
        let none = config.handling.tfc == 0 || config.mode == Mode::Beet;
        if none || config.protocol == Protocol::Esp && config.mode != Mode::Transport {
            return;
        }
        let last = |of: &dyn Fn(&Extension) -> bool| add.extensions.iter().rev().find(|e| of(&e.value));
        let said =
            last(&|e| matches!(e, Extension::Tfc(_))).or_else(|| last(&|e| matches!(e, Extension::Mode(_))));
        self.errors.add(said.map_or(add.name.src.place, |e| e.place), MESSAGE, HELP);
    }

    /// An SA that leaves the mode open has that of its policy.
    pub(super) fn padded_as_policies_say(&mut self) {
        let is_open = |sa: &&ValidSa| sa.config.handling.tfc > 0 && sa.config.mode == Mode::Any;
        let mut open = self.valid.sas.iter().filter(is_open).peekable();
        if open.peek().is_none() {
            return;
        }
        let policies = self.valid.policies();
        let refused = open.filter(|sa| mode(&sa.config, &policies) == Mode::Transport).map(|sa| ConfError {
            file: Arc::clone(&sa.origin.file),
            place: sa.origin.place,
            message: MESSAGE.to_owned(),
            help: HELP.to_owned(),
        });
        self.errors.list.extend(refused);
    }
}
