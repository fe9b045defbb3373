//! NAT64 and NAT46 through one router: a host that speaks IPv6 only and one that speaks IPv4 only, both smoltcp's.

use kern::time::Duration;
use router::testbed::{
    Party, Testbed, Texts,
    peer::{Peer, PeerConfig},
};
use std::net::IpAddr;
use wire::Mac;

const CONF: &str = r#"
[router]
name = "gw"
workers = 1
clusters = 4096
jumbos = 64
[[interface]]
name = "lan0"
driver = "link"
device = "lan"
address = ["2001:db8:a::1/64"]
[[interface]]
name = "wan0"
driver = "link"
device = "wan"
address = ["198.51.100.1/24", "198.51.100.9/24"]
"#;

/// Out of the LAN by the well-known prefix; into it by an address of the router.
const PF: &str = "
set reassemble yes
pass all no state
pass in on lan0 inet6 from any to 64:ff9b::/96 af-to inet from 198.51.100.1
pass in on wan0 inet from any to 198.51.100.9 af-to inet6 from 64:ff9b::/96 to 2001:db8:a::10
";

struct Bed {
    net: Testbed,
    six: Peer,
    four: Peer,
}

impl Bed {
    fn new() -> Bed {
        Bed::with(PF)
    }

    fn with(pf: &str) -> Bed {
        let mut net = Testbed::new();
        let host = |net: &mut Testbed, cable: &str, mac: u8, addr: &str, gateway: &str| {
            let config = PeerConfig {
                mac: Mac([2, 0, 0, 0, 0, mac]),
                addrs: vec![addr.parse().unwrap()],
                gateways: vec![gateway.parse().unwrap()],
                mtu: 1500,
            };
            let end = net.end(cable).unwrap();
            Peer::new(&config, end, &net.clock)
        };
        let six = host(&mut net, "lan", 6, "2001:db8:a::10/64", "2001:db8:a::1");
        let four = host(&mut net, "wan", 4, "198.51.100.10/24", "198.51.100.1");
        net.add(Texts { conf: CONF, pf: Some(pf), ipsec: None }).unwrap();
        let mut bed = Bed { net, six, four };
        bed.run(3000);
        // smoltcp drops an answer whose next hop it does not know yet.
        for gateway in [ip("198.51.100.1"), ip(SIX)] {
            bed.four.ping(gateway, 1, Duration::ZERO, 0);
            bed.run(1500);
        }
        bed
    }

    fn run(&mut self, millis: u64) {
        let Bed { net, six, four } = self;
        let parties: &mut [&mut dyn Party] = &mut [six, four];
        net.run_with(Duration::from_millis(millis), parties);
    }

    fn finish(self) {
        self.net.finish();
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The IPv4 host as the IPv6 host knows it, and the other way round.
const FOUR: &str = "64:ff9b::198.51.100.10";
const SIX: &str = "198.51.100.9";

#[test]
fn pings_cross_the_families_both_ways() {
    for size in [56, 1200] {
        let mut bed = Bed::new();
        let there = bed.six.ping(ip(FOUR), 5, Duration::from_millis(10), size);
        let back = bed.four.ping(ip(SIX), 5, Duration::from_millis(10), size);
        bed.run(2000);
        for echo in [bed.six.echo(there), bed.four.echo(back)] {
            assert_eq!((echo.sent, echo.received, echo.wrong), (5, 5, 0), "{size}: {echo:?}");
        }
        bed.finish();
    }
}

#[test]
fn tcp_crosses_the_families_both_ways_and_arrives_whole() {
    crosses(Bed::new());
}

#[test]
fn tcp_crosses_when_the_router_completes_the_handshake_of_the_other_family() {
    let proxied = PF
        .replace("inet6 from any", "inet6 proto tcp from any")
        .replace("inet from any", "inet proto tcp from any")
        .replace(" af-to", " synproxy state af-to");
    assert_eq!(proxied.matches("proto tcp").count(), 2);
    for pf in [proxied, format!("set syncookies always\n{PF}")] {
        crosses(Bed::with(&pf));
    }
}

/// A connection each way.
fn crosses(mut bed: Bed) {
    let (server, back) = (bed.four.listen(80, 200_000), bed.six.listen(80, 100_000));
    let (client, caller) = (bed.six.connect(ip(FOUR), 80, 300_000), bed.four.connect(ip(SIX), 80, 150_000));
    bed.run(30_000);
    let ends = [
        (bed.six.bulk(client), 200_000),
        (bed.four.bulk(server), 300_000),
        (bed.four.bulk(caller), 100_000),
        (bed.six.bulk(back), 150_000),
    ];
    for (bulk, octets) in ends {
        assert!(bulk.is_done() && !bulk.failed && bulk.intact, "{bulk:?}");
        assert_eq!(bulk.received, octets);
    }
    bed.finish();
}

#[test]
fn datagrams_cross_in_order_and_those_too_big_for_a_router_to_cut_are_cut() {
    let mut bed = Bed::new();
    let (take4, take6) = (bed.four.take_datagrams(5000), bed.six.take_datagrams(5000));
    let up = bed.six.send_datagrams(ip(FOUR), 5000, 50, 1000);
    // smoltcp lets routers fragment: what is longer than 1,280 octets leaves in fragments.
    let down = bed.four.send_datagrams(ip(SIX), 5000, 50, 1300);
    bed.run(3000);
    assert_eq!((bed.six.datagrams(up).sent, bed.four.datagrams(down).sent), (50, 50));
    for taken in [bed.four.datagrams(take4), bed.six.datagrams(take6)] {
        assert_eq!((taken.received, taken.out_of_order), (50, 0));
    }
    bed.finish();
}
