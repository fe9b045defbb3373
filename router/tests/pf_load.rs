//! Rules that change while workers forward: no packet is lost, states stay, and nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use kern::{
    Why,
    lock::Root,
    mbuf::{Balance, PoolConfig},
    testing::soak,
};
use pf::{
    Fresh,
    addr::Entry,
    conf::{Reading, Section},
    table::parse_entry,
};
use router::{
    commit::{Commit, Files, environment},
    conf::{self, Host, InterfaceConf},
    iface::{
        driver::Driver,
        source_sink::{SourceSink, SourceSinkConfig, Template},
    },
    router::{Router, Setup},
};
use std::{
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};
use wire::{Mac, build};

const NEXT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

/// A router whose workers forward, from an endless source, as fast as they can.
struct Live {
    router: Router,
    commit: Commit,
    root: Root,
    files: Files,
    source: SourceSink,
    sink: SourceSink,
}

/// One test at a time: the memory that one measures is that of the process.
#[allow(clippy::disallowed_types, reason = "held for a whole test, beside the locks of the router")]
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// UDP packets of so many flows.
fn flows(count: u32, to: Mac) -> Vec<Template> {
    let one = |flow: u32| {
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 2)) + flow / 50_000);
        let packet =
            build::udp4(source, Ipv4Addr::new(10, 2, 0, 9), 1000 + (flow % 50_000) as u16, 53, &[0; 18]);
        Template::whole(build::frame(to, Mac([2, 0, 0, 0, 0, 9]), &packet))
    };
    (0..count).map(one).collect()
}

impl Live {
    fn start(workers: usize, count: u32, rules: &str) -> Live {
        let text = format!(
            "[router]\nname = \"load\"\nworkers = {workers}\n\
             [[interface]]\nname = \"lan0\"\ndriver = \"link\"\ndevice = \"lan\"\naddress = [\"10.0.0.1/16\"]\n\
             [[interface]]\nname = \"wan0\"\ndriver = \"link\"\ndevice = \"wan\"\naddress = [\"10.1.0.1/24\"]\n\
             [[route]]\nto = \"10.2.0.0/16\"\nvia = \"{NEXT}\"\n"
        );
        let conf = conf::from_text(Path::new("load"), &text, &Host::this()).unwrap();
        let files = Files::from_texts(conf, Some(rules), None).unwrap();
        let setup = Setup { pool: PoolConfig { clusters: 4096, jumbos: 16 }, ..Setup::of(&files) };
        let mut root = Root::claim();
        let mut router = Router::new(setup).unwrap();
        let mut commit = Commit::new();
        let device = |templates| {
            SourceSink::new(SourceSinkConfig { queues: workers, templates, ..Default::default() })
        };
        let mac = files.conf.named("lan0").unwrap().mac;
        let (source, sink) = (device(flows(count, mac)), device(Vec::new()));
        source.flow(false);
        let mut open = |i: &InterfaceConf| -> Result<Arc<dyn Driver>, String> {
            Ok(Arc::new(if i.name == "lan0" { source.clone() } else { sink.clone() }))
        };
        let prepared = commit.prepare(&router, &mut root, &files, &mut open).unwrap();
        commit.publish(&mut router, &mut root, prepared).unwrap();
        let wan = router.net().named("wan0").unwrap().index.0;
        let ledger = &router.own_stats().ledger;
        let mac = Mac([2, 0, 0, 0, 0, 7]);
        router.shared().neighbours.insert_permanent(&mut root.top(), wan, NEXT.into(), mac, ledger);
        router.start().unwrap();
        source.flow(true);
        router.wake_all();
        Live { router, commit, root, files, source, sink }
    }

