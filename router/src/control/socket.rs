//! The control socket: a Unix stream socket that only its owner may open, one JSON object a line.
//!
//! The router's end lives on the control thread and never waits for a client: reads and writes are non-blocking, what a client
//! has not taken yet is kept up to a limit, and a client that takes nothing for ten seconds is hung up on. Several clients
//! may be there at once; their requests are handled one after the other, which is what makes configuration the control
//! thread's turn and not a mutex. Requests may have keys in them: their octets are wiped wherever they have been.
//!
//! The other end is [`client`](super::client). Not here: what requests mean ([`Handler`]), and access for others than the owner (ssh does that).

use super::proto::{Envelope, RefusalKind, Request, Response, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::value::RawValue;
use std::{
    io::{self, Read, Write},
    os::{
        fd::BorrowedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use zeroize::{Zeroize, Zeroizing};

/// Longest request: a table of 200,000 addresses.
const LINE: usize = 16 << 20;
/// A client with more than this to take is told nothing new.
const HIGH_WATER: usize = 1 << 20;
/// A client may take this long to take anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clients at once.
const CLIENTS: usize = 32;

/// A client, as long as it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session(pub u64);

/// What comes back from a request.
#[derive(Debug)]
pub enum Reply {
    /// This, and no more.
    Now(Response),
    /// A stream: answers come from [`Handler::poll`] until one is [`Response::End`].
    Stream,
}

/// Who knows what requests mean.
pub trait Handler {
    /// A request came. While a stream is open, [`Request::Data`] and [`Request::Shut`] belong to it.
    fn handle(&mut self, session: Session, request: Request) -> Reply;

    /// A stream is open, and its client has room for more.
    fn poll(&mut self, session: Session, out: &mut Outbox<'_>);

    /// A client with an open stream is gone.
    fn closed(&mut self, session: Session);

    /// Whether a client with an open stream may say more now; until then it is not read.
    fn has_room(&self, _session: Session) -> bool {
        true
    }
}

/// Where a stream's answers go.
#[derive(Debug)]
pub struct Outbox<'a> {
    client: &'a mut Client,
}

impl Outbox<'_> {
    /// Says something. [`Response::End`] is the last.
    pub fn push(&mut self, response: &Response) {
        self.client.say(response);
        if *response == Response::End {
            self.client.streaming = false;
        }
    }

    /// Whether the client takes what it is told; if not, wait.
    pub fn has_room(&self) -> bool {
        self.client.pending() < HIGH_WATER
    }
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody is there.
    #[error("{0}: another router answers here; is it running already?")]
    Busy(PathBuf),
    /// Something else than a socket is there.
    #[error("{0}: there is a file that is no socket")]
    NotASocket(PathBuf),
    /// The system says no.
    #[error("{}: {}", .0.display(), crate::conf::diag::reason(.1))]
    System(PathBuf, #[source] io::Error),
}

/// The router's end.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Client>,
    next: u64,
}

impl Server {
    /// Opens the socket for its owner alone. A socket that nobody answers on any more is replaced; a missing directory
    /// is made.
    pub fn bind(path: &Path) -> Result<Server, BindError> {
        let system = |e| BindError::System(path.to_owned(), e);
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory).map_err(|e| BindError::System(directory.to_owned(), e))?;
        }
        let listener = match bind_private(path) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                bind_private(path).map_err(system)?
            }
            other => other.map_err(system)?,
        };
        listener.set_nonblocking(true).map_err(system)?;
        Ok(Server { listener, path: path.to_owned(), clients: Vec::new(), next: 1 })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until a client wants something, one of the other descriptors is readable, or the time is up; then serves all
    /// clients that want something and polls all streams. Says whether one of the other descriptors is readable.
    pub fn turn(
        &mut self,
        wait: Duration,
        also: &[BorrowedFd<'_>],
        handler: &mut impl Handler,
    ) -> io::Result<bool> {
        let (incoming, others) = self.wait(wait, also)?;
        if incoming {
            self.accept();
        }
        for client in &mut self.clients {
            client.serve(handler);
        }
        self.clients.retain_mut(|client| {
            let stays = !client.is_over();
            if !stays && client.streaming {
                handler.closed(client.session);
            }
            stays
        });
        Ok(others)
    }

    fn wait(&mut self, wait: Duration, also: &[BorrowedFd<'_>]) -> io::Result<(bool, bool)> {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(also.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.clients.iter().map(|client| PollFd::new(&client.stream, client.interest())));
        let wait =
            Timespec { tv_sec: wait.as_secs().min(1 << 30) as i64, tv_nsec: wait.subsec_nanos().into() };
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let (incoming, others) = (ready(&fds[0]), fds[1..=also.len()].iter().any(ready));
        let gone = |fd: &PollFd<'_>| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR);
        let gone: Vec<bool> = fds[1 + also.len()..].iter().map(gone).collect();
        for (client, gone) in self.clients.iter_mut().zip(gone) {
            // Any other client's end is found by reading.
            client.lost |= gone && client.held;
        }
        Ok((incoming, others))
    }

    fn accept(&mut self) {
        // An error here is the client's, or a passing want of descriptors: it may come again.
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < CLIENTS && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client::new(stream, Session(self.next)));
                self.next += 1;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for client in &mut self.clients {
            client.flush();
        }
        // Best effort: a socket left behind is recognised as such at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn bind_private(path: &Path) -> io::Result<UnixListener> {
    // The mode must be right from the first moment: the socket is made with it.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    use std::os::unix::fs::FileTypeExt;
    let system = |e| BindError::System(path.to_owned(), e);
    if !std::fs::symlink_metadata(path).map_err(system)?.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(system),
        _ => Err(BindError::Busy(path.to_owned())),
    }
}

