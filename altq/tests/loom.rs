//! The interface queue under loom: who enqueues, who drains, and the `serving` bit between them, in every interleaving.
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p altq --test loom --release
//!
//! Two senders, one queue: whoever gets the turn drains, the other leaves its packet and goes. No order of the two may lose
//! a packet or leave one behind that nobody will come for.

#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use altq::{Drain, IfQueue, Turn, Victims};
use common::{default_queue, priq};
use kern::{
    Batch, Mbuf,
    lock::Root,
    testing::Fixture,
    time::{Clock, Instant},
};
use loom::{sync::Arc, thread};

/// Drains as long as it has the turn; the frames it wrote.
fn drain(queue: &IfQueue, root: &mut Root, mut turn: Option<Turn>, now: Instant) -> Vec<Mbuf> {
    let mut written = Vec::new();
    while let Some(mine) = turn.take() {
        let (mut out, mut victims) = (Batch::new(), Victims::new());
        let next = queue.next_burst(&mut root.top(), mine, now, &mut out, &mut victims, 1);
        written.extend(out.drain());
        assert_eq!(victims.drain().count(), 0, "nothing is refused at this rate");
        turn = match next {
            Drain::More(turn) => Some(turn),
            Drain::Until(..) => panic!("the rate is no limit here"),
            Drain::Empty => None,
        };
    }
    written
}

fn send(queue: &IfQueue, m: Mbuf, now: Instant) -> Vec<Mbuf> {
    let mut root = Root::claim();
    let (mut batch, mut victims) = (Batch::new(), Victims::new());
    batch.push(m).unwrap();
    let turn = queue.enqueue_batch(&mut root.top(), &mut batch, now, &mut victims);
    assert_eq!(victims.drain().count(), 0);
    drain(queue, &mut root, turn, now)
}

#[test]
fn two_senders_lose_nothing_and_leave_nothing_behind() {
    let now = Clock::Real.now();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(move || {
        let fixture = Fixture::with_jumbos(2, 1);
        let packets = [fixture.packet(&[0x45; 60]), fixture.packet(&[0x45; 60])];
        let queue = Arc::new(IfQueue::new(priq(4_000_000_000, vec![default_queue("a", 1, 1, 50)])));
        let senders = packets.map(|m| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || send(&queue, m, now))
        });
        let written: Vec<Mbuf> = senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
        assert_eq!(written.len(), 2, "every packet is written by somebody");
        written.into_iter().for_each(|m| fixture.done(m));
    });
}
