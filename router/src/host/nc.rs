//! Connections of the router's own, for `softnet nc`: TCP and UDP, out or awaiting one.
//!
//! Octets go both ways under back-pressure. From the client: what the socket does not take yet is kept up to a limit, and
//! beyond it the control socket does not read the client ([`has_room`](Tcp::has_room)). To the client: what it does not take
//! stays in the socket, and TCP's window closes. Closing one direction leaves the other open, as RFC 9293 has it; the
//! stream ends when both are closed. UDP has no end but the client's.

use super::{
    complaint::{About, Complaint},
    turn::{Turn, way},
};
use crate::control::proto::{Octets, RefusalKind, Response};
use kern::time::Instant;
use smoltcp::{
    iface::{SocketHandle, SocketSet},
    socket::{
        tcp::{self, State},
        udp,
    },
    wire::IpEndpoint,
};
use std::{collections::VecDeque, net::IpAddr, time::Duration};
use wire::IpProto;

/// Octets of a TCP socket's buffers, each way.
const WINDOW: usize = 128 * 1024;
/// Octets from the client that wait for the socket.
const OUTGOING: usize = 64 * 1024;
/// Octets told to the client at once.
const CHUNK: usize = 8 * 1024;
/// How long the other end may be silent while it owes an answer.
const SILENCE: Duration = Duration::from_secs(30);
/// Octets in a datagram that needs no fragmenting: smoltcp does not.
const DATAGRAM: usize = super::stack::MTU - wire::ipv6::HEADER_LEN - wire::udp::HEADER_LEN;
/// Datagrams in a UDP socket's buffers, each way.
const DATAGRAMS: usize = 128;

/// Who takes what a stream says.
pub trait Listener {
    /// Says something.
    fn push(&mut self, response: &Response);

    /// Whether it takes more now.
    fn has_room(&self) -> bool;
}

impl Listener for crate::control::socket::Outbox<'_> {
    fn push(&mut self, response: &Response) {
        crate::control::socket::Outbox::push(self, response);
    }

    fn has_room(&self) -> bool {
        crate::control::socket::Outbox::has_room(self)
    }
}

impl Listener for Vec<Response> {
    fn push(&mut self, response: &Response) {
        Vec::push(self, response.clone());
    }

    fn has_room(&self) -> bool {
        true
    }
}

fn refuse(out: &mut impl Listener, text: impl Into<String>) {
    out.push(&Response::refused(RefusalKind::No, text));
    out.push(&Response::End);
}

fn port_of(end: IpEndpoint) -> String {
    format!("{} port {}", end.addr, end.port)
}

/// A TCP socket with its buffers.
pub(super) fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_timeout(Some(SILENCE.into()));
    socket.set_nagle_enabled(false);
    socket.set_congestion_control(tcp::CongestionControl::Cubic);
    socket
}

/// A UDP socket with its buffers.
pub(super) fn udp_socket() -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; WINDOW]);
    udp::Socket::new(buffer(), buffer())
}

/// A TCP connection, or the wait for one.
pub(super) struct Tcp {
    /// Its socket.
    pub(super) handle: SocketHandle,
    /// Our port.
    pub(super) port: u16,
    since: Instant,
    outgoing: VecDeque<u8>,
    /// The client sends no more.
    shut: bool,
    /// We have closed our direction.
    closed: bool,
    /// The other end has closed its direction.
    was_closed: bool,
    /// The client has been told that the connection stands.
    is_told: bool,
    complaint: Option<String>,
}

