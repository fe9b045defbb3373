//! `pfctl --explain`, which pf never had: what a ruleset does to one packet that is described in words, and which rules
//! are the cause. The packet goes through the engine itself, in a pf of its own without a single state: no counter of
//! the running one moves, no state is made there. Only `round-robin` pools give out an address.

mod frame;
mod question;
#[cfg(test)]
mod tests;
mod text;

use std::{collections::HashMap, net::IpAddr};

use kern::{
    Class, Ledger, Mbuf, Owner, PktFlags, Pool, Why,
    lock::{
        Held,
        levels::{PfRules, Top},
    },
    mbuf::PoolConfig,
    time::Instant,
};

pub use frame::Ends;
pub use question::{NotUnderstood, Question};

use crate::{
    Direction, IfIndex,
    anchor::{self, Kind},
    conf::{PfConf, Pos},
    counters::NOBODY,
    engine::{PfCx, explain::Trace},
    env::Environment,
    ether::FrameVerdict,
    eval::Trial,
    ids::Names,
    pf::{Pf, Worker},
    print,
    route::Routes,
    rule::Rule,
    ruleset::Ruleset,
    slab::RuleSlot,
    verdict::{Answer, Verdict},
};

/// Seconds on the clock of the pf that is asked.
const NOW: u64 = 1;

/// A rule that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The anchor it is in; empty for the main ruleset.
    pub anchor: String,
    /// Its kind; that of an Ethernet rule is `Filter`.
    pub kind: Kind,
    /// Its number.
    pub number: usize,
    /// As pfctl prints it.
    pub text: String,
    /// Where it stands: file and line.
    pub place: String,
    /// What of it does not match; none if it matches.
    pub fails: Option<&'static str>,
    /// It decides, or translates.
    pub decides: bool,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Passes,
    /// It ends.
    Blocked(Why),
    /// It ends, and its sender is told.
    Returned(Answer),
}

impl Fate {
    fn of(verdict: &Verdict) -> Fate {
        match *verdict {
            Verdict::Pass(_) | Verdict::Route(..) | Verdict::Copy(..) => Fate::Passes,
            Verdict::Block(why) => Fate::Blocked(why),
            Verdict::Return(answer, _) => Fate::Returned(answer),
        }
    }
}

/// What a ruleset does to a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The packet, in words.
    pub packet: String,
    /// pf does nothing at its interface (`set skip`).
    pub skipped: bool,
    /// The rules that were tried, in order; not those that cannot match because an earlier one does not.
    pub tried: Vec<Tried>,
    /// The Ethernet rules that were tried, in order.
    pub frame: Vec<Tried>,
    /// There are Ethernet rules, and the question does not say what frame the packet is in.
    pub frame_is_missing: bool,
    /// A rule asks what routes there are, and there is no router to say.
    pub routes_are_missing: bool,
    /// Ethernet rules come first: it comes in.
    pub comes_in: bool,
    /// What becomes of it.
    pub fate: Fate,
    /// A state is made.
    pub keeps_state: bool,
    /// Addresses and ports as they leave pf, if they change.
    pub becomes: Option<[(IpAddr, u16); 2]>,
    /// The next hop that a rule has chosen: gateway and interface.
    pub next_hop: Option<String>,
    /// Only a copy goes there.
    pub copied: bool,
    /// The queue it goes to.
    pub queue: Option<String>,
    /// The tag it leaves with.
    pub tag: Option<String>,
}

impl Explanation {
    /// All rules that were tried, in order.
    pub fn rules(&self) -> impl Iterator<Item = &Tried> {
        let [first, then] =
            if self.comes_in { [&self.frame, &self.tried] } else { [&self.tried, &self.frame] };
        first.iter().chain(then)
    }
}

/// There is no memory for the packet.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no memory for a packet to try: {0}")]
pub struct NoMemory(String);

