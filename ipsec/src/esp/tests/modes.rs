//! Transport mode, AH and IPComp, the fields of outer headers, and padding against the analysis of traffic.

use super::*;
use crate::{
    sa::{Df, Handling, Protocol},
    transform::{Auth, Cipher, Suite},
};
use kern::testing::{Chance, soak};
use wire::checksum;

/// IPv4 with a router alert, a record route and two no-operations; IPv6 with options before and behind a routing header.
pub(super) fn v4_options(len: usize) -> Vec<u8> {
    let options = [148, 4, 0, 0, 7, 7, 4, 1, 2, 3, 4, 1];
    let plain = v4(len);
    let mut packet = [&plain[..20], &options, &plain[20..]].concat();
    packet[0] = 0x48;
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(&packet[..32]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn v6_extensions(len: usize) -> Vec<u8> {
    let plain = v6(len);
    // Hop-by-hop: an option that may change, two octets of padding. Destination options: before the upper layer.
    let hop = [60, 0, 0x3e, 2, 0xaa, 0xbb, 1, 0];
    let dst = [17, 0, 0x1e, 2, 0xcc, 0xdd, 1, 0];
    let mut packet = [&plain[..40], &hop, &dst, &plain[40..]].concat();
    packet[6] = 0;
    let payload = packet.len() as u16 - 40;
    packet[4..6].copy_from_slice(&payload.to_be_bytes());
    packet
}

pub(super) fn packets() -> Vec<Vec<u8>> {
    vec![v4(60), v4(1400), v4_options(333), v6(90), v6(1377), v6_extensions(200)]
}

fn of_family(v6: bool) -> Vec<Vec<u8>> {
    packets().into_iter().filter(|p| (p[0] >> 4 == 6) == v6).collect()
}

/// As `ip_input` describes an arriving packet.
pub(super) fn arrived(peers: &Peers, bytes: &[u8]) -> Mbuf {
    let mut m = peers.fixture.packet(bytes);
    let parsed = wire::parse::parse_ip(bytes).unwrap();
    m.set_l4(parsed.l4.into());
    m.hdr_mut().proto = parsed.proto.0;
    m.hdr_mut().family = bytes[0] >> 4;
    m
}

impl Peers {
    /// Sends packets of one run; their bytes on the wire.
    pub(super) fn wire(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut run = Batch::new();
        for packet in packets {
            let mut m = self.fixture.packet(packet);
            m.hdr_mut().family = packet[0] >> 4;
            m.hdr_mut().hash = 0x1234_5678;
            run.push(m).unwrap();
        }
        let sent = self.send_run(&mut run);
        self.bytes(sent)
    }

    /// Opens what is on the wire.
    pub(super) fn open_bytes(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut run = Batch::new();
        for packet in packets {
            run.push(arrived(self, packet)).unwrap();
        }
        let opened = self.receive_run(&mut run);
        self.bytes(opened)
    }
}

pub(super) fn sa_of(protocol: Protocol, mode: Mode, suite: Suite, v6: bool) -> SaConfig {
    SaConfig { protocol, mode, ..config(if v6 { V6 } else { V4 }, suite) }
}

pub(super) fn aead() -> Suite {
    Suite::Aes128Gcm16
}

#[test]
fn transport_mode_keeps_the_ip_header_and_its_extensions_for_every_suite_and_family() {
    for suite in Suite::esp() {
        for v6 in [false, true] {
            let mut peers = Peers::new(&sa_of(Protocol::Esp, Mode::Transport, suite, v6), [Engine::Auto; 2]);
            let sent = of_family(v6);
            let wire = peers.wire(&sent);
            for (packet, sent) in wire.iter().zip(&sent) {
                let (parsed, before) =
                    (wire::parse::parse_ip(packet).unwrap(), wire::parse::parse_ip(sent).unwrap());
                assert_eq!(parsed.proto, IpProto::ESP, "{suite}");
                assert!(parsed.l4 <= before.l4 && packet.len() > sent.len());
                assert_eq!(packet[12..20], sent[12..20], "the addresses");
            }
            assert_eq!(peers.open_bytes(&wire), sent, "{suite}");
            assert_eq!(peers.ended(), []);
        }
    }
}

#[test]
fn every_suite_carries_both_families_in_tunnels_of_both() {
    for suite in Suite::esp() {
        for v6 in [false, true] {
            let mut peers = Peers::new(&sa_of(Protocol::Esp, Mode::Tunnel, suite, v6), [Engine::Auto; 2]);
            let wire = peers.wire(&packets());
            assert_eq!(peers.open_bytes(&wire), packets(), "{suite}");
            assert_eq!(peers.ended(), []);
        }
    }
}

#[test]
fn a_transport_sa_and_a_tunnel_of_one_key_do_not_take_each_other_s_packets_for_their_own() {
    let peers = |mode| Peers::new(&sa_of(Protocol::Esp, mode, aead(), false), [Engine::Auto; 2]);
    let inner = v4(100);
    let transport = peers(Mode::Transport).wire(&[v4(70), v4(80)]);
    let tunnel = peers(Mode::Tunnel).wire(&[v4(60), v4(60), inner.clone()]);
    let mut receiver = peers(Mode::Tunnel);
    assert!(receiver.open_bytes(&transport[..1]).is_empty());
    assert_eq!(receiver.ended(), [(Why::EspProtocol, 1)]);
    drop(receiver);
    // To transport mode an IP packet is an upper layer like any other.
    let opened = peers(Mode::Transport).open_bytes(&tunnel[2..]);
    assert_eq!((opened[0][9], &opened[0][20..]), (4, &inner[..]));
    let both = [transport, tunnel[2..].to_vec()].concat();
    assert_eq!(
        peers(Mode::Any).open_bytes(&both),
        [v4(70), v4(80), inner],
        "an SA that leaves it open takes both"
    );
}

#[test]
fn the_outer_header_follows_the_configuration() {
    let with = |handling, v6| {
        let sa = SaConfig { handling, ..sa_of(Protocol::Esp, Mode::Tunnel, aead(), v6) };
        Peers::new(&sa, [Engine::Auto; 2])
    };
    let inner = v4_with(100, ipv4::Repr { tos: 0xb9, frag: ipv4::DF, ..Default::default() });
    let free = v4_with(100, ipv4::Repr { tos: 0xb9, ..Default::default() });
    let base = Handling::default();
    let cases: [(Handling, u8, [u8; 2]); 6] = [
        (base, 0xb9, [0x40, 0]),
        (Handling { df: Df::Set, ..base }, 0xb9, [0x40, 0x40]),
        (Handling { df: Df::Clear, ..base }, 0xb9, [0, 0]),
        (Handling { dscp: Some(10), ..base }, 0x29, [0x40, 0]),
        (Handling { ecn: false, ..base }, 0xb8, [0x40, 0]),
        (Handling { dscp: Some(0), ecn: false, ..base }, 0, [0x40, 0]),
    ];
    for (handling, class, df) in cases {
        let mut peers = with(handling, false);
        let wire = peers.wire(&[inner.clone(), free.clone()]);
        assert_eq!([wire[0][1], wire[1][1]], [class; 2], "{handling:?}");
        assert_eq!([wire[0][6] & 0x40, wire[1][6] & 0x40], df, "{handling:?}");
        assert!(wire.iter().all(|p| checksum::sum(&p[..20]).is_multiple_of(0xffff)));
        assert_eq!(peers.open_bytes(&wire), [inner.clone(), free.clone()]);
    }
    assert_eq!(with(Handling { ttl: 9, ..base }, false).wire(std::slice::from_ref(&inner))[0][8], 9);
    let mut peers = with(Handling { flow_label: true, ..base }, true);
    let wire = peers.wire(std::slice::from_ref(&inner));
    assert_eq!(wire[0][..4], [0x6b, 0x94, 0x56, 0x78], "the low 20 bits of the flow's hash");
    assert_eq!(peers.open_bytes(&wire), std::slice::from_ref(&inner));
    drop(peers);
    // The outer mark is not looked at where ECN does not pass.
    let mut peers = with(Handling { ecn: false, ..base }, false);
    let not_ecn = v4(100);
    let mut wire = peers.wire(std::slice::from_ref(&not_ecn));
    ipv4::set_tos(wire[0].first_chunk_mut().unwrap(), 3);
    assert_eq!(peers.open_bytes(&wire), [not_ecn]);
}

#[test]
fn padding_against_traffic_analysis_makes_lengths_equal_and_is_stripped() {
    for suite in [aead(), Suite::Pair(Cipher::Null, Auth::HmacSha256)] {
        let handling = Handling { tfc: 700, ..Handling::default() };
        let sa = SaConfig { handling, ..sa_of(Protocol::Esp, Mode::Tunnel, suite, false) };
        let mut peers = Peers::new(&sa, [Engine::Auto; 2]);
        let sent = vec![v4(40), v6(60), v4(699), v4(700), v4(900)];
        let wire = peers.wire(&sent);
        let lengths: Vec<_> = wire.iter().map(Vec::len).collect();
        assert!(lengths[..4].iter().all(|len| *len == lengths[0]) && lengths[4] > lengths[0], "{lengths:?}");
        assert_eq!(peers.open_bytes(&wire), sent);
    }
}

#[test]
fn padding_against_traffic_analysis_goes_no_further_than_the_way_carries() {
    for outer6 in [false, true] {
        let handling = Handling { tfc: 1500, ..Handling::default() };
        let sa = SaConfig { handling, ..sa_of(Protocol::Esp, Mode::Tunnel, aead(), outer6) };
        for mtu in [1500, 1400, 1281] {
            let mut peers = Peers::new(&sa, [Engine::Auto; 2]);
            peers.room = peers.sender.inner_mtu(mtu);
            let sent = vec![v4(40), v6(60), v4(peers.room - 1), v4(peers.room), v4(peers.room + 4)];
            let wire = peers.wire(&sent);
            let lengths: Vec<_> = wire.iter().map(Vec::len).collect();
            assert!(lengths[..4].iter().all(|len| *len == lengths[0]), "{lengths:?}");
            assert!((mtu - 3..=mtu).contains(&lengths[0]) && lengths[4] > mtu, "{lengths:?} of {mtu}");
            assert_eq!(peers.open_bytes(&wire), sent);
        }
    }
}

#[test]
fn padding_against_traffic_analysis_ends_where_the_buffer_does() {
    let handling = Handling { tfc: 4000, ..Handling::default() };
    let sa = SaConfig { handling, ..sa_of(Protocol::Esp, Mode::Tunnel, aead(), false) };
    let mut peers = Peers::new(&sa, [Engine::Auto; 2]);
    peers.room = peers.sender.inner_mtu(9000);
    let sent = vec![v4(40), v4(1400)];
    let wire = peers.wire(&sent);
    assert!(
        wire.iter().all(|packet| packet.len() > 1500),
        "{:?}",
        wire.iter().map(Vec::len).collect::<Vec<_>>()
    );
    assert_eq!(peers.open_bytes(&wire), sent);
}

#[test]
fn dummy_packets_are_dropped_and_counted_in_both_modes() {
    for mode in [Mode::Tunnel, Mode::Transport] {
        let mut peers = Peers::new(&sa_of(Protocol::Esp, mode, aead(), false), [Engine::Auto; 2]);
        let m = peers.forge(1, &[0xaa, 0xbb, 0xcc, 0xdd, 1, 2, 2, IpProto::NO_NEXT.0]);
        let bytes = peers.bytes([m]);
        assert!(peers.open_bytes(&bytes).is_empty());
        assert_eq!(peers.ended(), [(Why::EspDummy, 1)]);
    }
}

pub(super) fn ah(mode: Mode, auth: Auth, v6: bool) -> SaConfig {
    sa_of(Protocol::Ah, mode, Suite::Ah(auth), v6)
}

#[test]
fn ah_carries_every_packet_in_both_modes_with_every_algorithm() {
    for auth in Auth::all() {
        for v6 in [false, true] {
            for esn in [false, true] {
                for mode in [Mode::Tunnel, Mode::Transport] {
                    let sa = SaConfig { esn, ..ah(mode, auth, v6) };
                    let mut peers = Peers::new(&sa, [Engine::Auto; 2]);
                    let sent = if mode == Mode::Tunnel { packets() } else { of_family(v6) };
                    let wire = peers.wire(&sent);
                    for packet in &wire {
                        let parsed = wire::parse::parse_ip(packet).unwrap();
                        assert_eq!(parsed.proto, IpProto::AH);
                        let at = usize::from(parsed.l4);
                        let len = (usize::from(packet[at + 1]) + 2) * 4;
                        assert_eq!(len, (12 + auth.icv_len()).next_multiple_of(if v6 { 8 } else { 4 }));
                    }
                    assert_eq!(peers.open_bytes(&wire), sent, "{auth:?} {mode:?}");
                    assert_eq!(peers.ended(), []);
                }
            }
        }
    }
}

#[test]
fn ah_lets_mutable_fields_change_on_the_way_and_nothing_else() {
    for (v6, sent, mutable) in [
        // Class, flags and offset, TTL, checksum, and the record route's 7 octets; not router alert, nor no-operation.
        (false, v4_options(80), [1, 6, 7, 8, 10, 11, 24, 25, 26, 27, 28, 29, 30].as_slice()),
        // Class and label, hop limit, the data of the option that may change.
        (true, v6_extensions(80), &[0, 1, 2, 3, 7, 44, 45]),
    ] {
        let sa = ah(Mode::Transport, Auth::HmacSha256, v6);
        let wire = Peers::new(&sa, [Engine::Auto; 2]).wire(std::slice::from_ref(&sent));
        let l4 = usize::from(wire::parse::parse_ip(&wire[0]).unwrap().l4);
        for at in 0..wire[0].len() {
            let mut peers = Peers::new(&sa, [Engine::Auto; 2]);
            let mut packet = wire[0].clone();
            packet[at] ^= 1;
            let mut m = peers.fixture.packet(&packet);
            m.set_l4(l4);
            m.hdr_mut().proto = IpProto::AH.0;
            m.hdr_mut().family = sent[0] >> 4;
            let mut run = Batch::new();
            run.push(m).unwrap();
            let opened = peers.receive_run(&mut run);
            let (passed, ended) = (opened.len(), peers.ended());
            peers.bytes(opened);
            if mutable.contains(&at) && at != 25 {
                assert_eq!((passed, &ended[..]), (1, &[][..]), "v6 {v6} octet {at}");
            } else if at != 25 {
                assert_eq!(passed, 0, "v6 {v6} octet {at}: {ended:?}");
                assert_eq!(ended.len(), 1);
            }
        }
    }
}

#[test]
fn ah_takes_the_padding_of_a_peer_that_pads_to_eight_and_can_pad_so_itself() {
    let eight = SaConfig {
        handling: Handling { align8: true, ..Handling::default() },
        ..ah(Mode::Transport, Auth::HmacSha256, false)
    };
    let four = ah(Mode::Transport, Auth::HmacSha256, false);
    let peers = |sa: &SaConfig| Peers::new(sa, [Engine::Auto; 2]);
    let short = peers(&four).wire(&[v4(100)]);
    let long = peers(&eight).wire(&[v4(100)]);
    assert_eq!((short[0].len(), long[0].len()), (100 + 28, 100 + 32));
    assert_eq!(peers(&four).open_bytes(&long), [v4(100)]);
    assert_eq!(peers(&eight).open_bytes(&short), [v4(100)]);
}

#[test]
fn ah_takes_each_number_once_and_says_what_it_refused() {
    let mut peers = Peers::new(&ah(Mode::Tunnel, Auth::HmacSha1, false), [Engine::Auto; 2]);
    let wire = peers.wire(&[v4(100), v6(100)]);
    assert_eq!(peers.open_bytes(&wire).len(), 2);
    assert!(peers.open_bytes(&wire).is_empty());
    let mut wrong = peers.wire(&[v4(100)]);
    *wrong[0].last_mut().unwrap() ^= 1;
    assert!(peers.open_bytes(&wrong).is_empty());
    assert_eq!(peers.ended(), [(Why::AhReplay, 2), (Why::AhAuth, 1)]);
}

#[test]
fn the_last_stop_of_a_source_route_is_what_ah_takes_for_the_destination() {
    // As the sender has it, and as it arrives after the one stop: addresses swapped, pointer behind the route.
    let mut sent = v4_options(80);
    sent[20..32].copy_from_slice(&[131, 7, 4, 198, 51, 100, 99, 1, 1, 1, 1, 0]);
    sent[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(&sent[..32]));
    sent[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut peers = Peers::new(&ah(Mode::Transport, Auth::HmacSha256, false), [Engine::Auto; 2]);
    let mut wire = peers.wire(&[sent.clone()]);
    let stop: [u8; 4] = wire[0][16..20].try_into().unwrap();
    wire[0][16..20].copy_from_slice(&[198, 51, 100, 99]);
    wire[0][22] = 8;
    wire[0][23..27].copy_from_slice(&stop);
    wire[0][10..12].fill(0);
    let sum = checksum::finish(checksum::sum(&wire[0][..32]));
    wire[0][10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(peers.open_bytes(&wire).len(), 1);
    assert_eq!(peers.ended(), []);
}

pub(super) fn ipcomp(mode: Mode, v6: bool) -> SaConfig {
    SaConfig { replay: 0, spi: Spi(0x1234), ..sa_of(Protocol::Ipcomp, mode, Suite::Deflate, v6) }
}

fn random(len: usize) -> Vec<u8> {
    let mut packet = v4(len);
    packet[20..].copy_from_slice(&Chance::new(1).octets(len - 20));
    packet
}

#[test]
fn ipcomp_leaves_what_is_shorter_than_its_threshold() {
    for threshold in [0, 40, 90, 300] {
        for (mode, in_front) in [(Mode::Tunnel, 0), (Mode::Transport, 20)] {
            let handling = Handling { threshold, ..Handling::default() };
            let mut peers = Peers::new(&SaConfig { handling, ..ipcomp(mode, false) }, [Engine::Auto; 2]);
            // In transport mode the IP header does not count. Below forty octets nothing would shrink anyway.
            let least = usize::from(threshold).max(40) + in_front;
            let sent = [least, least + 1, least - 1].map(v4_with_zeros);
            let protos: Vec<_> =
                peers.wire(&sent).iter().map(|p| wire::parse::parse_ip(p).unwrap().proto).collect();
            let compressed = protos.iter().map(|proto| *proto == IpProto::IPCOMP).collect::<Vec<_>>();
            assert_eq!(compressed, [true, true, threshold < 40], "{mode:?}, {threshold}");
        }
    }
}

/// A packet of which all but the header is zeros.
fn v4_with_zeros(len: usize) -> Vec<u8> {
    let mut packet = v4(len);
    packet[20..].fill(0);
    packet
}

#[test]
fn ipcomp_shrinks_what_shrinks_and_leaves_the_rest() {
    for six in [false, true] {
        for mode in [Mode::Tunnel, Mode::Transport] {
            let mut peers = Peers::new(&ipcomp(mode, six), [Engine::Auto; 2]);
            let own = |p: &Vec<u8>| mode == Mode::Tunnel || (p[0] >> 4 == 6) == six;
            let all =
                [v4(60), random(1000), v4(1400), v4_options(1300), v6(80), v6(1300), v6_extensions(1200)];
            let sent: Vec<_> = all.into_iter().filter(own).collect();
            let wire = peers.wire(&sent);
            for (packet, sent) in wire.iter().zip(&sent) {
                let proto = wire::parse::parse_ip(packet).unwrap().proto;
                if sent.len() < 90 || *sent == random(1000) {
                    assert_ne!(proto, IpProto::IPCOMP);
                } else {
                    assert_eq!(proto, IpProto::IPCOMP);
                    assert!(packet.len() < sent.len() * 2 / 3, "{} of {}", packet.len(), sent.len());
                }
            }
            if mode == Mode::Tunnel {
                assert_eq!(peers.open_bytes(&wire), sent);
            } else {
                let is_ipcomp = |p: &&Vec<u8>| wire::parse::parse_ip(p).unwrap().proto == IpProto::IPCOMP;
                let compressed: Vec<_> = wire.iter().filter(is_ipcomp).cloned().collect();
                let plain: Vec<_> = wire.iter().filter(|p| !is_ipcomp(p)).cloned().collect();
                let mut arrived = peers.open_bytes(&compressed);
                arrived.extend(plain);
                arrived.sort();
                let mut sent = sent;
                sent.sort();
                assert_eq!(arrived, sent);
            }
            assert_eq!(peers.ended(), []);
        }
    }
}

#[test]
fn what_does_not_inflate_or_inflates_too_far_is_dropped_for_that_reason() {
    let sa = ipcomp(Mode::Tunnel, false);
    let wire = Peers::new(&sa, [Engine::Auto; 2]).wire(&[v4(1400)]);
    for len in 20..wire[0].len() {
        let mut peers = Peers::new(&sa, [Engine::Auto; 2]);
        let mut m = peers.fixture.packet(&wire[0][..len]);
        m.set_l4(20);
        m.hdr_mut().proto = IpProto::IPCOMP.0;
        let mut run = Batch::new();
        run.push(m).unwrap();
        assert!(peers.receive_run(&mut run).is_empty());
        let why = if len < 24 { Why::IpcompMalformed } else { Why::IpcompInflate };
        assert_eq!(peers.ended(), [(why, 1)], "{len}");
    }
    // A bomb: 100 MB of zeros in less than 100 kB.
    let mut peers = Peers::new(&sa, [Engine::Auto; 2]);
    let mut compress = flate2::Compress::new(flate2::Compression::best(), false);
    let mut bomb = vec![0; 60_000];
    let zeros = vec![0; 10_000_000];
    compress.compress(&zeros, &mut bomb, flate2::FlushCompress::Finish).unwrap();
    bomb.truncate(compress.total_out() as usize);
    let header =
        ipv4::Repr { proto: IpProto::IPCOMP, src: Ipv4Addr::new(203, 0, 113, 1), ..Default::default() };
    let packet = build::raw4(header, &[&[4, 0, 0x12, 0x34], &bomb[..]].concat());
    let mut m = peers.fixture.packet(&packet);
    m.set_l4(20);
    m.hdr_mut().proto = IpProto::IPCOMP.0;
    let mut run = Batch::new();
    run.push(m).unwrap();
    assert!(peers.receive_run(&mut run).is_empty());
    assert_eq!(peers.ended(), [(Why::IpcompInflate, 1)]);
}

#[test]
fn a_packet_cut_or_changed_at_any_octet_ends_counted_and_never_passes_for_every_suite() {
    let modes = [Mode::Tunnel, Mode::Transport];
    let esp = Suite::esp().map(|suite| (Protocol::Esp, suite));
    let all = esp.chain(Auth::all().map(|auth| (Protocol::Ah, Suite::Ah(auth))));
    for ((protocol, suite), mode) in all.flat_map(|sa| modes.map(|mode| (sa, mode))) {
        let sa = sa_of(protocol, mode, suite, false);
        let mut peers = Peers::new(&sa, [Engine::Auto; 2]);
        let wire = peers.wire(&[v4(70)]).remove(0);
        let cut = (20..wire.len()).map(|len| wire[..len].to_vec());
        let changed = (20..wire.len()).map(|at| {
            let mut packet = wire.clone();
            packet[at] ^= 0x80 >> (at % 8);
            packet
        });
        let mut refused = 0;
        for packet in cut.chain(changed) {
            let mut m = peers.fixture.packet(&packet);
            m.set_l4(20);
            m.hdr_mut().family = 4;
            m.hdr_mut().proto = wire[9];
            let mut run = Batch::new();
            run.push(m).unwrap();
            assert!(peers.receive_run(&mut run).is_empty(), "{suite} {mode:?}");
            refused += 1;
        }
        assert_eq!(peers.ended().iter().map(|(_, n)| n).sum::<u32>(), refused, "{suite} {mode:?}");
        assert_eq!(peers.open_bytes(&[wire]), [v4(70)], "none of them moved the window");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if soak() { 100_000 } else { 300 }))]

    #[test]
    fn whatever_arrives_for_an_sa_ends_or_passes_and_nothing_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        which in 0usize..6,
        at in 0usize..80,
        v6: bool,
    ) {
        let mode = if which % 2 == 0 { Mode::Tunnel } else { Mode::Transport };
        let sa = match which / 2 {
            0 => sa_of(Protocol::Esp, mode, Suite::Pair(Cipher::Null, Auth::HmacSha1), v6),
            1 => ah(mode, Auth::HmacSha1, v6),
            _ => ipcomp(mode, v6),
        };
        let proto = [IpProto::ESP, IpProto::AH, IpProto::IPCOMP][which / 2];
        let mut peers = Peers::new(&sa, [Engine::Auto; 2]);
        let mut packet = if v6 { v6_extensions(100) } else { v4_options(100) };
        packet.truncate(at.max(20));
        packet.extend(&bytes);
        let mut m = peers.fixture.packet(&packet);
        m.set_l4(at.min(packet.len()));
        m.hdr_mut().proto = proto.0;
        m.hdr_mut().family = if v6 { 6 } else { 4 };
        let mut run = Batch::new();
        run.push(m).unwrap();
        let opened = peers.receive_run(&mut run);
        let ended: u32 = peers.ended().iter().map(|(_, n)| n).sum();
        prop_assert_eq!(opened.len() as u32 + ended, 1);
        prop_assert!(which / 2 == 2 || opened.is_empty());
        peers.bytes(opened);
    }

    #[test]
    fn whatever_leaves_by_an_sa_comes_out_as_it_was(
        payload in proptest::collection::vec(any::<u8>(), 8..1200),
        repeat in 1usize..4,
        which in 0usize..6,
        v6: bool,
    ) {
        let mode = if which % 2 == 0 { Mode::Tunnel } else { Mode::Transport };
        let sa = match which / 2 {
            0 => sa_of(Protocol::Esp, mode, Suite::Pair(Cipher::AesCbc(crate::transform::AesKey::Bits192), Auth::AesXcbc), v6),
            1 => ah(mode, Auth::AesCmac, v6),
            _ => ipcomp(mode, v6),
        };
        let payload: Vec<u8> = payload.iter().copied().cycle().take((payload.len() * repeat).min(1300)).collect();
        let sent = if v6 {
            build::raw6(ipv6::Repr { next_header: IpProto::SCTP, ..Default::default() }, &payload)
        } else {
            build::raw4(ipv4::Repr { proto: IpProto::SCTP, ..Default::default() }, &payload)
        };
        let mut peers = Peers::new(&sa, [Engine::Auto; 2]);
        let wire = peers.wire(std::slice::from_ref(&sent));
        if wire[0] == sent {
            prop_assert!(which == 5);
        } else {
            prop_assert_eq!(peers.open_bytes(&wire), [sent]);
        }
    }
}
