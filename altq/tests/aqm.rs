//! Droppers and flow queues in virtual time: RED's line, ECN, RIO, CoDel, FQ-CoDel, cake, FAIRQ.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use altq::{Bandwidth, Counters, QueueFlags, QueueSpec, SchedulerKind, Tree};
use common::{Link, Random, as_default, bytes_of, flood, line, node, spec};
use kern::{Mbuf, Why, time::Instant};
use std::collections::VecDeque;

const MS: u64 = 1_000_000;

/// One queue with these words in a PRIQ.
fn one(bandwidth: u64, qlimit: u32, flags: QueueFlags) -> Tree {
    let queue = QueueSpec { flags, qlimit: Some(qlimit), ..node("q", 1, None, bandwidth) };
    spec(SchedulerKind::Priq, bandwidth, vec![as_default(QueueSpec { bandwidth: None, ..queue })])
        .build()
        .unwrap()
}

fn sum(header: &[u8]) -> u16 {
    let mut sum: u32 = header.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// An IPv4 frame with this traffic class and flow.
fn frame(link: &Link, tos: u8, flow: (u8, u32), bytes: usize) -> Mbuf {
    let mut data = vec![0; bytes];
    // What the link reads as its number says whose it is.
    data[8..12].copy_from_slice(&u32::from(flow.0).to_be_bytes());
    data[12..14].copy_from_slice(&[8, 0]);
    let ip = &mut data[14..34];
    ip.copy_from_slice(&[0x45, tos, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, flow.0, 198, 51, 100, 1]);
    // Every flow has another destination.
    ip[18..20].copy_from_slice(&(flow.1 as u16).to_be_bytes());
    ip[2..4].copy_from_slice(&((bytes - 14) as u16).to_be_bytes());
    let check = !sum(ip);
    data[24..26].copy_from_slice(&check.to_be_bytes());
    let mut m = link.f.packet(&data);
    (m.hdr_mut().queue, m.hdr_mut().hash) = (1, flow.1);
    m
}

fn offer(link: &mut Link, tos: u8, flow: (u8, u32), bytes: usize) {
    let m = frame(link, tos, flow, bytes);
    link.offer([m]);
}

fn finish(mut link: Link) {
    assert!(link.stats().counters.iter().all(Counters::balanced));
    link.purge();
    assert!(link.stats().counters.iter().all(Counters::balanced));
    assert_eq!(link.stats().total().queued, altq::Tally::default());
}

#[test]
fn red_marks_instead_of_early_drops_what_speaks_ecn_and_every_checksum_is_right() {
    // 10 Mb/s, offered 10 % more at random: the average is between the thresholds.
    for (tos, ecn, seed) in [(0, false, 11), (0, true, 12), (2, false, 13), (2, true, 14)] {
        let flags = if ecn { QueueFlags::RED.with(QueueFlags::ECN) } else { QueueFlags::RED };
        let mut link = Link::new(one(10_000_000, 100, flags), 512);
        let mut random = Random::new(seed);
        link.keep = true;
        for _ in 0..20_000 {
            offer(&mut link, tos, (1, 7), 1000);
            link.run_until(link.now.after(730_000 + random.below(80_000)));
        }
        let counters = link.stats().counters[0];
        let early = link.dropped.iter().filter(|(_, why)| *why == Why::QueueEarly).count();
        let full = link.dropped.iter().filter(|(_, why)| *why == Why::QueueFull).count();
        let kept = std::mem::take(&mut link.kept);
        let marked = kept.iter().filter(|bytes| bytes[15] & 3 == 3).count();
        assert!(kept.iter().all(|bytes| sum(&bytes[14..34]) == 0xffff), "every checksum is right");
        assert_eq!(full, 0);
        if tos == 2 && ecn {
            assert!(marked > 300, "{marked} marked");
            let waiting = counters.queued.packets;
            assert!((marked as u64..=marked as u64 + waiting).contains(&counters.marked));
            // What is dropped is dropped because the average is over the upper threshold.
            assert!(early < 1500, "{early}");
        } else {
            assert_eq!((marked, counters.marked), (0, 0));
            assert!(early > 500, "{early}");
        }
        finish(link);
    }
}

#[test]
fn red_s_drops_follow_the_line_of_the_queue_s_average() {
    // A full second at each standing length: as many come as leave, so that the average is the length.
    for length in [12_u64, 15, 20, 25] {
        let mut link = Link::new(one(8_000_000, 100, QueueFlags::RED), 512);
        let (mut offered, mut dropped) = (0.0, 0.0);
        let mut seq = 0;
        for round in 0..60_000 {
            while link.stats().counters[0].queued.packets < length {
                let before = link.dropped.len();
                link.send(1, 1000, seq);
                seq += 1;
                if round > 20_000 {
                    offered += 1.0;
                    dropped += (link.dropped.len() - before) as f64;
                }
            }
            link.run_until(link.now.after(MS));
        }
        // It finds one less than the length.
        let p = (length as f64 - 1.0 - 10.0) / 20.0 / 10.0;
        let sigma = (offered * p * (1.0 - p)).sqrt();
        let expected = offered * p;
        assert!(
            (dropped - expected).abs() <= 3.0 * sigma,
            "length {length}: {dropped} of {offered}, line {expected} ± {sigma}"
        );
        finish(link);
    }
}

#[test]
fn rio_drops_what_is_out_of_profile_and_spares_what_is_in() {
    let mut link = Link::new(one(10_000_000, 50, QueueFlags::RIO), 512);
    let mut random = Random::new(31);
    // In profile (AF11) 60 % of the link, out of profile (AF13) as much.
    let (mut lost, mut sent) = ([0; 2], [0; 2]);
    for _ in 0..30_000 {
        let out = random.below(2) as usize;
        let before = link.dropped.len();
        offer(&mut link, [10 << 2, 14 << 2][out], (1, 7), 1000);
        sent[out] += 1;
        lost[out] += link.dropped.len() - before;
        link.run_until(link.now.after(630_000 + random.below(80_000)));
    }
    assert!(lost[0] * 50 < lost[1], "lost {lost:?} of {sent:?}");
    assert!(lost[1] > sent[1] / 5);
    finish(link);
}

#[test]
fn cleardscp_zeroes_the_dscp_and_leaves_ecn() {
    let mut link = Link::new(one(10_000_000, 50, QueueFlags::CLEARDSCP), 64);
    link.keep = true;
    offer(&mut link, 0xb9, (1, 7), 100);
    assert_eq!(link.kept[0][15], 1);
    assert_eq!(sum(&link.kept[0][14..34]), 0xffff);
    finish(link);
}

/// Time from a packet's departure to what its sender hears of it.
const ROUND_TRIP: u64 = 20 * MS;

/// A sender that halves for each loss or mark and else adds a packet a round trip.
struct Sender {
    flow: (u8, u32),
    window: f64,
    flight: usize,
    cut_until: Instant,
    /// When it hears, and whether good news.
    news: VecDeque<(Instant, bool)>,
}

impl Sender {
    fn new(flow: (u8, u32)) -> Sender {
        Sender { flow, window: 10.0, flight: 0, cut_until: Instant::ZERO, news: VecDeque::new() }
    }

    fn hear(&mut self, link: &Link, good: bool) {
        self.news.push_back((link.now.after(ROUND_TRIP), good));
    }

    /// Sends what its window lets it.
    fn send(&mut self, link: &mut Link) {
        while self.news.front().is_some_and(|&(at, _)| at <= link.now) {
            let good = self.news.pop_front().unwrap().1;
            self.flight -= 1;
            if good {
                self.window += 1.0 / self.window;
            } else if link.now >= self.cut_until {
                self.window = (self.window / 2.0).max(2.0);
                self.cut_until = link.now.after(ROUND_TRIP);
            }
        }
        while (self.flight as f64) < self.window {
            offer(link, 2, self.flow, 1514);
            self.flight += 1;
        }
    }
}

#[test]
fn codel_holds_the_standing_queue_of_a_long_flow_near_its_target() {
    for (flags, marks) in [(QueueFlags::CODEL, false), (QueueFlags::CODEL.with(QueueFlags::ECN), true)] {
        let mut link = Link::new(one(10_000_000, 1000, flags), 2048);
        let mut tcp = Sender::new((1, 7));
        link.keep = true;
        let mut late = 0;
        while link.now < Instant::from_secs(31) {
            tcp.send(&mut link);
            link.run_until(link.now.after(MS / 2));
            let sent: Vec<_> = link.sent.drain(..).zip(link.kept.drain(..)).collect();
            for (frame, bytes) in sent {
                tcp.hear(&link, bytes[15] & 3 != 3);
                late += u32::from(frame.at > Instant::from_secs(6));
            }
            for _ in 0..std::mem::take(&mut link.dropped).len() {
                tcp.hear(&link, false);
            }
        }
        let counters = link.stats().counters[0];
        assert!(counters.delay.p50 < 15 * MS, "{:?}", counters.delay);
        assert!(counters.delay.p50 > MS, "there was a queue: {:?}", counters.delay);
        assert_eq!((counters.marked > 0, counters.dropped.packets > 0), (marks, !marks));
        let rate = f64::from(late) * 1514.0 * 8.0 / 25.0;
        assert!(rate > 9_000_000.0, "{rate} b/s");
        finish(link);
    }
}

#[test]
fn the_flow_valve_holds_a_flow_that_does_not_respond_and_no_other() {
    // Twice the line's rate from a flow that hears nothing, beside a TCP.
    for (flags, held) in [(QueueFlags::RED, false), (QueueFlags::FLOWVALVE, true)] {
        let queue = QueueSpec { flags, qlimit: Some(100), ..node("q", 1, None, 10_000_000) };
        let tree = spec(SchedulerKind::Cbq, 10_000_000, vec![as_default(queue)]).build().unwrap();
        let mut link = Link::new(tree, 1024);
        let mut tcp = Sender::new((1, 7));
        let (mut got, mut tick) = ([0_u64; 2], 0_u64);
        while link.now < Instant::from_secs(31) {
            tcp.send(&mut link);
            // Ten seconds of flood, ten of a trickle, and flood again.
            let floods = !(11..21).contains(&link.now.secs());
            if floods || tick.is_multiple_of(50) {
                offer(&mut link, 0, (2, 9), 1000);
            }
            tick += 1;
            link.run_until(link.now.after(400_000));
            for frame in std::mem::take(&mut link.sent) {
                if frame.seq == 1 {
                    tcp.hear(&link, true);
                }
                if frame.at > Instant::from_secs(25) {
                    got[frame.seq as usize - 1] += u64::from(frame.bytes);
                }
            }
            for _ in std::mem::take(&mut link.dropped).iter().filter(|(frame, _)| frame.seq == 1) {
                tcp.hear(&link, false);
            }
        }
        let share = got[0] as f64 / (got[0] + got[1]) as f64;
        println!("{:?}: the TCP has {share:.2} of the line", flags.names().collect::<Vec<_>>());
        assert!(if held { share > 0.5 } else { share < 0.2 }, "{share}");
        let rate = (got[0] + got[1]) as f64 * 8.0 / 6e6;
        assert!(rate > 8.0, "{rate} Mb/s");
        finish(link);
    }
}

#[test]
fn a_sparse_flow_goes_past_a_flood_in_fq_codel() {
    let mut link = Link::new(one(10_000_000, 1000, QueueFlags::FQ_CODEL), 2048);
    let mut random = Random::new(41);
    let mut arrivals = Vec::new();
    for n in 0..5_000 {
        for _ in 0..2 {
            offer(&mut link, 0, (1, 1 + random.below(4) as u32), 1514);
        }
        if n % 20 == 0 {
            arrivals.push(link.now);
            offer(&mut link, 0, (2, 99), 100);
        }
        link.run_until(link.now.after(2 * MS));
    }
    let sparse = link.sent.iter().filter(|f| f.bytes == 100).count();
    assert_eq!(sparse, 250, "none of its packets was dropped");
    // A packet of the sparse flow is behind the one on the wire, a round of four, and what the bucket owes.
    let late: Vec<u64> = arrivals
        .iter()
        .zip(link.sent.iter().filter(|f| f.bytes == 100))
        .map(|(came, sent)| sent.at.nanos_since(*came))
        .collect();
    assert!(late.iter().all(|&ns| ns < 9 * MS), "{:?}", late.iter().max());
    finish(link);
}

#[test]
fn a_host_with_one_flow_gets_as_much_as_one_with_twenty() {
    for (flags, fair) in [(QueueFlags::CAKE, true), (QueueFlags::FQ_CODEL, false)] {
        let mut link = Link::new(one(20_000_000, 1000, flags), 2048);
        link.keep = true;
        for n in 0..8_000_u32 {
            offer(&mut link, 0, (10, 1000), 1000);
            offer(&mut link, 0, (20, 2000 + n % 20), 1000);
            offer(&mut link, 0, (20, 2000 + (n * 7 + 3) % 20), 1000);
            link.run_until(link.now.after(700_000));
        }
        let half = link.kept.len() / 2;
        let one = link.kept[half..].iter().filter(|b| b[29] == 10).count() as f64;
        let share = one / (link.kept.len() - half) as f64;
        if fair {
            assert!((share - 0.5).abs() < 0.03, "{share}");
        } else {
            assert!(share < 0.25, "{share}");
        }
        finish(link);
    }
}

#[test]
fn in_fairq_each_of_a_hundred_and_one_flows_gets_the_same_within_five_per_cent() {
    for seed in [51, 52, 53] {
        let mut random = Random::new(seed);
        let queue = QueueSpec { qlimit: Some(2000), ..node("q", 1, None, 10_000_000) };
        let tree = spec(SchedulerKind::Fairq, 10_000_000, vec![as_default(queue)]).build().unwrap();
        let mut link = Link::new(tree, 4096);
        let hashes: Vec<u32> = (0..101).map(|_| random.below(1 << 32) as u32).collect();
        let mut got = vec![0_u64; 101];
        link.keep = true;
        let end = Instant::from_secs(21);
        let mut waiting = vec![0_u32; 101];
        while link.now < end {
            // The first flow sends ten times as much as each of the hundred.
            for (i, &hash) in hashes.iter().enumerate() {
                let wanted = if i == 0 { 100 } else { 10 };
                while waiting[i] < wanted {
                    let m = frame(&link, 0, (i as u8, hash), 200 + (i * 997 + link.sent.len()) % 1300);
                    link.offer([m]);
                    waiting[i] += 1;
                }
            }
            link.run_until(link.now.after(5 * MS));
            for bytes in link.kept.drain(..) {
                let i = usize::from(bytes[29]);
                waiting[i] -= 1;
                got[i] += bytes.len() as u64;
            }
            assert!(link.dropped.is_empty());
        }
        let mean = got.iter().sum::<u64>() as f64 / 101.0;
        for (i, &bytes) in got.iter().enumerate() {
            assert!((bytes as f64 / mean - 1.0).abs() < 0.05, "flow {i}: {bytes} of {mean}");
        }
        finish(link);
    }
}

#[test]
fn a_fairq_class_below_its_bandwidth_goes_first_and_the_rest_goes_by_priority() {
    let high = QueueSpec { priority: Some(5), ..node("high", 1, None, 2_000_000) };
    let low = QueueSpec { priority: Some(1), ..node("low", 2, None, 5_000_000) };
    let low = QueueSpec { hogs: Some(Bandwidth::Bits(100_000)), buckets: Some(64), ..as_default(low) };
    let mut link = Link::new(spec(SchedulerKind::Fairq, 10_000_000, vec![high, low]).build().unwrap(), 512);
    let mut seq = 0;
    while link.now < Instant::from_secs(6) {
        for (class, qid) in [(0, 1), (1, 2)] {
            while link.stats().counters[class].queued.packets < 20 {
                link.send(qid, 1000, seq);
                seq += 1;
            }
        }
        link.run_until(link.now.after(4 * MS));
    }
    let of = |q| bytes_of(&link.sent, q, Instant::from_secs(2), Instant::from_secs(6)) as f64 * 2.0 / 1e6;
    // Both have their bandwidth; the 3 Mb/s that are left go to the high class.
    assert!((of(1) - 5.0).abs() < 0.1 && (of(2) - 5.0).abs() < 0.1, "{} {}", of(1), of(2));
    finish(link);
}

#[test]
fn what_fairq_s_guarantees_leave_is_shared_by_linkshare() {
    let class = |name, qid, priority, share| QueueSpec {
        priority: Some(priority),
        linkshare: line(share),
        ..node(name, qid, None, 1_000_000)
    };
    // 10 Mb/s, of which three have 1 Mb/s each; the other 7 are shared 4 to 2 to 1, whatever the priorities.
    let (a, b) = (class("a", 1, 1, 400_000), class("b", 2, 5, 200_000));
    let c = as_default(class("c", 3, 3, 100_000));
    // It has no share and so nothing of the rest while others want it.
    let d = QueueSpec { priority: Some(7), ..node("d", 4, None, 0) };
    let d = QueueSpec { bandwidth: Some(Bandwidth::Bits(8_000)), ..d };
    let tree = spec(SchedulerKind::Fairq, 10_000_000, vec![a, b, c, d]).build().unwrap();
    let mut link = Link::new(tree, 512);
    let (start, end) = (Instant::from_secs(3), Instant::from_secs(13));
    flood(&mut link, &[1, 2, 3, 4], end, &mut Random::new(61), 4 * MS);
    let of = |q| bytes_of(&link.sent, q, start, end) as f64 * 8.0 / 10.0 / 1e6;
    let expected = [5.0, 3.0, 2.0].map(|all| all - 0.008 / 7.0 * (all - 1.0));
    for (qid, expected) in (1..).zip(expected) {
        assert!((of(qid) / expected - 1.0).abs() < 0.01, "queue {qid}: {} of {expected} Mb/s", of(qid));
    }
    assert!(of(4) < 0.02, "{} Mb/s", of(4));
    finish(link);
}

#[test]
fn a_class_that_had_nothing_to_send_has_saved_up_no_share() {
    let class = |name, qid, priority| QueueSpec {
        priority: Some(priority),
        linkshare: line(500_000),
        ..node(name, qid, None, 8_000)
    };
    let tree = spec(SchedulerKind::Fairq, 10_000_000, vec![class("a", 1, 1), as_default(class("b", 2, 2))]);
    let mut link = Link::new(tree.build().unwrap(), 512);
    flood(&mut link, &[1], Instant::from_secs(6), &mut Random::new(62), 4 * MS);
    flood(&mut link, &[1, 2], Instant::from_secs(8), &mut Random::new(63), 4 * MS);
    let of = |q| bytes_of(&link.sent, q, Instant::from_secs(6), Instant::from_secs(8)) as f64;
    assert!((of(1) / of(2) - 1.0).abs() < 0.02, "{} {}", of(1), of(2));
    finish(link);
}
