//! `bench forward` and `bench esp`: what a row's router is, driving it, and working out the row.

use super::{
    Plan, Report, Row, What,
    aead::Bare,
    bed::{self, Bed, PEER, Texts, US, median, on_threads, run_for},
    frames::{self, Around, Inner, NEXT, Plain, Sealed, Tunnel},
    source::{Check, Generator, Lane},
};
use crate::{commit::Faults, report::Books, worker::Worker};
use ipsec::transform::{Engine, Suite, Transform};
use kern::{
    Pool,
    lock::{Locking, Root},
    time::Duration,
};
use std::{
    fmt::Write,
    net::Ipv4Addr,
    sync::{Arc, Barrier},
};
use wire::Mac;

/// What is told of progress: rows done, rows in all, the row at hand.
pub type Progress<'a> = dyn FnMut(usize, usize, &str) + 'a;

/// Slices of path and of bare arithmetic that alternate in one row.
const SLICES: usize = 10;

/// One row's parameters.
#[derive(Clone, Copy)]
struct Spec {
    what: What,
    workers: usize,
    size: usize,
    suite: Suite,
    engine: Engine,
    sas: usize,
    flows: usize,
    routes: usize,
    locking: Locking,
    pf: bool,
    slice: Duration,
}

/// Measures every combination.
pub fn bench(plan: &Plan, root: &mut Root, progress: &mut Progress<'_>) -> Result<Report, Faults> {
    let specs = specs(plan);
    let mut results = Vec::new();
    for (done, spec) in specs.iter().enumerate() {
        progress(done, specs.len(), &spec.name());
        results.push(row(spec, root)?);
    }
    progress(specs.len(), specs.len(), "");
    let forward = plan.what.contains(&What::Forward);
    Ok(Report { bench: if forward { "forward" } else { "esp" }, results })
}

fn specs(plan: &Plan) -> Vec<Spec> {
    let slice = Duration::from_secs_f64(plan.seconds / SLICES as f64);
    let mut specs = Vec::new();
    for &what in &plan.what {
        let (suites, sas) = if what == What::Forward {
            (&plan.suites[..1], &[1][..])
        } else {
            (&plan.suites[..], &plan.sas[..])
        };
        for &size in &plan.sizes {
            for &(suite, engine) in suites {
                for &sas in sas {
                    for &workers in &plan.workers {
                        for &locking in &plan.locking {
                            specs.push(Spec {
                                what,
                                workers,
                                size,
                                suite,
                                engine,
                                sas,
                                flows: plan.flows,
                                routes: plan.routes,
                                locking,
                                pf: plan.pf,
                                slice,
                            });
                        }
                    }
                }
            }
        }
    }
    specs
}

impl Spec {
    fn name(&self) -> String {
        let way = match self.what {
            What::Forward => "forward",
            What::EspOut => "esp out",
            What::EspIn => "esp in",
        };
        let by = if self.what == What::Forward {
            String::new()
        } else {
            format!(", {} by {}", self.suite, self.engine.resolve(self.suite))
        };
        format!("{way} {} bytes{by}, {} workers, {}", self.size, self.workers, self.locking)
    }

    fn key(&self, sa: usize) -> Vec<u8> {
        (0..self.suite.material_len()).map(|i| (i * 7 + sa * 13) as u8).collect()
    }

    /// Algorithms and keys, as setkey has them.
    fn algorithms(&self, sa: usize) -> String {
        let hex = |key: &[u8]| key.iter().fold(String::from("0x"), |hex, b| format!("{hex}{b:02x}"));
        let key = self.key(sa);
        let (cipher, auth) = key.split_at(self.suite.key_len() + self.suite.salt_len());
        let name = self.suite.setkey_name();
        let encryption =
            if cipher.is_empty() { format!("-E {name}") } else { format!("-E {name} {}", hex(cipher)) };
        match self.suite.auth() {
            None => encryption,
            Some(algorithm) => format!("{encryption} -A {} {}", algorithm.setkey_name(), hex(auth)),
        }
    }

