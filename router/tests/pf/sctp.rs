//! SCTP through two gateways: an association that one of them translates, in both families, and the ABORT of a port that the
//! other does not open.

use super::bed::{Bed, HOST4, HOST6, Shape, WAN4, WAN6};
use std::net::IpAddr;
use wire::{
    build, checksum, parse,
    sctp::{self, kind},
};

const CLIENT_TAG: u32 = 0xc11e_0001;
const SERVER_TAG: u32 = 0x5e4e_0002;
/// The first gateway hides its hosts; the second opens one port of its host and says so.
const NAT: &str =
    "nat on wan0 proto sctp from any to any -> (wan0)\npass all no state\npass proto sctp keep state\n";
const SERVER: &str = "block return in on wan0 proto sctp\npass in on wan0 proto sctp to port 5000 keep state\n\
                      pass out on lan0 proto sctp keep state\n";

fn packet(from: (IpAddr, u16), to: (IpAddr, u16), tag: u32, chunks: &[u8]) -> Vec<u8> {
    let header = sctp::Repr { src_port: from.1, dst_port: to.1, tag };
    match (from.0, to.0) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => build::sctp4(src, dst, &header, chunks),
        (IpAddr::V6(src), IpAddr::V6(dst)) => build::sctp6(src, dst, &header, chunks),
        families => panic!("{families:?}"),
    }
}

/// Sends a packet of a side's host; source, destination and chunk of the one that the other side's host gets, or gets back.
fn sent(bed: &mut Bed, side: usize, at: usize, packet: &[u8]) -> ((IpAddr, u16), (IpAddr, u16), u8) {
    assert!(bed.send(side, 0, packet));
    bed.run(20);
    let arrived = bed.arrived(at);
    assert_eq!(arrived.len(), 1, "{packet:02x?}");
    let octets = &arrived[0];
    let p = parse::parse_ip(octets).unwrap();
    assert!(checksum::transport_ok(octets, p.l4.into(), p.end as usize, p.proto), "{octets:02x?}");
    let flow = p.flow(octets);
    let chunk = sctp::Packet::new_checked(p.l4(octets)).unwrap().chunks().next().unwrap().unwrap().kind;
    ((flow.src(), p.src_port), (flow.dst(), p.dst_port), chunk)
}

#[test]
fn an_association_crosses_a_translation_and_a_closed_port_aborts() {
    let families: [[IpAddr; 3]; 2] = [
        [HOST4[0].into(), HOST4[1].into(), WAN4[0].into()],
        [HOST6[0].into(), HOST6[1].into(), WAN6[0].into()],
    ];
    for [client, server, outside] in families {
        let mut bed = Bed::new(Shape::default(), [Some(NAT), Some(SERVER)], ["", ""]);
        let (inner, seen, far) = ((client, 4000), (outside, 4000), (server, 5000));
        let chunk = |kind| build::sctp_chunk(kind, 0, b"something");
        let init = build::sctp_init(kind::INIT, CLIENT_TAG, 65_536, 10, &[]);
        let answer = build::sctp_init(kind::INIT_ACK, SERVER_TAG, 65_536, 10, &[]);
        for (up, tag, chunk) in [
            (true, 0, init.clone()),
            (false, CLIENT_TAG, answer),
            (true, SERVER_TAG, chunk(kind::COOKIE_ECHO)),
            (false, CLIENT_TAG, chunk(kind::COOKIE_ACK)),
            (true, SERVER_TAG, chunk(kind::DATA)),
            (false, CLIENT_TAG, chunk(kind::SACK)),
        ] {
            let got = if up {
                sent(&mut bed, 0, 1, &packet(inner, far, tag, &chunk))
            } else {
                sent(&mut bed, 1, 0, &packet(far, seen, tag, &chunk))
            };
            let wanted = if up { (seen, far, chunk[0]) } else { (far, inner, chunk[0]) };
            assert_eq!(got, wanted);
        }
        // Who does not know the tag does not get through, in either gateway.
        for (side, octets) in
            [(0, packet(inner, far, 1, &chunk(kind::ABORT))), (1, packet(far, seen, 1, &chunk(kind::ABORT)))]
        {
            assert!(bed.send(side, 0, &octets));
            bed.run(20);
            assert_eq!((bed.arrived(1 - side).len(), bed.count(side, "pf.state_mismatch")), (0, 1));
        }
        // A port that is closed: the ABORT comes back to the client, from where it asked.
        let closed = (server, 5001);
        let aborted = sent(&mut bed, 0, 0, &packet((client, 4001), closed, 0, &init));
        assert_eq!(aborted, (closed, (client, 4001), kind::ABORT));
        assert_eq!(bed.count(1, "pf.return"), 1);
        bed.finish();
    }
}
