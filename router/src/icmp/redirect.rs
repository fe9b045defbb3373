//! Redirects (RFC 1812, 5.2.7.2; RFC 4861, 8.2): a packet that leaves by the interface it came in on could have gone straight to
//! where we send it, and its sender is told.
//!
//! The packet itself goes on. Redirects share the rate limit of errors. An IPv6 redirect names a router by its link-local
//! address, so there is none where the route has another (BSD's `nd6_redirect_output` has it the same).

use super::{may_tell, next_ident, originate, quote, source};
use crate::{
    ether,
    iface::Interface,
    route::{NextHop, NextHopId},
    worker::{Cx, Stage},
};
use kern::{Mbuf, PktFlags, Why};
use std::net::{IpAddr, Ipv6Addr};
use wire::{IpProto, icmpv4, ipv6, nd};

/// Tells the sender of a packet that is forwarded to `hop`, back onto the link it came from, of the shorter way.
#[cold]
pub(crate) fn redirect(cx: &mut Cx<'_>, m: &Mbuf, hop: NextHopId) {
    let net = cx.net;
    let Some(interface) = net.interface(m.hdr().rcvif).filter(|i| i.has_link()) else { return };
    let Some((from, target)) = shorter(interface, m, net.fib.hop(hop)) else { return };
    let full = cx.local.late.len() == cx.local.late.capacity();
    if full || !may_tell(net, m, super::Error::HostUnreachable) {
        return;
    }
    if !cx.local.icmp.allows(cx.now, net.icmp_rate) {
        cx.stats.count.icmp_limited.inc();
        return;
    }
    match build(cx, m, from, target) {
        Some(message) => {
            cx.stats.count.icmp_sent.inc();
            cx.local.late.push((Stage::IpOutput, message));
        }
        None => cx.stats.count.icmp_unable.inc(),
    }
}

/// The address to speak from and the better first hop, if the sender can use it: it is on the link itself, and what it sent
/// came in clear.
fn shorter(interface: &Interface, m: &Mbuf, hop: &NextHop) -> Option<(IpAddr, IpAddr)> {
    if m.hdr().sa != 0 || m.hdr().flags.any(PktFlags::OPTIONS) {
        return None;
    }
    let to = source(m)?;
    if !interface.addrs.iter().any(|a| a.contains(to)) {
        return None;
    }
    match (*hop, ether::destination(m)) {
        (NextHop::Gateway { addr: IpAddr::V4(addr), .. }, IpAddr::V4(_)) => {
            Some((interface.source_for(to)?, addr.into()))
        }
        (NextHop::Connected { .. }, IpAddr::V4(dst)) => Some((interface.source_for(to)?, dst.into())),
        (NextHop::Gateway { addr: IpAddr::V6(addr), .. }, IpAddr::V6(_)) if ipv6::is_link_local(addr) => {
            Some((interface.link_local()?.into(), addr.into()))
        }
        (NextHop::Connected { .. }, IpAddr::V6(dst)) => Some((interface.link_local()?.into(), dst.into())),
        _ => None,
    }
}

fn build(cx: &mut Cx<'_>, m: &Mbuf, from: IpAddr, target: IpAddr) -> Option<Mbuf> {
    let mut scratch = [0; wire::icmpv6::MAX_ERROR_LEN];
    let about = quote::quote(m, &mut scratch)?;
    let mut message = cx.new_packet()?;
    let (written, proto, l4) = match (from, target) {
        (IpAddr::V4(from), IpAddr::V4(target)) => {
            // Code 1: for the host (RFC 1812, 4.3.3.2).
            let (error, ident) = (icmpv4::Error::Redirect(1, target), next_ident(cx));
            (icmpv4::build_error(message.fill(), error, from, about, ident), IpProto::ICMP, 20)
        }
        (IpAddr::V6(from), IpAddr::V6(target)) => {
            (redirect6(&mut message, from, target, about), IpProto::ICMPV6, 40)
        }
        _ => (Err(wire::Malformed::Address), IpProto::ICMP, 20),
    };
    let Ok(len) = written else {
        cx.end(message, Why::IcmpMalformed);
        return None;
    };
    message.truncate(len);
    message.set_l4(l4);
    let h = message.hdr_mut();
    (h.family, h.proto, h.rcvif) = (m.hdr().family, proto.0, m.hdr().rcvif);
    originate(&mut message);
    Some(message)
}

fn redirect6(
    message: &mut Mbuf,
    from: Ipv6Addr,
    target: Ipv6Addr,
    about: &[u8],
) -> Result<usize, wire::Malformed> {
    nd::redirect(message.fill(), from, target, None, about)
}
