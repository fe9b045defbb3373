//! Many rules, and which is the first that matches a packet, in a time that hardly depends on what they are.
//!
//! Bit vectors (Lakshman and Stiliadis, "High-Speed Policy-Based Packet Forwarding Using Efficient Multi-dimensional Range Matching", SIGCOMM
//! 1998): each field of the packet, alone, says which rules it matches, a bit each (`field.rs`), and the first bit that
//! all fields have is the rule. Aggregates (Baboescu and Varghese, "Scalable Packet Classification", SIGCOMM 2001) say which blocks of bits
//! need be looked at.
//!
//! ```text
//!   source       1 . 3 . 5 . 7      protocol   1 2 . . 5 6 7
//!   destination  . 2 3 . 5 . .      ports      . . . . 5 6 .      all  . . . . 5 . .
//! ```
//!
//! Whatever shapes the rules have, however they overlap, a lookup is a search in each field and then at most 64 blocks of each, in order. That is the bound for
//! 16,384 rules; more are in several parts, asked one after the other. A trie or a decision tree answers some sets of rules faster, and
//! others not at all in memory that one has; hash tables for each shape (tuple space search) ask each of a hundred shapes.

use super::{
    Action, Policy,
    field::{BLOCK, Field, RULES, Row},
    intervals::Value,
};
use crate::selector::{Addresses, Ports, Shown, Upper};
use std::net::IpAddr;
use wire::IpProto;

/// An address of a family.
pub(super) trait Address: Value {
    /// If it is of the family.
    fn take(addr: IpAddr) -> Option<Self>;
}

impl Address for u32 {
    fn take(addr: IpAddr) -> Option<u32> {
        match addr {
            IpAddr::V4(v4) => Some(v4.to_bits()),
            IpAddr::V6(_) => None,
        }
    }
}

