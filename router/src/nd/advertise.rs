//! What the router says of its own accord: probes for its addresses, announcements, and router advertisements (RFC 4861, 6.2).

use super::{Links, dispatch, links::Action};
use crate::{
    arp,
    entropy::random,
    iface::{IfAddr, Interface},
    worker::{Cx, Pending, Stage},
};
use arrayvec::ArrayVec;
use kern::{
    Why,
    lock::{Held, levels::Softnet},
    time::Instant,
};
use std::net::{IpAddr, Ipv6Addr};
use wire::{
    Malformed, ipv6,
    nd::{self, Body, NdOption, Prefix, Repr, RouterAdvert},
};

/// Prefixes in one advertisement: as many as fit the least MTU with room to spare.
const PREFIXES: usize = 16;

/// The timer (worker 0): checks new addresses and sends what is due. Says when to run again.
pub(crate) fn advertise(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, out: &mut Pending) -> Instant {
    let (actions, next) = {
        let (mut links, _held) = held.lock(&cx.shared.neighbours.links);
        let links: &mut Links = &mut links;
        links.follow(cx.net, cx.now, random);
        links.due(cx.now, random())
    };
    let net = cx.net;
    for action in actions {
        let (Action::Probe(index, ..) | Action::Announce(index, _) | Action::Advertise(index)) = action;
        let Some(interface) = net.interface(index) else { continue };
        match action {
            Action::Probe(_, target, nonce) => {
                cx.stats.count.nd_solicits_sent.inc();
                send(cx, interface, out, |to| nd::probe(to, target, &nonce));
            }
            Action::Announce(_, addr) => arp::announce(cx, interface, addr, out),
            Action::Advertise(_) => advertise_to(cx, interface, ipv6::ALL_NODES, out),
        }
    }
    next.max(cx.now.after(10_000_000))
}

/// A host asks for routers: it is told at once, or everyone soon when it has no address yet (RFC 4861, 6.2.6).
pub(super) fn solicited(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    interface: &Interface,
    to: Ipv6Addr,
    out: &mut Pending,
) {
    if to.is_unspecified() {
        let (mut links, _held) = held.lock(&cx.shared.neighbours.links);
        links.solicited(interface.index.0, cx.now, random());
    } else {
        advertise_to(cx, interface, to, out);
    }
}

/// Says again that an address is ours.
pub(super) fn defend(cx: &mut Cx<'_>, interface: &Interface, target: Ipv6Addr, out: &mut Pending) {
    cx.stats.count.nd_adverts_sent.inc();
    send(cx, interface, out, |to| nd::advertise(to, target, interface.mac, Ipv6Addr::UNSPECIFIED, true));
}

fn advertise_to(cx: &mut Cx<'_>, interface: &Interface, dst: Ipv6Addr, out: &mut Pending) {
    let (Some(conf), Some(src)) = (interface.advertises, interface.link_local()) else { return };
    let mut options: ArrayVec<NdOption<'_>, { PREFIXES + 2 }> = ArrayVec::new();
    options.push(NdOption::SourceMac(interface.mac));
    options.push(NdOption::Mtu(interface.mtu.into()));
    let seconds = |d: std::time::Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
    let prefixes = interface.addrs.iter().filter_map(prefix).take(PREFIXES);
    options.extend(prefixes.map(|prefix| {
        NdOption::Prefix(Prefix {
            prefix,
            len: 64,
            on_link: true,
            autonomous: true,
            valid_lifetime: seconds(conf.valid),
            preferred_lifetime: seconds(conf.preferred),
        })
    }));
    let body = Body::RouterAdvert(RouterAdvert {
        hop_limit: 64,
        managed: conf.managed,
        other_config: conf.other,
        preference: 0,
        lifetime: u16::try_from(conf.lifetime.as_secs()).unwrap_or(u16::MAX),
        reachable_time: 0,
        retrans_timer: 0,
    });
    cx.stats.count.ra_sent.inc();
    send(cx, interface, out, |to| Repr { body, options: &options }.emit_packet(to, src, dst));
}

/// The prefix that an address announces: that of a /64 beyond the link.
fn prefix(addr: &IfAddr) -> Option<Ipv6Addr> {
    match addr.addr {
        IpAddr::V6(a) if addr.len == 64 && !ipv6::is_link_local(a) => {
            Some(Ipv6Addr::from_bits(a.to_bits() >> 64 << 64))
        }
        _ => None,
    }
}

/// Makes a packet of what `write` writes, and sends it on its link.
fn send(
    cx: &mut Cx<'_>,
    interface: &Interface,
    out: &mut Pending,
    write: impl FnOnce(&mut [u8]) -> Result<usize, Malformed>,
) {
    // Nothing is owed here: without room or a buffer it is said the next time.
    if out.room(Stage::EtherOutput) == 0 {
        return;
    }
    let Some(mut m) = cx.new_packet() else { return };
    match write(m.fill()) {
        Ok(len) => {
            m.truncate(len);
            dispatch(cx, interface, m, out);
        }
        Err(_) => cx.end(m, Why::NoBuffer),
    }
}