    /// Loads rules, as `pfctl -a path -f` does; the main ruleset has an empty path.
    fn load(&mut self, path: &str, text: &str) {
        let env = environment(&self.files.conf);
        let reading = Reading {
            env: &env,
            defines: &[],
            anchor: path,
            fingerprints: None,
            options: None,
            engines: true,
        };
        let new = reading.text("rules", text).unwrap_or_else(|e| panic!("{}", e[0].with_caret()));
        let (conf, fresh): (_, Fresh) = self.files.pf.as_ref().unwrap().with(path, new, &Section::ALL);
        self.files.pf = Some(Arc::new(conf));
        let old = self.router.net().pf.clone().unwrap();
        let over = Some((&*old, &fresh));
        self.commit.replace_rules(&mut self.router, &mut self.root, &self.files, over).unwrap();
    }

    fn wait(&self, what: &str, is: impl Fn(&Live) -> bool) {
        let patience = std::time::Instant::now() + Duration::from_mins(1);
        while !is(self) {
            assert!(std::time::Instant::now() < patience, "{what}: {} sent", self.sink.sunk().packets);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until so many more packets have crossed.
    fn pass(&self, packets: u64) {
        let until = self.sink.sunk().packets + packets;
        self.wait("packets do not pass", |live| live.sink.sunk().packets >= until);
    }

    fn states(&self) -> u32 {
        self.router.shared().pf.states().count()
    }

    /// Packets that rules have blocked so far.
    fn blocked(&self) -> u64 {
        self.router.all_stats().map(|stats| stats.ledger.balance().why(Why::PfBlock)).sum()
    }

    /// Stops, and says what has become of the packets.
    fn close(mut self) -> Balance {
        self.source.flow(false);
        let books = self.router.stop(&mut self.root).unwrap();
        assert!(books.balanced(), "{books:?}");
        books.balance
    }

    /// Stops, and says how many packets there were: every one that came has left.
    fn finish(self) -> u64 {
        let balance = self.close();
        assert_eq!(balance.ended.iter().sum::<u64>(), 0, "a packet ended: {balance:?}");
        // Its own are those that look for its neighbours.
        assert_eq!(balance.received + balance.created, balance.sent);
        balance.sent
    }
}

#[test]
fn anchors_that_change_under_load_lose_no_packet_and_leave_the_rest_alone() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let rules =
        "block all\nanchor \"dyn/*\"\npass out all keep state\npass in proto udp to port 53 no state\n";
    let changes = if soak() { 5_000 } else { 300 };
    for workers in [1, 2] {
        let mut live = Live::start(workers, 64, rules);
        live.pass(1_000);
        let slots = live.router.shared().pf.slab().in_use();
        for n in 0..changes {
            let path = format!("dyn/{}", n % 3);
            live.load(
                &path,
                &format!("pass in quick proto udp from any port {} to any no state\n", 1000 + n % 64),
            );
            if n % 50 == 0 {
                live.pass(1_000);
            }
        }
        for n in 0..3 {
            live.load(&format!("dyn/{n}"), "");
        }
        live.pass(1_000);
        assert_eq!(live.states(), 64);
        assert_eq!(live.router.shared().pf.slab().in_use(), slots, "rules that are gone leave nothing");
        let passed = live.finish();
        println!("{workers} workers: {passed} packets over {changes} changes");
    }
}

/// Octets that the process holds.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn reloads_with_many_live_states_keep_them_and_take_no_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (reloads, states) = if soak() { (1_000, 100_000) } else { (60, 5_000) };
    let rules = |n: usize| {
        let table = |i| format!("table <t{i}> {{ 198.51.{}.{i} 203.0.113.0/28 }}\n", n % 200);
        let pass = |i: usize| format!("pass in proto tcp from <t{}> to any port {}\n", i % 20, 1 + i + n % 7);
        let (tables, passes): (Vec<_>, Vec<_>) = ((0..20).map(table).collect(), (0..200).map(pass).collect());
        let rest = "pass in proto udp to port 53 keep state\npass out all no state\n";
        format!("{}block all\n{}{rest}", tables.concat(), passes.concat())
    };
    let mut live = Live::start(2, states, &rules(0));
    live.wait("states are not made", |live| live.states() == states);
    live.load("", &rules(1));
    let (after_first, slots) = (memory(), live.router.shared().pf.slab().in_use());
    for n in 2..=reloads {
        live.load("", &rules(n));
        assert_eq!(live.states(), states);
    }
    live.pass(1_000);
    let after = memory();
    assert_eq!(
        live.router.shared().pf.slab().in_use(),
        slots,
        "a slot for each rule, one for that of the states"
    );
    assert!(
        after < after_first + after_first / 10,
        "{after_first} octets after the first reload, {after} after {reloads}"
    );
    println!("{states} states, {reloads} reloads: {} MB, then {} MB", after_first >> 20, after >> 20);
    assert_eq!(live.states(), states);
    live.finish();
}

