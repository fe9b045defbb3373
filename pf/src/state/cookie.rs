//! SYN cookies (`set syncookies`; D. J. Bernstein, 1996; RFC 4987, section 3.6): handshakes that cost no state.
//!
//! While they are on, a SYN without a state is answered by the router, before any rule is asked. What has to be known
//! later stands in the sequence number of the answer, which the client's ACK brings back; only that ACK makes a state.
//!
//! ```text
//!    31                                    4 3     1   0
//!   ┌───────────────────────────────────────┬───────┬───┐
//!   │ keyed hash                            │  MSS  │ P │    P: made in an even or in an odd period
//!   └───────────────────────────────────────┴───────┴───┘
//! ```
//!
//! The hash is SipHash of period, addresses, ports, the client's number and the MSS, under a key that the system drew when
//! the process started: each period has a key of its own, so to speak. A cookie is good in the period it was made in and
//! in the next. Window scale and SACK, which other systems' cookies carry too, would be of no use: where the router has
//! answered for a server, neither is negotiated ([`super::proxy`]), and the hash is the better for four bits more.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

use crate::{conf::Syncookies, packet::Packet};

/// Seconds of a period.
pub(crate) const PERIOD: u32 = 15;
/// The segment sizes that a cookie can say: the usual ones. The least is the least that the proxy takes.
const SIZES: [u16; 8] = [64, 536, 1220, 1360, 1400, 1440, 1452, 1460];
/// Bits that are not the hash's.
const SAID: u32 = 0xf;
const SYN: u8 = 0x02;

/// What a cookie stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cookie {
    /// The sequence number that the router answered with.
    pub(crate) isn: u32,
    /// The largest segment that the client takes.
    pub(crate) size: u16,
}

/// The SYN that came before an ACK with a cookie.
pub(crate) fn syn_before(ack: &Packet) -> Packet {
    let mut syn = *ack;
    syn.tcp.flags = SYN;
    syn.tcp.seq = ack.tcp.seq.wrapping_sub(1);
    syn.tcp.ack = 0;
    // Without options, and without what the ACK carries.
    syn.tcp.header = 20;
    (syn.payload, syn.segments) = (0, 1);
    syn.bytes = u32::from(ack.l4) + 20;
    syn
}

/// What there is to be known of cookies, all workers together.
#[derive(Debug)]
pub(crate) struct Cookies {
    key: RandomState,
    /// How many half-open connections turn them on, and below how many they are turned off; `u32::MAX` is never.
    start: AtomicU32,
    end: AtomicU32,
    active: AtomicBool,
    /// Half-open connections, where these decide.
    half_open: AtomicU32,
    /// Seconds of the clock when the last one was made; 0 is never.
    last: AtomicU32,
}

/// Cookies as `pfctl -s info` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CookieInfo {
    /// SYNs without a state are answered with cookies.
    pub active: bool,
    /// Half-open connections; counted where these decide.
    pub half_open: u32,
}

impl Cookies {
    pub(crate) fn new() -> Cookies {
        Cookies {
            key: RandomState::new(),
            start: AtomicU32::new(u32::MAX),
            end: AtomicU32::new(u32::MAX),
            active: AtomicBool::new(false),
            half_open: AtomicU32::new(0),
            last: AtomicU32::new(0),
        }
    }

    /// `set syncookies`, with so many states at most.
    pub(crate) fn set(&self, when: Syncookies, limit: u32) {
        let share = |percent: u8| (u64::from(limit) * u64::from(percent) / 100).max(1) as u32;
        let (start, end) = match when {
            Syncookies::Never => (u32::MAX, u32::MAX),
            Syncookies::Always => (0, 0),
            Syncookies::Adaptive { start, end } => (share(start), share(end)),
        };
        self.start.store(start, Relaxed);
        self.end.store(end, Relaxed);
        self.turn();
    }

    /// Whether half-open connections decide, and so are to be counted.
    pub(crate) fn counts(&self) -> bool {
        !matches!(self.start.load(Relaxed), 0 | u32::MAX)
    }

