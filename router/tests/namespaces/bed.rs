//! The gateways, their hosts, and the wire between them.

use crate::netns::{Background, Namespace, run, softnet, unique};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

/// How the gateways are set up.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) workers: usize,
    pub(crate) locking: &'static str,
    /// pf, ALTQ and the tunnel, or plain forwarding.
    pub(crate) tunnel: bool,
    /// Super-frames across the devices.
    pub(crate) offload: bool,
    /// Rules instead of those of `configs/`, and the policies for the gateways' own packets besides.
    pub(crate) rules: Option<&'static str>,
}

pub(crate) const USUAL: Shape =
    Shape { workers: 1, locking: "fine", tunnel: true, offload: true, rules: None };

/// A gateway's process and its directory.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) dir: PathBuf,
    name: &'static str,
}

impl Gateway {
    /// Starts one of the gateways of `configs/`, with its devices renamed and its set-up changed.
    fn start(name: &'static str, tag: &str, bed: &Path, shape: Shape, cpu: usize) -> Gateway {
        let Shape { workers, locking, tunnel, offload, rules } = shape;
        let from =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name.replace("gw", "gateway"));
        let dir = bed.join(name);
        fs::create_dir_all(&dir).unwrap();
        for file in ["pf.conf", "ipsec.conf"] {
            fs::copy(from.join(file), dir.join(file)).unwrap();
        }
        if let Some(rules) = rules {
            fs::write(dir.join("pf.conf"), rules).unwrap();
            let policies = fs::read_to_string(dir.join("ipsec.conf")).unwrap() + &own_policies(name);
            fs::write(dir.join("ipsec.conf"), policies).unwrap();
        }
        fs::set_permissions(dir.join("ipsec.conf"), fs::Permissions::from_mode(0o600)).unwrap();
        let cpus = if workers == 1 { format!("[{cpu}]") } else { "[0, 1]".into() };
        let text = fs::read_to_string(from.join("softnet.toml")).unwrap();
        let lines = text.lines().map(|line| match line.split_whitespace().next() {
            Some("workers") => format!("workers = {workers}\nlocking = \"{locking}\""),
            Some("cpus") => format!("cpus = {cpus}"),
            Some("control") => format!("control = \"{}\"", dir.join("control").display()),
            Some("device") => {
                let line = line.replace("gwa-", &format!("a{tag}")).replace("gwb-", &format!("b{tag}"));
                format!("{line}\noffload = {offload}")
            }
            Some("pf" | "ipsec") if !tunnel => String::new(),
            _ => line.to_owned(),
        });
        fs::write(dir.join("softnet.toml"), lines.collect::<Vec<_>>().join("\n")).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(softnet())
            .args(["run", "-f"])
            .arg(dir.join("softnet.toml"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let gateway = Gateway { child, dir, name };
        let patience = Instant::now() + Duration::from_secs(10);
        while !gateway.ask("status").status.success() {
            assert!(Instant::now() < patience, "{name} did not start: {}", gateway.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        gateway
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn ask(&self, words: &str) -> Output {
        let mut command = Command::new(softnet());
        command.arg("--control").arg(self.dir.join("control")).args(words.split_whitespace());
        command.output().unwrap()
    }

    pub(crate) fn json(&self, words: &str) -> serde_json::Value {
        let output = self.ask(&format!("--json {words}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {words}: {e}: {text}", self.name))
    }

    /// The identity of `netstat -m`, at a quiet moment of a running router.
    fn demand_balance(&self) {
        let books = self.json("netstat -m");
        assert_eq!(books["balanced"], true, "{}: {books:#}", self.name);
        assert_eq!(books["unexplained"], 0, "{}: {books:#}", self.name);
    }

    fn signal(&self, signal: &str) {
        run(&format!("kill -{signal} {}", self.child.id()));
    }

    /// SIGTERM; the exit status says whether the books balanced with nothing held.
    fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        let status = self.child.wait().unwrap();
        let log = self.log();
        assert!(status.success(), "{} ended with {status}: {log}", self.name);
        assert!(log.contains("balanced"), "{} printed no balance: {log}", self.name);
        status
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Only if a test panicked: `stop` has waited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Policies for what one gateway and the far hosts say to each other, seen from this gateway.
fn own_policies(name: &str) -> String {
    let families = [
        [("203.0.113.1", "192.0.2.0/24"), ("203.0.113.2", "198.51.100.0/24")],
        [("2001:db8:ffff::1", "2001:db8:a::/64"), ("2001:db8:ffff::2", "2001:db8:b::/64")],
    ];
    let policies = families.into_iter().flat_map(|[a, b]| {
        let ((near, near_lan), (far, far_lan)) = if name == "gw-a" { (a, b) } else { (b, a) };
        [(near, far_lan), (near_lan, far)].map(|(here, there)| {
            format!(
                "spdadd {here} {there} any -P out ipsec esp/tunnel/{near}-{far}/require;\n\
                 spdadd {there} {here} any -P in ipsec esp/tunnel/{far}-{near}/require;\n"
            )
        })
    });
    policies.collect()
}

pub(crate) struct Bed {
    pub(crate) a: Gateway,
    pub(crate) b: Gateway,
    pub(crate) here: String,
    pub(crate) there: String,
    pub(crate) wan: String,
    /// The wire's end at gateway a.
    pub(crate) wire: String,
    _spaces: [Namespace; 3],
    pub(crate) dir: PathBuf,
}

impl Bed {
    pub(crate) fn new(shape: Shape) -> Bed {
        let id = unique();
        let tag: String = id.chars().filter(char::is_ascii_digit).rev().take(6).collect();
        let dir = std::env::temp_dir().join(format!("softnet-test-{id}"));
        fs::create_dir_all(&dir).unwrap();
        let a = Gateway::start("gw-a", &tag, &dir, shape, 0);
        let b = Gateway::start("gw-b", &tag, &dir, shape, 1);
        let (here, there, wan) = (Namespace::new(), Namespace::new(), Namespace::new());
        for space in [&here, &there] {
            // One address of a family each: an iperf3 server answers from any that it has.
            run(&format!("ip netns exec {} sysctl -qw net.ipv6.conf.default.accept_ra=0", space.name()));
        }
        here.adopt(&format!("a{tag}lan"), &["192.0.2.10/24", "2001:db8:a::10/64"]);
        there.adopt(&format!("b{tag}lan"), &["198.51.100.10/24", "2001:db8:b::10/64"]);
        for (space, v4, v6) in
            [(&here, "192.0.2.1", "2001:db8:a::1"), (&there, "198.51.100.1", "2001:db8:b::1")]
        {
            space.ip(&format!("route add default via {v4}"));
            space.ip(&format!("-6 route add default via {v6}"));
        }
        let device = |side: &str| format!("{side}{tag}wan");
        wire(&wan, &device("a"), "203.0.113.1", "2001:db8:ffff::1", "2001:db8:ffff::2");
        wire(&wan, &device("b"), "203.0.113.2", "2001:db8:ffff::2", "2001:db8:ffff::1");
        std::thread::sleep(Duration::from_millis(300));
        let names = (here.name().to_owned(), there.name().to_owned(), wan.name().to_owned());
        Bed {
            a,
            b,
            here: names.0,
            there: names.1,
            wan: names.2,
            wire: device("a"),
            _spaces: [here, there, wan],
            dir,
        }
    }

    pub(crate) fn inside(space: &str, line: &str) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space]).args(line.split_whitespace());
        command.output().unwrap()
    }

    pub(crate) fn background(space: &str, line: &str) -> Background {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space]).args(line.split_whitespace());
        Background(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Pings; says what was lost, and why, if anything was.
    pub(crate) fn ping(&self, to: &str, count: usize) -> Result<(), String> {
        // The first packets wait for ARP or ND at three links.
        let _ = Self::inside(&self.here, &format!("ping -c 3 -i 0.2 -W 2 {to}"));
        let out = Self::inside(&self.here, &format!("ping -q -c {count} -i 0.002 -W 5 {to}"));
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if text.contains(" 0% packet loss") {
            return Ok(());
        }
        let why = |g: &Gateway| {
            format!("{}:\n{}{}", g.name, g.log(), String::from_utf8_lossy(&g.ask("netstat -s").stdout))
        };
        Err(format!("{to}: {text}\n{}\n{}", why(&self.a), why(&self.b)))
    }

    /// Runs iperf3 and gives back Gb/s received.
    pub(crate) fn iperf(&self, to: &str, arguments: &str, seconds: usize) -> f64 {
        let line = format!("timeout {} iperf3 -c {to} -J -t {seconds} {arguments}", seconds + 30);
        let json = self.measured(&line);
        let end = &json["end"];
        let sum = if end["sum_received"].is_object() { &end["sum_received"] } else { &end["sum"] };
        let gbps = sum["bits_per_second"].as_f64().unwrap_or(0.0) / 1e9;
        println!("iperf3 {to} {arguments}: {gbps:.3} Gb/s");
        assert!(gbps > 0.0, "iperf3 {to} {arguments} moved nothing: {end:#}");
        gbps
    }

    /// What iperf3 says at its end. A server that is not done with the client before is asked again.
    fn measured(&self, line: &str) -> serde_json::Value {
        for _ in 0..20 {
            let out = Self::inside(&self.here, line);
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            match json["error"].as_str() {
                Some(error) if error.contains("busy") => std::thread::sleep(Duration::from_millis(500)),
                None if out.status.success() => return json,
                _ => panic!("{line}: {text}"),
            }
        }
        panic!("{line}: the server is busy for ever");
    }

    pub(crate) fn serve(&self, options: &str) -> Background {
        let server = Self::background(&self.there, &format!("iperf3 -s {options}"));
        std::thread::sleep(Duration::from_millis(400));
        server
    }

    /// Both balance while they run and after they stopped.
    pub(crate) fn stop(self) {
        self.a.demand_balance();
        self.b.demand_balance();
        let Bed { a, b, dir, .. } = self;
        a.stop();
        b.stop();
        let _ = fs::remove_dir_all(dir);
    }
}

/// One side of the wire between the gateways: a namespace that hands packets over and answers ARP and ND for the far side.
/// (A bridge would do as well; not every kernel has one.)
fn wire(wan: &Namespace, device: &str, v4: &str, v6: &str, far: &str) {
    run(&format!("ip link set {device} netns {}", wan.name()));
    let settings = format!(
        "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.{device}.accept_dad=0 \
         net.ipv4.conf.{device}.rp_filter=0 net.ipv4.conf.{device}.send_redirects=0 net.ipv4.conf.{device}.proxy_arp=1 \
         net.ipv6.conf.{device}.proxy_ndp=1 net.ipv4.neigh.{device}.proxy_delay=0 net.ipv6.neigh.{device}.proxy_delay=0"
    );
    run(&format!("ip netns exec {} sysctl -qw {settings}", wan.name()));
    wan.ip(&format!("link set {device} up"));
    wan.ip(&format!("route add {v4}/32 dev {device}"));
    // The hand-over is by destination: without a tunnel it sees the LANs' own.
    let lan = if v4.ends_with(".1") { "192.0.2.0/24" } else { "198.51.100.0/24" };
    wan.ip(&format!("route add {lan} via {v4} dev {device}"));
    wan.ip(&format!("-6 route add {v6}/128 dev {device}"));
    wan.ip(&format!("-6 neigh add proxy {far} dev {device}"));
}

/// What is on the wire and neither ESP nor ARP nor neighbour discovery.
pub(crate) fn others_on_the_wire(pcap: &Path) -> String {
    // The kernel in the middle speaks multicast of its own (MLD, router solicitations).
    let filter = "not esp and not arp and not (ip6 and dst net ff00::/8) and not (icmp6 and ip6[40] >= 133 and ip6[40] <= 137)";
    let out = Command::new("tcpdump").args(["-n", "-r"]).arg(pcap).arg(filter).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub(crate) fn count_esp(pcap: &Path) -> usize {
    let out = Command::new("tcpdump").args(["-n", "-r"]).arg(pcap).arg("esp").output().unwrap();
    String::from_utf8_lossy(&out.stdout).lines().count()
}
