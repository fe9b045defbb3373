//! ESP on the way in: `esp_input` in two halves, a run of packets of one SA at a time.
//!
//! A packet comes with its data beginning at the outer IP header, whole (reassembled), and `l4` at the ESP header. It
//! leaves with its data being the inner packet, `family` set, `sa` telling the SA, and everything else in its header that
//! spoke of the outer packet (flags, hash, state, offsets) cleared; `tag`, `queue`, `prio`, `rcvif` and `hops` stay.
//!
//! Between [`begin`] and [`finish`] the header's `state` and `state_gen` hold the 64-bit sequence number: the pf state of
//! the outer packet has been used by then, and the inner one's is not known yet. So does `hash` hold the octets of payload
//! of a packet that has been unwrapped and is not marked yet, and above them the reason for which one could not be (`family`
//! [`SPOILT`]). `cursor` tells the port that ESP in UDP came from ([`natt`]) until it is opened.
//!
//! Most packets are unwrapped one by one as the cipher is done with each: the processor then works on one packet's headers
//! while the next one's keystream is on its way, and finds them in its first cache. They are marked all together.

use super::{
    Busy, Declined, Failed, LoopTurn, beet, ecn,
    layout::{Layout, TRAILER},
    low_seq, transport,
};
use crate::{
    ah, ipcomp, natt,
    order::{Leave, Ticket, Worker},
    sa::{Inbound, NotNow, Protocol, Sa, SaLevel},
    transform::Failures,
};
use kern::{
    Batch, Mbuf, PktFlags, Why,
    lock::{Before, Held},
    time::Instant,
};
use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};
use wire::{IpProto, ipv4, ipv6};

pub use crate::transform::RUN;

/// A run that has passed the window and is not open yet. See [`output::Pending`](super::output::Pending) for `S` and `B`.
#[must_use = "a run that is not finished holds up the SA"]
#[derive(Debug)]
pub struct Pending<S, B> {
    sa: S,
    run: B,
    ticket: Ticket,
    now: Instant,
    /// The number of the first packet, if those of the others follow it one by one and nothing has been found wrong with any.
    first: Option<u64>,
}

/// A run whose packets have verified and wait for their turn.
#[must_use = "a run that is not finished holds up the SA"]
#[derive(Debug)]
pub struct Opened<S, B>(Pending<S, B>);

/// Looks at `run`, at most [`RUN`] packets of one SA, and checks the window.
#[inline]
pub fn begin<S, B>(
    sa: S,
    mut run: B,
    now: Instant,
    held: &mut Held<'_, impl Before<SaLevel>>,
    mut sink: impl FnMut(Mbuf, Why),
) -> Result<Pending<S, B>, Declined<B>>
where
    S: Deref<Target = Sa>,
    B: DerefMut<Target = Batch>,
{
    if run.len() > RUN {
        return Err(Declined { run, why: NotNow::TooMany });
    }
    let mut failed = Failed::of(sa.layout.protocol());
    let (ticket, mut first) = {
        let (mut inbound, _held) = held.lock(sa.inbound());
        if !sa.is_alive(&inbound.used, now) {
            inbound.refused.expired += run.len() as u64;
            return Err(Declined { run, why: NotNow::Over(sa.config().protocol.why(Why::EspLifetime)) });
        }
        let Some(ticket) = inbound.turns.ticket() else {
            return Err(Declined { run, why: NotNow::Busy });
        };
        let usual = sa.layout.protocol() == Protocol::Esp && !sa.config().esn;
        let mut first = None;
        if usual {
            first = look_at_all(&sa, &inbound, &mut run, &mut failed);
        } else {
            for (place, m) in run.iter_mut().enumerate() {
                if let Err(why) = look(&sa.layout, m).and_then(|()| check(&sa, &inbound, m)) {
                    failed.note(place, why);
                }
            }
        }
        (ticket, first)
    };
    if !failed.is_empty() {
        first = None;
        failed.give_back(&mut run, &mut sink);
        sa.count_refused(failed.whys(), true, held);
    }
    Ok(Pending { sa, run, ticket, now, first })
}

