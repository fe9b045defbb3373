//! Programs that must not compile, and what the compiler says: the order of locks, the life of a packet.
//!
//! Each file in `ui/` is one mistake. After a change of wording: `TRYBUILD=overwrite cargo test -p kern --test
//! compile_fail`, and read what it now says.

#![cfg(not(loom))]

#[test]
fn mistakes_with_locks_and_packets_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
