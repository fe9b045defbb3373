//! What makes packets one flow, and the symmetric hash that keeps both directions of it on one worker.
//!
//! A key holds addresses, protocol and two 16-bit ports. For ICMP queries both ports are the identifier, so that a request and its reply are the two
//! directions of one flow. For ESP and AH the two ports are the halves of the SPI. For a fragment of any kind the ports are zero: the fragments of one
//! datagram must meet, and only the first has ports. An IPv6 fragment's protocol is taken as 44, because its fragments need not agree on the next
//! header (RFC 8200, 4.5).
//!
//! The hash is symmetric because the two ends, address and port, are multiplied with each other, both under one key: nothing is compared, so no branch
//! can be mispredicted. It is keyed by two words made afresh at each
//! boot, so that a stranger cannot aim many flows at one worker or one row. It is four multiplications at most and no cryptographic function.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::IpProto;

/// The key of the hash: two random words, made once a boot by the caller.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashSeed {
    k0: u64,
    k1: u64,
}

impl HashSeed {
    /// A key from two words of randomness. Fixed words give fixed hashes, for tests.
    pub const fn new(a: u64, b: u64) -> Self {
        // Odd constants (digits of the golden ratio and of pi), so that the words zero, zero are no special case.
        Self { k0: a ^ 0x9e37_79b9_7f4a_7c15, k1: b ^ 0x2437_54a8_885a_308d }
    }
}

impl core::fmt::Debug for HashSeed {
    /// The words are a secret of the process.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashSeed(..)")
    }
}

/// A number for a host: the same wherever it is worked out, and the same for two hosts only by chance. For counting
/// flows by host, where a stranger who meets another's number takes no more than that one's share.
#[inline]
pub fn host(address: &[u8]) -> u16 {
    let words = address.chunks_exact(4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
    let folded = words.fold(0_u32, |sum, word| sum.rotate_left(5) ^ word);
    // The finalizer of MurmurHash3, but for its last step: neighbours shall not be neighbours.
    let mixed = (folded ^ folded >> 16).wrapping_mul(0x85eb_ca6b);
    ((mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35) >> 16) as u16
}

/// The product of two words, both halves of it mixed.
#[inline(always)]
const fn mix(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// Mixes two ends, which may come in either order because a product does not care, and what both directions share.
#[inline(always)]
const fn symmetric(a: u64, b: u64, shared: u64, seed: &HashSeed) -> u32 {
    let ends = mix(a ^ seed.k1, b ^ seed.k1);
    let hash = mix(ends ^ shared, seed.k0 ^ 0x1319_8a2e_0370_7344);
    (hash ^ hash >> 32) as u32
}

/// Whether the ports of this protocol are the halves of an SPI, which both directions of a key share.
#[inline(always)]
const fn is_spi(proto: IpProto) -> bool {
    matches!(proto, IpProto::ESP | IpProto::AH)
}

/// Splits ports into those of the ends and what is shared.
#[inline(always)]
const fn split_ports(proto: IpProto, src: u16, dst: u16) -> (u64, u64, u64) {
    if is_spi(proto) {
        (0, 0, (src as u64) << 24 | (dst as u64) << 8 | proto.0 as u64)
    } else {
        (src as u64, dst as u64, proto.0 as u64)
    }
}

/// Key of an IPv4 flow, as one direction sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey4 {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Source port (see the module for what stands here without ports).
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Protocol.
    pub proto: IpProto,
}

/// Key of an IPv6 flow, as one direction sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey6 {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Source port (see the module for what stands here without ports).
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Protocol behind the extension headers.
    pub proto: IpProto,
}

macro_rules! directions {
    ($t:ident) => {
        impl $t {
            /// The key of the other direction. An SPI stays as it is: the two directions of a tunnel are two flows with nothing in common but the ends.
            #[must_use]
            pub const fn reversed(self) -> Self {
                let (src_port, dst_port) = if is_spi(self.proto) {
                    (self.src_port, self.dst_port)
                } else {
                    (self.dst_port, self.src_port)
                };
                Self { src: self.dst, dst: self.src, src_port, dst_port, proto: self.proto }
            }

            /// The SPI, of an ESP or AH flow.
            pub const fn spi(&self) -> Option<u32> {
                if is_spi(self.proto) {
                    Some((self.src_port as u32) << 16 | self.dst_port as u32)
                } else {
                    None
                }
            }
        }
    };
}
directions!(FlowKey4);
directions!(FlowKey6);

impl FlowKey4 {
    /// The symmetric hash.
    #[inline(always)]
    pub const fn hash(&self, seed: &HashSeed) -> u32 {
        let (sport, dport, shared) = split_ports(self.proto, self.src_port, self.dst_port);
        symmetric(
            (self.src.to_bits() as u64) << 16 | sport,
            (self.dst.to_bits() as u64) << 16 | dport,
            shared,
            seed,
        )
    }
}

