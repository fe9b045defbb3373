//! Where the IVs of an SA begin, so that a key set up again has none a second time.
//!
//! Counter modes want unique IVs and leave open how (RFC 4106, 3.1; NIST SP 800-38D, 8.2.1): this is the deterministic construction. An IV
//! is the wall clock in nanoseconds when the key was set up, plus the sequence number, which begins at 1 each time. No SA sends a
//! packet a nanosecond, so whoever comes later has IVs that are higher than all before, as long as the clock has not been set back.
//! In one process it does not matter if it is: [`NeverBack`]. Over a restart it does, and nothing here can tell.
//!
//! There is nothing random in it. IVs that begin at a random place of 2⁶⁴ meet by chance: ten set-ups of a key with 2³² packets each
//! do so once in some 2²⁵ times, where SP 800-38D, 8 allows once in 2³². And a random part taken from the clock's bits leaves a clock
//! that begins again sooner.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

/// How far the wall clock has ever been ahead of the time for which the process has run, in nanoseconds: what is said of the time does
/// not go back when the clock is.
#[derive(Debug)]
struct NeverBack(AtomicU64);

impl NeverBack {
    /// The time, of which the clock says `wall`.
    fn time(&self, wall: u64, running: u64) -> u64 {
        let ahead = wall.saturating_sub(running);
        running.wrapping_add(self.0.fetch_max(ahead, Ordering::Relaxed).max(ahead))
    }
}

/// The first IV of a key set up now, less one.
pub(super) fn iv_base(now: SystemTime) -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    static CLOCK: NeverBack = NeverBack(AtomicU64::new(0));
    let running = BEGAN.elapsed();
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    CLOCK.time(kern::time::nanos_of(since_1970), kern::time::nanos_of(running))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_does_not_bring_ivs_again() {
        let clock = NeverBack(AtomicU64::new(0));
        assert_eq!(clock.time(5_000, 10), 5_000);
        assert_eq!(clock.time(5_020, 30), 5_020);
        assert_eq!(clock.time(1_000, 40), 5_030, "set back");
        assert_eq!(clock.time(9_000, 50), 9_000, "and on");
        assert_eq!(clock.time(0, 60), 9_010, "before 1970");
    }
}
