//! The security association (RFC 4301, 4.4.2): one direction of one tunnel.
//!
//! Three parts, after VPP's split, because they are touched by different people:
//!
//! | part | changes | touched by |
//! |---|---|---|
//! | [`SaConfig`] | never: as agreed with the peer | the control thread, reports |
//! | [`Layout`], the [`Transform`] | never: derived from it | every packet, read only |
//! | [`Moving`] | always: sequence, window, order, use | every run, under one short lock each way |
//!
//! A reload that leaves an SA's key alone keeps its moving part, so neither are numbers used twice nor replays accepted.
//!
//! The IV of a packet is the SA's `iv_base` plus the sequence number. The base is the wall clock in nanoseconds when the
//! key was first set up: after a restart with the same manual key the sequence starts at 1 again, but the IVs, and
//! hence the nonces, are new (unless the clock was set back, or the SA sent more than a packet a nanosecond). RFC 4106
//! asks for unique IVs and leaves open how.
//!
//! Not here: transport mode and UDP encapsulation, which are later forms of [`Layout`]; key exchange.

use crate::{
    esp::Layout,
    order::{Leave, PARKED, Queue, Ticket, Turns, Worker},
    replay::Window,
    seq::{Numbers, Sequence},
    transform::{Engine, KeyError, RUN, Suite, Transform},
};
use kern::{
    Mbuf, Why,
    lock::{Before, Held, SpinMutex, levels},
    secret::SecretBytes,
    time::Instant,
};
use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::SystemTime,
};

/// The lock level of an SA's moving part.
pub type SaLevel = levels::Sa;

/// Security parameters index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spi(pub u32);

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Where an SA stands in the [`Sad`](crate::sad::Sad). Stays the same as long as the SA lives, over reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SaIndex(pub u32);

impl SaIndex {
    /// What a packet header's `sa` field holds: 0 is for none.
    pub const fn to_header(self) -> u32 {
        self.0 + 1
    }

    /// What a packet header's `sa` field means.
    pub const fn from_header(sa: u32) -> Option<SaIndex> {
        match sa {
            0 => None,
            n => Some(SaIndex(n - 1)),
        }
    }
}

/// What an SA does to the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// As the policy says; manual SAs may leave it open.
    Any,
    /// A whole packet goes into another.
    Tunnel,
}

impl Mode {
    /// The word of setkey(8).
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Any => "any",
            Mode::Tunnel => "tunnel",
        }
    }
}

/// What stands in the padding (setkey `-f`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Padding {
    /// 1, 2, 3, ... is sent; what is received is not looked at, for BSD kernels send zeros unless told otherwise.
    #[default]
    Lenient,
    /// 1, 2, 3, ... is sent and demanded.
    Seq,
    /// Zeros are sent.
    Zero,
}

/// Limits of an SA's life; absent means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lifetime {
    /// Bytes of inner packets.
    pub bytes: Option<u64>,
    /// Packets.
    pub packets: Option<u64>,
    /// Seconds since it was made.
    pub seconds: Option<u64>,
}

/// An SA as agreed with the peer, but for its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SaConfig {
    /// The tunnel's source: ours if outbound.
    pub src: IpAddr,
    /// The tunnel's destination: ours if inbound.
    pub dst: IpAddr,
    /// Security parameters index, chosen by the destination.
    pub spi: Spi,
    /// Mode.
    pub mode: Mode,
    /// Binds it to policies of level `unique`; 0 for none.
    pub reqid: u32,
    /// Algorithm.
    pub suite: Suite,
    /// Extended (64-bit) sequence numbers.
    pub esn: bool,
    /// Packets the replay window spans; 0 means no check.
    pub replay: u32,
    /// Packets the peer's replay window spans: we leave order by no more than a quarter of it.
    pub peer_window: u32,
    /// Padding.
    pub padding: Padding,
    /// When to ask for a successor.
    pub soft: Lifetime,
    /// When to stop.
    pub hard: Lifetime,
}

