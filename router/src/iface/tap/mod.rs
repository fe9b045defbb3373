//! TAP devices: a cable of which we hold one end, and a network interface of the kernel is the other.
//!
//! One descriptor of `/dev/net/tun` a queue, non-blocking, a virtio header in front of each frame (linux/if_tun.h,
//! Documentation/networking/tuntap.rst). With offloads on, TCP crosses in super-frames of up to 64 KiB both ways, its checksums partial:
//! this is what makes TAP fast (one frame costs a system call, whatever its size).
//!
//! The kernel end may be moved to another namespace, bridged or given addresses; our descriptors go on working. We do not touch it, but for
//! the MTU when it is made. When it is deleted, every call says so (`EBADFD`), the device is down until [`Tap::revive`] makes it
//! anew: the new queues take the places of the old descriptors in one step (`dup3`), so readers and writers notice nothing but
//! that it works again. What a worker sleeps on is an epoll instance of each queue, which outlives the device: silent while it
//! is gone, and in force again when it is back, whether the worker has noticed or not.
//!
//! Not here: addresses, link state of the kernel end, XDP, `IFF_NAPI` (measured: slower).

mod device;
mod rx;
mod tx;

pub use device::OpenError;

use super::driver::{Caps, Driver, RxQueue, TxCx, Written, refuse};
use kern::{Batch, Why, lock::Leaf};
use rustix::event::epoll;
use std::{
    io,
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

/// One queue.
struct Queue {
    /// Of `/dev/net/tun`.
    fd: OwnedFd,
    /// An epoll instance that watches `fd` while the device is there.
    watch: OwnedFd,
    /// Whether somebody has its reading end.
    taken: AtomicBool,
}

impl Queue {
    fn new(fd: OwnedFd) -> io::Result<Queue> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let queue = Queue { fd, watch, taken: AtomicBool::new(false) };
        queue.listen()?;
        Ok(queue)
    }

    fn listen(&self) -> io::Result<()> {
        Ok(epoll::add(&self.watch, &self.fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?)
    }

    fn become_file(&self, new: &OwnedFd) -> io::Result<()> {
        device::replace(self.fd.as_fd(), new)?;
        self.listen()
    }
}

struct Shared {
    config: TapConfig,
    queues: Vec<Queue>,
    caps: Caps,
    /// Even while the device is there; grows by one when it goes and when it comes back.
    epoch: AtomicU64,
    /// Going and coming back take turns.
    passage: Leaf<()>,
}

impl Shared {
    fn descriptor(&self, queue: usize) -> BorrowedFd<'_> {
        self.queues[queue].fd.as_fd()
    }

    /// A name for the life the device has now, `None` while it is gone.
    fn epoch(&self) -> Option<u64> {
        let epoch = self.epoch.load(Ordering::Acquire);
        epoch.is_multiple_of(2).then_some(epoch)
    }

    /// A call begun in this epoch said that the device is gone. It may have come back since.
    #[cold]
    fn lost(&self, epoch: u64) {
        self.passage.with(|()| {
            if self.epoch.compare_exchange(epoch, epoch + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                for queue in &self.queues {
                    // A descriptor without a device is for ever ready; one that is not watched is what we want.
                    let _ = epoll::delete(&queue.watch, &queue.fd);
                }
            }
        });
    }

    /// Puts the queues of a new device in the places of those of the old.
    fn found(&self, queues: &[OwnedFd]) -> io::Result<()> {
        self.passage.with(|()| {
            self.queues.iter().zip(queues).try_for_each(|(old, new)| old.become_file(new))?;
            self.epoch.fetch_add(1, Ordering::AcqRel);
            Ok(())
        })
    }
}

/// A TAP device.
pub struct Tap(Arc<Shared>);

impl Tap {
    /// Makes the device, or takes over a persistent one.
    pub fn open(config: TapConfig) -> Result<Tap, OpenError> {
        let opened = device::open(&config)?;
        let queues: io::Result<Vec<Queue>> = opened.queues.into_iter().map(Queue::new).collect();
        let queues = queues.map_err(|e| OpenError::System(config.device.clone(), "watch a queue", e))?;
        Ok(Tap(Arc::new(Shared {
            queues,
            caps: opened.caps,
            epoch: AtomicU64::new(0),
            passage: Leaf::new(()),
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
        let failed = |e| OpenError::System(self.device().to_owned(), "put a queue in its place", e);
        self.0.found(&opened.queues).map_err(failed)
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
        let first = !self.0.queues.get(queue)?.taken.swap(true, Ordering::AcqRel);
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
