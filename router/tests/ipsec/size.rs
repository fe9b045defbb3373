//! Packets too large for the tunnel, and what routers on the way say of it.

use super::bed::{Bed, Datagram, HOST4, HOST6, Seen, Shape, WAN4, WAN6, classify, policies, sas};
use kern::time::Duration;
use std::{
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr},
};
use wire::{build, icmpv4, icmpv6, ipv4, ipv6_ext};

/// Octets of a datagram's headers.
const fn headers(v6: bool) -> usize {
    if v6 { 48 } else { 28 }
}

/// A datagram that makes a packet of this length.
fn of_len(v6: bool, len: usize, df: bool) -> Datagram {
    Datagram { v6, df, len: len - headers(v6), ..Datagram::default() }
}

/// What a host was told fits, if it was told so.
fn told(packets: &[Vec<u8>], v6: bool) -> Option<usize> {
    packets.iter().find_map(|p| match v6 {
        false if p[9] == 1 && p[20..22] == [3, 4] => Some(usize::from(u16::from_be_bytes([p[26], p[27]]))),
        true if p[6] == 58 && p[40..42] == [2, 0] => {
            Some(u32::from_be_bytes([p[44], p[45], p[46], p[47]]) as usize)
        }
        _ => None,
    })
}

/// What host a is told fits, when it sends a packet as large as its link takes.
fn probe(bed: &mut Bed, v6: bool) -> Option<usize> {
    assert!(bed.send(0, 0, &of_len(v6, 1500, true).packet()));
    bed.run(20);
    bed.arrived(1);
    told(&bed.arrived(0), v6)
}

/// The router in the middle says that a packet of gateway a's was too big.
fn complain(bed: &mut Bed, about: &[u8], mtu: u32) {
    let mut out = vec![0; 1400];
    let len = if about[0] >> 4 == 4 {
        let error = icmpv4::Error::FragmentationNeeded(mtu as u16);
        icmpv4::build_error(&mut out, error, Ipv4Addr::new(203, 0, 113, 77), about, 9).unwrap()
    } else {
        let router = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77);
        icmpv6::build_error(&mut out, icmpv6::Error::PacketTooBig(mtu), router, about).unwrap()
    };
    bed.forge(0, &out[..len]);
    bed.run(20);
}

/// A packet of the tunnel, as it was on the wire.
fn esp(bed: &mut Bed, v6: bool) -> Vec<u8> {
    bed.on_the_wire();
    assert!(bed.send(0, 0, &Datagram { v6, ..Datagram::default() }.packet()));
    bed.run(20);
    bed.arrived(1);
    let frames = bed.on_the_wire();
    let frame = frames.iter().find(|f| classify(f) == Seen::Esp).unwrap();
    frame[14..].to_vec()
}

#[test]
fn a_packet_too_big_for_the_tunnel_is_answered_with_what_fits_and_that_fits() {
    for v6 in [false, true] {
        let mut bed = Bed::with_tunnel(Shape::default(), None);
        // Outer header, ESP header, IV, trailer and ICV: what AES-GCM over IPv4 leaves, and 20 less over IPv6.
        let fits = if v6 { 1426 } else { 1446 };
        assert_eq!(probe(&mut bed, v6), Some(fits));
        for (len, arrives) in [(fits, 1), (fits + 1, 0)] {
            assert!(bed.send(0, 0, &of_len(v6, len, true).packet()));
            bed.run(20);
            assert_eq!(bed.arrived(1).len(), arrives, "{len} octets, v6: {v6}");
            assert_eq!(told(&bed.arrived(0), v6), (arrives == 0).then_some(fits));
        }
        assert_eq!(bed.count(0, "esp.too_big"), 2);
        assert_eq!(bed.nothing_in_clear(), 1);
        bed.finish();
    }
}

