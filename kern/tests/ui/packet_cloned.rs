//! A packet has one owner.

use kern::Mbuf;

fn twice(packet: &Mbuf) -> Mbuf {
    packet.clone()
}

fn copied<T: Clone>(_: T) {}

fn main() {
    let _ = |packet: Mbuf| copied(packet);
}
