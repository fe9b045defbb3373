//! IGMP and MLD, by which hosts say which groups they belong to: what is forged is refused, and the router alert that each
//! of these messages carries is no option to be blocked for (as FreeBSD 15 and OpenBSD have it; RFC 2113, RFC 2711).

use kern::Why;
use wire::{
    IpProto,
    icmpv6::kind,
    ipv4, ipv6,
    ipv6_ext::{ExtOption, Options},
    parse,
};

use crate::{addr::Family, packet::Packet};

/// Refuses IGMP that has come, or is to go, further than a link, or is for no group.
#[cold]
pub(crate) fn igmp(data: &[u8]) -> Result<(), Why> {
    let h: &[u8; 20] = data.first_chunk().ok_or(Why::PfShort)?;
    // RFC 3376, 4: the time to live is 1; and groups begin with 1110.
    if h[8] == 1 && h[16] >> 4 == 0xe { Ok(()) } else { Err(Why::PfOptions) }
}

/// Refuses MLD that has come further than a link. A report may be without a source while the sender has none (RFC 3590).
#[cold]
pub(crate) fn mld(p: &Packet, data: &[u8]) -> Result<(), Why> {
    if !is_mld(p) {
        return Ok(());
    }
    let may_lack_source = p.icmp != kind::MLD_QUERY;
    let is_near = p.src >> 118 == 0xfe80 >> 6 || (p.src == 0 && may_lack_source);
    if is_near && data.get(7) == Some(&1) { Ok(()) } else { Err(Why::PfOptions) }
}

fn is_mld(p: &Packet) -> bool {
    let is_icmp = p.family == Family::Inet6 && IpProto(p.proto) == IpProto::ICMPV6 && !p.fragment;
    is_icmp && matches!(p.icmp, kind::MLD_QUERY | kind::MLD_REPORT | kind::MLD_DONE | kind::MLD2_REPORT)
}

/// Whether a packet that has options is IGMP or MLD, and has no option but the router alert.
#[cold]
pub(crate) fn only_alerts(p: &Packet, data: &[u8]) -> bool {
    match p.family {
        Family::Inet => IpProto(p.proto) == IpProto::IGMP && !p.fragment && alerts4(data),
        Family::Inet6 => is_mld(p) && alerts6(data),
    }
}

fn alerts4(data: &[u8]) -> bool {
    let Ok(packet) = ipv4::Packet::new_checked(data) else { return false };
    let is_alert = |option: Result<ipv4::HeaderOption<'_>, _>| {
        option.is_ok_and(|option| option.kind == ipv4::HeaderOption::ROUTER_ALERT)
    };
    // Nothing but padding says nothing good.
    packet.options().next().is_some() && packet.options().all(is_alert)
}

fn alerts6(data: &[u8]) -> bool {
    if parse::parse_ipv6(data).map_or(true, |p| p.flags.contains(parse::Flags::ROUTING)) {
        return false;
    }
    // Options of a second header would go unseen.
    if data.get(ipv6::HEADER_LEN) != Some(&IpProto::ICMPV6.0) {
        return false;
    }
    let Ok(mut options) = Options::of(data, ipv6::HEADER_LEN) else { return false };
    let is_alert =
        |option: Result<ExtOption<'_>, _>| option.is_ok_and(|option| option.kind == ExtOption::ROUTER_ALERT);
    options.clone().next().is_some() && options.all(is_alert)
}
