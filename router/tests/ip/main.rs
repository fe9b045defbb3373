//! ARP, neighbour discovery, ICMP, fragmentation and reassembly, frame by frame.

mod discovery;
mod errors;
mod fragments;
mod net;
mod noise;
mod resolution;
