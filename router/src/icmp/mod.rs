//! ICMP and ICMPv6: the errors a router owes (RFC 1812, 4.3; RFC 4443, 2.4 and 3), and what is said to the router itself.
//!
//! An error is built in a buffer of its own and quotes the packet it is about, which ends with its own reason whether an
//! error goes out or not. It enters `ip_output` as any packet of the router's, and so meets SPD, pf and ALTQ; one about a
//! packet out of a tunnel goes back into a tunnel or is not sent, for it quotes what was secret (RFC 4301, 6). It comes from the address of the interface on which the packet
//! arrived (RFC 1812, 4.3.2.4 allows it; traceroute wants it). Not done: source quench (RFC 6633), extensions (RFC 4884).

mod input;
mod limit;
mod quote;
mod redirect;

pub(crate) use input::{addresses6, drop_extensions, icmp_input};
pub use limit::Limiter;
pub(crate) use redirect::redirect;

use crate::{
    ether, hooks,
    netconfig::NetConfig,
    route::NextHop,
    worker::{Cx, Pending, Stage},
};
use kern::{Mbuf, PktFlags, Why};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{
    IpProto,
    icmpv4::{self, unreachable as code4},
    icmpv6::{self, problem, unreachable as code6},
    ipv6, ipv6_ext,
};

/// What is wrong with a packet, in the words of neither family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// No hop left.
    TtlExceeded,
    /// The rest of its fragments did not come.
    ReassemblyTimeout,
    /// No route.
    NetUnreachable,
    /// The neighbour does not answer.
    HostUnreachable,
    /// Nobody here speaks the protocol.
    ProtocolUnreachable,
    /// Nobody listens.
    PortUnreachable,
    /// Forbidden.
    AdminProhibited,
    /// Larger than the next link.
    TooBig {
        /// What fits.
        mtu: u16,
    },
    /// Refused by a filter, in its own family's code of destination unreachable.
    Unreachable {
        /// The code.
        code: u8,
    },
    /// Its source address means nothing on the next link.
    BeyondScope,
    /// A field that cannot be worked with.
    HeaderProblem {
        /// Where it stands.
        pointer: u32,
    },
    /// A first fragment without all headers (RFC 7112).
    FirstFragment,
}

impl Error {
    fn v4(self) -> icmpv4::Error {
        use icmpv4::Error as E;
        match self {
            Error::TtlExceeded => E::TtlExceeded,
            Error::ReassemblyTimeout => E::ReassemblyTimeExceeded,
            Error::NetUnreachable => E::Unreachable(code4::NET),
            Error::HostUnreachable | Error::BeyondScope => E::Unreachable(code4::HOST),
            Error::ProtocolUnreachable => E::Unreachable(code4::PROTOCOL),
            Error::PortUnreachable => E::Unreachable(code4::PORT),
            Error::AdminProhibited => E::Unreachable(code4::ADMIN_PROHIBITED),
            Error::Unreachable { code } => E::Unreachable(code),
            Error::TooBig { mtu } => E::FragmentationNeeded(mtu),
            Error::HeaderProblem { pointer } => E::ParameterProblem(pointer as u8),
            Error::FirstFragment => E::ParameterProblem(0),
        }
    }

    /// `packet` is what the error is about: a protocol nobody speaks is a problem of the octet that named it.
    fn v6(self, packet: &[u8]) -> icmpv6::Error {
        use icmpv6::Error as E;
        match self {
            Error::TtlExceeded => E::HopLimitExceeded,
            Error::ReassemblyTimeout => E::ReassemblyTimeExceeded,
            Error::NetUnreachable => E::Unreachable(code6::NO_ROUTE),
            Error::HostUnreachable => E::Unreachable(code6::ADDRESS),
            Error::PortUnreachable => E::Unreachable(code6::PORT),
            Error::AdminProhibited => E::Unreachable(code6::ADMIN_PROHIBITED),
            Error::Unreachable { code } => E::Unreachable(code),
            Error::BeyondScope => E::Unreachable(code6::BEYOND_SCOPE),
            Error::TooBig { mtu } => E::PacketTooBig(mtu.into()),
            Error::HeaderProblem { pointer } => E::ParameterProblem(problem::FIELD, pointer),
            Error::FirstFragment => E::ParameterProblem(problem::FIRST_FRAGMENT, 0),
            Error::ProtocolUnreachable => {
                let chain = ipv6_ext::walk(packet, packet.len());
                E::ParameterProblem(problem::NEXT_HEADER, chain.map_or(6, |c| c.announced_at.into()))
            }
        }
    }
}

/// A packet ends for a reason, and its sender is told if it may be. The data begin at the IP header.
#[cold]
pub(crate) fn error(cx: &mut Cx<'_>, m: Mbuf, why: Why, error: Error, out: &mut Pending) {
    let count = &cx.stats.count;
    if may_tell(cx.net, &m, error) {
        if cx.local.icmp.allows(cx.now, cx.net.icmp_rate) {
            match answer(cx, &m, why, error) {
                Some(message) => {
                    count.icmp_sent.inc();
                    out.push(Stage::IpOutput, message, &cx.stats.ledger);
                }
                None => count.icmp_unable.inc(),
            }
        } else {
            count.icmp_limited.inc();
        }
    }
    cx.end(m, why);
}

