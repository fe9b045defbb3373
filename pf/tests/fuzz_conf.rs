//! The parser against anything: it never panics, and what it accepts prints to something that it accepts and prints
//! alike.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{path::Path, sync::LazyLock};

use pf::Environment;
use proptest::prelude::*;

fn env() -> Environment {
    Environment::from_toml(include_str!("golden/env.toml")).expect("a right fixture")
}

/// The golden rulesets, line by line.
fn lines() -> Vec<String> {
    let mut lines = Vec::new();
    for folder in ["accepted", "rejected"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
        let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "conf")) {
            lines.extend(std::fs::read_to_string(file).unwrap().lines().map(str::to_owned));
        }
    }
    // Other files are not read: what a mutated name stands for is not ours to open.
    let opens = |line: &String| ["include", "load", "file"].iter().any(|word| line.contains(word));
    lines.retain(|line| !opens(line));
    lines
}

/// The same, read once.
static LINES: LazyLock<Vec<String>> = LazyLock::new(lines);

/// Words, symbols and blanks of a line.
fn pieces(line: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let kind = |c: char| (c.is_alphanumeric(), c.is_whitespace());
        let one = kind(first) == (false, false);
        let end =
            if one { first.len_utf8() } else { rest.find(|c| kind(c) != kind(first)).unwrap_or(rest.len()) };
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    pieces
}

/// Some lines, with pieces taken out, doubled, or replaced by pieces of other lines.
fn mutate(lines: &[String], choices: &[(u16, u16, u16, u8)]) -> String {
    let at = |n: u16, len: usize| usize::from(n) % len.max(1);
    let mut text = String::new();
    for &(line, other, place, what) in choices {
        let mut mine = pieces(&lines[at(line, lines.len())]);
        let theirs = pieces(&lines[at(other, lines.len())]);
        let (i, j) = (at(place, mine.len()), at(place.rotate_left(5), theirs.len()));
        match what % 6 {
            0 if !mine.is_empty() => drop(mine.remove(i)),
            1 if !mine.is_empty() => mine.insert(i, mine[i]),
            2 if !mine.is_empty() && !theirs.is_empty() => mine[i] = theirs[j],
            3 if !theirs.is_empty() => mine.insert(i, theirs[j]),
            4 => mine.truncate(i),
            _ => {}
        }
        text.push_str(&mine.concat());
        text.push('\n');
    }
    text
}

fn check(text: &str, env: &Environment) -> Result<(), TestCaseError> {
    match pf::conf::parse_text("fuzz", text, env, &[]) {
        Ok(conf) => {
            let printed = pf::print::conf(&conf, env);
            // A word may have a quote inside, as in pfctl; the macro it defines is printed in quotes, as by pfctl, and
            // that cannot be read back.
            let value = |line: &str| line.split_once(" = \"").map(|(_, value)| value.matches('"').count());
            if printed.lines().any(|line| value(line).is_some_and(|quotes| quotes != 1)) {
                return Ok(());
            }
            let again = pf::conf::parse_text("printed", &printed, env, &[]);
            let again = again.map_err(|e| TestCaseError::fail(format!("{text:?}\n{}", e[0].with_caret())))?;
            // A policy or default holds for the rules behind it, and is printed before all.
            if !["state-defaults", "state-policy", "optimization"].iter().any(|word| text.contains(word)) {
                prop_assert_eq!(pf::print::conf(&again, env), printed, "{:?}", text);
            }
        }
        Err(errors) => {
            for error in &errors {
                let line = text.lines().nth(error.at.line as usize - 1);
                prop_assert!(
                    line.is_some() || text.is_empty() || error.at.line as usize > text.lines().count()
                );
                prop_assert!(error.at.column >= 1 && error.with_caret().contains("fuzz:"));
            }
        }
    }
    Ok(())
}

fn cases(few: u32) -> ProptestConfig {
    let cases = if std::env::var_os("SOFTNET_SOAK").is_some() { 1_000_000 } else { few };
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn arbitrary_octets_are_read_without_panic(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        check(&String::from_utf8_lossy(&octets), &env())?;
    }

    #[test]
    fn arbitrary_text_of_pfs_letters_is_read_without_panic(text in "([a-z0-9{}()<>!=,/.:$\"'#\\\\\n -]|pass |from |to |port |nat-to |anchor ){0,80}") {
        check(&text, &env())?;
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn mutated_rulesets_are_read_without_panic(choices in proptest::collection::vec(any::<(u16, u16, u16, u8)>(), 1..6)) {
        check(&mutate(&LINES, &choices), &env())?;
    }
}
