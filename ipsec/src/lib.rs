//! IPsec: what RFC 4301 calls the processing of IP traffic, with ESP (RFC 4303), AH (RFC 4302) and IPComp (RFC 3173).
//!
//! | module | RFC concept |
//! |---|---|
//! | [`sa`], [`sad`] | security associations, and finding one (4301, 4.4.2) |
//! | [`spd`], [`selector`] | policies: protect, bypass, discard (4301, 4.4.1) |
//! | [`esp`] | encapsulation and its removal, in halves `begin` and `finish` (4303) |
//! | `ah`, `ipcomp` | what ESP's halves do for SAs of the other two protocols (4302; 3173, 2394) |
//! | [`seq`], [`replay`] | sequence numbers out and in (4303, 3.3.3 and 3.4.3, Appendix A) |
//! | [`exit`], [`order`] | several workers on one SA, and what leaves still in order, out and in |
//! | [`natt`] | ESP in UDP through translators of addresses (3948) |
//! | [`conf`], [`dump`] | ipsec.conf and reports in the language of setkey(8) |
//! | [`transform`] | ciphers and integrity; AEADs by three engines (4106, 7634, 4543, 4309, 3602, 3686, 4868, ...) |
//!
//! The crate does no I/O and knows no interface, no route and no pf. The router asks [`Spd::lookup_out`] before it
//! translates, runs [`esp::output::esp_output`] on what is to be protected; finds the SA of arriving ESP by
//! [`Sad::for_packet`], runs [`esp::input::esp_input`], and asks [`Spd::check_in`] about everything that arrives. Packets
//! that fail come back with a [`Why`](kern::Why).
//!
//! Not here yet: key exchange.

#![forbid(unsafe_code)]

mod ah;
pub mod conf;
pub mod dump;
pub mod esp;
pub mod exit;
mod ip;
mod ipcomp;
pub mod natt;
pub mod order;
pub mod replay;
pub mod sa;
pub mod sad;
pub mod selector;
pub mod seq;
pub mod spd;
pub mod transform;

pub use sad::Sad;
pub use spd::Spd;
