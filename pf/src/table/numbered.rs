//! The addresses of a table numbered through, for the pools that choose from it. Made by the control thread with each
//! version of such a table, in time proportional to its entries; other tables have none.

use crate::addr::{Entry, Family, disjoint};

/// All addresses that are in, both families apart.
#[derive(Debug)]
pub(super) struct Numbered {
    inet: Ranges,
    inet6: Ranges,
}

#[derive(Debug)]
struct Ranges {
    /// Where each range begins, and how many addresses come before it; in order.
    ranges: Box<[(u128, u128)]>,
    /// At most 2^127.
    total: u128,
}

impl Ranges {
    fn new(entries: &[Entry], family: Family) -> Ranges {
        let mut total = 0_u128;
        let number = |(first, last): (u128, u128)| {
            let before = total;
            total = total.saturating_add((last - first).saturating_add(1)).min(1 << 127);
            (first, before)
        };
        let ranges = disjoint(entries, family).into_iter().map(number).collect();
        Ranges { ranges, total }
    }

    fn at(&self, number: u128) -> Option<u128> {
        let after = self.ranges.partition_point(|&(_, before)| before <= number);
        let &(first, before) = self.ranges.get(after.checked_sub(1)?)?;
        (number < self.total).then(|| first + (number - before))
    }
}

impl Numbered {
    pub(super) fn new(entries: &[Entry]) -> Numbered {
        Numbered { inet: Ranges::new(entries, Family::Inet), inet6: Ranges::new(entries, Family::Inet6) }
    }

    fn ranges(&self, family: Family) -> &Ranges {
        match family {
            Family::Inet => &self.inet,
            Family::Inet6 => &self.inet6,
        }
    }

    /// How many there are.
    pub(super) fn total(&self, family: Family) -> u128 {
        self.ranges(family).total
    }

    /// The one with this number.
    pub(super) fn at(&self, family: Family, number: u128) -> Option<u128> {
        self.ranges(family).at(number)
    }
}
