//! The lines of ALTQ back to text.

use std::fmt::Write;

use crate::conf::{AltqSpec, Bandwidth, QueueOptions, QueueSpec, ServiceCurve};

/// Packets in a queue unless it says, which is not printed.
const DEFAULT_QLIMIT: u32 = 50;

/// `altq on em0 priq bandwidth 100Kb tbrsize 1500 queue { a b }`
pub fn altq(spec: &AltqSpec) -> String {
    let mut out =
        format!("altq on {} {}{} ", spec.interface, spec.scheduler.keyword(), options(&spec.options));
    match spec.bandwidth.or(spec.speed.map(Bandwidth::Bits)) {
        Some(bw) if bw != Bandwidth::Percent(100) => {
            let _ = write!(out, "bandwidth {} ", bandwidth(bw));
        }
        _ => {}
    }
    if let Some(limit) = spec.qlimit.filter(|&n| n != DEFAULT_QLIMIT) {
        let _ = write!(out, "qlimit {limit} ");
    }
    let _ = write!(out, "tbrsize {} ", spec.bucket());
    for (octets, word) in [(spec.overhead, "overhead"), (spec.mpu, "mpu")] {
        if let Some(octets) = octets {
            let _ = write!(out, "{word} {octets} ");
        }
    }
    if spec.atm {
        out.push_str("atm ");
    }
    if !spec.queues.is_empty() {
        let _ = write!(out, "queue {{ {} }}", spec.queues.join(" "));
    }
    out
}

/// `queue a priority 4 priq( default ) `
pub fn queue(spec: &QueueSpec) -> String {
    let mut out = format!("queue {} ", spec.name);
    if let Some(on) = &spec.interface {
        let _ = write!(out, "on {on} ");
    }
    match spec.bandwidth {
        Some(bw) if bw != Bandwidth::Percent(100) => {
            let _ = write!(out, "bandwidth {} ", bandwidth(bw));
        }
        _ => {}
    }
    if let Some(priority) = spec.priority.filter(|&p| p != 1) {
        let _ = write!(out, "priority {priority} ");
    }
    if let Some(limit) = spec.qlimit.filter(|&n| n != DEFAULT_QLIMIT) {
        let _ = write!(out, "qlimit {limit} ");
    }
    if let Some(scheduler) = spec.scheduler {
        let _ = write!(out, "{}{} ", scheduler.keyword(), options(&spec.options));
    }
    if !spec.children.is_empty() {
        let _ = write!(out, "{{ {} }}", spec.children.join(", "));
    }
    out
}

/// A rate with the largest unit that leaves at least one before the point.
pub fn bandwidth(bandwidth: Bandwidth) -> String {
    let bits = match bandwidth {
        Bandwidth::Percent(p) => return format!("{p}%"),
        Bandwidth::Bits(bits) => bits,
    };
    let (factor, unit) = match bits {
        1_000_000_000.. => (1e9, "Gb"),
        1_000_000.. => (1e6, "Mb"),
        1000.. => (1e3, "Kb"),
        _ => (1.0, "b"),
    };
    let value = bits as f64 / factor;
    if value.fract() == 0.0 { format!("{value:.0}{unit}") } else { format!("{value:.2}{unit}") }
}

fn options(o: &QueueOptions) -> String {
    let mut words: Vec<String> = Vec::new();
    let flags = [
        (o.red, "red"),
        (o.ecn, "ecn"),
        (o.rio, "rio"),
        (o.codel, "codel"),
        (o.fq_codel, "fq_codel"),
        (o.cake, "cake"),
        (o.blue, "blue"),
        (o.cleardscp, "cleardscp"),
        (o.flowvalve, "flowvalve"),
        (o.borrow, "borrow"),
        (o.efficient, "efficient"),
        (o.default, "default"),
    ];
    words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, word)| (*word).to_owned()));
    let curves = [("realtime", o.realtime), ("linkshare", o.linkshare), ("upperlimit", o.upperlimit)];
    words.extend(curves.iter().filter_map(|(word, c)| c.map(|c| format!("{word} {}", curve(c)))));
    let numbers = [("buckets", o.buckets), ("target", o.target), ("interval", o.interval)];
    words.extend(numbers.iter().filter_map(|(word, n)| n.map(|n| format!("{word} {n}"))));
    words.extend(o.hogs.map(|bw| format!("hogs {}", bandwidth(bw))));
    if words.is_empty() { String::new() } else { format!("( {} )", words.join(" ")) }
}

fn curve(curve: ServiceCurve) -> String {
    match curve.first {
        None => bandwidth(curve.second),
        Some((m1, d)) => format!("({} {d} {})", bandwidth(m1), bandwidth(curve.second)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_the_largest_unit_and_no_decimals_without_need() {
        for (bits, text) in [(64, "64b"), (100_000, "100Kb"), (4_500_000, "4.50Mb"), (2_000_000_000, "2Gb")] {
            assert_eq!(bandwidth(Bandwidth::Bits(bits)), text);
        }
    }
}
