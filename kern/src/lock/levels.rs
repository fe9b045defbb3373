//! The lock hierarchy of Softnet: one list, outermost first, and why it is in this order.
//!
//! # The rule
//!
//! A thread that holds a lock may take only locks that stand *later* in the list, and never two of the same line.
//! So no two threads can each wait for what the other holds. [`Before`] says it to the compiler, for every pair;
//! `witness` says it again at run time in debug builds, because a callback, a `Drop` or a second thread token could
//! go round the types.
//!
//! # Where it comes from
//!
//! NetBSD of 2013 had two locks over its network code. `softnet_lock`, one adaptive mutex, covered protocol input,
//! sockets and timers; `KERNEL_LOCK`, a recursive spin lock that is let go while its holder sleeps, covered drivers,
//! `if_snd` with ALTQ, and the input queues against interrupts. Softnet was taken first and Kernel inside it.
//! `splnet()` looked like a third lock and was none: it masks interrupts on one CPU and keeps no other CPU out.
//! Two faults followed from having so few names:
//!
//! - *A path that forgot one of them.* IPv6 output called `if_output` without Kernel where IPv4 took it; IPsec's
//!   tunnel input put packets on `ipintrq` under Softnet while the driver did so under Kernel. Two producers, no
//!   common lock, lost packets.
//! - *The reverse order.* A callout not marked MP-safe was entered with Kernel held and then took Softnet. It
//!   survived because a sleeping thread gives up `KERNEL_LOCK`. A mutex that keeps its word would have stopped there.
//!
//! Here the two names are kept, in NetBSD's order, and the tokens that prove them held are demanded by the functions
//! that need them: a path that forgets one does not compile, whether it is v4 or v6, forwarded, reinjected or
//! originated by the host. Below them stand the locks that NetBSD, FreeBSD and OpenBSD grew later, one for each thing
//! that really is shared.
//!
//! # The big locks: Softnet, Kernel
//!
//! They cover whole stages. In profile `fine` nobody touches the mutex (see [`BigLocks`](super::BigLocks)), in
//! `giant` everyone does; the tokens, and hence the order, are the same in both.
//! Ending a packet under them is allowed, waiting never.
//! `Softnet` may call down into `Kernel` (protocol code transmits); a driver that is entered under `Kernel` alone
//! can therefore not call up into protocol code: it hands its frames over and returns.
//!
//! # The object locks: `PfRules` to `HandOver`
//!
//! Many instances, each held for tens of nanoseconds. While one is held no packet is ended, no callback run, no wait
//! begun: victims are collected and returned to the caller.
//!
//! - `PfRules` is for writers: packets read the ruleset from the snapshot. What is locked is what the control
//!   thread and an anchor's owner both change. BSD: `pf_consistency_lock` (NetBSD), `pf_rules_lock` (FreeBSD).
//! - `PfSrcNodes` before the state rows: a new state is counted at its source node first, and may be refused there
//!   (`max-src-states`), before it gets a place in the table.
//! - `PfStates` is *one row* of the state table. A state has two keys in two rows, and never are two rows held at
//!   once: the first key is put in as pending, then the second, then the state goes live.
//!   FreeBSD: `PF_HASHROW_LOCK`.
//! - `PfState` is the state itself: tracking windows, timeout, counters. Found under its row, held without it.
//! - `PfFrags` is pf's own fragment cache (scrub), `Reass` the host stack's. pf comes first on the way in.
//!   NetBSD: none in 2013 for the former, `ip_reass` lock for the latter.
//! - `Sad` is a shard of the security association database, for writers and for larval SAs; lookups go through the
//!   snapshot. `Sa` is one association: replay window, lifetimes. Before `Neighbours`, because what leaves an SA is
//!   resolved next. KAME and FAST_IPSEC: softnet_lock by convention, reference counts without any.
//! - `Neighbours` is a row of the ARP and ND cache with its hold queue. NetBSD: `la_hold` under `KERNEL_LOCK`.
//! - `Ifq` is one interface queue, ALTQ discipline included. NetBSD since 2016: `ifq_lock`.
//! - `HandOver` is a queue between workers where a ring will not do. Innermost: anyone may have something to give.
//!
//! # Leaves
//!
//! Taken from anywhere, even inside `Drop`, so nothing may be taken under them: [`Leaf`](super::Leaf) hands out no
//! token. `Pool` is the depot of packet buffers, `Secrets` the arena of key memory (an SA's last owner may be any
//! thread), `Log` the log sink.

