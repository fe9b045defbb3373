//! IPv4 addresses within IPv6 addresses (RFC 6052, 2.2).

use core::net::{Ipv4Addr, Ipv6Addr};

/// Prefix lengths behind which an IPv4 address can be.
pub const PREFIX_LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// The octets of the address within one with a prefix of this length: octet 8 is left out.
fn places(len: u8) -> Option<[usize; 4]> {
    PREFIX_LENGTHS.contains(&len).then(|| {
        let first = usize::from(len / 8);
        core::array::from_fn(|i| {
            let at = first + i;
            if first <= 8 && at >= 8 { at + 1 } else { at }
        })
    })
}

/// The IPv6 address in this prefix that stands for an IPv4 address.
pub fn embed(prefix: Ipv6Addr, len: u8, addr: Ipv4Addr) -> Option<Ipv6Addr> {
    let places = places(len)?;
    let mut octets = prefix.octets();
    octets[usize::from(len / 8)..].fill(0);
    for (at, octet) in places.into_iter().zip(addr.octets()) {
        octets[at] = octet;
    }
    Some(octets.into())
}

/// The IPv4 address that an IPv6 address with a prefix of this length stands for.
pub fn extract(addr: Ipv6Addr, len: u8) -> Option<Ipv4Addr> {
    let octets = addr.octets();
    places(len).map(|places| places.map(|at| octets[at]).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const ADDR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    #[test]
    fn a_prefix_of_any_length_gives_the_address_back() {
        for len in PREFIX_LENGTHS {
            let embedded = embed(PREFIX, len, ADDR).unwrap();
            assert_eq!(extract(embedded, len), Some(ADDR), "{len}");
            assert_eq!(embedded.octets()[8], if len == 96 { PREFIX.octets()[8] } else { 0 });
        }
        assert_eq!(
            (embed(PREFIX, 65, ADDR), extract(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xc633, 0x6402), 96)),
            (None, Some(ADDR))
        );
    }
}
