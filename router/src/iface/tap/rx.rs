//! Reading from a TAP queue.
//!
//! The queue owns one jumbo and reads every frame into it. A frame that fits is copied into a cluster (25 ns) and the jumbo is
//! read into again; a larger one *is* the jumbo, and a new one takes its place.

use super::Shared;
use crate::iface::{
    driver::{Read, RxCx, RxQueue},
    link::CLUSTER_FRAME,
    vnet::{self, VnetHdr},
};
use kern::{Batch, Class, Mbuf, Owner, Why};
use rustix::io::{Errno, readv};
use std::{
    io::IoSliceMut,
    mem,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, atomic::Ordering},
};

pub(super) struct TapRx {
    tap: Arc<Shared>,
    queue: usize,
    jumbo: Option<Mbuf>,
}

impl TapRx {
    pub(super) fn new(tap: Arc<Shared>, queue: usize) -> TapRx {
        TapRx { tap, queue, jumbo: None }
    }

    /// Reads one frame into the jumbo; its length. Without a jumbo the frame is thrown away.
    #[inline]
    fn fetch(&mut self, header: &mut [u8; vnet::LEN]) -> Result<usize, Errno> {
        let room = self.jumbo.as_mut().map_or(&mut [][..], Mbuf::fill);
        let mut parts = [IoSliceMut::new(header), IoSliceMut::new(room)];
        let got = readv(self.tap.descriptor(self.queue), &mut parts)?;
        let len = got.saturating_sub(vnet::LEN);
        if let Some(jumbo) = &mut self.jumbo {
            jumbo.truncate(len);
        }
        Ok(len)
    }

    /// Makes a packet of what is in the jumbo.
    #[inline]
    fn take_in(&mut self, header: &[u8; vnet::LEN], len: usize, cx: &RxCx<'_>) -> Option<Mbuf> {
        let Some(mut m) = self.packet(len, cx) else {
            cx.ledger.turn_away(Why::NoBuffer);
            return None;
        };
        cx.ledger.receive(&mut m);
        match VnetHdr::parse(header).apply(&mut m) {
            Ok(()) => Some(m),
            Err(why) => {
                cx.ledger.end(m, why);
                None
            }
        }
    }

    /// The frame in a buffer of its own.
    #[inline]
    fn packet(&mut self, len: usize, cx: &RxCx<'_>) -> Option<Mbuf> {
        let jumbo = self.jumbo.as_mut()?;
        if len > CLUSTER_FRAME {
            let fresh = cx.pool.alloc(Class::Jumbo, Owner::Rx)?;
            return Some(mem::replace(jumbo, fresh));
        }
        let mut cluster = cx.pool.alloc(Class::Cluster, Owner::Worker)?;
        cluster.append(len).ok()?.copy_from_slice(jumbo.data());
        Some(cluster)
    }
}

impl RxQueue for TapRx {
    fn read(&mut self, cx: &RxCx<'_>, burst: usize, out: &mut Batch) -> Read {
        let Some(epoch) = self.tap.epoch() else {
            return Read::Gone;
        };
        if self.jumbo.is_none() {
            self.jumbo = cx.pool.alloc(Class::Jumbo, Owner::Rx);
        }
        for _ in 0..burst.min(out.room()) {
            let mut header = [0; vnet::LEN];
            match self.fetch(&mut header) {
                Ok(len) => {
                    let Some(m) = self.take_in(&header, len, cx) else { continue };
                    out.push(m).unwrap_or_else(|m| cx.ledger.end(m, Why::NoBuffer));
                }
                Err(Errno::INTR) => {}
                Err(Errno::BADFD | Errno::IO) => {
                    self.tap.lost(epoch);
                    return Read::Gone;
                }
                Err(_) => return Read::Empty,
            }
        }
        Read::More
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tap.queues[self.queue].watch.as_fd())
    }
}

impl Drop for TapRx {
    fn drop(&mut self) {
        self.tap.queues[self.queue].taken.store(false, Ordering::Release);
    }
}