impl Address for u128 {
    fn take(addr: IpAddr) -> Option<u128> {
        match addr {
            IpAddr::V6(v6) => Some(v6.to_bits()),
            IpAddr::V4(_) => None,
        }
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Vectors<A>(Box<[Part<A>]>);

impl<A: Address> Vectors<A> {
    /// Of policies of one family, in order, with their numbers.
    pub(super) fn new(policies: &[(u32, &Policy)]) -> Vectors<A> {
        Vectors(policies.chunks(RULES).map(Part::new).collect())
    }

    /// The number of the first policy that matches. `shown` may be left out where none looks at the upper layer.
    #[inline(always)]
    pub(super) fn first(&self, src: A, dst: A, shown: Option<Shown>) -> Option<u32> {
        self.0.iter().find_map(|part| part.first(src, dst, shown))
    }
}

/// Rules that a [`Field`] can hold.
#[derive(Debug)]
struct Part<A> {
    numbers: Box<[u32]>,
    src: Field<A>,
    dst: Field<A>,
    /// Unless no rule looks there.
    upper: Option<Box<Layer>>,
}

/// The fields of the upper layer. An ICMP type is a source port here, its code a destination port.
#[derive(Debug)]
struct Layer {
    proto: Field<u16>,
    ports: [Field<u16>; 2],
}

impl<A: Address> Part<A> {
    fn new(policies: &[(u32, &Policy)]) -> Part<A> {
        let field = |addresses: fn(&Policy) -> Addresses| {
            let span = move |(rule, (_, policy)): (usize, &(u32, &Policy))| {
                let (first, last) = addresses(policy).bounds();
                Some((A::take(first)?, A::take(last)?, rule))
            };
            Field::new(policies.len(), policies.iter().enumerate().filter_map(span), std::iter::empty())
        };
        let looks = policies.iter().any(|(_, policy)| !policy.selector.upper.is_any());
        Part {
            numbers: policies.iter().map(|(number, _)| *number).collect(),
            src: field(|policy| policy.selector.src),
            dst: field(|policy| policy.selector.dst),
            upper: looks.then(|| Box::new(Layer::new(policies))),
        }
    }

    #[inline(always)]
    fn first(&self, src: A, dst: A, shown: Option<Shown>) -> Option<u32> {
        let (src, dst) = (self.src.row(src), self.dst.row(dst));
        let rule = match (&self.upper, shown) {
            (Some(layer), Some(shown)) => {
                let [proto, src_port, dst_port] = layer.rows(shown);
                common([src, dst, proto, src_port, dst_port])
            }
            _ => common([src, dst]),
        };
        self.numbers.get(rule?).copied()
    }
}

impl Layer {
    fn new(policies: &[(u32, &Policy)]) -> Layer {
        let rules = || policies.iter().map(|(_, policy)| *policy).enumerate();
        let ported: Vec<u16> = (0..=u8::MAX).filter(|p| IpProto(*p).has_ports()).map(u16::from).collect();
        let protos = rules().flat_map(|(rule, policy)| {
            let (all, some): (_, &[u16]) = match policy.selector.upper {
                Upper::Any => (Some((0, u16::MAX, rule)), &[]),
                Upper::Proto { proto, .. } | Upper::Icmp { proto, .. } => {
                    (Some((proto.0.into(), proto.0.into(), rule)), &[])
                }
                Upper::Ports { .. } => (None, &ported),
            };
            all.into_iter().chain(some.iter().map(move |proto| (*proto, *proto, rule)))
        });
        // What might have to be protected is never let out in clear.
        let guards = |policy: &Policy| policy.action != Action::Bypass;
        let ports = |which: usize| {
            let ports = move |policy: &Policy| ports(policy.selector.upper)[which];
            let span = move |(rule, policy)| {
                let (first, last) = ports(policy).map_or((0, u16::MAX), Ports::bounds);
                (first, last, rule)
            };
            let counts = move |policy: &Policy| ports(policy).is_none() || guards(policy);
            let unseen = rules().filter(move |(_, policy)| counts(policy)).map(|(rule, _)| rule);
            Field::new(policies.len(), rules().map(span), unseen)
        };
        let unseen = rules().filter(|(_, policy)| policy.selector.upper.is_any() || guards(policy));
        let proto = Field::new(policies.len(), protos, unseen.map(|(rule, _)| rule));
        Layer { proto, ports: [0, 1].map(ports) }
    }

    #[inline(always)]
    fn rows(&self, shown: Shown) -> [Row<'_>; 3] {
        let [src_port, dst_port] = &self.ports;
        match (shown.proto, shown.ends) {
            (Some(proto), Some((src, dst))) => {
                [self.proto.row(proto.0.into()), src_port.row(src), dst_port.row(dst)]
            }
            (Some(proto), None) => [self.proto.row(proto.0.into()), src_port.unseen(), dst_port.unseen()],
            (None, _) => [self.proto.unseen(), src_port.unseen(), dst_port.unseen()],
        }
    }
}

/// Source ports or type, destination ports or code; none: all.
fn ports(upper: Upper) -> [Option<Ports>; 2] {
    match upper {
        Upper::Any => [None; 2],
        Upper::Proto { src_port, dst_port, .. } | Upper::Ports { src_port, dst_port } => [src_port, dst_port],
        Upper::Icmp { kind, code, .. } => {
            [Some(Ports::one(kind.into())), code.map(|code| Ports::one(code.into()))]
        }
    }
}

/// The first rule that is in all rows, of which the addresses' are the first two.
#[inline(always)]
fn common<const N: usize>(rows: [Row<'_>; N]) -> Option<usize> {
    let mut left = rows.iter().fold(u64::MAX, |all, row| all & row.aggregate);
    while left != 0 {
        let at = left.trailing_zeros() as usize;
        left &= left - 1;
        // Addresses tell most apart: the upper layer is asked where they agree.
        let mut bits = rows[0].block(at).and(rows[1].block(at));
        if bits.is_empty() {
            continue;
        }
        for row in &rows[2..] {
            bits = bits.and(row.block(at));
        }
        if let Some(first) = bits.first() {
            return Some(at * BLOCK + first);
        }
    }
    None
}
