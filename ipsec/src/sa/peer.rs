//! Where the peer of an SA in UDP is (RFC 3948): as configured, or where its newest verified packet came from.
//!
//! What a worker notes is in the moving part; where an SA sends to is part of the SA and changes with a new one
//! ([`followed`](crate::natt::followed)).

use super::{Sa, SaConfig, SaLevel, Setup};
use crate::transform::KeyError;
use kern::{
    lock::{Before, Held},
    time::Instant,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

/// Where a configuration has the destination.
pub(super) fn configured_peer(config: &SaConfig) -> SocketAddr {
    SocketAddr::new(config.dst, config.encap.map_or(0, |udp| udp.dst_port))
}

impl Sa {
    /// The same SA, going on where it is, with its packets sent elsewhere.
    pub(crate) fn sending_to(&self, peer: SocketAddr, setup: &Setup) -> Result<Sa, KeyError> {
        let (key, moving) = (Arc::clone(&self.key), Arc::clone(&self.moving));
        Sa::with_moving(self.index, self.config.clone(), peer, key, moving, setup)
    }

    /// Where its packets go: the configured destination, with the UDP port or 0; or where the peer is now.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The address its packets go to.
    #[inline(always)]
    pub fn destination(&self) -> IpAddr {
        self.peer.ip()
    }

    /// Where the newest packet came from that came in UDP, and when the last came at all.
    pub fn heard_from(&self, held: &mut Held<'_, impl Before<SaLevel>>) -> Option<(SocketAddr, Instant)> {
        let inbound = held.lock(self.inbound()).0;
        inbound.came_from.map(|from| (from, inbound.used.last))
    }

    /// Where its peer is, if that is elsewhere than configured: where it sends to, or where the newest packet came from.
    pub fn moved_peer(&self, held: &mut Held<'_, impl Before<SaLevel>>) -> Option<SocketAddr> {
        let source = SocketAddr::new(self.config.src, self.config.encap?.src_port);
        let heard = self.heard_from(held).map(|(from, _)| from).filter(|from| *from != source);
        if self.peer == configured_peer(&self.config) { heard } else { Some(self.peer) }
    }

    /// A packet has come from elsewhere than the one before.
    #[cold]
    pub(crate) fn note_moved(&self) {
        self.moving.moved.store(true, Ordering::Release);
    }

    /// Whether one has since the last call.
    #[inline(always)]
    pub(crate) fn take_moved(&self) -> bool {
        self.moving.moved.load(Ordering::Relaxed) && self.moving.moved.swap(false, Ordering::AcqRel)
    }

    /// When the last packet was sent, or keepalive; else when it was made.
    pub fn silent_since(&self, held: &mut Held<'_, impl Before<SaLevel>>) -> Instant {
        let out = held.lock(self.outbound()).0;
        out.used.last.max(out.kept)
    }

    /// A keepalive has been sent.
    pub fn note_keepalive(&self, now: Instant, held: &mut Held<'_, impl Before<SaLevel>>) {
        held.lock(self.outbound()).0.kept = now;
    }
}
