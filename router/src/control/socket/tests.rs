//! A server and its clients in one thread: a turn serves what was written before it.

use super::*;
use crate::control::{
    client::{ClientError, Connection},
    proto::{EchoReport, Octets, Ping, StatusReport},
};
use std::os::{fd::AsFd, unix::fs::PermissionsExt};

/// Says who it is, and echoes octets in streams.
#[derive(Default)]
struct Echo {
    asked: Vec<Request>,
    streams: Vec<(Session, u32)>,
    closed: Vec<Session>,
    endless: bool,
    full: bool,
}

impl Handler for Echo {
    fn handle(&mut self, session: Session, request: Request) -> Reply {
        self.asked.push(request.clone());
        match request {
            Request::Ping(_) => {
                self.streams.push((session, 0));
                Reply::Stream
            }
            Request::Data(_) => Reply::Stream,
            Request::Reload => Reply::Now(Response::refused(RefusalKind::No, "bad file")),
            _ => Reply::Now(Response::Status(StatusReport { name: "t".into(), ..status() })),
        }
    }

    fn poll(&mut self, session: Session, out: &mut Outbox<'_>) {
        let stream = self.streams.iter_mut().find(|(s, _)| *s == session).expect("a stream");
        while self.endless && out.has_room() {
            out.push(&Response::Data(Octets(vec![b'x'; 1000])));
        }
        if !self.endless {
            stream.1 += 1;
            out.push(&Response::Echo(EchoReport { sequence: stream.1, ..EchoReport::default() }));
            if stream.1 == 3 {
                out.push(&Response::End);
            }
        }
    }

    fn closed(&mut self, session: Session) {
        self.closed.push(session);
    }

    fn has_room(&self, _session: Session) -> bool {
        !self.full
    }
}

fn status() -> StatusReport {
    StatusReport {
        name: String::new(),
        version: String::new(),
        pid: 0,
        workers: 1,
        locking: "fine".into(),
        file: String::new(),
        uptime_s: 0,
    }
}

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let dir = std::env::temp_dir().join(format!("softnet-socket-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Place(dir.join("deeper").join("s.sock"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().and_then(Path::parent).unwrap());
    }
}

fn turn(server: &mut Server, handler: &mut Echo) {
    server.turn(Duration::ZERO, &[], handler).unwrap();
}

