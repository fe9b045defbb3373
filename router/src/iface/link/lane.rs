//! One lane of the in-memory link: the frames on their way to one queue, in the order in which they arrive.

use super::{LinkConfig, LinkStats};
use crate::iface::vnet::VnetHdr;
use kern::time::{Clock, Duration, Instant, nanos_of};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};
use wire::checksum;

/// A place for a frame on the wire; its memory is used again and again.
#[derive(Default)]
pub(super) struct Slot {
    octets: Vec<u8>,
    vnet: VnetHdr,
}

impl Slot {
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    pub(super) fn vnet(&self) -> VnetHdr {
        self.vnet
    }

    pub(super) fn fill(&mut self, octets: &[u8], vnet: VnetHdr) {
        self.octets.clear();
        self.octets.extend_from_slice(octets);
        self.vnet = vnet;
    }

    /// A field outside the frame is left: the receiver will find the checksum wrong.
    pub(super) fn finish_checksum(&mut self, start: usize, offset: u16) {
        let _ = checksum::finish_partial(&mut self.octets, start, usize::from(offset));
    }
}

/// A seeded generator (SplitMix64): chance that a test can repeat.
struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// True with this probability.
    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && (self.draw() >> 11) as f64 / (1_u64 << 53) as f64 <= probability
    }

    /// Somewhere between zero and `most`.
    fn up_to(&mut self, most: Duration) -> u64 {
        self.draw() % (nanos_of(most) + 1)
    }
}

/// What a reader sleeps on when time is real: readable when a frame is due.
pub(super) struct Alarm(OwnedFd);

impl Alarm {
    fn new() -> Option<Alarm> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags).ok().map(Alarm)
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sets it to an instant, or off. A timerfd that is set anew is not readable until it fires.
    fn set(&self, at: Option<Instant>) {
        // An instant of zero would turn the timer off.
        let nanos = at.map_or(0, |at| at.nanos().max(1));
        let it_value =
            Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
        let spec = Itimerspec { it_interval: Timespec::default(), it_value };
        // Fails for a bad descriptor or a bad time only.
        let _ = rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &spec);
    }
}

/// The frames on their way to one queue.
pub(super) struct Lane {
    free: Vec<Slot>,
    flying: VecDeque<(Instant, Slot)>,
    chance: Chance,
    wire_free: Instant,
    loss: f64,
    delay: Duration,
    reorder: f64,
    jitter: Duration,
    bandwidth: Option<u64>,
    stats: LinkStats,
    alarm: Option<Arc<Alarm>>,
    alarm_at: Option<Instant>,
}

impl Lane {
    pub(super) fn new(config: &LinkConfig, seed: u64, clock: &Clock) -> Lane {
        let slot = |_| Slot { octets: Vec::with_capacity(config.mtu + 22), vnet: VnetHdr::PLAIN };
        Lane {
            free: (0..config.capacity).map(slot).collect(),
            flying: VecDeque::with_capacity(config.capacity),
            chance: Chance(seed),
            wire_free: Instant::ZERO,
            loss: config.loss,
            delay: config.delay,
            reorder: config.reorder,
            jitter: config.jitter,
            bandwidth: config.bandwidth,
            stats: LinkStats::default(),
            alarm: (!clock.is_virtual()).then(Alarm::new).flatten().map(Arc::new),
            alarm_at: None,
        }
    }

    /// An empty slot, if the lane is not full.
    pub(super) fn blank(&mut self) -> Option<Slot> {
        self.free.pop()
    }

    /// Frames for which there is room.
    pub(super) fn room(&self) -> usize {
        self.free.len()
    }

    /// Takes a slot back.
    pub(super) fn recycle(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// Puts a frame on the wire. `octets` is what it occupies there.
    pub(super) fn launch(&mut self, slot: Slot, now: Instant, octets: usize) {
        self.stats.written += 1;
        let left_sender = self.transmit(now, octets);
        if self.chance.happens(self.loss) {
            self.stats.lost += 1;
            return self.recycle(slot);
        }
        let mut due = left_sender + self.delay;
        if self.chance.happens(self.reorder) {
            self.stats.held_up += 1;
            due = due.after(self.chance.up_to(self.jitter));
        }
        let place = self.flying.iter().rposition(|(at, _)| *at <= due).map_or(0, |last| last + 1);
        self.flying.insert(place, (due, slot));
    }

    /// When the last bit of the frame has left the sender.
    fn transmit(&mut self, now: Instant, octets: usize) -> Instant {
        match self.bandwidth {
            None => now,
            Some(rate) => {
                let nanos = octets as u128 * 8 * 1_000_000_000 / u128::from(rate.max(1));
                self.wire_free = self.wire_free.max(now).after(nanos as u64);
                self.wire_free
            }
        }
    }

    /// The next frame that is due.
    pub(super) fn arrive(&mut self, now: Instant) -> Option<Slot> {
        let due = self.flying.front().is_some_and(|(at, _)| *at <= now);
        due.then(|| self.flying.pop_front()).flatten().map(|(_, slot)| slot)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.flying.front().map(|(at, _)| *at)
    }

    /// The cable was pulled.
    pub(super) fn lose_all(&mut self) {
        while let Some((_, slot)) = self.flying.pop_front() {
            self.stats.lost += 1;
            self.recycle(slot);
        }
        self.set_alarm();
    }

    pub(super) fn note_refused(&mut self, busy: u64, too_big: u64) {
        self.stats.busy += busy;
        self.stats.too_big += too_big;
    }

    pub(super) fn note_read(&mut self, read: u64, refused: u64) {
        self.stats.read += read - refused;
        self.stats.refused += refused;
    }

    pub(super) fn add_to(&self, sum: &mut LinkStats) {
        sum.written += self.stats.written;
        sum.lost += self.stats.lost;
        sum.held_up += self.stats.held_up;
        sum.busy += self.stats.busy;
        sum.too_big += self.stats.too_big;
        sum.read += self.stats.read;
        sum.refused += self.stats.refused;
        sum.in_flight += self.flying.len() as u64;
    }

    pub(super) fn alarm(&self) -> Option<Arc<Alarm>> {
        self.alarm.clone()
    }

    /// Lets the reader's descriptor fire when the next frame is due; a system call only when that has changed.
    pub(super) fn set_alarm(&mut self) {
        let next = self.next_due();
        if let Some(alarm) = self.alarm.as_ref().filter(|_| next != self.alarm_at) {
            alarm.set(next);
            self.alarm_at = next;
        }
    }
}