/// How an SA is set up, beside what was agreed.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Who does the arithmetic.
    pub engine: Engine,
    /// How many workers may use it at a time.
    pub workers: usize,
    /// Added to sequence numbers to make IVs. `None`: the wall clock.
    pub iv_base: Option<u64>,
    /// The clock, when it is made.
    pub now: Instant,
    /// The seed of the router's flow hash, so that outer packets come hashed.
    pub seed: wire::HashSeed,
}

impl Setup {
    /// One worker, the fastest engine, the wall clock, a fixed hash seed.
    pub const fn new(now: Instant) -> Setup {
        Setup { engine: Engine::Auto, workers: 1, iv_base: None, now, seed: wire::HashSeed::new(0, 0) }
    }
}

/// One lifetime in comparable form.
#[derive(Clone, Copy, Debug)]
struct Limit {
    bytes: u64,
    packets: u64,
    at: Instant,
}

impl Limit {
    fn new(lifetime: Lifetime, made: Instant) -> Limit {
        let at = |seconds: u64| made.after(seconds.saturating_mul(1_000_000_000));
        Limit {
            bytes: lifetime.bytes.unwrap_or(u64::MAX),
            packets: lifetime.packets.unwrap_or(u64::MAX),
            at: lifetime.seconds.map_or(Instant::NEVER, at),
        }
    }

    #[inline(always)]
    fn reached(&self, used: &Used, now: Instant) -> bool {
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
    fn add(&mut self, packets: usize, bytes: u64, now: Instant) {
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
    fn count(&mut self, why: Why) {
        let counter = match why {
            Why::EspReplay => &mut self.replay,
            Why::EspAuth => &mut self.auth,
            Why::EspSequence | Why::EspLifetime => &mut self.expired,
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
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) turns: Turns<Mbuf>,
    pub(crate) sequence: Sequence,
    pub(crate) used: Used,
    pub(crate) refused: Refused,
}

/// The moving part, inbound.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) turns: Turns<Mbuf>,
    pub(crate) window: Window,
    pub(crate) used: Used,
    pub(crate) refused: Refused,
}

/// Keeps two locks that different workers hold out of each other's cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

/// The moving part of an SA. It belongs to the key: whatever else of the SA is configured anew, this goes on.
#[derive(Debug)]
pub struct Moving {
    outbound: Apart<SpinMutex<SaLevel, Outbound>>,
    inbound: Apart<SpinMutex<SaLevel, Inbound>>,
    iv_base: u64,
    run_max: usize,
    life: AtomicU8,
    made: Instant,
    made_on: SystemTime,
}

impl Moving {
    fn new(config: &SaConfig, setup: &Setup) -> Moving {
        let outbound = Outbound {
            turns: Turns::new(quarter(config.peer_window), PARKED, setup.workers),
            sequence: Sequence::new(config.esn),
            used: Used::default(),
            refused: Refused::default(),
        };
        let inbound = Inbound {
            turns: Turns::new(RUN, OPENING, setup.workers),
            window: Window::new(config.replay),
            used: Used::default(),
            refused: Refused::default(),
        };
        let made_on = SystemTime::now();
        let since_1970 = made_on.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Moving {
            outbound: Apart(SpinMutex::new(outbound)),
            inbound: Apart(SpinMutex::new(inbound)),
            iv_base: setup.iv_base.unwrap_or_else(|| kern::time::nanos_of(since_1970)),
            run_max: quarter(config.peer_window),
            life: AtomicU8::new(Life::Mature as u8),
            made: setup.now,
            made_on,
        }
    }
}

/// The longest run that cannot push a window of this size past the run before it, with room to spare.
fn quarter(peer_window: u32) -> usize {
    (peer_window / 4).clamp(1, RUN as u32) as usize
}

/// Runs of one SA that may be opened at a time.
const OPENING: usize = 16;

/// No run can begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// Too many runs of this SA are out already: keep the packets and come again.
    Busy,
    /// More packets than a run may have: a fault of the caller.
    TooMany,
    /// Never again: the packets end for this reason.
    Over(Why),
}

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

/// A security association.
#[derive(Debug)]
pub struct Sa {
    index: SaIndex,
    config: SaConfig,
    pub(crate) layout: Layout,
    pub(crate) transform: Transform,
    key: Arc<SecretBytes>,
    moving: Arc<Moving>,
    soft: Limit,
    hard: Limit,
    run_max: usize,
}

impl Sa {
    /// A new SA, its key set up and its numbers at the start.
    pub fn new(
        index: SaIndex,
        config: SaConfig,
        key: Arc<SecretBytes>,
        setup: &Setup,
    ) -> Result<Sa, KeyError> {
        let moving = Arc::new(Moving::new(&config, setup));
        Sa::with_moving(index, config, key, moving, setup)
    }

