//! Which flow is next: deficit round robin, or, between hosts, the order of what each has had.

use super::{END, Flows, On};
use crate::tournament::ABSENT;
use kern::time::Instant;

/// A hog's turn is one packet; who is none may send as many.
const TURN: i64 = 4;
/// Nanoseconds over which a bucket's rate is measured at most.
const RATE_SPAN: u64 = 8_000_000_000;

impl Flows {
    /// A flow comes to the lists; `other` says that its place was another's.
    pub(super) fn begin(&mut self, at: usize, other: bool) {
        if self.conf.hosts && !other && self.buckets[at].had > self.had {
            return self.link(at, On::Old);
        }
        self.buckets[at].had = self.had;
        self.buckets[at].deficit = self.next_turn(at);
        self.link(at, On::New);
    }

    /// A flow has used its turn up and waits for the next.
    pub(super) fn end_turn(&mut self, at: usize) {
        self.unlink_head(at);
        self.buckets[at].deficit += self.next_turn(at);
        self.link(at, On::Old);
    }

    pub(super) fn count_hosts(&mut self, at: usize, by: i16) {
        if self.conf.hosts {
            for (side, &host) in self.buckets[at].hosts.iter().enumerate() {
                let count = &mut self.hosts[side][usize::from(host)];
                *count = count.saturating_add_signed(by);
            }
        }
    }

    /// How many times a flow's bytes weigh: the flows of that of its two hosts that has more.
    fn weight(&self, at: usize) -> u64 {
        if !self.conf.hosts {
            return 1;
        }
        let count = |side: usize| self.hosts[side][usize::from(self.buckets[at].hosts[side])];
        u64::from(count(0).max(count(1)).max(1))
    }

    /// Bytes of a flow's next turn: more for those that are no hogs.
    fn next_turn(&self, at: usize) -> i64 {
        let modest =
            self.conf.hogs > 0 && self.buckets[at].sent < self.conf.hogs / 8 * (RATE_SPAN / 1_000_000_000);
        if modest { self.quantum * TURN } else { self.quantum }
    }

    pub(super) fn link(&mut self, at: usize, on: On) {
        let flow = &mut self.buckets[at];
        (flow.on, flow.next) = (on, END);
        if on == On::Old && self.conf.hosts {
            return self.least.set(at, flow.had);
        }
        let list = if on == On::New { &mut self.new } else { &mut self.old };
        let tail = std::mem::replace(&mut list.tail, at as u32);
        if tail == END {
            list.head = at as u32;
        } else {
            self.buckets[tail as usize].next = at as u32;
        }
    }

    /// Takes the first flow off the list it is on.
    pub(super) fn unlink_head(&mut self, at: usize) {
        let flow = &mut self.buckets[at];
        if flow.on == On::Old && self.conf.hosts {
            flow.on = On::Neither;
            return self.least.set(at, ABSENT);
        }
        let list = if flow.on == On::New { &mut self.new } else { &mut self.old };
        list.head = flow.next;
        if list.head == END {
            list.tail = END;
        }
        flow.on = On::Neither;
    }

    /// The flow whose turn it is, whether or not it has used it up.
    pub(super) fn first(&self) -> Option<usize> {
        if self.new.head != END {
            return Some(self.new.head as usize);
        }
        if self.conf.hosts {
            return self.least.winner();
        }
        (self.old.head != END).then_some(self.old.head as usize)
    }

    /// A flow has had so many bytes.
    pub(super) fn charge(&mut self, at: usize, cost: u32, now: Instant) {
        let weighed = u64::from(cost) * self.weight(at);
        let flow = &mut self.buckets[at];
        flow.deficit -= weighed as i64;
        if self.conf.hosts {
            if flow.on == On::Old {
                self.had = self.had.max(flow.had);
                self.least.set(at, flow.had + weighed);
            }
            flow.had += weighed;
        }
        if self.conf.hogs > 0 {
            let span = now.nanos_since(flow.since);
            if span > RATE_SPAN {
                flow.since = now;
                flow.sent = if span > 2 * RATE_SPAN { 0 } else { flow.sent / 2 };
            }
            flow.sent += u64::from(cost);
        }
    }
}
