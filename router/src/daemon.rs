//! The daemon: the process around one router, and its control thread.
//!
//! `softnet run` reads and checks everything, opens devices, starts workers, and then does on the main thread what is
//! the control thread's turn: requests from the socket, signals (SIGHUP reloads, SIGTERM and SIGINT stop), the host stack,
//! and devices that went away. A configuration that does not hold together changes nothing.

mod capture;
mod explain;
mod kill;
mod limiters;
mod load;
mod pf;
mod reports;
mod table;

use crate::{
    capture::Captures,
    commit::{Commit, Faults, Files},
    conf::{self, DriverConf, InterfaceConf, restart_needed, sentence},
    control::{
        proto::{MbufReport, RefusalKind, Request, Response},
        setkey::{GetSpi, Statements},
        socket::{BindError, Handler, Outbox, Reply, Server, Session},
    },
    host,
    iface::{
        driver::Driver,
        tap::{OpenError, Tap, TapConfig},
    },
    report::Books,
    router::{Router, RouterError, Setup},
    sadb::{self, Sadb},
};
use ::pf::Fresh;
use kern::lock::{Locking, Root};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How often devices that are gone are looked for.
const REVIVE_EVERY: Duration = Duration::from_millis(500);
/// How often pf is asked what its workers want done, while it tracks sources.
const SETTLE_EVERY: Duration = Duration::from_millis(100);

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration does not hold together.
    #[error(transparent)]
    Conf(#[from] Faults),
    /// A device could not be opened.
    #[error("interface {interface}: {source}")]
    Device {
        /// The interface.
        interface: String,
        /// What the system said.
        source: OpenError,
    },
    /// The control socket.
    #[error("{0}")]
    Control(#[from] BindError),
    /// Buffers, descriptors or threads.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// The system.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
    /// A worker does not come to the top of its loop.
    #[error(transparent)]
    Late(#[from] kern::publish::Late),
}

impl DaemonError {
    /// Exit status: 1 for a bad configuration, 3 for a system that refuses.
    pub fn status(&self) -> u8 {
        match self {
            DaemonError::Conf(_) => 1,
            _ => 3,
        }
    }
}

/// What the command line says besides the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Orders {
    /// How coarse locking is, whatever the file says.
    pub locking: Option<Locking>,
    /// How often the balance is logged.
    pub audit: Option<Duration>,
}

/// Signals, as flags and as a descriptor to wake up on.
struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    wake: UnixStream,
}

impl Signals {
    fn install() -> io::Result<Signals> {
        let (wake, write) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let (stop, reload) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, stop.clone())?;
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        signal_hook::flag::register(SIGHUP, reload.clone())?;
        signal_hook::low_level::pipe::register(SIGHUP, write)?;
        Ok(Signals { stop, reload, wake })
    }

    fn clear(&mut self) {
        use io::Read;
        let mut some = [0; 64];
        while self.wake.read(&mut some).is_ok_and(|n| n > 0) {}
    }
}

pub(crate) use explain::explain_conf;

/// The control thread's own things.
struct Daemon {
    path: PathBuf,
    files: Files,
    router: Router,
    commit: Commit,
    root: Root,
    sessions: host::Sessions,
    sadb: Sadb,
    captures: Captures,
    loaded_at: Instant,
    /// The ruleset while pf is off.
    parked: Option<Arc<::pf::Ruleset>>,
    /// pf is off because somebody said so, and not because it never was on.
    disabled: bool,
    /// Of ipsec.conf as it was read last, without what setkey has changed.
    ipsec_read: Option<ipsec::conf::Mark>,
    marker: ipsec::conf::Marker,
    stop: bool,
    open: Box<Open>,
}

/// Opens the device of an interface.
pub type Open = dyn Fn(&InterfaceConf) -> Result<Arc<dyn Driver>, OpenError> + Send;

/// Runs a router until it is told to stop; says how its books stood at the end.
pub fn run(path: &Path, orders: Orders) -> Result<Books, DaemonError> {
    run_with(path, orders, Box::new(open))
}

