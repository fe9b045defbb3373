//! SCTP associations (RFC 9260): verification tags instead of windows, and how far both ends have come.
//!
//! ```text
//!   client                        server
//!     │── INIT, says a ─────────────▶│    COOKIE_WAIT     : CLOSED        tag 0
//!     │◀──────────── INIT ACK, says b│                                    tag a
//!     │── COOKIE ECHO ──────────────▶│    COOKIE_ECHOED                   tag b
//!     │◀────────────────── COOKIE ACK│    ESTABLISHED     : ESTABLISHED   tag a
//!     │── SHUTDOWN ─────────────────▶│    SHUTDOWN_SENT   : SHUTDOWN_RECEIVED
//!     │◀──────────────── SHUTDOWN ACK│                      SHUTDOWN_ACK_SENT
//!     │── SHUTDOWN COMPLETE ────────▶│    CLOSED          : CLOSED        as after an ABORT of either
//! ```
//!
//! Each end's record says which tag its packets must carry: the one that the other end has drawn. It stands where TCP has
//! sequence numbers. Only an INIT makes a state (FreeBSD: `pf_create_state`). A server keeps nothing of an INIT ACK, and so
//! says another tag when it is asked again: until the client's COOKIE ECHO tells which answer has reached it, the last two
//! are remembered.

use wire::sctp::{self, Scan, kind};

use super::entry::{PeerState, State, flag};
use crate::{packet::Packet, rule::Direction, timeout::Timeout};

/// Levels of an end, in the order in which it comes to them.
pub(crate) mod level {
    pub(crate) const CLOSED: u8 = 0;
    pub(crate) const COOKIE_WAIT: u8 = 1;
    pub(crate) const COOKIE_ECHOED: u8 = 2;
    pub(crate) const ESTABLISHED: u8 = 3;
    pub(crate) const SHUTDOWN_SENT: u8 = 4;
    pub(crate) const SHUTDOWN_RECEIVED: u8 = 5;
    pub(crate) const SHUTDOWN_ACK_SENT: u8 = 6;
    pub(crate) const NAMES: [&str; 7] = [
        "CLOSED",
        "COOKIE_WAIT",
        "COOKIE_ECHOED",
        "ESTABLISHED",
        "SHUTDOWN_SENT",
        "SHUTDOWN_RECEIVED",
        "SHUTDOWN_ACK_SENT",
    ];
}

/// In the place of the opener's window scale: further paths need no rule (`allow-related`).
pub(crate) const ALLOWS_RELATED: u8 = 1;

/// What tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It belongs to the association.
    Member,
    /// The same, and it says something of the association's further paths.
    Related,
    /// It does not.
    Mismatch,
    /// It opens an association anew where one has been closed.
    Reopens,
}

impl PeerState {
    /// The tag that this end's packets carry; 0 if that is not known.
    const fn tag(&self) -> u32 {
        self.seqlo
    }

    /// The tag that they carry instead if the last INIT ACK was lost; 0 is none.
    const fn former_tag(&self) -> u32 {
        self.seqhi
    }

    const fn set_tag(&mut self, tag: u32) {
        (self.seqlo, self.seqhi) = (tag, 0);
    }

    fn reach(&mut self, level: u8) {
        self.level = self.level.max(level);
    }
}

/// Whether a packet opens an association; `data` begin at the IP header.
#[cold]
pub(crate) fn opens(p: &Packet, data: &[u8]) -> bool {
    read(p, data).is_some_and(|scan| scan.kinds.has(kind::INIT))
}

/// Whether it names addresses of its sender.
#[cold]
pub(crate) fn names(p: &Packet, data: &[u8]) -> bool {
    read(p, data).is_some_and(|scan| scan.names)
}

/// Looks at a packet that has been found sound before.
fn read(p: &Packet, data: &[u8]) -> Option<Scan> {
    sctp::scan(data.get(usize::from(p.l4)..p.bytes as usize)?).ok()
}

/// Begins with an INIT.
#[cold]
pub(crate) fn open(state: &mut State, p: &Packet, data: &[u8], allow_related: bool) {
    let wscale = if allow_related { ALLOWS_RELATED } else { 0 };
    state.src = PeerState { level: level::COOKIE_WAIT, wscale, ..PeerState::default() };
    state.dst = PeerState::default();
    state.dst.set_tag(read(p, data).map_or(0, |scan| scan.initiate_tag));
    state.class = Timeout::SctpFirst as u8;
}

