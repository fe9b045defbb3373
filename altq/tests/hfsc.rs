//! HFSC in virtual time: shares, deadlines, upper limits, and the books.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use altq::{Counters, QueueSpec, SchedulerKind, Tree, TreeConf, worst_delay};
use common::{
    Link, Random, as_default, bytes_of, curve, finish, flood, four_frames, line, node, snapshot, soak, span,
    spec,
};
use kern::time::Instant;
use std::fmt::Write;

const SECOND: u64 = 1_000_000_000;

fn hfsc(bandwidth: u64, queues: Vec<QueueSpec>) -> Tree {
    spec(SchedulerKind::Hfsc, bandwidth, queues).build().expect("a tree")
}

#[test]
fn link_share_ratios_hold_within_one_per_cent_over_five_seconds() {
    let mut table = String::from("rate b/s    queue  share  measured share of its parent\n");
    for (rate, seed) in [(1_000_000, 21), (10_000_000, 22), (100_000_000, 23)] {
        table += &link_share(rate, seed, span(rate));
    }
    for (rate, seed) in [(1_000_000_000, 24), (10_000_000_000, 25)] {
        table += &link_share(rate, seed, span(rate));
        if soak() {
            link_share(rate, seed, 5 * SECOND);
        }
    }
    snapshot("hfsc_linkshare.txt", &table);
}

/// Rows of the table; the figures hold over `span`.
fn link_share(rate: u64, seed: u64, span: u64) -> String {
    let part = |p: u64| rate / 100 * p;
    let queues = vec![
        node("a", 1, None, part(60)),
        node("a1", 2, Some("a"), part(45)),
        node("a2", 3, Some("a"), part(15)),
        node("b", 4, None, part(30)),
        as_default(node("c", 5, None, part(10))),
    ];
    let mut link = Link::new(hfsc(rate, queues), 512);
    let start = link.now.after(span / 5);
    let end = start.after(span);
    flood(&mut link, &[2, 3, 4, 5], end, &mut Random::new(seed), four_frames(rate));
    let of = |q| bytes_of(&link.sent, q, start, end);
    let all = of(2) + of(3) + of(4) + of(5);
    let mut rows = String::new();
    for (name, qid, share) in [("a1", 2, 45), ("a2", 3, 15), ("b", 4, 30), ("c", 5, 10)] {
        let got = of(qid) as f64 / all as f64 * 100.0;
        writeln!(rows, "{rate:<11} {name:<6} {share:>4}%  {got:.3}%").unwrap();
        // At 1 Mb/s five seconds are 800 packets: one of them is more than 1 % of a tenth.
        let packet = 100.0 * 1514.0 * 2.0 / all as f64;
        let share = f64::from(share);
        assert!((got - share).abs() <= share / 100.0 + packet, "{rate} {name}: {got} % for {share} %");
    }
    let seconds = span as f64 / 1e9;
    assert!((all + 2 * 1514) as f64 * 8.0 >= rate as f64 * seconds * 0.999, "the link is busy");
    finish(link);
    rows
}

#[test]
fn every_real_time_packet_leaves_within_its_bound_while_all_others_are_flooded() {
    let mut table = String::from("rate b/s    bytes every ms  bound us  worst us\n");
    for (rate, m1, ms, m2, bytes, every, seed) in [
        (1_000_000_u64, 200_000, 10, 100_000, 200_u32, 20_u64, 31),
        (10_000_000, 1_000_000, 10, 100_000, 200, 20, 32),
        (10_000_000, 2_000_000, 2, 200_000, 200, 10, 33),
        (100_000_000, 10_000_000, 5, 1_000_000, 1000, 9, 34),
        (1_000_000_000, 50_000_000, 5, 5_000_000, 1000, 5, 35),
        (10_000_000_000, 200_000_000, 1, 20_000_000, 1500, 1, 36),
    ] {
        let tree = hfsc(
            rate,
            vec![
                QueueSpec { realtime: curve(m1, ms, m2), ..node("voice", 1, None, rate / 100) },
                QueueSpec { realtime: line(rate / 4), ..node("video", 2, None, rate / 4) },
                as_default(node("bulk", 3, None, rate / 2)),
            ],
        );
        let bound = bound_of(tree.conf(), "voice", bytes) + 1514 * 8 * SECOND / rate;
        let mut link = Link::new(tree, 512);
        let mut random = Random::new(seed);
        let start = link.now.nanos();
        for n in 0..400_u64 {
            flood(
                &mut link,
                &[2, 3],
                Instant::from_nanos(start + n * every * 1_000_000),
                &mut random,
                four_frames(rate).min(200_000),
            );
            link.send(1, bytes, n as u32);
        }
        link.run_until(link.now.after(SECOND));
        let voice: Vec<_> = link.sent.iter().filter(|f| f.queue == 1).collect();
        assert_eq!(voice.len(), 400);
        let worst = voice.iter().map(|f| f.waited()).max().unwrap();
        writeln!(table, "{rate:<11} {bytes:>5} {every:>8}  {:>8}  {:>8}", bound / 1000, worst / 1000)
            .unwrap();
        assert!(worst <= bound, "{rate}: waited {worst} ns, bound {bound} ns");
        // Without its curve it would have to wait for its share: the test must be able to fail.
        assert!(worst > 1514 * 8 * SECOND / rate / 4, "{rate}: nothing was in its way ({worst} ns)");
        finish(link);
    }
    snapshot("hfsc_realtime.txt", &table);
}

