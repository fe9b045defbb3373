//! What a packet must be for a rule to match it, field by field, and which rules match nothing that another does not.
//!
//! A rule covers another if each of its fields is unspecified, the same, or a prefix around the other's. So all rules that
//! may cover one are found by making it as general as they are: there are few *shapes* of rules (which fields are
//! specified, how long prefixes are), and for each of them one look into a hash table. A ruleset of n rules costs n times
//! its shapes, not n².

use std::collections::{HashMap, HashSet};

use crate::{
    addr::{Family, Prefix},
    rule::{Direction, Host, IcmpMatch, IdMatch, On, Peer, Ports, Rule, Tagged, TcpFlags},
};

/// How many fields there are; the first eight are those with skip steps, in their order.
const FIELDS: usize = 18;
/// The field of the source address.
pub(super) const SOURCE: usize = 4;
/// The field of the destination address.
pub(super) const DESTINATION: usize = 6;

/// One field of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Field<'r> {
    Any,
    Interface(&'r On),
    Direction(Direction),
    Family(Family),
    Number(u8),
    Prefix(Prefix),
    Host(bool, &'r Host),
    Ports(Ports),
    Flags(TcpFlags),
    Icmp(IcmpMatch),
    Id(IdMatch),
    System(&'r str),
    Tagged(&'r Tagged),
    Fragment,
}

impl<'r> Field<'r> {
    fn of<T>(value: Option<T>, field: impl FnOnce(T) -> Field<'r>) -> Field<'r> {
        value.map_or(Field::Any, field)
    }

    fn host(peer: &'r Peer) -> Field<'r> {
        match &peer.host {
            Host::Any => Field::Any,
            Host::Prefix(prefix) if !peer.not => Field::Prefix(*prefix),
            host => Field::Host(peer.not, host),
        }
    }

    /// The field, as general as a shape.
    fn generalised(self, shape: Shape) -> Option<Field<'r>> {
        match (shape, self) {
            (Shape::Any, _) => Some(Field::Any),
            (Shape::Exact, Field::Any) => None,
            (Shape::Exact, field) => Some(field),
            (Shape::Prefix(len), Field::Prefix(p)) if len <= p.length() => {
                Some(Field::Prefix(Prefix::new(p.addr(), len)))
            }
            (Shape::Prefix(_), _) => None,
        }
    }

    fn shape(self) -> Shape {
        match self {
            Field::Any => Shape::Any,
            Field::Prefix(prefix) => Shape::Prefix(prefix.length()),
            _ => Shape::Exact,
        }
    }
}

/// How general a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shape {
    Any,
    Prefix(u8),
    Exact,
}

/// What a packet must be for a rule to match it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Criteria<'r>(pub(super) [Field<'r>; FIELDS]);

impl<'r> Criteria<'r> {
    pub(super) fn of(rule: &'r Rule) -> Criteria<'r> {
        Criteria([
            Field::of(rule.on.as_ref(), Field::Interface),
            Field::of(rule.direction, Field::Direction),
            Field::of(rule.family, Field::Family),
            Field::of(rule.proto, Field::Number),
            Field::host(&rule.from),
            Field::of(rule.from.port, Field::Ports),
            Field::host(&rule.to),
            Field::of(rule.to.port, Field::Ports),
            // A mask of nothing is `flags any`.
            Field::of(rule.flags.filter(|flags| flags.mask != 0), Field::Flags),
            Field::of(rule.icmp, Field::Icmp),
            Field::of(rule.tos, Field::Number),
            Field::of(rule.prio, Field::Number),
            Field::of(rule.received_on.as_ref(), Field::Interface),
            Field::of(rule.tagged.as_ref(), Field::Tagged),
            Field::of(rule.os.as_deref(), Field::System),
            Field::of(rule.user, Field::Id),
            Field::of(rule.group, Field::Id),
            if rule.fragment { Field::Fragment } else { Field::Any },
        ])
    }

    /// The criteria without one field.
    pub(super) fn without(mut self, field: usize) -> Criteria<'r> {
        self.0[field] = Field::Any;
        self
    }

    fn shape(&self) -> [Shape; FIELDS] {
        self.0.map(Field::shape)
    }

    fn generalised(&self, shape: &[Shape; FIELDS]) -> Option<Criteria<'r>> {
        let mut general = *self;
        for (field, &shape) in general.0.iter_mut().zip(shape) {
            *field = field.generalised(shape)?;
        }
        Some(general)
    }
}

/// The rules of a block without those that others of them cover. Of equal rules the first is left.
pub(super) fn without_covered(mut block: Vec<Rule>) -> Vec<Rule> {
    if block.len() < 2 {
        return block;
    }
    let all: Vec<Criteria<'_>> = block.iter().map(Criteria::of).collect();
    let mut first: HashMap<Criteria<'_>, usize> = HashMap::new();
    for (i, criteria) in all.iter().enumerate() {
        first.entry(*criteria).or_insert(i);
    }
    let shapes: HashSet<[Shape; FIELDS]> = all.iter().map(Criteria::shape).collect();
    let is_left = |(i, criteria): (usize, &Criteria<'_>)| {
        let covers = |shape| criteria.generalised(shape).and_then(|c| first.get(&c)).is_some_and(|&j| j != i);
        !shapes.iter().any(covers)
    };
    let left: Vec<bool> = all.iter().enumerate().map(is_left).collect();
    let mut left = left.into_iter();
    block.retain(|_| left.next().unwrap_or(true));
    block
}
