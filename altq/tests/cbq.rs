//! CBQ in virtual time: shares, borrowing, priorities, and the books.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use altq::{QueueFlags, QueueSpec, SchedulerKind, Tree};
use common::{
    Link, Random, as_default, bytes_of, finish, flood, four_frames, node, snapshot, soak, span, spec,
};
use kern::time::Instant;
use std::fmt::Write;

const SECOND: u64 = 1_000_000_000;

fn cbq(bandwidth: u64, queues: Vec<QueueSpec>) -> Tree {
    spec(SchedulerKind::Cbq, bandwidth, queues).build().expect("a tree")
}

fn with(flags: QueueFlags, queue: QueueSpec) -> QueueSpec {
    QueueSpec { flags: queue.flags.with(flags), ..queue }
}

fn at_priority(priority: u8, queue: QueueSpec) -> QueueSpec {
    QueueSpec { priority: Some(priority), ..queue }
}

#[test]
fn flooded_leaves_get_their_shares_within_two_per_cent_over_five_seconds() {
    let mut table = String::from("rate b/s    queue  share b/s  over 5 s  worst tenth\n");
    for (rate, seed) in [(1_000_000, 21), (10_000_000, 22), (100_000_000, 23)] {
        table += &shares(rate, seed, span(rate));
    }
    for (rate, seed) in [(1_000_000_000, 24), (10_000_000_000, 25)] {
        table += &shares(rate, seed, span(rate));
        if soak() {
            shares(rate, seed, 5 * SECOND);
        }
    }
    snapshot("cbq_shares.txt", &table);
}

/// Rows of the table; the figures hold over `span`, and more loosely over each tenth of it.
fn shares(rate: u64, seed: u64, span: u64) -> String {
    let part = |p: u64| rate / 100 * p;
    let queues = vec![
        node("a", 1, None, part(50)),
        node("a1", 2, Some("a"), part(35)),
        node("a2", 3, Some("a"), part(15)),
        node("b", 4, None, part(30)),
        as_default(node("c", 5, None, part(15))),
    ];
    let mut link = Link::new(cbq(rate, queues), 512);
    // The credit of the pause before is spent by then.
    let start = link.now.after(span);
    let end = start.after(span);
    flood(&mut link, &[2, 3, 4, 5], end, &mut Random::new(seed), four_frames(rate));
    let mut rows = String::new();
    for (name, qid, share) in
        [("a1", 2, part(35)), ("a2", 3, part(15)), ("b", 4, part(30)), ("c", 5, part(15))]
    {
        let error = |from: Instant, nanos: u64| {
            let got = bytes_of(&link.sent, qid, from, from.after(nanos)) as f64 * 8e9 / nanos as f64;
            // A packet more or less.
            let packet = 1514.0 * 8e9 / nanos as f64 / share as f64;
            (got / share as f64 - 1.0, packet)
        };
        let (long, packet) = error(start, span);
        assert!(long.abs() <= 0.02 + packet, "{rate} {name}: {long}");
        let short: Vec<_> = (0..10).map(|i| error(start.after(i * span / 10), span / 10)).collect();
        let worst = short.iter().map(|e| e.0.abs()).fold(0.0, f64::max);
        assert!(short.iter().all(|e| e.0.abs() <= 0.05 + 2.0 * e.1), "{rate} {name}: {short:?}");
        writeln!(rows, "{rate:<11} {name:<6} {share:>9}  {:>+7.2}%  {:>7.2}%", long * 100.0, worst * 100.0)
            .unwrap();
    }
    let stats = link.stats();
    assert!(stats.counters.iter().all(|c| c.borrows == 0), "nobody may borrow");
    assert!(stats.total().suspends > 100, "they had to wait for their rates");
    finish(link);
    rows
}

#[test]
fn a_borrower_takes_an_idle_sibling_s_share_within_200_ms_and_the_link_stays_full() {
    for (rate, seed) in [(1_000_000_u64, 31), (10_000_000, 32), (100_000_000, 33)] {
        let borrow = QueueFlags::BORROW;
        let mut link = Link::new(
            cbq(
                rate,
                vec![
                    with(borrow, node("a", 1, None, rate / 10 * 4)),
                    as_default(with(borrow, node("b", 2, None, rate / 10 * 6))),
                ],
            ),
            512,
        );
        let mut random = Random::new(seed);
        let step = 4 * 1514 * 8 * SECOND / rate;
        flood(&mut link, &[1, 2], Instant::from_secs(4), &mut random, step);
        // b stops; what it has is gone after ten of its packets.
        let idle = link.now;
        flood(&mut link, &[1], idle.after(2 * SECOND), &mut random, step);
        let drained = 10 * 1514 * 8 * SECOND / (rate / 10 * 6);
        let from = idle.after(200_000_000.max(drained));
        let taken = bytes_of(&link.sent, 1, from, from.after(SECOND)) as f64 * 8.0;
        assert!(taken >= rate as f64 * 0.98 - 1514.0 * 8.0, "{rate}: the borrower has {taken}");
        // b is back: it has its share again within 200 ms.
        let back = link.now;
        flood(&mut link, &[1, 2], back.after(2 * SECOND), &mut random, step);
        let from = back.after(200_000_000);
        let own = bytes_of(&link.sent, 2, from, from.after(SECOND)) as f64 * 8.0;
        assert!(own >= rate as f64 * 0.6 * 0.98 - 1514.0 * 8.0, "{rate}: it has {own}");
        let total =
            [1, 2].map(|q| bytes_of(&link.sent, q, Instant::from_secs(2), link.now)).iter().sum::<u64>();
        let seconds = link.now.nanos_since(Instant::from_secs(2)) as f64 / 1e9;
        assert!(total as f64 * 8.0 >= rate as f64 * seconds * 0.98, "{rate}: the link carried {total} bytes");
        assert!(link.stats().counters[1].borrows > 50);
        finish(link);
    }
}

