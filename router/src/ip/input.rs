//! `ip_input`: is it a sound packet, may its addresses be on a wire, and does pf let it in?
//!
//! RFC 1812 5.2 and 5.3.7 (martians), RFC 8200, RFC 4291 2.7. Decrypted packets come here again; a hop count ends
//! loops. Options and extension headers are looked at here and marked; their meaning is `forward`'s and pf's business.

use crate::{
    hooks,
    worker::{Cx, Pending, Stage},
};
use kern::{
    Batch, Mbuf, PktFlags, Why,
    lock::{Held, levels::Softnet},
};
use std::net::{Ipv4Addr, Ipv6Addr};
use wire::{Malformed, checksum, ipv4_check, ipv6_check, parse, parse::Ipv4Check};

/// Times one packet may pass here: once in clear, and once for each nested tunnel.
const MAX_PASSES: u8 = 4;
/// In the field of fragments.
const DONT_FRAGMENT: u16 = 0x4000;

/// Stage: IP packets, outer or decrypted, to `ip_forward`.
pub(crate) fn ip_input(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    let (mut v4, mut v6) = (0, 0);
    batch.sift(|mut m| {
        let checked = if m.hdr().family == 4 {
            v4 += 1;
            if take_usual4(cx, &mut m) { Ok(()) } else { check4(cx, &mut m) }
        } else {
            v6 += 1;
            check6(cx, &mut m)
        };
        match checked {
            Ok(()) => Some(m),
            Err(why) => {
                cx.end(m, why);
                None
            }
        }
    });
    // In a loop of its own, which needs no more than the registers there are.
    let arrived = hooks::Arrived::of(batch);
    cx.stats.count.ip_received.add(v4);
    cx.stats.count.ip6_received.add(v6);
    hooks::pf_in(cx, held, batch, arrived, out);
    out.pass(Stage::Forward, batch, &cx.stats.ledger);
}

#[inline(always)]
fn count_pass(m: &mut Mbuf) -> Result<(), Why> {
    let h = m.hdr_mut();
    h.hops += 1;
    if h.hops > MAX_PASSES { Err(Why::TooManyPasses) } else { Ok(()) }
}

/// [`check4`] of what most packets are: no options, no fragment, from one host to another. False: nothing happened.
#[inline(always)]
fn take_usual4(cx: &Cx<'_>, m: &mut Mbuf) -> bool {
    let data = m.data();
    let Some(h) = data.first_chunk::<20>() else { return false };
    let total_len = u16::from_be_bytes([h[2], h[3]]);
    let frag = u16::from_be_bytes([h[6], h[7]]);
    let is_sound = h[0] == 0x45
        && checksum::header_ok(h)
        && usize::from(total_len).wrapping_sub(20) <= data.len() - 20
        && frag & !DONT_FRAGMENT == 0
        && MAY_BE_HOST[usize::from(h[12])] & MAY_BE_HOST[usize::from(h[16])]
        && m.hdr().hops < MAX_PASSES;
    if !is_sound {
        return false;
    }
    let (proto, dst) = (h[9], Ipv4Addr::new(h[16], h[17], h[18], h[19]));
    describe4(cx, m, Ipv4Check { header_len: 20, total_len }, frag & DONT_FRAGMENT, proto, dst);
    m.hdr_mut().hops += 1;
    true
}

/// Whether addresses that begin with this octet are of single hosts (or of a directed broadcast) and may be on a wire. Looking it
/// up takes a third of the instructions that comparing takes.
static MAY_BE_HOST: [bool; 256] = {
    let mut may = [false; 256];
    let mut first = 1;
    while first < 224 {
        may[first] = first != 127;
        first += 1;
    }
    may
};

/// Writes down what a sound header says.
#[inline(always)]
fn describe4(cx: &Cx<'_>, m: &mut Mbuf, check: Ipv4Check, frag: u16, proto: u8, dst: Ipv4Addr) {
    m.truncate(check.total_len.into());
    m.set_l4(check.header_len.into());
    let h = m.hdr_mut();
    h.flags.clear(PktFlags::FRAG.with(PktFlags::DF).with(PktFlags::OPTIONS));
    if frag & 0x3fff != 0 {
        h.flags.set(PktFlags::FRAG);
    }
    if frag & DONT_FRAGMENT != 0 {
        h.flags.set(PktFlags::DF);
    }
    if check.header_len > 20 {
        h.flags.set(PktFlags::OPTIONS);
    }
    h.proto = proto;
    cx.net.fib.v4.prefetch(dst);
    if cx.net.hash_flows {
        let hash = parse::hash_ipv4(m.data(), check, &cx.shared.seed);
        m.hdr_mut().hash = hash.max(1);
    }
}

#[inline(never)]
fn check4(cx: &Cx<'_>, m: &mut Mbuf) -> Result<(), Why> {
    let data = m.data();
    let check = ipv4_check(data).map_err(malformed4)?;
    let header: &[u8; 20] = data.first_chunk().ok_or(Why::IpTruncated)?;
    let src = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let dst = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    if is_martian_source4(src) || is_martian_destination4(dst) {
        return Err(Why::IpMartian);
    }
    let frag = u16::from_be_bytes([header[6], header[7]]);
    let proto = header[9];
    describe4(cx, m, check, frag, proto, dst);
    count_pass(m)
}

fn malformed4(malformed: Malformed) -> Why {
    match malformed {
        Malformed::Checksum => Why::IpChecksum,
        Malformed::Length | Malformed::Truncated => Why::IpTruncated,
        Malformed::Option => Why::IpOptions,
        _ => Why::IpMalformed,
    }
}

