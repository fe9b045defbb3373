//! `softnet setkey`, after setkey(8) of KAME, as NetBSD and FreeBSD have it. Keys are never printed.

use super::{
    Exit,
    ask::{At, Failure, answer},
};
use crate::control::proto::{PolicyReport, Request, SaReport};
use clap::Args;
use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What to show.
#[derive(Clone, Debug, Args)]
pub struct Setkey {
    /// Dump: security associations
    #[arg(short = 'D', required = true)]
    dump: bool,
    /// Policies instead
    #[arg(short = 'P')]
    policies: bool,
}

/// Runs the command.
pub fn run(at: &At, args: &Setkey) -> Result<Exit, Failure> {
    if args.policies {
        let report = answer!(at.ask(&Request::Policies)?, Policies);
        at.print(&report, || policies(&report))?;
    } else {
        let report = answer!(at.ask(&Request::Sas)?, Sas);
        at.print(&report, || sas(&report))?;
    }
    Ok(Exit::Good)
}

/// `-D`.
pub fn sas(all: &[SaReport]) -> String {
    if all.is_empty() {
        return "No SAD entries.\n".to_owned();
    }
    all.iter().map(sa).collect()
}

fn sa(s: &SaReport) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_sa(&mut out, s);
    out
}

fn write_sa(out: &mut String, s: &SaReport) -> std::fmt::Result {
    writeln!(out, "{} {}", s.src, s.dst)?;
    writeln!(out, "\t{} mode={} spi={2}({2:#010x}) reqid={3}({3:#010x})", s.proto, s.mode, s.spi, s.reqid)?;
    write_algorithms(out, s)?;
    let replayed = if s.replayed + s.forged > 0 {
        format!(" ({} packets refused as replayed, {} as forged)", s.replayed, s.forged)
    } else {
        String::new()
    };
    let esn = if s.esn { " esn" } else { "" };
    writeln!(
        out,
        "\tseq={:#010x} top={:#010x} replay={}{esn} state={}{replayed}",
        s.sequence, s.top, s.replay_window, s.state
    )?;
    writeln!(out, "\tcreated: {}\tcurrent: {}", date(s.created), date(s.created + s.age_s))?;
    writeln!(out, "\tdiff: {}(s)\thard: {}(s)\tsoft: {}(s)", s.age_s, s.hard[1], s.soft[1])?;
    writeln!(out, "\tcurrent: {}(bytes)\thard: {}(bytes)\tsoft: {}(bytes)", s.bytes, s.hard[0], s.soft[0])?;
    writeln!(out, "\tallocated: {}", s.packets)
}

fn write_algorithms(out: &mut String, s: &SaReport) -> std::fmt::Result {
    if let Some(encryption) = &s.encryption {
        writeln!(out, "\tE: {encryption}  {} bits, by {}", s.encryption_bits, s.engine)?;
    }
    match &s.authentication {
        Some(authentication) => writeln!(out, "\tA: {authentication}"),
        None => Ok(()),
    }
}

/// `-DP`.
pub fn policies(all: &[PolicyReport]) -> String {
    if all.is_empty() {
        return "No SPD entries.\n".to_owned();
    }
    let mut out = String::new();
    for p in all {
        let _ = writeln!(out, "{} {} {}", p.src, p.dst, p.upper);
        let _ = writeln!(out, "\t{} {}", p.direction, p.action);
        for rule in &p.rules {
            let _ = writeln!(out, "\t{rule}");
        }
        let _ = writeln!(out, "\tspid={} used={}", p.id, p.packets);
    }
    out
}

/// Seconds since 1970 as `2026-11-24 22:01:00 UTC`.
fn date(secs: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(secs)).unwrap_or(SystemTime::UNIX_EPOCH);
    let secs = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = civil(secs / 86_400);
    let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The date of a day since 1970-01-01 in the Gregorian calendar, counted in eras of 400 years that begin in March.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_at_the_edges() {
        for (secs, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_363_046_400, "2013-03-12 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(secs), text);
        }
    }

    #[test]
    fn an_sa_is_told_in_setkeys_words_and_without_its_key() {
        let sa = SaReport {
            src: "203.0.113.1".into(),
            dst: "203.0.113.2".into(),
            proto: "esp".into(),
            mode: "tunnel".into(),
            spi: 0x1001,
            encryption: Some("aes-gcm-16".into()),
            encryption_bits: 128,
            engine: "ring".into(),
            state: "mature".into(),
            sequence: 17,
            replay_window: 64,
            packets: 17,
            bytes: 1428,
            age_s: 5,
            ..SaReport::default()
        };
        assert_eq!(
            sas(&[sa]),
            "203.0.113.1 203.0.113.2\n\
             \tesp mode=tunnel spi=4097(0x00001001) reqid=0(0x00000000)\n\
             \tE: aes-gcm-16  128 bits, by ring\n\
             \tseq=0x00000011 top=0x00000000 replay=64 state=mature\n\
             \tcreated: 1970-01-01 00:00:00 UTC\tcurrent: 1970-01-01 00:00:05 UTC\n\
             \tdiff: 5(s)\thard: 0(s)\tsoft: 0(s)\n\
             \tcurrent: 1428(bytes)\thard: 0(bytes)\tsoft: 0(bytes)\n\
             \tallocated: 17\n"
        );
        assert_eq!(sas(&[]), "No SAD entries.\n");
    }

    #[test]
    fn a_policy_is_told_in_setkeys_words() {
        let policy = PolicyReport {
            src: "192.0.2.0/24[any]".into(),
            dst: "198.51.100.0/24[any]".into(),
            upper: "any".into(),
            direction: "out".into(),
            action: "ipsec".into(),
            rules: vec!["esp/tunnel/203.0.113.1-203.0.113.2/require".into()],
            id: 1,
            packets: 9,
        };
        assert_eq!(
            policies(&[policy]),
            "192.0.2.0/24[any] 198.51.100.0/24[any] any\n\tout ipsec\n\
             \tesp/tunnel/203.0.113.1-203.0.113.2/require\n\tspid=1 used=9\n"
        );
        assert_eq!(policies(&[]), "No SPD entries.\n");
    }
}
