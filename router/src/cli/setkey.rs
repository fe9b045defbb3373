//! `softnet setkey`, after setkey(8) of KAME, as NetBSD and FreeBSD have it. Keys are never told.

use super::{
    Exit,
    ask::{At, Failure, answer},
};
use crate::control::proto::Request;
use clap::Args;

/// What to show.
#[derive(Clone, Debug, Args)]
pub struct Setkey {
    /// Dump: security associations
    #[arg(short = 'D', required = true)]
    dump: bool,
    /// Policies instead
    #[arg(short = 'P')]
    policies: bool,
}

/// Runs the command.
pub fn run(at: &At, args: &Setkey) -> Result<Exit, Failure> {
    if args.policies {
        let report = answer!(at.ask(&Request::Policies)?, Policies);
        at.print(&report, || entries("SPD", report.iter().map(|policy| policy.text.as_str())))?;
    } else {
        let report = answer!(at.ask(&Request::Sas)?, Sas);
        at.print(&report, || entries("SAD", report.iter().map(|sa| sa.text.as_str())))?;
    }
    Ok(Exit::Good)
}

/// Entries one after the other, or setkey's words for none.
pub fn entries<'a>(database: &str, texts: impl Iterator<Item = &'a str>) -> String {
    let all: String = texts.collect();
    if all.is_empty() { format!("No {database} entries.\n") } else { all }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_told_one_after_the_other() {
        assert_eq!(entries("SAD", ["a b\n\tesp\n", "b a\n\tesp\n"].into_iter()), "a b\n\tesp\nb a\n\tesp\n");
        assert_eq!(entries("SPD", std::iter::empty()), "No SPD entries.\n");
    }
}
