//! `softnet setkey` and `softnet capture` at a running router: the program as its user runs it. The router has no interfaces, so
//! nothing here needs privileges.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
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
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("softnet-daemon-{tag}"));
        fs::create_dir_all(&dir).unwrap();
        let conf = format!(
            "[router]\nname = \"d{tag}\"\nworkers = 1\nclusters = 256\njumbos = 16\ncontrol = \"{}\"\n",
            dir.join("control").display()
        );
        fs::write(dir.join("softnet.toml"), conf).unwrap();
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
