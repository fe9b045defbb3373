//! Two gateways, a host's end of a wire behind each, and a translator between them.

use crate::bed::{Datagram, HOST4, HOST6};
use kern::time::Duration;
use router::{
    iface::link::{LinkConfig, LinkEnd},
    testbed::{Testbed, Texts},
};
use std::{cell::Cell, fmt::Write, net::IpAddr};
use wire::{Mac, build, parse::parse_ip};

/// Of the outer wire.
pub(super) const DELAY_MS: u64 = 10;
const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 0xa]), Mac([2, 0, 0, 0, 0, 0xb])];
/// As each gateway has it: its own address, and what it takes the other's for.
const ENDS: [[(&str, &str); 2]; 2] = [
    [("10.0.0.2", "203.0.113.2"), ("2001:db8:1::2", "2001:db8:ffff::2")],
    [("203.0.113.2", "203.0.113.1"), ("2001:db8:ffff::2", "2001:db8:ffff::1")],
];
const NETS: [[&str; 2]; 2] = [["192.0.2.0/24", "2001:db8:a::/64"], ["198.51.100.0/24", "2001:db8:b::/64"]];

/// What the three are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Whether the tunnels are interfaces.
    pub(super) tunnel: bool,
    /// MTU of the translator's outer wire.
    pub(super) mtu: u16,
    /// Workers of each, and how coarse their locks are.
    pub(super) workers: usize,
    pub(super) locking: &'static str,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { tunnel: false, mtu: 1500, workers: 1, locking: "fine" }
    }
}

/// softnet.toml of a gateway.
pub(super) fn gateway(side: usize, shape: Shape) -> String {
    let Shape { tunnel, workers, locking, .. } = shape;
    let (name, cable) = [("a", "in"), ("b", "out")][side];
    let [(wan4, _), (wan6, _)] = ENDS[side];
    let lan4 = ["192.0.2.1", "198.51.100.1"][side];
    let (via4, via6) = [("10.0.0.1", "2001:db8:1::1"), ("203.0.113.1", "2001:db8:ffff::1")][side];
    let mut text = format!(
        "[router]\nname = \"{name}\"\nworkers = {workers}\nlocking = \"{locking}\"\nclusters = 1024\njumbos = 32\n\
         [[interface]]\nname = \"lan0\"\ndriver = \"link\"\ndevice = \"lan-{name}\"\nqueues = {workers}\n\
         address = [\"{lan4}/24\", \"2001:db8:{name}::1/64\"]\n\
         [[interface]]\nname = \"wan0\"\ndriver = \"link\"\ndevice = \"{cable}\"\nqueues = {workers}\n\
         address = [\"{wan4}/24\", \"{wan6}/64\"]\n"
    );
    for (net, via) in NETS[1 - side].into_iter().zip([via4, via6]) {
        let way = if tunnel {
            format!("dev = \"ipsec{}\"", usize::from(net.contains("::")))
        } else {
            format!("via = \"{via}\"")
        };
        writeln!(text, "[[route]]\nto = \"{net}\"\n{way}").unwrap();
    }
    if side == 0 {
        text += "[[route]]\nto = \"203.0.113.0/24\"\nvia = \"10.0.0.1\"\n\
                 [[route]]\nto = \"2001:db8:ffff::/64\"\nvia = \"2001:db8:1::1\"\n";
    }
    for (n, (local, remote)) in ENDS[side].into_iter().enumerate().filter(|_| tunnel) {
        let own = if n == 0 {
            format!("10.255.0.{}/30", side + 1)
        } else {
            format!("2001:db8:f0::{}/64", side + 1)
        };
        writeln!(
            text,
            "[[interface]]\nname = \"ipsec{n}\"\ndriver = \"ipsec\"\nlocal = \"{local}\"\nremote = \"{remote}\"\n\
             unique = 100\nmtu = 1400\naddress = [\"{own}\"]"
        )
        .unwrap();
    }
    text
}