    fn tunnel_of(&self, flow: usize) -> usize {
        flow % self.sas
    }

    /// Flows of one tunnel are spread over the workers, as a device's hash spreads them; inbound, a tunnel is one
    /// flow to the device and arrives at one worker.
    fn worker_of(&self, flow: usize) -> usize {
        match self.what {
            What::Forward => flow % self.workers,
            What::EspOut => flow / self.sas % self.workers,
            What::EspIn => self.tunnel_of(flow) % self.workers,
        }
    }

    fn dst(&self, flow: usize) -> Ipv4Addr {
        if self.what == What::Forward {
            let route = (flow * 7919) % self.routes.max(1);
            Ipv4Addr::new(20, (route >> 8) as u8, route as u8, 9)
        } else {
            Ipv4Addr::new(20, self.tunnel_of(flow) as u8, 0, (flow / self.sas + 1) as u8)
        }
    }
}

fn conf_text(spec: &Spec) -> String {
    let mut text = bed::conf_text(spec.workers, spec.locking, spec.routes);
    if spec.what != What::Forward {
        for sa in 1..spec.sas {
            let _ = write!(text, "[[route]]\nto = \"20.{sa}.0.0/16\"\nvia = \"{PEER}\"\n");
        }
    }
    text
}

fn ipsec_text(spec: &Spec) -> Option<String> {
    if spec.what == What::Forward {
        return None;
    }
    let (src, dst, way) = if spec.what == What::EspOut { (US, PEER, "out") } else { (PEER, US, "in") };
    let mut text = String::new();
    for sa in 0..spec.sas {
        let (id, spi) = (sa + 1, 0x1000 + sa);
        let _ =
            writeln!(text, "add {src} {dst} esp {spi:#x} -m tunnel -u {id} -r 128 {};", spec.algorithms(sa));
        let _ = writeln!(
            text,
            "spdadd 10.0.0.0/8 20.{sa}.0.0/16 any -P {way} ipsec esp/tunnel/{src}-{dst}/unique:{id};"
        );
    }
    Some(text)
}

fn build(spec: &Spec, root: &mut Root) -> Result<Bed, Faults> {
    let texts = Texts {
        conf: conf_text(spec),
        pf: spec.pf.then(|| "pass no state\n".to_owned()),
        ipsec: ipsec_text(spec),
        engine: spec.engine,
    };
    Bed::new(&texts, spec.workers, |to| generators(spec, to), || check(spec), root)
}

fn generators(spec: &Spec, to: Mac) -> Result<Vec<Box<dyn Generator>>, String> {
    (0..spec.workers).map(|worker| generator(spec, to, worker)).collect()
}

fn generator(spec: &Spec, to: Mac, worker: usize) -> Result<Box<dyn Generator>, String> {
    let flows = (0..spec.flows).filter(|&f| spec.worker_of(f) == worker);
    let src = |flow: usize| Ipv4Addr::new(10, 0, 0, 2 + (flow % 250) as u8);
    let frame = |flow: usize| frames::plain(to, src(flow), spec.dst(flow), 1000 + flow as u16, spec.size);
    if spec.what != What::EspIn {
        let mut templates: Vec<_> = flows.map(frame).collect();
        if templates.is_empty() {
            templates.push(frame(0));
        }
        return Ok(Box::new(Plain::new(templates)));
    }
    let mut tunnels = Vec::new();
    for sa in 0..spec.sas {
        let transform =
            Transform::new(spec.suite, Engine::Auto, &spec.key(sa), false).map_err(|e| e.to_string())?;
        let Around { head, tail, .. } = Around::new(spec.suite, spec.size);
        let mut outer = frames::plain(to, PEER, US, 0, 20 + 8);
        outer.truncate(frames::ETHER + 20);
        set_outer(&mut outer[frames::ETHER..], 20 + head + spec.size + tail);
        tunnels.push(Tunnel {
            outer,
            spi: 0x1000 + sa as u32,
            seq: 1,
            step: 1,
            transform: Arc::new(transform),
        });
    }
    let inner =
        |flow: usize| Inner { packet: frame(flow)[frames::ETHER..].to_vec(), tunnel: spec.tunnel_of(flow) };
    let mut flows: Vec<_> = flows.map(inner).collect();
    if flows.is_empty() {
        // More workers than tunnels: this one gets none, and its source must not reuse another's numbers.
        return Ok(Box::new(Plain::new(vec![vec![0; frames::ETHER]])));
    }
    flows.shrink_to_fit();
    Ok(Box::new(Sealed::new(flows, tunnels)))
}

