//! One router between two cables whose other ends a test holds frame by frame. Time is virtual; the books must balance.

use kern::time::Duration;
use router::{
    iface::{
        driver::Caps,
        link::{LinkConfig, LinkEnd},
        vnet::{GSO_TCPV4, NEEDS_CSUM, VnetHdr},
    },
    testbed::{Testbed, Texts},
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};
use wire::{EtherType, IpProto, Mac, arp, build, checksum, ether, icmpv6, ipv6, nd};

pub(crate) const OUR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const OUR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1);
pub(crate) const FAR_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const FAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 1);

/// The router: `lan` with MTU 1500, `wan` with MTU 1300.
const CONF: &str = r#"
[router]
name = "r"
workers = 1
clusters = 4096
jumbos = 64
[[interface]]
name = "lan0"
driver = "link"
device = "lan"
address = ["192.0.2.1/24", "2001:db8:a::1/64"]
[interface.router_advertisements]
interval = 600
lifetime = 1800
[[interface]]
name = "wan0"
driver = "link"
device = "wan"
mtu = 1300
address = ["198.51.100.1/24", "2001:db8:b::1/64"]
[[route]]
to = "10.99.0.0/16"
via = "192.0.2.200"
[[route]]
to = "2001:db8:99::/48"
via = "fe80::200"
dev = "lan0"
[[route]]
to = "203.0.113.0/24"
type = "reject"
[[route]]
to = "2001:db8:dead::/48"
type = "reject"
"#;

/// A host on one of the cables.
pub(crate) struct Host {
    end: LinkEnd,
    pub(crate) mac: Mac,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    /// The router's link-layer address on this cable.
    pub(crate) router: Mac,
    /// Answers ARP requests and neighbour solicitations for its addresses.
    pub(crate) answers: bool,
    /// What came but questions for its addresses, while it answers.
    pub(crate) inbox: Vec<Vec<u8>>,
}

pub(crate) struct Net {
    pub(crate) bed: Testbed,
    pub(crate) lan: Host,
    pub(crate) wan: Host,
}

impl Net {
    /// The router, settled: its addresses are checked and announced, the hosts known to it.
    pub(crate) fn new() -> Net {
        let mut net = Net::fresh();
        net.run(5000);
        net.lan.clear();
        net.wan.clear();
        net
    }

    /// The host on `lan` makes itself known, as hosts do who look for their gateway.
    pub(crate) fn introduce(&mut self) {
        self.lan.send_arp(Mac::BROADCAST, arp::Repr::request(self.lan.mac, self.lan.v4, OUR_V4));
        let mac = [nd::NdOption::SourceMac(self.lan.mac)];
        let ask = nd::Repr { body: nd::Body::NeighborSolicit { target: OUR_V6 }, options: &mac };
        self.lan.send_nd(&ask, self.lan.v6, ipv6::solicited_node(OUR_V6));
        self.run(5);
        self.lan.clear();
    }

    /// The router, settled, on cables that carry super-frames.
    pub(crate) fn with_offload() -> Net {
        let all = Caps { checksum: true, tso: true, uso: true };
        let mut net = Net::start(LinkConfig { caps: [all; 2], ..LinkConfig::default() });
        net.run(5000);
        net.lan.clear();
        net
    }

    /// The router, just started.
    pub(crate) fn fresh() -> Net {
        Net::start(LinkConfig::default())
    }

    /// The router with two workers, one for each of two queues of each cable, settled.
    pub(crate) fn with_two_workers() -> Net {
        let mut net = Net::start(LinkConfig { queues: [2; 2], ..LinkConfig::default() });
        net.run(5000);
        net.lan.clear();
        net.wan.clear();
        net
    }

    fn start(cables: LinkConfig) -> Net {
        let mut bed = Testbed::new();
        let workers = cables.queues[0];
        bed.default_link(cables);
        let ends = [bed.end("lan").expect("a free end"), bed.end("wan").expect("a free end")];
        let conf = CONF.replace("workers = 1", &format!("workers = {workers}"));
        bed.add(Texts { conf: &conf, ..Texts::default() }).expect("a sound configuration");
        let mac = |bed: &mut Testbed, name| bed.node("r").router.net().named(name).expect("there").mac;
        let (lan_mac, wan_mac) = (mac(&mut bed, "lan0"), mac(&mut bed, "wan0"));
        let [lan, wan] = ends;
        let host = |end, n: u8, v4: [u8; 4], site, router| Host {
            end,
            mac: Mac([2, 0, 0, 0, 1, n]),
            v4: v4.into(),
            v6: Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, 0x10),
            router,
            answers: true,
            inbox: Vec::new(),
        };
        let lan = host(lan, 1, [192, 0, 2, 16], 0xa, lan_mac);
        let wan = host(wan, 2, [198, 51, 100, 16], 0xb, wan_mac);
        Net { bed, lan, wan }
    }

    /// Lets milliseconds pass; hosts answer at once.
    pub(crate) fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.bed.run_for(Duration::ZERO);
            for _ in 0..4 {
                let spoke = self.lan.turn() | self.wan.turn();
                self.bed.run_for(Duration::ZERO);
                if !spoke {
                    break;
                }
            }
            self.bed.run_for(Duration::from_millis(1));
        }
        self.lan.turn();
        self.wan.turn();
    }

    pub(crate) fn count(&mut self, name: &str) -> u64 {
        let counts = self.bed.counts("r");
        *counts.get(name).unwrap_or_else(|| panic!("no counter {name}"))
    }

    /// How the counters moved since `before`, but for those that any traffic moves.
    pub(crate) fn moved(&mut self, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let busy = ["packet.", "worker.", "arp.", "nd."];
        let now = self.bed.counts("r");
        now.into_iter()
            .map(|(name, n)| (name.clone(), n - before.get(&name).copied().unwrap_or(0)))
            .filter(|(name, n)| *n > 0 && !busy.iter().any(|b| name.starts_with(b)))
            .collect()
    }
}

