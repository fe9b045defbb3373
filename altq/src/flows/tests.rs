//! Flows against a model, and host counters.

use super::*;
use crate::charge::Framing;
use kern::testing::Fixture;
use proptest::prelude::*;
use std::collections::HashMap;

fn conf(hosts: bool) -> FlowsConf {
    FlowsConf { flows: 16, codel: None, hosts, hogs: 0 }
}

proptest! {
    #[test]
    fn a_flow_keeps_its_order_and_nothing_is_lost(
        steps in prop::collection::vec((1_u32..40, 60_usize..1500, 0_u8..3), 1..300),
        hosts: bool,
    ) {
        let f = Fixture::new(64);
        let (mut flows, mut counters) = (Flows::new(conf(hosts), 20, 1514), Counters::default());
        let mut victims = Victims::new();
        let mut model: HashMap<u32, Vec<u32>> = HashMap::new();
        let now = Instant::from_secs(1);
        for (seq, (hash, len, action)) in steps.into_iter().enumerate() {
            if action == 0 {
                if let Some(entry) = flows.pop(&mut counters, 1514, now, &mut victims) {
                    let h = entry.m.hdr();
                    let (hash, seq) = (h.hash, h.nexthop);
                    f.done(entry.m);
                    prop_assert_eq!(model.get_mut(&hash).map(|q| q.remove(0)), Some(seq));
                }
            } else {
                let mut m = f.packet(&vec![0; len]);
                (m.hdr_mut().hash, m.hdr_mut().nexthop) = (hash, seq as u32);
                model.entry(hash).or_default().push(seq as u32);
                let entry = Entry::new(m, &Framing::default(), now);
                if let Err((m, why)) = flows.push(entry, &mut counters, 20) {
                    let (hash, seq) = (m.hdr().hash, m.hdr().nexthop);
                    f.done(m);
                    prop_assert_eq!(why, Why::QueueFull);
                    model.get_mut(&hash).expect("a flow").retain(|&s| s != seq);
                }
            }
            let waiting: usize = model.values().map(Vec::len).sum();
            prop_assert_eq!(counters.queued.packets, waiting as u64);
            prop_assert!(waiting <= 20);
        }
        while let Some(entry) = flows.pop(&mut counters, 1514, now, &mut victims) {
            f.done(entry.m);
        }
        prop_assert_eq!(counters.queued.packets, 0);
        prop_assert!(flows.hosts.iter().flatten().all(|&n| n == 0));
    }
}
