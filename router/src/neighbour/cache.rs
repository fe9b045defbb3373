//! A worker's own memory of the neighbours it used last: what makes `ether_output` lock-free.
//!
//! Direct-mapped. An entry counts as long as nothing was taken back anywhere (one generation for the whole table, which
//! moves only when a known address changes or a known neighbour goes) and for a second at most, so that the table learns
//! which neighbours are in use.

use kern::time::Instant;
use std::net::IpAddr;
use wire::Mac;

const LINES: usize = 256;
/// A worker believes itself this long.
pub(super) const LIFE: u64 = 1_000_000_000;

/// A neighbour's name in three words: quicker to compare than an `IpAddr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    hi: u64,
    lo: u64,
    /// Interface and family; 0 is nobody.
    tag: u32,
}

impl Name {
    #[inline(always)]
    pub(super) fn new(ifindex: u16, addr: IpAddr) -> Name {
        match addr {
            IpAddr::V4(a) => Name { hi: 0, lo: u64::from(a.to_bits()), tag: u32::from(ifindex) | 4 << 16 },
            IpAddr::V6(a) => {
                let bits = a.to_bits();
                Name { hi: (bits >> 64) as u64, lo: bits as u64, tag: u32::from(ifindex) | 6 << 16 }
            }
        }
    }

    #[inline(always)]
    fn line(self) -> usize {
        let mixed = (self.lo ^ self.hi.rotate_left(32) ^ u64::from(self.tag) << 40)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as usize
    }
}

#[derive(Clone, Copy)]
struct Line {
    name: Name,
    mac: Mac,
    generation: u64,
    until: Instant,
}

const EMPTY: Line =
    Line { name: Name { hi: 0, lo: 0, tag: 0 }, mac: Mac::ZERO, generation: 0, until: Instant::ZERO };

/// Recently used neighbours of one worker.
pub struct Cache {
    lines: Box<[Line; LINES]>,
}

impl Default for Cache {
    fn default() -> Self {
        Cache { lines: Box::new([EMPTY; LINES]) }
    }
}

impl Cache {
    #[inline(always)]
    pub(super) fn get(&self, name: Name, generation: u64, now: Instant) -> Option<Mac> {
        let line = &self.lines[name.line()];
        (line.name == name && line.generation == generation && now < line.until).then_some(line.mac)
    }

    pub(super) fn put(&mut self, name: Name, mac: Mac, generation: u64, now: Instant) {
        self.lines[name.line()] = Line { name, mac, generation, until: now.after(LIFE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const NOW: Instant = Instant::from_secs(1);

    #[test]
    fn an_entry_counts_for_a_second_of_its_generation_and_for_its_interface() {
        let mut cache = Cache::default();
        let name = Name::new(1, IpAddr::from([192, 0, 2, 1]));
        assert_eq!(cache.get(name, 7, NOW), None);
        cache.put(name, MAC, 7, NOW);
        assert_eq!(cache.get(name, 7, NOW), Some(MAC));
        assert_eq!(cache.get(name, 7, NOW.after(LIFE)), None);
        assert_eq!(cache.get(name, 8, NOW), None);
        assert_eq!(cache.get(Name::new(2, IpAddr::from([192, 0, 2, 1])), 7, NOW), None);
        let mapped: IpAddr = "::c000:201".parse().unwrap();
        assert_eq!(cache.get(Name::new(1, mapped), 7, NOW), None, "the other family");
    }

    #[test]
    fn a_subnet_spreads_over_the_lines() {
        let used: std::collections::HashSet<_> =
            (0..=255).map(|n| Name::new(1, IpAddr::from([192, 0, 2, n])).line()).collect();
        assert!(used.len() > 128, "{} lines for 256 neighbours", used.len());
    }
}