/// Whether this can be an ESP packet of the SA at all; puts its number into the header.
#[inline(always)]
fn look(layout: &Layout, m: &mut Mbuf) -> Result<(), Why> {
    if layout.protocol() != Protocol::Esp {
        let number = match layout.protocol() {
            Protocol::Ah => ah::look(layout, m)?,
            _ => ipcomp::look(m).map(|()| 0)?,
        };
        set_seq(m, u64::from(number));
        return Ok(());
    }
    set_seq(m, u64::from(look_esp(layout, m)?));
    Ok(())
}

/// [`look`] and [`check`] of ESP without extended numbers; the first number, if the others follow it one by one.
#[inline(always)]
fn look_at_all(sa: &Sa, inbound: &Inbound, run: &mut Batch, failed: &mut Failed) -> Option<u64> {
    let (layout, size) = (&sa.layout, sa.config().replay);
    let (mut first, mut strays) = (0, 0);
    for (place, m) in run.iter_mut().enumerate() {
        match look_esp(layout, m) {
            Ok(seq) => {
                let seq = u64::from(seq);
                set_seq(m, seq);
                if place == 0 {
                    first = seq;
                }
                strays |= seq ^ (first + place as u64);
                if !inbound.window.check(seq, size) {
                    failed.note(place, Why::EspReplay);
                }
            }
            Err(why) => failed.note(place, why),
        }
    }
    (strays == 0).then_some(first)
}

/// The number of what can be an ESP packet.
#[inline(always)]
fn look_esp(layout: &Layout, m: &Mbuf) -> Result<u32, Why> {
    let at = m.l4();
    let packet = m.data().get(at..).ok_or(Why::EspMalformed)?;
    // The shortest payload is a trailer with the padding that it needs itself.
    let least = layout.esp_iv() + layout.align_mask() + 1 + layout.icv();
    if packet.len() < least || (packet.len() - least) & layout.align_mask() != 0 {
        return Err(Why::EspMalformed);
    }
    Ok(low_seq(packet))
}

#[inline(always)]
fn set_seq(m: &mut Mbuf, seq: u64) {
    let h = m.hdr_mut();
    h.state = seq as u32;
    h.state_gen = (seq >> 32) as u32;
}

#[inline(always)]
pub(crate) fn seq_of(m: &Mbuf) -> u64 {
    u64::from(m.hdr().state_gen) << 32 | u64::from(m.hdr().state)
}

#[inline(always)]
fn check(sa: &Sa, inbound: &Inbound, m: &mut Mbuf) -> Result<(), Why> {
    let size = sa.config().replay;
    if sa.config().esn {
        let seq = inbound.window.extend(m.hdr().state, size);
        set_seq(m, seq.ok_or(Why::EspReplay)?);
    }
    if inbound.window.check(seq_of(m), size) { Ok(()) } else { Err(Why::EspReplay) }
}

impl<S, B> Pending<S, B>
where
    S: Deref<Target = Sa>,
    B: DerefMut<Target = Batch>,
{
    /// Verifies and decrypts: the expensive part, without a lock, on whichever worker.
    #[inline]
    pub fn open(
        mut self,
        held: &mut Held<'_, impl Before<SaLevel>>,
        mut sink: impl FnMut(Mbuf, Why),
    ) -> Opened<S, B> {
        let sa = &*self.sa;
        let failures = match sa.layout.protocol() {
            Protocol::Esp if unwraps_at_once(&sa.layout) => {
                let (sa_field, mut sound) = (sa.index().to_header(), true);
                let failures = sa.transform.open_each(self.run.as_mut_slice(), part, |m| {
                    if !unwrap_at_once(&sa.layout, m, sa_field) {
                        sound = false;
                    }
                });
                self.first = self.first.filter(|_| sound && !failures.any());
                failures
            }
            Protocol::Esp => {
                self.first = None;
                sa.transform.open_run(self.run.iter_mut().map(part))
            }
            Protocol::Ah => ah::open_run(sa, &mut self.run),
            Protocol::Ipcomp => Failures::default(),
        };
        if failures.any() {
            let mut failed = Failed::of(self.sa.layout.protocol());
            (0..self.run.len()).filter(|i| failures.has(*i)).for_each(|i| failed.note(i, Why::EspAuth));
            failed.give_back(&mut self.run, &mut sink);
            self.sa.count_refused(failed.whys(), true, held);
        }
        Opened(self)
    }
}

