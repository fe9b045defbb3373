//! The command line: the daemon, and the BSD tools' words and flags over the control socket.
//!
//! Every command that reports takes `--json`, which prints the report as it came. Exit status: 0 good; 1 the answer is "no";
//! 2 usage; 3 the system refused. Text is made by small pure functions, one module a tool.

pub mod ask;
pub mod bench;
pub mod capture;
pub mod demo;
pub mod leak;
pub mod nc;
pub mod netstat;
pub mod pfctl;
pub mod ping;
pub mod run;
pub mod setkey;
pub mod table;
pub mod top;

use ask::{At, Failure};
use clap::{Args, Parser, Subcommand};
use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

/// A userspace TCP/IP router.
#[derive(Debug, Parser)]
#[command(name = "softnet", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Print reports as JSON
    #[arg(long, global = true)]
    json: bool,
    /// The router's control socket
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "router")]
    control: Option<PathBuf>,
    /// The router's name, if its control socket is where it is by default
    #[arg(long, global = true, value_name = "NAME")]
    router: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a router in the foreground until it is told to stop
    Run(run::Run),
    /// Validate a configuration and all files it names; change nothing
    Check(File),
    /// Have the router read its configuration again
    Reload,
    /// Have the router drain, audit and exit
    Stop,
    /// Say which router answers
    Status,
    /// Buffers, interfaces, routes, counters, neighbours
    Netstat(netstat::Netstat),
    /// Rates: what the router does now
    Top(top::Top),
    /// Security associations and policies
    Setkey(setkey::Setkey),
    /// Packets inside tunnels, into a file for tcpdump
    Capture(capture::Capture),
    /// The packet filter and its queues
    Pfctl(pfctl::Pfctl),
    /// Ping from the router's own stack
    Ping(ping::PingArgs),
    /// Open or await a connection from the router's own stack
    Nc(nc::NcArgs),
    /// Two gateways and a tunnel between them, in one process, without privileges
    Demo(demo::Demo),
    /// One core against many: who loses clusters, and why
    Leak(leak::Leak),
    /// Throughput in one process
    #[command(subcommand)]
    Bench(bench::Bench),
}

/// A configuration file.
#[derive(Clone, Debug, Args)]
pub struct File {
    /// softnet.toml
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
}

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Good.
    Good = 0,
    /// The answer is no.
    No = 1,
    /// The command makes no sense.
    Usage = 2,
    /// The system refused.
    System = 3,
}

/// The program. Never panics on a closed pipe.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let good = !e.use_stderr();
            // Nobody is left to tell if this fails.
            let _ = e.print();
            return ExitCode::from(if good { Exit::Good } else { Exit::Usage } as u8);
        }
    };
    let exit = run(cli).unwrap_or_else(|failure| {
        let exit = failure.exit();
        if exit != Exit::Good {
            eprintln!("softnet: {failure}");
        }
        exit
    });
    ExitCode::from(exit as u8)
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours).with_target(false).init();
    let at = At { json: cli.common.json, control: cli.common.control, router: cli.common.router };
    match cli.command {
        Command::Run(args) => run::run(&at, &args),
        Command::Check(file) => check(&at, &file),
        Command::Reload => at.order(&crate::control::proto::Request::Reload),
        Command::Stop => at.order(&crate::control::proto::Request::Stop),
        Command::Status => status(&at),
        Command::Netstat(args) => netstat::run(&at, &args),
        Command::Top(args) => top::run(&at, &args),
        Command::Setkey(args) => setkey::run(&at, &args),
        Command::Capture(args) => capture::run(&at, &args),
        Command::Pfctl(args) => pfctl::run(&at, &args),
        Command::Ping(args) => ping::run(&at, &args),
        Command::Nc(args) => nc::run(&at, &args),
        Command::Demo(args) => demo::run(&at, &args),
        Command::Leak(args) => leak::run(&at, &args),
        Command::Bench(bench) => bench::run(&at, bench),
    }
}

