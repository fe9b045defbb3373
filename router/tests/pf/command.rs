//! `softnet pfctl` as its user runs it, at a daemon whose devices are cables in memory: nothing here needs privileges.

use kern::time::Clock;
use router::{
    daemon::{self, Orders},
    iface::link::{LinkConfig, LinkEnd, link},
};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use wire::{Mac, build};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
/// Behind a route that ends there.
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Something of every kind that is shown.
const RULES: &str = "\
set require-order no
set loginterface lan0
set skip on wan0
set limit { src-nodes 77, frags 88 }
set timeout udp.first 600
state limiter all id 1 limit 50
source limiter each id 2 entries 5 limit 40
table <hosts> persist counters { 203.0.113.5 }
altq on wan0 priq bandwidth 10Mb queue { std }
queue std priq(default)
ether pass in on lan0 label frames
nat on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.1
rdr on lan0 inet proto udp from any to any port 5300 -> 198.51.100.8 port 53
block in on lan0
pass in on lan0 inet proto udp from any to any port 53 keep state (source-track rule) label dns
pass in on lan0 inet proto tcp state limiter all source limiter each
anchor inner on lan0 {
pass in proto icmp
}
";

/// A daemon, its cable, and its directory.
struct Router {
    thread: Option<JoinHandle<Result<router::report::Books, daemon::DaemonError>>>,
    ends: Receiver<(String, LinkEnd)>,
    lan: Option<LinkEnd>,
    dir: PathBuf,
}

