//! What ESP costs beside its cipher: nanoseconds a packet, `esp_output` and `esp_input` on a run, and the cipher alone on
//! buffers of the same pool, in interleaved rounds.
//!
//! Each figure is what a tenth of the runs stay below; `added` is a difference of two. Also: what reserving and completing a run costs, and a policy lookup.

use ipsec::{
    Sad, Spd,
    esp::{LoopTurn, Releasing, input::esp_input, output::esp_output},
    order::Worker,
    sa::{Handling, Lifetime, Mode, Padding, Protocol, Sa, SaConfig, SaIndex, Setup, Spi},
    selector::{Prefix, Selector, Upper},
    spd::{Action, Direction, FlowCache, Level, Packet, Policy, Request},
    transform::{Engine, Suite, Transform},
};
use kern::{Batch, Class, Ledger, Owner, Pool, Why, lock::Root, mbuf::PoolConfig, secret::SecretBytes, time};
use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Instant,
};

const ROUNDS: usize = 11;
const SRC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const DST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

fn material(suite: Suite) -> Vec<u8> {
    (0..suite.material_len()).map(|i| i as u8).collect()
}

fn sa(suite: Suite, workers: usize) -> Arc<Sa> {
    let config = SaConfig {
        src: IpAddr::V4(SRC),
        dst: IpAddr::V4(DST),
        spi: Spi(0x1000),
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        inner: None,
        worker: None,
        encap: None,
        reqid: 0,
        suite,
        esn: false,
        replay: 1024,
        padding: Padding::Lenient,
        handling: Handling::default(),
        soft: Lifetime::default(),
        hard: Lifetime::default(),
    };
    let key = Arc::new(SecretBytes::copy_of(&material(suite)).expect("memory for a key"));
    let setup = Setup { workers, engine: Engine::Auto, ..Setup::new(time::Instant::from_secs(1)) };
    Arc::new(Sa::new(SaIndex(0), config, key, &setup).expect("a key of the right length"))
}

struct Bench {
    pool: Pool,
    ledger: Ledger,
    root: Root,
    owed: Releasing,
}

impl Bench {
    fn run(&self, packets: usize, len: usize) -> Batch {
        let mut run = Batch::new();
        let payload = vec![0x5a; len - 20];
        let header = wire::ipv4::Repr {
            src: Ipv4Addr::new(192, 0, 2, 1),
            dst: Ipv4Addr::new(198, 51, 100, 1),
            ..Default::default()
        };
        let bytes = wire::build::raw4(header, &payload);
        for _ in 0..packets {
            let class = if len > 1700 { Class::Jumbo } else { Class::Cluster };
            let Some(mut m) = self.pool.alloc(class, Owner::Control) else { break };
            if let Ok(room) = m.append(len) {
                room.copy_from_slice(&bytes);
            }
            self.ledger.receive(&mut m);
            if let Err(m) = run.push(m) {
                self.ledger.end(m, Why::Sink);
                break;
            }
        }
        run
    }

    /// One pass out and in again; seconds of each. What comes out of `esp_input` is what went into `esp_output`.
    fn esp(&mut self, sa: &Arc<Sa>, run: &mut Batch) -> (f64, f64) {
        let ledger = &self.ledger;
        let mut turn =
            LoopTurn { worker: Worker(0), now: time::Instant::from_secs(2), releasing: &mut self.owed };
        let start = Instant::now();
        let sent =
            esp_output(sa, run, usize::MAX, &mut turn, &mut self.root.top(), |m, why| ledger.end(m, why));
        let middle = Instant::now();
        for m in run.iter_mut() {
            m.set_l4(20);
        }
        let then = Instant::now();
        let received = esp_input(sa, run, &mut turn, &mut self.root.top(), |m, why| ledger.end(m, why));
        let end = Instant::now();
        assert!(sent > 0 && received.is_ok());
        self.owed.written_output(|_| Some(sa), &mut Batch::new(), 256);
        let now = time::Instant::from_secs(2);
        self.owed.written_input(Worker(0), now, &mut Batch::new(), &mut self.root.top(), |m, why| {
            ledger.end(m, why);
        });
        ((middle - start).as_secs_f64(), (end - then).as_secs_f64())
    }
}

/// The cipher alone, on packets laid out as ESP's.
fn raw(transform: &Transform, run: &mut Batch, next: &mut u64) -> (f64, f64) {
    let first = *next;
    *next += run.len() as u64;
    let start = Instant::now();
    let failed =
        transform.seal_run(run.iter_mut().zip(first..).map(|(m, seq)| (&mut m.data_mut()[20..], seq, seq)));
    let middle = Instant::now();
    let refused =
        transform.open_run(run.iter_mut().zip(first..).map(|(m, seq)| (&mut m.data_mut()[20..], seq)));
    let end = Instant::now();
    assert!(!black_box(failed).any() && !black_box(refused).any());
    ((middle - start).as_secs_f64(), (end - middle).as_secs_f64())
}

