//! Multicast listener discovery as a host speaks it: queries of both versions are read (RFC 2710, RFC 3810), version 2 reports are written. No source lists:
//! members take every source. No router side.
//!
//! ```text
//! |      130      |       0       |           checksum            |  0   query
//! |       max response code       |           reserved            |  4
//! |                      group, 16 octets                         |  8   zero: all groups; here a version 1 query ends
//! | resv S qrv    |     qqic      |       number of sources       | 24
//!
//! |      143      |    reserved   |           checksum            |  0   report, version 2
//! |           reserved            |       number of records       |  4
//! |     type      |  aux data len |       number of sources       |  8   one record
//! |                      group, 16 octets                         | 12
//! ```

use core::net::Ipv6Addr;

pub use crate::igmp::RecordType;
use crate::{
    IpProto, Malformed,
    icmpv6::{self, kind},
    ipv6,
    view::{get, put},
};

/// Octets of a message of version 1.
pub const LEN: usize = 24;
/// Octets of a record.
const RECORD_LEN: usize = 20;
/// Octets of the IPv6 header with hop-by-hop options: router alert 0 (MLD) and two octets of padding (RFC 2711).
const HEADER_LEN: usize = ipv6::HEADER_LEN + 8;
/// The hop-by-hop header in front of ICMPv6.
const ROUTER_ALERT: [u8; 8] = [IpProto::ICMPV6.0, 0, 5, 2, 0, 0, 1, 0];
/// Groups in one report, at most: it must fit the least MTU.
pub const MAX_RECORDS: usize = (ipv6::MIN_MTU - HEADER_LEN - 8) / RECORD_LEN;

/// A query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Version of the querier: 1 or 2.
    pub version: u8,
    /// The group asked about; `None`: all of them.
    pub group: Option<Ipv6Addr>,
    /// Milliseconds within which members answer.
    pub max_response: u32,
}

/// A code of RFC 3810, 5.1.3: small numbers are themselves, large ones a floating point number.
const fn decode(code: u16) -> u32 {
    match code {
        0..=0x7fff => code as u32,
        _ => (code as u32 & 0x0fff | 0x1000) << ((code as u32 >> 12 & 7) + 3),
    }
}

/// Reads a query that came in a packet from `src` to `dst` with `hop_limit`. Only a node of this link may ask (RFC 3810, 6.2); that the packet carries a
/// router alert the caller knows from [`crate::ipv6_ext::router_alert`].
pub fn parse_query(message: &[u8], src: Ipv6Addr, dst: Ipv6Addr, hop_limit: u8) -> Result<Query, Malformed> {
    let packet = icmpv6::Packet::new_checked(message)?;
    if packet.kind() != kind::MLD_QUERY {
        return Err(Malformed::Unknown);
    }
    if message.len() < LEN {
        return Err(Malformed::Truncated);
    }
    if hop_limit != 1 {
        return Err(Malformed::HopLimit);
    }
    if !ipv6::is_link_local(src) {
        return Err(Malformed::Address);
    }
    if !packet.checksum_ok(src, dst) {
        return Err(Malformed::Checksum);
    }
    let code = (packet.rest() >> 16) as u16;
    let (version, max_response) = match message.len() {
        LEN => (1, u32::from(code)),
        28.. => (2, decode(code)),
        _ => return Err(Malformed::Length),
    };
    let group: Ipv6Addr = get(message, 8);
    if !group.is_unspecified() && !group.is_multicast() {
        return Err(Malformed::Address);
    }
    Ok(Query { version, group: Some(group).filter(|g| !g.is_unspecified()), max_response })
}

/// Writes a whole packet with a version 2 report to the front of `out`; `src` is a link-local address, or unspecified while there is none yet. Returns its length.
pub fn report(out: &mut [u8], src: Ipv6Addr, records: &[(RecordType, Ipv6Addr)]) -> Result<usize, Malformed> {
    if records.len() > MAX_RECORDS {
        return Err(Malformed::Length);
    }
    let len = 8 + records.len() * RECORD_LEN;
    let out = out.get_mut(..HEADER_LEN + len).ok_or(Malformed::Truncated)?;
    let (dst, payload_len) = (ipv6::ALL_MLD_ROUTERS, (ROUTER_ALERT.len() + len) as u16);
    let header = ipv6::Repr {
        src,
        dst,
        next_header: IpProto::HOPOPTS,
        payload_len,
        hop_limit: 1,
        ..ipv6::Repr::default()
    };
    header.emit(out)?;
    out[ipv6::HEADER_LEN..HEADER_LEN].copy_from_slice(&ROUTER_ALERT);
    let message = &mut out[HEADER_LEN..];
    message.fill(0);
    message[0] = kind::MLD2_REPORT;
    put(message, 6, records.len() as u16);
    for (record, &(kind, group)) in message[8..].chunks_exact_mut(RECORD_LEN).zip(records) {
        record[0] = kind as u8;
        put(record, 4, group);
    }
    icmpv6::fill_checksum(message, src, dst);
    Ok(HEADER_LEN + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ipv6_ext::router_alert, parse_ipv6};

    const A: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const G: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);

    fn query(len: usize, code: u16, group: Ipv6Addr) -> Vec<u8> {
        let mut message = vec![0; len];
        message[0] = kind::MLD_QUERY;
        put(&mut message, 4, code);
        put(&mut message, 8, group);
        icmpv6::fill_checksum(&mut message, A, G);
        message
    }

    #[test]
    fn queries_of_both_versions_are_read() {
        for (len, code, version, max_response) in
            [(24, 0xffff, 1, 65_535), (28, 1000, 2, 1000), (44, 0x8000, 2, 32_768)]
        {
            let parsed = parse_query(&query(len, code, G), A, G, 1);
            assert_eq!(parsed, Ok(Query { version, group: Some(G), max_response }));
        }
        assert_eq!(parse_query(&query(28, 1, Ipv6Addr::UNSPECIFIED), A, G, 1).unwrap().group, None);
    }

    #[test]
    fn a_query_from_afar_or_about_no_group_is_refused() {
        let good = query(28, 1, G);
        assert_eq!(parse_query(&good, A, G, 2), Err(Malformed::HopLimit));
        assert_eq!(parse_query(&good, G, G, 1), Err(Malformed::Address));
        assert_eq!(parse_query(&query(28, 1, A), A, G, 1), Err(Malformed::Address));
        assert_eq!(parse_query(&query(26, 1, G), A, G, 1), Err(Malformed::Length));
        assert_eq!(parse_query(&good[..23], A, G, 1), Err(Malformed::Truncated));
        assert_eq!(parse_query(&good, A, A, 1), Err(Malformed::Checksum));
    }

    #[test]
    fn a_report_is_a_sound_packet_with_a_router_alert() {
        let mut out = [0; 1280];
        for records in [&[(RecordType::ToExclude, G)][..], &[(RecordType::IsExclude, G); MAX_RECORDS]] {
            let n = report(&mut out, A, records).unwrap();
            let parsed = parse_ipv6(&out[..n]).unwrap();
            assert_eq!((router_alert(&out[..n]), parsed.icmp_type), (Some(0), kind::MLD2_REPORT));
            let message = icmpv6::Packet::new_checked(parsed.l4(&out[..n])).unwrap();
            assert!(message.checksum_ok(A, ipv6::ALL_MLD_ROUTERS));
            assert_eq!(message.rest() as usize, records.len());
        }
        assert_eq!(
            report(&mut out, A, &[(RecordType::IsExclude, G); MAX_RECORDS + 1]),
            Err(Malformed::Length)
        );
    }
}
