//! Grammar of ALTQ's lines, for all schedulers. pf only reads them; which of them have an engine is the router's to say.
//!
//! ```text
//! altq on IF SCHED[(opts)] [bandwidth BW] [qlimit N] [tbrsize N] [overhead N] [mpu N] [atm] queue NAME|{ list }
//! queue NAME [on IF] [bandwidth BW] [priority N] [qlimit N] [SCHED(opts)] [{ children }]
//! ```

use super::{
    ast::At,
    cursor::{Cursor, parse_number},
    error::{Fault, Parsed, Pos},
};
use crate::env::Environment;

/// A scheduler of ALTQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// Class-based queueing.
    Cbq,
    /// Strict priorities.
    Priq,
    /// Hierarchical fair service curves.
    Hfsc,
    /// Fair queueing by flows.
    Fairq,
    /// Controlled delay, for a whole interface.
    Codel,
}

impl Scheduler {
    /// All, with the keyword that pf.conf uses.
    pub const ALL: [(Scheduler, &'static str); 5] = [
        (Scheduler::Cbq, "cbq"),
        (Scheduler::Priq, "priq"),
        (Scheduler::Hfsc, "hfsc"),
        (Scheduler::Fairq, "fairq"),
        (Scheduler::Codel, "codel"),
    ];

    /// The keyword of pf.conf.
    pub const fn keyword(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    fn of(word: &str) -> Option<Scheduler> {
        // pfctl reads `codelq` and prints `codel`.
        if word == "codelq" {
            return Some(Scheduler::Codel);
        }
        Self::ALL.iter().find(|(_, k)| *k == word).map(|&(s, _)| s)
    }

    /// The highest priority of a queue.
    pub const fn max_priority(self) -> u8 {
        match self {
            Scheduler::Priq => 15,
            _ => 7,
        }
    }
}

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bandwidth {
    /// Bits a second.
    Bits(u64),
    /// Per cent of the interface or of the parent.
    Percent(u32),
}

/// A two-piece linear service curve of HFSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceCurve {
    /// Slope of the first piece, and how long it lasts in milliseconds; without, the curve has one piece.
    pub first: Option<(Bandwidth, u32)>,
    /// Slope of the second piece.
    pub second: Bandwidth,
}

/// The options in a scheduler's parentheses.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct QueueOptions {
    /// `default`: packets that no rule sends elsewhere.
    pub default: bool,
    /// `borrow` (CBQ).
    pub borrow: bool,
    /// `red`.
    pub red: bool,
    /// `ecn`; implies `red` where nothing else drops early.
    pub ecn: bool,
    /// `rio`.
    pub rio: bool,
    /// `codel`.
    pub codel: bool,
    /// `fq_codel`: flows apart, each with CoDel (RFC 8290).
    pub fq_codel: bool,
    /// `cake`: as `fq_codel`, and hosts get equal shares.
    pub cake: bool,
    /// `blue`.
    pub blue: bool,
    /// `cleardscp`.
    pub cleardscp: bool,
    /// `flowvalve` (CBQ).
    pub flowvalve: bool,
    /// `efficient` (CBQ).
    pub efficient: bool,
    /// `realtime` (HFSC).
    pub realtime: Option<ServiceCurve>,
    /// `linkshare` (HFSC, FAIRQ).
    pub linkshare: Option<ServiceCurve>,
    /// `upperlimit` (HFSC).
    pub upperlimit: Option<ServiceCurve>,
    /// `buckets n` (FAIRQ).
    pub buckets: Option<u32>,
    /// `hogs bw` (FAIRQ).
    pub hogs: Option<Bandwidth>,
    /// `target ms` (codelq).
    pub target: Option<u32>,
    /// `interval ms` (codelq).
    pub interval: Option<u32>,
}

/// `altq on IF`: the scheduler of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AltqSpec {
    /// The interface.
    pub interface: String,
    /// Its scheduler.
    pub scheduler: Scheduler,
    /// The scheduler's options.
    pub options: QueueOptions,
    /// Rate of the interface; none is the interface's own speed.
    pub bandwidth: Option<Bandwidth>,
    /// Packets in a queue, for those that do not say.
    pub qlimit: Option<u32>,
    /// Depth of the token bucket in bytes; by the rate if it does not say: see [`AltqSpec::bucket`].
    pub tbrsize: Option<u32>,
    /// `overhead n`: octets that the link adds to each frame.
    pub overhead: Option<u16>,
    /// `mpu n`: octets that a frame takes on the link at least.
    pub mpu: Option<u16>,
    /// `atm`: frames go in cells of 53 octets.
    pub atm: bool,
    /// MTU of the interface, for the default depth.
    pub mtu: u16,
    /// Speed of the interface in bits a second, if it is known.
    pub speed: Option<u64>,
    /// The root's queues.
    pub queues: Vec<String>,
    /// Where it stood.
    pub at: Pos,
}

impl AltqSpec {
    /// Rate in bits a second, if it is known.
    pub fn rate(&self) -> Option<u64> {
        match self.bandwidth {
            Some(Bandwidth::Bits(bits)) => Some(bits),
            Some(Bandwidth::Percent(p)) => self.speed.map(|s| s / 100 * u64::from(p)),
            None => self.speed,
        }
    }