/// Makes an IPv4 header one of ESP of this length.
fn set_outer(header: &mut [u8], len: usize) {
    header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    header[9] = 50;
    header[10..12].fill(0);
    let sum = !wire::checksum::fold(wire::checksum::sum(header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// What a frame at the sink must be.
fn check(spec: &Spec) -> Result<Check, String> {
    let size = spec.size;
    if spec.what != What::EspOut {
        return Ok(Box::new(move |m| frames::is_forwarded(m.data()) && m.len() == frames::ETHER + size));
    }
    let keys: Result<Vec<_>, _> =
        (0..spec.sas).map(|sa| Transform::new(spec.suite, Engine::Auto, &spec.key(sa), false)).collect();
    let keys = keys.map_err(|e| e.to_string())?;
    Ok(Box::new(move |m| opens(m.data(), &keys, size)))
}

/// Whether a frame holds an ESP packet that opens to an inner packet with one hop less and a good header.
fn opens(frame: &[u8], keys: &[Transform], size: usize) -> bool {
    let at = frames::ETHER + 20;
    let Some(esp) = frame.get(at..) else { return false };
    let Some(&[s0, s1, s2, s3, q0, q1, q2, q3]) = esp.first_chunk() else { return false };
    let spi = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
    let seq = u32::from_be_bytes([q0, q1, q2, q3]);
    let Some(key) = spi.checked_sub(0x1000).and_then(|i| keys.get(i)) else { return false };
    let mut copy = esp.to_vec();
    let opened = key.open_run(std::iter::once((&mut copy[..], u64::from(seq))));
    let inner = &copy[Around::new(key.suite(), size).head..];
    frame.get(..6) == Some(&NEXT.0)
        && wire::ipv4_check(&frame[frames::ETHER..]).is_ok()
        && !opened.any()
        && wire::ipv4_check(inner).is_ok_and(|c| usize::from(c.total_len) == size)
        && inner[8] == frames::TTL - 1
}

/// What one worker measured in one slice.
#[derive(Clone, Copy, Default)]
struct Slice {
    ns: u64,
    packets: u64,
    own_ns: f64,
    best_ns: f64,
}

fn row(spec: &Spec, root: &mut Root) -> Result<Row, Faults> {
    let bed = build(spec, root)?;
    let best = if spec.what == What::Forward { None } else { Some(fastest(spec, &bed.router.shared().pool)) };
    let barrier = Barrier::new(spec.workers);
    let (lanes, pool) = (bed.lanes.clone(), bed.router.shared().pool.clone());
    let mut beds = [bed];
    let slices = on_threads(&mut beds, spec.workers, |me, workers, root| {
        drive(spec, best, &mut workers[0], root, &lanes[me], &barrier, &pool)
    });
    let [bed] = beds;
    let books = bed.stop(root)?;
    Ok(summarize(spec, best, &slices, &lanes, &books))
}

/// Alternates path and bare arithmetic on one worker's thread.
fn drive(
    spec: &Spec,
    best: Option<Engine>,
    worker: &mut Worker,
    root: &mut Root,
    lane: &Lane,
    barrier: &Barrier,
    pool: &Pool,
) -> Vec<Slice> {
    let opens = spec.what == What::EspIn;
    let bare = |engine, sas| Bare::new(pool, spec.suite, engine, spec.size, sas, opens).ok();
    let mut own = best.and_then(|_| bare(spec.engine, spec.sas));
    // The ceiling is what the engine can do, and changes no keys.
    let mut ceiling = best.and_then(|engine| bare(engine, 1));
    let mut slices = Vec::new();
    for round in 0..=SLICES {
        barrier.wait();
        let (ns, packets) = run_for(spec.slice, worker, root, lane);
        barrier.wait();
        let part = spec.slice / 4;
        let own_ns = own.as_mut().map_or(0.0, |b| b.measure(part));
        let best_ns = ceiling.as_mut().map_or(0.0, |b| b.measure(part));
        // The first round warms caches and page tables.
        if round > 0 {
            slices.push(Slice { ns, packets, own_ns, best_ns });
        }
    }
    slices
}

/// The fastest engine for this suite and size, on this machine, now.
fn fastest(spec: &Spec, pool: &Pool) -> Engine {
    let mut best = (f64::INFINITY, spec.engine.resolve(spec.suite));
    for engine in Engine::ALL.into_iter().filter(|engine| engine.serves(spec.suite)) {
        let Ok(mut bare) = Bare::new(pool, spec.suite, engine, spec.size, 1, spec.what == What::EspIn) else {
            continue;
        };
        let each = spec.slice.min(Duration::from_millis(10));
        let mut times: Vec<f64> = (0..5).map(|_| bare.measure(each)).collect();
        let ns = median(&mut times);
        if ns < best.0 {
            best = (ns, engine);
        }
    }
    best.1
}

fn summarize(
    spec: &Spec,
    best: Option<Engine>,
    all: &[Vec<Slice>],
    lanes: &[Arc<Lane>],
    books: &Books,
) -> Row {
    let over = |f: &dyn Fn(&Slice) -> f64| -> Vec<f64> {
        (0..SLICES).map(|i| all.iter().filter_map(|w| w.get(i)).map(f).sum()).collect()
    };
    let rate = |s: &Slice| if s.ns == 0 { 0.0 } else { s.packets as f64 / s.ns as f64 * 1e3 };
    let mpps = median(&mut over(&rate));
    let bits = (spec.size * 8) as f64;
    let busy = all.iter().filter(|w| w.iter().any(|s| s.packets > 0)).count().max(1) as f64;
    let gbps = mpps * bits / 1e3;
    let ns = if mpps > 0.0 { busy * 1e3 / mpps } else { 0.0 };
    let own_ns = median(&mut over(&|s| s.own_ns)) / all.len() as f64;
    let ceiling = |s: &Slice| if s.best_ns > 0.0 { bits / s.best_ns } else { 0.0 };
    let ceiling_gbps = median(&mut over(&ceiling));
    let is_esp = spec.what != What::Forward;
    let right = Bed::is_right(lanes);
    let balanced = books.balanced() && books.audit.held() == 0;
    if !balanced || !right {
        let wrong: u64 = lanes.iter().map(|l| l.wrong()).sum();
        tracing::error!("{}: {wrong} wrong at the sink; {books:?}", spec.name());
    }
    Row {
        direction: match spec.what {
            What::Forward => None,
            What::EspOut => Some("out"),
            What::EspIn => Some("in"),
        },
        suite: is_esp.then(|| spec.suite.to_string()),
        engine: is_esp.then(|| spec.engine.resolve(spec.suite).to_string()),
        size: spec.size,
        workers: spec.workers,
        sas: is_esp.then_some(spec.sas),
        flows: spec.flows,
        locking: spec.locking.to_string(),
        mpps,
        gbps,
        ns_per_packet: ns,
        added_ns: is_esp.then_some(ns - own_ns),
        ceiling_engine: best.map(|e| e.to_string()),
        ceiling_gbps: is_esp.then_some(ceiling_gbps),
        ratio: (is_esp && ceiling_gbps > 0.0).then(|| gbps / ceiling_gbps),
        balanced: balanced && right,
    }
}

#[cfg(test)]
mod tests;
