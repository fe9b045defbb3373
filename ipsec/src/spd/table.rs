//! Policies compiled for lookup.
//!
//! A table a family. With few rules it is a list, gone through from the front: the compiler makes two masked compares of
//! each. With many it is bit vectors, `vectors.rs`.

use super::{
    Action, Policy,
    vectors::{Address, Vectors},
};
use crate::selector::{Addresses, Ends, Match, Packet, Shown, Upper, mask4, mask6};

/// Up to so many rules are gone through one by one.
const FEW: usize = 6;

/// An address as a number.
pub(super) trait Bits:
    Address
    + Default
    + std::ops::BitAnd<Output = Self>
    + std::ops::BitOr<Output = Self>
    + std::ops::BitXor<Output = Self>
{
    fn fold(self) -> u64;
    fn mask(len: u8) -> Self;
    /// The rules of its family.
    fn table(tables: &Tables) -> &Table<Self>;
}

impl Bits for u32 {
    #[inline(always)]
    fn fold(self) -> u64 {
        self.into()
    }
    fn mask(len: u8) -> u32 {
        mask4(len)
    }
    #[inline(always)]
    fn table(tables: &Tables) -> &Table<u32> {
        &tables.v4
    }
}

impl Bits for u128 {
    #[inline(always)]
    fn fold(self) -> u64 {
        (self >> 64) as u64 ^ (self as u64).rotate_left(23)
    }
    fn mask(len: u8) -> u128 {
        mask6(len)
    }
    #[inline(always)]
    fn table(tables: &Tables) -> &Table<u128> {
        &tables.v6
    }
}

/// What is asked of every rule stands in front.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Rule<A> {
    src: A,
    dst: A,
    src_mask: A,
    dst_mask: A,
    policy: u32,
    /// Whether the masks alone tell.
    plain: bool,
    /// Whether ports that can not be seen count as right.
    unseen: bool,
    upper: Upper,
    /// From the first address to the last, where the masks take in more.
    spans: [Option<(A, A)>; 2],
}

/// The first and the last of addresses that are no prefix.
fn bounds<A: Bits>(addresses: Addresses) -> Option<(A, A)> {
    match addresses {
        Addresses::Prefix(_) => None,
        Addresses::Span(first, last) => Some((A::take(first)?, A::take(last)?)),
    }
}

impl<A: Bits> Rule<A> {
    fn new(at: u32, policy: &Policy) -> Option<Rule<A>> {
        let spans = [bounds(policy.selector.src), bounds(policy.selector.dst)];
        let (src, dst) = (policy.selector.src.cover(), policy.selector.dst.cover());
        Some(Rule {
            src: A::take(src.addr())?,
            src_mask: A::mask(src.len()),
            dst: A::take(dst.addr())?,
            dst_mask: A::mask(dst.len()),
            upper: policy.selector.upper,
            unseen: policy.action != Action::Bypass,
            plain: policy.selector.upper.is_any() && spans.iter().all(Option::is_none),
            spans,
            policy: at,
        })
    }

    /// Whether the prefixes match, or those that take in the addresses meant.
    #[inline(always)]
    fn covers(&self, src: A, dst: A) -> bool {
        // One branch: which of the two does not match nobody can foresee.
        (dst & self.dst_mask ^ self.dst | src & self.src_mask ^ self.src) == A::default()
    }

    /// What the masks do not tell.
    #[inline(always)]
    fn matches_rest(&self, src: A, dst: A, packet: &Packet<'_>, shown: &mut Option<Shown>) -> bool {
        self.plain || self.matches_closely(src, dst, packet, shown)
    }

