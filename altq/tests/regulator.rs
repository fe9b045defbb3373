//! The regulator in virtual time: the long-run rate, and the bound in every window.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use altq::default_tbrsize;
use common::{Frame, Link, Random, fifo, snapshot, soak, worst_window};
use std::fmt::Write;

const RATES: [u64; 6] = [100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000];

/// Keeps the queue full until `frames` have left; `late` is the timer's error.
fn flood(rate: u64, size: impl Fn(u32) -> u32, frames: usize, mut late: impl FnMut() -> u64) -> Vec<Frame> {
    let depth = default_tbrsize(rate, 1500);
    let mut link = Link::new(fifo(rate, depth, 512), 1024);
    let mut seq = 0;
    while link.sent.len() < frames {
        while link.wakes_at().is_none() || (seq as usize - link.sent.len()) < 384 {
            link.send(0, size(seq), seq);
            seq += 1;
        }
        let wake = link.wakes_at().expect("a full queue waits for the regulator");
        let late = late();
        let mut once = Some(late);
        link.run_until_late(wake.after(late), || once.take().unwrap_or(u64::MAX));
    }
    assert!(link.dropped.is_empty());
    link.purge();
    std::mem::take(&mut link.sent)
}

/// Parts in a million by which the rate is off, from the first frame that had to wait to the last.
fn error_ppm(frames: &[Frame], rate: u64) -> f64 {
    let start = frames.iter().position(|f| f.at > frames[0].at).expect("the bucket runs dry");
    let bytes: u64 = frames[start..frames.len() - 1].iter().map(|f| u64::from(f.bytes)).sum();
    let nanos = frames.last().expect("frames left").at.nanos_since(frames[start].at);
    (bytes as f64 * 8e9 / nanos as f64 / rate as f64 - 1.0) * 1e6
}

#[test]
fn the_long_run_rate_is_the_configured_one_at_every_rate_and_size() {
    let mut table =
        String::from("rate b/s     size  tbrsize   frames  error ppm  worst window over rate, bytes\n");
    for rate in RATES {
        let depth = default_tbrsize(rate, 1500);
        for size in [64, 594, 1514] {
            let measure = |count| {
                let frames = flood(rate, |_| size, count, || 0);
                let (error, worst) = (error_ppm(&frames, rate), worst_window(&frames, rate));
                assert!(error.abs() < 1000.0, "{rate} b/s at {size}: {error} ppm");
                assert!(
                    worst <= u64::from(depth + size),
                    "{rate} b/s at {size}: {worst} bytes over the rate"
                );
                (frames, error, worst)
            };
            if soak() {
                measure(1_000_000);
            }
            let (frames, error, worst) = measure(20_000);
            writeln!(table, "{rate:<11} {size:>5} {depth:>8} {:>8} {error:>10.1} {worst:>8}", frames.len())
                .unwrap();
        }
    }
    snapshot("regulator.txt", &table);
}

#[test]
fn a_late_timer_costs_no_rate_while_the_bucket_does_not_overflow() {
    for rate in RATES {
        let depth = default_tbrsize(rate, 1500);
        // The bucket fills in this time; a timer that late loses nothing, for a frame was taken on credit.
        let fill = u64::from(depth) * 8_000_000_000 / rate;
        let mut random = Random::new(0x5eed_0001 ^ rate);
        let frames = flood(rate, |seq| 64 + seq * 7919 % 1451, 20_000, || random.below(fill));
        let (error, worst) = (error_ppm(&frames, rate), worst_window(&frames, rate));
        // What the bucket holds at the end is not sent yet.
        let seconds = frames.last().unwrap().at.nanos_since(frames[0].at) as f64 / 1e9;
        let slack = f64::from(depth + 1514) * 8.0 / (rate as f64 * seconds) * 1e6;
        assert!(error.abs() < 1000.0 + slack, "{rate} b/s: {error} ppm");
        assert!(worst <= u64::from(depth) + 1514, "{rate} b/s: {worst} bytes over the rate");
    }
}

#[test]
fn a_pause_gives_one_bucket_and_not_two() {
    let (rate, depth) = (10_000_000, 6000);
    let mut link = Link::new(fifo(rate, depth, 512), 1024);
    for round in 0..50 {
        // A quarter of a bucket, then a pause that fills it, then a flood: BSD's regulator would let two buckets out.
        link.send(0, 1500 - 20 * round, round);
        link.run_until(link.now.after(50_000_000));
        for seq in 0..20 {
            link.send(0, 1500, seq);
        }
        link.run_until(link.now.after(100_000_000));
    }
    let worst = worst_window(&link.sent, rate);
    assert!(worst <= u64::from(depth) + 1500, "{worst} bytes over the rate");
}

#[test]
fn a_super_frame_takes_the_time_of_its_segments() {
    let rate = 1_000_000_000;
    let mut link = Link::new(fifo(rate, 1514, 512), 64);
    let super_frame = |link: &Link, seq| {
        let mut m = link.frame(0, 66 + 40_000, seq);
        m.data_mut()[34 + 12] = 8 << 4;
        m.set_l4(34);
        m.set_gso(kern::Gso::Tcp4, 1448);
        m
    };
    assert_eq!(link.ifq.cut_threshold(), 125_000);
    for seq in 0..10 {
        let m = super_frame(&link, seq);
        assert!(!link.ifq.must_cut(&m));
        link.offer([m]);
    }
    link.run_until(link.now.after(1_000_000_000));
    let wire = 40_000 + 28 * 66;
    // The bucket's 1,514 bytes were full to begin with.
    let expected = (9 * wire - 1514) * 8 + 1;
    assert_eq!(link.sent.last().unwrap().at.nanos_since(link.sent[0].at), expected);
    let stats = link.stats();
    assert_eq!(stats.total().sent, altq::Tally { packets: 280, bytes: 10 * wire });
    assert!(stats.total().balanced());
}
