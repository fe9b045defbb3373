//! The control thread and its socket.

pub mod capture;
pub mod client;
pub mod pf;
pub mod proto;
pub mod report;
pub mod secret;
pub mod setkey;
pub mod socket;
pub mod tell;
