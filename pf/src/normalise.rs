//! Normalisation (`scrub` in pf.conf(5)): what a packet says that a receiver could take in two ways is made to say one thing.
//!
//! A packet is changed in place and its checksums follow, also when they are partial. Scrub rules do it ahead of all
//! others; `scrub (...)` of match and pass rules to what passes (see [`crate::treatment`]). What `scrub` does about fragments is
//! not here: which are put together, the [ruleset](crate::Ruleset::reassembles) says; how, the router knows.
//!
//! A scrub rule with `os` is for SYNs, since nothing else betrays a system. Time to live and don't-fragment are among what
//! does: whoever looks behind `min-ttl` or `no-df` sees another SYN, as in pf.

use std::hash::{BuildHasher, RandomState};

use kern::{Mbuf, PktFlags};
use wire::{IpProto, ipv4, ipv6, tcp};

use crate::{
    IfIndex,
    conf::Reassemble,
    osfp::{Known, Sender},
    packet::Packet,
    route::Routes,
    rule::{Action, Direction, Rule, Scrub},
    ruleset::{CompileError, Compiled},
};

/// What is done to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Normalise {
    /// Don't-fragment is cleared.
    pub(crate) no_df: bool,
    /// The identification of a whole IPv4 packet is replaced.
    pub(crate) random_id: bool,
    /// Least time to live; 0 leaves it.
    pub(crate) min_ttl: u8,
    /// Largest segment size a SYN may ask for; 0 leaves it.
    pub(crate) max_mss: u16,
    /// TOS octet or traffic class.
    pub(crate) set_tos: Option<u8>,
    /// Timestamps and time to live of a connection are looked at, by its state.
    pub(crate) reassemble_tcp: bool,
}

impl From<&Scrub> for Normalise {
    fn from(scrub: &Scrub) -> Normalise {
        let &Scrub { no_df, random_id, min_ttl, max_mss, set_tos, reassemble_tcp, .. } = scrub;
        Normalise { no_df, random_id, min_ttl, max_mss, set_tos, reassemble_tcp }
    }
}

/// Identifications that an outsider cannot foresee, one source a worker: SipHash of a counter under a random key.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    key: RandomState,
    drawn: u64,
}

impl Ids {
    pub(crate) fn next(&mut self) -> u16 {
        self.drawn = self.drawn.wrapping_add(1);
        self.key.hash_one(self.drawn) as u16
    }
}

/// What scrub rules have done to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scrubbed {
    /// None was for it, or `no scrub`.
    #[default]
    No,
    /// What one says.
    Yes,
    /// The same, and its state is to look at timestamps.
    Stamped,
}

/// A scrub rule, or a `no scrub` one.
#[derive(Debug)]
struct ScrubRule {
    rule: Compiled,
    does: Normalise,
    fragments: Fragments,
}

/// The scrub rules of a ruleset, of which the first that matches decides, and `set reassemble`.
#[derive(Debug, Default)]
pub(crate) struct ScrubRules {
    rules: Box<[ScrubRule]>,
    /// What happens to fragments if there are no rules.
    fragments: Fragments,
}

/// What happens to fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fragments {
    /// They stay what they are.
    #[default]
    Stay,
    /// They are put together, those with don't-fragment only if that is forgiven.
    Gather { no_df: bool },
}

impl ScrubRules {
    /// Compiles scrub rules; `compile` knows the names of this router.
    pub(crate) fn compile(
        rules: &[Rule],
        reassemble: Option<Reassemble>,
        mut compile: impl FnMut(&Rule) -> Result<Compiled, CompileError>,
    ) -> Result<ScrubRules, CompileError> {
        let one = |rule: &Rule| {
            let gathers = rule.action == Action::Scrub && !rule.scrub.no_reassemble;
            let fragments =
                if gathers { Fragments::Gather { no_df: rule.scrub.no_df } } else { Fragments::Stay };
            Ok(ScrubRule { rule: compile(rule)?, does: Normalise::from(&rule.scrub), fragments })
        };
        Ok(ScrubRules {
            rules: rules.iter().map(one).collect::<Result<_, CompileError>>()?,
            fragments: reassemble.map_or(Fragments::Stay, |r| Fragments::Gather { no_df: r.no_df }),
        })
    }

    /// Whether there are none.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether fragments of any packet are put together.
    #[inline(always)]
    pub(crate) fn gathers(&self) -> bool {
        self.fragments != Fragments::Stay || self.rules.iter().any(|r| r.fragments != Fragments::Stay)
    }

