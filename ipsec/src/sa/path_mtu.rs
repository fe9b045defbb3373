//! The path MTU of an SA's packets, as far as routers on the way have told (RFC 4301, 8.2; RFC 1191; RFC 8201).
//!
//! The message that tells it came in clear, and anybody may have sent it. So it is only ever believed downwards, not below
//! what every link of the family carries, and not for longer than ten minutes: then a larger packet tries again.
//! Whether it speaks of a packet that the SA has sent, the caller has found out ([`Sad::sent`](crate::Sad::sent)).

use kern::time::Instant;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// How long a message is believed (RFC 1191, 6.3).
const BELIEVED_NS: u64 = 600 * 1_000_000_000;
/// What every IPv4 host takes (RFC 791). Links may be smaller; who says so in clear is not believed.
const LEAST4: u16 = 576;
/// What every IPv6 link carries.
const LEAST6: u16 = wire::ipv6::MIN_MTU as u16;

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct PathMtu {
    /// 0 while nothing is known.
    mtu: AtomicU16,
    until: AtomicU64,
}

impl PathMtu {
    /// What fits, of packets that fit the link.
    #[inline(always)]
    pub(super) fn get(&self, link: u16, now: Instant) -> u16 {
        match self.mtu.load(Ordering::Acquire) {
            0 => link,
            mtu => self.remembered(mtu, now).min(link),
        }
    }

    #[cold]
    fn remembered(&self, mtu: u16, now: Instant) -> u16 {
        if now.nanos() < self.until.load(Ordering::Relaxed) {
            return mtu;
        }
        // Another worker may just have been told anew: that stays.
        let _ = self.mtu.compare_exchange(mtu, 0, Ordering::Relaxed, Ordering::Relaxed);
        u16::MAX
    }

    /// Somebody says that only `mtu` octets fit; says whether that is news.
    pub(super) fn note(&self, mtu: u32, link: u16, v6: bool, now: Instant) -> bool {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).max(if v6 { LEAST6 } else { LEAST4 });
        let is_news = mtu < self.get(link, now);
        if is_news {
            self.until.store(now.after(BELIEVED_NS).nanos(), Ordering::Relaxed);
            self.mtu.store(mtu, Ordering::Release);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    #[test]
    fn a_path_only_ever_gets_narrower_and_not_below_what_every_link_carries() {
        let path = PathMtu::default();
        assert_eq!(path.get(1500, NOW), 1500);
        assert!(!path.note(1500, 1500, false, NOW), "the link says as much");
        assert!(!path.note(9000, 1500, false, NOW));
        assert!(path.note(1400, 1500, false, NOW));
        assert!(!path.note(1450, 1500, false, NOW), "wider than known");
        assert!(!path.note(1400, 1500, false, NOW), "nothing new");
        assert_eq!((path.get(1500, NOW), path.get(1300, NOW)), (1400, 1300));
        assert!(path.note(68, 1500, false, NOW));
        assert_eq!(path.get(1500, NOW), 576);
        let path = PathMtu::default();
        assert!(path.note(1300, 1500, true, NOW) && path.note(0, 1500, true, NOW));
        assert_eq!(path.get(1500, NOW), 1280);
        assert!(!path.note(100, 1500, true, NOW), "it cannot be narrower");
        assert!(!PathMtu::default().note(u32::MAX, 1500, true, NOW));
    }

    #[test]
    fn what_was_told_is_forgotten_after_ten_minutes() {
        let path = PathMtu::default();
        assert!(path.note(1400, 1500, false, NOW));
        let later = NOW.after(599_999_999_999);
        assert_eq!(path.get(1500, later), 1400);
        let later = NOW.after(600_000_000_000);
        assert_eq!(path.get(1500, later), 1500);
        assert_eq!(path.get(1500, NOW), 1500, "forgotten is forgotten");
        assert!(path.note(1450, 1500, false, later));
        assert_eq!(path.get(1500, later), 1450);
    }
}
