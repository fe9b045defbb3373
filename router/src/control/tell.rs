//! What `ipsec`, `pf` and `altq` say of themselves, as reports. The text is theirs; the values are for `--json`.

use super::pf::{ExplainReport, Told, TriedReport};
use super::report::{
    PfInfoReport, PolicyReport, QueueDelay, QueueReport, RuleCounters, RuleReport, SaReport, SaUse,
    StateReport,
};
use altq::IfqStats;
use ipsec::{
    conf::SaId,
    dump,
    sa::{Refused, SaLevel, Used},
    spd,
};
use kern::{
    lock::{Before, Held, levels::PfRules},
    time::Instant,
};
use pf::{
    Kind,
    explain::{Explanation, Fate},
    rule::AnchorCall,
};
use std::net::IpAddr;

impl SaReport {
    /// Every SA.
    pub fn all(sad: &ipsec::Sad, held: &mut Held<'_, impl Before<SaLevel>>, now: Instant) -> Vec<SaReport> {
        dump::sas(sad, held).iter().map(|sa| SaReport::new(sa, now)).collect()
    }

    /// An SPI that is given away and is no SA yet, as setkey tells of it.
    pub fn larval(id: &SaId) -> SaReport {
        let (src, dst, spi, proto) = (id.src.to_string(), id.dst.to_string(), id.spi.0, id.protocol.name());
        let text = format!(
            "{src} {dst} \n\t{proto} mode=any spi={spi}({spi:#010x}) reqid=0(0x00000000)\n\t\
             seq=0x00000000 replay=0 flags=0x00000000 state=larval\n\tsadb_seq=0 pid=0 refcnt=0\n"
        );
        let (proto, mode, state) = (proto.into(), "any".into(), "larval".into());
        SaReport { text, src, dst, proto, mode, spi, state, ..SaReport::default() }
    }

    fn new(sa: &dump::SaReport, now: Instant) -> SaReport {
        let status = &sa.status;
        SaReport {
            text: dump::sa_text(std::slice::from_ref(sa), now),
            src: sa.src.to_string(),
            dst: sa.dst.to_string(),
            ports: sa.encap.map(|udp| (udp.src_port, udp.dst_port)),
            peer: sa.moved.map(|peer| format!("{}[{}]", peer.ip(), peer.port())),
            proto: sa.protocol.to_owned(),
            mode: sa.mode.to_owned(),
            inner: sa.inner.map(|(src, dst)| (src.to_string(), dst.to_string())),
            spi: sa.spi,
            reqid: sa.reqid,
            worker: sa.worker,
            suite: sa.suite.clone(),
            engine: sa.engine.to_owned(),
            state: status.life.name().to_owned(),
            esn: sa.esn,
            replay: sa.replay,
            sequence: status.sequence,
            top: status.top,
            sent: SaUse::new(&status.sent, &status.sent_refused),
            received: SaUse::new(&status.received, &status.received_refused),
            age_s: now.since(status.made).as_secs(),
        }
    }
}

impl SaUse {
    fn new(used: &Used, refused: &Refused) -> SaUse {
        SaUse {
            packets: used.packets,
            bytes: used.bytes,
            refused_replay: refused.replay,
            refused_auth: refused.auth,
            refused_expired: refused.expired,
            refused_other: refused.other,
        }
    }
}

impl PolicyReport {
    /// Every policy, in order.
    pub fn all(spd: &ipsec::Spd) -> Vec<PolicyReport> {
        dump::policies(spd).iter().map(PolicyReport::new).collect()
    }

    fn new(report: &dump::PolicyReport) -> PolicyReport {
        let policy = &report.policy;
        let direction = match policy.direction {
            spd::Direction::In => "in",
            spd::Direction::Out => "out",
        };
        let action = match policy.action {
            spd::Action::Bypass => "none",
            spd::Action::Discard => "discard",
            spd::Action::Protect(_) => "ipsec",
        };
        PolicyReport {
            text: dump::policy_text(std::slice::from_ref(report)),
            id: policy.id,
            src: policy.selector.src.to_string(),
            dst: policy.selector.dst.to_string(),
            direction: direction.to_owned(),
            action: action.to_owned(),
            spis: report.spis.clone(),
        }
    }
}

/// Which rules are told, and how deep.
#[derive(Clone, Copy, Debug)]
pub struct Telling<'a> {
    /// The rules.
    pub rules: &'a pf::Ruleset,
    /// The world that they speak of.
    pub env: &'a pf::Environment,
    /// Which of them.
    pub which: Told,
    /// What is in anchors, too; otherwise only what is in those without a name, which nobody can ask for.
    pub recurse: bool,
}

