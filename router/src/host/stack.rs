//! TCP and UDP of the router itself: smoltcp between the queues that workers fill and empty.
//!
//! ```text
//!   input queue ──► Received ──► smoltcp ──► Reserved ──► output queue
//!                (a packet)      sockets   (a blank buffer,
//!                                           taken beforehand)
//! ```
//!
//! smoltcp sees whole IP packets that a worker has verified and found to be ours: no Ethernet, no fragments, nothing to
//! forward, and any destination is its own (`set_any_ip`). It cannot fail to send once it has a token, so a token owns
//! its buffer; with no buffer left, or no room in the queue, there is no token and smoltcp tries again.
//!
//! Its packets are no larger than what every IPv6 link carries: smoltcp knows no path MTU discovery, and a connection
//! of the router's own may start in a tunnel. Not here: who uses the sockets ([`sessions`](super::sessions)).

use super::turn::{Turn, hear, is_of_a_link, originate};
use crate::entropy::random;
use kern::{Class, Ledger, Mbuf, Owner, Pool, Why, time::Instant};
use smoltcp::{
    iface::{Config, Interface, PollResult, SocketSet},
    phy::{self, Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium},
    wire::HardwareAddress,
};
use std::{collections::VecDeque, net::IpAddr, time::Duration};
use wire::ipv4;

/// Octets of the largest packet.
pub(super) const MTU: usize = wire::ipv6::MIN_MTU;
/// Rounds of sending in one turn; each lets every socket send a packet.
const ROUNDS: usize = 64;
/// How long a packet waits for a buffer in which it could be answered.
const PATIENCE: Duration = Duration::from_millis(100);
/// How soon to try again what could not be sent.
const AGAIN: Duration = Duration::from_millis(1);
/// Neighbours whose link is remembered.
const LINKS: usize = 32;

/// smoltcp's idea of the time.
pub(super) fn foreign_time(at: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros((at.nanos() / 1000) as i64)
}

/// The device as smoltcp sees it in one poll.
struct Wire<'a> {
    pool: &'a Pool,
    ledger: &'a Ledger,
    input: Option<Mbuf>,
    made: &'a mut Vec<Mbuf>,
    room: usize,
}

/// A packet that came in.
struct Received<'a> {
    m: Mbuf,
    ledger: &'a Ledger,
}

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        let result = take(self.m.data());
        self.ledger.deliver(self.m);
        result
    }
}

/// A buffer for a packet to send. Blank until then: unused, it goes back to the pool.
struct Reserved<'a> {
    m: Mbuf,
    ledger: &'a Ledger,
    made: &'a mut Vec<Mbuf>,
}

impl phy::TxToken for Reserved<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, len: usize, fill: F) -> R {
        let Ok(octets) = self.m.append(len) else {
            // Beyond the MTU: smoltcp does not do that, and if it did, the packet would be lost.
            return fill(&mut vec![0; len]);
        };
        octets.fill(0);
        let result = fill(octets);
        self.ledger.create(&mut self.m);
        self.made.push(self.m);
        result
    }
}

impl Device for Wire<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Reserved<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Received<'_>, Reserved<'_>)> {
        let (m, ledger) = (self.input.take()?, self.ledger);
        let Some(blank) = self.blank() else {
            self.input = Some(m);
            return None;
        };
        Some((Received { m, ledger }, Reserved { m: blank, ledger, made: self.made }))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Reserved<'_>> {
        let m = self.blank()?;
        Some(Reserved { m, ledger: self.ledger, made: self.made })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::default();
        // What comes in, workers have verified.
        (checksum.ipv4, checksum.tcp, checksum.udp) = (Checksum::Tx, Checksum::Tx, Checksum::Tx);
        (checksum.icmpv4, checksum.icmpv6) = (Checksum::Tx, Checksum::Tx);
        let mut caps = DeviceCapabilities::default();
        (caps.medium, caps.max_transmission_unit, caps.checksum) = (Medium::Ip, MTU, checksum);
        caps
    }
}

impl Wire<'_> {
    /// A buffer to send in, if there is one, and room for it in the queue.
    fn blank(&self) -> Option<Mbuf> {
        if self.made.len() < self.room { self.pool.alloc(Class::Cluster, Owner::Control) } else { None }
    }
}

/// On which link somebody was last heard whose address does not say.
#[derive(Default)]
struct Links(VecDeque<(IpAddr, u16)>);

impl Links {
    fn note(&mut self, addr: IpAddr, link: u16) {
        self.0.retain(|(a, _)| *a != addr);
        self.0.truncate(LINKS - 1);
        self.0.push_front((addr, link));
    }

    fn of(&self, addr: IpAddr) -> u16 {
        self.0.iter().find(|(a, _)| *a == addr).map_or(0, |(_, link)| *link)
    }
}

/// Sockets, and the packet that waits to be taken in.
pub(super) struct Stack {
    interface: Interface,
    /// The sockets.
    pub(super) sockets: SocketSet<'static>,
    waiting: Option<(Mbuf, Instant)>,
    made: Vec<Mbuf>,
    links: Links,
    ident: u16,
    /// Whether there was more to send than one turn sends.
    more: bool,
}

