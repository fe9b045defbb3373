//! The reading end of a lane, and how a frame gets from the wire into a buffer and back.

use super::{
    CLUSTER_FRAME, LinkEnd, TURN,
    lane::{Alarm, Slot},
};
use crate::iface::{
    driver::{Driver, Read, RxCx, RxQueue},
    vnet::VnetHdr,
};
use arrayvec::ArrayVec;
use kern::{Batch, Class, Mbuf, Owner, PktFlags, Why};
use std::{
    os::fd::BorrowedFd,
    sync::{Arc, atomic::Ordering},
};

/// A frame that became a packet, or was counted.
type Arrival = Result<Mbuf, ()>;

/// The reading end of a lane.
pub(super) struct LinkRx {
    end: LinkEnd,
    queue: usize,
    alarm: Option<Arc<Alarm>>,
}

impl LinkRx {
    pub(super) fn new(end: LinkEnd, queue: usize) -> LinkRx {
        let alarm = end.inward().lanes[queue].with(|lane| lane.alarm());
        LinkRx { end, queue, alarm }
    }
}

impl Drop for LinkRx {
    fn drop(&mut self) {
        self.end.inward().taken[self.queue].store(false, Ordering::Release);
    }
}

impl RxQueue for LinkRx {
    fn read(&mut self, cx: &RxCx<'_>, burst: usize, out: &mut Batch) -> Read {
        let _inside = self.end.enter();
        if !self.end.is_up() {
            return Read::Gone;
        }
        let lane = &self.end.inward().lanes[self.queue];
        let now = self.end.link.clock.now();
        let mut left = burst.min(out.room());
        while left > 0 {
            let wanted = left.min(TURN);
            let mut arrived: ArrayVec<Slot, TURN> = ArrayVec::new();
            lane.with(|lane| arrived.extend(std::iter::from_fn(|| lane.arrive(now)).take(wanted)));
            let found = arrived.len();
            let mut refused = 0;
            for slot in &arrived {
                match take_in(slot, cx) {
                    Ok(m) => out.push(m).unwrap_or_else(|m| cx.ledger.end(m, Why::NoBuffer)),
                    Err(()) => refused += 1,
                }
            }
            lane.with(|lane| {
                lane.note_read(found as u64, refused);
                arrived.drain(..).for_each(|slot| lane.recycle(slot));
                lane.set_alarm();
            });
            if found < wanted {
                return Read::Empty;
            }
            left -= found;
        }
        Read::More
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.alarm.as_ref().map(|alarm| alarm.descriptor())
    }
}

/// Makes a packet of what arrived.
fn take_in(slot: &Slot, cx: &RxCx<'_>) -> Arrival {
    let octets = slot.octets();
    let class = if octets.len() <= CLUSTER_FRAME { Class::Cluster } else { Class::Jumbo };
    let Some(mut m) = cx.pool.alloc(class, Owner::Worker) else {
        cx.ledger.turn_away(Why::NoBuffer);
        return Err(());
    };
    cx.ledger.receive(&mut m);
    let Ok(room) = m.append(octets.len()) else {
        cx.ledger.end(m, Why::NoBuffer);
        return Err(());
    };
    room.copy_from_slice(octets);
    match slot.vnet().apply(&mut m) {
        Ok(()) => Ok(m),
        Err(why) => {
            cx.ledger.end(m, why);
            Err(())
        }
    }
}

impl Slot {
    /// Copies a packet, finishing its checksum unless the other end takes it partial.
    pub(super) fn load(&mut self, m: &Mbuf, partial: bool) {
        let unfinished = m.hdr().flags.has(PktFlags::PARTIAL);
        let vnet = if unfinished && !partial { VnetHdr::PLAIN } else { VnetHdr::of(m) };
        self.fill(m.data(), vnet);
        if unfinished && !partial {
            self.finish_checksum(m.csum_start(), m.hdr().csum_offset);
        }
    }
}
