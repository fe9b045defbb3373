//! What a device must do for us: read frames into a batch, write a batch of frames.
//!
//! A device has one or more queues. The reading end of queue *n* belongs to one worker ([`RxQueue`]); any worker may
//! write to any queue ([`Driver::write`] takes `&self`), because a frame goes to the queue that its flow's hash names,
//! whichever worker holds it. A driver that cannot bear that says so ([`Driver::mp_safe`]) and is then entered under
//! Kernel only, in every locking profile.
//!
//! Calls are per batch, so dynamic dispatch costs nothing that can be measured.

use kern::{Batch, Ledger, Pool, Why};
use std::os::fd::BorrowedFd;

/// What a device does with super-frames and unfinished checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Takes and gives frames whose transport checksum is partial.
    pub checksum: bool,
    /// Takes and gives TCP super-frames.
    pub tso: bool,
    /// Takes and gives UDP super-frames.
    pub uso: bool,
}

impl Caps {
    /// Whether it takes any super-frame.
    pub fn any(self) -> bool {
        self.checksum || self.tso || self.uso
    }
}

/// What reading needs.
pub struct RxCx<'a> {
    /// Where buffers come from.
    pub pool: &'a Pool,
    /// Where packets begin.
    pub ledger: &'a Ledger,
}

/// What writing needs.
pub struct TxCx<'a> {
    /// Where buffers come from, should it need any.
    pub pool: &'a Pool,
    /// Where packets end.
    pub ledger: &'a Ledger,
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The burst was filled: there may be more.
    More,
    /// The device has nothing further.
    Empty,
    /// The device is gone.
    Gone,
}

/// What a write came to. Every packet of the batch has ended, as sent or with the reason counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Frames on the wire (a super-frame counts its segments).
    pub frames: u64,
    /// Bytes on the wire, Ethernet headers included, per segment.
    pub bytes: u64,
    /// Packets that the device did not take.
    pub refused: u64,
}

/// The reading end of one queue; one worker has it.
pub trait RxQueue: Send {
    /// Appends up to `burst` frames (no more than fit) to `out`, each begun in the ledger as received and with its
    /// offload fields checked and set; data start at the Ethernet header.
    fn read(&mut self, cx: &RxCx<'_>, burst: usize, out: &mut Batch) -> Read;

    /// What to sleep on, if the queue has a descriptor.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

/// A device.
pub trait Driver: Send + Sync {
    /// Whether several threads may be inside at once.
    fn mp_safe(&self) -> bool;

    /// Number of queues.
    fn queues(&self) -> usize;

    /// What it does with super-frames.
    fn caps(&self) -> Caps;

    /// Takes the reading end of a queue; once each.
    fn rx(&self, queue: usize) -> Option<Box<dyn RxQueue>>;

    /// Writes all frames of the batch to a queue. Data start at the Ethernet header, the l3 offset is set. Super-frames come only where
    /// [`caps`](Self::caps) allow them.
    fn write(&self, queue: usize, batch: &mut Batch, cx: &TxCx<'_>) -> Written;

    /// Whether the device is there.
    fn is_up(&self) -> bool;

    /// Tries to get a lost device back; says whether it is there (again). Called now and then by the control thread.
    fn revive(&self) -> bool {
        self.is_up()
    }
}

/// Ends all packets of a batch for one reason; for drivers.
pub fn refuse(batch: &mut Batch, cx: &TxCx<'_>, why: Why) -> Written {
    let refused = batch.len() as u64;
    cx.ledger.end_all(batch, why);
    Written { refused, ..Written::default() }
}
