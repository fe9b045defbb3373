//! The world that the parser suite assumes, a router's interfaces for the engine's tests, and packets.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

pub mod association;
pub mod either;
pub mod families;
pub mod handshake;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use kern::{
    Batch, Mbuf, PktFlags,
    lock::{Root, levels::PfRules},
    testing::Fixture,
    time::Instant,
};
use pf::{
    Direction, Environment, IfIndex, Names, Pf, PfCx, Routes, Ruleset, StateInfo, Verdict, Via, Worker,
    conf::{Reading, Section},
    env::{IfAddress, Interface},
    log::{Logger, Record},
};
use wire::{build, icmpv4, tcp};

/// An interface with these addresses.
pub fn interface(name: &str, index: u16, addresses: &[&str]) -> Interface {
    let addresses = addresses.iter().map(|text| {
        let (addr, len) = text.split_once('/').expect("address/length");
        IfAddress::new(addr.parse().expect("an address"), len.parse().expect("a length"))
    });
    Interface {
        name: name.into(),
        index: IfIndex(index),
        addresses: addresses.collect(),
        mtu: 1500,
        bandwidth: None,
    }
}

/// lo0 and localhost, as the suite's README says.
pub fn suite() -> Environment {
    Environment::from_toml(include_str!("../pfctl-env.toml")).expect("a right fixture")
}

/// A router with a LAN and a WAN.
pub fn router() -> Environment {
    Environment::new(vec![
        interface("lan0", 1, &["192.0.2.1/24", "2001:db8:a::1/64"]),
        interface("wan0", 2, &["203.0.113.1/24", "2001:db8:b::1/64"]),
        interface("enc0", 3, &[]),
    ])
}

pub const LAN: IfIndex = IfIndex(1);
pub const WAN: IfIndex = IfIndex(2);
pub const IN: Direction = Direction::In;
pub const OUT: Direction = Direction::Out;

/// A pf with one worker, a ruleset, packets and a clock.
pub struct World {
    pub fixture: Fixture,
    pub pf: Arc<Pf>,
    pub ruleset: Ruleset,
    pub names: Names,
    worker: Worker,
    pub now: Instant,
    /// Those that rules may ask for.
    pub routes: Ways,
}

/// Addresses, each with the interfaces out of which a route leads to it.
#[derive(Clone, Debug, Default)]
pub struct Ways(pub Vec<(IpAddr, Vec<IfIndex>)>);

impl Routes for Ways {
    fn lead(&self, to: IpAddr, out_of: Option<IfIndex>) -> bool {
        let way = |(address, out): &(IpAddr, Vec<IfIndex>)| {
            *address == to && out_of.is_none_or(|interface| out.contains(&interface))
        };
        self.0.iter().any(way)
    }
}

impl World {
    /// The world under these rules.
    pub fn new(rules: &str) -> World {
        let pf = Arc::new(Pf::new(2, 10_000));
        let (ruleset, worker) = (pf.disabled(), pf.worker(0));
        let now = Instant::from_secs(1000);
        let (fixture, names, routes) = (Fixture::new(512), Names::new(), Ways::default());
        let mut world = World { fixture, pf, ruleset, names, worker, now, routes };
        world.load(rules);
        world
    }

    /// Replaces the rules, as a reload does.
    pub fn load(&mut self, rules: &str) {
        let env = router();
        let conf = pf::conf::load_text("pf.conf", rules, &env, &[])
            .unwrap_or_else(|e| panic!("{}", e[0].with_caret()));
        let ruleset = self.pf.compile(&Arc::new(conf), &env, &mut self.names).expect("rules compile");
        self.publish(ruleset);
    }

