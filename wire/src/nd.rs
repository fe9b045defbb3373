//! Neighbour discovery (RFC 4861): solicitations, advertisements and redirects with their options, and the validity checks of its sections 6.1, 7.1 and
//! 8.1. No SEND, no caches, no timers.
//!
//! ```text
//! |     type      |     code      |           checksum            |  0   RS: reserved
//! |     hop limit | M O     prf   |        router lifetime        |  4   RA
//! | R S O         |            reserved                           |  4   NA (flags), NS and redirect (reserved)
//! |  RA: reachable time, retrans timer; NS, NA: target; redirect: target, destination; then options
//! ```

use core::net::Ipv6Addr;

use crate::{
    IpProto, Mac, Malformed, build,
    icmpv6::{self, kind},
    ipv6,
    view::{get, put},
};

pub use crate::nd_option::{NdOption, Options, Prefix, addresses};

/// What a redirect may quote before the packet would exceed the least MTU: it may be less, in units of eight octets.
const REDIRECT_ROOM: usize = ipv6::MIN_MTU - ipv6::HEADER_LEN - 40;

/// What a router announces besides its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterAdvert {
    /// Hop limit that hosts should use; zero says nothing.
    pub hop_limit: u8,
    /// Addresses by DHCPv6.
    pub managed: bool,
    /// Other configuration by DHCPv6.
    pub other_config: bool,
    /// Preference as a default router: -1, 0, 1 (RFC 4191).
    pub preference: i8,
    /// Seconds as a default router; zero: not one.
    pub lifetime: u16,
    /// Milliseconds that a neighbour counts as reachable; zero says nothing.
    pub reachable_time: u32,
    /// Milliseconds between solicitations; zero says nothing.
    pub retrans_timer: u32,
}

/// A message of neighbour discovery without its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Which routers are here?
    RouterSolicit,
    /// I am a router.
    RouterAdvert(RouterAdvert),
    /// Who has `target`?
    NeighborSolicit {
        /// The address asked about.
        target: Ipv6Addr,
    },
    /// I have `target`.
    NeighborAdvert {
        /// The sender is a router.
        router: bool,
        /// This answers a solicitation.
        solicited: bool,
        /// Replaces what the receiver knew.
        override_: bool,
        /// The address that is announced.
        target: Ipv6Addr,
    },
    /// There is a better first hop to `destination`.
    Redirect {
        /// The better first hop; the destination itself when it is on this link.
        target: Ipv6Addr,
        /// What is better reached so.
        destination: Ipv6Addr,
    },
}

/// A message that passed the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it says.
    pub body: Body,
    /// Its options.
    pub options: Options<'a>,
}

/// Octets of the fixed part of a message of this type.
const fn fixed_len(kind: u8) -> Option<usize> {
    match kind {
        kind::ROUTER_SOLICIT => Some(8),
        kind::ROUTER_ADVERT => Some(16),
        kind::NEIGHBOR_SOLICIT | kind::NEIGHBOR_ADVERT => Some(24),
        kind::REDIRECT => Some(40),
        _ => None,
    }
}

/// Whether an ICMPv6 type is one of neighbour discovery.
pub const fn is_nd(kind: u8) -> bool {
    matches!(kind, kind::ROUTER_SOLICIT..=kind::REDIRECT)
}

/// Reads an ICMPv6 message that came in a packet from `src` to `dst` with `hop_limit`, and makes all the checks that RFC 4861 asks for before a node
/// may believe it: hop limit, checksum, code, length, options, addresses.
pub fn parse(message: &[u8], src: Ipv6Addr, dst: Ipv6Addr, hop_limit: u8) -> Result<Message<'_>, Malformed> {
    if hop_limit != 255 {
        return Err(Malformed::HopLimit);
    }
    let packet = icmpv6::Packet::new_checked(message)?;
    let fixed = fixed_len(packet.kind()).ok_or(Malformed::Unknown)?;
    if !packet.checksum_ok(src, dst) {
        return Err(Malformed::Checksum);
    }
    if packet.code() != 0 {
        return Err(Malformed::Field);
    }
    let options = Options::new(message.get(fixed..).ok_or(Malformed::Truncated)?)?;
    let message = Message { body: decode(packet.kind(), message), options };
    if message.addresses_ok(src, dst) { Ok(message) } else { Err(Malformed::Address) }
}

