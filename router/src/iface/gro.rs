//! Generic receive offload before a write: runs of segments of one flow leave as one super-frame.
//!
//! A batch for one device holds segments of several flows, interleaved. Up to [`OPEN`] super-frames are open at once, found by
//! flow hash; a segment either follows an open one of its flow or closes it, so the order within a flow stays. Nothing is
//! kept beyond the batch: waiting for more would delay what is there.
//!
//! ```text
//!  batch:   a0 b0 a1 b1 ack(b) a2        units:  b0+b1, ack(b), a0+a1+a2
//! ```
//!
//! Nothing is copied: the device gathers the first packet, its headers patched, and the payloads of the others. What may follow what is
//! decided by `wire::coalesce`: only what cutting would restore octet for octet, the transport checksum verified first (a
//! packet that ESP opened carries one that nobody has looked at).

use arrayvec::ArrayVec;
use kern::{Gso, Mbuf, PktFlags};
use wire::{
    IpProto, Parsed,
    checksum::sum,
    coalesce::{self, Merge, SuperFrame},
    parse,
    segment::Kind,
};

use super::driver::Caps;

/// Super-frames open at once.
pub const OPEN: usize = 8;
/// Packets in one super-frame.
pub const PIECES: usize = 64;

/// A packet of the batch that is part of a super-frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which packet of the batch.
    pub index: u16,
    /// Where its contribution begins: 0 for the first packet, its payload for others.
    pub from: u16,
    /// Where it ends.
    pub to: u16,
}

/// Where units go.
pub trait Emit {
    /// The packet `index` goes alone.
    fn alone(&mut self, packets: &mut [Mbuf], index: usize);
    /// These pieces go as one super-frame. The first packet's headers are those of the super-frame now; `shape` counts from its l3 offset.
    fn together(&mut self, packets: &mut [Mbuf], pieces: &[Piece], shape: &SuperFrame);
}

struct Open {
    hash: u32,
    merge: Merge,
    pieces: ArrayVec<Piece, PIECES>,
}

impl Open {
    fn first(&self) -> usize {
        usize::from(self.pieces[0].index)
    }

    fn close(self, packets: &mut [Mbuf], to: &mut impl Emit) {
        let first = self.first();
        let l3 = packets[first].l3();
        match self.merge.finish(&mut packets[first].data_mut()[l3..]) {
            Some(shape) => to.together(packets, &self.pieces, &shape),
            None => to.alone(packets, first),
        }
    }
}

/// The open super-frames of one batch.
#[derive(Default)]
struct Table {
    open: ArrayVec<Open, OPEN>,
    victim: usize,
}

impl Table {
    fn find(&self, hash: u32) -> Option<usize> {
        self.open.iter().position(|open| open.hash == hash)
    }

    fn close_flow(&mut self, hash: u32, packets: &mut [Mbuf], to: &mut impl Emit) {
        if let Some(at) = self.find(hash) {
            self.open.swap_remove(at).close(packets, to);
        }
    }

    fn insert(&mut self, open: Open, packets: &mut [Mbuf], to: &mut impl Emit) {
        if self.open.is_full() {
            self.victim = (self.victim + 1) % OPEN;
            self.open.swap_remove(self.victim).close(packets, to);
        }
        self.open.push(open);
    }
}

/// Puts the segments of a batch together as far as they allow and `caps` takes it, and gives all to `to`.
pub fn gather(packets: &mut [Mbuf], caps: Caps, to: &mut impl Emit) {
    if !caps.tso || packets.len() < 2 {
        (0..packets.len()).for_each(|index| to.alone(packets, index));
        return;
    }
    let mut table = Table::default();
    for index in 0..packets.len() {
        let hash = packets[index].hdr().hash;
        let Some(parsed) = candidate(&packets[index], caps) else {
            table.close_flow(hash, packets, to);
            to.alone(packets, index);
            continue;
        };
        if let Some(at) = table.find(hash) {
            if follow(&mut table.open[at], packets, index, &parsed) {
                continue;
            }
            table.open.swap_remove(at).close(packets, to);
        }
        match begin(&packets[index], index, &parsed) {
            Some(open) => table.insert(open, packets, to),
            None => to.alone(packets, index),
        }
    }
    table.open.drain(..).for_each(|open| open.close(packets, to));
}

/// What the packet is, if it can be in a super-frame at all.
#[inline]
fn candidate(m: &Mbuf, caps: Caps) -> Option<Parsed> {
    if m.hdr().gso != Gso::None || m.len() > usize::from(u16::MAX) {
        return None;
    }
    let parsed = parse::parse_ip(m.data().get(m.l3()..)?).ok()?;
    let taken = parsed.proto == IpProto::TCP || caps.uso;
    (taken && coalesce::is_candidate(&parsed)).then_some(parsed)
}

fn verified(m: &Mbuf) -> bool {
    m.hdr().flags.any(PktFlags::CSUM_OK.with(PktFlags::PARTIAL))
}

fn begin(m: &Mbuf, index: usize, parsed: &Parsed) -> Option<Open> {
    let packet = &m.data()[m.l3()..];
    // Padding of a short frame would stand in the middle of the super-frame.
    if packet.len() != parsed.end as usize {
        return None;
    }
    let merge = Merge::start(packet, parsed, verified(m), false)?;
    let mut pieces = ArrayVec::new();
    pieces.push(Piece { index: index as u16, from: 0, to: m.len() as u16 });
    Some(Open { hash: m.hdr().hash, merge, pieces })
}

/// Adds the packet to the super-frame if it may follow.
#[inline]
fn follow(open: &mut Open, packets: &[Mbuf], index: usize, parsed: &Parsed) -> bool {
    let (first, m) = (&packets[open.first()], &packets[index]);
    let l3 = first.l3();
    if open.pieces.is_full() || m.l3() != l3 || first.data()[..l3] != m.data()[..l3] {
        return false;
    }
    let packet = &m.data()[l3..];
    let Some(step) = open.merge.next(&first.data()[l3..], packet, parsed) else {
        return false;
    };
    if verified(m) {
        open.merge.accept_verified(&step);
    } else if !open.merge.accept(&step, sum(&packet[step.payload()])) {
        return false;
    }
    let payload = step.payload();
    open.pieces.push(Piece {
        index: index as u16,
        from: (l3 + payload.start) as u16,
        to: (l3 + payload.end) as u16,
    });
    true
}

/// The kind as the packet header says it.
pub const fn gso(kind: Kind) -> Gso {
    match kind {
        Kind::Tcp4 => Gso::Tcp4,
        Kind::Tcp6 => Gso::Tcp6,
        Kind::Udp4 => Gso::Udp4,
        Kind::Udp6 => Gso::Udp6,
    }
}
