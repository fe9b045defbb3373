//! Which source ports a translation chooses from (BSD: `pf_get_sport`, `pf_get_mape_sport`).
//!
//! The ports of a choice are numbered through from 0, so that a search may begin at any of them and go round. Those of
//! a MAP-E port set (RFC 7597, section 5.1) lie in blocks of the same length, one for each value of the bits before
//! the identifier but 0, since block 0 has the well-known ports:
//!
//! ```text
//!      offset     length                   psid-offset 6, psid-len 8, psid 0x34:
//!   ┌───────────┬─────────┬──────────┐       1232-1235, 2256-2259, ... 64720-64723
//!   │ block > 0 │  psid   │ any      │
//!   └───────────┴─────────┴──────────┘
//! ```

use wire::IpProto;

use crate::pool::{NAT_PORTS, Pool, PoolPorts, PortSet};

/// Which source port a translated flow gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourcePorts {
    /// The one it has.
    Static,
    /// One from here to there.
    Range(u16, u16),
    /// One of a set that a provider has given to this customer; the others are those of other customers.
    Set(PortSet),
}

impl SourcePorts {
    /// What a pool says.
    pub(super) fn of(pool: &Pool) -> SourcePorts {
        match pool.ports {
            PoolPorts::Static => SourcePorts::Static,
            PoolPorts::Range(first, 0) => SourcePorts::Range(first, first),
            PoolPorts::Range(first, last) => SourcePorts::Range(first.min(last), first.max(last)),
            PoolPorts::Default => SourcePorts::Range(NAT_PORTS.0, NAT_PORTS.1),
            PoolPorts::PortSet(set) => SourcePorts::Set(set),
        }
    }

    /// What a flow of this protocol chooses from; nothing if it keeps what it has.
    ///
    /// Identifiers of ICMP queries may be any, but in a port set they are ports like others: it is by them that the
    /// provider's relay finds the customer whom an answer is for. (pf of FreeBSD gives them any there, too.)
    pub(super) fn choice(self, proto: IpProto) -> Option<Choice> {
        match (proto, self) {
            (IpProto::TCP | IpProto::UDP, SourcePorts::Range(first, last)) => {
                Some(Choice::Range { first, last })
            }
            (IpProto::ICMP | IpProto::ICMPV6, SourcePorts::Range(..)) => {
                Some(Choice::Range { first: 1, last: u16::MAX })
            }
            (IpProto::TCP | IpProto::UDP | IpProto::ICMP | IpProto::ICMPV6, SourcePorts::Set(set)) => {
                Some(Choice::Set(set))
            }
            // `static-port`, and protocols without ports that could change.
            _ => None,
        }
    }

    /// Whether a sender of UDP from this port may have got that.
    pub(super) fn have(self, from: u16, port: u16) -> bool {
        match self {
            SourcePorts::Static => port == from,
            SourcePorts::Range(first, last) => (first..=last).contains(&port),
            SourcePorts::Set(set) => set.has(port),
        }
    }
}

/// Ports to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Range { first: u16, last: u16 },
    Set(PortSet),
}

impl Choice {
    /// Those of `nat`, unless a rule says otherwise.
    pub(super) const USUAL: Choice = Choice::Range { first: NAT_PORTS.0, last: NAT_PORTS.1 };

    /// How many there are; at least one.
    pub(super) fn count(self) -> u32 {
        match self {
            Choice::Range { first, last } => u32::from(last - first) + 1,
            Choice::Set(set) => ((1 << set.offset) - 1) << set.free_bits(),
        }
    }

    /// The port with this number, which is below [`count`](Self::count).
    pub(super) fn at(self, number: u32) -> u16 {
        match self {
            Choice::Range { first, .. } => first + number as u16,
            Choice::Set(set) => {
                let free = set.free_bits();
                let block = (number >> free) + 1;
                let within = number & ((1 << free) - 1);
                (block << (16 - u32::from(set.offset)) | u32::from(set.id) << free | within) as u16
            }
        }
    }
}

impl PortSet {
    fn has(self, port: u16) -> bool {
        let (port, free) = (u32::from(port), self.free_bits());
        let id = port >> free & ((1 << self.length) - 1);
        id == u32::from(self.id) && port >> (16 - u32::from(self.offset)) != 0
    }

    /// Bits behind the identifier.
    fn free_bits(self) -> u32 {
        16_u32.saturating_sub(u32::from(self.offset) + u32::from(self.length))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// A set as pf.conf may have it.
    fn sets() -> impl Strategy<Value = PortSet> {
        (1_u8..=15).prop_flat_map(|offset| {
            (1_u8..=16 - offset).prop_flat_map(move |length| {
                let ids = 0..=u16::MAX >> (16 - length);
                ids.prop_map(move |id| PortSet { offset, length, id })
            })
        })
    }

    /// The identifier of a port, as a border relay reads it, and the block it is in.
    fn read(set: PortSet, port: u16) -> (u32, u32) {
        let bits = format!("{port:016b}");
        let (block, rest) = bits.split_at(set.offset.into());
        let (id, _) = rest.split_at(set.length.into());
        (u32::from_str_radix(block, 2).unwrap(), u32::from_str_radix(id, 2).unwrap())
    }

    proptest! {
        #[test]
        fn a_set_has_every_port_with_its_identifier_outside_of_block_0_once_and_no_other(set in sets()) {
            let choice = Choice::Set(set);
            let ports: Vec<u16> = (0..choice.count()).map(|n| choice.at(n)).collect();
            let wanted: BTreeSet<u16> = (0..=u16::MAX)
                .filter(|&port| matches!(read(set, port), (1.., id) if id == u32::from(set.id)))
                .collect();
            prop_assert_eq!(ports.len(), wanted.len());
            for port in 0..=u16::MAX {
                prop_assert_eq!(SourcePorts::Set(set).have(0, port), wanted.contains(&port));
            }
            prop_assert_eq!(ports.into_iter().collect::<BTreeSet<_>>(), wanted);
        }
    }

    #[test]
    fn the_set_of_the_standard_is_what_its_appendix_says() {
        // RFC 7597, appendix A, example 1.
        let choice = Choice::Set(PortSet { offset: 6, length: 8, id: 0x34 });
        let ports: Vec<u16> = (0..choice.count()).map(|n| choice.at(n)).collect();
        assert_eq!(ports[..5], [1232, 1233, 1234, 1235, 2256]);
        assert_eq!(ports[ports.len() - 4..], [64720, 64721, 64722, 64723]);
    }
}
