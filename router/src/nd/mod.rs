//! Neighbour discovery for IPv6 (RFC 4861), as a router does it: solicitations for our addresses are answered, what neighbours tell
//! is learned, our own addresses are checked before they are defended (RFC 4862, 5.4), and hosts are told of us where the
//! configuration says so.
//!
//! Messages were delivered by `icmp_input`; they are believed only with hop limit 255 and every other check of RFC 4861 (in
//! `wire::nd`). Router advertisements and redirects of others are ignored: a router is configured, it does not learn routes
//! from its links. Not done: SEND, proxying, anycast delays, MLD reports.

mod advertise;
mod links;

pub(crate) use advertise::advertise;
pub(crate) use links::Links;

use crate::{
    icmp,
    iface::Interface,
    neighbour::{self, Claim, News},
    worker::{Cx, Pending, Stage},
};
use kern::{
    Mbuf, PktFlags, Why,
    lock::{Held, levels::Softnet},
    mbuf::HEADROOM,
};
use links::OwnState;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{
    IpProto, Mac, ipv4, ipv6,
    nd::{self, Body, Message, NdOption, Repr},
};

/// All routers of a site (RFC 4291, 2.7.1).
const ALL_SITE_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 2);

/// Whether we are a member of an IPv6 group on this interface (RFC 4291, 2.8).
pub(crate) fn is_joined(interface: &Interface, group: Ipv6Addr) -> bool {
    if matches!(group, ipv6::ALL_NODES | ipv6::ALL_ROUTERS | ALL_SITE_ROUTERS) {
        return true;
    }
    let solicited = |addr: IpAddr| matches!(addr, IpAddr::V6(a) if ipv6::solicited_node(a) == group);
    ipv6::is_solicited_node(group) && interface.addrs.iter().any(|a| solicited(a.addr))
}

/// Whether we are a member of an IPv4 group: all hosts and all routers, on every interface.
pub(crate) fn is_joined4(group: Ipv4Addr) -> bool {
    matches!(group, ipv4::ALL_HOSTS | ipv4::ALL_ROUTERS)
}

/// What a message asks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// Nothing.
    Nothing,
    /// Tell that we have `target`: the asker, or everyone when it has no address yet.
    Advertise { target: Ipv6Addr, to: Ipv6Addr },
    /// Somebody else has our address.
    Conflict { target: Ipv6Addr },
    /// Tell this host, or soon everyone, that we are a router.
    AdvertiseRouter { to: Ipv6Addr },
}

/// Takes in a neighbour discovery message to us; data begin at the IPv6 header.
pub(crate) fn nd_input(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, m: Mbuf, out: &mut Pending) {
    let net = cx.net;
    let Some(interface) = net.interface(m.hdr().rcvif) else { return cx.end(m, Why::IfDetached) };
    let Some((src, dst)) = icmp::addresses6(&m) else { return cx.end(m, Why::NdMalformed) };
    let hop_limit = m.data().get(7).copied().unwrap_or(0);
    let Ok(message) = nd::parse(m.data().get(m.l4()..).unwrap_or(&[]), src, dst, hop_limit) else {
        return cx.end(m, Why::NdMalformed);
    };
    let nonce_is_ours = is_own_nonce(cx, held, interface, &message);
    let request = if nonce_is_ours { Request::Nothing } else { wanted(interface, &message, src) };
    if let Some(news) = news(interface, &message, src) {
        neighbour::learn(cx, held, news, out);
    }
    match request {
        Request::Nothing => cx.end(m, Why::NdDone),
        Request::Advertise { target, to } => answer(cx, held, interface, m, target, to, out),
        Request::Conflict { target } => {
            conflict(cx, held, interface, target, out);
            cx.end(m, Why::NdDone);
        }
        Request::AdvertiseRouter { to } => {
            advertise::solicited(cx, held, interface, to, out);
            cx.end(m, Why::NdDone);
        }
    }
}

/// Whether a message is our own probe, which the link gave back (RFC 7527).
fn is_own_nonce(
    cx: &Cx<'_>,
    held: &mut Held<'_, Softnet>,
    interface: &Interface,
    message: &Message<'_>,
) -> bool {
    let (Body::NeighborSolicit { target }, Some(nonce)) = (message.body, message.options.nonce()) else {
        return false;
    };
    let (links, _held) = held.lock(&cx.shared.neighbours.links);
    links.is_own_nonce(interface.index.0, target, Some(nonce))
}

