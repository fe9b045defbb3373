//! ICMP errors: they belong to the state of the packet that they quote.

use kern::Why;
use wire::{IpProto, parse};

use super::{
    Tracked,
    entry::{State, flag},
    key::Key,
    sctp, tcp,
};
use crate::{
    addr::Family,
    packet::{Packet, be32, icmp_error, icmp_query},
    rule::Direction,
};

/// The key of the packet that an ICMP error quotes, as of a packet that goes the other way, and its TCP sequence
/// number or SCTP verification tag, which stand in the same place.
///
/// Nothing if it is no error; a reason to drop it if it is one that cannot be right.
#[cold]
pub(super) fn quoted(direction: Direction, p: &Packet, data: &[u8]) -> Result<Option<(Key, u32)>, Why> {
    if !icmp_error(p.family, p.icmp) {
        return Ok(None);
    }
    let inner = data.get(usize::from(p.l4) + 8..).ok_or(Why::PfShort)?;
    let parsed = parse::parse_quoted(inner).map_err(|_| Why::PfShort)?;
    let family = if parsed.is_v6() { Family::Inet6 } else { Family::Inet };
    let flow = parsed.flow(inner);
    let (src, dst) = (crate::addr::bits(flow.src()), crate::addr::bits(flow.dst()));
    // Whoever sent the quoted packet is the one to be told (CVE-2019-5598).
    if family != p.family || src != p.dst {
        return Err(Why::PfStateMismatch);
    }
    if parsed.is_later_fragment() {
        return Err(Why::PfFragment);
    }
    let proto = parsed.proto;
    let has_ports = matches!(proto, IpProto::TCP | IpProto::UDP | IpProto::SCTP)
        || (matches!(proto, IpProto::ICMP | IpProto::ICMPV6)
            && icmp_query(family, parsed.icmp_type).is_some());
    if has_ports && !parsed.flags.contains(parse::Flags::PORTS) {
        return Err(Why::PfShort);
    }
    let (sport, dport) = if has_ports { (parsed.src_port, parsed.dst_port) } else { (0, 0) };
    let seq = match inner.get(usize::from(parsed.l4)..).and_then(<[u8]>::first_chunk::<8>) {
        Some(l4) if matches!(proto, IpProto::TCP | IpProto::SCTP) => be32(l4, 4),
        _ => 0,
    };
    Ok(Some((Key::new(direction, family, proto.0, (dst, dport), (src, sport)), seq)))
}

/// Whether an error about a packet with this sequence number, or tag, belongs to a state.
#[cold]
pub(super) fn belongs(state: &mut State, direction: Direction, p: &Packet, seq: u32) -> Tracked {
    if IpProto(state.wire.proto) == IpProto::TCP {
        // The quoted packet went the other way, with the numbers that this end was shown.
        let seq = if state.has(flag::MODULATED) { seq.wrapping_sub(state.diffs(direction).1) } else { seq };
        let (receiver, sender) = state.peers(direction);
        if !tcp::quoted_fits(sender, receiver, seq) {
            return Tracked::Mismatch;
        }
    }
    if IpProto(state.wire.proto) == IpProto::SCTP && !sctp::quoted_fits(state.peers(direction).1, seq) {
        return Tracked::Mismatch;
    }
    state.count(direction, p.segments, p.bytes);
    Tracked::Hit
}
