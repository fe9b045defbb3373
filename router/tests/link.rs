//! The in-memory link: what is written arrives, what is lost is counted, and chance can be repeated.

use kern::{
    Batch, Gso, PktFlags, Why,
    testing::Fixture,
    time::{Clock, Duration, Instant},
};
use router::iface::{
    driver::{Caps, Driver, Read, RxCx, RxQueue, TxCx},
    link::{Entries, LinkConfig, LinkEnd, link},
    vnet::{NEEDS_CSUM, VnetHdr},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

const ALL: Caps = Caps { checksum: true, tso: true, uso: true };

fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0x5a; len.max(18)];
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes([frame[14], frame[15], frame[16], frame[17]])
}

fn write(end: &LinkEnd, side: &Fixture, queue: usize, frames: &[Vec<u8>]) -> u64 {
    let mut refused = 0;
    for some in frames.chunks(kern::mbuf::BATCH) {
        let mut batch = Batch::new();
        for frame in some {
            batch.push(side.packet(frame)).expect("fits");
        }
        let cx = TxCx { pool: &side.pool, ledger: &side.ledger };
        refused += end.write(queue, &mut batch, &cx).refused;
        assert!(batch.is_empty());
    }
    refused
}

fn read(rx: &mut dyn RxQueue, side: &Fixture) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    loop {
        let mut batch = Batch::new();
        let state = rx.read(&RxCx { pool: &side.pool, ledger: &side.ledger }, 64, &mut batch);
        for m in batch.drain() {
            frames.push(m.data().to_vec());
            side.done(m);
        }
        if state != Read::More {
            return frames;
        }
    }
}

#[test]
fn what_one_end_writes_the_other_reads_in_order_and_into_its_own_pool() {
    let (near, far) = (Fixture::new(300), Fixture::new(300));
    let (a, b) = link(LinkConfig::default(), &Clock::virtual_at_one_second());
    let mut rx = b.rx(0).expect("first taker");
    assert!(b.rx(0).is_none(), "a reading end is given once");
    let frames: Vec<_> = (0..200).map(|n| frame(n, 60 + n as usize * 7)).collect();
    assert_eq!(write(&a, &near, 0, &frames), 0);
    assert_eq!(near.ledger.balance().sent, 200);
    assert_eq!(near.audit().held(), 0);
    assert_eq!(read(&mut *rx, &far), frames);
    assert_eq!(far.ledger.balance().received, 200);
    let stats = a.stats();
    assert_eq!((stats.written, stats.read, stats.lost, stats.in_flight), (200, 200, 0, 0));
    assert!(a.rx(0).is_some_and(|mut rx| read(&mut *rx, &near).is_empty()), "nothing comes back");
}

#[test]
fn a_full_lane_refuses_and_a_frame_beyond_the_mtu_does_too() {
    let (near, far) = (Fixture::new(300), Fixture::new(300));
    let config = LinkConfig { capacity: 10, mtu: 500, ..LinkConfig::default() };
    let (a, b) = link(config, &Clock::virtual_at_one_second());
    assert_eq!(write(&a, &near, 0, &[frame(0, 523)]), 1);
    assert_eq!(near.ledger.why(Why::TooBig), 1);
    let frames: Vec<_> = (0..12).map(|n| frame(n, 522)).collect();
    assert_eq!(write(&a, &near, 0, &frames), 2);
    assert_eq!(near.ledger.why(Why::IfBusy), 2);
    let mut rx = b.rx(0).expect("first taker");
    assert_eq!(read(&mut *rx, &far), frames[..10]);
    assert_eq!((a.stats().busy, a.stats().too_big), (2, 1));
    assert_eq!(write(&a, &near, 0, &frames), 2, "slots are used again");
    assert_eq!(read(&mut *rx, &far).len(), 10);
}

#[test]
fn delay_and_bandwidth_decide_when_a_frame_arrives() {
    let (near, far) = (Fixture::new(300), Fixture::new(300));
    let clock = Clock::virtual_at_one_second();
    let config =
        LinkConfig { delay: Duration::from_millis(10), bandwidth: Some(8_000_000), ..LinkConfig::default() };
    let (a, b) = link(config, &clock);
    let mut rx = b.rx(0).expect("first taker");
    assert!(rx.descriptor().is_none(), "nobody sleeps in virtual time");
    // 1000 octets at 8 Mb/s take 1 ms.
    write(&a, &near, 0, &[frame(0, 1000), frame(1, 1000)]);
    assert_eq!(b.next_arrival(), Some(Instant::from_millis(1011)));
    clock.advance_to(Instant::from_millis(1010));
    assert!(read(&mut *rx, &far).is_empty());
    clock.advance_to(Instant::from_millis(1011));
    assert_eq!(read(&mut *rx, &far).len(), 1);
    assert_eq!(b.next_arrival(), Some(Instant::from_millis(1012)));
    clock.advance(Duration::from_millis(1));
    assert_eq!(read(&mut *rx, &far).len(), 1);
    assert_eq!(b.next_arrival(), None);
}

