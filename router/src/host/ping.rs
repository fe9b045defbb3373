//! Echo requests of the router's own, for `softnet ping`: they leave through `ip_output`, so a tunnel takes them like any
//! packet; answers and errors come back through the input queue.
//!
//! Round trips are read off the router's clock, at the granularity of the control thread's turns. The data are ping(8)'s: the time, then octets
//! that count up; an answer with other data is no answer.

use super::{
    complaint::Complaint,
    turn::{Heard, Turn, Way, originate},
};
use crate::control::proto::{self, EchoReport};
use kern::{Why, time::Instant};
use std::{collections::VecDeque, net::IpAddr, time::Duration};
use wire::{IpProto, Malformed, build, icmpv4, icmpv6, ipv4, ipv6};

/// Reports kept for a client that does not take them.
const BACKLOG: usize = 256;
/// Requests without an answer yet.
const UNANSWERED: usize = 4096;
/// How soon to try again what could not be sent.
const AGAIN: Duration = Duration::from_millis(1);

/// A request on its way.
struct Request {
    sequence: u32,
    sent_at: Instant,
}

/// One client's ping.
pub(super) struct Ping {
    ask: proto::Ping,
    way: Way,
    /// Identifier, which no other ping has.
    pub(super) ident: u16,
    next: u32,
    next_at: Instant,
    unanswered: VecDeque<Request>,
    reports: VecDeque<EchoReport>,
    data: Vec<u8>,
}

/// The most data an echo request carries to an address.
pub(super) fn most(to: IpAddr) -> usize {
    let headers = if to.is_ipv4() { ipv4::HEADER_LEN } else { 0 };
    usize::from(u16::MAX) - headers - icmpv4::HEADER_LEN
}

impl Ping {
    /// The first request leaves at once.
    pub(super) fn new(ask: proto::Ping, way: Way, ident: u16, now: Instant) -> Ping {
        let data = Vec::with_capacity(usize::from(ask.size));
        Ping {
            ask,
            way,
            ident,
            next: 0,
            next_at: now,
            unanswered: VecDeque::new(),
            reports: VecDeque::new(),
            data,
        }
    }

    /// What there is to tell.
    pub(super) fn report(&mut self) -> Option<EchoReport> {
        self.reports.pop_front()
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        !self.reports.is_empty() || self.is_over()
    }

    /// Whether everything was sent, answered or given up, and told.
    pub(super) fn is_over(&self) -> bool {
        !self.has_more() && self.unanswered.is_empty() && self.reports.is_empty()
    }

    fn has_more(&self) -> bool {
        self.ask.count.is_none_or(|count| self.next < count)
    }

