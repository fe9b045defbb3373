//! Time: nanoseconds of a clock that never goes back, real or virtual.
//!
//! The real clock is `CLOCK_MONOTONIC`, so that an [`Instant`] can be given to a timerfd as it is. The virtual clock
//! stands still until somebody moves it: tests and the one-process demo live in it.
//!
//! A worker reads the clock once a batch and passes the instant on. Wall-clock time (certificates, log lines) is not
//! kept here.

use std::{
    fmt, ops,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub use core::time::Duration;

/// A point in time: nanoseconds since the clock's own zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The clock's zero.
    pub const ZERO: Instant = Instant(0);
    /// Later than everything.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// The instant `nanos` after the clock's zero.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// The instant `millis` after the clock's zero.
    #[inline]
    pub const fn from_millis(millis: u64) -> Instant {
        Instant(millis.saturating_mul(1_000_000))
    }

    /// The instant `secs` after the clock's zero.
    #[inline]
    pub const fn from_secs(secs: u64) -> Instant {
        Instant(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the clock's zero.
    #[inline]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the clock's zero.
    #[inline]
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole seconds since the clock's zero.
    #[inline]
    pub const fn secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// This instant and `nanos` more.
    #[inline]
    #[must_use]
    pub const fn after(self, nanos: u64) -> Instant {
        Instant(self.0.saturating_add(nanos))
    }

    /// Nanoseconds since `earlier`; 0 if that is later.
    #[inline]
    pub const fn nanos_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Time since `earlier`; zero if that is later.
    #[inline]
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }
}

/// Nanoseconds of a duration, as far as 64 bits go (584 years).
#[inline]
pub const fn nanos_of(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos() as u64)
}

impl ops::Add<Duration> for Instant {
    type Output = Instant;
    #[inline]
    fn add(self, duration: Duration) -> Instant {
        self.after(nanos_of(duration))
    }
}

impl ops::AddAssign<Duration> for Instant {
    #[inline]
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl ops::Sub<Duration> for Instant {
    type Output = Instant;
    /// Saturates at the clock's zero.
    #[inline]
    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanos_of(duration)))
    }
}

impl ops::Sub for Instant {
    type Output = Duration;
    /// Zero if `earlier` is later.
    #[inline]
    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.secs(), self.0 / 1_000 % 1_000_000)
    }
}

/// Where time comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// `CLOCK_MONOTONIC`.
    #[default]
    Real,
    /// Nanoseconds that somebody sets. Clones are the same clock.
    Virtual(Arc<AtomicU64>),
}

impl Clock {
    /// A virtual clock that stands at one second, so that "a while ago" is no special case.
    pub fn virtual_at_one_second() -> Clock {
        Clock::Virtual(Arc::new(AtomicU64::new(1_000_000_000)))
    }

    /// The time now.
    #[inline]
    pub fn now(&self) -> Instant {
        match self {
            Clock::Real => monotonic(),
            Clock::Virtual(nanos) => Instant(nanos.load(Ordering::Acquire)),
        }
    }

    /// Moves a virtual clock on and says what time it is then. A real clock is not moved by us.
    pub fn advance(&self, by: Duration) -> Instant {
        match self {
            Clock::Real => monotonic(),
            Clock::Virtual(nanos) => {
                let by = nanos_of(by);
                Instant(nanos.fetch_add(by, Ordering::AcqRel).saturating_add(by))
            }
        }
    }

    /// Moves a virtual clock on to `at`, never back. A real clock is not moved by us.
    pub fn advance_to(&self, at: Instant) {
        if let Clock::Virtual(nanos) = self {
            nanos.fetch_max(at.0, Ordering::AcqRel);
        }
    }

    /// Whether somebody has to move it.
    pub fn is_virtual(&self) -> bool {
        matches!(self, Clock::Virtual(_))
    }
}

/// Reads `CLOCK_MONOTONIC`, through the vDSO.
#[inline]
fn monotonic() -> Instant {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Instant((now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_clock_runs_and_never_goes_back() {
        let clock = Clock::Real;
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert!(last > Instant::ZERO);
        assert!(clock.advance(Duration::from_secs(100)) < last + Duration::from_secs(100));
    }

    #[test]
    fn a_virtual_clock_stands_until_it_is_moved_and_clones_move_with_it() {
        let clock = Clock::virtual_at_one_second();
        let twin = clock.clone();
        assert_eq!(clock.now(), Instant::from_secs(1));
        assert_eq!(clock.advance(Duration::from_millis(1500)), Instant::from_millis(2500));
        assert_eq!(twin.now(), Instant::from_millis(2500));
        twin.advance_to(Instant::from_secs(2));
        assert_eq!(clock.now(), Instant::from_millis(2500), "never back");
        twin.advance_to(Instant::from_secs(3));
        assert_eq!(clock.now(), Instant::from_secs(3));
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let (early, late) = (Instant::from_secs(1), Instant::from_secs(3));
        assert_eq!(late - early, Duration::from_secs(2));
        assert_eq!(early - late, Duration::ZERO);
        assert_eq!(early - Duration::from_secs(2), Instant::ZERO);
        assert_eq!(Instant::NEVER + Duration::from_secs(1), Instant::NEVER);
        assert_eq!(Instant::from_nanos(3).after(Duration::MAX.subsec_nanos() as u64).nanos(), 1_000_000_002);
        assert_eq!(nanos_of(Duration::MAX), u64::MAX);
        assert_eq!(Instant::from_nanos(1_234_567_890).to_string(), "1.234567s");
    }
}
