//! CoDel: controlled delay (RFC 8289).
//!
//! ```text
//!            above target for an interval: drop
//!   Sending ───────────────────────────────────▶ Dropping ──┐ every interval / √count
//!      ▲                                          │   ▲     │ drop, count + 1
//!      └──────────────────────────────────────────┘   └─────┘
//!            below target, or less than a packet left
//! ```
//!
//! The queue asks about every packet at its head until it is told to send one. With ECN the packet is marked and sent
//! instead.

use kern::time::Instant;

/// The target and the interval that pf.conf's `codel` has.
pub(crate) const TARGET_MS: u32 = 5;
/// See [`TARGET_MS`].
pub(crate) const INTERVAL_MS: u32 = 100;
/// Intervals for which the drop rate is remembered.
const MEMORY: u64 = 16;

/// How CoDel is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodelConf {
    /// A standing delay below this is good, in nanoseconds.
    pub target: u64,
    /// A delay that stands this long is too much, in nanoseconds.
    pub interval: u64,
    /// Marks instead of drops.
    pub ecn: bool,
}

impl CodelConf {
    /// From pf.conf's milliseconds.
    pub fn new(target_ms: Option<u32>, interval_ms: Option<u32>, ecn: bool) -> CodelConf {
        let nanos = |ms: u32| u64::from(ms) * 1_000_000;
        CodelConf {
            target: nanos(target_ms.unwrap_or(TARGET_MS)),
            interval: nanos(interval_ms.unwrap_or(INTERVAL_MS)),
            ecn,
        }
    }
}

/// The state of one queue, or of one flow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Codel {
    dropping: bool,
    /// When the delay will have stood for an interval; none while it does not.
    above_at: Option<Instant>,
    drop_next: Instant,
    count: u64,
    last_count: u64,
}

impl Codel {
    /// Whether to drop the packet at the head, which came at `came` and leaves `behind` bytes; `mtu` is too few for a
    /// queue to stand.
    #[inline]
    pub(crate) fn drops(
        &mut self,
        conf: &CodelConf,
        came: Instant,
        behind: u64,
        mtu: u64,
        now: Instant,
    ) -> bool {
        if now.nanos_since(came) < conf.target || behind < mtu {
            self.above_at = None;
            self.dropping = false;
            return false;
        }
        let Some(above_at) = self.above_at else {
            self.above_at = Some(now.after(conf.interval));
            return false;
        };
        if self.dropping {
            if now < self.drop_next {
                return false;
            }
            self.count += 1;
            self.drop_next = control_law(self.drop_next, conf.interval, self.count);
            return true;
        }
        if now < above_at {
            return false;
        }
        self.dropping = true;
        // Soon after the last time it goes on at about the rate that held the queue then.
        let recent = now.nanos_since(self.drop_next) < MEMORY * conf.interval;
        let delta = self.count - self.last_count;
        self.count = if recent && delta > 1 { delta } else { 1 };
        self.last_count = self.count;
        self.drop_next = control_law(now, conf.interval, self.count);
        true
    }

    /// The queue has run empty.
    #[inline]
    pub(crate) fn empty(&mut self) {
        self.above_at = None;
        self.dropping = false;
    }
}

/// One interval over the root of the count later.
fn control_law(from: Instant, interval: u64, count: u64) -> Instant {
    let root = (count << 32).isqrt();
    from.after((interval << 16) / root.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_come_at_an_interval_over_the_root_of_their_number() {
        let conf = CodelConf::new(None, None, false);
        let mut codel = Codel::default();
        let mut drops = Vec::new();
        for ms in 1000..3000 {
            let now = Instant::from_millis(ms);
            if codel.drops(&conf, Instant::from_millis(ms - 50), 100_000, 1514, now) {
                drops.push(ms - 1000);
            }
        }
        // 100, + 100/√1, + 100/√2, + 100/√3 ..., each rounded up to the next packet.
        assert_eq!(drops[..6], [100, 200, 271, 329, 379, 424]);
    }

    #[test]
    fn a_good_queue_and_a_short_one_are_left_alone() {
        let conf = CodelConf::new(None, None, false);
        let mut codel = Codel::default();
        for ms in 1000..9000 {
            let now = Instant::from_millis(ms);
            assert!(!codel.drops(&conf, Instant::from_millis(ms - 4), 100_000, 1514, now));
            assert!(!codel.drops(&conf, Instant::from_millis(ms - 900), 1513, 1514, now));
            let burst = ms % 200 < 99;
            let came = if burst { ms - 20 } else { ms };
            assert!(!codel.drops(&conf, Instant::from_millis(came), 100_000, 1514, now));
        }
    }

    #[test]
    fn soon_after_it_goes_on_where_it_was() {
        let conf = CodelConf::new(None, None, false);
        let mut codel = Codel::default();
        let mut run = |from: u64, to: u64| {
            let late = |ms: u64| Instant::from_millis(ms - 50);
            (from..to)
                .filter(|&ms| codel.drops(&conf, late(ms), 100_000, 1514, Instant::from_millis(ms)))
                .count()
        };
        let first = run(1000, 3000);
        assert!(first > 20);
        codel.empty();
        let mut again = |from: u64, to: u64| {
            let late = |ms: u64| Instant::from_millis(ms - 50);
            (from..to)
                .filter(|&ms| codel.drops(&conf, late(ms), 100_000, 1514, Instant::from_millis(ms)))
                .count()
        };
        let second = again(3000, 3200);
        assert!(second > 3, "{second} drops in the first 200 ms");
    }
}
