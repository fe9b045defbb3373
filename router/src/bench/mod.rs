//! `softnet bench forward|esp|pf`: the whole path in one process, from `ether_input` to `ether_output`, between a source
//! and a sink in memory.
//!
//! Path and bare arithmetic (AEAD, or cipher and authentication) are measured in alternation, slice by slice on the same pinned threads, and the medians are taken:
//! the machines are noisy, and a ratio within one run is what holds. For ESP the making of frames (outbound: a
//! header written over a stale buffer; inbound: sealing) and the checking of what arrives are off the clock; for
//! `forward` the source is on it, as a device's ring would be.

mod aead;
mod altq;
mod bed;
mod frames;
mod pf;
mod run;
mod source;

pub use altq::{AltqReport, AltqRow, altq};
pub use pf::{PfPlan, PfRatio, PfReport, PfRow, pf, ruleset};
pub use run::{Progress, bench};

use ipsec::transform::{Engine, Suite};
use kern::lock::Locking;
use serde::Serialize;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Plain forwarding.
    Forward,
    /// Into a tunnel.
    EspOut,
    /// Out of a tunnel.
    EspIn,
}

/// What to measure: every combination is a row.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which ways.
    pub what: Vec<What>,
    /// Numbers of workers.
    pub workers: Vec<usize>,
    /// Bytes of the (inner) IP packet.
    pub sizes: Vec<usize>,
    /// Algorithms and who does them, for ESP.
    pub suites: Vec<(Suite, Engine)>,
    /// Numbers of SAs, for ESP.
    pub sas: Vec<usize>,
    /// Flows.
    pub flows: usize,
    /// Routes in the table.
    pub routes: usize,
    /// Seconds a row.
    pub seconds: f64,
    /// Locking profiles.
    pub locking: Vec<Locking>,
    /// Whether pf is on, with a pass-all ruleset without state.
    pub pf: bool,
}

/// One row of the answer. Fields that have no meaning for the bench are null.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `out`, `in`, or null.
    pub direction: Option<&'static str>,
    /// Algorithm.
    pub suite: Option<String>,
    /// Engine used.
    pub engine: Option<String>,
    /// Bytes of the (inner) IP packet.
    pub size: usize,
    /// Workers.
    pub workers: usize,
    /// SAs.
    pub sas: Option<usize>,
    /// Flows.
    pub flows: usize,
    /// Locking profile.
    pub locking: String,
    /// Million packets a second, all workers together.
    pub mpps: f64,
    /// Gigabits of (inner) IP packets a second, all workers together.
    pub gbps: f64,
    /// Nanoseconds a packet on one worker.
    pub ns_per_packet: f64,
    /// Nanoseconds a packet beyond the engine's own.
    pub added_ns: Option<f64>,
    /// The fastest engine there is, at this size.
    pub ceiling_engine: Option<String>,
    /// What that would do on as many workers, without a router around it.
    pub ceiling_gbps: Option<f64>,
    /// `gbps` over `ceiling_gbps`.
    pub ratio: Option<f64>,
    /// Whether the books balanced and everything that arrived was right.
    pub balanced: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `forward` or `esp`.
    pub bench: &'static str,
    /// The rows.
    pub results: Vec<Row>,
}
