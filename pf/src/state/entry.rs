//! One state: what is remembered of a flow.
//!
//! The fields that every packet of the flow needs fill two cache lines, lock and twin included; what only translation and
//! dumps need stands in the third.

use super::key::Key;
use crate::{addr::Family, limiter::Share, rule::Direction, slab::RuleSlot, track::NodeKey};

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
    pub(crate) const SLOPPY: u16 = 1;
    /// IP options may pass.
    pub(crate) const ALLOW_OPTS: u16 = 1 << 1;
    /// It holds for one interface only.
    pub(crate) const BOUND: u16 = 1 << 2;
    /// Wire and stack key differ, and both are in the table.
    pub(crate) const TWO_KEYS: u16 = 1 << 3;
    /// Its rule has its own adaptive timeouts.
    pub(crate) const ADAPTIVE: u16 = 1 << 4;
    /// It counts at a source node of its rule.
    pub(crate) const TRACKED: u16 = 1 << 5;
    /// It counts at the source's node of all rules.
    pub(crate) const TRACKED_GLOBALLY: u16 = 1 << 6;
    /// Its source keeps the address that it has from a pool.
    pub(crate) const STICKY: u16 = 1 << 7;
    /// Its handshake has been counted.
    pub(crate) const CONNECTED: u16 = 1 << 8;
    /// Sequence numbers are rewritten.
    pub(crate) const MODULATED: u16 = 1 << 9;
    /// Its rule stands in an anchor, whose call counts its packets, too.
    pub(crate) const ANCHORED: u16 = 1 << 10;
    /// Its packets get a treatment.
    pub(crate) const TREATED: u16 = 1 << 11;
    /// Its keys are of different families: packets of both ends come in, and go on as the other key says.
    pub(crate) const TWO_FAMILIES: u16 = 1 << 12;
    /// Its timestamps are looked at.
    pub(crate) const STAMPED: u16 = 1 << 13;
    /// Its handshake is not complete, and counts for SYN cookies.
    pub(crate) const HALF_OPEN: u16 = 1 << 14;
    /// Its rule has a rate, which counts its packets, too.
    pub(crate) const METERED: u16 = 1 << 15;
    /// What is looked at before a packet is tracked.
    pub(crate) const LOOKED_AT: u16 = STAMPED | METERED;
    /// What a packet of this state needs besides being passed.
    pub(crate) const REWRITTEN: u16 = TWO_KEYS | MODULATED | ANCHORED | TREATED;
}

/// What one end of a flow has sent (TCP), which tag its packets carry (SCTP), and how far it has come (all).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct PeerState {
    /// The highest sequence number it has sent, and one more. SCTP: the verification tag of its packets, 0 if not known.
    pub(crate) seqlo: u32,
    /// The highest that the other end allows. SCTP: the tag that its packets carry instead if the last INIT ACK was lost,
    /// or 0.
    pub(crate) seqhi: u32,
    /// The largest window it has offered, unscaled.
    pub(crate) max_win: u16,
    /// Shift of its windows, and [`WSCALE_SEEN`], and [`PEER_SEEN`]. Of `src` alone, SCTP: whether further paths need no
    /// rule (`allow-related`); UDP: whether its source is that of a mapping.
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

/// A count of 64 bits that asks for no alignment: with one, the fields that every packet needs would not fit into two lines.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally([u8; 8]);

impl Tally {
    #[inline(always)]
    fn add(&mut self, n: u32) {
        self.0 = self.get().wrapping_add(u64::from(n)).to_ne_bytes();
    }

    #[inline(always)]
    pub(crate) fn get(self) -> u64 {
        u64::from_ne_bytes(self.0)
    }
}

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
    /// What it has of limiters; here because here was room.
    pub(crate) share: Share,
    pub(crate) flags: u16,
    pub(crate) generation: u32,
    /// The end that sent the first packet.
    pub(crate) src: PeerState,
    pub(crate) dst: PeerState,
    /// Seconds of the clock: when the last packet came that counts.
    pub(crate) last: u32,
    /// From `src`, from `dst`.
    pub(crate) packets: [Tally; 2],
    pub(crate) bytes: [Tally; 2],
    pub(crate) stack: Key,
    /// The interface it was made at.
    pub(crate) ifindex: u16,
    pub(crate) created: u32,
    /// Slot of the rule that translates it.
    pub(crate) nat: u32,
    /// Slot of the call in the main ruleset that led to its rule.
    pub(crate) anchor: u32,
    /// What is added to the sequence numbers of `src`, of `dst`. SCTP: under which tag their addresses are kept, or 0.
    pub(crate) diff: [u32; 2],
    /// Number of what its packets get besides; 0 is nothing.
    pub(crate) treatment: u16,
    /// Number of whose it is.
    pub(crate) creator: u16,
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
        packets: [Tally([0; 8]); 2],
        bytes: [Tally([0; 8]); 2],
        stack: Key::EMPTY,
        ifindex: 0,
        share: Share::NONE,
        created: 0,
        nat: u32::MAX,
        anchor: u32::MAX,
        diff: [0; 2],
        treatment: 0,
        creator: 0,
    };

    #[inline(always)]
    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// A number that no other state of this process has, `slot` being where it is.
    pub(crate) fn id(&self, slot: u32) -> u64 {
        u64::from(self.generation) << 32 | u64::from(slot)
    }

    /// The way that a packet goes which came in this direction: of two families, the one says who sent it.
    #[inline(always)]
    pub(crate) fn way(&self, direction: Direction, family: Family) -> Direction {
        if self.has(flag::TWO_FAMILIES) && self.wire.family() != family { Direction::Out } else { direction }
    }

    /// The direction in which its stack key is written.
    pub(crate) fn stack_direction(&self) -> Direction {
        if self.has(flag::TWO_FAMILIES) { Direction::Out } else { self.direction }
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

    /// What is added to the sequence numbers of the sender of a packet of this direction, and of the other end.
    pub(crate) fn diffs(&self, direction: Direction) -> (u32, u32) {
        let from = usize::from(direction != self.direction);
        (self.diff[from], self.diff[from ^ 1])
    }

    /// The source of its first packet, as that was.
    pub(crate) fn source(&self) -> u128 {
        match self.direction {
            Direction::In => self.wire.bits(0),
            Direction::Out => self.stack.bits(1),
        }
    }

    /// The family of its first packet, as that was.
    pub(crate) fn source_family(&self) -> Family {
        match self.direction {
            Direction::In => self.wire.family(),
            Direction::Out => self.stack.family(),
        }
    }

    /// The source nodes it counts at.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeKey> {
        let (family, source) = (self.source_family(), self.source());
        let key = |rule, sticky| NodeKey { rule, sticky, family, source };
        let (rule, nat) = (RuleSlot(self.rule), RuleSlot(self.nat));
        let tracked = self.has(flag::TRACKED).then(|| key(rule, false));
        let globally = self.has(flag::TRACKED_GLOBALLY).then(|| key(RuleSlot::NONE, false));
        let sticky = self.has(flag::STICKY).then(|| key(nat, true));
        tracked.into_iter().chain(globally).chain(sticky)
    }

    /// Counts a packet of this direction.
    #[inline(always)]
    pub(crate) fn count(&mut self, direction: Direction, packets: u32, bytes: u32) {
        let from = usize::from(direction != self.direction);
        self.packets[from].add(packets);
        self.bytes[from].add(bytes);
    }
}