/// Reads the fixed part, whose length was checked.
fn decode(kind: u8, message: &[u8]) -> Body {
    let flags = message[4];
    match kind {
        kind::ROUTER_SOLICIT => Body::RouterSolicit,
        kind::ROUTER_ADVERT => Body::RouterAdvert(RouterAdvert {
            hop_limit: message[4],
            managed: message[5] & 0x80 != 0,
            other_config: message[5] & 0x40 != 0,
            preference: match message[5] >> 3 & 3 {
                1 => 1,
                3 => -1,
                _ => 0,
            },
            lifetime: get(message, 6),
            reachable_time: get(message, 8),
            retrans_timer: get(message, 12),
        }),
        kind::NEIGHBOR_SOLICIT => Body::NeighborSolicit { target: get(message, 8) },
        kind::NEIGHBOR_ADVERT => Body::NeighborAdvert {
            router: flags & 0x80 != 0,
            solicited: flags & 0x40 != 0,
            override_: flags & 0x20 != 0,
            target: get(message, 8),
        },
        _ => Body::Redirect { target: get(message, 8), destination: get(message, 24) },
    }
}

impl Message<'_> {
    /// The rules about addresses: RFC 4861, 6.1.1, 6.1.2, 7.1.1, 7.1.2 and 8.1.
    fn addresses_ok(&self, src: Ipv6Addr, dst: Ipv6Addr) -> bool {
        let nobody_has_a_mac = !src.is_unspecified() || self.options.source_mac().is_none();
        match self.body {
            Body::RouterSolicit => nobody_has_a_mac,
            Body::RouterAdvert(_) => ipv6::is_link_local(src),
            Body::NeighborSolicit { target } => {
                let asks_the_group = !src.is_unspecified() || ipv6::is_solicited_node(dst);
                !target.is_multicast() && nobody_has_a_mac && asks_the_group
            }
            Body::NeighborAdvert { solicited, target, .. } => {
                !(target.is_multicast() || solicited && dst.is_multicast())
            }
            Body::Redirect { target, destination } => {
                ipv6::is_link_local(src)
                    && !destination.is_multicast()
                    && (target == destination || ipv6::is_link_local(target))
            }
        }
    }
}

/// A message to send: a body and its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr<'a> {
    /// What it says.
    pub body: Body,
    /// Its options, in order.
    pub options: &'a [NdOption<'a>],
}

