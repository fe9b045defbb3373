//! Route-based tunnels: an interface whose wire is an SA (ipsecif(4) of NetBSD, xfrmi of Linux).
//!
//! ```text
//!  out:  route ► ip_output: pf out on ipsec0, MTU ► here ► esp_output ► ip_output of the outer packet ► wan0
//!  in:   wan0 ► esp_input ► here ► ip_input: pf in on ipsec0 ► to us or onwards
//! ```
//!
//! Routes say what goes in and pf's rules for the interface what may; the SAs are those between its ends with its number
//! (setkey's `-u`). Policies have no say in what comes out of them, but are asked first on the way out: a packet that one
//! protects goes its way. pf sees such packets on the interface and not on `enc0` too.
//!
//! Not here: neighbours (there are none), queues (the line is that by which the ESP leaves).

use crate::{
    conf::Ends,
    ether,
    iface::{Interface, Kind},
    worker::{Cx, Pending, Stage},
};
use ipsec::{
    Sad,
    sa::{Mode, Protocol, Sa},
    selector::Packet,
    spd::{Level, Request, Wanted, preferred},
};
use kern::{Mbuf, PktFlags, Why};
use std::sync::Arc;

/// Tunnels one inside the other that a packet may go into.
const NESTED: u8 = 4;
/// What an SA is asked for by, other than by a policy: those are numbered from 1.
const NO_POLICY: u32 = 0;

/// Which SAs are those of interfaces: part of the snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tunnels {
    /// By number of the SA: the interface on which its packets arrive; 0 for none.
    inbound: Box<[u16]>,
    /// By interface: the SAs it sends with, the newest first.
    outbound: Box<[Outbound]>,
}

/// An interface and the SAs it sends with.
#[derive(Clone, Debug)]
struct Outbound {
    interface: u16,
    sas: Box<[Arc<Sa>]>,
    /// Whether some of them are of one worker alone.
    per_worker: bool,
}

/// By what a worker sends on an interface.
struct Choice<'t> {
    sa: Option<&'t Arc<Sa>>,
    /// Whether it should have an SA of its own, as other workers have.
    lacks_own: bool,
}

impl Tunnels {
    /// Of these interfaces, with these SAs.
    pub(crate) fn new<'a>(interfaces: impl Iterator<Item = &'a Interface>, sad: &Sad) -> Tunnels {
        let (mut inbound, mut outbound) = (Vec::new(), Vec::new());
        for interface in interfaces {
            let Kind::Ipsec(ends) = interface.kind else { continue };
            let index = interface.index.0;
            let mut own = Vec::new();
            for sa in sad.newest_first().filter(|sa| is_of(sa, ends)) {
                if sa.config().src == ends.local {
                    own.push(Arc::clone(sa));
                } else {
                    let at = sa.index().0 as usize;
                    inbound.resize(inbound.len().max(at + 1), 0);
                    inbound[at] = index;
                }
            }
            let per_worker = own.iter().any(|sa| sa.config().worker.is_some());
            outbound.push(Outbound { interface: index, sas: own.into(), per_worker });
        }
        Tunnels { inbound: inbound.into(), outbound: outbound.into() }
    }

    /// Whether no SA is an interface's.
    #[inline(always)]
    pub(super) const fn is_empty(&self) -> bool {
        self.inbound.is_empty()
    }

    /// The interface on which a packet has arrived that came out of an SA, and of no other before it.
    #[inline]
    pub(super) fn arrived(&self, m: &Mbuf) -> Option<u16> {
        let h = m.hdr();
        let index = *self.inbound.get((h.sa as usize).checked_sub(1)?)?;
        (index != 0 && h.nexthop == 0).then_some(index)
    }

    /// The SA by which a worker sends on an interface: of several the newest that is alive.
    fn choose(&self, interface: u16, worker: u16) -> Choice<'_> {
        let Some(out) = self.of(interface) else { return Choice { sa: None, lacks_own: false } };
        let sa = preferred(out.sas.iter(), worker);
        let lacks_own = out.per_worker && sa.is_none_or(|sa| sa.config().worker.is_none());
        Choice { sa, lacks_own }
    }

    /// Whether an interface has an SA to send by.
    pub(crate) fn is_up(&self, interface: u16) -> bool {
        self.of(interface).is_some_and(|out| !out.sas.is_empty())
    }

    fn of(&self, interface: u16) -> Option<&Outbound> {
        self.outbound.iter().find(|out| out.interface == interface)
    }
}

fn is_of(sa: &Sa, ends: Ends) -> bool {
    let config = sa.config();
    let ways = [(ends.local, ends.remote), (ends.remote, ends.local)];
    config.protocol == Protocol::Esp
        && matches!(config.mode, Mode::Tunnel | Mode::Any)
        && config.reqid == ends.unique
        && ways.contains(&(config.src, config.dst))
}

/// A packet that is routed into a tunnel, pf has passed and fits the interface.
#[inline(never)]
pub(crate) fn tunnel_output(cx: &mut Cx<'_>, interface: &Interface, mut m: Mbuf, out: &mut Pending) {
    let counters = cx.stats.interface(interface.index.0);
    let Choice { sa, lacks_own } = cx.net.tunnels.choose(interface.index.0, cx.me as u16);
    if lacks_own || sa.is_none() {
        acquire(cx, interface, &m, lacks_own);
    }
    let sa = match sa {
        // An outer packet that leads back into its own tunnel would never come out.
        Some(sa) if ether::destination(&m) == sa.destination() && m.hdr().flags.has(PktFlags::PROTECTED) => {
            Err(Why::TooManyPasses)
        }
        Some(_) if m.hdr().hops > NESTED => Err(Why::TooManyPasses),
        Some(sa) => Ok(sa.index().to_header()),
        None => Err(Why::SpNoSa),
    };
    let (frames, bytes) = crate::iface::vnet::on_the_wire(&m);
    match sa {
        Ok(sa) => {
            counters.sent(frames, bytes, 0);
            let h = m.hdr_mut();
            h.hops += u8::from(h.flags.has(PktFlags::PROTECTED));
            (h.sa, h.nexthop, h.cursor) = (sa, 0, 0);
            // pf has seen it here.
            h.flags.set(PktFlags::RETRIED);
            out.push(Stage::EspOutput, m, &cx.stats.ledger);
        }
        Err(why) => {
            counters.sent(0, 0, frames);
            cx.end(m, why);
        }
    }
}

/// Tells the control thread that an interface has no SA to send with, or this worker none of its own.
#[cold]
fn acquire(cx: &mut Cx<'_>, interface: &Interface, m: &Mbuf, own: bool) {
    let Kind::Ipsec(Ends { local, remote, unique }) = interface.kind else { return };
    let request = Request::tunnel(local, remote, Level::Unique(unique));
    let worker = own.then_some(cx.me as u16);
    let wanted = Wanted { policy: NO_POLICY, request, src: local, dst: remote, inner: None, worker };
    cx.local.asked.ask(&cx.shared.acquires, wanted, &Packet::read(m), cx.now);
}

/// A packet that came out of an interface's SA: received there, as from a wire.
pub(super) fn tunnel_input(cx: &Cx<'_>, index: u16, mut m: Mbuf, out: &mut Pending) {
    cx.stats.interface(index).received(1, m.len() as u64);
    let h = m.hdr_mut();
    (h.rcvif, h.sa) = (index, 0);
    out.push(Stage::IpInput, m, &cx.stats.ledger);
}
