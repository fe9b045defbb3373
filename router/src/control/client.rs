//! Who asks a router: the other end of the control socket. Waits for answers; for commands, not for the router itself.

use super::proto::{Envelope, Refusal, Request, Response, VERSION};
use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// Why the router did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("{}: no router answers: {}", .0.display(), crate::conf::diag::reason(.1))]
    NoRouter(PathBuf, #[source] io::Error),
    /// It went away.
    #[error("the router went away: {}", crate::conf::diag::reason(.0))]
    Lost(#[source] io::Error),
    /// What it said makes no sense.
    #[error("the router's answer makes no sense: {0}")]
    Garbled(String),
    /// It refused.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

/// The other end: somebody who asks.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<UnixStream>,
}

impl Connection {
    /// Connects to a router.
    pub fn open(path: &Path) -> Result<Connection, ClientError> {
        let stream = UnixStream::connect(path).map_err(|e| ClientError::NoRouter(path.to_owned(), e))?;
        Ok(Connection { reader: BufReader::new(stream) })
    }

    /// How long to wait for an answer; none for as long as it takes.
    pub fn set_patience(&self, patience: Option<Duration>) -> Result<(), ClientError> {
        self.reader.get_ref().set_read_timeout(patience).map_err(ClientError::Lost)
    }

    /// Asks, and waits for the answer; a refusal is an error.
    pub fn call(&mut self, request: &Request) -> Result<Response, ClientError> {
        self.say(request)?;
        match self.hear()? {
            Response::Refused(refusal) => Err(ClientError::Refused(refusal)),
            response => Ok(response),
        }
    }

    /// Says something without waiting.
    pub fn say(&mut self, request: &Request) -> Result<(), ClientError> {
        say(self.reader.get_ref(), request)
    }

    /// Waits for the next answer.
    pub fn hear(&mut self) -> Result<Response, ClientError> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => return Err(ClientError::Lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(ClientError::Lost(io::ErrorKind::TimedOut.into()));
            }
            Err(e) => return Err(ClientError::Lost(e)),
        }
        let envelope: Envelope<Response> =
            serde_json::from_str(&line).map_err(|e| ClientError::Garbled(e.to_string()))?;
        if envelope.v == VERSION {
            Ok(envelope.body)
        } else {
            Err(ClientError::Garbled(format!("version {}", envelope.v)))
        }
    }

    /// Whether something that was said has come already.
    pub fn has_more(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    /// The connection itself.
    #[cfg(test)]
    pub(super) fn stream(&self) -> &UnixStream {
        self.reader.get_ref()
    }

    /// A second hand on the same connection that says things while this one listens.
    pub fn speaker(&self) -> Result<Speaker, ClientError> {
        self.reader.get_ref().try_clone().map(Speaker).map_err(ClientError::Lost)
    }
}

/// See [`Connection::speaker`].
#[derive(Debug)]
pub struct Speaker(UnixStream);

impl Speaker {
    /// Says something.
    pub fn say(&self, request: &Request) -> Result<(), ClientError> {
        say(&self.0, request)
    }
}

fn say(mut stream: &UnixStream, request: &Request) -> Result<(), ClientError> {
    let mut line =
        serde_json::to_vec(&Envelope::new(request)).map_err(|e| ClientError::Garbled(e.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(ClientError::Lost)
}
