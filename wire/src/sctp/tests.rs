use proptest::prelude::*;

use super::*;
use crate::build::{sctp_chunk, sctp_init, sctp_parameter};

/// CRC32c bit by bit: Castagnoli's polynomial, reflected.
fn plain(octets: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !octets.iter().fold(!0, |crc, &octet| (0..8).fold(crc ^ u32::from(octet), step))
}

/// A packet with these chunks.
fn packet(tag: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut octets = [vec![0; HEADER_LEN], chunks.concat()].concat();
    Repr { src_port: 5000, dst_port: 80, tag }.emit(&mut octets).unwrap();
    octets
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    // Small numbers where lengths stand, so that the walk gets somewhere.
    let unit = (any::<u8>(), any::<u8>(), prop_oneof![8 => Just(0_u8), 1 => any::<u8>()], 0..40_u8);
    proptest::collection::vec(unit.prop_map(|(a, b, c, d)| [a, b, c, d]), 0..60)
        .prop_map(|units| units.concat())
}

proptest! {
    #[test]
    fn the_checksum_is_crc32c_lowest_octet_first(chunks in proptest::collection::vec(any::<u8>(), 0..300), tag: u32) {
        let made = packet(tag, &[chunks]);
        let mut zeroed = made.clone();
        zeroed[8..12].fill(0);
        prop_assert_eq!(&made[8..12], &plain(&zeroed).to_le_bytes()[..]);
        prop_assert!(Packet::new_checked(&made[..]).unwrap().checksum_ok());
    }

    #[test]
    fn any_octets_are_walked_in_bounded_steps(octets in octets(), cut in 0..4_usize) {
        let octets = &octets[..octets.len().saturating_sub(cut)];
        let Ok(packet) = Packet::new_checked(octets) else { return Ok(()) };
        let chunks: Vec<_> = packet.chunks().collect();
        prop_assert!(chunks.len() <= (octets.len() - HEADER_LEN).div_ceil(4));
        // What is well formed fills the packet exactly.
        let filled: usize = chunks.iter().flatten().map(|c| (c.value.len() + 4).next_multiple_of(4)).sum();
        prop_assert_eq!(chunks.iter().all(Result::is_ok), filled == octets.len() - HEADER_LEN);
        for chunk in chunks.into_iter().flatten() {
            let mut named = 0;
            let _ = chunk.addresses(|_| named += 1);
            prop_assert!(named * 8 <= chunk.value.len());
        }
        if let Ok(scan) = scan(octets) {
            prop_assert!(scan.src_port != 0 && scan.dst_port != 0);
            prop_assert_eq!(scan.initiate_tag != 0, scan.kinds.has(kind::INIT) || scan.kinds.has(kind::INIT_ACK));
        }
    }
}

#[test]
fn the_checksum_is_that_of_rfc_3720() {
    // RFC 3720, B.4: 32 octets of zeros, of ones, and counting up and down.
    let counting: Vec<u8> = (0..32).collect();
    let down: Vec<u8> = (0..32).rev().collect();
    for (octets, crc) in [
        (vec![0; 32], 0x8a91_36aa),
        (vec![0xff; 32], 0x62a8_ab43),
        (counting, 0x46dd_794e),
        (down, 0x113f_db5c),
    ] {
        assert_eq!((plain(&octets), crc32c::crc32c(&octets)), (crc, crc));
    }
}

#[test]
fn a_header_survives_emit_and_parse_and_a_wrong_checksum_does_not() {
    let mut octets = packet(0x0102_0304, &[sctp_chunk(kind::COOKIE_ACK, 0, &[])]);
    let parse = |octets: &[u8]| Repr::parse(&Packet::new_checked(octets)?);
    assert_eq!(parse(&octets), Ok(Repr { src_port: 5000, dst_port: 80, tag: 0x0102_0304 }));
    octets[13] ^= 1;
    assert_eq!(parse(&octets), Err(Malformed::Checksum));
    assert_eq!(parse(&octets[..11]), Err(Malformed::Truncated));
}