/// softnet.toml and pf.conf of the translator.
fn translator(Shape { mtu, workers, locking, .. }: Shape) -> String {
    format!(
        "[router]\nname = \"nat\"\nworkers = {workers}\nlocking = \"{locking}\"\nclusters = 1024\njumbos = 32\n\
         [[interface]]\nname = \"in0\"\ndriver = \"link\"\ndevice = \"in\"\nqueues = {workers}\n\
         address = [\"10.0.0.1/24\", \"2001:db8:1::1/64\"]\n\
         [[interface]]\nname = \"out0\"\ndriver = \"link\"\ndevice = \"out\"\nqueues = {workers}\nmtu = {mtu}\n\
         address = [\"203.0.113.1/24\", \"203.0.113.3/24\", \"2001:db8:ffff::1/64\", \"2001:db8:ffff::3/64\"]\n"
    )
}

fn rules(outside: u8) -> String {
    format!(
        "set reassemble yes\n\
         match out on out0 inet from 10.0.0.0/24 nat-to 203.0.113.{outside}\n\
         match out on out0 inet6 from 2001:db8:1::/64 nat-to 2001:db8:ffff::{outside}\npass\n"
    )
}

/// SAs of a gateway, in UDP.
pub(super) fn sas(side: usize, options: &str) -> String {
    let mut text = String::new();
    for (family, (own, peer)) in ENDS[side].into_iter().enumerate() {
        for (way, (src, dst)) in [(own, peer), (peer, own)].into_iter().enumerate() {
            let spi = 0x1000 + (family * 2 + (way ^ side)) as u32;
            writeln!(
                text,
                "add {src}[4500] {dst}[4500] esp-udp {spi:#x} -m tunnel -r 4 {options} -E aes-gcm-16 0x{:040x};",
                u128::from(spi) << 64 | 0x0123_4567
            )
            .unwrap();
        }
    }
    text
}

pub(super) fn policies(side: usize) -> String {
    let mut text = String::new();
    for (family, (own, peer)) in ENDS[side].into_iter().enumerate() {
        let (here, there) = (NETS[side][family], NETS[1 - side][family]);
        writeln!(text, "spdadd {here} {there} any -P out ipsec esp/tunnel/{own}-{peer}/require;").unwrap();
        writeln!(text, "spdadd {there} {here} any -P in ipsec esp/tunnel/{peer}-{own}/require;").unwrap();
    }
    text
}

pub(super) struct Bed {
    pub(super) net: Testbed,
    ends: [LinkEnd; 2],
    macs: [Mac; 2],
    shape: Shape,
    /// Datagrams of the hosts so far: their queues take turns.
    sent: Cell<usize>,
}

impl Bed {
    pub(super) fn new(ipsec: &[String; 2], shape: Shape) -> Bed {
        let mut net = Testbed::new();
        let config = LinkConfig { queues: [shape.workers; 2], ..LinkConfig::default() };
        for cable in ["lan-a", "lan-b", "in"] {
            net.cable(cable, config.clone());
        }
        let delay = Duration::from_millis(DELAY_MS);
        net.cable("out", LinkConfig { delay, ..config });
        let ends = ["lan-a", "lan-b"].map(|cable| net.end(cable).unwrap());
        let (nat, pf) = (translator(shape), rules(1));
        net.add(Texts { conf: &nat, pf: Some(&pf), ipsec: None }).unwrap();
        for (side, name) in ["a", "b"].into_iter().enumerate() {
            let conf = gateway(side, shape);
            net.add(Texts { conf: &conf, pf: None, ipsec: Some(&ipsec[side]) }).unwrap();
            net.with_root(name, |node, root| {
                let lan = node.router.net().named("lan0").unwrap().index.0;
                let (shared, ledger) = (node.router.shared(), &node.router.own_stats().ledger);
                for addr in [IpAddr::V4(HOST4[side]), IpAddr::V6(HOST6[side])] {
                    shared.neighbours.insert_permanent(&mut root.top(), lan, addr, MACS[side], ledger);
                }
            });
        }
        let macs = ["a", "b"].map(|n| net.node(n).router.net().named("lan0").unwrap().mac);
        net.watch("out").unwrap().iter().for_each(|end| end.capture(true));
        let mut bed = Bed { net, ends, macs, shape, sent: Cell::new(0) };
        // Duplicate address detection.
        bed.run(3000);
        bed
    }

