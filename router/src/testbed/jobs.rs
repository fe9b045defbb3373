//! What a host of the testbed can be told to do, and how it went.

use kern::time::Instant;
use smoltcp::{
    iface::{Interface, SocketHandle, SocketSet},
    socket::{icmp, tcp, udp},
    wire::IpEndpoint,
};
use std::{net::IpAddr, time::Duration};
use wire::{icmpv4, icmpv6};

/// Octets of a TCP socket's buffers, each way.
const WINDOW: usize = 512 * 1024;
/// Datagrams in a UDP socket's buffers.
const DATAGRAMS: usize = 1024;
/// How long a ping waits for its last answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a transfer carries: octets whose place in the stream shows, if any were lost, doubled or moved.
const PATTERN: [u8; 2 * PERIOD] = pattern();
/// Not a divisor of any usual segment size.
const PERIOD: usize = 8191;

const fn pattern() -> [u8; 2 * PERIOD] {
    let mut octets = [0; 2 * PERIOD];
    let mut i = 0;
    while i < octets.len() {
        let at = (i % PERIOD) as u32;
        octets[i] = (at.wrapping_mul(0x9e37_79b1) >> 24) as u8;
        i += 1;
    }
    octets
}

/// Octets of the stream from a place on, at most a period.
pub(super) fn pattern_at(place: u64, len: usize) -> &'static [u8] {
    let at = (place % PERIOD as u64) as usize;
    &PATTERN[at..at + len.min(PERIOD)]
}

/// A job.
pub(super) enum Job {
    Echo(Echo),
    Bulk(Bulk),
    Datagrams(Datagrams),
}

impl Job {
    /// Does what can be done now; says whether anything was.
    pub(super) fn turn(
        &mut self,
        sockets: &mut SocketSet<'static>,
        interface: &mut Interface,
        now: Instant,
    ) -> bool {
        match self {
            Job::Echo(echo) => echo.turn(sockets, interface, now),
            Job::Bulk(bulk) => bulk.turn(sockets, now),
            Job::Datagrams(datagrams) => datagrams.turn(sockets, now),
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        match self {
            Job::Echo(echo) if echo.sent < echo.pace.count => echo.next_at,
            Job::Datagrams(datagrams) if !datagrams.is_done() => datagrams.next_at,
            _ => Instant::NEVER,
        }
    }
}

/// How often, how fast and how large.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How many.
    pub count: u32,
    /// Between two.
    pub interval: Duration,
    /// Octets of data in each.
    pub size: usize,
}

/// A ping.
#[derive(Debug)]
pub struct Echo {
    handle: SocketHandle,
    /// Identifier, which differs among the pings of one host.
    ident: u16,
    to: IpAddr,
    pace: Pace,
    next_at: Instant,
    sent_at: Vec<Option<Instant>>,
    /// Requests sent.
    pub sent: u32,
    /// Answers.
    pub received: u32,
    /// Answers with other data than the request, or to none.
    pub wrong: u32,
    /// Round trips.
    pub rtts: Vec<Duration>,
}

