//! What clients of the control socket do with the host stack: each may have one ping or one connection.
//!
//! Lives on the control thread. A turn takes what workers left in the input queue, lets pings and sockets do what is due,
//! and leaves what they send in the output queue; it does a bounded amount of each. Under `giant` a turn runs under Softnet,
//! as NetBSD's sockets do.
//!
//! A connection whose client is gone winds down by itself: its socket lingers until TCP has finished with it.

use super::{
    Transport, complaint,
    nc::{self, Listener, Tcp, Udp},
    ping::{self, Ping},
    ports::Ports,
    stack::Stack,
    turn::{Turn, hear, is_icmp, way},
};
use crate::{
    control::{
        proto::{Nc, RefusalKind, Request, Response},
        socket::{Reply, Session},
    },
    entropy::random,
    router::Router,
};
use kern::{
    Mbuf,
    lock::Root,
    time::{Clock, Instant},
};
use smoltcp::{iface::SocketHandle, socket::tcp, wire::IpEndpoint};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// Packets taken in by one turn.
const INTAKE: usize = 256;
/// Sockets at once, lingering ones included.
const SOCKETS: usize = 128;
/// How often a client that does not take what there is to tell is tried again.
const DEAF: Duration = Duration::from_millis(10);
/// The longest the control thread may sleep for our sake.
const LONG: Duration = Duration::from_hours(1);

enum Stream {
    Ping(Ping),
    Tcp(Tcp),
    Udp(Udp),
}

/// A socket without a client, until it has finished.
struct Lingering {
    handle: SocketHandle,
    transport: Transport,
    port: u16,
}

/// The host stack, and what clients do with it.
pub struct Sessions {
    clock: Clock,
    stack: Stack,
    ports: Ports,
    streams: BTreeMap<Session, Stream>,
    lingering: Vec<Lingering>,
    deadline: Instant,
    /// Streams whose clients must say no more for now.
    full: usize,
    /// One of them may go on.
    room_made: bool,
    /// Streams have something to tell.
    news: bool,
    /// They had before, and nobody listened.
    deaf: bool,
    told: bool,
}

impl Sessions {
    /// None yet.
    pub fn new(router: &Router) -> Sessions {
        let shared = router.shared();
        let now = shared.clock.now();
        Sessions {
            clock: shared.clock.clone(),
            stack: Stack::new(&shared.pool, &router.own_stats().ledger, now),
            ports: Ports::default(),
            streams: BTreeMap::new(),
            lingering: Vec::new(),
            deadline: Instant::NEVER,
            full: 0,
            room_made: false,
            news: false,
            deaf: false,
            told: false,
        }
    }

    /// Takes a request that is about the host stack; any other comes back.
    pub fn handle(&mut self, session: Session, request: Request, router: &Router) -> Result<Reply, Request> {
        self.deadline = Instant::ZERO;
        match request {
            Request::Ping(ask) => Ok(self.begin(session, |sessions| sessions.ping(ask, router))),
            Request::Nc(ask) => Ok(self.begin(session, |sessions| sessions.nc(&ask, router))),
            Request::Data(octets) => {
                match self.streams.get_mut(&session) {
                    Some(Stream::Tcp(tcp)) => tcp.data(&octets.0),
                    Some(Stream::Udp(udp)) => udp.data(&octets.0),
                    _ => return Err(Request::Data(octets)),
                }
                Ok(Reply::Stream)
            }
            Request::Shut => {
                match self.streams.get_mut(&session) {
                    Some(Stream::Tcp(tcp)) => tcp.shut(),
                    // A datagram socket has nothing to close: answers may still come.
                    Some(Stream::Udp(_)) => {}
                    _ => return Err(Request::Shut),
                }
                Ok(Reply::Stream)
            }
            other => Err(other),
        }
    }

    /// Whether a client's next request can be taken.
    pub fn has_room(&self, session: Session) -> bool {
        match self.streams.get(&session) {
            Some(Stream::Tcp(tcp)) => tcp.has_room(),
            Some(Stream::Udp(udp)) => udp.has_room(),
            Some(Stream::Ping(_)) | None => true,
        }
    }

    fn begin(&mut self, session: Session, begin: impl FnOnce(&mut Self) -> Result<Stream, String>) -> Reply {
        let refused = |text: String| Reply::Now(Response::refused(RefusalKind::No, text));
        if self.streams.contains_key(&session) {
            return refused("a stream is open already".into());
        }
        match begin(self) {
            Ok(stream) => {
                self.streams.insert(session, stream);
                Reply::Stream
            }
            Err(text) => refused(text),
        }
    }

    fn ping(&mut self, ask: crate::control::proto::Ping, router: &Router) -> Result<Stream, String> {
        let (size, most) = (usize::from(ask.size), ping::most(ask.to));
        if size > most {
            return Err(format!("{size} octets of data: an echo request carries at most {most}"));
        }
        let way = way(router.net(), ask.to)?;
        let is_free =
            |ident: &u16| !self.streams.values().any(|s| matches!(s, Stream::Ping(p) if p.ident == *ident));
        let start = random() as u16;
        let ident = (0..=u16::MAX).map(|i| start.wrapping_add(i)).find(is_free).ok_or("too many pings")?;
        Ok(Stream::Ping(Ping::new(ask, way, ident, self.clock.now())))
    }

