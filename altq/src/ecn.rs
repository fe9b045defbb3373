//! The traffic class of a frame: what droppers read, mark and clear; and its addresses, for fairness between hosts.
//!
//! ECN is RFC 3168: a packet that says ECT is marked CE instead of being dropped early. The drop precedence is that of
//! the Assured Forwarding classes, RFC 2597. The IPv4 checksum is corrected by the difference (RFC 1624); IPv6 has
//! none. A frame that is neither has no traffic class and is dropped like one that does not speak ECN.

use kern::Mbuf;
use wire::flow::host;

const NOT_ECT: u8 = 0;
const CE: u8 = 3;

/// Where the network header begins, and which.
enum Net {
    V4(usize),
    V6(usize),
}

/// Finds the network header behind the Ethernet header and at most two VLAN tags.
fn net(data: &[u8]) -> Option<Net> {
    let mut at = 12;
    for _ in 0..3 {
        let ether_type: [u8; 2] = data.get(at..at + 2)?.try_into().ok()?;
        at += 2;
        match ether_type {
            [0x08, 0x00] if data.len() >= at + 20 => return Some(Net::V4(at)),
            [0x86, 0xdd] if data.len() >= at + 40 => return Some(Net::V6(at)),
            [0x81, 0x00] | [0x88, 0xa8] => at += 2,
            _ => return None,
        }
    }
    None
}

/// The source and the destination host; if pf has translated the source, twice who sent the packet: then the hosts
/// behind it share, wherever they send to. 0 if it is not IP.
pub(crate) fn hosts(m: &Mbuf) -> [u16; 2] {
    if let Some(sender) = m.hdr().host() {
        return [sender; 2];
    }
    let data = m.data();
    let (source, destination) = match net(data) {
        Some(Net::V4(at)) => (&data[at + 12..at + 16], &data[at + 16..at + 20]),
        Some(Net::V6(at)) => (&data[at + 8..at + 24], &data[at + 24..at + 40]),
        None => return [0; 2],
    };
    [source, destination].map(host)
}

/// The octet with DSCP and ECN.
pub(crate) fn traffic_class(m: &Mbuf) -> Option<u8> {
    let data = m.data();
    Some(match net(data)? {
        Net::V4(at) => data[at + 1],
        Net::V6(at) => data[at] << 4 | data[at + 1] >> 4,
    })
}

/// Replaces it.
fn set_traffic_class(m: &mut Mbuf, new: u8) {
    let data = m.data_mut();
    match net(data) {
        Some(Net::V4(at)) => {
            let old = data[at + 1];
            data[at + 1] = new;
            let sum = u16::from_be_bytes([data[at + 10], data[at + 11]]);
            let mut sum = u32::from(!sum) + u32::from(!u16::from(old)) + u32::from(new);
            sum = (sum & 0xffff) + (sum >> 16);
            sum = (sum & 0xffff) + (sum >> 16);
            data[at + 10..at + 12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        Some(Net::V6(at)) => {
            data[at] = data[at] & 0xf0 | new >> 4;
            data[at + 1] = data[at + 1] & 0x0f | new << 4;
        }
        None => {}
    }
}

/// Marks the packet CE, if it speaks ECN; says whether it does.
pub(crate) fn mark(m: &mut Mbuf) -> bool {
    match traffic_class(m) {
        Some(class) if class & CE != NOT_ECT => {
            if class & CE != CE {
                set_traffic_class(m, class | CE);
            }
            true
        }
        _ => false,
    }
}

/// Zeroes the DSCP and leaves ECN.
pub(crate) fn clear_dscp(m: &mut Mbuf) {
    if let Some(class) = traffic_class(m).filter(|class| class & !CE != 0) {
        set_traffic_class(m, class & CE);
    }
}

/// The drop precedence: 0 low, 1 medium, 2 high; low for what is no Assured Forwarding.
pub(crate) fn drop_precedence(m: &Mbuf) -> u8 {
    let dscp = traffic_class(m).unwrap_or(0) >> 2;
    match (dscp >> 3, dscp & 7) {
        (1..=4, 4) => 1,
        (1..=4, 6) => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::testing::Fixture;
    use proptest::prelude::*;

    fn sum(header: &[u8]) -> u16 {
        let mut sum: u32 = header.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn v4(tos: u8, id: u16, vlan: bool) -> Vec<u8> {
        let mut frame = vec![2; 12];
        if vlan {
            frame.extend([0x81, 0, 0, 7]);
        }
        frame.extend([8, 0]);
        let at = frame.len();
        frame.extend([
            0x45,
            tos,
            0,
            40,
            (id >> 8) as u8,
            id as u8,
            0x40,
            0,
            64,
            6,
            0,
            0,
            192,
            0,
            2,
            1,
            198,
            51,
            100,
            2,
        ]);
        let sum = !sum(&frame[at..]);
        frame[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
        frame.extend([0; 20]);
        frame
    }

    proptest! {
        #[test]
        fn whatever_is_written_the_checksum_stays_right(tos: u8, id: u16, vlan: bool, new: u8) {
            let f = Fixture::new(2);
            let frame = v4(tos, id, vlan);
            let mut m = f.packet(&frame);
            prop_assert_eq!(traffic_class(&m), Some(tos));
            set_traffic_class(&mut m, new);
            prop_assert_eq!(traffic_class(&m), Some(new));
            let at = if vlan { 18 } else { 14 };
            prop_assert_eq!(sum(&m.data()[at..at + 20]), 0xffff);
            f.done(m);
        }
    }

    #[test]
    fn ect_becomes_ce_and_not_ect_stays() {
        let f = Fixture::new(2);
        for (before, after, speaks) in
            [(0xb8, 0xb8, false), (0xb9, 0xbb, true), (0xba, 0xbb, true), (3, 3, true)]
        {
            let mut m = f.packet(&v4(before, 1, false));
            assert_eq!((mark(&mut m), traffic_class(&m)), (speaks, Some(after)));
            clear_dscp(&mut m);
            assert_eq!(traffic_class(&m), Some(after & 3));
            f.done(m);
        }
        let mut six = vec![2; 12];
        six.extend([0x86, 0xdd, 0x61, 0x2a, 0xbc, 0xde]);
        six.extend([0; 36]);
        let mut m = f.packet(&six);
        assert_eq!(traffic_class(&m), Some(0x12));
        assert!(mark(&mut m));
        assert_eq!(m.data()[14..18], [0x61, 0x3a, 0xbc, 0xde], "version and flow label stay");
        f.done(m);
    }

    #[test]
    fn what_is_not_ip_has_no_traffic_class() {
        let f = Fixture::new(2);
        for bytes in [vec![], vec![0; 13], vec![0x88; 60], [vec![1; 12], vec![8, 0], vec![0x45; 19]].concat()]
        {
            let mut m = f.packet(&bytes);
            assert!(!mark(&mut m));
            assert_eq!((traffic_class(&m), drop_precedence(&m)), (None, 0));
            clear_dscp(&mut m);
            assert_eq!(m.data(), bytes);
            f.done(m);
        }
    }

    #[test]
    fn the_drop_precedence_is_that_of_assured_forwarding() {
        let f = Fixture::new(2);
        for (dscp, precedence) in [(0, 0), (10, 0), (12, 1), (14, 2), (38, 2), (46, 0), (6, 0), (54, 0)] {
            let m = f.packet(&v4(dscp << 2, 1, false));
            assert_eq!(drop_precedence(&m), precedence, "{dscp}");
            f.done(m);
        }
    }
}
