//! The in-memory link: a cable between two routers (or a router and a test) of one process, with a wire's vices.
//!
//! Frames travel as octets, so the two ends may have different pools. A direction has as many lanes as the receiving
//! end has queues; a frame written to queue *n* arrives on lane *n* modulo their number. Each lane keeps its frames in
//! slots made beforehand and used again, in the order of their arrival times.
//!
//! ```text
//!  end A ── write(q) ──► lane q % queues(B): loss? ► bandwidth ► delay + jitter ► due ──► read ── end B
//!        ◄─ read ────── lane q % queues(A)                                     ◄── write(q)
//! ```
//!
//! Loss, delay and reordering are drawn from a seeded generator of each lane: the same writes give the same wire. The
//! sender's packet is *sent* when the wire has it; what the wire loses after that is in [`LinkStats`], not in a router's
//! books. Time is a [`Clock`]: with the real one, a queue has a timerfd to sleep on.
//!
//! Not MP-safe on request ([`LinkConfig::unsafe_for_mp`]): then it watches whether two threads are ever inside at once and
//! whether the Kernel lock is held by who comes in. Not here: collisions, and any notion of a shared medium.

mod lane;
mod rx;
mod turnstile;

pub use turnstile::{Entries, Probe};

use super::{
    driver::{Caps, Driver, RxQueue, TxCx, Written, refuse},
    vnet::{self, VnetHdr},
};
use arrayvec::ArrayVec;
use kern::{
    Batch, Gso, Mbuf, Why,
    lock::Leaf,
    time::{Clock, Duration, Instant},
};
use lane::{Lane, Slot};
use rx::LinkRx;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use turnstile::{Inside, Turnstile};

/// Frames copied for one turn of a lane's lock.
const TURN: usize = 64;

/// Longest frame that is put into a cluster.
pub(super) const CLUSTER_FRAME: usize = 1700;

/// What the wire is like, both ways.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Queues of either end.
    pub queues: [usize; 2],
    /// Octets of the largest packet; a frame may have 22 more (Ethernet and two tags).
    pub mtu: usize,
    /// Frames in a lane before the sender finds it busy.
    pub capacity: usize,
    /// What either end does with super-frames; the link does what both do.
    pub caps: [Caps; 2],
    /// Share of frames lost, 0.0 to 1.0.
    pub loss: f64,
    /// Time on the wire.
    pub delay: Duration,
    /// Share of frames that are held up and so overtaken, 0.0 to 1.0.
    pub reorder: f64,
    /// How long a frame that is held up takes more than `delay`, at most.
    pub jitter: Duration,
    /// Bits a second; `None` is no limit.
    pub bandwidth: Option<u64>,
    /// Where chance begins.
    pub seed: u64,
    /// Whether only one thread at a time may be inside.
    pub unsafe_for_mp: bool,
}

impl Default for LinkConfig {
    fn default() -> Self {
        LinkConfig {
            queues: [1, 1],
            mtu: 1500,
            capacity: 512,
            caps: [Caps::default(); 2],
            loss: 0.0,
            delay: Duration::ZERO,
            reorder: 0.0,
            jitter: Duration::ZERO,
            bandwidth: None,
            seed: 1,
            unsafe_for_mp: false,
        }
    }
}

/// What happened on one direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames the wire took.
    pub written: u64,
    /// Frames lost on the wire.
    pub lost: u64,
    /// Frames held up.
    pub held_up: u64,
    /// Frames refused because a lane was full.
    pub busy: u64,
    /// Frames larger than the link's MTU.
    pub too_big: u64,
    /// Frames that arrived.
    pub read: u64,
    /// Frames that arrived and found no buffer or a bad offload header.
    pub refused: u64,
    /// Frames on the wire.
    pub in_flight: u64,
}

struct Direction {
    lanes: Vec<Leaf<Lane>>,
    taken: Vec<AtomicBool>,
    capturing: AtomicBool,
    captured: Leaf<Vec<Vec<u8>>>,
}

impl Direction {
    fn new(config: &LinkConfig, to: usize, clock: &Clock) -> Direction {
        let queues = config.queues[to].max(1);
        let lane = |queue: usize| {
            let seed = config.seed ^ ((to as u64 + 1) << 32) ^ (queue as u64 + 1);
            Leaf::new(Lane::new(config, seed, clock))
        };
        Direction {
            lanes: (0..queues).map(lane).collect(),
            taken: (0..queues).map(|_| AtomicBool::new(false)).collect(),
            capturing: AtomicBool::new(false),
            captured: Leaf::new(Vec::new()),
        }
    }
}