/// An ESP packet's octets from its SPI on, and its number.
#[inline(always)]
fn part(m: &mut Mbuf) -> (&mut [u8], u64) {
    let (at, seq) = (m.l4(), seq_of(m));
    (m.data_mut().get_mut(at..).unwrap_or_default(), seq)
}

/// Takes an opened packet's headers off, and leaves in its header what marking it needs. What verified and is not sound inside
/// stays in the run, for its number is to be marked in its turn like any other; the note says why it ends then. Whether it is
/// sound.
#[inline(always)]
fn unwrap_at_once(layout: &Layout, m: &mut Mbuf, sa: u32) -> bool {
    let (seq, at) = (seq_of(m), m.l4());
    let (octets, unwrapped) = match inner(layout, m.data(), at) {
        Ok(inner) => (inner.end - inner.start, strip(layout, m, &inner, sa)),
        Err(why) => (payload(layout, m), Err(why)),
    };
    set_seq(m, seq);
    let h = m.hdr_mut();
    h.hash = octets as u32;
    if let Err(why) = unwrapped {
        (h.family, h.hash) = (SPOILT, h.hash | (why as u32) << OCTETS);
    }
    unwrapped.is_ok()
}

/// In a header's `family`: the packet is not sound inside, and above the octets stands why.
const SPOILT: u8 = u8::MAX;
/// Bits of a header's `hash` for the octets of a payload: there are buffers of 2^17.
const OCTETS: u32 = 24;

/// Why a packet was not sound inside.
#[inline(always)]
fn spoilt(m: &Mbuf) -> Option<Why> {
    if m.hdr().family != SPOILT {
        return None;
    }
    Some(Why::ALL.get((m.hdr().hash >> OCTETS) as usize).copied().unwrap_or(Why::EspMalformed))
}

/// Marks the window and unwraps the run in its turn.
///
/// Unless the answer is [`Leave::Parked`], the inner packets are in the run, in the order in which they arrived. After
/// [`Leave::Taken`] the worker notes the SA in its [`Releasing`](super::Releasing).
#[inline]
pub fn finish<S, B>(
    opened: Opened<S, B>,
    worker: Worker,
    held: &mut Held<'_, impl Before<SaLevel>>,
    sink: impl FnMut(Mbuf, Why),
) -> (B, Leave)
where
    S: Deref<Target = Sa>,
    B: DerefMut<Target = Batch>,
{
    let Opened(Pending { sa, mut run, ticket, now, first }) = opened;
    let mut failed = Failed::of(sa.layout.protocol());
    let opened = run.len();
    let (leave, wrapped) = {
        let (mut inbound, _held) = held.lock(sa.inbound());
        let leave = inbound.turns.complete(ticket, worker, &mut *run);
        // Nothing parked has joined it, and it is not parked itself.
        let first = first.filter(|_| run.len() == opened);
        let marked = first.is_some_and(|first| mark_all(&sa, &mut inbound, &mut run, first, now));
        (leave, !marked && mark(&sa, &mut inbound, run.as_mut_slice(), 0, now, &mut failed))
    };
    settle_run(&sa, &mut run, wrapped.then_some(0), &failed, held, sink);
    (run, leave)
}

