//! `softnet.toml`: interfaces, addresses, routes, workers.
//!
//! ```text
//!   text ── TOML ──► Conf ── check ──► ValidConf ── netconfig ──► NetConfig
//!              (keys and places)  (everything fits)     (built; published)
//! ```
//!
//! All faults of a file are found in one run, and each names file, line, column and what would be right. The two other
//! languages, pf.conf and ipsec.conf, belong to the crates `pf` and `ipsec`; here they are paths, and that
//! a file with keys is its owner's alone is for `ipsec` to see.

mod check;
mod check_interface;
mod check_route;
mod check_tunnel;
pub mod derive;
pub mod diag;
pub mod file;
mod restart;
mod section;
mod valid;

pub use check::{Host, check};
pub use diag::{Diagnostic, Invalid};
pub use file::Conf;
pub use restart::{restart_needed, sentence};
pub use valid::{Advertise, DriverConf, Ends, InterfaceConf, RouteConf, ValidConf};

use diag::Source;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Reads and checks a file for this machine.
pub fn load(path: &Path) -> Result<ValidConf, Invalid> {
    let (conf, bad) = Conf::read(path)?;
    check(&conf, bad, &Host::this())
}

/// Checks a text; `path` is what complaints call it and where relative paths start.
pub fn from_text(path: &Path, text: &str, host: &Host) -> Result<ValidConf, Invalid> {
    let source = Arc::new(Source { path: path.to_owned(), text: text.to_owned() });
    let (conf, bad) = Conf::parse(&source);
    check(&conf, bad, host)
}

/// Where the control socket of a router is unless its file says otherwise.
pub fn default_control(name: &str) -> PathBuf {
    Path::new("/run/softnet").join(format!("{name}.sock"))
}

#[cfg(test)]
mod tests;