struct Link {
    config: LinkConfig,
    caps: Caps,
    clock: Clock,
    up: AtomicBool,
    /// Toward end 0 and toward end 1.
    toward: [Direction; 2],
    /// Of end 0 and end 1.
    turnstiles: [Turnstile; 2],
}

/// One end of a link; clones are the same end.
#[derive(Clone)]
pub struct LinkEnd {
    link: Arc<Link>,
    end: usize,
}

/// Makes a link and gives its two ends.
pub fn link(config: LinkConfig, clock: &Clock) -> (LinkEnd, LinkEnd) {
    let [a, b] = config.caps;
    let caps = Caps { checksum: a.checksum && b.checksum, tso: a.tso && b.tso, uso: a.uso && b.uso };
    let link = Arc::new(Link {
        caps,
        toward: [Direction::new(&config, 0, clock), Direction::new(&config, 1, clock)],
        clock: clock.clone(),
        up: AtomicBool::new(true),
        turnstiles: [Turnstile::default(), Turnstile::default()],
        config,
    });
    (LinkEnd { link: Arc::clone(&link), end: 0 }, LinkEnd { link, end: 1 })
}

impl LinkEnd {
    fn inward(&self) -> &Direction {
        &self.link.toward[self.end]
    }

    fn outward(&self) -> &Direction {
        &self.link.toward[1 - self.end]
    }

