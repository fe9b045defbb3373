//! Whole packets from a few words, every length and checksum right: for tests, and for the packets a router makes itself.
//!
//! The functions that return a `Vec` are for tests and the control thread; [`ipv4_packet`] and [`ipv6_packet`] write into a buffer.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{EtherType, IpProto, Mac, Malformed, ether, icmpv4, icmpv6, ipv4, ipv6, sctp, tcp, udp};

/// Writes an IPv4 header and lets `body` write what follows: it gets the payload area and the sum of the pseudo-header. Returns the packet's length.
pub fn ipv4_packet(
    out: &mut [u8],
    header: &ipv4::Repr,
    body: impl FnOnce(&mut [u8], u32) -> Result<usize, Malformed>,
) -> Result<usize, Malformed> {
    let at = header.emit(out)?;
    let end = at + usize::from(header.payload_len);
    body(out.get_mut(at..end).ok_or(Malformed::Truncated)?, header.pseudo())?;
    Ok(end)
}

/// Writes an IPv6 header and lets `body` write what follows: it gets the payload area and the sum of the pseudo-header. Returns the packet's length.
pub fn ipv6_packet(
    out: &mut [u8],
    header: &ipv6::Repr,
    body: impl FnOnce(&mut [u8], u32) -> Result<usize, Malformed>,
) -> Result<usize, Malformed> {
    let at = header.emit(out)?;
    let end = at + usize::from(header.payload_len);
    body(out.get_mut(at..end).ok_or(Malformed::Truncated)?, header.pseudo())?;
    Ok(end)
}

/// An IPv4 packet with this header (whose payload length is replaced) and a payload as it is.
pub fn raw4(header: ipv4::Repr, payload: &[u8]) -> Vec<u8> {
    with4(header, payload.len(), |area, _| {
        area.copy_from_slice(payload);
        Ok(area.len())
    })
}

/// An IPv6 packet with this header (whose payload length is replaced) and a payload as it is.
pub fn raw6(header: ipv6::Repr, payload: &[u8]) -> Vec<u8> {
    with6(header, payload.len(), |area, _| {
        area.copy_from_slice(payload);
        Ok(area.len())
    })
}

fn with4(
    header: ipv4::Repr,
    len: usize,
    body: impl FnOnce(&mut [u8], u32) -> Result<usize, Malformed>,
) -> Vec<u8> {
    let mut out = vec![0; ipv4::HEADER_LEN + len];
    let payload_len = u16::try_from(len).expect("a payload fits its length field");
    ipv4_packet(&mut out, &ipv4::Repr { payload_len, ..header }, body)
        .expect("the buffer was made to measure");
    out
}

fn with6(
    header: ipv6::Repr,
    len: usize,
    body: impl FnOnce(&mut [u8], u32) -> Result<usize, Malformed>,
) -> Vec<u8> {
    let mut out = vec![0; ipv6::HEADER_LEN + len];
    let payload_len = u16::try_from(len).expect("a payload fits its length field");
    ipv6_packet(&mut out, &ipv6::Repr { payload_len, ..header }, body)
        .expect("the buffer was made to measure");
    out
}

/// A UDP datagram behind the IPv4 header `header`, whose protocol and payload length are replaced.
pub fn udp4_with(header: ipv4::Repr, udp: &udp::Repr, payload: &[u8]) -> Vec<u8> {
    with4(ipv4::Repr { proto: IpProto::UDP, ..header }, udp::HEADER_LEN + payload.len(), |area, pseudo| {
        area[udp::HEADER_LEN..].copy_from_slice(payload);
        udp.emit(area, pseudo)
    })
}

/// A UDP datagram behind the IPv6 header `header`, whose next header and payload length are replaced.
pub fn udp6_with(header: ipv6::Repr, udp: &udp::Repr, payload: &[u8]) -> Vec<u8> {
    with6(
        ipv6::Repr { next_header: IpProto::UDP, ..header },
        udp::HEADER_LEN + payload.len(),
        |area, pseudo| {
            area[udp::HEADER_LEN..].copy_from_slice(payload);
            udp.emit(area, pseudo)
        },
    )
}

