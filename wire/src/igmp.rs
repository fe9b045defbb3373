//! IGMP as a host speaks it (RFC 3376): queries of all three versions are read, version 3 reports, and version 2 reports and leaves for links with an old
//! querier, are written. No source lists: members take every source. No router side.
//!
//! ```text
//! |     0x11      | max resp code |           checksum            |  0   query
//! |                            group                              |  4   zero: all groups; here a version 2 query ends
//! | resv S qrv    |     qqic      |       number of sources       |  8
//!
//! |     0x22      |    reserved   |           checksum            |  0   report, version 3
//! |           reserved            |       number of records       |  4
//! |     type      |  aux data len |       number of sources       |  8   one record
//! |                            group                              | 12
//! ```

use core::net::Ipv4Addr;

use crate::{
    IpProto, Malformed, checksum,
    ipv4::{self, ALL_IGMP_ROUTERS, ALL_ROUTERS, HeaderOption},
    view::{get, put},
};

/// Octets of a message of versions 1 and 2.
pub const LEN: usize = 8;
/// Octets of a report and of each record in it.
const RECORD_LEN: usize = 8;
/// Octets of the IPv4 header with its router alert.
const HEADER_LEN: usize = ipv4::HEADER_LEN + 4;
/// Groups in one report, at most: it must fit the least MTU that hosts may rely on.
pub const MAX_RECORDS: usize = 64;

/// What a record of a report says about its group (RFC 3376, 4.2.12). MLDv2 has the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordType {
    /// An answer: no member here, but for the sources listed.
    IsInclude = 1,
    /// An answer: a member, for all sources but those listed.
    IsExclude = 2,
    /// Left the group.
    ToInclude = 3,
    /// Joined the group.
    ToExclude = 4,
}

/// A query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Version of the querier: 1, 2 or 3.
    pub version: u8,
    /// The group asked about; `None`: all of them.
    pub group: Option<Ipv4Addr>,
    /// Tenths of a second within which members answer.
    pub max_response: u32,
}

/// A code of RFC 3376, 4.1.1: small numbers are themselves, large ones a floating point number.
const fn decode(code: u8) -> u32 {
    match code {
        0..=127 => code as u32,
        _ => (code as u32 & 0x0f | 0x10) << ((code as u32 >> 4 & 7) + 3),
    }
}

/// Whether another host says it is a member of a group, in versions 1 and 2: then we need not.
pub fn reported_group(message: &[u8]) -> Option<Ipv4Addr> {
    let ok =
        message.len() >= LEN && matches!(message[0], 0x12 | 0x16) && checksum::transport_sum(0, message) == 0;
    ok.then(|| get(message, 4))
}

/// Reads a query. `ttl` is that of its packet: queries do not cross routers.
pub fn parse_query(message: &[u8], ttl: u8) -> Result<Query, Malformed> {
    if message.len() < LEN {
        return Err(Malformed::Truncated);
    }
    if message[0] != 0x11 {
        return Err(Malformed::Unknown);
    }
    if ttl != 1 {
        return Err(Malformed::HopLimit);
    }
    if checksum::transport_sum(0, message) != 0 {
        return Err(Malformed::Checksum);
    }
    let code = message[1];
    let (version, max_response) = match (message.len(), code) {
        (LEN, 0) => (1, 100),
        (LEN, code) => (2, u32::from(code)),
        (12.., code) => (3, decode(code)),
        _ => return Err(Malformed::Length),
    };
    let group: Ipv4Addr = get(message, 4);
    if !group.is_unspecified() && !group.is_multicast() {
        return Err(Malformed::Address);
    }
    Ok(Query { version, group: Some(group).filter(|g| !g.is_unspecified()), max_response })
}

/// Writes the IPv4 header with its router alert (RFC 2113); hop count 1, precedence "internetwork control".
fn emit_header(out: &mut [u8], src: Ipv4Addr, dst: Ipv4Addr, len: usize) -> Result<&mut [u8], Malformed> {
    let out = out.get_mut(..HEADER_LEN + len).ok_or(Malformed::Truncated)?;
    let payload_len = len as u16 + 4;
    let header =
        ipv4::Repr { src, dst, proto: IpProto::IGMP, payload_len, tos: 0xc0, ttl: 1, ..Default::default() };
    header.emit(out)?;
    out[0] = 0x46;
    out[ipv4::HEADER_LEN..HEADER_LEN].copy_from_slice(&[HeaderOption::ROUTER_ALERT, 4, 0, 0]);
    ipv4::Packet::new_unchecked(&mut *out).fill_checksum();
    Ok(&mut out[HEADER_LEN..])
}

