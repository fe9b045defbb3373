//! TCP window tracking (G. van Rooij, "Real Stateful TCP Packet Filtering in IP Filter", as pf does it).
//!
//! Each end has a record: `seqlo`, the highest octet it has sent; `seqhi`, the highest the other end has allowed it; its
//! largest window. A segment fits if
//!
//! ```text
//!      dst.max_win                                  its last octet is within what the other end allows,
//!   |◀────────────▶|                                its first not more than a window back,
//!   ───────────────┼──────────────────┼────▶ seq    it acknowledges not more than W = 65535 + 1500 beyond
//!              src.seqlo          src.seqhi         what the other end has sent, nor a window back,
//!                                                   and a reset is where the next octet is expected, or one beside.
//! ```
//!
//! Where the records cannot be right (the peer has not answered yet, the flow was picked up in the middle, both ends
//! have closed), anything within W of them passes, but does not keep the state alive.

use wire::tcp::{HeaderOption, Options};

use super::entry::{PEER_SEEN, PeerState, State, WSCALE_MASK, WSCALE_SEEN, flag};
use crate::{packet::Packet, rule::Direction, timeout::Timeout};

/// Levels of an end, numbered as in BSD's `tcp_fsm.h`.
pub(crate) mod level {
    pub(crate) const CLOSED: u8 = 0;
    pub(crate) const SYN_SENT: u8 = 2;
    pub(crate) const ESTABLISHED: u8 = 4;
    pub(crate) const CLOSING: u8 = 7;
    pub(crate) const FIN_WAIT_2: u8 = 9;
    pub(crate) const TIME_WAIT: u8 = 10;
    /// The router speaks with the client in the server's place.
    pub(crate) const PROXY_SRC: u8 = 11;
    /// The router speaks with the server in the client's place.
    pub(crate) const PROXY_DST: u8 = 12;
    pub(crate) const NAMES: [&str; 13] = [
        "CLOSED",
        "LISTEN",
        "SYN_SENT",
        "SYN_RCVD",
        "ESTABLISHED",
        "CLOSE_WAIT",
        "FIN_WAIT_1",
        "CLOSING",
        "LAST_ACK",
        "FIN_WAIT_2",
        "TIME_WAIT",
        "PROXY:SRC",
        "PROXY:DST",
    ];
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// How far acknowledgements may be off, and how far off the window a segment may be where the window is not known: the
/// largest unscaled window and a frame.
const FUDGE: i32 = 0xffff + 1500;

/// What tracking says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It fits, and keeps the state alive.
    Window,
    /// It fits loosely, and does not.
    Loose,
    /// It does not fit.
    Mismatch,
    /// It does not fit, and answers a SYN: its sender is to be told.
    Reset,
}

const fn at_or_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() >= 0
}

const fn after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// A segment opens a connection anew on a state that both ends have closed.
#[inline(always)]
pub(crate) fn reopens(state: &State, p: &Packet) -> bool {
    state.src.level >= level::FIN_WAIT_2
        && state.dst.level >= level::FIN_WAIT_2
        && p.tcp.flags & (SYN | ACK) == SYN
}

/// Begins tracking with the first segment.
pub(crate) fn open(state: &mut State, p: &Packet, l4: &[u8]) {
    let tcp = &p.tcp;
    let mut src = PeerState {
        seqlo: tcp.seq,
        seqhi: tcp.seq.wrapping_add(p.payload).wrapping_add(1),
        max_win: tcp.window.max(1),
        wscale: PEER_SEEN,
        level: level::SYN_SENT,
    };
    if tcp.flags & SYN != 0 {
        src.seqhi = src.seqhi.wrapping_add(1);
        src.wscale |= window_scale(p, l4);
        src.max_win = unscaled(src.max_win, src.wscale & WSCALE_MASK);
    }
    if tcp.flags & FIN != 0 {
        src.seqhi = src.seqhi.wrapping_add(1);
    }
    state.src = src;
    state.dst = PeerState { seqlo: 0, seqhi: 1, max_win: 1, wscale: 0, level: level::CLOSED };
    state.class = Timeout::TcpFirst as u8;
}

/// The window of a SYN is not scaled: what it would be if it were, rounded up.
fn unscaled(window: u16, shift: u8) -> u16 {
    ((u32::from(window) + (1 << shift) - 1) >> shift) as u16
}