/// A TCP segment behind the IPv4 header `header`, whose protocol and payload length are replaced.
pub fn tcp4_with(header: ipv4::Repr, tcp: &tcp::Repr, payload: &[u8]) -> Vec<u8> {
    let len = tcp.header_len();
    with4(ipv4::Repr { proto: IpProto::TCP, ..header }, len + payload.len(), |area, pseudo| {
        area[len..].copy_from_slice(payload);
        tcp.emit(area, pseudo)
    })
}

/// A TCP segment behind the IPv6 header `header`, whose next header and payload length are replaced.
pub fn tcp6_with(header: ipv6::Repr, tcp: &tcp::Repr, payload: &[u8]) -> Vec<u8> {
    let len = tcp.header_len();
    with6(ipv6::Repr { next_header: IpProto::TCP, ..header }, len + payload.len(), |area, pseudo| {
        area[len..].copy_from_slice(payload);
        tcp.emit(area, pseudo)
    })
}

/// A UDP datagram over IPv4, 64 hops.
pub fn udp4(src: Ipv4Addr, dst: Ipv4Addr, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    udp4_with(ipv4::Repr { src, dst, ..ipv4::Repr::default() }, &udp::Repr { src_port, dst_port }, payload)
}

/// A UDP datagram over IPv6, 64 hops.
pub fn udp6(src: Ipv6Addr, dst: Ipv6Addr, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    udp6_with(ipv6::Repr { src, dst, ..ipv6::Repr::default() }, &udp::Repr { src_port, dst_port }, payload)
}

/// A TCP segment over IPv4, 64 hops.
pub fn tcp4(src: Ipv4Addr, dst: Ipv4Addr, tcp: &tcp::Repr, payload: &[u8]) -> Vec<u8> {
    tcp4_with(ipv4::Repr { src, dst, ..ipv4::Repr::default() }, tcp, payload)
}

/// A TCP segment over IPv6, 64 hops.
pub fn tcp6(src: Ipv6Addr, dst: Ipv6Addr, tcp: &tcp::Repr, payload: &[u8]) -> Vec<u8> {
    tcp6_with(ipv6::Repr { src, dst, ..ipv6::Repr::default() }, tcp, payload)
}

/// An SCTP packet with these chunks over IPv4, 64 hops.
pub fn sctp4(src: Ipv4Addr, dst: Ipv4Addr, sctp: &sctp::Repr, chunks: &[u8]) -> Vec<u8> {
    let header = ipv4::Repr { src, dst, proto: IpProto::SCTP, ..ipv4::Repr::default() };
    with4(header, sctp::HEADER_LEN + chunks.len(), |area, _| {
        area[sctp::HEADER_LEN..].copy_from_slice(chunks);
        sctp.emit(area)
    })
}

/// An SCTP packet with these chunks over IPv6, 64 hops.
pub fn sctp6(src: Ipv6Addr, dst: Ipv6Addr, sctp: &sctp::Repr, chunks: &[u8]) -> Vec<u8> {
    let header = ipv6::Repr { src, dst, next_header: IpProto::SCTP, ..ipv6::Repr::default() };
    with6(header, sctp::HEADER_LEN + chunks.len(), |area, _| {
        area[sctp::HEADER_LEN..].copy_from_slice(chunks);
        sctp.emit(area)
    })
}

/// A chunk of an SCTP packet, padded.
pub fn sctp_chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    padded([kind, flags], value)
}

/// A parameter of an SCTP chunk, padded.
pub fn sctp_parameter(kind: u16, value: &[u8]) -> Vec<u8> {
    padded(kind.to_be_bytes(), value)
}

/// INIT or INIT ACK with as many streams each way, and these parameters.
pub fn sctp_init(kind: u8, tag: u32, window: u32, streams: u16, parameters: &[u8]) -> Vec<u8> {
    let [tag, window, tsn] = [tag, window, 1].map(u32::to_be_bytes);
    let streams = streams.to_be_bytes();
    sctp_chunk(kind, 0, &[&tag[..], &window, &streams, &streams, &tsn, parameters].concat())
}

