//! What pf has to say of packets it ends and of itself, at a debug level (`set debug`, `pfctl -x`; BSD: `DPFPRINTF`).
//!
//! A worker never writes a log. Where a packet ends for a reason that the level has words for, it leaves that packet as an
//! example, if one is wanted: that is one look at a word that is seldom written. The control thread takes the examples a few
//! times a second, and how often each reason was counted meanwhile, so that a flood makes no more lines than one packet.
//!
//! | level | says |
//! |---|---|
//! | `none` | nothing |
//! | `urgent`, unless something else is said | states that collide, SYN floods |
//! | `misc` | packets that do not fit their state or have options, limits that are reached, translations that fail |
//! | `loud` | packets that are too short, and fragments |

use std::{
    fmt::Write,
    net::IpAddr,
    sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed},
};

use kern::{Mbuf, Why, counter::Counter, lock::Leaf};

use crate::{IfIndex, counters::PfCounters, names, packet::Packet, rule::Direction};

/// How much pf says.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    None,
    /// What must not happen.
    #[default]
    Urgent,
    /// What seldom happens.
    Misc,
    /// Everything that it has words for.
    Loud,
}

impl Level {
    /// All, with their keywords.
    pub const ALL: [(Level, &'static str); 4] =
        [(Level::None, "none"), (Level::Urgent, "urgent"), (Level::Misc, "misc"), (Level::Loud, "loud")];

    /// The keyword of pf.conf.
    pub const fn keyword(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The level with this keyword.
    pub fn of(word: &str) -> Option<Level> {
        Self::ALL.iter().find(|(_, k)| *k == word).map(|&(l, _)| l)
    }

    /// As `pfctl -s info` has it.
    pub const fn title(self) -> &'static str {
        ["None", "Urgent", "Misc", "Loud"][self as usize]
    }
}

/// Something that pf has words for.
struct Matter {
    /// Why packets end, if that is what it is about.
    why: Option<Why>,
    level: Level,
    words: &'static str,
    counter: fn(&PfCounters) -> &Counter,
}

const MATTERS: [Matter; 12] = [
    of(Why::PfStateInsert, Level::Urgent, "state insert failed", |c| &c.state_insert),
    Matter {
        why: None,
        level: Level::Urgent,
        words: "synflood detected, enabling syncookies",
        counter: |c| &c.synfloods,
    },
    of(Why::PfStateMismatch, Level::Misc, "BAD state", |c| &c.state_mismatch),
    of(Why::PfStateLimit, Level::Misc, "states limit reached", |c| &c.state_limit),
    of(Why::PfSrcLimit, Level::Misc, "source limit reached", |c| &c.src_limit),
    of(Why::PfTranslate, Level::Misc, "translation failed", |c| &c.translate),
    of(Why::PfTimestamp, Level::Misc, "bad timestamp", |c| &c.bad_timestamp),
    of(Why::PfRoute, Level::Misc, "no next hop", |c| &c.no_route),
    of(Why::PfNormalize, Level::Misc, "dropping overly long packet", |c| &c.normalize),
    of(Why::PfOptions, Level::Misc, "dropping packet with ip options", |c| &c.ip_option),
    of(Why::PfShort, Level::Loud, "packet too short", |c| &c.short),
    of(Why::PfFragment, Level::Loud, "dropping fragment", |c| &c.fragment),
];

const fn of(why: Why, level: Level, words: &'static str, counter: fn(&PfCounters) -> &Counter) -> Matter {
    Matter { why: Some(why), level, words, counter }
}

/// A packet that ended, as far as it could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Where.
    pub interface: IfIndex,
    /// Which way it went.
    pub direction: Direction,
    /// Protocol.
    pub proto: u8,
    /// Source and port.
    pub from: (IpAddr, u16),
    /// Destination and port.
    pub to: (IpAddr, u16),
    /// Flags, sequence and acknowledgement number of a segment.
    pub segment: Option<(u8, u32, u32)>,
}

/// What pf says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// At which level.
    pub level: Level,
    /// In pf's words.
    pub words: &'static str,
    /// How often since it was last said.
    pub times: u64,
    /// One of the packets.
    pub example: Option<Example>,
}

