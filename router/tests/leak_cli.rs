//! `softnet leak` as a program: what it prints, what it says in JSON, how it ends.

#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use std::{
    process::{Command, Output},
    thread,
};

fn leak(words: &str) -> Output {
    let softnet = std::env::var_os("SOFTNET_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_softnet").into());
    Command::new(softnet).arg("leak").args(words.split_whitespace()).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

const SMALL: &str = "--traffic tunnel --crypto fast --family inet --vcpus 1";

#[test]
fn json_has_every_figure_under_its_name_and_the_exit_status_is_the_verdict() {
    let output = leak(&format!("--json --profile netbsd2013,giant,fine {SMALL} --packets 5000"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_eq!(report["matches_report"], true);
    let rows = report["rows"].as_array().unwrap();
    let profiles: Vec<_> = rows.iter().map(|row| row["profile"].as_str().unwrap()).collect();
    assert_eq!(profiles, ["netbsd2013", "giant", "fine"]);
    for row in rows {
        let texts = ["table", "profile", "crypto", "traffic", "transform", "family", "placement", "verdict"];
        let counts =
            ["vcpus", "packets", "leaked", "stranded", "incidents", "jammed", "qfull", "corrupt_seen"];
        assert!(texts.iter().all(|key| row[*key].is_string()), "{row:#}");
        assert!(counts.iter().all(|key| row[*key].is_u64()), "{row:#}");
        assert!(row["seconds"].as_f64().is_some_and(|s| s > 0.0), "{row:#}");
        let what = ["table", "crypto", "traffic", "transform", "family", "verdict"]
            .map(|key| row[key].as_str().unwrap());
        assert_eq!(what, ["main", "fast", "tunnel", "esp", "inet", "none"], "{row:#}");
        assert_eq!((&row["packets"], &row["leaked"], &row["books"]), (&5000.into(), &0.into(), &true.into()));
    }
}

#[test]
fn ah_and_ipcomp_run_the_report_s_table_beyond_it() {
    let cells = "--profile netbsd2013,fine --traffic tunnel --crypto fast --family inet --vcpus 1,2";
    let output = leak(&format!("--json --transform ah,ipcomp {cells} --packets 40000"));
    let report = json(&output);
    let rows: Vec<_> = report["rows"].as_array().unwrap().iter().collect();
    let told: Vec<_> = rows
        .iter()
        .map(|row| ["transform", "profile", "verdict"].map(|key| row[key].as_str().unwrap().to_owned()))
        .collect();
    let per = |transform: &str| {
        let row = |profile: &str, verdict: &str| [transform, profile, verdict].map(str::to_owned);
        [row("netbsd2013", "none"), row("netbsd2013", "leak"), row("fine", "none"), row("fine", "none")]
    };
    assert_eq!(told, [per("ah"), per("ipcomp")].concat());
    assert!(rows.iter().all(|row| row["table"] == "beyond" && row["books"] == true));
    // The report's own table has not been run.
    assert_eq!((output.status.code(), &report["matches_report"]), (Some(0), &false.into()));
}

#[test]
fn a_cell_that_is_not_as_expected_makes_it_end_with_one_and_say_so() {
    // One packet has nobody to race with.
    let output = leak(&format!("--profile spl-off {SMALL} --packets 1"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("EXPECTED leak") && said.contains("1 cells are NOT as expected"), "{said}");
}

#[test]
fn one_cpu_leaks_with_splnet_off_and_stranded_requests_are_not_called_leaked() {
    let output = leak(&format!("--json --profile spl-off {SMALL} --packets 20000"));
    let row = &json(&output)["rows"][0];
    assert_eq!((output.status.code(), row["verdict"].as_str()), (Some(0), Some("leak")), "{row:#}");
    assert!(row["incidents"].as_u64() > Some(0), "{row:#}");
    let output = leak("--json --profile G --packets 20000");
    let row = &json(&output)["rows"][0];
    assert_eq!((output.status.code(), row["verdict"].as_str()), (Some(0), Some("stranded")), "{row:#}");
}

#[test]
fn without_reclaim_the_pool_is_exhausted_after_so_many_packets() {
    let cell = "--profile netbsd2013 --crypto kame-s --vcpus 2 --placement soft=1";
    let output = leak(&format!("--json {cell} --no-reclaim --packets 100000000"));
    let row = &json(&output)["rows"][0];
    let after = row["exhausted_after"].as_u64().unwrap_or_else(|| panic!("{row:#}"));
    let leaked = row["leaked"].as_u64().unwrap();
    assert!(leaked > 10_000 && leaked <= 32_768 && after > leaked, "{leaked} leaked, {after} packets");
    assert_eq!((&row["books"], &row["stuck"]), (&true.into(), &Value::Null), "{row:#}");
}

#[test]
fn a_machine_with_one_core_is_told_that_it_has_one() {
    let output = thread::spawn(|| {
        let core = core_affinity::get_core_ids().unwrap()[0];
        // This thread and the processes it starts.
        assert!(core_affinity::set_for_current(core));
        leak("--profile giant")
    });
    let output = output.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
    assert!(said.contains("one core"), "{said}");
}

#[test]
fn a_schedule_is_told_twice_the_same_and_giant_closes_the_window() {
    let tell = || leak("--schedule 7");
    let (once, again) = (tell(), tell());
    assert_eq!((once.status.code(), &once.stdout), (Some(0), &again.stdout));
    let said = String::from_utf8_lossy(&once.stdout).into_owned();
    assert!(said.contains("locks of February 2013: 1 lost") && said.contains("giant"), "{said}");
    assert!(said.contains("nobody can reach it") && said.contains("sweep: nothing lost"), "{said}");
}

#[test]
fn a_plot_has_a_line_for_each_cell_that_leaks() {
    let dir = std::env::temp_dir().join(format!("softnet-leak-plot-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let draw = |name: &str| {
        let path = dir.join(name);
        let output = leak(&format!("--profile spl-off {SMALL} --packets 40000 --plot {}", path.display()));
        (output, std::fs::read(path))
    };
    let (svg, png, bad) = (draw("p.svg"), draw("p.png"), draw("p.gif"));
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(bad.0.status.code(), Some(2), "{:?}", bad.0);
    let said = String::from_utf8_lossy(&svg.0.stderr).into_owned();
    if said.contains("no TrueType font") {
        println!("skipped: {said}");
        return;
    }
    let text = String::from_utf8(svg.1.unwrap()).unwrap();
    assert!(
        text.starts_with("<svg") && text.contains("polyline") && text.contains("spl-off fast tunnel"),
        "{text}"
    );
    assert!(png.1.unwrap().starts_with(b"\x89PNG"), "{:?}", png.0);
}
