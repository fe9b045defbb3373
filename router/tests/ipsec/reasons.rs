//! What the gateways drop of AH and of IPComp counts under AH and IPComp, and nothing of it under ESP.

use super::bed::{Bed, Datagram, Shape};
use std::net::Ipv4Addr;
use wire::{IpProto, build, ipv4};

const PROTOCOLS: [(&str, &str); 3] = [
    ("esp", "-E aes-gcm-16 0x00112233445566778899aabbccddeeff01020304"),
    ("ah", "-A hmac-sha256 0x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"),
    ("ipcomp", "-C deflate"),
];

/// A tunnel of this protocol from a to b, as one of them has it, for packets to port `port`.
fn tunnel(protocol: &str, algorithm: &str, side: usize, port: u16) -> String {
    let way = ["out", "in"][side];
    format!(
        "add 203.0.113.1 203.0.113.2 {protocol} 0x1000 -m tunnel {algorithm};
         spdadd 192.0.2.0/24 198.51.100.0/24[{port}] udp -P {way}
            ipsec {protocol}/tunnel/203.0.113.1-203.0.113.2/require;"
    )
}

/// The counters of drops by the three protocols that have moved.
fn dropped(bed: &mut Bed, side: usize) -> Vec<(String, u64)> {
    let is_drop = |name: &str| {
        let (group, rest) = name.split_once('.').unwrap_or((name, ""));
        PROTOCOLS.iter().any(|(protocol, _)| *protocol == group)
            && !["in", "out", "bytes_in", "bytes_out"].contains(&rest)
    };
    bed.counts(side).into_iter().filter(|(name, count)| *count > 0 && is_drop(name)).collect()
}

#[test]
fn what_a_policy_refuses_or_is_too_big_or_has_no_sa_counts_under_its_protocol_alone() {
    for (protocol, algorithm) in PROTOCOLS {
        // The other side's policy is for another port: what comes out of the SA is not what it is for.
        let texts = [tunnel(protocol, algorithm, 0, 2000), tunnel(protocol, algorithm, 1, 2001)];
        let mut bed = Bed::new(Shape::default(), [None; 2], [&texts[0], &texts[1]]);
        assert!(bed.send(0, 0, &Datagram { len: 400, ..Datagram::default() }.packet()));
        bed.run(20);
        let one = |why: &str| vec![(format!("{protocol}.{why}"), 1)];
        assert_eq!((dropped(&mut bed, 0), dropped(&mut bed, 1)), (vec![], one("policy")));
        assert!(bed.arrived(1).is_empty());
        // A packet that fills the link leaves no room for the headers.
        assert!(bed.send(0, 0, &Datagram { len: 1500 - 28, df: true, ..Datagram::default() }.packet()));
        bed.run(20);
        assert_eq!(dropped(&mut bed, 0), one("too_big"));
        bed.setkey(1, "flush;");
        bed.run(20);
        assert!(bed.send(0, 0, &Datagram { len: 400, ..Datagram::default() }.packet()));
        bed.run(20);
        // Without any SA it is a packet of a protocol that the host does not speak.
        assert_eq!(dropped(&mut bed, 1), one("policy"));
        assert_eq!(bed.count(1, "host.protocol"), 1);
        bed.finish();
    }
}

#[test]
fn what_ends_before_its_spi_is_malformed_and_what_names_a_stranger_has_no_sa() {
    let ends = [(IpProto::ESP, 4), (IpProto::AH, 8), (IpProto::IPCOMP, 4)];
    for ((protocol, algorithm), (proto, end_of_spi)) in PROTOCOLS.into_iter().zip(ends) {
        let text = tunnel(protocol, algorithm, 1, 2000);
        let mut bed = Bed::new(Shape::default(), [None; 2], ["", &text]);
        for len in 0..12 {
            let [src, dst] = [1, 2].map(|host| Ipv4Addr::new(203, 0, 113, host));
            let header = ipv4::Repr { src, dst, proto, ..ipv4::Repr::default() };
            bed.forge(1, &build::raw4(header, &[0x77; 12][..len]));
            bed.run(20);
            let (malformed, no_sa) = (end_of_spi.min(len + 1), (len + 1).saturating_sub(end_of_spi));
            let counted =
                [("malformed", malformed), ("no_sa", no_sa)].map(|(why, count)| (why, count as u64));
            let told = counted.into_iter().filter(|(_, count)| *count > 0);
            let told: Vec<_> = told.map(|(why, count)| (format!("{protocol}.{why}"), count)).collect();
            assert_eq!(dropped(&mut bed, 1), told, "{len} octets");
        }
        bed.finish();
    }
}
