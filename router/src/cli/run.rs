//! `softnet run`: the daemon.

use super::{
    Exit,
    ask::{At, Failure},
};
use crate::{control::proto::MbufReport, daemon::Orders};
use clap::Args;
use kern::lock::Locking;
use std::{path::PathBuf, time::Duration};

/// What the daemon is told.
#[derive(Debug, Args)]
pub struct Run {
    /// softnet.toml
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// How coarse locking is: fine or giant; the file's own word otherwise
    #[arg(long, value_name = "PROFILE")]
    locking: Option<Locking>,
    /// Log the balance of buffers and packets this often: 10s, 1m, 500ms
    #[arg(long, value_name = "EVERY", value_parser = every)]
    audit: Option<Duration>,
}

/// A quiet moment stops every worker: more than ten a second would be felt.
const SHORTEST: Duration = Duration::from_millis(100);

/// How often something is to be done.
fn every(text: &str) -> Result<Duration, String> {
    let wrong = || format!("a time of {} ms or more, as 10s, 1m, 500ms", SHORTEST.as_millis());
    let every: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(every).ok().filter(|every| *every >= SHORTEST).ok_or_else(wrong)
}

/// Runs until SIGTERM, SIGINT or `softnet stop`, and prints how the books stand.
pub(super) fn run(at: &At, args: &Run) -> Result<Exit, Failure> {
    let orders = Orders { locking: args.locking, audit: args.audit };
    let books = crate::daemon::run(&args.file, orders)?;
    let report = MbufReport::new(&books.audit, &books.balance, true);
    at.print(&report, || format!("{books}\n"))?;
    Ok(if books.balanced() && books.audit.held() == 0 { Exit::Good } else { Exit::No })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often_is_a_time_with_a_unit() {
        assert_eq!(every("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(every("1m"), Ok(Duration::from_mins(1)));
        assert_eq!(every("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "10", "0s", "-10s", "1ms", "soon", "1y"] {
            assert!(every(wrong).is_err_and(|said| said.contains("as 10s")), "{wrong}");
        }
    }
}