impl Ruleset {
    /// What these rules do to a packet that belongs to no state, where there are these routes, if any. No lock may be held.
    pub fn explain(
        &self,
        question: &Question,
        env: &Environment,
        names: &mut Names,
        routes: Option<&dyn Routes>,
        top: &mut Held<'_, Top>,
    ) -> Result<Explanation, NoMemory> {
        let mut bench = Bench::new(question, names)?;
        let (direction, on) = (question.direction, question.on);
        let comes_in = direction == Direction::In;
        let mut said = Explanation {
            packet: question.to_string(),
            skipped: false,
            tried: Vec::new(),
            frame: Vec::new(),
            frame_is_missing: self.frame_is_missing(question),
            routes_are_missing: routes.is_none() && self.asks_routes(),
            comes_in,
            fate: Fate::Blocked(Why::PfEther),
            keeps_state: false,
            becomes: None,
            next_hop: None,
            copied: false,
            queue: None,
            tag: None,
        };
        if comes_in {
            let verdict;
            (verdict, said.frame) = self.explain_frame(question, &question.octets(), bench.tag);
            let FrameVerdict::Pass { tag, queue } = verdict else { return Ok(said) };
            (bench.tag, bench.queue) = (tag, queue);
        }
        let pf = Pf::new(1, 16);
        pf.states().limiters.set(&mut top.at(), &self.conf().limiters);
        if self.makes_mappings() {
            pf.states().keep_mappings();
        }
        let mut worker = pf.worker(0);
        worker.id = NOBODY;
        let mut m = bench.packet()?;
        let trace = engine(&pf, self, &mut worker, top.at(), routes).trace(direction, on, &mut m);
        bench.end(m);
        let mut m = bench.packet()?;
        let verdict = engine(&pf, self, &mut worker, top.at(), routes).test(direction, on, &mut m);
        let (mut tag, mut queue) = (m.hdr().tag, m.hdr().queue);
        said.fate = Fate::of(&verdict);
        if !comes_in && said.fate == Fate::Passes {
            let verdict;
            (verdict, said.frame) = self.explain_frame(question, m.data(), tag);
            match verdict {
                FrameVerdict::Block => said.fate = Fate::Blocked(Why::PfEther),
                FrameVerdict::Pass { tag: by, queue: to } => {
                    (tag, queue) = (by, if to == 0 { queue } else { to });
                }
            }
        }
        bench.end(m);
        let state = pf.states().dump(&mut top.at(), NOW as u32).pop();
        let hop = match verdict {
            Verdict::Route(_, hop) | Verdict::Copy(_, hop) => pf.slab().next_hop(hop),
            _ => None,
        };
        let ends = state.as_ref().map(|s| if comes_in { s.stack } else { s.wire });
        Ok(Explanation {
            skipped: trace.skipped,
            tried: self.tried(&trace, env),
            next_hop: hop.map(|hop| next_hop(hop.gateway, hop.iface, env)),
            copied: matches!(verdict, Verdict::Copy(..)),
            keeps_state: state.is_some(),
            becomes: ends.filter(|_| state.is_some_and(|s| s.stack != s.wire)),
            queue: names.queue_name(queue).map(str::to_owned),
            tag: names.tag_name(tag).map(str::to_owned),
            ..said
        })
    }

    fn tried(&self, trace: &Trace, env: &Environment) -> Vec<Tried> {
        let known = self.by_slot();
        // A rule of an anchor that is called twice is tried twice, and decides the second time.
        let last = |slot: Option<RuleSlot>| {
            trace.steps.iter().rposition(|step| Some(step.slot) == slot && step.trial == Trial::Matches)
        };
        let decisive = [last(trace.decides), last(trace.translates)];
        let one = |(at, step): (usize, &crate::engine::explain::Step)| {
            let (path, number, rule) = known.get(&step.slot)?;
            Some(Tried {
                anchor: (*path).to_owned(),
                kind: step.kind,
                number: *number,
                text: print::rule(rule, env),
                place: place(self.conf(), rule.at),
                fails: match step.trial {
                    Trial::Matches => None,
                    Trial::Field(field) => FIELDS.get(field).copied(),
                    Trial::Full => Some("its limiter or its rate has no room"),
                    Trial::Rest => {
                        Some("flags, ICMP type, TOS, tag, fragment, received-on, os, or once already")
                    }
                },
                decides: decisive.contains(&Some(at)),
            })
        };
        trace.steps.iter().enumerate().filter_map(one).collect()
    }

