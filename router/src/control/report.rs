//! What answers are made of: one type a report. Field names are what `--json` prints; scripts rely on them.

use kern::{
    Owner, Why,
    mbuf::{Audit, Balance},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

/// Who answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Its name.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Workers.
    pub workers: usize,
    /// Locking profile.
    pub locking: String,
    /// Its configuration file.
    pub file: String,
    /// Seconds since the start.
    pub uptime_s: u64,
}

/// Buffers of one class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// There are.
    pub total: u64,
    /// Free, for all.
    pub depot: u64,
    /// Free, with a worker.
    pub magazines: u64,
    /// Out.
    pub held: u64,
}

/// Packets, over all workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PacketReport {
    /// Read from devices.
    pub received: u64,
    /// Made here.
    pub created: u64,
    /// Made of larger ones.
    pub split: u64,
    /// Written to devices.
    pub sent: u64,
    /// Taken in by the host stack.
    pub delivered: u64,
    /// Gone into others.
    pub merged: u64,
    /// Ended for a reason.
    pub ended: u64,
    /// Begun and not ended.
    pub held: i64,
}

/// The books: `netstat -m`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MbufReport {
    /// By class.
    pub classes: BTreeMap<String, ClassReport>,
    /// Buffers that are out, by who has them.
    pub by_owner: BTreeMap<String, u64>,
    /// Buffers asked for.
    pub requests: u64,
    /// Buffers given back.
    pub releases: u64,
    /// Requests that found none.
    pub fail: u64,
    /// Packets begun and ended.
    pub packets: PacketReport,
    /// Whether both books balance and agree.
    pub balanced: bool,
    /// Packets that ended without a reason.
    pub unexplained: u64,
    /// Whether it was read at a quiet moment, and is exact.
    pub quiet: bool,
}

impl MbufReport {
    /// From the pool's books and the packets'.
    pub fn new(audit: &Audit, balance: &Balance, quiet: bool) -> MbufReport {
        let class = |c: &kern::mbuf::ClassAudit| {
            let report =
                ClassReport { total: c.total, depot: c.depot, magazines: c.magazines, held: c.held() };
            (c.class.name().to_owned(), report)
        };
        let owners = Owner::ALL.into_iter().filter(|owner| *owner != Owner::Free);
        let agree = balance.held() == i128::from(audit.packets());
        MbufReport {
            classes: audit.classes.iter().map(class).collect(),
            by_owner: owners.map(|owner| (owner.name().to_owned(), audit.owned_by(owner))).collect(),
            requests: audit.classes.iter().map(|c| c.requests).sum(),
            releases: audit.classes.iter().map(|c| c.releases).sum(),
            fail: audit.classes.iter().map(|c| c.fail).sum(),
            packets: PacketReport::new(balance),
            balanced: audit.balanced() && agree && audit.unexplained == 0,
            unexplained: audit.unexplained,
            quiet,
        }
    }
}

impl PacketReport {
    fn new(balance: &Balance) -> PacketReport {
        PacketReport {
            received: balance.received,
            created: balance.created,
            split: balance.split,
            sent: balance.sent,
            delivered: balance.delivered,
            merged: balance.merged,
            ended: balance.ended.iter().sum(),
            held: balance.held() as i64,
        }
    }
}

/// An interface: `netstat -i`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u16,
    /// `tap`, `vlan` or `link`.
    pub driver: String,
    /// The device, or parent and tag.
    pub device: String,
    /// Whether it is there.
    pub up: bool,
    /// Octets of the largest packet.
    pub mtu: u16,
    /// Link-layer address.
    pub mac: String,
    /// Addresses with prefix lengths.
    pub addrs: Vec<String>,
    /// Device queues.
    pub queues: usize,
    /// Frames in.
    pub in_packets: u64,
    /// Octets in.
    pub in_bytes: u64,
    /// Frames not taken in.
    pub in_errors: u64,
    /// Frames out.
    pub out_packets: u64,
    /// Octets out.
    pub out_bytes: u64,
    /// Frames the device did not take.
    pub out_errors: u64,
}

/// A route: `netstat -r`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteReport {
    /// Destinations, as a prefix.
    pub to: String,
    /// Who said so: `local`, `connected`, `static`.
    pub source: String,
    /// Whether packets follow it.
    pub active: bool,
    /// One next hop, or several of equal cost.
    pub paths: Vec<PathReport>,
}

/// A path of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PathReport {
    /// `connected`, `gateway`, `local`, `broadcast`, `reject` or `blackhole`.
    pub kind: String,
    /// The gateway's address.
    pub gateway: Option<IpAddr>,
    /// The interface's name.
    pub interface: Option<String>,
    /// Its MTU.
    pub mtu: Option<u16>,
}