    fn enter(&self) -> Option<Inside<'_>> {
        self.link.config.unsafe_for_mp.then(|| self.link.turnstiles[self.end].enter())
    }

    /// Pulls the plug, or puts it back in. What is on the wire then is lost.
    pub fn set_up(&self, up: bool) {
        self.link.up.store(up, Ordering::Release);
        if !up {
            let lanes = self.link.toward.iter().flat_map(|d| &d.lanes);
            lanes.for_each(|lane| lane.with(Lane::lose_all));
        }
    }

    /// Puts a frame on the wire toward this end, as if the other end had written it to `queue`; says whether there was room.
    pub fn inject(&self, queue: usize, frame: &[u8]) -> bool {
        self.inject_offload(queue, frame, VnetHdr::PLAIN)
    }

    /// As [`inject`](Self::inject), with what a device would say about the frame: right or wrong.
    pub fn inject_offload(&self, queue: usize, frame: &[u8], vnet: VnetHdr) -> bool {
        let direction = self.inward();
        let lane = &direction.lanes[queue % direction.lanes.len()];
        let Some(mut slot) = lane.with(Lane::blank) else {
            return false;
        };
        slot.fill(frame, vnet);
        let now = self.link.clock.now();
        lane.with(|lane| {
            lane.launch(slot, now, frame.len());
            lane.set_alarm();
        });
        true
    }

    /// Takes the octets of the next frame that has arrived at this end; says whether there was one. For who has no packets
    /// of ours; such an end has no offloads.
    pub fn take(&self, queue: usize, frame: &mut Vec<u8>) -> bool {
        let lanes = &self.inward().lanes;
        let lane = &lanes[queue % lanes.len()];
        let now = self.link.clock.now();
        let Some(slot) = lane.with(|lane| lane.arrive(now)) else { return false };
        frame.clear();
        frame.extend_from_slice(slot.octets());
        lane.with(|lane| {
            lane.note_read(1, 0);
            lane.recycle(slot);
            lane.set_alarm();
        });
        true
    }

    /// The other end.
    #[must_use]
    pub fn other(&self) -> LinkEnd {
        LinkEnd { link: Arc::clone(&self.link), end: 1 - self.end }
    }

    /// Frames toward this end for which there is room.
    pub fn room(&self, queue: usize) -> usize {
        let lanes = &self.inward().lanes;
        lanes[queue % lanes.len()].with(|lane| lane.room())
    }

    /// Starts or ends keeping a copy of every frame that this end writes, also of those that the wire loses.
    pub fn capture(&self, on: bool) {
        self.outward().capturing.store(on, Ordering::Relaxed);
    }

    /// Takes the frames captured so far.
    pub fn captured(&self) -> Vec<Vec<u8>> {
        self.outward().captured.with(std::mem::take)
    }

    /// When the next frame arrives at this end; `None` when none is on the wire.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.inward().lanes.iter().filter_map(|lane| lane.with(|lane| lane.next_due())).min()
    }

    /// What happened to the frames that this end wrote.
    pub fn stats(&self) -> LinkStats {
        let mut sum = LinkStats::default();
        for lane in &self.outward().lanes {
            lane.with(|lane| lane.add_to(&mut sum));
        }
        sum
    }

    /// Who came in, on an MP-unsafe link.
    pub fn entries(&self) -> Entries {
        self.link.turnstiles[self.end].entries()
    }

    /// Sets what says whether the Kernel lock is held, for an MP-unsafe link; says whether it was the first.
    pub fn set_probe(&self, probe: Probe) -> bool {
        self.link.turnstiles[self.end].set_probe(probe)
    }

    /// Why the wire does not take this frame, if it does not.
    fn objection(&self, m: &Mbuf) -> Option<Why> {
        let link = &self.link;
        let frame = match m.hdr().gso {
            Gso::None => m.len(),
            _ => vnet::header_len(m) + usize::from(m.hdr().gso_size),
        };
        if !vnet::takes(link.caps, m.hdr().gso) {
            Some(Why::IfOffload)
        } else if frame > link.config.mtu + 22 {
            Some(Why::TooBig)
        } else {
            None
        }
    }

    /// Writes up to [`TURN`] packets.
    fn write_turn(&self, queue: usize, batch: &mut Batch, cx: &TxCx<'_>, written: &mut Written) {
        let direction = self.outward();
        let lane = &direction.lanes[queue % direction.lanes.len()];
        let mut blanks: ArrayVec<Slot, TURN> = ArrayVec::new();
        let mut loaded: ArrayVec<(Slot, usize), TURN> = ArrayVec::new();
        let wanted = batch.len().min(TURN);
        lane.with(|lane| blanks.extend(std::iter::from_fn(|| lane.blank()).take(wanted)));
        let (mut busy, mut too_big) = (0, 0);
        for m in batch.drain_front(wanted) {
            if let Some(why) = self.objection(&m) {
                too_big += u64::from(why == Why::TooBig);
                written.refused += 1;
                cx.ledger.end(m, why);
            } else if let Some(mut slot) = blanks.pop() {
                let (frames, octets) = vnet::on_the_wire(&m);
                slot.load(&m, self.link.caps.checksum);
                direction.capture(&slot);
                loaded.push((slot, octets as usize));
                written.frames += frames;
                written.bytes += octets;
                cx.ledger.sent(m);
            } else {
                busy += 1;
                written.refused += 1;
                cx.ledger.end(m, Why::IfBusy);
            }
        }
        let now = self.link.clock.now();
        lane.with(|lane| {
            lane.note_refused(busy, too_big);
            loaded.drain(..).for_each(|(slot, octets)| lane.launch(slot, now, octets));
            blanks.drain(..).for_each(|slot| lane.recycle(slot));
            lane.set_alarm();
        });
    }
}

impl Direction {
    fn capture(&self, slot: &Slot) {
        if self.capturing.load(Ordering::Relaxed) {
            let copy = slot.octets().to_vec();
            self.captured.with(|frames| frames.push(copy));
        }
    }
}

impl Driver for LinkEnd {
    fn mp_safe(&self) -> bool {
        !self.link.config.unsafe_for_mp
    }

    fn queues(&self) -> usize {
        self.inward().lanes.len()
    }

    fn caps(&self) -> Caps {
        self.link.caps
    }

    fn rx(&self, queue: usize) -> Option<Box<dyn RxQueue>> {
        let taken = self.inward().taken.get(queue)?;
        (!taken.swap(true, Ordering::AcqRel))
            .then(|| Box::new(LinkRx::new(self.clone(), queue)) as Box<dyn RxQueue>)
    }

    fn write(&self, queue: usize, batch: &mut Batch, cx: &TxCx<'_>) -> Written {
        let _inside = self.enter();
        if !self.is_up() {
            return refuse(batch, cx, Why::IfDown);
        }
        let mut written = Written::default();
        while !batch.is_empty() {
            self.write_turn(queue, batch, cx, &mut written);
        }
        written
    }

    fn is_up(&self) -> bool {
        self.link.up.load(Ordering::Acquire)
    }
}
