//! What is said about captures: `softnet capture`.

use super::proto::Octets;
use serde::{Deserialize, Serialize};

/// Packets of a tap are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureRequest {
    /// Which: `enc0`.
    pub interface: String,
    /// Octets of each packet that are wanted, link header included.
    pub snap: u32,
}

/// What the packets will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapReport {
    /// The tap.
    pub name: String,
    /// What is in front of each packet: a number of <https://www.tcpdump.org/linktypes.html>.
    pub link_type: u16,
    /// Octets of each packet at most.
    pub snap: u32,
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameReport {
    /// When: nanoseconds since 1970.
    pub at: u64,
    /// Whether it was on its way in.
    pub inbound: bool,
    /// Octets it had, link header included.
    pub len: u32,
    /// The first of them.
    pub data: Octets,
}

/// What became of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureReport {
    /// Packets that were told.
    pub packets: u64,
    /// Packets that were not, because those before them had not been taken.
    pub lost: u64,
}