impl Host {
    /// Sends an IP packet to the router.
    pub(crate) fn send(&self, packet: &[u8]) {
        let frame = build::frame(self.router, self.mac, packet);
        assert!(self.end.other().inject(0, &frame), "the cable is full");
    }

    pub(crate) fn send_frame(&self, frame: &[u8]) {
        assert!(self.end.other().inject(0, frame), "the cable is full");
    }

    /// Sends an IP packet to one of the router's workers.
    pub(crate) fn send_to_worker(&self, worker: usize, packet: &[u8]) {
        let frame = build::frame(self.router, self.mac, packet);
        assert!(self.end.other().inject(worker, &frame), "the cable is full");
    }

    /// Sends a TCP packet of IPv4 as a super-frame whose checksum is partial.
    pub(crate) fn send_super(&self, packet: &[u8], size: u16) {
        let mut frame = build::frame(self.router, self.mac, packet);
        let end = packet.len();
        checksum::transport_fill_partial(&mut frame[14..], 20, end, IpProto::TCP).expect("TCP");
        let vnet = VnetHdr {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 54,
            gso_size: size,
            csum_start: 34,
            csum_offset: 16,
        };
        assert!(self.end.other().inject_offload(0, &frame, vnet), "the cable is full");
    }

    pub(crate) fn send_arp(&self, to: Mac, message: arp::Repr) {
        let mut body = [0; arp::LEN];
        message.emit(&mut body).expect("room");
        let header = ether::Repr { dst: to, src: self.mac, tci: None, ethertype: EtherType::ARP };
        self.send_frame(&build::frame_with(&header, &body));
    }

    /// Sends a neighbour discovery message.
    pub(crate) fn send_nd(&self, repr: &nd::Repr<'_>, src: Ipv6Addr, dst: Ipv6Addr) {
        let mut packet = vec![0; 400];
        let len = repr.emit_packet(&mut packet, src, dst).expect("room");
        let to = if dst.is_multicast() { Mac::multicast_v6(dst) } else { self.router };
        self.send_frame(&build::frame(to, self.mac, &packet[..len]));
    }

    /// Frames that came since the last call, answered questions left out.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        self.turn();
        std::mem::take(&mut self.inbox)
    }

    /// IP packets of a family that came since the last call.
    pub(crate) fn packets(&mut self, family: u8) -> Vec<Vec<u8>> {
        let kind: [u8; 2] = if family == 4 { [8, 0] } else { [0x86, 0xdd] };
        let frames = self.take().into_iter();
        frames.filter(|f| f[12..14] == kind).map(|f| f[14..].to_vec()).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.take();
    }

    /// Reads what came; answers questions. Says whether it spoke.
    fn turn(&mut self) -> bool {
        let (mut frame, mut spoke) = (Vec::new(), false);
        while self.end.take(0, &mut frame) || self.end.take(1, &mut frame) {
            match self.answer(&frame) {
                Some(answer) if self.answers => {
                    self.send_frame(&answer);
                    spoke = true;
                }
                _ => self.inbox.push(frame.clone()),
            }
        }
        spoke
    }

    /// The answer to a question for one of its addresses.
    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        if let Some(request) = arp_of(frame) {
            let asks = request.operation == arp::Operation::Request && request.target_ip == self.v4;
            let mut out = vec![0; 60];
            let len = request.reply(self.mac).emit_frame(&mut out).ok()?;
            out.truncate(len);
            return asks.then_some(out);
        }
        let (body, src) = nd_of(frame)?;
        let nd::Body::NeighborSolicit { target } = body else { return None };
        let mut packet = vec![0; 200];
        let len = nd::advertise(&mut packet, target, self.mac, src, false).ok()?;
        (target == self.v6).then(|| build::frame(self.router, self.mac, &packet[..len]))
    }
}

pub(crate) fn arp_of(frame: &[u8]) -> Option<arp::Repr> {
    let is_arp = frame.get(12..14)? == [8, 6];
    is_arp.then(|| arp::Repr::parse(&arp::Packet::new_unchecked(&frame[14..])).ok()).flatten()
}

/// The neighbour discovery message in a frame and its source. One of the router's own must be valid; one that was forwarded
/// has lost a hop, and nobody believes it.
pub(crate) fn nd_of(frame: &[u8]) -> Option<(nd::Body, Ipv6Addr)> {
    let packet = (frame.get(12..14)? == [0x86, 0xdd]).then(|| &frame[14..])?;
    let ip = ipv6::Packet::new_checked(packet).ok()?;
    let is_nd = ip.next_header() == IpProto::ICMPV6 && nd::is_nd(*packet.get(40)?) && ip.hop_limit() == 255;
    is_nd.then(|| {
        let message = nd::parse(ip.payload(), ip.src(), ip.dst(), ip.hop_limit()).expect("valid discovery");
        (message.body, ip.src())
    })
}

/// Whether a packet is ICMPv6 but not neighbour discovery.
pub(crate) fn is_other_icmp6(packet: &[u8]) -> bool {
    packet[6] == 58 && packet[40] < icmpv6::kind::ROUTER_SOLICIT
}
