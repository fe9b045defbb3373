//! UDP, ICMP queries and everything else: an end has sent nothing, one packet, or has been answered.

use super::entry::{PeerState, State};
use crate::{
    nat::mapping::{Endpoint, Mapping},
    packet::Packet,
    rule::Direction,
    timeout::Timeout,
};
use wire::IpProto;

/// Levels of an end.
pub(crate) mod level {
    pub(crate) const SINGLE: u8 = 1;
    pub(crate) const MULTIPLE: u8 = 2;
    pub(crate) const NAMES: [&str; 3] = ["NO_TRAFFIC", "SINGLE", "MULTIPLE"];
}

/// In `wscale` of the end that sent the first packet: it has an endpoint-independent mapping, which its state holds.
pub(crate) const MAPPED: u8 = 1;

impl State {
    /// The mapping that it holds.
    pub(super) fn mapping(&self) -> Option<Mapping> {
        if IpProto(self.wire.proto) != IpProto::UDP || self.src.wscale & MAPPED == 0 {
            return None;
        }
        let from = usize::from(self.direction == Direction::Out);
        let (inside, outside) = match self.direction {
            Direction::In => (&self.wire, &self.stack),
            Direction::Out => (&self.stack, &self.wire),
        };
        let [inside, outside] = [inside, outside].map(|key| Endpoint {
            family: key.family(),
            address: key.bits(from),
            port: key.port[from],
        });
        Some(Mapping { inside, outside })
    }
}

/// Begins with the first packet.
pub(crate) fn open(state: &mut State, p: &Packet) {
    state.src = PeerState { level: level::SINGLE, ..PeerState::default() };
    state.dst = PeerState::default();
    let first = match IpProto(p.proto) {
        IpProto::UDP => Timeout::UdpFirst,
        IpProto::ICMP | IpProto::ICMPV6 => {
            state.src.level = 0;
            Timeout::IcmpFirst
        }
        _ => Timeout::OtherFirst,
    };
    state.class = first as u8;
}

/// Takes a packet of a live state into account.
#[inline(always)]
pub(crate) fn track(state: &mut State, direction: Direction, p: &Packet) {
    let (single, multiple) = match IpProto(p.proto) {
        IpProto::UDP => (Timeout::UdpSingle, Timeout::UdpMultiple),
        IpProto::ICMP | IpProto::ICMPV6 => {
            state.class = Timeout::IcmpError as u8;
            return;
        }
        _ => (Timeout::OtherSingle, Timeout::OtherMultiple),
    };
    let (src, dst) = state.peers(direction);
    src.level = src.level.max(level::SINGLE);
    if dst.level == level::SINGLE {
        dst.level = level::MULTIPLE;
    }
    let both = src.level == level::MULTIPLE && dst.level == level::MULTIPLE;
    state.class = if both { multiple as u8 } else { single as u8 };
}