/// Whether an error may be sent about this packet at all (RFC 1122, 3.2.2; RFC 4443, 2.4 e).
fn may_tell(net: &NetConfig, m: &Mbuf, error: Error) -> bool {
    let flags = m.hdr().flags;
    if flags.has(PktFlags::ORIGIN) {
        return false;
    }
    let to_many = flags.any(PktFlags::BCAST.with(PktFlags::MCAST));
    match m.hdr().family {
        4 => !to_many && icmpv4::may_answer(m.data()) && !is_directed_broadcast(net, m),
        6 => {
            let error = error.v6(m.data());
            (!to_many || error.about_groups()) && icmpv6::may_answer(m.data(), error)
        }
        _ => false,
    }
}

fn is_directed_broadcast(net: &NetConfig, m: &Mbuf) -> bool {
    matches!(net.fib.hop(net.fib.lookup(ether::destination(m))), NextHop::Broadcast { .. })
}

/// Builds the error. `None` for want of a buffer, or of an address from which it may be said.
fn answer(cx: &mut Cx<'_>, m: &Mbuf, why: Why, error: Error) -> Option<Mbuf> {
    let mut scratch = [0; icmpv6::MAX_ERROR_LEN];
    let about = quote::quote(m, &mut scratch)?;
    // What is too big for a tunnel has that tunnel in its header; else it is the one the packet came out of.
    let opened = m.hdr().sa != 0 && !matches!(why, Why::EspTooBig | Why::AhTooBig | Why::IpcompTooBig);
    let to = source(m)?;
    let from = own_address(cx.net, m, opened, to)?;
    let mut message = cx.new_packet()?;
    // About what has been secret on its way: back into a tunnel, from whichever address a policy protects, or nowhere.
    let (net, secret) = (cx.net, was_protected(m));
    let others = net.all().filter(|_| secret).filter_map(|i| i.source_for(to)).filter(|other| *other != from);
    for from in std::iter::once(from).chain(others) {
        if write(cx, &mut message, m, from, about, error) && (!secret || hooks::is_covered(cx, &message)) {
            return Some(message);
        }
    }
    cx.end(message, Why::IcmpUnanswered);
    None
}

/// Whether a packet has come out of an SA: it was here before, inside another.
fn was_protected(m: &Mbuf) -> bool {
    m.hdr().hops > 1
}

/// Writes the error from this address into a buffer; whether it could.
fn write(cx: &mut Cx<'_>, message: &mut Mbuf, m: &Mbuf, from: IpAddr, about: &[u8], error: Error) -> bool {
    let (written, proto, l4) = match from {
        IpAddr::V4(from) => {
            let ident = next_ident(cx);
            (icmpv4::build_error(message.fill(), error.v4(), from, about, ident), IpProto::ICMP, 20)
        }
        IpAddr::V6(from) => {
            let error = error.v6(m.data());
            (icmpv6::build_error(message.fill(), error, from, about), IpProto::ICMPV6, ipv6::HEADER_LEN)
        }
    };
    let Ok(len) = written else { return false };
    message.truncate(len);
    message.set_l4(l4);
    let h = message.hdr_mut();
    h.family = m.hdr().family;
    h.proto = proto.0;
    h.rcvif = m.hdr().rcvif;
    originate(message);
    if matches!(error, Error::Unreachable { .. }) {
        // pf's own answer is not for pf to judge (BSD: PF_TAG_GENERATED).
        message.hdr_mut().flags.set(PktFlags::NO_PF);
    }
    true
}

/// The identification of the next packet this worker makes.
fn next_ident(cx: &mut Cx<'_>) -> u16 {
    cx.local.ident = cx.local.ident.wrapping_add(1);
    cx.local.ident
}

/// Source address of a packet whose data begin at the IP header.
fn source(m: &Mbuf) -> Option<IpAddr> {
    let data = m.data();
    if m.hdr().family == 4 {
        let src: &[u8; 4] = data.get(12..16)?.first_chunk()?;
        Some(Ipv4Addr::from_octets(*src).into())
    } else {
        let src: &[u8; 16] = data.get(8..24)?.first_chunk()?;
        Some(Ipv6Addr::from_octets(*src).into())
    }
}

/// The address to speak from to `to`, the sender of `m`: one of the interface on which it came. A packet out of a tunnel came
/// to the network behind us: the address there is the one that the tunnel's policy knows, and sends the error back into it. A
/// link-local address speaks on its link only.
fn own_address(net: &NetConfig, m: &Mbuf, opened: bool, to: IpAddr) -> Option<IpAddr> {
    let near = if opened {
        net.source_for(ether::destination(m)).ok()
    } else {
        net.interface(m.hdr().rcvif).and_then(|i| i.source_for(to))
    };
    let stays = |addr: &IpAddr| match (addr, to) {
        (IpAddr::V6(addr), IpAddr::V6(to)) => !ipv6::is_link_local(*addr) || ipv6::is_link_scope(to),
        _ => true,
    };
    near.filter(stays).or_else(|| net.source_for(to).ok())
}

/// Makes a packet one of the router's own that has no route yet. Keeps family, protocol, receiving interface and flow hash.
fn originate(m: &mut Mbuf) {
    m.set_l3(0);
    let h = m.hdr_mut();
    h.flags = PktFlags::ORIGIN;
    if h.family == 6 {
        h.flags.set(PktFlags::DF);
    }
    (h.hops, h.egress, h.nexthop, h.cursor) = (0, 0, 0, 0);
    (h.tag, h.queue, h.sa, h.state, h.state_gen) = (0, 0, 0, 0, 0);
    (h.gso, h.gso_size) = (kern::Gso::None, 0);
}

#[cfg(test)]
mod tests;
