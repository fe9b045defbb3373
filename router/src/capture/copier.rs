//! The workers' ends of captures: they copy what passes a tap, or count what they cannot.

use super::{Frame, Tap};
use crate::control::socket::Session;
use kern::{
    counter::Counter,
    ring::{Consumer, Producer},
    time::Instant,
};
use std::sync::Arc;

/// A packet that passes a tap.
pub(crate) struct Seen<'a> {
    /// When.
    pub(crate) at: Instant,
    /// Whether it is on its way in.
    pub(crate) inbound: bool,
    /// What the tap's link type has in front of it.
    pub(crate) header: &'a [u8],
    /// The packet.
    pub(crate) packet: &'a [u8],
}

/// One worker's end of one capture.
pub(crate) struct Copier {
    pub(super) session: Session,
    pub(super) tap: Tap,
    /// Octets of a frame that are wanted.
    pub(super) snap: usize,
    pub(super) blank: Consumer<Frame>,
    pub(super) seen: Producer<Frame>,
    /// Copies that are not shown yet. Room for all frames there are.
    pub(super) copies: Vec<Frame>,
    /// Packets that are to be copied and for which there is no frame.
    pub(super) missed: u64,
    pub(super) lost: Arc<Counter>,
}

impl Copier {
    fn copy(&mut self, seen: &Seen<'_>) {
        let Some(mut frame) = self.blank.pop() else {
            self.missed += 1;
            return;
        };
        (frame.at, frame.inbound) = (seen.at, seen.inbound);
        frame.len = (seen.header.len() + seen.packet.len()) as u32;
        frame.octets.clear();
        for part in [seen.header, seen.packet] {
            let room = self.snap - frame.octets.len();
            frame.octets.extend_from_slice(&part[..part.len().min(room)]);
        }
        self.copies.push(frame);
    }

    fn show(&mut self) {
        // There is room for all frames there are.
        self.seen.push_from(&mut self.copies.drain(..));
        self.lost.add(std::mem::take(&mut self.missed));
    }
}

/// One worker's ends of all captures.
#[derive(Default)]
pub(crate) struct Copiers(Vec<Copier>);

impl Copiers {
    /// Whether anybody looks at a tap.
    #[inline(always)]
    pub(crate) fn look_at(&self, tap: Tap) -> bool {
        self.0.iter().any(|copier| copier.tap == tap)
    }

    /// Whether anybody looks at one of these taps.
    #[inline(always)]
    pub(crate) fn look_at_any(&self, of: impl Fn(Tap) -> bool) -> bool {
        self.0.iter().any(|copier| of(copier.tap))
    }

    /// Copies a packet for all who look at a tap. They see it when it is [shown](Self::show).
    #[cold]
    pub(crate) fn copy(&mut self, tap: Tap, seen: &Seen<'_>) {
        self.of(tap).for_each(|copier| copier.copy(seen));
    }

    /// Shows what has been copied at a tap.
    #[cold]
    pub(crate) fn show(&mut self, tap: Tap) {
        self.of(tap).for_each(Copier::show);
    }

    fn of(&mut self, tap: Tap) -> impl Iterator<Item = &mut Copier> {
        self.0.iter_mut().filter(move |copier| copier.tap == tap)
    }

    /// A capture begins.
    pub(crate) fn add(&mut self, copier: Copier) {
        self.0.push(copier);
    }

    /// A capture is over.
    pub(crate) fn remove(&mut self, session: Session) {
        self.0.retain(|copier| copier.session != session);
    }
}
