//! pf between two hosts in network namespaces, through TAP devices: translation that the kernel's own tools and scapy
//! see, and reloads that lose nothing.
//!
//! Runs where `SOFTNET_NET_TESTS` is set (`make test-net`); then root and `/dev/net/tun` must be there. `SOFTNET_BIN`
//! names the binary; cargo's own is taken otherwise. `SOFTNET_SOAK=1` is the full size.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod netns;
#[path = "pf_net/sctp.rs"]
mod sctp;

use netns::{Background, Namespace, available, softnet, unique};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// A router between a host inside and a host outside that has no route back.
struct Bed {
    router: Background,
    inside: Namespace,
    outside: Namespace,
    dir: PathBuf,
}

const NAT: &str = "
nat on wan0 inet from 192.0.2.0/24 to any -> (wan0)
rdr on wan0 inet proto tcp from any to (wan0) port 5555 -> 192.0.2.10 port 5201
pass all
";

impl Bed {
    fn new(rules: &str) -> Bed {
        let id = unique();
        let tag: String = id.chars().filter(char::is_ascii_digit).rev().take(6).collect();
        let dir = std::env::temp_dir().join(format!("softnet-pf-{id}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("pf.conf"), rules).unwrap();
        let conf = format!(
            "[router]\nname = \"nat\"\nworkers = 1\ncontrol = \"{}\"\npf = \"pf.conf\"\n\
             [[interface]]\nname = \"lan0\"\ndriver = \"tap\"\ndevice = \"n{tag}lan\"\naddress = [\"192.0.2.1/24\", \"2001:db8:a::1/64\"]\n\
             [[interface]]\nname = \"wan0\"\ndriver = \"tap\"\ndevice = \"n{tag}wan\"\naddress = [\"203.0.113.1/24\"]\n",
            dir.join("control").display()
        );
        fs::write(dir.join("softnet.toml"), conf).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(softnet());
        command.args(["run", "-f"]).arg(dir.join("softnet.toml"));
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let router = Background(child);
        let bed = Bed { router, inside: Namespace::new(), outside: Namespace::new(), dir };
        let patience = Instant::now() + Duration::from_secs(10);
        while !bed.ask("status").status.success() {
            assert!(Instant::now() < patience, "did not start: {}", bed.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        bed.inside.adopt(&format!("n{tag}lan"), &["192.0.2.10/24", "2001:db8:a::10/64"]);
        bed.outside.adopt(&format!("n{tag}wan"), &["203.0.113.10/24"]);
        bed.inside.ip("route add default via 192.0.2.1");
        bed.inside.ip("-6 route add default via 2001:db8:a::1");
        bed
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn ask(&self, words: &str) -> Output {
        let mut command = Command::new(softnet());
        command.arg("--control").arg(self.dir.join("control")).args(words.split_whitespace());
        command.output().unwrap()
    }

    fn command(space: &Namespace, line: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space.name()]).args(line.split_whitespace());
        command
    }

    fn start(space: &Namespace, line: &str) -> Background {
        let mut command = Self::command(space, line);
        Background(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Bits a second that an iperf3 client has moved.
    fn iperf(space: &Namespace, arguments: &str) -> f64 {
        let out = Self::command(space, &format!("timeout 40 iperf3 -J {arguments}")).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "iperf3 {arguments}: {text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let end = &json["end"];
        let sum = if end["sum_received"].is_object() { &end["sum_received"] } else { &end["sum"] };
        let moved = sum["bits_per_second"].as_f64().unwrap_or(0.0);
        println!("iperf3 {arguments}: {:.3} Gb/s", moved / 1e9);
        moved
    }

    /// Pings from inside; what ping said at the end.
    fn ping(&self, count: usize) -> String {
        self.ping_to("203.0.113.10", count)
    }

    fn ping_to(&self, address: &str, count: usize) -> String {
        // Devices that have just come up, and neighbours that are not known yet.
        let warm =
            || Self::command(&self.inside, &format!("ping -c 3 -i 0.2 -W 2 {address}")).output().unwrap();
        let _ = (0..5)
            .map(|_| warm())
            .find(|out| String::from_utf8_lossy(&out.stdout).contains(" 0% packet loss"));
        let line = format!("ping -q -c {count} -i 0.002 -W 5 {address}");
        let out = Self::command(&self.inside, &line).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn stop(mut self) {
        let books: serde_json::Value = serde_json::from_slice(&self.ask("--json netstat -m").stdout).unwrap();
        assert_eq!((&books["balanced"], &books["unexplained"]), (&true.into(), &0.into()), "{books:#}");
        let pid = self.router.0.id();
        netns::run(&format!("kill -TERM {pid}"));
        assert!(self.router.0.wait().unwrap().success(), "{}", self.log());
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn streams_and_pings_cross_a_translation_both_ways() {
    if !available() {
        return;
    }
    let bed = Bed::new(NAT);
    let said = bed.ping(200);
    assert!(said.contains(" 0% packet loss"), "{said}\n{}", bed.log());
    let seconds = if std::env::var_os("SOFTNET_SOAK").is_some() { 30 } else { 1 };
    let server = Bed::start(&bed.outside, "iperf3 -s");
    std::thread::sleep(Duration::from_millis(400));
    for more in ["", "-R", "-P 4", "-u -b 50M -l 1300"] {
        assert!(Bed::iperf(&bed.inside, &format!("-c 203.0.113.10 -t {seconds} {more}")) > 0.0);
    }
    drop(server);
    let states = String::from_utf8_lossy(&bed.ask("pfctl -s states").stdout).into_owned();
    assert!(states.contains("192.0.2.10") && states.contains("(203.0.113.1:"), "{states}");
    // From outside through the redirection.
    let _server = Bed::start(&bed.inside, "iperf3 -s");
    std::thread::sleep(Duration::from_millis(400));
    assert!(Bed::iperf(&bed.outside, &format!("-c 203.0.113.1 -p 5555 -t {seconds}")) > 0.0);
    bed.stop();
}

#[test]
fn connections_are_opened_by_the_router_in_both_ends_places() {
    if !available() {
        return;
    }
    let bed = Bed::new(
        "nat on wan0 inet from 192.0.2.0/24 to any -> (wan0)\npass all\npass in on lan0 inet proto tcp to port 5201 synproxy state\n",
    );
    let said = bed.ping(5);
    assert!(said.contains(" 0% packet loss"), "{said}");
    let _server = Bed::start(&bed.outside, "iperf3 -s");
    std::thread::sleep(Duration::from_millis(400));
    assert!(Bed::iperf(&bed.inside, "-c 203.0.113.10 -t 1") > 0.0, "{}", bed.log());
    assert!(Bed::iperf(&bed.inside, "-c 203.0.113.10 -t 1 -R") > 0.0, "{}", bed.log());
    bed.stop();
}

#[test]
fn connections_are_opened_with_cookies() {
    if !available() {
        return;
    }
    let bed = Bed::new(
        "set syncookies always\nnat on wan0 inet from 192.0.2.0/24 to any -> (wan0)\n\
         pass all\npass in on lan0 inet proto tcp to port 5201\n",
    );
    let said = bed.ping(5);
    assert!(said.contains(" 0% packet loss"), "{said}\n{}", bed.log());
    let _server = Bed::start(&bed.outside, "iperf3 -s");
    std::thread::sleep(Duration::from_millis(400));
    for more in ["", "-R", "-P 4"] {
        assert!(Bed::iperf(&bed.inside, &format!("-c 203.0.113.10 -t 1 {more}")) > 0.0, "{}", bed.log());
    }
    let info = String::from_utf8_lossy(&bed.ask("pfctl -v -s info").stdout).into_owned();
    let count = |name: &str| -> u64 {
        let line = info.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        line.trim_start().strip_prefix(name).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    // Each run has one connection to speak of the others: 2 + 2 + 5.
    assert!(count("syncookies sent") >= 9 && count("syncookies validated") >= 9, "{info}");
    bed.stop();
}

#[test]
fn a_host_with_ipv6_alone_pings_and_streams_to_one_with_ipv4_alone() {
    if !available() {
        return;
    }
    let bed = Bed::new("pass all\npass in on lan0 inet6 from any to 64:ff9b::/96 af-to inet from (wan0)\n");
    let there = "64:ff9b::203.0.113.10";
    let said = bed.ping_to(there, 200);
    assert!(said.contains(" 0% packet loss"), "{said}\n{}", bed.log());
    let seconds = if std::env::var_os("SOFTNET_SOAK").is_some() { 30 } else { 1 };
    let _server = Bed::start(&bed.outside, "iperf3 -s");
    std::thread::sleep(Duration::from_millis(400));
    for more in ["", "-R", "-P 4", "-u -b 50M -l 1200"] {
        assert!(
            Bed::iperf(&bed.inside, &format!("-6 -c {there} -t {seconds} {more}")) > 0.0,
            "{}",
            bed.log()
        );
    }
    let states = String::from_utf8_lossy(&bed.ask("pfctl -s states").stdout).into_owned();
    assert!(states.contains("203.0.113.1:") && states.contains("2001:db8:a::10"), "{states}");
    bed.stop();
}

#[test]
fn reloads_under_load_lose_no_packet() {
    if !available() {
        return;
    }
    let reloads = if std::env::var_os("SOFTNET_SOAK").is_some() { 1000 } else { 40 };
    let bed = Bed::new(NAT);
    let file = bed.dir.join("pf.conf").display().to_string();
    let said = std::thread::scope(|scope| {
        let pings = scope.spawn(|| bed.ping(if reloads > 40 { 20_000 } else { 600 }));
        for _ in 0..reloads {
            let done = bed.ask(&format!("pfctl -f {file}"));
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        pings.join().unwrap()
    });
    assert!(said.contains(" 0% packet loss"), "{said}\n{}", bed.log());
    bed.stop();
}

#[test]
fn a_host_speaks_and_is_reached_under_its_other_address() {
    if !available() {
        return;
    }
    let bed = Bed::new("binat on wan0 inet from 192.0.2.10 to any -> 203.0.113.1\npass all\n");
    let said = bed.ping(50);
    assert!(said.contains(" 0% packet loss"), "{said}\n{}", bed.log());
    let server = Bed::start(&bed.outside, "iperf3 -s");
    std::thread::sleep(Duration::from_millis(400));
    assert!(Bed::iperf(&bed.inside, "-c 203.0.113.10 -t 1") > 0.0);
    drop(server);
    let states = String::from_utf8_lossy(&bed.ask("pfctl -s states").stdout).into_owned();
    assert!(states.contains("203.0.113.1:"), "{states}");
    // Nobody outside has asked for this: the other direction of the same rule.
    let _server = Bed::start(&bed.inside, "iperf3 -s");
    std::thread::sleep(Duration::from_millis(400));
    assert!(Bed::iperf(&bed.outside, "-c 203.0.113.1 -t 1") > 0.0, "{}", bed.log());
    assert!(Bed::iperf(&bed.outside, "-c 203.0.113.1 -t 1 -R") > 0.0, "{}", bed.log());
    bed.stop();
}

#[test]
fn a_flood_of_connections_puts_its_source_into_the_overload_table() {
    if !available() {
        return;
    }
    let bed = Bed::new(
        "nat on wan0 inet from 192.0.2.0/24 to any -> (wan0)\ntable <flooders> persist\n\
         block in quick on lan0 from <flooders>\npass all\n\
         pass in on lan0 inet proto tcp keep state (max-src-conn-rate 10/30, overload <flooders> flush global)\n",
    );
    let said = bed.ping(5);
    assert!(said.contains(" 0% packet loss"), "{said}\n{}", bed.log());
    let _server = Bed::start(&bed.outside, "iperf3 -s");
    std::thread::sleep(Duration::from_millis(400));
    assert!(Bed::iperf(&bed.inside, "-c 203.0.113.10 -t 1") > 0.0, "a few connections are nobody's flood");
    let flooders = || String::from_utf8_lossy(&bed.ask("pfctl -t flooders -T show").stdout).into_owned();
    assert_eq!(flooders().trim(), "");
    // Twenty connections at once; it does not come to its end.
    let _ = Bed::command(&bed.inside, "timeout 5 iperf3 -c 203.0.113.10 -t 30 -P 20").output();
    assert_eq!(flooders().trim(), "192.0.2.10", "{}", bed.log());
    let states = String::from_utf8_lossy(&bed.ask("pfctl -s states").stdout).into_owned();
    // Those of wan0 have another source, as the wire shows them (BSD: `pf_src_connlimit`).
    assert!(!states.contains("<- 192.0.2.10:"), "its states are gone: {states}");
    assert!(!bed.ping(5).contains(" 0% packet loss"), "nothing of it passes any more");
    bed.stop();
}
