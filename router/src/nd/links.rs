//! What the router knows of its own side of each link: which of its addresses are being checked (RFC 4862, 5.4), when the next
//! router advertisement is due (RFC 4861, 6.2.4 and 6.2.6), when it last defended an address. No packets here.
//!
//! ```text
//!  configured ─► TENTATIVE ── 1 s of silence ──► VALID        IPv4: announced twice, 2 s apart, and valid
//!                    │ somebody else probes or has it
//!                    ▼
//!                DUPLICATE (not answered for any more; the configuration must change)
//! ```
//!
//! While an address is tentative it is used and answered for without "override" (optimistic, RFC 4429): a gateway that is
//! silent for a second after each start costs more than the small chance of a conflict.

use crate::netconfig::NetConfig;
use arrayvec::ArrayVec;
use kern::time::{Duration, Instant, nanos_of};
use std::net::{IpAddr, Ipv6Addr};

const SECOND: u64 = 1_000_000_000;
/// `RetransTimer`: how long a probe waits for objections.
const PROBE_TIME: u64 = SECOND;
/// `ANNOUNCE_INTERVAL` of RFC 5227.
const ANNOUNCE_INTERVAL: u64 = 2 * SECOND;
/// `DEFEND_INTERVAL` of RFC 5227.
const DEFEND_INTERVAL: u64 = 10 * SECOND;
/// `MAX_INITIAL_RTR_ADVERT_INTERVAL` and how many are that near to each other.
const INITIAL_INTERVAL: u64 = 16 * SECOND;
const INITIAL_ADVERTS: u8 = 3;
/// `MIN_DELAY_BETWEEN_RAS`, and the most that an answer to a solicitation is put off.
const MIN_DELAY: u64 = 3 * SECOND;
const MAX_RA_DELAY: u64 = SECOND / 2;
/// Things done in one turn of the timer.
const ACTIONS: usize = 32;

/// How sure we are that an address is ours alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnState {
    /// To be probed or announced.
    New,
    /// Probed; IPv4: announced once.
    Tentative,
    /// Nobody objected.
    Valid,
    /// Somebody else has it.
    Duplicate,
}

#[derive(Clone, Copy, Debug)]
struct OwnAddr {
    ifindex: u16,
    addr: IpAddr,
    state: OwnState,
    at: Instant,
    nonce: [u8; 6],
}

#[derive(Clone, Copy, Debug)]
struct Link {
    ifindex: u16,
    /// Longest time between advertisements, if it advertises.
    interval: Option<u64>,
    next: Instant,
    last: Option<Instant>,
    sent: u8,
    defended: Option<Instant>,
}

/// What the timer has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask whether the address is free.
    Probe(u16, Ipv6Addr, [u8; 6]),
    /// Say that the address is ours.
    Announce(u16, std::net::Ipv4Addr),
    /// Advertise the router to everyone.
    Advertise(u16),
}

/// Our side of all links.
#[derive(Default)]
pub(crate) struct Links {
    own: Vec<OwnAddr>,
    links: Vec<Link>,
}

impl Links {
    /// What is to be done now, and when to look again.
    pub(super) fn due(&mut self, now: Instant, random: u64) -> (ArrayVec<Action, ACTIONS>, Instant) {
        let (mut actions, mut next) = (ArrayVec::new(), now.after(SECOND));
        for own in &mut self.own {
            if own.at <= now && !actions.is_full() {
                actions.extend(own.step(now));
            }
            next = next.min(own.at);
        }
        for (i, link) in self.links.iter_mut().enumerate() {
            let Some(interval) = link.interval else { continue };
            if link.next <= now && !actions.is_full() {
                actions.push(Action::Advertise(link.ifindex));
                link.advertised(now, interval, random.rotate_left(i as u32 * 8));
            }
            next = next.min(link.next);
        }
        (actions, next)
    }

    /// Follows the configuration: new addresses are checked, those that are gone are forgotten. `nonce` makes a new one.
    pub(super) fn follow(&mut self, net: &NetConfig, now: Instant, nonce: impl Fn() -> u64) {
        if !self.own_addresses().eq(configured(net)) {
            let old = std::mem::take(&mut self.own);
            let known = |ifindex, addr| old.iter().find(|o| o.ifindex == ifindex && o.addr == addr).copied();
            self.own = configured(net)
                .map(|(ifindex, addr)| {
                    known(ifindex, addr).unwrap_or_else(|| OwnAddr::new(ifindex, addr, now, nonce()))
                })
                .collect();
        }
        if !self.links.iter().map(|l| (l.ifindex, l.interval)).eq(advertising(net)) {
            let old = std::mem::take(&mut self.links);
            let known = |ifindex| old.iter().find(|l| l.ifindex == ifindex).copied();
            self.links = advertising(net)
                .map(|(ifindex, interval)| match known(ifindex) {
                    Some(link) => Link { interval, ..link },
                    None => Link { ifindex, interval, next: now, last: None, sent: 0, defended: None },
                })
                .collect();
        }
    }