#[test]
fn what_a_router_on_the_way_says_is_remembered_for_ten_minutes_and_passed_on_to_senders() {
    for v6 in [false, true] {
        let mut bed = Bed::with_tunnel(Shape::default(), None);
        let about = esp(&mut bed, v6);
        let (full, told) = if v6 { (1426, 1326) } else { (1446, 1346) };
        complain(&mut bed, &about, 1400);
        assert_eq!(bed.count(0, "ipsec.path_mtu_learned"), 1);
        assert_eq!(probe(&mut bed, v6), Some(told));
        assert!(bed.send(0, 0, &of_len(v6, told, true).packet()));
        bed.run(20);
        assert_eq!(bed.arrived(1).len(), 1);
        // Never wider, and not twice the same.
        complain(&mut bed, &about, 1450);
        complain(&mut bed, &about, 1400);
        assert_eq!(probe(&mut bed, v6), Some(told));
        // The keys stay, so what is known of the way stays.
        bed.reload(0, None, &(sas(0, "") + &policies(0)));
        assert_eq!(probe(&mut bed, v6), Some(told));
        bed.net.run_for(Duration::from_secs(590));
        assert_eq!(probe(&mut bed, v6), Some(told));
        bed.net.run_for(Duration::from_secs(10));
        assert_eq!(probe(&mut bed, v6), Some(full));
        assert_eq!((bed.count(0, "ipsec.path_mtu_learned"), bed.count(0, "ipsec.path_mtu_ignored")), (1, 2));
        bed.finish();
    }
}

#[test]
fn a_message_about_a_packet_that_no_sa_has_sent_changes_nothing() {
    for v6 in [false, true] {
        let mut bed = Bed::with_tunnel(Shape::default(), None);
        let about = esp(&mut bed, v6);
        let (l4, src, dst) = if v6 { (40, 23, 39) } else { (20, 15, 19) };
        let spoil = |at: usize, octet: u8| {
            let mut spoiled = about.clone();
            spoiled[at] ^= octet;
            if !v6 {
                ipv4::Packet::new_unchecked(&mut spoiled[..]).fill_checksum();
            }
            spoiled
        };
        // Another SPI, another peer: the host stack may have the message, and does not want it.
        for about in [spoil(l4 + 3, 1), spoil(dst, 0x40), spoil(if v6 { 6 } else { 9 }, 1)] {
            complain(&mut bed, &about, 1300);
        }
        assert_eq!(bed.count(0, "ipsec.path_mtu_ignored"), 0);
        // A number that the SA has not reached.
        complain(&mut bed, &spoil(l4 + 4, 0x10), 1300);
        complain(&mut bed, &spoil(l4 + 7, 0x08), 1300);
        assert_eq!(bed.count(0, "ipsec.path_mtu_ignored"), 2);
        // What another sent is not even for us.
        complain(&mut bed, &spoil(src, 0x40), 1300);
        assert_eq!(bed.count(0, "ipsec.path_mtu_learned"), 0);
        assert_eq!(probe(&mut bed, v6), Some(if v6 { 1426 } else { 1446 }));
        bed.finish();
    }
}

#[test]
fn a_message_cannot_make_the_tunnel_narrower_than_what_every_link_carries() {
    for v6 in [false, true] {
        let mut bed = Bed::with_tunnel(Shape::default(), None);
        let about = esp(&mut bed, v6);
        complain(&mut bed, &about, 68);
        // An IPv6 sender need not send less than 1280: the outer packet is fragmented instead.
        assert_eq!(probe(&mut bed, v6), Some(if v6 { 1280 } else { 522 }));
        if v6 {
            bed.on_the_wire();
            assert!(bed.send(0, 0, &of_len(true, 1280, true).packet()));
            bed.run(20);
            let packets = bed.arrived(1);
            assert_eq!((packets.len(), packets[0].len()), (1, 1280));
            let frames = bed.on_the_wire();
            assert_eq!(frames.len(), 2);
            assert!(frames.iter().all(|f| f.len() <= 14 + 1280 && classify(f) == Seen::Esp));
        }
        bed.finish();
    }
}

