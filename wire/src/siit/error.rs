//! ICMP errors in the other family, and the packets that they quote (RFC 7915, 4.2, 4.3, 5.2 and 5.3).

use core::net::IpAddr;

use super::{DIFFERENCE, MIN_MTU6, head, query, sum_addresses, sum_of, upper_len};
use crate::{
    IpProto, Malformed, checksum, icmpv4, icmpv6, ipv4, ipv6,
    parse::{self, Parsed},
    view::{get, put},
};

/// What an ICMP error says in the other family. `mtu`: none are known but the one it tells.
fn error_to_ipv6(error: icmpv4::Error) -> Result<icmpv6::Error, Malformed> {
    use icmpv4::{Error as Four, unreachable as code4};
    use icmpv6::{Error as Six, problem, unreachable as code6};
    Ok(match error {
        Four::FragmentationNeeded(mtu) => {
            // An old router does not say: what every link carries is right for sure.
            Six::PacketTooBig(u32::from(mtu.saturating_add(DIFFERENCE).max(MIN_MTU6)))
        }
        Four::Unreachable(code4::PROTOCOL) => Six::ParameterProblem(problem::NEXT_HEADER, 6),
        Four::Unreachable(code4::PORT) => Six::Unreachable(code6::PORT),
        Four::Unreachable(9 | 10 | 13 | 15) => Six::Unreachable(code6::ADMIN_PROHIBITED),
        Four::Unreachable(0 | 1 | 5..=8 | 11 | 12) => Six::Unreachable(code6::NO_ROUTE),
        Four::TtlExceeded => Six::HopLimitExceeded,
        Four::ReassemblyTimeExceeded => Six::ReassemblyTimeExceeded,
        Four::ParameterProblem(pointer) => {
            // RFC 7915, figure 3.
            let pointer = match pointer {
                0 | 1 => pointer.into(),
                2 | 3 => 4,
                8 => 7,
                9 => 6,
                12..=15 => 8,
                16..=19 => 24,
                _ => return Err(Malformed::Unknown),
            };
            Six::ParameterProblem(problem::FIELD, pointer)
        }
        Four::Unreachable(_) | Four::Redirect(..) => return Err(Malformed::Unknown),
    })
}

fn error_to_ipv4(error: icmpv6::Error) -> Result<icmpv4::Error, Malformed> {
    use icmpv4::{Error as Four, unreachable as code4};
    use icmpv6::{Error as Six, problem, unreachable as code6};
    Ok(match error {
        Six::Unreachable(code6::ADMIN_PROHIBITED) => Four::Unreachable(10),
        Six::Unreachable(code6::NO_ROUTE | code6::BEYOND_SCOPE | code6::ADDRESS) => {
            Four::Unreachable(code4::HOST)
        }
        Six::Unreachable(code6::PORT) => Four::Unreachable(code4::PORT),
        Six::PacketTooBig(mtu) => {
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            Four::FragmentationNeeded(mtu.max(MIN_MTU6) - DIFFERENCE)
        }
        Six::HopLimitExceeded => Four::TtlExceeded,
        Six::ReassemblyTimeExceeded => Four::ReassemblyTimeExceeded,
        Six::ParameterProblem(problem::NEXT_HEADER, _) => Four::Unreachable(code4::PROTOCOL),
        Six::ParameterProblem(problem::FIELD, pointer) => {
            // RFC 7915, figure 6.
            let pointer = match pointer {
                0 | 1 => pointer as u8,
                4 | 5 => 2,
                6 => 9,
                7 => 8,
                8..=23 => 12,
                24..=39 => 16,
                _ => return Err(Malformed::Unknown),
            };
            Four::ParameterProblem(pointer)
        }
        Six::Unreachable(_) | Six::ParameterProblem(..) => return Err(Malformed::Unknown),
    })
}

/// What changes in the packet that an error quotes.
#[derive(Debug, Clone, Copy)]
pub struct Quoted {
    /// Its source and source port.
    pub src: (IpAddr, u16),
    /// Its destination and destination port.
    pub dst: (IpAddr, u16),
}

