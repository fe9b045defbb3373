//! What can be wrong with octets that claim to be a packet.
//!
//! One octet, `Copy`, so that it travels in a register and indexes a table of drop counters. It says what was wrong, not where: the
//! caller knows which parser it asked.

/// Why octets were refused. See [`Malformed::ALL`] for a table of counters by [`Malformed::index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum Malformed {
    /// Fewer octets than the fixed header needs.
    #[error("shorter than its fixed header")]
    Truncated,
    /// The IP version is not the one the caller (or the ethertype) announced.
    #[error("wrong ip version")]
    Version,
    /// IHL or data offset below the minimum, or beyond the packet.
    #[error("header length out of range")]
    HeaderLength,
    /// A total, payload or datagram length that the octets present do not bear out.
    #[error("length field disagrees with the octets present")]
    Length,
    /// A checksum that does not verify.
    #[error("checksum does not verify")]
    Checksum,
    /// An option with length zero, or one that runs over its area, or one with a wrong length.
    #[error("option with a bad length")]
    Option,
    /// IPv6 extension headers: too many, misplaced, or cut off.
    #[error("bad ipv6 extension header chain")]
    ExtChain,
    /// Fragment offset, length and flag that cannot belong to one datagram of at most 65,535 octets.
    #[error("impossible fragment")]
    Fragment,
    /// A field with a value the protocol forbids.
    #[error("field with a forbidden value")]
    Field,
    /// Neighbour discovery that did not come from this link (hop limit below 255).
    #[error("hop limit is not 255")]
    HopLimit,
    /// An address the message may not carry in that place.
    #[error("address not allowed here")]
    Address,
    /// A format or message type that the parser does not know.
    #[error("unknown format")]
    Unknown,
}

impl Malformed {
    /// Every reason, in the order of [`Malformed::index`].
    pub const ALL: [Self; 12] = [
        Self::Truncated,
        Self::Version,
        Self::HeaderLength,
        Self::Length,
        Self::Checksum,
        Self::Option,
        Self::ExtChain,
        Self::Fragment,
        Self::Field,
        Self::HopLimit,
        Self::Address,
        Self::Unknown,
    ];

    /// Position in [`Malformed::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Malformed;

    #[test]
    fn the_index_of_a_reason_is_its_place_in_the_list() {
        for (i, m) in Malformed::ALL.into_iter().enumerate() {
            assert_eq!(m.index(), i, "{m:?}");
        }
        assert_eq!(size_of::<Result<(), Malformed>>(), 1);
    }
}