#[test]
fn an_old_router_that_does_not_say_what_fits_means_the_next_usual_size_below() {
    let mut bed = Bed::with_tunnel(Shape::default(), None);
    bed.on_the_wire();
    assert!(bed.send(0, 0, &of_len(false, 1446, true).packet()));
    bed.run(20);
    let frame = bed.on_the_wire().into_iter().find(|f| classify(f) == Seen::Esp).unwrap();
    complain(&mut bed, &frame[14..], 0);
    assert_eq!(probe(&mut bed, false), Some(1438), "of 1492");
    bed.finish();
}

/// Which of the frames are fragments.
fn fragments(frames: &[Vec<u8>]) -> Vec<bool> {
    let esp = frames.iter().filter(|f| classify(f) == Seen::Esp);
    esp.map(|f| {
        let packet = &f[14..];
        match packet[0] >> 4 {
            4 => u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0,
            _ => ipv6_ext::walk(packet, packet.len()).unwrap().fragment.is_some(),
        }
    })
    .collect()
}

#[test]
fn a_packet_that_may_be_fragmented_is_before_the_tunnel_or_after_as_its_sa_says() {
    for (options, in_pieces, arrive) in [
        ("", vec![true, true], 1),
        ("-frag after", vec![true, true], 1),
        ("-frag before", vec![false, false], 2),
        ("-df set", vec![false, false], 2),
    ] {
        let ipsec = [0, 1].map(|side| sas(0, options) + &policies(side));
        let mut bed = Bed::new(Shape::default(), [None; 2], [&ipsec[0], &ipsec[1]]);
        let sent = of_len(false, 1480, false).packet();
        assert!(bed.send(0, 0, &sent));
        bed.run(20);
        let frames = bed.on_the_wire();
        assert_eq!(fragments(&frames), in_pieces, "{options}");
        assert!(frames.iter().all(|f| f.len() <= 1514));
        let packets = bed.arrived(1);
        assert_eq!(packets.len(), arrive, "{options}");
        let payload: Vec<u8> = packets.iter().flat_map(|p| p[20..].to_vec()).collect();
        assert_eq!(payload, &sent[20..], "{options}");
        // And out of nothing: all that had to be made smaller was.
        assert_eq!(told(&bed.arrived(0), false), None);
        bed.finish();
    }
}

#[test]
fn a_datagram_of_many_pieces_goes_through_one_after_the_other() {
    // Larger than the link: host a sends fragments; each is too large for the tunnel, and becomes two.
    for options in ["-frag before", ""] {
        let ipsec = [0, 1].map(|side| sas(0, options) + &policies(side));
        let mut bed = Bed::new(Shape::default(), [None; 2], [&ipsec[0], &ipsec[1]]);
        let whole = Datagram { len: 4000, ..Datagram::default() }.packet();
        for (start, end) in [(20, 1500), (1500, 2980), (2980, 4028)] {
            let mut piece = whole[..20].to_vec();
            piece.extend_from_slice(&whole[start..end]);
            let mut view = ipv4::Packet::new_unchecked(&mut piece[..]);
            view.set_total_len((20 + end - start) as u16);
            view.set_frag(((start - 20) / 8) as u16 | if end < 4028 { ipv4::MF } else { 0 });
            view.fill_checksum();
            assert!(bed.send(0, 0, &piece));
        }
        bed.run(20);
        let mut packets = bed.arrived(1);
        packets.sort_by_key(|p| u16::from_be_bytes([p[6], p[7]]) & 0x1fff);
        let payload: Vec<u8> = packets.iter().flat_map(|p| p[20..].to_vec()).collect();
        assert_eq!(payload, &whole[20..], "{options}");
        assert!(packets.iter().all(|p| ipv4::Packet::new_checked(&p[..]).unwrap().checksum_ok()));
        bed.nothing_in_clear();
        bed.finish();
    }
}

