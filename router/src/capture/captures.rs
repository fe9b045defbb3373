//! The control thread's ends of captures: who has one open, and what it is still to be told.

use super::{Copier, Frame, Tap};
use crate::{
    control::{
        capture::{CaptureReport, CaptureRequest, FrameReport, TapReport},
        proto::{Octets, Response},
        socket::{Outbox, Session},
    },
    router::Router,
};
use kern::{
    counter::Counter,
    ring::{Consumer, Producer, ring},
    time::{Duration, Instant},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Captures at once: each is a copy of each packet.
const OPEN: usize = 4;
/// Octets of frames that a capture has on each worker; frames are between 128 and 1024.
const ROOM: usize = 8 << 20;
/// Octets of a frame that may be wanted: a link header and the headers of a packet at least, any packet at most.
const SNAP: std::ops::RangeInclusive<u32> = 96..=65_535;
/// Frames taken from a worker at once.
const RUN: usize = 128;
/// How often workers are asked for frames: a worker's frames last for 100,000 packets a second.
const EVERY: Duration = Duration::from_millis(10);

/// Why a capture cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// There is no such tap.
    #[error("{0:?} cannot be captured; there are enc0 and pflog0 to pflog15")]
    Unknown(String),
    /// Frames of that size make no sense.
    #[error("{0} octets a packet: {least} to {most} can be captured", least = SNAP.start(), most = SNAP.end())]
    Snap(u32),
    /// There are enough.
    #[error("{OPEN} captures are open already")]
    Enough,
    /// The client has one.
    #[error("a stream is open already")]
    Twice,
}

/// One worker, as seen from here.
pub(super) struct End {
    pub(super) seen: Consumer<Frame>,
    pub(super) blank: Producer<Frame>,
    pub(super) lost: Arc<Counter>,
}

/// What one client has open.
struct Capture {
    tap: Tap,
    snap: u32,
    ends: Vec<End>,
    told: u64,
    /// The client knows what it gets.
    begun: bool,
    /// The client wants no more than what has been seen.
    closing: bool,
}

/// All captures that are open.
#[derive(Default)]
pub struct Captures(BTreeMap<Session, Capture>);

impl Captures {
    /// Opens one for a client.
    pub fn open(
        &mut self,
        session: Session,
        asked: &CaptureRequest,
        router: &mut Router,
    ) -> Result<(), CaptureError> {
        let tap =
            Tap::named(&asked.interface).ok_or_else(|| CaptureError::Unknown(asked.interface.clone()))?;
        if !SNAP.contains(&asked.snap) {
            return Err(CaptureError::Snap(asked.snap));
        }
        if self.is_open(session) {
            return Err(CaptureError::Twice);
        }
        if self.0.len() == OPEN {
            return Err(CaptureError::Enough);
        }
        let pairs = (0..router.setup().workers).map(|_| pair(session, tap, asked.snap as usize));
        let (copiers, ends) = pairs.unzip();
        router.begin_capture(copiers);
        let capture = Capture { tap, snap: asked.snap, ends, told: 0, begun: false, closing: false };
        self.0.insert(session, capture);
        Ok(())
    }

    /// Whether a client has one open.
    pub fn is_open(&self, session: Session) -> bool {
        self.0.contains_key(&session)
    }

    /// The longest that may pass until the next turn: frames are few, and workers do not ring.
    pub fn next_wait(&self) -> Duration {
        if self.0.is_empty() { Duration::MAX } else { EVERY }
    }

    /// A client wants no more than what has been seen.
    pub fn shut(&mut self, session: Session, router: &mut Router) {
        if let Some(capture) = self.0.get_mut(&session) {
            router.end_capture(session);
            capture.closing = true;
        }
    }

    /// A client is gone.
    pub fn closed(&mut self, session: Session, router: &mut Router) {
        if self.0.remove(&session).is_some() {
            router.end_capture(session);
        }
    }

    /// Takes frames from workers, at most a run from each, in the order in which they were seen.
    pub fn take(&mut self, session: Session, mut each: impl FnMut(&Frame)) {
        if let Some(capture) = self.0.get_mut(&session) {
            capture.take(&mut each);
        }
    }

    /// Packets that a client has been given, and such as there was no frame for.
    pub fn report(&self, session: Session) -> CaptureReport {
        self.0.get(&session).map_or_else(CaptureReport::default, Capture::report)
    }

    /// Tells a client what has been seen. `now` is the router's clock.
    pub fn poll(&mut self, session: Session, now: Instant, out: &mut Outbox<'_>) {
        let Some(capture) = self.0.get_mut(&session) else { return };
        if !std::mem::replace(&mut capture.begun, true) {
            let (name, link_type) = (capture.tap.name(), capture.tap.link_type());
            out.push(&Response::Capturing(TapReport { name, link_type, snap: capture.snap }));
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        while out.has_room() {
            let frames = capture.take(&mut |frame| {
                let at = wall.saturating_sub(now.since(frame.at)).as_nanos() as u64;
                let (inbound, len, data) = (frame.inbound, frame.len, Octets(frame.octets.clone()));
                out.push(&Response::Frame(FrameReport { at, inbound, len, data }));
            });
            if frames > 0 {
                continue;
            }
            if capture.closing {
                out.push(&Response::Captured(capture.report()));
                out.push(&Response::End);
                self.0.remove(&session);
            }
            return;
        }
    }
}

impl Capture {
    fn take(&mut self, each: &mut impl FnMut(&Frame)) -> usize {
        let mut frames = Vec::new();
        for (worker, end) in self.ends.iter_mut().enumerate() {
            end.seen.drain(RUN, |frame| frames.push((worker, frame)));
        }
        frames.sort_by_key(|(_, frame)| frame.at);
        let count = frames.len();
        for (worker, frame) in frames {
            each(&frame);
            // A worker that is gone needs no frames.
            let _ = self.ends[worker].blank.push(frame);
        }
        self.told += count as u64;
        count
    }

    fn report(&self) -> CaptureReport {
        CaptureReport { packets: self.told, lost: self.ends.iter().map(|end| end.lost.get()).sum() }
    }
}

/// Both ends of a capture on one worker.
pub(super) fn pair(session: Session, tap: Tap, snap: usize) -> (Copier, End) {
    let count = (ROOM / snap).clamp(128, 1024);
    let (mut give, blank) = ring(count);
    let (seen, take) = ring(count);
    give.push_from(&mut (0..count).map(|_| Frame::blank(snap)));
    let lost = Arc::new(Counter::new());
    let copies = Vec::with_capacity(count);
    let copier = Copier { session, tap, snap, blank, seen, copies, missed: 0, lost: lost.clone() };
    (copier, End { seen: take, blank: give, lost })
}
