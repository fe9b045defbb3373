//! Packets that a policy protects and for which there is no SA: who made one is told (SADB_ACQUIRE of RFC 2367).
//!
//! ```text
//!   worker: packet ends, Why::SpNoSa ─► Asked (its own: once a second for each want) ─► Acquires (shared, bounded)
//!   control thread:                     Acquires ─► Unanswered (one event a want, again after 30 s) ─► monitors
//! ```
//!
//! A flood of such packets costs a worker a look at its own table; what is shared is touched a few times a second.

use super::Sadb;
use crate::{
    control::setkey::{Acquire, SaEvent},
    router::Router,
};
use ipsec::{Sad, selector::Packet, spd::Wanted};
use kern::{
    lock::Leaf,
    time::{Duration, Instant},
};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Wants that wait for the control thread at most.
const WAITING: usize = 128;
/// Wants that a worker remembers.
const REMEMBERED: usize = 64;
/// How long it does.
const SILENT: Duration = Duration::from_secs(1);
/// How often a worker may speak at most.
const APART: Duration = Duration::from_micros(500);
/// When an unanswered want is told again: Linux's `xfrm_acq_expires`.
const AGAIN: Duration = Duration::from_secs(30);
/// Wants that are unanswered at most; others are not told.
const UNANSWERED: usize = 4096;
/// The number of no protocol, which stands for any (`IPSEC_ULPROTO_ANY` of NetBSD).
const ANY: u8 = 255;

/// What a packet wanted, and which packet.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    wanted: Wanted,
    packet: (IpAddr, IpAddr),
    proto: u8,
    ports: Option<(u16, u16)>,
}

/// Where workers tell the control thread.
pub struct Acquires {
    waiting: Leaf<Vec<Want>>,
    wake: OwnedFd,
}

impl Acquires {
    /// Nothing is wanted; fails if the system has no eventfd left.
    pub(crate) fn new() -> std::io::Result<Acquires> {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        Ok(Acquires {
            waiting: Leaf::new(Vec::with_capacity(WAITING)),
            wake: rustix::event::eventfd(0, flags)?,
        })
    }

    /// What becomes readable when something is wanted.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn put(&self, want: Want) {
        let is_first = self.waiting.with(|waiting| {
            let was_empty = waiting.is_empty();
            if waiting.len() < WAITING {
                waiting.push(want);
            }
            was_empty
        });
        if is_first {
            // A full eventfd is readable all the same.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    fn take(&self) -> Vec<Want> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        // Workers must find room and not have to make it.
        self.waiting.with(|waiting| match waiting.len() {
            0 => Vec::new(),
            _ => std::mem::replace(waiting, Vec::with_capacity(WAITING)),
        })
    }
}

/// What one worker has told lately.
pub struct Asked {
    lately: [(u64, Instant); REMEMBERED],
    next: Instant,
}

impl Default for Asked {
    fn default() -> Asked {
        Asked { lately: [(0, Instant::ZERO); REMEMBERED], next: Instant::ZERO }
    }
}

impl Asked {
    /// Tells the control thread, unless it has been told.
    pub(crate) fn ask(&mut self, acquires: &Acquires, wanted: Wanted, packet: &Packet<'_>, now: Instant) {
        let key = hash(&wanted);
        let place = &mut self.lately[key as usize % REMEMBERED];
        if (place.0 == key && now < place.1) || now < self.next {
            return;
        }
        *place = (key, now.after(SILENT.as_nanos() as u64));
        self.next = now.after(APART.as_nanos() as u64);
        let Some(packet_ends) = packet.addresses() else { return };
        let shown = packet.shown();
        acquires.put(Want {
            wanted,
            packet: packet_ends,
            proto: shown.proto.map_or(ANY, |proto| proto.0),
            ports: shown.ends,
        });
    }
}

/// What a want is called by; not the packet that had it.
fn hash(wanted: &Wanted) -> u64 {
    let mut hasher = DefaultHasher::new();
    wanted.hash(&mut hasher);
    hasher.finish()
}

/// Wants that were told and that nobody has answered with an SA.
#[derive(Debug, Default)]
pub(super) struct Unanswered(HashMap<u64, (Wanted, Instant)>);

impl Unanswered {
    /// Whether this is to be told now.
    fn is_news(&mut self, wanted: &Wanted, now: Instant) -> bool {
        let key = hash(wanted);
        match self.0.get(&key) {
            Some((_, again)) if now < *again => false,
            None if self.0.len() >= UNANSWERED => false,
            _ => {
                self.0.insert(key, (*wanted, now.after(AGAIN.as_nanos() as u64)));
                true
            }
        }
    }

    /// Forgets what has been answered, and what nobody has asked for again in time.
    pub(super) fn answered(&mut self, sad: &Sad, now: Instant) {
        let is_there = |wanted: &Wanted| sad.newest_first().any(|sa| wanted.is_answered_by(sa.config()));
        self.0.retain(|_, (wanted, again)| *again > now && !is_there(wanted));
    }
}

impl Sadb {
    /// Tells who listens what workers want.
    pub(super) fn acquire(&mut self, router: &Router, now: Instant) {
        for want in router.shared().acquires.take() {
            if self.unanswered.is_news(&want.wanted, now) {
                router.own_stats().count.sa_acquires.inc();
                self.emit(&SaEvent::Acquire(Acquire::new(&want.wanted, want.packet, want.proto, want.ports)));
            }
        }
    }
}