fn padded(head: [u8; 2], value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len() + 4).expect("a value fits its length field");
    let mut out = [&head[..], &len.to_be_bytes(), value].concat();
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// An ICMP message over IPv4, 64 hops.
pub fn icmp4(src: Ipv4Addr, dst: Ipv4Addr, message: &icmpv4::Repr<'_>) -> Vec<u8> {
    let header = ipv4::Repr { src, dst, proto: IpProto::ICMP, ..ipv4::Repr::default() };
    with4(header, message.buffer_len(), |area, _| message.emit(area))
}

/// An ICMPv6 message, 64 hops.
pub fn icmp6(src: Ipv6Addr, dst: Ipv6Addr, message: &icmpv6::Repr<'_>) -> Vec<u8> {
    let header = ipv6::Repr { src, dst, next_header: IpProto::ICMPV6, ..ipv6::Repr::default() };
    with6(header, message.buffer_len(), |area, _| message.emit(area, src, dst))
}

/// An echo request over IPv4.
pub fn echo4(src: Ipv4Addr, dst: Ipv4Addr, ident: u16, seq: u16, data: &[u8]) -> Vec<u8> {
    icmp4(src, dst, &icmpv4::Repr::EchoRequest { ident, seq, data })
}

/// An echo request over IPv6.
pub fn echo6(src: Ipv6Addr, dst: Ipv6Addr, ident: u16, seq: u16, data: &[u8]) -> Vec<u8> {
    icmp6(src, dst, &icmpv6::Repr::EchoRequest { ident, seq, data })
}

/// An Ethernet frame around an IP packet (the type is that of its version) without tag and padding.
pub fn frame(dst: Mac, src: Mac, packet: &[u8]) -> Vec<u8> {
    frame_with(&ether::Repr { dst, src, tci: None, ethertype: ethertype_of(packet) }, packet)
}

/// An Ethernet frame with one tag around an IP packet.
pub fn tagged_frame(dst: Mac, src: Mac, tci: u16, packet: &[u8]) -> Vec<u8> {
    frame_with(&ether::Repr { dst, src, tci: Some(tci), ethertype: ethertype_of(packet) }, packet)
}

/// An Ethernet frame around any payload.
pub fn frame_with(header: &ether::Repr, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; header.buffer_len() + payload.len()];
    let at = header.emit(&mut out).expect("the buffer was made to measure");
    out[at..].copy_from_slice(payload);
    out
}

/// The ethertype of an IP packet, by its version.
pub fn ethertype_of(packet: &[u8]) -> EtherType {
    if packet.first().is_some_and(|v| v >> 4 == 6) { EtherType::IPV6 } else { EtherType::IPV4 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checksum, parse_frame, tcp::Flags};

    #[test]
    fn every_packet_that_is_built_parses_and_verifies() {
        let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let (c, d) = (Ipv6Addr::from_bits(1 << 100), Ipv6Addr::from_bits(2 << 100));
        let syn = tcp::Repr {
            src_port: 1,
            dst_port: 2,
            flags: Flags::SYN,
            max_segment_size: Some(1460),
            ..Default::default()
        };
        let association = sctp::Repr { src_port: 1, dst_port: 2, tag: 3 };
        let (m, n) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        for packet in [
            udp4(a, b, 1, 2, b"odd"),
            udp6(c, d, 1, 2, b"odd"),
            tcp4(a, b, &syn, b""),
            tcp6(c, d, &syn, b"x"),
            echo4(a, b, 1, 2, b"12345"),
            echo6(c, d, 1, 2, b"12345"),
            sctp4(a, b, &association, &sctp_chunk(sctp::kind::DATA, 3, b"odd")),
            sctp6(c, d, &association, &sctp_init(sctp::kind::INIT, 1, 9000, 2, b"")),
        ] {
            for frame in [frame(m, n, &packet), tagged_frame(m, n, 0x2005, &packet)] {
                let parsed = parse_frame(&frame).unwrap();
                let ip = parsed.ip.unwrap();
                assert_eq!(ip.end as usize, packet.len());
                assert!(checksum::transport_ok(&packet, usize::from(ip.l4), packet.len(), ip.proto));
            }
        }
    }
}
