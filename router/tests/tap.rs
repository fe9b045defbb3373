//! TAP devices against the real kernel: two namespaces, a TAP in each, and a wire between our two ends.
//!
//! Runs where `SOFTNET_NET_TESTS` is set (`make test-net`); then root and `/dev/net/tun` must be there.

mod netns;

use kern::{Batch, Gso, PktFlags, Why, testing::Fixture};
use netns::{Namespace, available, run, unique};
use router::iface::{
    cut::{self, Cut},
    driver::{Driver, Read, RxCx, RxQueue, TxCx, Written},
    tap::{OpenError, Tap, TapConfig},
    vnet,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};
use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use wire::HashSeed;

const SEED: HashSeed = HashSeed::new(1, 2);

fn device(prefix: &str) -> String {
    format!("{prefix}{}", unique().replace('-', "x"))
}

fn open(prefix: &str, offload: bool) -> Tap {
    let config = TapConfig { offload, ..TapConfig::new(&device(prefix)) };
    Tap::open(config).expect("a TAP device")
}

/// Sleeps until a queue has something, for a while.
fn wait(queues: &[&dyn RxQueue], millis: i64) {
    let descriptors: Vec<_> = queues.iter().map(|q| q.descriptor().expect("a TAP queue has one")).collect();
    let mut fds: Vec<_> = descriptors.iter().map(|d| PollFd::new(d, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
    let _ = poll(&mut fds, Some(&timeout));
}

fn is_ready(queue: &dyn RxQueue) -> bool {
    let descriptor = queue.descriptor().expect("a TAP queue has one");
    let mut fds = [PollFd::new(&descriptor, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).expect("poll") > 0
}

/// What a router's later stages would have set.
fn describe(batch: &mut Batch) {
    for m in batch.iter_mut() {
        m.set_l3(14);
        let hash =
            wire::parse_frame(m.data()).ok().and_then(|f| f.ip.map(|ip| ip.hash(&m.data()[14..], &SEED)));
        m.hdr_mut().hash = hash.unwrap_or(0);
    }
}

/// What the wire does with super-frames between the taps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    /// They stay whole.
    Whole,
    /// They are cut, and put together again before the write.
    CutAndGathered,
}

#[derive(Debug, Default)]
struct Crossed {
    reads: u64,
    super_frames: u64,
    written: Written,
    ended: u64,
    /// Processor time of the wire's thread, both directions.
    cpu: Duration,
}

impl Crossed {
    fn add(&mut self, written: Written) {
        self.written.frames += written.frames;
        self.written.bytes += written.bytes;
        self.written.refused += written.refused;
    }
}

/// Cuts the super-frames of a batch into others, of which it writes each when it is full.
fn cut_and_write(from: &mut Batch, to: &Tap, side: &Fixture, crossed: &mut Crossed) {
    let cx = TxCx { pool: &side.pool, ledger: &side.ledger };
    let mut out = Batch::new();
    for mut m in from.drain() {
        if m.hdr().gso == Gso::None {
            cut::finish_checksum(&mut m).expect("a checked packet");
            m.hdr_mut().flags.clear(PktFlags::CSUM_OK);
            out.push(m).expect("room");
        } else {
            loop {
                let state = cut::cut(&mut m, cut::LIMIT, &side.pool, &side.ledger, &mut |mut segment| {
                    // As after ESP: nobody has verified it.
                    segment.hdr_mut().flags.clear(PktFlags::CSUM_OK);
                    out.push(segment).expect("room");
                });
                if out.room() < cut::LIMIT || state != Cut::More {
                    crossed.add(to.write(0, &mut out, &cx));
                }
                match state {
                    Cut::More => {}
                    Cut::Done => break side.ledger.merge(m),
                }
            }
        }
        if out.room() < cut::LIMIT {
            crossed.add(to.write(0, &mut out, &cx));
        }
    }
    crossed.add(to.write(0, &mut out, &cx));
}

/// One direction's turn.
fn cross(rx: &mut dyn RxQueue, to: &Tap, via: Via, side: &Fixture, crossed: &mut Crossed) -> bool {
    let mut batch = Batch::new();
    let state = rx.read(&RxCx { pool: &side.pool, ledger: &side.ledger }, 64, &mut batch);
    describe(&mut batch);
    crossed.reads += batch.len() as u64;
    crossed.super_frames += batch.iter().filter(|m| m.hdr().gso != Gso::None).count() as u64;
    let must_cut = batch.iter().any(|m| !vnet::takes(to.caps(), m.hdr().gso));
    if via == Via::CutAndGathered || must_cut {
        cut_and_write(&mut batch, to, side, crossed);
    } else {
        crossed.add(to.write(0, &mut batch, &TxCx { pool: &side.pool, ledger: &side.ledger }));
    }
    state == Read::More
}

/// A wire between two TAP devices, on a thread.
struct Wire {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<[Crossed; 2]>>,
}

impl Wire {
    fn between(a: Tap, b: Tap, via: Via) -> Wire {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let side = Fixture::with_jumbos(4096, 256);
            let mut magazines = side.magazines();
            let _entered = magazines.enter();
            let (mut from_a, mut from_b) = (a.rx(0).expect("first"), b.rx(0).expect("first"));
            let mut crossed = [Crossed::default(), Crossed::default()];
            while !asked.load(Ordering::Relaxed) {
                let more = cross(&mut *from_a, &b, via, &side, &mut crossed[0])
                    | cross(&mut *from_b, &a, via, &side, &mut crossed[1]);
                if !more {
                    wait(&[&*from_a, &*from_b], 20);
                }
            }
            drop((from_a, from_b));
            drop((a, b));
            let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            crossed[0].cpu = Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32);
            crossed[0].ended = side.ledger.balance().ended.iter().sum();
            crossed
        });
        Wire { stop, thread: Some(thread) }
    }

    /// Takes the wire down; the fixture in it checks its books.
    fn finish(mut self) -> [Crossed; 2] {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("finished once").join().expect("the wire's books balance")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Octet `at` of what is sent.
fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn serve(at: IpAddr, port: u16, total: u64, ready: &mpsc::Sender<()>) -> Result<(), u64> {
    let listener = TcpListener::bind((at, port)).expect("binds");
    ready.send(()).expect("somebody waits");
    let (mut stream, _) = listener.accept().expect("a connection");
    let (mut buffer, mut seen) = (vec![0; 1 << 18], 0);
    while seen < total {
        let n = stream.read(&mut buffer).expect("data");
        assert!(n > 0, "the connection ended after {seen} octets");
        for octet in &buffer[..n] {
            if *octet != pattern(seen) {
                return Err(seen);
            }
            seen += 1;
        }
    }
    stream.write_all(b"!").expect("an answer");
    Ok(())
}

fn send(to: IpAddr, port: u16, total: u64) -> Duration {
    let mut stream = TcpStream::connect((to, port)).expect("connects");
    let chunk: Vec<u8> = (0..total.min(1 << 20)).map(pattern).collect();
    let start = Instant::now();
    let mut sent = 0;
    while sent < total {
        let part: Vec<u8> =
            if sent == 0 { chunk.clone() } else { (sent..sent + chunk.len() as u64).map(pattern).collect() };
        let part = &part[..part.len().min((total - sent) as usize)];
        stream.write_all(part).expect("sends");
        sent += part.len() as u64;
    }
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("the far end has it all");
    start.elapsed()
}

/// Two hosts, and what goes over the wire between them.
struct Pair {
    left: Namespace,
    right: Namespace,
    wire: Wire,
}

impl Pair {
    fn new(offload: [bool; 2], via: Via) -> Pair {
        let (left, right) = (Namespace::new(), Namespace::new());
        let (a, b) = (open("sl", offload[0]), open("sr", offload[1]));
        left.adopt(a.device(), &["10.77.0.1/24", "fd77::1/64"]);
        right.adopt(b.device(), &["10.77.0.2/24", "fd77::2/64"]);
        Pair { left, right, wire: Wire::between(a, b, via) }
    }

    fn transfer(&self, to: &str, port: u16, total: u64) -> Duration {
        let to: IpAddr = to.parse().expect("an address");
        let (ready, is_ready) = mpsc::channel();
        let server = self.right.spawn(move || serve(to, port, total, &ready));
        is_ready.recv().expect("the server listens");
        let took = self.left.spawn(move || send(to, port, total)).join().expect("the sender");
        assert_eq!(server.join().expect("the server"), Ok(()), "first wrong octet");
        took
    }
}

#[test]
fn tcp_crosses_two_taps_intact_whole_cut_and_gathered_and_without_offloads() {
    if !available() {
        return;
    }
    let total = if std::env::var_os("SOFTNET_SOAK").is_some() { 2 << 30 } else { 48 << 20 };
    for (offload, via) in [
        ([true, true], Via::Whole),
        ([true, true], Via::CutAndGathered),
        ([false, false], Via::Whole),
        ([true, false], Via::Whole),
        ([false, true], Via::Whole),
    ] {
        let pair = Pair::new(offload, via);
        for (to, port) in [("10.77.0.2", 5001), ("fd77::2", 5002)] {
            let took = pair.transfer(to, port, total);
            let rate = total as f64 * 8.0 / took.as_secs_f64() / 1e9;
            println!("offload {offload:?} {via:?} to {to}: {rate:.2} Gb/s (patterns made and compared)");
        }
        let crossed = pair.wire.finish();
        let gigabits = crossed[0].written.bytes as f64 * 8.0 / 1e9;
        println!(
            "  {:.1} Gb per CPU-second of the wire; {crossed:?}",
            gigabits / crossed[0].cpu.as_secs_f64()
        );
        assert_eq!(crossed.iter().map(|c| c.written.refused).sum::<u64>(), 0, "{crossed:?}");
        assert_eq!(crossed[0].ended, 0);
        assert_eq!(crossed[0].super_frames > 100, offload[0], "{crossed:?}");
        assert!(crossed[0].written.bytes >= 2 * total, "{crossed:?}");
        assert!(crossed[0].written.frames >= 2 * total / 1460, "segments are counted, not super-frames");
    }
}

#[test]
fn datagrams_cross_two_taps_intact_and_checksummed() {
    if !available() {
        return;
    }
    for via in [Via::Whole, Via::CutAndGathered] {
        let pair = Pair::new([true, true], via);
        for to in ["10.77.0.2", "fd77::2"] {
            let to: IpAddr = to.parse().expect("an address");
            let (ready, is_ready) = mpsc::channel();
            let echo = pair.right.spawn(move || {
                let socket = UdpSocket::bind((to, 7)).expect("binds");
                ready.send(()).expect("somebody waits");
                let mut buffer = [0; 2000];
                for _ in 0..601 {
                    let (n, from) = socket.recv_from(&mut buffer).expect("a datagram");
                    socket.send_to(&buffer[..n], from).expect("sends");
                }
            });
            is_ready.recv().expect("the echo listens");
            let client = pair.left.spawn(move || {
                let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().expect("an address");
                let socket = UdpSocket::bind((any, 0)).expect("binds");
                socket.connect((to, 7)).expect("connects");
                socket.set_read_timeout(Some(Duration::from_secs(5))).expect("sets");
                // While the kernel resolves the address it does not promise order.
                socket.send(b"first").expect("sends");
                assert_eq!(socket.recv(&mut [0; 100]).expect("an echo"), 5);
                for round in 0..20_u64 {
                    // 30 at once, of one size but the last, so that there is something to put together.
                    for n in 0..30 {
                        let len = if n == 29 { 17 } else { 1200 };
                        let data: Vec<u8> = (0..len).map(|i| pattern(round * 30 + n + i)).collect();
                        socket.send(&data).expect("sends");
                    }
                    for n in 0..30 {
                        let mut buffer = [0; 2000];
                        let got = socket.recv(&mut buffer).expect("an echo");
                        let first_wrong = (0..got).find(|&i| buffer[i] != pattern(round * 30 + n + i as u64));
                        assert_eq!(first_wrong, None, "echo {n} of round {round}, {got} octets");
                    }
                }
            });
            client.join().expect("the client");
            echo.join().expect("the echo");
        }
        let crossed = pair.wire.finish();
        println!("{via:?}: {crossed:?}");
        assert_eq!(crossed[0].written.refused + crossed[1].written.refused, 0);
    }
}

/// Reads until something comes that `wanted` likes, for two seconds at most.
fn read_until(rx: &mut dyn RxQueue, side: &Fixture, mut wanted: impl FnMut(&[u8]) -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        let mut batch = Batch::new();
        rx.read(&RxCx { pool: &side.pool, ledger: &side.ledger }, 64, &mut batch);
        let found = batch.iter().any(|m| wanted(m.data()));
        side.ledger.end_all(&mut batch, Why::Sink);
        if found {
            return true;
        }
        wait(&[rx], 20);
    }
    false
}

