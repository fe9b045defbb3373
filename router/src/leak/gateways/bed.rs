//! Two gateways as daemons, three rooms, and the wire.

use super::{
    Gateway, Refused, Shape,
    room::{Room, ip, joined, set},
    traffic::{Carried, Host, Load, talk},
};
use crate::{
    control::{
        client::Connection,
        proto::{MbufReport, Request, Response},
    },
    daemon::{self, DaemonError, Orders},
    report::Books,
    scenario::GATEWAYS,
};
use std::{
    fs,
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long a gateway may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A LAN: its device, the host's addresses, the gateway's.
const LANS: [(&str, [&str; 2], [&str; 2]); 2] = [
    ("gwa-lan", ["192.0.2.10", "2001:db8:a::10"], ["192.0.2.1", "2001:db8:a::1"]),
    ("gwb-lan", ["198.51.100.10", "2001:db8:b::10"], ["198.51.100.1", "2001:db8:b::1"]),
];
/// An end of the wire: its device, the gateway's addresses, the far gateway's.
const WIRE: [(&str, [&str; 2], &str); 2] = [
    ("gwa-wan", ["203.0.113.1", "2001:db8:ffff::1"], "2001:db8:ffff::2"),
    ("gwb-wan", ["203.0.113.2", "2001:db8:ffff::2"], "2001:db8:ffff::1"),
];

/// A directory that goes when this does.
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Directory> {
        let path = std::env::temp_dir().join(format!("softnet-leak-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Directory(path))
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.0.join(name))?;
        file.write_all(text.as_bytes())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A daemon on a thread of its own; told to stop when dropped.
struct Running {
    name: &'static str,
    shape: Shape,
    control: PathBuf,
    thread: Option<JoinHandle<Result<Books, Refused>>>,
}

impl Running {
    /// Starts a daemon in `middle` and waits until it answers.
    fn start(middle: &Room, name: &'static str, files: &Path, shape: Shape) -> Result<Running, Refused> {
        let conf = files.join(format!("{name}.toml"));
        let failed = move |e: DaemonError| Refused::of(name, e);
        let thread = middle.spawn(move || daemon::run(&conf, Orders::default()).map_err(failed))?;
        let control = files.join(name);
        let mut running = Running { name, shape, control, thread: Some(thread) };
        let until = Instant::now() + PATIENCE;
        while running.ask(&Request::Status).is_err() {
            if Instant::now() > until {
                return Err(Refused::of(name, "it does not answer"));
            }
            if running.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                running.end()?;
                return Err(Refused::of(name, "it ended at once"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(running)
    }

    fn ask(&self, request: &Request) -> Result<Response, Refused> {
        let said = Connection::open(&self.control).and_then(|mut connection| {
            connection.set_patience(Some(PATIENCE))?;
            connection.call(request)
        });
        said.map_err(|e| Refused::of(self.name, e))
    }

    /// Stops it; its last books.
    fn end(&mut self) -> Result<Books, Refused> {
        // It may have stopped already.
        let _ = self.ask(&Request::Stop);
        self.thread.take().map_or_else(|| Err(Refused::of(self.name, "stopped before")), joined)
    }

    /// Looks at it while it runs, stops it, and looks at what is left.
    fn judge(mut self) -> Result<Gateway, Refused> {
        let other = || Refused::of(self.name, "its answer is for another question");
        let Response::Sas(sas) = self.ask(&Request::Sas)? else { return Err(other()) };
        let Response::Queues(queues) = self.ask(&Request::PfQueues)? else { return Err(other()) };
        let Response::PfInfo(info) = self.ask(&Request::PfInfo)? else { return Err(other()) };
        let Response::Mbuf(running) = self.ask(&Request::Mbuf)? else { return Err(other()) };
        let books = self.end()?;
        let stopped = MbufReport::new(&books.audit, &books.balance, true);
        let esp =
            [sas.iter().map(|sa| sa.sent.packets).sum(), sas.iter().map(|sa| sa.received.packets).sum()];
        let altq = queues.iter().map(|q| q.packets).sum();
        let at_work = esp[0] > 0 && esp[1] > 0 && altq > 0 && info.states > 0;
        let home = running.balanced && books.balanced() && books.audit.held() == 0;
        Ok(Gateway {
            name: self.name,
            workers: self.shape.workers,
            locking: self.shape.locking.to_string(),
            esp,
            states: u64::from(info.states),
            altq,
            running,
            stopped,
            good: at_work && home,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.end();
        }
    }
}

/// Rooms, gateways, the wire.
pub(super) struct Bed {
    gateways: Vec<Running>,
    rooms: [Room; 2],
    _middle: Room,
    _files: Directory,
}

impl Bed {
    /// Gateways of this shape that answer, and everything plugged in.
    pub(super) fn new(shape: Shape, cores: &[usize]) -> Result<Bed, Refused> {
        let files = Directory::new().map_err(|e| Refused::of("a directory for configurations", e))?;
        let (middle, rooms) = (Room::new()?, [Room::new()?, Room::new()?]);
        let mut gateways = Vec::new();
        for (n, (name, [conf, pf, ipsec])) in GATEWAYS.into_iter().enumerate() {
            // With one worker each, a core each.
            let own = if n == 0 { cores.first() } else { cores.last() };
            let cpus =
                if shape.workers == 1 { own.map(std::slice::from_ref).unwrap_or_default() } else { cores };
            let conf = configured(conf, name, &files.0, shape, cpus);
            for (ending, text) in [("toml", conf.as_str()), ("pf.conf", pf), ("ipsec.conf", ipsec)] {
                let written = files.write(&format!("{name}.{ending}"), text);
                written.map_err(|e| Refused::of("a configuration cannot be written", e))?;
            }
            gateways.push(Running::start(&middle, name, &files.0, shape)?);
        }
        plug(&middle, &rooms)?;
        Ok(Bed { gateways, rooms, _middle: middle, _files: files })
    }

    /// Has the hosts talk.
    pub(super) fn talk(&self, load: Load, stop: &Arc<AtomicBool>) -> Result<Carried, Refused> {
        let host = |n: usize| -> Result<Host<'_>, Refused> {
            let address = |text: &str| text.parse::<IpAddr>().map_err(|e| Refused::of(text, e));
            let [v4, v6] = LANS[n].1;
            Ok(Host { room: &self.rooms[n], at: [address(v4)?, address(v6)?] })
        };
        talk(host(0)?, host(1)?, load, stop)
    }

    /// Stops both gateways and says how they stand.
    pub(super) fn stop(self) -> Result<Vec<Gateway>, Refused> {
        self.gateways.into_iter().map(Running::judge).collect()
    }
}

/// A gateway's configuration for this shape, its files and socket in `files`.
fn configured(conf: &str, name: &str, files: &Path, shape: Shape, cpus: &[usize]) -> String {
    let Shape { workers, locking } = shape;
    let lines = conf.lines().map(|line| match line.split_whitespace().next() {
        Some("workers") => format!("workers = {workers}\nlocking = \"{locking}\""),
        Some("cpus") => format!("cpus = {cpus:?}"),
        Some("control") => format!("control = \"{}\"", files.join(name).display()),
        Some("pf") => format!("pf = \"{name}.pf.conf\""),
        Some("ipsec") => format!("ipsec = \"{name}.ipsec.conf\""),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Moves the LANs' devices to the hosts, and makes the middle room hand packets over.
fn plug(middle: &Room, rooms: &[Room; 2]) -> Result<(), Refused> {
    let rooms_there = [rooms[0].try_clone()?, rooms[1].try_clone()?];
    middle.within(move || {
        LANS.iter().zip(&rooms_there).try_for_each(|(lan, room)| room.adopt(lan.0))?;
        set("net/ipv4/ip_forward", 1)?;
        set("net/ipv6/conf/all/forwarding", 1)?;
        WIRE.iter().try_for_each(|(device, at, far)| wire(device, *at, far))
    })?;
    for (room, (device, host, gateway)) in rooms.iter().zip(LANS) {
        room.within(move || {
            set(&format!("net/ipv6/conf/{device}/accept_ra"), 0)?;
            ip(&format!("addr add {}/24 dev {device}", host[0]))?;
            ip(&format!("addr add {}/64 dev {device} nodad", host[1]))?;
            ip(&format!("link set {device} up"))?;
            ip(&format!("route add default via {}", gateway[0]))?;
            ip(&format!("-6 route add default via {}", gateway[1]))
        })?;
    }
    Ok(())
}

/// One end of the wire. (A bridge would do as well; not every kernel has one.)
fn wire(device: &str, [v4, v6]: [&str; 2], far: &str) -> Result<(), Refused> {
    for (key, value) in [
        ("ipv6/conf/D/accept_dad", 0),
        ("ipv4/conf/D/rp_filter", 0),
        ("ipv4/conf/D/send_redirects", 0),
        ("ipv4/conf/D/proxy_arp", 1),
        ("ipv6/conf/D/proxy_ndp", 1),
        ("ipv4/neigh/D/proxy_delay", 0),
        ("ipv6/neigh/D/proxy_delay", 0),
    ] {
        set(&format!("net/{}", key.replace("/D/", &format!("/{device}/"))), value)?;
    }
    ip(&format!("link set {device} up"))?;
    ip(&format!("route add {v4}/32 dev {device}"))?;
    ip(&format!("-6 route add {v6}/128 dev {device}"))?;
    ip(&format!("-6 neigh add proxy {far} dev {device}"))
}
