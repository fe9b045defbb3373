//! The regulator and the interface queue against models that are too simple to be wrong.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use altq::Regulator;
use common::{Link, default_queue, priq, queue};
use kern::time::Instant;
use proptest::prelude::*;
use std::collections::VecDeque;

/// The bucket one nanosecond at a time, in exact fractions of a byte.
struct Bucket {
    rate: i128,
    depth: i128,
    count: i128,
}

impl Bucket {
    fn tick(&mut self) {
        self.count = (self.count + self.rate).min(self.depth);
    }
}

/// What may happen to a queue.
#[derive(Clone, Debug)]
enum Step {
    Send { queue: u16, bytes: u32 },
    Wait { nanos: u64 },
    Attach { limits: [u32; 3] },
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..5_u16, 60..1515_u32).prop_map(|(queue, bytes)| Step::Send { queue, bytes }),
        6 => (0..3_000_000_u64).prop_map(|nanos| Step::Wait { nanos }),
        1 => (1..8_u32, 1..8_u32, 1..8_u32).prop_map(|(a, b, c)| Step::Attach { limits: [a, b, c] }),
        1 => Just(Step::Purge),
    ]
}

fn tree(limits: [u32; 3]) -> altq::Tree {
    let [a, b, c] = limits;
    priq(8_000_000, vec![queue("a", 1, 9, a), default_queue("b", 2, 5, b), queue("c", 3, 2, c)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("SOFTNET_SOAK").is_some() { 4096 } else { 128 }))]

    #[test]
    fn the_regulator_opens_at_the_very_nanosecond_the_model_says(
        rate in 1_000_000_000_u64..100_000_000_000,
        depth in 1_u32..300,
        packets in prop::collection::vec((1_u32..1515, 0_u64..40), 1..20),
    ) {
        let unit = 8_000_000_000_i128;
        let mut model = Bucket { rate: rate.into(), depth: i128::from(depth) * unit, count: i128::from(depth) * unit };
        let (mut regulator, mut now) = (Regulator::new(rate, depth), 0);
        for (bytes, pause) in packets {
            (0..pause).for_each(|_| model.tick());
            now += pause;
            prop_assert_eq!(regulator.may_send(Instant::from_nanos(now)), model.count > 0);
            let opens = regulator.ready_at(Instant::from_nanos(now)).nanos().max(now);
            while model.count <= 0 {
                model.tick();
                now += 1;
            }
            prop_assert_eq!(now, opens);
            prop_assert!(regulator.may_send(Instant::from_nanos(now)));
            regulator.charge(bytes);
            model.count -= i128::from(bytes) * unit;
        }
    }

    #[test]
    fn random_use_of_a_queue_loses_nothing_and_keeps_each_class_in_order(steps in prop::collection::vec(step(), 1..200)) {
        let mut link = Link::new(tree([5, 5, 5]), 64);
        let mut model: [VecDeque<u32>; 3] = Default::default();
        let class = |queue: u16| match queue { 1 => 0, 3 => 2, _ => 1 };
        for (seq, step) in (0..).zip(steps) {
            match step {
                Step::Send { queue, bytes } => {
                    model[class(queue)].push_back(seq);
                    link.send(queue, bytes, seq);
                }
                Step::Wait { nanos } => link.run_until(link.now.after(nanos)),
                Step::Attach { limits } => link.attach(tree(limits)),
                Step::Purge => link.purge(),
            }
            // What was dropped is struck from the model; what was sent must be the head of its class.
            for (frame, _) in link.dropped.drain(..) {
                model[class(frame.queue)].retain(|&s| s != frame.seq);
            }
            for frame in link.sent.drain(..) {
                prop_assert_eq!(model[class(frame.queue)].pop_front(), Some(frame.seq));
            }
            for (waiting, counters) in model.iter().zip(link.stats().counters) {
                prop_assert!(counters.balanced());
                prop_assert_eq!(counters.queued.packets, waiting.len() as u64);
            }
        }
        link.purge();
    }
}