/// The same with devices of another kind: cables in memory, of a test.
pub fn run_with(path: &Path, orders: Orders, open: Box<Open>) -> Result<Books, DaemonError> {
    let mut files = Files::load(path, None)?;
    if let Some(locking) = orders.locking {
        files.conf.locking = locking;
    }
    for warning in files.warnings() {
        tracing::warn!("{warning}");
    }
    let mut signals = Signals::install()?;
    let mut server = Server::bind(&files.conf.control)?;
    let router = Router::new(Setup::of(&files))?;
    let marker = ipsec::conf::Marker::default();
    let mut daemon = Daemon {
        path: path.to_owned(),
        sessions: host::Sessions::new(&router),
        router,
        commit: Commit::new(),
        root: Root::claim(),
        sadb: Sadb::default(),
        captures: Captures::default(),
        ipsec_read: files.ipsec.as_ref().map(|conf| marker.mark(conf)),
        marker,
        files,
        loaded_at: Instant::now(),
        parked: None,
        disabled: false,
        stop: false,
        open,
    };
    daemon.begin()?;
    tracing::info!(
        router = daemon.files.conf.name,
        workers = daemon.files.conf.workers,
        locking = %daemon.files.conf.locking,
        control = %server.path().display(),
        "running"
    );
    daemon.serve(&mut server, &mut signals, orders.audit)?;
    drop(server);
    daemon.end()
}

/// Opens the TAP device of an interface.
fn open(interface: &InterfaceConf) -> Result<Arc<dyn Driver>, OpenError> {
    let device = match &interface.driver {
        DriverConf::Tap { device } | DriverConf::Link { device } => device,
        DriverConf::Vlan { .. } | DriverConf::Ipsec(_) => {
            return Err(OpenError::BadName(interface.name.clone()));
        }
    };
    let config = TapConfig {
        queues: interface.queues,
        offload: interface.offload,
        mtu: Some(interface.mtu.into()),
        ..TapConfig::new(device)
    };
    Ok(Arc::new(Tap::open(config)?))
}

impl Daemon {
    fn begin(&mut self) -> Result<(), DaemonError> {
        let mut refused = None;
        let open = &self.open;
        let mut opener = |i: &InterfaceConf| {
            open(i).map_err(|source| {
                let text = source.to_string();
                refused = Some(DaemonError::Device { interface: i.name.clone(), source });
                text
            })
        };
        let prepared = self.commit.prepare(&self.router, &mut self.root, &self.files, &mut opener);
        let prepared = match (prepared, refused) {
            (Ok(prepared), _) => prepared,
            (Err(_), Some(refused)) => return Err(refused),
            (Err(faults), None) => return Err(faults.into()),
        };
        self.commit.publish(&mut self.router, &mut self.root, prepared)?;
        self.router.start()?;
        Ok(())
    }

    fn serve(
        &mut self,
        server: &mut Server,
        signals: &mut Signals,
        audit: Option<Duration>,
    ) -> Result<(), DaemonError> {
        let mut revive_at = Instant::now() + REVIVE_EVERY;
        let mut audit_at = audit.map(|every| Instant::now() + every);
        while !self.stop {
            let next = audit_at.map_or(revive_at, |at| at.min(revive_at));
            let wait = self
                .sessions
                .next_wait()
                .min(self.captures.next_wait())
                .min(next.saturating_duration_since(Instant::now()));
            let wait =
                if self.router.shared().pf.source_count() == 0 { wait } else { wait.min(SETTLE_EVERY) };
            let shared = self.router.shared().clone();
            let wait = if self.sadb.has_news() { Duration::ZERO } else { wait.min(sadb::EVERY) };
            let also = [shared.host.descriptor(), shared.acquires.descriptor(), signals.wake.as_fd()];
            server.turn(wait, &also, self)?;
            signals.clear();
            self.sessions.turn(&self.router, &mut self.root);
            self.settle();
            self.follow();
            self.sadb.turn(&mut self.router, &mut self.root, &mut self.files.ipsec);
            if signals.reload.swap(false, Ordering::AcqRel) {
                match self.reload() {
                    Ok(done) => tracing::info!("{done}"),
                    Err(faults) => tracing::error!("not reloaded:\n{faults}"),
                }
            }
            if signals.stop.load(Ordering::Acquire) {
                self.stop = true;
            }
            if Instant::now() >= revive_at {
                revive_at = Instant::now() + REVIVE_EVERY;
                self.revive();
                self.remark();
            }
            if let Some((at, every)) = audit_at.as_mut().zip(audit)
                && Instant::now() >= *at
            {
                *at = Instant::now() + every;
                self.log_balance();
            }
        }
        Ok(())
    }

