//! ICMP errors about packets that the router itself sent: about which, and in words.
//!
//! The words are those of BSD's ping(8). An error is believed if it quotes a packet of ours (addresses and ports, or the
//! identifier); TCP connections that stand are not ended by one (RFC 5927).

use super::turn::Heard;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{IpProto, icmpv4, icmpv6, parse::Flags};

/// An error, and the packet of ours that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// Who complains.
    pub(super) by: IpAddr,
    /// In words.
    pub(super) text: String,
    /// Whether it says that nobody can be reached there.
    pub(super) unreachable: bool,
    /// What our packet was.
    pub(super) about: About,
}

/// A packet of ours, as quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    /// Our address.
    pub(super) from: IpAddr,
    /// Whom we spoke to.
    pub(super) to: IpAddr,
    /// Upper layer.
    pub(super) proto: IpProto,
    /// Our port, or the identifier of an echo request.
    pub(super) from_port: u16,
    /// The other's port, or the sequence number of an echo request.
    pub(super) to_port: u16,
}

/// Reads an ICMP message of the family of its sender that is no echo reply.
pub(super) fn read(heard: &Heard<'_>) -> Option<Complaint> {
    let (text, unreachable, quoted) = match heard.from {
        IpAddr::V4(_) => {
            let message = icmpv4::Packet::new_checked(heard.upper).ok()?;
            let error = icmpv4::Error::from_header(message.kind(), message.code(), message.rest())?;
            (words4(error), matches!(error, icmpv4::Error::Unreachable(_)), message.payload())
        }
        IpAddr::V6(_) => {
            let message = icmpv6::Packet::new_checked(heard.upper).ok()?;
            let error = icmpv6::Error::from_header(message.kind(), message.code(), message.rest())?;
            (words6(error), matches!(error, icmpv6::Error::Unreachable(_)), message.payload())
        }
    };
    Some(Complaint { by: heard.from, text, unreachable, about: about(quoted)? })
}

fn about(quoted: &[u8]) -> Option<About> {
    let parsed = wire::parse::parse_quoted(quoted).ok()?;
    if parsed.is_later_fragment() || !parsed.flags.contains(Flags::PORTS) {
        return None;
    }
    let (from, to) = if parsed.is_v6() {
        let address =
            |at: usize| quoted.get(at..)?.first_chunk().map(|a| IpAddr::V6(Ipv6Addr::from_octets(*a)));
        (address(8)?, address(24)?)
    } else {
        let address =
            |at: usize| quoted.get(at..)?.first_chunk().map(|a| IpAddr::V4(Ipv4Addr::from_octets(*a)));
        (address(12)?, address(16)?)
    };
    let is_echo = matches!(
        (parsed.proto, parsed.icmp_type),
        (IpProto::ICMP, icmpv4::kind::ECHO_REQUEST) | (IpProto::ICMPV6, icmpv6::kind::ECHO_REQUEST)
    );
    let to_port = if is_echo {
        let sequence = parsed.l4(quoted).get(6..)?.first_chunk()?;
        u16::from_be_bytes(*sequence)
    } else {
        parsed.dst_port
    };
    Some(About { from, to, proto: parsed.proto, from_port: parsed.src_port, to_port })
}

fn words4(error: icmpv4::Error) -> String {
    use icmpv4::{Error, unreachable as code};
    match error {
        Error::Unreachable(code::NET) => "Destination Net Unreachable".into(),
        Error::Unreachable(code::HOST) => "Destination Host Unreachable".into(),
        Error::Unreachable(code::PROTOCOL) => "Destination Protocol Unreachable".into(),
        Error::Unreachable(code::PORT) => "Destination Port Unreachable".into(),
        Error::Unreachable(code::SOURCE_ROUTE) => "Source Route Failed".into(),
        Error::Unreachable(code::ADMIN_PROHIBITED) => "Communication prohibited by filter".into(),
        Error::Unreachable(other) => format!("Destination Unreachable, code {other}"),
        Error::FragmentationNeeded(mtu) => format!("frag needed and DF set (MTU {mtu})"),
        Error::Redirect(_, gateway) => format!("Redirect (new gateway {gateway})"),
        Error::TtlExceeded => "Time to live exceeded".into(),
        Error::ReassemblyTimeExceeded => "Frag reassembly time exceeded".into(),
        Error::ParameterProblem(pointer) => format!("Parameter problem: pointer = {pointer}"),
    }
}