/// Sources that must not be on a wire: this network, loopback, groups, reserved, broadcast (RFC 1812 5.3.7).
#[inline(always)]
pub(crate) fn is_martian_source4(src: Ipv4Addr) -> bool {
    let [first, ..] = src.octets();
    first == 0 || first == 127 || first >= 224
}

/// Destinations that must not be on a wire: this network, loopback, reserved but for the limited broadcast.
#[inline(always)]
pub(crate) fn is_martian_destination4(dst: Ipv4Addr) -> bool {
    let [first, ..] = dst.octets();
    first == 0 || first == 127 || (first >= 240 && !dst.is_broadcast())
}

#[inline(always)]
fn check6(cx: &Cx<'_>, m: &mut Mbuf) -> Result<(), Why> {
    let data = m.data();
    let check = ipv6_check(data).map_err(malformed6)?;
    let header: &[u8; 40] = data.first_chunk().ok_or(Why::Ip6Truncated)?;
    let src = Ipv6Addr::from_octets(sixteen(header, 8));
    let dst = Ipv6Addr::from_octets(sixteen(header, 24));
    if is_martian_source6(src) || is_martian_destination6(dst) {
        return Err(Why::Ip6Martian);
    }
    let next = check.next_header.0;
    m.truncate(check.total_len as usize);
    m.hdr_mut().flags.set(PktFlags::DF);
    if matches!(next, 6 | 17 | 50 | 58) {
        m.set_l4(40);
        let h = m.hdr_mut();
        h.flags.clear(PktFlags::FRAG.with(PktFlags::OPTIONS));
        h.proto = next;
    } else {
        walk_extensions(m)?;
    }
    if cx.net.hash_flows
        && let Ok(parsed) = parse::parse_ipv6(m.data())
    {
        let hash = parsed.hash(m.data(), &cx.shared.seed);
        m.hdr_mut().hash = hash.max(1);
    }
    count_pass(m)
}

#[inline(always)]
fn sixteen(header: &[u8; 40], at: usize) -> [u8; 16] {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    octets
}

fn malformed6(malformed: Malformed) -> Why {
    match malformed {
        Malformed::Length | Malformed::Truncated => Why::Ip6Truncated,
        Malformed::ExtChain | Malformed::Option => Why::Ip6Extension,
        _ => Why::Ip6Malformed,
    }
}

/// The bounded walk over extension headers. Routing headers of type 0 are refused (RFC 5095).
fn walk_extensions(m: &mut Mbuf) -> Result<(), Why> {
    use parse::Flags;
    let parsed = parse::parse_ipv6(m.data()).map_err(malformed6)?;
    if parsed.flags.contains(Flags::ROUTING_0) {
        return Err(Why::Ip6Extension);
    }
    m.set_l4(parsed.l4.into());
    let h = m.hdr_mut();
    h.proto = parsed.proto.0;
    h.flags.clear(PktFlags::FRAG.with(PktFlags::OPTIONS));
    if parsed.flags.contains(Flags::FRAGMENT_HEADER) {
        h.flags.set(PktFlags::FRAG);
    }
    if parsed.flags.contains(Flags::HOP_BY_HOP) || parsed.flags.contains(Flags::ROUTING) {
        h.flags.set(PktFlags::OPTIONS);
    }
    Ok(())
}

/// Sources that must not be on a wire: loopback, groups, IPv4-mapped. The unspecified address is for duplicate address
/// detection; `forward` keeps it from going further.
#[inline(always)]
pub(crate) fn is_martian_source6(src: Ipv6Addr) -> bool {
    let top = src.octets();
    top[0] == 0xff || (top[0] == 0 && (src.is_loopback() || src.to_ipv4_mapped().is_some()))
}

/// Destinations that must not be on a wire: unspecified, loopback, IPv4-mapped, groups of interface scope.
#[inline(always)]
pub(crate) fn is_martian_destination6(dst: Ipv6Addr) -> bool {
    let top = dst.octets();
    (top[0] == 0 && (dst.is_unspecified() || dst.is_loopback() || dst.to_ipv4_mapped().is_some()))
        || (top[0] == 0xff && top[1] & 0x0f <= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn martians_are_known() {
        for bad in ["0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
            assert!(is_martian_source4(bad.parse().unwrap()), "{bad}");
        }
        for good in ["10.0.0.1", "192.0.2.1", "223.255.255.255", "169.254.1.1"] {
            assert!(!is_martian_source4(good.parse().unwrap()), "{good}");
            assert!(!is_martian_destination4(good.parse().unwrap()), "{good}");
        }
        assert!(!is_martian_destination4(Ipv4Addr::BROADCAST));
        assert!(is_martian_destination4("250.0.0.1".parse().unwrap()));
        for first in 0..=255u8 {
            let addr = Ipv4Addr::new(first, 0, 0, 1);
            let is_host = !is_martian_source4(addr) && !is_martian_destination4(addr);
            assert_eq!(MAY_BE_HOST[usize::from(first)], is_host, "{addr}");
        }
        for bad in ["::1", "ff02::1", "::ffff:10.0.0.1"] {
            assert!(is_martian_source6(bad.parse().unwrap()), "{bad}");
        }
        assert!(!is_martian_source6(Ipv6Addr::UNSPECIFIED));
        for bad in ["::", "::1", "ff01::1", "ff00::1", "::ffff:10.0.0.1"] {
            assert!(is_martian_destination6(bad.parse().unwrap()), "{bad}");
        }
        assert!(!is_martian_destination6("ff02::1".parse().unwrap()));
    }
}