#[test]
fn df_of_the_outer_header_is_copied_set_or_cleared() {
    for (options, inner_df, outer_df) in [
        ("-df copy", true, true),
        ("-df copy", false, false),
        ("-df set", true, true),
        ("-df set", false, true),
        ("-df clear", true, false),
        ("-df clear", false, false),
    ] {
        let ipsec = [0, 1].map(|side| sas(0, options) + &policies(side));
        let mut bed = Bed::new(Shape::default(), [None; 2], [&ipsec[0], &ipsec[1]]);
        assert!(bed.send(0, 0, &of_len(false, 600, inner_df).packet()));
        bed.run(20);
        let frames = bed.on_the_wire();
        let outer = &frames.iter().find(|f| classify(f) == Seen::Esp).unwrap()[14..];
        assert_eq!(outer[6] & 0x40 != 0, outer_df, "{options}, inner {inner_df}");
        assert_eq!(bed.arrived(1)[0][6] & 0x40 != 0, inner_df, "{options}: the inner header stays");
        bed.finish();
    }
}

/// A tunnel of one family for packets of the other, for host a to host b alone.
fn mixed(side: usize, inner6: bool) -> String {
    let (outer, inner) = if inner6 {
        (WAN4.map(|a| a.to_string()), HOST6.map(|a| format!("{a}/128")))
    } else {
        (WAN6.map(|a| a.to_string()), HOST4.map(|a| format!("{a}/32")))
    };
    let ways = if side == 0 { ["out", "in"] } else { ["in", "out"] };
    format!(
        "add {0} {1} esp 0x1001 -m tunnel -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;\n\
         add {1} {0} esp 0x1002 -m tunnel -E aes-gcm-16 0x100102030405060708090a0b0c0d0e0f10111213;\n\
         spdadd {2} {3} any -P {4} ipsec esp/tunnel/{0}-{1}/require;\n\
         spdadd {3} {2} any -P {5} ipsec esp/tunnel/{1}-{0}/require;\n",
        outer[0], outer[1], inner[0], inner[1], ways[0], ways[1]
    )
}

#[test]
fn a_packet_of_ipv6s_least_mtu_goes_through_a_narrower_tunnel_of_ipv4_in_fragments() {
    let ipsec = [0, 1].map(|side| mixed(side, true));
    let mut bed = Bed::new(Shape::default(), [None; 2], [&ipsec[0], &ipsec[1]]);
    let about = esp(&mut bed, true);
    complain(&mut bed, &about, 700);
    bed.on_the_wire();
    assert_eq!(probe(&mut bed, true), Some(1280));
    assert!(bed.send(0, 0, &of_len(true, 1280, true).packet()));
    bed.run(20);
    assert_eq!(bed.arrived(1).len(), 1);
    let frames = bed.on_the_wire();
    assert_eq!(fragments(&frames), [true, true]);
    assert!(frames.iter().all(|f| f.len() <= 714 && f[20] & 0x40 == 0), "neither too long nor DF");
    bed.finish();
}

#[test]
fn ipv4_in_a_tunnel_of_ipv6_is_fragmented_by_the_gateway_to_what_fits_all_the_way() {
    let ipsec = [0, 1].map(|side| mixed(side, false));
    let mut bed = Bed::new(Shape::default(), [None; 2], [&ipsec[0], &ipsec[1]]);
    let about = esp(&mut bed, false);
    complain(&mut bed, &about, 1300);
    bed.on_the_wire();
    assert!(bed.send(0, 0, &of_len(false, 1400, false).packet()));
    bed.run(20);
    assert_eq!(bed.arrived(1).len(), 1);
    let frames = bed.on_the_wire();
    assert_eq!(fragments(&frames), [true, true]);
    assert!(frames.iter().all(|f| f.len() <= 1314));
    bed.finish();
}