fn words6(error: icmpv6::Error) -> String {
    use icmpv6::{Error, unreachable as code};
    match error {
        Error::Unreachable(code::NO_ROUTE) => "No Route to Destination".into(),
        Error::Unreachable(code::ADMIN_PROHIBITED) => "Destination Administratively Unreachable".into(),
        Error::Unreachable(code::BEYOND_SCOPE) => "Destination Unreachable Beyond Scope".into(),
        Error::Unreachable(code::ADDRESS) => "Destination Host Unreachable".into(),
        Error::Unreachable(code::PORT) => "Destination Port Unreachable".into(),
        Error::Unreachable(other) => format!("Destination Unreachable, code {other}"),
        Error::PacketTooBig(mtu) => format!("Packet too big mtu = {mtu}"),
        Error::HopLimitExceeded => "Time to live exceeded".into(),
        Error::ReassemblyTimeExceeded => "Frag reassembly time exceeded".into(),
        Error::ParameterProblem(code, pointer) => {
            format!("Parameter problem: code {code}, pointer = {pointer}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{build, tcp};

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
    const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);

    fn complaint4(error: icmpv4::Error, packet: &[u8]) -> Option<Complaint> {
        let mut out = [0; icmpv4::MAX_ERROR_LEN];
        let n = icmpv4::build_error(&mut out, error, GATEWAY, packet, 1).unwrap();
        read(&Heard { from: GATEWAY.into(), to: A.into(), hops: 64, upper: &out[20..n] })
    }

    #[test]
    fn an_error_says_about_which_packet_it_is() {
        let said = complaint4(icmpv4::Error::Unreachable(3), &build::udp4(A, B, 4000, 53, b"who?")).unwrap();
        let about = About { from: A.into(), to: B.into(), proto: IpProto::UDP, from_port: 4000, to_port: 53 };
        assert_eq!((said.by, said.unreachable, said.about), (GATEWAY.into(), true, about));
        assert_eq!(said.text, "Destination Port Unreachable");

        let header = tcp::Repr { src_port: 5000, dst_port: 80, ..tcp::Repr::default() };
        let said = complaint4(icmpv4::Error::TtlExceeded, &build::tcp4(A, B, &header, b"")).unwrap();
        assert_eq!((said.about.from_port, said.about.to_port, said.unreachable), (5000, 80, false));

        let said = complaint4(icmpv4::Error::Unreachable(1), &build::echo4(A, B, 77, 9, b"data")).unwrap();
        assert_eq!((said.about.proto, said.about.from_port, said.about.to_port), (IpProto::ICMP, 77, 9));
    }

    #[test]
    fn an_error_of_ipv6_says_it_too() {
        let mut out = [0; icmpv6::MAX_ERROR_LEN];
        let packet = build::echo6(A6, B6, 77, 9, &[1; 2000]);
        let n = icmpv6::build_error(&mut out, icmpv6::Error::PacketTooBig(1280), B6, &packet).unwrap();
        let said = read(&Heard { from: B6.into(), to: A6.into(), hops: 1, upper: &out[40..n] }).unwrap();
        let about =
            About { from: A6.into(), to: B6.into(), proto: IpProto::ICMPV6, from_port: 77, to_port: 9 };
        assert_eq!((said.about, said.text.as_str()), (about, "Packet too big mtu = 1280"));
    }

    #[test]
    fn what_quotes_no_packet_is_about_nothing() {
        assert_eq!(complaint4(icmpv4::Error::TtlExceeded, &build::udp4(A, B, 1, 2, b"")[..20]), None);
        let heard = Heard { from: A.into(), to: B.into(), hops: 1, upper: &[3, 3, 0] };
        assert_eq!(read(&heard), None);
        let reply = build::echo4(A, B, 1, 2, b"");
        assert_eq!(read(&Heard { upper: &reply[20..], ..heard }), None, "an echo request is no complaint");
    }
}