/// Reads until nothing has come for a while: after a device came back, the kernel announces itself when it likes.
fn until_quiet(rx: &mut dyn RxQueue, side: &Fixture) {
    let start = Instant::now();
    let mut quiet = 0;
    while quiet < 10 {
        assert!(start.elapsed() < Duration::from_mins(1), "the device never falls silent");
        wait(&[rx], 20);
        quiet = if is_ready(rx) { 0 } else { quiet + 1 };
        let mut batch = Batch::new();
        rx.read(&RxCx { pool: &side.pool, ledger: &side.ledger }, 64, &mut batch);
        side.ledger.end_all(&mut batch, Why::Sink);
    }
}

fn write_one(tap: &Tap, queue: usize, side: &Fixture, frame: &[u8]) -> Written {
    let mut batch = Batch::new();
    batch.push(side.packet(frame)).expect("room");
    describe(&mut batch);
    tap.write(queue, &mut batch, &TxCx { pool: &side.pool, ledger: &side.ledger })
}

fn arp_for(target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 77, 0, 9]);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

fn is_arp_reply(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 6]) && frame.get(21) == Some(&2)
}

#[test]
fn a_deleted_device_is_gone_until_it_is_revived_and_then_works_on_the_same_queues() {
    if !available() {
        return;
    }
    let side = Fixture::new(256);
    let namespace = Namespace::new();
    let tap = open("sd", true);
    namespace.adopt(tap.device(), &["10.77.0.1/24"]);
    let mut rx = tap.rx(0).expect("first taker");
    let cx = RxCx { pool: &side.pool, ledger: &side.ledger };
    for life in 0..3 {
        assert_eq!(write_one(&tap, 0, &side, &arp_for([10, 77, 0, 1])).frames, 1);
        assert!(read_until(&mut *rx, &side, is_arp_reply), "life {life}");
        namespace.ip(&format!("link del {}", tap.device()));
        assert!(tap.is_up(), "nobody has noticed yet");
        wait(&[&*rx], 500);
        let mut batch = Batch::new();
        if life == 1 {
            assert_eq!(write_one(&tap, 0, &side, &arp_for([10, 77, 0, 1])).refused, 1);
        } else {
            assert_eq!(rx.read(&cx, 64, &mut batch), Read::Gone);
        }
        assert!(!tap.is_up());
        assert_eq!(rx.read(&cx, 64, &mut batch), Read::Gone);
        assert!(!is_ready(&*rx), "a device that is gone keeps nobody awake");
        let down = side.ledger.why(Why::IfDown);
        assert_eq!(write_one(&tap, 0, &side, &arp_for([10, 77, 0, 1])).refused, 1);
        assert_eq!(side.ledger.why(Why::IfDown), down + 1);
        assert!(tap.revive() && tap.is_up());
        namespace.adopt(tap.device(), &["10.77.0.1/24"]);
    }
    until_quiet(&mut *rx, &side);
    assert_eq!(write_one(&tap, 0, &side, &arp_for([10, 77, 0, 1])).frames, 1);
    wait(&[&*rx], 10_000);
    assert!(is_ready(&*rx), "what a worker sleeps on is in force again");
    assert!(read_until(&mut *rx, &side, is_arp_reply));
}

