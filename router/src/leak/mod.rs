//! The leak laboratory: NetBSD's network path of 2013 in small, run by several virtual CPUs.
//!
//! A report on tech-net (12 March 2013, "network locking strategy questions") says that clusters leak with `FAST_IPSEC`, more
//! than one core and traffic in an ESP tunnel, and not otherwise. Here the paths of the sources of February 2013 move real
//! clusters over queues of the same shape, under a table of locks that is a parameter, and what is lost is counted.
//!
//! | module | what |
//! |---|---|
//! | [`memory`] | shared words: relaxed atomics, or whatever a model checker offers |
//! | [`layout`], [`queue`] | where the words are; `IF_ENQUEUE`, `IF_DEQUEUE`, the splice, `_addq`, `_getq`, step by step |
//! | [`locks`] | which path takes what: one table a profile, beside the lock map |
//! | [`profile`] | the profiles and what each expects |
//! | [`cpu`] | a virtual CPU: spl, nested interrupts, what it holds |
//! | [`preempt`] | what may happen between two steps: nested interrupts, slow CPUs |
//! | [`world`], [`input`], [`crypto`], [`output`], [`side`] | the paths |
//! | [`freight`], [`real`], `packets`, `tunnel` | what the packets carry: nothing (model checkers), or clusters, an SA, pf and ALTQ |
//! | [`run`], [`sweep`] | epochs: traffic, quiet, count what nobody can reach, give it back |
//! | [`cell`], [`table`], [`report`], [`plot`] | one row, all rows, and what they say |
//! | [`gateways`] | the daemon itself: real gateways, by workers and locking |
//! | [`schedule`], [`trace`] | one small case under a deterministic scheduler, told step by step |
//!
//! A faulty queue loses packets; it never touches memory it does not own and never frees twice: links are indices, whoever takes
//! a packet claims its state word by compare-exchange, and all of it is safe code.

pub mod cell;
pub mod cpu;
pub mod crypto;
pub mod freight;
pub mod gateways;
pub mod input;
pub mod layout;
pub mod locks;
pub mod memory;
pub mod output;
mod packets;
pub mod plot;
pub mod preempt;
pub mod profile;
pub mod queue;
pub mod real;
pub mod report;
pub mod run;
pub mod schedule;
pub mod side;
pub mod sweep;
pub mod table;
pub mod trace;
mod tunnel;
pub mod world;
