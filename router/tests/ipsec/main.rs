//! IPsec on the packet path, in memory: two gateways with a raw wire at each end and one between them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod bed;
mod beet;
mod capture;
mod events;
mod interface;
mod narrow;
mod natt;
mod reasons;
mod rekey;
mod size;
mod together;
mod workers;