    /// An SA configured anew that goes on where `previous`, which has the same key, is.
    pub fn continuing(
        previous: &Sa,
        config: SaConfig,
        setup: &Setup,
        held: &mut Held<'_, impl Before<SaLevel>>,
    ) -> Result<Sa, KeyError> {
        held.lock(&previous.moving.inbound.0).0.window.grow(config.replay);
        Sa::with_moving(
            previous.index,
            config,
            Arc::clone(&previous.key),
            Arc::clone(&previous.moving),
            setup,
        )
    }

    fn with_moving(
        index: SaIndex,
        config: SaConfig,
        key: Arc<SecretBytes>,
        moving: Arc<Moving>,
        setup: &Setup,
    ) -> Result<Sa, KeyError> {
        // The ring of parked runs was made for the window of the first configuration.
        let room = moving.run_max;
        Ok(Sa {
            index,
            layout: Layout::new(&config, &setup.seed),
            transform: Transform::new(config.suite, setup.engine, key.expose(), config.esn)?,
            key,
            soft: Limit::new(config.soft, moving.made),
            hard: Limit::new(config.hard, moving.made),
            moving,
            // Alone, nobody overtakes us.
            run_max: if setup.workers > 1 { quarter(config.peer_window).min(room) } else { RUN },
            config,
        })
    }

    /// Its place in the database.
    pub fn index(&self) -> SaIndex {
        self.index
    }

    /// As agreed.
    pub fn config(&self) -> &SaConfig {
        &self.config
    }

    /// The engine its transform uses.
    pub fn engine(&self) -> Engine {
        self.transform.engine()
    }

    /// Length of the key in bits, salt included, as setkey(8) counts it.
    pub fn key_bits(&self) -> usize {
        self.key.len() * 8
    }

    /// Whether this is its key. Takes the same time wherever they differ.
    pub fn has_key(&self, key: &SecretBytes) -> bool {
        *self.key == *key
    }

    /// The longest run to hand to [`esp::output::begin`](crate::esp::output::begin) at a time.
    #[inline(always)]
    pub fn run_max(&self) -> usize {
        self.run_max
    }

    /// How its life goes.
    #[inline(always)]
    pub fn life(&self) -> Life {
        match self.moving.life.load(Ordering::Relaxed) {
            0 => Life::Mature,
            1 => Life::Dying,
            _ => Life::Dead,
        }
    }

    /// Bytes by which a packet grows, for a tunnel MTU: outer header, ESP header, IV, trailer, ICV, and the most padding.
    pub fn overhead(&self) -> usize {
        self.layout.overhead()
    }

    /// The largest inner packet that fits into an outer one of `mtu` bytes.
    pub fn inner_mtu(&self, mtu: usize) -> usize {
        self.layout.inner_mtu(mtu)
    }

    /// Everything that moves, as of now.
    pub fn status(&self, held: &mut Held<'_, impl Before<SaLevel>>) -> Status {
        let (sent, sent_refused, sequence) = {
            let out = held.lock(&self.moving.outbound.0).0;
            (out.used, out.refused, out.sequence.used())
        };
        let inbound = held.lock(&self.moving.inbound.0).0;
        Status {
            sent,
            received: inbound.used,
            sent_refused,
            received_refused: inbound.refused,
            sequence,
            top: inbound.window.top(),
            life: self.life(),
            made: self.moving.made,
            made_on: self.moving.made_on,
        }
    }

