//! Writing to a TAP queue: a batch is gathered into super-frames first, then each goes with one `writev`.

use super::Shared;
use crate::iface::{
    cut,
    driver::{TxCx, Written},
    gro::{self, Emit, PIECES, Piece},
    vnet::{self, VnetHdr},
};
use arrayvec::ArrayVec;
use kern::{Batch, Mbuf, Why, mbuf::BATCH};
use rustix::io::{Errno, writev};
use std::{io::IoSlice, os::fd::BorrowedFd, thread};
use wire::coalesce::SuperFrame;

/// Times a full queue is asked again.
const PATIENCE: usize = 16;

/// What became of a packet.
#[derive(Clone, Copy)]
enum Fate {
    Sent,
    Merged,
    Ended(Why),
}

struct Writer<'a> {
    tap: &'a Shared,
    fd: BorrowedFd<'a>,
    epoch: u64,
    fates: [Fate; BATCH],
    written: Written,
}

pub(super) fn write(tap: &Shared, epoch: u64, queue: usize, batch: &mut Batch, cx: &TxCx<'_>) -> Written {
    let mut writer = Writer {
        tap,
        fd: tap.descriptor(queue),
        epoch,
        fates: [Fate::Ended(Why::IfWrite); BATCH],
        written: Written::default(),
    };
    gro::gather(batch.as_mut_slice(), tap.caps, &mut writer);
    for (m, fate) in batch.drain().zip(&writer.fates) {
        match *fate {
            Fate::Sent => cx.ledger.sent(m),
            Fate::Merged => cx.ledger.merge(m),
            Fate::Ended(why) => cx.ledger.end(m, why),
        }
    }
    writer.written
}

impl Writer<'_> {
    /// Writes one unit, in pieces; a full queue is asked again a few times.
    fn put(&self, parts: &[IoSlice<'_>]) -> Result<(), Why> {
        for _ in 0..PATIENCE {
            match writev(self.fd, parts) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => thread::yield_now(),
                Err(Errno::NOBUFS | Errno::NOMEM) => return Err(Why::IfBusy),
                // The kernel's end is there but not up.
                Err(Errno::IO) => return Err(Why::IfDown),
                Err(Errno::BADFD) => {
                    self.tap.lost(self.epoch);
                    return Err(Why::IfDown);
                }
                Err(_) => return Err(Why::IfWrite),
            }
        }
        Err(Why::IfBusy)
    }

    fn write_alone(&mut self, m: &mut Mbuf) -> Result<(), Why> {
        if !vnet::takes(self.tap.caps, m.hdr().gso) {
            return Err(Why::IfOffload);
        }
        if !self.tap.caps.checksum {
            cut::finish_checksum(m)?;
        }
        let header = VnetHdr::of(m).emit();
        self.put(&[IoSlice::new(&header), IoSlice::new(m.data())])
    }

    fn count(&mut self, frames: u64, bytes: u64) {
        self.written.frames += frames;
        self.written.bytes += bytes;
    }
}

impl Emit for Writer<'_> {
    fn alone(&mut self, packets: &mut [Mbuf], index: usize) {
        let m = &mut packets[index];
        self.fates[index] = match self.write_alone(m) {
            Ok(()) => {
                let (frames, bytes) = vnet::on_the_wire(m);
                self.count(frames, bytes);
                Fate::Sent
            }
            Err(why) => {
                self.written.refused += 1;
                Fate::Ended(why)
            }
        };
    }

    fn together(&mut self, packets: &mut [Mbuf], pieces: &[Piece], shape: &SuperFrame) {
        let first = usize::from(pieces[0].index);
        let l3 = packets[first].l3();
        packets[first].set_partial(l3 + usize::from(shape.checksum_start), shape.checksum_offset);
        let header = VnetHdr {
            flags: vnet::NEEDS_CSUM,
            gso_type: vnet::gso_type(gro::gso(shape.kind)),
            hdr_len: l3 as u16 + shape.header_len,
            gso_size: shape.size,
            csum_start: l3 as u16 + shape.checksum_start,
            csum_offset: shape.checksum_offset,
        }
        .emit();
        let mut parts: ArrayVec<IoSlice<'_>, { PIECES + 1 }> = ArrayVec::new();
        parts.push(IoSlice::new(&header));
        let mut bytes = 0;
        for piece in pieces {
            let data = packets[usize::from(piece.index)].data();
            bytes += u64::from(piece.to);
            parts.push(IoSlice::new(&data[usize::from(piece.from)..usize::from(piece.to)]));
        }
        let result = self.put(&parts);
        drop(parts);
        match result {
            Ok(()) => self.count(pieces.len() as u64, bytes),
            Err(_) => self.written.refused += pieces.len() as u64,
        }
        for (nth, piece) in pieces.iter().enumerate() {
            self.fates[usize::from(piece.index)] = match result {
                Ok(()) if nth == 0 => Fate::Sent,
                Ok(()) => Fate::Merged,
                Err(why) => Fate::Ended(why),
            };
        }
    }
}
