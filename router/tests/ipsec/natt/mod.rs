//! ESP in UDP: two gateways with a translator between them.
//!
//! ```text
//!   host a ── a ── 10.0.0.2 ─── 10.0.0.1 ── nat ── 203.0.113.1, .3 ─── 203.0.113.2 ── b ── host b
//! ```
//!
//! The translator is a router with pf, which forgets a mapping when its state goes, and gives another port the next time.

mod bed;

use super::bed::Datagram;
use bed::{Bed, DELAY_MS, Shape, gateway, policies, sas};
use router::testbed::Texts;
use wire::{build, parse::parse_ip};

/// The same packet as if it came from another port or another address.
fn elsewhere(packet: &[u8], port: u16) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let at = usize::from(parse_ip(&packet).unwrap().l4);
    packet[at..at + 2].copy_from_slice(&port.to_be_bytes());
    if at == 40 {
        let end = packet.len();
        wire::checksum::transport_fill(&mut packet, at, end, wire::IpProto::UDP).unwrap();
    }
    packet
}

#[test]
fn a_gateway_behind_a_translator_is_answered_where_it_is_and_followed_where_it_moves() {
    let locks = [(1, "fine"), (1, "giant"), (2, "fine"), (2, "giant")];
    for (tunnel, (workers, locking)) in [false, true].into_iter().flat_map(|t| locks.map(|l| (t, l))) {
        let ipsec =
            [0, 1].map(|side| if tunnel { sas(side, "-u 100") } else { sas(side, "") + &policies(side) });
        let shape = Shape { tunnel, workers, locking, ..Shape::default() };
        let mut bed = Bed::new(&ipsec, shape);
        for v6 in [false, true] {
            let mut seen = Vec::new();
            for outside in [1, 1, 3] {
                bed.rebind(outside);
                let moved = bed.count("b", "natt.moved");
                for _ in 0..3 {
                    assert_eq!(bed.round_trip(v6), [1, 1], "{shape:?} v6 {v6} outside {outside}");
                }
                assert_eq!(bed.count("b", "natt.moved"), moved + 1, "it moved once");
                let peers = bed.peers_of_b();
                let peer = &peers[usize::from(v6)];
                assert!(!seen.contains(peer), "{seen:?} {peer}");
                seen.push(peer.clone());
            }
            let last = if v6 { "[2001:db8:ffff::3]:" } else { "203.0.113.3:" };
            assert!(seen[2].starts_with(last), "{seen:?}");
        }
        for (name, counter) in ["a", "b"].into_iter().flat_map(|n| {
            ["esp.replay", "esp.auth", "esp.no_sa", "esp.policy", "natt.malformed", "natt.checksum"]
                .map(|c| (n, c))
        }) {
            assert_eq!(bed.count(name, counter), 0, "{name} {counter}");
        }
        assert_eq!((bed.count("a", "natt.moved"), bed.count("a", "esp.out")), (0, 18));
        bed.finish();
    }
}

#[test]
fn a_reload_that_changes_other_things_keeps_what_is_known_of_the_peer() {
    let mut bed = Bed::simple("");
    assert_eq!(bed.round_trip(false), [1, 1]);
    let peers = bed.peers_of_b();
    let conf = gateway(1, Shape::default());
    let ipsec = sas(1, "-ttl 9") + &policies(1);
    bed.net.reload("b", Texts { conf: &conf, pf: None, ipsec: Some(&ipsec) }).unwrap();
    assert_eq!(bed.peers_of_b(), peers);
    assert_eq!(bed.carry(&Datagram { from: 1, ..Datagram::default() }).len(), 1);
    // A second pair of SAs, as a change of keys makes, begins where the first is.
    let more = ipsec.clone()
        + "add 203.0.113.2 203.0.113.1 esp-udp 0x2000 -m tunnel -r 4 -E aes-gcm-16 0x00112233445566778899aabbccddeeff01020304;";
    bed.net.reload("b", Texts { conf: &conf, pf: None, ipsec: Some(&more) }).unwrap();
    assert_eq!(bed.peers_of_b()[2], peers[0]);
    bed.finish();
}

