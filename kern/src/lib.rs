//! What a kernel gives its network code.
//!
//! | module | what |
//! |---|---|
//! | [`mbuf`] | packet buffers: [`Mbuf`], the pool that hands them out and the books it keeps |
//! | [`lock`] | the lock hierarchy: one list, checked by the compiler; how coarse it is |
//! | [`publish`] | whole snapshots for readers that take no lock |
//! | [`quiet`] | the quiet moment: every worker stopped with nothing in its hands |
//! | [`callout`] | timers: one wheel a worker |
//! | [`ring`] | hand-over between two workers |
//! | [`counter`] | counters with one writer, summed when read |
//! | [`time`] | the clock, real or virtual |
//! | [`cache`] | prefetching |
//! | [`pages`] | memory in huge pages |
//! | [`secret`] | keys: locked in memory, not dumped, wiped |
//!
//! `unsafe` is allowed in `mbuf` (the layout of buffers), `cache`, `lock::spin`, `pages`, `ring` and `secret` only.
//! This crate knows no protocol and no device.

pub mod cache;
pub mod callout;
pub mod counter;
pub mod lock;
pub mod mbuf;
pub mod pages;
pub mod publish;
pub mod quiet;
pub mod ring;
#[cfg(not(loom))]
pub mod secret;
mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;

pub use cache::{prefetch, prefetch_lines, prefetch_write};
pub use mbuf::{
    Batch, Chain, Class, Gso, Ledger, Magazines, Mbuf, Owner, PktFlags, PktHdr, Pool, Survey, Why,
};
