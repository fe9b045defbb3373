//! No parser panics on any octets, and what a parser says about them is true: offsets lie inside, views agree with the one-pass parse.
//!
//! Octets come from a seeded generator in three ways: random; a good packet with a few octets changed; a good packet cut short. `SOFTNET_SOAK=1` runs ten
//! million instead of a hundred thousand; `SOFTNET_SEED=n` repeats a run. The seed is printed.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::SystemTime,
};

use kern::testing::{Chance, soak};
use wire::{
    HashSeed, IpProto, Mac, ah, arp, build, checksum, coalesce, esp, ether, icmpv4, icmpv6, igmp, ipv4,
    ipv4_check, ipv6, ipv6_check, ipv6_ext, mld, nd, parse, parse_ipv4, parse_ipv6, rewrite, sctp, segment,
    tcp, udp,
};

/// Other octets in every run, unless a seed is given.
fn chance() -> Chance {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Chance::seeded(now.map_or(1, |d| d.as_nanos() as u64))
}

fn cases() -> usize {
    if soak() { 10_000_000 } else { 100_000 }
}

/// Good frames of every kind, to be spoilt.
fn good_frames() -> Vec<Vec<u8>> {
    let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(192, 0, 2, 2));
    let (c, d): (Ipv6Addr, Ipv6Addr) = ("fe80::1".parse().unwrap(), "ff02::1:ff00:2".parse().unwrap());
    let tcp = tcp::Repr {
        flags: tcp::Flags::SYN,
        max_segment_size: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some((1, 2)),
        ..Default::default()
    };
    let sack = tcp::Repr {
        flags: tcp::Flags::ACK,
        sack: [Some((1, 2)), Some((3, 4)), None, None],
        ..Default::default()
    };
    let udp4 = build::udp4(a, b, 53, 5353, b"some payload");
    let association = sctp::Repr { src_port: 1, dst_port: 2, tag: 0 };
    let address = build::sctp_parameter(5, &a.octets());
    let init = build::sctp_init(sctp::kind::INIT, 1, 9000, 2, &address);
    let added = build::sctp_parameter(0xc001, &[&[0; 4], &address[..]].concat());
    let asconf = build::sctp_chunk(sctp::kind::ASCONF, 0, &[&[0; 4], &address[..], &added].concat());
    let mut error = [0; 1280];
    let n = icmpv4::build_error(&mut error, icmpv4::Error::TtlExceeded, b, &udp4, 1).unwrap();
    let mut packets = vec![
        udp4.clone(),
        build::tcp4(a, b, &tcp, b"x"),
        build::tcp4(a, b, &sack, b"payload"),
        build::echo4(a, b, 1, 2, b"echo"),
        build::udp6(c, d, 1, 2, b"payload"),
        build::tcp6(c, d, &tcp, b""),
        build::echo6(c, d, 1, 2, b"echo"),
        build::sctp4(a, b, &association, &asconf),
        build::sctp6(c, d, &association, &init),
        error[..n].to_vec(),
        build::raw4(ipv4::Repr { src: a, dst: b, proto: IpProto::ESP, ..Default::default() }, &[7; 40]),
        build::raw4(ipv4::Repr { src: a, dst: b, proto: IpProto::AH, ..Default::default() }, &[4; 40]),
        chain(c, d),
    ];
    let mut out = [0; 1500];
    let n = nd::solicit(&mut out, c, Mac([2, 0, 0, 0, 0, 1]), "fe80::2".parse().unwrap()).unwrap();
    packets.push(out[..n].to_vec());
    let n = nd::redirect(&mut out, c, d, Some(Mac([2, 0, 0, 0, 0, 1])), &build::udp6(c, d, 1, 2, &[1; 40]))
        .unwrap();
    packets.push(out[..n].to_vec());
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let mut frames: Vec<_> = packets.iter().map(|p| build::frame(mac, mac, p)).collect();
    frames.extend(packets.iter().map(|p| build::tagged_frame(mac, mac, 5, p)));
    let n = arp::Repr::request(mac, a, b).emit_frame(&mut out).unwrap();
    frames.push(out[..n].to_vec());
    frames
}

