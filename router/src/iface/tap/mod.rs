//! TAP devices: a cable of which we hold one end, and a network interface of the kernel is the other.
//!
//! One descriptor of `/dev/net/tun` a queue, non-blocking, a virtio header in front of each frame (linux/if_tun.h,
//! Documentation/networking/tuntap.rst). With offloads on, TCP crosses in super-frames of up to 64 KiB both ways, its checksums partial:
//! this is what makes TAP fast (one frame costs a system call, whatever its size).
//!
//! The kernel end may be moved to another namespace, bridged or given addresses; our descriptors go on working. We do not touch it, but for
//! the MTU when it is made. When it is deleted, every call says so (`EBADFD`), the device is down until [`Tap::revive`] makes it
//! anew: the new queues take the places of the old descriptors in one step (`dup3`), so readers and writers notice nothing but
//! that it works again. A worker that slept on the descriptor must register it again.
//!
//! Not here: addresses, link state of the kernel end, XDP, `IFF_NAPI` (measured: slower).

mod device;
mod rx;
mod tx;

pub use device::OpenError;

use super::driver::{Caps, Driver, RxQueue, TxCx, Written, refuse};
use kern::{Batch, Why};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Which device, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// The kernel's name for the other end.
    pub device: String,
    /// Queues.
    pub queues: usize,
    /// Whether super-frames and partial checksums cross.
    pub offload: bool,
    /// MTU to give the kernel's end when it is made.
    pub mtu: Option<u32>,
}

impl TapConfig {
    /// One queue, offloads on, the kernel's own MTU.
    pub fn new(device: &str) -> TapConfig {
        TapConfig { device: device.to_owned(), queues: 1, offload: true, mtu: None }
    }
}

struct Shared {
    config: TapConfig,
    queues: Vec<OwnedFd>,
    taken: Vec<AtomicBool>,
    caps: Caps,
    /// Even while the device is there; grows by one when it goes and when it comes back.
    epoch: AtomicU64,
}

impl Shared {
    fn descriptor(&self, queue: usize) -> BorrowedFd<'_> {
        self.queues[queue].as_fd()
    }

    /// A name for the life the device has now, `None` while it is gone.
    fn epoch(&self) -> Option<u64> {
        let epoch = self.epoch.load(Ordering::Acquire);
        epoch.is_multiple_of(2).then_some(epoch)
    }

    /// A call begun in this epoch said that the device is gone. It may have come back since.
    #[cold]
    fn lost(&self, epoch: u64) {
        let _ = self.epoch.compare_exchange(epoch, epoch + 1, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// A TAP device.
pub struct Tap(Arc<Shared>);

impl Tap {
    /// Makes the device, or takes over a persistent one.
    pub fn open(config: TapConfig) -> Result<Tap, OpenError> {
        let opened = device::open(&config)?;
        let taken = opened.queues.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Tap(Arc::new(Shared {
            queues: opened.queues,
            taken,
            caps: opened.caps,
            epoch: AtomicU64::new(0),
            config,
        })))
    }

    /// The kernel's name for the other end, as it was when it was made.
    pub fn device(&self) -> &str {
        &self.0.config.device
    }

    /// As [`Driver::revive`], with the reason why not.
    pub fn reopen(&self) -> Result<(), OpenError> {
        if self.is_up() {
            return Ok(());
        }
        let opened = device::open(&self.0.config)?;
        for (old, new) in self.0.queues.iter().zip(&opened.queues) {
            device::replace(old.as_fd(), new)
                .map_err(|e| OpenError::System(self.device().to_owned(), "put a queue in its place", e))?;
        }
        self.0.epoch.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

impl Driver for Tap {
    fn mp_safe(&self) -> bool {
        true
    }

    fn queues(&self) -> usize {
        self.0.queues.len()
    }

    fn caps(&self) -> Caps {
        self.0.caps
    }

    fn rx(&self, queue: usize) -> Option<Box<dyn RxQueue>> {
        let first = !self.0.taken.get(queue)?.swap(true, Ordering::AcqRel);
        first.then(|| Box::new(rx::TapRx::new(Arc::clone(&self.0), queue)) as Box<dyn RxQueue>)
    }

    fn write(&self, queue: usize, batch: &mut Batch, cx: &TxCx<'_>) -> Written {
        match self.0.epoch() {
            Some(epoch) => tx::write(&self.0, epoch, queue % self.queues(), batch, cx),
            None => refuse(batch, cx, Why::IfDown),
        }
    }

    fn is_up(&self) -> bool {
        self.0.epoch().is_some()
    }

    fn revive(&self) -> bool {
        self.reopen().is_ok()
    }
}