impl Echo {
    pub(super) fn new(
        sockets: &mut SocketSet<'static>,
        ident: u16,
        to: IpAddr,
        pace: Pace,
        now: Instant,
    ) -> Echo {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 64], vec![0; 64 * 1024]);
        let handle = sockets.add(icmp::Socket::new(buffer(), buffer()));
        Echo {
            handle,
            ident,
            to,
            pace,
            next_at: now,
            sent_at: Vec::new(),
            sent: 0,
            received: 0,
            wrong: 0,
            rtts: Vec::new(),
        }
    }

    /// Whether all were sent, and answered or given up.
    pub fn is_done(&self, now: Instant) -> bool {
        self.sent == self.pace.count && (self.received == self.sent || now >= self.next_at + PATIENCE)
    }

    fn turn(&mut self, sockets: &mut SocketSet<'static>, interface: &Interface, now: Instant) -> bool {
        let socket = sockets.get_mut::<icmp::Socket<'_>>(self.handle);
        if !socket.is_open() {
            // A fresh socket takes any identifier.
            let _ = socket.bind(icmp::Endpoint::Ident(self.ident));
        }
        let mut busy = false;
        while let Ok((message, _)) = socket.recv() {
            self.hear(message, now);
            busy = true;
        }
        if self.sent < self.pace.count && self.next_at <= now && socket.can_send() {
            let message = self.message(interface);
            busy |= message.is_some_and(|message| socket.send_slice(&message, self.to.into()).is_ok());
            self.sent_at.push(Some(now));
            self.sent += 1;
            self.next_at = now + self.pace.interval;
        }
        busy
    }

    fn message(&self, interface: &Interface) -> Option<Vec<u8>> {
        let (ident, seq) = (self.ident, self.sent as u16);
        let data = pattern_at(u64::from(self.sent), self.pace.size);
        let mut message = vec![0; icmpv4::HEADER_LEN + data.len()];
        match self.to {
            IpAddr::V4(_) => icmpv4::Repr::EchoRequest { ident, seq, data }.emit(&mut message).ok()?,
            IpAddr::V6(to) => {
                let from = interface.get_source_address_ipv6(&to);
                icmpv6::Repr::EchoRequest { ident, seq, data }.emit(&mut message, from, to).ok()?
            }
        };
        Some(message)
    }

    fn hear(&mut self, message: &[u8], now: Instant) {
        let reply = if self.to.is_ipv4() { icmpv4::kind::ECHO_REPLY } else { icmpv6::kind::ECHO_REPLY };
        let (Some(kind), Some(sequence), Some(data)) =
            (message.first(), message.get(6..).and_then(<[u8]>::first_chunk), message.get(8..))
        else {
            return;
        };
        let sequence = u16::from_be_bytes(*sequence);
        let sent_at = self.sent_at.get_mut(usize::from(sequence)).and_then(Option::take);
        match sent_at {
            Some(at) if *kind == reply && data == pattern_at(u64::from(sequence), self.pace.size) => {
                self.received += 1;
                self.rtts.push(now.since(at));
            }
            _ => self.wrong += 1,
        }
    }
}

/// One end of a TCP transfer.
#[derive(Debug)]
pub struct Bulk {
    handle: SocketHandle,
    octets: u64,
    closed: bool,
    /// Octets given to TCP.
    pub sent: u64,
    /// Octets that came.
    pub received: u64,
    /// Whether what came is what a host of ours sends.
    pub intact: bool,
    /// The other end has sent everything.
    pub ended: bool,
    /// When the connection stood, and when the last octet came or went.
    pub times: Option<(Instant, Instant)>,
    /// The connection ended before both had closed it.
    pub failed: bool,
}

impl Bulk {
    fn new(sockets: &mut SocketSet<'static>, socket: tcp::Socket<'static>, octets: u64) -> Bulk {
        let handle = sockets.add(socket);
        Bulk {
            handle,
            octets,
            closed: false,
            sent: 0,
            received: 0,
            intact: true,
            ended: false,
            times: None,
            failed: false,
        }
    }

    fn socket() -> tcp::Socket<'static> {
        let buffer = || tcp::SocketBuffer::new(vec![0; WINDOW]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_congestion_control(tcp::CongestionControl::Cubic);
        socket
    }

    pub(super) fn listen(sockets: &mut SocketSet<'static>, port: u16, octets: u64) -> Bulk {
        let mut socket = Bulk::socket();
        let failed = socket.listen(port).is_err();
        Bulk { failed, ..Bulk::new(sockets, socket, octets) }
    }

    pub(super) fn connect(
        sockets: &mut SocketSet<'static>,
        interface: &mut Interface,
        to: (IpAddr, u16),
        from: u16,
        octets: u64,
    ) -> Bulk {
        let mut socket = Bulk::socket();
        let failed = socket.connect(interface.context(), to, from).is_err();
        Bulk { failed, ..Bulk::new(sockets, socket, octets) }
    }

    /// Whether both directions are over, or the connection is.
    pub fn is_done(&self) -> bool {
        self.failed || (self.closed && self.ended)
    }

    /// How long it took.
    pub fn time(&self) -> Duration {
        self.times.map_or(Duration::ZERO, |(first, last)| last.since(first))
    }

