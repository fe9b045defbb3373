//! Forwarding through two routers in memory.

use kern::time::Duration;
use router::testbed::{Testbed, Texts};
use std::net::{IpAddr, Ipv4Addr};
use wire::{EtherType, IpProto, Mac, build, ether, ipv4, udp};

const A: &str = r#"
[router]
name = "a"
workers = 1
clusters = 512
jumbos = 16
[[interface]]
name = "lan0"
driver = "link"
device = "lan-a"
address = ["192.0.2.1/24", "2001:db8:a::1/64"]
[[interface]]
name = "wan0"
driver = "link"
device = "wan"
address = ["203.0.113.1/24", "2001:db8:ffff::1/64"]
[[route]]
to = "198.51.100.0/24"
via = "203.0.113.2"
[[route]]
to = "2001:db8:b::/64"
via = "2001:db8:ffff::2"
"#;

const B: &str = r#"
[router]
name = "b"
workers = 1
clusters = 512
jumbos = 16
[[interface]]
name = "lan0"
driver = "link"
device = "lan-b"
address = ["198.51.100.1/24", "2001:db8:b::1/64"]
[[interface]]
name = "wan0"
driver = "link"
device = "wan"
address = ["203.0.113.2/24", "2001:db8:ffff::2/64"]
[[route]]
to = "192.0.2.0/24"
via = "203.0.113.1"
[[route]]
to = "2001:db8:a::/64"
via = "2001:db8:ffff::1"
"#;

fn udp_frame(to: Mac, src: Ipv4Addr, dst: Ipv4Addr, number: u32) -> Vec<u8> {
    let mut frame = vec![0; 14 + 20 + 8 + 32];
    let (header, packet) = frame.split_at_mut(14);
    ether::write_header(header.first_chunk_mut().unwrap(), to, Mac([2, 0, 0, 0, 0, 9]), EtherType::IPV4);
    let ip = ipv4::Repr { src, dst, proto: IpProto::UDP, ttl: 64, payload_len: 40, ..ipv4::Repr::default() };
    packet[28..32].copy_from_slice(&number.to_be_bytes());
    let udp = udp::Repr { src_port: 1000, dst_port: 2000 };
    build::ipv4_packet(packet, &ip, |area, pseudo| udp.emit(area, pseudo)).unwrap();
    frame
}

#[test]
fn a_packet_crosses_two_routers_and_loses_two_hops() {
    let mut bed = Testbed::new();
    let here = bed.end("lan-a").unwrap();
    let there = bed.end("lan-b").unwrap();
    there.capture(true);
    here.capture(true);
    bed.add(Texts { conf: A, ..Texts::default() }).unwrap();
    bed.add(Texts { conf: B, ..Texts::default() }).unwrap();
    bed.run_for(Duration::from_secs(3));
    let mac = bed.node("a").router.net().named("lan0").unwrap().mac;
    let far = "198.51.100.10".parse().unwrap();
    here.other().inject(0, &udp_frame(mac, "192.0.2.10".parse().unwrap(), far, 7));
    bed.run_for(Duration::from_millis(100));
    // The far router asks for the far host; answer for it.
    for (name, n) in bed.counts("a").iter().chain(&bed.counts("b")).filter(|(_, n)| **n > 0) {
        println!("{name} {n}");
    }
    println!("{:x?}", bed.node("b").router.net().is_local(IpAddr::V4("198.51.100.1".parse().unwrap())));
    bed.finish();
}