/// What a tenth of the runs stay below: a run that was interrupted says nothing.
fn quick(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 10]
}

fn measure(bench: &mut Bench, suite: Suite, size: usize, packets: usize, workers: usize) {
    let sa = sa(suite, workers);
    let transform = Transform::new(suite, Engine::Auto, &material(suite), false).expect("a key");
    let mut run = bench.run(packets, size);
    // Outer header, ESP header, IV, trailer and ICV around the inner packet.
    let pad = (size + 2).wrapping_neg() % 4;
    let mut laid_out = bench.run(packets, 36 + size + pad + 2 + 16);
    let (mut next, turns) = (1, 400_000 / (size + 200) * 64 / packets);
    let mut samples: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS * turns {
        let (out, inbound) = bench.esp(&sa, &mut run);
        let (seal, open) = raw(&transform, &mut laid_out, &mut next);
        assert_eq!(run.len(), packets);
        for (all, part) in samples.iter_mut().zip([out, inbound, seal, open]) {
            all.push(part * 1e9 / packets as f64);
        }
    }
    let [out, inbound, seal, open] = samples.each_mut().map(|s| quick(s));
    println!(
        "{:18} {size:5} run {packets:2} workers {workers}   out {out:6.1} cipher {seal:6.1} added {:5.1}   \
         in {inbound:6.1} cipher {open:6.1} added {:5.1}",
        suite.to_string(),
        out - seal,
        inbound - open,
    );
    bench.ledger.end_all(&mut run, Why::Sink);
    bench.ledger.end_all(&mut laid_out, Why::Sink);
}

fn policy(id: u32, dst: Ipv4Addr, len: u8) -> Policy {
    let any = Prefix::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0).expect("0 fits");
    let tunnel = Request::tunnel(IpAddr::V4(SRC), IpAddr::V4(DST), Level::Require);
    Policy {
        id,
        direction: Direction::Out,
        selector: Selector {
            src: any.into(),
            dst: Prefix::new(IpAddr::V4(dst), len).expect("a prefix length").into(),
            upper: Upper::Any,
        },
        action: Action::Protect([tunnel].into()),
    }
}

/// Policies for as many networks as can be, in three shapes; packets for networks all over the list, one in four for
/// none.
fn lookup(policies: u32) {
    let sad = Sad::new([sa(Suite::Aes128Gcm16, 1)]);
    let net = |i: u32| Ipv4Addr::from_bits(0x0a00_0000 | i << 8);
    let lens = [24, 28, 32];
    let list: Vec<_> = (0..policies).map(|i| policy(i + 1, net(i), lens[i as usize % 3])).collect();
    let spd = Spd::new(list, &sad);
    let packets: Vec<_> = (0..4096u32)
        .map(|i| {
            let to = if i % 4 == 0 {
                Ipv4Addr::new(11, 0, 0, 1)
            } else {
                net(i.wrapping_mul(2_654_435_761) % policies.max(1))
            };
            wire::build::udp4(Ipv4Addr::new(192, 0, 2, 1), to, 1, 2, b"")
        })
        .collect();
    // Every packet its own flow, 4,096 of them in a cache of 1,024; then 256 flows again and again.
    for (what, flows) in [("new flows", 4096), ("known flows", 256)] {
        let (mut best, mut cache) = (f64::INFINITY, FlowCache::new());
        for _ in 0..ROUNDS * 4 {
            let start = Instant::now();
            for p in packets.iter().cycle().take(flows).cycle().take(packets.len()) {
                black_box(spd.lookup_out(&Packet::of(black_box(p)), &mut cache));
            }
            best = best.min(start.elapsed().as_secs_f64() * 1e9 / packets.len() as f64);
        }
        println!("policy lookup, {policies:5} policies, {what}: {best:.1} ns");
    }
}

fn main() {
    let pool = Pool::new(PoolConfig { clusters: 1024, jumbos: 160 }).expect("memory for packets");
    let mut bench =
        Bench { pool, ledger: Ledger::new(), root: Root::claim(), owed: Releasing::with_capacity(8) };
    for suite in Suite::ALL {
        for size in [64, 570, 1400] {
            measure(&mut bench, suite, size, 64, 1);
        }
    }
    for size in [64, 1400] {
        measure(&mut bench, Suite::Aes128Gcm16, size, 8, 2);
    }
    for policies in [0, 1, 4, 16, 256, 10_000] {
        lookup(policies);
    }
}