#[test]
fn an_error_about_what_came_out_of_a_tunnel_goes_back_into_one_or_nowhere() {
    // Gateway b has no route for these, and the policy is for hosts only: its address on the wire is no answer.
    let nets = [["192.0.2.0/24", "10.0.0.0/8"], ["2001:db8:a::/64", "2001:db8:99::/48"]];
    let ends = [["203.0.113.1", "203.0.113.2"], ["2001:db8:ffff::1", "2001:db8:ffff::2"]];
    let ipsec = |side: usize, back: bool| {
        let ways = if side == 0 { ["out", "in"] } else { ["in", "out"] };
        let mut text = sas(0, "");
        for ([src, dst], [a, b]) in nets.into_iter().zip(ends) {
            writeln!(text, "spdadd {src} {dst} any -P {} ipsec esp/tunnel/{a}-{b}/require;", ways[0])
                .unwrap();
            let dst = if back && dst.starts_with('1') { "198.51.100.0/24" } else { dst };
            let dst = if back && dst.starts_with('2') { "2001:db8:b::/64" } else { dst };
            writeln!(text, "spdadd {dst} {src} any -P {} ipsec esp/tunnel/{b}-{a}/require;", ways[1])
                .unwrap();
        }
        text
    };
    let more = "[[route]]\nto = \"10.0.0.0/8\"\nvia = \"203.0.113.2\"\n\
                [[route]]\nto = \"2001:db8:99::/48\"\nvia = \"2001:db8:ffff::2\"\n";
    for back in [false, true] {
        let shape = Shape { more: [more.to_owned(), String::new()], ..Shape::default() };
        let texts = [0, 1].map(|side| ipsec(side, back));
        let mut bed = Bed::new(shape, [None; 2], [&texts[0], &texts[1]]);
        let (far4, far6) = (Ipv4Addr::new(10, 1, 1, 1), Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1));
        for packet in
            [build::udp4(HOST4[0], far4, 1, 2, b"secret"), build::udp6(HOST6[0], far6, 1, 2, b"secret")]
        {
            assert!(bed.send(0, 0, &packet));
        }
        bed.run(50);
        assert_eq!(bed.nothing_in_clear(), if back { 4 } else { 2 });
        assert_eq!(bed.arrived(0).len(), if back { 2 } else { 0 }, "told of it");
        assert_eq!(bed.count(1, "ip.no_route"), 2);
        assert_eq!(bed.count(1, "icmp.unable"), if back { 0 } else { 2 });
        bed.finish();
    }
}

#[test]
fn padding_against_traffic_analysis_fills_packets_up_to_what_fits_the_way_and_no_further() {
    for (v6, options) in [false, true].into_iter().flat_map(|v6| ["-tfc 1500", "-tfc 65535"].map(|o| (v6, o)))
    {
        let ipsec = [0, 1].map(|side| sas(0, options) + &policies(side));
        let mut bed = Bed::new(Shape::default(), [None; 2], [&ipsec[0], &ipsec[1]]);
        let about = esp(&mut bed, v6);
        for mtu in [1500, 1400] {
            if mtu == 1400 {
                complain(&mut bed, &about, mtu);
            }
            let fits = probe(&mut bed, v6).unwrap();
            bed.on_the_wire();
            for len in [100, 600, fits] {
                let sent = of_len(v6, len, true).packet();
                assert!(bed.send(0, 0, &sent));
                bed.run(20);
                assert_eq!(bed.arrived(1).len(), 1, "{len} octets, v6: {v6}");
                assert_eq!(told(&bed.arrived(0), v6), None);
                let frames = bed.on_the_wire();
                let lengths: Vec<_> =
                    frames.iter().filter(|f| classify(f) == Seen::Esp).map(|f| f.len() - 14).collect();
                let [one] = lengths[..] else { panic!("{len} octets, v6: {v6}: {lengths:?}") };
                assert!((mtu as usize - 3..=mtu as usize).contains(&one), "{one} octets of {mtu}");
            }
        }
        bed.finish();
    }
}
