//! Packet buffers.
//!
//! ```text
//!  one buffer (Cluster: 2112 bytes from one to the next, an odd number of cache lines)
//! ┌─────────────┬──────────────┬─────────────────────────┬───────────────┐
//! │ PktHdr 64 B │ headroom 256 │ data: off .. off + len  │ tailroom      │
//! └─────────────┴──────────────┴─────────────────────────┴───────────────┘
//! ```
//!
//! An [`Mbuf`] is the only owner of one buffer: eight bytes, not `Clone`, no reference count. (NetBSD's clusters are
//! shared by reference count; every `m_makewritable` there is the price, and so was the leak of 2013.) A packet is
//! contiguous; packets in pieces are a type of their own, [`Chain`], which exists in fragmentation only.
//!
//! **Blank buffers and packets.** [`Pool::alloc`] gives a *blank* buffer. It becomes a *packet* when a [`Ledger`]
//! takes it in (received, created, split), and a packet ends only through the ledger: sent, delivered, merged or
//! ended with a [`Why`]. A packet that is dropped otherwise is a bug: debug builds panic, release builds give the
//! buffer back and count it as *unexplained*, which every test demands to be zero. A blank may be dropped freely.
//!
//! Stale bytes: a buffer is zeroed when it is mapped and never again. [`Mbuf::prepend`] and [`Mbuf::append`] return
//! a slice that the caller must fill; debug builds poison freed bytes with `0xDB`.

mod audit;
mod batch;
mod buffer;
mod chain;
pub mod depot;
mod header;
mod ledger;
mod magazine;
mod pool;
mod survey;
mod why;

pub use audit::{Audit, ClassAudit};
pub use batch::{BATCH, Batch};
pub use buffer::{HEADROOM, Mbuf, NoHeadroom, NoTailroom, TooShort};
pub use chain::Chain;
pub use header::{Class, Gso, Owner, PktFlags, PktHdr};
pub use ledger::{Balance, Ledger};
pub use magazine::{Entered, Magazines};
pub use pool::{Pool, PoolConfig, PoolError};
pub use survey::Survey;
pub use why::Why;