impl Stack {
    /// One without sockets.
    pub(super) fn new(pool: &Pool, ledger: &Ledger, now: Instant) -> Stack {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = random();
        let mut made = Vec::new();
        let mut wire = Wire { pool, ledger, input: None, made: &mut made, room: 0 };
        let mut interface = Interface::new(config, &mut wire, foreign_time(now));
        interface.set_any_ip(true);
        Stack {
            interface,
            sockets: SocketSet::new(Vec::new()),
            waiting: None,
            made,
            links: Links::default(),
            ident: random() as u16,
            more: false,
        }
    }

    /// What smoltcp needs to open a connection.
    pub(super) fn parts(&mut self) -> (&mut Interface, &mut SocketSet<'static>) {
        (&mut self.interface, &mut self.sockets)
    }

    /// Somebody is on this link.
    pub(super) fn note_link(&mut self, addr: IpAddr, link: u16) {
        if link != 0 && is_of_a_link(addr) {
            self.links.note(addr, link);
        }
    }

    fn poll<R>(
        &mut self,
        turn: &mut Turn<'_>,
        input: Option<Mbuf>,
        poll: impl FnOnce(&mut Interface, &mut SocketSet<'static>, &mut Wire<'_>) -> R,
    ) -> (R, Option<Mbuf>) {
        let room = turn.room();
        let mut wire =
            Wire { pool: &turn.shared.pool, ledger: turn.ledger, input, made: &mut self.made, room };
        let result = poll(&mut self.interface, &mut self.sockets, &mut wire);
        let rest = wire.input;
        let mut made = std::mem::take(&mut self.made);
        made.drain(..).for_each(|m| self.finish(turn, m));
        self.made = made;
        (result, rest)
    }

    /// Makes what smoltcp wrote a packet of the router's, and sends it.
    fn finish(&mut self, turn: &mut Turn<'_>, mut m: Mbuf) {
        if let Some(header) = m.data_mut().first_chunk_mut().filter(|h: &&mut [u8; 20]| h[0] >> 4 == 4) {
            self.ident = self.ident.wrapping_add(1);
            ipv4::set_word(header, 4, self.ident);
            ipv4::set_word(header, 6, 0);
        }
        if !originate(&mut m, 0, &turn.shared.seed) {
            return turn.ledger.end(m, Why::IpMalformed);
        }
        let link = hear(&m).map_or(0, |sent| self.links.of(sent.to));
        m.hdr_mut().rcvif = link;
        turn.send(m);
    }

    /// Takes in a packet, or lets it wait for a buffer; false if it waits.
    pub(super) fn take_in(&mut self, turn: &mut Turn<'_>, m: Mbuf) -> bool {
        self.take_in_since(turn, m, turn.now)
    }

    fn take_in_since(&mut self, turn: &mut Turn<'_>, mut m: Mbuf, since: Instant) -> bool {
        let now = foreign_time(turn.now);
        // smoltcp reads few extension headers, and a worker has acted upon all there are.
        if m.hdr().family == 6
            && let Err(why) = crate::icmp::drop_extensions(&mut m)
        {
            turn.ledger.end(m, why);
            return true;
        }
        if let Some(heard) = hear(&m) {
            self.note_link(heard.from, m.hdr().rcvif);
        }
        let (_, rest) = self.poll(turn, Some(m), |interface, sockets, wire| {
            interface.poll_ingress_single(now, wire, sockets)
        });
        match rest {
            None => true,
            // What waits holds buffers itself.
            Some(m) if turn.now.since(since) >= PATIENCE => {
                turn.ledger.end(m, Why::NoBuffer);
                true
            }
            Some(m) => {
                self.waiting = Some((m, since));
                false
            }
        }
    }

    /// Tries again what waits; true if nothing waits any more.
    pub(super) fn retry(&mut self, turn: &mut Turn<'_>) -> bool {
        match self.waiting.take() {
            Some((m, since)) => self.take_in_since(turn, m, since),
            None => true,
        }
    }

    /// Lets sockets send what they have, as far as a turn goes.
    pub(super) fn send(&mut self, turn: &mut Turn<'_>) {
        let now = foreign_time(turn.now);
        self.interface.poll_maintenance(now);
        self.more = false;
        for _ in 0..ROUNDS {
            let (sent, _) =
                self.poll(turn, None, |interface, sockets, wire| interface.poll_egress(now, wire, sockets));
            if sent == PollResult::None {
                return;
            }
        }
        self.more = true;
    }

    /// When it next has something to do by itself.
    pub(super) fn deadline(&mut self, now: Instant) -> Instant {
        if self.more {
            return now;
        }
        let again = now + AGAIN;
        let at = match self.interface.poll_at(foreign_time(now), &self.sockets) {
            // Due, and not done: there was no buffer or no room.
            Some(at) => {
                Instant::from_nanos((at.total_micros().max(0) as u64).saturating_mul(1000)).max(again)
            }
            None => Instant::NEVER,
        };
        if self.waiting.is_some() { at.min(again) } else { at }
    }

    /// Ends what waits: the router stops.
    pub(super) fn purge(&mut self, ledger: &Ledger) {
        if let Some((m, _)) = self.waiting.take() {
            ledger.end(m, Why::Shutdown);
        }
    }
}
