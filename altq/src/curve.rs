//! Service curves of HFSC: two straight pieces, and what becomes of them at run time (`rtsc_*` of `altq_hfsc.c`).
//!
//! ```text
//!  concave, m1 > m2:  the lesser of two lines      convex, m1 < m2:  the greater of two lines
//!      service   ╱‾‾‾ m2                               service      ╱ m2
//!               ╱ m1                                            ___╱
//!              ╱____ time                                    ‾‾ m1   time
//! ```
//!
//! Exact integer arithmetic: time is nanoseconds, service is bits × nanoseconds in a second, so that a rate of m bits
//! a second gives m units a nanosecond and nothing is ever rounded. BSD keeps a starting point and a corner, and its
//! intersection of two curves rounds; here each piece is a line kept by where it meets time zero, so the minimum of
//! two concave curves of one shape is the minimum of two pairs of numbers. Only the inverse rounds: up, to the first
//! nanosecond at which the service is reached.
//!
//! Two convex curves have no two-piece minimum. As in BSD the old one stays if it is below the new one where that
//! begins, and otherwise the new one takes its place.

/// Units of service in a byte.
pub(crate) const BYTE: i128 = 8 * 1_000_000_000;

/// A curve as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Curve {
    /// Bits a second of the first piece.
    pub m1: u64,
    /// How long it lasts, in nanoseconds.
    pub d: u64,
    /// Bits a second of the second piece.
    pub m2: u64,
}

impl Curve {
    /// A straight one.
    pub const fn linear(rate: u64) -> Curve {
        Curve { m1: rate, d: 0, m2: rate }
    }

    /// Whether it gives nothing.
    pub const fn is_zero(&self) -> bool {
        self.m1 == 0 && self.m2 == 0
    }

    /// Units of service after this many nanoseconds.
    pub fn at(&self, nanos: u64) -> i128 {
        let first = nanos.min(self.d);
        i128::from(self.m1) * i128::from(first) + i128::from(self.m2) * i128::from(nanos - first)
    }

    /// Where the second line meets the beginning.
    fn corner(&self) -> i128 {
        (i128::from(self.m1) - i128::from(self.m2)) * i128::from(self.d)
    }

    /// Whether the first piece is the flatter one.
    pub(crate) fn is_convex(&self) -> bool {
        self.m1 < self.m2
    }

    fn is_concave(&self) -> bool {
        self.m1 > self.m2
    }
}

/// A curve that began at some time with some service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runtime {
    curve: Curve,
    /// Service of each line at time zero.
    first: i128,
    second: i128,
    /// When it began, for a first piece that is flat.
    from: u64,
}

impl Runtime {
    /// The curve from time `x` and service `y` on.
    pub(crate) fn new(curve: Curve, x: u64, y: i128) -> Runtime {
        let start = i128::from(x);
        Runtime {
            curve,
            first: y - i128::from(curve.m1) * start,
            second: y + curve.corner() - i128::from(curve.m2) * start,
            from: x,
        }
    }

    /// The class begins again at time `x` with service `y`: never more than the old curve and the new one allow. Says
    /// whether a convex curve was replaced.
    pub(crate) fn again(&mut self, x: u64, y: i128) -> bool {
        let new = Runtime::new(self.curve, x, y);
        if self.curve.is_concave() {
            self.first = self.first.min(new.first);
            self.second = self.second.min(new.second);
            return false;
        }
        let replace = self.service(x) >= y;
        if replace {
            *self = new;
        }
        replace
    }

    /// The same curve from another beginning on.
    pub(crate) fn restarted(&self, x: u64, y: i128) -> Runtime {
        Runtime::new(self.curve, x, y)
    }

    /// Service at a time at or after the beginning.
    pub(crate) fn service(&self, x: u64) -> i128 {
        let x = i128::from(x);
        let first = self.first + i128::from(self.curve.m1) * x;
        let second = self.second + i128::from(self.curve.m2) * x;
        if self.curve.is_concave() { first.min(second) } else { first.max(second) }
    }

    /// The first nanosecond at which the service is at least `y`.
    #[inline]
    pub(crate) fn time(&self, y: i128) -> u64 {
        if self.curve.d == 0 {
            return reach(y - self.second, self.curve.m2);
        }
        let first = reach(y - self.first, self.curve.m1);
        let second = reach(y - self.second, self.curve.m2);
        if self.curve.is_concave() { first.max(second) } else { first.min(second).max(self.from) }
    }
}

