//! Interfaces: what the router reads frames from and writes them to.

pub mod driver;
mod lane;
pub mod link;
pub mod vnet;
