//! ESP in UDP: what is on the wire, what is told apart at its port, and who is believed about where a peer is.

use super::{
    modes::{arrived, packets},
    *,
};
use crate::{
    Sad,
    natt::{self, Arrived, Encap},
};
use wire::{checksum, udp};

const UDP: Encap = Encap { src_port: 4500, dst_port: 30_001, original: [None; 2], keepalive: 20 };

fn in_udp(mode: Mode, suite: Suite, v6: bool) -> SaConfig {
    SaConfig { mode, encap: Some(UDP), ..config(if v6 { V6 } else { V4 }, suite) }
}

fn simple(v6: bool) -> Peers {
    Peers::new(&in_udp(Mode::Tunnel, Suite::Aes128Gcm16, v6), [Engine::Auto; 2])
}

/// As a translator on the way has it that lets the peer's port be ours.
fn to_us(packet: &[u8]) -> Vec<u8> {
    from(packet, 30_001)
}

/// The same, with another source port.
fn from(packet: &[u8], port: u16) -> Vec<u8> {
    let at = usize::from(wire::parse::parse_ip(packet).unwrap().l4);
    let mut packet = packet.to_vec();
    packet[at..at + 2].copy_from_slice(&port.to_be_bytes());
    packet[at + 2..at + 4].copy_from_slice(&natt::PORT.to_be_bytes());
    if packet[at + 6..at + 8] != [0, 0] {
        let end = packet.len();
        checksum::transport_fill(&mut packet, at, end, IpProto::UDP).unwrap();
    }
    packet
}

