//! `softnet leak --daemon`: real gateways on TAP in rooms of their own; and the daemon's `--audit`.
//!
//! Runs where `SOFTNET_NET_TESTS` is set (`make test-net`); then root and `/dev/net/tun` must be there.

#![allow(clippy::unwrap_used, reason = "a test")]

mod netns;

use kern::testing::soak;
use netns::{Background, available, softnet, unique};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[test]
fn two_real_gateways_balance_with_one_worker_and_with_several_fine_and_giant() {
    if !available() {
        return;
    }
    let packets = if soak() { 200_000 } else { 4_000 };
    let child = Command::new(softnet())
        .args(["leak", "--daemon", "--json", "--packets", &packets.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stdout));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let trials = report["trials"].as_array().unwrap();
    assert_eq!((trials.len(), &report["balanced"]), (4, &true.into()), "{report:#}");
    for trial in trials {
        assert!(trial["carried"]["echoed"].as_u64() >= Some(packets), "{trial:#}");
        for gateway in trial["gateways"].as_array().unwrap() {
            let held = gateway["stopped"]["by_owner"].as_object().unwrap();
            assert!(held.values().all(|n| n == 0), "{gateway:#}");
            let esp = gateway["esp"].as_array().unwrap();
            assert!(esp.iter().all(|n| n.as_u64() > Some(packets / 2)), "{gateway:#}");
        }
    }
    // Nothing is left of it.
    let left = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&left.stdout).contains(&format!("softnet-leak-{pid}")));
    assert!(!std::env::temp_dir().join(format!("softnet-leak-{pid}")).exists());
}

#[test]
fn a_reader_without_leave_is_told_so() {
    if !available() {
        return;
    }
    let copy = std::env::temp_dir().join(format!("softnet-{}", unique()));
    fs::copy(softnet(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    // nobody
    let output = Command::new(&copy).args(["leak", "--daemon"]).uid(65534).gid(65534).output();
    fs::remove_file(&copy).unwrap();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("root"), "{said}");
}

#[test]
fn the_daemon_logs_its_balance_as_often_as_it_is_told() {
    if !available() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("softnet-audit-{}", unique()));
    fs::create_dir_all(&dir).unwrap();
    let conf = format!(
        "[router]\nname = \"audited\"\nworkers = 2\ncontrol = \"{}\"\n",
        dir.join("control").display()
    );
    fs::write(dir.join("softnet.toml"), conf).unwrap();
    let log = fs::File::create(dir.join("log")).unwrap();
    let daemon = Command::new(softnet())
        .args(["run", "--audit", "100ms", "-f"])
        .arg(dir.join("softnet.toml"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let _daemon = Background(daemon);
    let until = Instant::now() + Duration::from_secs(20);
    let audits = || fs::read_to_string(dir.join("log")).unwrap().matches("audit: balanced: held 0").count();
    while audits() < 3 {
        assert!(Instant::now() < until, "{}", fs::read_to_string(dir.join("log")).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::remove_dir_all(&dir).unwrap();
}
