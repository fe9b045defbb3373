//! pf on the packet path, in memory: two gateways with a raw wire at each end, and one or two between them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "../ipsec/bed.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod bed;
mod command;
mod ether;
mod flood;
mod fragments;
mod nat;
mod nat64;
#[path = "../ip/pieces.rs"]
mod pieces;
mod reach;
mod route;
mod sctp;
