//! FreeBSD's pfctl parser suite: what parses prints exactly what pfctl prints, and parses to itself; what must fail fails
//! with pfctl's message.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::path::{Path, PathBuf};

const SUITE: &str = "../../shared/pfctl-suite";

fn inputs(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("a readable folder")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "in"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_file_of_the_suite_prints_or_fails_as_in_pfctl() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(SUITE);
    if !dir.is_dir() {
        println!("skipped: 0 of 102 files, the parser suite is not there");
        return;
    }
    let env = common::suite();
    let (mut exact, mut failed, mut wrong) = (0, 0, Vec::new());
    for input in inputs(&dir) {
        let name = input.file_stem().unwrap().to_string_lossy().into_owned();
        let parsed = pf::conf::parse_file(&input, &env, &[]);
        let fail = std::fs::read_to_string(dir.join(format!("{name}.fail"))).ok();
        match (parsed, fail) {
            (Ok(conf), None) => match compare(&dir, &name, &conf, &env) {
                Ok(()) => exact += 1,
                Err(difference) => wrong.push(format!("{name}: {difference}")),
            },
            (Err(errors), Some(fail)) if errors.iter().any(|e| e.message.contains(fail.trim())) => {
                failed += 1;
            }
            (Ok(_), Some(fail)) => wrong.push(format!("{name} must fail with {fail}")),
            (Err(errors), _) => wrong.push(format!("{name}: {}", errors[0].with_caret())),
        }
    }
    println!("{exact} files print exactly, {failed} fail as they must");
    assert!(wrong.is_empty(), "{}\n{} wrong", wrong.join("\n"), wrong.len());
    assert_eq!(exact + failed, 102);
}

fn compare(dir: &Path, name: &str, conf: &pf::PfConf, env: &pf::Environment) -> Result<(), String> {
    let printed = pf::print::listing(conf, env);
    let wanted: Vec<String> = [".ok", ".ok.alt-old-order"]
        .iter()
        .filter_map(|suffix| std::fs::read_to_string(dir.join(format!("{name}{suffix}"))).ok())
        .collect();
    if !wanted.contains(&printed) {
        return Err(first_difference(&printed, &wanted));
    }
    match pf::conf::parse_text(name, &printed, env, &[]) {
        Ok(again) if pf::print::listing(&again, env) == printed => Ok(()),
        Ok(again) => Err(format!(
            "parses to something else: {}",
            first_difference(&pf::print::listing(&again, env), &[printed])
        )),
        Err(errors) => Err(format!("printed does not parse: {}", errors[0].with_caret())),
    }
}

fn first_difference(printed: &str, wanted: &[String]) -> String {
    let Some(wanted) = wanted.last() else { return "there is nothing to compare with".into() };
    for (a, b) in printed.lines().zip(wanted.lines()) {
        if a != b {
            return format!("printed `{a}`, wanted `{b}`");
        }
    }
    format!("printed {} lines, wanted {}", printed.lines().count(), wanted.lines().count())
}
