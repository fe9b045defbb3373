//! The benchmark's device: what it makes, what it counts, and what it shows to the judge.

use kern::{Batch, Class, Owner, Why, testing::Fixture};
use router::iface::{
    driver::{Driver, Read, RxCx, TxCx},
    source_sink::{SourceSink, SourceSinkConfig, Sunk, Template},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

fn template(flow: u8, len: usize) -> Template {
    Template::headers(&vec![flow; len], 54)
}

#[test]
fn flows_are_spread_over_the_queues_and_come_in_turn() {
    let side = Fixture::new(300);
    let device = SourceSink::new(SourceSinkConfig {
        queues: 2,
        templates: (0..5).map(|flow| template(flow, 64 + usize::from(flow))).collect(),
        budget: Some(7),
        ..SourceSinkConfig::default()
    });
    let cx = RxCx { pool: &side.pool, ledger: &side.ledger };
    for (queue, expected) in [(0, vec![0, 2, 4, 0, 2, 4, 0]), (1, vec![1, 3, 1, 3, 1, 3, 1])] {
        let mut rx = device.rx(queue).expect("first taker");
        assert!(device.rx(queue).is_none());
        let mut batch = Batch::new();
        assert_eq!(rx.read(&cx, 4, &mut batch), Read::More);
        assert_eq!(rx.read(&cx, 4, &mut batch), Read::Empty);
        let flows: Vec<u8> = batch.iter().map(|m| m.data()[0]).collect();
        assert_eq!(flows, expected);
        assert!(batch.iter().all(|m| m.len() == 64 + usize::from(m.data()[0])));
        device.set_budget(queue, 1);
        device.flow(false);
        assert_eq!(rx.read(&cx, 4, &mut batch), Read::Empty);
        device.flow(true);
        rx.read(&cx, 4, &mut batch);
        assert_eq!(batch.len(), 8);
        device.write(queue, &mut batch, &TxCx { pool: &side.pool, ledger: &side.ledger });
    }
    assert_eq!(device.sunk(), Sunk { packets: 16, frames: 16, bytes: 16 * 64 + 14 + 16, judged: 0 });
    assert_eq!(side.ledger.balance().sent, 16);
}

#[test]
fn the_judge_sees_every_third_packet_across_batches() {
    let side = Fixture::new(300);
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    let device = SourceSink::new(SourceSinkConfig {
        templates: vec![template(1, 64)],
        judge: Some((
            3,
            Arc::new(move |m| {
                assert_eq!(m.len(), 64);
                count.fetch_add(1, Ordering::Relaxed);
            }),
        )),
        ..SourceSinkConfig::default()
    });
    let mut rx = device.rx(0).expect("first taker");
    for burst in [1, 1, 5, 64, 29] {
        let mut batch = Batch::new();
        rx.read(&RxCx { pool: &side.pool, ledger: &side.ledger }, burst, &mut batch);
        device.write(0, &mut batch, &TxCx { pool: &side.pool, ledger: &side.ledger });
    }
    assert_eq!((seen.load(Ordering::Relaxed), device.sunk().judged), (34, 34));
}

#[test]
fn stock_is_read_first_as_it_is_and_an_empty_pool_is_an_answer() {
    let side = Fixture::new(4);
    let device = SourceSink::new(SourceSinkConfig {
        templates: vec![template(9, 64)],
        stock: 2,
        ..SourceSinkConfig::default()
    });
    let prepared = |octet: u8| {
        let mut m = side.pool.alloc(Class::Cluster, Owner::Control).expect("a cluster");
        m.append(100).expect("room").fill(octet);
        m
    };
    assert!(device.stock(0, prepared(1)).is_ok());
    assert!(device.stock(0, prepared(2)).is_ok());
    assert!(device.stock(0, prepared(3)).is_err());
    assert_eq!(device.in_stock(0), 2);
    let mut rx = device.rx(0).expect("first taker");
    let mut batch = Batch::new();
    assert_eq!(rx.read(&RxCx { pool: &side.pool, ledger: &side.ledger }, 64, &mut batch), Read::Empty);
    assert_eq!(batch.iter().map(|m| m.data()[0]).collect::<Vec<_>>(), [1, 2, 9, 9]);
    assert_eq!(side.ledger.why(Why::NoBuffer), 1);
    side.ledger.end_all(&mut batch, Why::Sink);
}
