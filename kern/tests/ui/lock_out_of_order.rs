//! The interface queue's lock is held, and a state's is taken.

use kern::lock::{Mutex, Root, SpinMutex, levels::{Ifq, PfState}};

fn main() {
    let queue: Mutex<Ifq, u32> = Mutex::new(0);
    let state: SpinMutex<PfState, u32> = SpinMutex::new(0);
    let mut root = Root::claim();
    let (_queue, mut held) = root.top().then(&queue);
    let (_state, _held) = held.lock(&state);
}