fn bound_of(conf: &TreeConf, name: &str, bytes: u32) -> u64 {
    let class = conf.classes.iter().find(|c| c.name == name).unwrap();
    worst_delay(conf, class, bytes).expect("a real-time curve")
}

#[test]
fn an_upper_limit_holds_within_one_per_cent_and_one_packet() {
    for (rate, limit, seed) in [
        (10_000_000_u64, 2_000_000_u64, 41),
        (100_000_000, 30_000_000, 42),
        (1_000_000_000, 300_000_000, 43),
        (10_000_000_000, 2_000_000_000, 44),
    ] {
        let span = if soak() { 5 * SECOND } else { span(rate) };
        let mut link = Link::new(
            hfsc(
                rate,
                vec![
                    QueueSpec { upperlimit: line(limit), ..node("a", 1, None, rate / 2) },
                    as_default(node("b", 2, None, rate / 2)),
                ],
            ),
            512,
        );
        let mut random = Random::new(seed);
        // Alone: the link is not full and it stays below. Beside another: still.
        for queues in [&[1][..], &[1, 2]] {
            let start = link.now.after(span / 5);
            flood(&mut link, queues, start.after(span), &mut random, four_frames(rate).min(500_000));
            let (end, seconds) = (link.now, span as f64 / 1e9);
            let got = bytes_of(&link.sent, 1, start, end) as f64 * 8.0 / seconds;
            let slack = limit as f64 / 100.0 + 1514.0 * 8.0 / seconds;
            assert!((got - limit as f64).abs() <= slack, "{got} b/s for {limit}");
        }
        let all = link.sent.iter().map(|f| u64::from(f.bytes)).sum::<u64>();
        assert!(all as f64 * 8.0 > rate as f64 * span as f64 / 1e9, "the other took the rest");
        finish(link);
    }
}

#[test]
fn a_curve_s_first_piece_lasts_as_long_as_it_says() {
    // 8 Mb/s for 50 ms, then 800 Kb/s, in a link of 10 Mb/s that another queue floods.
    let mut link = Link::new(
        hfsc(
            10_000_000,
            vec![
                QueueSpec { realtime: curve(7_000_000, 50, 800_000), ..node("a", 1, None, 1_000) },
                as_default(node("b", 2, None, 9_000_000)),
            ],
        ),
        1024,
    );
    let mut random = Random::new(51);
    let start = link.now.after(SECOND);
    flood(&mut link, &[2], start, &mut random, 500_000);
    flood(&mut link, &[1, 2], start.after(SECOND), &mut random, 500_000);
    let mut served = 0_u64;
    for frame in link.sent.iter().filter(|f| f.queue == 1) {
        let t = frame.at.nanos_since(start);
        let promised = 7_000_000 * t.min(50_000_000) + 800_000 * t.saturating_sub(50_000_000);
        let (promised, packet) = (promised / (8 * SECOND), 2 * 1514);
        assert!(served <= promised + packet, "{t} ns: {served} of {promised} bytes");
        served += u64::from(frame.bytes);
        assert!(served + packet + 1514 >= promised, "{t} ns: only {served} of {promised} bytes");
    }
    assert!(served > 100_000);
    finish(link);
}

#[test]
fn a_class_that_was_idle_claims_nothing_for_the_past() {
    let mut link = Link::new(
        hfsc(10_000_000, vec![node("a", 1, None, 5_000_000), as_default(node("b", 2, None, 5_000_000))]),
        512,
    );
    let mut random = Random::new(61);
    let t0 = link.now;
    flood(&mut link, &[1], t0.after(3 * SECOND), &mut random, 500_000);
    // b comes back after three seconds: half from the first 20 ms on, and a is not locked out.
    let back = link.now;
    flood(&mut link, &[1, 2], back.after(20_000_000), &mut random, 500_000);
    let end = link.now;
    let (a, b) = (bytes_of(&link.sent, 1, back, end), bytes_of(&link.sent, 2, back, end));
    assert!(a.abs_diff(b) <= 3 * 1514, "{a} and {b}");
    finish(link);
}

#[test]
fn four_thousand_classes_share_as_four_do() {
    let n = 4_095_u16;
    let mut queues: Vec<_> =
        (1..=n).map(|i| node(&format!("q{i}"), i, None, 100_000 + 100_000 * u64::from(i % 2))).collect();
    queues.push(as_default(node("rest", 4_096, None, 1_000_000)));
    let mut link = Link::new(hfsc(1_000_000_000, queues), 9_000);
    // Two packets each, in rounds; the odd ones are owed twice as much.
    let mut seq = 0;
    for _ in 0..2 {
        for i in 1..=n {
            link.send(i, 1000, seq);
            seq += 1;
        }
    }
    link.run_until(link.now.after(SECOND));
    assert_eq!(link.sent.len(), 2 * usize::from(n));
    // All start alike; then the odd ones, which are owed twice as much, send their second packet first.
    let third = &link.sent[usize::from(n)..usize::from(n) + usize::from(n) / 2];
    let odd = third.iter().filter(|f| f.queue % 2 == 1).count();
    assert!(odd * 10 > third.len() * 9, "{odd} of {}", third.len());
    assert!(link.stats().counters.iter().all(Counters::balanced));
}