impl Tcp {
    pub(super) fn new(handle: SocketHandle, port: u16, since: Instant) -> Tcp {
        Tcp {
            handle,
            port,
            since,
            outgoing: VecDeque::new(),
            shut: false,
            closed: false,
            was_closed: false,
            is_told: false,
            complaint: None,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.outgoing.len() < OUTGOING
    }

    /// Octets from the client.
    pub(super) fn data(&mut self, octets: &[u8]) {
        if !self.shut {
            self.outgoing.extend(octets);
        }
    }

    /// The client sends no more.
    pub(super) fn shut(&mut self) {
        self.shut = true;
    }

    /// Moves octets from the client to the socket.
    pub(super) fn turn(&mut self, sockets: &mut SocketSet<'static>) {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        self.was_closed |=
            matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if !socket.may_send() {
            return;
        }
        while let Ok(n @ 1..) = socket.send_slice(self.outgoing.as_slices().0) {
            self.outgoing.drain(..n);
        }
        if self.shut && self.outgoing.is_empty() && !self.closed {
            socket.close();
            self.closed = true;
        }
    }

    /// Somebody complains about a segment of ours. Only a connection that does not stand yet minds (RFC 5461, 4.1).
    pub(super) fn refused(&mut self, sockets: &mut SocketSet<'static>, complaint: &Complaint) {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let ends = socket.local_endpoint().zip(socket.remote_endpoint());
        let is_ours = ends.is_some_and(|(from, to)| is_about(&complaint.about, IpProto::TCP, from, to));
        if is_ours && complaint.unreachable && socket.state() == State::SynSent {
            self.complaint = Some(format!("{}: {}", complaint.by, complaint.text));
            socket.abort();
        }
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self, sockets: &SocketSet<'static>) -> bool {
        let socket = sockets.get::<tcp::Socket<'_>>(self.handle);
        socket.can_recv() || (!self.is_told && stands(socket.state())) || is_over(socket.state())
    }

    /// Tells the client what there is; says whether the stream is over.
    pub(super) fn tell(
        &mut self,
        sockets: &mut SocketSet<'static>,
        now: Instant,
        out: &mut impl Listener,
    ) -> bool {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let state = socket.state();
        if !self.is_told && (stands(state) || socket.can_recv()) {
            self.is_told = true;
            let other = socket.remote_endpoint().map(port_of).unwrap_or_default();
            out.push(&Response::Connected(format!("connected: {other}")));
        }
        let chunk = |data: &mut [u8]| {
            let n = data.len().min(CHUNK);
            (n, data[..n].to_vec())
        };
        while socket.can_recv()
            && out.has_room()
            && let Ok(data) = socket.recv(chunk)
        {
            out.push(&Response::Data(Octets(data)));
        }
        if socket.can_recv() || !is_over(state) {
            return false;
        }
        if state == State::TimeWait || (self.closed && self.was_closed) {
            out.push(&Response::End);
        } else if let Some(complaint) = self.complaint.take() {
            refuse(out, complaint);
        } else if now.since(self.since) >= SILENCE && !self.is_told {
            refuse(out, "no answer");
        } else {
            refuse(
                out,
                if self.is_told { "connection reset, or silent for too long" } else { "connection refused" },
            );
        }
        true
    }
}

/// Whether a connection stands, or did until lately.
fn stands(state: State) -> bool {
    !matches!(state, State::Closed | State::Listen | State::SynSent | State::SynReceived)
}

fn is_over(state: State) -> bool {
    matches!(state, State::Closed | State::TimeWait)
}

fn is_about(about: &About, proto: IpProto, from: IpEndpoint, to: IpEndpoint) -> bool {
    about.proto == proto
        && (IpAddr::from(from.addr), from.port) == (about.from, about.from_port)
        && (IpAddr::from(to.addr), to.port) == (about.to, about.to_port)
}

/// Datagrams to and from one other.
pub(super) struct Udp {
    /// Its socket.
    pub(super) handle: SocketHandle,
    /// Our port.
    pub(super) port: u16,
    /// Our address, once it is known.
    from: Option<IpAddr>,
    /// The other, once it is known.
    to: Option<IpEndpoint>,
    outgoing: VecDeque<Vec<u8>>,
    is_told: bool,
    complaint: Option<String>,
}

impl Udp {
    /// To one other, or to whoever sends the first datagram.
    pub(super) fn new(handle: SocketHandle, port: u16, ends: Option<(IpAddr, IpEndpoint)>) -> Udp {
        Udp {
            handle,
            port,
            from: ends.map(|(from, _)| from),
            to: ends.map(|(_, to)| to),
            outgoing: VecDeque::new(),
            is_told: false,
            complaint: None,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.outgoing.len() < DATAGRAMS
    }

    /// Octets from the client: a datagram, or several if one would be too large.
    pub(super) fn data(&mut self, octets: &[u8]) {
        self.outgoing.extend(octets.chunks(DATAGRAM).map(<[u8]>::to_vec));
    }

    /// Moves datagrams from the client to the socket.
    pub(super) fn turn(&mut self, turn: &Turn<'_>, sockets: &mut SocketSet<'static>) {
        let Some(to) = self.to else { return };
        // Asked as a broadcast, we answer as ourselves.
        let is_ours = |from: &IpAddr| turn.net.is_local(*from) || turn.net.all().any(|i| i.has(*from));
        let from = self.from.filter(is_ours).or_else(|| way(turn.net, to.addr.into()).ok().map(|w| w.from));
        let Some(from) = from else { return self.outgoing.clear() };
        let socket = sockets.get_mut::<udp::Socket<'_>>(self.handle);
        let meta = udp::UdpMetadata { local_address: Some(from.into()), ..to.into() };
        while let Some(datagram) = self.outgoing.front()
            && socket.send_slice(datagram, meta).is_ok()
        {
            self.outgoing.pop_front();
        }
    }

    /// Somebody complains about a datagram of ours.
    pub(super) fn refused(&mut self, complaint: &Complaint) {
        let about = &complaint.about;
        let to = self.to.map(|to| (IpAddr::from(to.addr), to.port));
        let is_ours = about.proto == IpProto::UDP
            && about.from_port == self.port
            && to == Some((about.to, about.to_port));
        if is_ours && complaint.unreachable {
            self.complaint = Some(format!("{}: {}", complaint.by, complaint.text));
        }
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self, sockets: &SocketSet<'static>) -> bool {
        let can_recv = sockets.get::<udp::Socket<'_>>(self.handle).can_recv();
        can_recv || self.complaint.is_some() || (!self.is_told && self.to.is_some())
    }

    /// Tells the client what there is; says whether the stream is over.
    pub(super) fn tell(&mut self, sockets: &mut SocketSet<'static>, out: &mut impl Listener) -> bool {
        let socket = sockets.get_mut::<udp::Socket<'_>>(self.handle);
        self.introduce(out);
        while out.has_room()
            && let Ok((data, meta)) = socket.recv()
        {
            if self.to.is_none() {
                (self.to, self.from) = (Some(meta.endpoint), meta.local_address.map(IpAddr::from));
            }
            if self.to != Some(meta.endpoint) {
                continue;
            }
            self.introduce(out);
            out.push(&Response::Data(Octets(data.to_vec())));
        }
        let Some(complaint) = self.complaint.take() else { return false };
        refuse(out, complaint);
        true
    }

    fn introduce(&mut self, out: &mut impl Listener) {
        if let Some(to) = self.to.filter(|_| !self.is_told) {
            self.is_told = true;
            out.push(&Response::Connected(format!("datagrams to and from {}", port_of(to))));
        }
    }
}
