//! ESP (RFC 4303), in tunnel mode, in transport mode (`transport.rs`) and in BEET mode (`beet.rs`).
//!
//! Output, of a run of packets of one SA ([`output`]):
//!
//! 1. reserve sequence numbers; stop if the SA is at its end (3.3.3); then, packet by packet:
//! 2. append padding, pad length and next header (2.4 to 2.6)
//! 3. prepend outer IP header, ESP header and IV (RFC 4301, 5.1.2)
//! 4. seal (3.3.2)
//! 5. leave in order ([`crate::exit`])
//!
//! Input ([`input`]):
//!
//! 1. look at length and alignment; work out the 64-bit sequence number; check the window (3.4.3)
//! 2. open (3.4.4)
//! 3. take padding off; look at the next header; fold the outer ECN field in; take the outer header off
//! 4. in the order of arrival: mark the window
//! 5. the caller compares the inner packet with the policy ([`crate::spd`], RFC 4301, 5.2)
//!
//! Each is cut into `begin`, the cipher, and `finish`. The router calls them back to back; to open one tunnel on several
//! cores the [`Pending`](input::Pending) of a run goes to another worker in between.
//!
//! Packets that fail are given back one by one with a [`Why`] to a closure, which is expected to end them.
//!
//! SAs of AH and IPComp go the same way, with their own headers and in place of the cipher a MAC or nothing: numbers,
//! windows, order, lives and counts are one.
//!
//! The UDP header of RFC 3948 is written with the others on the way out; on the way in it has been taken off ([`crate::natt`]).
//!
//! Deliberately not here: fragmentation and reassembly (before and after, by the router), and any
//! decision on policy.

mod beet;
mod ecn;
pub mod input;
mod layout;
pub mod output;
mod release;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod transport;

pub use layout::Layout;
pub use release::{LoopTurn, Releasing};

use crate::sa::{NotNow, Protocol};
use arrayvec::ArrayVec;
use kern::{Batch, Gso, Mbuf, PktFlags, Why, mbuf::BATCH};

/// No run could begin: the packets are the caller's again.
#[derive(Debug)]
pub struct Declined<B> {
    /// The packets, untouched.
    pub run: B,
    /// Whether to come again.
    pub why: NotNow,
}

/// The SA has too many runs out that are to be opened: keep the packets, end the loop turn (write everything out and call
/// [`Releasing::written_input`]), and come again. Insisting may wait for ever: see [`crate::order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// Whether a packet can be sealed as it is.
#[inline(always)]
pub(crate) fn finished(m: &Mbuf) -> Result<(), Why> {
    let unfinished = m.hdr().flags.has(PktFlags::PARTIAL) || m.hdr().gso != Gso::None;
    debug_assert!(!unfinished, "cutting and finishing the checksum come before ESP");
    if unfinished { Err(Why::EspUnfinished) } else { Ok(()) }
}

/// The sequence number as an ESP header shows it; 0 if there is no header.
#[inline(always)]
fn low_seq(packet: &[u8]) -> u32 {
    packet.first_chunk::<8>().map_or(0, |h| u32::from_be_bytes([h[4], h[5], h[6], h[7]]))
}

/// Packets of a run that failed, by place, with the reason. Costs nothing while it is empty.
pub(crate) struct Failed {
    protocol: Protocol,
    list: ArrayVec<(u8, Why), BATCH>,
}

impl Failed {
    #[inline(always)]
    pub(crate) const fn of(protocol: Protocol) -> Failed {
        Failed { protocol, list: ArrayVec::new_const() }
    }

    #[inline(always)]
    pub(crate) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Notes one, for a reason by ESP's name for it; places come in ascending order.
    #[cold]
    pub(crate) fn note(&mut self, place: usize, why: Why) {
        // A batch has no more places than this has, and each is noted once.
        let _ = self.list.try_push((place as u8, self.protocol.why(why)));
    }

    /// Why the packet at this place failed.
    pub(crate) fn at(&self, place: usize) -> Option<Why> {
        self.list.iter().find(|(at, _)| usize::from(*at) == place).map(|(_, why)| *why)
    }

    pub(crate) fn whys(&self) -> impl Iterator<Item = Why> {
        self.list.iter().map(|(_, why)| *why)
    }

    /// Takes the failed packets out of the run.
    #[cold]
    pub(crate) fn give_back(&self, run: &mut Batch, sink: &mut impl FnMut(Mbuf, Why)) {
        let (mut place, mut failed) = (0, self.list.iter().peekable());
        run.sift(|m| {
            let here = place;
            place += 1;
            match failed.next_if(|(at, _)| usize::from(*at) == here) {
                Some((_, why)) => {
                    sink(m, *why);
                    None
                }
                None => Some(m),
            }
        });
    }
}