    fn nc(&mut self, ask: &Nc, router: &Router) -> Result<Stream, String> {
        if ask.port == 0 {
            return Err("there is no port 0".into());
        }
        if self.ports.len() >= SOCKETS {
            return Err("too many connections".into());
        }
        match (ask.to, ask.udp) {
            (Some(to), false) => self.connect(to, ask.port, router),
            (None, false) => self.listen(ask.port, router),
            (to, true) => self.datagrams(to, ask.port, router),
        }
    }

    fn connect(&mut self, to: IpAddr, to_port: u16, router: &Router) -> Result<Stream, String> {
        let way = way(router.net(), to)?;
        if to.is_multicast() || to == IpAddr::from([255; 4]) {
            return Err(format!("{to}: TCP speaks to one, not to many"));
        }
        let port = self.ports.ephemeral(Transport::Tcp).ok_or("no port left")?;
        let mut socket = nc::tcp_socket();
        let (interface, sockets) = self.stack.parts();
        let from: smoltcp::wire::IpAddress = way.from.into();
        socket.connect(interface.context(), (to, to_port), (from, port)).map_err(|e| format!("{to}: {e}"))?;
        let handle = sockets.add(socket);
        self.stack.note_link(to, way.link);
        self.ports.take(router.shared().host.ports(), Transport::Tcp, port);
        Ok(Stream::Tcp(Tcp::new(handle, port, self.clock.now())))
    }