impl FlowKey6 {
    /// The symmetric hash.
    #[inline(always)]
    pub const fn hash(&self, seed: &HashSeed) -> u32 {
        let (sport, dport, shared) = split_ports(self.proto, self.src_port, self.dst_port);
        symmetric(end6(self.src, sport, seed), end6(self.dst, dport, seed), shared, seed)
    }
}

#[inline(always)]
const fn end6(addr: Ipv6Addr, port: u64, seed: &HashSeed) -> u64 {
    let bits = addr.to_bits();
    mix((bits >> 64) as u64 ^ seed.k0, bits as u64 ^ seed.k1) ^ port
}

/// Key of a flow of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowKey {
    /// IPv4.
    V4(FlowKey4),
    /// IPv6.
    V6(FlowKey6),
}

impl FlowKey {
    /// The symmetric hash: equal for a key and its reverse.
    #[inline]
    pub const fn hash(&self, seed: &HashSeed) -> u32 {
        match self {
            Self::V4(key) => key.hash(seed),
            Self::V6(key) => key.hash(seed),
        }
    }

    /// The key of the other direction.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::V4(key) => Self::V4(key.reversed()),
            Self::V6(key) => Self::V6(key.reversed()),
        }
    }

    /// Source address.
    pub const fn src(&self) -> IpAddr {
        match self {
            Self::V4(key) => IpAddr::V4(key.src),
            Self::V6(key) => IpAddr::V6(key.src),
        }
    }

    /// Destination address.
    pub const fn dst(&self) -> IpAddr {
        match self {
            Self::V4(key) => IpAddr::V4(key.dst),
            Self::V6(key) => IpAddr::V6(key.dst),
        }
    }

    /// Source and destination port.
    pub const fn ports(&self) -> (u16, u16) {
        match self {
            Self::V4(key) => (key.src_port, key.dst_port),
            Self::V6(key) => (key.src_port, key.dst_port),
        }
    }

    /// Protocol.
    pub const fn proto(&self) -> IpProto {
        match self {
            Self::V4(key) => key.proto,
            Self::V6(key) => key.proto,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_has_one_number_in_a_header_and_among_an_address_s_bits() {
        let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 10), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, 2));
        assert_eq!(host(&v4.octets()), host(&u128::from(v4.to_bits()).to_be_bytes()));
        assert_eq!(host(&v6.octets()), host(&v6.to_bits().to_be_bytes()));
        let all: std::collections::HashSet<u16> = (0..=255).map(|n| host(&[192, 0, 2, n]) % 1024).collect();
        assert!(all.len() > 200, "the hosts of a network have {} numbers", all.len());
    }

    proptest! {
        #[test]
        fn both_directions_have_one_hash(src: u128, dst: u128, sp: u16, dp: u16, proto: u8, a: u64, b: u64) {
            let seed = HashSeed::new(a, b);
            let proto = IpProto(proto);
            let v4 = FlowKey4 {
                src: Ipv4Addr::from_bits(src as u32), dst: Ipv4Addr::from_bits(dst as u32), src_port: sp, dst_port: dp, proto,
            };
            let v6 = FlowKey6 { src: Ipv6Addr::from_bits(src), dst: Ipv6Addr::from_bits(dst), src_port: sp, dst_port: dp, proto };
            for key in [FlowKey::V4(v4), FlowKey::V6(v6)] {
                prop_assert_eq!(key.hash(&seed), key.reversed().hash(&seed));
                prop_assert_eq!(key.reversed().reversed(), key);
            }
        }
    }

    /// Neighbouring addresses and ports are what real networks have: the low bits choose the worker, all bits the row.
    #[test]
    fn neighbouring_flows_spread_evenly_over_low_and_high_bits() {
        for words in [(0, 0), (1, 2), (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210)] {
            let seed = HashSeed::new(words.0, words.1);
            let (mut low, mut high) = ([0_u32; 64], [0_u32; 64]);
            for host in 0..64_u32 {
                for port in 0..256_u16 {
                    let key = FlowKey4 {
                        src: Ipv4Addr::from_bits(0x0a00_0000 + host),
                        dst: Ipv4Addr::new(192, 0, 2, 1),
                        src_port: 1024 + port,
                        dst_port: 443,
                        proto: IpProto::TCP,
                    };
                    let hash = key.hash(&seed);
                    low[hash as usize % 64] += 1;
                    high[hash as usize >> 26] += 1;
                }
            }
            // 256 expected in each; six standard deviations are 96.
            for bins in [low, high] {
                assert!(bins.iter().all(|&n| (160..=352).contains(&n)), "{words:x?} {bins:?}");
            }
        }
    }

    #[test]
    fn the_spi_makes_the_flow_of_esp() {
        let key = |spi: u32| FlowKey4 {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            src_port: (spi >> 16) as u16,
            dst_port: spi as u16,
            proto: IpProto::ESP,
        };
        let seed = HashSeed::new(1, 2);
        assert_ne!(key(0x1000_0001).hash(&seed), key(0x1000_0002).hash(&seed));
        assert_eq!(key(0x1234_5678).reversed().spi(), Some(0x1234_5678));
    }
}