/// [`mark`] of a run whose packets are all unwrapped and sound, with the numbers from `first` on. False if others have been marked
/// meanwhile: then nothing happened.
#[inline(always)]
fn mark_all(sa: &Sa, inbound: &mut Inbound, run: &mut Batch, first: u64, now: Instant) -> bool {
    if !inbound.window.mark_next(first, run.len(), sa.config().replay) {
        return false;
    }
    let mut bytes = 0;
    for m in run.iter_mut() {
        bytes += u64::from(std::mem::take(&mut m.hdr_mut().hash));
        set_seq(m, 0);
    }
    inbound.add_used(run.len(), bytes, now);
    true
}

/// Puts the packets' numbers into the window; those that are there already have failed, and those that are not sound inside.
/// Says whether any is still to be unwrapped: each packet itself tells, for what was parked may have been opened under
/// another configuration of the SA.
#[inline(always)]
fn mark(
    sa: &Sa,
    inbound: &mut Inbound,
    packets: &mut [Mbuf],
    from: usize,
    now: Instant,
    failed: &mut Failed,
) -> bool {
    let (layout, size) = (&sa.layout, sa.config().replay);
    let (mut count, mut bytes, mut newest, mut wrapped) = (0, 0, None, false);
    for (place, m) in packets.iter_mut().enumerate().skip(from) {
        let seq = seq_of(m);
        if !inbound.window.mark(seq, size) {
            failed.note(place, Why::EspReplay);
            continue;
        }
        count += 1;
        let spoilt = spoilt(m);
        if is_unwrapped(m) || spoilt.is_some() {
            bytes += u64::from(std::mem::take(&mut m.hdr_mut().hash) & ((1 << OCTETS) - 1));
            set_seq(m, 0);
            if let Some(why) = spoilt {
                failed.note(place, why);
            }
            continue;
        }
        wrapped = true;
        bytes += payload(layout, m) as u64;
        if layout.udp() > 0 && seq == inbound.window.top() {
            newest = natt::source(m);
        }
    }
    inbound.add_used(count, bytes, now);
    if newest.is_some() && newest != inbound.came_from {
        inbound.came_from = newest;
        sa.note_moved();
    }
    wrapped
}

/// Whether a packet is the inner one already: that begins where its headers speak from, the outer one has its ESP, AH or
/// IPComp header behind an IP header.
#[inline(always)]
fn is_unwrapped(m: &Mbuf) -> bool {
    m.l4() == 0
}

/// Whether a packet's headers are taken off as soon as it is open. Of ESP in UDP they tell where the peer is, which counts only
/// for the newest packet; inflating is long, and comes last.
#[inline(always)]
fn unwraps_at_once(layout: &Layout) -> bool {
    layout.protocol() == Protocol::Esp && layout.udp() == 0
}

/// Octets of payload, if the padding is right.
#[inline(always)]
fn payload(layout: &Layout, m: &Mbuf) -> usize {
    match layout.protocol() {
        Protocol::Esp => {}
        Protocol::Ah => return ah::payload(layout, m),
        Protocol::Ipcomp => return m.len().saturating_sub(m.l4() + ipcomp::HEADER),
    }
    let data = m.data();
    let end = data.len().saturating_sub(layout.icv() + TRAILER);
    let pad = data.get(end).map_or(0, |pad| usize::from(*pad));
    end.saturating_sub(pad + m.l4() + layout.esp_iv())
}

/// Takes the packets that failed out of the run, and unwraps those that are not yet: there are some from place `wrapped` on.
#[inline(always)]
fn settle_run(
    sa: &Sa,
    run: &mut Batch,
    wrapped: Option<usize>,
    failed: &Failed,
    held: &mut Held<'_, impl Before<SaLevel>>,
    mut sink: impl FnMut(Mbuf, Why),
) {
    if !failed.is_empty() {
        failed.give_back(run, &mut sink);
        sa.count_refused(failed.whys(), true, held);
    }
    if let Some(from) = wrapped {
        unwrap(sa, run, from, held, sink);
    }
}

