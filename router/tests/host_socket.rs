//! A client of the control socket and a host on a cable, under real time: everything in between is the daemon's own
//! way, the router's thread apart.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use kern::{
    lock::Locking,
    time::{Clock, Duration},
};
use router::{
    control::{
        client::Connection,
        proto::{Nc, Octets, Ping, Request, Response},
        socket::{Handler, Outbox, Reply, Server, Session},
    },
    router::Setup,
    testbed::{
        Control, Testbed, Texts,
        peer::{self, Peer},
    },
};
use std::{path::PathBuf, thread::JoinHandle};

const CONF: &str = r#"
[router]
name = "one"
workers = 1
clusters = 1024
jumbos = 32
[[interface]]
name = "lan0"
driver = "link"
device = "lan"
address = ["192.0.2.1/24", "2001:db8:a::1/64"]
"#;

/// What the daemon does with requests about the host stack.
struct Daemon<'a> {
    control: &'a mut Control,
    bed: &'a mut Testbed,
}

impl Handler for Daemon<'_> {
    fn handle(&mut self, session: Session, request: Request) -> Reply {
        let sessions = &mut self.control.sessions;
        let reply = self.bed.with_root("one", |node, _| sessions.handle(session, request, &node.router));
        reply.unwrap_or_else(|_| Reply::Now(Response::Done("no stream is open".into())))
    }

    fn poll(&mut self, session: Session, out: &mut Outbox<'_>) {
        self.control.sessions.poll(session, out);
    }

    fn closed(&mut self, session: Session) {
        self.control.sessions.closed(session);
    }

    fn has_room(&self, session: Session) -> bool {
        self.control.sessions.has_room(session)
    }
}

struct Scene {
    bed: Testbed,
    control: Control,
    peer: Peer,
    server: Server,
    directory: PathBuf,
}

/// Who runs the worker, and under which locks.
#[derive(Clone, Copy)]
enum Worker {
    ByHand,
    Thread(Locking),
}

impl Scene {
    fn new(name: &str, worker: Worker) -> Scene {
        let mut bed = Testbed::with_clock(Clock::Real);
        let locking = match worker {
            Worker::ByHand => Locking::Fine,
            Worker::Thread(locking) => locking,
        };
        bed.add_with(Texts { conf: CONF, ..Texts::default() }, |setup| Setup { locking, ..setup }).unwrap();
        if matches!(worker, Worker::Thread(_)) {
            bed.node("one").router.start().unwrap();
        }
        let control = Control::of(&mut bed, "one");
        let v6 = "2001:db8:a::10".parse().unwrap();
        let host = peer::host([192, 0, 2, 10], v6, [192, 0, 2, 1].into(), "2001:db8:a::1".parse().unwrap());
        let peer = Peer::new(&host, bed.end("lan").unwrap(), &bed.clock.clone());
        let directory = std::env::temp_dir().join(format!("softnet-host-{}-{name}", std::process::id()));
        let server = Server::bind(&directory.join("s.sock")).unwrap();
        let mut scene = Scene { bed, control, peer, server, directory };
        scene.bed.run_with(Duration::from_millis(2500), &mut [&mut scene.peer]);
        scene
    }

    /// Runs everything until a client has finished; the control thread sleeps as the daemon's does.
    fn run<T>(&mut self, client: &JoinHandle<T>) {
        let patience = std::time::Instant::now() + Duration::from_mins(1);
        while !client.is_finished() {
            assert!(std::time::Instant::now() < patience, "the client waits for ever");
            let Scene { bed, control, peer, server, .. } = self;
            let wait = control.sessions.next_wait().min(Duration::from_millis(1));
            let shared = bed.node("one").router.shared().clone();
            server.turn(wait, &[shared.host.descriptor()], &mut Daemon { control, bed }).unwrap();
            bed.run_with(Duration::from_micros(100), &mut [control, peer]);
        }
    }

    fn client(&self) -> Connection {
        let client = Connection::open(self.server.path()).unwrap();
        client.set_patience(Some(Duration::from_secs(20))).unwrap();
        client
    }