    /// With policies.
    pub(super) fn simple(options: &str) -> Bed {
        Bed::new(&[0, 1].map(|side| sas(side, options) + &policies(side)), Shape::default())
    }

    pub(super) fn run(&mut self, millis: u64) {
        self.net.run_for(Duration::from_millis(millis));
    }

    /// Sends a datagram from a side's host; the packets that reach the other's.
    pub(super) fn carry(&mut self, datagram: &Datagram) -> Vec<Vec<u8>> {
        self.send(datagram);
        self.run(50);
        self.arrived(1 - datagram.from)
    }

    pub(super) fn send(&mut self, datagram: &Datagram) {
        let side = datagram.from;
        let frame = build::frame(self.macs[side], MACS[side], &datagram.packet());
        assert!(self.ends[side].other().inject(self.sent.replace(self.sent.get() + 1), &frame));
    }

    pub(super) fn arrived(&self, side: usize) -> Vec<Vec<u8>> {
        let (mut frame, mut packets) = (Vec::new(), Vec::new());
        for queue in 0..self.shape.workers {
            while self.ends[side].take(queue, &mut frame) {
                if frame[..6] == MACS[side].0 {
                    packets.push(frame[14..].to_vec());
                }
            }
        }
        packets
    }

    /// Whether a datagram goes there and one comes back.
    pub(super) fn round_trip(&mut self, v6: bool) -> [usize; 2] {
        [0, 1].map(|from| self.carry(&Datagram { v6, from, ..Datagram::default() }).len())
    }

    pub(super) fn count(&mut self, name: &str, counter: &str) -> u64 {
        self.net.counts(name).get(counter).copied().unwrap_or_else(|| panic!("no counter {counter}"))
    }

    /// The translator forgets all mappings, and makes the next to this address of its own.
    pub(super) fn rebind(&mut self, outside: u8) {
        let (nat, pf) = (translator(self.shape), rules(outside));
        self.net.reload("nat", Texts { conf: &nat, pf: Some(&pf), ipsec: None }).unwrap();
        self.net.with_root("nat", |node, root| {
            node.router.shared().pf.kill_states(&mut root.top().at(), |_| true);
        });
    }

    /// Datagrams on the outer wire toward port 4500 of b since the last call: source port and packet.
    pub(super) fn toward_b(&self) -> Vec<(u16, Vec<u8>)> {
        let frames = self.net.watch("out").unwrap().iter().flat_map(LinkEnd::captured).collect::<Vec<_>>();
        let packets = frames.into_iter().filter(|f| f[12..14] != [8, 6]).map(|f| f[14..].to_vec());
        packets
            .filter_map(|p| {
                let parsed = parse_ip(&p).ok()?;
                let to_b = (parsed.proto == wire::IpProto::UDP && parsed.dst_port == 4500)
                    .then_some(parsed.src_port)?;
                Some((to_b, p))
            })
            .filter(|(port, p)| *port != 4500 && p.len() > 60)
            .collect()
    }

    /// Puts a packet on the outer wire, toward b.
    pub(super) fn inject(&mut self, packet: &[u8]) {
        let [to, from] = [("b", "wan0"), ("nat", "out0")]
            .map(|(n, i)| self.net.node(n).router.net().named(i).unwrap().mac);
        let frame = build::frame(to, from, packet);
        // The translator took the first end.
        assert!(self.net.watch("out").unwrap()[1].inject(0, &frame));
        self.run(50);
    }

    /// Where b sends to now, by the SAs' report.
    pub(super) fn peers_of_b(&mut self) -> Vec<String> {
        self.net.with_root("b", |node, _| {
            let sad = &node.router.net().sad;
            sad.iter()
                .filter(|sa| sa.config().src.to_string().ends_with('2'))
                .map(|sa| sa.peer().to_string())
                .collect()
        })
    }

    pub(super) fn finish(self) {
        self.net.finish();
    }
}
