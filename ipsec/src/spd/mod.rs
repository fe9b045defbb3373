//! The security policy database (RFC 4301, 4.4.1): which packets must be protected, may pass in clear, or must not pass.
//!
//! Two ordered lists, one each way; the first policy that matches decides, and without one the packet bypasses IPsec, as
//! in a BSD kernel. On the way out the answer is an SA, or that there is none, and then the packet ends: *protect* never
//! turns into *clear* by accident. On the way in the check comes after opening (5.2): a packet that a policy protects must
//! have come out of the policy's SAs, in their order, and what came out of an SA must be what its policy is for.
//!
//! A policy may ask for several transforms, a *bundle*, innermost first: `bundle.rs`. Of a request's SAs the one that was
//! added last and is still alive is used, as NetBSD does with `net.key.prefered_oldsa=0`, and all of them open what
//! arrives. So a change of keys loses nothing: add the new SA where it receives, then where it sends, then delete the old.
//!
//! Level `use` is setkey's opportunism: an SA if there is one, else the packet goes without that transform. It is the one
//! way to say so.
//!
//! Lookup: policies are compiled into tables, `table.rs`, many of them into bit vectors, `vectors.rs`; what a flow got is kept a while in its worker's [`FlowCache`].

mod bundle;
mod cache;
mod field;
mod intervals;
mod table;
#[cfg(test)]
mod tests;
mod vectors;
mod worker;

pub use crate::selector::Packet;
pub use bundle::{BUNDLE, Hop, Path, Request, Rest};
pub use cache::FlowCache;
pub use worker::preferred;

use crate::{
    sa::{Mode, Sa, SaConfig},
    sad::Sad,
    selector::{Prefix, Selector},
};
use bundle::Bundles;
use kern::{Why, time::Instant};
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use table::Tables;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards us: what arrives, be it for us or to be forwarded.
    In,
    /// Away from us.
    Out,
}

/// How much a policy insists (setkey's *level*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// The system's default, which is `require`.
    Default,
    /// An SA if there is one, else without.
    Use,
    /// An SA, or the packet ends.
    Require,
    /// As `Require`, and the SA must be the one with this `-u`.
    Unique(u32),
}

/// What a policy does with what it matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `none`: in clear.
    Bypass,
    /// `discard`.
    Discard,
    /// `ipsec esp/tunnel/src-dst/level ...`: one or more transforms, innermost first.
    Protect(Arc<[Request]>),
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Number, from 1, in the order of the file.
    pub id: u32,
    /// Which way.
    pub direction: Direction,
    /// What it matches.
    pub selector: Selector,
    /// What it does.
    pub action: Action,
}

impl Policy {
    /// The mode of the first of its requests that an SA so configured would do for.
    pub(crate) fn asks_for(&self, config: &SaConfig) -> Option<Mode> {
        let Action::Protect(requests) = &self.action else { return None };
        let (mut src, mut dst) = (self.selector.src, self.selector.dst);
        for request in requests.iter() {
            if request.has(config, &src, &dst) {
                return Some(request.mode);
            }
            if let Some((a, b)) = request.outer() {
                (src, dst) = (Prefix::host(a).into(), Prefix::host(b).into());
            }
        }
        None
    }
}

/// What becomes of a packet on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// In clear; in the middle of a bundle: it is finished.
    Bypass,
    /// In clear for want of an SA: its policy is of level `use`.
    Without,
    /// Through an SA, and then [`Spd::go_on`] says what comes next.
    Protect(Hop),
    /// The same, through an SA for everybody, where the worker should have one of its own.
    Shared(Hop),
    /// It must be protected and there is no SA: it ends with [`Why::SpNoSa`].
    NoSa,
    /// It ends with [`Why::SpDiscard`].
    Discard,
}

/// An SA that a packet needs and that is not there (what SADB_ACQUIRE of RFC 2367 asks a key manager for).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The number of the policy.
    pub policy: u32,
    /// What it asks for.
    pub request: Request,
    /// From whom.
    pub src: IpAddr,
    /// To whom.
    pub dst: IpAddr,
    /// In BEET mode, source and destination of the packets it is to be for: each pair has an SA of its own.
    pub inner: Option<(IpAddr, IpAddr)>,
    /// The worker that is to have it for itself.
    pub worker: Option<u16>,
}

