//! Which ports have sockets, and which port an outgoing connection gets (RFC 6056, 3.3.1: at random).
//!
//! Several sockets may have one port: a connection that winds down, and the next listener. The bit that workers look at is
//! set as long as any has it.

use super::{OpenPorts, Transport};
use crate::entropy::random;

/// Ports for outgoing connections (RFC 6335, 6).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49152..=65535;

/// Ports that sockets have, an entry for each socket.
#[derive(Default)]
pub(super) struct Ports {
    taken: Vec<(Transport, u16)>,
}

impl Ports {
    /// A socket takes a port.
    pub(super) fn take(&mut self, open: &OpenPorts, transport: Transport, port: u16) {
        self.taken.push((transport, port));
        open.open(transport, port);
    }

    /// A socket is gone.
    pub(super) fn give_back(&mut self, open: &OpenPorts, transport: Transport, port: u16) {
        if let Some(at) = self.taken.iter().position(|t| *t == (transport, port)) {
            self.taken.swap_remove(at);
        }
        if !self.is_taken(transport, port) {
            open.close(transport, port);
        }
    }

    /// How many sockets there are.
    pub(super) fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether a socket has the port.
    pub(super) fn is_taken(&self, transport: Transport, port: u16) -> bool {
        self.taken.contains(&(transport, port))
    }

    /// A free port. There are more than sockets.
    pub(super) fn ephemeral(&self, transport: Transport) -> Option<u16> {
        let (first, count) = (*EPHEMERAL.start(), EPHEMERAL.len() as u64);
        let start = random() % count;
        (0..count).map(|i| first + ((start + i) % count) as u16).find(|port| !self.is_taken(transport, *port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_open_as_long_as_any_socket_has_it() {
        let (open, mut ports) = (OpenPorts::default(), Ports::default());
        ports.take(&open, Transport::Tcp, 80);
        ports.take(&open, Transport::Tcp, 80);
        assert!(open.is_open(Transport::Tcp, 80) && !open.is_open(Transport::Udp, 80));
        ports.give_back(&open, Transport::Tcp, 80);
        assert!(open.is_open(Transport::Tcp, 80));
        ports.give_back(&open, Transport::Tcp, 80);
        assert!(!open.is_open(Transport::Tcp, 80));
        assert_eq!(ports.len(), 0);
    }

    #[test]
    fn a_port_for_an_outgoing_connection_is_free_and_not_the_same_each_time() {
        let (open, mut ports) = (OpenPorts::default(), Ports::default());
        for _ in 0..200 {
            let port = ports.ephemeral(Transport::Udp).unwrap();
            assert!(port >= 49152 && !ports.is_taken(Transport::Udp, port));
            ports.take(&open, Transport::Udp, port);
        }
        let in_a_row = ports.taken.windows(2).filter(|w| w[1].1 == w[0].1.wrapping_add(1)).count();
        assert!(in_a_row < 20, "{in_a_row} of 200 ports follow their predecessor");
    }
}
