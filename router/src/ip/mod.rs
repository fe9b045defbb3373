//! IPv4 and IPv6 on the packet path: in, onwards, out. Both families share the stages and differ in the functions on
//! one packet.

pub(crate) mod forward;
pub(crate) mod fragment;
pub(crate) mod input;
pub(crate) mod output;