/// A neighbour: `netstat -n`, in the columns of arp(8) and ndp(8).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NeighbourReport {
    /// Its address.
    pub addr: String,
    /// The link.
    pub interface: String,
    /// Its link-layer address, if known.
    pub mac: Option<String>,
    /// As in RFC 4861, 7.3.2: `incomplete`, `reachable`, `stale`, `delay`, `probe`.
    pub state: String,
    /// Whether it is a router.
    pub router: bool,
    /// Seconds until the state changes.
    pub expires_s: Option<u64>,
    /// Packets that wait for it.
    pub held: u64,
}

/// A counter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    /// Its number.
    pub value: u64,
    /// What it counts.
    pub text: String,
}

/// Counters by name: `netstat -s`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsReport {
    /// What protocols count.
    pub counters: BTreeMap<String, Stat>,
    /// Packets that ended, by reason.
    pub ended: BTreeMap<String, Stat>,
}

impl StatsReport {
    /// Adds a set of counters.
    pub fn add<S: kern::counter::CounterSet>(&mut self, set: &S) {
        for (description, value) in set.iter() {
            let text = description.text.to_owned();
            let stat = self.counters.entry(description.name.to_owned()).or_insert(Stat { value: 0, text });
            stat.value += value;
        }
    }

    /// Adds the ends of packets.
    pub fn add_ends(&mut self, balance: &Balance) {
        for why in Why::ALL {
            let text = why.text().to_owned();
            let stat = self.ended.entry(why.path().to_owned()).or_insert(Stat { value: 0, text });
            stat.value += balance.why(*why);
        }
    }
}

/// A security association: `setkey -D`. Keys are not told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SaReport {
    /// As setkey prints it.
    pub text: String,
    /// Source address.
    pub src: String,
    /// Destination address.
    pub dst: String,
    /// UDP ports of source and destination, if it goes in UDP.
    pub ports: Option<(u16, u16)>,
    /// Where the peer is, if that is elsewhere than configured.
    pub peer: Option<String>,
    /// `esp`, `esp-udp`, `ah` or `ipcomp`.
    pub proto: String,
    /// `tunnel`, `transport`, `beet` or `any`.
    pub mode: String,
    /// In BEET mode, source and destination of the packets it is for.
    pub inner: Option<(String, String)>,
    /// Security parameters index.
    pub spi: u32,
    /// Its tie to policies.
    pub reqid: u32,
    /// The worker that alone sends by it.
    pub worker: Option<u16>,
    /// Algorithm.
    pub suite: String,
    /// Who does the arithmetic.
    pub engine: String,
    /// `mature`, `dying` or `dead`.
    pub state: String,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Packets our replay window spans.
    pub replay: u32,
    /// Last sequence number sent.
    pub sequence: u64,
    /// Highest sequence number received.
    pub top: u64,
    /// What was sealed.
    pub sent: SaUse,
    /// What was opened.
    pub received: SaUse,
    /// Seconds since it was made.
    pub age_s: u64,
}

/// One direction of an SA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SaUse {
    /// Packets.
    pub packets: u64,
    /// Octets of inner packets.
    pub bytes: u64,
    /// Packets refused as seen before or too old.
    pub refused_replay: u64,
    /// Packets refused as forged.
    pub refused_auth: u64,
    /// Packets refused because the SA is used up.
    pub refused_expired: u64,
    /// Packets refused for anything else.
    pub refused_other: u64,
}

/// A security policy: `setkey -DP`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// As setkey prints it.
    pub text: String,
    /// Its number.
    pub id: u32,
    /// Source prefix.
    pub src: String,
    /// Destination prefix.
    pub dst: String,
    /// `in` or `out`.
    pub direction: String,
    /// `ipsec`, `none` or `discard`.
    pub action: String,
    /// The SAs it has now, by SPI.
    pub spis: Vec<u32>,
}

/// A rule: `pfctl -s rules`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleReport {
    /// Its number among its kind; none for an anchor that is shown because a wildcard calls it.
    pub number: Option<u32>,
    /// As pfctl prints it.
    pub text: String,
    /// It was for one packet and has had it (`once`).
    #[serde(default)]
    pub expired: bool,
    /// What has been counted; none if rules of its kind do not count.
    #[serde(flatten)]
    pub counted: Option<RuleCounters>,
    /// The rules of the anchor that it calls, if they are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<Vec<RuleReport>>,
}

/// What a rule has counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleCounters {
    /// How often it was tried.
    pub evaluations: u64,
    /// Packets it decided on.
    pub packets: u64,
    /// Their octets.
    pub bytes: u64,
    /// States it has now.
    pub states: u64,
    /// States it made.
    pub created: u64,
}