    /// Whether the datagram of this fragment is put together, and whether don't-fragment is forgiven.
    pub(crate) fn gathers_this(
        &self,
        index: IfIndex,
        m: &Mbuf,
        known: &Known,
        routes: Option<&dyn Routes>,
    ) -> Option<bool> {
        let fragments = match self.first(Direction::In, index, m, known, routes) {
            Some(rule) => rule.fragments,
            None if self.is_empty() => self.fragments,
            None => Fragments::Stay,
        };
        match fragments {
            Fragments::Stay => None,
            Fragments::Gather { no_df } => Some(no_df),
        }
    }

    /// Does to a packet what the first rule that matches says, and says what that was: the rule need not match what it has
    /// made of the packet.
    #[cold]
    pub(crate) fn normalise(
        &self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        known: &Known,
        routes: Option<&dyn Routes>,
        ids: &mut Ids,
    ) -> Scrubbed {
        let found = self.first(direction, index, m, known, routes);
        let Some(ScrubRule { does, .. }) = found.filter(|r| r.rule.action == Action::Scrub) else {
            return Scrubbed::No;
        };
        if !does.is_none() {
            does.apply(m, || ids.next());
        }
        if does.reassemble_tcp { Scrubbed::Stamped } else { Scrubbed::Yes }
    }

    /// Whether states look at timestamps, by any of the rules.
    pub(crate) fn looks_at_timestamps(&self) -> bool {
        self.rules.iter().any(|r| r.does.reassemble_tcp)
    }

    fn first(
        &self,
        direction: Direction,
        index: IfIndex,
        m: &Mbuf,
        known: &Known,
        routes: Option<&dyn Routes>,
    ) -> Option<&ScrubRule> {
        let p = Packet::read(m).ok()?;
        let sender = Sender::new(known, m.data());
        let matches = |ScrubRule { rule, .. }: &&ScrubRule| {
            rule.mismatch(direction, index, &p).is_none()
                && rule.rest_matches(&p, p.tag)
                && rule.os.is_none_or(|os| sender.is(os, &p))
                && rule.asks().is_none_or(|test| test.mismatch(index, &p, routes).is_none())
        };
        self.rules.iter().find(matches)
    }
}

impl Normalise {
    /// Nothing.
    pub(crate) const NONE: Normalise = Normalise {
        no_df: false,
        random_id: false,
        min_ttl: 0,
        max_mss: 0,
        set_tos: None,
        reassemble_tcp: false,
    };

    /// This, and what a later rule says.
    pub(crate) fn then(self, later: Normalise) -> Normalise {
        let either = |a, b| if b == 0 { a } else { b };
        Normalise {
            no_df: self.no_df || later.no_df,
            random_id: self.random_id || later.random_id,
            min_ttl: either(self.min_ttl.into(), later.min_ttl.into()) as u8,
            max_mss: either(self.max_mss, later.max_mss),
            set_tos: later.set_tos.or(self.set_tos),
            reassemble_tcp: self.reassemble_tcp || later.reassemble_tcp,
        }
    }

