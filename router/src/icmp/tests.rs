//! Errors in both families' words.

use super::*;
use wire::build;

const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

#[test]
fn every_error_has_its_type_and_code_in_both_families() {
    let packet = build::udp6(A, B, 1, 2, b"x");
    let rows = [
        // error, IPv4 (type, code, rest), IPv6 (type, code, rest)
        (Error::TtlExceeded, (11, 0, 0), (3, 0, 0)),
        (Error::ReassemblyTimeout, (11, 1, 0), (3, 1, 0)),
        (Error::NetUnreachable, (3, 0, 0), (1, 0, 0)),
        (Error::HostUnreachable, (3, 1, 0), (1, 3, 0)),
        (Error::ProtocolUnreachable, (3, 2, 0), (4, 1, 6)),
        (Error::PortUnreachable, (3, 3, 0), (1, 4, 0)),
        (Error::AdminProhibited, (3, 13, 0), (1, 1, 0)),
        (Error::TooBig { mtu: 1400 }, (3, 4, 1400), (2, 0, 1400)),
        (Error::BeyondScope, (3, 1, 0), (1, 2, 0)),
        (Error::HeaderProblem { pointer: 20 }, (12, 0, 20 << 24), (4, 0, 20)),
        (Error::FirstFragment, (12, 0, 0), (4, 3, 0)),
        (Error::Unreachable { code: 5 }, (3, 5, 0), (1, 5, 0)),
    ];
    for (error, v4, v6) in rows {
        assert_eq!(error.v4().header(), v4, "{error:?}");
        assert_eq!(error.v6(&packet).header(), v6, "{error:?}");
    }
}

#[test]
fn an_unknown_protocol_is_a_problem_of_the_octet_that_named_it() {
    let mut packet = build::udp6(A, B, 1, 2, &[0; 20]);
    packet[6] = 60;
    packet[40..48].copy_from_slice(&[200, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(Error::ProtocolUnreachable.v6(&packet).header(), (4, 1, 40));
}
