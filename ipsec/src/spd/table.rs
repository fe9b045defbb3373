//! Policies compiled for lookup: a table a family, and in it a list of rules for each first octet of the destination.
//!
//! Most packets of most routers match no policy, and most lists are empty or of one rule: then a lookup is a load and
//! two masked compares. What is the same for all packets (masks, whether the upper layer matters, what an unseen port
//! means) is worked out here. A table of few rules has no lists: going through it is as fast.
//!
//! Policies stay in order within each list, so the first match of the list is the first match of all.

use super::{Action, Policy};
use crate::selector::{Ends, Match, Packet, Shown, Upper, mask4, mask6};
use std::net::IpAddr;

/// Up to so many rules are gone through without lists.
const FEW: usize = 4;

/// An address as a number.
trait Bits: Copy + PartialEq + std::ops::BitAnd<Output = Self> {
    fn first_octet(self) -> usize;
    fn take(addr: IpAddr) -> Option<Self>;
    fn mask(len: u8) -> Self;
}

impl Bits for u32 {
    #[inline(always)]
    fn first_octet(self) -> usize {
        (self >> 24) as usize
    }
    fn take(addr: IpAddr) -> Option<u32> {
        match addr {
            IpAddr::V4(v4) => Some(v4.to_bits()),
            IpAddr::V6(_) => None,
        }
    }
    fn mask(len: u8) -> u32 {
        mask4(len)
    }
}

impl Bits for u128 {
    #[inline(always)]
    fn first_octet(self) -> usize {
        (self >> 120) as usize
    }
    fn take(addr: IpAddr) -> Option<u128> {
        match addr {
            IpAddr::V6(v6) => Some(v6.to_bits()),
            IpAddr::V4(_) => None,
        }
    }
    fn mask(len: u8) -> u128 {
        mask6(len)
    }
}

#[derive(Clone, Copy, Debug)]
struct Rule<A> {
    src: A,
    src_mask: A,
    dst: A,
    dst_mask: A,
    upper: Upper,
    /// Whether ports that can not be seen count as right.
    unseen: bool,
    policy: u32,
}

impl<A: Bits> Rule<A> {
    fn new(at: u32, policy: &Policy) -> Option<Rule<A>> {
        let (src, dst) = (policy.selector.src, policy.selector.dst);
        Some(Rule {
            src: A::take(src.addr())?,
            src_mask: A::mask(src.len()),
            dst: A::take(dst.addr())?,
            dst_mask: A::mask(dst.len()),
            upper: policy.selector.upper,
            unseen: policy.action != Action::Bypass,
            policy: at,
        })
    }

    #[inline(always)]
    fn matches(&self, src: A, dst: A, packet: &Packet<'_>, shown: &mut Option<Shown>) -> bool {
        if dst & self.dst_mask != self.dst || src & self.src_mask != self.src {
            return false;
        }
        if self.upper.is_any() {
            return true;
        }
        match self.upper.compare(*shown.get_or_insert_with(|| packet.shown())) {
            Match::Yes => true,
            Match::No => false,
            Match::Unseen => self.unseen,
        }
    }

    /// The first octets that destinations of this rule have.
    fn octets(&self) -> std::ops::RangeInclusive<usize> {
        let first = self.dst.first_octet();
        first..=first + (255 - self.dst_mask.first_octet())
    }
}

#[derive(Debug)]
struct Table<A> {
    rules: Box<[Rule<A>]>,
    /// Where the list of each first octet begins in `lists`; 257 of them, or none with few rules.
    begin: Box<[u32]>,
    /// The lists, of places in `rules`.
    lists: Box<[u32]>,
}

impl<A> Default for Table<A> {
    fn default() -> Self {
        Table { rules: Box::default(), begin: Box::default(), lists: Box::default() }
    }
}

impl<A: Bits> Table<A> {
    fn new(rules: Vec<Rule<A>>) -> Table<A> {
        let (mut begin, mut lists) = (vec![], vec![]);
        if rules.len() > FEW {
            for octet in 0..256 {
                begin.push(lists.len() as u32);
                lists.extend(
                    (0u32..).zip(&rules).filter(|(_, r)| r.octets().contains(&octet)).map(|(at, _)| at),
                );
            }
            begin.push(lists.len() as u32);
        }
        Table { rules: rules.into(), begin: begin.into(), lists: lists.into() }
    }

    #[inline(always)]
    fn first(&self, src: A, dst: A, packet: &Packet<'_>) -> Option<u32> {
        let mut shown = None;
        if self.begin.is_empty() {
            return self.rules.iter().find(|r| r.matches(src, dst, packet, &mut shown)).map(|r| r.policy);
        }
        let octet = dst.first_octet();
        let list = self.lists.get(*self.begin.get(octet)? as usize..*self.begin.get(octet + 1)? as usize)?;
        let mut rules = list.iter().filter_map(|at| self.rules.get(*at as usize));
        rules.find(|r| r.matches(src, dst, packet, &mut shown)).map(|r| r.policy)
    }
}

/// The policies of one direction.
#[derive(Debug, Default)]
pub(super) struct Tables {
    v4: Table<u32>,
    v6: Table<u128>,
}

impl Tables {
    pub(super) fn new<'p>(policies: impl Iterator<Item = (u32, &'p Policy)>) -> Tables {
        let (mut v4, mut v6) = (vec![], vec![]);
        for (at, policy) in policies {
            v4.extend(Rule::new(at, policy));
            v6.extend(Rule::new(at, policy));
        }
        Tables { v4: Table::new(v4), v6: Table::new(v6) }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.v4.rules.is_empty() && self.v6.rules.is_empty()
    }

    /// The first policy that matches.
    #[inline(always)]
    pub(super) fn first(&self, packet: &Packet<'_>) -> Option<u32> {
        match packet.ends {
            Ends::V4 { src, dst } => self.v4.first(src, dst, packet),
            Ends::V6 { src, dst } => self.v6.first(src, dst, packet),
            Ends::None => None,
        }
    }
}
