//! Network namespaces without a name: nothing of them is left when this process ends, however it ends.
//!
//! iproute2 makes a namespace under a name; we open it and take the name away. From then on only our descriptor, and the
//! threads inside, keep it; the devices in it go with it.

use super::Refused;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
};

/// A namespace.
#[derive(Debug)]
pub(super) struct Room(File);

impl Room {
    /// A fresh one, its loopback up.
    pub(super) fn new() -> Result<Room, Refused> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("softnet-leak-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&format!("netns add {name}"))?;
        let file = File::open(format!("/run/netns/{name}"));
        ip(&format!("netns del {name}"))?;
        let room = Room(file.map_err(|e| Refused::of("a network namespace cannot be opened", e))?);
        room.within(|| ip("link set lo up"))?;
        Ok(room)
    }

    /// Runs `body` on a thread inside.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        body: impl FnOnce() -> Result<T, Refused> + Send + 'static,
    ) -> Result<JoinHandle<Result<T, Refused>>, Refused> {
        let room = self.try_clone()?;
        Ok(thread::spawn(move || {
            move_into_link_name_space(room.0.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|e| Refused::of("a network namespace cannot be entered", e))?;
            body()
        }))
    }

    /// Runs `body` inside and waits for it.
    pub(super) fn within<T: Send + 'static>(
        &self,
        body: impl FnOnce() -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        joined(self.spawn(body)?)
    }

    /// Another hand on the same room.
    pub(super) fn try_clone(&self) -> Result<Room, Refused> {
        self.0.try_clone().map(Room).map_err(|e| Refused::of("a descriptor", e))
    }

    /// Takes a device out of the room that this thread is in.
    pub(super) fn adopt(&self, device: &str) -> Result<(), Refused> {
        ip(&format!("link set {device} netns /proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }
}

/// What a thread came to; its panic goes on here.
pub(super) fn joined<T>(thread: JoinHandle<Result<T, Refused>>) -> Result<T, Refused> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs iproute2 in the room that this thread is in.
pub(super) fn ip(arguments: &str) -> Result<(), Refused> {
    let run = Command::new("ip").args(arguments.split_whitespace()).output();
    let output = run.map_err(|e| Refused::of("iproute2's `ip` cannot be run", e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Refused::of(&format!("ip {arguments}"), said.trim()))
}

/// Sets what sysctl would in the room that this thread is in: `net/ipv4/ip_forward`.
pub(super) fn set(key: &str, value: u32) -> Result<(), Refused> {
    std::fs::write(format!("/proc/sys/{key}"), value.to_string()).map_err(|e| Refused::of(key, e))
}
