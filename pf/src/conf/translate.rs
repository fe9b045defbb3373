//! Grammar of translation rules:
//!
//! ```text
//! [no] nat|rdr [pass [log]] [log] [on IF] [inet|inet6] [proto P] from ... to ... [tag T] [tagged T] [rtable N] -> POOL
//! [no] binat [pass [log]] [log] [on IF] [inet|inet6] [proto P] from HOST to HOST [tag T] [tagged T] [rtable N] -> HOST
//! ```

use super::{
    ast::{HostDef, HostWord, PoolDef, RuleDef},
    cursor::Cursor,
    error::{Fault, Parsed, Pos},
    filter, option, pool, unsupported,
};
use crate::{
    env::Environment,
    rule::{Action, Tagged},
};

/// A translation rule; `no`, if there is one, is taken already.
pub(crate) fn rule(c: &mut Cursor, env: &Environment, at: Pos, no: bool) -> Parsed<RuleDef> {
    let word = c.word("nat, rdr or binat")?;
    let (keyword, action, none) = match word.value {
        "nat" => ("nat", Action::Nat, Action::NoNat),
        "rdr" => ("rdr", Action::Rdr, Action::NoRdr),
        _ => ("binat", Action::Binat, Action::NoBinat),
    };
    c.note(at, keyword);
    let mut def = RuleDef::new(at, if no { none } else { action });
    if c.accept("pass") {
        if no {
            return Err(Fault::new(at, "\"pass\" not valid with \"no\""));
        }
        def.rule.nat_pass = true;
    }
    def.rule.log = filter::log_word(c)?;
    filter::place(c, env, &mut def)?;
    if let Some(route) = &def.route {
        return Err(Fault::new(route.pool.at, format!("{} is for filter rules", route.kind.keyword())));
    }
    options(c, &mut def)?;
    let arrow = c.at();
    if c.accept_sym("->") {
        if no {
            return Err(Fault::new(arrow, format!("{keyword} rule with 'no' does not need '->'")));
        }
        let target = pool::translation(c, env, arrow)?;
        check_pool(action, Some(&target))?;
        match action {
            Action::Rdr => def.rdr = Some(target),
            _ => def.nat = Some(target),
        }
    } else if !no {
        return Err(c.expected("`->`").help(format!("{keyword} rule requires '-> address'")));
    }
    if action == Action::Binat {
        check_binat(&def)?;
    }
    unsupported::note_sctp_ports(c, &def);
    Ok(def)
}

fn options(c: &mut Cursor, def: &mut RuleDef) -> Parsed<()> {
    loop {
        let at = c.at();
        if c.accept("tag") {
            def.rule.tag = Some(option::tag_name(c)?.value);
        } else if c.accept("tagged") {
            def.rule.tagged = Some(Tagged { not: false, name: option::tag_name(c)?.value });
        } else if c.accept_sym("!") {
            c.expect("tagged")?;
            def.rule.tagged = Some(Tagged { not: true, name: option::tag_name(c)?.value });
        } else if c.accept("rtable") {
            c.note(at, "rtable");
            def.rule.rtable = Some(c.number::<u32>("a routing table")?.value);
        } else {
            return Ok(());
        }
    }
}

/// What the pool of a kind of rule must not have.
pub(crate) fn check_pool(action: Action, pool: Option<&PoolDef>) -> Parsed<()> {
    let Some(pool) = pool else { return Ok(()) };
    if let Some(at) = pool.static_port {
        if action != Action::Nat {
            return Err(Fault::new(at, "the 'static-port' option is only valid with nat rules"));
        }
        if pool.port.is_some() {
            return Err(Fault::new(
                at,
                "the 'static-port' option can't be used when specifying a port range",
            ));
        }
    }
    if action != Action::Nat {
        check_ports(pool)?;
    }
    if let Some(set) = &pool.port_set {
        if pool.static_port.is_some() {
            return Err(Fault::new(set.at, "the 'map-e-portset' option can't be used 'static-port'"));
        }
        if pool.port.is_some() {
            return Err(Fault::new(
                set.at,
                "the 'map-e-portset' option can't be used when specifying a port range",
            ));
        }
    }
    Ok(())
}

/// What only the pool of a source has, since no other chooses ports freely.
pub(crate) fn check_ports(pool: &PoolDef) -> Parsed<()> {
    let port_set = pool.port_set.as_ref().map(|set| only_nat(set.at, "map-e-portset"));
    let endpoint = pool.endpoint_independent.map(|at| only_nat(at, "endpoint-independent"));
    port_set.or(endpoint).map_or(Ok(()), Err)
}

/// An option of a pool that translates anything but sources.
pub(crate) fn only_nat(at: Pos, option: &str) -> Fault {
    Fault::new(at, format!("the '{option}' option is only valid with nat rules"))
}

/// A binat rule maps one network to one: no lists, tables or ports.
fn check_binat(def: &RuleDef) -> Parsed<()> {
    for (list, name) in [(&def.from, "source"), (&def.to, "destination")] {
        if let [_, second, ..] = list.as_slice() {
            return Err(Fault::new(second.at, format!("multiple binat ip addresses ({name})"))
                .help("write one binat rule for each"));
        }
    }
    let asks = |h: &&HostDef| matches!(h.what, HostWord::NoRoute | HostWord::UrpfFailed);
    if let Some(host) = def.from.iter().chain(&def.to).find(asks) {
        return Err(Fault::new(host.at, "binat rules do not ask for routes").help("name the networks"));
    }
    if let Some(port) = def.from_port.first().or(def.to_port.first()) {
        return Err(Fault::new(port.at, "binat rules have no ports"));
    }
    let Some(pool) = &def.nat else { return Ok(()) };
    if let [_, second, ..] = pool.hosts.as_slice() {
        let at = second.host.as_ref().map_or(pool.at, |h| h.at);
        return Err(Fault::new(at, "binat rule must redirect to a single address"));
    }
    if let Some(port) = &pool.port {
        return Err(Fault::new(port.at, "binat rules have no ports"));
    }
    let is_table = |h: &&HostDef| matches!(h.what, HostWord::Table(_));
    let target = pool.hosts.iter().filter_map(|h| h.host.as_ref());
    if let Some(table) = def.from.iter().chain(target).find(is_table) {
        return Err(Fault::new(table.at, "tables cannot be the source or the target of a binat rule"));
    }
    if let Some(method) = &pool.method {
        return Err(Fault::new(method.at, "binat rules have no pool type"));
    }
    Ok(())
}
