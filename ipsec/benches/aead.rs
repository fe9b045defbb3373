//! What sealing costs, by engine, suite and size: nanoseconds a packet, the least and the median of interleaved rounds.
//!
//! A run of 64 packets of a working set that fits into the second-level cache, in place, as ESP does it. Every engine
//! gets its turn in every round, so that a busy machine is unfair to all of them alike. `Engine::Auto` is chosen from
//! this table.

use ipsec::transform::{Engine, RUN, Suite, Transform};
use std::{hint::black_box, time::Instant};

const SIZES: [usize; 4] = [64, 570, 1400, 8900];
const ROUNDS: usize = 9;

/// One engine's packets and figures for one suite and size.
struct Lane {
    transform: Transform,
    packets: Vec<Vec<u8>>,
    next: u64,
    seal: Vec<f64>,
    open: Vec<f64>,
}

impl Lane {
    fn new(suite: Suite, engine: Engine, size: usize) -> Lane {
        let material = vec![0x5a; suite.material_len()];
        let transform = Transform::new(suite, engine, &material, false).expect("a key of the right length");
        let packets = (0..RUN).map(|i| vec![i as u8; 16 + size + 16]).collect();
        Lane { transform, packets, next: 1, seal: Vec::new(), open: Vec::new() }
    }

    fn round(&mut self, turns: usize) {
        let (mut sealing, mut opening) = (0.0, 0.0);
        for _ in 0..turns {
            let first = self.next;
            self.next += RUN as u64;
            let start = Instant::now();
            let jobs = self.packets.iter_mut().zip(first..).map(|(p, seq)| (&mut p[..], seq, seq));
            let failures = self.transform.seal_run(jobs);
            let middle = Instant::now();
            let jobs = self.packets.iter_mut().zip(first..).map(|(p, seq)| (&mut p[..], seq));
            let refused = self.transform.open_run(jobs);
            sealing += (middle - start).as_secs_f64();
            opening += middle.elapsed().as_secs_f64();
            assert!(!black_box(failures).any() && !black_box(refused).any());
        }
        let packets = (turns * RUN) as f64;
        self.seal.push(sealing * 1e9 / packets);
        self.open.push(opening * 1e9 / packets);
    }
}

fn least_and_median(samples: &mut [f64]) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    (samples[0], samples[samples.len() / 2])
}

fn main() {
    println!("ns a packet: least / median of {ROUNDS} interleaved rounds");
    for suite in Suite::ALL {
        for size in SIZES {
            let mut lanes: Vec<_> = Engine::ALL.iter().map(|&e| Lane::new(suite, e, size)).collect();
            let turns = (400_000 / (size + 200)).max(20);
            for _ in 0..ROUNDS {
                for lane in &mut lanes {
                    lane.round(turns);
                }
            }
            for lane in &mut lanes {
                let (seal, open) = (least_and_median(&mut lane.seal), least_and_median(&mut lane.open));
                println!(
                    "{:18} {size:5}  {:10}  seal {:6.0} / {:6.0}   open {:6.0} / {:6.0}",
                    suite.to_string(),
                    lane.transform.engine().name(),
                    seal.0,
                    seal.1,
                    open.0,
                    open.1,
                );
            }
        }
    }
}
