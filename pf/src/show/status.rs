//! `pfctl -s info`: how pf stands as a whole.

use std::fmt::{self, Write};

use kern::counter::{Counter, CounterSet};

use crate::{
    conf::{Reassemble, Syncookies},
    counters::PfCounters,
    debug::Level,
    log_interface::InterfaceStats,
    pf::Pf,
    ruleset::Ruleset,
    state::cookie::CookieInfo,
};

/// `pfctl -s info`.
#[derive(Clone, Debug)]
pub struct Info {
    /// Whether pf decides anything.
    pub enabled: bool,
    /// Seconds since it was enabled.
    pub since: u64,
    /// How much pf says.
    pub debug: Level,
    /// Whose the states are that are made now (`set hostid`).
    pub host_id: u32,
    /// [`Ruleset::checksum`]; 0 without rules.
    pub checksum: u128,
    /// `set loginterface`.
    pub interface: Option<InterfaceStats>,
    /// States there are.
    pub states: u32,
    /// States there may be.
    pub limit: u32,
    /// Source nodes there are.
    pub sources: u32,
    /// `set syncookies`.
    pub syncookies: (Syncookies, CookieInfo),
    /// `set reassemble`.
    pub reassemble: Option<Reassemble>,
    /// All counters.
    pub counters: PfCounters,
}

/// The present figures of a pf with these rules that was enabled `since` seconds ago, if it is.
pub fn info(pf: &Pf, rules: Option<&Ruleset>, since: Option<u64>) -> Info {
    let options = rules.map(|rules| &rules.conf().options);
    let when = options.map(|options| options.syncookies).unwrap_or_default();
    Info {
        enabled: since.is_some(),
        since: since.unwrap_or(0),
        debug: pf.debug_level(),
        host_id: pf.states().creator(),
        checksum: rules.map_or(0, Ruleset::checksum),
        interface: rules.and_then(Ruleset::interface_stats),
        states: pf.states().count(),
        limit: pf.states().limit(),
        sources: pf.source_count(),
        syncookies: (when, pf.states().cookies.info()),
        reassemble: options.and_then(|options| options.reassemble),
        counters: pf.counters_since_cleared(),
    }
}

/// Of what cannot happen here.
static NEVER: Counter = Counter::new();

