//! A packet is used after it was given to another worker.

use kern::{Mbuf, ring::Producer};

fn give(packet: Mbuf, to: &mut Producer<Mbuf>) -> usize {
    let _ = to.push(packet);
    packet.len()
}

fn main() {}
