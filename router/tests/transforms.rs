//! AH, IPComp, transport mode, bundles and nested tunnels between two gateways in memory: what a host sends arrives as it was,
//! the wire shows what the policy asks for, and both books are exact.

#![allow(clippy::unwrap_used, reason = "a test")]

use kern::{Batch, Ledger, Pool, Why, mbuf::PoolConfig, time::Duration};
use router::{
    iface::{
        driver::{Driver, RxCx},
        link::{LinkConfig, LinkEnd},
    },
    testbed::{Testbed, Texts},
};
use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr},
};
use wire::{EtherType, IpProto, Mac, build, ether, ipv4};

const HOST_A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const HOST_B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);

fn gateway(name: &str, n: u8) -> String {
    let (lan, far, peer) = if n == 1 { ("192.0.2", "198.51.100", 2) } else { ("198.51.100", "192.0.2", 1) };
    format!(
        "[router]\nname = \"{name}\"\nworkers = 1\nclusters = 1024\njumbos = 16\n\
         [[interface]]\nname = \"lan0\"\ndriver = \"link\"\ndevice = \"lan-{name}\"\n\
         address = [\"{lan}.1/24\"]\n\
         [[interface]]\nname = \"wan0\"\ndriver = \"link\"\ndevice = \"wan\"\n\
         address = [\"203.0.113.{n}/24\"]\n\
         [[route]]\nto = \"{far}.0/24\"\nvia = \"203.0.113.{peer}\"\n"
    )
}

/// What an SA of one direction is, with its SPI and key distinct from the other's.
fn sas(lines: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (from, to, way) in [("203.0.113.1", "203.0.113.2", 1), ("203.0.113.2", "203.0.113.1", 2)] {
        for (n, (protocol, rest)) in lines.iter().enumerate() {
            let spi = if *protocol == "ipcomp" { 0x3000 } else { 0x1000 } + way * 16 + n;
            // Each K is an octet of key.
            let key = format!("{:02x}", way * 32 + n + 1);
            let rest = rest.replace('K', &key);
            writeln!(text, "add {from} {to} {protocol} {spi:#x} {rest};").unwrap();
        }
    }
    text
}

fn policies(own: u8, requests: &str) -> String {
    let nets = ["192.0.2.0/24", "198.51.100.0/24"];
    let ends = ["203.0.113.1-203.0.113.2", "203.0.113.2-203.0.113.1"];
    let (here, there) = if own == 1 { (0, 1) } else { (1, 0) };
    let of = |from: usize, to: usize, way: &str| {
        let requests = requests.replace("ENDS", ends[from]);
        format!("spdadd {} {} any -P {way} ipsec {requests};\n", nets[from], nets[to])
    };
    of(here, there, "out") + &of(there, here, "in")
}

fn drain(end: &LinkEnd) -> Vec<Vec<u8>> {
    let pool = Pool::new(PoolConfig { clusters: 256, jumbos: 4 }).unwrap();
    let ledger = Ledger::new();
    let (mut rx, mut frames) = (end.rx(0).unwrap(), vec![]);
    loop {
        let mut batch = Batch::new();
        rx.read(&RxCx { pool: &pool, ledger: &ledger }, 256, &mut batch);
        if batch.is_empty() {
            return frames;
        }
        frames.extend(batch.iter().map(|m| m.data().to_vec()));
        ledger.end_all(&mut batch, Why::Sink);
    }
}

fn frame(to: Mac, len: usize) -> Vec<u8> {
    let ip = ipv4::Repr {
        src: Ipv4Addr::new(192, 0, 2, 10),
        dst: Ipv4Addr::new(198, 51, 100, 10),
        proto: IpProto(253),
        ..ipv4::Repr::default()
    };
    let payload: Vec<u8> = (0..len).map(|i| (i / 9) as u8).collect();
    let mut header = [0; 14];
    ether::write_header(&mut header, to, HOST_A, EtherType::IPV4);
    [&header[..], &build::raw4(ip, &payload)].concat()
}

