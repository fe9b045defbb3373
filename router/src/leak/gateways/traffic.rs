//! Traffic between the hosts behind the gateways: datagrams that come back, and streams each way. Plain sockets of the kernel.

use super::{
    Refused,
    room::{Room, joined},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Octets of a datagram: with what the tunnel adds, one frame.
const DATAGRAM: usize = 1000;
/// Datagrams of a flow on their way at once.
const WINDOW: u32 = 32;
/// How long is waited before looking round.
const ANSWER: Duration = Duration::from_millis(200);
/// How long a flow or a stream may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Octets written at once.
const BLOCK: usize = 65_536;

/// What came through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Carried {
    /// Datagrams that came back.
    pub echoed: u64,
    /// Octets of streams that arrived.
    pub octets: u64,
}

/// A host: its room, its addresses by family.
#[derive(Clone, Copy)]
pub(super) struct Host<'a> {
    /// Where it is.
    pub(super) room: &'a Room,
    /// IPv4, IPv6.
    pub(super) at: [IpAddr; 2],
}

/// When to give up.
#[derive(Clone)]
struct Limit {
    until: Instant,
    stop: Arc<AtomicBool>,
}

impl Limit {
    fn new(stop: &Arc<AtomicBool>) -> Limit {
        Limit { until: Instant::now() + PATIENCE, stop: Arc::clone(stop) }
    }

    fn is_over(&self) -> bool {
        Instant::now() > self.until || self.stop.load(Ordering::Acquire)
    }
}

/// How much is to be carried: datagrams in `flows` flows, half of them for each family; a stream each way and family.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Datagrams.
    pub datagrams: u32,
    /// Flows.
    pub flows: u16,
    /// Octets of a stream.
    pub octets: u64,
}

/// Has `a` and `b` talk to each other until `load` has been carried, or time is up.
pub(super) fn talk(a: Host<'_>, b: Host<'_>, load: Load, stop: &Arc<AtomicBool>) -> Result<Carried, Refused> {
    let mut carried = Carried::default();
    for family in 0..2 {
        let each = load.datagrams.div_ceil(2 * u32::from(load.flows));
        let ends = [(a.room, a.at[family]), (b.room, b.at[family])];
        let flows: Vec<_> = (0..load.flows)
            .map(|n| echo(ends, 4000 + n, each, Limit::new(stop)))
            .collect::<Result<_, _>>()?;
        for flow in flows {
            carried.echoed += joined(flow)?;
        }
        for [from, to] in [ends, [ends[1], ends[0]]] {
            carried.octets += stream(from.0, to, load.octets, &Limit::new(stop))?;
        }
    }
    Ok(carried)
}

type End<'a> = (&'a Room, IpAddr);

/// One flow: the second sends back what the first sends, until `count` have come back.
fn echo(
    ends: [End<'_>; 2],
    port: u16,
    count: u32,
    limit: Limit,
) -> Result<JoinHandle<Result<u64, Refused>>, Refused> {
    let [(here, mine), (there, theirs)] = ends;
    let patience = limit.clone();
    let server = there.spawn(move || {
        serve(&socket(theirs, port)?, &patience);
        Ok(())
    })?;
    here.spawn(move || {
        let socket = socket(mine, port)?;
        socket.connect((theirs, port)).map_err(|e| Refused::of("connect", e))?;
        let mut buffer = [0; DATAGRAM];
        let mut back = 0;
        while back < count && !limit.is_over() {
            let burst = WINDOW.min(count - back);
            for _ in 0..burst {
                // A neighbour that is not known yet, or a full queue: more come in the next burst.
                let _ = socket.send(&buffer);
            }
            back += (0..burst).map_while(|_| socket.recv(&mut buffer).ok()).count() as u32;
        }
        // One octet says that this was all; any of three will do.
        for _ in 0..3 {
            let _ = socket.send(&[0]);
        }
        joined(server)?;
        Ok(back.into())
    })
}

fn serve(socket: &UdpSocket, limit: &Limit) {
    let mut buffer = [0; DATAGRAM];
    while !limit.is_over() {
        match socket.recv_from(&mut buffer) {
            Ok((1, _)) => break,
            // What is lost here is made up for in the next burst.
            Ok((n, from)) => drop(socket.send_to(buffer.get(..n).unwrap_or_default(), from)),
            Err(_) => {}
        }
    }
}

fn socket(at: IpAddr, port: u16) -> Result<UdpSocket, Refused> {
    let socket = UdpSocket::bind((at, port)).map_err(|e| Refused::of("bind", e))?;
    socket.set_read_timeout(Some(ANSWER)).map_err(|e| Refused::of("bind", e))?;
    Ok(socket)
}

/// A TCP stream; how much of it arrived.
fn stream(from: &Room, to: End<'_>, octets: u64, limit: &Limit) -> Result<u64, Refused> {
    let at = SocketAddr::new(to.1, 5000);
    let failed = |e: std::io::Error| Refused::of("a stream through the tunnel", e);
    let listener = to.0.within(move || TcpListener::bind(at).map_err(failed))?;
    listener.set_nonblocking(true).map_err(failed)?;
    let sender = from.spawn(move || {
        let mut stream = TcpStream::connect_timeout(&at, PATIENCE).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let (block, mut left) = (vec![0x5a; BLOCK], octets as usize);
        while left > 0 {
            let some = left.min(BLOCK);
            stream.write_all(&block[..some]).map_err(failed)?;
            left -= some;
        }
        Ok(())
    })?;
    let mut arrived = 0;
    if let Some(stream) = accept(&listener, limit).map_err(failed)? {
        arrived = swallow(stream, limit).map_err(failed)?;
    }
    joined(sender)?;
    Ok(arrived)
}

fn accept(listener: &TcpListener, limit: &Limit) -> std::io::Result<Option<TcpStream>> {
    while !limit.is_over() {
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(2)),
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

fn swallow(mut stream: TcpStream, limit: &Limit) -> std::io::Result<u64> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let (mut block, mut arrived) = (vec![0; BLOCK], 0);
    while !limit.is_over() {
        match stream.read(&mut block) {
            Ok(0) => break,
            Ok(n) => arrived += n as u64,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(arrived)
}
