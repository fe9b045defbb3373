//! ESP in UDP (RFC 3948): datagrams to port 4500 of ours, ahead of the host stack, as long as any SA goes in UDP.
//!
//! pf has seen them as what they are on the wire, UDP. ESP goes on without its UDP header; IKE is the host stack's, where a daemon
//! may have the port; keepalives end here, and are sent from here. Where a peer has moved to, `ipsec::natt` tells; the control
//! thread publishes it.

use crate::{
    host::is_trusted,
    iface::cut,
    ip::output::{cut_into, finished},
    netconfig::NetConfig,
    worker::{Cx, Pending, Stage},
};
use ipsec::{
    Sad,
    natt::{self, Arrived},
    sa::{Life, Sa, Setup},
    transform::KeyError,
};
use kern::{
    Batch, Gso, Mbuf, PktFlags, Why,
    lock::{
        Held,
        levels::{Softnet, Top},
    },
    time::{Duration, Instant},
};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};
use wire::IpProto;

/// Whether a whole packet to us is a datagram for [`natt::PORT`].
#[inline(always)]
pub(crate) fn is_for_natt(net: &NetConfig, m: &Mbuf) -> bool {
    net.sad.takes_udp() && m.hdr().proto == IpProto::UDP.0 && natt::is_to_port(m)
}

/// Leaves ESP in the batch, and sends on or ends what else has come in UDP.
#[inline]
pub(super) fn demultiplex(cx: &mut Cx<'_>, batch: &mut Batch, out: &mut Pending) {
    if cx.net.sad.takes_udp() {
        batch.sift(|m| if m.hdr().proto == IpProto::UDP.0 { datagram(cx, m, out) } else { Some(m) });
    }
}

fn datagram(cx: &mut Cx<'_>, m: Mbuf, out: &mut Pending) -> Option<Mbuf> {
    if m.hdr().gso != Gso::None {
        cut_first(cx, m, out);
        return None;
    }
    let trusted = is_trusted(&m);
    let mut m = finished(cx, m)?;
    if trusted {
        m.hdr_mut().flags.set(PktFlags::CSUM_OK);
    }
    match natt::arrive(&mut m) {
        Ok(Arrived::Esp) => return Some(m),
        Ok(Arrived::Ike) => {
            cx.stats.count.natt_ike.inc();
            out.push(Stage::HostInput, m, &cx.stats.ledger);
        }
        Ok(Arrived::Keepalive) => cx.end(m, Why::NattKeepalive),
        Err(why) => cx.end(m, why),
    }
    None
}

/// A super-frame's datagrams come again one by one; so does what is left of it, behind them.
#[cold]
fn cut_first(cx: &Cx<'_>, m: Mbuf, out: &mut Pending) {
    let limit = out.room(Stage::EspInput).saturating_sub(1).min(cut::LIMIT);
    let rest = cut_into(cx, m, limit, |segment| out.push(Stage::EspInput, segment, &cx.stats.ledger));
    if let Some(m) = rest {
        out.push(Stage::EspInput, m, &cx.stats.ledger);
    }
}

/// Peers that are sent keepalives: part of the snapshot. Each is the SAs that send to one port of one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keepalives(Box<[Kept]>);

#[derive(Clone, Debug)]
struct Kept {
    every: Duration,
    sas: Vec<Arc<Sa>>,
}

impl Keepalives {
    /// Of the SAs that send from an address of ours.
    pub(crate) fn new(net: &NetConfig) -> Keepalives {
        let mut peers: HashMap<_, Kept> = HashMap::new();
        for sa in net.sad.iter().filter(|sa| net.is_local(sa.config().src)) {
            let Some(udp) = sa.config().encap.filter(|udp| udp.keepalive > 0) else { continue };
            let every = Duration::from_secs(udp.keepalive.into());
            let kept = peers.entry((sa.config().src, sa.peer()));
            let kept = kept.or_insert(Kept { every, sas: Vec::new() });
            kept.every = kept.every.min(every);
            kept.sas.push(sa.clone());
        }
        Keepalives(peers.into_values().collect())
    }
}

/// Sends keepalives to peers that nothing has been sent to for so long (RFC 3948, 4); returns when to come again.
pub(crate) fn keep_alive(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, out: &mut Pending) -> Instant {
    /// A new configuration is noticed after this.
    const LATEST: Duration = Duration::from_secs(1);
    let (net, now) = (cx.net, cx.now);
    let mut next = now + LATEST;
    for Kept { every, sas } in &net.keepalives.0 {
        let Some(sa) = sas.iter().find(|sa| sa.life() != Life::Dead) else { continue };
        let silent = sas.iter().map(|sa| sa.silent_since(held)).fold(Instant::ZERO, Instant::max);
        let mut due = silent + *every;
        if due <= now {
            send_keepalive(cx, sa, out);
            sa.note_keepalive(now, held);
            due = now + *every;
        }
        next = next.min(due);
    }
    next
}

fn send_keepalive(cx: &mut Cx<'_>, sa: &Sa, out: &mut Pending) {
    let Some(mut m) = cx.new_packet() else { return };
    match natt::write_keepalive(sa, &mut m) {
        Ok(()) => {
            cx.stats.count.natt_keepalives.inc();
            out.push(Stage::IpOutput, m, &cx.stats.ledger);
        }
        Err(why) => cx.end(m, why),
    }
}

/// Tells the control thread that peers have moved, if any have since the last call.
#[inline(always)]
pub(super) fn tell_moves(cx: &mut Cx<'_>) {
    if cx.local.releasing.take_moved() {
        cx.shared.peers_moved.store(true, Ordering::Release);
        cx.shared.host.ring();
    }
}

/// Puts SAs into a configuration. What one knows of its peer it passes on to the next: they send to where their peers are by
/// now.
pub(crate) fn install_sad(
    net: &mut NetConfig,
    sad: Sad,
    setup: &Setup,
    held: &mut Held<'_, Top>,
) -> Result<(), KeyError> {
    let followed = natt::followed(&sad, |addr| net.is_local(addr), setup, held)?;
    net.replace_sad(followed.map_or(sad, |(sad, _)| sad));
    Ok(())
}

/// Has the outbound SAs of a configuration send to where their peers are now; says how many have changed.
pub(crate) fn follow_peers(
    net: &mut NetConfig,
    setup: &Setup,
    held: &mut Held<'_, Top>,
) -> Result<usize, KeyError> {
    let followed = natt::followed(&net.sad, |addr| net.is_local(addr), setup, held)?;
    let Some((sad, moved)) = followed else { return Ok(0) };
    net.replace_sad(sad);
    Ok(moved)
}
