//! `softnet demo`: the two gateways of `configs/`, a host behind each, and the tunnel between them, in one process over
//! cables in memory: the scenario of `make demo` without any privilege.
//!
//! Time is virtual, so that nothing waits; throughput is what one core of this machine does for both gateways and both
//! hosts together.

use super::{
    Exit,
    ask::{At, Failure, put},
    netstat,
};
use crate::{
    control::proto::MbufReport,
    iface::link::LinkEnd,
    scenario::GATEWAYS,
    testbed::{
        Party, Testbed, Texts,
        jobs::Pace,
        peer::{self, Peer},
    },
};
use clap::Args;
use kern::time::Duration;
use serde::Serialize;
use std::{collections::BTreeMap, net::IpAddr, time::Instant};
use wire::{EtherType, IpProto};

/// How much.
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Pings each way and family
    #[arg(long, default_value = "5")]
    pings: u32,
    /// Megabytes of TCP each way and family
    #[arg(long, default_value = "32")]
    megabytes: u64,
}

/// Hosts send packets that fit into the tunnel.
const HOST_MTU: usize = 1400;
/// Virtual time after which something that is not done has failed.
const PATIENCE: u64 = 300;

/// Datagrams at 0.8 Gb/s: what nothing on the way may lose or reorder.
const DATAGRAMS: Pace = Pace { count: 10_000, interval: Duration::from_micros(10), size: 1000 };

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// By destination.
    pings: Vec<Pinged>,
    /// Frames on the cable between the gateways while hosts pinged, by kind.
    wire: BTreeMap<String, u64>,
    /// By way and family.
    transfers: Vec<Transferred>,
    /// By way and family.
    datagrams: Vec<Numbered>,
    /// The books of each gateway after it stopped.
    books: BTreeMap<String, MbufReport>,
    /// Whether all is as it must be.
    good: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Pinged {
    to: IpAddr,
    sent: u32,
    received: u32,
}