    fn may_send(&self) -> bool {
        self.has_more() && self.reports.len() < BACKLOG && self.unanswered.len() < UNANSWERED
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.ask.timeout_ms))
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.ask.interval_ms.max(1)))
    }

    /// When it next has something to do by itself.
    pub(super) fn deadline(&self) -> Instant {
        let given_up = self.unanswered.front().map_or(Instant::NEVER, |r| r.sent_at + self.timeout());
        if self.may_send() { self.next_at.min(given_up) } else { given_up }
    }

    /// Gives up what was not answered in time, and sends the next request when it is due.
    pub(super) fn turn(&mut self, turn: &mut Turn<'_>) {
        let timeout = self.timeout();
        while let Some(late) = self.unanswered.pop_front_if(|r| r.sent_at + timeout <= turn.now) {
            self.reports.push_back(EchoReport { sequence: late.sequence, ..EchoReport::default() });
        }
        if self.next_at > turn.now || !self.may_send() {
            return;
        }
        if self.send(turn) {
            self.unanswered.push_back(Request { sequence: self.next, sent_at: turn.now });
            self.next = self.next.wrapping_add(1);
            self.next_at = (self.next_at + self.interval()).max(turn.now);
        } else {
            self.next_at = turn.now + AGAIN;
        }
    }

    /// Sends a request, unless there is no buffer or no room.
    fn send(&mut self, turn: &mut Turn<'_>) -> bool {
        let len = ipv6::HEADER_LEN + icmpv4::HEADER_LEN + usize::from(self.ask.size);
        if turn.room() == 0 {
            return false;
        }
        let Some(mut m) = turn.blank(len) else { return false };
        turn.ledger.create(&mut m);
        fill(&mut self.data, self.ask.size, turn.now);
        match self.write(m.fill()) {
            Ok(len) => m.truncate(len),
            Err(_) => m.truncate(0),
        }
        if originate(&mut m, self.way.link, &turn.shared.seed) {
            turn.send(m);
        } else {
            turn.ledger.end(m, Why::IcmpMalformed);
        }
        true
    }

    /// Writes the request into a buffer; says how long it is.
    fn write(&self, out: &mut [u8]) -> Result<usize, Malformed> {
        let (ident, seq, data) = (self.ident, self.next as u16, &self.data[..]);
        let payload_len = (icmpv4::HEADER_LEN + data.len()) as u16;
        match (self.way.from, self.ask.to) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = ipv4::Repr {
                    src,
                    dst,
                    proto: IpProto::ICMP,
                    payload_len,
                    ident: seq,
                    ..ipv4::Repr::default()
                };
                let message = icmpv4::Repr::EchoRequest { ident, seq, data };
                build::ipv4_packet(out, &header, |area, _| message.emit(area))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = ipv6::Repr {
                    src,
                    dst,
                    next_header: IpProto::ICMPV6,
                    payload_len,
                    ..ipv6::Repr::default()
                };
                let message = icmpv6::Repr::EchoRequest { ident, seq, data };
                build::ipv6_packet(out, &header, |area, _| message.emit(area, src, dst))
            }
            _ => Err(Malformed::Version),
        }
    }

    /// An echo reply with our identifier; `message` is its ICMP message.
    pub(super) fn answered(&mut self, heard: &Heard<'_>, now: Instant) {
        let (Some(&sequence), Some(data)) =
            (heard.upper.get(6..).and_then(<[u8]>::first_chunk), heard.upper.get(8..))
        else {
            return;
        };
        if !self.is_from_there(heard.from) {
            return;
        }
        let Some(request) = self.take(u16::from_be_bytes(sequence)) else { return };
        fill(&mut self.data, self.ask.size, request.sent_at);
        let error = (data != self.data).then(|| "wrong data".to_owned());
        self.reports.push_back(EchoReport {
            sequence: request.sequence,
            from: Some(heard.from.to_string()),
            size: heard.upper.len() as u32,
            ttl: heard.hops,
            rtt_us: now.nanos_since(request.sent_at) / 1000,
            error,
        });
    }

    /// Somebody complains about a request of ours.
    pub(super) fn refused(&mut self, complaint: &Complaint, now: Instant) {
        if complaint.about.to != self.ask.to {
            return;
        }
        let Some(request) = self.take(complaint.about.to_port) else { return };
        self.reports.push_back(EchoReport {
            sequence: request.sequence,
            from: Some(complaint.by.to_string()),
            rtt_us: now.nanos_since(request.sent_at) / 1000,
            error: Some(complaint.text.clone()),
            ..EchoReport::default()
        });
    }

    /// Whether an answer may come from there: a group is answered by its members.
    fn is_from_there(&self, from: IpAddr) -> bool {
        from == self.ask.to || self.ask.to.is_multicast() || self.ask.to == IpAddr::from([255; 4])
    }

    fn take(&mut self, sequence: u16) -> Option<Request> {
        let at = self.unanswered.iter().position(|r| r.sequence as u16 == sequence)?;
        self.unanswered.remove(at)
    }
}

/// The data of the request sent at an instant.
fn fill(data: &mut Vec<u8>, size: u16, sent_at: Instant) {
    let stamp = sent_at.nanos().to_be_bytes();
    data.clear();
    data.extend((0..size).map(|i| i as u8));
    if let Some(head) = data.first_chunk_mut() {
        *head = stamp;
    }
}

/// The identifier of an echo reply.
pub(super) fn reply_ident(heard: &Heard<'_>) -> Option<u16> {
    let kind = if heard.from.is_ipv4() { icmpv4::kind::ECHO_REPLY } else { icmpv6::kind::ECHO_REPLY };
    let ident = heard.upper.get(4..)?.first_chunk()?;
    (heard.upper[0] == kind).then(|| u16::from_be_bytes(*ident))
}