impl Wanted {
    /// Whether an SA so configured is what is wanted.
    pub fn is_answered_by(&self, config: &SaConfig) -> bool {
        let (src, dst) = self.inner.unwrap_or((self.src, self.dst));
        let host = |address| Prefix::host(address).into();
        self.worker.is_none_or(|worker| config.worker == Some(worker))
            && (config.src, config.dst) == (self.src, self.dst)
            && self.request.has(config, &host(src), &host(dst))
    }
}

/// A policy's action with its SAs found.
#[derive(Clone, Copy, Debug)]
enum Resolved {
    Bypass,
    Discard,
    /// The first of its steps in [`Bundles`].
    Protect(u32),
}

/// All policies, looked up by packet.
#[derive(Debug, Default)]
pub struct Spd {
    policies: Box<[Policy]>,
    resolved: Box<[Resolved]>,
    bundles: Bundles,
    out: Tables,
    inbound: Tables,
    generation: u32,
}

/// Databases made so far: what a packet or a cache noted about one means nothing to another.
static GENERATION: AtomicU32 = AtomicU32::new(1);

/// The policy, and the way of a packet, that [`Spd::check_in`] was content with last, whatever the packet was otherwise: the
/// packets of a run mostly have the same.
#[derive(Debug, Default)]
pub struct Content(Option<(u32, Path)>);

impl Spd {
    /// A database of these policies, in order, with the SAs they name.
    pub fn new(policies: impl Into<Box<[Policy]>>, sad: &Sad) -> Spd {
        let policies = policies.into();
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        let mut bundles = Bundles::new(generation);
        let resolved = policies.iter().map(|policy| match &policy.action {
            Action::Bypass => Resolved::Bypass,
            Action::Discard => Resolved::Discard,
            Action::Protect(requests) => match bundles.add(&policy.selector, requests, sad) {
                Some(first) => Resolved::Protect(first),
                None => Resolved::Discard,
            },
        });
        let resolved = resolved.collect();
        let of = |direction| {
            let numbered = policies.iter().enumerate();
            Tables::new(numbered.filter(move |(_, p)| p.direction == direction).map(|(at, p)| (at as u32, p)))
        };
        Spd { resolved, bundles, out: of(Direction::Out), inbound: of(Direction::In), generation, policies }
    }

