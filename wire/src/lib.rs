//! Header formats of the Internet: parse, build, checksum. No state, no `unsafe`, no I/O, no allocation on any parse.
//!
//! There are two ways in, for two kinds of caller.
//!
//! **The packet path** wants one pass, no copies, a small answer: [`parse::ipv4_check`] and [`parse::ipv6_check`] say whether a packet may be
//! forwarded at all; [`parse::parse_ipv4`], [`parse::parse_ipv6`] and [`parse::parse_frame`] also find layer 4, ports, fragment fields and
//! the material of the flow hash. [`ipv4::decrement_ttl`], [`rewrite`], [`segment`] and [`coalesce`] change packets in place.
//!
//! **Control packets and tests** want names for fields. Every format file has the same shape, learned from smoltcp:
//!
//! - a view, `Packet<T>` (or `Frame<T>`), over octets: what is *on the wire*. `new_checked` guarantees that no accessor panics;
//!   `new_unchecked` promises nothing.
//! - a `Repr`: what is *legal*. `Repr::parse(view)` refuses everything else, `Repr::buffer_len` and `Repr::emit` write it back, checksum included.
//!
//! Sums are of RFC 1071; everything multi-octet is big-endian on the wire and host order in the API. Every refusal is a [`Malformed`],
//! one octet, for the caller to map to a counter. Nothing here knows routes, flows or policies.

#![forbid(unsafe_code)]

#[macro_use]
mod view;

pub mod ah;
pub mod arp;
pub mod build;
pub mod checksum;
pub mod coalesce;
mod error;
pub mod esp;
pub mod ether;
pub mod flow;
pub mod icmpv4;
pub mod icmpv6;
pub mod igmp;
pub mod ipv4;
pub mod ipv6;
pub mod ipv6_ext;
pub mod mld;
pub mod nd;
mod nd_option;
pub mod parse;
mod parsed;
mod proto;
pub mod rewrite;
pub mod sctp;
pub mod segment;
pub mod siit;
pub mod tcp;
pub mod udp;

pub use error::Malformed;
pub use ether::{EtherType, Mac};
pub use flow::{FlowKey, HashSeed};
pub use parse::{Parsed, ipv4_check, ipv6_check, parse_frame, parse_ipv4, parse_ipv6};
pub use proto::IpProto;