#[test]
fn a_device_cannot_be_revived_while_somebody_else_has_its_name() {
    if !available() {
        return;
    }
    let side = Fixture::new(256);
    let tap = open("sn", true);
    run(&format!("ip link del {}", tap.device()));
    run(&format!("ip tuntap add dev {} mode tun", tap.device()));
    let mut rx = tap.rx(0).expect("first taker");
    let mut batch = Batch::new();
    assert_eq!(rx.read(&RxCx { pool: &side.pool, ledger: &side.ledger }, 64, &mut batch), Read::Gone);
    assert!(!tap.revive());
    assert!(matches!(tap.reopen(), Err(OpenError::NotTap(_))));
    run(&format!("ip link del {}", tap.device()));
    assert!(tap.revive());
}

#[test]
fn the_kernel_end_being_down_is_no_loss_of_the_device() {
    if !available() {
        return;
    }
    let side = Fixture::new(256);
    let tap = open("sk", true);
    assert_eq!(write_one(&tap, 0, &side, &arp_for([10, 77, 0, 1])).refused, 1);
    assert_eq!(side.ledger.why(Why::IfDown), 1);
    assert!(tap.is_up());
    run(&format!("ip link set {} up", tap.device()));
    assert_eq!(write_one(&tap, 0, &side, &arp_for([10, 77, 0, 1])).frames, 1);
}