fn fill_checksum(message: &mut [u8]) {
    let checksum = checksum::transport_sum(0, message);
    put(message, 2, checksum);
}

/// Writes a whole packet with a version 3 report to the front of `out`. Returns its length.
pub fn report(out: &mut [u8], src: Ipv4Addr, records: &[(RecordType, Ipv4Addr)]) -> Result<usize, Malformed> {
    if records.len() > MAX_RECORDS {
        return Err(Malformed::Length);
    }
    let len = LEN + records.len() * RECORD_LEN;
    let message = emit_header(out, src, ALL_IGMP_ROUTERS, len)?;
    message.fill(0);
    message[0] = 0x22;
    put(message, 6, records.len() as u16);
    for (record, &(kind, group)) in message[LEN..].chunks_exact_mut(RECORD_LEN).zip(records) {
        record[0] = kind as u8;
        put(record, 4, group);
    }
    fill_checksum(message);
    Ok(HEADER_LEN + len)
}

/// Writes a whole packet with a version 2 report (a member) or leave (no member any more) to the front of `out`. Returns its length.
pub fn report_v2(out: &mut [u8], src: Ipv4Addr, group: Ipv4Addr, member: bool) -> Result<usize, Malformed> {
    let (kind, dst) = if member { (0x16, group) } else { (0x17, ALL_ROUTERS) };
    let message = emit_header(out, src, dst, LEN)?;
    message.fill(0);
    message[0] = kind;
    put(message, 4, group);
    fill_checksum(message);
    Ok(HEADER_LEN + LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Flags, parse_ipv4};

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const G: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

    fn query(len: usize, code: u8, group: Ipv4Addr) -> Vec<u8> {
        let mut message = vec![0; len];
        (message[0], message[1]) = (0x11, code);
        put(&mut message, 4, group);
        fill_checksum(&mut message);
        message
    }

    #[test]
    fn queries_of_all_versions_are_read() {
        for (len, code, version, max_response) in
            [(8, 0, 1, 100), (8, 200, 2, 200), (12, 100, 3, 100), (16, 0x8f, 3, 248)]
        {
            let parsed = parse_query(&query(len, code, G), 1);
            assert_eq!(parsed, Ok(Query { version, group: Some(G), max_response }));
        }
        assert_eq!(parse_query(&query(8, 100, Ipv4Addr::UNSPECIFIED), 1).unwrap().group, None);
    }

    #[test]
    fn a_query_from_afar_or_about_no_group_is_refused() {
        assert_eq!(parse_query(&query(8, 100, G), 2), Err(Malformed::HopLimit));
        assert_eq!(parse_query(&query(8, 100, A), 1), Err(Malformed::Address));
        assert_eq!(parse_query(&query(10, 100, G), 1), Err(Malformed::Length));
        let mut wrong = query(8, 100, G);
        wrong[7] ^= 1;
        assert_eq!(parse_query(&wrong, 1), Err(Malformed::Checksum));
    }

    #[test]
    fn reports_are_sound_packets_with_a_router_alert() {
        let mut out = [0; 600];
        let n =
            report(&mut out, A, &[(RecordType::ToExclude, G), (RecordType::ToInclude, ALL_ROUTERS)]).unwrap();
        let parsed = parse_ipv4(&out[..n]).unwrap();
        assert!(parsed.flags.contains(Flags::OPTIONS) && parsed.proto == IpProto::IGMP);
        assert_eq!(ipv4::Packet::new_checked(&out[..n]).unwrap().ttl(), 1);
        let message = parsed.l4(&out[..n]);
        assert_eq!(checksum::transport_sum(0, message), 0);
        assert_eq!(message[6..16], [0, 2, 4, 0, 0, 0, 239, 1, 2, 3]);
        assert_eq!(report(&mut out, A, &[(RecordType::IsExclude, G); 65]), Err(Malformed::Length));
        let n = report(&mut out, A, &[(RecordType::IsExclude, G); 64]).unwrap();
        assert!(n <= 576);
    }

    #[test]
    fn what_another_member_says_in_version_2_is_understood() {
        let mut out = [0; 32];
        let n = report_v2(&mut out, A, G, true).unwrap();
        assert_eq!(reported_group(&out[24..n]), Some(G));
        let n = report_v2(&mut out, A, G, false).unwrap();
        assert_eq!(reported_group(&out[24..n]), None);
        assert_eq!(ipv4::Packet::new_checked(&out[..n]).unwrap().dst(), ALL_ROUTERS);
    }
}