/// Makes the checksum of an IPv4 header right, if it is one.
fn settle(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let sum = checksum::finish(checksum::sum(&packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// A datagram to the port, as it arrives.
fn datagram(v6: bool, payload: &[u8]) -> Vec<u8> {
    match (V4, V6) {
        ([IpAddr::V4(a), IpAddr::V4(b)], _) if !v6 => build::udp4(a, b, 30_001, natt::PORT, payload),
        (_, [IpAddr::V6(a), IpAddr::V6(b)]) => build::udp6(a, b, 30_001, natt::PORT, payload),
        _ => unreachable!("the families of V4 and V6"),
    }
}

impl Peers {
    /// What a packet at the port is; the packet ends with the test.
    fn told(&self, packet: &[u8]) -> Result<Arrived, Why> {
        let mut m = arrived(self, packet);
        let told = natt::arrive(&mut m);
        self.fixture.done(m);
        told
    }

    /// Opens what comes to the port; what is no ESP ends.
    fn take_udp(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut run = Batch::new();
        for packet in packets {
            let mut m = arrived(self, packet);
            match natt::arrive(&mut m) {
                Ok(Arrived::Esp) => run.push(m).unwrap(),
                other => {
                    *self.ends.entry(other.err().unwrap_or(Why::Sink)).or_default() += 1;
                    self.fixture.done(m);
                }
            }
        }
        let opened = self.receive_run(&mut run);
        self.bytes(opened)
    }
}

#[test]
fn esp_in_udp_arrives_as_it_was_sent_for_every_suite_mode_and_family() {
    for suite in Suite::esp() {
        for v6 in [false, true] {
            for mode in [Mode::Tunnel, Mode::Transport] {
                let mut peers = Peers::new(&in_udp(mode, suite, v6), [Engine::Auto; 2]);
                let is_fit = |p: &Vec<u8>| mode == Mode::Tunnel || (p[0] >> 4 == 6) == v6;
                let sent: Vec<_> = packets().into_iter().filter(is_fit).collect();
                let wire: Vec<_> = peers.wire(&sent).iter().map(|p| to_us(p)).collect();
                let opened = peers.take_udp(&wire);
                // In transport mode the checksum inside is made anew; these payloads have none that is right.
                let tails = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
                    packets.iter().map(|p| p[p.len() - 32..].to_vec()).collect()
                };
                match mode {
                    Mode::Tunnel => assert_eq!(opened, sent, "{suite}"),
                    _ => assert_eq!(tails(&opened), tails(&sent), "{suite}"),
                }
                assert_eq!(peers.ended(), [], "{suite} {v6} {mode:?}");
            }
        }
    }
}

#[test]
fn the_udp_header_has_the_ports_the_length_and_a_checksum_over_ipv6_alone() {
    for v6 in [false, true] {
        for mode in [Mode::Tunnel, Mode::Transport] {
            let mut peers = Peers::new(&in_udp(mode, Suite::Aes128Gcm16, v6), [Engine::Auto; 2]);
            let sent = if v6 { v6_with(300, ipv6::Repr::default()) } else { v4(300) };
            let wire = peers.send(&[sent]);
            let (m, at) = (&wire[0], wire[0].l4());
            assert_eq!((m.hdr().proto, at), (IpProto::UDP.0, if v6 { 40 } else { 20 }));
            let parsed = wire::parse::parse_ip(m.data()).unwrap();
            assert_eq!((parsed.proto, usize::from(parsed.l4)), (IpProto::UDP, at));
            let header = udp::Packet::new_checked(&m.data()[at..]).unwrap();
            assert_eq!((header.src_port(), header.dst_port()), (4500, 30_001));
            assert_eq!(usize::from(header.len()), m.len() - at, "{mode:?}");
            let esp = wire::esp::Packet::new_checked(&m.data()[at + 8..]).unwrap();
            assert_eq!((esp.spi(), esp.seq()), (0x1000, 1));
            assert_eq!(m.data()[at + 6..at + 8] != [0, 0], v6);
            assert!(checksum::transport_ok(m.data(), at, m.len(), IpProto::UDP));
            if !v6 {
                assert!(ipv4::Packet::new_checked(m.data()).unwrap().checksum_ok());
            }
            peers.bytes(wire);
        }
    }
}

#[test]
fn the_largest_packet_that_fits_is_eight_octets_smaller_than_without_udp_and_fits() {
    for suite in Suite::esp() {
        for v6 in [false, true] {
            let udp = in_udp(Mode::Tunnel, suite, v6);
            let plain = Peers::new(&SaConfig { encap: None, ..udp.clone() }, [Engine::Auto; 2]).sender;
            let mut peers = Peers::new(&udp, [Engine::Auto; 2]);
            for mtu in [1280, 1492, 1500] {
                let inner = peers.sender.inner_mtu(mtu);
                let align = peers.sender.layout.align_mask() + 1;
                assert_eq!(inner, plain.inner_mtu(mtu - 8), "{suite}");
                let wire = peers.wire(&[v4(inner), v4(inner + 1)]);
                assert!(wire[0].len() <= mtu && wire[1].len() > mtu, "{suite} {mtu}");
                assert!(wire[0].len() - inner <= peers.sender.overhead(), "{suite}");
                assert!(mtu - wire[0].len() < align, "{suite}");
            }
            assert_eq!(peers.sender.overhead(), plain.overhead() + 8);
        }
    }
}

#[test]
fn esp_ike_and_keepalives_are_told_apart_and_what_is_neither_is_refused() {
    let peers = simple(false);
    for v6 in [false, true] {
        let told = |payload: &[u8]| peers.told(&datagram(v6, payload));
        assert_eq!(told(&[0xff]), Ok(Arrived::Keepalive));
        assert_eq!(told(&[0; 4]), Ok(Arrived::Ike));
        assert_eq!(told(&[0, 0, 0, 0, 1, 2, 3]), Ok(Arrived::Ike));
        assert_eq!(told(&[0, 0, 0, 1]), Ok(Arrived::Esp));
        assert_eq!(told(&[0xff; 4]), Ok(Arrived::Esp));
        for bad in [&[][..], &[0], &[0xfe], &[0xff, 0xff], &[0, 0, 0]] {
            assert_eq!(told(bad), Err(Why::NattMalformed), "{bad:?}");
        }
        let at = if v6 { 40 } else { 20 };
        let good = datagram(v6, &[9; 40]);
        for (place, octet, why) in [
            (at + 5, 200, Why::NattMalformed),
            (at + 5, 7, Why::NattMalformed),
            (at + 20, 8, Why::NattChecksum),
            (at + 7, !good[at + 7], Why::NattChecksum),
        ] {
            let mut bad = good.clone();
            bad[place] = octet;
            assert_eq!(peers.told(&bad), Err(why), "octet {place}");
        }
        assert_eq!(peers.told(&from(&good, 0)), Err(Why::NattMalformed), "nobody can be answered at port 0");
        let mut unchecked = good.clone();
        unchecked[at + 6..at + 8].fill(0);
        unchecked[at + 20] = 8;
        assert_eq!(peers.told(&unchecked), Ok(Arrived::Esp), "a checksum of 0 is none");
    }
}

#[test]
fn what_lies_behind_the_datagram_s_own_length_is_no_part_of_it() {
    let mut peers = simple(false);
    let wire = to_us(&peers.wire(&[v4(100)])[0]);
    let mut padded = [&wire[..], &[0; 6]].concat();
    let total = padded.len() as u16;
    padded[2..4].copy_from_slice(&total.to_be_bytes());
    settle(&mut padded);
    assert_eq!(peers.take_udp(&[padded]), [v4(100)]);
}

#[test]
fn esp_is_taken_in_udp_and_without_whatever_the_sa_says() {
    for v6 in [false, true] {
        let plain = SaConfig { encap: None, ..in_udp(Mode::Tunnel, Suite::Aes128Gcm16, v6) };
        let inner = vec![v4(80), v6_with(90, ipv6::Repr::default())];
        let in_udp: Vec<_> = simple(v6).wire(&inner).iter().map(|p| to_us(p)).collect();
        assert_eq!(Peers::new(&plain, [Engine::Auto; 2]).take_udp(&in_udp), inner);
        let bare = Peers::new(&plain, [Engine::Auto; 2]).wire(&inner);
        assert_eq!(simple(v6).open_bytes(&bare), inner);
    }
}

#[test]
fn a_packet_cut_short_or_changed_anywhere_is_never_opened() {
    for v6 in [false, true] {
        let sent = v4(60);
        let good = to_us(&simple(v6).wire(std::slice::from_ref(&sent))[0]);
        let at = if v6 { 40 } else { 20 };
        for len in at + 8..good.len() {
            let mut peers = simple(v6);
            let mut short = good[..len].to_vec();
            let udp = (len - at) as u16;
            short[at + 4..at + 6].copy_from_slice(&udp.to_be_bytes());
            // Without a checksum, so that ESP itself must notice.
            short[at + 6..at + 8].fill(0);
            let field = if v6 { 4..6 } else { 2..4 };
            short[field].copy_from_slice(&((len - if v6 { 40 } else { 0 }) as u16).to_be_bytes());
            settle(&mut short);
            assert!(peers.take_udp(&[short]).is_empty(), "{len} octets");
            assert_eq!(peers.ended().len(), 1, "{len} octets");
        }
        for place in at + 8..good.len() {
            let mut peers = simple(v6);
            let mut bad = good.clone();
            bad[at + 6..at + 8].fill(0);
            bad[place] ^= 1 << (place % 8);
            // The SPI is looked at by who finds the SA, and this SA is found already: it is not under the window's eye.
            assert!(peers.take_udp(&[bad]).is_empty(), "octet {place}");
            assert_eq!(peers.ended().len(), 1, "octet {place}");
        }
    }
}

#[test]
fn in_transport_mode_the_checksum_inside_is_right_again_after_a_translator() {
    let tcp = wire::tcp::Repr { src_port: 5, dst_port: 80, ..Default::default() };
    let ([IpAddr::V4(a), IpAddr::V4(b)], [IpAddr::V6(c), IpAddr::V6(d)]) = (V4, V6) else { unreachable!() };
    let mut zero = build::udp4(a, b, 5, 6, b"without");
    zero[26..28].fill(0);
    let sent4 = [build::udp4(a, b, 5, 6, b"some text"), build::tcp4(a, b, &tcp, b"more"), zero];
    let sent6 = [build::udp6(c, d, 5, 6, b"some text"), build::tcp6(c, d, &tcp, b"more")];
    for (v6, sent) in [(false, &sent4[..]), (true, &sent6[..])] {
        let mut peers = Peers::new(&in_udp(Mode::Transport, Suite::Aes128Gcm16, v6), [Engine::Auto; 2]);
        let translated: Vec<_> = peers
            .wire(sent)
            .iter()
            .map(|packet| {
                let mut packet = packet.clone();
                // Another source; the outer checksum is the translator's business.
                packet[if v6 { 23 } else { 15 }] ^= 0x55;
                settle(&mut packet);
                from(&packet, 61_000)
            })
            .collect();
        let opened = peers.take_udp(&translated);
        assert_eq!((opened.len(), peers.ended()), (sent.len(), vec![]));
        for (packet, sent) in opened.iter().zip(sent) {
            let parsed = wire::parse::parse_ip(packet).unwrap();
            let l4 = usize::from(parsed.l4);
            assert!(checksum::transport_ok(packet, l4, packet.len(), parsed.proto));
            assert_eq!(packet.len(), sent.len());
        }
        if !v6 {
            assert_eq!(opened[2][26..28], [0, 0], "none stays none");
        }
    }
}

#[test]
fn only_the_newest_verified_packet_tells_where_a_peer_is() {
    for v6 in [false, true] {
        let plain = SaConfig { encap: None, ..in_udp(Mode::Tunnel, Suite::Aes128Gcm16, v6) };
        let bare = Peers::new(&plain, [Engine::Auto; 2]).wire(&vec![v4(60); 9]);
        let mut peers = simple(v6);
        let wire = peers.wire(&vec![v4(60); 6]);
        let mut take = |packets: &[(usize, u16)], change: &dyn Fn(&mut Vec<u8>)| {
            let packets: Vec<_> = packets.iter().map(|(n, port)| (&wire[*n], *port)).collect();
            let packets: Vec<_> = packets
                .into_iter()
                .map(|(packet, port)| {
                    let mut packet = from(packet, port);
                    change(&mut packet);
                    packet
                })
                .collect();
            let opened = peers.take_udp(&packets).len();
            let heard = peers.receiver.heard_from(&mut peers.root.top()).map(|(from, _)| from);
            assert!(heard.is_none_or(|from| from.ip() == if v6 { V6[0] } else { V4[0] }));
            (opened, heard.map(|from| from.port()), peers.owed.take_moved(), peers.ended())
        };
        let same = |_: &mut Vec<u8>| ();
        let forge = |packet: &mut Vec<u8>| {
            let at = usize::from(wire::parse::parse_ip(packet).unwrap().l4);
            packet[at + 6..at + 8].fill(0);
            *packet.last_mut().unwrap() ^= 1;
        };
        assert_eq!(take(&[(1, 7777)], &forge), (0, None, false, vec![(Why::EspAuth, 1)]));
        assert_eq!(take(&[(0, 30_001)], &same), (1, Some(30_001), true, vec![]));
        assert_eq!(take(&[(2, 30_001)], &same), (1, Some(30_001), false, vec![]), "where it was");
        assert_eq!(take(&[(1, 7777)], &same), (1, Some(30_001), false, vec![]), "late and genuine");
        let replayed = vec![(Why::EspReplay, 1)];
        assert_eq!(take(&[(2, 7777)], &same), (0, Some(30_001), false, replayed.clone()));
        assert_eq!(
            take(&[(3, 30_001), (3, 7777)], &same),
            (1, Some(30_001), false, replayed),
            "twice in one run"
        );
        assert_eq!(take(&[(5, 40_000), (4, 7777)], &same), (2, Some(40_000), true, vec![]));
        assert_eq!(peers.open_bytes(&bare[8..]).len(), 1);
        let heard = peers.receiver.heard_from(&mut peers.root.top()).unwrap().0;
        assert_eq!((heard.port(), peers.owed.take_moved()), (40_000, false), "ESP without UDP tells no port");
    }
}

#[test]
fn the_sas_to_a_peer_that_has_moved_go_on_where_they_are_and_send_where_it_is() {
    for (v6, ends) in [(false, V4), (true, V6)] {
        let wire = simple(v6).wire(&[v4(60)]);
        let mut peers = simple(v6);
        let encap = Some(Encap { src_port: UDP.dst_port, dst_port: UDP.src_port, ..UDP });
        let back =
            SaConfig { src: ends[1], dst: ends[0], spi: Spi(0x2000), encap, ..peers.sender.config().clone() };
        let setup = Setup::new(Instant::from_secs(1));
        let make = |index, reqid| {
            let config = SaConfig { reqid, ..back.clone() };
            Arc::new(Sa::new(SaIndex(index), config, material(back.suite), &setup).unwrap())
        };
        let stranger = SaConfig { dst: ends[1], src: ends[1], spi: Spi(0x3000), ..back.clone() };
        let stranger = Sa::new(SaIndex(2), stranger, material(back.suite), &setup).unwrap();
        let sad = Sad::new([peers.receiver.clone(), make(9, 0), make(10, 7), Arc::new(stranger)]);
        let ours = |addr| addr == ends[1];
        let follow =
            |sad: &Sad, peers: &mut Peers| natt::followed(sad, ours, &setup, &mut peers.root.top()).unwrap();
        assert!(follow(&sad, &mut peers).is_none(), "nothing heard");
        peers.sender = sad.get(SaIndex(9)).unwrap().clone();
        let first = peers.wire(&[v4(60)]);
        assert_eq!(peers.take_udp(&[from(&wire[0], 40_000)]).len(), 1);
        let (sad, moved) = follow(&sad, &mut peers).unwrap();
        assert_eq!(moved, 2);
        for index in [9, 10] {
            assert_eq!(
                sad.get(SaIndex(index)).unwrap().peer().to_string(),
                format!("{}", std::net::SocketAddr::new(ends[0], 40_000))
            );
        }
        assert_eq!(sad.get(SaIndex(2)).unwrap().peer().port(), UDP.src_port, "no peer of ours");
        assert!(follow(&sad, &mut peers).is_none(), "nothing new");
        peers.sender = sad.get(SaIndex(9)).unwrap().clone();
        let second = peers.wire(&[v4(60)]);
        let at = if v6 { 40 } else { 20 };
        let told = |packet: &[u8]| (packet[at + 2..at + 4].to_vec(), packet[at + 15]);
        assert_eq!(told(&first[0]), (UDP.src_port.to_be_bytes().to_vec(), 1));
        assert_eq!(told(&second[0]), (40_000_u16.to_be_bytes().to_vec(), 2), "the next number");
        // An error about what was sent there is about this SA; about another port it is not.
        let (sa, seq) = sad.sent(&second[0]).unwrap();
        assert_eq!((sa.index(), seq), (SaIndex(9), Some(&[0, 0, 0, 2])));
        assert!(sad.sent(&first[0]).is_none() && sad.sent(&second[0][..at + 8]).is_none());
        let other = SaConfig { reqid: 8, ..peers.receiver.config().clone() };
        let alone = Sad::new([
            Arc::new(Sa::continuing(&peers.receiver, other, &setup, &mut peers.root.top()).unwrap()),
            make(10, 7),
        ]);
        assert!(follow(&alone, &mut peers).is_none(), "another -u is another peer");
        // Whoever was given an SA that leaves just when the peer is followed goes on through the one after it.
        let after = Sad::new([peers.receiver.clone(), make(11, 0)]).after(&sad);
        let (followed, moved) = follow(&after, &mut peers).unwrap();
        let next = |sad: &Sad| sad.successor(SaIndex(9)).map(|sa| (sa.index(), sa.peer().port()));
        assert_eq!((next(&after), moved), (Some((SaIndex(11), UDP.src_port)), 1));
        assert_eq!(next(&followed), Some((SaIndex(11), 40_000)));
    }
}

#[test]
fn a_keepalive_is_one_octet_to_where_the_peer_is_and_counts_as_a_sign_of_life() {
    for v6 in [false, true] {
        let mut peers = simple(v6);
        assert_eq!(peers.sender.silent_since(&mut peers.root.top()), Instant::from_secs(1));
        let mut m = peers.fixture.packet(&[]);
        natt::write_keepalive(&peers.sender, &mut m).unwrap();
        let (flags, l4) = (m.hdr().flags, m.l4());
        assert!(
            flags.has(PktFlags::PROTECTED) && checksum::transport_ok(m.data(), l4, m.len(), IpProto::UDP)
        );
        let bytes = peers.bytes([m]);
        assert_eq!(bytes[0].len(), if v6 { 49 } else { 29 });
        assert_eq!(peers.told(&to_us(&bytes[0])), Ok(Arrived::Keepalive));
        peers.sender.note_keepalive(Instant::from_secs(5), &mut peers.root.top());
        assert_eq!(peers.sender.silent_since(&mut peers.root.top()), Instant::from_secs(5));
        peers.now = Instant::from_secs(9);
        peers.wire(&[v4(60)]);
        assert_eq!(peers.sender.silent_since(&mut peers.root.top()), Instant::from_secs(9));
    }
}
