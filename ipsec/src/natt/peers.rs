//! Peers that are no longer where the configuration has them: a translator gave them another port or address, or they went
//! elsewhere (RFC 7296, 2.23; what Linux calls a mapping change).
//!
//! ```text
//!   worker:          verified, newest number, from elsewhere ─► noted in the inbound SA, and the control thread is rung
//!   control thread:  followed() ─► a database in which the outbound SAs to that peer send there
//! ```
//!
//! A worker changes no SA. The SAs sent anew have the moving part of those before them: no number is used twice. Only a packet whose
//! tag has verified moves a peer, and only one with a number higher than any before: a forger cannot, and who repeats an old
//! packet from elsewhere cannot either.
//!
//! The inbound and the outbound SAs of one peer are those with the same configured ends and ports, and the same `-u` where
//! both have one. In transport mode only the port is followed: the address is in the packets that are to be sent.

use crate::{
    Sad,
    sa::{Mode, Sa, SaConfig, SaLevel, Setup},
    transform::KeyError,
};
use kern::{
    lock::{Before, Held},
    time::Instant,
};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Where a peer is, by its inbound SAs.
struct Heard {
    reqid: u32,
    from: SocketAddr,
    last: Instant,
}

/// Ours and the peer's end, as configured.
type Ends = (SocketAddr, SocketAddr);

/// Source and destination of an SA in UDP.
fn ends(config: &SaConfig) -> Option<Ends> {
    let udp = config.encap?;
    Some((SocketAddr::new(config.src, udp.src_port), SocketAddr::new(config.dst, udp.dst_port)))
}

/// A database in which the outbound SAs send to where their peers are now, and how many have changed; `None` if none has.
/// `is_ours` tells the router's own addresses.
pub fn followed(
    sad: &Sad,
    is_ours: impl Fn(IpAddr) -> bool,
    setup: &Setup,
    held: &mut Held<'_, impl Before<SaLevel>>,
) -> Result<Option<(Sad, usize)>, KeyError> {
    if !sad.takes_udp() {
        return Ok(None);
    }
    let mut heard: HashMap<Ends, Vec<Heard>> = HashMap::new();
    for sa in sad.iter().filter(|sa| is_ours(sa.config().dst)) {
        if let (Some((peer, own)), Some((from, last))) = (ends(sa.config()), sa.heard_from(held)) {
            heard.entry((own, peer)).or_default().push(Heard { reqid: sa.config().reqid, from, last });
        }
    }
    let mut moved = 0;
    let one = |sa: &Arc<Sa>| {
        let peer = ends(sa.config()).filter(|(own, _)| is_ours(own.ip())).and_then(|e| heard.get(&e));
        match peer.and_then(|heard| latest(sa, heard)).filter(|to| *to != sa.peer() && !is_ours(to.ip())) {
            None => Ok(Arc::clone(sa)),
            Some(to) => {
                moved += 1;
                sa.sending_to(to, setup).map(Arc::new)
            }
        }
    };
    let sas = sad.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    Ok((moved > 0).then(|| (sad.anew(sas), moved)))
}

/// Where the newest packet of an outbound SA's peer came from.
fn latest(sa: &Sa, heard: &[Heard]) -> Option<SocketAddr> {
    let config = sa.config();
    let is_one = |h: &&Heard| h.reqid == config.reqid || h.reqid == 0 || config.reqid == 0;
    let from = heard.iter().filter(is_one).max_by_key(|h| h.last)?.from;
    (config.mode != Mode::Transport || from.ip() == config.dst).then_some(from)
}
