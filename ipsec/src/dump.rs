//! What `setkey -D` and `-DP` print, in setkey's layout, and the same as plain values for `--json`.
//!
//! Where setkey prints the key, here stands its length. PF_KEY's `pid` and `refcnt` mean nothing here and are 0.
//! Reports are taken by the control thread; taking one locks each SA twice, for nanoseconds.

use crate::{
    natt::Encap,
    sa::{Lifetime, SaLevel, Status},
    sad::Sad,
    selector::{Addresses, Ports, Upper},
    spd::{Action, Direction, Level, Policy, Request, Spd},
    transform::Suite,
};
use kern::{
    lock::{Before, Held},
    time::Instant,
};
use std::{
    fmt::{self, Write},
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

/// An SA for a report.
#[derive(Clone, Debug)]
pub struct SaReport {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// How it goes in UDP, if it does.
    pub encap: Option<Encap>,
    /// Where the peer is, if that is elsewhere than configured.
    pub moved: Option<SocketAddr>,
    /// `esp`.
    pub protocol: &'static str,
    /// Mode.
    pub mode: &'static str,
    /// In BEET mode, source and destination of the packets it is for.
    pub inner: Option<(IpAddr, IpAddr)>,
    /// SPI.
    pub spi: u32,
    /// What binds it to policies.
    pub reqid: u32,
    /// The worker that alone sends by it.
    pub worker: Option<u16>,
    /// Algorithms as setkey tells them: `E`, `A` or `C`, the word, and bits of the key.
    pub algorithms: Vec<(char, &'static str, usize)>,
    /// The algorithm with its key length.
    pub suite: String,
    /// Bits of the key, salt included.
    pub key_bits: usize,
    /// Who does the arithmetic.
    pub engine: &'static str,
    /// Extended sequence numbers.
    pub esn: bool,
    /// The replay window in packets.
    pub replay: u32,
    /// Limits: soft, then hard.
    pub lifetimes: [Lifetime; 2],
    /// What moves.
    pub status: Status,
}

/// A policy for a report.
#[derive(Clone, Debug)]
pub struct PolicyReport {
    /// The policy.
    pub policy: Policy,
    /// SPIs of the SAs it has now.
    pub spis: Vec<u32>,
}

/// All SAs, the oldest first.
pub fn sas(sad: &Sad, held: &mut Held<'_, impl Before<SaLevel>>) -> Vec<SaReport> {
    sad.iter()
        .map(|sa| {
            let config = sa.config();
            SaReport {
                src: config.src,
                dst: config.dst,
                encap: config.encap,
                moved: sa.moved_peer(held),
                protocol: if config.encap.is_some() { "esp-udp" } else { config.protocol.name() },
                mode: config.mode.name(),
                inner: config.inner,
                spi: config.spi.0,
                reqid: config.reqid,
                worker: config.worker,
                algorithms: algorithms(config.suite),
                suite: config.suite.to_string(),
                key_bits: sa.key_bits(),
                engine: sa.engine().name(),
                esn: config.esn,
                replay: config.replay,
                lifetimes: [config.soft, config.hard],
                status: sa.status(held),
            }
        })
        .collect()
}

/// What setkey calls a suite's parts.
fn algorithms(suite: Suite) -> Vec<(char, &'static str, usize)> {
    let auth = suite.auth().map(|auth| ('A', auth.setkey_name(), auth.key_len() * 8));
    let first = match suite {
        Suite::Ah(_) => None,
        Suite::Deflate => Some(('C', suite.setkey_name(), 0)),
        _ => Some(('E', suite.setkey_name(), (suite.key_len() + suite.salt_len()) * 8)),
    };
    first.into_iter().chain(auth).collect()
}

/// All policies, in order.
pub fn policies(spd: &Spd) -> Vec<PolicyReport> {
    spd.with_sas()
        .map(|(policy, sas)| PolicyReport {
            policy: policy.clone(),
            spis: sas.iter().map(|sa| sa.config().spi.0).collect(),
        })
        .collect()
}

/// What `setkey -D` prints.
pub fn sa_text(reports: &[SaReport], now: Instant) -> String {
    if reports.is_empty() {
        return "No SAD entries.\n".to_owned();
    }
    let mut text = String::new();
    for (left, report) in (0..reports.len()).rev().zip(reports) {
        // Writing to a string does not fail.
        let _ = write_sa(&mut text, report, left, now);
    }
    text
}

fn write_sa(out: &mut String, r: &SaReport, left: usize, now: Instant) -> fmt::Result {
    let s = &r.status;
    let used = if s.sent.packets > 0 { s.sent } else { s.received };
    let [soft, hard] = r.lifetimes;
    let wall = |at: Instant| s.made_on + at.since(s.made);
    let age = now.since(s.made).as_secs();
    let n = |limit: Option<u64>| limit.unwrap_or(0);
    match r.encap {
        Some(udp) => writeln!(out, "{}[{}] {}[{}] ", r.src, udp.src_port, r.dst, udp.dst_port)?,
        None => writeln!(out, "{} {} ", r.src, r.dst)?,
    }
    writeln!(
        out,
        "\t{} mode={} spi={}({:#010x}) reqid={}({:#010x})",
        r.protocol, r.mode, r.spi, r.spi, r.reqid, r.reqid
    )?;
    if let Some((src, dst)) = r.inner {
        writeln!(out, "\tinner {src} {dst}")?;
    }
    if let Some(worker) = r.worker {
        writeln!(out, "\tpcpu-num {worker}")?;
    }
    for (name, original) in ["OAI", "OAR"].into_iter().zip(r.encap.map_or([None; 2], |udp| udp.original)) {
        if let Some(original) = original {
            writeln!(out, "\tNAT {name}={original}")?;
        }
    }
    if let Some(peer) = r.moved {
        writeln!(out, "\tNAT peer={}[{}]", peer.ip(), peer.port())?;
    }
    for (kind, name, bits) in &r.algorithms {
        writeln!(out, "\t{kind}: {name}  ({bits} bits)")?;
    }
    let (seq, flags) = (s.sequence.max(s.top), if r.esn { "0x00000400" } else { "0x00000000" });
    writeln!(out, "\tseq={seq:#010x} replay={} flags={flags} state={}", r.replay / 8, s.life.name())?;
    writeln!(out, "\tcreated: {}\tcurrent: {}", stamp(s.made_on), stamp(wall(now)))?;
    writeln!(out, "\tdiff: {age}(s)\thard: {}(s)\tsoft: {}(s)", n(hard.seconds), n(soft.seconds))?;
    let last = if used.packets == 0 { " ".repeat(20) } else { stamp(wall(used.last)) };
    writeln!(out, "\tlast: {last}\thard: 0(s)\tsoft: 0(s)")?;
    writeln!(
        out,
        "\tcurrent: {}(bytes)\thard: {}(bytes)\tsoft: {}(bytes)",
        used.bytes,
        n(hard.bytes),
        n(soft.bytes)
    )?;
    writeln!(out, "\tallocated: {}\thard: {}\tsoft: {}", used.packets, n(hard.packets), n(soft.packets))?;
    writeln!(out, "\tsadb_seq={left} pid=0 refcnt=0")
}

/// What `setkey -DP` prints.
pub fn policy_text(reports: &[PolicyReport]) -> String {
    if reports.is_empty() {
        return "No SPD entries.\n".to_owned();
    }
    let mut text = String::new();
    for (left, report) in (0..reports.len()).rev().zip(reports) {
        let _ = write_policy(&mut text, &report.policy, left);
    }
    text
}

fn write_policy(out: &mut String, policy: &Policy, left: usize) -> fmt::Result {
    let selector = policy.selector;
    let (src_port, dst_port) = match selector.upper {
        Upper::Proto { src_port, dst_port, .. } | Upper::Ports { src_port, dst_port } => (src_port, dst_port),
        Upper::Any | Upper::Icmp { .. } => (None, None),
    };
    let plain = matches!(selector.upper, Upper::Icmp { .. });
    write_range(out, selector.src, src_port, plain)?;
    write_range(out, selector.dst, dst_port, plain)?;
    match selector.upper {
        Upper::Any | Upper::Ports { .. } => writeln!(out, "any")?,
        Upper::Proto { proto, .. } => match proto.name() {
            Some(name) => writeln!(out, "{name}")?,
            None => writeln!(out, "{}", proto.0)?,
        },
        Upper::Icmp { proto, kind, code } => {
            write!(out, "{} {kind}", proto.name().unwrap_or("icmp"))?;
            match code {
                Some(code) => writeln!(out, ",{code}")?,
                None => writeln!(out)?,
            }
        }
    }
    let direction = match policy.direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    writeln!(out, "\t{direction} {}", treatment(&policy.action))?;
    writeln!(out, "\tspid={} seq={left} pid=0", policy.id)?;
    writeln!(out, "\trefcnt=1")
}

fn write_range(out: &mut String, addresses: Addresses, port: Option<Ports>, plain: bool) -> fmt::Result {
    match port {
        _ if plain => write!(out, "{addresses} "),
        Some(port) => write!(out, "{addresses}[{port}] "),
        None => write!(out, "{addresses}[any] "),
    }
}

/// A policy's action as a file would say it.
fn treatment(action: &Action) -> String {
    match action {
        Action::Bypass => "none".to_owned(),
        Action::Discard => "discard".to_owned(),
        Action::Protect(requests) => requests.iter().fold("ipsec".to_owned(), |mut text, request| {
            // Writing to a string does not fail.
            let _ = write!(text, "\n\t{}", asked(request));
            text
        }),
    }
}

/// `protocol/mode/src-dst/level`.
fn asked(request: &Request) -> String {
    let level = match request.level {
        Level::Default => "default".to_owned(),
        Level::Use => "use".to_owned(),
        Level::Require => "require".to_owned(),
        Level::Unique(id) => format!("unique:{id}"),
    };
    let [src_port, dst_port] =
        request.ports.map(|port| port.map_or(String::new(), |port| format!("[{port}]")));
    let ends = request.ends.map(|(src, dst)| format!("{src}{src_port}-{dst}{dst_port}")).unwrap_or_default();
    format!("{}/{}/{ends}/{level}", request.protocol.name(), request.mode.name())
}

/// `Jun  4 12:30:01 2010`, in UTC, as wide as ctime(3) makes it.
fn stamp(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, of_day) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Days since 1970 to a date, by eras of 400 years that begin in March (Howard Hinnant's algorithm).
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let shifted = (5 * doy + 2) / 153;
    let day = doy - (153 * shifted + 2) / 5 + 1;
    let month = (shifted + 2) % 12;
    let year = yoe + era * 400 + i64::from(month < 2);
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let name = names[month as usize];
    format!("{name} {day:2} {:02}:{:02}:{:02} {year}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stamp_is_that_of_ctime_in_utc() {
        let at = |seconds| stamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "Jan  1 00:00:00 1970");
        assert_eq!(at(951_782_400), "Feb 29 00:00:00 2000");
        assert_eq!(at(1_363_046_399), "Mar 11 23:59:59 2013");
        assert_eq!(at(4_102_444_800), "Jan  1 00:00:00 2100");
        assert_eq!(at(1_735_689_599), "Dec 31 23:59:59 2024");
    }
}