    fn matches_closely(&self, src: A, dst: A, packet: &Packet<'_>, shown: &mut Option<Shown>) -> bool {
        let within =
            |span: Option<(A, A)>, addr| span.is_none_or(|(first, last)| first <= addr && addr <= last);
        if !within(self.spans[0], src) || !within(self.spans[1], dst) {
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
}

/// The rules of one family.
#[derive(Debug)]
pub(super) enum Table<A> {
    Few(Box<[Rule<A>]>),
    Many(Vectors<A>),
}

impl<A> Default for Table<A> {
    fn default() -> Self {
        Table::Few(Box::default())
    }
}

impl<A: Bits> Table<A> {
    fn new(policies: &[(u32, &Policy)]) -> Table<A> {
        if policies.len() > FEW {
            return Table::Many(Vectors::new(policies));
        }
        Table::Few(policies.iter().filter_map(|(at, policy)| Rule::new(*at, policy)).collect())
    }

    #[inline(always)]
    fn first(&self, src: A, dst: A, data: &[u8]) -> Option<u32> {
        match self {
            Table::Few(rules) => few(rules, src, dst, data),
            Table::Many(vectors) => vectors.first(src, dst, Some(Packet::of(data).shown())),
        }
    }

    /// The first policy that matches, of many; `shown` may be left out where no policy looks at the upper layer.
    #[inline(always)]
    pub(super) fn first_of_many(&self, src: A, dst: A, shown: Option<Shown>) -> Option<u32> {
        match self {
            Table::Few(_) => None,
            Table::Many(vectors) => vectors.first(src, dst, shown),
        }
    }
}

// What is not inlined gets the packet's octets, not the [`Packet`] made of them: that would have to be put into memory for
// it, field by field, and be read back whole, which a processor does slowly.

/// The first of few rules that matches, if it looks at addresses alone.
#[inline(always)]
pub(super) fn few_plainly(rules: &[Rule<u32>], src: u32, dst: u32) -> Option<u32> {
    let rule = rules.iter().find(|rule| rule.covers(src, dst))?;
    rule.plain.then_some(rule.policy)
}

/// The first of few rules that matches.
#[inline(always)]
fn few<A: Bits>(rules: &[Rule<A>], src: A, dst: A, data: &[u8]) -> Option<u32> {
    let rule = rules.iter().find(|rule| rule.covers(src, dst))?;
    // Rules that look closer are rare among few, and are asked from the front.
    if rule.plain { Some(rule.policy) } else { few_closely(rules, src, dst, data) }
}

#[inline(never)]
fn few_closely<A: Bits>(rules: &[Rule<A>], src: A, dst: A, data: &[u8]) -> Option<u32> {
    let (packet, mut shown) = (Packet::of(data), None);
    let found = rules.iter().find(|r| r.covers(src, dst) && r.matches_rest(src, dst, &packet, &mut shown))?;
    Some(found.policy)
}

/// The policies of one direction.
#[derive(Debug, Default)]
pub(super) struct Tables {
    v4: Table<u32>,
    v6: Table<u128>,
    /// Whether there is any rule.
    any: bool,
    upper: bool,
}

impl Tables {
    pub(super) fn new<'p>(policies: impl Iterator<Item = (u32, &'p Policy)>) -> Tables {
        let (v4, v6): (Vec<_>, Vec<_>) = policies.partition(|(_, policy)| policy.selector.src.is_ipv4());
        let upper = v4.iter().chain(&v6).any(|(_, policy)| !policy.selector.upper.is_any());
        let any = !v4.is_empty() || !v6.is_empty();
        Tables { v4: Table::new(&v4), v6: Table::new(&v6), any, upper }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        !self.any
    }

    /// Whether the rules for a packet's family are gone through one by one.
    #[inline(always)]
    pub(super) fn is_few(&self, packet: &Packet<'_>) -> bool {
        match packet.ends {
            Ends::V4 { .. } => matches!(self.v4, Table::Few(_)),
            Ends::V6 { .. } => matches!(self.v6, Table::Few(_)),
            Ends::None => true,
        }
    }

    /// The rules for IPv4, if they are gone through one by one.
    #[inline(always)]
    pub(super) fn few4(&self) -> Option<&[Rule<u32>]> {
        match &self.v4 {
            Table::Few(rules) => Some(rules),
            Table::Many(_) => None,
        }
    }

    /// Whether any rule looks at the upper layer.
    pub(super) fn looks_at_upper(&self) -> bool {
        self.upper
    }

    /// The first policy that matches.
    #[inline(always)]
    pub(super) fn first(&self, packet: &Packet<'_>) -> Option<u32> {
        match packet.ends {
            Ends::V4 { src, dst } => self.v4.first(src, dst, packet.data),
            Ends::V6 { src, dst } => self.v6.first(src, dst, packet.data),
            Ends::None => None,
        }
    }
}
