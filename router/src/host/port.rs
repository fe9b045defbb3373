//! The two queues between workers and the control thread's stack, and which ports are open.

use kern::{
    Ledger, Mbuf, Why,
    lock::{
        Held, Mutex,
        levels::{Before, HandOver},
    },
};
use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Packets either queue holds.
const DEPTH: usize = 256;

/// A transport with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One bit a port: whether a socket has it. The control thread writes, workers read.
pub struct OpenPorts {
    bits: Box<[[AtomicU64; 1024]; 2]>,
}

impl Default for OpenPorts {
    fn default() -> Self {
        OpenPorts { bits: Box::new([const { [const { AtomicU64::new(0) }; 1024] }; 2]) }
    }
}

impl OpenPorts {
    fn word(&self, transport: Transport, port: u16) -> (&AtomicU64, u64) {
        (&self.bits[transport as usize][usize::from(port / 64)], 1 << (port % 64))
    }

    /// Whether a socket has the port.
    pub fn is_open(&self, transport: Transport, port: u16) -> bool {
        let (word, bit) = self.word(transport, port);
        word.load(Ordering::Relaxed) & bit != 0
    }

    /// A socket takes the port.
    pub fn open(&self, transport: Transport, port: u16) {
        let (word, bit) = self.word(transport, port);
        word.fetch_or(bit, Ordering::Relaxed);
    }

    /// The port is free again.
    pub fn close(&self, transport: Transport, port: u16) {
        let (word, bit) = self.word(transport, port);
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// Where workers and the control thread's stack meet.
pub struct Port {
    input: Mutex<HandOver, VecDeque<Mbuf>>,
    output: Mutex<HandOver, VecDeque<Mbuf>>,
    sent: AtomicUsize,
    ports: OpenPorts,
    wake: OwnedFd,
}

impl Port {
    /// Two empty queues; fails if the system has no eventfd left.
    pub fn new() -> std::io::Result<Port> {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        Ok(Port {
            input: Mutex::new(VecDeque::with_capacity(DEPTH)),
            output: Mutex::new(VecDeque::with_capacity(DEPTH)),
            sent: AtomicUsize::new(0),
            ports: OpenPorts::default(),
            wake: rustix::event::eventfd(0, flags)?,
        })
    }

    /// Which ports have sockets.
    pub fn ports(&self) -> &OpenPorts {
        &self.ports
    }

    /// What becomes readable when a packet waits for the stack.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// A worker gives a packet to the stack; a full queue gives it back.
    pub(crate) fn give(&self, held: &mut Held<'_, impl Before<HandOver>>, m: Mbuf) -> Result<(), Mbuf> {
        let (mut queue, _held) = held.lock(&self.input);
        if queue.len() == DEPTH {
            return Err(m);
        }
        let was_empty = queue.is_empty();
        queue.push_back(m);
        drop(queue);
        if was_empty {
            self.ring();
        }
        Ok(())
    }

    /// Wakes the control thread.
    pub(crate) fn ring(&self) {
        // A full eventfd counter means that the reader has been woken already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// The stack takes the next packet that came in.
    pub fn take_input(&self, held: &mut Held<'_, impl Before<HandOver>>) -> Option<Mbuf> {
        let (mut queue, _held) = held.lock(&self.input);
        queue.pop_front()
    }

    /// How many packets wait for the stack.
    pub fn input_len(&self, held: &mut Held<'_, impl Before<HandOver>>) -> usize {
        held.lock(&self.input).0.len()
    }

    /// Clears the wake-up before the queue is looked at.
    pub fn awake(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }

    /// The stack sends a packet; a full queue gives it back.
    pub fn send(&self, held: &mut Held<'_, impl Before<HandOver>>, m: Mbuf) -> Result<(), Mbuf> {
        let (mut queue, _held) = held.lock(&self.output);
        if queue.len() == DEPTH {
            return Err(m);
        }
        queue.push_back(m);
        self.sent.store(queue.len(), Ordering::Release);
        Ok(())
    }

    /// Room in the queue of what is sent.
    pub fn send_room(&self) -> usize {
        DEPTH - self.sent.load(Ordering::Acquire).min(DEPTH)
    }

    /// Whether something waits to be sent; worker 0 takes it.
    #[inline(always)]
    pub(crate) fn has_output(&self, worker: usize) -> bool {
        worker == 0 && self.sent.load(Ordering::Relaxed) > 0
    }

    /// A worker takes up to `limit` packets that were sent; says how many.
    pub(crate) fn take_output(
        &self,
        held: &mut Held<'_, impl Before<HandOver>>,
        limit: usize,
        mut each: impl FnMut(Mbuf),
    ) -> usize {
        let (mut queue, _held) = held.lock(&self.output);
        let n = limit.min(queue.len());
        queue.drain(..n).for_each(&mut each);
        self.sent.store(queue.len(), Ordering::Release);
        n
    }

    /// Ends whatever waits in both queues: the router stops.
    pub fn purge(&self, held: &mut Held<'_, impl Before<HandOver>>, ledger: &Ledger) {
        let mut rest = std::mem::take(&mut *held.lock(&self.input).0);
        rest.extend(held.lock(&self.output).0.drain(..));
        self.sent.store(0, Ordering::Release);
        for m in rest {
            m.end(Why::Shutdown, ledger);
        }
    }
}
