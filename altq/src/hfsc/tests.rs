//! What HFSC's choice costs as the tree grows, counted in matches of its tournaments: time would depend on the machine.

use super::*;
use crate::{charge::Framing, queue::QueueConf, tournament::MATCHES};
use kern::testing::Fixture;

/// Matches a packet, in and out, where so many leaves wait all the time, half of them with a real-time curve.
fn matches(leaves: usize) -> f64 {
    const ROUNDS: usize = 4;
    let rate = 1_000_000_000 / leaves as u64;
    let conf = QueueConf {
        limit: 8,
        dropper: crate::queue::DropperConf::Tail,
        clear_dscp: false,
        rate,
        mtu: 1500,
        seed: 1,
    };
    let leaf = |i: usize| HfscClass {
        parent: Some(0),
        curves: Curves {
            linkshare: Curve::linear(rate + i as u64 % 7),
            realtime: if i.is_multiple_of(2) { Curve::linear(rate / 2) } else { Curve::default() },
            ..Curves::default()
        },
        queue: ClassQueue::new(&conf),
    };
    let root = HfscClass { parent: None, ..leaf(1) };
    let mut hfsc = Hfsc::new(std::iter::once(root).chain((0..leaves).map(leaf)).collect());
    let f = Fixture::new(2 * leaves + 8);
    let (mut now, mut victims) = (Instant::from_secs(1), Victims::new());
    let put = |hfsc: &mut Hfsc, leaf: usize, now| {
        let entry = Entry::new(f.packet(&[0; 500]), &Framing::default(), now);
        assert!(hfsc.enqueue(entry, ClassId(leaf as u16 + 1), now).is_ok());
    };
    (0..2 * leaves).for_each(|i| put(&mut hfsc, i % leaves, now));
    MATCHES.set(0);
    for i in 0..ROUNDS * leaves {
        now = now.after(500 * 8);
        let entry = hfsc.dequeue(now, &mut victims).expect("something waits");
        f.done(entry.m);
        // Not the leaf that was served, so that leaves run empty and come back.
        let other = i * 7919 % leaves;
        if hfsc.counters(ClassId(other as u16 + 1)).queued.packets < 8 {
            put(&mut hfsc, other, now);
        }
    }
    let matches = MATCHES.get() as f64 / (ROUNDS * leaves) as f64;
    hfsc.purge(&mut |_, entry| f.done(entry.m));
    matches
}

#[test]
fn the_cost_of_a_packet_grows_as_the_logarithm_of_the_number_of_classes() {
    let cost = [16, 64, 256, 1024].map(|n| (n, matches(n)));
    println!("matches a packet: {cost:.1?}");
    for (n, matches) in cost {
        // Eight tournaments change at most for one packet, each along one path.
        let paths = matches / (n as f64).log2();
        assert!((0.5..=8.0).contains(&paths), "{n} classes: {matches} matches a packet");
    }
    // Sixty-four times as many classes, six levels more.
    let growth = cost[3].1 - cost[0].1;
    assert!(growth <= 6.0 * 8.0 && cost[3].1 < 3.0 * cost[0].1, "{cost:?}");
}
