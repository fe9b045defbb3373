//! `reassemble tcp`: time to live and timestamps of a connection (RFC 7323; BSD: `pf_normalize_tcp_stateful`).
//!
//! The time to live of an end never falls: who wants a probe to reach pf and not the host lowers it. Timestamps get an
//! offset of their own in each direction, so that they do not tell how long a host has been up, and are taken for sequence numbers: one
//! that the other end has seen exceeded, or that runs faster than any clock, is not of this connection.

use crate::packet::{Packet, be32};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// Facts about an end, one bit each.
mod fact {
    /// Its SYN had a timestamp.
    pub(super) const STAMPS: u8 = 1;
    /// A timestamp of it has been echoed: its numbers can be checked.
    pub(super) const PAWS: u8 = 1 << 1;
    /// It was silent too long for its numbers to mean anything.
    pub(super) const IDLED: u8 = 1 << 2;
    /// Its data come with timestamps.
    pub(super) const DATA_STAMPED: u8 = 1 << 3;
    /// Its data come without.
    pub(super) const DATA_BARE: u8 = 1 << 4;
}

/// Ticks a second of the fastest clock: 1 ms, and a tenth more.
const FASTEST: u32 = 1100;
/// Seconds of silence after which numbers of the fastest clock may have gone round.
const LONGEST_SILENCE: u32 = 24 * 24 * 3600;
/// Seconds after which a first number means nothing.
const LONGEST_LIFE: u32 = 12 * 24 * 3600;

/// What is kept of one end.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// What is added to its timestamps.
    offset: u32,
    /// Its latest timestamp, the lowest, and the latest it has echoed.
    latest: u32,
    first: u32,
    echoed: u32,
    /// Seconds of the clock when the latest came.
    at: u32,
    /// The highest time to live seen; 0 before its first packet.
    ttl: u8,
    facts: u8,
}

/// What is kept of a connection: of the end that opened it, and of the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timestamps([End; 2]);

/// A segment, as far as this file cares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamped {
    ttl: u8,
    flags: u8,
    has_data: bool,
    /// Where its timestamps stand in the TCP header, and what they are: its own and the one it echoes.
    stamps: Option<(u8, u32, u32)>,
}

/// What a segment's connection says of it besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    /// Which end sent it: 0 opened the connection.
    pub(crate) from: usize,
    /// Both ends have completed the handshake.
    pub(crate) established: bool,
    /// Seconds of the clock, and seconds since the connection was opened.
    pub(crate) now: u32,
    pub(crate) age: u32,
    /// `set timeout tcp.tsdiff`: seconds that clocks may differ.
    pub(crate) tolerance: u32,
}

/// How a segment is to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restamp {
    /// Time to live, 0 to leave it.
    pub(crate) ttl: u8,
    /// Where the timestamps stand in the TCP header; 0 is nowhere.
    pub(crate) at: u8,
    /// What they become.
    pub(crate) stamps: (u32, u32),
}

impl Restamp {
    /// Not at all.
    pub(crate) const NONE: Restamp = Restamp { ttl: 0, at: 0, stamps: (0, 0) };

    /// Whether anything changes.
    #[inline(always)]
    pub(crate) fn is_some(&self) -> bool {
        self.ttl != 0 || self.at != 0
    }
}

impl Stamped {
    /// Reads a TCP segment; `data` begin at the IP header.
    pub(crate) fn read(p: &Packet, data: &[u8]) -> Stamped {
        let ttl_at = if data.first().is_some_and(|v| v >> 4 == 4) { 8 } else { 7 };
        let header = data.get(usize::from(p.l4)..).and_then(|l4| l4.get(..usize::from(p.tcp.header)));
        Stamped {
            ttl: data.get(ttl_at).copied().unwrap_or(0),
            flags: p.tcp.flags,
            has_data: p.payload != 0,
            stamps: header.and_then(find),
        }
    }
}

/// The timestamps option of a TCP header.
fn find(header: &[u8]) -> Option<(u8, u32, u32)> {
    const TIMESTAMPS: u8 = 8;
    let mut at = 20;
    while let Some(&kind) = header.get(at) {
        let len = match kind {
            0 => return None,
            1 => 1,
            _ => usize::from(*header.get(at + 1)?).max(2),
        };
        if kind == TIMESTAMPS && len == 10 {
            let option: &[u8; 8] = header.get(at + 2..)?.first_chunk()?;
            return Some((at as u8 + 2, be32(option, 0), be32(option, 4)));
        }
        at += len;
    }
    None
}

