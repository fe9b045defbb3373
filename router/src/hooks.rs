//! Where pf and IPsec meet the packet path: here and nowhere else.
//!
//! **Out:** route, SPD lookup on the *untranslated* packet; if it is protected: pf out on `enc0` (inner packet),
//! `esp_output`, `ip_output` of the outer packet, pf out on the real interface (which sees ESP), ALTQ. Otherwise pf out
//! on the real interface, ALTQ.
//!
//! **In:** pf in on the real interface (sees ESP), `esp_input`, SPD check of the inner packet, pf in on `enc0`, then
//! to us or onwards.
//!
//! **Frames:** Ethernet rules judge them before all of this on the way in, and after it on the way out (`frames.rs`).
//!
//! Tag and queue of the inner packet travel with the outer one unless a rule on the outer sets its own. With
//! `[ipsec] enc0 = false` a decrypted packet skips pf, as in NetBSD of 2013. Never may NAT, a reload or a missing SA
//! let a packet of a *protect* policy out in clear: the policy is asked before pf may change the packet, and "protect,
//! but there is no SA" is an answer that ends it.

mod enc;
mod esp_input;
mod esp_output;
mod filter;
mod frames;
mod natt;
mod pflog;
mod policy;
mod reach;
mod routed;
mod size;
mod tunnel;
mod turn;
mod way;

pub(crate) use esp_input::{esp_input, is_for_sas};
pub(crate) use esp_output::esp_output;
pub(crate) use filter::{Arrived, expire_states, pf_in, pf_out, refuse_connection, untranslate};
pub(crate) use frames::{frames_in, frames_out};
pub(crate) use natt::{Keepalives, follow_peers, install_sad, is_for_natt, keep_alive};
pub(crate) use policy::{Policy, is_covered, policy_clear, policy_out};
pub(crate) use routed::{gateway, is_routed};
pub(crate) use size::too_big_input;
pub(crate) use tunnel::{Tunnels, tunnel_output};
pub(crate) use turn::esp_written;
pub(crate) use way::Ways;

/// The number of `enc0`, the interface at which pf sees packets inside tunnels.
pub(crate) const ENC0: pf::IfIndex = pf::IfIndex(crate::stats::INTERFACES as u16 - 1);
