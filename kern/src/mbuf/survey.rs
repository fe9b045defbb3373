//! A survey: what is true of all packets of a batch, found while a stage goes through them anyway.
//!
//! A stage that has one need not look at every header again to learn that none of its packets is out of the ordinary.

use super::{Gso, Mbuf, PktFlags};

/// What the headers of some packets say, taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    packets: u32,
    bytes: u32,
    longest: u32,
    flags: PktFlags,
    any_super: bool,
}

impl Survey {
    /// Of no packet.
    pub const fn new() -> Survey {
        Survey { packets: 0, bytes: 0, longest: 0, flags: PktFlags::empty(), any_super: false }
    }

    /// Of these packets.
    #[inline]
    pub fn of<'a>(packets: impl IntoIterator<Item = &'a Mbuf>) -> Survey {
        let mut survey = Survey::new();
        packets.into_iter().for_each(|m| survey.add(m));
        survey
    }

    /// One packet more.
    #[inline(always)]
    pub fn add(&mut self, m: &Mbuf) {
        let (h, len) = (m.hdr(), m.len() as u32);
        self.packets += 1;
        self.bytes += len;
        self.longest = self.longest.max(len);
        self.flags.set(h.flags);
        self.any_super |= h.gso != Gso::None;
    }

    /// How many there are.
    pub const fn packets(&self) -> u32 {
        self.packets
    }

    /// Octets of all of them, each super-frame's as it stands.
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Octets of the longest.
    pub const fn longest(&self) -> usize {
        self.longest as usize
    }

    /// Whether any has any of these flags.
    #[inline(always)]
    pub const fn any(&self, flags: PktFlags) -> bool {
        self.flags.any(flags)
    }

    /// Whether any is a super-frame.
    pub const fn any_super(&self) -> bool {
        self.any_super
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[test]
    fn a_survey_says_what_its_packets_say_together() {
        let side = Fixture::new(8);
        let (mut a, mut b) = (side.packet(&[0; 60]), side.packet(&[0; 100]));
        a.hdr_mut().flags.set(PktFlags::FRAG);
        let survey = Survey::of([&a, &b]);
        assert_eq!((survey.packets(), survey.bytes(), survey.longest()), (2, 160, 100));
        assert!(survey.any(PktFlags::FRAG.with(PktFlags::DF)) && !survey.any(PktFlags::DF));
        assert!(!survey.any_super());
        b.set_gso(Gso::Tcp4, 50);
        assert!(Survey::of([&a, &b]).any_super());
        side.ledger.sent(a);
        side.ledger.sent(b);
    }
}