/// What a message that passed the checks asks of us.
fn wanted(interface: &Interface, message: &Message<'_>, src: Ipv6Addr) -> Request {
    match message.body {
        Body::NeighborSolicit { target } if interface.has(IpAddr::V6(target)) => {
            Request::Advertise { target, to: src }
        }
        Body::NeighborAdvert { target, .. } if interface.has(IpAddr::V6(target)) => {
            Request::Conflict { target }
        }
        Body::RouterSolicit if interface.advertises.is_some() => Request::AdvertiseRouter { to: src },
        _ => Request::Nothing,
    }
}

/// What a message tells of its sender.
fn news(interface: &Interface, message: &Message<'_>, src: Ipv6Addr) -> Option<News> {
    let speaker = |mac: Mac, create| News {
        interface: interface.index.0,
        addr: IpAddr::V6(src),
        mac: Some(mac),
        claim: Claim::Source,
        create,
    };
    match message.body {
        Body::NeighborSolicit { target } => {
            let for_us = interface.has(IpAddr::V6(target));
            message.options.source_mac().filter(|mac| mac.is_unicast()).map(|mac| speaker(mac, for_us))
        }
        Body::RouterSolicit => {
            message.options.source_mac().filter(|mac| mac.is_unicast()).map(|mac| speaker(mac, true))
        }
        Body::NeighborAdvert { router, solicited, override_, target } => {
            let mac = message.options.target_mac();
            if interface.has(IpAddr::V6(target)) || mac.is_some_and(|mac| !mac.is_unicast()) {
                return None;
            }
            let claim = Claim::Advert { solicited, overrides: override_, router: Some(router) };
            Some(News { interface: interface.index.0, addr: IpAddr::V6(target), mac, claim, create: false })
        }
        Body::RouterAdvert(_) | Body::Redirect { .. } => None,
    }
}

/// Answers a solicitation in its own buffer. A tentative address is answered for without "override"; somebody who probes for
/// it is a conflict, and a duplicate is not ours to answer for.
fn answer(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    interface: &Interface,
    mut m: Mbuf,
    target: Ipv6Addr,
    to: Ipv6Addr,
    out: &mut Pending,
) {
    let state = {
        let (links, _held) = held.lock(&cx.shared.neighbours.links);
        links.state(interface.index.0, target)
    };
    let probed = to.is_unspecified();
    match state {
        OwnState::Duplicate => return cx.end(m, Why::NdDone),
        OwnState::New | OwnState::Tentative if probed => {
            conflict(cx, held, interface, target, out);
            return cx.end(m, Why::NdDone);
        }
        _ => {}
    }
    m.rewind(HEADROOM);
    let (dst, solicited) = if probed { (ipv6::ALL_NODES, false) } else { (to, true) };
    let body = Body::NeighborAdvert { router: true, solicited, override_: state == OwnState::Valid, target };
    let repr = Repr { body, options: &[NdOption::TargetMac(interface.mac)] };
    let Ok(len) = repr.emit_packet(m.fill(), target, dst) else { return cx.end(m, Why::NdMalformed) };
    m.truncate(len);
    cx.stats.count.nd_adverts_sent.inc();
    dispatch(cx, interface, m, out);
}

/// Sends a packet of ours on its link: what has no route needs none.
fn dispatch(cx: &Cx<'_>, interface: &Interface, mut m: Mbuf, out: &mut Pending) {
    m.set_l3(0);
    m.set_l4(ipv6::HEADER_LEN);
    let h = m.hdr_mut();
    h.family = 6;
    h.proto = IpProto::ICMPV6.0;
    h.flags = PktFlags::ORIGIN.with(PktFlags::DF);
    h.egress = interface.index.0;
    h.nexthop = 0;
    out.push(Stage::EtherOutput, m, &cx.stats.ledger);
}

/// Somebody else has an address of ours: a tentative one is given up, a valid one defended.
fn conflict(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    interface: &Interface,
    target: Ipv6Addr,
    out: &mut Pending,
) {
    cx.stats.count.dad_conflicts.inc();
    let (state, may_speak) = {
        let (mut links, _held) = held.lock(&cx.shared.neighbours.links);
        let state = links.state(interface.index.0, target);
        if matches!(state, OwnState::New | OwnState::Tentative) {
            links.refuse(interface.index.0, target);
        }
        (state, links.may_defend(interface.index.0, cx.now))
    };
    if state == OwnState::Duplicate {
        return;
    }
    if may_speak || state != OwnState::Valid {
        tracing::warn!(interface = &*interface.name, addr = %target, "another station uses our address");
    }
    if may_speak && state == OwnState::Valid {
        advertise::defend(cx, interface, target, out);
    }
}

#[cfg(test)]
mod tests;
