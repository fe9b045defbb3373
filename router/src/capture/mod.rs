//! Packets shown to who asks: `softnet capture`, which is to Softnet what bpf(4) on pseudo devices is to the BSDs.
//!
//! ```text
//!   worker ── Copiers ──── frames seen ────►  control thread ── Captures ──►  control socket ──►  client ── Recorder ──► pcapng
//!             │       ◄─── blank frames ────
//!             └─ of no blank frame: the packet is lost to the capture, and counted
//! ```
//!
//! A *tap* is a place where packets can be seen; a *capture* is what one client has open at one. Each capture has a pair of rings
//! to each worker, round which the same frames go as long as it is open. So a worker neither allocates nor waits, and where
//! nothing is captured it looks at the length of a list, once a batch.
//!
//! | file | what |
//! |---|---|
//! | `copier.rs` | the workers' ends |
//! | `captures.rs` | the control thread's ends, by client |
//! | `enc.rs` | the link header of `enc0` |
//! | `pcapng.rs` | the file that a client writes |
//!
//! Not here: filters (`-w - | tcpdump -r - EXPRESSION`), and where on the path a tap is (`hooks`).

mod captures;
mod copier;
pub(crate) mod enc;
mod pcapng;
#[cfg(test)]
mod tests;

pub use captures::{CaptureError, Captures};
pub(crate) use copier::{Copier, Copiers, Seen};
pub use pcapng::Recorder;

use kern::time::Instant;

/// A place where packets can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tap {
    /// `enc0`: packets before they go into SAs and when they have come out, once for each SA, as enc(4) of OpenBSD shows them.
    Enc,
    /// `pflog0` to `pflog15`: packets that rules of pf log, when pf is done with them, as pflog(4) shows them.
    Pflog(u8),
}

impl Tap {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Tap> {
        std::iter::once(Tap::Enc).chain((0..pf::log::LOGS).map(Tap::Pflog))
    }

    /// As an interface is called.
    pub fn name(self) -> String {
        match self {
            Tap::Enc => "enc0".to_owned(),
            Tap::Pflog(number) => format!("pflog{number}"),
        }
    }

    /// What is in front of each packet: a number of <https://www.tcpdump.org/linktypes.html>.
    pub const fn link_type(self) -> u16 {
        match self {
            Tap::Enc => 109,
            Tap::Pflog(_) => pf::log::LINK_TYPE,
        }
    }

    fn named(name: &str) -> Option<Tap> {
        Tap::all().find(|tap| tap.name() == name)
    }
}

/// A packet as it was seen at a tap: link header and what follows it, as far as the capture wants it.
#[derive(Debug)]
pub struct Frame {
    /// When, by the router's clock.
    pub at: Instant,
    /// Whether it was on its way in.
    pub inbound: bool,
    /// Octets there were.
    pub len: u32,
    /// The first of them.
    pub octets: Vec<u8>,
}

impl Frame {
    /// One with room for this many octets.
    fn blank(snap: usize) -> Frame {
        Frame { at: Instant::ZERO, inbound: false, len: 0, octets: Vec::with_capacity(snap) }
    }
}