/// Unwraps the packets from place `from` on that are not yet; those that fail leave the run.
#[inline(never)]
fn unwrap(
    sa: &Sa,
    run: &mut Batch,
    from: usize,
    held: &mut Held<'_, impl Before<SaLevel>>,
    mut sink: impl FnMut(Mbuf, Why),
) {
    let (sa_field, mut failed) = (sa.index().to_header(), Failed::of(sa.layout.protocol()));
    for (place, m) in run.iter_mut().enumerate().skip(from) {
        if !is_unwrapped(m)
            && let Err(why) = decapsulate(&sa.layout, m, sa_field)
        {
            failed.note(place, why);
        }
    }
    if !failed.is_empty() {
        failed.give_back(run, &mut sink);
        sa.count_refused(failed.whys(), true, held);
    }
}

/// What was parked behind the runs that this worker took: see [`Releasing`](super::Releasing).
pub(super) fn written(
    sa: &Sa,
    worker: Worker,
    now: Instant,
    out: &mut Batch,
    held: &mut Held<'_, impl Before<SaLevel>>,
    sink: impl FnMut(Mbuf, Why),
) -> bool {
    let (from, mut failed) = (out.len(), Failed::of(sa.layout.protocol()));
    let (more, wrapped) = {
        let (mut inbound, _held) = held.lock(sa.inbound());
        let more = inbound.turns.written(worker, out);
        (more, mark(sa, &mut inbound, out.as_mut_slice(), from, now, &mut failed))
    };
    settle_run(sa, out, wrapped.then_some(from), &failed, held, sink);
    more
}

/// What the trailer says: the payload's place and what it is.
struct Inner {
    start: usize,
    end: usize,
    next: IpProto,
}

#[inline(always)]
fn inner(layout: &Layout, data: &[u8], at: usize) -> Result<Inner, Why> {
    let trailer = data.len().checked_sub(layout.icv() + TRAILER).ok_or(Why::EspMalformed)?;
    let (Some(&pad), Some(&next)) = (data.get(trailer), data.get(trailer + 1)) else {
        return Err(Why::EspMalformed);
    };
    let (start, pad) = (at + layout.esp_iv(), usize::from(pad));
    let end = trailer.checked_sub(pad).filter(|end| *end >= start).ok_or(Why::EspPadding)?;
    if layout.padding_checked && !data[end..trailer].iter().zip(1u8..).all(|(byte, n)| *byte == n) {
        return Err(Why::EspPadding);
    }
    Ok(Inner { start, end, next: IpProto(next) })
}

/// Takes the outer header, ESP header, trailer and ICV off an opened packet.
#[inline(always)]
fn decapsulate(layout: &Layout, m: &mut Mbuf, sa: u32) -> Result<(), Why> {
    match layout.protocol() {
        Protocol::Esp => {}
        Protocol::Ah => return ah::decapsulate(layout, m, sa),
        Protocol::Ipcomp => return ipcomp::decapsulate(layout, m, sa),
    }
    let inner = inner(layout, m.data(), m.l4())?;
    strip(layout, m, &inner, sa)
}

/// Takes off what is in front of the payload and behind it.
#[inline(always)]
fn strip(layout: &Layout, m: &mut Mbuf, &Inner { start, end, next }: &Inner, sa: u32) -> Result<(), Why> {
    if let Some(inner) = layout.inner() {
        beet::decapsulate(inner, m, (start, end), next, sa)
    } else if layout.takes_off(next)? {
        settle(layout, m, start, end, next, sa)
    } else {
        transport::decapsulate(m, IpProto::ESP, layout.esp_iv(), end, next, sa)
    }
}

/// Takes everything in front of the inner packet off, which stands from `start` to `end`, and what is behind it.
#[inline(always)]
pub(crate) fn settle(
    layout: &Layout,
    m: &mut Mbuf,
    start: usize,
    end: usize,
    next: IpProto,
    sa: u32,
) -> Result<(), Why> {
    let data = m.data_mut();
    let outer = layout.arrived_class(outer_class(data));
    let packet = data.get_mut(start..end).ok_or(Why::EspPadding)?;
    let (len, family) =
        if next == IpProto::IPV4 { (settle_v4(packet, outer)?, 4) } else { (settle_v6(packet, outer)?, 6) };
    // `start + len <= end`, inside the data: it cannot fail.
    m.narrow(start, len).map_err(|_| Why::EspMalformed)?;
    describe(m, family, sa);
    Ok(())
}

