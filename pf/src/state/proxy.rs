//! `synproxy state`: the router completes the client's handshake, and only then opens its own to the server.
//!
//! ```text
//!   client            router            server
//!     │── SYN ──────────▶│                 │   PROXY:SRC
//!     │◀─ SYN+ACK, win 0 │                 │
//!     │── ACK ──────────▶│── SYN ─────────▶│   PROXY:DST
//!     │                  │◀─────── SYN+ACK │
//!     │◀─ ACK, window    │── ACK ─────────▶│   ESTABLISHED, numbers shifted from now on
//! ```
//!
//! Nothing reaches the server before the client has shown that it is where it says it is. Neither end scales its window.
//! With `af-to` the left half of this is in one family and the right half in the other.

use wire::tcp::{HeaderOption, Options};

use super::{
    States, Tracked,
    entry::{PEER_SEEN, State, flag},
    tcp::level,
};
use crate::{addr::Family, nat::rewrite::sides, packet::Packet, rule::Direction, timeout::Timeout};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A TCP segment that pf itself sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address family.
    pub family: Family,
    /// Where it says it comes from.
    pub src: (u128, u16),
    /// Where it goes.
    pub dst: (u128, u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags, FIN in the lowest bit.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Maximum segment size; 0 is no such option.
    pub mss: u16,
    /// Whether pf looks at it on its way out, as at any other.
    pub filtered: bool,
}

/// Segments that wait to be sent, at most: two for every packet of a batch.
pub(crate) const OUTBOX: usize = 512;

pub(crate) fn send(outbox: &mut Vec<Segment>, segment: Segment) {
    if outbox.len() < OUTBOX {
        outbox.push(segment);
    }
}

/// Which way a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Client,
    Server,
}

impl State {
    /// Begins with the client's SYN, which is answered with `isn`.
    #[cold]
    pub(crate) fn open_proxy(&mut self, isn: u32, segment_size: u16) {
        self.src.level = level::PROXY_SRC;
        self.src.seqhi = isn;
        // The server's window is not known yet: what the client's segments may carry is kept here.
        self.dst.max_win = segment_size;
    }

    /// The answer to the client's SYN.
    #[cold]
    pub(crate) fn challenge(&self, outbox: &mut Vec<Segment>) {
        let (seq, ack) = (self.src.seqhi, self.src.seqlo.wrapping_add(1));
        send(outbox, Segment { mss: self.dst.max_win, ..self.segment(To::Client, seq, ack, SYN | ACK) });
    }

    /// Each end is spoken to in its own family, with the addresses that it knows.
    fn segment(&self, to: To, seq: u32, ack: u32, flags: u8) -> Segment {
        let is_wire = (to == To::Client) == (self.direction == Direction::In);
        let (key, direction) =
            if is_wire { (&self.wire, self.direction) } else { (&self.stack, self.stack_direction()) };
        let (client, server) = sides(key, direction);
        let (src, dst) = if to == To::Client { (server, client) } else { (client, server) };
        // Where the family changes, the packet has been judged as what it was, as any other of the state.
        let filtered = to == To::Server && !self.has(flag::TWO_FAMILIES);
        Segment { family: key.family(), src, dst, seq, ack, flags, window: 0, mss: 0, filtered }
    }

    /// A segment of a connection that is not through yet.
    #[cold]
    pub(crate) fn proxy(
        &mut self,
        direction: Direction,
        p: &Packet,
        states: &States,
        outbox: &mut Vec<Segment>,
    ) -> Tracked {
        let t = &p.tcp;
        let from_client = direction == self.direction;
        let answers = t.ack == self.src.seqhi.wrapping_add(1) && t.seq == self.src.seqlo.wrapping_add(1);
        if from_client && self.src.level == level::PROXY_SRC {
            if t.flags & SYN != 0 {
                if t.seq == self.src.seqlo {
                    self.challenge(outbox);
                }
                return Tracked::Proxied;
            }
            if t.flags & (ACK | RST | FIN) != ACK || !answers {
                return Tracked::Proxied;
            }
            self.src.level = level::PROXY_DST;
        }
        if self.src.level == level::PROXY_SRC {
            return Tracked::Proxied;
        }
        if from_client {
            if t.flags & (SYN | ACK) == ACK && answers {
                self.ask_server(t.window, states, outbox);
            }
        } else if t.flags & (SYN | ACK) == SYN | ACK && t.ack == self.dst.seqhi.wrapping_add(1) {
            self.join(t.seq, t.ack, t.window, outbox);
            return Tracked::Joined;
        }
        Tracked::Proxied
    }

    fn ask_server(&mut self, window: u16, states: &States, outbox: &mut Vec<Segment>) {
        self.src.max_win = window.max(1);
        if self.dst.seqhi == 1 {
            self.dst.seqhi = states.isn(&self.wire, self.src.seqhi);
        }
        let segment = self.segment(To::Server, self.dst.seqhi, 0, SYN);
        send(outbox, Segment { mss: self.dst.max_win, ..segment });
    }

    /// The server has answered: both ends hear of each other, and their numbers are shifted from here on.
    fn join(&mut self, seq: u32, ack: u32, window: u16, outbox: &mut Vec<Segment>) {
        self.dst.max_win = window.max(1);
        self.dst.seqlo = seq;
        let to_server = self.segment(To::Server, ack, seq.wrapping_add(1), ACK);
        send(outbox, Segment { window: self.src.max_win, ..to_server });
        let (at, expected) = (self.src.seqhi.wrapping_add(1), self.src.seqlo.wrapping_add(1));
        let to_client = self.segment(To::Client, at, expected, ACK);
        send(outbox, Segment { window: self.dst.max_win, ..to_client });
        self.diff =
            [self.dst.seqhi.wrapping_sub(self.src.seqlo), self.src.seqhi.wrapping_sub(self.dst.seqlo)];
        self.flags |= flag::MODULATED;
        self.src.seqhi = self.src.seqlo.wrapping_add(self.dst.max_win.into()).wrapping_add(1);
        self.dst.seqhi = self.dst.seqlo.wrapping_add(self.src.max_win.into()).wrapping_add(1);
        (self.src.wscale, self.dst.wscale) = (PEER_SEEN, PEER_SEEN);
        (self.src.level, self.dst.level) = (level::ESTABLISHED, level::ESTABLISHED);
        self.class = Timeout::TcpEstablished as u8;
    }
}

/// The largest segment of a family that an Ethernet carries.
pub(crate) const fn largest(family: Family) -> u16 {
    match family {
        Family::Inet => 1460,
        Family::Inet6 => 1440,
    }
}

/// The largest segment that the client takes: what its SYN says, and no more than an Ethernet carries.
pub(crate) fn segment_size(p: &Packet, l4: &[u8]) -> u16 {
    let area = l4.get(20..usize::from(p.tcp.header)).unwrap_or(&[]);
    let said = Options::new(area).map_while(Result::ok).find_map(|(_, option)| match option {
        HeaderOption::MaxSegmentSize(mss) => Some(mss),
        _ => None,
    });
    said.unwrap_or(536).clamp(64, largest(p.family))
}
