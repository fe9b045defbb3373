//! Golden rulesets: what is accepted prints as the file beside it says, and parses to itself; what is rejected is
//! rejected with these messages at these places, every one of them.
//!
//! `SOFTNET_BLESS=1 cargo test -p pf --test golden` writes the files beside the rulesets anew, to be looked at.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use pf::{Environment, conf::ConfError};

fn env() -> Environment {
    Environment::from_toml(include_str!("golden/env.toml")).expect("a right fixture")
}

fn rulesets(folder: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "conf"))
        .collect();
    files.sort();
    files
}

/// Compares with the file beside a ruleset, or writes it.
fn compare(path: &Path, extension: &str, said: &str, wrong: &mut Vec<String>) {
    let beside = path.with_extension(extension);
    if std::env::var_os("SOFTNET_BLESS").is_some() {
        std::fs::write(&beside, said).unwrap();
    }
    let wanted = std::fs::read_to_string(&beside).unwrap_or_default();
    if said != wanted {
        wrong.push(format!("{}:\n--- said\n{said}--- wanted\n{wanted}", path.display()));
    }
}

#[test]
fn accepted_rulesets_print_as_wanted_and_parse_to_themselves() {
    let (env, mut wrong) = (env(), Vec::new());
    let files = rulesets("accepted");
    for path in &files {
        let conf = match pf::conf::parse_file(path, &env, &[]) {
            Ok(conf) => conf,
            Err(errors) => {
                wrong.push(format!("{}: {}", path.display(), errors[0].with_caret()));
                continue;
            }
        };
        let printed = pf::print::conf(&conf, &env);
        compare(path, "ok", &printed, &mut wrong);
        match pf::conf::parse_text(&path.display().to_string(), &printed, &env, &[]) {
            Ok(again) if again.rules == conf.rules && again.anchors == conf.anchors => {
                assert_eq!(pf::print::conf(&again, &env), printed, "{}", path.display());
            }
            Ok(again) => {
                wrong.push(format!("{} parses to\n{}", path.display(), pf::print::conf(&again, &env)));
            }
            Err(errors) => wrong.push(format!("{} printed: {}", path.display(), errors[0].with_caret())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files.len() >= 35, "{} accepted rulesets", files.len());
}

#[test]
fn rejected_rulesets_say_all_that_is_wrong_and_where() {
    let (env, mut wrong) = (env(), Vec::new());
    let files = rulesets("rejected");
    for path in &files {
        let Err(errors) = pf::conf::parse_file(path, &env, &[]) else {
            wrong.push(format!("{} is accepted", path.display()));
            continue;
        };
        let dir = format!("{}/", path.parent().unwrap().display());
        let line = |e: &ConfError| {
            assert!(!e.excerpt.is_empty() && e.at.line > 0 && e.at.column > 0, "{e:?}");
            format!("{}:{}: {}{}\n", e.at.line, e.at.column, e.message.replace(&dir, ""), help(e))
        };
        let said: String = errors.iter().map(line).collect();
        compare(path, "fail", &said, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files.len() >= 25, "{} rejected rulesets", files.len());
}

fn help(e: &ConfError) -> String {
    e.help.as_ref().map_or_else(String::new, |help| format!("; {help}"))
}
