//! What the daemon says of itself: the router's books and tables as reports.

use super::Daemon;
use crate::{
    conf::{DriverConf, InterfaceConf},
    control::proto::{
        InterfaceReport, NeighbourReport, PathReport, PfInfoReport, PolicyReport, QueueReport, RouteReport,
        SaReport, StateReport, StatsReport, StatusReport,
    },
    iface::driver::Driver,
    route::{IfIndex, NextHop},
    sadb,
};
use kern::mbuf::Balance;

impl Daemon {
    pub(super) fn status(&self) -> StatusReport {
        let now = self.router.shared().clock.now();
        StatusReport {
            name: self.files.conf.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            workers: self.files.conf.workers,
            locking: self.files.conf.locking.to_string(),
            file: self.path.display().to_string(),
            uptime_s: now.since(self.router.started_at()).as_secs(),
        }
    }

    pub(super) fn interfaces(&self) -> Vec<InterfaceReport> {
        self.files.conf.interfaces.iter().map(|i| self.interface(i)).collect()
    }

    fn interface(&self, conf: &InterfaceConf) -> InterfaceReport {
        let (driver, device) = match &conf.driver {
            DriverConf::Tap { device } => ("tap", device.clone()),
            DriverConf::Link { device } => ("link", device.clone()),
            DriverConf::Ipsec(ends) => ("ipsec", format!("{} -> {}", ends.local, ends.remote)),
            DriverConf::Vlan { parent, tag } => {
                ("vlan", format!("{tag} on {}", self.files.conf.name_of(*parent)))
            }
        };
        let mut report = InterfaceReport {
            name: conf.name.clone(),
            index: conf.index.0,
            driver: driver.into(),
            device,
            up: self.is_up(conf),
            mtu: conf.mtu,
            mac: conf.mac.to_string(),
            addrs: conf.addrs.iter().map(ToString::to_string).collect(),
            queues: conf.queues,
            ..InterfaceReport::default()
        };
        for stats in self.router.all_stats() {
            let counters = stats.interface(conf.index.0);
            report.in_packets += counters.in_packets.get();
            report.in_bytes += counters.in_bytes.get();
            report.out_packets += counters.out_packets.get();
            report.out_bytes += counters.out_bytes.get();
            report.out_errors += counters.out_errors.get();
        }
        report
    }

    /// Whether its device is there, or its tunnel has an SA to send with.
    fn is_up(&self, conf: &InterfaceConf) -> bool {
        let net = self.router.net();
        match conf.driver {
            DriverConf::Ipsec(_) => net.tunnels.is_up(conf.index.0),
            _ => net.driver(conf.index).is_some_and(Driver::is_up),
        }
    }

    pub(super) fn routes(&self) -> Vec<RouteReport> {
        let one = |r: crate::route::rib::Shown<'_>| RouteReport {
            to: r.route.to.to_string(),
            source: r.route.source.to_string(),
            active: r.counts,
            paths: r.route.paths.iter().map(|p| self.path(p)).collect(),
        };
        self.commit.rib().routes().map(one).collect()
    }

    fn path(&self, hop: &NextHop) -> PathReport {
        let (kind, gateway) = match *hop {
            NextHop::Connected { .. } => ("connected", None),
            NextHop::Gateway { addr, .. } => ("gateway", Some(addr)),
            NextHop::Local { .. } => ("local", None),
            NextHop::Broadcast { .. } => ("broadcast", None),
            NextHop::Blackhole => ("blackhole", None),
            NextHop::Reject | NextHop::Unreachable | NextHop::Ecmp(_) => ("reject", None),
        };
        let interface = hop.iface().and_then(|i| self.files.conf.interface(i));
        PathReport {
            kind: kind.into(),
            gateway,
            interface: interface.map(|i| i.name.clone()),
            mtu: interface.map(|i| i.mtu),
        }
    }

    pub(super) fn stats(&self) -> StatsReport {
        let mut report = StatsReport::default();
        let mut balance = Balance::default();
        for stats in self.router.all_stats() {
            report.add(&stats.count);
            balance.add(&stats.ledger.balance());
        }
        report.add_ends(&balance);
        report.add(&self.router.shared().pf.counters());
        report
    }

    pub(super) fn neighbours(&mut self) -> Vec<NeighbourReport> {
        let now = self.router.shared().clock.now();
        let entries = self.router.shared().neighbours.report(&mut self.root.top(), now);
        let one = |e: crate::neighbour::NeighbourEntry| NeighbourReport {
            addr: e.addr.to_string(),
            interface: self.files.conf.name_of(IfIndex(e.interface)),
            mac: e.mac.map(|m| m.to_string()),
            state: e.state.name().into(),
            router: e.router,
            expires_s: Some(e.expires_in.as_secs()),
            held: e.held as u64,
        };
        entries.into_iter().map(one).collect()
    }

    pub(super) fn sas(&mut self) -> Vec<SaReport> {
        sadb::report(&self.router, &mut self.root, self.files.ipsec.as_ref())
    }

    pub(super) fn policies(&self) -> Vec<PolicyReport> {
        PolicyReport::all(&self.router.net().spd)
    }

    pub(super) fn pf_states(&mut self) -> Vec<StateReport> {
        let now = self.router.shared().clock.now();
        let states = self.router.shared().pf.states();
        StateReport::all(states, &mut self.root.top().at(), now, |index| {
            self.files.conf.name_of(IfIndex(index))
        })
    }

    pub(super) fn pf_queues(&mut self) -> Vec<QueueReport> {
        let mut top = self.root.top();
        let queues = self.router.net().all().filter_map(|i| i.ifq.as_ref());
        queues.flat_map(|q| QueueReport::all(&q.stats(&mut top))).collect()
    }

    pub(super) fn pf_info(&self) -> PfInfoReport {
        let since = self.router.net().pf.is_some().then(|| self.loaded_at.elapsed().as_secs());
        PfInfoReport::new(&pf::show::info(&self.router.shared().pf, self.ruleset().map(AsRef::as_ref), since))
    }
}