    /// Whether it does nothing.
    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        self == Normalise::NONE
    }

    /// Changes a packet. `id` is an identification that nobody can foresee.
    #[cold]
    pub(crate) fn apply(self, m: &mut Mbuf, id: impl FnOnce() -> u16) {
        match m.data().first().map(|v| v >> 4) {
            Some(4) => self.inet(m, id),
            Some(6) => self.inet6(m),
            _ => return,
        }
        if self.max_mss != 0 {
            self.clamp(m);
        }
    }

    fn inet(self, m: &mut Mbuf, id: impl FnOnce() -> u16) {
        const DF: u16 = 0x4000;
        let Some(header) = m.data_mut().first_chunk_mut::<20>() else { return };
        let mut word = u16::from_be_bytes([header[6], header[7]]);
        if self.no_df && word & DF != 0 {
            word &= !DF;
            ipv4::set_word(header, 6, word);
        }
        if header[8] < self.min_ttl {
            ipv4::set_ttl(header, self.min_ttl);
        }
        if let Some(tos) = self.set_tos {
            ipv4::set_tos(header, tos);
        }
        // The fragments of a datagram share their identification.
        if self.random_id && word.trailing_zeros() >= 14 {
            ipv4::set_word(header, 4, id());
        }
        if self.no_df {
            m.hdr_mut().flags.clear(PktFlags::DF);
        }
    }

    fn inet6(self, m: &mut Mbuf) {
        let Some(header) = m.data_mut().first_chunk_mut::<40>() else { return };
        header[7] = header[7].max(self.min_ttl);
        if let Some(class) = self.set_tos {
            ipv6::set_traffic_class(header, class);
        }
    }

    fn clamp(self, m: &mut Mbuf) {
        const SYN: u8 = 2;
        let l4 = m.l4();
        let is_tcp = m.hdr().proto == IpProto::TCP.0 && !m.hdr().flags.has(PktFlags::FRAG);
        if !is_tcp || m.data().get(l4 + 13).is_none_or(|flags| flags & SYN == 0) {
            return;
        }
        let partial = m.hdr().flags.has(PktFlags::PARTIAL);
        if let Some(segment) = m.data_mut().get_mut(l4..) {
            tcp::clamp_mss(segment, self.max_mss, partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::testing::Fixture;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use wire::{build, checksum, parse};

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    /// A SYN from A to B with an MSS of 1460, TTL 3 and DF.
    fn syn() -> Vec<u8> {
        let mut segment = vec![0_u8; 24];
        segment[..4].copy_from_slice(&[0x0f, 0xa0, 0, 80]);
        segment[12] = 0x60;
        segment[13] = 2;
        segment[20..].copy_from_slice(&[2, 4, 5, 180]);
        let header = ipv4::Repr {
            src: A,
            dst: B,
            proto: IpProto::TCP,
            ttl: 3,
            frag: ipv4::DF,
            ..ipv4::Repr::default()
        };
        let mut packet = build::raw4(header, &segment);
        let end = packet.len();
        checksum::transport_fill(&mut packet, 20, end, IpProto::TCP).unwrap();
        packet
    }

    fn scrubbed(fixture: &Fixture, packet: &[u8], n: Normalise) -> Vec<u8> {
        let mut m = fixture.packet(packet);
        let parsed = parse::parse_ip(packet).unwrap();
        m.set_l4(parsed.l4.into());
        m.hdr_mut().proto = parsed.proto.0;
        n.apply(&mut m, || 0xabcd);
        let octets = m.data().to_vec();
        fixture.done(m);
        octets
    }

    #[test]
    fn a_packet_is_changed_as_the_rule_says_and_its_checksums_follow() {
        let fixture = Fixture::new(4);
        let all = Normalise {
            no_df: true,
            random_id: true,
            min_ttl: 15,
            max_mss: 1400,
            set_tos: Some(0x10),
            reassemble_tcp: false,
        };
        let packet = scrubbed(&fixture, &syn(), all);
        let header = ipv4::Packet::new_checked(&packet[..]).unwrap();
        assert!(header.checksum_ok() && !header.dont_fragment());
        assert_eq!((packet[8], packet[1], &packet[4..6]), (15, 0x10, &[0xab, 0xcd][..]));
        assert_eq!(&packet[40..44], [2, 4, 5, 120]);
        assert!(checksum::transport_ok(&packet, 20, packet.len(), IpProto::TCP));
        assert_eq!(scrubbed(&fixture, &syn(), Normalise::NONE), syn());
    }

    #[test]
    fn what_is_within_the_bounds_stays_and_a_fragment_keeps_its_identification() {
        let fixture = Fixture::new(4);
        let bounds = Normalise { min_ttl: 2, max_mss: 1460, random_id: true, ..Normalise::NONE };
        let mut fragment = syn();
        ipv4::set_word(fragment.first_chunk_mut().unwrap(), 6, ipv4::MF);
        assert_eq!(scrubbed(&fixture, &fragment, bounds), fragment);
    }

    #[test]
    fn the_hop_limit_and_class_of_ipv6_are_normalised_too() {
        let fixture = Fixture::new(4);
        let (a, b) = (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
        let packet = build::udp6(a, b, 1, 2, b"x");
        let n = Normalise { min_ttl: 255, set_tos: Some(0xb8), ..Normalise::NONE };
        let changed = scrubbed(&fixture, &packet, n);
        assert_eq!(
            (changed[7], ipv6::Packet::new_checked(&changed[..]).unwrap().traffic_class()),
            (255, 0xb8)
        );
        assert_eq!(&changed[8..], &packet[8..]);
    }
}
