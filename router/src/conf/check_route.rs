//! The checks of `[[route]]`: a gateway must be on a subnet of ours, and each destination has one line.

use super::{
    check_interface::unknown_interface,
    diag::{At, Complaints, list},
    file::{Conf, Route, ToWord, TypeWord},
    valid::{InterfaceConf, RouteConf},
};
use crate::route::{IfIndex, NextHop};
use ipnet::IpNet;
use std::{collections::HashMap, net::IpAddr};

pub(super) fn check(conf: &Conf, interfaces: &[InterfaceConf], bad: &mut Complaints) -> Vec<RouteConf> {
    let mut routes = Vec::new();
    let mut seen: HashMap<IpNet, usize> = HashMap::new();
    for words in &conf.routes {
        let paths = paths(conf, words, interfaces, bad);
        let Some(to) = &words.to else { continue };
        for net in destinations(words, to, &paths, bad) {
            check_to(to, net, interfaces, bad);
            check_families(words, net, &paths, bad);
            if let Some(first) = seen.insert(net, words.span.start) {
                let line = conf.source.place(first..first).line;
                let hint = format!("the first is in line {line}; for several paths: via = [\"a\", \"b\"]");
                bad.error(&to.span, format!("there are two routes to {net}"), hint);
            }
            routes.push(RouteConf { to: net, paths: paths.clone() });
        }
    }
    routes
}

/// The prefixes a line is for. `default` takes the family of its gateways; without any it is for both.
fn destinations(words: &Route, to: &At<ToWord>, paths: &[NextHop], bad: &mut Complaints) -> Vec<IpNet> {
    let gateway = |path: &NextHop| if let NextHop::Gateway { addr, .. } = path { Some(*addr) } else { None };
    match to.value {
        ToWord::Net(net) if net != net.trunc() => {
            let message = format!("{net} has bits beyond its prefix length");
            bad.error(&to.span, message, format!("{} or {}", net.trunc(), IpNet::from(net.addr())));
            Vec::new()
        }
        ToWord::Net(net) => vec![net],
        ToWord::Default => match paths.iter().find_map(gateway) {
            Some(addr) => vec![ToWord::default_of(addr.is_ipv4())],
            // A gateway that was complained of says nothing about the family.
            None if words.via.is_some() => Vec::new(),
            None => vec![ToWord::default_of(true), ToWord::default_of(false)],
        },
    }
}

fn check_to(to: &At<ToWord>, net: IpNet, interfaces: &[InterfaceConf], bad: &mut Complaints) {
    let is_group = net.network().is_multicast();
    let is_link_local = matches!(net.network(), IpAddr::V6(a) if a.is_unicast_link_local());
    if is_group || is_link_local {
        bad.error(
            &to.span,
            format!("{net} is not routed"),
            "groups and link-local addresses stay on their link",
        );
    }
    let connected = |i: &&InterfaceConf| i.addrs.iter().any(|own| own.trunc() == net);
    if let Some(interface) = interfaces.iter().find(connected) {
        let message = format!("{net} is connected on {} already", interface.name);
        bad.error(&to.span, message, "the address of an interface brings its subnet's route");
    }
}

fn check_families(words: &Route, net: IpNet, paths: &[NextHop], bad: &mut Complaints) {
    let is_v4 = net.addr().is_ipv4();
    let other = |path: &&NextHop| matches!(path, NextHop::Gateway { addr, .. } if addr.is_ipv4() != is_v4);
    if let Some(NextHop::Gateway { addr, .. }) = paths.iter().find(other) {
        let via = words.via.iter().flatten().find(|v| v.value == *addr);
        let span = via.map_or(words.span.clone(), |v| v.span.clone());
        bad.error(&span, format!("{addr} is of another family than {net}"), "one line for each family");
    }
}

fn paths(conf: &Conf, words: &Route, interfaces: &[InterfaceConf], bad: &mut Complaints) -> Vec<NextHop> {
    let dev = words.dev.as_ref().and_then(|dev| {
        let found = interfaces.iter().find(|i| i.name == dev.value);
        if found.is_none() {
            unknown_interface(conf, dev, bad);
        }
        found
    });
    if let Some(kind) = &words.kind {
        if words.via.is_some() || words.dev.is_some() {
            bad.error(&kind.span, "a route that leads nowhere has no via or dev", "leave them away, or type");
        }
        return vec![match kind.value {
            TypeWord::Reject => NextHop::Reject,
            TypeWord::Blackhole => NextHop::Blackhole,
        }];
    }
    if let Some(via) = &words.via {
        return via.iter().filter_map(|v| gateway(v, words, dev, interfaces, bad)).collect();
    }
    if words.dev.is_none() {
        let hint = "via = \"203.0.113.2\", dev = \"wan0\" or type = \"reject\"";
        bad.error(&words.span, "the route leads nowhere", hint);
    }
    dev.map(|i| NextHop::Connected { iface: i.index }).into_iter().collect()
}

fn gateway(
    via: &At<IpAddr>,
    words: &Route,
    dev: Option<&InterfaceConf>,
    interfaces: &[InterfaceConf],
    bad: &mut Complaints,
) -> Option<NextHop> {
    let addr = via.value;
    if let Some(own) = interfaces.iter().find(|i| i.addrs.iter().any(|net| net.addr() == addr)) {
        bad.error(
            &via.span,
            format!("{addr} is our own address, on {}", own.name),
            "the address of another router",
        );
        return None;
    }
    let twice =
        words.via.iter().flatten().take_while(|other| other.span != via.span).any(|o| o.value == addr);
    if twice {
        bad.error(&via.span, format!("gateway {addr} is named twice"), "each path once");
        return None;
    }
    let iface = if matches!(addr, IpAddr::V6(a) if a.is_unicast_link_local()) {
        if words.dev.is_none() {
            let hint = "say on which link: dev = \"wan0\"";
            bad.error(&via.span, format!("{addr} is a link-local address"), hint);
        }
        dev?.index
    } else {
        on_subnet(via, dev, interfaces, bad)?
    };
    Some(NextHop::Gateway { iface, addr })
}

/// The interface whose subnet has the gateway.
fn on_subnet(
    via: &At<IpAddr>,
    dev: Option<&InterfaceConf>,
    interfaces: &[InterfaceConf],
    bad: &mut Complaints,
) -> Option<IfIndex> {
    let has = |i: &&InterfaceConf| i.addrs.iter().any(|net| net.contains(&via.value));
    let longest = |i: &&InterfaceConf| {
        i.addrs.iter().filter(|net| net.contains(&via.value)).map(IpNet::prefix_len).max().unwrap_or(0)
    };
    let found = match dev {
        Some(dev) => Some(dev).filter(has),
        None => interfaces.iter().filter(has).max_by_key(longest),
    };
    if found.is_none() {
        let scope = dev.map_or(interfaces, std::slice::from_ref);
        let subnets: Vec<String> = scope
            .iter()
            .flat_map(|i| i.addrs.iter())
            .filter(|net| net.addr().is_ipv4() == via.value.is_ipv4())
            .filter(|net| !matches!(net.addr(), IpAddr::V6(a) if a.is_unicast_link_local()))
            .map(|net| net.trunc().to_string())
            .collect();
        let place = dev.map_or(String::new(), |d| format!(" of {}", d.name));
        let message = format!(
            "gateway {} is on no subnet{}",
            via.value,
            if dev.is_some() { &place } else { " of ours" }
        );
        bad.error(&via.span, message, format!("subnets{place}: {}", list(&subnets)));
    }
    found.map(|i| i.index)
}
