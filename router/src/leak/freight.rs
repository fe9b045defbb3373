//! What the packets of the laboratory carry.
//!
//! [`Real`](super::real::Real) carries clusters through pf, an SA and ALTQ. [`Bare`] carries nothing, so that model checkers and
//! the deterministic scheduler see the steps and only the steps.

use super::world::Kind;

/// What packets carry, and what is done to it between the queues.
pub trait Freight: Sync {
    /// A packet.
    type Packet: Send;
    /// A packet between the halves of its transform.
    type Job: Send;
    /// What a virtual CPU keeps for itself.
    type Hand;
    /// Whether [`enqueue`](Freight::enqueue) and [`dequeue`](Freight::dequeue) are a real interface queue.
    const DISCIPLINE: bool;

    /// Runs `body` on this thread with what virtual CPU `cpu` keeps for itself.
    fn with_hand(&self, cpu: u32, body: &mut dyn FnMut(&mut Self::Hand));
    /// A packet of this kind from the wire, or from the host; `None`: no cluster is left.
    fn receive(&self, hand: &mut Self::Hand, kind: Kind) -> Option<Self::Packet>;
    /// pf: whether the packet passes.
    fn filter(&self, hand: &mut Self::Hand, packet: &mut Self::Packet, out: bool) -> bool;
    /// The first half of its SA's transform. `None`: too many are between the halves; the packet has ended.
    fn begin(&self, hand: &mut Self::Hand, packet: Self::Packet, out: bool) -> Option<Self::Job>;
    /// The second half: adds what may go on.
    fn finish(&self, hand: &mut Self::Hand, job: Self::Job, out: bool, done: &mut Vec<Self::Packet>);
    /// What others of the SA left behind meanwhile; to be called until it adds nothing.
    fn owed(&self, hand: &mut Self::Hand, out: bool, done: &mut Vec<Self::Packet>) -> bool;
    /// Into the interface queue; how many it refused.
    fn enqueue(&self, hand: &mut Self::Hand, packet: Self::Packet) -> u64;
    /// Up to `room` packets out of it.
    fn dequeue(&self, hand: &mut Self::Hand, room: usize, done: &mut Vec<Self::Packet>);
    /// Whether it has some.
    fn waits(&self) -> bool;
    /// The device has sent it.
    fn sent(&self, hand: &mut Self::Hand, packet: Self::Packet);
    /// It ended here: delivered, refused, or given back by the sweep.
    fn end(&self, hand: &mut Self::Hand, packet: Self::Packet, how: End);
}

/// How a packet ended short of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At a socket.
    Delivered,
    /// A queue was full.
    Full,
    /// pf said no, or a replaced or captured packet.
    Dropped,
    /// Found by the sweep.
    Swept,
}

/// Nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bare;

impl Freight for Bare {
    type Packet = ();
    type Job = ();
    type Hand = ();
    const DISCIPLINE: bool = false;

    fn with_hand(&self, _cpu: u32, body: &mut dyn FnMut(&mut ())) {
        body(&mut ());
    }
    fn receive(&self, (): &mut (), _kind: Kind) -> Option<()> {
        Some(())
    }
    fn filter(&self, (): &mut (), (): &mut (), _out: bool) -> bool {
        true
    }
    fn begin(&self, (): &mut (), (): (), _out: bool) -> Option<()> {
        Some(())
    }
    fn finish(&self, (): &mut (), (): (), _out: bool, done: &mut Vec<()>) {
        done.push(());
    }
    fn owed(&self, (): &mut (), _out: bool, _done: &mut Vec<()>) -> bool {
        false
    }
    fn enqueue(&self, (): &mut (), (): ()) -> u64 {
        0
    }
    fn dequeue(&self, (): &mut (), _room: usize, _done: &mut Vec<()>) {}
    fn waits(&self) -> bool {
        false
    }
    fn sent(&self, (): &mut (), (): ()) {}
    fn end(&self, (): &mut (), (): (), _how: End) {}
}