    /// Depth of the token bucket in bytes: as said, or by the rate as pfctl has it.
    pub fn bucket(&self) -> u32 {
        let packets = match self.rate().unwrap_or(u64::MAX) {
            0..=1_000_000 => 1,
            1_000_001..=10_000_000 => 4,
            10_000_001..=200_000_000 => 8,
            200_000_001..=2_500_000_000 => 24,
            _ => 128,
        };
        self.tbrsize.unwrap_or(u32::from(self.mtu) * packets)
    }
}

/// `queue NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// Its name.
    pub name: String,
    /// `on IF`; none is every interface whose altq has it.
    pub interface: Option<String>,
    /// Rate; none is all of the parent's.
    pub bandwidth: Option<Bandwidth>,
    /// Priority, 1 unless it says.
    pub priority: Option<u8>,
    /// Packets.
    pub qlimit: Option<u32>,
    /// Scheduler, if it says.
    pub scheduler: Option<Scheduler>,
    /// Options in the scheduler's parentheses.
    pub options: QueueOptions,
    /// Queues below it.
    pub children: Vec<String>,
    /// Where it stood.
    pub at: Pos,
}

pub(crate) fn altq(c: &mut Cursor, env: &Environment) -> Parsed<Vec<At<AltqSpec>>> {
    let at = c.at();
    c.expect("altq")?;
    c.expect("on")?;
    let interfaces = c.list(|c| {
        if c.is_sym("!") {
            return Err(Fault::new(c.at(), "altq on ! <interface> is not supported"));
        }
        Ok(c.string("the name of an interface")?.value.to_owned())
    })?;
    let word = c.word("a scheduler")?;
    let scheduler = scheduler_of(word)?;
    let options = if c.is_sym("(") { options(c)? } else { QueueOptions::default() };
    let mut spec = AltqSpec {
        interface: String::new(),
        scheduler,
        options,
        bandwidth: None,
        qlimit: None,
        tbrsize: None,
        overhead: None,
        mpu: None,
        atm: false,
        mtu: 1500,
        speed: None,
        queues: Vec::new(),
        at,
    };
    while !c.is_done() {
        altq_option(c, &mut spec)?;
    }
    if spec.queues.is_empty() && scheduler != Scheduler::Codel {
        return Err(c.expected("`queue` and the names of the root's queues"));
    }
    Ok(interfaces
        .into_iter()
        .map(|interface| {
            let known = env.interface(&interface);
            let (mtu, speed) = known.map_or((1500, None), |i| (i.mtu, i.bandwidth));
            At::new(at, AltqSpec { interface, mtu, speed, ..spec.clone() })
        })
        .collect())
}

fn altq_option(c: &mut Cursor, spec: &mut AltqSpec) -> Parsed<()> {
    if c.accept("bandwidth") {
        spec.bandwidth = Some(bandwidth(c)?);
    } else if c.accept("qlimit") {
        spec.qlimit = Some(positive(c, "a number of packets")?);
    } else if c.accept("tbrsize") {
        spec.tbrsize = Some(positive(c, "a number of bytes")?);
    } else if c.accept("overhead") {
        spec.overhead = Some(c.number::<u16>("a number of octets")?.value);
    } else if c.accept("mpu") {
        spec.mpu = Some(c.number::<u16>("a number of octets")?.value);
    } else if c.accept("atm") {
        spec.atm = true;
    } else if c.accept("queue") {
        spec.queues = c.list(queue_name)?;
    } else {
        return Err(c.expected("bandwidth, qlimit, tbrsize, overhead, mpu, atm or queue"));
    }
    Ok(())
}

fn queue_name(c: &mut Cursor) -> Parsed<String> {
    Ok(c.string("the name of a queue")?.value.to_owned())
}

pub(crate) fn queue(c: &mut Cursor) -> Parsed<At<QueueSpec>> {
    let at = c.at();
    c.expect("queue")?;
    let mut spec = QueueSpec {
        name: queue_name(c)?,
        interface: None,
        bandwidth: None,
        priority: None,
        qlimit: None,
        scheduler: None,
        options: QueueOptions::default(),
        children: Vec::new(),
        at,
    };
    if c.accept("on") {
        spec.interface = Some(c.string("the name of an interface")?.value.to_owned());
    }
    while !c.is_done() {
        queue_option(c, &mut spec)?;
    }
    Ok(At::new(at, spec))
}

fn queue_option(c: &mut Cursor, spec: &mut QueueSpec) -> Parsed<()> {
    if c.is_sym("{") {
        spec.children = c.list(queue_name)?;
    } else if c.accept("bandwidth") {
        spec.bandwidth = Some(bandwidth(c)?);
    } else if c.accept("qlimit") {
        spec.qlimit = Some(positive(c, "a number of packets")?);
    } else if c.accept("priority") {
        let priority = c.number::<u8>("a priority")?;
        if priority.value > Scheduler::Priq.max_priority() {
            return Err(Fault::new(priority.at, format!("priority out of range: {}", priority.value))
                .help("priq has 0 to 15, the others 0 to 7"));
        }
        spec.priority = Some(priority.value);
    } else {
        let word = c.word("bandwidth, priority, qlimit, a scheduler or `{`")?;
        spec.scheduler = Some(scheduler_of(word)?);
        if c.is_sym("(") {
            spec.options = options(c)?;
        }
    }
    Ok(())
}