    /// Whether there is any policy on the way out; if not, [`lookup_out`](Self::lookup_out) need not be asked.
    #[inline(always)]
    pub fn has_out(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether there is any policy on the way in. If not, clear packets need no check; what came out of an SA does.
    #[inline(always)]
    pub fn has_in(&self) -> bool {
        !self.inbound.is_empty()
    }

    /// What becomes of a packet on its way out, before it is translated.
    #[inline(always)]
    pub fn lookup_out(&self, packet: &Packet<'_>, cache: &mut FlowCache) -> Decision {
        let Some(at) = cache.first(self.generation, &self.out, Direction::Out, packet) else {
            return Decision::Bypass;
        };
        match self.resolved.get(at as usize) {
            Some(Resolved::Bypass) => Decision::Bypass,
            Some(Resolved::Protect(first)) => self.bundles.choose(*first, packet.data, cache.worker()),
            Some(Resolved::Discard) | None => Decision::Discard,
        }
    }

    /// What a packet wants for which [`lookup_out`](Self::lookup_out) has found [`Decision::NoSa`],
    /// [`Decision::Without`] or [`Decision::Shared`].
    #[cold]
    pub fn wanted(&self, packet: &Packet<'_>, cache: &mut FlowCache) -> Option<Wanted> {
        let at = cache.first(self.generation, &self.out, Direction::Out, packet)? as usize;
        let (policy, resolved) = (self.policies.get(at)?, self.resolved.get(at)?);
        let (Action::Protect(requests), Resolved::Protect(first)) = (&policy.action, resolved) else {
            return None;
        };
        let missing = self.bundles.missing(*first, packet, cache.worker())?;
        let mut ends = packet.addresses()?;
        for request in requests.iter().take(missing) {
            ends = request.ends.unwrap_or(ends);
        }
        let request = *requests.get(missing)?;
        let (src, dst) = request.ends.unwrap_or(ends);
        let inner = (request.mode == Mode::Beet).then_some(ends);
        let worker = self.bundles.is_per_worker(*first, missing).then_some(cache.worker());
        Some(Wanted { policy: policy.id, request, src, dst, inner, worker })
    }

    /// What becomes of a packet that has been through an SA of its bundle. [`Decision::Bypass`]: it is done. A rest that
    /// is of another configuration means nothing here any more, and the packet must not leave half protected: `NoSa`.
    #[inline]
    pub fn go_on(&self, rest: Rest, packet: &Packet<'_>, cache: &FlowCache) -> Decision {
        self.bundles.go_on(rest, packet.data, cache.worker())
    }

    /// Bytes by which the SAs of a rest make a packet grow.
    #[inline]
    pub fn overhead(&self, rest: Rest) -> usize {
        self.bundles.overhead(rest)
    }

    /// What fits of a packet that the SAs of a rest are still to send, as far as any of them knows of the way.
    pub fn path_mtu(&self, rest: Rest, link: u16, now: Instant) -> u16 {
        self.bundles.path_mtu(rest, link, now)
    }

    /// Whether an IPv4 packet may go on for the policy and the way that [`check_in`](Self::check_in) was content with last. False
    /// says nothing: ask there.
    #[inline(always)]
    pub fn is_content4(&self, data: &[u8], path: Path, cache: &FlowCache, content: &Content) -> bool {
        let (Some((at, before)), Some(h)) = (content.0, data.first_chunk::<20>()) else { return false };
        let src = u32::from_be_bytes([h[12], h[13], h[14], h[15]]);
        let dst = u32::from_be_bytes([h[16], h[17], h[18], h[19]]);
        let known = || cache.known4(self.generation, &self.inbound, src, dst);
        h[0] >> 4 == 4 && before == path && known() == Some(at)
    }

    /// Whether a packet may go on that came in clear (an empty path) or out of SAs.
    #[inline(always)]
    pub fn check_in(
        &self,
        packet: &Packet<'_>,
        path: Path,
        cache: &mut FlowCache,
        content: &mut Content,
    ) -> Result<(), Why> {
        let found = cache.first(self.generation, &self.inbound, Direction::In, packet);
        match found {
            None if path.is_clear() => Ok(()),
            Some(at) if content.0 == Some((at, path)) => Ok(()),
            _ => self.check_found(found, path, packet.data, content),
        }
    }

    #[inline(never)]
    fn check_found(
        &self,
        found: Option<u32>,
        path: Path,
        data: &[u8],
        content: &mut Content,
    ) -> Result<(), Why> {
        match (found.and_then(|at| self.resolved.get(at as usize)), path.is_clear()) {
            (None | Some(Resolved::Bypass), true) => Ok(()),
            (Some(Resolved::Discard), _) => Err(Why::SpDiscard),
            (Some(Resolved::Protect(first)), clear) => {
                let refused = if clear { Why::SpClear } else { Why::EspPolicy };
                if self.bundles.has_come_simply(*first, path) {
                    content.0 = found.map(|at| (at, path));
                    return Ok(());
                }
                if self.bundles.has_come_far(*first, path, data) { Ok(()) } else { Err(refused) }
            }
            (_, false) => Err(Why::EspPolicy),
        }
    }

    /// The policies, in order.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The policies with the SAs each has now, innermost first.
    pub fn with_sas(&self) -> impl Iterator<Item = (&Policy, Vec<&Arc<Sa>>)> {
        self.policies.iter().zip(&self.resolved).map(|(policy, resolved)| match resolved {
            Resolved::Protect(first) => (policy, self.bundles.sas(*first).collect()),
            _ => (policy, vec![]),
        })
    }
}