impl Repr<'_> {
    const fn kind(&self) -> u8 {
        match self.body {
            Body::RouterSolicit => kind::ROUTER_SOLICIT,
            Body::RouterAdvert(_) => kind::ROUTER_ADVERT,
            Body::NeighborSolicit { .. } => kind::NEIGHBOR_SOLICIT,
            Body::NeighborAdvert { .. } => kind::NEIGHBOR_ADVERT,
            Body::Redirect { .. } => kind::REDIRECT,
        }
    }

    const fn fixed_len(&self) -> usize {
        match self.body {
            Body::RouterSolicit => 8,
            Body::RouterAdvert(_) => 16,
            Body::NeighborSolicit { .. } | Body::NeighborAdvert { .. } => 24,
            Body::Redirect { .. } => 40,
        }
    }

    /// Octets that [`Self::emit`] writes.
    pub fn buffer_len(&self) -> usize {
        self.fixed_len() + self.options.iter().map(NdOption::buffer_len).sum::<usize>()
    }

    /// Writes the ICMPv6 message, checksum included, to the front of `out`.
    pub fn emit(&self, out: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr) -> Result<usize, Malformed> {
        let (len, mut at) = (self.buffer_len(), self.fixed_len());
        let out = out.get_mut(..len).ok_or(Malformed::Truncated)?;
        self.emit_fixed(&mut out[..at]);
        for option in self.options {
            at += option.emit(&mut out[at..])?;
        }
        icmpv6::fill_checksum(out, src, dst);
        Ok(len)
    }

    /// Writes a whole IPv6 packet with hop limit 255 to the front of `out`. Returns its length.
    pub fn emit_packet(&self, out: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr) -> Result<usize, Malformed> {
        let payload_len = u16::try_from(self.buffer_len()).map_err(|_| Malformed::Length)?;
        let header = ipv6::Repr {
            src,
            dst,
            next_header: IpProto::ICMPV6,
            payload_len,
            hop_limit: 255,
            ..ipv6::Repr::default()
        };
        build::ipv6_packet(out, &header, |area, _| self.emit(area, src, dst))
    }

    fn emit_fixed(&self, out: &mut [u8]) {
        out.fill(0);
        out[0] = self.kind();
        match self.body {
            Body::RouterSolicit => {}
            Body::RouterAdvert(advert) => {
                out[4] = advert.hop_limit;
                out[5] = u8::from(advert.managed) << 7
                    | u8::from(advert.other_config) << 6
                    | (advert.preference as u8 & 3) << 3;
                put(out, 6, advert.lifetime);
                put(out, 8, advert.reachable_time);
                put(out, 12, advert.retrans_timer);
            }
            Body::NeighborSolicit { target } => put(out, 8, target),
            Body::NeighborAdvert { router, solicited, override_, target } => {
                out[4] = u8::from(router) << 7 | u8::from(solicited) << 6 | u8::from(override_) << 5;
                put(out, 8, target);
            }
            Body::Redirect { target, destination } => {
                put(out, 8, target);
                put(out, 24, destination);
            }
        }
    }
}

/// Writes the packet that asks the link for `target`'s address, to its solicited-node group. Returns its length; the frame goes to
/// [`Mac::multicast_v6`] of the group.
pub fn solicit(out: &mut [u8], src: Ipv6Addr, mac: Mac, target: Ipv6Addr) -> Result<usize, Malformed> {
    let repr = Repr { body: Body::NeighborSolicit { target }, options: &[NdOption::SourceMac(mac)] };
    repr.emit_packet(out, src, ipv6::solicited_node(target))
}

/// Writes the packet that asks one neighbour whether it still has `target` (neighbour unreachability detection).
pub fn solicit_unicast(
    out: &mut [u8],
    src: Ipv6Addr,
    mac: Mac,
    target: Ipv6Addr,
) -> Result<usize, Malformed> {
    let repr = Repr { body: Body::NeighborSolicit { target }, options: &[NdOption::SourceMac(mac)] };
    repr.emit_packet(out, src, target)
}

/// Writes the packet that asks whether `target` is free (RFC 4862, 5.4.2), with a nonce to know it again when the link loops it back (RFC 7527).
pub fn probe(out: &mut [u8], target: Ipv6Addr, nonce: &[u8; 6]) -> Result<usize, Malformed> {
    let repr = Repr { body: Body::NeighborSolicit { target }, options: &[NdOption::Nonce(nonce)] };
    repr.emit_packet(out, Ipv6Addr::UNSPECIFIED, ipv6::solicited_node(target))
}

/// Writes the packet that answers a solicitation from `to`; an unspecified `to` (somebody probes) is answered to all nodes, unsolicited.
pub fn advertise(
    out: &mut [u8],
    target: Ipv6Addr,
    mac: Mac,
    to: Ipv6Addr,
    router: bool,
) -> Result<usize, Malformed> {
    let solicited = !to.is_unspecified();
    let dst = if solicited { to } else { ipv6::ALL_NODES };
    let body = Body::NeighborAdvert { router, solicited, override_: true, target };
    Repr { body, options: &[NdOption::TargetMac(mac)] }.emit_packet(out, target, dst)
}

