//! The security policy database (RFC 4301, 4.4.1): which packets must be protected, may pass in clear, or must not pass.
//!
//! Two ordered lists, one each way; the first policy that matches decides, and without one the packet bypasses IPsec, as
//! in a BSD kernel. On the way out the answer is an SA, or that there is none, and then the packet ends: *protect* never
//! turns into *clear* by accident. On the way in the check comes after opening (5.2): a packet that a policy protects must
//! have come out of one of the policy's SAs, and what came out of an SA must be what its policy is for.
//!
//! Of a policy's SAs the first in the file that is still alive is used, as NetBSD prefers the older: with a new pair added
//! on both sides first and the old one removed afterwards, a change of keys loses nothing.
//!
//! Level `use` is setkey's opportunism: an SA if there is one, else clear. It is the one way to say so.
//!
//! Lookup: policies are compiled into tables, `table.rs`. Not here: caches per flow.

mod table;
#[cfg(test)]
mod tests;

pub use crate::selector::Packet;

use crate::{
    sa::{Life, Mode, Sa, SaIndex},
    sad::Sad,
    selector::Selector,
};
use kern::Why;
use std::{net::IpAddr, sync::Arc};
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
    /// An SA if there is one, else clear.
    Use,
    /// An SA, or the packet ends.
    Require,
    /// As `Require`, and the SA must be the one with this `-u`.
    Unique(u32),
}

/// The SAs of a tunnel, as a policy names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// Source of the outer packet.
    pub src: IpAddr,
    /// Destination of the outer packet.
    pub dst: IpAddr,
    /// Level.
    pub level: Level,
}

impl Tunnel {
    /// Whether this SA is one of them.
    pub fn has(&self, sa: &Sa) -> bool {
        let config = sa.config();
        let mode = matches!(config.mode, Mode::Any | Mode::Tunnel);
        let reqid = match self.level {
            Level::Unique(id) => config.reqid == id,
            _ => true,
        };
        (config.src, config.dst) == (self.src, self.dst) && mode && reqid
    }
}

/// What a policy does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `none`: in clear.
    Bypass,
    /// `discard`.
    Discard,
    /// `ipsec esp/tunnel/src-dst/level`.
    Protect(Tunnel),
}

/// A policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// What becomes of a packet on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// In clear.
    Bypass,
    /// Through this SA.
    Protect(SaIndex),
    /// It must be protected and there is no SA: it ends with [`Why::SpNoSa`].
    NoSa,
    /// It ends with [`Why::SpDiscard`].
    Discard,
}

/// A policy's action with its SAs found.
#[derive(Debug)]
enum Resolved {
    Bypass,
    Discard,
    Protect { optional: bool, sas: Box<[Arc<Sa>]> },
}

impl Resolved {
    fn new(policy: &Policy, sad: &Sad) -> Resolved {
        match policy.action {
            Action::Bypass => Resolved::Bypass,
            Action::Discard => Resolved::Discard,
            Action::Protect(tunnel) => Resolved::Protect {
                optional: tunnel.level == Level::Use,
                sas: sad.iter().filter(|sa| tunnel.has(sa)).cloned().collect(),
            },
        }
    }

    fn has(&self, index: SaIndex) -> bool {
        match self {
            Resolved::Protect { sas, .. } => sas.iter().any(|sa| sa.index() == index),
            _ => false,
        }
    }
}

/// All policies, looked up by packet.
#[derive(Debug, Default)]
pub struct Spd {
    policies: Box<[Policy]>,
    resolved: Box<[Resolved]>,
    out: Tables,
    inbound: Tables,
}

impl Spd {
    /// A database of these policies, in order, with the SAs they name.
    pub fn new(policies: impl Into<Box<[Policy]>>, sad: &Sad) -> Spd {
        let policies = policies.into();
        let of = |direction| {
            let numbered = policies.iter().enumerate();
            Tables::new(numbered.filter(move |(_, p)| p.direction == direction).map(|(at, p)| (at as u32, p)))
        };
        Spd {
            resolved: policies.iter().map(|p| Resolved::new(p, sad)).collect(),
            out: of(Direction::Out),
            inbound: of(Direction::In),
            policies,
        }
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
    #[inline]
    pub fn lookup_out(&self, packet: &Packet<'_>) -> Decision {
        let Some(at) = self.out.first(packet) else { return Decision::Bypass };
        match self.resolved.get(at as usize) {
            Some(Resolved::Bypass) => Decision::Bypass,
            Some(Resolved::Protect { sas, optional }) => choose(sas, *optional),
            Some(Resolved::Discard) | None => Decision::Discard,
        }
    }

    /// Whether a packet may go on that came in clear (`via` is `None`) or out of an SA.
    #[inline]
    pub fn check_in(&self, packet: &Packet<'_>, via: Option<SaIndex>) -> Result<(), Why> {
        let policy = self.inbound.first(packet).and_then(|at| self.resolved.get(at as usize));
        match (policy, via) {
            (None | Some(Resolved::Bypass | Resolved::Protect { optional: true, .. }), None) => Ok(()),
            (Some(Resolved::Protect { .. }), None) => Err(Why::SpClear),
            (Some(Resolved::Discard), _) => Err(Why::SpDiscard),
            (Some(protect), Some(index)) if protect.has(index) => Ok(()),
            (_, Some(_)) => Err(Why::EspPolicy),
        }
    }

    /// The policies, in order.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The policies with the SAs each has now.
    pub fn with_sas(&self) -> impl Iterator<Item = (&Policy, &[Arc<Sa>])> {
        self.policies.iter().zip(&self.resolved).map(|(policy, resolved)| match resolved {
            Resolved::Protect { sas, .. } => (policy, &sas[..]),
            _ => (policy, &[][..]),
        })
    }
}

/// Of several SAs the first that is alive.
#[inline(always)]
fn choose(sas: &[Arc<Sa>], optional: bool) -> Decision {
    let [sa, others @ ..] = sas else { return if optional { Decision::Bypass } else { Decision::NoSa } };
    if others.is_empty() || sa.life() != Life::Dead {
        return Decision::Protect(sa.index());
    }
    Decision::Protect(others.iter().find(|sa| sa.life() != Life::Dead).unwrap_or(sa).index())
}