#[derive(Clone, Debug, Serialize)]
struct Transferred {
    what: String,
    octets: u64,
    intact: bool,
    gbps: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Numbered {
    what: String,
    sent: u32,
    received: u32,
    out_of_order: u32,
}

/// Runs the command.
pub fn run(at: &At, args: &Demo) -> Result<Exit, Failure> {
    let json = at.json;
    let say = |text: &str| if json { Ok(()) } else { put(text.as_bytes()) };
    say(
        "two gateways, an ESP tunnel between them, a host behind each; in one process, over cables in memory\n",
    )?;
    let mut scene = Scene::new()?;
    let mut outcome = Outcome::default();

    say("\n== ping through the tunnel, IPv4 and IPv6, both ways\n")?;
    scene.watch(true);
    // The other family first on the way back: hosts number their pings, and pf takes a request with the identifier of a
    // ping in the other direction for a forged answer.
    for (from, to) in [(0, "198.51.100.10"), (0, "2001:db8:b::10"), (1, "2001:db8:a::10"), (1, "192.0.2.10")]
    {
        let pinged = scene.ping(from, to.parse().map_err(|_| Failure::Unexpected)?, args.pings);
        say(&format!("  {to}: {} sent, {} answered\n", pinged.sent, pinged.received))?;
        outcome.pings.push(pinged);
    }
    scene.watch(false);

    say("\n== what the cable between the gateways carried\n")?;
    let frames: Vec<Vec<u8>> = scene.wan.iter().flat_map(LinkEnd::captured).collect();
    for frame in frames.iter().filter(|f| kind(f) == "ESP").take(4) {
        say(&format!("  {}\n", describe(frame)))?;
    }
    for frame in &frames {
        *outcome.wire.entry(kind(frame).to_owned()).or_insert(0) += 1;
    }
    for (kind, count) in &outcome.wire {
        say(&format!("  {count} {kind}\n"))?;
    }

    say("\n== TCP through the tunnel (one core for both gateways and both hosts)\n")?;
    for (from, to, what) in [
        (0, "198.51.100.10", "IPv4, a to b"),
        (1, "192.0.2.10", "IPv4, b to a"),
        (0, "2001:db8:b::10", "IPv6, a to b"),
        (1, "2001:db8:a::10", "IPv6, b to a"),
    ] {
        let to = to.parse().map_err(|_| Failure::Unexpected)?;
        let done = scene.transfer(from, to, what, args.megabytes << 20);
        let verdict = if done.intact { "intact" } else { "NOT intact" };
        say(&format!("  {what}: {} MB {verdict}, {:.2} Gb/s\n", done.octets >> 20, done.gbps))?;
        outcome.transfers.push(done);
    }

    say("\n== numbered datagrams through the tunnel\n")?;
    for (from, to, what) in [(0, "198.51.100.10", "IPv4, a to b"), (1, "2001:db8:a::10", "IPv6, b to a")] {
        let done = scene.numbered(from, to.parse().map_err(|_| Failure::Unexpected)?, what);
        let Numbered { sent, received, out_of_order, .. } = done;
        say(&format!("  {what}: {sent} sent, {received} arrived, {out_of_order} out of order\n"))?;
        outcome.datagrams.push(done);
    }

    for (name, books) in scene.stop()? {
        say(&format!("\n== buffers of {name} after it stopped\n{}", netstat::mbufs(&books)))?;
        outcome.books.insert(name, books);
    }
    outcome.good = outcome.is_good();
    let end = if outcome.good { "\ndemo: all is as it must be\n" } else { "\ndemo: something is wrong\n" };
    at.print(&outcome, || end.to_owned())?;
    Ok(if outcome.good { Exit::Good } else { Exit::No })
}

impl Outcome {
    fn is_good(&self) -> bool {
        let only = ["ARP", "ESP", "ND"];
        self.pings.iter().all(|p| p.received == p.sent)
            && self.wire.keys().all(|kind| only.contains(&kind.as_str()))
            && self.wire.contains_key("ESP")
            && self.transfers.iter().all(|t| t.intact)
            && self.datagrams.iter().all(|d| d.received == d.sent && d.out_of_order == 0)
            && self.books.values().all(|b| b.balanced && b.by_owner.values().all(|held| *held == 0))
    }
}

/// Gateways, cables and hosts.
struct Scene {
    testbed: Testbed,
    hosts: [Peer; 2],
    wan: Vec<LinkEnd>,
    port: u16,
}

impl Scene {
    fn new() -> Result<Scene, Failure> {
        let mut testbed = Testbed::new();
        for (_, [conf, pf, ipsec]) in GATEWAYS {
            let texts = Texts { conf: &in_memory(conf), pf: Some(pf), ipsec: Some(ipsec) };
            testbed.add(texts).map_err(|faults| Failure::Which(faults.to_string()))?;
        }
        let wan = testbed.watch("wan").map(|ends| ends.to_vec()).ok_or(Failure::Unexpected)?;
        let hosts = [
            host(&mut testbed, "gwa-lan", [192, 0, 2], 0xa)?,
            host(&mut testbed, "gwb-lan", [198, 51, 100], 0xb)?,
        ];
        let mut scene = Scene { testbed, hosts, wan, port: 5000 };
        // Duplicate address detection takes its second or two.
        scene.run_until(Duration::from_secs(3), |_, _| false);
        Ok(scene)
    }

    /// Keeps what gateways put on the cable between them, or not.
    fn watch(&self, on: bool) {
        for end in &self.wan {
            end.capture(on);
        }
    }

    /// Lets time pass until something is so; says whether it came to be.
    fn run_until(&mut self, limit: Duration, is_done: impl Fn(&[Peer; 2], &Testbed) -> bool) -> bool {
        let end = self.testbed.clock.now() + limit;
        while !is_done(&self.hosts, &self.testbed) {
            if self.testbed.clock.now() >= end {
                return false;
            }
            let [a, b] = &mut self.hosts;
            let mut parties: [&mut dyn Party; 2] = [a, b];
            self.testbed.run_with(Duration::from_millis(20), &mut parties);
        }
        true
    }

    fn ping(&mut self, from: usize, to: IpAddr, count: u32) -> Pinged {
        let job = self.hosts[from].ping(to, count, Duration::from_millis(200), 56);
        self.run_until(Duration::from_secs(PATIENCE), |hosts, testbed| {
            hosts[from].echo(job).is_done(testbed.clock.now())
        });
        let echo = self.hosts[from].echo(job);
        Pinged { to, sent: count, received: echo.received - echo.wrong.min(echo.received) }
    }

    fn transfer(&mut self, from: usize, to: IpAddr, what: &str, octets: u64) -> Transferred {
        self.port += 1;
        let taking = self.hosts[1 - from].listen(self.port, 0);
        let giving = self.hosts[from].connect(to, self.port, octets);
        let begun = Instant::now();
        let done = self.run_until(Duration::from_secs(PATIENCE), |hosts, _| {
            hosts[from].bulk(giving).is_done() && hosts[1 - from].bulk(taking).is_done()
        });
        let took = begun.elapsed().as_secs_f64();
        let taken = self.hosts[1 - from].bulk(taking);
        let intact = done && taken.intact && taken.received == octets;
        Transferred {
            what: what.to_owned(),
            octets: taken.received,
            intact,
            gbps: taken.received as f64 * 8e-9 / took,
        }
    }

