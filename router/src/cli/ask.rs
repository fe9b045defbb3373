//! Asking a running router, and printing what it says.

use super::Exit;
use crate::{
    conf::default_control,
    control::{
        client::{ClientError, Connection},
        proto::{RefusalKind, Request, Response},
    },
};
use serde::Serialize;
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The router.
    #[error(transparent)]
    Router(#[from] ClientError),
    /// Which router is not clear.
    #[error("{0}")]
    Which(String),
    /// No leave, or no device.
    #[error("{0}")]
    System(String),
    /// The daemon did not start, or ended badly.
    #[error(transparent)]
    Daemon(#[from] crate::daemon::DaemonError),
    /// The terminal.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
    /// What was to be read.
    #[error("{0}")]
    Input(io::Error),
    /// The router answered something else.
    #[error("the router's answer is for another question")]
    Unexpected,
}

impl Failure {
    /// The exit status that says so.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Daemon(error) if error.status() == 1 => Exit::No,
            Failure::Router(ClientError::Refused(refusal)) => match refusal.kind {
                RefusalKind::No => Exit::No,
                RefusalKind::Usage => Exit::Usage,
                RefusalKind::System => Exit::System,
            },
            // Who reads our output and has seen enough is no failure.
            Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => Exit::Good,
            Failure::Which(_) => Exit::Usage,
            Failure::System(_)
            | Failure::Daemon(_)
            | Failure::Router(_)
            | Failure::Output(_)
            | Failure::Input(_)
            | Failure::Unexpected => Exit::System,
        }
    }
}

/// Takes the answer of one kind out of a [`Response`].
macro_rules! answer {
    ($response:expr, $kind:ident) => {
        match $response {
            crate::control::proto::Response::$kind(report) => report,
            _ => return Err(crate::cli::ask::Failure::Unexpected),
        }
    };
}
pub(crate) use answer;

/// How long a router may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which router is asked, and how answers are printed.
#[derive(Clone, Debug, Default)]
pub struct At {
    /// As JSON.
    pub json: bool,
    /// The control socket.
    pub control: Option<PathBuf>,
    /// The router's name.
    pub router: Option<String>,
}

impl At {
    /// Asks one question.
    pub fn ask(&self, request: &Request) -> Result<Response, Failure> {
        Ok(self.connect()?.call(request)?)
    }

    /// Has something done and prints the sentence about it.
    pub fn order(&self, request: &Request) -> Result<Exit, Failure> {
        let sentence = answer!(self.ask(request)?, Done);
        self.print(&serde_json::json!({ "done": sentence }), || format!("{sentence}\n"))?;
        Ok(Exit::Good)
    }

    /// Connects to the router.
    pub fn connect(&self) -> Result<Connection, Failure> {
        let connection = Connection::open(&self.socket()?)?;
        connection.set_patience(Some(PATIENCE))?;
        Ok(connection)
    }

    fn socket(&self) -> Result<PathBuf, Failure> {
        match (&self.control, &self.router) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(name)) => Ok(default_control(name)),
            (None, None) => the_only_one(default_control("").parent().unwrap_or(Path::new("/run"))),
        }
    }

    /// Prints a report: as JSON, or what `text` makes of it.
    pub fn print(&self, report: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let out = if self.json {
            serde_json::to_string_pretty(report).map_err(io::Error::from)? + "\n"
        } else {
            text()
        };
        put(out.as_bytes())
    }
}

/// Writes to standard output at once.
pub fn put(octets: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(octets)?;
    out.flush()?;
    Ok(())
}

/// The control socket in a directory that has just one.
fn the_only_one(directory: &Path) -> Result<PathBuf, Failure> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut sockets: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "sock")).collect();
    sockets.sort();
    match &sockets[..] {
        [] => Err(Failure::Which(format!(
            "no router has its control socket in {}; name one with --control PATH",
            directory.display()
        ))),
        [one] => Ok(one.clone()),
        many => {
            let names: Vec<_> = many.iter().filter_map(|p| p.file_stem()?.to_str()).collect();
            Err(Failure::Which(format!(
                "there are several routers, {}: --router NAME",
                crate::conf::diag::list(&names)
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::Refusal;

    #[test]
    fn the_exit_status_says_whose_fault_it_is() {
        let refused = |kind| Failure::Router(ClientError::Refused(Refusal { kind, message: "m".into() }));
        assert_eq!(refused(RefusalKind::No).exit(), Exit::No);
        assert_eq!(refused(RefusalKind::System).exit(), Exit::System);
        assert_eq!(Failure::Output(io::ErrorKind::BrokenPipe.into()).exit(), Exit::Good);
        let gone =
            At { control: Some("/nowhere/x.sock".into()), ..At::default() }.ask(&Request::Mbuf).unwrap_err();
        assert_eq!(gone.to_string(), "/nowhere/x.sock: no router answers: no such file or directory");
        assert_eq!(gone.exit(), Exit::System);
    }

    #[test]
    fn the_only_router_needs_no_name() {
        let dir = std::env::temp_dir().join(format!("softnet-ask-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert!(the_only_one(&dir).is_err());
        std::fs::write(dir.join("gw-a.sock"), "").unwrap();
        assert_eq!(the_only_one(&dir).unwrap(), dir.join("gw-a.sock"));
        std::fs::write(dir.join("gw-b.sock"), "").unwrap();
        let several = the_only_one(&dir).unwrap_err().to_string();
        assert_eq!(several, "there are several routers, gw-a and gw-b: --router NAME");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
