//! The packet filter (BSD: pf). The promise: given a packet, its interface and its direction, a verdict.
//!
//! ```text
//!   pf.conf ── conf ──▶ PfConf ── Pf::compile ──▶ Ruleset (immutable, in the router's snapshot)
//!                       rules, options,              │
//!                       altq and queue lines         ▼
//!   packet, interface, direction ──────────────▶ PfCx::test ──▶ Verdict: Pass(Passed) | Block(why) | Return(answer, why)
//! ```
//!
//! - [`conf`] reads the language and refuses by name what has no engine; [`mod@print`] writes it back as pfctl does.
//! - [`mod@optimize`] rewrites rules so that fewer have to be looked at.
//! - [`ruleset`] compiles rules to numbers, with skip steps, [`anchor`] by anchor; `eval` finds the rule that decides.
//! - [`osfp`] tells by a SYN which system may have sent it.
//! - [`log`] shows packets to who wants to see them.
//! - [`explain`] says in words what they do to one packet.
//! - [`state`] remembers flows; [`slab`] keeps rules' counters as long as a ruleset or a state refers to them.
//! - [`pf`] is what lives as long as the process; [`engine`] brings all together for one batch of a worker.
//!
//! pf transmits nothing and ends no packet: it says what is to be done, and the router does it. It does not know ALTQ or
//! IPsec: a queue is a number in the packet's header.

#![forbid(unsafe_code)]

pub mod addr;
pub mod anchor;
pub mod answer;
#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod arbitrary_full;
pub mod conf;
pub mod counters;
pub mod debug;
pub mod engine;
pub mod env;
mod env_file;
pub mod ether;
mod eval;
pub mod explain;
pub mod ids;
mod intern;
pub mod limiter;
pub mod log;
mod log_interface;
mod membership;
mod meter;
pub mod names;
mod nat;
mod normalise;
mod once;
pub mod optimize;
#[cfg(test)]
mod orders;
pub mod osfp;
pub mod packet;
pub mod pf;
pub mod pool;
pub mod print;
mod random;
pub mod route;
pub mod rule;
pub mod ruleset;
pub mod show;
pub mod slab;
pub mod state;
pub mod table;
pub mod timeout;
pub mod track;
mod treatment;
mod verdict;

pub use anchor::{Fresh, Kind, Which};
pub use conf::PfConf;
pub use engine::{PfCx, Via};
pub use env::Environment;
pub use env_file::EnvError;
pub use ether::{Frame, FrameVerdict};
pub use ids::Names;
pub use limiter::LimiterInfo;
pub use nat::mapping::MappingInfo;
pub use once::Once;
pub use pf::{Pf, Worker};
pub use route::{HopId, NextHop, Routes};
pub use rule::Direction;
pub use ruleset::Ruleset;
pub use state::{States, cookie::CookieInfo, info::StateInfo, proxy::Segment};
pub use verdict::{Answer, Exception, Passed, Refused, Reset, Verdict};

/// Number of an interface, as `PktHdr::rcvif` and `PktHdr::egress` have it. 0 is no interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct IfIndex(pub u16);