    fn numbered(&mut self, from: usize, to: IpAddr, what: &str) -> Numbered {
        self.port += 1;
        let taking = self.hosts[1 - from].take_datagrams(self.port);
        let giving = self.hosts[from].pace_datagrams(to, self.port, DATAGRAMS);
        self.run_until(Duration::from_secs(PATIENCE), |hosts, _| hosts[from].datagrams(giving).is_done());
        self.run_until(Duration::from_secs(1), |hosts, _| {
            hosts[1 - from].datagrams(taking).received == DATAGRAMS.count
        });
        let taken = self.hosts[1 - from].datagrams(taking);
        Numbered {
            what: what.to_owned(),
            sent: self.hosts[from].datagrams(giving).sent,
            received: taken.received,
            out_of_order: taken.out_of_order,
        }
    }

    fn stop(self) -> Result<Vec<(String, MbufReport)>, Failure> {
        let stopped = self.testbed.stop().map_err(|e| Failure::Which(e.to_string()))?;
        let report = |(name, books): (String, crate::report::Books)| {
            (name, MbufReport::new(&books.audit, &books.balance, true))
        };
        Ok(stopped.into_iter().map(report).collect())
    }
}

fn host(testbed: &mut Testbed, cable: &str, net: [u8; 3], site: u16) -> Result<Peer, Failure> {
    let [a, b, c] = net;
    let v6 = |host: u16| std::net::Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, host);
    let config = peer::host([a, b, c, 10], v6(0x10), [a, b, c, 1].into(), v6(1));
    let end = testbed.end(cable).ok_or(Failure::Unexpected)?;
    Ok(Peer::new(&peer::PeerConfig { mtu: HOST_MTU, ..config }, end, &testbed.clock))
}

/// A gateway's softnet.toml with cables in memory for TAP devices, and without what belongs to a machine.
fn in_memory(conf: &str) -> String {
    let of_machine = |line: &&str| {
        !["cpus", "control", "pf", "ipsec"].iter().any(|key| line.starts_with(&format!("{key} =")))
    };
    let lines: Vec<&str> = conf.lines().filter(of_machine).collect();
    lines
        .join("\n")
        .replace("\"tap\"", "\"link\"")
        .replace("\"gwa-wan\"", "\"wan\"")
        .replace("\"gwb-wan\"", "\"wan\"")
}

/// What a frame is, for the count: `ESP`, `ARP`, `ND`, or something that has no business there.
fn kind(frame: &[u8]) -> &'static str {
    const OTHERS: &str = "others";
    let Ok(wire::parse::ParsedFrame { link, ip }) = wire::parse_frame(frame) else { return OTHERS };
    let Some(ip) = ip else { return if link.ethertype == EtherType::ARP { "ARP" } else { OTHERS } };
    let first = frame.get(usize::from(link.l3) + usize::from(ip.l4));
    match ip.proto {
        IpProto::ESP => "ESP",
        // RFC 4861: router and neighbour solicitations and advertisements, redirects.
        IpProto::ICMPV6 if first.is_some_and(|kind| (133..=137).contains(kind)) => "ND",
        _ => OTHERS,
    }
}

/// An ESP frame as tcpdump prints it.
fn describe(frame: &[u8]) -> String {
    let is_v6 = frame.get(12..14) == Some(&[0x86, 0xdd]);
    let (src, dst, esp) = if is_v6 { (22..38, 38..54, 54) } else { (26..30, 30..34, 34) };
    let addr = |place: std::ops::Range<usize>| match frame.get(place) {
        Some(o) if is_v6 => <[u8; 16]>::try_from(o).map(IpAddr::from).ok(),
        Some(o) => <[u8; 4]>::try_from(o).map(IpAddr::from).ok(),
        None => None,
    };
    let word = |at: usize| frame.get(at..at + 4).map_or(0, |o| u32::from_be_bytes([o[0], o[1], o[2], o[3]]));
    match (addr(src), addr(dst)) {
        (Some(src), Some(dst)) => {
            let length = frame.len().saturating_sub(esp);
            format!("{src} > {dst}: ESP(spi={:#010x},seq={:#x}), length {length}", word(esp), word(esp + 4))
        }
        _ => "a frame cut short".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_shows_a_tunnel_that_works_and_books_that_balance() {
        let at = At { json: true, ..At::default() };
        let exit = run(&at, &Demo { pings: 2, megabytes: 1 });
        assert_eq!(exit.expect("the demo runs"), Exit::Good);
    }
}