    /// Puts the sequence to a number: for tests of what happens near the end.
    #[cfg(any(test, feature = "testing"))]
    pub fn set_next_sequence(&self, held: &mut Held<'_, impl Before<SaLevel>>, next: u64) {
        let mut out = held.lock(&self.moving.outbound.0).0;
        out.sequence = Sequence::new(self.config.esn).starting_at(next);
    }

    /// Puts the top of the replay window to a number: for tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn set_window_top(&self, held: &mut Held<'_, impl Before<SaLevel>>, top: u64) {
        held.lock(&self.moving.inbound.0).0.window.mark(top, self.config.replay);
    }

    pub(crate) fn iv_base(&self) -> u64 {
        self.moving.iv_base
    }

    pub(crate) fn outbound(&self) -> &SpinMutex<SaLevel, Outbound> {
        &self.moving.outbound.0
    }

    pub(crate) fn inbound(&self) -> &SpinMutex<SaLevel, Inbound> {
        &self.moving.inbound.0
    }

    /// Whether its life allows another run; notes when it does not, or not for long.
    #[inline(always)]
    pub(crate) fn is_alive(&self, used: &Used, now: Instant) -> bool {
        if !self.soft.reached(used, now) && !self.hard.reached(used, now) {
            return self.life() != Life::Dead;
        }
        self.grow_old(used, now)
    }

    #[cold]
    fn grow_old(&self, used: &Used, now: Instant) -> bool {
        let dead = self.hard.reached(used, now);
        self.note(if dead { Life::Dead } else { Life::Dying });
        self.life() != Life::Dead
    }

    /// A life only goes on.
    pub(crate) fn note(&self, life: Life) {
        self.moving.life.fetch_max(life as u8, Ordering::Relaxed);
    }

    /// Reserves numbers and a ticket for a run.
    #[inline(always)]
    pub(crate) fn reserve(
        &self,
        want: usize,
        now: Instant,
        held: &mut Held<'_, impl Before<SaLevel>>,
    ) -> Result<(Numbers, Ticket), NotNow> {
        let (mut out, _held) = held.lock(self.outbound());
        if !self.is_alive(&out.used, now) {
            out.refused.expired += want as u64;
            return Err(NotNow::Over(Why::EspLifetime));
        }
        if out.turns.is_full() {
            return Err(NotNow::Busy);
        }
        let Some(numbers) = out.sequence.reserve(want as u32) else {
            self.note(Life::Dead);
            out.refused.expired += want as u64;
            return Err(NotNow::Over(Why::EspSequence));
        };
        let ticket = out.turns.ticket().ok_or(NotNow::Busy)?;
        Ok((numbers, ticket))
    }

    /// Counts refusals; only ever called when there are some.
    #[cold]
    pub(crate) fn count_refused(
        &self,
        whys: impl Iterator<Item = Why>,
        inbound: bool,
        held: &mut Held<'_, impl Before<SaLevel>>,
    ) {
        if inbound {
            let mut moving = held.lock(self.inbound()).0;
            whys.for_each(|why| moving.refused.count(why));
        } else {
            let mut moving = held.lock(self.outbound()).0;
            whys.for_each(|why| moving.refused.count(why));
        }
    }
}

impl Outbound {
    #[inline(always)]
    pub(crate) fn complete(
        &mut self,
        ticket: Ticket,
        worker: Worker,
        run: &mut impl Queue<Mbuf>,
        sent: (usize, u64),
        now: Instant,
    ) -> Leave {
        self.used.add(sent.0, sent.1, now);
        self.turns.complete(ticket, worker, run)
    }
}

impl Inbound {
    #[inline(always)]
    pub(crate) fn add_used(&mut self, packets: usize, bytes: u64, now: Instant) {
        self.used.add(packets, bytes, now);
    }
}