    fn own_addresses(&self) -> impl Iterator<Item = (u16, IpAddr)> {
        self.own.iter().map(|o| (o.ifindex, o.addr))
    }

    /// How sure we are of an address of ours. One the timer has not seen yet counts as tentative.
    pub(super) fn state(&self, ifindex: u16, addr: Ipv6Addr) -> OwnState {
        let own = self.own.iter().find(|o| o.ifindex == ifindex && o.addr == IpAddr::V6(addr));
        own.map_or(OwnState::Tentative, |o| o.state)
    }

    /// Whether a probe is our own, come back.
    pub(super) fn is_own_nonce(&self, ifindex: u16, addr: Ipv6Addr, nonce: Option<&[u8]>) -> bool {
        self.own
            .iter()
            .any(|o| o.ifindex == ifindex && o.addr == IpAddr::V6(addr) && nonce == Some(&o.nonce[..]))
    }

    /// Somebody else has a tentative address.
    pub(super) fn refuse(&mut self, ifindex: u16, addr: Ipv6Addr) {
        if let Some(own) = self.own.iter_mut().find(|o| o.ifindex == ifindex && o.addr == IpAddr::V6(addr)) {
            (own.state, own.at) = (OwnState::Duplicate, Instant::NEVER);
        }
    }

    /// A host without an address asks for routers: everyone will hear.
    pub(super) fn solicited(&mut self, ifindex: u16, now: Instant, random: u64) {
        if let Some(link) = self.links.iter_mut().find(|l| l.ifindex == ifindex && l.interval.is_some()) {
            let soon = now.after(random % MAX_RA_DELAY);
            let allowed = link.last.map_or(soon, |last| soon.max(last.after(MIN_DELAY)));
            link.next = link.next.min(allowed);
        }
    }

    /// Whether to speak up now for an address somebody else uses (RFC 5227, 2.4: every ten seconds at most).
    pub(crate) fn may_defend(&mut self, ifindex: u16, now: Instant) -> bool {
        let Some(link) = self.links.iter_mut().find(|l| l.ifindex == ifindex) else { return false };
        let may = link.defended.is_none_or(|last| now.nanos_since(last) >= DEFEND_INTERVAL);
        if may {
            link.defended = Some(now);
        }
        may
    }
}

impl OwnAddr {
    fn new(ifindex: u16, addr: IpAddr, now: Instant, nonce: u64) -> OwnAddr {
        let [a, b, c, d, e, f, ..] = nonce.to_be_bytes();
        OwnAddr { ifindex, addr, state: OwnState::New, at: now, nonce: [a, b, c, d, e, f] }
    }

    /// Its time has come.
    fn step(&mut self, now: Instant) -> Option<Action> {
        let (state, wait) = match (self.state, self.addr) {
            (OwnState::New, IpAddr::V6(_)) => (OwnState::Tentative, now.after(PROBE_TIME)),
            (OwnState::New, IpAddr::V4(_)) => (OwnState::Tentative, now.after(ANNOUNCE_INTERVAL)),
            (OwnState::Tentative, _) => (OwnState::Valid, Instant::NEVER),
            (state, _) => (state, Instant::NEVER),
        };
        let was = std::mem::replace(&mut self.state, state);
        self.at = wait;
        match (was, self.addr) {
            (OwnState::New, IpAddr::V6(addr)) => Some(Action::Probe(self.ifindex, addr, self.nonce)),
            (OwnState::New | OwnState::Tentative, IpAddr::V4(addr)) => {
                Some(Action::Announce(self.ifindex, addr))
            }
            _ => None,
        }
    }
}

impl Link {
    /// An advertisement goes out: when is the next? Between a third of the interval and all of it (RFC 4861, 6.2.1), the
    /// first ones nearer to each other.
    fn advertised(&mut self, now: Instant, interval: u64, random: u64) {
        self.sent = self.sent.saturating_add(1);
        self.last = Some(now);
        let most = if self.sent < INITIAL_ADVERTS { interval.min(INITIAL_INTERVAL) } else { interval };
        let least = (interval / 3).min(most);
        self.next = now.after((least + random % (most - least + 1)).max(MIN_DELAY));
    }
}

