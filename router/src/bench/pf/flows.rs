//! The flows: TCP connections from hosts at the source to hosts behind the sink, and how their states come to be.

use super::super::{
    bed::Bed,
    frames::{ETHER, HOST},
    source::Generator,
};
use crate::route::bench::Random;
use kern::{Class, Mbuf, Owner, Why, lock::Root};
use pf::{Direction, IfIndex, PfCx, Verdict};
use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};
use wire::{EtherType, Mac, build, checksum, ether, tcp};

/// Networks that the flows go to, each a route of its own.
pub(super) const ROUTES: usize = 256;
/// Bytes of the IP packet.
pub(super) const SIZE: usize = 64;
/// The port that every flow goes to.
pub(super) const PORT: u16 = 443;

/// One connection.
#[derive(Clone, Copy)]
struct Flow {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    port: u16,
}

impl Flow {
    fn of(n: u32) -> Flow {
        Flow {
            src: Ipv4Addr::new(10, 0, 0, 2 + (n % 250) as u8),
            dst: Ipv4Addr::new(20, 0, (n.wrapping_mul(7919) % ROUTES as u32) as u8, 9),
            port: 1024 + (n / 250) as u16,
        }
    }

    /// A segment from the client, or to it.
    fn segment(self, from_client: bool, seq: u32, ack: u32, flags: tcp::Flags, len: usize) -> Vec<u8> {
        let (src, dst, src_port, dst_port) = if from_client {
            (self.src, self.dst, self.port, PORT)
        } else {
            (self.dst, self.src, PORT, self.port)
        };
        let header =
            tcp::Repr { src_port, dst_port, seq, ack, flags, window: 60_000, ..tcp::Repr::default() };
        build::tcp4(src, dst, &header, &vec![0; len])
    }

    /// What it sends over and over once it is established.
    fn data(self) -> Vec<u8> {
        self.segment(true, 1001, 5001, tcp::Flags::ACK, SIZE - 40)
    }

    /// A handshake, as pf sees it at both interfaces.
    fn handshake(self) -> [(bool, Vec<u8>); 3] {
        use tcp::Flags;
        [
            (true, self.segment(true, 1000, 0, Flags::SYN, 0)),
            (false, self.segment(false, 5000, 1001, Flags::SYN | Flags::ACK, 0)),
            (true, self.segment(true, 1001, 5001, Flags::ACK, 0)),
        ]
    }
}

/// Opens connections through both hooks of a router's pf: two states each. Says how many states there are then.
pub(super) fn establish(bed: &Bed, flows: u32, root: &mut Root) -> Result<u32, String> {
    let (router, shared) = (&bed.router, bed.router.shared());
    let net = router.net();
    let index = |name: &str| net.named(name).map(|i| IfIndex(i.index.0)).ok_or("an interface is missing");
    let (src, dst, rules) = (index("src")?, index("dst")?, net.pf.as_deref().ok_or("pf is off")?);
    let ledger = &router.own_stats().ledger;
    let mut worker = shared.pf.worker(0);
    let mut held = root.top();
    let mut pf = PfCx::new(&shared.pf, rules, &mut worker, held.at(), shared.clock.now());
    for (from_client, octets) in (0..flows).flat_map(|n| Flow::of(n).handshake()) {
        let mut m = shared.pool.alloc(Class::Cluster, Owner::Control).ok_or("no buffer is left")?;
        m.append(octets.len()).map_err(|_| "a segment does not fit")?.copy_from_slice(&octets);
        ledger.receive(&mut m);
        (m.hdr_mut().family, m.hdr_mut().proto) = (4, 6);
        let hooks = if from_client { [src, dst] } else { [dst, src] };
        let passes = [Direction::In, Direction::Out]
            .into_iter()
            .zip(hooks)
            .all(|(direction, at)| matches!(pf.test(direction, at, &mut m), Verdict::Pass(_)));
        ledger.end(m, Why::Sink);
        if !passes {
            return Err("pf refuses a segment of a handshake".to_owned());
        }
    }
    Ok(shared.pf.states().count())
}

