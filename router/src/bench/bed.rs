//! A router between a source and a sink in memory, and the threads that drive it.

use super::{
    frames::NEXT,
    source::{Check, Generator, Lane, Sink, Source, Timed, take_seat},
};
use crate::{
    commit::{Commit, Faults, Files},
    conf::{self, Host, InterfaceConf},
    iface::driver::Driver,
    report::Books,
    router::{Router, Setup},
    worker::Worker,
};
use ipsec::transform::Engine;
use kern::{
    lock::{Locking, Root},
    mbuf::PoolConfig,
    time::{Clock, Duration},
};
use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};
use wire::Mac;

/// The router's own address at the sink.
pub(super) const US: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The next hop behind the sink.
pub(super) const PEER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

/// A router's configuration.
pub(super) struct Texts {
    pub(super) conf: String,
    pub(super) pf: Option<String>,
    pub(super) ipsec: Option<String>,
    /// Who does the arithmetic of its SAs.
    pub(super) engine: Engine,
}

/// Source, sink, and routes to 20.0.0.0/8 by the /24.
pub(super) fn conf_text(workers: usize, locking: Locking, routes: usize) -> String {
    let mut text = format!(
        "[router]\nname = \"bench\"\nworkers = {workers}\nlocking = \"{locking}\"\nclusters = 16384\njumbos = 64\n\
         [ipsec]\nenc0 = true\n\
         [[interface]]\nname = \"src\"\ndriver = \"link\"\ndevice = \"src\"\naddress = [\"10.0.0.1/24\"]\nmtu = 9000\n\
         [[interface]]\nname = \"dst\"\ndriver = \"link\"\ndevice = \"dst\"\naddress = [\"{US}/24\"]\nmtu = 9000\n",
    );
    for route in 0..routes.max(256) {
        let (high, low) = (route >> 8, route & 255);
        let _ = write!(text, "[[route]]\nto = \"20.{high}.{low}.0/24\"\nvia = \"{PEER}\"\n");
    }
    text
}

/// A router between a source and a sink.
pub(super) struct Bed {
    pub(super) router: Router,
    pub(super) lanes: Vec<Arc<Lane>>,
    commit: Commit,
}

impl Bed {
    /// `generators` makes the frames, one a worker, for the MAC address it is given; `check` looks at what arrives.
    pub(super) fn new(
        texts: &Texts,
        workers: usize,
        generators: impl Fn(Mac) -> Result<Vec<Box<dyn Generator>>, String>,
        check: impl Fn() -> Result<Check, String>,
        root: &mut Root,
    ) -> Result<Bed, Faults> {
        let conf = conf::from_text(Path::new("bench"), &texts.conf, &Host::this())?;
        let files = Files::from_texts(conf, texts.pf.as_deref(), texts.ipsec.as_deref())?;
        let pool = PoolConfig { clusters: 16384, jumbos: 64 };
        let setup = Setup { pool, engine: texts.engine, ..Setup::of(&files) };
        let mut router = Router::new(setup).map_err(|e| Faults(vec![e.to_string()]))?;
        let mut commit = Commit::new();
        let lanes: Vec<Arc<Lane>> = (0..workers).map(|_| Arc::default()).collect();
        let mut open = |i: &InterfaceConf| -> Result<Arc<dyn Driver>, String> {
            Ok(if i.name == "src" {
                Arc::new(Source::new(generators(i.mac)?, &lanes))
            } else {
                Arc::new(Sink::new(lanes.clone(), check()?))
            })
        };
        let prepared = commit.prepare(&router, root, &files, &mut open)?;
        commit.publish(&mut router, root, prepared).map_err(|e| Faults(vec![e.to_string()]))?;
        if let Some(dst) = router.net().named("dst") {
            let (index, neighbours) = (dst.index, &router.shared().neighbours);
            let ledger = &router.own_stats().ledger;
            neighbours.insert_permanent(&mut root.top(), index.0, IpAddr::V4(PEER), NEXT, ledger);
        }
        Ok(Bed { router, lanes, commit })
    }

    /// Ends it; the books.
    pub(super) fn stop(self, root: &mut Root) -> Result<Books, Faults> {
        drop(self.commit);
        self.router.stop(root).map_err(|e| Faults(vec![e.to_string()]))
    }

    /// Whether frames came, and all that were looked at were right.
    pub(super) fn is_right(lanes: &[Arc<Lane>]) -> bool {
        lanes.iter().all(|l| l.wrong() == 0) && lanes.iter().any(|l| l.packets() > 0)
    }
}

/// Runs `work` on one pinned thread a worker, with that worker of each bed.
pub(super) fn on_threads<R: Send>(
    beds: &mut [Bed],
    workers: usize,
    work: impl Fn(usize, &mut [Worker], &mut Root) -> R + Sync,
) -> Vec<R> {
    let mut take = |me| beds.iter_mut().filter_map(|bed| bed.router.take_worker(me)).collect::<Vec<_>>();
    let seats: Vec<_> = (0..workers).map(&mut take).collect();
    let mut results = Vec::new();
    let back: Vec<Vec<Worker>> = std::thread::scope(|scope| {
        let threads: Vec<_> = seats
            .into_iter()
            .enumerate()
            .map(|(me, seats)| {
                let work = &work;
                scope.spawn(move || {
                    core_affinity::set_for_current(core_affinity::CoreId { id: me });
                    take_seat(me);
                    let mut root = Root::claim();
                    let mut mine: Vec<_> = seats.into_iter().map(|seat| seat.unpark(&mut root)).collect();
                    let result = work(me, &mut mine, &mut root);
                    (mine, result)
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, (Vec<Worker>, R)>| match thread.join() {
            Ok((mine, result)) => {
                results.push(result);
                mine
            }
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(join).collect()
    });
    for (me, mine) in back.into_iter().enumerate() {
        for (bed, worker) in beds.iter_mut().zip(mine) {
            bed.router.put_worker(me, worker);
        }
    }
    results
}

/// Drives one worker for about this long: timed nanoseconds, and packets that arrived in them.
pub(super) fn run_for(slice: Duration, worker: &mut Worker, root: &mut Root, lane: &Lane) -> (u64, u64) {
    let timed = Timed::start(lane);
    let end = Clock::Real.now() + slice;
    while Clock::Real.now() < end {
        for _ in 0..16 {
            worker.turn(root);
        }
    }
    timed.stop()
}

pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