/// Takes a packet of a live state into account; `data` begin at the IP header.
#[cold]
pub(crate) fn track(state: &mut State, direction: Direction, p: &Packet, data: &[u8]) -> Fit {
    let Some(scan) = read(p, data) else { return Fit::Mismatch };
    let closed = state.class == Timeout::SctpClosed as u8;
    if scan.kinds.has(kind::INIT) && (closed || is_over(state)) {
        return Fit::Reopens;
    }
    let (sloppy, opener) = (state.has(flag::SLOPPY), direction == state.direction);
    let (src, dst) = state.peers(direction);
    if !learn(src, dst, &scan) {
        return Fit::Mismatch;
    }
    let ended = !closed && advance(src, dst, &scan, sloppy);
    if !closed {
        state.class = match state.class {
            _ if ended => Timeout::SctpClosed as u8,
            first if opener && first == Timeout::SctpFirst as u8 && state.src.level == level::COOKIE_WAIT => {
                first
            }
            _ => class(state),
        };
    }
    let tells = ended || scan.kinds.has(kind::INIT_ACK) || scan.kinds.has(kind::COOKIE_ECHO);
    let kin = state.diff != [0; 2] && tells;
    if scan.names || kin { Fit::Related } else { Fit::Member }
}

/// Whether both ends have said that they have no more to send. Who has only heard so may still send what is left, and an INIT,
/// which anybody can send, must not end that.
fn is_over(state: &State) -> bool {
    let (low, high) = (state.src.level.min(state.dst.level), state.src.level.max(state.dst.level));
    high >= level::SHUTDOWN_ACK_SENT || low >= level::SHUTDOWN_RECEIVED
}

/// Whether the packet's tag is the sender's, and what it says of tags.
fn learn(src: &mut PeerState, dst: &mut PeerState, scan: &Scan) -> bool {
    let kinds = scan.kinds;
    if kinds.has(kind::INIT) {
        // It carries no tag: whoever sees nothing could begin an association, but not disturb one that is up.
        let opening = src.level < level::ESTABLISHED && dst.level < level::ESTABLISHED;
        if opening {
            dst.set_tag(scan.initiate_tag);
        }
        return opening || dst.tag() == scan.initiate_tag;
    }
    if scan.tag == 0 {
        return false;
    }
    if scan.reflected {
        // The sender knows no association, and gives back what it was sent.
        return scan.tag == dst.tag() || scan.tag == dst.former_tag();
    }
    match src.tag() {
        0 => src.set_tag(scan.tag),
        tag if tag == scan.tag => {}
        _ if kinds.has(kind::COOKIE_ECHO) && src.former_tag() == scan.tag => {}
        _ => return false,
    }
    if kinds.has(kind::COOKIE_ECHO) {
        src.set_tag(scan.tag);
    }
    if kinds.has(kind::INIT_ACK) && dst.level < level::COOKIE_ECHOED && dst.tag() != scan.initiate_tag {
        (dst.seqlo, dst.seqhi) = (scan.initiate_tag, dst.seqlo);
    }
    true
}

/// How far both ends have come with a packet of `src`; whether it is the last.
fn advance(src: &mut PeerState, dst: &mut PeerState, scan: &Scan, sloppy: bool) -> bool {
    let kinds = scan.kinds;
    if kinds.has(kind::ABORT) || kinds.has(kind::SHUTDOWN_COMPLETE) {
        (src.level, dst.level) = (level::CLOSED, level::CLOSED);
        return true;
    }
    if kinds.has(kind::INIT) {
        src.reach(level::COOKIE_WAIT);
    }
    let cookie = kinds.has(kind::COOKIE_ECHO);
    if cookie {
        src.reach(level::COOKIE_ECHOED);
    }
    // A heartbeat that is answered shows that a further path is up, which has no handshake of its own.
    if kinds.has(kind::COOKIE_ACK) || kinds.has(kind::HEARTBEAT_ACK) || (cookie && sloppy) {
        src.reach(level::ESTABLISHED);
        dst.reach(level::ESTABLISHED);
    }
    if kinds.has(kind::SHUTDOWN) {
        src.reach(level::SHUTDOWN_SENT);
        dst.reach(level::SHUTDOWN_RECEIVED);
    }
    if kinds.has(kind::SHUTDOWN_ACK) {
        src.reach(level::SHUTDOWN_ACK_SENT);
        dst.reach(level::SHUTDOWN_SENT);
    }
    false
}

/// The timeout that fits both ends' levels.
fn class(state: &State) -> u8 {
    let (low, high) = (state.src.level.min(state.dst.level), state.src.level.max(state.dst.level));
    let timeout = if high >= level::SHUTDOWN_SENT {
        Timeout::SctpClosing
    } else if low >= level::ESTABLISHED {
        Timeout::SctpEstablished
    } else {
        Timeout::SctpOpening
    };
    timeout as u8
}

/// Whether an end can have sent a packet with this tag, which an ICMP error quotes.
pub(crate) fn quoted_fits(sender: &PeerState, tag: u32) -> bool {
    match tag {
        0 => sender.level <= level::COOKIE_WAIT,
        tag => tag == sender.tag() || tag == sender.former_tag(),
    }
}
