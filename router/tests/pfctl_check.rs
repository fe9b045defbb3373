//! `softnet pfctl -o none -n -v -f FILE --env FIXTURE`: what pfctl prints, without a router.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    path::Path,
    process::{Command, Output},
};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../pf/tests/pfctl-env.toml");

fn pfctl(dir: &Path, file: &str) -> Output {
    optimized(dir, file, &["-o", "none"])
}

/// With this on the command line about the optimizer.
fn optimized(dir: &Path, file: &str, how: &[&str]) -> Output {
    let softnet = std::env::var_os("SOFTNET_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_softnet").into());
    Command::new(softnet)
        .current_dir(dir)
        .args(["pfctl", "-n", "-v", "-f", file, "--env", FIXTURE])
        .args(how)
        .output()
        .unwrap()
}

#[test]
fn a_ruleset_is_printed_expanded() {
    let dir = std::env::temp_dir().join(format!("softnet-pfctl-check-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("good"), "pass in on vlan1057 from { 10/8, ::1 } nat-to (lo0)\n").unwrap();
    std::fs::write(dir.join("bad"), "pass in all\npass in proto foo\nblock in on\n").unwrap();
    let good = pfctl(&dir, "good");
    let bad = pfctl(&dir, "bad");
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(
        String::from_utf8(good.stdout).unwrap(),
        "pass in on vlan1057 inet from 10.0.0.0/8 to any flags S/SA keep state nat-to (lo0) round-robin\n\
         pass in on vlan1057 inet6 from ::1 to any flags S/SA keep state nat-to (lo0) round-robin\n"
    );
    assert_eq!((bad.status.code(), bad.stdout.len()), (Some(1), 0));
    let said = String::from_utf8(bad.stderr).unwrap();
    assert!(
        said.contains("bad:2:15: unknown protocol `foo`;")
            && said.contains("\n  pass in proto foo\n                ^"),
        "{said}"
    );
    assert!(said.contains("bad:3:12: syntax error"), "{said}");
}

#[test]
fn a_ruleset_is_optimised_unless_somebody_says_otherwise() {
    let dir = std::env::temp_dir().join(format!("softnet-pfctl-optimize-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let list = "pass in from { 10.0.0.1 10.0.0.3 10.0.0.5 10.0.0.7 10.0.0.9 10.0.0.11 } to any\n";
    std::fs::write(dir.join("plain"), list).unwrap();
    std::fs::write(dir.join("none"), format!("set ruleset-optimization none\n{list}")).unwrap();
    let lines = |file: &str, how: &[&str]| {
        let output = optimized(&dir, file, how);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let short = lines("plain", &[]);
    assert!(short.len() == 2 && short[0].starts_with("table <__automatic_"), "{short:?}");
    assert_eq!(lines("plain", &["-o", "profile"]), short, "nothing was counted yet");
    assert_eq!(lines("plain", &["-o", "none"]).len(), 6);
    assert_eq!(lines("none", &[]).len(), 7, "with its setting");
    assert_eq!(lines("none", &["-o", "basic"]).len(), 3, "the command line wins");
    let wrong = optimized(&dir, "plain", &["-o", "fast"]);
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn every_file_of_the_suite_comes_out_as_pfctl_prints_it() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pfctl-suite");
    if !dir.is_dir() {
        println!("skipped: 0 of 102 files, the parser suite is not there");
        return;
    }
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".in") else { continue };
        count += 1;
        let output = pfctl(&dir, &name);
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        let read = |suffix: &str| std::fs::read_to_string(dir.join(format!("{stem}{suffix}"))).ok();
        let right = match read(".fail") {
            Some(fail) => output.status.code() == Some(1) && said.contains(fail.trim()),
            None => [read(".ok"), read(".ok.alt-old-order")].contains(&Some(said)),
        };
        if !right {
            wrong.push(name);
        }
    }
    println!("{count} files");
    assert!(count == 102 && wrong.is_empty(), "{wrong:?}");
}
