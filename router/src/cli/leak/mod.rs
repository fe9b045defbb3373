//! `softnet leak`: one core against many, who loses clusters, and why.

mod daemon;
mod text;

use super::{
    Exit,
    ask::{At, Failure},
};
use crate::leak::{
    cell::{Cell, STALL, Setting},
    layout::CPUS,
    plot,
    profile::Profile,
    report::Report,
    table::{self as tables, Entry, Expect, Which},
    trace,
    world::{Crypto, Placement, Traffic},
};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use ipsec::sa::Protocol;
use std::path::PathBuf;

/// What is run; without any choice the table of the report and what lies beyond.
#[derive(Clone, Debug, Args)]
pub struct Leak {
    /// Profiles: netbsd2013, giant, fine, A, A-len, A6, B, C, D, E, F, G, H, I, J, X1, X2, spl-off
    #[arg(long, value_delimiter = ',', value_parser = profile)]
    profile: Vec<Profile>,
    /// Virtual CPUs
    #[arg(long, value_delimiter = ',', value_parser = vcpus)]
    vcpus: Vec<u32>,
    /// Crypto styles
    #[arg(long, value_delimiter = ',')]
    crypto: Vec<CryptoWord>,
    /// Traffic
    #[arg(long, value_delimiter = ',')]
    traffic: Vec<TrafficWord>,
    /// What the SAs speak: esp (the report's table, and the usual choice), ah and ipcomp run it with theirs
    #[arg(long, value_delimiter = ',')]
    transform: Vec<TransformWord>,
    /// Address family of the queues
    #[arg(long, value_delimiter = ',')]
    family: Vec<Family>,
    /// Packets a cell
    #[arg(long, default_value = "200000", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    packets: u32,
    /// Seed of nested interrupts
    #[arg(long, default_value = "2013")]
    seed: u64,
    /// Who runs where: nic=CPU,soft=CPU|local,ret=CPU
    #[arg(long, value_parser = placement)]
    placement: Option<Placed>,
    /// One preemption point in N finds its CPU slow (0: none, the natural rate)
    #[arg(long, value_name = "N", default_value_t = STALL)]
    stall: u64,
    /// Leave lost clusters lost, until the pool is exhausted
    #[arg(long)]
    no_reclaim: bool,
    /// Draw leaked clusters over packets (with a font of /usr/share/fonts)
    #[arg(long, value_name = "FILE.svg|.png")]
    plot: Option<PathBuf>,
    /// Tell one small case step by step, from this schedule on, and how consistent locks change it
    #[arg(long, value_name = "SEED", conflicts_with_all = ["profile", "vcpus", "plot", "no_reclaim"])]
    schedule: Option<u64>,
    /// Two real gateways on TAP instead, a tunnel between them, in network namespaces of their own (root): do they balance?
    #[arg(long, conflicts_with_all = ["profile", "vcpus", "crypto", "traffic", "transform", "family", "placement",
        "schedule", "plot", "no_reclaim"])]
    daemon: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CryptoWord {
    Fast,
    KameSk,
    KameS,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TrafficWord {
    None,
    Tunnel,
    Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TransformWord {
    Esp,
    Ah,
    Ipcomp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Family {
    Inet,
    Inet6,
}

/// A placement as given: `None` is the usual one.
#[derive(Clone, Copy, Debug, Default)]
struct Placed {
    nic: Option<u32>,
    soft: Option<u32>,
    ret: Option<u32>,
}

fn profile(word: &str) -> Result<Profile, String> {
    Profile::named(word).ok_or_else(|| {
        let names: Vec<_> = Profile::ALL.iter().map(|p| p.name()).collect();
        format!("one of {}", names.join(", "))
    })
}

fn vcpus(word: &str) -> Result<u32, String> {
    word.parse().ok().filter(|n| (1..=CPUS as u32).contains(n)).ok_or_else(|| format!("1 to {CPUS}"))
}

fn placement(words: &str) -> Result<Placed, String> {
    let wrong = || "nic=CPU,soft=CPU|local,ret=CPU".to_owned();
    let mut placed = Placed::default();
    for word in words.split(',') {
        let (key, value) = word.split_once('=').ok_or_else(wrong)?;
        let cpu = || value.parse::<u32>().map(Some).map_err(|_| wrong());
        match key {
            "nic" => placed.nic = cpu()?,
            "soft" if value == "local" => placed.soft = None,
            "soft" => placed.soft = cpu()?,
            "ret" => placed.ret = cpu()?,
            _ => return Err(wrong()),
        }
    }
    Ok(placed)
}

/// Runs the command.
pub fn run(at: &At, args: &Leak) -> Result<Exit, Failure> {
    if let Some(seed) = args.schedule {
        return schedule(at, seed);
    }
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if cores.len() < 2 {
        eprintln!("softnet leak: this machine has one core for us; one core against many needs two");
        return Ok(Exit::Usage);
    }
    if args.daemon {
        return daemon::run(at, args.packets, &cores);
    }
    let entries = args.entries()?;
    let setting = Setting {
        packets: args.packets,
        seed: args.seed,
        reclaim: !args.no_reclaim,
        stall: args.stall,
        cores,
    };
    // Draws on a terminal only, and on standard error.
    let bar = ProgressBar::new(entries.len() as u64).with_style(
        ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let rows = tables::run(&entries, &setting, &|row| {
        bar.inc(1);
        bar.set_message(format!("{} {} {}", row.profile, row.crypto, row.traffic));
    });
    bar.finish_and_clear();
    let report = Report::new(rows.map_err(|e| Failure::Which(e.to_string()))?);
    at.print(&report, || text::of(&report))?;
    // After the table: a picture that cannot be drawn costs nobody the figures.
    if let Some(path) = &args.plot {
        plot::draw(&report, path).map_err(|e| Failure::Which(e.to_string()))?;
    }
    Ok(if report.all_as_expected() { Exit::Good } else { Exit::No })
}

fn schedule(at: &At, seed: u64) -> Result<Exit, Failure> {
    let Some((lost, closed)) = trace::search(seed) else {
        eprintln!("softnet leak: no schedule in a thousand from {seed} on loses a cluster");
        return Ok(Exit::No);
    };
    let report = serde_json::json!({
        "seed": lost.seed,
        "netbsd2013": { "lost": lost.lost, "trace": lost.lines },
        "giant": { "lost": closed.lost, "trace": closed.lines },
    });
    at.print(&report, || trace::text(&lost, &closed))?;
    Ok(if closed.lost == 0 { Exit::Good } else { Exit::No })
}

impl Leak {
    /// The cells that were asked for: out of the tables, or the cross of what was named.
    fn entries(&self) -> Result<Vec<Entry>, Failure> {
        let all = || self.tables().into_iter();
        let keep = |e: &Entry| {
            let c = &e.cell;
            (self.profile.is_empty() || self.profile.contains(&c.profile))
                && (self.vcpus.is_empty() || self.vcpus.contains(&c.vcpus))
                && (self.crypto.is_empty() || self.crypto.iter().any(|w| w.word() == c.crypto))
                && (self.traffic.is_empty() || self.traffic.iter().any(|w| w.word() == c.traffic))
                && (self.family.is_empty() || self.family.iter().any(|f| (*f == Family::Inet6) == c.v6))
        };
        let Some(placed) = self.placement else {
            let found: Vec<Entry> = all().filter(keep).collect();
            return if found.is_empty() { self.cross() } else { Ok(found) };
        };
        let mut moved = Vec::new();
        for mut entry in all().filter(|e| keep(e) && e.cell.placement == Placement::usual(e.cell.vcpus)) {
            entry.cell.placement = placed.on(entry.cell.vcpus)?;
            (entry.which, entry.expect, entry.note) = (Which::Beyond, Expect::Either, "placed by hand");
            moved.push(entry);
        }
        if moved.is_empty() { self.cross() } else { Ok(moved) }
    }

    /// Every table; or, if anything was chosen, those of the transforms that were named, ESP's by default.
    fn tables(&self) -> Vec<Entry> {
        let both = tables::main_table().into_iter().chain(tables::beyond());
        if self.chooses_nothing() {
            return both.collect();
        }
        let esp: Vec<Entry> = both.filter(|e| e.cell.transform == Protocol::Esp).collect();
        let named = given(&self.transform, TransformWord::Esp).into_iter().map(TransformWord::word);
        named
            .flat_map(|transform| match transform {
                Protocol::Esp => esp.clone(),
                other => tables::by_transform(other),
            })
            .collect()
    }

    fn chooses_nothing(&self) -> bool {
        let lists = [self.crypto.len(), self.traffic.len(), self.transform.len(), self.family.len()];
        lists == [0; 4] && self.profile.is_empty() && self.vcpus.is_empty() && self.placement.is_none()
    }

    /// Cells that stand in no table: nothing is expected of them.
    fn cross(&self) -> Result<Vec<Entry>, Failure> {
        let mut cells = Vec::new();
        for profile in given(&self.profile, Profile::ALL[0]) {
            for vcpus in given(&self.vcpus, 2) {
                for crypto in given(&self.crypto, CryptoWord::Fast) {
                    for traffic in given(&self.traffic, TrafficWord::Tunnel) {
                        for family in given(&self.family, Family::Inet) {
                            let v6 = family == Family::Inet6;
                            cells.push(Cell::new(profile, vcpus, traffic.word(), crypto.word(), v6));
                        }
                    }
                }
            }
        }
        let mut entries = Vec::new();
        for cell in cells {
            for transform in given(&self.transform, TransformWord::Esp) {
                let placement = self.placement.unwrap_or_default().on(cell.vcpus)?;
                let cell = Cell { transform: transform.word(), placement, ..cell };
                let (which, expect) = (Which::Beyond, Expect::Either);
                entries.push(Entry { which, cell, expect, note: "in no table" });
            }
        }
        Ok(entries)
    }
}

/// What was named, or else the usual one.
fn given<T: Copy>(named: &[T], usual: T) -> Vec<T> {
    if named.is_empty() { vec![usual] } else { named.to_vec() }
}

impl Placed {
    fn on(self, vcpus: u32) -> Result<Placement, Failure> {
        let usual = Placement::usual(vcpus);
        let placement = Placement {
            nic: self.nic.unwrap_or(usual.nic),
            soft: self.soft,
            cryptoret: self.ret.unwrap_or(usual.cryptoret),
        };
        let most = placement.nic.max(placement.cryptoret).max(placement.soft.unwrap_or(0));
        if most >= vcpus {
            return Err(Failure::Which(format!("there is no virtual CPU {most} among {vcpus}")));
        }
        Ok(placement)
    }
}

impl CryptoWord {
    fn word(self) -> Crypto {
        match self {
            CryptoWord::Fast => Crypto::Fast,
            CryptoWord::KameSk => Crypto::KameSk,
            CryptoWord::KameS => Crypto::KameS,
        }
    }
}

impl TrafficWord {
    fn word(self) -> Traffic {
        match self {
            TrafficWord::None => Traffic::None,
            TrafficWord::Tunnel => Traffic::Tunnel,
            TrafficWord::Transport => Traffic::Transport,
        }
    }
}

impl TransformWord {
    fn word(self) -> Protocol {
        match self {
            TransformWord::Esp => Protocol::Esp,
            TransformWord::Ah => Protocol::Ah,
            TransformWord::Ipcomp => Protocol::Ipcomp,
        }
    }
}
