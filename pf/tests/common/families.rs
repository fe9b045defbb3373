//! A client on the LAN and a server behind the WAN that speak different families, and what becomes of their packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kern::{Mbuf, PktFlags};
use pf::{IfIndex, Verdict};
use wire::{checksum, parse};

use super::{IN, World};

/// The router's own address, behind which clients are shown.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The server.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The client.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 9);
/// The server behind the well-known prefix.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xc633, 0x6401);

pub fn packet(w: &World, octets: &[u8]) -> Mbuf {
    let mut m = w.packet(octets);
    let p = parse::parse_ip(octets).expect("a packet");
    m.set_l4(p.l4.into());
    m.hdr_mut().proto = p.proto.0;
    if octets[0] >> 4 == 6 {
        m.hdr_mut().flags.set(PktFlags::DF);
    }
    m
}

/// What a packet has become; its own header must say the same, and its checksums must verify.
pub fn through(w: &mut World, index: IfIndex, octets: &[u8]) -> Option<Vec<u8>> {
    let mut m = packet(w, octets);
    let verdict = w.test(IN, index, &mut m);
    let data = m.data().to_vec();
    let facts = (m.hdr().family, m.hdr().proto, m.l4(), m.hdr().flags.has(PktFlags::NO_PF));
    w.fixture.done(m);
    if !matches!(verdict, Verdict::Pass(_)) {
        return None;
    }
    let p = parse::parse_ip(&data).expect("a packet");
    assert_eq!(facts, (data[0] >> 4, p.proto.0, usize::from(p.l4), true));
    assert_eq!(p.end as usize, data.len());
    assert!(checksum::transport_ok(&data, p.l4.into(), p.end as usize, p.proto), "{data:02x?}");
    Some(data)
}

/// Source and destination with their ports.
pub fn ends(data: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let p = parse::parse_ip(data).expect("a packet");
    let flow = p.flow(data);
    ((flow.src(), p.src_port), (flow.dst(), p.dst_port))
}