    pub(crate) fn opened(&self) {
        self.half_open.fetch_add(1, Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.half_open.fetch_sub(1, Relaxed);
    }

    /// Turns them on or off as half-open connections want it: whether they are on, and whether they were before.
    pub(crate) fn turn(&self) -> (bool, bool) {
        let was = self.active.load(Relaxed);
        let is = self.wanted(was);
        if is != was {
            self.active.store(is, Relaxed);
        }
        (is, was)
    }

    /// Whether they are to be on, when they were on or not.
    fn wanted(&self, was: bool) -> bool {
        let from = if was { &self.end } else { &self.start }.load(Relaxed);
        from != u32::MAX && self.half_open.load(Relaxed) >= from
    }

    pub(crate) fn info(&self) -> CookieInfo {
        let active = self.wanted(self.active.load(Relaxed));
        CookieInfo { active, half_open: self.half_open.load(Relaxed) }
    }

    /// The cookie for a SYN whose sender takes segments of `size` octets.
    pub(crate) fn make(&self, p: &Packet, size: u16, now: u32) -> Cookie {
        let now = now.max(1);
        if self.last.load(Relaxed) != now {
            self.last.store(now, Relaxed);
        }
        let said = SIZES.partition_point(|&s| s <= size).saturating_sub(1) as u32;
        self.cookie(p, p.tcp.seq, said, now / PERIOD)
    }

    /// Whether one that was made can still come back.
    pub(crate) fn expects(&self, now: u32) -> bool {
        let last = self.last.load(Relaxed);
        last != 0 && now.saturating_sub(last) < 2 * PERIOD
    }

    /// The cookie that an ACK brings back, if it is one.
    pub(crate) fn read(&self, p: &Packet, now: u32) -> Option<Cookie> {
        let isn = p.tcp.ack.wrapping_sub(1);
        let period = now / PERIOD;
        let period = if period & 1 == isn & 1 { period } else { period.checked_sub(1)? };
        let cookie = self.cookie(p, p.tcp.seq.wrapping_sub(1), isn >> 1 & 7, period);
        (cookie.isn == isn).then_some(cookie)
    }

    fn cookie(&self, p: &Packet, seq: u32, said: u32, period: u32) -> Cookie {
        let hash = self.key.hash_one((period, p.src, p.dst, p.sport, p.dport, seq, said)) as u32;
        let size = SIZES.get(said as usize).copied().unwrap_or(SIZES[0]);
        Cookie { isn: hash & !SAID | said << 1 | period & 1, size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::testing::Chance;

    fn syn(chance: &mut Chance) -> Packet {
        let mut p = Packet { proto: 6, l4: 20, sport: 4000, dport: 80, ..Packet::EMPTY };
        (p.src, p.dst) = (u128::from(chance.next() as u32), u128::from(chance.next() as u32));
        p.tcp.seq = chance.next() as u32;
        p
    }

    fn ack(syn: &Packet, cookie: Cookie) -> Packet {
        let mut p = *syn;
        p.tcp.seq = syn.tcp.seq.wrapping_add(1);
        p.tcp.ack = cookie.isn.wrapping_add(1);
        p
    }

    #[test]
    fn a_cookie_comes_back_in_its_period_and_the_next_and_says_a_size_that_the_client_takes() {
        let (cookies, mut chance) = (Cookies::new(), Chance::seeded(3));
        for _ in 0..10_000 {
            let syn = syn(&mut chance);
            let (size, now) = (64 + chance.below(1500_u16), 100 + chance.below(1_000_000_u32));
            let cookie = cookies.make(&syn, size, now);
            assert!(cookie.size <= size && SIZES.contains(&cookie.size), "{} of {size}", cookie.size);
            let back = ack(&syn, cookie);
            assert_eq!(cookies.read(&back, now + chance.below(PERIOD)), Some(cookie));
            assert_eq!(syn_before(&back).tcp.seq, syn.tcp.seq);
            for later in [2 * PERIOD, 3 * PERIOD, 100 * PERIOD] {
                assert_eq!(cookies.read(&back, now + later), None);
            }
        }
    }

    #[test]
    fn whatever_is_changed_makes_it_worthless() {
        let (cookies, mut chance) = (Cookies::new(), Chance::seeded(4));
        let mut good = 0;
        for _ in 0..10_000 {
            let first = syn(&mut chance);
            let mut p = ack(&first, cookies.make(&first, 1460, 1000));
            match chance.below(6_u8) {
                0 => p.src ^= 1 << chance.below(32_u8),
                1 => p.dst ^= 1 << chance.below(32_u8),
                2 => p.sport ^= 1 << chance.below(16_u8),
                3 => p.dport ^= 1 << chance.below(16_u8),
                4 => p.tcp.seq ^= 1 << chance.below(32_u8),
                _ => p.tcp.ack ^= 1 << chance.below(32_u8),
            }
            good += u32::from(cookies.read(&p, 1000).is_some());
        }
        // One in 2^28 by chance.
        assert!(good <= 1, "{good}");
    }

    #[test]
    fn they_go_on_at_the_start_and_off_below_the_end() {
        let cookies = Cookies::new();
        assert_eq!((cookies.turn().0, cookies.counts()), (false, false), "never");
        cookies.set(Syncookies::Always, 1000);
        assert_eq!((cookies.turn().0, cookies.counts()), (true, false));
        cookies.set(Syncookies::Adaptive { start: 25, end: 12 }, 1000);
        assert_eq!((cookies.turn().0, cookies.counts()), (false, true));
        (0..249).for_each(|_| cookies.opened());
        assert_eq!(cookies.turn(), (false, false));
        cookies.opened();
        assert_eq!((cookies.turn(), cookies.turn()), ((true, false), (true, true)));
        (0..130).for_each(|_| cookies.closed());
        assert!(cookies.turn().0, "120 are not below the end");
        cookies.closed();
        assert_eq!(cookies.info(), CookieInfo { active: false, half_open: 119 });
    }
}
