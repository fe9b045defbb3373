//! The taps `pflog0` to `pflog15`: packets that rules of pf log.

use crate::{
    capture::{Copiers, Seen, Tap},
    host::{OpenPorts, Transport},
    netconfig::NetConfig,
};
use kern::time::Instant;
use pf::{
    Direction,
    log::{Logger, Owner, Record},
};
use wire::{IpProto, parse};

/// Copies logged packets of a batch for those who look.
pub(super) struct Pflog<'a> {
    captures: &'a mut Copiers,
    net: &'a NetConfig,
    ports: &'a OpenPorts,
    at: Instant,
}

impl<'a> Pflog<'a> {
    /// None if nobody looks.
    #[inline(always)]
    pub(super) fn new(
        captures: &'a mut Copiers,
        net: &'a NetConfig,
        ports: &'a OpenPorts,
        at: Instant,
    ) -> Option<Pflog<'a>> {
        captures.look_at_any(|tap| matches!(tap, Tap::Pflog(_))).then_some(Pflog { captures, net, ports, at })
    }

    /// Whether one of the router's own sockets has sent a packet, or will get it (BSD: `pf_socket_lookup`): it is then of the
    /// router's user. Other sockets there are none.
    fn is_of_socket(&self, record: &Record<'_>, packet: &[u8]) -> bool {
        let Ok(p) = parse::parse_ip(packet) else { return false };
        let transport = match p.proto {
            IpProto::TCP => Transport::Tcp,
            IpProto::UDP => Transport::Udp,
            _ => return false,
        };
        let flow = p.flow(packet);
        let (address, port, is_ours) = match record.direction {
            Direction::In => (flow.dst(), p.dst_port, true),
            // The packet may have another source by now.
            Direction::Out => (record.source.0, record.source.1, record.own),
        };
        is_ours
            && p.flags.contains(parse::Flags::PORTS)
            && self.net.is_local(address)
            && self.ports.is_open(transport, port)
    }
}

/// The router's process.
fn router() -> Owner {
    Owner { uid: rustix::process::getuid().as_raw(), pid: std::process::id() }
}

impl Logger for Pflog<'_> {
    #[cold]
    fn log(&mut self, record: &Record<'_>, packet: &[u8]) {
        let tap = Tap::Pflog(record.to);
        if !self.captures.look_at(tap) {
            return;
        }
        let name = match record.interface {
            super::ENC0 => "enc0",
            index => self.net.interface(index.0).map_or("", |interface| &interface.name),
        };
        let router = router();
        let owner = if record.user && self.is_of_socket(record, packet) { router } else { Owner::NOBODY };
        let header = record.header(name, packet, owner, router);
        let inbound = record.direction == Direction::In;
        self.captures.copy(tap, &Seen { at: self.at, inbound, header: &header, packet });
        self.captures.show(tap);
    }
}
