//! ARP, neighbour discovery, ICMP, fragmentation and reassembly, frame by frame.

#![allow(clippy::unwrap_used, reason = "a test")]

mod discovery;
mod errors;
mod fragments;
mod net;
mod noise;
mod pieces;
mod resolution;