#[test]
fn sas_that_replace_all_others_send_where_they_are_told_until_the_peer_is_heard_again() {
    let mut bed = Bed::simple("");
    assert_eq!(bed.round_trip(false), [1, 1]);
    let heard = bed.peers_of_b();
    let back = Datagram { from: 1, ..Datagram::default() };
    bed.net.setkey("b", "flush;").unwrap();
    bed.net.setkey("b", &sas(1, "")).unwrap();
    let told = bed.peers_of_b();
    assert_eq!(told[0], "203.0.113.1:4500");
    assert_ne!(told[0], heard[0]);
    // The translator has no mapping there.
    assert!(bed.carry(&back).is_empty());
    assert_eq!(bed.peers_of_b(), told);
    // One packet from the peer is enough.
    assert_eq!(bed.carry(&Datagram::default()).len(), 1);
    assert_eq!(bed.peers_of_b()[0], heard[0]);
    assert_eq!(bed.carry(&back).len(), 1);
    bed.finish();
}

#[test]
fn nobody_is_moved_by_a_packet_that_is_forged_repeated_or_late() {
    for v6 in [false, true] {
        let mut bed = Bed::simple("");
        let datagram = Datagram { v6, ..Datagram::default() };
        assert_eq!(bed.round_trip(v6), [1, 1]);
        bed.toward_b();
        assert_eq!(bed.carry(&datagram).len(), 1);
        let (_, genuine) = bed.toward_b().pop().unwrap();
        let (peers, moved) = (bed.peers_of_b(), bed.count("b", "natt.moved"));
        bed.inject(&elsewhere(&genuine, 7777));
        assert_eq!(bed.count("b", "esp.replay"), 1, "repeated");
        let mut forged = elsewhere(&genuine, 7777);
        let at = usize::from(parse_ip(&forged).unwrap().l4);
        // A number that is ahead, and with it a tag that is wrong.
        forged[at + 15] = forged[at + 15].wrapping_add(9);
        bed.inject(&elsewhere(&forged, 7777));
        assert_eq!(bed.count("b", "esp.auth"), 1, "forged");
        assert_eq!((bed.peers_of_b(), bed.count("b", "natt.moved")), (peers.clone(), moved));
        // A genuine packet from there that is held back and then overtaken is opened and moves nobody.
        let held = hold(&mut bed, &datagram);
        assert_eq!(bed.carry(&datagram).len(), 1);
        bed.inject(&elsewhere(&held, 7777));
        assert_eq!(bed.arrived(1).len(), 1, "late and genuine");
        assert_eq!((bed.peers_of_b(), bed.count("b", "natt.moved")), (peers.clone(), moved));
        // The newest one does.
        let newest = hold(&mut bed, &datagram);
        bed.inject(&elsewhere(&newest, 7777));
        assert_eq!(bed.arrived(1).len(), 1, "the newest");
        assert!(bed.peers_of_b()[usize::from(v6)].ends_with(":7777"));
        assert_eq!(bed.round_trip(v6), [1, 1], "and the next brings it back");
        assert_eq!(bed.count("b", "natt.moved"), moved + 2);
        bed.finish();
    }
}

/// A packet of the tunnel that does not reach b: the wire is unplugged while it is on its way.
fn hold(bed: &mut Bed, datagram: &Datagram) -> Vec<u8> {
    bed.toward_b();
    bed.send(datagram);
    bed.run(DELAY_MS / 2);
    let (_, packet) = bed.toward_b().pop().unwrap();
    for up in [false, true] {
        bed.net.watch("out").unwrap()[1].set_up(up);
    }
    bed.run(50);
    assert!(bed.arrived(1).is_empty());
    packet
}

#[test]
fn keepalives_are_sent_after_twenty_seconds_of_silence_and_keep_the_translator_s_mapping() {
    for (options, works) in [("", true), ("-keepalive 0", false)] {
        let mut bed = Bed::simple(options);
        for v6 in [false, true] {
            assert_eq!(bed.round_trip(v6), [1, 1]);
        }
        bed.net.watch("out").unwrap().iter().for_each(|end| drop(end.captured()));
        let (before, taken) = (bed.count("a", "natt.keepalives"), bed.count("b", "natt.keepalive"));
        bed.run(19_000);
        assert_eq!(bed.count("a", "natt.keepalives"), before, "too early");
        bed.run(1_100);
        let sent = if works { 2 } else { 0 };
        assert_eq!(bed.count("a", "natt.keepalives") - before, sent, "one for each family");
        assert_eq!(bed.count("b", "natt.keepalive") - taken, sent);
        // Traffic makes them unnecessary.
        for _ in 0..3 {
            bed.run(15_000);
            assert_eq!(bed.carry(&Datagram::default()).len(), 1);
        }
        let now = bed.count("a", "natt.keepalives") - before;
        assert_eq!(now, if works { 4 } else { 0 }, "those of IPv6 alone");
        bed.run(300_000);
        let back = Datagram { from: 1, ..Datagram::default() };
        assert_eq!(bed.carry(&back).len(), usize::from(works), "options {options:?}");
        // Without them the translator has forgotten one mapping of thirty seconds before traffic made another.
        assert_eq!(bed.count("b", "natt.moved"), if works { 2 } else { 3 }, "a keepalive moves nobody");
        bed.finish();
    }
}