    /// Loads the main ruleset, or an anchor, as `pfctl -f` does: what is loaded by itself stays.
    pub fn reload(&mut self, path: &str, rules: &str) {
        let env = router();
        let reading = Reading {
            env: &env,
            defines: &[],
            anchor: path,
            fingerprints: None,
            options: None,
            engines: true,
        };
        let new = reading.text("pf.conf", rules).unwrap_or_else(|e| panic!("{}", e[0].with_caret()));
        let (conf, fresh) = self.ruleset.conf().with(path, new, &Section::ALL);
        let ruleset = self.pf.compile_over(&self.ruleset, &fresh, &Arc::new(conf), &env, &mut self.names);
        self.publish(ruleset.expect("rules compile"));
    }

    /// Puts a ruleset into force.
    pub fn publish(&mut self, ruleset: Ruleset) {
        self.pf.enforce(&mut Root::claim().top().at(), &ruleset);
        self.ruleset = ruleset;
        self.pf.retire();
    }

    /// A packet with these octets; a fragment or not as its header says.
    pub fn packet(&self, octets: &[u8]) -> Mbuf {
        let mut m = self.fixture.packet(octets);
        m.hdr_mut().family = octets[0] >> 4;
        m
    }

    pub fn test(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf) -> Verdict {
        let mut root = Root::claim();
        let mut held = root.top();
        PfCx::new(&self.pf, &self.ruleset, &mut self.worker, held.at::<PfRules>(), self.now)
            .ask(&self.routes)
            .test(direction, index, m)
    }

    /// Tests the packets of a batch; those that are not just passed on.
    pub fn test_batch(&mut self, direction: Direction, via: Via, batch: &mut Batch) -> Vec<Mbuf> {
        let (mut root, mut others) = (Root::claim(), Vec::new());
        let mut held = root.top();
        let _passed = PfCx::new(&self.pf, &self.ruleset, &mut self.worker, held.at::<PfRules>(), self.now)
            .test_batch(direction, via, batch, |m, _| {
                others.push(m);
                None
            });
        others
    }

    /// Undoes the translation of a packet on its way out.
    pub fn undo(&mut self, m: &mut Mbuf) {
        let mut root = Root::claim();
        let mut held = root.top();
        PfCx::new(&self.pf, &self.ruleset, &mut self.worker, held.at::<PfRules>(), self.now).undo(m);
    }

    /// What pf wants sent.
    pub fn outbox(&mut self) -> Vec<pf::Segment> {
        self.worker.take_segments()
    }

    /// Tests a packet, and says whether it passes and what is logged of it.
    pub fn logged(&mut self, direction: Direction, index: IfIndex, octets: &[u8]) -> (bool, Vec<Shown>) {
        self.logged_with(PktFlags::default(), direction, index, octets)
    }

    /// The same of a packet with these flags.
    pub fn logged_with(
        &mut self,
        flags: PktFlags,
        direction: Direction,
        index: IfIndex,
        octets: &[u8],
    ) -> (bool, Vec<Shown>) {
        let mut m = self.packet(octets);
        m.hdr_mut().flags.set(flags);
        let mut log = Log(Vec::new());
        let mut root = Root::claim();
        let mut held = root.top();
        let pf = PfCx::new(&self.pf, &self.ruleset, &mut self.worker, held.at::<PfRules>(), self.now);
        let passes = matches!(pf.show(&mut log).test(direction, index, &mut m), Verdict::Pass(_));
        self.fixture.done(m);
        (passes, log.0)
    }

    /// Tests a packet and ends it.
    pub fn verdict(&mut self, direction: Direction, index: IfIndex, octets: &[u8]) -> Verdict {
        let mut m = self.packet(octets);
        let verdict = self.test(direction, index, &mut m);
        self.fixture.done(m);
        verdict
    }

    pub fn passes(&mut self, direction: Direction, index: IfIndex, octets: &[u8]) -> bool {
        matches!(self.verdict(direction, index, octets), Verdict::Pass(_))
    }

