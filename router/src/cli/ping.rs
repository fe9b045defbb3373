//! `softnet ping`: echo requests that the router's own stack sends, so they meet SPD, pf and ALTQ like any packet of its.

use super::{
    Exit,
    ask::{At, Failure, put},
};
use crate::control::{
    client::ClientError,
    proto::{EchoReport, Ping, Request, Response},
};
use clap::Args;
use serde::Serialize;
use std::{fmt::Write, net::IpAddr, time::Duration};

/// Whom, how often.
#[derive(Clone, Debug, Args)]
pub struct PingArgs {
    /// How often; without it until interrupted
    #[arg(short, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Seconds between two
    #[arg(short, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// Octets of data
    #[arg(short, value_name = "OCTETS", default_value = "56", value_parser = clap::value_parser!(u16).range(..=65_467))]
    size: u16,
    /// Seconds to wait for an answer
    #[arg(short = 'W', value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    wait: Duration,
    /// An IPv4 or IPv6 address
    to: IpAddr,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let secs: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=3600.0).contains(&secs) {
        Ok(Duration::from_secs_f64(secs))
    } else {
        Err("0.001 to 3600".to_owned())
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Requests.
    pub transmitted: u64,
    /// Answers.
    pub received: u64,
    /// Round trips in milliseconds.
    #[serde(skip)]
    rtts: Vec<f64>,
}

/// Runs the command.
pub fn run(at: &At, args: &PingArgs) -> Result<Exit, Failure> {
    let request = Ping {
        to: args.to,
        count: args.count,
        interval_ms: args.interval.as_millis() as u32,
        size: args.size,
        timeout_ms: args.wait.as_millis() as u32,
    };
    let mut connection = at.connect()?;
    connection.set_patience(Some(args.interval + args.wait + Duration::from_secs(10)))?;
    connection.say(&Request::Ping(request))?;
    if !at.json {
        put(format!("PING {}: {} data bytes\n", args.to, args.size).as_bytes())?;
    }
    let mut summary = Summary::default();
    loop {
        match connection.hear()? {
            Response::Echo(echo) => {
                summary.add(&echo);
                if !at.json {
                    put(line(&echo).as_bytes())?;
                }
            }
            Response::End => break,
            Response::Refused(refusal) => return Err(ClientError::Refused(refusal).into()),
            _ => return Err(Failure::Unexpected),
        }
    }
    at.print(&summary.json(), || summary.text(args.to))?;
    Ok(if summary.received > 0 { Exit::Good } else { Exit::No })
}

/// One turn, as ping(8) prints it.
pub fn line(echo: &EchoReport) -> String {
    let sequence = echo.sequence;
    match (&echo.from, &echo.error) {
        (Some(from), None) => {
            let ms = echo.rtt_us as f64 / 1000.0;
            format!("{} bytes from {from}: icmp_seq={sequence} ttl={} time={ms:.3} ms\n", echo.size, echo.ttl)
        }
        (Some(from), Some(error)) => format!("from {from}: icmp_seq={sequence} {error}\n"),
        (None, Some(error)) => format!("icmp_seq={sequence} {error}\n"),
        (None, None) => format!("no answer to icmp_seq={sequence}\n"),
    }
}

impl Summary {
    fn add(&mut self, echo: &EchoReport) {
        self.transmitted += 1;
        if echo.from.is_some() && echo.error.is_none() {
            self.received += 1;
            self.rtts.push(echo.rtt_us as f64 / 1000.0);
        }
    }

    fn loss(&self) -> f64 {
        let lost = self.transmitted - self.received;
        if self.transmitted == 0 { 0.0 } else { 100.0 * lost as f64 / self.transmitted as f64 }
    }

    /// Least, mean, largest, standard deviation, in milliseconds.
    fn spread(&self) -> Option<[f64; 4]> {
        let n = self.rtts.len() as f64;
        let mean = self.rtts.iter().sum::<f64>() / n;
        let variance = self.rtts.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / n;
        let least = self.rtts.iter().copied().reduce(f64::min)?;
        let largest = self.rtts.iter().copied().reduce(f64::max)?;
        Some([least, mean, largest, variance.sqrt()])
    }

    fn json(&self) -> serde_json::Value {
        let rtt = self.spread().map(|[min, avg, max, stddev]| {
            serde_json::json!({ "min_ms": min, "avg_ms": avg, "max_ms": max, "stddev_ms": stddev })
        });
        serde_json::json!({
            "transmitted": self.transmitted, "received": self.received, "loss_percent": self.loss(), "rtt": rtt,
        })
    }

    fn text(&self, to: IpAddr) -> String {
        let mut out = format!(
            "\n--- {to} ping statistics ---\n{} packets transmitted, {} packets received, {:.1}% packet loss\n",
            self.transmitted,
            self.received,
            self.loss()
        );
        if let Some([min, avg, max, stddev]) = self.spread() {
            let _ =
                writeln!(out, "round-trip min/avg/max/stddev = {min:.3}/{avg:.3}/{max:.3}/{stddev:.3} ms");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_and_the_summary_read_like_ping() {
        let echo = |sequence, rtt_us| EchoReport {
            sequence,
            from: Some("192.0.2.9".into()),
            size: 64,
            ttl: 63,
            rtt_us,
            error: None,
        };
        assert_eq!(line(&echo(0, 1234)), "64 bytes from 192.0.2.9: icmp_seq=0 ttl=63 time=1.234 ms\n");
        let lost = EchoReport { sequence: 2, ..EchoReport::default() };
        assert_eq!(line(&lost), "no answer to icmp_seq=2\n");
        let mut summary = Summary::default();
        for turn in [echo(0, 1000), echo(1, 3000), lost] {
            summary.add(&turn);
        }
        assert_eq!(
            summary.text("192.0.2.9".parse().unwrap()),
            "\n--- 192.0.2.9 ping statistics ---\n3 packets transmitted, 2 packets received, 33.3% packet loss\n\
             round-trip min/avg/max/stddev = 1.000/2.000/3.000/1.000 ms\n"
        );
        assert_eq!(Summary::default().json()["rtt"], serde_json::Value::Null);
    }

    #[test]
    fn seconds_may_have_a_point_and_have_limits() {
        assert_eq!(seconds("0.2"), Ok(Duration::from_millis(200)));
        assert!(seconds("0").is_err() && seconds("NaN").is_err() && seconds("x").is_err());
    }
}
