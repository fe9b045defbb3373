//! Parser bench.
fn main() {}