impl Telling<'_> {
    /// The rules at a path, in pfctl's order.
    pub fn at(&self, path: &str) -> Vec<RuleReport> {
        let of = |kind| pf::show::rules(self.rules, path, kind, self.env);
        let counted = match self.which {
            Told::Ether => pf::show::ether(self.rules, path),
            Told::Nat => [Kind::Nat, Kind::Rdr, Kind::Binat].into_iter().flat_map(of).collect(),
            Told::Filter => of(Kind::Filter),
        };
        let mut all = if self.which == Told::Filter { self.scrub(path) } else { Vec::new() };
        all.extend(counted.into_iter().map(|rule| self.rule(rule)));
        all
    }

    fn rule(&self, rule: pf::show::RuleInfo) -> RuleReport {
        let opens = |call: &&AnchorCall| self.recurse || call.is_unnamed();
        RuleReport {
            number: Some(rule.number as u32),
            text: rule.text,
            expired: rule.expired,
            counted: Some(RuleCounters {
                evaluations: rule.evaluations,
                packets: rule.packets.iter().sum(),
                bytes: rule.bytes.iter().sum(),
                states: rule.states.into(),
                created: rule.states_made,
            }),
            inside: rule.anchor.as_ref().filter(opens).map(|call| self.inside(call)),
        }
    }

    fn inside(&self, call: &AnchorCall) -> Vec<RuleReport> {
        if !call.wildcard {
            return self.at(&call.path);
        }
        let calls = match self.which {
            Told::Filter => "anchor",
            Told::Nat => "nat-anchor",
            Told::Ether => "ether anchor",
        };
        let all = if self.which == Told::Ether { "l3 all" } else { "all" };
        let one = |name: &str| RuleReport {
            text: format!("{calls} \"{name}\" {all}"),
            inside: Some(self.at(&pf::anchor::join(&call.path, name))),
            ..RuleReport::default()
        };
        let paths = pf::anchor::paths(self.rules.conf());
        pf::anchor::names_below(&paths, &call.path).map(one).collect()
    }

    /// Scrub rules, which count nothing.
    fn scrub(&self, path: &str) -> Vec<RuleReport> {
        let texts = pf::show::scrub(self.rules, path, self.env).into_iter().enumerate();
        let one = |(n, text)| RuleReport { number: Some(n as u32), text, ..RuleReport::default() };
        texts.map(one).collect()
    }
}

impl ExplainReport {
    /// What a ruleset does.
    pub fn new(e: &Explanation) -> ExplainReport {
        let place = |end| self::place(end);
        let tried = |rule: &pf::explain::Tried| TriedReport {
            anchor: rule.anchor.clone(),
            number: rule.number,
            text: rule.text.clone(),
            place: rule.place.clone(),
            fails: rule.fails.map(str::to_owned),
            decides: rule.decides,
        };
        ExplainReport {
            packet: e.packet.clone(),
            verdict: match e.fate {
                Fate::Passes => "pass",
                Fate::Blocked(_) => "block",
                Fate::Returned(_) => "return",
            }
            .into(),
            outcome: e.outcome(),
            state: None,
            rules: e.rules().map(tried).collect(),
            keeps_state: e.keeps_state,
            becomes: e.becomes.map(|ends| ends.map(place)),
            next_hop: e.next_hop.clone(),
            queue: e.queue.clone(),
            tag: e.tag.clone(),
            text: e.text(false),
            verbose: e.text(true),
        }
    }
}

impl StateReport {
    /// Every state; `name` knows interfaces by their numbers.
    pub fn all(
        states: &pf::States,
        held: &mut Held<'_, PfRules>,
        now: Instant,
        name: impl Fn(u16) -> String,
    ) -> Vec<StateReport> {
        states
            .dump(held, now.secs() as u32)
            .iter()
            .map(|state| StateReport::new(state, name(state.ifindex)))
            .collect()
    }

    fn new(state: &pf::StateInfo, interface: String) -> StateReport {
        let [src, dst] = state.wire.map(place);
        StateReport {
            text: state.line(Some(&interface), false),
            verbose: state.line(Some(&interface), true),
            id: state.id,
            creator: state.creator,
            interface,
            proto: state.proto,
            direction: state.direction.keyword().to_owned(),
            src,
            dst,
            stack: (state.stack != state.wire).then(|| state.stack.map(place)),
            gateway: state.gateway.map(|gateway| gateway.to_string()),
            levels: [state.src.level.to_owned(), state.dst.level.to_owned()],
            age_s: state.age,
            expires_s: state.expires,
            packets: state.packets,
            bytes: state.bytes,
            rule: state.rule,
            nat_rule: state.nat_rule,
        }
    }
}

/// An address and a port, as sockets are written.
fn place((addr, port): (IpAddr, u16)) -> String {
    std::net::SocketAddr::new(addr, port).to_string()
}

impl PfInfoReport {
    /// The present figures.
    pub fn new(info: &pf::show::Info) -> PfInfoReport {
        PfInfoReport {
            text: info.text(0),
            verbose: info.text(1),
            very_verbose: info.text(2),
            enabled: info.enabled,
            debug: info.debug,
            since_s: info.since,
            states: info.states,
            limit: info.limit,
            host_id: info.host_id,
            checksum: format!("{:032x}", info.checksum),
            sources: info.sources,
            interface: info.interface.clone().map(Box::new),
            counters: info.counters().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }
}

impl QueueReport {
    /// Every queue of an interface, in the tree's order.
    pub fn all(stats: &IfqStats) -> Vec<QueueReport> {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = altq::show::queues(&mut text, stats, altq::show::Detail::default(), &[], 0.0);
        let cbq = stats.conf.scheduler == altq::SchedulerKind::Cbq;
        let one = |(line, (class, counters)): (&str, (&altq::ClassConf, &altq::Counters))| QueueReport {
            interface: stats.conf.interface.clone(),
            name: class.name.clone(),
            text: line.to_owned(),
            packets: counters.sent.packets,
            bytes: counters.sent.bytes,
            dropped_packets: counters.dropped.packets,
            dropped_bytes: counters.dropped.bytes,
            length: counters.queued.packets,
            length_bytes: counters.queued.bytes,
            limit: class.qlimit.into(),
            offered_packets: counters.offered.packets,
            offered_bytes: counters.offered.bytes,
            marked: counters.marked,
            borrows: cbq.then_some(counters.borrows),
            suspends: cbq.then_some(counters.suspends),
            delay: QueueDelay {
                p50_us: counters.delay.p50 as f64 / 1e3,
                p99_us: counters.delay.p99 as f64 / 1e3,
                max_us: counters.delay.max as f64 / 1e3,
            },
        };
        text.lines().zip(stats.conf.classes.iter().zip(&stats.counters)).map(one).collect()
    }
}