#[inline(always)]
fn outer_class(data: &[u8]) -> u8 {
    match data.first_chunk::<2>() {
        Some([first, second]) if first >> 4 == 6 => first << 4 | second >> 4,
        Some([_, second]) => *second,
        None => 0,
    }
}

/// Folds the outer ECN field into the inner one; the length of the packet without TFC padding (RFC 4303, 2.7). A length
/// field that says more than there is is left to `ip_input` to complain about.
#[inline(always)]
fn settle_v4(packet: &mut [u8], outer: u8) -> Result<usize, Why> {
    let available = packet.len();
    let header: &mut [u8; ipv4::HEADER_LEN] = packet.first_chunk_mut().ok_or(Why::EspPadding)?;
    if header[0] >> 4 != 4 {
        return Err(Why::EspPadding);
    }
    let class = header[1];
    // Both the same, as they mostly are, stay the same.
    if (class ^ outer) & ecn::MASK != 0 {
        ipv4::set_tos(header, merged_class(class, outer)?);
    }
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    Ok(if total < ipv4::HEADER_LEN { available } else { total.min(available) })
}

/// The inner class with what the outer one says of congestion.
#[inline(never)]
fn merged_class(class: u8, outer: u8) -> Result<u8, Why> {
    let ecn = ecn::decapsulated(class, outer).ok_or(Why::EspEcn)?;
    Ok(class & !ecn::MASK | ecn)
}

/// As [`settle_v4`].
#[inline(always)]
fn settle_v6(packet: &mut [u8], outer: u8) -> Result<usize, Why> {
    let available = packet.len();
    let header: &mut [u8; ipv6::HEADER_LEN] = packet.first_chunk_mut().ok_or(Why::EspPadding)?;
    if header[0] >> 4 != 6 {
        return Err(Why::EspPadding);
    }
    let class = header[0] << 4 | header[1] >> 4;
    if (class ^ outer) & ecn::MASK != 0 {
        ipv6::set_traffic_class(header, merged_class(class, outer)?);
    }
    Ok((ipv6::HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]))).min(available))
}

/// Makes the packet's header speak of the inner packet.
#[inline(always)]
pub(super) fn describe(m: &mut Mbuf, family: u8, sa: u32) {
    m.set_l3(0);
    m.set_l4(0);
    let h = m.hdr_mut();
    h.family = family;
    h.proto = 0;
    h.flags = PktFlags::empty();
    h.sa = sa;
    h.hash = 0;
    h.state = 0;
    h.state_gen = 0;
    h.cursor = 0;
}

/// `esp_input`: both halves for a run of at most [`RUN`] packets of one SA, in place. What is in `run` afterwards are
/// inner packets to go on now, in this order.
///
/// `Err(Busy)`: the SA has too many runs out. Nothing happened; come again with the same packets.
#[inline]
pub fn esp_input(
    sa: &Arc<Sa>,
    run: &mut Batch,
    turn: &mut LoopTurn<'_>,
    held: &mut Held<'_, impl Before<SaLevel>>,
    mut sink: impl FnMut(Mbuf, Why),
) -> Result<(), Busy> {
    let pending = match begin(&**sa, &mut *run, turn.now, held, &mut sink) {
        Ok(pending) => pending,
        Err(Declined { run, why: NotNow::Over(why) }) => {
            run.drain().for_each(|m| sink(m, why));
            return Ok(());
        }
        Err(_) => return Err(Busy),
    };
    let opened = pending.open(held, &mut sink);
    if let (_, Leave::Taken) = finish(opened, turn.worker, held, &mut sink) {
        turn.releasing.note_input(sa);
    }
    turn.releasing.note_moved(sa);
    Ok(())
}