    fn listen(&mut self, port: u16, router: &Router) -> Result<Stream, String> {
        let (_, sockets) = self.stack.parts();
        let listens = |(_, s): (SocketHandle, &smoltcp::socket::Socket<'_>)| matches!(s, smoltcp::socket::Socket::Tcp(s) if s.is_listening() && s.listen_endpoint().port == port);
        if sockets.iter().any(listens) {
            return Err(format!("port {port} is in use"));
        }
        let mut socket = nc::tcp_socket();
        socket.listen(port).map_err(|e| format!("port {port}: {e}"))?;
        let handle = sockets.add(socket);
        self.ports.take(router.shared().host.ports(), Transport::Tcp, port);
        Ok(Stream::Tcp(Tcp::new(handle, port, self.clock.now())))
    }

    fn datagrams(&mut self, to: Option<IpAddr>, to_port: u16, router: &Router) -> Result<Stream, String> {
        let way = to.map(|to| way(router.net(), to)).transpose()?;
        let port = match to {
            Some(_) => self.ports.ephemeral(Transport::Udp).ok_or("no port left")?,
            None if self.ports.is_taken(Transport::Udp, to_port) => {
                return Err(format!("port {to_port} is in use"));
            }
            None => to_port,
        };
        let mut socket = nc::udp_socket();
        socket.bind(port).map_err(|e| format!("port {port}: {e}"))?;
        let handle = self.stack.sockets.add(socket);
        let ends = to.zip(way).map(|(to, way)| {
            self.stack.note_link(to, way.link);
            (way.from, IpEndpoint::new(to.into(), to_port))
        });
        self.ports.take(router.shared().host.ports(), Transport::Udp, port);
        Ok(Stream::Udp(Udp::new(handle, port, ends)))
    }

    /// One turn: takes in, does what is due, sends.
    pub fn turn(&mut self, router: &Router, root: &mut Root) {
        let shared = router.shared();
        shared.host.awake();
        let mut top = root.top();
        let (_softnet, held) = shared.locks.enter_softnet(&mut top);
        let ledger = &router.own_stats().ledger;
        let now = self.clock.now();
        let mut turn = Turn { shared, ledger, net: router.net(), now, held, sent: 0 };
        let all_taken = self.take_in(&mut turn);
        self.advance(&mut turn);
        self.stack.send(&mut turn);
        self.bury(router);
        if turn.sent > 0 {
            router.wake_sender();
        }
        self.look_ahead(all_taken, now);
    }

    /// Takes in packets, up to a limit; says whether there are no more.
    fn take_in(&mut self, turn: &mut Turn<'_>) -> bool {
        if !self.stack.retry(turn) {
            return true;
        }
        for _ in 0..INTAKE {
            let Some(m) = turn.take() else { return true };
            if is_icmp(&m) {
                self.icmp(turn, m);
            } else if !self.stack.take_in(turn, m) {
                return true;
            }
        }
        false
    }

    /// An echo reply or an ICMP error.
    fn icmp(&mut self, turn: &Turn<'_>, m: Mbuf) {
        if let Some(heard) = hear(&m) {
            if let Some(ident) = ping::reply_ident(&heard) {
                let whose = self.streams.values_mut().find_map(|s| match s {
                    Stream::Ping(ping) if ping.ident == ident => Some(ping),
                    _ => None,
                });
                if let Some(ping) = whose {
                    ping.answered(&heard, turn.now);
                }
            } else if let Some(complaint) = complaint::read(&heard) {
                self.complain(&complaint, turn.now);
            }
        }
        turn.ledger.deliver(m);
    }

    fn complain(&mut self, complaint: &complaint::Complaint, now: Instant) {
        let is_echo =
            complaint.about.proto != wire::IpProto::TCP && complaint.about.proto != wire::IpProto::UDP;
        for stream in self.streams.values_mut() {
            match stream {
                Stream::Ping(ping) if is_echo && ping.ident == complaint.about.from_port => {
                    ping.refused(complaint, now);
                }
                Stream::Ping(_) => {}
                Stream::Tcp(tcp) => tcp.refused(&mut self.stack.sockets, complaint),
                Stream::Udp(udp) => udp.refused(complaint),
            }
        }
    }

    fn advance(&mut self, turn: &mut Turn<'_>) {
        for stream in self.streams.values_mut() {
            match stream {
                Stream::Ping(ping) => ping.turn(turn),
                Stream::Tcp(tcp) => tcp.turn(&mut self.stack.sockets),
                Stream::Udp(udp) => udp.turn(turn, &mut self.stack.sockets),
            }
        }
    }

    /// Removes sockets that have finished without their clients.
    fn bury(&mut self, router: &Router) {
        let (sockets, ports, open) = (&mut self.stack.sockets, &mut self.ports, router.shared().host.ports());
        self.lingering.retain(|l| {
            let stays = l.transport == Transport::Tcp && {
                let socket = sockets.get::<tcp::Socket<'_>>(l.handle);
                socket.state() != tcp::State::Closed || socket.remote_endpoint().is_some()
            };
            if !stays {
                sockets.remove(l.handle);
                ports.give_back(open, l.transport, l.port);
            }
            stays
        });
    }

    fn look_ahead(&mut self, all_taken: bool, now: Instant) {
        let had_news = self.news;
        let sockets = &self.stack.sockets;
        self.news = self.streams.values().any(|s| match s {
            Stream::Ping(ping) => ping.has_news(),
            Stream::Tcp(tcp) => tcp.has_news(sockets),
            Stream::Udp(udp) => udp.has_news(sockets),
        });
        let full = self.streams.keys().filter(|session| !self.has_room(**session)).count();
        self.room_made = std::mem::replace(&mut self.full, full) > full;
        self.deaf = self.news && had_news && !std::mem::take(&mut self.told);
        let pings = self.streams.values().map(|s| match s {
            Stream::Ping(ping) => ping.deadline(),
            Stream::Tcp(_) | Stream::Udp(_) => Instant::NEVER,
        });
        let due = pings.fold(self.stack.deadline(now), Instant::min);
        self.deadline = if all_taken { due } else { now };
    }

    /// When the next turn is due if nothing comes in before.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How long the control thread may sleep.
    pub fn next_wait(&self) -> Duration {
        let due = self.deadline.since(self.clock.now()).min(LONG);
        if self.room_made || (self.news && !self.deaf) {
            Duration::ZERO
        } else if self.news {
            due.min(DEAF)
        } else {
            due
        }
    }

    /// Tells a client what its stream has to say.
    pub fn poll(&mut self, session: Session, out: &mut impl Listener) {
        let Some(stream) = self.streams.get_mut(&session) else { return };
        let (sockets, now) = (&mut self.stack.sockets, self.clock.now());
        self.told = true;
        // A client that has taken something has made room.
        self.deadline = Instant::ZERO;
        let is_over = match stream {
            Stream::Ping(ping) => {
                while out.has_room()
                    && let Some(report) = ping.report()
                {
                    out.push(&Response::Echo(report));
                }
                let is_over = ping.is_over();
                if is_over {
                    out.push(&Response::End);
                }
                is_over
            }
            Stream::Tcp(tcp) => tcp.tell(sockets, now, out),
            Stream::Udp(udp) => udp.tell(sockets, out),
        };
        if is_over {
            self.closed(session);
        }
    }

    /// A client is gone, or its stream is over.
    pub fn closed(&mut self, session: Session) {
        self.deadline = Instant::ZERO;
        let (handle, transport, port) = match self.streams.remove(&session) {
            Some(Stream::Tcp(tcp)) => {
                let socket = self.stack.sockets.get_mut::<tcp::Socket<'_>>(tcp.handle);
                // One that both ends have closed finishes in peace; the other end of any other learns that we are gone.
                if !matches!(socket.state(), tcp::State::TimeWait | tcp::State::LastAck | tcp::State::Closing)
                {
                    socket.abort();
                }
                (tcp.handle, Transport::Tcp, tcp.port)
            }
            Some(Stream::Udp(udp)) => (udp.handle, Transport::Udp, udp.port),
            Some(Stream::Ping(_)) | None => return,
        };
        self.lingering.push(Lingering { handle, transport, port });
    }

    /// Closes everything: the router stops. Resets of connections that stand are the last that is sent.
    pub fn end(mut self, router: &Router, root: &mut Root) {
        for session in self.streams.keys().copied().collect::<Vec<_>>() {
            self.closed(session);
        }
        self.turn(router, root);
        self.stack.purge(&router.own_stats().ledger);
    }
}