#[test]
fn loss_and_reordering_are_counted_and_can_be_repeated() {
    let run = |seed| {
        let (near, far) = (Fixture::new(300), Fixture::new(300));
        let clock = Clock::virtual_at_one_second();
        let config = LinkConfig {
            capacity: 2000,
            loss: 0.1,
            reorder: 0.2,
            jitter: Duration::from_millis(1),
            seed,
            ..LinkConfig::default()
        };
        let (a, b) = link(config, &clock);
        let mut rx = b.rx(0).expect("first taker");
        let mut arrived = Vec::new();
        for n in 0..1000 {
            write(&a, &near, 0, &[frame(n, 60)]);
            clock.advance(Duration::from_micros(10));
            arrived.extend(read(&mut *rx, &far).iter().map(|f| number(f)));
        }
        clock.advance(Duration::from_secs(1));
        arrived.extend(read(&mut *rx, &far).iter().map(|f| number(f)));
        (arrived, a.stats())
    };
    let seed = 4711;
    let (arrived, stats) = run(seed);
    println!("seed {seed}: {stats:?}");
    assert_eq!(stats.written, 1000);
    assert_eq!(stats.read + stats.lost, 1000);
    assert!((50..200).contains(&stats.lost), "{stats:?}");
    assert!((100..300).contains(&stats.held_up), "{stats:?}");
    assert!(!arrived.is_sorted(), "some are overtaken");
    assert_eq!(run(seed), (arrived.clone(), stats));
    assert_ne!(run(seed + 1).0, arrived);
}

#[test]
fn a_lane_serves_its_queue_and_no_other() {
    let (near, far) = (Fixture::new(300), Fixture::new(300));
    let (a, b) =
        link(LinkConfig { queues: [1, 3], ..LinkConfig::default() }, &Clock::virtual_at_one_second());
    assert_eq!((a.queues(), b.queues()), (1, 3));
    let mut rx: Vec<_> = (0..3).map(|q| b.rx(q).expect("first taker")).collect();
    assert!(b.rx(3).is_none());
    for n in 0..6 {
        write(&a, &near, n as usize, &[frame(n, 60)]);
    }
    for (queue, rx) in rx.iter_mut().enumerate() {
        let seen: Vec<_> = read(&mut **rx, &far).iter().map(|f| number(f) as usize).collect();
        assert_eq!(seen, [queue, queue + 3]);
    }
}

#[test]
fn a_pulled_plug_loses_what_is_on_the_wire_and_says_gone() {
    let (near, far) = (Fixture::new(300), Fixture::new(300));
    let (a, b) = link(LinkConfig::default(), &Clock::virtual_at_one_second());
    let mut rx = b.rx(0).expect("first taker");
    write(&a, &near, 0, &[frame(0, 60)]);
    a.set_up(false);
    assert!(!b.is_up() && !b.revive());
    let mut batch = Batch::new();
    assert_eq!(rx.read(&RxCx { pool: &far.pool, ledger: &far.ledger }, 64, &mut batch), Read::Gone);
    assert_eq!(write(&a, &near, 0, &[frame(1, 60)]), 1);
    assert_eq!(near.ledger.why(Why::IfDown), 1);
    b.set_up(true);
    write(&a, &near, 0, &[frame(2, 60)]);
    assert_eq!(read(&mut *rx, &far), [frame(2, 60)]);
    assert_eq!(a.stats().lost, 1);
}

#[test]
fn an_exhausted_receiver_turns_frames_away_and_its_books_still_balance() {
    let (near, far) = (Fixture::new(64), Fixture::new(2));
    let (a, b) = link(LinkConfig::default(), &Clock::virtual_at_one_second());
    let mut rx = b.rx(0).expect("first taker");
    write(&a, &near, 0, &[frame(0, 60), frame(1, 60), frame(2, 60)]);
    let mut batch = Batch::new();
    rx.read(&RxCx { pool: &far.pool, ledger: &far.ledger }, 64, &mut batch);
    assert_eq!(batch.len(), 2);
    assert_eq!(far.ledger.why(Why::NoBuffer), 1);
    assert_eq!(far.ledger.balance().held(), 2);
    far.ledger.end_all(&mut batch, Why::Sink);
    assert_eq!(a.stats().refused, 1);
}

