//! The outer proof is used again while the lock taken with it is still held.

use kern::lock::{Mutex, Root, levels::{Neighbours, Sa}};

fn main() {
    let sa: Mutex<Sa, u32> = Mutex::new(0);
    let row: Mutex<Neighbours, u32> = Mutex::new(0);
    let mut root = Root::claim();
    let mut top = root.top();
    let (row, _) = top.lock(&row);
    let (sa, _) = top.lock(&sa);
    drop((row, sa));
}
