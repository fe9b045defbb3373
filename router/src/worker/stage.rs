//! Stages and what waits in front of each.
//!
//! The list is fixed. A stage is a function from a batch to other batches; none calls another. The loop always runs
//! the stage nearest to the wire that has packets, so packets leave before new ones come in and a batch never meets
//! a full one ahead, except where the way turns back (a decrypted packet re-enters at `ip_input`).

use kern::{Batch, Ledger, Mbuf, Why};

/// A stage of the packet path, farthest from the outgoing wire first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Frames as read.
    EtherInput,
    /// IP packets, outer or decrypted.
    IpInput,
    /// Packets that passed pf in: to us or onwards?
    Forward,
    /// ESP to us.
    EspInput,
    /// Fragments to us.
    Reass,
    /// Whole packets to us.
    HostInput,
    /// Packets that a policy protects.
    EspOutput,
    /// Packets on their way out: route if there is none yet, pf out, MTU.
    IpOutput,
    /// Packets with a next hop: neighbour, Ethernet header, queue, device.
    EtherOutput,
}

impl Stage {
    /// How many there are.
    pub const COUNT: usize = 9;

    const ALL: [Stage; Self::COUNT] = [
        Stage::EtherInput,
        Stage::IpInput,
        Stage::Forward,
        Stage::EspInput,
        Stage::Reass,
        Stage::HostInput,
        Stage::EspOutput,
        Stage::IpOutput,
        Stage::EtherOutput,
    ];
}

/// The batches in front of the stages.
pub struct Pending {
    batches: [Box<Batch>; Stage::COUNT],
    /// The batch that changes places with the one taken; absent while a stage runs.
    spare: Option<Box<Batch>>,
}

impl Default for Pending {
    fn default() -> Self {
        Pending { batches: std::array::from_fn(|_| Box::default()), spare: Some(Box::default()) }
    }
}

impl Pending {
    /// Nothing waits anywhere.
    pub fn is_empty(&self) -> bool {
        self.batches.iter().all(|b| b.is_empty())
    }

    /// The stage nearest to the wire that has packets.
    #[inline]
    pub fn nearest(&self) -> Option<Stage> {
        Stage::ALL.into_iter().rev().find(|&s| !self.batches[s as usize].is_empty())
    }

    /// Takes a stage's batch to run it; [`put_back`](Self::put_back) follows.
    #[inline]
    pub(super) fn take(&mut self, stage: Stage) -> Box<Batch> {
        let empty = self.spare.take().unwrap_or_default();
        std::mem::replace(&mut self.batches[stage as usize], empty)
    }

    /// Returns a stage's batch with what it left undone, ahead of what came meanwhile.
    #[inline]
    pub(super) fn put_back(&mut self, stage: Stage, mut batch: Box<Batch>, ledger: &Ledger) {
        if !batch.is_empty() {
            let newer = &mut self.batches[stage as usize];
            newer.move_to(&mut batch);
            ledger.end_all(newer, Why::PendingFull);
            std::mem::swap(newer, &mut batch);
        }
        self.spare = Some(batch);
    }

    /// A stage's batch, to fill.
    #[inline(always)]
    pub fn at(&mut self, stage: Stage) -> &mut Batch {
        &mut self.batches[stage as usize]
    }

    /// Room in front of a stage.
    #[inline(always)]
    pub fn room(&self, stage: Stage) -> usize {
        self.batches[stage as usize].room()
    }

    /// Sends one packet to a stage: the way of exceptions. A full batch ends it, counted.
    #[inline]
    pub fn push(&mut self, stage: Stage, m: Mbuf, ledger: &Ledger) {
        if let Err(m) = self.batches[stage as usize].push(m) {
            ledger.end(m, Why::PendingFull);
        }
    }

    /// Sends a whole batch to the stage it expected: two pointers change places.
    #[inline]
    pub fn pass(&mut self, stage: Stage, batch: &mut Box<Batch>, ledger: &Ledger) {
        let to = &mut self.batches[stage as usize];
        if to.is_empty() {
            std::mem::swap(to, batch);
        } else {
            batch.move_to(to);
            ledger.end_all(batch, Why::PendingFull);
        }
    }
}
