//! Bundles: what a policy asks for, one transform after the other, with the SAs found.
//!
//! ```text
//!   ipsec ipcomp/tunnel/A-B/use esp/transport//require
//!
//!   step 0  ipcomp, SAs from A to B, optional ──► step 1  esp, SAs between the ends as they are then: A and B
//! ```
//!
//! A packet on its way out goes through the steps in this order; between two steps its header holds a [`Rest`]. A packet
//! on its way in shows the SAs it came out of, outermost first: the same steps backwards. Steps of level `use` may be
//! missing.
//!
//! A transport SA is for one pair of addresses, and so is one in BEET mode. A policy of whole networks in transport mode (`esp/transport//require`)
//! has the SAs of all pairs in it, and each packet takes that of its own pair.

use super::{
    Decision, Level,
    worker::{self, preferred},
};
use crate::{
    sa::{Life, Mode, Protocol, Sa, SaConfig, SaIndex},
    sad::Sad,
    selector::{Addresses, Packet, Prefix, Selector},
};
use arrayvec::ArrayVec;
use kern::time::Instant;
use std::{net::IpAddr, sync::Arc};

/// The most transforms in a bundle.
pub const BUNDLE: usize = 3;

/// One transform that a policy asks for: `protocol/mode/src-dst/level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Protocol.
    pub protocol: Protocol,
    /// `Transport`, `Tunnel` or `Beet`.
    pub mode: Mode,
    /// Ends of the SA. A tunnel and BEET mode need them; transport has those of the packet.
    pub ends: Option<(IpAddr, IpAddr)>,
    /// UDP ports of the SA's ends, as configured; `None`: whichever. They tell peers behind one translator apart.
    pub ports: [Option<u16>; 2],
    /// Level.
    pub level: Level,
}

impl Request {
    /// A tunnel of ESP.
    pub const fn tunnel(src: IpAddr, dst: IpAddr, level: Level) -> Request {
        Request {
            protocol: Protocol::Esp,
            mode: Mode::Tunnel,
            ends: Some((src, dst)),
            ports: [None; 2],
            level,
        }
    }

    /// The addresses that it puts a packet under, if others than the packet's own.
    pub(crate) fn outer(&self) -> Option<(IpAddr, IpAddr)> {
        self.ends.filter(|_| self.mode != Mode::Transport)
    }

    /// Whether an SA so configured is one of those it asks for, for packets between these addresses.
    pub(crate) fn has(&self, config: &SaConfig, src: &Addresses, dst: &Addresses) -> bool {
        let ends = match self.ends {
            Some(ends) => (config.src, config.dst) == ends,
            None => src.contains(config.src) && dst.contains(config.dst),
        };
        // One that leaves its mode open has no inner addresses.
        let mode = config.mode == self.mode || (config.mode == Mode::Any && self.mode != Mode::Beet);
        let reqid = match self.level {
            Level::Unique(id) => config.reqid == id,
            _ => true,
        };
        let own = config.encap.map_or([None; 2], |udp| [Some(udp.src_port), Some(udp.dst_port)]);
        let ports = self.ports.iter().zip(own).all(|(asked, own)| asked.is_none() || *asked == own);
        let inner = config.inner.is_none_or(|(a, b)| src.contains(a) && dst.contains(b));
        ends && mode && reqid && ports && inner && config.protocol == self.protocol
    }
}

/// Steps of a bundle that a packet has still to go through, as a number for its header; 0 is for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest(u32);

/// Bits of a [`Rest`] that number the step, plus one; the others are those of its database.
const STEP_BITS: u32 = 20;
const STEP_MASK: u32 = (1 << STEP_BITS) - 1;

impl Rest {
    /// Nothing is left.
    pub const NONE: Rest = Rest(0);

    /// As a packet header holds it.
    pub const fn to_header(self) -> u32 {
        self.0
    }

    /// What a packet header holds.
    pub const fn from_header(rest: u32) -> Rest {
        Rest(rest)
    }

    /// Whether nothing is left.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// An SA to go through, and what is left of the bundle behind it. In one word: an answer of two registers is handed on in
/// registers, a longer one through memory, where it is written in parts and read back whole, which a processor does slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop(u64);

impl Hop {
    /// Through `sa`, then `rest`.
    #[inline(always)]
    pub const fn new(sa: SaIndex, rest: Rest) -> Hop {
        Hop(sa.0 as u64 | (rest.0 as u64) << 32)
    }

    /// The SA.
    #[inline(always)]
    pub const fn sa(self) -> SaIndex {
        SaIndex(self.0 as u32)
    }

    /// What is left.
    #[inline(always)]
    pub const fn rest(self) -> Rest {
        Rest((self.0 >> 32) as u32)
    }
}

/// The SAs a packet came out of, the last first. At most three: more is nobody's bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    last: u32,
    /// Those before, 16 bits each, as [`SaIndex::to_header`]; [`LOST`] for one that does not fit.
    earlier: u32,
}

/// An SA of a path that could not be noted: matches none.
const LOST: u32 = 0xffff;

impl Path {
    /// In clear.
    pub const CLEAR: Path = Path { last: 0, earlier: 0 };