/// A state: `pfctl -s states`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateReport {
    /// As pfctl prints it.
    pub text: String,
    /// The same with what `-v` adds.
    pub verbose: String,
    /// Its number.
    pub id: u64,
    /// The number of who has made it.
    #[serde(default)]
    pub creator: u32,
    /// The interface it was made at.
    pub interface: String,
    /// Protocol.
    pub proto: u8,
    /// Direction of its first packet.
    pub direction: String,
    /// Source of its first packet.
    pub src: String,
    /// Destination of its first packet.
    pub dst: String,
    /// Source and destination as the router's stack has them, if translation makes them others.
    #[serde(default)]
    pub stack: Option<[String; 2]>,
    /// The router that its rule has chosen (`route-to`, `reply-to`, `dup-to`).
    #[serde(default)]
    pub gateway: Option<String>,
    /// How far source and destination have come.
    pub levels: [String; 2],
    /// Seconds since it was made.
    pub age_s: u32,
    /// Seconds until it ends.
    pub expires_s: u32,
    /// Packets from source and from destination.
    pub packets: [u64; 2],
    /// Octets likewise.
    pub bytes: [u64; 2],
    /// The rule that made it.
    pub rule: Option<u32>,
    /// The rule that translates it.
    #[serde(default)]
    pub nat_rule: Option<u32>,
}

/// A queue: `pfctl -s queue`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueReport {
    /// Its interface.
    pub interface: String,
    /// Its name.
    pub name: String,
    /// As pfctl prints it.
    pub text: String,
    /// Packets sent.
    pub packets: u64,
    /// Their octets.
    pub bytes: u64,
    /// Packets dropped.
    pub dropped_packets: u64,
    /// Their octets.
    pub dropped_bytes: u64,
    /// Packets in it now.
    pub length: u64,
    /// Their octets.
    pub length_bytes: u64,
    /// Packets it may hold.
    pub limit: u64,
    /// Packets that came.
    pub offered_packets: u64,
    /// Their octets.
    pub offered_bytes: u64,
    /// Packets marked with congestion instead of dropped.
    pub marked: u64,
    /// Packets sent on an ancestor's account; only CBQ borrows.
    pub borrows: Option<u64>,
    /// Times it waited for its rate; only CBQ suspends.
    pub suspends: Option<u64>,
    /// How long the packets that left had waited.
    pub delay: QueueDelay,
}

/// How long packets waited in a queue, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueDelay {
    /// Half of them no longer.
    pub p50_us: f64,
    /// 99 of a hundred no longer.
    pub p99_us: f64,
    /// None longer.
    pub max_us: f64,
}

/// pf as a whole: `pfctl -s info`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PfInfoReport {
    /// As pfctl prints it.
    pub text: String,
    /// The same with `-v`.
    #[serde(default)]
    pub verbose: String,
    /// The same with `-vv`.
    #[serde(default)]
    pub very_verbose: String,
    /// Whether it filters.
    pub enabled: bool,
    /// How much pf says.
    #[serde(default)]
    pub debug: pf::debug::Level,
    /// Seconds since the rules were loaded.
    pub since_s: u64,
    /// States now.
    pub states: u32,
    /// States at most.
    pub limit: u32,
    /// Whose states are (`set hostid`).
    #[serde(default)]
    pub host_id: u32,
    /// What tells rulesets apart, in hexadecimal.
    #[serde(default)]
    pub checksum: String,
    /// Source nodes now.
    #[serde(default)]
    pub sources: u32,
    /// The interface of `set loginterface`.
    #[serde(default)]
    pub interface: Option<Box<pf::show::InterfaceStats>>,
    /// Counters by name.
    pub counters: BTreeMap<String, u64>,
}

/// One turn of a ping.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EchoReport {
    /// Number of the request.
    pub sequence: u32,
    /// Who answered, if anyone did in time.
    pub from: Option<String>,
    /// Octets of the answer.
    pub size: u32,
    /// Hop limit it came with.
    pub ttl: u8,
    /// Microseconds it took.
    pub rtt_us: u64,
    /// What was said instead of an answer: `Destination Host Unreachable`, ...
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::testing::Fixture;

    #[test]
    fn the_books_have_the_names_that_scripts_rely_on() {
        let fixture = Fixture::new(16);
        let report = MbufReport::new(&fixture.pool.audit(), &fixture.ledger.balance(), true);
        let json = serde_json::to_value(&report).unwrap();
        for key in ["classes", "by_owner", "requests", "releases", "fail", "balanced", "unexplained"] {
            assert!(json.get(key).is_some(), "{key}");
        }
        for class in ["cluster", "jumbo"] {
            for key in ["total", "depot", "magazines", "held"] {
                assert!(json["classes"][class][key].is_u64(), "{class}.{key}");
            }
        }
        assert_eq!((json["balanced"].as_bool(), json["unexplained"].as_u64()), (Some(true), Some(0)));
        assert_eq!(json["classes"]["cluster"]["total"].as_u64(), Some(16));
        assert_eq!(json["by_owner"]["worker"].as_u64(), Some(0));
    }

    #[test]
    fn counters_of_several_sets_are_added_by_name() {
        kern::counters! { struct Set { a: "x.a" "as", b: "y.b" "bs" } }
        let (one, two) = (Set::new(), Set::new());
        one.a.inc();
        two.a.add(2);
        let mut report = StatsReport::default();
        report.add(&one);
        report.add(&two);
        assert_eq!(report.counters["x.a"], Stat { value: 3, text: "as".into() });
        assert_eq!(report.counters["y.b"].value, 0);
    }
}
