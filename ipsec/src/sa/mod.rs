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
//! The IV of a packet is the SA's `iv_base` plus the sequence number: `iv.rs`.
//!
//! Not here: key exchange.

mod ageing;
mod config;
mod iv;
mod moving;
mod path_mtu;
mod peer;
mod why;

pub use ageing::Cause;
pub use config::{Df, Fragment, Handling, Lifetime, Mode, Padding, Protocol, SaConfig, SaIndex, Spi};
pub use moving::{Life, Moving, Refused, Status, Used};

pub(crate) use moving::{Inbound, Outbound};

use crate::{
    esp::Layout,
    exit::Exit,
    seq::Numbers,
    transform::{Engine, KeyError, Transform},
};
use kern::{
    Why,
    lock::{Before, Held, SpinMutex, levels},
    secret::SecretBytes,
    time::Instant,
};
use moving::{Limit, numbers_of};
use peer::configured_peer;
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

/// The lock level of an SA's moving part.
pub type SaLevel = levels::Sa;

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

/// No run can begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// Too many runs that this SA is to open are out already: keep the packets and come again.
    Busy,
    /// More packets than a run may have: a fault of the caller.
    TooMany,
    /// Never again: the packets end for this reason.
    Over(Why),
}

/// A security association.
#[derive(Debug)]
pub struct Sa {
    index: SaIndex,
    config: SaConfig,
    /// Where its packets go: to the configured destination, or where the peer is now.
    peer: SocketAddr,
    pub(crate) layout: Layout,
    pub(crate) transform: Transform,
    key: Arc<SecretBytes>,
    moving: Arc<Moving>,
    soft: Limit,
    hard: Limit,
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
        let peer = configured_peer(&config);
        Sa::with_moving(index, config, peer, key, moving, setup)
    }

    /// An SA configured anew that goes on where `previous`, which has the same key, is.
    pub fn continuing(
        previous: &Sa,
        config: SaConfig,
        setup: &Setup,
        held: &mut Held<'_, impl Before<SaLevel>>,
    ) -> Result<Sa, KeyError> {
        let ends = |c: &SaConfig| (c.src, c.dst, c.encap.map(|udp| (udp.src_port, udp.dst_port)));
        let stays = ends(&previous.config) == ends(&config);
        {
            let mut inbound = held.lock(&previous.moving.inbound.0).0;
            inbound.window.grow(config.replay);
            if !stays {
                inbound.came_from = None;
            }
        }
        if (config.soft, config.hard) != (previous.config.soft, previous.config.hard) {
            // With other limits it may be young again; if not, the next packet says so.
            previous.moving.life.store(Life::Mature as u8, Ordering::Relaxed);
        }
        let peer = if stays { previous.peer } else { configured_peer(&config) };
        let (key, moving) = (Arc::clone(&previous.key), Arc::clone(&previous.moving));
        Sa::with_moving(previous.index, config, peer, key, moving, setup)
    }

    fn with_moving(
        index: SaIndex,
        config: SaConfig,
        peer: SocketAddr,
        key: Arc<SecretBytes>,
        moving: Arc<Moving>,
        setup: &Setup,
    ) -> Result<Sa, KeyError> {
        Ok(Sa {
            peer,
            index,
            layout: Layout::new(&config, peer, &setup.seed),
            transform: Transform::new(config.suite, setup.engine, key.expose(), config.esn)?,
            key,
            soft: Limit::new(config.soft, moving.made),
            hard: Limit::new(config.hard, moving.made),
            moving,
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

    /// Whether it is an IPComp tunnel, which takes plain IP in IP too.
    pub fn takes_plain(&self) -> bool {
        self.config.protocol == Protocol::Ipcomp && self.config.mode != Mode::Transport
    }

    /// Length of the key in bits, salt included, as setkey(8) counts it.
    pub fn key_bits(&self) -> usize {
        self.key.len() * 8
    }

    /// Whether this is its key. Takes the same time wherever they differ.
    pub fn has_key(&self, key: &SecretBytes) -> bool {
        *self.key == *key
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

    /// The router's flow hash of its outer packets: of several paths to the peer, all take one.
    pub fn outer_hash(&self) -> u32 {
        self.layout.hash
    }

    /// The largest outer packet that the way to the peer is known to take, of those that the link takes.
    #[inline(always)]
    pub fn path_mtu(&self, link: u16, now: Instant) -> u16 {
        self.moving.path_mtu.get(link, now)
    }

    /// A router on the way says that no more than `mtu` octets of an outer packet fit; says whether that is news. It is
    /// believed downwards only, and for ten minutes.
    pub fn note_path_mtu(&self, mtu: u32, link: u16, now: Instant) -> bool {
        self.moving.path_mtu.note(mtu, link, self.config.dst.is_ipv6(), now)
    }

    /// Whether it can have sent a packet with this sequence number, of which the low half is known, not long ago.
    pub fn has_sent(&self, seq: u32, held: &mut Held<'_, impl Before<SaLevel>>) -> bool {
        /// What can be on its way, and more.
        const LATELY: u32 = 1 << 24;
        let used = held.lock(self.outbound()).0.sequence.used();
        let age = (used as u32).wrapping_sub(seq);
        u64::from(age) < used && age < LATELY
    }

    /// Whether inner packets too large for the tunnel, whose senders allow it, are fragmented before they go in.
    pub fn fragments_before(&self) -> bool {
        let handling = &self.config.handling;
        // What nobody on the way may fragment leaves in pieces, or not at all.
        self.is_tunnel() && (handling.fragment == Fragment::Before || handling.df == Df::Set)
    }

    /// Whether whole packets go into packets.
    pub fn is_tunnel(&self) -> bool {
        self.layout.is_tunnel()
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

    /// The number of the next packet, for an SA that another machine had before.
    pub fn set_next_sequence(&self, held: &mut Held<'_, impl Before<SaLevel>>, next: u64) {
        let mut out = held.lock(&self.moving.outbound.0).0;
        out.sequence = numbers_of(&self.config).starting_at(next);
        if let Some(exit) = self.exit() {
            exit.written_up_to(next);
        }
    }

    /// The highest number received, for an SA that another machine had before.
    pub fn set_window_top(&self, held: &mut Held<'_, impl Before<SaLevel>>, top: u64) {
        held.lock(&self.moving.inbound.0).0.window.mark(top, self.config.replay);
    }

    pub(crate) fn iv_base(&self) -> u64 {
        self.moving.iv_base
    }

    /// Whether the other is the same SA, perhaps configured anew.
    pub(crate) fn shares_numbers(&self, other: &Sa) -> bool {
        Arc::ptr_eq(&self.moving, &other.moving)
    }

    /// Asks for what [`esp_output`](crate::esp::output::esp_output) writes to: another worker may have it.
    #[inline(always)]
    pub fn prefetch_outbound(&self) {
        if let Some(exit) = self.exit() {
            kern::prefetch_write(self.outbound());
            kern::prefetch_write(exit);
        }
    }

    /// Where its runs leave in order; `None` if one worker alone sends by it.
    #[inline(always)]
    pub(crate) fn exit(&self) -> Option<&Exit> {
        self.moving.exit.as_ref()
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

    /// Reserves numbers for a run of `want` packets with so many octets, which counts as carried from now on; also says when the
    /// last was carried before. What cannot be sealed is [taken back](Outbound::take_back), but not a life that has ended by it.
    #[inline(always)]
    pub(crate) fn reserve(
        &self,
        want: usize,
        octets: u64,
        now: Instant,
        held: &mut Held<'_, impl Before<SaLevel>>,
    ) -> Result<(Numbers, Instant), Why> {
        let (mut out, _held) = held.lock(self.outbound());
        if !self.is_alive(&out.used, now) {
            out.refused.expired += want as u64;
            return Err(self.config.protocol.why(Why::EspLifetime));
        }
        let Some(numbers) = out.sequence.reserve(want as u32) else {
            self.note(Life::Dead);
            out.refused.expired += want as u64;
            return Err(self.config.protocol.why(Why::EspSequence));
        };
        let before = out.used.last;
        out.used.add(want, octets, now);
        Ok((numbers, before))
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