    fn by_slot(&self) -> HashMap<RuleSlot, (&str, usize, &Rule)> {
        let mut known = HashMap::new();
        for (path, rules) in anchor::sources(self.conf()) {
            for kind in [Kind::Nat, Kind::Rdr, Kind::Binat, Kind::Filter] {
                for (number, rule) in rules.list(kind).iter().enumerate() {
                    if let Some((slot, _)) = self.counted(path, kind, number) {
                        known.insert(slot, (path, number, rule));
                    }
                }
            }
        }
        known
    }
}

/// pf for one packet.
fn engine<'a>(
    pf: &'a Pf,
    rules: &'a Ruleset,
    worker: &'a mut Worker,
    held: Held<'a, PfRules>,
    routes: Option<&'a dyn Routes>,
) -> PfCx<'a> {
    let pf = PfCx::new(pf, rules, worker, held, Instant::from_secs(NOW));
    match routes {
        Some(routes) => pf.ask(routes),
        None => pf,
    }
}

/// The fields with skip steps, in their order.
const FIELDS: [&str; 8] = [
    "interface",
    "direction",
    "address family",
    "protocol",
    "source address",
    "source port",
    "destination address",
    "destination port",
];

/// `198.51.100.9 on wan0`, `wan0`
fn next_hop(gateway: Option<IpAddr>, iface: IfIndex, env: &Environment) -> String {
    let interface = env.interfaces.iter().find(|i| i.index == iface).map_or("", |i| i.name.as_str());
    gateway.map_or_else(|| interface.to_owned(), |gateway| format!("{gateway} on {interface}"))
}

fn place(conf: &PfConf, at: Pos) -> String {
    let file = conf.files.get(usize::from(at.file)).map_or("", String::as_str);
    format!("{file}:{}", at.line)
}

/// So long a packet fits into a cluster.
const ROOM: usize = 1500;

/// A packet outside of the router's own pool and books.
struct Bench<'a> {
    pool: Pool,
    ledger: Ledger,
    question: &'a Question,
    tag: u16,
    queue: u16,
}

impl Bench<'_> {
    fn new<'a>(question: &'a Question, names: &mut Names) -> Result<Bench<'a>, NoMemory> {
        let pool = Pool::new(PoolConfig { clusters: 4, jumbos: 1 }).map_err(|e| NoMemory(e.to_string()))?;
        // A tag that no rule has named matches none: it needs a number, but whether there is one left is no matter.
        let tag = question.tag.as_deref().map_or(0, |tag| names.tag(tag).unwrap_or(0));
        Ok(Bench { pool, ledger: Ledger::new(), question, tag, queue: 0 })
    }

    fn packet(&self) -> Result<Mbuf, NoMemory> {
        let none = || NoMemory("the pool is empty".into());
        let octets = self.question.octets();
        let class = if octets.len() > ROOM { Class::Jumbo } else { Class::Cluster };
        let mut m = self.pool.alloc(class, Owner::Control).ok_or_else(none)?;
        m.append(octets.len()).map_err(|_| none())?.copy_from_slice(&octets);
        self.ledger.receive(&mut m);
        let hdr = m.hdr_mut();
        hdr.family = octets.first().map_or(4, |octet| octet >> 4);
        hdr.proto = self.question.proto;
        (hdr.tag, hdr.queue, hdr.rcvif) = (self.tag, self.queue, self.question.received.0);
        for (is, flag) in
            [(self.question.fragment, PktFlags::FRAG), (self.question.options, PktFlags::OPTIONS)]
        {
            if is {
                hdr.flags.set(flag);
            }
        }
        Ok(m)
    }

    fn end(&self, m: Mbuf) {
        self.ledger.end(m, Why::Sink);
    }
}
