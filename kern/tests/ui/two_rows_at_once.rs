//! Two locks of one level: two threads could each wait for the other's.

use kern::lock::{Held, SpinMutex, levels::PfStates};

fn both(held: &mut Held<'_, PfStates>, other: &SpinMutex<PfStates, u32>) {
    let _ = held.lock(other);
}

fn main() {}