impl Info {
    /// The block that pfctl prints; `verbose` is how often `-v` was said.
    pub fn text(&self, verbose: u8) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out, verbose);
        out
    }

    fn write(&self, out: &mut String, verbose: u8) -> fmt::Result {
        self.write_head(out, verbose)?;
        let c = &self.counters;
        writeln!(out, "{:<27} {:>14} {:>16}", "State Table", "Total", "Rate")?;
        let operations = [("searches", &c.searches), ("inserts", &c.inserts), ("removals", &c.removals)];
        self.write_table(out, self.states, operations)?;
        if verbose > 0 {
            writeln!(out, "Source Tracking Table")?;
            let operations =
                [("searches", &c.src_searches), ("inserts", &c.src_inserts), ("removals", &c.src_removals)];
            self.write_table(out, self.sources, operations)?;
        }
        writeln!(out, "Counters")?;
        self.write_counters(out, &self.reasons())?;
        if verbose > 0 {
            writeln!(out, "Limit Counters")?;
            self.write_counters(out, &self.limits())?;
            self.write_cookies(out, verbose)?;
            let reassemble = if self.reassemble.is_some() { "yes" } else { "no" };
            let no_df = if self.reassemble.is_some_and(|r| r.no_df) { "no-df" } else { "" };
            writeln!(out, "Reassemble {reassemble:>24} {no_df}")?;
        }
        Ok(())
    }

    fn write_head(&self, out: &mut String, verbose: u8) -> fmt::Result {
        let status = if self.enabled {
            let (days, rest) = (self.since / 86_400, self.since % 86_400);
            let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
            format!("Status: Enabled for {days} days {clock}")
        } else {
            "Status: Disabled".to_owned()
        };
        writeln!(out, "{status:<44}{:>15}\n", format!("Debug: {}", self.debug.title()))?;
        if verbose > 0 {
            writeln!(out, "Hostid:   0x{:08x}", self.host_id)?;
            writeln!(out, "Checksum: 0x{:032x}\n", self.checksum)?;
        }
        self.interface.as_ref().map_or(Ok(()), |interface| interface.write(out))
    }

    fn write_table(&self, out: &mut String, entries: u32, operations: [(&str, &Counter); 3]) -> fmt::Result {
        writeln!(out, "  {:<25} {entries:>14} {:>14}", "current entries", "")?;
        self.write_counters(out, &operations)
    }

    /// Why packets were looked at by rules or dropped, in pf's order, in which a packet's log has the reason's number.
    fn reasons(&self) -> [(&'static str, &Counter); 18] {
        let c = &self.counters;
        [
            ("match", &c.matched),
            // Headers are read where they lie.
            ("bad-offset", &NEVER),
            ("fragment", &c.fragment),
            ("short", &c.short),
            ("normalize", &c.normalize),
            // What pf needs for a packet it has; where that has an end, a limit says so.
            ("memory", &NEVER),
            ("bad-timestamp", &c.bad_timestamp),
            // The queue of packets that come in is not pf's.
            ("congestion", &NEVER),
            ("ip-option", &c.ip_option),
            // Checksums of transport are the receiver's business.
            ("proto-cksum", &NEVER),
            ("state-mismatch", &c.state_mismatch),
            ("state-insert", &c.state_insert),
            ("state-limit", &c.state_limit),
            ("src-limit", &c.src_limit),
            ("synproxy", &c.synproxy),
            ("map-failed", &c.translate),
            // FreeBSD drops these without counting; the name is OpenBSD's.
            ("no-route", &c.no_route),
            // FreeBSD keeps these without a bound.
            ("endpoint-limit", &c.endpoint_limit),
        ]
    }

    /// What limits have refused, or have done about it.
    fn limits(&self) -> [(&'static str, &Counter); 10] {
        let c = &self.counters;
        [
            ("max states per rule", &c.max_states),
            ("max-src-states", &c.max_src_states),
            ("max-src-nodes", &c.max_src_nodes),
            ("max-src-conn", &c.max_src_conn),
            ("max-src-conn-rate", &c.max_src_conn_rate),
            ("overload table insertion", &c.overload_table),
            ("overload flush states", &c.overload_flush),
            ("synfloods detected", &c.synfloods),
            ("syncookies sent", &c.syncookies_sent),
            ("syncookies validated", &c.syncookies_valid),
        ]
    }

    fn write_cookies(&self, out: &mut String, verbose: u8) -> fmt::Result {
        let (when, now) = self.syncookies;
        writeln!(out, "Syncookies")?;
        writeln!(out, "  {:<25} {}", "mode", when.keyword())?;
        writeln!(out, "  {:<25} {}", "active", if now.active { "active" } else { "inactive" })?;
        if let Syncookies::Adaptive { start, end } = when
            && verbose > 1
        {
            writeln!(out, "  {:<25} {start} %", "highwater")?;
            writeln!(out, "  {:<25} {end} %", "lowwater")?;
            writeln!(out, "  {:<25} {}", "halfopen states", now.half_open)?;
        }
        Ok(())
    }

    fn write_counters(&self, out: &mut String, all: &[(&str, &Counter)]) -> fmt::Result {
        for (name, counter) in all {
            let total = counter.get();
            write!(out, "  {name:<25} {total:>14} ")?;
            if self.since > 0 {
                writeln!(out, "{:>14.1}/s", total as f64 / self.since as f64)?;
            } else {
                writeln!(out, "{:>14}", "")?;
            }
        }
        Ok(())
    }

    /// Every counter by its name, for JSON.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counters.iter().map(|(description, value)| (description.name, value))
    }
}
