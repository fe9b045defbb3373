//! `softnet netstat`, after NetBSD's netstat(1).

use super::{
    Exit,
    ask::{At, Failure, answer},
    table::{self, Align::Left, Align::Right, row},
};
use crate::control::proto::{
    InterfaceReport, MbufReport, NeighbourReport, PathReport, Request, RouteReport, Stat, StatsReport,
};
use clap::{ArgAction, Args};
use std::{collections::BTreeMap, fmt::Write};

/// What to show; one at a time. `-n` beside `-i` or `-r` is accepted: addresses are always numbers.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct Netstat {
    /// Buffers, and whether they balance
    #[arg(short, group = "what", conflicts_with_all = ["interfaces", "routes", "stats"])]
    mbufs: bool,
    /// Interfaces
    #[arg(short, group = "what", conflicts_with_all = ["routes", "stats"])]
    interfaces: bool,
    /// Routes
    #[arg(short, group = "what", conflicts_with_all = ["stats"])]
    routes: bool,
    /// Counters by protocol; twice: without those that are 0
    #[arg(short, group = "what", action = ArgAction::Count)]
    stats: u8,
    /// Neighbours: who has which link-layer address
    #[arg(short, group = "what")]
    neighbours: bool,
    /// With -s: this protocol only
    #[arg(short, value_name = "PROTOCOL", requires = "stats")]
    protocol: Option<String>,
}

/// Runs the command.
pub fn run(at: &At, args: &Netstat) -> Result<Exit, Failure> {
    if args.mbufs {
        let report = answer!(at.ask(&Request::Mbuf)?, Mbuf);
        at.print(&report, || mbufs(&report))?;
        return Ok(if report.balanced { Exit::Good } else { Exit::No });
    }
    if args.interfaces {
        let report = answer!(at.ask(&Request::Interfaces)?, Interfaces);
        at.print(&report, || interfaces(&report))?;
    } else if args.routes {
        let report = answer!(at.ask(&Request::Routes)?, Routes);
        at.print(&report, || routes(&report))?;
    } else if args.stats > 0 {
        let mut report = answer!(at.ask(&Request::Stats)?, Stats);
        if let Some(protocol) = &args.protocol {
            // What NetBSD tells of IPsec as a whole is told here of policies and of what happens to SAs.
            let is_ipsec = |name: &str| protocol == "ipsec" && group(name) == "spd";
            let keep = |name: &String, _: &mut Stat| group(name) == protocol || is_ipsec(name);
            report.counters.retain(keep);
            report.ended.retain(keep);
        }
        at.print(&report, || stats(&report, args.stats > 1))?;
    } else {
        let report = answer!(at.ask(&Request::Neighbours)?, Neighbours);
        at.print(&report, || neighbours(&report))?;
    }
    Ok(Exit::Good)
}

/// `-m`.
pub fn mbufs(r: &MbufReport) -> String {
    let mut out = String::new();
    let mut put = |line: String| out.push_str(&(line + "\n"));
    for (name, class) in &r.classes {
        put(format!("{}/{} {name}s in use (held/total)", class.held, class.total));
        put(format!("\t{} in magazines\n\t{} in the depot", class.magazines, class.depot));
    }
    put("buffers held:".into());
    for (owner, held) in r.by_owner.iter().filter(|(_, held)| **held > 0) {
        put(format!("\t{held} by {owner}"));
    }
    put(format!("\t{} in all", r.by_owner.values().sum::<u64>()));
    put(format!(
        "{} requests for buffers, {} buffers released, {} requests denied",
        r.requests, r.releases, r.fail
    ));
    let p = &r.packets;
    put(format!("{} packets began", p.received + p.created + p.split));
    put(format!("\t{} received\n\t{} created\n\t{} split off larger ones", p.received, p.created, p.split));
    put(format!("{} packets ended", p.sent + p.delivered + p.merged + p.ended));
    put(format!(
        "\t{} sent\n\t{} delivered to the host\n\t{} merged into others",
        p.sent, p.delivered, p.merged
    ));
    put(format!("\t{} for a reason (netstat -s)", p.ended));
    put(format!("{} packets held", p.held));
    put(format!("{} packets ended without a reason", r.unexplained));
    let moment = if r.quiet { "at a quiet moment" } else { "while packets moved" };
    put(format!("{} ({moment})", if r.balanced { "the books balance" } else { "the books do NOT balance" }));
    out
}

