//! Mappings come and go with flows: a worker must not allocate for them.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "common/allocations.rs"]
mod allocations;
mod common;

use std::net::Ipv4Addr;

use allocations::allocations;
use common::{OUT, WAN, World};
use kern::lock::Root;
use pf::Verdict;
use wire::build;

/// The first datagram of a sender passes; how often that allocates.
fn first(w: &mut World, host: u8, port: u16) -> u64 {
    let from = Ipv4Addr::new(192, 0, 2, host);
    let mut m = w.packet(&build::udp4(from, Ipv4Addr::new(198, 51, 100, 1), port, 53, b"datagram"));
    let mut passes = false;
    let allocated = allocations(|| passes = matches!(w.test(OUT, WAN, &mut m), Verdict::Pass(_)));
    w.fixture.done(m);
    assert!(passes, "{host}:{port}");
    allocated
}

#[test]
fn mappings_that_workers_make_and_end_need_no_memory() {
    let rules = "set limit states 3000\nset timeout interval 1\n\
                 nat on wan0 inet to any -> 203.0.113.1 endpoint-independent\npass all\n";
    let mut w = World::new(rules);
    first(&mut w, 1, 1000);
    for round in 0..2 {
        let mut allocated = 0;
        for n in 0..2500_u16 {
            allocated += first(&mut w, 2 + (n % 250) as u8, 2000 + n / 250);
        }
        assert_eq!(allocated, 0, "round {round}: made");
        assert!(w.pf.mappings(&mut Root::claim().top().at()).len() >= 2500);
        // More than a datagram's state lives, and each time more than a round of the purge takes.
        let ended = allocations(|| {
            for _ in 0..4 {
                w.advance(100);
                w.purge();
            }
        });
        assert_eq!(ended, 0, "round {round}: ended");
        assert_eq!(w.pf.mappings(&mut Root::claim().top().at()), []);
    }
}