    /// From a packet header's `sa`, and what [`earlier`](Self::earlier) said.
    pub const fn from_header(sa: u32, earlier: u32) -> Path {
        Path { last: sa, earlier }
    }

    /// Out of one SA.
    pub const fn of(sa: SaIndex) -> Path {
        Path { last: sa.to_header(), earlier: 0 }
    }

    /// What to keep for [`from_header`](Self::from_header) when the packet is about to come out of another SA.
    pub const fn earlier(self) -> u32 {
        let last = if self.last < LOST { self.last } else { LOST };
        // A third one before would fall out at the top: it counts as lost.
        let before = if self.earlier > LOST { LOST } else { self.earlier };
        before << 16 | last
    }

    /// Whether it came in clear.
    pub const fn is_clear(self) -> bool {
        self.last == 0
    }

    /// The SAs, as headers hold them, outermost first.
    fn in_order(self) -> impl Iterator<Item = u32> {
        [self.earlier >> 16, self.earlier & LOST, self.last].into_iter().filter(|sa| *sa != 0)
    }
}

/// A request with its SAs, the newest first.
#[derive(Debug)]
struct Step {
    sas: Box<[Arc<Sa>]>,
    /// The SA where there is one, and no packet need be asked whether it is for it.
    only: Option<SaIndex>,
    optional: bool,
    /// Whether some of them are of one worker alone.
    per_worker: bool,
    /// Whether an SA must be asked for its ends, because several pairs of addresses are meant.
    pairs: bool,
    /// The next step, plus one; 0 if it is the last.
    next: u32,
    /// Bytes by which this step and those behind it make a packet grow.
    overhead: usize,
}

/// All steps of all policies.
#[derive(Debug, Default)]
pub(super) struct Bundles {
    steps: Vec<Step>,
    /// The database's number, where a [`Rest`] has it.
    mark: u32,
}

impl Bundles {
    pub(super) fn new(generation: u32) -> Bundles {
        Bundles { steps: vec![], mark: generation << STEP_BITS }
    }

    /// Finds the SAs of a policy's requests; the number of the first step. `None` if there are none, or too many.
    pub(super) fn add(&mut self, selector: &Selector, requests: &[Request], sad: &Sad) -> Option<u32> {
        let first = self.steps.len();
        if !(1..=BUNDLE).contains(&requests.len()) || first + requests.len() > STEP_MASK as usize {
            return None;
        }
        let (mut src, mut dst) = (selector.src, selector.dst);
        for (place, request) in requests.iter().enumerate() {
            let next = if place + 1 < requests.len() { first + place + 2 } else { 0 };
            let sas: Box<[Arc<Sa>]> =
                sad.newest_first().filter(|sa| request.has(sa.config(), &src, &dst)).cloned().collect();
            let is_pair = request.ends.is_none() || request.mode == Mode::Beet;
            let pairs = is_pair && (src.host().is_none() || dst.host().is_none());
            let per_worker = sas.iter().any(|sa| sa.config().worker.is_some());
            self.steps.push(Step {
                per_worker,
                only: if let ([sa], false) = (&*sas, pairs) { Some(sa.index()) } else { None },
                sas,
                optional: request.level == Level::Use,
                pairs,
                next: next as u32,
                overhead: 0,
            });
            if let Some((a, b)) = request.outer() {
                (src, dst) = (Prefix::host(a).into(), Prefix::host(b).into());
            }
        }
        if self.steps[first..].iter().any(|step| step.per_worker) {
            self.steps[first..].iter_mut().for_each(|step| step.only = None);
        }
        let mut behind = 0;
        for step in self.steps[first..].iter_mut().rev() {
            behind += step.sas.iter().map(|sa| sa.overhead()).max().unwrap_or(0);
            step.overhead = behind;
        }
        Some(first as u32)
    }

    /// The SA of this step, or of the next that has one, for a packet.
    #[inline(always)]
    pub(super) fn choose(&self, first: u32, data: &[u8], worker: u16) -> Decision {
        match self.steps.get(first as usize) {
            Some(Step { only: Some(sa), next, .. }) => Decision::Protect(Hop::new(*sa, self.rest(*next))),
            _ => self.choose_far(first, data, worker),
        }
    }

    #[inline(never)]
    fn choose_far(&self, first: u32, data: &[u8], worker: u16) -> Decision {
        let packet = &Packet::of(data);
        let mut at = first;
        loop {
            let Some(step) = self.steps.get(at as usize) else { return Decision::NoSa };
            if let Some(sa) = step.pick(packet, worker) {
                let hop = Hop::new(sa.index(), self.rest(step.next));
                let lacks = self.chain(first).any(|step| step.lacks_own(packet, worker));
                return if lacks { Decision::Shared(hop) } else { Decision::Protect(hop) };
            }
            match step.next {
                // Of level `use`, what other workers protect does not leave in clear here.
                _ if !step.optional || step.per_worker => return Decision::NoSa,
                0 => return Decision::Without,
                next => at = next - 1,
            }
        }
    }