#[test]
fn nobody_borrows_while_a_class_below_is_unsatisfied() {
    // High priority, small share, borrows: the low class must get its own first.
    let borrow = QueueFlags::BORROW;
    let mut link = Link::new(
        cbq(
            10_000_000,
            vec![
                at_priority(7, with(borrow, node("greedy", 1, None, 1_000_000))),
                at_priority(0, as_default(node("meek", 2, None, 8_000_000))),
            ],
        ),
        512,
    );
    let mut random = Random::new(41);
    flood(&mut link, &[1, 2], Instant::from_secs(6), &mut random, 2_000_000);
    let of = |q| bytes_of(&link.sent, q, Instant::from_secs(2), Instant::from_secs(6)) as f64 * 2.0 / 1e6;
    assert!((of(2) - 8.0).abs() < 0.16, "meek has {} Mb/s", of(2));
    assert!((of(1) - 2.0).abs() < 0.16, "greedy has {} Mb/s", of(1));
    finish(link);
}

#[test]
fn borrowing_prefers_the_nearest_ancestor() {
    // a1 and b borrow; a's spare goes to a1 before b gets any of it.
    let borrow = QueueFlags::BORROW;
    let mut link = Link::new(
        cbq(
            10_000_000,
            vec![
                with(borrow, node("a", 1, None, 6_000_000)),
                with(borrow, node("a1", 2, Some("a"), 2_000_000)),
                node("a2", 3, Some("a"), 4_000_000),
                as_default(with(borrow, node("b", 4, None, 4_000_000))),
            ],
        ),
        512,
    );
    let mut random = Random::new(51);
    flood(&mut link, &[2, 4], Instant::from_secs(6), &mut random, 2_000_000);
    let of = |q| bytes_of(&link.sent, q, Instant::from_secs(2), Instant::from_secs(6)) as f64 * 2.0 / 1e6;
    assert!((of(2) - 6.0).abs() < 0.15 && (of(4) - 4.0).abs() < 0.15, "a1 has {}, b has {}", of(2), of(4));
    finish(link);
}

#[test]
fn a_higher_priority_waits_less_at_the_same_rate() {
    let mut link = Link::new(
        cbq(
            10_000_000,
            vec![
                at_priority(5, node("fast", 1, None, 2_000_000)),
                at_priority(1, node("slow", 2, None, 2_000_000)),
                at_priority(3, as_default(with(QueueFlags::BORROW, node("bulk", 3, None, 5_000_000)))),
            ],
        ),
        512,
    );
    let mut random = Random::new(61);
    for n in 0..2_000_u64 {
        flood(
            &mut link,
            &[3],
            Instant::from_nanos(SECOND + n * 2_000_000 + random.below(500_000)),
            &mut random,
            500_000,
        );
        link.send(1, 400, n as u32);
        link.send(2, 400, n as u32);
    }
    link.run_until(link.now.after(SECOND));
    let delay = link.stats().counters;
    let (fast, slow) = (delay[1].delay, delay[2].delay);
    assert!(fast.p50 < slow.p50 && fast.p99 < slow.p99 && fast.max < slow.max, "{fast:?} {slow:?}");
    finish(link);
}

#[test]
fn efficient_sends_over_the_limit_rather_than_leave_the_link_idle() {
    for efficient in [false, true] {
        let flags = if efficient { QueueFlags::EFFICIENT } else { QueueFlags::empty() };
        let mut link = Link::new(
            cbq(
                10_000_000,
                vec![with(flags, node("a", 1, None, 2_000_000)), as_default(node("b", 2, None, 8_000_000))],
            ),
            512,
        );
        flood(&mut link, &[1], Instant::from_secs(5), &mut Random::new(71), 2_000_000);
        let got = bytes_of(&link.sent, 1, Instant::from_secs(2), Instant::from_secs(5)) as f64 * 8.0 / 3e6;
        let expected = if efficient { 10.0 } else { 2.0 };
        assert!((got - expected).abs() < expected * 0.02, "{got} Mb/s for {expected}");
        finish(link);
    }
}

#[test]
fn equals_in_a_round_share_what_is_left_by_weight() {
    let borrow = QueueFlags::BORROW;
    let mut link = Link::new(
        cbq(
            20_000_000,
            vec![
                with(borrow, node("a", 1, None, 2_000_000)),
                with(borrow, node("b", 2, None, 4_000_000)),
                as_default(with(borrow, node("c", 3, None, 2_000_000))),
            ],
        ),
        512,
    );
    flood(&mut link, &[1, 2], Instant::from_secs(6), &mut Random::new(81), 1_000_000);
    let of = |q| bytes_of(&link.sent, q, Instant::from_secs(2), Instant::from_secs(6)) as f64;
    let ratio = of(2) / of(1);
    assert!((ratio - 2.0).abs() < 0.1, "{ratio}");
    finish(link);
}
