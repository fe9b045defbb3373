//! FreeBSD's pfctl parser suite, as far as the language has an engine: what parses prints exactly what pfctl prints, and
//! parses to itself; the rest is refused as unsupported, not as wrong.

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
fn files_of_the_suite_print_as_pfctl_prints_them_or_are_refused_by_name() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(SUITE);
    if !dir.is_dir() {
        println!("skipped: the parser suite is not there");
        return;
    }
    let env = common::suite();
    let (mut exact, mut refused, mut wrong) = (0, 0, Vec::new());
    for input in inputs(&dir) {
        let name = input.file_stem().unwrap().to_string_lossy().into_owned();
        match pf::conf::load_file(&input, &env, &[]) {
            Ok(conf) => {
                let printed = pf::print::conf(&conf, &env);
                let wanted: Vec<String> = [".ok", ".ok.alt-old-order"]
                    .iter()
                    .filter_map(|suffix| std::fs::read_to_string(dir.join(format!("{name}{suffix}"))).ok())
                    .collect();
                if !wanted.contains(&printed) {
                    wrong.push(format!("{name}: {}", first_difference(&printed, &wanted)));
                    continue;
                }
                exact += 1;
                let again =
                    pf::conf::load_text(&name, &printed, &env, &[]).map(|c| pf::print::conf(&c, &env));
                if again.as_ref() != Ok(&printed) {
                    wrong.push(format!("{name} printed does not parse to itself: {again:?}"));
                }
            }
            Err(errors) => {
                let fail = std::fs::read_to_string(dir.join(format!("{name}.fail"))).ok();
                let said = |text: &str| errors.iter().any(|e| e.message.contains(text));
                if said("not supported") || fail.is_some_and(|f| said(f.trim())) {
                    refused += 1;
                } else {
                    wrong.push(format!("{name} refused: {}", errors[0].with_caret()));
                }
            }
        }
    }
    println!("{exact} files print exactly, {refused} are refused by name");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
