//! `pfctl -s queue`: the text pfctl prints, byte for byte (`pfctl_qstats.c`, `pfctl_altq.c`).

use crate::{
    conf::{ClassConf, DEFAULT_PRIORITY, DEFAULT_QLIMIT, SchedulerKind, TreeConf},
    curve::Curve,
    ifq::IfqStats,
    queue::Counters,
};
use std::fmt::{self, Write};

/// How much to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Counters (`-v`).
    pub counters: bool,
    /// Queue ids (`-g`).
    pub ids: bool,
}

/// Samples that an average goes over at most.
const SAMPLES: u32 = 8;

/// Averages over the last few samples of a class, for `-vv`.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    samples: u32,
    last: Counters,
    packets: f64,
    bytes: f64,
}

impl Measured {
    /// Takes in another sample.
    pub fn sample(&mut self, now: Counters) {
        if self.samples > 0 {
            let old = f64::from(self.samples - 1);
            let n = f64::from(self.samples);
            let packets = now.sent.packets.saturating_sub(self.last.sent.packets) as f64;
            let bytes = now.sent.bytes.saturating_sub(self.last.sent.bytes) as f64;
            self.packets = (self.packets * old + packets) / n;
            self.bytes = (self.bytes * old + bytes) / n;
        }
        self.last = now;
        self.samples = (self.samples + 1).min(SAMPLES);
    }

    /// Packets and bits a second, from the second sample on.
    pub fn rates(&self, interval_secs: f64) -> Option<(f64, f64)> {
        (self.samples >= 2).then(|| (self.packets / interval_secs, 8.0 * self.bytes / interval_secs))
    }
}

/// A rate as pfctl prints it: unit b, Kb, Mb or Gb, two decimals if there are any.
pub fn rate_text(mut rate: f64) -> String {
    const UNITS: [&str; 4] = [" ", "K", "M", "G"];
    let mut unit = 0;
    while rate >= 1000.0 && unit + 1 < UNITS.len() {
        rate /= 1000.0;
        unit += 1;
    }
    let whole = ((rate * 100.0) as u64).is_multiple_of(100);
    if whole { format!("{}{}b", rate as u64, UNITS[unit]) } else { format!("{rate:.2}{}b", UNITS[unit]) }
}

/// Prints every queue of an interface, in the tree's order; `measured`, by class, adds the rates of `-vv`.
pub fn queues(
    out: &mut impl Write,
    stats: &IfqStats,
    detail: Detail,
    measured: &[Measured],
    interval_secs: f64,
) -> fmt::Result {
    for (class, (conf, counters)) in stats.conf.classes.iter().zip(&stats.counters).enumerate() {
        queue_line(out, &stats.conf, class, conf)?;
        if detail.counters {
            counter_lines(out, &stats.conf, conf, counters)?;
            if let Some((packets, bits)) = measured.get(class).and_then(|m| m.rates(interval_secs)) {
                writeln!(out, "  [ measured: {packets:7.1} packets/s, {}/s ]", rate_text(bits))?;
            }
        }
        if detail.ids {
            let (interface, bandwidth) = (&stats.conf.interface, rate_text(stats.conf.bandwidth as f64));
            writeln!(out, "  [ qid={} ifname={interface} ifbandwidth={bandwidth} ]", conf.qid)?;
        }
    }
    Ok(())
}

