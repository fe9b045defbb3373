//! A host on a cable: what stands behind a router in tests and in the demo.
//!
//! smoltcp with an Ethernet of its own, so nothing of the router's code is in it: it resolves neighbours, answers pings,
//! and does jobs ([`jobs`](super::jobs)): pings, TCP transfers, numbered datagrams. It takes frames from the cable and puts
//! frames on it as octets; a cable that is full makes it wait, as a network card would.

use super::{
    Party, Testbed,
    jobs::{Bulk, Datagrams, Echo, Job, Pace, pattern_at},
};
use crate::iface::link::LinkEnd;
use kern::time::{Clock, Instant};
use smoltcp::{
    iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    wire::{EthernetAddress, HardwareAddress, IpCidr},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use wire::Mac;

/// Frames taken in by one turn, and rounds of sending.
const BURST: usize = 64;

/// smoltcp's idea of the time.
fn foreign_time(at: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros((at.nanos() / 1000) as i64)
}

/// What a host is like.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Its link-layer address.
    pub mac: Mac,
    /// Its addresses; a link-local one comes by itself.
    pub addrs: Vec<ipnet::IpNet>,
    /// Its default routers.
    pub gateways: Vec<IpAddr>,
    /// Octets of the largest IP packet.
    pub mtu: usize,
}

/// The end of a cable, as smoltcp sees it.
struct Card {
    end: LinkEnd,
    other: LinkEnd,
    mtu: usize,
    frame: Vec<u8>,
    out: Vec<u8>,
}

/// A frame that came.
struct Arrived<'a>(&'a [u8]);

impl RxToken for Arrived<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

/// Room for a frame.
struct Place<'a> {
    other: &'a LinkEnd,
    out: &'a mut Vec<u8>,
}

impl TxToken for Place<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        self.out.clear();
        self.out.resize(len, 0);
        let result = fill(self.out);
        // There was room when the token was made, and nobody else writes here.
        self.other.inject(0, self.out);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Arrived<'a>;
    type TxToken<'a> = Place<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Arrived<'_>, Place<'_>)> {
        if self.other.room(0) == 0 || !self.end.take(0, &mut self.frame) {
            return None;
        }
        Some((Arrived(&self.frame), Place { other: &self.other, out: &mut self.out }))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Place<'_>> {
        (self.other.room(0) > 0).then_some(Place { other: &self.other, out: &mut self.out })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        (caps.medium, caps.max_transmission_unit) = (Medium::Ethernet, self.mtu + wire::ether::HEADER_LEN);
        caps
    }
}

/// A host.
pub struct Peer {
    clock: Clock,
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    jobs: Vec<Job>,
    deadline: Instant,
}

/// A job of a host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobId(usize);

impl Peer {
    /// A host at the end of a cable.
    pub fn new(config: &PeerConfig, end: LinkEnd, clock: &Clock) -> Peer {
        let other = end.other();
        let mut card = Card { end, other, mtu: config.mtu, frame: Vec::new(), out: Vec::new() };
        let hardware = HardwareAddress::Ethernet(EthernetAddress(config.mac.0));
        let now = clock.now();
        let mut interface = Interface::new(Config::new(hardware), &mut card, foreign_time(now));
        interface.update_ip_addrs(|addrs| {
            let local = IpCidr::new(config.mac.link_local().into(), 64);
            let own = config.addrs.iter().map(|net| IpCidr::new(net.addr().into(), net.prefix_len()));
            // More addresses than smoltcp has places for are a mistake in the test: those it has are enough to see it.
            own.chain([local]).for_each(|addr| {
                let _ = addrs.push(addr);
            });
        });
        for gateway in &config.gateways {
            let routes = interface.routes_mut();
            let _replaced = match *gateway {
                IpAddr::V4(via) => routes.add_default_ipv4_route(via),
                IpAddr::V6(via) => routes.add_default_ipv6_route(via),
            };
        }
        let sockets = SocketSet::new(Vec::new());
        Peer { clock: clock.clone(), card, interface, sockets, jobs: Vec::new(), deadline: now }
    }

    fn add(&mut self, job: Job) -> JobId {
        self.jobs.push(job);
        self.deadline = Instant::ZERO;
        JobId(self.jobs.len() - 1)
    }

    /// Pings somebody so many times.
    pub fn ping(&mut self, to: IpAddr, count: u32, interval: Duration, size: usize) -> JobId {
        let ident = 1 + self.jobs.len() as u16;
        let echo = Echo::new(&mut self.sockets, ident, to, Pace { count, interval, size }, self.clock.now());
        self.add(Job::Echo(echo))
    }