    fn finish(self) {
        let Scene { mut bed, control, directory, server, .. } = self;
        drop(server);
        control.end(&mut bed);
        bed.finish();
        let _ = std::fs::remove_dir_all(directory);
    }
}

#[test]
fn a_client_pings() {
    let mut scene = Scene::new("ping", Worker::ByHand);
    let mut client = scene.client();
    let client = std::thread::spawn(move || {
        let to = "192.0.2.10".parse().unwrap();
        client
            .say(&Request::Ping(Ping { to, count: Some(20), interval_ms: 5, size: 56, timeout_ms: 1000 }))
            .unwrap();
        let mut answered = 0;
        loop {
            match client.hear().unwrap() {
                Response::Echo(echo) => answered += u32::from(echo.from.is_some()),
                Response::End => return answered,
                other => panic!("{other:?}"),
            }
        }
    });
    scene.run(&client);
    assert_eq!(client.join().unwrap(), 20);
    scene.finish();
}

/// A client sends and takes more than fits anywhere on the way.
fn transfer(name: &str, worker: Worker) {
    const SIZE: usize = 3 << 20;
    let mut scene = Scene::new(name, worker);
    let id = scene.peer.listen(5001, SIZE as u64);
    let mut client = scene.client();
    let client = std::thread::spawn(move || {
        let to = Some("2001:db8:a::10".parse().unwrap());
        client.say(&Request::Nc(Nc { to, port: 5001, udp: false })).unwrap();
        let speaker = client.speaker().unwrap();
        let said = std::thread::spawn(move || {
            for chunk in peer::stream(SIZE).chunks(8192) {
                speaker.say(&Request::Data(Octets(chunk.to_vec()))).unwrap();
            }
            speaker.say(&Request::Shut).unwrap();
        });
        let mut heard = Vec::new();
        // A client that is late to listen holds up the other end, and loses nothing.
        std::thread::sleep(Duration::from_millis(300));
        loop {
            match client.hear().unwrap() {
                Response::Connected(_) => {}
                Response::Data(Octets(octets)) => heard.extend(octets),
                Response::End => break,
                other => panic!("{other:?}"),
            }
        }
        said.join().unwrap();
        heard
    });
    scene.run(&client);
    assert!(client.join().unwrap() == peer::stream(SIZE), "what came is not what was sent");
    let bulk = scene.peer.bulk(id);
    assert_eq!((bulk.received, bulk.intact, bulk.failed), (SIZE as u64, true, false));
    if matches!(worker, Worker::Thread(_)) {
        let books = scene.bed.with_root("one", |node, root| node.router.audit(root)).unwrap();
        assert!(books.balanced(), "{books:#?}");
    }
    scene.finish();
}

#[test]
fn a_client_sends_and_takes_more_than_fits_anywhere() {
    transfer("nc", Worker::ByHand);
}

#[test]
fn a_worker_on_a_thread_of_its_own_takes_turns_with_the_stack_under_fine_and_giant_locks() {
    transfer("fine", Worker::Thread(Locking::Fine));
    transfer("giant", Worker::Thread(Locking::Giant));
}

#[test]
fn a_client_that_goes_while_it_is_held_up_is_noticed() {
    let mut scene = Scene::new("gone", Worker::ByHand);
    // A host that takes nothing: a UDP client with no one to send to keeps what it is given.
    let mut client = scene.client();
    let client = std::thread::spawn(move || {
        client.say(&Request::Nc(Nc { to: None, port: 6001, udp: true })).unwrap();
        let speaker = client.speaker().unwrap();
        // More than is kept for a stream, less than blocks the client for good.
        for _ in 0..160 {
            speaker.say(&Request::Data(Octets(vec![b'x'; 1000]))).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
        client
    });
    scene.run(&client);
    let client = client.join().unwrap();
    let is_open = |scene: &mut Scene| {
        scene.bed.node("one").router.shared().host.ports().is_open(router::host::Transport::Udp, 6001)
    };
    assert!(is_open(&mut scene));
    drop(client);
    let later = std::thread::spawn(|| std::thread::sleep(Duration::from_millis(200)));
    scene.run(&later);
    assert!(!is_open(&mut scene));
    scene.finish();
}