/// A client as the router sees it.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    session: Session,
    input: Vec<u8>,
    /// Octets of the input that are known not to end a line.
    scanned: usize,
    output: Vec<u8>,
    written: usize,
    streaming: bool,
    /// The handler has no room for what it says.
    held: bool,
    /// No more will be read.
    ended: bool,
    /// Nothing can be written.
    lost: bool,
    moved_at: Instant,
}

impl Client {
    fn new(stream: UnixStream, session: Session) -> Client {
        Client {
            stream,
            session,
            input: Vec::new(),
            scanned: 0,
            output: Vec::new(),
            written: 0,
            streaming: false,
            held: false,
            ended: false,
            lost: false,
            moved_at: Instant::now(),
        }
    }

    /// Octets that the client has not taken.
    fn pending(&self) -> usize {
        self.output.len() - self.written
    }

    fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if !self.ended && !self.held && self.pending() < HIGH_WATER {
            flags |= PollFlags::IN;
        }
        if self.pending() > 0 {
            flags |= PollFlags::OUT;
        }
        flags
    }

    fn serve(&mut self, handler: &mut impl Handler) {
        self.held = self.is_held(handler);
        self.read();
        self.answer(handler);
        self.held = self.is_held(handler);
        if self.streaming && !self.ended && self.pending() < HIGH_WATER {
            let session = self.session;
            handler.poll(session, &mut Outbox { client: self });
        }
        self.flush();
    }

    fn is_held(&self, handler: &impl Handler) -> bool {
        self.streaming && !handler.has_room(self.session)
    }

    fn read(&mut self) {
        let mut chunk = [0; 16 * 1024];
        while !self.ended && !self.held && self.pending() < HIGH_WATER && self.input.len() <= LINE {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    extend_wiped(&mut self.input, &chunk[..n]);
                    // There may be keys in it.
                    chunk[..n].zeroize();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => (self.ended, self.lost) = (true, true),
            }
        }
    }

    fn answer(&mut self, handler: &mut impl Handler) {
        while self.pending() < HIGH_WATER && !self.is_held(handler) {
            let Some(end) = self.input[self.scanned..].iter().position(|&b| b == b'\n') else {
                self.scanned = self.input.len();
                break;
            };
            let line = self.take_line(self.scanned + end + 1);
            self.scanned = 0;
            match parse(&line) {
                Ok(request) => match handler.handle(self.session, request) {
                    Reply::Now(response) => self.say(&response),
                    Reply::Stream => self.streaming = true,
                },
                Err(message) => self.say(&Response::refused(RefusalKind::Usage, message)),
            }
        }
        if self.input.len() > LINE && self.scanned == self.input.len() {
            self.input.clear();
            self.scanned = 0;
            self.ended = true;
            self.say(&Response::refused(RefusalKind::Usage, format!("a request longer than {LINE} octets")));
        }
    }

    /// The first octets of the input, leaving none of them behind in memory.
    fn take_line(&mut self, len: usize) -> Zeroizing<Vec<u8>> {
        let line = Zeroizing::new(self.input[..len].to_vec());
        let left = self.input.len() - len;
        self.input.copy_within(len.., 0);
        self.input[left..].zeroize();
        self.input.truncate(left);
        line
    }

    fn say(&mut self, response: &Response) {
        // Reports are made of strings and numbers: there is nothing in them that JSON cannot say.
        serde_json::to_writer(&mut self.output, &Envelope::new(response))
            .expect("reports can be said in JSON");
        self.output.push(b'\n');
    }

    fn flush(&mut self) {
        if self.pending() == 0 {
            self.moved_at = Instant::now();
        }
        while self.pending() > 0 && !self.lost {
            match self.stream.write(&self.output[self.written..]) {
                Ok(n) if n > 0 => {
                    self.written += n;
                    self.moved_at = Instant::now();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => self.lost = true,
            }
        }
        if self.pending() == 0 {
            self.output.clear();
            self.written = 0;
        }
    }

    fn is_over(&self) -> bool {
        self.lost || (self.ended && self.pending() == 0) || self.moved_at.elapsed() > PATIENCE
    }
}

/// Appends, and wipes where the octets were if they have to move.
fn extend_wiped(to: &mut Vec<u8>, more: &[u8]) {
    if to.capacity() - to.len() < more.len() {
        let mut larger = Vec::with_capacity((to.len() + more.len()).next_power_of_two());
        larger.extend_from_slice(to);
        to.zeroize();
        *to = larger;
    }
    to.extend_from_slice(more);
}

/// A request, or what is wrong with it.
fn parse(line: &[u8]) -> Result<Request, String> {
    let line = std::str::from_utf8(line).map_err(|e| format!("not a request: {e}"))?;
    let envelope: Envelope<&RawValue> =
        serde_json::from_str(line).map_err(|e| format!("not a request: {e}"))?;
    if envelope.v != VERSION {
        return Err(format!("version {} is asked for, and this router speaks {VERSION}", envelope.v));
    }
    serde_json::from_str(envelope.body.get()).map_err(|e| format!("not a request: {e}"))
}

#[cfg(test)]
mod tests;