impl Remark {
    /// `pf: BAD state: tcp in on wan0 192.0.2.9:4000 > 198.51.100.1:80 PA seq=7 ack=9, 3 times`
    pub fn line(&self, interface: impl Fn(IfIndex) -> String) -> String {
        // Writing to a string does not fail.
        let mut line = format!("pf: {}", self.words);
        if let Some(example) = &self.example {
            line.push_str(&example.text(&interface(example.interface)));
        }
        if self.times > 1 {
            let _ = write!(line, ", {} times", self.times);
        }
        line
    }
}

impl Example {
    fn of(direction: Direction, interface: IfIndex, m: &Mbuf) -> Option<Example> {
        let p = Packet::read(m).ok()?;
        let tcp = p.tcp;
        Some(Example {
            interface,
            direction,
            proto: p.proto,
            from: (p.family.address(p.src), p.sport),
            to: (p.family.address(p.dst), p.dport),
            segment: (p.proto == 6 && !p.fragment).then_some((tcp.flags, tcp.seq, tcp.ack)),
        })
    }

    fn text(&self, interface: &str) -> String {
        let proto = names::protocol_name(self.proto).map_or_else(|| self.proto.to_string(), str::to_owned);
        let end = |(address, port): (IpAddr, u16)| match (address, port) {
            (address, 0) => address.to_string(),
            (IpAddr::V4(a), port) => format!("{a}:{port}"),
            (IpAddr::V6(a), port) => format!("{a}[{port}]"),
        };
        let way = self.direction.keyword();
        let mut text = format!(": {proto} {way} on {interface} {} > {}", end(self.from), end(self.to));
        if let Some((flags, seq, ack)) = self.segment {
            let set = crate::rule::FLAG_LETTERS.iter().enumerate().filter(|(i, _)| flags >> i & 1 != 0);
            let letters: String = set.map(|(_, letter)| char::from(*letter)).collect();
            let _ = write!(text, " {letters} seq={seq} ack={ack}");
        }
        text
    }
}

/// The level, and what is to be said.
#[derive(Debug)]
pub(crate) struct Debug {
    level: AtomicU8,
    /// A bit for each matter of which an example is wanted.
    wanted: AtomicU32,
    kept: Leaf<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    examples: [Option<Example>; MATTERS.len()],
    /// What had been counted when it was last asked.
    counted: [u64; MATTERS.len()],
}

impl Default for Debug {
    fn default() -> Debug {
        let debug =
            Debug { level: AtomicU8::new(0), wanted: AtomicU32::new(0), kept: Leaf::new(Kept::default()) };
        debug.set(Level::default());
        debug
    }
}

impl Debug {
    pub(crate) fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Relaxed)) % Level::ALL.len()].0
    }

    pub(crate) fn set(&self, level: Level) {
        self.level.store(level as u8, Relaxed);
        let said = |(i, matter): (usize, &Matter)| u32::from(matter.level <= level) << i;
        self.wanted.store(MATTERS.iter().enumerate().map(said).sum(), Relaxed);
    }

    /// Keeps a packet that ends as an example, if one is wanted.
    #[cold]
    pub(crate) fn end(&self, why: Why, direction: Direction, interface: IfIndex, m: &Mbuf) {
        let wanted = self.wanted.load(Relaxed);
        let Some(i) = MATTERS.iter().position(|matter| matter.why == Some(why)) else { return };
        let bit = 1 << i;
        if wanted & bit != 0 && self.wanted.fetch_and(!bit, Relaxed) & bit != 0 {
            let example = Example::of(direction, interface, m);
            self.kept.with(|kept| kept.examples[i] = example);
        }
    }

    /// What is to be said since it was last asked.
    pub(crate) fn remarks(&self, counters: &PfCounters) -> Vec<Remark> {
        let level = self.level();
        let mut remarks = Vec::new();
        self.kept.with(|kept| {
            for (i, matter) in MATTERS.iter().enumerate() {
                let total = (matter.counter)(counters).get();
                let times = total.wrapping_sub(std::mem::replace(&mut kept.counted[i], total));
                let example = kept.examples[i].take();
                if matter.level > level || times == 0 {
                    continue;
                }
                self.wanted.fetch_or(1 << i, Relaxed);
                remarks.push(Remark { level: matter.level, words: matter.words, times, example });
            }
        });
        remarks
    }
}