/// `queue NAME on IF bandwidth B priority P qlimit N SCHED( flags ) {children}`; a blank more a level.
fn queue_line(out: &mut impl Write, tree: &TreeConf, place: usize, class: &ClassConf) -> fmt::Result {
    let indent = usize::from(class.level);
    write!(out, "queue {:indent$}{} on {} ", "", class.name, tree.interface)?;
    if tree.scheduler.shares_bandwidth() {
        write!(out, "bandwidth {} ", rate_text(class.bandwidth as f64))?;
    }
    if class.priority != DEFAULT_PRIORITY {
        write!(out, "priority {} ", class.priority)?;
    }
    if class.qlimit != DEFAULT_QLIMIT {
        write!(out, "qlimit {} ", class.qlimit)?;
    }
    options(out, tree, class)?;
    let below = |c: &&ClassConf| c.parent.is_some_and(|p| usize::from(p.0) == place);
    let children: Vec<&str> = tree.classes.iter().filter(below).map(|c| c.name.as_str()).collect();
    if children.is_empty() { writeln!(out) } else { writeln!(out, "{{{}}}", children.join(", ")) }
}

/// `SCHED( flags curves ) `, if there are any.
fn options(out: &mut impl Write, tree: &TreeConf, class: &ClassConf) -> fmt::Result {
    let mut words = String::new();
    class.flags.names().for_each(|name| words.extend([" ", name]));
    let curves = &class.curves;
    let has_curves = match tree.scheduler {
        SchedulerKind::Hfsc => class.parent.is_some(),
        other => other == SchedulerKind::Fairq,
    };
    if has_curves {
        let own = !curves.linkshare.is_zero() && curves.linkshare != Curve::linear(class.bandwidth);
        for (name, curve, told) in [
            ("realtime", curves.realtime, !curves.realtime.is_zero()),
            ("linkshare", curves.linkshare, own),
            ("upperlimit", curves.upperlimit, !curves.upperlimit.is_zero()),
        ] {
            if told {
                words += &curve_text(name, curve);
            }
        }
    }
    if words.is_empty() { Ok(()) } else { write!(out, "{}({words} ) ", tree.scheduler.name()) }
}

/// ` realtime(1Mb 10 100Kb)` or ` realtime 1Mb`.
fn curve_text(name: &str, curve: Curve) -> String {
    let (m1, m2) = (rate_text(curve.m1 as f64), rate_text(curve.m2 as f64));
    if curve.d == 0 { format!(" {name} {m2}") } else { format!(" {name}({m1} {} {m2})", curve.d / 1_000_000) }
}

/// What a queue has counted.
pub fn counter_lines(out: &mut impl Write, tree: &TreeConf, class: &ClassConf, c: &Counters) -> fmt::Result {
    writeln!(
        out,
        "  [ pkts: {:10}  bytes: {:10}  dropped pkts: {:6} bytes: {:6} ]",
        c.sent.packets, c.sent.bytes, c.dropped.packets, c.dropped.bytes
    )?;
    write!(out, "  [ qlength: {:3}/{:3} ", c.queued.packets, class.qlimit)?;
    if tree.scheduler == SchedulerKind::Cbq {
        write!(out, " borrows: {:6}  suspends: {:6} ", c.borrows, c.suspends)?;
    }
    writeln!(out, "]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Tally;

    #[test]
    fn rates_are_printed_as_pfctl_prints_them() {
        for (rate, text) in [
            (0.0, "0 b"),
            (500.0, "500 b"),
            (999.5, "999.50 b"),
            (1000.0, "1Kb"),
            (100_000.0, "100Kb"),
            (4_500_000.0, "4.50Mb"),
            (10e9, "10Gb"),
            (2.5e12, "2500Gb"),
        ] {
            assert_eq!(rate_text(rate), text);
        }
    }

    #[test]
    fn an_average_begins_with_the_second_sample_and_follows_at_an_eighth() {
        let sample = |n: u64| Counters { sent: Tally { packets: n, bytes: n * 100 }, ..Counters::default() };
        let mut m = Measured::default();
        m.sample(sample(1000));
        assert_eq!(m.rates(5.0), None);
        m.sample(sample(1050));
        assert_eq!(m.rates(5.0), Some((10.0, 8000.0)));
        for n in 2..100 {
            m.sample(sample(1000 + 50 * n));
        }
        assert_eq!(m.rates(5.0), Some((10.0, 8000.0)));
    }
}