    /// Awaits a TCP connection, sends so many octets on it, and takes what comes.
    pub fn listen(&mut self, port: u16, octets: u64) -> JobId {
        let bulk = Bulk::listen(&mut self.sockets, port, octets);
        self.add(Job::Bulk(bulk))
    }

    /// Opens a TCP connection, sends so many octets on it, and takes what comes.
    pub fn connect(&mut self, to: IpAddr, port: u16, octets: u64) -> JobId {
        let from = 40_000 + self.jobs.len() as u16;
        let bulk = Bulk::connect(&mut self.sockets, &mut self.interface, (to, port), from, octets);
        self.add(Job::Bulk(bulk))
    }

    /// Sends so many numbered datagrams, as fast as the cable takes them.
    pub fn send_datagrams(&mut self, to: IpAddr, port: u16, count: u32, size: usize) -> JobId {
        self.pace_datagrams(to, port, Pace { count, interval: Duration::ZERO, size })
    }

    /// Sends numbered datagrams, one each interval.
    pub fn pace_datagrams(&mut self, to: IpAddr, port: u16, pace: Pace) -> JobId {
        let from = 40_000 + self.jobs.len() as u16;
        let datagrams = Datagrams::send(&mut self.sockets, (to, port), from, pace, self.clock.now());
        self.add(Job::Datagrams(datagrams))
    }

    /// Takes numbered datagrams.
    pub fn take_datagrams(&mut self, port: u16) -> JobId {
        let datagrams = Datagrams::take(&mut self.sockets, port);
        self.add(Job::Datagrams(datagrams))
    }

    /// How a ping went.
    pub fn echo(&self, id: JobId) -> &Echo {
        match &self.jobs[id.0] {
            Job::Echo(echo) => echo,
            _ => panic!("job {} is no ping", id.0),
        }
    }

    /// How a transfer went.
    pub fn bulk(&self, id: JobId) -> &Bulk {
        match &self.jobs[id.0] {
            Job::Bulk(bulk) => bulk,
            _ => panic!("job {} is no transfer", id.0),
        }
    }

    /// How datagrams went.
    pub fn datagrams(&self, id: JobId) -> &Datagrams {
        match &self.jobs[id.0] {
            Job::Datagrams(datagrams) => datagrams,
            _ => panic!("job {} is no stream of datagrams", id.0),
        }
    }

    /// Takes in frames, does jobs, sends; says whether there was anything.
    fn poll(&mut self) -> bool {
        let now = self.clock.now();
        let at = foreign_time(now);
        let (interface, card, sockets) = (&mut self.interface, &mut self.card, &mut self.sockets);
        interface.poll_maintenance(at);
        let mut busy = false;
        for _ in 0..BURST {
            if interface.poll_ingress_single(at, card, sockets) == PollIngressSingleResult::None {
                break;
            }
            busy = true;
        }
        for job in &mut self.jobs {
            busy |= job.turn(sockets, interface, now);
        }
        for _ in 0..BURST {
            if interface.poll_egress(at, card, sockets) == PollResult::None {
                break;
            }
            busy = true;
        }
        self.deadline = self.next(now);
        busy
    }

    fn next(&mut self, now: Instant) -> Instant {
        let jobs = self.jobs.iter().map(Job::deadline).fold(Instant::NEVER, Instant::min);
        let own = self.interface.poll_at(foreign_time(now), &self.sockets);
        let own =
            own.map_or(Instant::NEVER, |at| Instant::from_nanos((at.total_micros().max(0) as u64) * 1000));
        // What is due and was not done waits for room on the cable.
        jobs.min(own).max(now.after(1000))
    }
}

impl Party for Peer {
    fn turn(&mut self, _testbed: &mut Testbed) -> bool {
        let now = self.clock.now();
        let is_due = self.deadline <= now || self.card.end.next_arrival().is_some_and(|at| at <= now);
        is_due && self.poll()
    }

    fn deadline(&mut self) -> Instant {
        self.deadline
    }
}

/// The octets that hosts send, from the first on.
pub fn stream(octets: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(octets);
    while all.len() < octets {
        all.extend_from_slice(pattern_at(all.len() as u64, octets - all.len()));
    }
    all
}

/// Addresses that are used in documentation, for hosts of tests.
pub fn host(v4: [u8; 4], v6: Ipv6Addr, gateway4: Ipv4Addr, gateway6: Ipv6Addr) -> PeerConfig {
    let net4 = ipnet::Ipv4Net::new_assert(Ipv4Addr::from(v4), 24);
    let net6 = ipnet::Ipv6Net::new_assert(v6, 64);
    PeerConfig {
        mac: Mac([0x02, 0x00, v4[0], v4[1], v4[2], v4[3]]),
        addrs: vec![net4.into(), net6.into()],
        gateways: vec![gateway4.into(), gateway6.into()],
        mtu: 1500,
    }
}
