//! `ip_forward`: to us or onwards?
//!
//! Route lookup first; what is ours goes to ESP, reassembly or the host stack. The rest loses a hop (RFC 1812 5.3.1),
//! must not be a broadcast (RFC 2644), a group (no multicast routing here) or link-local (RFC 4291 2.5.6), is looked up in the
//! SPD *before* any translation on its way out, and goes to `esp_output` or `ip_output`.

use crate::{
    ether, hooks,
    hooks::Policy,
    icmp::{self, Error},
    nd,
    netconfig::NetConfig,
    route::{NextHop, NextHopId},
    worker::{Cx, Pending, Stage},
};
use kern::{
    Batch, Mbuf, PktFlags, Why,
    lock::{Held, levels::Softnet},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{ipv4, ipv6};

/// Where a packet goes from here.
enum Next {
    /// To this stage: onwards, into a tunnel, or to us.
    Stage(Stage),
    /// It ends.
    End(Why),
    /// It ends and its sender is told.
    Tell(Why, Error),
}

/// Stage: packets that pf let in, onwards or to us.
///
/// Those that go where the first one goes stay together; most batches go on whole.
pub(crate) fn ip_forward(
    cx: &mut Cx<'_>,
    _held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    let (mut expected, mut ours) = (None, Ours::default());
    batch.sift(|mut m| match decide(cx, &mut m, &mut ours) {
        Next::Stage(stage) => {
            if *expected.get_or_insert(stage) == stage {
                return Some(m);
            }
            count(cx, stage, 1);
            out.push(stage, m, &cx.stats.ledger);
            None
        }
        Next::End(why) => {
            cx.end(m, why);
            None
        }
        Next::Tell(why, error) => {
            icmp::error(cx, m, why, error, out);
            None
        }
    });
    if let Some(stage) = expected {
        count(cx, stage, batch.len() as u64);
        out.pass(stage, batch, &cx.stats.ledger);
    }
}

fn count(cx: &Cx<'_>, stage: Stage, packets: u64) {
    match stage {
        Stage::IpOutput => cx.stats.count.ip_forwarded.add(packets),
        Stage::EspOutput => {}
        _ => cx.stats.count.ip_delivered.add(packets),
    }
}

/// The last destination that was ours. Outer packets of tunnels come in runs for one address.
#[derive(Default)]
struct Ours(Option<Ipv4Addr>);

#[inline(always)]
fn decide(cx: &mut Cx<'_>, m: &mut Mbuf, ours: &mut Ours) -> Next {
    let net = cx.net;
    if hooks::is_routed(m) {
        let (id, egress) = (NextHopId(m.hdr().nexthop), m.hdr().egress);
        return onwards(cx, m, id, egress);
    }
    let id = if m.hdr().family == 4 {
        let Some(dst) = m.data().get(16..20).and_then(|d| d.first_chunk::<4>()) else {
            return Next::End(Why::IpTruncated);
        };
        let dst = Ipv4Addr::from_octets(*dst);
        if ours.0 == Some(dst) {
            return Next::Stage(local(net, m));
        }
        net.fib.lookup4(dst)
    } else {
        let Some(dst) = m.data().get(24..40).and_then(|d| d.first_chunk::<16>()) else {
            return Next::End(Why::Ip6Truncated);
        };
        let dst = Ipv6Addr::from_octets(*dst);
        if dst.octets()[0] >= 0xfe
            && let Some(next) = near(net, m, dst)
        {
            return next;
        }
        net.fib.lookup6(dst)
    };
    let (id, hop) = net.fib.resolve(id, m.hdr().hash);
    match *hop {
        NextHop::Connected { iface } | NextHop::Gateway { iface, .. } => onwards(cx, m, id, iface.0),
        NextHop::Local { .. } => {
            if let IpAddr::V4(dst) = ether::destination(m) {
                *ours = Ours(Some(dst));
            }
            Next::Stage(local(net, m))
        }
        _ => uncommon(net, m, id),
    }
}

/// Link-local and multicast IPv6 destinations: ours, or nobody's.
#[cold]
fn near(net: &NetConfig, m: &Mbuf, dst: Ipv6Addr) -> Option<Next> {
    let interface = net.interface(m.hdr().rcvif)?;
    if dst.is_multicast() {
        return Some(if nd::is_joined(interface, dst) {
            Next::Stage(local(net, m))
        } else {
            Next::End(Why::Ip6Multicast)
        });
    }
    if dst.is_unicast_link_local() {
        return Some(if interface.has(IpAddr::V6(dst)) {
            Next::Stage(local(net, m))
        } else {
            Next::End(Why::Ip6Scope)
        });
    }
    None
}

/// Groups, broadcasts, and routes that lead nowhere.
#[cold]
fn uncommon(net: &NetConfig, m: &Mbuf, id: NextHopId) -> Next {
    match (*net.fib.hop(id), ether::destination(m)) {
        (_, IpAddr::V4(dst)) if dst.is_multicast() => {
            if nd::is_joined4(dst) {
                Next::Stage(local(net, m))
            } else {
                Next::End(Why::IpMulticast)
            }
        }
        (_, IpAddr::V4(dst)) if dst.is_broadcast() => Next::Stage(local(net, m)),
        (NextHop::Broadcast { iface }, _) if iface.0 == m.hdr().rcvif => Next::Stage(local(net, m)),
        (NextHop::Broadcast { .. }, _) => Next::End(Why::IpBroadcast),
        (NextHop::Reject, _) => Next::Tell(Why::RouteReject, Error::AdminProhibited),
        (NextHop::Blackhole, _) => Next::End(Why::RouteReject),
        _ => Next::Tell(Why::NoRoute, Error::NetUnreachable),
    }
}

/// The stage for a packet of our own.
#[inline(always)]
fn local(net: &NetConfig, m: &Mbuf) -> Stage {
    let h = m.hdr();
    if h.flags.has(PktFlags::FRAG) {
        Stage::Reass
    } else if hooks::is_for_sas(net, h.proto) || hooks::is_for_natt(net, m) {
        Stage::EspInput
    } else {
        Stage::HostInput
    }
}

#[inline(always)]
fn onwards(cx: &mut Cx<'_>, m: &mut Mbuf, id: NextHopId, egress: u16) -> Next {
    if let Err(why) = hooks::policy_clear(cx, m) {
        return Next::End(why);
    }
    if m.hdr().flags.any(PktFlags::BCAST.with(PktFlags::MCAST)) {
        return Next::End(Why::IpBroadcast);
    }
    let has_hops = if m.hdr().family == 4 {
        ipv4::decrement_ttl(m.data_mut())
    } else {
        if let Some(next) = beyond_scope(m) {
            return next;
        }
        ipv6::decrement_hop_limit(m.data_mut())
    };
    if has_hops.is_none() {
        let why = if m.hdr().family == 4 { Why::IpTtl } else { Why::Ip6HopLimit };
        return Next::Tell(why, Error::TtlExceeded);
    }
    let h = m.hdr_mut();
    h.egress = egress;
    h.nexthop = id.0;
    match hooks::policy_out(cx, m) {
        Policy::None => {
            if egress == m.hdr().rcvif && !hooks::is_routed(m) {
                icmp::redirect(cx, m, id);
            }
            Next::Stage(Stage::IpOutput)
        }
        Policy::Protect => Next::Stage(Stage::EspOutput),
        Policy::Refuse(why) => Next::Tell(why, Error::AdminProhibited),
        Policy::Discard => Next::End(Why::SpDiscard),
    }
}

/// A source that must not leave its link (RFC 4291 2.5.6; RFC 4443 3.1 code 2), or is no address at all.
#[inline(always)]
fn beyond_scope(m: &Mbuf) -> Option<Next> {
    let src = m.data().get(8..24).and_then(|d| d.first_chunk::<16>())?;
    if src[0] == 0xfe && src[1] & 0xc0 == 0x80 {
        return Some(Next::Tell(Why::Ip6Scope, Error::BeyondScope));
    }
    (*src == [0; 16]).then_some(Next::End(Why::Ip6Scope))
}
