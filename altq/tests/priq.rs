//! PRIQ in virtual time: strictness, starvation, and what the high queue waits.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{Link, Random, default_queue, priq, queue, soak};
use kern::Why;

#[test]
fn the_high_queue_loses_nothing_and_waits_two_frame_times_and_the_bucket_at_most() {
    for (rate, seed) in [(1_000_000, 11), (10_000_000, 12), (100_000_000, 13), (1_000_000_000, 14)] {
        let mut random = Random::new(seed);
        let tree = priq(
            rate,
            vec![queue("high", 1, 15, 50), queue("mid", 2, 7, 50), default_queue("low", 3, 1, 50)],
        );
        let bucket = u64::from(tree.conf().tbrsize);
        let mut link = Link::new(tree, 512);
        let frame_time = 1514 * 8_000_000_000 / rate;
        let mut highs = 0;
        for seq in 0..if soak() { 1_000_000 } else { 20_000 } {
            // The low queues get twice what the link carries, the high one about a tenth of it.
            link.send(2, 1514, seq);
            link.send(3, 64 + random.below(1450) as u32, seq);
            if random.below(8) == 0 {
                link.send(1, 64 + random.below(1450) as u32, highs);
                highs += 1;
            }
            link.run_until(link.now.after(frame_time / 2 + random.below(frame_time / 2)));
        }
        link.run_until(link.now.after(2_000 * frame_time));
        let high: Vec<_> = link.sent.iter().filter(|f| f.queue == 1).collect();
        let bound = 2 * frame_time + bucket * 8_000_000_000 / rate;
        let worst = high.iter().map(|f| f.waited()).max().unwrap();
        assert_eq!(high.len() as u32, highs, "the high queue loses nothing");
        assert!(high.is_sorted_by_key(|f| f.seq), "and keeps its order");
        assert!(worst <= bound, "{rate} b/s: waited {worst} ns, bound {bound} ns");
        assert!(link.dropped.iter().all(|(f, why)| f.queue != 1 && *why == Why::QueueFull));
        assert!(link.dropped.len() > 1000, "the low queues were flooded");
        assert!(link.stats().counters.iter().all(altq::Counters::balanced));
    }
}

#[test]
fn no_packet_leaves_while_a_higher_level_has_one() {
    let mut random = Random::new(0xa1);
    let queues = (0..16).map(|p: u8| match p {
        3 => default_queue("q3", 4, 3, 64),
        p => queue(&format!("q{p}"), u16::from(p) + 1, p, 64),
    });
    let mut link = Link::new(priq(50_000_000, queues.collect()), 2048);
    link.budget = 1;
    let mut seqs = [0_u32; 16];
    let mut offered = Vec::new();
    for _ in 0..30_000 {
        let q = random.below(16) as usize;
        offered.push((link.now, q as u16 + 1));
        link.send(q as u16 + 1, 64 + random.below(1450) as u32, seqs[q]);
        seqs[q] += 1;
        link.run_until(link.now.after(random.below(220_000)));
    }
    link.run_until(link.now.after(10_000_000_000));
    // Replay: at each departure, everything of a higher level that came before it has left or was dropped.
    for (i, frame) in link.sent.iter().enumerate() {
        let overtaken = link.sent[i + 1..]
            .iter()
            .take(1500)
            .find(|later| later.queue > frame.queue && later.came < frame.at);
        assert_eq!(overtaken, None, "{frame:?} left first");
    }
    assert_eq!(link.sent.len() + link.dropped.len(), offered.len());
    assert!(link.dropped.len() > 100);
    for (class, counters) in link.stats().counters.iter().enumerate() {
        assert!(counters.balanced(), "class {class}: {counters:?}");
        assert_eq!(counters.offered.packets, u64::from(seqs[class]));
        assert_eq!(counters.queued.packets, 0);
    }
}

#[test]
fn the_lowest_level_gets_exactly_the_rest() {
    let rate = 8_000_000;
    let mut link = Link::new(priq(rate, vec![queue("high", 1, 5, 50), default_queue("low", 2, 0, 50)]), 512);
    // One 1,000-byte frame takes 1 ms. The high queue gets one every 4 ms, the low queue is always full.
    for ms in 0..4_000_u32 {
        if ms.is_multiple_of(4) {
            link.send(1, 1000, ms);
        }
        link.send(2, 1000, ms);
        link.send(2, 1000, ms);
        link.run_until(link.now.after(1_000_000));
    }
    let stats = link.stats();
    assert_eq!(stats.counters[0].sent.packets, 1000);
    let low = stats.counters[1].sent.packets;
    assert!((2999..=3008).contains(&low), "{low}");
    link.purge();
    assert!(link.stats().counters.iter().all(altq::Counters::balanced));
}

#[test]
fn an_unknown_queue_and_none_at_all_wait_in_the_default_class() {
    let mut link =
        Link::new(priq(1_000_000_000, vec![queue("a", 7, 5, 50), default_queue("b", 9, 1, 50)]), 64);
    for qid in [0, 8, 500, u16::MAX, 9, 7] {
        link.send(qid, 100, 0);
    }
    link.run_until(link.now.after(1_000_000));
    let sent: Vec<u64> = link.stats().counters.iter().map(|c| c.sent.packets).collect();
    assert_eq!(sent, [1, 5]);
}
