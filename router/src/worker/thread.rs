//! A worker's thread: pinned to its core, spinning a little, then asleep until a frame, a timer or a message comes.
//!
//! Waking a sleeping worker costs the sender 9 us and takes 20 us, a spinning one 3; so after work it looks for more
//! for `spin_us` before it sleeps, and gives that up by itself while spinning finds nothing.

use super::{Port, Worker};
use kern::{
    lock::Root,
    time::{Clock, Instant},
};
use rustix::{
    event::epoll,
    fd::{AsFd, OwnedFd},
};
use std::{io, num::NonZeroU64, sync::Arc, time::Duration};

/// What wakes one worker, from any thread.
#[derive(Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A new one.
    pub fn new() -> io::Result<Waker> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Waker(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Wakes the worker, or keeps it from falling asleep.
    pub fn wake(&self) {
        // EAGAIN means that it has been woken already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.0, &mut count);
    }
}

/// How a worker waits.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Nanoseconds to look for work before sleeping; 0 for never.
    pub spin_ns: u64,
}

/// Runs a worker until `between`, called before each turn, says no.
pub fn run(
    mut worker: Worker,
    root: &mut Root,
    waker: &Waker,
    idle: Idle,
    mut between: impl FnMut(&mut Worker) -> bool,
) -> io::Result<Worker> {
    exact_timers();
    let mut sleeper = Sleeper::new(waker.clone())?;
    let mut spin = Spin::new(idle.spin_ns);
    while between(&mut worker) {
        if worker.turn(root) {
            spin.found();
        } else if spin.again() {
            std::hint::spin_loop();
        } else {
            sleeper.sleep(&mut worker, root)?;
            spin.woken();
        }
    }
    Ok(worker)
}

/// Lets this thread's timers go off when they are due: Linux gathers them within 50 us otherwise, which is four frames
/// at 1 Gb/s. Where it may not be changed, sleeps end that much later.
fn exact_timers() {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// Adaptive spinning: a score that rises when spinning finds work and falls when it does not.
struct Spin {
    clock: Clock,
    limit_ns: u64,
    since: Option<Instant>,
    score: i32,
    skipped: u32,
}

impl Spin {
    /// Beyond this many fruitless spins, spinning stops ...
    const FLOOR: i32 = -8;
    /// ... but for one time in this many, to see whether the world has changed.
    const PROBE: u32 = 32;

    fn new(limit_ns: u64) -> Spin {
        Spin { clock: Clock::Real, limit_ns, since: None, score: 0, skipped: 0 }
    }

    fn found(&mut self) {
        if self.since.take().is_some() {
            self.score = (self.score + 2).min(8);
        }
    }

    /// Whether to look once more.
    fn again(&mut self) -> bool {
        if self.limit_ns == 0 {
            return false;
        }
        let now = self.clock.now();
        let Some(since) = self.since else {
            if self.score <= Self::FLOOR {
                self.skipped += 1;
                if !self.skipped.is_multiple_of(Self::PROBE) {
                    return false;
                }
            }
            self.since = Some(now);
            return true;
        };
        now.nanos_since(since) < self.limit_ns
    }

    fn woken(&mut self) {
        if self.since.take().is_some() {
            self.score = (self.score - 1).max(Self::FLOOR);
        }
    }
}

/// The descriptors a worker sleeps on.
struct Sleeper {
    epoll: OwnedFd,
    waker: Waker,
    watched: Vec<i32>,
}

impl Sleeper {
    fn new(waker: Waker) -> io::Result<Sleeper> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*waker.0, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        Ok(Sleeper { epoll, waker, watched: Vec::new() })
    }

    /// Sleeps until a port has a frame, a timer is due, or somebody wakes us.
    fn sleep(&mut self, worker: &mut Worker, root: &mut Root) -> io::Result<()> {
        let now = worker.shared.clock.now();
        worker.park(root, |ports, deadline| {
            self.watch(ports)?;
            let timeout =
                (deadline != Instant::NEVER).then(|| Duration::from_nanos(deadline.nanos_since(now)));
            self.wait(timeout)
        })
    }

    /// Watches the ports' descriptors; they change only when a port does.
    fn watch(&mut self, ports: &[Port]) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let now: Vec<i32> =
            ports.iter().filter(|p| p.up).filter_map(|p| p.rx.descriptor()).map(|d| d.as_raw_fd()).collect();
        if now == self.watched {
            return Ok(());
        }
        let fresh = Sleeper::new(self.waker.clone())?;
        self.epoll = fresh.epoll;
        for port in ports.iter().filter(|p| p.up) {
            if let Some(fd) = port.rx.descriptor() {
                epoll::add(&self.epoll, fd.as_fd(), epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
            }
        }
        self.watched = now;
        Ok(())
    }

    /// Until a descriptor has something or the time is over, to the nanosecond: an interface queue sends when its
    /// bucket says. `epoll_wait` counts in milliseconds and `epoll_pwait2` is young; `ppoll` on the epoll instance
    /// does the same on every Linux.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let timeout =
            timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: i64::from(t.subsec_nanos()) });
        let mut watched = [PollFd::new(&self.epoll, PollFlags::IN)];
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.waker.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(sleeper: &Sleeper, micros: u64) -> u64 {
        let start = Clock::Real.now();
        sleeper.wait(Some(Duration::from_micros(micros))).expect("a wait");
        Clock::Real.now().nanos_since(start) / 1000
    }

    #[test]
    fn a_sleep_shorter_than_a_millisecond_is_neither_rounded_up_nor_down() {
        exact_timers();
        let sleeper = Sleeper::new(Waker::new().expect("a waker")).expect("a sleeper");
        for micros in [50, 120, 500] {
            let times: Vec<u64> = (0..100).map(|_| measured(&sleeper, micros)).collect();
            let (least, times) = (times.iter().min().copied().unwrap_or(0), times.len());
            println!("{micros} us asked for, {least} us at best of {times}");
            assert!((micros..micros + 400).contains(&least), "{least} us of {micros}");
        }
    }

    #[test]
    fn a_wake_ends_a_sleep_at_once_and_the_next_one_is_whole() {
        let waker = Waker::new().expect("a waker");
        let sleeper = Sleeper::new(waker.clone()).expect("a sleeper");
        waker.wake();
        assert!(measured(&sleeper, 5_000_000) < 1_000_000);
        assert!(measured(&sleeper, 2_000) >= 2_000);
    }
}