/// Nanoseconds until a line through the origin reaches `rise`, rounded up.
#[inline]
fn reach(rise: i128, rate: u64) -> u64 {
    if rise <= 0 {
        return 0;
    }
    let rise = rise as u128;
    let rate = u128::from(rate);
    if rate == 0 {
        return u64::MAX - 1;
    }
    let nanos = match u64::try_from(rise) {
        // 64 bits are a division of 64 bits: three times faster.
        Ok(rise) => u128::from(rise.div_ceil(rate as u64)),
        Err(_) => rise.div_ceil(rate),
    };
    u64::try_from(nanos).unwrap_or(u64::MAX - 1).min(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An exact fraction.
    #[derive(Clone, Copy, Debug)]
    struct Ratio(i128, i128);

    impl Ratio {
        fn le(self, other: Ratio) -> bool {
            self.0 * other.1 <= other.0 * self.1
        }
    }

    /// The definition: every curve there ever was, and the least of them at each time.
    struct Model {
        curve: Curve,
        starts: Vec<(u64, i128)>,
    }

    impl Model {
        fn again(&mut self, x: u64, y: i128) {
            if !self.curve.is_concave() && self.service(x) >= y {
                self.starts.clear();
            }
            if self.curve.is_concave() || self.starts.is_empty() {
                self.starts.push((x, y));
            }
        }

        fn service(&self, x: u64) -> i128 {
            self.starts.iter().map(|&(x0, y0)| y0 + self.curve.at(x - x0)).min().unwrap_or(0)
        }

        /// When the least of all curves reaches `y`, as a fraction: the latest of each one's own time.
        fn time(&self, y: i128) -> Ratio {
            let own = |&(x0, y0): &(u64, i128)| {
                let (m1, d, m2) =
                    (i128::from(self.curve.m1), i128::from(self.curve.d), i128::from(self.curve.m2));
                let corner = y0 + m1 * d;
                if y <= corner && m1 > 0 && d > 0 {
                    Ratio(i128::from(x0) * m1 + (y - y0), m1)
                } else {
                    Ratio((i128::from(x0) + d) * m2 + (y - corner), m2)
                }
            };
            self.starts.iter().map(own).reduce(|a, b| if a.le(b) { b } else { a }).unwrap()
        }
    }

    fn curves() -> impl Strategy<Value = Curve> {
        let rate =
            || prop_oneof![1_000_u64..10_000, 1_000_000_u64..100_000_000, 1_000_000_000_u64..10_000_000_000];
        let d = 1_u64..50_000_000;
        prop_oneof![
            rate().prop_map(Curve::linear),
            (rate(), d.clone(), rate()).prop_map(|(a, d, b)| Curve { m1: a.max(b), d, m2: a.min(b) }),
            (d, rate()).prop_map(|(d, m2)| Curve { m1: 0, d, m2 }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_run_time_curve_is_the_exact_least_of_all_that_began(
            curve in curves(),
            steps in prop::collection::vec((0_u64..20_000_000, 1_u32..3000), 1..12),
        ) {
            let (mut x, mut y) = (1_000_000_000, 0);
            let mut model = Model { curve, starts: vec![(x, y)] };
            let mut curve = Runtime::new(curve, x, y);
            for (pause, bytes) in steps {
                y += i128::from(bytes) * BYTE;
                x = curve.time(y) + pause;
                prop_assert_eq!(curve.service(x), model.service(x));
                for ahead in [0, 1, 700, 1514, 1_000_000] {
                    let wanted = y + ahead * BYTE;
                    let (time, exact) = (i128::from(curve.time(wanted)), model.time(wanted));
                    prop_assert!(exact.le(Ratio(time, 1)), "{} is before {:?}", time, exact);
                    prop_assert!(!exact.le(Ratio(time - 1, 1)), "{} is a nanosecond after {:?}", time, exact);
                }
                curve.again(x, y);
                model.again(x, y);
            }
        }
    }

    #[test]
    fn a_rate_of_zero_never_gets_there_and_nothing_overflows() {
        assert_eq!(Runtime::new(Curve::linear(0), 5, 0).time(1), u64::MAX - 1);
        let slow = Runtime::new(Curve::linear(1), u64::MAX / 2, i128::from(u64::MAX) * BYTE);
        assert_eq!(slow.time(i128::from(u64::MAX) * BYTE * 2), u64::MAX - 1);
    }
}
