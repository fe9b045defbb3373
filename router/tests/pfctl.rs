//! `softnet pfctl` at a running router with TAP devices: a client behind one, a server behind the other, each the kernel's
//! own stack in a network namespace.
//!
//! Runs where `SOFTNET_NET_TESTS` is set (`make test-net`); then root and `/dev/net/tun` must be there.

#![allow(clippy::unwrap_used, reason = "a test")]

mod netns;

use netns::{Namespace, available, run, softnet, unique};
use pcap_file::pcapng::{Block, PcapNgReader};
use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// A router between a client (192.0.2.2) and a server (198.51.100.2).
struct Bed {
    client: Namespace,
    server: Namespace,
    child: Child,
    dir: PathBuf,
}

impl Bed {
    fn start(rules: &str) -> Bed {
        Bed::with("pf = \"pf.conf\"\n", rules)
    }

    /// With these further lines about the router, and this beside them as pf.conf.
    fn with(lines: &str, rules: &str) -> Bed {
        let tag = unique();
        let dir = std::env::temp_dir().join(format!("softnet-pfctl-{tag}"));
        fs::create_dir_all(&dir).unwrap();
        let (lan, wan) = (format!("pc{tag}l"), format!("pc{tag}w"));
        let interface = |name: &str, device: &str, v4: &str, v6: &str| {
            format!(
                "[[interface]]\nname = \"{name}\"\ndriver = \"tap\"\ndevice = \"{device}\"\naddress = [\"{v4}\", \"{v6}\"]\n"
            )
        };
        let conf = format!(
            "[router]\nname = \"pfctl{tag}\"\nworkers = 1\nclusters = 4096\njumbos = 64\ncontrol = \"{}\"\n{lines}{}{}",
            dir.join("control").display(),
            interface("lan0", &lan, "192.0.2.1/24", "2001:db8:a::1/64"),
            interface("wan0", &wan, "198.51.100.1/24", "2001:db8:b::1/64"),
        );
        fs::write(dir.join("softnet.toml"), conf).unwrap();
        fs::write(dir.join("pf.conf"), rules).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(softnet())
            .args(["run", "-f"])
            .arg(dir.join("softnet.toml"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut bed = Bed { client: Namespace::new(), server: Namespace::new(), child, dir };
        bed.wait_for_router();
        bed.client.adopt(&lan, &["192.0.2.2/24", "2001:db8:a::2/64"]);
        bed.client.ip("route add default via 192.0.2.1");
        bed.client.ip("-6 route add default via 2001:db8:a::1");
        bed.server.adopt(&wan, &["198.51.100.2/24", "2001:db8:b::2/64"]);
        bed.server.ip("route add default via 198.51.100.1");
        bed.server.ip("-6 route add default via 2001:db8:b::1");
        bed
    }

    fn wait_for_router(&mut self) {
        let patience = Instant::now() + Duration::from_secs(20);
        while !self.ask(&["status"]).status.success() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(self.child.try_wait().unwrap().is_none() && Instant::now() < patience, "{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ask(&self, words: &[&str]) -> Output {
        Command::new(softnet()).arg("--control").arg(self.dir.join("control")).args(words).output().unwrap()
    }

    /// `softnet pfctl`: exit status, standard output, standard error.
    fn pfctl(&self, words: &str) -> (i32, String, String) {
        let words: Vec<&str> = ["pfctl"].into_iter().chain(words.split_whitespace()).collect();
        let output = self.ask(&words);
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// Whether the client reaches the server.
    fn pings(&self, to: &str) -> bool {
        self.pings_with(to, 56)
    }

    /// The same with so many octets of data.
    fn pings_with(&self, to: &str, size: usize) -> bool {
        let mut ping = Command::new("ip");
        let size = size.to_string();
        ping.args(["netns", "exec", self.client.name(), "ping", "-c", "1", "-W", "1", "-s", &size, to]);
        ping.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Whether the server refuses a connection of the client: what a rule blocks does not even come back.
    fn is_refused(&self) -> bool {
        let mut connect = Command::new("ip");
        connect.args(["netns", "exec", self.client.name(), "timeout", "2", "bash", "-c"]);
        let output = connect.arg("echo > /dev/tcp/198.51.100.2/9").output().unwrap();
        String::from_utf8_lossy(&output.stderr).contains("refused")
    }

    /// A counter of `netstat -s`.
    fn counter(&self, name: &str) -> u64 {
        let stats = self.ask(&["--json", "netstat", "-s"]);
        let stats: serde_json::Value = serde_json::from_slice(&stats.stdout).unwrap();
        stats["counters"][name]["value"].as_u64().unwrap()
    }

    /// Stops the router, whose books must balance with nothing held.
    fn stop(mut self) {
        let books = self.ask(&["--json", "netstat", "-m"]);
        let books: serde_json::Value = serde_json::from_slice(&books.stdout).unwrap();
        assert_eq!((&books["balanced"], &books["unexplained"]), (&true.into(), &0.into()), "{books:#}");
        run(&format!("kill -TERM {}", self.child.id()));
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn a_table_is_changed_from_the_command_line_and_decides_on_real_packets() {
    if !available() {
        return;
    }
    let bed =
        Bed::start("table <bad> persist counters\nblock in quick from <bad> to any\npass all no state\n");
    assert!(bed.pings("198.51.100.2"), "nobody is bad yet");
    let (status, _, said) = bed.pfctl("-t bad -T add 192.0.2.0/24 !192.0.2.7");
    assert_eq!((status, said.as_str()), (0, "2/2 addresses added.\n"));
    assert!(!bed.pings("198.51.100.2"), "the client is bad");
    assert_eq!(bed.pfctl("-t bad -T show").1, "   192.0.2.0/24\n  !192.0.2.7\n");
    let shown = bed.pfctl("-t bad -T show -v").1;
    assert!(shown.contains("\tIn/Block:    [ Packets: 1 "), "{shown}");
    let (status, tested, said) = bed.pfctl("-t bad -T test -vv 192.0.2.2 192.0.2.7");
    assert_eq!((status, said.as_str()), (2, "1/2 addresses match.\n"));
    assert_eq!(tested, "M  192.0.2.2\t 192.0.2.0/24\n   192.0.2.7\t!192.0.2.7\n");
    assert_eq!(bed.pfctl("-t bad -T replace 203.0.113.9").2, "1 addresses added.\n2 addresses deleted.\n");
    assert!(bed.pings("198.51.100.2"), "the client is good again");
    assert_eq!(bed.pfctl("-t bad -T flush").2, "1 addresses deleted.\n");
    assert_eq!(bed.pfctl("-t new -T add 203.0.113.9").2, "1 table created.\n1/1 addresses added.\n");
    assert_eq!(bed.pfctl("-sT").1, "bad\nnew\n");
    let (status, _, said) = bed.pfctl("-t none -T show");
    assert_eq!((status, said.as_str()), (1, "softnet: Table does not exist\n"));
    bed.stop();
}

#[test]
fn tables_come_from_files_and_a_file_with_a_fault_changes_nothing() {
    if !available() {
        return;
    }
    let bed = Bed::start("block in all\npass out all\n");
    let (rules, list) = (bed.dir.join("tables.conf"), bed.dir.join("friends"));
    fs::write(&list, "# friends\n192.0/16 !192.0.2.7 ; not this one\n").unwrap();
    let text = "table <ok> persist file \"friends\" file \"/dev/null\" { 203.0.113.9 }\n\
                block in all\npass out all\npass in from <ok>\n";
    fs::write(&rules, text).unwrap();
    assert_eq!(bed.pfctl(&format!("-f {}", rules.display())), (0, String::new(), String::new()));
    assert!(bed.pings("198.51.100.2"), "the client is in the file");
    let shown = "   192.0.0.0/16\n  !192.0.2.7\n   203.0.113.9\n";
    assert_eq!(bed.pfctl("-t ok -T show").1, shown);
    fs::write(&list, "192.0/16\n192.0.2.300\n").unwrap();
    for load in [format!("-f {}", rules.display()), format!("-nf {}", rules.display())] {
        let (status, _, said) = bed.pfctl(&load);
        assert!(status == 1 && said.contains("friends:2:1: `192.0.2.300` is no address"), "{said}");
    }
    for word in ["add", "replace"] {
        let (status, _, said) = bed.pfctl(&format!("-t ok -T {word} -f {}", list.display()));
        assert!(status == 1 && said.contains("friends:2:1: `192.0.2.300` is no address"), "{said}");
    }
    assert_eq!(bed.pfctl("-t ok -T show").1, shown, "nothing of a file with a fault takes effect");
    fs::write(&list, "lan0:network\n10/8 # and these\n").unwrap();
    let replaced = bed.pfctl(&format!("-t ok -T replace -f {} 10.1.2.3", list.display()));
    assert_eq!(replaced.2, "4 addresses added.\n3 addresses deleted.\n");
    let shown = "   10.0.0.0/8\n   10.1.2.3\n   192.0.2.0/24\n   2001:db8:a::/64\n";
    assert_eq!(bed.pfctl("-t ok -T show").1, shown);
    bed.stop();
}

#[test]
fn pf_is_switched_loaded_flushed_and_refused_as_pfctl_does() {
    if !available() {
        return;
    }
    let bed = Bed::start("block all\n");
    assert!(!bed.pings("198.51.100.2"));
    assert_eq!(bed.pfctl("-d").2, "pf disabled\n");
    assert!(bed.pings("198.51.100.2"), "a pf that is off passes everything");
    assert_eq!((bed.pfctl("-d").0, bed.pfctl("-e").2.as_str()), (1, "pf enabled\n"));
    assert!(!bed.pings("198.51.100.2"));
    let file = bed.dir.join("other.conf");
    fs::write(&file, "pass all\nblokc in all\n").unwrap();
    let (status, _, said) = bed.pfctl(&format!("-f {}", file.display()));
    assert!(status == 1 && said.contains("other.conf:2:1") && said.contains("pf rules not loaded"), "{said}");
    assert!(!bed.pings("198.51.100.2"), "nothing of a rejected file takes effect");
    fs::write(&file, "pass quick inet proto icmp label ping\nblock all\n").unwrap();
    let (status, printed, _) = bed.pfctl(&format!("-nvf {}", file.display()));
    assert_eq!((status, printed.lines().count()), (0, 2), "{printed}");
    assert!(!bed.pings("198.51.100.2"), "-n changes nothing");
    assert_eq!(bed.pfctl(&format!("-qf {}", file.display())), (0, String::new(), String::new()));
    assert!(bed.pings("198.51.100.2"));
    assert_eq!(bed.pfctl("-ss").1.lines().count(), 2);
    let (_, labels, _) = bed.pfctl("-sl");
    assert!(labels.starts_with("ping "), "{labels}");
    assert_eq!(bed.pfctl("-k 192.0.2.0/24").2, "killed 2 states from 1 sources and 0 destinations\n");
    assert!(bed.pings("198.51.100.2"));
    assert_eq!(bed.pfctl("-k label -k ping").2, "killed 2 states\n");
    assert!(bed.pings("198.51.100.2"));
    assert_eq!(bed.pfctl("-F states").2, "2 states cleared\n");
    assert_eq!(bed.pfctl("-F rules").2, "rules cleared\n");
    assert_eq!(bed.pfctl("-sr").1, "");
    bed.stop();
}

#[test]
fn loading_does_not_enable_and_a_rule_for_one_packet_is_hidden_when_it_has_had_it() {
    if !available() {
        return;
    }
    let bed = Bed::with("", "");
    let file = bed.dir.join("once.conf");
    fs::write(&file, "block all\npass inet proto icmp no state once\n").unwrap();
    assert_eq!(bed.pfctl(&format!("-f {}", file.display())).0, 0);
    assert_eq!(bed.pfctl("-s Running").1, "Disabled\n");
    assert!(bed.pings("198.51.100.2"), "pf is off");
    assert_eq!(bed.pfctl("-sr").1.lines().count(), 2, "and loaded");
    assert_eq!(bed.pfctl("-e").2, "pf enabled\n");
    assert!(!bed.pings("198.51.100.2"), "the question passes in, and not out");
    assert_eq!(bed.pfctl("-sr").1, "block drop all\n");
    assert!(bed.pfctl("-sr -v").1.contains("once # expired\n"));
    bed.stop();
}

#[test]
fn a_reload_that_names_a_pf_conf_turns_pf_on_unless_it_was_turned_off() {
    if !available() {
        return;
    }
    let bed = Bed::with("", "block all\n");
    let (conf, file) = (bed.dir.join("softnet.toml"), bed.dir.join("other.conf"));
    fs::write(&file, "pass all\n").unwrap();
    assert_eq!(bed.pfctl(&format!("-f {}", file.display())).0, 0);
    assert_eq!(bed.pfctl("-s Running").1, "Disabled\n");
    let named = fs::read_to_string(&conf).unwrap().replace("clusters", "pf = \"pf.conf\"\nclusters");
    fs::write(&conf, &named).unwrap();
    let reload = || assert!(bed.ask(&["reload"]).status.success());
    reload();
    assert_eq!(bed.pfctl("-s Running").1, "Enabled\n", "as it is after a start with this file");
    assert!(!bed.pings("198.51.100.2"));
    assert_eq!(bed.pfctl("-d").2, "pf disabled\n");
    reload();
    assert_eq!(bed.pfctl("-s Running").1, "Disabled\n", "what was said stays");
    assert!(bed.pings("198.51.100.2"));
    bed.stop();
}

#[test]
fn an_operating_system_is_told_by_its_syns_and_states_are_killed_by_gateway() {
    if !available() {
        return;
    }
    let bed = Bed::start("pass\n");
    let (os, file) = (bed.dir.join("pf.os"), bed.dir.join("os.conf"));
    // What the kernel under this test sends, whatever its window: M, S, T, N, W.
    fs::write(&os, "*:64:1:60:M*,S,T,N,W*:Linux:6:test:Linux\n1:1:0:40:.:Nobody:::nobody\n").unwrap();
    let load = |rules: &str| {
        fs::write(&file, format!("set fingerprints \"pf.os\"\n{rules}")).unwrap();
        bed.pfctl(&format!("-f {}", file.display()))
    };
    for (os, wanted) in [("Linux", true), ("Linux 6 test", true), ("Nobody", false), ("unknown", false)] {
        let (status, _, said) = load(&format!("block in on lan0\npass in proto tcp from any os \"{os}\"\n"));
        assert_eq!(status, 0, "{said}");
        assert_eq!(bed.is_refused(), wanted, "{os}");
    }
    assert_eq!(bed.pfctl("-s osfp").1.lines().nth(4), Some("Linux\t6\ttest\t"));
    assert_eq!(bed.pfctl("-F osfp").2, "OS fingerprints cleared\n");
    assert_eq!(bed.pfctl("-s osfp").1, "");
    let (status, _, said) = load("pass in proto tcp from any os \"BeOS\"\n");
    assert!(status == 1 && said.contains("os.conf:2:31: no fingerprint is of `BeOS`"), "{said}");

    assert_eq!(load("pass in on lan0 route-to (wan0 198.51.100.2) inet proto icmp\n").0, 0);
    assert!(bed.pings("198.51.100.2"));
    assert_eq!(bed.pfctl("-k gateway -k 198.51.100.9").2, "killed 0 states\n");
    assert_eq!(bed.pfctl("-k gateway -k 198.51.100.0/24").2, "killed 1 states\n");
    bed.stop();
}

#[test]
fn the_debug_level_says_what_is_told_of_packets_that_end() {
    if !available() {
        return;
    }
    let rules = "block all\npass in on lan0 proto udp keep state (max 1)\npass out\n";
    let bed = Bed::start(rules);
    let level = |bed: &Bed| {
        let (_, info, _) = bed.pfctl("-si");
        info.lines().next().unwrap().rsplit_once("Debug: ").unwrap().1.to_owned()
    };
    let told = |bed: &Bed| {
        let log = fs::read_to_string(bed.dir.join("log")).unwrap();
        log.lines().filter(|l| l.contains("pf: states limit reached: udp in on lan0 192.0.2.2:")).count()
    };
    let datagrams = |bed: &Bed| {
        let mut send = Command::new("ip");
        send.args(["netns", "exec", bed.client.name(), "bash", "-c"]);
        let send = send.arg("for i in 1 2 3 4; do echo > /dev/udp/198.51.100.2/9; sleep 0.05; done");
        assert!(send.status().unwrap().success());
        std::thread::sleep(Duration::from_millis(1200));
    };
    assert_eq!(level(&bed), "Urgent");
    assert_eq!(bed.pfctl("-s creatorids").1, "Creator IDs:\n");
    datagrams(&bed);
    assert_eq!(told(&bed), 0, "a limit that is reached is not urgent");
    let said = (0, String::new(), "debug level set to 'misc'\n".to_owned());
    assert_eq!(bed.pfctl("-x m"), said);
    assert_eq!(level(&bed), "Misc");
    datagrams(&bed);
    let times = told(&bed);
    assert!((1..=3).contains(&times), "{times}");
    // Rules alone and -m leave it, a file says it or resets it.
    let file = bed.dir.join("pf.conf").display().to_string();
    for (words, wanted) in [
        (format!("-R -f {file}"), "Misc"),
        (format!("-m -f {file}"), "Misc"),
        (format!("-f {file}"), "Urgent"),
    ] {
        assert_eq!(bed.pfctl(&words).0, 0, "{words}");
        assert_eq!(level(&bed), wanted, "{words}");
    }
    fs::write(&file, format!("set debug none\n{rules}")).unwrap();
    assert_eq!(bed.pfctl(&format!("-f {file}")).0, 0);
    assert_eq!(level(&bed), "None");
    assert_eq!(bed.pfctl("-F Reset").0, 0);
    assert_eq!(level(&bed), "Urgent");
    // One router, one number, as long as it has states.
    let (_, ids, _) = bed.pfctl("-s creatorids");
    let id = ids.strip_prefix("Creator IDs:\n").and_then(|id| id.strip_suffix('\n')).unwrap();
    assert_eq!(id.len(), 8, "{ids}");
    let (_, states, _) = bed.pfctl("-vvss");
    assert!(states.contains(&format!(" creatorid: {id}\n")), "{states}");
    let state = states.split("   id: ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert_eq!(bed.pfctl(&format!("-k id -k {state}/00000000")).2, "killed 0 states\n");
    assert_eq!(bed.pfctl(&format!("-k id -k {state}/{id}")).2, "killed 1 states\n");
    bed.stop();
}

#[test]
fn options_say_whose_states_are_and_what_an_interface_has_carried() {
    if !available() {
        return;
    }
    let bed = Bed::start(
        "set loginterface lan0\nset hostid 0x1234abcd\nset keepcounters\ntable <t> persist { 127.0.0.1 }\n\
         pass ridentifier 7\nblock in proto tcp to port 80\n",
    );
    assert!(bed.pings("198.51.100.2"));
    let (_, info, _) = bed.pfctl("-s info");
    assert!(info.contains("Interface Stats for lan0              IPv4             IPv6\n"), "{info}");
    assert!(info.contains("    Passed                               1 "), "{info}");
    assert!(!info.contains("Hostid"), "{info}");
    let (_, info, _) = bed.pfctl("-v -s info");
    assert!(info.contains("Hostid:   0x1234abcd\n"), "{info}");
    assert_eq!(bed.pfctl("-s creatorids").1, "Creator IDs:\n1234abcd\n");
    assert!(bed.pfctl("-vvss").1.contains(" creatorid: 1234abcd\n"));
    let (_, rules, _) = bed.pfctl("-s rules");
    assert!(rules.contains("port = http\n") && rules.contains(" ridentifier 7"), "{rules}");
    assert!(bed.pfctl("-S -P -s rules").1.contains("port = 80\n"));
    // Names are those of this machine's resolver; a documentation address has none.
    assert!(bed.pfctl("-r -s states").1.contains("198.51.100.2"));
    assert!(bed.pfctl("-r -t t -T show").1.contains("127.0.0.1\t(localhost"));
    assert_eq!(bed.pfctl("-F info").0, 0);
    let (_, info, _) = bed.pfctl("-s info");
    assert!(info.contains("    Passed                               0 "), "{info}");
    bed.stop();
}

#[test]
fn logged_packets_are_written_for_tcpdump() {
    if !available() {
        return;
    }
    let bed = Bed::start(
        "pass out\nanchor \"web\" {\n pass in log (all) on lan0 inet proto icmp\n}\n\
         block in log on lan0 inet proto tcp\nblock in log (to pflog1) on lan0 inet proto udp\n",
    );
    let file = bed.dir.join("log.pcapng");
    let mut capture = Command::new(softnet());
    capture
        .arg("--control")
        .arg(bed.dir.join("control"))
        .args(["capture", "pflog0", "-c", "3", "-w"])
        .arg(&file);
    let mut capture = capture.stdout(Stdio::null()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(10);
    while fs::metadata(&file).map_or(0, |m| m.len()) == 0 {
        assert!(Instant::now() < patience, "no capture begins");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(bed.pings("198.51.100.2"));
    assert!(!bed.is_refused());
    assert!(capture.wait().unwrap().success());
    let read = Command::new("tcpdump").args(["-n", "-e", "-r"]).arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&read.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let said = [
        "rule 1.web.0/0(match): pass in on lan0: 192.0.2.2 > 198.51.100.2: ICMP echo request",
        "rule 1.web.0/0(match): pass out on lan0: 198.51.100.2 > 192.0.2.2: ICMP echo reply",
        "rule 2/0(match): block in on lan0: 192.0.2.2.",
    ];
    assert_eq!(lines.len(), said.len(), "{text}");
    assert!(lines.iter().zip(said).all(|(line, said)| line.contains(said)), "{text}");
    bed.stop();
}

/// A packet as a pcapng of pflog has it: protocol, source and destination port, and who has its socket.
fn logged(file: &std::path::Path) -> Vec<(u8, u16, u16, [u32; 4])> {
    let mut reader = PcapNgReader::new(fs::File::open(file).unwrap()).unwrap();
    let mut found = Vec::new();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.unwrap() else { continue };
        let (header, data) = packet.data.split_at(pf::log::HEADER);
        let owners =
            std::array::from_fn(|i| u32::from_ne_bytes(header[44 + 4 * i..48 + 4 * i].try_into().unwrap()));
        let port = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
        found.push((data[9], port(20), port(22), owners));
    }
    found
}

#[test]
fn a_log_names_the_user_of_the_routers_own_sockets() {
    if !available() {
        return;
    }
    let bed = Bed::start(
        "nat on wan0 inet proto tcp from 198.51.100.1 to any port 9 -> 198.51.100.1 port 40000:40100\n\
         pass in log (all, user) on lan0 inet proto { tcp udp } no state\n\
         pass out log (all, user) on wan0 inet proto tcp no state\npass in on wan0 no state\npass out on lan0 no state\n",
    );
    let file = bed.dir.join("user.pcapng");
    let mut capture = Command::new(softnet());
    capture.arg("--control").arg(bed.dir.join("control")).args(["capture", "pflog0", "-w"]).arg(&file);
    let mut capture = capture.stdout(Stdio::null()).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(10);
    while fs::metadata(&file).map_or(0, |m| m.len()) == 0 {
        assert!(Instant::now() < patience, "no capture begins");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Through the router, from it, and to it.
    assert!(bed.is_refused());
    assert_ne!(bed.ask(&["nc", "198.51.100.2", "9"]).status.code(), Some(0), "nobody listens there");
    let mut listener = Command::new(softnet());
    listener.arg("--control").arg(bed.dir.join("control")).args(["nc", "-u", "-l", "5353"]);
    let mut listener = listener.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    for port in [5353, 5354] {
        let mut send = Command::new("ip");
        send.args(["netns", "exec", bed.client.name(), "bash", "-c"]);
        assert!(send.arg(format!("echo > /dev/udp/192.0.2.1/{port}")).status().unwrap().success());
    }
    std::thread::sleep(Duration::from_millis(500));
    run(&format!("kill -INT {}", capture.id()));
    capture.wait().unwrap();
    let _ = listener.kill();
    listener.wait().unwrap();

    let router = [rustix::process::getuid().as_raw(), bed.child.id()];
    let nobody = [u32::MAX, 100_000];
    let packets = logged(&file);
    assert!(packets.iter().all(|(.., owners)| owners[2..] == router), "{packets:?}");
    let of = |proto: u8, to: u16| packets.iter().filter(move |p| p.0 == proto && p.2 == to);
    let owners = |proto: u8, to: u16| of(proto, to).map(|p| [p.3[0], p.3[1]]).collect::<Vec<_>>();
    assert_eq!(owners(17, 5353), [router], "{packets:?}");
    assert_eq!(owners(17, 5354), [nobody], "{packets:?}");
    // The client's segment in and out, then that of the router, whose socket has another port.
    assert_eq!(owners(6, 9), [nobody, nobody, router], "{packets:?}");
    let own = of(6, 9).next_back().unwrap();
    assert!((40_000..=40_100).contains(&own.1), "{packets:?}");
    if let Ok(read) = Command::new("tcpdump").args(["-n", "-e", "-r"]).arg(&file).output() {
        let text = String::from_utf8_lossy(&read.stdout).into_owned();
        assert_eq!(text.lines().count(), packets.len(), "{text}");
        assert!(text.contains("pass out on wan0: 198.51.100.1."), "{text}");
    }
    bed.stop();
}

#[test]
fn an_anchor_is_loaded_shown_and_flushed_without_touching_the_rest() {
    if !available() {
        return;
    }
    let bed = Bed::start("block all\nanchor \"app/*\" all\npass out all\n");
    let file = bed.dir.join("web.conf");
    fs::write(
        &file,
        "table <ok> { 192.0.2.2 }\npass in quick inet proto icmp from <ok> keep state (icmp.error 600)\n",
    )
    .unwrap();
    assert!(!bed.pings("198.51.100.2"));
    let load = format!("-a app/web -f {}", file.display());
    assert_eq!(bed.pfctl(&load), (0, String::new(), String::new()));
    assert!(bed.pings("198.51.100.2"), "the anchor lets the client through");
    let rule = "pass in quick inet proto icmp from <ok> to any keep state (icmp.error 600)\n";
    assert_eq!(bed.pfctl("-a app/web -sr").1, rule);
    assert_eq!(bed.pfctl("-a app/web -sT").1, "ok\n");
    assert_eq!(bed.pfctl("-s Anchors").1, "  app\n");
    assert_eq!(bed.pfctl("-vs Anchors").1, "  app\n  app/web\n");
    let all = bed.pfctl("-a * -sr").1;
    let braces = format!("anchor \"app/*\" all {{\n  anchor \"web\" all {{\n    {rule}  }}\n}}\n");
    assert!(all.starts_with("block drop all\n") && all.contains(&braces), "{all}");
    assert!(bed.pfctl("-vsr").1.contains("[ Evaluations: "), "counters with -v");
    fs::write(&file, "pass in from <ok\n").unwrap();
    let (status, _, said) = bed.pfctl(&load);
    assert!(status == 1 && said.contains("web.conf:1:"), "{said}");
    assert!(bed.pfctl("-a app/none -sr").2.contains("Anchor 'app/none' not found."));
    assert_eq!(bed.pfctl("-a app/web -sr").1, rule, "nothing of a rejected file takes effect");
    assert!(bed.ask(&["reload"]).status.success());
    assert_eq!(bed.pfctl("-a app/web -sr").1, rule, "a reload of the main ruleset leaves it alone");
    let packet = "in on lan0 proto icmp from 192.0.2.2 to 198.51.100.9";
    let explain = |rules: &str| {
        let output = bed.ask(&["pfctl", "--explain", packet]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(rules), "{said}");
        output.status.code()
    };
    assert_eq!(explain("decides    "), Some(0));
    assert_eq!(bed.pfctl("-a app/web -F rules").2, "rules cleared\n");
    assert_eq!(explain("blocked: "), Some(1));
    assert!(!bed.pings("198.51.100.2"));
    assert!(bed.pfctl("-ss").1.contains("192.0.2.2"), "the state of the first ping stays");
    bed.stop();
}

#[test]
fn fragments_of_the_kernel_are_one_datagram_for_pf_and_fragments_again_on_the_wire() {
    if !available() {
        return;
    }
    let rules = "block all\npass inet proto icmp icmp-type echoreq\npass inet6 proto icmp6\n";
    let bed = Bed::start(rules);
    for to in ["198.51.100.2", "2001:db8:b::2"] {
        assert!(bed.pings(to), "{to}");
        // A fragment but the first has no ICMP type, and belongs to no state.
        assert!(!bed.pings_with(to, 4000) || to.contains(':'), "{to}");
    }
    fs::write(bed.dir.join("pf.conf"), format!("scrub in all fragment reassemble\n{rules}")).unwrap();
    assert!(bed.ask(&["reload"]).status.success());
    for to in ["198.51.100.2", "2001:db8:b::2"] {
        assert!(bed.pings_with(to, 4000), "{to} in fragments");
    }
    assert_eq!(bed.counter("pf.reassembled"), 4);
    assert_eq!(bed.counter("pf.fragments"), 12);
    fs::write(bed.dir.join("pf.conf"), format!("set reassemble yes\n{rules}")).unwrap();
    assert!(bed.ask(&["reload"]).status.success());
    assert!(bed.pings_with("198.51.100.2", 4000));
    bed.stop();
}