/// A UDP super-frame of `payload` octets over IPv4 with a partial checksum, in an Ethernet frame.
fn udp_super(payload: usize) -> Vec<u8> {
    let mut ip = vec![0_u8; 28 + payload];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&((28 + payload) as u16).to_be_bytes());
    (ip[8], ip[9]) = (64, 17);
    ip[12..20].copy_from_slice(&[192, 0, 2, 1, 198, 51, 100, 2]);
    let sum = wire::checksum::finish(wire::checksum::sum(&ip[..20]));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip[20..24].copy_from_slice(&[0x13, 0x88, 0x13, 0x89]);
    ip[24..26].copy_from_slice(&((8 + payload) as u16).to_be_bytes());
    let end = ip.len();
    wire::checksum::transport_fill_partial(&mut ip, 20, end, wire::IpProto::UDP).expect("a datagram");
    let mut frame = vec![2; 12];
    frame.extend([8, 0]);
    frame.extend(ip);
    frame
}

#[test]
fn a_super_frame_keeps_its_shape_where_both_ends_know_such_and_is_refused_where_not() {
    let (near, far) = (Fixture::new(64), Fixture::new(64));
    let clock = Clock::virtual_at_one_second();
    for (caps, taken) in [([ALL, ALL], true), ([ALL, Caps::default()], false)] {
        let (a, b) = link(LinkConfig { caps, ..LinkConfig::default() }, &clock);
        let mut m = near.packet(&udp_super(5000));
        m.set_partial(34, 6);
        m.set_gso(Gso::Udp4, 1200);
        let mut batch = Batch::new();
        batch.push(m).expect("room");
        let written = a.write(0, &mut batch, &TxCx { pool: &near.pool, ledger: &near.ledger });
        let mut rx = b.rx(0).expect("first taker");
        let mut batch = Batch::new();
        rx.read(&RxCx { pool: &far.pool, ledger: &far.ledger }, 64, &mut batch);
        if taken {
            // Five segments: the headers are on the wire five times.
            assert_eq!((written.frames, written.bytes), (5, 42 + 5000 + 4 * 42));
            let m = batch.pop().expect("it arrived");
            assert_eq!((m.hdr().gso, m.hdr().gso_size), (Gso::Udp4, 1200));
            assert!(m.hdr().flags.has(PktFlags::PARTIAL));
            assert_eq!((m.csum_start(), m.hdr().csum_offset), (34, 6));
            far.done(m);
        } else {
            assert_eq!((written.frames, written.refused), (0, 1));
            assert_eq!(near.ledger.why(Why::IfOffload), 1);
        }
        assert!(batch.is_empty());
    }
}

#[test]
fn a_partial_checksum_is_finished_for_an_end_that_does_not_know_such() {
    let (near, far) = (Fixture::new(64), Fixture::new(64));
    let (a, b) = link(LinkConfig::default(), &Clock::virtual_at_one_second());
    let mut m = near.packet(&udp_super(100));
    m.set_partial(34, 6);
    let mut batch = Batch::new();
    batch.push(m).expect("room");
    a.write(0, &mut batch, &TxCx { pool: &near.pool, ledger: &near.ledger });
    let mut rx = b.rx(0).expect("first taker");
    let frame = read(&mut *rx, &far).remove(0);
    assert!(wire::checksum::transport_ok(&frame[14..], 20, 128, wire::IpProto::UDP));
}

#[test]
fn frames_can_be_captured_and_injected_and_a_lie_about_an_injected_one_is_found() {
    let (near, far) = (Fixture::new(64), Fixture::new(64));
    let config = LinkConfig { caps: [ALL, ALL], ..LinkConfig::default() };
    let (a, b) = link(config, &Clock::virtual_at_one_second());
    a.capture(true);
    write(&a, &near, 0, &[frame(7, 60)]);
    assert_eq!(a.captured(), [frame(7, 60)]);
    assert!(a.captured().is_empty());
    a.capture(false);
    assert!(b.inject(0, &frame(8, 60)));
    let lie = VnetHdr { flags: NEEDS_CSUM, csum_start: 50, csum_offset: 20, ..VnetHdr::PLAIN };
    assert!(b.inject_offload(0, &frame(9, 60), lie));
    let mut rx = b.rx(0).expect("first taker");
    assert_eq!(read(&mut *rx, &far), [frame(7, 60), frame(8, 60)]);
    assert_eq!(far.ledger.why(Why::IfOffload), 1);
}

