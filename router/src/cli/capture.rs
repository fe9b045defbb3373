//! `softnet capture`: packets of a running router into a file, after `tcpdump -w`.

use super::{
    Exit,
    ask::{At, Failure},
};
use crate::{
    capture::Recorder,
    control::{
        capture::{CaptureReport, CaptureRequest, TapReport},
        client::{ClientError, Connection, Speaker},
        proto::{Request, Response},
    },
};
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Read, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
    path::PathBuf,
};

/// Octets of a packet, unless the user says: a jumbo frame.
const SNAP: u32 = 9216;

/// What to capture, and where to.
#[derive(Clone, Debug, Args)]
pub struct Capture {
    /// enc0: packets before they are encrypted, and decrypted ones; pflog0 to pflog15: packets that rules of pf log
    #[arg(value_name = "INTERFACE")]
    interface: String,
    /// The file, pcapng, which only its owner can read; - for standard output
    #[arg(short, value_name = "FILE")]
    write: PathBuf,
    /// Stop after this many packets
    #[arg(short, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Octets of each packet
    #[arg(short, value_name = "SNAPLEN", default_value_t = SNAP)]
    snap: u32,
}

impl Capture {
    /// All of an interface, into a file.
    pub(super) fn all(interface: &str, write: PathBuf) -> Capture {
        Capture { interface: interface.to_owned(), write, count: None, snap: SNAP }
    }
}

/// Runs the command.
pub fn run(at: &At, args: &Capture) -> Result<Exit, Failure> {
    let mut connection = at.connect()?;
    connection
        .say(&Request::Capture(CaptureRequest { interface: args.interface.clone(), snap: args.snap }))?;
    let tap = match connection.hear()? {
        Response::Capturing(tap) => tap,
        Response::Refused(refusal) => return Err(ClientError::Refused(refusal).into()),
        _ => return Err(Failure::Unexpected),
    };
    connection.set_patience(None)?;
    shut_when_interrupted(connection.speaker()?).map_err(|e| Failure::System(e.to_string()))?;
    let to_stdout = args.write.as_os_str() == "-";
    let report = if to_stdout {
        record(connection, io::stdout().lock(), &tap, args.count)?
    } else {
        let named = |e: io::Error| Failure::System(format!("{}: {e}", args.write.display()));
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&args.write);
        record(connection, file.map_err(named)?, &tap, args.count)?
    };
    let text = format!("{} packets captured\n{} packets lost by the router\n", report.packets, report.lost);
    if to_stdout {
        eprint!("{text}");
    } else {
        at.print(&report, || text)?;
    }
    Ok(Exit::Good)
}

/// Writes what the router tells until it ends, or enough has come.
fn record(
    mut connection: Connection,
    to: impl Write,
    tap: &TapReport,
    count: Option<u64>,
) -> Result<CaptureReport, Failure> {
    let enough = count.unwrap_or(u64::MAX);
    let mut recorder = Recorder::new(BufWriter::new(to), tap)?;
    recorder.flush()?;
    let (mut written, mut report) = (0, CaptureReport::default());
    loop {
        match connection.hear()? {
            Response::Frame(frame) if written < enough => {
                recorder.frame(&frame)?;
                written += 1;
                if written == enough {
                    connection.say(&Request::Shut)?;
                }
            }
            // On its way when enough had come.
            Response::Frame(_) => {}
            Response::Captured(all) => report = CaptureReport { packets: written, ..all },
            Response::End => break,
            _ => return Err(Failure::Unexpected),
        }
        if !connection.has_more() {
            recorder.flush()?;
        }
    }
    recorder.finish(&report)?;
    Ok(report)
}

/// Has the router end the capture when the user has seen enough; what has been seen until then comes.
fn shut_when_interrupted(speaker: Speaker) -> io::Result<()> {
    let (mut wake, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    // Ends with the process.
    std::thread::spawn(move || {
        if wake.read_exact(&mut [0]).is_ok() {
            // A router that is gone ends the capture, too.
            let _ = speaker.say(&Request::Shut);
        }
    });
    Ok(())
}