    fn turn(&mut self, sockets: &mut SocketSet<'static>, now: Instant) -> bool {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let is_open = self.times.is_some();
        if socket.may_send() && !is_open {
            self.times = Some((now, now));
        }
        let moved = self.send(socket) + self.take(socket);
        if let Some((_, last)) = self.times.as_mut().filter(|_| moved > 0) {
            *last = now;
        }
        if self.sent == self.octets && !self.closed && socket.may_send() {
            socket.close();
            self.closed = true;
        }
        self.ended |= is_open && !socket.may_recv() && socket.state() != tcp::State::Closed;
        if socket.state() == tcp::State::Closed && !(self.closed && self.ended) {
            self.failed = true;
        }
        moved > 0
    }

    fn send(&mut self, socket: &mut tcp::Socket<'static>) -> u64 {
        let before = self.sent;
        while self.sent < self.octets && socket.can_send() {
            let left = (self.octets - self.sent).min(PERIOD as u64) as usize;
            match socket.send_slice(pattern_at(self.sent, left)) {
                Ok(n @ 1..) => self.sent += n as u64,
                _ => break,
            }
        }
        self.sent - before
    }

    fn take(&mut self, socket: &mut tcp::Socket<'static>) -> u64 {
        let before = self.received;
        while socket.can_recv() {
            let place = self.received;
            let taken = socket.recv(|data| {
                let n = data.len().min(PERIOD);
                (n, (n, data[..n] == *pattern_at(place, n)))
            });
            let Ok((n, intact)) = taken else { break };
            self.received += n as u64;
            self.intact &= intact;
        }
        self.received - before
    }
}

/// Numbered datagrams, sent or taken.
#[derive(Debug)]
pub struct Datagrams {
    handle: SocketHandle,
    to: Option<IpEndpoint>,
    pace: Pace,
    next_at: Instant,
    next: u32,
    /// Datagrams sent.
    pub sent: u32,
    /// Datagrams that came.
    pub received: u32,
    /// Datagrams that came after one with a higher number.
    pub out_of_order: u32,
}

impl Datagrams {
    fn new(
        sockets: &mut SocketSet<'static>,
        port: u16,
        to: Option<IpEndpoint>,
        pace: Pace,
        now: Instant,
    ) -> Datagrams {
        let pace = Pace { size: pace.size.max(4), ..pace };
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; DATAGRAMS * 1500]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        // A fresh socket takes any port but zero.
        let _ = socket.bind(port);
        let handle = sockets.add(socket);
        Datagrams { handle, to, pace, next_at: now, next: 0, sent: 0, received: 0, out_of_order: 0 }
    }

    pub(super) fn send(
        sockets: &mut SocketSet<'static>,
        (to, port): (IpAddr, u16),
        from: u16,
        pace: Pace,
        now: Instant,
    ) -> Datagrams {
        Datagrams::new(sockets, from, Some(IpEndpoint::new(to.into(), port)), pace, now)
    }

    pub(super) fn take(sockets: &mut SocketSet<'static>, port: u16) -> Datagrams {
        let pace = Pace { count: 0, interval: Duration::ZERO, size: 0 };
        Datagrams::new(sockets, port, None, pace, Instant::ZERO)
    }

    /// Whether all were sent.
    pub fn is_done(&self) -> bool {
        self.sent == self.pace.count
    }

    fn turn(&mut self, sockets: &mut SocketSet<'static>, now: Instant) -> bool {
        let socket = sockets.get_mut::<udp::Socket<'_>>(self.handle);
        let mut busy = false;
        while !self.is_done()
            && self.next_at <= now
            && let Some(to) = self.to
            && let Ok(datagram) = socket.send(self.pace.size, to)
        {
            datagram.fill(0);
            datagram[..4].copy_from_slice(&self.sent.to_be_bytes());
            self.sent += 1;
            self.next_at += self.pace.interval;
            busy = true;
        }
        while let Ok((datagram, _)) = socket.recv() {
            busy = true;
            let Some(number) = datagram.first_chunk().map(|n| u32::from_be_bytes(*n)) else { continue };
            self.received += 1;
            self.out_of_order += u32::from(number < self.next);
            self.next = self.next.max(number + 1);
        }
        busy
    }
}