/// Entries of the large table.
const MANY: u32 = 200_000;

/// Hosts of a net that no flow is of.
fn strangers(net: u8, count: u32) -> Vec<Entry> {
    let first = u32::from(Ipv4Addr::new(net, 0, 0, 0));
    (0..count).map(|n| parse_entry(&Ipv4Addr::from(first + n).to_string()).unwrap()).collect()
}

#[test]
fn a_large_table_that_changes_under_load_is_right_at_every_moment() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let rounds = if soak() { 200 } else { 3 };
    let rules = "set limit table-entries 500000\ntable <on> persist { 10.0.0.0/16 }\ntable <off> persist\n\
         pass in proto udp from <on> to port 53 no state\nblock in quick from <off>\n\
         pass out all no state\nblock in from ! <on>\n";
    let live = Live::start(2, 64, rules);
    live.pass(1_000);
    let shared = Arc::clone(live.router.shared());
    let tables = shared.pf.tables();
    let net = parse_entry("10.0.0.0/16").unwrap();
    let host = parse_entry("10.0.0.2").unwrap();
    let many = strangers(20, MANY - 1);
    assert_eq!(tables.add("", "on", &many, 1).unwrap().added, many.len());
    let table = tables.find("", "on").unwrap();
    assert_eq!(table.len(), MANY as usize);
    for round in 0..rounds {
        // Singly, many at a time, and all but what decides.
        for entry in &many[..500] {
            assert_eq!(tables.delete("", "on", &[*entry]).unwrap().deleted, 1);
            assert_eq!(tables.add("", "on", &[*entry, *entry], 1).unwrap().added, 1);
        }
        assert_eq!(tables.add("", "on", &[host], 1).unwrap().added, 1);
        assert_eq!(tables.delete("", "on", &[host]).unwrap().deleted, 1, "the net still covers it");
        assert_eq!(tables.delete("", "on", &many[..50_000]).unwrap().deleted, 50_000);
        let others = [strangers(30 + (round % 2) as u8, MANY - 1), vec![net]].concat();
        let changes = tables.set("", "on", &others, 1).unwrap();
        assert_eq!((changes.added, changes.deleted), (others.len() - 1, many.len() - 50_000));
        let changes = tables.set("", "on", &[&many[..], &[net]].concat(), 1).unwrap();
        assert_eq!((changes.added, changes.deleted), (many.len(), others.len() - 1));
        assert_eq!(tables.set("", "off", &others[..1000], 1).unwrap().added, 1000);
        assert_eq!(tables.flush("", "off").unwrap().deleted, 1000);
        tables.collect();
        assert_eq!((table.len(), live.blocked()), (MANY as usize, 0), "round {round}");
        live.pass(1_000);
    }
    // It does decide.
    assert_eq!(tables.delete("", "on", &[net]).unwrap().deleted, 1);
    live.wait("nothing is blocked", |live| live.blocked() > 1_000);
    assert_eq!(tables.add("", "on", &[net], 1).unwrap().added, 1);
    live.pass(1_000);
    tables.collect();
    let balance = live.close();
    let blocked = balance.why(Why::PfBlock);
    assert_eq!(balance.ended.iter().sum::<u64>(), blocked, "{balance:?}");
    assert_eq!(balance.received + balance.created, balance.sent + blocked);
    println!("{rounds} rounds: {} packets passed, {blocked} were blocked", balance.sent);
}
