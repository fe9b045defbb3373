//! `softnet setkey` and `softnet capture` at a running router: the program as its user runs it. The router has no interfaces, so
//! nothing here needs privileges.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

const KEY: &str = "0x00112233445566778899aabbccddeeff01020304";

/// A router's process and its directory.
struct Router {
    child: Child,
    dir: PathBuf,
}

impl Router {
    fn start() -> Router {
        Router::with("")
    }

    /// With this ipsec.conf.
    fn with(ipsec: &str) -> Router {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("softnet-daemon-{tag}"));
        fs::create_dir_all(&dir).unwrap();
        let conf = format!(
            "[router]\nname = \"d{tag}\"\nworkers = 1\nclusters = 256\njumbos = 16\ncontrol = \"{}\"\nipsec = \"ipsec.conf\"\n",
            dir.join("control").display()
        );
        fs::write(dir.join("softnet.toml"), conf).unwrap();
        write_private(&dir.join("ipsec.conf"), ipsec);
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_softnet"));
        command.args(["run", "-f"]).arg(dir.join("softnet.toml"));
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut router = Router { child, dir };
        let patience = Instant::now() + Duration::from_secs(20);
        while !router.ask("status").status.success() {
            let log = fs::read_to_string(router.dir.join("log")).unwrap();
            assert!(router.child.try_wait().unwrap().is_none() && Instant::now() < patience, "{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        router
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_softnet"));
        command.arg("--control").arg(self.dir.join("control")).args(words.split_whitespace());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn ask(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    /// `softnet setkey -c` with statements on standard input: exit status, standard output, standard error.
    fn statements(&self, text: &str) -> (i32, String, String) {
        let mut child = self.command("setkey -c").stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        said(&child.wait_with_output().unwrap())
    }

    /// SIGTERM; the exit status says whether the books balanced with nothing held.
    fn stop(mut self) {
        signal(&self.child, "TERM");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(self.dir.join("log")).unwrap());
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Writes a file that nobody else may read.
fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn setkey_changes_a_running_router_and_who_listens_is_told() {
    let router = Router::start();
    let mut monitor = router.command("setkey -x --json").spawn().unwrap();
    let mut events = BufReader::new(monitor.stdout.take().unwrap()).lines();
    let mut event =
        || -> serde_json::Value { serde_json::from_str(&events.next().unwrap().unwrap()).unwrap() };
    assert_eq!(said(&router.ask("setkey -D")).1, "No SAD entries.\n");
    // The monitor says nothing until something happens, so that it listens is seen by its first event.
    std::thread::sleep(Duration::from_millis(300));

    let add = format!("add 192.0.2.1 192.0.2.2 esp 0x1000 -m tunnel -E aes-gcm-16 {KEY};");
    let policy = "spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;";
    let (status, out, _) = router.statements(&format!("{add}\n{policy}\ndump esp;\n"));
    assert_eq!(status, 0);
    assert!(out.starts_with("192.0.2.1 192.0.2.2 \n\tesp mode=tunnel spi=4096(0x00001000)"), "{out}");
    assert!(!out.contains("00112233"), "a key is told: {out}");
    let told = event();
    assert_eq!((&told["event"], &told["spi"]), (&"add".into(), &0x1000.into()), "{told}");
    assert!(said(&router.ask("setkey -DP")).1.contains("esp/tunnel/192.0.2.1-192.0.2.2/require"));
    let json = said(&router.ask("setkey -D --json")).1;
    let sas: serde_json::Value = serde_json::from_str(&json).unwrap();
    let of_sa = (&sas[0]["spi"], &sas[0]["mode"], &sas[0]["state"], &sas[1]);
    assert_eq!(
        of_sa,
        (&0x1000.into(), &"tunnel".into(), &"mature".into(), &serde_json::Value::Null),
        "{json}"
    );
    assert!(!json.contains("00112233"), "a key is told: {json}");
    let policies: serde_json::Value =
        serde_json::from_str(&said(&router.ask("setkey -DP --json")).1).unwrap();
    assert_eq!(policies.as_array().map(Vec::len), Some(1), "{policies}");

    // All or nothing: the good statement before the bad one has no effect, and the key is not shown.
    let other = add.replace("0x1000", "0x1001").replace("01020304", "0102030a");
    let (status, _, complaint) = router.statements(&format!("{other}\n{add}\n"));
    assert_eq!(status, 1);
    assert!(complaint.contains("stdin:2:") && complaint.contains("is taken by the SA"), "{complaint}");
    assert!(!complaint.contains("00112233"), "{complaint}");
    assert!(!said(&router.ask("setkey -D")).1.contains("spi=4097"));

    let file = router.dir.join("more.conf");
    fs::write(&file, &other).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let load = format!("setkey -f {}", file.display());
    let (status, _, complaint) = said(&router.ask(&load));
    assert!(status == 2 && complaint.contains("chmod 600"), "{complaint}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(said(&router.ask(&load)).0, 0);
    assert_eq!(event()["spi"], 0x1001);

    assert_eq!(router.statements("delete 192.0.2.1 192.0.2.2 esp 0x1000;").0, 0);
    let told = event();
    assert_eq!((&told["event"], &told["spi"]), (&"delete".into(), &0x1000.into()), "{told}");
    assert_eq!(said(&router.ask("setkey -F")).0, 0);
    assert_eq!(event()["event"], "delete");
    assert_eq!(said(&router.ask("setkey -FP")).0, 0);
    assert_eq!(said(&router.ask("setkey -DP")).1, "No SPD entries.\n");

    // A life of a second: the monitor is told of its end, and the SA is gone.
    assert_eq!(router.statements(&add.replace("-m tunnel", "-m tunnel -lh 1")).0, 0);
    assert_eq!(event()["event"], "add");
    let told = event();
    assert_eq!(
        (&told["event"], &told["hard"], &told["cause"]),
        (&"expire".into(), &true.into(), &"seconds".into())
    );
    assert_eq!(said(&router.ask("setkey -D")).1, "No SAD entries.\n");
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    router.stop();
}

#[test]
fn a_capture_ends_when_its_user_or_its_router_does_and_what_is_none_is_refused() {
    let router = Router::start();
    let file = router.dir.join("enc0.pcapng");
    let (status, _, complaint) = said(&router.ask(&format!("capture wan0 -w {}", file.display())));
    assert_eq!((status, complaint.contains("\"wan0\" cannot be captured")), (2, true), "{complaint}");
    assert!(!file.exists(), "a file for nothing");

    let patience = Instant::now() + Duration::from_secs(20);
    let capture = router.command(&format!("capture enc0 -w {}", file.display())).spawn().unwrap();
    // The head of the file is written when the capture is open.
    while fs::metadata(&file).map_or(0, |meta| meta.len()) == 0 {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    signal(&capture, "INT");
    let (status, out, _) = said(&capture.wait_with_output().unwrap());
    assert_eq!((status, out.as_str()), (0, "0 packets captured\n0 packets lost by the router\n"));

    let capture = router.command("capture enc0 -w -").spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    router.stop();
    let (status, _, complaint) = said(&capture.wait_with_output().unwrap());
    assert!(status == 3 && complaint.contains("the router went away"), "{status} {complaint}");
}

#[test]
fn counters_of_each_protocol_of_ipsec_are_told_in_its_own_words() {
    let router = Router::start();
    // An SA that lives for a second is there, and then dead or gone, whichever of both is asked.
    let add = format!("add 192.0.2.1 192.0.2.2 esp 0x1000 -m tunnel -E aes-gcm-16 {KEY};");
    assert_eq!(router.statements(&add).0, 0);
    assert_eq!(said(&router.ask("setkey -D -a")), said(&router.ask("setkey -D")));
    assert!(said(&router.ask("setkey -D -a")).1.contains("state=mature"));
    assert_eq!(said(&router.ask("setkey -a")).0, 2, "-a without -D");
    for protocol in ["esp", "ah", "ipcomp"] {
        let (status, text, _) = said(&router.ask(&format!("netstat -s -p {protocol}")));
        assert!(status == 0 && text.starts_with(&format!("{protocol}:\n")), "{text}");
        assert!(text.lines().skip(1).all(|line| line.starts_with("\t0 ") && line.len() > 6), "{text}");
        assert!(text.contains(&format!("\t0 {protocol} packets with no SA\n")), "{text}");
        let words = |line: &str| {
            line.split(' ').any(|word| ["esp", "ah", "ipcomp"].contains(&word) && word != protocol)
        };
        assert!(!text.lines().any(words), "{protocol} in another's words: {text}");
        assert_eq!(said(&router.ask(&format!("netstat -s -s -p {protocol}"))).1, "", "all are 0");
        let json = said(&router.ask(&format!("netstat -s -p {protocol} --json"))).1;
        let report: serde_json::Value = serde_json::from_str(&json).unwrap();
        let names: Vec<_> = ["counters", "ended"]
            .into_iter()
            .flat_map(|part| report[part].as_object().unwrap().keys())
            .collect();
        assert_eq!(names.len(), text.lines().count() - 1, "{json}");
        assert!(names.iter().all(|name| name.starts_with(&format!("{protocol}."))), "{names:?}");
    }
    router.stop();
}

/// A key as its user writes it and as it is, and where in a process's memory parts of either are.
struct Key([u8; 20]);

impl Key {
    /// Octets that nothing else is made of.
    fn new(seed: u64) -> Key {
        let mut word = seed;
        Key(std::array::from_fn(|_| {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (word >> 56) as u8
        }))
    }

    fn hex(&self) -> String {
        self.0.iter().fold(String::new(), |text, octet| text + &format!("{octet:02x}"))
    }

    fn add(&self, spi: u32) -> String {
        format!("add 192.0.2.1 192.0.2.2 esp {spi:#x} -m tunnel -E aes-gcm-16 0x{};\n", self.hex())
    }

    /// Where its octets are, and where its digits, in parts of eight octets: a part is half a secret.
    fn places(&self, router: &Router) -> [Vec<String>; 2] {
        let (octets, digits) = (&self.0, self.hex().into_bytes());
        let mut found = [vec![], vec![]];
        for (mapping, start, memory) in memory(&router.child) {
            for (found, whole) in found.iter_mut().zip([&octets[..], &digits[..]]) {
                for part in whole.chunks_exact(8) {
                    let mut from = 0;
                    while let Some(at) = position(&memory[from..], part) {
                        let around = String::from_utf8_lossy(
                            &memory[(from + at).saturating_sub(48)..(from + at + 64).min(memory.len())],
                        )
                        .into_owned();
                        found.push(format!("{:#x} of {mapping}: {around:?}", start + from + at));
                        from += at + 1;
                    }
                }
            }
        }
        found
    }
}

/// Where one string of octets is in another.
fn position(within: &[u8], part: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = within[from..].iter().position(|octet| *octet == part[0]) {
        if within[from + at..].starts_with(part) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// What a process has in memory that it may write to: what a mapping is called, where it is, and what is in it.
fn memory(child: &Child) -> impl Iterator<Item = (String, usize, Vec<u8>)> {
    let of = |file: &str| format!("/proc/{}/{file}", child.id());
    let (maps, mem) = (fs::read_to_string(of("maps")).unwrap(), fs::File::open(of("mem")).unwrap());
    let lines: Vec<String> = maps.lines().map(str::to_owned).collect();
    lines.into_iter().filter_map(move |line| {
        let (range, rest) = line.split_once(' ').unwrap();
        let ends: Vec<_> = range.split('-').map(|end| usize::from_str_radix(end, 16).unwrap()).collect();
        let mut octets = vec![0; ends[1] - ends[0]];
        let is_there = rest.starts_with("rw") && mem.read_exact_at(&mut octets, ends[0] as u64).is_ok();
        is_there.then_some((line, ends[0], octets))
    })
}

#[test]
fn a_key_is_where_keys_are_while_its_sa_is_there_and_nowhere_before_or_after() {
    let keys: Vec<Key> = (1..=6).map(Key::new).collect();
    let router = Router::with(&keys[0].add(0x1000));
    let nowhere = |key: &Key, when: &str| {
        let patience = Instant::now() + Duration::from_secs(5);
        loop {
            let [octets, digits] = key.places(&router);
            if octets.is_empty() && digits.is_empty() {
                return;
            }
            assert!(Instant::now() < patience, "{when}:\n{}\n{}", octets.join("\n"), digits.join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    // Of a file, and said at the socket: as octets, never as digits.
    assert_eq!(router.statements(&keys[1].add(0x1001)).0, 0);
    for key in &keys[..2] {
        let [octets, digits] = key.places(&router);
        assert!(!octets.is_empty(), "the search would find it");
        assert!(digits.is_empty(), "{}", digits.join("\n"));
    }
    // Refused by what comes behind it, by what it is for, by how long it is; only asked about.
    let other = keys[2].add(0x1002);
    assert_eq!(router.statements(&format!("{other}{other}")).0, 1);
    nowhere(&keys[2], "refused by the check");
    assert_eq!(router.statements(&keys[3].add(0x1003).replace(';', "ff;")).0, 1);
    nowhere(&keys[3], "of a wrong length");
    assert_eq!(router.statements(&keys[4].add(0x1004).replace(';', "xyz;")).0, 1);
    nowhere(&keys[4], "no hexadecimal number");

    assert_eq!(router.statements("delete 192.0.2.1 192.0.2.2 esp 0x1001;").0, 0);
    nowhere(&keys[1], "deleted");
    // The file is read anew, with another key in it, and then is refused.
    let file = router.dir.join("ipsec.conf");
    write_private(&file, &keys[5].add(0x1005));
    assert_eq!(said(&router.ask("reload")).0, 0);
    nowhere(&keys[0], "gone with a reload");
    write_private(&file, &(keys[2].add(0x1002) + "frob;\n"));
    assert_ne!(said(&router.ask("reload")).0, 0);
    nowhere(&keys[2], "of a file that is refused");
    assert_eq!(said(&router.ask("setkey -F")).0, 0);
    nowhere(&keys[5], "flushed");
    router.stop();
}
