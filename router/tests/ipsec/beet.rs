//! BEET mode between two gateways: pairs of hosts under the gateways' addresses, in all mixes of families.

use super::bed::{Bed, Datagram, HOST4, HOST6, NAMES, Shape, WAN4, WAN6};
use router::control::setkey::SaEvent;
use std::{fmt::Write, net::IpAddr};

/// Both directions' SAs and the policies of one gateway, for the hosts of one family under addresses of another.
fn text(side: usize, inner6: bool, outer6: bool, more: &str) -> String {
    let hosts = |n: usize| if inner6 { IpAddr::V6(HOST6[n]) } else { IpAddr::V4(HOST4[n]) };
    let ends = |n: usize| if outer6 { IpAddr::V6(WAN6[n]) } else { IpAddr::V4(WAN4[n]) };
    let nets =
        if inner6 { ["2001:db8:a::/64", "2001:db8:b::/64"] } else { ["192.0.2.0/24", "198.51.100.0/24"] };
    let mut text = more.to_owned();
    for (from, to) in [(0, 1), (1, 0)] {
        let (way, spi) = (if from == side { "out" } else { "in" }, 0x1000 + from);
        writeln!(
            text,
            "add {} {} esp {spi:#x} -m beet -inner {} {} -r 4 -E aes-gcm-16 0x{spi:040x};
             spdadd {} {} any -P {way} ipsec esp/beet/{}-{}/require;",
            ends(from),
            ends(to),
            hosts(from),
            hosts(to),
            nets[from],
            nets[to],
            ends(from),
            ends(to),
        )
        .unwrap();
    }
    text
}

#[test]
fn hosts_of_either_family_reach_each_other_under_gateways_of_either_family() {
    for (inner6, outer6) in [(false, false), (true, true), (false, true), (true, false)] {
        let texts = [0, 1].map(|side| text(side, inner6, outer6, ""));
        let mut bed = Bed::new(Shape::default(), [None; 2], [&texts[0], &texts[1]]);
        for from in [0, 1] {
            for len in [8, 700, 1300] {
                let datagram =
                    Datagram { v6: inner6, from, len, df: true, class: 0xb8, ..Datagram::default() };
                assert!(bed.send(from, 0, &datagram.packet()));
                bed.run(20);
                // A hop less at each gateway; what a header of the other family does not say is gone.
                let mut expected = Datagram { ttl: 62, ..datagram }.packet();
                if inner6 != outer6 && !inner6 {
                    expected[4..6].fill(0);
                    expected[10..12].fill(0);
                    let sum = wire::checksum::finish(wire::checksum::sum(&expected[..20]));
                    expected[10..12].copy_from_slice(&sum.to_be_bytes());
                }
                assert_eq!(bed.arrived(1 - from), [expected], "v6 in {inner6} out {outer6}, {len}");
            }
        }
        assert_eq!((bed.nothing_in_clear(), bed.count(0, "esp.out"), bed.count(0, "esp.in")), (6, 3, 3));
        bed.finish();
    }
}

#[test]
fn each_pair_of_hosts_has_an_sa_of_its_own_and_a_pair_without_one_stays_out() {
    let other = "add 203.0.113.1 203.0.113.2 esp 0x2000 -m beet -inner 192.0.2.11 198.51.100.10 -r 4 \
                 -E aes-gcm-16 0x00000000000000000000000000000000000000ff;\n";
    let texts = [0, 1].map(|side| text(side, false, false, other));
    let mut bed = Bed::new(Shape::default(), [None; 2], [&texts[0], &texts[1]]);
    for (last, arrives) in [(10, true), (11, true), (12, false)] {
        let packet = from_host(last);
        assert!(bed.send(0, 0, &packet));
        bed.run(20);
        let arrived = bed.arrived(1);
        assert_eq!(arrived.len(), usize::from(arrives), "host {last}");
        assert!(arrived.iter().all(|p| p[12..16] == packet[12..16]));
    }
    assert_eq!((bed.count(0, "spd.no_sa"), bed.nothing_in_clear()), (1, 2));
    bed.finish();
}