/// Writes a redirect about `packet` to its source: `target` is a better first hop, whose link-layer address may be known. Quotes as much as fits the
/// least MTU.
pub fn redirect(
    out: &mut [u8],
    src: Ipv6Addr,
    target: Ipv6Addr,
    target_mac: Option<Mac>,
    packet: &[u8],
) -> Result<usize, Malformed> {
    let about = ipv6::Packet::new_checked(packet)?;
    let (dst, destination) = (about.src(), about.dst());
    let room = REDIRECT_ROOM - 8 - if target_mac.is_some() { 8 } else { 0 };
    // Whole units of eight only: a padded quote would not be what was sent.
    let quote = &packet[..about.total_len().min(room) & !7];
    let body = Body::Redirect { target, destination };
    let redirected = NdOption::Redirected(quote);
    match target_mac {
        Some(mac) => {
            Repr { body, options: &[NdOption::TargetMac(mac), redirected] }.emit_packet(out, src, dst)
        }
        None => Repr { body, options: &[redirected] }.emit_packet(out, src, dst),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    const G: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    const NOBODY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn parse_packet(packet: &[u8]) -> Result<Message<'_>, Malformed> {
        let ip = ipv6::Packet::new_checked(packet).unwrap();
        parse(ip.payload(), ip.src(), ip.dst(), ip.hop_limit())
    }

    fn check(body: Body, options: &[NdOption<'_>], src: Ipv6Addr, dst: Ipv6Addr) -> Result<(), Malformed> {
        let mut out = [0; 1500];
        let n = Repr { body, options }.emit_packet(&mut out, src, dst).unwrap();
        let message = parse_packet(&out[..n])?;
        assert_eq!(message.body, body);
        assert_eq!(message.options.iter().collect::<Vec<_>>(), options);
        Ok(())
    }

    const ADVERT: RouterAdvert = RouterAdvert {
        hop_limit: 64,
        managed: true,
        other_config: false,
        preference: -1,
        lifetime: 1800,
        reachable_time: 30_000,
        retrans_timer: 1000,
    };

    #[test]
    fn every_message_with_every_option_survives_emit_and_parse() {
        let prefix = Prefix {
            prefix: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0),
            len: 64,
            on_link: true,
            autonomous: true,
            valid_lifetime: 86_400,
            preferred_lifetime: 14_400,
        };
        let servers = [G.octets(), A.octets()].concat();
        let options = [
            NdOption::SourceMac(MAC),
            NdOption::Mtu(1480),
            NdOption::Prefix(prefix),
            NdOption::Route(Ipv6Addr::UNSPECIFIED, 0, 1, 600),
            NdOption::Route(prefix.prefix, 48, -1, 600),
            NdOption::Route(G, 128, 0, 600),
            NdOption::DnsServers(600, &servers),
            NdOption::Other(200, &[1; 14]),
        ];
        check(Body::RouterAdvert(ADVERT), &options, A, ipv6::ALL_NODES).unwrap();
        assert!(addresses(&servers).eq([G, A]));
        check(Body::RouterSolicit, &[NdOption::SourceMac(MAC)], A, ipv6::ALL_ROUTERS).unwrap();
        check(
            Body::NeighborSolicit { target: G },
            &[NdOption::Nonce(&[7; 6])],
            NOBODY,
            ipv6::solicited_node(G),
        )
        .unwrap();
        let advert = Body::NeighborAdvert { router: true, solicited: true, override_: false, target: G };
        check(advert, &[NdOption::TargetMac(MAC)], G, A).unwrap();
        let redirect = Body::Redirect { target: B, destination: G };
        check(redirect, &[NdOption::TargetMac(MAC), NdOption::Redirected(&[3; 48])], A, G).unwrap();
    }

    #[test]
    fn the_address_rules_of_rfc_4861_are_kept() {
        let mac = [NdOption::SourceMac(MAC)];
        let group = ipv6::solicited_node(G);
        let (solicit, bad_target) =
            (Body::NeighborSolicit { target: G }, Body::NeighborSolicit { target: ipv6::ALL_NODES });
        let advert =
            |solicited, target| Body::NeighborAdvert { router: false, solicited, override_: true, target };
        let refused: [(Body, &[NdOption<'_>], Ipv6Addr, Ipv6Addr); 10] = [
            (Body::RouterSolicit, &mac, NOBODY, ipv6::ALL_ROUTERS),
            (Body::RouterAdvert(ADVERT), &mac, G, ipv6::ALL_NODES),
            (solicit, &mac, NOBODY, group),
            (solicit, &[], NOBODY, G),
            (bad_target, &mac, A, group),
            (advert(true, G), &[], A, ipv6::ALL_NODES),
            (advert(false, ipv6::ALL_NODES), &[], A, B),
            (Body::Redirect { target: B, destination: G }, &[], G, A),
            (Body::Redirect { target: B, destination: ipv6::ALL_NODES }, &[], A, G),
            (Body::Redirect { target: G, destination: Ipv6Addr::LOCALHOST }, &[], A, G),
        ];
        for (body, options, src, dst) in refused {
            assert_eq!(
                check(body, options, src, dst),
                Err(Malformed::Address),
                "{body:?} from {src} to {dst}"
            );
        }
    }

    #[test]
    fn what_did_not_come_from_this_link_is_refused() {
        let mut out = [0; 100];
        let n = solicit(&mut out, A, MAC, G).unwrap();
        out[7] = 254;
        assert_eq!(parse_packet(&out[..n]), Err(Malformed::HopLimit));
    }

    #[test]
    fn code_checksum_and_lengths_are_checked() {
        let mut out = [0; 100];
        let n = solicit(&mut out, A, MAC, G).unwrap();
        let dst = ipv6::solicited_node(G);
        let refused = |change: &dyn Fn(&mut [u8])| {
            let mut message = out[40..n].to_vec();
            change(&mut message);
            icmpv6::fill_checksum(&mut message, A, dst);
            parse(&message, A, dst, 255).err()
        };
        assert_eq!(refused(&|_| ()), None);
        assert_eq!(refused(&|m| m[1] = 1), Some(Malformed::Field));
        assert_eq!(refused(&|m| m[25] = 0), Some(Malformed::Option));
        assert_eq!(refused(&|m| m[25] = 2), Some(Malformed::Option));
        assert_eq!(refused(&|m| m[0] = kind::REDIRECT), Some(Malformed::Truncated));
        assert_eq!(refused(&|m| m[0] = kind::ECHO_REQUEST), Some(Malformed::Unknown));
        let mut wrong = out;
        wrong[60] ^= 1;
        assert_eq!(parse_packet(&wrong[..n]), Err(Malformed::Checksum));
    }

    #[test]
    fn the_ready_made_packets_are_believed() {
        let mut out = [0; 1500];
        let n = solicit(&mut out, A, MAC, G).unwrap();
        assert_eq!(parse_packet(&out[..n]).unwrap().options.source_mac(), Some(MAC));
        let n = solicit_unicast(&mut out, A, MAC, G).unwrap();
        assert_eq!(parse_packet(&out[..n]).unwrap().body, Body::NeighborSolicit { target: G });
        let n = probe(&mut out, G, &[1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(parse_packet(&out[..n]).unwrap().options.nonce(), Some(&[1, 2, 3, 4, 5, 6][..]));
        for to in [A, NOBODY] {
            let n = advertise(&mut out, G, MAC, to, true).unwrap();
            assert_eq!(parse_packet(&out[..n]).unwrap().options.target_mac(), Some(MAC));
        }
        for (len, mac) in [(0, None), (1400, Some(MAC)), (5, Some(MAC))] {
            let packet = build::udp6(B, G, 1, 2, &vec![9; len]);
            let n = redirect(&mut out, A, G, mac, &packet).unwrap();
            assert!(n <= 1280);
            let message = parse_packet(&out[..n]).unwrap();
            assert_eq!(message.body, Body::Redirect { target: G, destination: G });
            let quoted =
                message.options.iter().any(|o| matches!(o, NdOption::Redirected(q) if packet.starts_with(q)));
            assert!(quoted && message.options.target_mac() == mac);
        }
    }
}
