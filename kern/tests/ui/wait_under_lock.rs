//! A wait for all workers, begun with a lock held.

use kern::{lock::{Mutex, Root, levels::Sad}, publish::Publisher, time::Duration};

fn main() {
    let sad: Mutex<Sad, u32> = Mutex::new(0);
    let mut publisher = Publisher::new(0);
    let mut root = Root::claim();
    let mut top = root.top();
    let (guard, _held) = top.lock(&sad);
    let version = publisher.publish(*guard);
    let _ = publisher.wait_all(&mut root, version, Duration::from_secs(1));
    drop(guard);
}