    /// Logs how the books stand, and shouts if they do not balance.
    fn log_balance(&mut self) {
        match self.router.audit(&mut self.root) {
            Ok(books) if books.balanced() => tracing::info!("audit: {books}"),
            Ok(books) => tracing::error!("audit: {books}"),
            Err(late) => tracing::warn!("no audit: {late}"),
        }
    }

    /// Does what pf on the workers has asked for.
    fn settle(&mut self) {
        let mut held = self.root.top();
        let settled = self.router.shared().pf.settle(&mut held.at(), ::pf::table::wall_clock());
        for s in settled.sources {
            let source = s.family.address(s.source);
            tracing::info!(%source, table = s.overload.table, "overloads a rule");
        }
        for error in settled.errors {
            tracing::error!("overload table: {error}");
        }
    }

    /// Says what pf on the workers has to say at its debug level.
    fn remark(&self) {
        let name = |index: ::pf::IfIndex| match index {
            crate::hooks::ENC0 => "enc0".to_owned(),
            index => self.router.net().interface(index.0).map_or("?".to_owned(), |i| i.name.to_string()),
        };
        for remark in self.router.shared().pf.remarks() {
            let line = remark.line(name);
            if remark.level == ::pf::debug::Level::Urgent {
                tracing::warn!("{line}");
            } else {
                tracing::info!("{line}");
            }
        }
    }

    /// Sends to where peers behind translators are now.
    fn follow(&mut self) {
        match self.router.follow_peers(&mut self.root) {
            Ok(0) => {}
            Ok(sas) => tracing::info!(sas, "a peer has moved"),
            Err(error) => tracing::error!("a peer has moved: {error}"),
        }
    }

    /// Brings devices back that went away.
    fn revive(&self) {
        for (name, driver) in self.commit.drivers() {
            if !driver.is_up() && driver.revive() {
                tracing::info!(interface = name, "device is back");
                self.router.wake_all();
            }
        }
    }

    /// Reads the configuration again; either all of it takes effect or nothing. What setkey has changed stays unless
    /// ipsec.conf is another now.
    fn reload(&mut self) -> Result<String, Faults> {
        let mut files = Files::load(&self.path, self.ruleset().map(Arc::as_ref))?;
        // What the command line said stays.
        files.conf.locking = self.files.conf.locking;
        let keys = restart_needed(&self.files.conf, &files.conf);
        if !keys.is_empty() {
            return Err(Faults(vec![sentence(&keys)]));
        }
        let read = files.ipsec.as_ref().map(|conf| self.marker.mark(conf));
        if read == self.ipsec_read {
            files.ipsec.clone_from(&self.files.ipsec);
        }
        if let Some(warning) = files.pf.as_deref().and_then(|pf| self.crowded(pf)) {
            tracing::warn!("{warning}");
        }
        let fresh = self.kept_by(&mut files);
        // `pf = ` says that pf is on; what was loaded before, while it never was, said nothing about that.
        let begins = files.conf.pf.is_some() && !self.disabled;
        let parked = self.parked.take_if(|_| begins);
        let old = std::mem::replace(&mut self.files, files);
        if let Err(faults) = self.commit_files(fresh.as_ref()) {
            self.files = old;
            self.parked = self.parked.take().or(parked);
            return Err(faults);
        }
        self.ipsec_read = read;
        Ok(format!("{}: reloaded", self.path.display()))
    }

    /// Builds and publishes what the files say; of pf, what is not fresh stays. A pf that is parked stays so.
    fn commit_files(&mut self, fresh: Option<&Fresh>) -> Result<(), Faults> {
        let rules = self.ruleset().cloned();
        let open = &self.open;
        let mut opener = |i: &InterfaceConf| open(i).map_err(|e| e.to_string());
        let over = rules.as_deref().zip(fresh);
        let mut prepared =
            self.commit.prepare_over(&self.router, &mut self.root, &self.files, over, &mut opener)?;
        let parked = match &self.parked {
            Some(_) => prepared.net.pf.take(),
            None => None,
        };
        let late = |e: kern::publish::Late| Faults(vec![e.to_string()]);
        self.commit.publish(&mut self.router, &mut self.root, prepared).map_err(late)?;
        self.park(parked);
        self.loaded_at = Instant::now();
        Ok(())
    }