fn check(at: &At, file: &File) -> Result<Exit, Failure> {
    let checked = crate::commit::Files::load(&file.file, None);
    let (warnings, delays, faults) = match &checked {
        Ok(files) => (files.warnings(), files.worst_delays(), Vec::new()),
        Err(faults) => (Vec::new(), Vec::new(), faults.0.clone()),
    };
    let valid = checked.is_ok();
    let report = serde_json::json!({ "valid": valid, "faults": faults, "warnings": warnings,
        "worst_delays": delays });
    at.print(&report, || {
        let name = file.file.display();
        let mut lines: Vec<String> = faults.iter().chain(&warnings).cloned().collect();
        lines.extend(delays.iter().map(|d| {
            format!("queue {} on {}: {} bytes wait at most {:.0} us", d.queue, d.interface, d.bytes, d.us)
        }));
        lines.push(format!("{name}: {}", if valid { "valid" } else { "not valid" }));
        lines.join("\n") + "\n"
    })?;
    Ok(if valid { Exit::Good } else { Exit::No })
}

fn status(at: &At) -> Result<Exit, Failure> {
    let status = ask::answer!(at.ask(&crate::control::proto::Request::Status)?, Status);
    at.print(&status, || {
        let s = &status;
        format!(
            "{} (softnet {}, pid {}): {} workers, locking {}, up {} s, configured by {}\n",
            s.name, s.version, s.pid, s.workers, s.locking, s.uptime_s, s.file
        )
    })?;
    Ok(Exit::Good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_ascii_whitespace())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_bsd_tools_flags_are_understood() {
        for line in [
            "softnet netstat -m",
            "softnet netstat -rn --json",
            "softnet netstat -ss -p ip",
            "softnet --control /tmp/x netstat -i",
            "softnet netstat -n --control /tmp/x",
            "softnet setkey -D",
            "softnet setkey -DP",
            "softnet setkey -aD",
            "softnet setkey -FP",
            "softnet setkey -nc",
            "softnet setkey -x --json",
            "softnet setkey -f ipsec.conf --router gw-a",
            "softnet capture enc0 -w a.pcapng -c 10 -s 96",
            "softnet capture enc0 -w - --router gw-a",
            "softnet pfctl -s rules",
            "softnet pfctl -sr -v",
            "softnet pfctl -s queue -vv --router gw-a",
            "softnet pfctl -nvf pf.conf",
            "softnet pfctl -e -f - -D ext=wan0",
            "softnet pfctl -t bad -T add 192.0.2.1 !192.0.2.0/24",
            "softnet pfctl -t bad -T test -vv 192.0.2.1",
            "softnet pfctl -F states -k 192.0.2.1 -k 198.51.100.1",
            "softnet pfctl -a ftp-proxy -sT",
            "softnet ping -c 3 192.0.2.1",
            "softnet nc -u 192.0.2.1 7",
            "softnet nc -l 7",
            "softnet check -f a.toml",
            "softnet bench esp --direction both --workers 1,2 --sizes 64,570,1400 \
             --suite aes-128-gcm,aes-256-gcm,chacha20-poly1305 --engine auto --sas 1,16 --flows 64 --routes 1000 \
             --seconds 2 --locking fine,giant --json",
            "softnet bench forward --sizes 64 --seconds 0.5",
            "softnet demo --json",
            "softnet leak --profile netbsd2013,A-len --vcpus 1,2 --crypto fast,kame-s --traffic tunnel --family inet6 \
             --packets 10000 --seed 7 --placement nic=0,soft=1,ret=1 --no-reclaim --json --plot x.svg",
            "softnet leak --schedule 7",
            "softnet bench fib --routes 1000",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
        for line in [
            "softnet",
            "softnet netstat",
            "softnet setkey -P",
            "softnet setkey -c -D",
            "softnet setkey -xP",
            "softnet capture enc0",
            "softnet capture enc0 -w x -c 0",
            "softnet pfctl -s x",
            "softnet check",
            "softnet nc",
            "softnet netstat -m --control a --router b",
            "softnet bench forward --sizes 20000",
            "softnet bench esp --engine abacus",
            "softnet leak --profile netbsd2014",
            "softnet leak --placement nic=x",
            "softnet leak --vcpus 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
