//! pf, ALTQ and IPsec at once on real devices: the combination that lost clusters in NetBSD in March 2013. What hosts and
//! what the gateways themselves say, IPv4 and IPv6, goes through the tunnel; its ESP is filtered and queued on the WAN.

use crate::{
    bed::{Bed, Gateway, Shape, USUAL, count_esp, others_on_the_wire},
    netns::available,
};
use kern::testing::soak;
use std::time::Duration;

/// The class of a packet is chosen inside the tunnel, and is that of its ESP. The WAN would let everything through, and
/// translate it: what is to be protected may not come that far.
const RULES: &str = "
altq on wan0 priq bandwidth 1Gb qlimit 400 queue { voice, esp, other }
queue voice priority 7
queue esp priority 5
queue other priority 1 priq(default)
nat on wan0 inet from { 192.0.2.0/24 198.51.100.0/24 } to any -> (wan0)
block all
pass quick inet6 proto icmp6 all icmp6-type { neighbrsol neighbradv routersol routeradv } no state
pass on lan0 all
pass on enc0 all queue esp
pass out on enc0 proto udp from any to port 2001 queue voice
pass on wan0 all
";

/// Packets that went through each of these classes.
fn classes<const N: usize>(gateway: &Gateway, names: [&str; N]) -> [u64; N] {
    let said = gateway.json("pfctl -v -s queue");
    let queues = said.as_array().unwrap_or_else(|| panic!("{said:#}")).clone();
    names.map(|name| {
        let queue = queues.iter().find(|q| q["name"] == name);
        queue.and_then(|q| q["packets"].as_u64()).unwrap_or_else(|| panic!("{name}: {said:#}"))
    })
}

/// Pings that were answered, of `count`, by what ping of either make says.
fn answered(said: &[u8]) -> usize {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
    let received = line.split(", ").nth(1).and_then(|part| part.split_whitespace().next());
    received.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// Everyone talks to everyone through the tunnel.
fn talk(bed: &Bed, seconds: usize) {
    let count = 50;
    for (host, gateway) in [("198.51.100.10", "198.51.100.1"), ("2001:db8:b::10", "2001:db8:b::1")] {
        // Forwarded; and answered by the far gateway itself. The first wait for ARP or ND.
        for to in [host, gateway] {
            Bed::inside(&bed.here, &format!("ping -c 3 -i 0.2 -W 2 {to}"));
            let said = Bed::inside(&bed.here, &format!("ping -q -c {count} -i 0.002 -W 5 {to}")).stdout;
            assert!(answered(&said) > count / 2, "{to}: {}", String::from_utf8_lossy(&said));
        }
        // Of the near gateway's own accord.
        let said = bed.a.ask(&format!("ping -c {count} -i 0.002 {host}")).stdout;
        assert!(answered(&said) > count / 2, "{host}: {}", String::from_utf8_lossy(&said));
        bed.iperf(host, "-P 2", seconds);
        bed.iperf(host, "-P 2 -R", seconds);
        bed.iperf(host, "-p 2001 -u -b 50M -l 1300", seconds);
    }
}

#[test]
fn pf_altq_and_ipsec_together_lose_nothing_and_let_nothing_out_in_clear() {
    if !available() {
        return;
    }
    let seconds = if soak() { 60 } else { 1 };
    for workers in [1, 2] {
        for locking in ["fine", "giant"] {
            let bed = Bed::new(Shape { workers, locking, rules: Some(RULES), ..USUAL });
            let pcap = bed.dir.join("wan.pcap");
            let dump = Bed::background(
                &bed.wan,
                &format!("tcpdump -i {} -s 120 -U -w {}", bed.wire, pcap.display()),
            );
            std::thread::sleep(Duration::from_millis(500));
            let _servers = [bed.serve(""), bed.serve("-p 2001")];
            talk(&bed, seconds);
            drop(dump);
            let esp = count_esp(&pcap);
            let [sent, sent_back] = [&bed.a, &bed.b].map(|gateway| classes(gateway, ["voice", "esp"]));
            println!(
                "{workers} workers, {locking}: {esp} ESP packets; voice and esp {sent:?} and {sent_back:?}"
            );
            assert!(esp > 1000, "few ESP packets on the wire");
            assert_eq!(others_on_the_wire(&pcap), "", "{workers} workers, {locking}");
            assert!(sent.iter().all(|n| *n > 100) && sent_back[1] > 100, "{sent:?} {sent_back:?}");
            bed.stop();
        }
    }
}
