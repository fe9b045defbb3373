//! Nanoseconds per call of what the packet path calls, beside etherparse and smoltcp on the same frames. `cargo bench -p wire`.

use std::{hint::black_box, time::Instant};

/// Best of several rounds: the least disturbed one.
fn measure(name: &str, mut call: impl FnMut()) {
    const CALLS: u32 = 20_000;
    let mut best = f64::MAX;
    for _ in 0..15 {
        let start = Instant::now();
        for _ in 0..CALLS {
            call();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    println!("{name:<48} {best:8.2} ns");
}

fn main() {
    let octets: Vec<u8> = (0..65_536_u32).map(|i| (i % 251) as u8).collect();
    let mut to = vec![0; 65_536];
    for len in [20, 40, 64, 576, 1400, 9000, 65_536] {
        measure(&format!("checksum::sum, {len} octets"), || {
            black_box(wire::checksum::sum(black_box(&octets[..len])));
        });
        measure(&format!("checksum::copy_and_sum, {len} octets"), || {
            black_box(wire::checksum::copy_and_sum(&mut to, black_box(&octets[..len])));
        });
    }
}
