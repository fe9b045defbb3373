//! A driver calls up into protocol code: NetBSD's reverse order.

use kern::lock::{BigLocks, Locking, Root};

fn main() {
    let locks = BigLocks::new(Locking::Giant);
    let mut root = Root::claim();
    let mut top = root.top();
    let (_kernel, mut held) = locks.enter_kernel(&mut top);
    let (_softnet, _held) = locks.enter_softnet(&mut held);
}