#[test]
fn each_way_to_fail_has_its_own_words() {
    if !available() {
        return;
    }
    let tap = open("se", true);
    let config = |device: &str| TapConfig::new(device);
    let error = |config: TapConfig| Tap::open(config).err().expect("refused");
    assert!(matches!(error(config(tap.device())), OpenError::InUse(_)));
    assert!(matches!(error(config("lo")), OpenError::NotTap(_)));
    assert!(matches!(error(config("a name with spaces")), OpenError::BadName(_)));
    assert!(matches!(error(TapConfig { queues: 0, ..config("sq0") }), OpenError::Queues(_, 0)));
    assert!(matches!(error(TapConfig { mtu: Some(10), ..config("sq1") }), OpenError::Mtu(_, 10, _)));
    let single = device("s1");
    run(&format!("ip tuntap add dev {single} mode tap"));
    assert!(matches!(error(config(&single)), OpenError::NotTap(_)));
    run(&format!("ip link del {single}"));
    let unprivileged = thread::spawn(move || {
        let none = rustix::thread::CapabilitySets {
            effective: rustix::thread::CapabilitySet::empty(),
            permitted: rustix::thread::CapabilitySet::empty(),
            inheritable: rustix::thread::CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, none).expect("gives up its rights");
        Tap::open(TapConfig::new("sq2")).err().expect("refused")
    });
    let refused = unprivileged.join().expect("the thread");
    assert!(matches!(refused, OpenError::Permission(_)), "{refused}");
    assert_eq!(
        error(config(tap.device())).to_string(),
        format!("TAP device \"{}\" is in use by another program", tap.device())
    );
}

