//! The router: interfaces, Ethernet, IP, the host stack, workers and control.
//!
//! | module | what |
//! |---|---|
//! | [`worker`] | one thread, one loop: stages, batches, timers |
//! | [`iface`] | devices and what is done to frames at them: TAP, in-memory link, GRO, cutting |
//! | `ether`, `arp`, `nd`, `neighbour` | frames, and whose address is whose |
//! | `ip`, `icmp`, `reass` | in, onwards, out; what senders are told; fragments |
//! | `hooks` | where pf and IPsec meet the path, and nowhere else |
//! | [`host`] | packets for the router itself |
//! | [`route`] | RIB and FIB |
//! | [`conf`], [`commit`], [`netconfig`] | text to a checked configuration to the snapshot workers read |
//! | [`capture`] | packets shown to who asks |
//! | [`sadb`] | SAs and policies changed while the router runs |
//! | [`router`], [`testbed`] | all of it together, without the process; several of them in one process |

mod arp;
pub mod bench;
pub mod capture;
pub mod cli;
pub mod commit;
pub mod conf;
pub mod control;
pub mod daemon;
mod entropy;
mod ether;
mod hooks;
pub mod host;
pub mod icmp;
pub mod iface;
mod ip;
pub mod leak;
mod nd;
pub mod neighbour;
pub mod netconfig;
pub mod reass;
pub mod report;
pub mod route;
pub mod router;
pub mod sadb;
pub mod scenario;
pub mod stats;
pub mod testbed;
pub mod worker;