#[test]
fn a_link_that_is_not_mp_safe_notices_who_comes_in_without_kernel() {
    let near = Fixture::new(64);
    let config = LinkConfig { unsafe_for_mp: true, ..LinkConfig::default() };
    let (a, _b) = link(config, &Clock::virtual_at_one_second());
    assert!(!a.mp_safe());
    let held = Arc::new(AtomicBool::new(true));
    let probe = Arc::clone(&held);
    assert!(a.set_probe(Arc::new(move || probe.load(Ordering::Relaxed))));
    write(&a, &near, 0, &[frame(0, 60)]);
    held.store(false, Ordering::Relaxed);
    write(&a, &near, 0, &[frame(1, 60)]);
    assert_eq!(a.entries(), Entries { entered: 2, concurrent: 0, unlocked: 1 });
}

fn is_readable(rx: &dyn RxQueue, millis: i64) -> bool {
    let descriptor = rx.descriptor().expect("a queue in real time has one");
    let mut fds = [rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN)];
    let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: millis * 1_000_000 };
    rustix::event::poll(&mut fds, Some(&timeout)).expect("poll") == 1
}

#[test]
fn in_real_time_a_reader_can_sleep_until_a_frame_is_due() {
    let (near, far) = (Fixture::new(64), Fixture::new(64));
    let delay = Duration::from_millis(20);
    let (a, b) = link(LinkConfig { delay, ..LinkConfig::default() }, &Clock::Real);
    let mut rx = b.rx(0).expect("first taker");
    assert!(!is_readable(&*rx, 0));
    let start = std::time::Instant::now();
    write(&a, &near, 0, &[frame(0, 60)]);
    assert!(!is_readable(&*rx, 0));
    assert!(is_readable(&*rx, 900));
    assert!(start.elapsed() >= delay);
    assert_eq!(read(&mut *rx, &far).len(), 1);
    assert!(!is_readable(&*rx, 0), "what was read wakes nobody");
}

#[test]
fn many_threads_write_to_one_lane_and_each_keeps_its_order() {
    const WRITERS: u32 = 3;
    const EACH: u32 = 20_000;
    let far = Fixture::new(512);
    let (a, b) = link(LinkConfig::default(), &Clock::Real);
    let mut rx = b.rx(0).expect("first taker");
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let a = a.clone();
            std::thread::spawn(move || {
                let near = Fixture::new(256);
                let mut next = 0;
                while next < EACH {
                    let mut batch = Batch::new();
                    let wanted = (EACH - next).min(1 + next % 40);
                    for n in next..next + wanted {
                        batch.push(near.packet(&frame(writer << 24 | n, 60))).expect("room");
                    }
                    // A full lane refuses what comes last.
                    let cx = TxCx { pool: &near.pool, ledger: &near.ledger };
                    next += wanted - a.write(0, &mut batch, &cx).refused as u32;
                    std::thread::yield_now();
                }
            })
        })
        .collect();
    let mut expected = [0; WRITERS as usize];
    while expected.iter().sum::<u32>() < WRITERS * EACH {
        assert!(is_readable(&*rx, 900), "a wake-up was lost: {expected:?}");
        for frame in read(&mut *rx, &far) {
            let (writer, n) = ((number(&frame) >> 24) as usize, number(&frame) & 0xff_ffff);
            assert_eq!(n, expected[writer], "of writer {writer}");
            expected[writer] += 1;
        }
    }
    for writer in writers {
        writer.join().expect("its books balance");
    }
}

#[test]
fn an_end_can_be_served_by_somebody_without_packets() {
    let near = Fixture::new(64);
    let config = LinkConfig { capacity: 4, ..LinkConfig::default() };
    let (a, b) = link(config, &Clock::virtual_at_one_second());
    assert_eq!(b.room(0), 4);
    write(&a, &near, 0, &[frame(0, 60), frame(1, 61)]);
    assert_eq!(b.room(0), 2);
    let mut octets = Vec::new();
    assert!(a.other().take(0, &mut octets));
    assert_eq!(octets, frame(0, 60));
    assert!(b.take(0, &mut octets));
    assert_eq!(octets, frame(1, 61));
    assert!(!b.take(0, &mut octets));
    assert_eq!((b.room(0), a.stats().read), (4, 2));
}
