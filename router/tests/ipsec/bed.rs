//! Two gateways, a host's end of a wire behind each, and the wire between them, of which every frame is kept.

use kern::{Batch, Gso, testing::Fixture, time::Duration};
use router::{
    control::setkey::SetkeyReport,
    iface::{
        driver::{Caps, Driver, TxCx},
        link::{LinkConfig, LinkEnd},
    },
    testbed::{Testbed, Texts},
};
use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use wire::{IpProto, Mac, build, ipv4, ipv6, parse::parse_quoted, udp};

/// The gateways, and what is on their side.
pub(crate) const NAMES: [&str; 2] = ["a", "b"];
/// The hosts.
pub(crate) const HOST4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(198, 51, 100, 10)];
pub(crate) const HOST6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x10),
    Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x10),
];
/// The gateways' addresses on their hosts' wires.
pub(crate) const LAN4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1)];
pub(crate) const LAN6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 1)];
/// The gateways' addresses on the wire between them.
pub(crate) const WAN4: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2)];
pub(crate) const WAN6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 2),
];
const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 0xa]), Mac([2, 0, 0, 0, 0, 0xb])];

/// What a pair of gateways is like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) workers: usize,
    pub(crate) locking: &'static str,
    /// MTU of the wire between them.
    pub(crate) wan_mtu: u16,
    /// More text of each gateway's softnet.toml.
    pub(crate) more: [String; 2],
    /// Whether each has a route to the other's hosts over the wire between them.
    pub(crate) routes: bool,
    /// Whether the hosts' wires take super-frames.
    pub(crate) offload: bool,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            workers: 1,
            locking: "fine",
            wan_mtu: 1500,
            more: [String::new(), String::new()],
            routes: true,
            offload: false,
        }
    }
}

impl Shape {
    pub(crate) fn conf(&self, side: usize) -> String {
        let Shape { workers, locking, wan_mtu, more, routes, .. } = self;
        let (name, far, peer) = (NAMES[side], 1 - side, 2 - side);
        let [lan4, far4] = [side, far].map(|s| if s == 0 { "192.0.2" } else { "198.51.100" });
        let mut text = format!(
            "[router]\nname = \"{name}\"\nworkers = {workers}\nlocking = \"{locking}\"\nclusters = 4096\njumbos = 64\n\
             [[interface]]\nname = \"lan0\"\ndriver = \"link\"\ndevice = \"lan-{name}\"\nqueues = {workers}\n\
             address = [\"{lan4}.1/24\", \"2001:db8:{name}::1/64\"]\n\
             [[interface]]\nname = \"wan0\"\ndriver = \"link\"\ndevice = \"wan\"\nqueues = {workers}\nmtu = {wan_mtu}\n\
             address = [\"203.0.113.{0}/24\", \"2001:db8:ffff::{0}/64\"]\n",
            side + 1
        );
        if *routes {
            writeln!(
                text,
                "[[route]]\nto = \"{far4}.0/24\"\nvia = \"203.0.113.{peer}\"\n\
                 [[route]]\nto = \"2001:db8:{}::/64\"\nvia = \"2001:db8:ffff::{peer}\"",
                NAMES[far]
            )
            .unwrap();
        }
        text + &more[side]
    }
}

/// Security associations of both directions and families; `generation` makes other keys and SPIs.
pub(crate) fn sas(generation: u32, options: &str) -> String {
    let mut text = String::new();
    let ends = [("203.0.113.1", "203.0.113.2"), ("2001:db8:ffff::1", "2001:db8:ffff::2")];
    for (family, (a, b)) in ends.into_iter().enumerate() {
        for (way, (src, dst)) in [(a, b), (b, a)].into_iter().enumerate() {
            let spi = 0x1000 + generation * 16 + (family * 2 + way) as u32;
            writeln!(
                text,
                "add {src} {dst} esp {spi:#x} -m tunnel -r 4 {options} -E aes-gcm-16 0x{:040x};",
                u128::from(spi) << 64 | 0x0123_4567
            )
            .unwrap();
        }
    }
    text
}

/// Policies for everything between the two sides, gateways included, seen from one of them.
pub(crate) fn policies(side: usize) -> String {
    let mut text = String::new();
    let nets = [["192.0.2.0/24", "203.0.113.1/32"], ["198.51.100.0/24", "203.0.113.2/32"]];
    let nets6 = [["2001:db8:a::/64", "2001:db8:ffff::1/128"], ["2001:db8:b::/64", "2001:db8:ffff::2/128"]];
    let ends = [["203.0.113.1", "203.0.113.2"], ["2001:db8:ffff::1", "2001:db8:ffff::2"]];
    for (nets, ends) in [(nets, ends[0]), (nets6, ends[1])] {
        let (own, far) = (nets[side], nets[1 - side]);
        let (here, there) = (ends[side], ends[1 - side]);
        // Between the gateways' own outer addresses there is no policy: the tunnel itself runs there.
        for (src, dst) in [(own[0], far[0]), (own[0], far[1]), (own[1], far[0])] {
            writeln!(text, "spdadd {src} {dst} any -P out ipsec esp/tunnel/{here}-{there}/require;").unwrap();
            writeln!(text, "spdadd {dst} {src} any -P in ipsec esp/tunnel/{there}-{here}/require;").unwrap();
        }
    }
    text
}

