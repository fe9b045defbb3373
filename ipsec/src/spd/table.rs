//! Policies compiled for lookup.
//!
//! A table a family. With few rules it is a list, gone through from the front: the compiler makes two masked compares of
//! each. With many it is searched by *shape* (tuple space search, as in Open vSwitch): rules whose two prefixes have the
//! same lengths share a hash table, keyed by both prefixes.
//!
//! ```text
//!   shape /24 → /24   { 192.0.2.0 → 198.51.100.0: rules 3, 9    10.1.0.0 → 10.2.0.0: rule 5 }   first rule: 3
//!   shape  /0 → /16   { 0.0.0.0 → 10.7.0.0: rule 7              ...                         }   first rule: 7
//! ```
//!
//! A packet asks each shape once, however many rules it has, and the match that comes first in the file wins. Shapes stand
//! in the order of their first rule, so the search ends at a shape whose first rule comes after the match at hand.
//! Ten thousand policies of a real network have a few shapes; a file with a hundred shapes costs a hundred questions.

use super::{Action, Policy};
use crate::selector::{Addresses, Ends, Match, Packet, Shown, Upper, mask4, mask6};
use std::net::IpAddr;

/// Up to so many rules are gone through one by one.
const FEW: usize = 6;

/// An address as a number.
pub(super) trait Bits:
    Copy
    + Default
    + PartialOrd
    + std::ops::BitAnd<Output = Self>
    + std::ops::BitOr<Output = Self>
    + std::ops::BitXor<Output = Self>
{
    fn fold(self) -> u64;
    fn take(addr: IpAddr) -> Option<Self>;
    fn mask(len: u8) -> Self;
}

impl Bits for u32 {
    #[inline(always)]
    fn fold(self) -> u64 {
        self.into()
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
    fn fold(self) -> u64 {
        (self >> 64) as u64 ^ (self as u64).rotate_left(23)
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

/// Rules of one shape: those with the same two prefixes lie side by side, in order.
#[derive(Debug)]
struct Shape<A> {
    src_mask: A,
    dst_mask: A,
    /// The first policy of the shape.
    first: u32,
    /// Where the rules of a pair of prefixes begin in `rules`, plus 1; 0 in an empty place. At most half full.
    table: Box<[u32]>,
    rules: Box<[Rule<A>]>,
}

/// Two multiplications; which prefixes there are is the operator's choice, not a stranger's.
#[inline(always)]
fn hash<A: Bits>(src: A, dst: A) -> usize {
    let mixed =
        (src.fold().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ dst.fold()).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 32) as usize
}

impl<A: Bits> Shape<A> {
    /// Of rules with the same masks, in order.
    fn new(rules: &[Rule<A>]) -> Option<Shape<A>> {
        let Rule { src_mask, dst_mask, policy: first, .. } = *rules.first()?;
        let mut table = vec![0u32; (rules.len() * 2).next_power_of_two()].into_boxed_slice();
        let mut groups: Vec<Vec<Rule<A>>> = vec![];
        // First the groups, in a table of groups; then the rules side by side.
        for rule in rules {
            let mut at = hash(rule.src, rule.dst) & (table.len() - 1);
            while table[at] != 0 && !same_ends(&groups[table[at] as usize - 1][0], rule) {
                at = (at + 1) & (table.len() - 1);
            }
            if table[at] == 0 {
                groups.push(vec![]);
                table[at] = groups.len() as u32;
            }
            groups[table[at] as usize - 1].push(*rule);
        }
        let starts: Vec<u32> = groups
            .iter()
            .scan(0, |next, group| {
                let start = *next;
                *next += group.len() as u32;
                Some(start)
            })
            .collect();
        for place in table.iter_mut().filter(|place| **place != 0) {
            *place = starts[*place as usize - 1] + 1;
        }
        Some(Shape { src_mask, dst_mask, first, table, rules: groups.concat().into() })
    }

    #[inline(always)]
    fn find(&self, src: A, dst: A, packet: &Packet<'_>, shown: &mut Option<Shown>) -> Option<u32> {
        let ends = (src & self.src_mask, dst & self.dst_mask);
        let mask = self.table.len() - 1;
        let mut at = hash(ends.0, ends.1);
        loop {
            let start = self.table.get(at & mask)?.checked_sub(1)? as usize;
            let group = self.rules.get(start..)?;
            if group.first().is_some_and(|r| (r.src, r.dst) == ends) {
                let mut group = group.iter().take_while(|r| (r.src, r.dst) == ends);
                return group.find(|r| r.matches_rest(src, dst, packet, shown)).map(|r| r.policy);
            }
            at += 1;
        }
    }
}

fn same_ends<A: PartialEq>(a: &Rule<A>, b: &Rule<A>) -> bool {
    a.src == b.src && a.dst == b.dst
}

/// The rules of one family.
#[derive(Debug)]
enum Table<A> {
    Few(Box<[Rule<A>]>),
    Many(Box<[Shape<A>]>),
}

impl<A> Default for Table<A> {
    fn default() -> Self {
        Table::Few(Box::default())
    }
}

impl<A: Bits> Table<A> {
    fn new(rules: Vec<Rule<A>>) -> Table<A> {
        if rules.len() <= FEW {
            return Table::Few(rules.into());
        }
        let mut shapes: Vec<Vec<Rule<A>>> = vec![];
        for rule in rules {
            let same =
                |s: &&mut Vec<Rule<A>>| s[0].src_mask == rule.src_mask && s[0].dst_mask == rule.dst_mask;
            match shapes.iter_mut().find(same) {
                Some(shape) => shape.push(rule),
                None => shapes.push(vec![rule]),
            }
        }
        Table::Many(shapes.iter().filter_map(|rules| Shape::new(rules)).collect())
    }

    #[inline(always)]
    fn first(&self, src: A, dst: A, data: &[u8]) -> Option<u32> {
        match self {
            Table::Few(rules) => few(rules, src, dst, data),
            Table::Many(shapes) => search(shapes, src, dst, data),
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

#[inline(never)]
fn search<A: Bits>(shapes: &[Shape<A>], src: A, dst: A, data: &[u8]) -> Option<u32> {
    let (packet, mut shown) = (Packet::of(data), None);
    let mut best = None;
    for shape in shapes {
        if best.is_some_and(|best| best < shape.first) {
            break;
        }
        if let Some(found) = shape.find(src, dst, &packet, &mut shown) {
            best = Some(best.map_or(found, |best: u32| best.min(found)));
        }
    }
    best
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
        let (mut v4, mut v6, mut upper) = (vec![], vec![], false);
        for (at, policy) in policies {
            upper |= !policy.selector.upper.is_any();
            v4.extend(Rule::new(at, policy));
            v6.extend(Rule::new(at, policy));
        }
        let any = !v4.is_empty() || !v6.is_empty();
        Tables { v4: Table::new(v4), v6: Table::new(v6), any, upper }
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
