//! Which tables rules speak of.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    limiter::Limiter,
    rule::{Host, Rule, Rules},
    table::{self, Staged},
};

/// Tables by anchor and name.
pub(super) fn by_name(staged: &[Staged]) -> HashMap<&str, HashMap<&str, table::Shared>> {
    let mut all: HashMap<&str, HashMap<&str, table::Shared>> = HashMap::new();
    for s in staged {
        all.entry(s.table.anchor()).or_default().insert(s.table.name(), Arc::clone(&s.table));
    }
    all
}

/// What the pools of a rule choose from.
fn pool_hosts(rule: &Rule) -> impl Iterator<Item = &Host> {
    let routes = rule.route.iter().map(|route| &route.pool);
    let families = rule.af_to.iter().flat_map(|to| std::iter::once(&to.from).chain(&to.to));
    let pools = rule.nat.iter().chain(&rule.rdr).chain(routes).chain(families);
    pools.flat_map(|pool| pool.hosts.iter().map(|h| &h.host))
}

/// The names of the tables that pools choose from.
pub(super) fn pool_tables(rules: &Rules) -> HashSet<&str> {
    let hosts = rules.all().flat_map(pool_hosts);
    hosts.filter_map(|host| if let Host::Table(name) = host { Some(name.as_str()) } else { None }).collect()
}

/// The names of all tables that rules and limiters speak of, and how often.
pub(super) fn spoken_of<'r>(rules: &'r Rules, limiters: &'r [Limiter]) -> HashMap<&'r str, u32> {
    let mut names = HashMap::new();
    for table in limiters.iter().filter_map(|limiter| limiter.table.as_ref()) {
        *names.entry(table.name.as_str()).or_default() += 1;
    }
    for host in rules.ether.iter().flat_map(|rule| [&rule.l3_from.host, &rule.l3_to.host]) {
        if let Host::Table(name) = host {
            *names.entry(name.as_str()).or_default() += 1;
        }
    }
    for rule in rules.all() {
        for host in [&rule.from.host, &rule.to.host].into_iter().chain(pool_hosts(rule)) {
            if let Host::Table(name) = host {
                *names.entry(name.as_str()).or_default() += 1;
            }
        }
        if let Some(overload) = rule.keep.as_ref().and_then(|keep| keep.overload.as_ref()) {
            *names.entry(overload.table.as_str()).or_default() += 1;
        }
    }
    names
}
