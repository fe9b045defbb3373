//! Datagrams in pieces, and back: what a sender and a receiver do, written apart from the router's own.

use wire::{
    IpProto, build, ipv4, ipv6,
    ipv6_ext::{self, Fragment},
};

/// Cuts an IPv4 packet into fragments of at most `size` octets of payload.
pub(crate) fn cut4(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let ip = ipv4::Packet::new_checked(packet).unwrap();
    let repr = ipv4::Repr::parse(&ip).unwrap();
    let body = ip.payload();
    let starts = (0..body.len()).step_by(size);
    starts
        .map(|at| {
            let end = (at + size).min(body.len());
            let frag = (at / 8) as u16 | if end < body.len() { ipv4::MF } else { 0 };
            build::raw4(ipv4::Repr { frag, ident: 99, ..repr }, &body[at..end])
        })
        .collect()
}

/// Cuts what an IPv6 packet carries behind its fixed header into fragments of at most `size` octets of it.
pub(crate) fn cut6(packet: &[u8], size: usize, ident: u32) -> Vec<Vec<u8>> {
    let repr = ipv6::Repr::parse(&ipv6::Packet::new_checked(packet).unwrap()).unwrap();
    let body = &packet[40..];
    let starts = (0..body.len()).step_by(size);
    starts
        .map(|at| {
            let end = (at + size).min(body.len());
            let more = end < body.len();
            let next_header = repr.next_header;
            let header = Fragment { at: 40, announced_at: 6, next_header, offset: at as u16, more, ident };
            let ip = ipv6::Repr { next_header: IpProto::FRAGMENT, ..repr };
            build::raw6(ip, &[&header.octets(), &body[at..end]].concat())
        })
        .collect()
}

/// Puts fragments together by their offsets; the payload behind the IP headers.
pub(crate) fn join(pieces: &[Vec<u8>], mtu: usize) -> Vec<u8> {
    let mut whole = Vec::new();
    for piece in pieces {
        assert!(piece.len() <= mtu, "a piece of {} octets", piece.len());
        let (offset, payload, more) = if piece[0] >> 4 == 4 {
            let ip = ipv4::Packet::new_checked(&piece[..]).unwrap();
            assert!(ip.checksum_ok());
            (ip.frag_offset(), ip.payload(), ip.more_fragments())
        } else {
            let chain = ipv6_ext::walk(piece, piece.len()).unwrap();
            let fragment = chain.fragment.expect("a fragment");
            (fragment.offset, &piece[usize::from(fragment.at) + 8..], fragment.more)
        };
        assert_eq!(usize::from(offset), whole.len(), "in order, without gaps");
        whole.extend_from_slice(payload);
        assert!(more || std::ptr::eq(piece, pieces.last().unwrap()));
    }
    whole
}
