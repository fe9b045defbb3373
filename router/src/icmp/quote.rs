//! What an ICMP error quotes: the packet as its sender made it.
//!
//! A super-frame was never sent by anyone: its first segment is quoted, lengths and checksum as if it had been cut. An
//! unfinished checksum is finished in the quotation.

use kern::{Gso, Mbuf, PktFlags};
use wire::{
    IpProto, checksum, icmpv6,
    segment::{Cut, Kind},
};

/// The most that any error quotes.
pub(super) type Scratch = [u8; icmpv6::MAX_ERROR_LEN];

/// The octets to quote from; `None` where the packet is not what its header fields say.
pub(super) fn quote<'a>(m: &'a Mbuf, scratch: &'a mut Scratch) -> Option<&'a [u8]> {
    let kind = match m.hdr().gso {
        Gso::None if !m.hdr().flags.has(PktFlags::PARTIAL) => return Some(m.data()),
        Gso::None => return finished(m, scratch),
        Gso::Tcp4 => Kind::Tcp4,
        Gso::Tcp6 => Kind::Tcp6,
        Gso::Udp4 => Kind::Udp4,
        Gso::Udp6 => Kind::Udp6,
    };
    first_segment(m, kind, scratch)
}

fn first_segment<'a>(m: &Mbuf, kind: Kind, scratch: &'a mut Scratch) -> Option<&'a [u8]> {
    let (data, header) = (m.data(), crate::iface::vnet::header_len(m));
    let payload = data.get(header..)?;
    let size = usize::from(m.hdr().gso_size);
    let cut = Cut::new(data.get(..header)?, kind, m.csum_start(), size, payload.len(), false).ok()?;
    let chunk = &payload[cut.payload_range(0)];
    let at = cut.write_headers(0, checksum::sum(chunk), scratch).ok()?;
    let n = chunk.len().min(scratch.len() - at);
    scratch[at..at + n].copy_from_slice(&chunk[..n]);
    Some(&scratch[..at + n])
}

/// A plain packet whose checksum the device was to finish.
fn finished<'a>(m: &Mbuf, scratch: &'a mut Scratch) -> Option<&'a [u8]> {
    let (data, start) = (m.data(), m.csum_start());
    let sum = checksum::sum(data.get(start..)?);
    let checksum =
        if m.hdr().proto == IpProto::UDP.0 { checksum::finish_udp(sum) } else { checksum::finish(sum) };
    let n = data.len().min(scratch.len());
    scratch[..n].copy_from_slice(&data[..n]);
    let field = start + usize::from(m.hdr().csum_offset);
    scratch.get_mut(field..field + 2)?.copy_from_slice(&checksum.to_be_bytes());
    Some(&scratch[..n])
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::testing::Fixture;
    use wire::{build, ipv4, parse, tcp};

    fn tcp_packet(len: usize) -> Vec<u8> {
        let header = tcp::Repr { src_port: 1, dst_port: 2, seq: 7, ..tcp::Repr::default() };
        build::tcp4([192, 0, 2, 1].into(), [198, 51, 100, 2].into(), &header, &vec![0x5a; len])
    }

    #[test]
    fn a_plain_packet_is_quoted_as_it_is() {
        let fixture = Fixture::new(4);
        let packet = tcp_packet(100);
        let m = fixture.packet(&packet);
        assert_eq!(quote(&m, &mut [0; 1280]), Some(&packet[..]));
        fixture.done(m);
    }

    #[test]
    fn an_unfinished_checksum_is_finished_in_the_quotation() {
        let fixture = Fixture::new(4);
        let whole = tcp_packet(100);
        let mut partial = whole.clone();
        checksum::transport_fill_partial(&mut partial, 20, 140, IpProto::TCP).unwrap();
        assert_ne!(partial, whole);
        let mut m = fixture.packet(&partial);
        m.set_partial(20, 16);
        m.hdr_mut().proto = 6;
        assert_eq!(quote(&m, &mut [0; 1280]), Some(&whole[..]));
        fixture.done(m);
    }

    #[test]
    fn a_super_frame_is_quoted_as_its_first_segment() {
        let fixture = Fixture::new(4);
        let mut packet = tcp_packet(9000);
        let end = packet.len();
        checksum::transport_fill_partial(&mut packet, 20, end, IpProto::TCP).unwrap();
        let mut m = fixture.packet(&packet);
        m.set_partial(20, 16);
        m.set_gso(Gso::Tcp4, 500);
        m.hdr_mut().proto = 6;
        let mut scratch = [0; 1280];
        let quoted = quote(&m, &mut scratch).unwrap();
        assert_eq!(quoted.len(), 540);
        let ip = ipv4::Packet::new_checked(quoted).unwrap();
        assert_eq!((ip.total_len(), ip.checksum_ok()), (540, true));
        let parsed = parse::parse_ipv4(quoted).unwrap();
        assert!(checksum::transport_ok(quoted, 20, 540, parsed.proto));
        fixture.done(m);
    }
}