/// Two gateways.
pub(crate) struct Bed {
    pub(crate) net: Testbed,
    pub(crate) shape: Shape,
    ends: [LinkEnd; 2],
    macs: [Mac; 2],
}

/// What a frame on the wire between the gateways is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Arp,
    Discovery,
    /// ESP, or a fragment of it.
    Esp,
    /// An error about ESP, which quotes what has been on the wire already.
    Told,
    Clear,
}

pub(crate) fn classify(frame: &[u8]) -> Seen {
    let packet = &frame[14..];
    let is_esp = |packet: &[u8]| parse_quoted(packet).is_ok_and(|p| p.proto == IpProto::ESP);
    match [frame[12], frame[13]] {
        [0x08, 0x06] => Seen::Arp,
        [0x08, 0x00] | [0x86, 0xdd] if is_esp(packet) => Seen::Esp,
        [0x08, 0x00] if packet[9] == 1 && packet[20] == 3 && is_esp(&packet[28..]) => Seen::Told,
        [0x86, 0xdd] if packet[6] == 58 && packet[40] < 5 && is_esp(&packet[48..]) => Seen::Told,
        [0x86, 0xdd] if packet[6] == 58 && (133..=137).contains(&packet[40]) => Seen::Discovery,
        _ => Seen::Clear,
    }
}

impl Bed {
    /// With these texts of pf.conf and ipsec.conf on either side, settled.
    pub(crate) fn new(shape: Shape, pf: [Option<&str>; 2], ipsec: [&str; 2]) -> Bed {
        let mut net = Testbed::new();
        let workers = shape.workers;
        let config = LinkConfig { queues: [workers, workers], capacity: 4096, ..LinkConfig::default() };
        net.cable("wan", config.clone());
        let offload = Caps { checksum: shape.offload, tso: shape.offload, uso: shape.offload };
        for cable in ["lan-a", "lan-b"] {
            net.cable(cable, LinkConfig { caps: [offload; 2], ..config.clone() });
        }
        let ends = ["lan-a", "lan-b"].map(|cable| net.end(cable).unwrap());
        for side in [0, 1] {
            let conf = shape.conf(side);
            net.add(Texts { conf: &conf, pf: pf[side], ipsec: Some(ipsec[side]) }).unwrap();
            net.with_root(NAMES[side], |node, root| {
                let lan = node.router.net().named("lan0").unwrap().index.0;
                let (shared, ledger) = (node.router.shared(), &node.router.own_stats().ledger);
                for addr in [IpAddr::V4(HOST4[side]), IpAddr::V6(HOST6[side])] {
                    shared.neighbours.insert_permanent(&mut root.top(), lan, addr, MACS[side], ledger);
                }
            });
        }
        let macs = NAMES.map(|n| net.node(n).router.net().named("lan0").unwrap().mac);
        net.watch("wan").unwrap().iter().for_each(|end| end.capture(true));
        let mut bed = Bed { net, shape, ends, macs };
        // Duplicate address detection.
        bed.net.run_for(Duration::from_secs(3));
        bed
    }

    /// With a tunnel between the two sides that protects everything.
    pub(crate) fn with_tunnel(shape: Shape, pf: Option<&str>) -> Bed {
        let ipsec = [0, 1].map(|side| sas(0, "") + &policies(side));
        Bed::new(shape, [pf; 2], [&ipsec[0], &ipsec[1]])
    }

    pub(crate) fn reload(&mut self, side: usize, pf: Option<&str>, ipsec: &str) {
        let conf = self.shape.conf(side);
        self.net.reload(NAMES[side], Texts { conf: &conf, pf, ipsec: Some(ipsec) }).unwrap();
    }

