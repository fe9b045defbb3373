//! `softnet leak --daemon`: two real gateways on TAP, by workers and locking, and whether they balance.

use crate::{
    cli::{
        Exit,
        ask::{At, Failure},
        table::{self, Align, row},
    },
    leak::gateways::{self, Load, Refused, Shape, Trial},
};
use core_affinity::CoreId;
use kern::lock::Locking;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::{Arc, atomic::AtomicBool};

/// Flows of datagrams.
const FLOWS: u16 = 4;
/// Octets that streams carry for each datagram that flows do.
const OCTETS: u64 = 250;
/// The most workers of a gateway.
const WORKERS: usize = 4;

/// All trials.
#[derive(Debug, Serialize)]
struct Report {
    trials: Vec<Trial>,
    balanced: bool,
}

/// Runs all shapes, one after the other.
pub(super) fn run(at: &At, packets: u32, cores: &[CoreId]) -> Result<Exit, Failure> {
    let refused = |e: Refused| Failure::System(format!("leak --daemon: {e}"));
    gateways::probe().map_err(refused)?;
    let cores: Vec<usize> = cores.iter().map(|core| core.id).take(WORKERS).collect();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let load = Load { datagrams: packets, flows: FLOWS, octets: u64::from(packets) * OCTETS };
    let mut trials = Vec::new();
    for workers in [1, cores.len()] {
        for locking in [Locking::Fine, Locking::Giant] {
            eprintln!("two gateways, {workers} workers each, {locking} ...");
            let trial = gateways::run(Shape { workers, locking }, &cores, load, &stop);
            trials.push(trial.map_err(refused)?);
        }
    }
    let balanced = trials.iter().all(|trial| trial.good);
    let report = Report { trials, balanced };
    at.print(&report, || text(&report))?;
    Ok(if balanced { Exit::Good } else { Exit::No })
}

fn text(report: &Report) -> String {
    let mut lines = vec![row([
        "gateway",
        "workers",
        "locking",
        "received",
        "sent",
        "sealed",
        "opened",
        "states",
        "altq",
        "running",
        "stopped",
        "held",
        "unexplained",
        "",
    ])];
    for gateway in report.trials.iter().flat_map(|trial| &trial.gateways) {
        let verdict = |balanced: bool| if balanced { "balanced" } else { "NOT balanced" };
        let held: u64 = gateway.stopped.by_owner.values().sum();
        lines.push(vec![
            gateway.name.to_owned(),
            gateway.workers.to_string(),
            gateway.locking.clone(),
            gateway.stopped.packets.received.to_string(),
            gateway.stopped.packets.sent.to_string(),
            gateway.esp[0].to_string(),
            gateway.esp[1].to_string(),
            gateway.states.to_string(),
            gateway.altq.to_string(),
            verdict(gateway.running.balanced).to_owned(),
            verdict(gateway.stopped.balanced).to_owned(),
            held.to_string(),
            gateway.stopped.unexplained.to_string(),
            if gateway.good { String::new() } else { "NOT good".to_owned() },
        ]);
    }
    let left = [0, 2, 9, 10, 13];
    let columns: Vec<Align> =
        (0..14).map(|n| if left.contains(&n) { Align::Left } else { Align::Right }).collect();
    let mut text = table::set(&columns, &lines);
    for trial in &report.trials {
        let Some(gateway) = trial.gateways.first() else { continue };
        let line = format!(
            "{} x {}: {} datagrams came back, {} MB of TCP arrived, {:.1} s{}\n",
            gateway.workers,
            gateway.locking,
            trial.carried.echoed,
            trial.carried.octets / 1_000_000,
            trial.seconds,
            if trial.good { "" } else { ": NOT good" }
        );
        text += &line;
    }
    text + if report.balanced {
        "every gateway balances, while it runs and to zero at the end\n"
    } else {
        "NOT balanced\n"
    }
}