fn scheduler_of(word: At<&str>) -> Parsed<Scheduler> {
    Scheduler::of(word.value).ok_or_else(|| {
        Fault::new(word.at, format!("unknown scheduler `{}`", word.value))
            .help("there are cbq, priq, hfsc, fairq and codel")
    })
}

fn positive(c: &mut Cursor, what: &str) -> Parsed<u32> {
    let number = c.number::<u32>(what)?;
    if number.value == 0 {
        Err(Fault::new(number.at, format!("{what} must be above 0")))
    } else {
        Ok(number.value)
    }
}

/// `100Kb`, `1.5Mb`, `20%`, `64000`.
pub(crate) fn bandwidth(c: &mut Cursor) -> Parsed<Bandwidth> {
    let word = c.string("a bandwidth")?;
    read_bandwidth(word.value).ok_or_else(|| {
        Fault::new(word.at, format!("invalid bandwidth `{}`", word.value))
            .help("as in 64000, 100Kb, 10Mb, 1Gb or 20%")
    })
}

fn read_bandwidth(word: &str) -> Option<Bandwidth> {
    if let Some(percent) = word.strip_suffix('%') {
        let percent: u32 = percent.parse().ok()?;
        return (1..=100).contains(&percent).then_some(Bandwidth::Percent(percent));
    }
    if let Some(bits) = parse_number(word) {
        return Some(Bandwidth::Bits(bits));
    }
    let (number, factor) = [("Kb", 1e3), ("Mb", 1e6), ("Gb", 1e9), ("b", 1.0)]
        .iter()
        .find_map(|(suffix, factor)| Some((word.strip_suffix(suffix)?, *factor)))?;
    let number: f64 = number.parse().ok()?;
    (number.is_finite() && number >= 0.0 && number * factor < 1e15)
        .then_some(Bandwidth::Bits((number * factor) as u64))
}

fn options(c: &mut Cursor) -> Parsed<QueueOptions> {
    let mut o = QueueOptions::default();
    c.parenthesised(|c| {
        let word = c.word("an option of the scheduler")?;
        match word.value {
            "default" => o.default = true,
            "borrow" => o.borrow = true,
            "red" => o.red = true,
            "ecn" => o.ecn = true,
            "rio" => o.rio = true,
            "codel" => o.codel = true,
            "fq_codel" => o.fq_codel = true,
            "cake" => o.cake = true,
            "blue" => o.blue = true,
            "cleardscp" => o.cleardscp = true,
            "flowvalve" => o.flowvalve = true,
            "efficient" => o.efficient = true,
            "realtime" => set_once(word.at, "realtime", &mut o.realtime, curve(c)?)?,
            "linkshare" => set_once(word.at, "linkshare", &mut o.linkshare, curve(c)?)?,
            "upperlimit" => set_once(word.at, "upperlimit", &mut o.upperlimit, curve(c)?)?,
            "buckets" => o.buckets = Some(buckets(c)?),
            "hogs" => o.hogs = Some(bandwidth(c)?),
            "target" => o.target = Some(positive(c, "milliseconds")?),
            "interval" => o.interval = Some(positive(c, "milliseconds")?),
            other => return Err(Fault::new(word.at, format!("unknown option `{other}` of a scheduler"))),
        }
        Ok(())
    })?;
    o.red |= o.ecn && !(o.rio || o.codel || o.fq_codel || o.cake || o.blue);
    Ok(o)
}

fn set_once(at: Pos, name: &str, slot: &mut Option<ServiceCurve>, curve: ServiceCurve) -> Parsed<()> {
    match slot.replace(curve) {
        None => Ok(()),
        Some(_) => Err(Fault::new(at, format!("`{name}` is given twice"))),
    }
}

fn buckets(c: &mut Cursor) -> Parsed<u32> {
    let number = c.number::<u32>("a number of buckets")?;
    if number.value.is_power_of_two() && number.value <= 2048 {
        return Ok(number.value);
    }
    Err(Fault::new(number.at, format!("{} buckets are not possible", number.value))
        .help("a power of two, at most 2048"))
}

/// `bw` or `(m1 d m2)`.
fn curve(c: &mut Cursor) -> Parsed<ServiceCurve> {
    if !c.accept_sym("(") {
        return Ok(ServiceCurve { first: None, second: bandwidth(c)? });
    }
    let m1 = bandwidth(c)?;
    c.accept_sym(",");
    let d = c.number::<u32>("milliseconds")?.value;
    c.accept_sym(",");
    let m2 = bandwidth(c)?;
    c.expect_sym(")")?;
    Ok(ServiceCurve { first: Some((m1, d)), second: m2 })
}
