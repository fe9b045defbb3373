//! `softnet run`: the daemon.

use super::{
    Exit,
    ask::{At, Failure},
};
use crate::control::proto::MbufReport;
use clap::Args;
use kern::lock::Locking;
use std::path::PathBuf;

/// What the daemon is told.
#[derive(Debug, Args)]
pub struct Run {
    /// softnet.toml
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// How coarse locking is: fine or giant; the file's own word otherwise
    #[arg(long, value_name = "PROFILE")]
    locking: Option<Locking>,
}

/// Runs until SIGTERM, SIGINT or `softnet stop`, and prints how the books stand.
pub(super) fn run(at: &At, args: &Run) -> Result<Exit, Failure> {
    let books = crate::daemon::run(&args.file, args.locking)?;
    let report = MbufReport::new(&books.audit, &books.balance, true);
    let good = books.balanced() && books.audit.held() == 0;
    at.print(&report, || {
        let verdict = if good { "balanced" } else { "NOT balanced" };
        let held = books.audit.held();
        let p = &report.packets;
        format!(
            "{verdict}: held {held}, unexplained {}; packets: {} received + {} created + {} split = {} sent + {} delivered + {} merged + {} ended\n",
            report.unexplained, p.received, p.created, p.split, p.sent, p.delivered, p.merged, p.ended
        )
    })?;
    Ok(if good { Exit::Good } else { Exit::No })
}