#[test]
fn ike_is_the_host_stack_s_and_what_is_nothing_is_refused_for_its_own_reason() {
    let mut bed = Bed::simple("");
    let (nat, b) = ("203.0.113.1".parse().unwrap(), "203.0.113.2".parse().unwrap());
    let (nat6, b6) = ("2001:db8:ffff::1".parse().unwrap(), "2001:db8:ffff::2".parse().unwrap());
    for v6 in [false, true] {
        let datagram = |payload: &[u8]| {
            if v6 { build::udp6(nat6, b6, 5, 4500, payload) } else { build::udp4(nat, b, 5, 4500, payload) }
        };
        let mut wrong = datagram(&[7; 40]);
        *wrong.last_mut().unwrap() ^= 1;
        let ike = datagram(&[&[0; 4][..], &[1; 28]].concat());
        let cases = [
            (ike.clone(), "natt.ike"),
            (datagram(&[0xff]), "natt.keepalive"),
            (datagram(&[]), "natt.malformed"),
            (datagram(&[1, 2, 3]), "natt.malformed"),
            (wrong, "natt.checksum"),
            (datagram(&[7; 40]), "esp.no_sa"),
        ];
        for (packet, counter) in cases {
            let before = bed.count("b", counter);
            bed.inject(&packet);
            assert_eq!(bed.count("b", counter), before + 1, "{counter} v6 {v6}");
        }
        assert_eq!(bed.count("b", "host.closed"), 1 + u64::from(v6), "nobody listens there");
        bed.net.with_root("b", |node, _| {
            node.router.shared().host.ports().open(router::host::Transport::Udp, 4500);
        });
        bed.inject(&ike);
        bed.net.with_root("b", |node, root| {
            let m = node.router.shared().host.take_input(&mut root.top()).expect("a daemon would have it");
            node.router.own_stats().ledger.taken.inc();
            assert_eq!(m.data(), ike, "as it came");
            m.end(kern::Why::Sink, &node.router.own_stats().ledger);
        });
        bed.net.with_root("b", |node, _| {
            node.router.shared().host.ports().close(router::host::Transport::Udp, 4500);
        });
    }
    bed.finish();
}

#[test]
fn what_is_too_big_for_the_way_is_learnt_from_errors_about_esp_in_udp_and_fragments_are_put_together() {
    for v6 in [false, true] {
        let shape = Shape { mtu: 1400, ..Shape::default() };
        let mut bed = Bed::new(&[0, 1].map(|side| sas(side, "") + &policies(side)), shape);
        assert_eq!(bed.round_trip(v6), [1, 1]);
        // Outer, UDP and ESP headers, IV, trailer and ICV.
        let fits = |mtu: usize| (mtu - if v6 { 40 } else { 20 } - 8 - 8 - 8 - 16) / 4 * 4 - 2;
        let of_len = |len: usize| Datagram {
            v6,
            df: true,
            len: len - if v6 { 48 } else { 28 },
            ..Datagram::default()
        };
        assert!(bed.carry(&of_len(fits(1500))).is_empty(), "too big for the outer wire");
        assert_eq!(bed.count("a", "ipsec.path_mtu_learned"), 1);
        bed.arrived(0);
        assert!(bed.carry(&of_len(fits(1400) + 1)).is_empty());
        let told = bed.arrived(0);
        let mtu = if v6 {
            u32::from_be_bytes([told[0][44], told[0][45], told[0][46], told[0][47]]) as usize
        } else {
            usize::from(u16::from_be_bytes([told[0][26], told[0][27]]))
        };
        assert_eq!(mtu, fits(1400));
        assert_eq!(bed.carry(&of_len(fits(1400))).len(), 1);
        if !v6 {
            // Larger still, and it may be fragmented: so is the outer packet, which is put together before it is told apart.
            assert_eq!(bed.carry(&Datagram { df: false, ..of_len(1500) }).len(), 1);
            assert_eq!(bed.count("b", "frag.reassembled"), 1);
        }
        bed.finish();
    }
}