/// `-i`.
pub fn interfaces(all: &[InterfaceReport]) -> String {
    let mut rows = vec![row(["Name", "Mtu", "Network", "Address", "Ipkts", "Ierrs", "Opkts", "Oerrs"])];
    for i in all {
        let name = if i.up { i.name.clone() } else { format!("{}*", i.name) };
        let counts = [i.in_packets, i.in_errors, i.out_packets, i.out_errors].map(|n| n.to_string());
        let line = |network: String, address: String| {
            let mut cells = vec![name.clone(), i.mtu.to_string(), network, address];
            cells.extend(counts.clone());
            cells
        };
        rows.push(line("<Link>".into(), i.mac.clone()));
        for addr in &i.addrs {
            let net: Option<ipnet::IpNet> = addr.parse().ok();
            let network = net.map_or_else(|| addr.clone(), |n| n.trunc().to_string());
            rows.push(line(network, addr.split('/').next().unwrap_or(addr).to_owned()));
        }
    }
    table::set(&[Left, Right, Left, Left, Right, Right, Right, Right], &rows)
}

/// `-r`.
pub fn routes(all: &[RouteReport]) -> String {
    let mut out = String::from("Routing tables\n");
    for (title, is_v6) in [("Internet", false), ("Internet6", true)] {
        let mut rows = vec![row(["Destination", "Gateway", "Flags", "Refs", "Use", "Mtu", "Interface"])];
        for route in all.iter().filter(|r| r.to.contains(':') == is_v6) {
            rows.extend(route.paths.iter().map(|path| route_row(route, path)));
        }
        if rows.len() > 1 {
            let _ = write!(out, "\n{title}:\n");
            out.push_str(&table::set(&[Left, Left, Left, Right, Right, Right, Left], &rows));
        }
    }
    out
}

fn route_row(route: &RouteReport, path: &PathReport) -> Vec<String> {
    let gateway = match (&path.gateway, path.kind.as_str()) {
        (Some(addr), _) => addr.to_string(),
        (None, "reject" | "blackhole") => "-".to_owned(),
        (None, _) => "link".to_owned(),
    };
    let mtu = path.mtu.map_or("-".to_owned(), |mtu| mtu.to_string());
    let interface = path.interface.clone().unwrap_or_else(|| "-".to_owned());
    vec![destination(&route.to), gateway, flags(route, path), "-".into(), "-".into(), mtu, interface]
}