#[test]
fn a_persistent_device_made_for_us_is_taken_over_and_keeps_its_mtu_unless_told() {
    if !available() {
        return;
    }
    let name = device("sp");
    run(&format!("ip tuntap add dev {name} mode tap multi_queue"));
    let mtu = || std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).expect("an MTU");
    let tap = Tap::open(TapConfig { queues: 2, ..TapConfig::new(&name) }).expect("it is free");
    assert_eq!(mtu().trim(), "1500");
    drop(tap);
    let tap = Tap::open(TapConfig { mtu: Some(9000), ..TapConfig::new(&name) }).expect("it is free again");
    assert_eq!(mtu().trim(), "9000");
    drop(tap);
    run(&format!("ip link del {name}"));
}

#[test]
fn answers_come_to_the_queue_that_the_flow_was_last_written_to() {
    if !available() {
        return;
    }
    let side = Fixture::new(512);
    let namespace = Namespace::new();
    let tap = Tap::open(TapConfig { queues: 2, ..TapConfig::new(&device("sm")) }).expect("a TAP device");
    namespace.adopt(tap.device(), &["10.77.0.1/24"]);
    namespace.ip(&format!("neigh add 10.77.0.9 lladdr 02:00:00:00:00:01 dev {}", tap.device()));
    let mut queues: Vec<_> = (0..2).map(|q| tap.rx(q).expect("first taker")).collect();
    assert!(tap.rx(0).is_none() && tap.rx(2).is_none());
    // The kernel's end tells its address by ARP.
    write_one(&tap, 0, &side, &arp_for([10, 77, 0, 1]));
    let mut mac = [0; 6];
    let mut learn = |frame: &[u8]| {
        mac.copy_from_slice(&frame[6..12]);
        is_arp_reply(frame)
    };
    assert!(read_until(&mut *queues[0], &side, &mut learn) || read_until(&mut *queues[1], &side, &mut learn));
    let echo = namespace.spawn(|| {
        let socket = UdpSocket::bind("10.77.0.1:7").expect("binds");
        let mut buffer = [0; 100];
        for _ in 0..16 {
            let (n, from) = socket.recv_from(&mut buffer).expect("a datagram");
            socket.send_to(&buffer[..n], from).expect("sends");
        }
    });
    thread::sleep(Duration::from_millis(100));
    for port in 9000..9016_u16 {
        let queue = usize::from(port % 2);
        let packet =
            wire::build::udp4([10, 77, 0, 9].into(), [10, 77, 0, 1].into(), port, 7, b"which queue?");
        let frame = wire::build::frame(wire::Mac(mac), wire::Mac([2, 0, 0, 0, 0, 1]), &packet);
        assert_eq!(write_one(&tap, queue, &side, &frame).frames, 1);
        let mine = |frame: &[u8]| frame.get(12..14) == Some(&[8, 0]) && frame[36..38] == port.to_be_bytes();
        assert!(read_until(&mut *queues[queue], &side, mine), "port {port} on queue {queue}");
    }
    echo.join().expect("the echo");
}
