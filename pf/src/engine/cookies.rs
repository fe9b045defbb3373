//! SYN cookies at work (`set syncookies`; the cookies themselves are in [`crate::state::cookie`]).
//!
//! As in pf a SYN that belongs to no state is answered whatever the rules say. The client's ACK is the SYN once more: the
//! rules decide about it then, and if it makes a state, that is one of `synproxy state` whose client has answered. An ACK
//! that brings no cookie back is counted, and is what it always was: the rules decide.

use kern::{Mbuf, Why};

use super::{PfCx, Seen};
use crate::{
    IfIndex,
    rule::Direction,
    state::{
        cookie::syn_before,
        proxy::{self, Segment},
    },
    verdict::Verdict,
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

impl PfCx<'_> {
    /// What becomes of a packet that comes in and has no state; none if cookies have nothing to do with it.
    #[cold]
    pub(super) fn by_cookie(&mut self, index: IfIndex, m: &mut Mbuf, seen: &Seen) -> Option<Verdict> {
        match seen.p.tcp.flags & (FIN | SYN | RST | ACK) {
            SYN => self.give_cookie(m, seen),
            ACK => self.take_cookie(index, m, seen),
            _ => None,
        }
    }

    fn give_cookie(&mut self, m: &Mbuf, seen: &Seen) -> Option<Verdict> {
        let (p, cookies) = (&seen.p, &self.pf.states.cookies);
        let (is_on, was_on) = cookies.turn();
        if let Some(counters) = self.counters().filter(|_| is_on) {
            counters.synfloods.add(u64::from(!was_on));
            counters.syncookies_sent.inc();
        }
        if !is_on {
            return None;
        }
        let l4 = m.data().get(usize::from(p.l4)..).unwrap_or(&[]);
        let size = proxy::segment_size(p, l4).min(self.rules.cookie_size);
        let cookie = cookies.make(p, size, self.now.secs() as u32);
        let answer = Segment {
            family: p.family,
            src: (p.dst, p.dport),
            dst: (p.src, p.sport),
            seq: cookie.isn,
            ack: p.tcp.seq.wrapping_add(1),
            flags: SYN | ACK,
            window: 0,
            mss: cookie.size,
            filtered: false,
        };
        proxy::send(&mut self.worker.slots.outbox, answer);
        Some(self.block(Why::PfSynproxy))
    }

    fn take_cookie(&mut self, index: IfIndex, m: &mut Mbuf, seen: &Seen) -> Option<Verdict> {
        let (cookies, now) = (&self.pf.states.cookies, self.now.secs() as u32);
        if !cookies.expects(now) {
            return None;
        }
        let cookie = cookies.read(&seen.p, now);
        if let Some(counters) = self.counters() {
            let counter =
                if cookie.is_some() { &counters.syncookies_valid } else { &counters.syncookies_invalid };
            counter.inc();
        }
        let syn = Seen { p: syn_before(&seen.p), cookie: Some(cookie?), ..*seen };
        match self.by_rules(Direction::In, index, m, &syn) {
            // A connection that the router has begun goes on with a state, or not at all.
            Verdict::Block(Why::PfSynproxy) | Verdict::Pass(_) | Verdict::Route(..) | Verdict::Copy(..) => {
                let verdict = self.by_state(Direction::In, index, m, seen);
                verdict.or_else(|| Some(self.block(Why::PfSynproxy)))
            }
            refused => Some(refused),
        }
    }
}