impl Router {
    fn start(rules: &str) -> Router {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("softnet-command-{tag}"));
        fs::create_dir_all(&dir).unwrap();
        let conf = format!(
            "[router]\nname = \"c{tag}\"\nworkers = 1\nclusters = 512\njumbos = 16\ncontrol = \"{}\"\npf = \"pf.conf\"\n\
             [[interface]]\nname = \"lan0\"\ndriver = \"link\"\ndevice = \"lan\"\nmac = \"{MAC}\"\naddress = [\"192.0.2.1/24\"]\n\
             [[interface]]\nname = \"wan0\"\ndriver = \"link\"\ndevice = \"wan\"\naddress = [\"203.0.113.1/24\"]\n\
             [[route]]\nto = \"198.51.100.0/24\"\ntype = \"blackhole\"\n",
            dir.join("control").display()
        );
        fs::write(dir.join("softnet.toml"), conf).unwrap();
        fs::write(dir.join("pf.conf"), rules).unwrap();
        let (sender, ends) = channel();
        let path = dir.join("softnet.toml");
        let thread = std::thread::spawn(move || {
            let open = move |interface: &router::conf::InterfaceConf| {
                let (near, _) = link(LinkConfig::default(), &Clock::default());
                let _ = sender.send((interface.name.clone(), near.clone()));
                Ok(Arc::new(near) as Arc<dyn router::iface::driver::Driver>)
            };
            daemon::run_with(&path, Orders::default(), Box::new(open))
        });
        let mut router = Router { thread: Some(thread), ends, lan: None, dir };
        let patience = Instant::now() + Duration::from_secs(20);
        while !router.ask(&["status"]).status.success() {
            if let Some(thread) = router.thread.take_if(|thread| thread.is_finished()) {
                panic!("it does not start: {:?}", thread.join());
            }
            assert!(Instant::now() < patience, "it does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        router.lan = router.ends.try_iter().find(|(name, _)| name == "lan0").map(|(_, end)| end);
        router
    }

    fn ask(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_softnet"));
        command.arg("--control").arg(self.dir.join("control")).args(words);
        command
    }

    /// `softnet pfctl`, which succeeds: standard output, standard error.
    fn pfctl(&self, words: &str) -> (String, String) {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.pfctl_of(&words)
    }

    fn pfctl_of(&self, words: &[&str]) -> (String, String) {
        let output = self.ask(&[&["pfctl"], words].concat());
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{words:?}: {out}{err}");
        (out, err)
    }

    /// What it says of what it did.
    fn does(&self, words: &str) -> String {
        self.pfctl(words).1
    }

    fn shows(&self, words: &str) -> String {
        self.pfctl(words).0
    }

    /// The one document that it prints with `--json`.
    fn json(&self, words: &str) -> Value {
        let text = self.shows(&format!("{words} --json"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{words}: {e}: {text}"))
    }

    /// A datagram from there to a port of the server, and the state that it makes.
    fn talk(&self, from: Ipv4Addr, port: u16, to_port: u16) -> Value {
        let known = self.json("-s states").as_array().unwrap().len();
        let packet = build::udp4(from, SERVER, port, to_port, b"question");
        let frame = build::frame(MAC, Mac([2, 0, 0, 0, 0, 9]), &packet);
        assert!(self.lan.as_ref().unwrap().inject(0, &frame));
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let states = self.json("-s states").as_array().unwrap().clone();
            if states.len() > known {
                let src = format!("{from}:{port}");
                return states.into_iter().find(|state| state["src"] == *src).unwrap();
            }
            assert!(Instant::now() < patience, "no state of {from}:{port}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn states(&self) -> usize {
        self.json("-s states").as_array().unwrap().len()
    }

    fn load(&self, words: &str, rules: &str) {
        let file = self.dir.join("other.conf");
        fs::write(&file, rules).unwrap();
        self.pfctl(&format!("{words} -f {}", file.display()));
    }

    /// Stops; the books balance with nothing held.
    fn stop(mut self) {
        assert!(self.ask(&["stop"]).status.success());
        let books = self.thread.take().unwrap().join().unwrap().unwrap();
        assert!(books.balanced() && books.audit.held() == 0, "{books}");
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.ask(&["stop"]);
            let _ = thread.join();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What is shown: a part of the text, and a key of the document or of the first in it.
const SHOWN: [(&str, &str, &str); 19] = [
    ("ether", "ether pass in on lan0 l3 all label \"frames\"", "rules"),
    ("nat", "nat on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.1", "rules"),
    ("queue", "queue std on wan0", "name"),
    ("rules", "label \"dns\"", "rules"),
    ("Anchors", "  inner\n", "anchors"),
    ("states", "udp 198.51.100.8:53 (198.51.100.7:5300) <- 192.0.2.10:4001", "stack"),
    ("Sources", "192.0.2.10 ( states 2, connections 0, rate 0.0/0s )", "rate"),
    ("info", "  current entries                        2", "counters"),
    ("Running", "Enabled\n", "enabled"),
    ("labels", "dns ", "evaluations"),
    ("timeouts", "udp.first                   600s\n", "unit"),
    ("memory", "src-nodes     hard limit       77\nfrags         hard limit       88\n", "limit"),
    ("Tables", "hosts\n", "flags"),
    ("osfp", "", "count"),
    ("Interfaces", "lan0\n", "skip"),
    ("LimiterStates", "  1        0/50 ", "limiters"),
    ("LimiterSrcs", "  2        0/5 ", "limiters"),
    ("creatorids", "Creator IDs:\n", "creators"),
    ("all", "\nLIMITS:\nstates ", "timeouts"),
];

#[test]
fn everything_is_shown_in_each_way() {
    let router = Router::start(RULES);
    router.talk(HOST, 4000, 53);
    let state = router.talk(HOST, 4001, 5300);
    assert_eq!(state["stack"][1], "198.51.100.8:53", "{state}");
    for (kind, part, key) in SHOWN {
        let plain = router.shows(&format!("-s {kind}"));
        assert!(plain.contains(part), "{kind}: {plain}");
        let verbose = router.shows(&format!("-s {kind} -v"));
        assert!(
            verbose.len() >= plain.len() && (part.is_empty() || !verbose.is_empty()),
            "{kind}: {verbose}"
        );
        if kind != "queue" {
            let more = router.shows(&format!("-s {kind} -vv"));
            assert!(more.len() >= verbose.len(), "{kind}: {more}");
        }
        for words in ["", "-v", "-vv"] {
            let document = router.json(&format!("-s {kind} {words}"));
            let of = if document.is_array() { &document[0] } else { &document };
            assert!(of.get(key).is_some(), "{kind}: {document}");
        }
    }
    let all = router.json("-s all");
    assert!(all["memory"].is_array() && all["info"]["checksum"].is_string(), "{all}");
    // Queues are shown again and again with rates; the first time is enough.
    let mut queues = router.command(&["pfctl", "-s", "queue", "-vv"]).stdout(Stdio::piped()).spawn().unwrap();
    let first = BufReader::new(queues.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    queues.kill().unwrap();
    queues.wait().unwrap();
    assert!(first.starts_with("queue root_wan0") || first.starts_with("queue std"), "{first}");
    router.stop();
}

/// What is flushed, what is said, and what is shown of it then.
const FLUSHED: [(&str, &str, &str, &str); 10] = [
    ("states", "2 states cleared\n", "states", ""),
    ("Sources", "source tracking entries cleared\n", "Sources", ""),
    ("info", "pf: statistics cleared\n", "Sources", ""),
    ("ether", "Ethernet rules cleared\n", "ether", ""),
    ("nat", "nat cleared\n", "nat", ""),
    ("rules", "rules cleared\n", "rules", ""),
    ("queue", "altq cleared\n", "queue", "No queue in use\n"),
    ("Tables", "1 tables deleted\n", "Tables", ""),
    ("osfp", "OS fingerprints cleared\n", "osfp", ""),
    ("Reset", "options reset\n", "Running", "Enabled\n"),
];

#[test]
fn everything_is_flushed_and_says_so() {
    let router = Router::start(RULES);
    router.talk(HOST, 4000, 53);
    router.talk(OTHER, 4000, 53);
    for (kind, said, shown, left) in FLUSHED {
        assert_eq!(router.does(&format!("-F {kind}")), said, "{kind}");
        assert_eq!(router.shows(&format!("-s {shown}")), left, "{kind}");
    }
    assert_eq!(router.json("-s info")["counters"]["pf.inserts"], 0);
    let limits = router.json("-s memory");
    assert_eq!((&limits[1]["name"], &limits[1]["limit"]), (&"src-nodes".into(), &10_000.into()));

    // All at once is one document, too, and a command that does several things has one.
    router.load("", RULES);
    router.talk(HOST, 4000, 53);
    let flushed = router.json("-F all -s rules");
    assert_eq!((&flushed["flush_states"]["count"], &flushed["flush_rules"]["count"]), (&1.into(), &0.into()));
    assert_eq!(flushed["rules"]["rules"].as_array().map(Vec::len), Some(0), "{flushed}");
    assert_eq!(router.json("-F states")["count"], 0, "one thing alone is not wrapped");
    router.stop();
}

#[test]
fn states_end_by_host_pair_label_number_key_and_translation() {
    let router = Router::start(RULES);
    // The rule has gone with its ruleset, its states know its label.
    router.talk(HOST, 4000, 53);
    router.load("", RULES);
    assert_eq!(router.does("-k label -k other"), "killed 0 states\n");
    assert_eq!(router.does("-k label -k dns"), "killed 1 states\n");

    router.talk(HOST, 4000, 53);
    router.talk(OTHER, 4000, 53);
    assert_eq!(
        router.does("-k 192.0.2.20 -k 192.0.2.1"),
        "killed 0 states from 1 sources and 1 destinations\n"
    );
    let pair = "-k 192.0.2.20 -k 198.51.100.0/24";
    assert_eq!(router.does(pair), "killed 1 states from 1 sources and 1 destinations\n");
    assert_eq!(router.json("-k 192.0.2.0/24")["count"], 1);

    let id = router.talk(HOST, 4000, 53)["id"].as_u64().unwrap();
    assert_eq!(router.does(&format!("-k id -k {:016x}", id + 1)), "killed 0 states\n");
    assert_eq!(router.does(&format!("-k id -k {id:016x}")), "killed 1 states\n");

    router.talk(HOST, 4000, 53);
    let key = |port: u16| format!("udp 192.0.2.10:{port} -> 198.51.100.7:53");
    assert_eq!(router.pfctl_of(&["-k", "key", "-k", &key(4001)]).1, "killed 0 states\n");
    assert_eq!(router.pfctl_of(&["-k", "key", "-k", &key(4000)]).1, "killed 1 states\n");

    router.talk(HOST, 4000, 53);
    router.talk(HOST, 4001, 5300);
    assert_eq!(router.does("-k nat -k 198.51.100.8"), "killed 1 states\n", "only one is translated");
    assert_eq!(router.does("-k gateway -k 0.0.0.0/0"), "killed 0 states\n", "no rule has chosen one");
    assert_eq!(router.does("-i wan0 -k 0.0.0.0/0"), "killed 0 states from 1 sources and 0 destinations\n");
    assert_eq!(router.shows("-i wan0 -s states"), "");
    assert_eq!(router.states(), 1);
    assert_eq!(router.does("-i lan0 -F states"), "1 states cleared\n");
    router.stop();
}

#[test]
fn source_nodes_end_by_source_and_by_the_address_that_they_have() {
    let rules = "set timeout src.track 600\nnat pass on wan0 inet -> 203.0.113.1\n\
                 rdr pass on lan0 inet proto udp to any port 53 -> { 198.51.100.8 198.51.100.9 } round-robin sticky-address\n\
                 block in on lan0\npass in on lan0 proto udp to port 80 keep state (source-track rule)\n";
    let router = Router::start(rules);
    for (from, port) in [(HOST, 80), (OTHER, 80), (HOST, 53), (OTHER, 53)] {
        router.talk(from, 4000 + port, port);
    }
    let nodes = |router: &Router| router.json("-s Sources").as_array().unwrap().clone();
    let all = nodes(&router);
    assert_eq!(all.len(), 4, "{all:?}");
    let of =
        |source: Ipv4Addr| all.iter().find(|n| n["source"] == source.to_string() && n["address"].is_string());
    let address = of(HOST).unwrap()["address"].as_str().unwrap().to_owned();
    let killed =
        |count: u32, to: u32| format!("killed {count} src nodes from 1 sources and {to} destinations\n");
    assert_eq!(router.does("-K 192.0.2.10 -K 192.0.2.1"), killed(0, 1));
    assert_eq!(router.does(&format!("-K 192.0.2.10 -K {address}")), killed(1, 1));
    assert_eq!(router.does("-K 192.0.2.10"), killed(1, 0), "the one without an address");
    let left = nodes(&router);
    assert!(left.len() == 2 && left.iter().all(|node| node["source"] == "192.0.2.20"), "{left:?}");
    assert_eq!(router.json("-K 192.0.2.0/24")["count"], 2);
    assert_eq!(router.states(), 4, "their states go on");
    router.stop();
}

#[test]
fn a_part_of_a_file_is_loaded_and_macros_are_defined_for_it() {
    let router = Router::start(RULES);
    let old = ["nat", "rules", "queue", "timeouts"].map(|kind| router.shows(&format!("-s {kind}")));
    let new = "set timeout udp.first 7\naltq on wan0 priq bandwidth 5Mb queue { fast }\nqueue fast priq(default)\n\
               no nat on wan0 all\npass in quick on $where\n";
    let mut now = old.clone();
    for (flag, at, part) in [
        ("-N", 0, "no nat on wan0 all\n"),
        ("-R", 1, "pass in quick on lan0 all"),
        ("-A", 2, "queue fast"),
        ("-O", 3, "udp.first                     7s"),
    ] {
        router.load(&format!("{flag} -D where=lan0"), new);
        now[at] = router.shows(&format!("-s {}", ["nat", "rules", "queue", "timeouts"][at]));
        assert!(now[at].contains(part) && now[at] != old[at], "{flag}: {}", now[at]);
        let all = ["nat", "rules", "queue", "timeouts"].map(|kind| router.shows(&format!("-s {kind}")));
        assert_eq!(all, now, "{flag}: the rest stays");
    }
    router.stop();
}

#[test]
fn rule_counters_begin_anew_and_tables_are_changed() {
    let router = Router::start(RULES);
    router.talk(HOST, 4000, 53);
    let counted = |router: &Router| {
        let rules = router.json("-s rules");
        let all = rules["rules"].as_array().unwrap().iter();
        all.map(|rule| rule["packets"].as_u64().unwrap_or(0)).sum::<u64>()
    };
    assert_eq!(counted(&router), 1);
    assert_eq!(router.pfctl("-z"), (String::new(), String::new()));
    assert_eq!(counted(&router), 0);
    assert_eq!(router.json("-z"), serde_json::json!({ "text": "", "count": 0 }));

    assert_eq!(router.does("-t hosts -T add 203.0.113.6 203.0.113.7"), "2/2 addresses added.\n");
    assert_eq!(router.does("-t hosts -T delete 203.0.113.6 203.0.113.9"), "1/2 addresses deleted.\n");
    assert_eq!(router.does("-t hosts -T zero"), "1 table/stats cleared.\n");
    assert_eq!(router.does("-t hosts -T zero 203.0.113.7"), "1/1 addresses cleared.\n");
    assert_eq!(router.does("-t hosts -T reset"), "0/2 stats cleared.\n", "none has counted anything");
    assert_eq!(router.does("-t hosts -T expire 86400"), "0/0 addresses expired.\n", "none is so old");
    assert_eq!(router.shows("-t hosts -T show"), "   203.0.113.5\n   203.0.113.7\n");
    let test = router.json("-t hosts -T test 203.0.113.5");
    assert_eq!((&test["matched"], &test["named"]), (&1.into(), &1.into()));
    router.does("-t fresh -T add 203.0.113.8");
    assert_eq!(router.does("-t fresh -T kill"), "1 table deleted.\n");
    assert_eq!(router.shows("-s Tables"), "hosts\n");
    router.stop();
}