/// Writes the ICMP error `packet` to `out` as one of the other family, from `src` to `dst`, about the quoted packet as its sender sent it. Returns the
/// octets of the new packet: no more than errors of its family may have.
pub fn error(
    packet: &[u8],
    src: IpAddr,
    dst: IpAddr,
    about: &Quoted,
    out: &mut [u8],
) -> Result<usize, Malformed> {
    let p = parse::parse_ip(packet)?;
    let message = p.l4(packet);
    let header = message.first_chunk::<8>().ok_or(Malformed::Truncated)?;
    let (kind, code, rest) =
        (header[0], header[1], u32::from_be_bytes([header[4], header[5], header[6], header[7]]));
    let mut quote = [0; icmpv6::MAX_ERROR_LEN];
    let len = quoted(&message[8..], about, &mut quote)?;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) if p.is_v6() => {
            let error =
                error_to_ipv4(icmpv6::Error::from_header(kind, code, rest).ok_or(Malformed::Unknown)?)?;
            let len = len.min(icmpv4::MAX_ERROR_LEN - ipv4::HEADER_LEN - icmpv4::HEADER_LEN);
            let message = icmpv4::Repr::Error(error, &quote[..len]);
            let ip = ipv4::Repr {
                src,
                dst,
                proto: IpProto::ICMP,
                payload_len: message.buffer_len() as u16,
                tos: (get::<u16>(packet, 0) >> 4) as u8,
                ttl: packet[7],
                ..ipv4::Repr::default()
            };
            let at = ip.emit(out)?;
            Ok(at + message.emit(out.get_mut(at..).ok_or(Malformed::Truncated)?)?)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) if !p.is_v6() => {
            let error =
                error_to_ipv6(icmpv4::Error::from_header(kind, code, rest).ok_or(Malformed::Unknown)?)?;
            let len = len.min(icmpv6::MAX_ERROR_LEN - ipv6::HEADER_LEN - icmpv6::HEADER_LEN);
            let message = icmpv6::Repr::Error(error, &quote[..len]);
            let ip = ipv6::Repr {
                src,
                dst,
                next_header: IpProto::ICMPV6,
                payload_len: message.buffer_len() as u16,
                traffic_class: packet[1],
                flow_label: 0,
                hop_limit: packet[8],
            };
            let at = ip.emit(out)?;
            Ok(at + message.emit(out.get_mut(at..).ok_or(Malformed::Truncated)?, src, dst)?)
        }
        _ => Err(Malformed::Version),
    }
}

/// Translates a quotation, which may end anywhere behind its ports. Its checksums follow as far as they are there.
fn quoted(quote: &[u8], about: &Quoted, out: &mut [u8]) -> Result<usize, Malformed> {
    let p = parse::parse_quoted(quote)?;
    let Quoted { src, dst } = *about;
    let head = head(quote, &p, src.0, dst.0, p.ident as u16)?;
    let at = head.octets().len();
    let upper = quote.get(usize::from(p.l4)..p.end as usize).ok_or(Malformed::Truncated)?;
    let len = upper.len().min(out.len() - at);
    out[..at].copy_from_slice(head.octets());
    let segment = &mut out[at..at + len];
    segment.copy_from_slice(&upper[..len]);
    if !p.is_later_fragment() {
        let change = sum_of(src.0) + sum_of(dst.0);
        let old = sum_addresses(quote, p.is_v6());
        if matches!(p.proto, IpProto::ICMP | IpProto::ICMPV6) {
            // Only queries have states, so only those are quoted.
            query(segment, p.is_v6(), upper_len(quote, &p)?, old, change)?;
            set_ident(segment, src.1);
        } else if matches!(p.proto, IpProto::TCP | IpProto::UDP) {
            set_ports(segment, &p, old, change, (src.1, dst.1))?;
        }
    }
    Ok(at + len)
}

/// Gives a whole ICMP header another identifier.
fn set_ident(message: &mut [u8], ident: u16) {
    let old: u16 = get(message, 4);
    put(message, 2, checksum::update_sum(get(message, 2), old.into(), ident.into()));
    put(message, 4, ident);
}

/// Gives a quoted segment other ports and other addresses.
fn set_ports(segment: &mut [u8], p: &Parsed, old: u32, new: u32, ports: (u16, u16)) -> Result<(), Malformed> {
    let before: u32 = segment.first_chunk().map(|b| u32::from_be_bytes(*b)).ok_or(Malformed::Truncated)?;
    let after = u32::from(ports.0) << 16 | u32::from(ports.1);
    put(segment, 0, after);
    let at = p.proto.checksum_offset().filter(|at| segment.len() >= at + 2);
    if let Some(at) = at.filter(|&at| get::<u16>(segment, at) != 0) {
        let sum = checksum::update_sum(get(segment, at), old, new);
        put(segment, at, checksum::update_sum(sum, checksum::sum32(before), checksum::sum32(after)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    #[test]
    fn errors_say_the_same_in_the_other_family() {
        use icmpv4::Error as Four;
        use icmpv6::Error as Six;
        for (four, six) in [
            (Four::FragmentationNeeded(1400), Six::PacketTooBig(1420)),
            (Four::TtlExceeded, Six::HopLimitExceeded),
            (Four::Unreachable(3), Six::Unreachable(4)),
            (Four::Unreachable(10), Six::Unreachable(1)),
            (Four::Unreachable(2), Six::ParameterProblem(1, 6)),
            (Four::ParameterProblem(8), Six::ParameterProblem(0, 7)),
        ] {
            assert_eq!(error_to_ipv6(four), Ok(six));
            assert_eq!(error_to_ipv4(six), Ok(four));
        }
        assert_eq!(error_to_ipv6(Four::FragmentationNeeded(0)), Ok(Six::PacketTooBig(1280)));
        assert!(error_to_ipv6(Four::Redirect(0, Ipv4Addr::LOCALHOST)).is_err());
    }
}
