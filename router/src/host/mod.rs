//! The host: packets for the router itself.
//!
//! ICMP and closed ports are answered on the worker and link the packet came from. TCP and UDP for open ports go
//! through a bounded queue to the control thread, whose smoltcp stack owns the sockets; what that sends comes back
//! through another and enters `ip_output` as locally originated, so it meets SPD, pf and ALTQ like any other packet.
//!
//! ```text
//!   workers ── host_input ──► input queue ──► smoltcp (control thread) ──► output queue ── host_output ──► ip_output
//! ```
//!
//! | file | what |
//! |---|---|
//! | `port` | the two queues, and a bit for each open port |
//! | `stack`, `turn`, `ports` | smoltcp between them; how a packet of ours begins; who has which port |
//! | `sessions` | who uses it: clients of the control socket, each with one ping or one connection |
//! | `ping`, `nc`, `complaint` | those, and what ICMP errors say about their packets |

mod complaint;
mod nc;
mod ping;
mod port;
mod ports;
mod sessions;
mod stack;
mod turn;

pub use nc::Listener;
pub use port::{OpenPorts, Port, Transport};
pub use sessions::Sessions;

use crate::{
    icmp::{self, Error},
    iface::cut,
    worker::{Cx, Pending, Stage},
};
use kern::{
    Batch, Gso, Mbuf, Owner, PktFlags, Why,
    lock::{Held, levels::Softnet},
};
use wire::{IpProto, checksum};

/// Stage: whole packets to us.
pub(crate) fn host_input(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    batch.sift(|m| {
        input(cx, held, m, out);
        None
    });
}

fn input(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, m: Mbuf, out: &mut Pending) {
    if let Err(why) = crate::hooks::policy_clear(cx, &m) {
        return cx.end(m, why);
    }
    let proto = IpProto(m.hdr().proto);
    match proto {
        IpProto::ICMP | IpProto::ICMPV6 => icmp::icmp_input(cx, held, m, out),
        IpProto::TCP | IpProto::UDP => transport(cx, held, m, proto, out),
        IpProto::IGMP => cx.end(m, Why::IcmpDone),
        _ => icmp::error(cx, m, Why::HostProtocol, Error::ProtocolUnreachable, out),
    }
}

/// Whether the device or GRO has verified the checksum, or the sender left it to be finished.
pub(crate) fn is_trusted(m: &Mbuf) -> bool {
    m.hdr().flags.any(PktFlags::CSUM_OK.with(PktFlags::PARTIAL))
}

fn transport(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, m: Mbuf, proto: IpProto, out: &mut Pending) {
    let l4 = m.l4();
    let end = m.len();
    let is_tcp = proto == IpProto::TCP;
    let header = if is_tcp { 20 } else { 8 };
    if end < l4 + header {
        return cx.end(m, Why::IpTruncated);
    }
    if !is_trusted(&m) && !checksum::transport_ok(m.data(), l4, end, proto) {
        return cx.end(m, Why::HostChecksum);
    }
    let port = u16::from_be_bytes([m.data()[l4 + 2], m.data()[l4 + 3]]);
    let kind = if is_tcp { Transport::Tcp } else { Transport::Udp };
    if cx.shared.host.ports().is_open(kind, port) {
        if m.hdr().gso != Gso::None {
            return receive_cut(cx, held, m, out);
        }
        let Some(m) = crate::ip::output::finished(cx, m) else { return };
        return deliver(cx, held, m);
    }
    if m.hdr().flags.any(PktFlags::BCAST.with(PktFlags::MCAST)) {
        return cx.end(m, Why::HostClosed);
    }
    if is_tcp {
        return crate::hooks::refuse_connection(cx, m, out);
    }
    icmp::error(cx, m, Why::HostClosed, Error::PortUnreachable, out);
}

/// smoltcp takes segments, not super-frames: cut, and let the segments come again.
fn receive_cut(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, mut m: Mbuf, _out: &mut Pending) {
    loop {
        let mut some = Batch::new();
        let done = cut::cut(&mut m, cut::LIMIT, &cx.shared.pool, &cx.stats.ledger, &mut |segment| {
            if let Err(segment) = some.push(segment) {
                cx.end(segment, Why::PendingFull);
            }
        });
        for segment in some.drain() {
            deliver(cx, held, segment);
        }
        if matches!(done, cut::Cut::Done) {
            break;
        }
    }
    cx.stats.ledger.merge(m);
}

/// Gives a packet to the control thread's stack, if there is room.
pub(crate) fn deliver(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, m: Mbuf) {
    m.set_owner(Owner::Host);
    if let Err(m) = cx.shared.host.give(held, m) {
        cx.end(m, Why::HostFull);
    } else {
        cx.stats.ledger.given.inc();
    }
}

/// What the stack sent since the last turn, on its way out.
pub(crate) fn host_output(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, out: &mut Pending) {
    let room = out.room(Stage::IpOutput);
    let ledger = &cx.stats.ledger;
    let taken = cx.shared.host.take_output(held, room, |m| {
        m.set_owner(Owner::Worker);
        out.push(Stage::IpOutput, m, ledger);
    });
    ledger.taken.add(taken as u64);
    cx.stats.count.host_out.add(taken as u64);
}