#[test]
fn a_request_is_answered_and_the_socket_is_its_owners_alone() {
    let place = Place::new("answer");
    let (mut server, mut echo) = (Server::bind(&place.0).unwrap(), Echo::default());
    assert_eq!(std::fs::metadata(&place.0).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = Connection::open(&place.0).unwrap();
    client.say(&Request::Status).unwrap();
    client.say(&Request::Reload).unwrap();
    turn(&mut server, &mut echo);
    assert!(matches!(client.hear().unwrap(), Response::Status(s) if s.name == "t"));
    assert!(matches!(client.hear().unwrap(), Response::Refused(r) if r.kind == RefusalKind::No));
    drop(server);
    assert!(!place.0.exists());
    assert!(matches!(Connection::open(&place.0), Err(ClientError::NoRouter(..))));
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let place = Place::new("stale");
    std::fs::create_dir_all(place.0.parent().unwrap()).unwrap();
    drop(UnixListener::bind(&place.0).unwrap());
    assert!(place.0.exists(), "left behind");
    let server = Server::bind(&place.0).unwrap();
    let second = Server::bind(&place.0).unwrap_err();
    assert!(matches!(second, BindError::Busy(_)), "{second}");
    drop(server);
    std::fs::write(&place.0, "precious").unwrap();
    assert!(matches!(Server::bind(&place.0), Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&place.0).unwrap(), "precious");
}

#[test]
fn a_stream_goes_on_until_its_end() {
    let place = Place::new("stream");
    let (mut server, mut echo) = (Server::bind(&place.0).unwrap(), Echo::default());
    let mut client = Connection::open(&place.0).unwrap();
    let to = "192.0.2.1".parse().unwrap();
    let ping = Ping { to, count: None, interval_ms: 1, size: 1, timeout_ms: 1 };
    client.say(&Request::Ping(ping.clone())).unwrap();
    turn(&mut server, &mut echo);
    client.speaker().unwrap().say(&Request::Data(Octets(vec![0, 255]))).unwrap();
    (0..4).for_each(|_| turn(&mut server, &mut echo));
    let heard: Vec<Response> = (0..4).map(|_| client.hear().unwrap()).collect();
    assert!(matches!(&heard[2], Response::Echo(e) if e.sequence == 3), "{heard:?}");
    assert_eq!(heard[3], Response::End);
    assert_eq!(echo.asked, [Request::Ping(ping.clone()), Request::Data(Octets(vec![0, 255]))]);

    client.say(&Request::Ping(ping)).unwrap();
    turn(&mut server, &mut echo);
    drop(client);
    turn(&mut server, &mut echo);
    turn(&mut server, &mut echo);
    assert_eq!(echo.closed, [Session(1)], "who hangs up in the middle is reported");
}

#[test]
fn nonsense_is_refused_and_does_not_disturb_others() {
    let place = Place::new("nonsense");
    let (mut server, mut echo) = (Server::bind(&place.0).unwrap(), Echo::default());
    let (mut bad, mut good) = (Connection::open(&place.0).unwrap(), Connection::open(&place.0).unwrap());
    let lines = "hello\n{\"v\":9,\"body\":\"status\"}\n{\"v\":1,\"body\":\"dance\"}\n\u{0}\u{1}\n";
    bad.stream().write_all(lines.as_bytes()).unwrap();
    good.say(&Request::Status).unwrap();
    turn(&mut server, &mut echo);
    for _ in 0..4 {
        assert!(matches!(bad.hear().unwrap(), Response::Refused(r) if r.kind == RefusalKind::Usage));
    }
    assert!(matches!(good.hear().unwrap(), Response::Status(_)));

    bad.stream().set_nonblocking(true).unwrap();
    let endless = vec![b'a'; 1 << 20];
    for _ in 0..2000 {
        if server.clients.len() == 1 {
            break;
        }
        let _ = bad.stream().write(&endless);
        turn(&mut server, &mut echo);
    }
    assert_eq!(server.clients.len(), 1, "an endless line ends the client");
}

#[test]
fn a_client_that_takes_nothing_holds_up_nobody() {
    let place = Place::new("slow");
    let (mut server, mut echo) = (Server::bind(&place.0).unwrap(), Echo { endless: true, ..Echo::default() });
    let mut slow = Connection::open(&place.0).unwrap();
    let to = "192.0.2.1".parse().unwrap();
    slow.say(&Request::Ping(Ping { to, count: None, interval_ms: 1, size: 1, timeout_ms: 1 })).unwrap();
    let mut quick = Connection::open(&place.0).unwrap();
    for _ in 0..50 {
        quick.say(&Request::Status).unwrap();
        turn(&mut server, &mut echo);
        assert!(matches!(quick.hear().unwrap(), Response::Status(_)));
    }
    let pending = server.clients.iter().map(Client::pending).max().unwrap();
    assert!(pending < HIGH_WATER + 4096, "{pending}");
    server.clients[0].moved_at = Instant::now().checked_sub(PATIENCE * 2).unwrap();
    turn(&mut server, &mut echo);
    assert_eq!(echo.closed.len(), 1, "its patience is over");
    assert_eq!(server.clients.len(), 1);
}

#[test]
fn a_client_is_not_read_while_its_stream_is_full() {
    let place = Place::new("full");
    let (mut server, mut echo) = (Server::bind(&place.0).unwrap(), Echo { full: true, ..Echo::default() });
    let mut client = Connection::open(&place.0).unwrap();
    let to = "192.0.2.1".parse().unwrap();
    client.say(&Request::Ping(Ping { to, count: None, interval_ms: 1, size: 1, timeout_ms: 1 })).unwrap();
    let data = Request::Data(Octets(b"more".to_vec()));
    client.say(&data).unwrap();
    turn(&mut server, &mut echo);
    assert_eq!(echo.asked.len(), 1, "the stream's first request opens it");
    assert!(!server.clients[0].interest().contains(PollFlags::IN));
    echo.full = false;
    turn(&mut server, &mut echo);
    assert_eq!(echo.asked[1..], [data]);

    // Past the third answer, which would be the last.
    echo.streams[0].1 = 3;
    echo.full = true;
    turn(&mut server, &mut echo);
    drop(client);
    turn(&mut server, &mut echo);
    assert_eq!(echo.closed.len(), 1, "one that hangs up is noticed without being read");
}

#[test]
fn other_descriptors_wake_the_control_thread() {
    let place = Place::new("wake");
    let (mut server, mut echo) = (Server::bind(&place.0).unwrap(), Echo::default());
    let (mut a, b) = UnixStream::pair().unwrap();
    assert!(!server.turn(Duration::from_millis(1), &[b.as_fd()], &mut echo).unwrap());
    a.write_all(b"x").unwrap();
    assert!(server.turn(Duration::from_secs(5), &[b.as_fd()], &mut echo).unwrap());
}
