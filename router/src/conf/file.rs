//! `softnet.toml` as it stands: every key with its place, each value by itself in range. What values mean to each other is
//! for [`check`](super::check).

use super::{
    diag::{At, Complaints, Invalid, Source},
    section::Section,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use kern::lock::Locking;
use std::{net::IpAddr, ops::Range, path::Path, str::FromStr, sync::Arc};
use toml::de::DeTable;
use wire::Mac;

/// The file.
#[derive(Debug)]
pub struct Conf {
    /// Its text.
    pub source: Arc<Source>,
    /// `[router]`.
    pub router: Router,
    /// `[ipsec] enc0`.
    pub enc0: Option<At<bool>>,
    /// `[icmp] rate`.
    pub icmp_rate: Option<At<u64>>,
    /// `[[interface]]`.
    pub interfaces: Vec<Interface>,
    /// `[[route]]`.
    pub routes: Vec<Route>,
}

/// `[router]`.
#[derive(Debug, Default)]
pub struct Router {
    /// Name of this router.
    pub name: Option<At<String>>,
    /// Workers; none for `auto`.
    pub workers: Option<At<Option<u64>>>,
    /// Processors they run on.
    pub cpus: Option<At<Vec<At<u64>>>>,
    /// Microseconds of spinning before sleep.
    pub spin_us: Option<At<u64>>,
    /// Locking profile.
    pub locking: Option<At<Locking>>,
    /// Buffers of 2 KiB.
    pub clusters: Option<At<u64>>,
    /// Buffers of 64 KiB.
    pub jumbos: Option<At<u64>>,
    /// Control socket.
    pub control: Option<At<String>>,
    /// pf.conf.
    pub pf: Option<At<String>>,
    /// ipsec.conf.
    pub ipsec: Option<At<String>>,
}

/// `driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverWord {
    /// A TAP device.
    Tap,
    /// Tagged frames of another interface.
    Vlan,
    /// A cable inside the process.
    Link,
    /// A tunnel.
    Ipsec,
}

impl FromStr for DriverWord {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "tap" => Ok(DriverWord::Tap),
            "vlan" => Ok(DriverWord::Vlan),
            "link" => Ok(DriverWord::Link),
            "ipsec" => Ok(DriverWord::Ipsec),
            _ => Err(()),
        }
    }
}

/// An address with the length of its subnet's prefix, which must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressWord(pub IpNet);

impl FromStr for AddressWord {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(AddressWord)
    }
}

/// Where a route leads: a prefix, an address (a route to one host), or `default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToWord {
    /// Everything, of the family of the gateway.
    Default,
    /// A prefix, perhaps with bits beyond its length.
    Net(IpNet),
}

impl FromStr for ToWord {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "default" {
            return Ok(ToWord::Default);
        }
        text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse()).map(ToWord::Net)
    }
}

impl ToWord {
    /// The default route of a family.
    pub fn default_of(is_v4: bool) -> IpNet {
        if is_v4 { IpNet::V4(Ipv4Net::default()) } else { IpNet::V6(Ipv6Net::default()) }
    }
}

/// `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeWord {
    /// Refused with an ICMP error.
    Reject,
    /// Dropped.
    Blackhole,
}

impl FromStr for TypeWord {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "reject" => Ok(TypeWord::Reject),
            "blackhole" => Ok(TypeWord::Blackhole),
            _ => Err(()),
        }
    }
}

/// `[[interface]]`.
#[derive(Debug)]
pub struct Interface {
    /// Where it begins.
    pub span: Range<usize>,
    /// Its name.
    pub name: Option<At<String>>,
    /// What it sits on.
    pub driver: Option<At<DriverWord>>,
    /// The kernel's name for the other end, or the cable's name.
    pub device: Option<At<String>>,
    /// For `vlan`: the interface below.
    pub parent: Option<At<String>>,
    /// For `vlan`: the identifier.
    pub tag: Option<At<u64>>,
    /// For `ipsec`: our end of the tunnel.
    pub local: Option<At<IpAddr>>,
    /// For `ipsec`: the peer's end.
    pub remote: Option<At<IpAddr>>,
    /// For `ipsec`: the `-u` of its SAs.
    pub unique: Option<At<u64>>,
    /// Addresses.
    pub address: Vec<At<AddressWord>>,
    /// Octets of the largest packet.
    pub mtu: Option<At<u64>>,
    /// Queues; none for `auto`.
    pub queues: Option<At<Option<u64>>>,
    /// Whether super-frames may cross the device.
    pub offload: Option<At<bool>>,
    /// Link-layer address.
    pub mac: Option<At<Mac>>,
    /// `router_advertisements`.
    pub advertise: Option<Advertise>,
}

/// `[interface.router_advertisements]`.
#[derive(Debug)]
pub struct Advertise {
    /// Where it begins.
    pub span: Range<usize>,
    /// Seconds between two, at most.
    pub interval: Option<At<u64>>,
    /// Seconds this is a default router after one.
    pub lifetime: Option<At<u64>>,
    /// Whether addresses come from DHCPv6.
    pub managed: Option<At<bool>>,
    /// Whether other things come from DHCPv6.
    pub other: Option<At<bool>>,
    /// Seconds a prefix is valid.
    pub valid: Option<At<u64>>,
    /// Seconds an address made of it is preferred.
    pub preferred: Option<At<u64>>,
}