/// Sequence arithmetic: whether `a` comes before `b`.
const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Timestamps {
    /// Whether a segment may be of this connection. Nothing changes.
    pub(crate) fn fits(&self, s: &Stamped, about: &Situation) -> bool {
        let (src, dst) = (&self.0[about.from], &self.0[about.from ^ 1]);
        let idle = |end: &End| about.now.saturating_sub(end.at) > LONGEST_SILENCE;
        let checkable = src.has(fact::PAWS)
            && dst.has(fact::PAWS)
            && !idle(src)
            && !idle(dst)
            && about.age <= LONGEST_LIFE;
        // A SYN opens another connection in the place of one that is over, or does not fit anyway.
        if !checkable || s.flags & SYN != 0 {
            return true;
        }
        match s.stamps {
            Some((_, stamp, echo)) => {
                let ticks = (about.now.saturating_sub(src.at) + 1)
                    .saturating_add(about.tolerance)
                    .saturating_mul(FASTEST);
                let echo = if echo != 0 { echo.wrapping_sub(dst.offset) } else { 0 };
                !about.established
                    || !(before(stamp, dst.echoed)
                        || before(src.latest.wrapping_add(ticks.min(1 << 30)), stamp)
                        || (echo != 0 && (before(dst.latest, echo) || before(echo, dst.first))))
            }
            None => s.flags & RST != 0 || !(s.has_data && src.has(fact::DATA_STAMPED)),
        }
    }

    /// Takes a segment of this connection into account and says what becomes of it. `offset` is for an end that begins.
    pub(crate) fn take(&mut self, s: &Stamped, about: &Situation, offset: impl FnOnce() -> u32) -> Restamp {
        let [a, b] = &mut self.0;
        let (src, dst) = if about.from == 0 { (a, b) } else { (b, a) };
        if src.ttl == 0 {
            src.begin(s, about.now, offset);
        }
        src.ttl = src.ttl.max(s.ttl);
        let mut change = Restamp { ttl: if src.ttl == s.ttl { 0 } else { src.ttl }, ..Restamp::NONE };
        if let Some((at, stamp, echo)) = s.stamps {
            let own = if stamp != 0 { stamp.wrapping_add(src.offset) } else { 0 };
            let echoed = if echo != 0 { echo.wrapping_sub(dst.offset) } else { 0 };
            change.stamps = (own, echoed);
            // The other end echoes what it was shown: what is compared is what was sent.
            src.note(stamp, echoed, about);
            if (own, echoed) != (stamp, echo) {
                change.at = at;
            }
        }
        if s.has_data && src.has(fact::STAMPS) && src.facts & (fact::DATA_STAMPED | fact::DATA_BARE) == 0 {
            src.facts |= if s.stamps.is_some() { fact::DATA_STAMPED } else { fact::DATA_BARE };
        }
        change
    }
}

impl End {
    fn has(&self, fact: u8) -> bool {
        self.facts & fact != 0
    }

    fn begin(&mut self, s: &Stamped, now: u32, offset: impl FnOnce() -> u32) {
        self.ttl = s.ttl.max(1);
        if let Some((_, stamp, echo)) = s.stamps.filter(|_| s.flags & SYN != 0) {
            let offset = offset();
            *self = End {
                offset,
                latest: stamp,
                first: stamp,
                echoed: echo,
                at: now,
                facts: fact::STAMPS,
                ..*self
            };
        }
    }

    fn note(&mut self, stamp: u32, echo: u32, about: &Situation) {
        if self.has(fact::PAWS)
            && (about.now.saturating_sub(self.at) > LONGEST_SILENCE || about.age > LONGEST_LIFE)
        {
            self.facts = self.facts & !fact::PAWS | fact::IDLED;
        }
        if self.facts & (fact::STAMPS | fact::IDLED) != fact::STAMPS {
            return;
        }
        let known = self.has(fact::PAWS);
        self.at = about.now;
        if !known || !before(stamp, self.latest) {
            self.latest = stamp;
        }
        if echo == 0 {
            return;
        }
        if !known || !before(echo, self.echoed) {
            self.echoed = echo;
        }
        if !known && (before(stamp, self.first) || self.first == 0) {
            self.first = stamp;
        }
        self.facts |= fact::PAWS;
    }
}