    /// How many steps there are before the one without which a packet can not go on, or else before the first that it goes
    /// without, or else before the first of which the worker should have an SA of its own.
    pub(super) fn missing(&self, first: u32, packet: &Packet<'_>, worker: u16) -> Option<usize> {
        let lacks = |step: &Step| step.pick(packet, worker).is_none();
        let required = self.chain(first).position(|step| !step.optional && lacks(step));
        let any = required.or_else(|| self.chain(first).position(lacks));
        any.or_else(|| self.chain(first).position(|step| step.lacks_own(packet, worker)))
    }

    /// Whether some SAs of a step are of one worker alone.
    pub(super) fn is_per_worker(&self, first: u32, place: usize) -> bool {
        self.chain(first).nth(place).is_some_and(|step| step.per_worker)
    }

    #[inline(always)]
    const fn rest(&self, next: u32) -> Rest {
        if next == 0 { Rest::NONE } else { Rest(self.mark | next) }
    }

    /// The step a rest begins with, if it is of this database.
    fn step(&self, rest: Rest) -> Option<u32> {
        (rest.0 & !STEP_MASK == self.mark).then_some((rest.0 & STEP_MASK).checked_sub(1)?)
    }

    pub(super) fn go_on(&self, rest: Rest, data: &[u8], worker: u16) -> Decision {
        if rest.is_none() {
            return Decision::Bypass;
        }
        match self.step(rest).map_or(Decision::NoSa, |at| self.choose(at, data, worker)) {
            Decision::Without => Decision::Bypass,
            decision => decision,
        }
    }

    pub(super) fn overhead(&self, rest: Rest) -> usize {
        self.step(rest).and_then(|at| self.steps.get(at as usize)).map_or(0, |step| step.overhead)
    }

    /// What fits of a packet that still has to go through the steps of a rest, as far as any of their SAs knows.
    pub(super) fn path_mtu(&self, rest: Rest, link: u16, now: Instant) -> u16 {
        let Some(first) = self.step(rest) else { return link };
        self.sas(first).fold(link, |mtu, sa| mtu.min(sa.path_mtu(link, now)))
    }

    /// The steps from this one on.
    fn chain(&self, first: u32) -> impl Iterator<Item = &Step> {
        std::iter::successors(self.steps.get(first as usize), |step| {
            self.steps.get(step.next.checked_sub(1)? as usize)
        })
    }

    /// Whether a packet that came this way came through the only step there is, which only one SA can be.
    pub(super) fn has_come_simply(&self, first: u32, path: Path) -> bool {
        matches!(self.steps.get(first as usize), Some(Step { only: Some(sa), next: 0, .. }) if path == Path::of(*sa))
    }

    /// Whether a packet that came this way came through these steps, outermost first.
    pub(super) fn has_come_far(&self, first: u32, path: Path, data: &[u8]) -> bool {
        let packet = &Packet::of(data);
        let mut steps: ArrayVec<&Step, BUNDLE> = self.chain(first).take(BUNDLE).collect();
        for sa in path.in_order() {
            loop {
                let Some(step) = steps.pop() else { return false };
                // Only the innermost step's SA has the addresses of the packet that is left.
                let came = if steps.is_empty() { step.accepts(sa, packet) } else { step.knows(sa) };
                if came {
                    break;
                }
                if !step.optional {
                    return false;
                }
            }
        }
        steps.iter().all(|step| step.optional)
    }

    pub(super) fn sas(&self, first: u32) -> impl Iterator<Item = &Arc<Sa>> {
        self.chain(first).flat_map(|step| &step.sas)
    }
}

impl Step {
    /// Of several SAs the newest that is alive; the newest of all if none is: `esp_output` ends the packet.
    #[inline(always)]
    fn pick(&self, packet: &Packet<'_>, worker: u16) -> Option<&Arc<Sa>> {
        if self.pairs {
            return preferred(self.sas.iter().filter(|sa| is_between(sa, packet)), worker);
        }
        match &*self.sas {
            [sa, ..] if !self.per_worker && sa.life() != Life::Dead => Some(sa),
            sas => preferred(sas.iter(), worker),
        }
    }

    /// Whether a worker sends by an SA for everybody where others have their own.
    fn lacks_own(&self, packet: &Packet<'_>, worker: u16) -> bool {
        let is_own = |sa: &&Arc<Sa>| !self.pairs || is_between(sa, packet);
        let lacks = |sa: &Arc<Sa>| worker::lacks_own(sa, self.sas.iter().filter(is_own));
        self.per_worker && self.pick(packet, worker).is_some_and(lacks)
    }

    fn knows(&self, sa: u32) -> bool {
        self.sas.iter().any(|own| own.index().to_header() == sa)
    }

    #[inline(always)]
    fn accepts(&self, sa: u32, packet: &Packet<'_>) -> bool {
        self.sas.iter().any(|own| own.index().to_header() == sa && (!self.pairs || is_between(own, packet)))
    }
}

/// Whether an SA is for packets between these addresses.
fn is_between(sa: &Sa, packet: &Packet<'_>) -> bool {
    packet.addresses() == Some(sa.config().pair())
}