    /// Drains, stops, and reads the books for the last time.
    fn end(self) -> Result<Books, DaemonError> {
        let Daemon { router, commit, mut root, sessions, .. } = self;
        sessions.end(&router, &mut root);
        drop(commit);
        Ok(router.stop(&mut root)?)
    }

    /// The books, exact if every worker could be stopped for a moment.
    fn mbuf(&mut self) -> Response {
        match self.router.audit(&mut self.root) {
            Ok(books) => Response::Mbuf(MbufReport::new(&books.audit, &books.balance, true)),
            Err(late) => Response::refused(RefusalKind::System, late.to_string()),
        }
    }

    fn setkey(&mut self, said: &Statements) -> Response {
        match self.sadb.setkey(&mut self.router, &mut self.root, &mut self.files.ipsec, said) {
            Ok(report) => Response::Setkey(report),
            Err(faults) => Response::refused(RefusalKind::No, faults),
        }
    }

    fn get_spi(&mut self, asked: &GetSpi) -> Response {
        match self.sadb.get_spi(&self.router, &mut self.files.ipsec, asked) {
            Ok(name) => Response::Spi(name),
            Err(fault) => Response::refused(RefusalKind::No, fault),
        }
    }

    fn answer(&mut self, request: &Request) -> Response {
        match *request {
            Request::Status => Response::Status(self.status()),
            Request::Reload => match self.reload() {
                Ok(done) => Response::Done(done),
                Err(faults) => Response::refused(RefusalKind::No, faults.to_string()),
            },
            Request::Stop => {
                self.stop = true;
                Response::Done("stopping".into())
            }
            Request::Mbuf => self.mbuf(),
            Request::Interfaces => Response::Interfaces(self.interfaces()),
            Request::Routes => Response::Routes(self.routes()),
            Request::Stats => Response::Stats(self.stats()),
            Request::Neighbours => Response::Neighbours(self.neighbours()),
            Request::Sas => Response::Sas(self.sas()),
            Request::Policies => Response::Policies(self.policies()),
            Request::Setkey(ref said) => self.setkey(said),
            Request::GetSpi(ref asked) => self.get_spi(asked),
            Request::PfStates => Response::States(self.pf_states()),
            Request::PfQueues => Response::Queues(self.pf_queues()),
            Request::PfInfo => Response::PfInfo(self.pf_info()),
            Request::Pf(ref request) => self.pf(request),
            Request::Ping(_)
            | Request::Nc(_)
            | Request::Data(_)
            | Request::Shut
            | Request::Monitor
            | Request::Capture(_) => Response::refused(RefusalKind::Usage, "no stream is open"),
        }
    }
}

impl Handler for Daemon {
    fn handle(&mut self, session: Session, request: Request) -> Reply {
        match request {
            Request::Monitor => {
                self.sadb.subscribe(session);
                return Reply::Stream;
            }
            Request::Capture(ref asked) => return self.capture(session, asked),
            Request::Shut if self.captures.is_open(session) => {
                self.captures.shut(session, &mut self.router);
                return Reply::Stream;
            }
            Request::Shut if self.sadb.is_told(session) => {
                self.sadb.closed(session);
                return Reply::Now(Response::End);
            }
            _ => {}
        }
        match self.sessions.handle(session, request, &self.router) {
            Ok(reply) => reply,
            Err(request) => Reply::Now(self.answer(&request)),
        }
    }

    fn poll(&mut self, session: Session, out: &mut Outbox<'_>) {
        if self.sadb.is_told(session) {
            return self.sadb.poll(session, out);
        }
        if self.captures.is_open(session) {
            return self.captures.poll(session, self.router.shared().clock.now(), out);
        }
        self.sessions.poll(session, out);
    }

    fn closed(&mut self, session: Session) {
        self.sadb.closed(session);
        self.captures.closed(session, &mut self.router);
        self.sessions.closed(session);
    }

    fn has_room(&self, session: Session) -> bool {
        self.sessions.has_room(session)
    }
}

/// Where the control socket of a configuration is, without checking anything else of it.
pub fn control_of(path: &Path) -> Result<PathBuf, Faults> {
    Ok(conf::load(path)?.control)
}