use super::sealed;

/// A line of the hierarchy.
pub trait Level: sealed::Named + 'static {}

/// `A: Before<B>`: a thread that holds `A` may take `B`.
///
/// Implemented for every pair in the order of the list and for nothing else. There is no transitive rule for the
/// compiler to search, and a list has no cycle.
#[diagnostic::on_unimplemented(
    message = "lock `{B}` may not be taken while `{Self}` is held",
    label = "`{B}` does not come after `{Self}`",
    note = "the order is the list in kern/src/lock/levels.rs, outermost first"
)]
pub trait Before<B> {}

/// Nothing is held: the level of a [`Root`](super::Root). Before every lock.
#[derive(Debug)]
pub enum Top {}

impl sealed::Named for Top {
    const RANK: u32 = 0;
    const NAME: &'static str = "nothing";
}

/// No lock. Every level comes before these two, so that even the last level has a choice: where the compiler sees only
/// one `Before` it takes that one for meant, and reports types that differ and not an order that is broken.
#[doc(hidden)]
#[derive(Debug)]
pub enum Beyond<const N: usize> {}

/// The rank that all leaves share: the last.
const LEAF_RANK: u32 = 63;

/// A lock that may be taken anywhere and under which none may be taken.
pub trait LeafLevel: sealed::Named + 'static {}

/// Turns the list into types, ranks and every pair of [`Before`].
macro_rules! lock_hierarchy {
    (
        levels { $( $(#[$doc:meta])* $level:ident, )+ }
        leaves { $( $(#[$leaf_doc:meta])* $leaf:ident, )+ }
    ) => {
        $( $(#[$doc])* #[derive(Debug)] pub enum $level {} impl Level for $level {} impl Before<$level> for Top {} )+
        $(
            $(#[$leaf_doc])*
            #[derive(Debug)]
            pub enum $leaf {}
            impl LeafLevel for $leaf {}
            impl sealed::Named for $leaf {
                const RANK: u32 = LEAF_RANK;
                const NAME: &'static str = stringify!($leaf);
            }
        )+
        /// The levels by rank, from 1; for the witness's messages and for `softnet`'s reports.
        pub const ORDER: &[&str] = &[$( stringify!($level) ),+];
        lock_hierarchy!(@pairs 1; $($level,)+);
    };
    (@pairs $rank:expr; $first:ident, $( $later:ident, )*) => {
        impl sealed::Named for $first {
            const RANK: u32 = $rank;
            const NAME: &'static str = stringify!($first);
        }
        $( impl Before<$later> for $first {} )*
        impl Before<Beyond<0>> for $first {}
        impl Before<Beyond<1>> for $first {}
        lock_hierarchy!(@pairs $rank + 1; $( $later, )*);
    };
    (@pairs $rank:expr;) => {};
}

lock_hierarchy! {
    levels {
        /// Protocol code: input stages, callouts, crypto completions, host stack. NetBSD: `softnet_lock`.
        Softnet,
        /// Drivers and what is below us. NetBSD: `KERNEL_LOCK`.
        Kernel,
        /// What writers of pf's rules share.
        PfRules,
        /// A shard of pf's source nodes.
        PfSrcNodes,
        /// One row of pf's state table.
        PfStates,
        /// One pf state.
        PfState,
        /// pf's fragment cache.
        PfFrags,
        /// The router's own reassembly queues.
        Reass,
        /// A shard of the security association database.
        Sad,
        /// One security association.
        Sa,
        /// A row of the neighbour cache.
        Neighbours,
        /// One interface queue.
        Ifq,
        /// A queue between two workers.
        HandOver,
    }
    leaves {
        /// The depot of packet buffers.
        Pool,
        /// The arena of key memory.
        Secrets,
        /// The log sink.
        Log,
    }
}

const _: () = assert!(ORDER.len() < LEAF_RANK as usize, "the witness has one bit a rank");
