//! The daemon with the laboratory's eyes: two real gateways on TAP, an ESP tunnel between them, pf and ALTQ on, traffic
//! through it all; with one worker and with several, `fine` and `giant`. At the end every buffer must be home.
//!
//! ```text
//!   host a ── gwa-lan [gw-a] gwa-wan ══ the wire ══ gwb-wan [gw-b] gwb-lan ── host b
//!   room a    └───────────────────── the middle room ─────────────────────┘   room b
//! ```
//!
//! The gateways are those of `configs/`, each a daemon as `softnet run` starts it, on threads of this process. The wire is
//! the kernel of the middle room, which hands packets over and answers ARP and ND for the far side.

mod bed;
mod room;
mod traffic;

use crate::control::proto::MbufReport;
use bed::Bed;
use kern::lock::Locking;
use room::Room;
use serde::Serialize;
use std::{
    fmt::Display,
    fs::File,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};
pub use traffic::{Carried, Load};

/// The system refused: no leave, no device, no iproute2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Refused {
    fn of(what: &str, why: impl Display) -> Refused {
        Refused(format!("{what}: {why}"))
    }
}

/// How gateways are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Workers of each.
    pub workers: usize,
    /// How coarse locking is.
    pub locking: Locking,
}

/// What a gateway came to.
#[derive(Clone, Debug, Serialize)]
pub struct Gateway {
    /// Its name.
    pub name: &'static str,
    /// Its workers.
    pub workers: usize,
    /// `fine` or `giant`.
    pub locking: String,
    /// Packets sealed into the tunnel, and opened.
    pub esp: [u64; 2],
    /// pf's states.
    pub states: u64,
    /// Packets that ALTQ has sent.
    pub altq: u64,
    /// The books while it ran, at a quiet moment.
    pub running: MbufReport,
    /// The books after it stopped.
    pub stopped: MbufReport,
    /// Both balance, with nothing held at the end, and tunnel, pf and ALTQ were at work.
    pub good: bool,
}

/// What one shape came to.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// Both gateways.
    pub gateways: Vec<Gateway>,
    /// What came through.
    pub carried: Carried,
    /// Seconds of traffic.
    pub seconds: f64,
    /// All of the load came through, and both gateways are good.
    pub good: bool,
}

/// Whether this process may have namespaces and TAP devices.
pub fn probe() -> Result<(), Refused> {
    let needs = |e: Refused| Refused::of("needs root, /dev/net/tun and iproute2", e);
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    tun.map_err(|e| needs(Refused::of("/dev/net/tun", e)))?;
    Room::new().map(drop).map_err(needs)
}

/// Runs two gateways of this shape on `cores`, has `load` carried, and stops them.
pub fn run(shape: Shape, cores: &[usize], load: Load, stop: &Arc<AtomicBool>) -> Result<Trial, Refused> {
    let bed = Bed::new(shape, cores)?;
    let start = Instant::now();
    let carried = bed.talk(load, stop);
    let seconds = start.elapsed().as_secs_f64();
    // Stopped in any case.
    let gateways = bed.stop()?;
    let carried = carried?;
    let all = carried.echoed >= u64::from(load.datagrams) && carried.octets == 4 * load.octets;
    let good = all && gateways.iter().all(|g| g.good);
    Ok(Trial { gateways, carried, seconds, good })
}
