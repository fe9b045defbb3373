//! The parts of pf.conf for which Softnet has no engine. They are parsed and printed as all others; a load refuses a
//! configuration that uses one, and says which and where.
//!
//! The grammar notes each of these keywords where it meets it. Who gives one an engine takes its line out of the list.

use super::{cursor::Use, error::Fault};

/// Keywords as the grammar notes them, and why there is no engine.
const WITHOUT_ENGINE: &[(&str, &str)] = &[
    // Routes.
    ("l3 no-route", "Ethernet rules do not ask for routes"),
    ("l3 urpf-failed", "Ethernet rules do not ask for routes"),
    // What a router in user space cannot do or does not need.
    ("user", "forwarded packets belong to no local user"),
    ("group", "forwarded packets belong to no local user"),
    ("divert-to", "packets cannot be diverted"),
    ("divert-reply", "packets cannot be diverted"),
    ("divert-packet", "packets cannot be diverted"),
    ("dnpipe", "there is no dummynet"),
    ("dnqueue", "there is no dummynet"),
    ("rtable", "there is one routing table"),
    ("pflow", "flows are not exported"),
    ("bridge-to", "interfaces are not bridged"),
];

/// What keeps a configuration that uses these keywords from being loaded.
pub(crate) fn check(uses: &[Use]) -> Vec<Fault> {
    let refused = |used: &Use| {
        let &(keyword, why) = WITHOUT_ENGINE.iter().find(|(keyword, _)| *keyword == used.value)?;
        Some(Fault::unsupported(used.at, keyword, why))
    };
    uses.iter().filter_map(refused).collect()
}
