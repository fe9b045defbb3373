//! The parts of pf.conf for which Softnet has no engine. They are parsed and printed as all others; a load refuses a
//! configuration that uses one, and says which and where.
//!
//! The grammar notes each of these keywords where it meets it. Who gives one an engine takes its line out of the list.

use wire::IpProto;

use super::{
    ast::{At, PoolPort, RuleDef},
    cursor::{Cursor, Use},
    error::Fault,
};
use crate::rule::Ports;

/// As it is noted and named.
const SCTP_PORT: &str = "port of sctp";

/// Keywords as the grammar notes them, and why there is no engine.
const WITHOUT_ENGINE: &[(&str, &str)] = &[
    // Routes.
    ("l3 no-route", "Ethernet rules do not ask for routes"),
    ("l3 urpf-failed", "Ethernet rules do not ask for routes"),
    // Ports that a rule for SCTP alone, or in a list, gives to it: pf keeps them, too, and says nothing.
    (SCTP_PORT, "SCTP keeps its ports"),
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

/// Notes the ports that the translation of a rule would give to SCTP.
pub(crate) fn note_sctp_ports(c: &mut Cursor, def: &RuleDef) {
    if !def.proto.iter().any(|proto| proto.value == IpProto::SCTP.0) {
        return;
    }
    let af_to = def.af_to.as_ref().map(|af_to| &af_to.value);
    let sources = [def.nat.as_ref(), def.binat.as_ref(), af_to.map(|a| &a.from)];
    let targets = [def.rdr.as_ref(), af_to.and_then(|a| a.to.as_ref())];
    for pool in sources.into_iter().flatten() {
        let set = pool.port_set.as_ref().map(|set| set.at);
        if let Some(at) = pool.port.as_ref().map(|port| port.at).or(set) {
            c.note(at, SCTP_PORT);
        }
    }
    for port in targets.into_iter().flatten().filter_map(|pool| pool.port.as_ref()) {
        // The port that it has already is no other.
        let keeps =
            |to: &At<Ports>| matches!((to.value, port.value), (Ports::Equal(a), PoolPort::One(b)) if a == b);
        if def.to_port.is_empty() || !def.to_port.iter().all(keeps) {
            c.note(port.at, SCTP_PORT);
        }
    }
}

/// What keeps a configuration that uses these keywords from being loaded.
pub(crate) fn check(uses: &[Use]) -> Vec<Fault> {
    let refused = |used: &Use| {
        let &(keyword, why) = WITHOUT_ENGINE.iter().find(|(keyword, _)| *keyword == used.value)?;
        Some(Fault::unsupported(used.at, keyword, why))
    };
    uses.iter().filter_map(refused).collect()
}
