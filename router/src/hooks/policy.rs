//! What the SPD says of a packet, out and in.

use crate::{ether, worker::Cx};
use ipsec::{
    selector::Packet as Selected,
    spd::{Content, Decision, Path},
};
use kern::{Mbuf, Why};

/// What the SPD says of a packet on its way out.
pub(crate) enum Policy {
    /// No policy, or bypass.
    None,
    /// Into the SA that its header now names.
    Protect,
    /// It must be protected and cannot be.
    Refuse(Why),
    /// It must not leave.
    Discard,
}

/// Looks up a packet on its way out, before anything may translate it.
#[inline(always)]
pub(crate) fn policy_out(cx: &mut Cx<'_>, m: &mut Mbuf) -> Policy {
    let spd = &cx.net.spd;
    if !spd.has_out() {
        return Policy::None;
    }
    let decision = spd.lookup_out(&Selected::read(m), &mut cx.local.flows);
    if matches!(decision, Decision::NoSa | Decision::Without | Decision::Shared(..)) {
        acquire(cx, m);
    }
    follow(decision, m)
}

/// Tells the control thread which SA this packet wants.
#[cold]
fn acquire(cx: &mut Cx<'_>, m: &Mbuf) {
    let packet = Selected::read(m);
    if let Some(wanted) = cx.net.spd.wanted(&packet, &mut cx.local.flows) {
        cx.local.asked.ask(&cx.shared.acquires, wanted, &packet, cx.now);
    }
}

/// Whether a policy protects this packet of the router's own, or does not let it out at all.
#[cold]
pub(crate) fn is_covered(cx: &mut Cx<'_>, m: &Mbuf) -> bool {
    let net = cx.net;
    let spd = &net.spd;
    let by_route = || net.fib.route(ether::destination(m), 0).iface().and_then(|i| net.interface(i.0));
    if !net.tunnels.is_empty() && by_route().is_some_and(|i| !i.has_link()) {
        return true;
    }
    let passes = |decision| matches!(decision, Decision::Bypass | Decision::Without);
    spd.has_out() && !passes(spd.lookup_out(&Selected::read(m), &mut cx.local.flows))
}

/// What a decision means for a packet. Until it is sealed, `nexthop` has what is left of its bundle.
#[inline(always)]
pub(super) fn follow(decision: Decision, m: &mut Mbuf) -> Policy {
    match decision {
        Decision::Bypass | Decision::Without => Policy::None,
        Decision::Protect(hop) | Decision::Shared(hop) => {
            let h = m.hdr_mut();
            (h.sa, h.nexthop) = (hop.sa().to_header(), hop.rest().to_header());
            Policy::Protect
        }
        Decision::NoSa => Policy::Refuse(Why::SpNoSa),
        Decision::Discard => Policy::Discard,
    }
}

/// Checks a packet that arrived in clear: it must not be of a protect policy (RFC 4301 5.2). What was opened has been
/// checked.
#[inline(always)]
pub(crate) fn policy_clear(cx: &mut Cx<'_>, m: &Mbuf) -> Result<(), Why> {
    if m.hdr().sa == 0 && cx.net.spd.has_in() {
        policy_in(cx, m, Path::CLEAR, &mut Content::default())
    } else {
        Ok(())
    }
}

#[inline(always)]
pub(super) fn policy_in(cx: &mut Cx<'_>, m: &Mbuf, path: Path, content: &mut Content) -> Result<(), Why> {
    cx.net.spd.check_in(&Selected::read(m), path, &mut cx.local.flows, content)
}
