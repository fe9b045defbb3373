//! One state: what is remembered of a flow.
//!
//! The fields that every packet of the flow needs fill two cache lines, lock included; what only translation and dumps
//! need stands in the third.

use super::key::Key;
use crate::rule::Direction;

/// Where a state is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The slot is not in use.
    #[default]
    Free,
    /// Its first key is in the table, its second is not: nobody sees it.
    Pending,
    /// It decides packets.
    Live,
    /// It is being taken out of the table: nobody sees it.
    Dead,
}

/// Facts about a state, one bit each.
pub(crate) mod flag {
    /// No sequence window.
    pub(crate) const SLOPPY: u8 = 1;
    /// IP options may pass.
    pub(crate) const ALLOW_OPTS: u8 = 1 << 1;
    /// It holds for one interface only.
    pub(crate) const BOUND: u8 = 1 << 2;
    /// Wire and stack key differ, and both are in the table.
    pub(crate) const TWO_KEYS: u8 = 1 << 3;
    /// Its rule has its own adaptive timeouts.
    pub(crate) const ADAPTIVE: u8 = 1 << 4;
}

/// What one end of a flow has sent (TCP), or how far it has come (the rest).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct PeerState {
    /// The highest sequence number it has sent, and one more.
    pub(crate) seqlo: u32,
    /// The highest that the other end allows.
    pub(crate) seqhi: u32,
    /// The largest window it has offered, unscaled.
    pub(crate) max_win: u16,
    /// Shift of its windows, and [`WSCALE_SEEN`], and [`PEER_SEEN`].
    pub(crate) wscale: u8,
    /// How far it has come.
    pub(crate) level: u8,
}

/// The SYN had a window scale option.
pub(crate) const WSCALE_SEEN: u8 = 0x80;
/// A packet of this end has been seen: its sequence numbers are known.
pub(crate) const PEER_SEEN: u8 = 0x40;
/// The shift.
pub(crate) const WSCALE_MASK: u8 = 0x0f;

/// A state.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct State {
    /// The key on the wire; also on the stack's side unless `TWO_KEYS`.
    pub(crate) wire: Key,
    pub(crate) phase: Phase,
    pub(crate) direction: Direction,
    pub(crate) rule: u32,
    pub(crate) tag: u16,
    pub(crate) queue: u16,
    pub(crate) low_delay_queue: u16,
    /// Index of the timeout it is under.
    pub(crate) class: u8,
    pub(crate) flags: u8,
    pub(crate) generation: u32,
    /// The end that sent the first packet.
    pub(crate) src: PeerState,
    pub(crate) dst: PeerState,
    /// Seconds of the clock: when the last packet came that counts.
    pub(crate) last: u32,
    pub(crate) created: u32,
    /// From `src`, from `dst`.
    pub(crate) packets: [u64; 2],
    pub(crate) bytes: [u64; 2],
    pub(crate) stack: Key,
    /// The interface it was made at.
    pub(crate) ifindex: u16,
    pub(crate) id: u64,
}

impl State {
    pub(crate) const FREE: State = State {
        wire: Key::EMPTY,
        phase: Phase::Free,
        direction: Direction::In,
        rule: u32::MAX,
        tag: 0,
        queue: 0,
        low_delay_queue: 0,
        class: 0,
        flags: 0,
        generation: 0,
        src: PeerState { seqlo: 0, seqhi: 0, max_win: 0, wscale: 0, level: 0 },
        dst: PeerState { seqlo: 0, seqhi: 0, max_win: 0, wscale: 0, level: 0 },
        last: 0,
        created: 0,
        packets: [0; 2],
        bytes: [0; 2],
        stack: Key::EMPTY,
        ifindex: 0,
        id: 0,
    };

    #[inline(always)]
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sender of a packet of this direction, and the other end.
    #[inline(always)]
    pub(crate) fn peers(&mut self, direction: Direction) -> (&mut PeerState, &mut PeerState) {
        if direction == self.direction {
            (&mut self.src, &mut self.dst)
        } else {
            (&mut self.dst, &mut self.src)
        }
    }

    /// Counts a packet of this direction.
    #[inline(always)]
    pub(crate) fn count(&mut self, direction: Direction, packets: u32, bytes: u32) {
        let from = usize::from(direction != self.direction);
        self.packets[from] += u64::from(packets);
        self.bytes[from] += u64::from(bytes);
    }
}