/// `[[route]]`.
#[derive(Debug)]
pub struct Route {
    /// Where it begins.
    pub span: Range<usize>,
    /// Destinations.
    pub to: Option<At<ToWord>>,
    /// Gateways.
    pub via: Option<Vec<At<IpAddr>>>,
    /// Interface.
    pub dev: Option<At<String>>,
    /// No way at all.
    pub kind: Option<At<TypeWord>>,
}

impl Conf {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<(Conf, Complaints), Invalid> {
        let source = Source::read(path).map_err(|e| Invalid::unreadable(path, &e))?;
        Ok(Conf::parse(&source))
    }

    /// Reads a text. What could not be read is absent and complained of.
    pub fn parse(source: &Arc<Source>) -> (Conf, Complaints) {
        let mut bad = Complaints::new(source.clone());
        let (table, faults) = DeTable::parse_recoverable(&source.text);
        for fault in &faults {
            bad.error(&fault.span().unwrap_or(0..0), fault.message().trim_end(), "");
        }
        let mut file = Section::new("the file", table.get_ref(), 0..0);
        let router =
            file.table("router", "[router]", &mut bad).map(|s| router(s, &mut bad)).unwrap_or_default();
        let enc0 = file.table("ipsec", "[ipsec]", &mut bad).and_then(|mut s| {
            let enc0 = s.boolean("enc0", &mut bad);
            s.finish(&mut bad);
            enc0
        });
        let icmp_rate = file.table("icmp", "[icmp]", &mut bad).and_then(|mut s| {
            let rate = s.number("rate", 0..=1_000_000, &mut bad);
            s.finish(&mut bad);
            rate
        });
        let interfaces = file.tables("interface", "[[interface]]", &mut bad);
        let interfaces = interfaces.into_iter().map(|s| interface(s, &mut bad)).collect();
        let routes = file.tables("route", "[[route]]", &mut bad);
        let routes = routes.into_iter().map(|s| route(s, &mut bad)).collect();
        // A text that is not TOML has lost keys: what is missing or unknown then says nothing.
        if faults.is_empty() {
            file.finish(&mut bad);
        }
        (Conf { source: source.clone(), router, enc0, icmp_rate, interfaces, routes }, bad)
    }
}

fn router(mut s: Section<'_, '_>, bad: &mut Complaints) -> Router {
    let router = Router {
        name: s.string("name", bad),
        workers: s.number_or_auto("workers", 1..=64, bad),
        cpus: s.numbers("cpus", 0..=4095, bad),
        spin_us: s.number("spin_us", 0..=1_000_000, bad),
        locking: s.parse("locking", "\"fine\" or \"giant\"", bad),
        clusters: s.number("clusters", 256..=8_388_608, bad),
        jumbos: s.number("jumbos", 8..=262_144, bad),
        control: s.string("control", bad),
        pf: s.string("pf", bad),
        ipsec: s.string("ipsec", bad),
    };
    s.finish(bad);
    router
}

fn interface(mut s: Section<'_, '_>, bad: &mut Complaints) -> Interface {
    let name = s.string("name", bad);
    let name = s.require("name", name, "\"lan0\"", bad);
    let driver = s.parse("driver", "\"tap\", \"vlan\", \"ipsec\" or \"link\"", bad);
    let driver = s.require("driver", driver, "\"tap\"", bad);
    let interface = Interface {
        span: s.span(),
        name,
        driver,
        device: s.string("device", bad),
        parent: s.string("parent", bad),
        tag: s.number("tag", 1..=4094, bad),
        local: s.parse("local", "our end of the tunnel: \"203.0.113.1\"", bad),
        remote: s.parse("remote", "the peer's end of the tunnel: \"203.0.113.2\"", bad),
        unique: s.number("unique", 1..=u64::from(u32::MAX), bad),
        address: s
            .parse_list(
                "address",
                "an address and its prefix length: \"192.0.2.1/24\", \"2001:db8::1/64\"",
                bad,
            )
            .unwrap_or_default(),
        mtu: s.number("mtu", 576..=65_535, bad),
        queues: s.number_or_auto("queues", 1..=64, bad),
        offload: s.boolean("offload", bad),
        mac: s.parse("mac", wire::ether::NotAMac, bad),
        advertise: s
            .table("router_advertisements", "[interface.router_advertisements]", bad)
            .map(|s| advertise(s, bad)),
    };
    s.finish(bad);
    interface
}

fn advertise(mut s: Section<'_, '_>, bad: &mut Complaints) -> Advertise {
    // Ranges: RFC 4861, 6.2.1.
    let advertise = Advertise {
        span: s.span(),
        interval: s.number("interval", 4..=1800, bad),
        lifetime: s.number("lifetime", 0..=9000, bad),
        managed: s.boolean("managed", bad),
        other: s.boolean("other", bad),
        valid: s.number("valid", 0..=u64::from(u32::MAX), bad),
        preferred: s.number("preferred", 0..=u64::from(u32::MAX), bad),
    };
    s.finish(bad);
    advertise
}

fn route(mut s: Section<'_, '_>, bad: &mut Complaints) -> Route {
    let to = s.parse("to", "a prefix (\"198.51.100.0/24\"), an address, or \"default\"", bad);
    let to = s.require("to", to, "\"198.51.100.0/24\"", bad);
    let route = Route {
        span: s.span(),
        to,
        via: s.parse_list("via", "a gateway's address (\"203.0.113.2\") or a list of them", bad),
        dev: s.string("dev", bad),
        kind: s.parse("type", "\"reject\" or \"blackhole\"", bad),
    };
    s.finish(bad);
    route
}