    pub fn advance(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Purges as a worker does over the time that has passed.
    pub fn purge(&mut self) -> u32 {
        let mut root = Root::claim();
        let mut held = root.top();
        PfCx::new(&self.pf, &self.ruleset, &mut self.worker, held.at::<PfRules>(), self.now).purge(u32::MAX)
    }

    pub fn states(&mut self) -> Vec<StateInfo> {
        let mut root = Root::claim();
        let mut held = root.top();
        self.pf.states().dump(&mut held.at::<PfRules>(), self.now.secs() as u32)
    }

    pub fn kill(&mut self, doomed: impl FnMut(&StateInfo) -> bool) -> u32 {
        let mut root = Root::claim();
        let mut held = root.top();
        self.pf.kill_states(&mut held.at::<PfRules>(), doomed)
    }
}

/// A packet as it is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `pflog0: rule 2.a.0(match) block in 1`, the last being the interface; `id 7` behind it is the rule's identifier.
    pub why: String,
    /// Whose it was when it came to pf.
    pub source: (IpAddr, u16),
    pub packet: Vec<u8>,
}

/// All that is logged.
struct Log(Vec<Shown>);

impl Logger for Log {
    fn log(&mut self, record: &Record<'_>, packet: &[u8]) {
        let &Record {
            to,
            direction,
            interface,
            action,
            reason,
            rule,
            in_anchor,
            anchor,
            user,
            own,
            identifier,
            source,
        } = record;
        let inner = in_anchor.map_or_else(String::new, |number| format!(".{anchor}.{number}"));
        let (reason, action) = (format!("{reason:?}"), format!("{action:?}"));
        let why = format!(
            "pflog{to}: rule {rule}{inner}({}) {} {} {}{}{}{}",
            reason.to_lowercase(),
            action.to_lowercase(),
            direction.keyword(),
            interface.0,
            if user { " (user)" } else { "" },
            if own { " own" } else { "" },
            if identifier != 0 { format!(" id {identifier}") } else { String::new() }
        );
        self.0.push(Shown { why, source, packet: packet.to_vec() });
    }
}

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A conversation between the client on the LAN and the server behind the WAN, seen at the LAN interface.
#[derive(Clone, Copy)]
pub struct Conversation {
    pub client_port: u16,
    pub server_port: u16,
}

impl Conversation {
    pub const WEB: Conversation = Conversation { client_port: 4000, server_port: 80 };

    pub fn up(self, flags: &str, seq: u32, ack: u32, window: u16, len: usize) -> Vec<u8> {
        let header = header(self.client_port, self.server_port, flags, seq, ack, window);
        build::tcp4(CLIENT, SERVER, &header, &vec![0; len])
    }

    pub fn down(self, flags: &str, seq: u32, ack: u32, window: u16, len: usize) -> Vec<u8> {
        let header = header(self.server_port, self.client_port, flags, seq, ack, window);
        build::tcp4(SERVER, CLIENT, &header, &vec![0; len])
    }
}

/// A TCP header; `flags` in pf's letters, with `w` and a digit for a window scale option.
pub fn header(src_port: u16, dst_port: u16, flags: &str, seq: u32, ack: u32, window: u16) -> tcp::Repr {
    let (letters, scale) = flags.split_once('w').map_or((flags, None), |(l, s)| (l, s.parse().ok()));
    let bits =
        letters.bytes().map(|b| 1 << pf::rule::FLAG_LETTERS.iter().position(|l| *l == b).expect("a flag"));
    tcp::Repr {
        src_port,
        dst_port,
        seq,
        ack,
        flags: tcp::Flags(bits.fold(0, |a, b: u8| a | b)),
        window,
        window_scale: scale,
        ..tcp::Repr::default()
    }
}

/// ICMP destination unreachable from `from` to `to` that quotes the beginning of a packet.
pub fn unreachable(from: Ipv4Addr, to: Ipv4Addr, about: &[u8]) -> Vec<u8> {
    let quote = &about[..about.len().min(28)];
    build::icmp4(from, to, &icmpv4::Repr::Error(icmpv4::Error::Unreachable(1), quote))
}