#[test]
fn chunks_are_padded_and_their_order_is_kept() {
    let octets = packet(7, &[sctp_chunk(kind::COOKIE_ECHO, 0, b"cookie"), sctp_chunk(kind::DATA, 3, b"x")]);
    let chunks: Vec<_> = Packet::new_checked(&octets[..]).unwrap().chunks().map(Result::unwrap).collect();
    assert_eq!(
        chunks,
        [
            Chunk { kind: kind::COOKIE_ECHO, flags: 0, value: b"cookie" },
            Chunk { kind: kind::DATA, flags: 3, value: b"x" },
        ]
    );
    let scan = scan(&octets).unwrap();
    assert!(scan.kinds.has(kind::DATA) && scan.kinds.has(kind::COOKIE_ECHO) && !scan.kinds.has(kind::SACK));
    assert_eq!((scan.tag, scan.initiate_tag, scan.names), (7, 0, false));
}

#[test]
fn each_forbidden_packet_has_its_reason() {
    let init = |tag, window, streams| sctp_init(kind::INIT, tag, window, streams, &[]);
    let good = init(9, 1500, 1);
    let data = sctp_chunk(kind::DATA, 3, b"data");
    let of = |tag, chunks: &[Vec<u8>]| scan(&packet(tag, chunks)).map(|scan| scan.initiate_tag);
    assert_eq!(of(0, std::slice::from_ref(&good)), Ok(9));
    assert_eq!(of(1, std::slice::from_ref(&good)), Err(Malformed::Field), "a tag with INIT");
    assert_eq!(of(0, &[good.clone(), data.clone()]), Err(Malformed::Field), "INIT with data");
    assert_eq!(of(0, &[good.clone(), good.clone()]), Err(Malformed::Field), "INIT twice");
    for (what, bad) in
        [("tag", init(0, 1500, 1)), ("window", init(9, 1499, 1)), ("streams", init(9, 1500, 0))]
    {
        assert_eq!(of(0, &[bad]), Err(Malformed::Field), "{what}");
    }
    let done = sctp_chunk(kind::SHUTDOWN_COMPLETE, 0, &[]);
    assert_eq!(of(1, &[done.clone(), data.clone()]), Err(Malformed::Field));
    assert_eq!(of(1, &[done]), Ok(0));
    assert_eq!(of(1, &[data[..5].to_vec()]), Err(Malformed::Length), "cut off");
    assert_eq!(of(1, &[vec![0, 0, 0, 5, 1]]), Err(Malformed::Length), "without padding");
    assert_eq!(of(1, &[vec![0, 0, 0, 3]]), Err(Malformed::Length), "shorter than its header");
    assert_eq!(of(1, &[vec![0, 0]]), Err(Malformed::Truncated));
    assert_eq!(of(0, &[sctp_chunk(kind::INIT, 0, &[1; 15])]), Err(Malformed::Truncated));
    let mut portless = packet(1, &[data]);
    portless[..2].fill(0);
    assert_eq!(scan(&portless), Err(Malformed::Field));
}

#[test]
fn the_addresses_of_init_and_asconf_are_found() {
    let four = sctp_parameter(parameter::IPV4, &[192, 0, 2, 7]);
    let six = sctp_parameter(parameter::IPV6, &Ipv6Addr::LOCALHOST.octets());
    let cookie = sctp_parameter(7, b"cookie");
    let named = |chunk: &[u8]| {
        let mut all = Vec::new();
        let chunk = Chunks { rest: chunk }.next().unwrap()?;
        chunk.addresses(|a| all.push(a)).map(|()| all)
    };
    let a: IpAddr = Ipv4Addr::new(192, 0, 2, 7).into();
    let init = sctp_init(kind::INIT_ACK, 1, 9000, 1, &[cookie, four.clone(), six.clone()].concat());
    assert_eq!(named(&init), Ok(vec![Named::Added(a), Named::Added(Ipv6Addr::LOCALHOST.into())]));
    let asconf = |kind, address: &[u8]| {
        let request = sctp_parameter(kind, &[&[0, 0, 0, 1], address].concat());
        sctp_chunk(kind::ASCONF, 0, &[&[0, 0, 0, 1], &six[..], &request].concat())
    };
    assert_eq!(named(&asconf(parameter::ADD_IP, &four)), Ok(vec![Named::Added(a)]));
    assert_eq!(named(&asconf(parameter::DELETE_IP, &four)), Ok(vec![Named::Deleted(a)]));
    assert_eq!(named(&asconf(parameter::ADD_IP, &four[..7])), Err(Malformed::Option), "cut off");
    let long = sctp_parameter(parameter::IPV4, &[192, 0, 2, 7, 0]);
    assert_eq!(named(&sctp_init(kind::INIT, 1, 9000, 1, &long)), Err(Malformed::Option));
}