/// Sends datagrams from host to host; the protocols of the packets on the wire between the gateways.
fn cross(lines: &[(&str, &str)], requests: &str) -> Vec<u8> {
    let mut bed = Testbed::new();
    for cable in ["lan-a", "lan-b", "wan"] {
        bed.cable(cable, LinkConfig { capacity: 256, ..LinkConfig::default() });
    }
    let (here, there) = (bed.end("lan-a").unwrap(), bed.end("lan-b").unwrap());
    for (name, n) in [("a", 1), ("b", 2)] {
        let ipsec = sas(lines) + &policies(n, requests);
        bed.add(Texts { conf: &gateway(name, n), pf: Some("pass\n"), ipsec: Some(&ipsec) }).unwrap();
    }
    for (name, addr, mac) in [("a", "192.0.2.10", HOST_A), ("b", "198.51.100.10", HOST_B)] {
        bed.with_root(name, |node, root| {
            let lan = node.router.net().named("lan0").unwrap().index.0;
            let (shared, ledger) = (node.router.shared(), &node.router.own_stats().ledger);
            let addr: IpAddr = addr.parse().unwrap();
            shared.neighbours.insert_permanent(&mut root.top(), lan, addr, mac, ledger);
        });
    }
    let gate = bed.node("a").router.net().named("lan0").unwrap().mac;
    // Duplicate address detection, and the gateways find each other.
    bed.run_for(Duration::from_secs(3));
    here.other().inject(0, &frame(gate, 30));
    bed.run_for(Duration::from_millis(20));
    drain(&there);
    bed.watch("wan").unwrap().iter().for_each(|end| end.capture(true));
    let sizes = [20, 60, 300, 900, 1300];
    for size in sizes {
        here.other().inject(0, &frame(gate, size));
    }
    bed.run_for(Duration::from_millis(100));
    let arrived: Vec<Vec<u8>> = drain(&there).into_iter().filter(|f| f.get(14 + 9) == Some(&253)).collect();
    let payloads: Vec<&[u8]> = arrived.iter().map(|f| &f[34..]).collect();
    let sent: Vec<Vec<u8>> = sizes.iter().map(|size| frame(gate, *size)[34..].to_vec()).collect();
    assert!(payloads == sent, "{requests}: {} of {} arrived", payloads.len(), sent.len());
    let wire = bed.watch("wan").unwrap().iter().flat_map(LinkEnd::captured).collect::<Vec<_>>();
    bed.finish();
    wire.iter().filter(|f| f[12..14] == [8, 0]).map(|f| f[14 + 9]).collect()
}

const ESP: u8 = 50;
const AH: u8 = 51;
const IPCOMP: u8 = 108;

fn key(octets: usize) -> String {
    format!("0x{}", "K".repeat(octets))
}

#[test]
fn ah_tunnels_packets_between_gateways() {
    let sa = format!("-m tunnel -r 8 -A hmac-sha256 {}", key(32));
    assert_eq!(cross(&[("ah", &sa)], "ah/tunnel/ENDS/require"), [AH; 5]);
}

#[test]
fn a_cipher_with_separate_integrity_tunnels_packets_between_gateways() {
    let sa = format!("-m tunnel -r 8 -E aes-cbc {} -A hmac-sha512 {}", key(16), key(64));
    assert_eq!(cross(&[("esp", &sa)], "esp/tunnel/ENDS/require"), [ESP; 5]);
}

#[test]
fn ah_goes_over_esp_and_off_again() {
    let esp = format!("-m tunnel -r 8 -E aes-gcm-16 {}", key(20));
    let ah = format!("-m transport -r 8 -A hmac-sha1 {}", key(20));
    let wire = cross(&[("esp", &esp), ("ah", &ah)], "esp/tunnel/ENDS/require ah/transport//require");
    assert_eq!(wire, [AH; 5]);
}

#[test]
fn ipcomp_goes_into_esp_and_what_it_leaves_alone_goes_too() {
    let esp = format!("-m transport -r 8 -E aes-gcm-16 {}", key(20));
    let sas = [("ipcomp", "-m tunnel -C deflate"), ("esp", &*esp)];
    assert_eq!(cross(&sas, "ipcomp/tunnel/ENDS/use esp/transport//require"), [ESP; 5]);
}

#[test]
fn ipcomp_alone_compresses_what_is_long_enough() {
    let wire = cross(&[("ipcomp", "-m tunnel -C deflate")], "ipcomp/tunnel/ENDS/use");
    // 40 and 80 octets are below the threshold: plain IP in IP.
    assert_eq!(wire, [4, 4, IPCOMP, IPCOMP, IPCOMP]);
}

#[test]
fn a_tunnel_goes_through_a_tunnel() {
    let outer = format!("-m tunnel -u 1 -r 8 -E aes-ctr {} -A aes-xcbc-mac {}", key(20), key(16));
    let inner = format!("-m tunnel -u 2 -r 8 -E chacha20-poly1305 {}", key(36));
    let sas = [("esp", &*outer), ("esp", &*inner)];
    assert_eq!(cross(&sas, "esp/tunnel/ENDS/unique:2 esp/tunnel/ENDS/unique:1"), [ESP; 5]);
}
