//! The moving part of an SA: one lock each way, and a life that both look at.

use super::{Cause, Lifetime, Protocol, SaConfig, SaLevel, Setup, iv::iv_base, path_mtu::PathMtu};
use crate::{exit::Exit, order::Turns, replay::Window, seq::Sequence, transform::RUN};
use kern::{Mbuf, Why, lock::SpinMutex, time::Instant};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU8},
    time::SystemTime,
};

/// One lifetime in comparable form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    bytes: u64,
    packets: u64,
    at: Instant,
}

impl Limit {
    pub(super) fn new(lifetime: Lifetime, made: Instant) -> Limit {
        let at = |seconds: u64| made.after(seconds.saturating_mul(1_000_000_000));
        Limit {
            bytes: lifetime.bytes.unwrap_or(u64::MAX),
            packets: lifetime.packets.unwrap_or(u64::MAX),
            at: lifetime.seconds.map_or(Instant::NEVER, at),
        }
    }

    /// What of it is used up.
    pub(super) fn cause(&self, used: &Used, now: Instant) -> Option<Cause> {
        match () {
            () if used.bytes >= self.bytes => Some(Cause::Bytes),
            () if used.packets >= self.packets => Some(Cause::Packets),
            () if now >= self.at => Some(Cause::Seconds),
            () => None,
        }
    }

    #[inline(always)]
    pub(super) fn reached(&self, used: &Used, now: Instant) -> bool {
        used.bytes >= self.bytes || used.packets >= self.packets || now >= self.at
    }
}

/// What an SA has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Packets.
    pub packets: u64,
    /// Bytes of inner packets.
    pub bytes: u64,
    /// When it carried the first; zero if none.
    pub first: Instant,
    /// When it carried the last.
    pub last: Instant,
}

impl Used {
    #[inline(always)]
    pub(super) fn add(&mut self, packets: usize, bytes: u64, now: Instant) {
        if packets == 0 {
            return;
        }
        if self.packets == 0 {
            self.first = now;
        }
        self.packets += packets as u64;
        self.bytes += bytes;
        self.last = now;
    }
}

/// Packets an SA refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Seen before or too old.
    pub replay: u64,
    /// ICV wrong.
    pub auth: u64,
    /// Used up, in numbers or in life.
    pub expired: u64,
    /// All else: length, padding, inner protocol, no room.
    pub other: u64,
}

impl Refused {
    pub(super) fn count(&mut self, why: Why) {
        let counter = match why {
            Why::EspReplay | Why::AhReplay => &mut self.replay,
            Why::EspAuth | Why::AhAuth => &mut self.auth,
            Why::EspSequence | Why::EspLifetime | Why::AhSequence | Why::AhLifetime | Why::IpcompLifetime => {
                &mut self.expired
            }
            _ => &mut self.other,
        };
        *counter += 1;
    }
}

/// How an SA's life goes (RFC 2367 names).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    /// In use.
    Mature,
    /// Past its soft lifetime: still in use, a successor is wanted.
    Dying,
    /// Past its hard lifetime or out of numbers: no longer used.
    Dead,
}

impl Life {
    /// The word of `setkey -D`.
    pub const fn name(self) -> &'static str {
        match self {
            Life::Mature => "mature",
            Life::Dying => "dying",
            Life::Dead => "dead",
        }
    }
}

/// The moving part, outbound.
///
/// In this order: each run touches what stands in front, and where several workers send by one SA each line of it is fetched
/// from the other's cache.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Outbound {
    pub(crate) sequence: Sequence,
    /// Counted when numbers are reserved; what then could not be sealed is taken back.
    pub(crate) used: Used,
    /// When the last keepalive was sent.
    pub(crate) kept: Instant,
    pub(crate) refused: Refused,
}

/// The moving part, inbound. In this order for the same reason.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Inbound {
    pub(crate) turns: Turns<Mbuf>,
    pub(crate) window: Window,
    pub(crate) used: Used,
    /// Where the newest packet came from that came in UDP.
    pub(crate) came_from: Option<SocketAddr>,
    pub(crate) refused: Refused,
}

/// Keeps two locks that different workers hold out of each other's cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

/// The moving part of an SA. It belongs to the key: whatever else of the SA is configured anew, this goes on.
#[derive(Debug)]
pub struct Moving {
    pub(super) outbound: Apart<SpinMutex<SaLevel, Outbound>>,
    pub(super) inbound: Apart<SpinMutex<SaLevel, Inbound>>,
    /// Where several workers send by it.
    pub(super) exit: Option<Exit>,
    pub(super) iv_base: u64,
    pub(super) life: AtomicU8,
    /// Whether `came_from` has changed and the control thread does not know.
    pub(super) moved: AtomicBool,
    /// The life of which the control thread has been told.
    pub(super) told: AtomicU8,
    pub(super) path_mtu: PathMtu,
    pub(super) made: Instant,
    pub(super) made_on: SystemTime,
}

/// The numbers of an SA so configured. IPComp has none; what it counts must not run out.
pub(super) fn numbers_of(config: &SaConfig) -> Sequence {
    Sequence::new(config.esn || config.protocol == Protocol::Ipcomp)
}

impl Moving {
    pub(super) fn new(config: &SaConfig, setup: &Setup) -> Moving {
        let outbound = Outbound {
            sequence: numbers_of(config),
            used: Used::default(),
            refused: Refused::default(),
            kept: setup.now,
        };
        let inbound = Inbound {
            turns: Turns::new(RUN, OPENING, setup.workers),
            window: Window::new(config.replay),
            used: Used::default(),
            refused: Refused::default(),
            came_from: None,
        };
        let made_on = SystemTime::now();
        Moving {
            outbound: Apart(SpinMutex::new(outbound)),
            inbound: Apart(SpinMutex::new(inbound)),
            exit: (setup.workers > 1).then(|| Exit::new(Sequence::FIRST)),
            iv_base: setup.iv_base.unwrap_or_else(|| iv_base(made_on)),
            life: AtomicU8::new(Life::Mature as u8),
            moved: AtomicBool::new(false),
            told: AtomicU8::new(Life::Mature as u8),
            path_mtu: PathMtu::default(),
            made: setup.now,
            made_on,
        }
    }
}

/// Runs of one SA that may be opened at a time.
const OPENING: usize = 16;

/// What a report says about an SA's moving part.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Sealed.
    pub sent: Used,
    /// Opened.
    pub received: Used,
    /// Refused on the way out.
    pub sent_refused: Refused,
    /// Refused on the way in.
    pub received_refused: Refused,
    /// The last sequence number sent.
    pub sequence: u64,
    /// The highest sequence number received.
    pub top: u64,
    /// How its life goes.
    pub life: Life,
    /// When it was made.
    pub made: Instant,
    /// When it was made, by the wall clock.
    pub made_on: SystemTime,
}

impl Outbound {
    /// Some of the packets for which numbers were reserved could not be sealed: they were not carried. If none was, nothing has
    /// been since `before`.
    #[cold]
    pub(crate) fn take_back(&mut self, packets: usize, octets: u64, before: Option<Instant>) {
        self.used.packets = self.used.packets.saturating_sub(packets as u64);
        self.used.bytes = self.used.bytes.saturating_sub(octets);
        self.used.last = before.unwrap_or(self.used.last);
        if self.used.packets == 0 {
            self.used.first = Instant::default();
        }
    }
}

impl Inbound {
    #[inline(always)]
    pub(crate) fn add_used(&mut self, packets: usize, bytes: u64, now: Instant) {
        self.used.add(packets, bytes, now);
    }
}