    /// Carries out statements of setkey(8), which are right.
    pub(crate) fn setkey(&mut self, side: usize, text: &str) -> SetkeyReport {
        self.net.setkey(NAMES[side], text).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Puts a packet of a side's host on its wire.
    pub(crate) fn send(&self, side: usize, queue: usize, packet: &[u8]) -> bool {
        let frame = build::frame(self.macs[side], MACS[side], packet);
        self.ends[side].other().inject(queue, &frame)
    }

    /// Puts a super-frame on a side's host's wire: a datagram whose payload goes in `parts` of `size` octets.
    pub(crate) fn send_super(
        &self,
        side: usize,
        queue: usize,
        ports: (u16, u16),
        (parts, size): (usize, u16),
    ) {
        let len = parts * usize::from(size);
        self.send_whole(queue, Datagram { from: side, ports, len, ..Datagram::default() }, size);
    }

    /// Puts a datagram of IPv4 on its host's wire as a super-frame, whose payload goes in parts of `size` octets.
    pub(crate) fn send_whole(&self, queue: usize, datagram: Datagram, size: u16) {
        let side = datagram.from;
        let mut packet = datagram.packet();
        let end = packet.len();
        wire::checksum::transport_fill_partial(&mut packet, 20, end, IpProto::UDP).unwrap();
        let host = Fixture::with_jumbos(4, 4);
        let mut m = host.packet(&build::frame(self.macs[side], MACS[side], &packet));
        m.set_partial(34, 6);
        m.set_gso(Gso::Udp4, size);
        let mut batch = Batch::new();
        batch.push(m).unwrap();
        let tx = TxCx { pool: &host.pool, ledger: &host.ledger };
        assert_eq!(self.ends[side].write(queue, &mut batch, &tx).refused, 0);
    }

    /// The packets that have reached a side's host.
    pub(crate) fn arrived(&self, side: usize) -> Vec<Vec<u8>> {
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

    /// Frames that the gateways have put on the wire between them since the last call.
    pub(crate) fn on_the_wire(&self) -> Vec<Vec<u8>> {
        self.net.watch("wan").unwrap().iter().flat_map(LinkEnd::captured).collect()
    }

    /// Demands that nothing has crossed the wire but ESP and what finds neighbours; says how much was ESP.
    pub(crate) fn nothing_in_clear(&self) -> usize {
        let mut esp = 0;
        for frame in self.on_the_wire() {
            let seen = classify(&frame);
            assert_ne!(seen, Seen::Clear, "in clear on the wire: {frame:02x?}");
            esp += usize::from(seen == Seen::Esp);
        }
        esp
    }

    /// Puts a packet on the wire between the gateways, toward one of them, as if the other had sent it.
    pub(crate) fn forge(&mut self, side: usize, packet: &[u8]) {
        let mac =
            |bed: &mut Bed, side: usize| bed.net.node(NAMES[side]).router.net().named("wan0").unwrap().mac;
        let (to, from) = (mac(self, side), mac(self, 1 - side));
        // Gateway a has taken the first end.
        let toward = &self.net.watch("wan").unwrap()[side];
        assert!(toward.inject(0, &build::frame(to, from, packet)));
    }

    pub(crate) fn run(&mut self, millis: u64) {
        self.net.run_for(Duration::from_millis(millis));
    }

    pub(crate) fn count(&mut self, side: usize, name: &str) -> u64 {
        self.counts(side).get(name).copied().unwrap_or_else(|| panic!("no counter {name}"))
    }

    pub(crate) fn counts(&mut self, side: usize) -> BTreeMap<String, u64> {
        self.net.counts(NAMES[side])
    }

    /// Stops: both books balance, nothing is held, and nothing ended without a reason.
    pub(crate) fn finish(self) {
        self.net.finish();
    }
}

/// A datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram {
    pub(crate) v6: bool,
    /// The side it comes from.
    pub(crate) from: usize,
    pub(crate) ports: (u16, u16),
    /// Octets of payload.
    pub(crate) len: usize,
    pub(crate) df: bool,
    pub(crate) ttl: u8,
    pub(crate) class: u8,
    /// The octet that its payload is made of, if they are not to differ.
    pub(crate) fill: Option<u8>,
}

impl Default for Datagram {
    fn default() -> Datagram {
        Datagram {
            v6: false,
            from: 0,
            ports: (1000, 2000),
            len: 64,
            df: false,
            ttl: 64,
            class: 0,
            fill: None,
        }
    }
}

impl Datagram {
    pub(crate) fn packet(&self) -> Vec<u8> {
        let udp = udp::Repr { src_port: self.ports.0, dst_port: self.ports.1 };
        let payload: Vec<u8> = (0..self.len).map(|i| self.fill.unwrap_or(i as u8 ^ 0x5a)).collect();
        let (from, to) = (self.from, 1 - self.from);
        if self.v6 {
            let header = ipv6::Repr {
                src: HOST6[from],
                dst: HOST6[to],
                next_header: IpProto::UDP,
                hop_limit: self.ttl,
                traffic_class: self.class,
                ..ipv6::Repr::default()
            };
            return build::udp6_with(header, &udp, &payload);
        }
        let header = ipv4::Repr {
            src: HOST4[from],
            dst: HOST4[to],
            proto: IpProto::UDP,
            ttl: self.ttl,
            tos: self.class,
            frag: if self.df { ipv4::DF } else { 0 },
            ident: 7,
            ..ipv4::Repr::default()
        };
        build::udp4_with(header, &udp, &payload)
    }
}
