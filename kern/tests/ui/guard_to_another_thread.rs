//! A lock taken here and released there.

use kern::lock::{Root, SpinMutex, levels::Sa};

static SA: SpinMutex<Sa, u32> = SpinMutex::new(0);

fn main() {
    let mut root = Root::claim();
    let mut top = root.top();
    let (guard, _held) = top.lock(&SA);
    std::thread::scope(|scope| {
        scope.spawn(|| drop(guard));
    });
}
