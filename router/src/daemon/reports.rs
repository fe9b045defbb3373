//! What the daemon says of itself: the router's books and tables as reports.

use super::Daemon;
use crate::{
    commit::environment,
    conf::{DriverConf, InterfaceConf},
    control::proto::{
        InterfaceReport, NeighbourReport, PathReport, PfInfoReport, PolicyReport, QueueReport, RouteReport, RuleReport,
        SaReport, StateReport, StatsReport, StatusReport,
    },
    iface::driver::Driver,
    route::{IfIndex, NextHop},
};
use ipsec::spd::{Action, Direction, Level};
use kern::{counter::CounterSet, mbuf::Balance, time::Instant};
use std::time::SystemTime;

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
            DriverConf::Vlan { parent, tag } => ("vlan", format!("{tag} on {}", self.name_of(*parent))),
        };
        let mut report = InterfaceReport {
            name: conf.name.clone(),
            index: conf.index.0,
            driver: driver.into(),
            device,
            up: self.router.net().driver(conf.index).is_some_and(Driver::is_up),
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

    fn name_of(&self, index: IfIndex) -> String {
        self.files.conf.interface(index).map_or_else(|| index.to_string(), |i| i.name.clone())
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
            interface: self.name_of(IfIndex(e.interface)),
            mac: e.mac.map(|m| m.to_string()),
            state: e.state.name().into(),
            router: e.router,
            expires_s: Some(e.expires_in.as_secs()),
            held: e.held as u64,
        };
        entries.into_iter().map(one).collect()
    }

    pub(super) fn sas(&mut self) -> Vec<SaReport> {
        let now = self.router.shared().clock.now();
        let reports = ipsec::dump::sas(&self.router.net().sad, &mut self.root.top());
        reports.iter().map(|r| sa(r, now)).collect()
    }

    pub(super) fn policies(&self) -> Vec<PolicyReport> {
        ipsec::dump::policies(&self.router.net().spd).iter().map(policy).collect()
    }

    pub(super) fn pf_rules(&self) -> Vec<RuleReport> {
        let Some(rules) = &self.router.net().pf else { return Vec::new() };
        let one = |r: pf::show::RuleInfo| RuleReport {
            number: r.number as u32,
            text: r.text,
            evaluations: r.evaluations,
            packets: r.packets.iter().sum(),
            bytes: r.bytes.iter().sum(),
            states: r.states.into(),
            created: r.states_made,
        };
        pf::show::rules(rules, &environment(&self.files.conf)).into_iter().map(one).collect()
    }

    pub(super) fn pf_states(&mut self) -> Vec<StateReport> {
        let now = self.router.shared().clock.now().secs() as u32;
        let states = self.router.shared().pf.states().dump(&mut self.root.top().at(), now);
        states.iter().map(|s| self.state(s)).collect()
    }

    fn state(&self, s: &pf::StateInfo) -> StateReport {
        let bound = s.bound.then(|| self.name_of(IfIndex(s.ifindex)));
        let line = s.line(bound.as_deref(), false);
        let mut words = line.split_whitespace();
        let (interface, proto) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let rest: Vec<&str> = words.collect();
        let (state, text) = rest.split_last().map_or(("", String::new()), |(last, text)| (*last, text.join(" ")));
        StateReport {
            interface: interface.into(),
            proto: proto.into(),
            text,
            state: state.into(),
            age_s: s.age.into(),
            expires_s: s.expires.into(),
            packets: s.packets,
            bytes: s.bytes,
            rule: s.rule,
            id: s.id,
        }
    }

    pub(super) fn pf_queues(&mut self) -> Vec<QueueReport> {
        let mut top = self.root.top();
        let queues = self.router.net().all().filter_map(|i| i.ifq.as_ref());
        queues.flat_map(|q| queues_of(&q.stats(&mut top))).collect()
    }

    pub(super) fn pf_info(&self) -> PfInfoReport {
        let counters = self.router.shared().pf.counters();
        let all: Vec<(String, u64)> = counters.iter().map(|(d, n)| (d.name.trim_start_matches("pf.").into(), n)).collect();
        let is_table = |name: &str| matches!(name, "searches" | "inserts" | "removals");
        let (table, reasons) = all.into_iter().partition(|(name, _)| is_table(name));
        PfInfoReport {
            enabled: self.router.net().pf.is_some(),
            since_s: self.loaded_at.elapsed().as_secs(),
            states: self.router.shared().pf.states().count().into(),
            limit: self.router.shared().pf.states().limit().into(),
            table,
            reasons,
        }
    }
}