/// Hop-by-hop with a router alert, routing, fragment, destination options, UDP.
fn chain(src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
    let mut payload = vec![43, 0, 5, 2, 0, 0, 1, 0];
    payload.extend([44, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend([60, 0, 0, 1, 0, 0, 0, 9]);
    payload.extend([17, 0, 1, 4, 0, 0, 0, 0]);
    payload.extend([0, 1, 0, 2, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    build::raw6(ipv6::Repr { src, dst, next_header: IpProto::HOPOPTS, ..Default::default() }, &payload)
}

/// Spoils a frame, or makes one of nothing.
fn spoil(random: &mut Chance, good: &[Vec<u8>]) -> Vec<u8> {
    let way = random.below(8);
    if way == 0 {
        let len = random.below(200);
        return random.octets(len);
    }
    let mut frame = good[random.below(good.len())].clone();
    for _ in 0..random.below(4) {
        let at = random.below(frame.len());
        frame[at] = random.next() as u8;
    }
    if way == 1 {
        frame.truncate(random.below(frame.len() + 1));
    }
    // A header checksum made right again lets the damage through to what is behind it.
    let parsed = parse::parse_link(&frame).map_or(14, |link| usize::from(link.l3));
    if way > 3
        && let Some(header) = frame.get_mut(parsed..)
        && header.len() >= 20
        && usize::from(header[0] & 15) * 4 <= header.len()
        && header[0] & 15 >= 5
    {
        ipv4::Packet::new_unchecked(header).fill_checksum();
    }
    frame
}

/// What must be true of a parse that succeeded.
fn check_parsed(packet: &[u8], parsed: &parse::Parsed) {
    assert!(usize::from(parsed.l4) <= parsed.end as usize && parsed.end as usize <= packet.len());
    let hash_seed = HashSeed::new(3, 4);
    let key = parsed.flow(packet);
    assert_eq!(parsed.hash(packet, &hash_seed), key.hash(&hash_seed));
    assert_eq!(key.hash(&hash_seed), key.reversed().hash(&hash_seed));
    if let Ok(check) = wire::ipv4_check(packet) {
        assert_eq!(wire::parse::hash_ipv4(packet, check, &hash_seed), key.hash(&hash_seed));
    }
    let l4 = parsed.l4(packet);
    assert_eq!(l4.len(), parsed.l4_len());
    if parsed.is_later_fragment() {
        return;
    }
    let short = parsed.flags.contains(parse::Flags::SHORT);
    match parsed.proto {
        IpProto::TCP => assert_eq!(short, l4.len() < 20),
        IpProto::UDP => assert_eq!(short, l4.len() < 8),
        _ => {}
    }
    if parsed.proto == IpProto::TCP && !short {
        let view = tcp::Packet::new_unchecked(l4);
        assert_eq!((view.src_port(), view.dst_port()), (parsed.src_port, parsed.dst_port));
    }
}

/// Feeds octets to every parser of IP packets.
fn every_ip_parser(packet: &[u8], twice: &mut Vec<u8>) {
    let v4 = parse_ipv4(packet);
    assert_eq!(v4.map(|p| p.end), ipv4_check(packet).map(|c| u32::from(c.total_len)));
    let view =
        ipv4::Packet::new_checked(packet).and_then(|view| ipv4::Repr::parse(&view).map(|repr| (view, repr)));
    assert_eq!(v4.is_ok(), view.is_ok());
    if let (Ok(parsed), Ok((view, repr))) = (v4, view) {
        check_parsed(packet, &parsed);
        assert_eq!((parsed.proto, usize::from(parsed.l4)), (repr.proto, view.header_len()));
        view.options().for_each(drop);
        every_change(packet, &parsed, twice);
    }
    let v6 = parse_ipv6(packet);
    let check = ipv6_check(packet);
    assert_eq!(check.is_ok(), ipv6::Packet::new_checked(packet).is_ok());
    if let Ok(parsed) = v6 {
        check_parsed(packet, &parsed);
        assert_eq!(check.unwrap().total_len, parsed.end);
        every_change(packet, &parsed, twice);
        for at in [40, usize::from(parsed.l4)] {
            if let Ok(options) = ipv6_ext::Options::of(packet, at) {
                options.for_each(drop);
            }
        }
    }
    let _ = (ipv6_ext::walk(packet, packet.len()), ipv6_ext::router_alert(packet), parse::parse_ip(packet));
    if let Ok(parsed) = parse::parse_quoted(packet) {
        check_parsed(packet, &parsed);
    }
    let _ = (icmpv4::may_answer(packet), icmpv6::may_answer(packet, icmpv6::Error::HopLimitExceeded));
    let mut out = [0; 1280];
    let _ = icmpv4::build_error(&mut out, icmpv4::Error::TtlExceeded, Ipv4Addr::LOCALHOST, packet, 1);
    let _ = icmpv6::build_error(&mut out, icmpv6::Error::HopLimitExceeded, Ipv6Addr::LOCALHOST, packet);
    let _ = nd::redirect(&mut out, Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, None, packet);
}

/// Everything that changes a packet in place, on a copy.
fn every_change(packet: &[u8], parsed: &parse::Parsed, copy: &mut Vec<u8>) {
    copy.clear();
    copy.extend_from_slice(packet);
    let (l4, end) = (usize::from(parsed.l4), parsed.end as usize);
    let valid = checksum::transport_ok(copy, l4, end, parsed.proto);
    for side in [rewrite::End::Src, rewrite::End::Dst] {
        let _ = rewrite::set_ipv4(copy, parsed, false, side, Ipv4Addr::new(1, 2, 3, 4));
        let _ = rewrite::set_ipv6(copy, parsed, false, side, Ipv6Addr::from_bits(1 << 77 | 5));
        let _ = rewrite::set_port(copy, parsed, false, side, 4711);
    }
    // A destination behind a routing header is not the one in the pseudo-header, and a fragment has no whole checksum: both are kept all the same.
    if !parsed.is_fragment() {
        assert_eq!(checksum::transport_ok(copy, l4, end, parsed.proto), valid, "{packet:02x?}");
    }
    let _ = (ipv4::decrement_ttl(copy), parse::parse_ip(copy).unwrap());
    let _ = ipv6::decrement_hop_limit(copy);
    let _ = icmpv4::echo_reply_in_place(copy, parsed, Ipv4Addr::LOCALHOST);
    let _ = icmpv6::echo_reply_in_place(copy, parsed, Ipv6Addr::LOCALHOST);
    let _ = checksum::transport_fill(copy, l4, end, parsed.proto);
    if let Some(segment) = copy.get_mut(l4..end) {
        let _ = tcp::clamp_mss(segment, 1000, false);
    }
    copy.clear();
    copy.extend_from_slice(&packet[..end]);
    if let Some(mut merge) = coalesce::Merge::start(copy, parsed, false, true) {
        let step = merge.next(copy, copy, parsed);
        if let Some(step) = step {
            merge.accept(&step, checksum::sum(&copy[step.payload()]));
        }
        merge.finish(copy);
    }
    if let Some(kind) = segment::Kind::of(parsed)
        && let Ok(cut) = segment::Cut::new(packet, kind, l4, 7, end - l4, false)
    {
        let mut out = [0; 200];
        let _ = cut.write_segment(0, &packet[l4..end], &mut out);
        let _ = cut.write_segment(cut.segments() - 1, &packet[l4..end], &mut out);
    }
}

/// Feeds octets to every parser of upper layers.
fn every_upper_parser(octets: &[u8]) {
    let (a, b) = (Ipv6Addr::from_bits(1), Ipv6Addr::from_bits(2));
    if let Ok(view) = tcp::Packet::new_checked(octets) {
        let _ = (
            tcp::Repr::parse(&view, None),
            tcp::Repr::parse(&view, Some(1)),
            view.payload(),
            view.segment_len(),
        );
        for option in view.options() {
            if let Ok((_, tcp::HeaderOption::Sack(blocks))) = option {
                tcp::sack_blocks(blocks).for_each(drop);
            }
        }
    }
    if let Ok(view) = udp::Packet::new_checked(octets) {
        let _ = (udp::Repr::parse(&view, Some(1)), view.payload(), view.is_empty());
    }
    if let Ok(view) = icmpv4::Packet::new_checked(octets) {
        let _ = icmpv4::Repr::parse(&view);
    }
    if let Ok(view) = icmpv6::Packet::new_checked(octets) {
        let _ = icmpv6::Repr::parse(&view, a, b);
    }
    every_nd_option(octets, a, b);
    if let Ok(view) = sctp::Packet::new_checked(octets) {
        let _ = (sctp::Repr::parse(&view), sctp::scan(octets));
        view.chunks().flatten().all(|chunk| chunk.addresses(|_| {}).is_ok());
    }
    if let Ok(view) = esp::Packet::new_checked(octets) {
        let _ = esp::Repr::parse(&view);
    }
    let _ = (igmp::parse_query(octets, 1), igmp::reported_group(octets), mld::parse_query(octets, a, b, 1));
    let _ = esp::read_trailer(octets);
    if let Ok(view) = ah::Packet::new_checked(octets) {
        let _ = (ah::Repr::parse(&view), view.icv(), view.payload());
    }
    if let Ok(view) = arp::Packet::new_checked(octets) {
        let _ = arp::Repr::parse(&view);
    }
}

/// Makes the checksum of whatever this is right, so that neighbour discovery looks behind it.
fn every_nd_option(octets: &[u8], a: Ipv6Addr, b: Ipv6Addr) {
    let mut message = octets.to_vec();
    if message.len() >= 8 {
        message[1] = 0;
        message[2..4].fill(0);
        let pseudo = checksum::pseudo_v6(a, b, IpProto::ICMPV6, message.len() as u32);
        let checksum = checksum::transport_sum(pseudo, &message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    if let Ok(message) = nd::parse(&message, a, b, 255) {
        for option in message.options.iter() {
            if let nd::NdOption::DnsServers(_, servers) = option {
                nd::addresses(servers).for_each(drop);
            }
        }
        let _ = (message.options.source_mac(), message.options.target_mac(), message.options.nonce());
    }
}

#[test]
fn no_octets_make_a_parser_panic_or_lie() {
    let mut random = chance();
    let good = good_frames();
    let (mut sound, mut scratch) = (0_usize, Vec::new());
    for _ in 0..cases() {
        let frame = spoil(&mut random, &good);
        let parsed = parse::parse_frame(&frame);
        sound += usize::from(parsed.is_ok_and(|p| p.ip.is_some()));
        if let Ok(view) = ether::Frame::new_checked(&frame[..]) {
            let _ = ether::Repr::parse(&view);
        }
        let l3 = parse::parse_link(&frame).map_or(0, |link| usize::from(link.l3));
        let packet = &frame[l3..];
        every_ip_parser(packet, &mut scratch);
        let skip = random.below(41).min(packet.len());
        every_upper_parser(&packet[skip..]);
        every_upper_parser(packet.get(20..).unwrap_or(&[]));
        every_upper_parser(packet.get(40..).unwrap_or(&[]));
    }
    // The damage must not be so thorough that nothing gets past the first check.
    assert!(sound > cases() / 10, "only {sound} of {} frames were sound", cases());
}