/// A prefix as netstat writes it: `default`, a bare address for a host.
fn destination(to: &str) -> String {
    match to.parse::<ipnet::IpNet>() {
        Ok(net) if net.prefix_len() == 0 => "default".to_owned(),
        Ok(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        _ => to.to_owned(),
    }
}

/// U usable, G gateway, H host, R reject, B blackhole, C connected, S static, l local, b broadcast.
fn flags(route: &RouteReport, path: &PathReport) -> String {
    let is_host = destination(&route.to) != route.to && destination(&route.to) != "default";
    let kind = match path.kind.as_str() {
        "gateway" => "G",
        "reject" => "R",
        "blackhole" => "B",
        "connected" => "C",
        "local" => "l",
        "broadcast" => "b",
        _ => "",
    };
    let (gateway, other) = if kind == "G" { ("G", "") } else { ("", kind) };
    let letters = [
        if route.active { "U" } else { "" },
        gateway,
        if is_host { "H" } else { "" },
        if route.source == "static" { "S" } else { "" },
        other,
    ];
    letters.concat()
}

/// `-s`.
pub fn stats(report: &StatsReport, without_zeros: bool) -> String {
    let mut groups: BTreeMap<&str, Vec<&Stat>> = BTreeMap::new();
    for (name, stat) in report.counters.iter().chain(&report.ended) {
        if stat.value > 0 || !without_zeros {
            groups.entry(group(name)).or_default().push(stat);
        }
    }
    let mut out = String::new();
    for (group, stats) in groups {
        let _ = writeln!(out, "{group}:");
        for stat in stats {
            let _ = writeln!(out, "\t{} {}", stat.value, stat.text);
        }
    }
    out
}

/// What stands before the first dot of a counter's name.
fn group(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// `-n`, as arp(8) and ndp(8) list them.
pub fn neighbours(all: &[NeighbourReport]) -> String {
    let mut rows = vec![row(["Neighbor", "Linklayer Address", "Netif", "Expire", "State", "Flags", "Held"])];
    for n in all {
        let expire = n.expires_s.map_or("permanent".to_owned(), |s| format!("{s}s"));
        let mac = n.mac.clone().unwrap_or_else(|| "(incomplete)".to_owned());
        let flags = if n.router { "R" } else { "" };
        let held = n.held.to_string();
        rows.push(vec![
            n.addr.clone(),
            mac,
            n.interface.clone(),
            expire,
            n.state.clone(),
            flags.into(),
            held,
        ]);
    }
    table::set(&[Left, Left, Left, Right, Left, Left, Right], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::{ClassReport, PacketReport};

    #[test]
    fn buffers_are_told_class_by_class_with_both_sides_of_the_books() {
        let class = |total, held| ClassReport { total, depot: total - held - 2, magazines: 2, held };
        let report = MbufReport {
            classes: [("cluster".to_owned(), class(100, 3)), ("jumbo".to_owned(), class(10, 1))].into(),
            by_owner: [("rx".to_owned(), 1), ("ifq".to_owned(), 3), ("host".to_owned(), 0)].into(),
            requests: 50,
            releases: 46,
            fail: 0,
            packets: PacketReport {
                received: 40,
                created: 5,
                sent: 30,
                ended: 12,
                held: 3,
                ..Default::default()
            },
            balanced: true,
            unexplained: 0,
            quiet: true,
        };
        let text = mbufs(&report);
        assert!(text.starts_with(
            "3/100 clusters in use (held/total)\n\t2 in magazines\n\t95 in the depot\n1/10 jumbos"
        ));
        assert!(text.contains("buffers held:\n\t3 by ifq\n\t1 by rx\n\t4 in all\n"), "{text}");
        assert!(
            text.contains("45 packets began\n\t40 received\n")
                && text.contains("42 packets ended\n\t30 sent\n")
        );
        assert!(
            text.ends_with("0 packets ended without a reason\nthe books balance (at a quiet moment)\n"),
            "{text}"
        );
        assert!(mbufs(&MbufReport::default()).ends_with("the books do NOT balance (while packets moved)\n"));
    }

    #[test]
    fn interfaces_are_told_address_by_address() {
        let report = InterfaceReport {
            name: "lan0".into(),
            up: true,
            mtu: 1500,
            mac: "02:00:00:00:00:01".into(),
            addrs: vec!["192.0.2.1/24".into(), "fe80::1/64".into()],
            in_packets: 12345,
            out_errors: 7,
            ..InterfaceReport::default()
        };
        let down = InterfaceReport {
            name: "wan0".into(),
            mtu: 9000,
            mac: "02:00:00:00:00:02".into(),
            ..Default::default()
        };
        assert_eq!(
            interfaces(&[report, down]),
            "Name    Mtu  Network       Address            Ipkts  Ierrs  Opkts  Oerrs\n\
             lan0   1500  <Link>        02:00:00:00:00:01  12345      0      0      7\n\
             lan0   1500  192.0.2.0/24  192.0.2.1          12345      0      0      7\n\
             lan0   1500  fe80::/64     fe80::1            12345      0      0      7\n\
             wan0*  9000  <Link>        02:00:00:00:00:02      0      0      0      0\n"
        );
    }

    #[test]
    fn routes_are_told_as_netstat_does() {
        let path = |kind: &str, gateway: Option<&str>, interface: Option<&str>| PathReport {
            kind: kind.into(),
            gateway: gateway.map(|g| g.parse().unwrap()),
            interface: interface.map(Into::into),
            mtu: interface.map(|_| 1500),
        };
        let route = |to: &str, source: &str, active, paths| RouteReport {
            to: to.into(),
            source: source.into(),
            active,
            paths,
        };
        let (a, b) = (
            path("gateway", Some("10.0.0.2"), Some("wan0")),
            path("gateway", Some("10.0.0.3"), Some("wan0")),
        );
        let text = routes(&[
            route("0.0.0.0/0", "static", true, vec![a, b]),
            route("192.0.2.0/24", "connected", true, vec![path("connected", None, Some("lan0"))]),
            route("192.0.2.1/32", "local", true, vec![path("local", None, Some("lan0"))]),
            route("192.0.2.255/32", "local", true, vec![path("broadcast", None, Some("lan0"))]),
            route("2001:db8::/32", "static", false, vec![path("reject", None, None)]),
        ]);
        assert_eq!(
            text,
            "Routing tables\n\nInternet:\n\
             Destination   Gateway   Flags  Refs  Use   Mtu  Interface\n\
             default       10.0.0.2  UGS       -    -  1500  wan0\n\
             default       10.0.0.3  UGS       -    -  1500  wan0\n\
             192.0.2.0/24  link      UC        -    -  1500  lan0\n\
             192.0.2.1     link      UHl       -    -  1500  lan0\n\
             192.0.2.255   link      UHb       -    -  1500  lan0\n\
             \nInternet6:\n\
             Destination    Gateway  Flags  Refs  Use  Mtu  Interface\n\
             2001:db8::/32  -        SR        -    -    -  -\n"
        );
    }

    #[test]
    fn counters_are_told_by_protocol_and_zeros_can_be_left_out() {
        let stat = |value, text: &str| Stat { value, text: text.into() };
        let report = StatsReport {
            counters: [
                ("ip.received".to_owned(), stat(5, "packets taken in")),
                ("tcp.x".to_owned(), stat(0, "xs")),
            ]
            .into(),
            ended: [("ip.malformed".to_owned(), stat(1, "header malformed"))].into(),
        };
        assert_eq!(stats(&report, false), "ip:\n\t5 packets taken in\n\t1 header malformed\ntcp:\n\t0 xs\n");
        assert_eq!(stats(&report, true), "ip:\n\t5 packets taken in\n\t1 header malformed\n");
    }

    #[test]
    fn neighbours_are_told_one_a_line() {
        let known = NeighbourReport {
            addr: "192.0.2.10".into(),
            interface: "lan0".into(),
            mac: Some("02:00:00:00:00:10".into()),
            state: "reachable".into(),
            expires_s: Some(1200),
            ..Default::default()
        };
        let unknown = NeighbourReport {
            addr: "fe80::2".into(),
            interface: "wan0".into(),
            state: "incomplete".into(),
            router: true,
            held: 3,
            ..Default::default()
        };
        assert_eq!(
            neighbours(&[known, unknown]),
            "Neighbor    Linklayer Address  Netif     Expire  State       Flags  Held\n\
             192.0.2.10  02:00:00:00:00:10  lan0       1200s  reachable             0\n\
             fe80::2     (incomplete)       wan0   permanent  incomplete  R         3\n"
        );
    }
}