fn sa(r: &ipsec::dump::SaReport, now: Instant) -> SaReport {
    let s = &r.status;
    let used = if s.sent.packets > 0 { s.sent } else { s.received };
    let limits = r.lifetimes.map(|l| [l.bytes.unwrap_or(0), l.seconds.unwrap_or(0)]);
    SaReport {
        src: r.src.to_string(),
        dst: r.dst.to_string(),
        proto: r.protocol.into(),
        mode: r.mode.into(),
        spi: r.spi,
        reqid: r.reqid,
        encryption: Some(r.algorithm.into()),
        encryption_bits: r.key_bits as u32,
        authentication: None,
        engine: r.engine.into(),
        state: s.life.name().into(),
        sequence: s.sequence,
        top: s.top,
        replay_window: r.replay,
        esn: r.esn,
        packets: used.packets,
        bytes: used.bytes,
        replayed: s.received_refused.replay,
        forged: s.received_refused.auth,
        age_s: now.since(s.made).as_secs(),
        created: s.made_on.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        soft: limits[0],
        hard: limits[1],
    }
}

fn policy(r: &ipsec::dump::PolicyReport) -> PolicyReport {
    let p = &r.policy;
    // setkey's own layout, taken apart: `src[port] dst[port] upper`, then direction and action.
    let text = ipsec::dump::policy_text(std::slice::from_ref(r));
    let mut words = text.lines().next().unwrap_or_default().split_whitespace();
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (src, dst, upper) = (word(), word(), word());
    let (action, rules) = match p.action {
        Action::Bypass => ("none", Vec::new()),
        Action::Discard => ("discard", Vec::new()),
        Action::Protect(tunnel) => {
            let level = match tunnel.level {
                Level::Default => "default".to_owned(),
                Level::Use => "use".to_owned(),
                Level::Require => "require".to_owned(),
                Level::Unique(id) => format!("unique:{id}"),
            };
            ("ipsec", vec![format!("esp/tunnel/{}-{}/{level}", tunnel.src, tunnel.dst)])
        }
    };
    PolicyReport {
        src,
        dst,
        upper,
        direction: match p.direction {
            Direction::In => "in".into(),
            Direction::Out => "out".into(),
        },
        action: action.into(),
        rules,
        id: p.id,
        packets: 0,
    }
}

fn queues_of(stats: &altq::IfqStats) -> Vec<QueueReport> {
    let one = |(class, c): (&altq::ClassConf, &altq::Counters)| {
        let only = altq::IfqStats {
            conf: altq::TreeConf { classes: vec![class.clone()], ..(*stats.conf).clone() }.into(),
            counters: vec![*c],
        };
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = altq::show::queues(&mut text, &only, altq::show::Detail::default(), &[], 1.0);
        QueueReport {
            interface: stats.conf.interface.clone(),
            name: class.name.clone(),
            text: text.trim_end_matches('\n').into(),
            packets: c.sent.packets,
            bytes: c.sent.bytes,
            dropped_packets: c.dropped.packets,
            dropped_bytes: c.dropped.bytes,
            length: c.queued.packets,
            limit: class.qlimit.into(),
        }
    };
    stats.conf.classes.iter().zip(&stats.counters).map(one).collect()
}
