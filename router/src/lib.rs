//! The router: interfaces, Ethernet, IP, the host stack, workers and control.

pub mod conf;
pub mod iface;
pub mod route;
