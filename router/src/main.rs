//! The softnet binary.
fn main() {}