/// The window scale option of a SYN, with [`WSCALE_SEEN`]; 0 if there is none.
#[cold]
fn window_scale(p: &Packet, l4: &[u8]) -> u8 {
    let area = l4.get(20..usize::from(p.tcp.header)).unwrap_or(&[]);
    for option in Options::new(area) {
        match option {
            Ok((_, HeaderOption::WindowScale(shift))) => return shift.min(14) | WSCALE_SEEN,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    0
}

/// Tracks a segment of a live state; `data` begin at the IP header.
#[inline]
pub(crate) fn track(state: &mut State, direction: Direction, p: &Packet, data: &[u8]) -> Fit {
    if state.has(flag::SLOPPY) {
        return sloppy(state, direction, p);
    }
    let during_handshake = state.src.level == level::SYN_SENT && state.dst.level == level::SYN_SENT;
    // What the other end acknowledges are the numbers it was shown.
    let shown = if state.has(flag::MODULATED) { state.diffs(direction).1 } else { 0 };
    let (src, dst) = state.peers(direction);
    let segment = Segment::read(src, dst, p, data, shown);
    if segment.fits(src, dst, p) {
        segment.slide(src, dst);
        // Between two ends that are up, what neither begins nor ends a connection changes no level.
        let up = (src.level, dst.level) == (level::ESTABLISHED, level::ESTABLISHED);
        if !up || p.tcp.flags & (SYN | FIN | RST) != 0 || state.class != Timeout::TcpEstablished as u8 {
            let (src, dst) = state.peers(direction);
            advance(src, dst, p.tcp.flags);
            state.class = class(&state.src, &state.dst);
        }
        return Fit::Window;
    }
    if segment.fits_loosely(src, dst) {
        segment.slide(src, dst);
        advance_loosely(src, dst, p.tcp.flags);
        return Fit::Loose;
    }
    if during_handshake {
        // Both records are doubtful now: the sender's is learnt anew from its next segment.
        (src.seqlo, src.seqhi, src.max_win) = (0, 1, 1);
        src.wscale &= !PEER_SEEN;
        if p.tcp.flags & RST == 0 {
            return Fit::Reset;
        }
    }
    Fit::Mismatch
}

/// A segment in the terms of the window test.
#[derive(Debug)]
struct Segment {
    seq: u32,
    end: u32,
    /// The end without FIN.
    data_end: u32,
    ack: u32,
    window: u16,
    /// Shift of the sender's window, and of the other end's.
    sws: u8,
    dws: u8,
}

impl Segment {
    #[inline(always)]
    fn read(src: &mut PeerState, dst: &mut PeerState, p: &Packet, data: &[u8], shown: u32) -> Segment {
        let tcp = &p.tcp;
        let (mut sws, mut dws) = (0, 0);
        if src.wscale & dst.wscale & WSCALE_SEEN != 0 && tcp.flags & SYN == 0 {
            (sws, dws) = (src.wscale & WSCALE_MASK, dst.wscale & WSCALE_MASK);
        }
        let syn = u32::from(tcp.flags & SYN != 0);
        let data_end = tcp.seq.wrapping_add(p.payload).wrapping_add(syn);
        let end = data_end.wrapping_add(u32::from(tcp.flags & FIN != 0));
        let ack = if tcp.ack == 0 { 0 } else { tcp.ack.wrapping_sub(shown) };
        let mut segment = Segment { seq: tcp.seq, end, data_end, ack, window: tcp.window, sws, dws };
        if src.wscale & PEER_SEEN == 0 {
            segment.learn(src, dst, p, data.get(usize::from(p.l4)..).unwrap_or_default());
        }
        segment.ease(src, dst, tcp.flags);
        segment
    }

    /// The first segment of an end: its numbers are what it says they are.
    #[cold]
    fn learn(&mut self, src: &mut PeerState, dst: &mut PeerState, p: &Packet, l4: &[u8]) {
        src.wscale |= PEER_SEEN;
        if p.tcp.flags & SYN != 0 && dst.wscale & WSCALE_SEEN != 0 {
            src.wscale = PEER_SEEN | window_scale(p, l4);
            if src.wscale & WSCALE_SEEN != 0 {
                self.sws = src.wscale & WSCALE_MASK;
                self.dws = dst.wscale & WSCALE_MASK;
                self.window = unscaled(self.window, self.sws);
            } else {
                // The other end offered to scale and this one does not: nobody scales.
                let full = u32::from(dst.max_win) << (dst.wscale & WSCALE_MASK);
                dst.max_win = full.min(0xffff) as u16;
                dst.wscale = PEER_SEEN;
            }
        }
        src.seqlo = self.seq;
        src.level = src.level.max(level::SYN_SENT);
        // `seqhi` is 1 until the other end has acknowledged something, or has been set by a doubtful segment.
        let allowed = self.end.wrapping_add((u32::from(dst.max_win) << self.dws).max(1));
        if src.seqhi == 1 || at_or_after(allowed, src.seqhi) {
            src.seqhi = allowed;
        }
        src.max_win = src.max_win.max(self.window);
    }

    /// What is not known is taken as it should be.
    #[inline(always)]
    fn ease(&mut self, src: &PeerState, dst: &PeerState, flags: u8) {
        let refuses_connection = self.ack == 0 && flags & (ACK | RST) == (ACK | RST);
        if flags & ACK == 0 || refuses_connection || dst.level < level::SYN_SENT {
            self.ack = dst.seqlo;
        }
        if self.seq == self.end {
            // Nothing is sent, so nothing can be out of place: not even behind a FIN, for which no window needs to be open.
            let fin = u32::from(src.level >= level::CLOSING);
            (self.seq, self.data_end, self.end) = (src.seqlo, src.seqlo.wrapping_sub(fin), src.seqlo);
        }
    }

    #[inline(always)]
    fn fits(&self, src: &PeerState, dst: &PeerState, p: &Packet) -> bool {
        let skew = dst.seqlo.wrapping_sub(self.ack).cast_signed();
        at_or_after(src.seqhi, self.data_end)
            && at_or_after(self.seq, src.seqlo.wrapping_sub(u32::from(dst.max_win) << self.dws))
            && skew >= -FUDGE
            && i64::from(skew) <= i64::from(FUDGE) << self.sws
            && (p.tcp.flags & RST == 0 || p.tcp.seq.wrapping_sub(src.seqlo).wrapping_add(1) <= 2)
    }

    #[inline(always)]
    fn fits_loosely(&self, src: &PeerState, dst: &PeerState) -> bool {
        let unsure =
            dst.level < level::SYN_SENT || dst.level >= level::FIN_WAIT_2 || src.level >= level::FIN_WAIT_2;
        let fudge = FUDGE.cast_unsigned();
        unsure
            && at_or_after(src.seqhi.wrapping_add(fudge), self.data_end)
            && at_or_after(self.seq, src.seqlo.wrapping_sub(fudge))
    }

    /// Moves both windows on.
    #[inline(always)]
    fn slide(&self, src: &mut PeerState, dst: &mut PeerState) {
        src.max_win = src.max_win.max(self.window);
        if after(self.end, src.seqlo) {
            src.seqlo = self.end;
        }
        // Of an end that has not been heard nothing can be acknowledged: the 0 that stands for it, with a window added, may
        // lie far ahead of the numbers it then begins with, and all between would fit.
        if dst.wscale & PEER_SEEN == 0 {
            return;
        }
        let window = u32::from(self.window) << self.sws;
        if at_or_after(self.ack.wrapping_add(window), dst.seqhi) {
            dst.seqhi = self.ack.wrapping_add(window.max(1));
        }
    }
}

#[inline(always)]
fn advance(src: &mut PeerState, dst: &mut PeerState, flags: u8) {
    if flags & SYN != 0 && src.level < level::SYN_SENT {
        src.level = level::SYN_SENT;
    }
    if flags & FIN != 0 && src.level < level::CLOSING {
        src.level = level::CLOSING;
    }
    if flags & ACK != 0 {
        match dst.level {
            level::SYN_SENT => dst.level = level::ESTABLISHED,
            level::CLOSING => dst.level = level::FIN_WAIT_2,
            _ => {}
        }
    }
    if flags & RST != 0 {
        (src.level, dst.level) = (level::TIME_WAIT, level::TIME_WAIT);
    }
}

#[cold]
fn advance_loosely(src: &mut PeerState, dst: &mut PeerState, flags: u8) {
    if flags & FIN != 0 && src.level < level::CLOSING {
        src.level = level::CLOSING;
    }
    if flags & RST != 0 {
        (src.level, dst.level) = (level::TIME_WAIT, level::TIME_WAIT);
    }
}

/// The timeout that fits both ends' levels.
#[inline(always)]
fn class(src: &PeerState, dst: &PeerState) -> u8 {
    let (low, high) = (src.level.min(dst.level), src.level.max(dst.level));
    let timeout = if low >= level::FIN_WAIT_2 {
        Timeout::TcpClosed
    } else if low >= level::CLOSING {
        Timeout::TcpFinwait
    } else if low < level::ESTABLISHED {
        Timeout::TcpOpening
    } else if high >= level::CLOSING {
        Timeout::TcpClosing
    } else {
        Timeout::TcpEstablished
    };
    timeout as u8
}

/// Flags alone drive the state: for flows of which only one half is seen.
#[cold]
fn sloppy(state: &mut State, direction: Direction, p: &Packet) -> Fit {
    let (src, dst) = state.peers(direction);
    let half_open = src.level == level::SYN_SENT && dst.level < level::SYN_SENT;
    let half_closed =
        src.level == level::CLOSING && dst.level == level::ESTABLISHED && dst.wscale & PEER_SEEN == 0;
    advance(src, dst, p.tcp.flags);
    if p.tcp.flags & (ACK | RST) == ACK {
        if half_open {
            (src.level, dst.level) = (level::ESTABLISHED, level::ESTABLISHED);
        } else if half_closed {
            (src.level, dst.level) = (level::CLOSING, level::CLOSING);
        }
    }
    state.class = class(&state.src, &state.dst);
    Fit::Window
}

/// Whether a sequence number that an ICMP error quotes is one the sender can have used.
pub(crate) fn quoted_fits(src: &PeerState, dst: &PeerState, seq: u32) -> bool {
    let dws = if src.wscale & dst.wscale & WSCALE_SEEN != 0 { dst.wscale & WSCALE_MASK } else { 0 };
    at_or_after(src.seqhi, seq) && at_or_after(seq, src.seqlo.wrapping_sub(u32::from(dst.max_win) << dws))
}
