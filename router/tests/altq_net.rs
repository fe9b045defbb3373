//! ALTQ through real TAP devices: one router as a process, a host behind each of its interfaces in a namespace, the
//! kernel's own ping and iperf3.
//!
//! Runs where `SOFTNET_NET_TESTS` is set (`make test-net`): it needs root and a machine that is not busy with other tests.
//! `SOFTNET_SOAK=1` is the full size.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod netns;

use netns::{Background, Namespace, available, softnet, unique};
use std::{
    ffi::OsStr,
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Leave to run, one test at a time: they measure. A lock on a file, given up when it is closed.
fn alone() -> Option<fs::File> {
    if !available() {
        return None;
    }
    let file = fs::File::create(std::env::temp_dir().join("softnet-altq-net.lock")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    Some(file)
}

fn seconds(short: u64, full: u64) -> Duration {
    Duration::from_secs(if std::env::var_os("SOFTNET_SOAK").is_some() { full } else { short })
}

/// How far a figure may be off. A short run on a machine that others use only shows
/// that the discipline is in force.
fn within(short: f64, full: f64) -> f64 {
    if std::env::var_os("SOFTNET_SOAK").is_some() { full } else { short }
}

/// The program, run before everything else that wants a core where that is allowed: who is run three milliseconds late has
/// lost the bucket of one.
fn first_in_line() -> Command {
    let real_time = |program: &OsStr| {
        let mut command = Command::new("chrt");
        command.args(["--rr", "1"]).arg(program);
        command
    };
    let may = real_time("true".as_ref()).status().is_ok_and(|s| s.success());
    if may { real_time(softnet().as_os_str()) } else { Command::new(softnet()) }
}

/// A router between two hosts.
struct Bed {
    router: Background,
    dir: PathBuf,
    inside: Namespace,
    outside: Namespace,
    servers: Vec<Background>,
}

impl Bed {
    fn new(altq: &str, rules: &str) -> Bed {
        let id = unique();
        let tag: String = id.chars().filter(char::is_ascii_digit).rev().take(6).collect();
        let dir = std::env::temp_dir().join(format!("softnet-altq-{id}"));
        fs::create_dir_all(&dir).unwrap();
        let control = dir.join("control");
        let interface = |name: &str, device: &str, address: &str| {
            format!(
                "[[interface]]\nname = \"{name}\"\ndriver = \"tap\"\ndevice = \"{device}\"\naddress = [\"{address}\"]\n"
            )
        };
        let (lan, wan) = (format!("q{tag}lan"), format!("q{tag}wan"));
        let toml = format!(
            "[router]\nname = \"altq\"\nworkers = 2\ncontrol = \"{}\"\npf = \"pf.conf\"\n{}{}",
            control.display(),
            interface("lan0", &lan, "192.0.2.1/24"),
            interface("wan0", &wan, "198.51.100.1/24"),
        );
        fs::write(dir.join("softnet.toml"), toml).unwrap();
        fs::write(dir.join("pf.conf"), format!("{altq}pass all\n{rules}")).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = first_in_line();
        command.args(["run", "-f"]).arg(dir.join("softnet.toml"));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let router = Background(command.spawn().unwrap());
        let (inside, outside) = (Namespace::new(), Namespace::new());
        let mut bed = Bed { router, dir, inside, outside, servers: Vec::new() };
        let patience = Instant::now() + Duration::from_secs(10);
        while !bed.ask("status").status.success() {
            let log = fs::read_to_string(bed.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < patience, "the router did not start: {log}");
            sleep(Duration::from_millis(20));
        }
        bed.inside.adopt(&lan, &["192.0.2.10/24"]);
        bed.outside.adopt(&wan, &["198.51.100.10/24"]);
        bed.inside.ip("route add default via 192.0.2.1");
        bed.outside.ip("route add default via 198.51.100.1");
        for port in [5201, 5202] {
            let server = Self::start(&bed.outside, &format!("iperf3 -s -p {port}"));
            bed.servers.push(server);
        }
        sleep(Duration::from_millis(600));
        bed.ping(5, 0.1);
        bed
    }

    fn ask(&self, words: &str) -> Output {
        let mut command = Command::new(softnet());
        command.arg("--control").arg(self.dir.join("control")).args(words.split_whitespace());
        command.output().unwrap()
    }

    fn json(&self, words: &str) -> serde_json::Value {
        let output = self.ask(&format!("--json {words}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{words}: {e}: {text}"))
    }

    /// Another `altq` part, while everything runs.
    fn reload(&self, altq: &str) {
        fs::write(self.dir.join("pf.conf"), format!("{altq}pass all\n")).unwrap();
        let output = self.ask("reload");
        assert!(output.status.success(), "{altq}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn start(space: &Namespace, line: &str) -> Background {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space.name()]).args(line.split_whitespace());
        Background(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// A stream from inside to outside; `-R` the other way.
    fn stream(&self, port: u16, words: &str) -> Background {
        Self::start(&self.inside, &format!("iperf3 -c 198.51.100.10 -p {port} -t 120 {words}"))
    }

    /// Round-trip times in milliseconds, the 95th of a hundred.
    fn ping(&self, count: u32, interval: f64) -> f64 {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.inside.name()]);
        command.args(format!("ping -n -i {interval} -c {count} -W 3 198.51.100.10").split_whitespace());
        let text = String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
        let time = |line: &str| line.split("time=").nth(1)?.split_whitespace().next()?.parse::<f64>().ok();
        let mut times: Vec<f64> = text.lines().filter_map(time).collect();
        times.sort_by(f64::total_cmp);
        *times.get(times.len() * 95 / 100).unwrap_or(&f64::INFINITY)
    }

    /// Bits a second that left each of these queues over a time, by the router's own books of wire packets.
    fn rates<const N: usize>(&self, queues: [&str; N], time: Duration) -> [f64; N] {
        let read = || {
            let report = self.json("pfctl -s queue");
            let at = Instant::now();
            let all = report.as_array().unwrap();
            for q in all {
                let n = |key: &str| q[key].as_u64().unwrap();
                assert_eq!(n("offered_packets"), n("packets") + n("dropped_packets") + n("length"), "{q:#}");
                assert_eq!(n("offered_bytes"), n("bytes") + n("dropped_bytes") + n("length_bytes"), "{q:#}");
            }
            let of = |name: &str| all.iter().find(|q| q["name"] == name).unwrap()["bytes"].as_u64().unwrap();
            (at, queues.map(of))
        };
        let (start, before) = read();
        sleep(time);
        let (end, after) = read();
        let seconds = end.duration_since(start).as_secs_f64();
        std::array::from_fn(|i| (after[i] - before[i]) as f64 * 8.0 / seconds)
    }

    fn stop(mut self) {
        self.servers.clear();
        let books = self.json("netstat -m");
        assert_eq!((&books["balanced"], &books["unexplained"]), (&true.into(), &0.into()), "{books:#}");
        netns::run(&format!("kill -TERM {}", self.router.0.id()));
        let status = self.router.0.wait().unwrap();
        assert!(status.success(), "{status}: {}", fs::read_to_string(self.dir.join("log")).unwrap());
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn the_rate_of_the_line_is_the_configured_one_within_two_per_cent() {
    let Some(_alone) = alone() else { return };
    let altq = |mbps: u32, scheduler: &str| {
        // The default bucket: at 1 Gb/s it lasts 288 us, so the worker has to wake up when it says.
        format!(
            "altq on wan0 {scheduler} bandwidth {mbps}Mb qlimit 2000 queue {{ std }}\n\
             queue std {scheduler}(default)\n"
        )
    };
    let bed = Bed::new(&altq(1, "priq"), "");
    let stream = bed.stream(5201, "-P 4");
    // Two workers, two flows, and another discipline at every step, while the streams go on.
    for (mbps, scheduler) in [(1, "priq"), (10, "cbq"), (100, "hfsc"), (1000, "priq")] {
        bed.reload(&altq(mbps, scheduler));
        sleep(seconds(2, 4));
        let [rate] = bed.rates(["std"], seconds(3, 15));
        println!("{scheduler} {mbps} Mb/s: {:.3} Mb/s", rate / 1e6);
        assert!(
            (rate / 1e6 / f64::from(mbps) - 1.0).abs() < within(0.05, 0.02),
            "{scheduler} {mbps}: {rate}"
        );
    }
    drop(stream);
    bed.stop();
}

#[test]
fn two_workers_through_one_queue_lose_and_reorder_nothing() {
    let Some(_alone) = alone() else { return };
    let bed = Bed::new(
        "altq on wan0 hfsc bandwidth 100Mb qlimit 2000 queue { std }\nqueue std bandwidth 100Mb hfsc(default)\n",
        "",
    );
    let time = seconds(3, 20).as_secs();
    // Eight flows, which two workers share, fill nine tenths of the line.
    let mut command = Command::new("ip");
    command.args(["netns", "exec", bed.inside.name()]);
    let line = format!("iperf3 -c 198.51.100.10 -u -b 11M -l 1400 -P 8 -t {time} -J");
    let output = command.args(line.split_whitespace()).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let streams = report["end"]["streams"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    let sum = |key: &str| streams.iter().map(|s| s["udp"][key].as_u64().unwrap_or(0)).sum::<u64>();
    let [packets, lost, late] = ["packets", "lost_packets", "out_of_order"].map(sum);
    println!("{packets} datagrams of 8 flows: {lost} lost, {late} out of order");
    assert!(packets > time * 7_000, "{packets}");
    assert_eq!((lost, late), (0, 0));
    bed.stop();
}

#[test]
fn cbq_s_shares_hold_within_five_per_cent() {
    let Some(_alone) = alone() else { return };
    let bed = Bed::new(
        "altq on wan0 cbq bandwidth 20Mb queue { std a b }\nqueue std bandwidth 10% cbq(default)\n\
         queue a bandwidth 60%\nqueue b bandwidth 30%\n",
        "pass out on wan0 proto tcp to port 5201 queue a\npass out on wan0 proto tcp to port 5202 queue b\n",
    );
    let streams = [bed.stream(5201, ""), bed.stream(5202, "")];
    sleep(seconds(2, 5));
    let [a, b] = bed.rates(["a", "b"], seconds(4, 20)).map(|rate| rate / 1e6);
    println!("cbq: {a:.3} and {b:.3} Mb/s");
    let off = within(0.2, 0.05);
    assert!((a / 12.0 - 1.0).abs() < off && (b / 6.0 - 1.0).abs() < off, "{a} {b}");
    drop(streams);
    bed.stop();
}

#[test]
fn codel_and_fq_codel_keep_a_ping_beside_a_stream_within_twenty_milliseconds_of_idle() {
    let Some(_alone) = alone() else { return };
    let altq = |word: &str| {
        format!(
            "altq on wan0 priq bandwidth 10Mb qlimit 1000 queue {{ std }}\nqueue std priq({word} default)\n"
        )
    };
    let bed = Bed::new(&altq("codel"), "");
    for word in ["codel", "fq_codel"] {
        bed.reload(&altq(word));
        let idle = bed.ping(20, 0.05);
        let stream = bed.stream(5201, "");
        sleep(Duration::from_secs(5));
        let loaded = bed.ping(seconds(80, 600).as_secs() as u32, 0.05);
        println!("{word}: p95 {idle:.2} ms idle, {loaded:.2} ms beside a stream");
        assert!(loaded - idle < within(80.0, 20.0), "{word}: {idle} ms idle, {loaded} ms beside a stream");
        drop(stream);
        sleep(Duration::from_millis(500));
    }
    bed.stop();
}

#[test]
fn a_download_keeps_nine_tenths_of_its_rate_under_an_upload_flood() {
    let Some(_alone) = alone() else { return };
    // An asymmetric line: 20 Mb/s down, 2 Mb/s up; acknowledgements go first.
    let bed = Bed::new(
        "altq on wan0 priq bandwidth 2Mb qlimit 200 queue { bulk ack }\nqueue bulk priority 1 priq(default)\n\
         queue ack priority 7\naltq on lan0 priq bandwidth 20Mb queue { down }\nqueue down priq(default)\n",
        "pass out on wan0 proto tcp queue (bulk, ack)\n",
    );
    let download = bed.stream(5202, "-R");
    sleep(seconds(3, 5));
    let [alone] = bed.rates(["down"], seconds(3, 15));
    let upload = bed.stream(5201, "");
    sleep(seconds(3, 5));
    let [together] = bed.rates(["down"], seconds(3, 15));
    println!("download: {:.2} Mb/s alone, {:.2} Mb/s under an upload flood", alone / 1e6, together / 1e6);
    assert!(alone > within(8e6, 15e6) && together > (1.0 - within(0.4, 0.1)) * alone, "{alone} {together}");
    drop((download, upload));
    bed.stop();
}