/// Which flows a worker's source draws from: every `step`-th from `first` on.
#[derive(Default)]
pub(super) struct Share {
    first: AtomicU32,
    step: AtomicU32,
}

impl Share {
    pub(super) fn set(&self, first: u32, step: u32) {
        self.first.store(first, Relaxed);
        self.step.store(step, Relaxed);
    }
}

/// Frames of flows drawn at random, each as likely as any other of the share.
pub(super) struct Drawn {
    template: Vec<u8>,
    /// Sums of the headers of the template without addresses and source port.
    sums: (u32, u32),
    flows: u32,
    share: Arc<Share>,
    random: Random,
}

impl Drawn {
    pub(super) fn new(to: Mac, flows: u32, share: Arc<Share>, seed: u64) -> Drawn {
        let nobody = Flow { src: Ipv4Addr::UNSPECIFIED, dst: Ipv4Addr::UNSPECIFIED, port: 0 };
        let mut template = vec![0; ETHER];
        if let Some(header) = template.first_chunk_mut() {
            ether::write_header(header, to, HOST, EtherType::IPV4);
        }
        template.extend(nobody.data());
        // The complement of a checksum is the sum of what it covers.
        let sum = |at: usize| u32::from(!u16::from_be_bytes([template[at], template[at + 1]]));
        let sums = (sum(IP + 10), sum(TCP + 16));
        Drawn { template, sums, flows, share, random: Random::new(seed) }
    }
}

const IP: usize = ETHER;
const TCP: usize = ETHER + 20;

impl Generator for Drawn {
    #[inline]
    fn next(&mut self, m: &mut Mbuf) {
        let (first, step) = (self.share.first.load(Relaxed), self.share.step.load(Relaxed).max(1));
        let all = self.flows.saturating_sub(first).div_ceil(step).max(1);
        let flow = Flow::of(first + step * self.random.below(u64::from(all)) as u32);
        let Ok(frame) = m.append(self.template.len()) else { return };
        frame.copy_from_slice(&self.template);
        let (src, dst, port) = (flow.src.octets(), flow.dst.octets(), flow.port.to_be_bytes());
        frame[IP + 12..IP + 16].copy_from_slice(&src);
        frame[IP + 16..IP + 20].copy_from_slice(&dst);
        frame[TCP..TCP + 2].copy_from_slice(&port);
        let addresses = checksum::sum(&frame[IP + 12..IP + 20]);
        let ip = checksum::finish(self.sums.0 + addresses);
        let tcp = checksum::finish(self.sums.1 + addresses + u32::from(flow.port));
        frame[IP + 10..IP + 12].copy_from_slice(&ip.to_be_bytes());
        frame[TCP + 16..TCP + 18].copy_from_slice(&tcp.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::testing::Fixture;
    use std::collections::HashSet;

    #[test]
    fn drawn_frames_are_those_of_the_flows_of_the_share_with_good_checksums() {
        let fixture = Fixture::new(8);
        let share = Arc::new(Share::default());
        let mut drawn = Drawn::new(Mac([2; 6]), 1000, Arc::clone(&share), 7);
        for (first, step) in [(0, 1), (1, 2)] {
            share.set(first, step);
            let wanted: HashSet<Vec<u8>> =
                (first..1000).step_by(step as usize).map(|n| Flow::of(n).data()).collect();
            let mut seen = HashSet::new();
            for _ in 0..20_000 {
                let mut m = fixture.packet(&[]);
                drawn.next(&mut m);
                assert!(wanted.contains(&m.data()[ETHER..]));
                seen.insert(m.data()[ETHER..].to_vec());
                fixture.done(m);
            }
            assert_eq!(seen, wanted);
        }
    }
}