/// The addresses to be checked: every one that others could have.
fn configured(net: &NetConfig) -> impl Iterator<Item = (u16, IpAddr)> {
    net.all().filter(|i| i.has_link()).flat_map(|i| i.addrs.iter().map(move |a| (i.index.0, a.addr)))
}

fn advertising(net: &NetConfig) -> impl Iterator<Item = (u16, Option<u64>)> {
    net.all().map(|i| (i.index.0, i.advertises.map(|a| nanos_of(a.interval.max(Duration::from_secs(4))))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_secs(10);
    const ADDR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    fn with_address(addr: IpAddr) -> Links {
        Links { own: vec![OwnAddr::new(1, addr, NOW, 0x0102_0304_0506_0708)], links: Vec::new() }
    }

    fn with_link(interval: Option<u64>) -> Links {
        let link = Link { ifindex: 1, interval, next: NOW, last: None, sent: 0, defended: None };
        Links { own: Vec::new(), links: vec![link] }
    }

    #[test]
    fn an_address_is_probed_once_and_valid_after_a_second_of_silence() {
        let mut links = with_address(ADDR.into());
        let (actions, next) = links.due(NOW, 0);
        assert_eq!(actions[..], [Action::Probe(1, ADDR, [1, 2, 3, 4, 5, 6])]);
        assert_eq!(next, NOW.after(SECOND));
        assert_eq!(links.state(1, ADDR), OwnState::Tentative);
        assert!(links.due(next, 0).0.is_empty());
        assert_eq!(links.state(1, ADDR), OwnState::Valid);
    }

    #[test]
    fn an_objection_makes_an_address_a_duplicate_for_good() {
        let mut links = with_address(ADDR.into());
        links.due(NOW, 0);
        assert!(links.is_own_nonce(1, ADDR, Some(&[1, 2, 3, 4, 5, 6])));
        assert!(!links.is_own_nonce(1, ADDR, Some(&[9; 6])) && !links.is_own_nonce(1, ADDR, None));
        links.refuse(1, ADDR);
        assert!(links.due(NOW.after(100 * SECOND), 0).0.is_empty());
        assert_eq!(links.state(1, ADDR), OwnState::Duplicate);
    }

    #[test]
    fn an_ipv4_address_is_announced_twice() {
        let addr = std::net::Ipv4Addr::new(192, 0, 2, 1);
        let mut links = with_address(addr.into());
        let mut announced = 0;
        for s in 0..10 {
            let (actions, _) = links.due(NOW.after(s * SECOND), 0);
            announced += actions.iter().filter(|a| **a == Action::Announce(1, addr)).count();
        }
        assert_eq!(announced, 2);
    }

    #[test]
    fn advertisements_keep_their_distance() {
        let mut links = with_link(Some(600 * SECOND));
        let (mut now, mut times) = (NOW, Vec::new());
        while times.len() < 50 {
            let random = (times.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if links.due(now, random).0.contains(&Action::Advertise(1)) {
                times.push(now);
            }
            now = links.links[0].next;
        }
        let gaps: Vec<u64> = times.windows(2).map(|t| t[1].nanos_since(t[0]) / SECOND).collect();
        assert!(gaps[..2].iter().all(|&g| (3..=16).contains(&g)), "{gaps:?}");
        assert!(gaps[2..].iter().all(|&g| (200..=600).contains(&g)), "{gaps:?}");
    }

    #[test]
    fn a_solicitation_hastens_the_next_advertisement_but_not_within_three_seconds() {
        let mut links = with_link(Some(600 * SECOND));
        links.due(NOW, 0);
        links.solicited(1, NOW.after(SECOND), 0);
        assert_eq!(links.links[0].next, NOW.after(3 * SECOND));
        let mut silent = with_link(None);
        silent.solicited(1, NOW, 0);
        assert!(silent.due(NOW, 0).0.is_empty());
    }

    #[test]
    fn an_address_is_defended_every_ten_seconds_at_most() {
        let mut links = with_link(None);
        let spoken = (0..30).filter(|&s| links.may_defend(1, NOW.after(s * SECOND))).count();
        assert_eq!(spoken, 3);
        assert!(!links.may_defend(2, NOW), "no such link");
    }
}