/// A datagram from another host of a's network.
fn from_host(last: u8) -> Vec<u8> {
    let mut packet = Datagram::default().packet();
    packet[15] = last;
    packet[10..12].fill(0);
    let sum = wire::checksum::finish(wire::checksum::sum(&packet[..20]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    // The UDP checksum covers the address too.
    packet[26..28].fill(0);
    packet
}

#[test]
fn each_pair_of_hosts_is_asked_for_once_and_answered_by_its_own_sa() {
    let texts = [0, 1].map(|side| text(side, false, false, ""));
    let mut bed = Bed::new(Shape::default(), [None; 2], [&texts[0], &texts[1]]);
    let asked = |bed: &mut Bed| -> Vec<(IpAddr, IpAddr)> {
        let one = |event: SaEvent| match event {
            SaEvent::Acquire(acquire) => {
                assert_eq!((&*acquire.mode, acquire.src), ("beet", IpAddr::V4(WAN4[0])));
                acquire.inner
            }
            _ => None,
        };
        bed.net.sa_events(NAMES[0]).into_iter().filter_map(one).collect()
    };
    let send = |bed: &mut Bed| {
        for last in [10, 11, 12, 13, 11, 12, 13] {
            assert!(bed.send(0, 0, &from_host(last)));
            bed.run(20);
        }
        bed.arrived(1).len()
    };
    let pair = |last| (IpAddr::from([192, 0, 2, last]), IpAddr::V4(HOST4[1]));
    assert_eq!(send(&mut bed), 1);
    assert_eq!(asked(&mut bed), [pair(11), pair(12), pair(13)]);
    let answer = "add 203.0.113.1 203.0.113.2 esp 0x2000 -m beet -inner 192.0.2.12 198.51.100.10 -r 4 \
                  -E aes-gcm-16 0x00000000000000000000000000000000000000ff;";
    for side in [1, 0] {
        bed.setkey(side, answer);
    }
    assert_eq!((send(&mut bed), asked(&mut bed)), (3, vec![]), "the others have been asked for");
    // The one that was answered is another question when it is gone again.
    for side in [1, 0] {
        bed.setkey(side, "delete 203.0.113.1 203.0.113.2 esp 0x2000;");
    }
    bed.run(2000);
    assert_eq!((send(&mut bed), asked(&mut bed)), (1, vec![pair(12)]));
    assert_eq!((bed.count(0, "spd.no_sa"), bed.nothing_in_clear()), (16, 5));
    bed.finish();
}

#[test]
fn a_packet_too_big_is_told_what_fits_and_that_fits() {
    for (inner6, outer6) in [(false, false), (true, true), (false, true), (true, false)] {
        let texts = [0, 1].map(|side| text(side, inner6, outer6, ""));
        let mut bed = Bed::new(Shape::default(), [None; 2], [&texts[0], &texts[1]]);
        let header = if inner6 { 48 } else { 28 };
        let send = |bed: &mut Bed, total: usize| {
            let datagram = Datagram { v6: inner6, len: total - header, df: true, ..Datagram::default() };
            assert!(bed.send(0, 0, &datagram.packet()));
            bed.run(20);
        };
        send(&mut bed, 1500);
        let told = bed.arrived(0).pop().unwrap();
        let mtu = if inner6 {
            u32::from_be_bytes(*told[44..].first_chunk().unwrap()) as usize
        } else {
            usize::from(u16::from_be_bytes([told[26], told[27]]))
        };
        assert_eq!((bed.count(0, "esp.too_big"), bed.arrived(1).len()), (1, 0));
        assert!((1430..1500).contains(&mtu), "{mtu}");
        send(&mut bed, mtu);
        assert_eq!((bed.arrived(1).len(), bed.nothing_in_clear()), (1, 1), "v6 in {inner6} out {outer6}");
        bed.finish();
    }
}
