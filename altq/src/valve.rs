//! The flow valve of a RED queue (`flowvalve`): RED drops at random and counts on senders to slow down; a flow that does
//! not is held at what a TCP would send at the same loss (Floyd and Fall 1999, section 4; `altq_red.c`, FLOW_VALVE).
//!
//! ```text
//!   every second:   p = dropped or marked by RED / arrived
//!                   limit = √(1.5 / p) frames every [`ROUND_TRIP`]            what a TCP gets at that loss
//!   a flow above the limit       ─▶ its valve closes: it passes at the limit of that moment and no faster
//!   a flow at or below its valve ─▶ its valve opens
//! ```
//!
//! Only the largest flows matter, so there are few places: a flow that finds another in its place wears that one down
//! and takes it over when nothing is left. The round trip is a guess on the short side: a TCP on a path shorter still is
//! taken for one that does not respond. Not here: what is below [`LOSS`], which is no congestion to speak of.

use crate::tbr::Regulator;
use kern::time::Instant;

/// Flows that are watched.
const PLACES: usize = 64;
/// Nanoseconds between two looks.
const EPOCH: u64 = 1_000_000_000;
/// Round trips a second of the TCP that flows are compared with: 10 ms each.
const ROUND_TRIP: u64 = 100;
/// 1 / the least loss at which a valve closes.
const LOSS: u64 = 100;
/// Frames that a closed valve lets through at once.
const BURST: u32 = 4;

#[derive(Default)]
struct Place {
    hash: u32,
    /// What has come since the last look.
    bytes: u64,
    /// What others must bring to take the place over; half of it is forgotten at every look.
    standing: u64,
    closed: Option<Regulator>,
}

/// Watches the flows of one queue.
pub(crate) struct Valve {
    places: Box<[Place]>,
    since: Instant,
    arrived: u64,
    dropped: u64,
    /// Bytes of the largest frame.
    frame: u32,
}

impl Valve {
    pub(crate) fn new(frame: u32) -> Valve {
        let places = (0..PLACES).map(|_| Place::default()).collect();
        Valve { places, since: Instant::ZERO, arrived: 0, dropped: 0, frame }
    }

    /// Whether a packet of this flow and so many bytes may go on to RED.
    #[inline]
    pub(crate) fn admits(&mut self, hash: u32, bytes: u32, now: Instant) -> bool {
        if now.nanos_since(self.since) >= EPOCH {
            self.look(now);
        }
        let place = &mut self.places[hash as usize % PLACES];
        if place.hash != hash {
            if place.standing > 0 {
                place.standing = place.standing.saturating_sub(bytes.into());
                return true;
            }
            *place = Place { hash, ..Place::default() };
        }
        place.bytes += u64::from(bytes);
        place.standing += u64::from(bytes);
        let Some(regulator) = &mut place.closed else { return true };
        let passes = regulator.may_send(now);
        if passes {
            regulator.charge(bytes);
        }
        passes
    }

    /// RED has judged a packet.
    #[inline]
    pub(crate) fn judged(&mut self, hit: bool) {
        self.arrived += 1;
        self.dropped += u64::from(hit);
    }

    /// Opens and closes valves by what came since the last look.
    fn look(&mut self, now: Instant) {
        let elapsed = now.nanos_since(self.since);
        let limit = (self.dropped * LOSS >= self.arrived.max(1)).then(|| self.limit());
        for place in &mut self.places {
            let rate = (u128::from(place.bytes) * 8_000_000_000 / u128::from(elapsed)) as u64;
            (place.bytes, place.standing) = (0, place.standing / 2);
            match &place.closed {
                Some(regulator) if rate <= regulator.rate() => place.closed = None,
                Some(_) => {}
                None => {
                    let over = limit.filter(|&limit| rate > limit);
                    place.closed = over.map(|limit| Regulator::new(limit, BURST * self.frame));
                }
            }
        }
        (self.since, self.arrived, self.dropped) = (now, 0, 0);
    }

    /// Bits a second of a TCP at the loss since the last look.
    fn limit(&self) -> u64 {
        // Thousandths of frames in a round trip.
        let window = (1_500_000 * self.arrived / self.dropped.max(1)).isqrt();
        window * u64::from(self.frame) * 8 * ROUND_TRIP / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes of a flow at `rate` frames a second, for some seconds; `loss` in a hundred is hit by RED.
    fn run(valve: &mut Valve, from: u64, seconds: u64, hash: u32, rate: u64, loss: u64) -> u64 {
        let mut passed = 0;
        for n in 0..seconds * rate {
            let now = Instant::from_nanos(from * EPOCH + n * EPOCH / rate);
            if valve.admits(hash, 1500, now) {
                passed += 1;
                valve.judged(n % 100 < loss);
            }
        }
        passed
    }

    #[test]
    fn a_valve_closes_above_a_tcp_s_rate_and_opens_when_the_flow_has_slowed_down() {
        let mut valve = Valve::new(1500);
        // At 6 % of loss a TCP has a window of five frames: 500 a second.
        assert_eq!(run(&mut valve, 1, 1, 7, 2000, 6), 2000, "it is open to begin with");
        let passed = run(&mut valve, 2, 4, 7, 2000, 6);
        assert!((2000..2020).contains(&passed), "{passed} of 500 a second");
        // Slower than that, and again: the first second still at the valve's rate, of which it needs less.
        assert!(run(&mut valve, 6, 2, 7, 400, 0) >= 798);
        assert_eq!(run(&mut valve, 8, 1, 7, 2000, 0), 2000, "it is open");
    }

    #[test]
    fn without_loss_no_rate_is_too_high() {
        let mut valve = Valve::new(1500);
        assert_eq!(run(&mut valve, 1, 5, 7, 5000, 0), 25_000);
    }

    #[test]
    fn a_large_flow_takes_over_the_place_of_a_small_one() {
        let mut valve = Valve::new(1500);
        let mut passed = 0;
        for n in 0..5 * 2000 {
            let now = Instant::from_nanos(EPOCH + n * EPOCH / 2000);
            if n % 20 == 0 {
                assert!(valve.admits(7, 1500, now), "the small flow always passes");
            }
            // It has the same place.
            if valve.admits(7 + PLACES as u32, 1500, now) {
                passed += 1;
                valve.judged(n % 100 < 6);
            }
        }
        assert!(passed < 2000 + 4 * 700, "{passed}");
    }
}
