//! ESP on the way out: `esp_output` in two halves, a run of packets of one SA at a time.
//!
//! A packet comes with its data beginning at the inner IP header and ending with it: no Ethernet padding behind, its
//! checksums complete. It leaves with the outer header in front, `family`, `proto`, `flags` and `hash` of its header
//! those of the outer packet, and its `tag`, `queue`, `prio` and `rcvif` those of the inner one.
//!
//! Outer header, unless the SA says otherwise ([`Handling`](crate::sa::Handling)): TTL 64; class copied, DSCP and ECN both
//! (RFC 6040, normal mode); DF copied, and set over IPv6 (whose routers do not fragment); flow label 0.

use super::{
    Busy, Declined, Failed, LoopTurn, beet, finished,
    layout::{Layout, PADDING, TRAILER},
    transport,
};
use crate::{
    ah, ipcomp, natt,
    order::{Leave, Ticket, Worker},
    sa::{NotNow, Protocol, Sa, SaLevel},
    seq::Numbers,
    transform::Failures,
};
use kern::{
    Batch, Mbuf, Why,
    lock::{Before, Held},
    time::Instant,
};
use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};
use wire::{IpProto, ipv4};

/// A run between [`begin`] and [`finish`]: numbered, not sealed yet.
///
/// `S` is `&Sa` where both happen on one thread and `Arc<Sa>` where they do not; `B` likewise `&mut Batch` or
/// `Box<Batch>`.
#[must_use = "a run that is not finished holds up the SA"]
#[derive(Debug)]
pub struct Pending<S, B> {
    sa: S,
    run: B,
    numbers: Numbers,
    ticket: Ticket,
    now: Instant,
}

/// A run that waits for its turn to leave.
struct Sealed<S, B> {
    pending: Pending<S, B>,
    /// Octets of the packets as they came.
    octets: u64,
}

/// Numbers the packets of `run`, at most [`Sa::run_max`] of them.
#[inline]
pub fn begin<S, B>(
    sa: S,
    run: B,
    now: Instant,
    held: &mut Held<'_, impl Before<SaLevel>>,
) -> Result<Pending<S, B>, Declined<B>>
where
    S: Deref<Target = Sa>,
    B: DerefMut<Target = Batch>,
{
    let want = run.len();
    if want > sa.run_max() {
        return Err(Declined { run, why: NotNow::TooMany });
    }
    match sa.reserve(want, now, held) {
        Ok((numbers, ticket)) => Ok(Pending { sa, run, numbers, ticket, now }),
        Err(why) => Err(Declined { run, why }),
    }
}

/// Transport and BEET mode, AH, IPComp.
#[inline(never)]
fn otherwise(layout: &Layout, m: &mut Mbuf, seq: u64) -> Result<(), Why> {
    match layout.protocol() {
        Protocol::Esp => match layout.inner() {
            Some(inner) => beet::encapsulate(layout, inner, m, seq),
            None => transport::encapsulate(layout, m, seq),
        },
        Protocol::Ah => ah::encapsulate(layout, m, seq),
        Protocol::Ipcomp => ipcomp::encapsulate(layout, m, seq),
    }
}

/// What goes into the outer header and the trailer from the inner packet: class, DF, next header.
#[inline(always)]
pub(crate) fn inherited(packet: &[u8]) -> Result<(u8, bool, IpProto), Why> {
    let Some(h) = packet.first_chunk::<8>() else { return Err(Why::EspProtocol) };
    match h[0] >> 4 {
        4 => Ok((h[1], u16::from_be_bytes([h[6], h[7]]) & ipv4::DF != 0, IpProto::IPV4)),
        6 => Ok((h[0] << 4 | h[1] >> 4, true, IpProto::IPV6)),
        _ => Err(Why::EspProtocol),
    }
}

#[inline(always)]
fn encapsulate(layout: &Layout, m: &mut Mbuf, seq: u64) -> Result<(), Why> {
    let inner = m.len();
    let (class, df, next) = inherited(m.data())?;
    finished(m)?;
    let tfc = layout.tfc(inner);
    if !layout.fits(inner + tfc) {
        return Err(Why::EspTooBig);
    }
    let pad = layout.pad(inner + tfc);
    let mut tail = m.append(tfc + pad + TRAILER + layout.icv())?;
    if tfc != 0 {
        let filling;
        (filling, tail) = tail.split_at_mut(tfc);
        filling.fill(0);
    }
    // The rest of the tail is the ICV, which sealing fills in: where there is so much, a copy of fixed length is shorter.
    match tail.first_chunk_mut() {
        Some(start) if pad <= PADDING => *start = layout.padding,
        _ => tail[..pad].copy_from_slice(&layout.padding[..pad]),
    }
    if let Some(trailer) = tail.get_mut(pad..pad + TRAILER) {
        trailer.copy_from_slice(&[pad as u8, next.0]);
    }
    let total = m.len() + layout.head();
    let head = m.prepend(layout.head())?;
    layout.write_head(head, total, class, df, seq)?;
    layout.label(m);
    layout.describe_outer(m, df, if layout.udp() > 0 { IpProto::UDP } else { IpProto::ESP });
    Ok(())
}

impl<S, B> Pending<S, B>
where
    S: Deref<Target = Sa>,
    B: DerefMut<Target = Batch>,
{
    /// The packets, numbered and not sealed. Whoever gives a run up takes them out and finishes what is left: nothing.
    pub fn run(&mut self) -> &mut Batch {
        &mut self.run
    }

    /// Lays the packets out and seals them, one after the other: the processor writes one packet's headers while the one
    /// before is still in the cipher. Those that cannot be sent go to `sink`; their numbers are not used again.
    #[inline(always)]
    fn seal(
        mut self,
        held: &mut Held<'_, impl Before<SaLevel>>,
        sink: &mut impl FnMut(Mbuf, Why),
    ) -> Sealed<S, B> {
        let (sa, numbers) = (&*self.sa, self.numbers);
        let protocol = sa.layout.protocol();
        let (mut failed, mut octets) = (Failed::of(protocol), 0);
        let failures = {
            let (base, run) = (sa.iv_base(), self.run.as_mut_slice());
            let lay_out = |place, m: &mut Mbuf| {
                let inner = m.len() as u64;
                match number(numbers, place).and_then(|seq| lay_out(&sa.layout, m, seq).map(|at| (seq, at))) {
                    Ok(laid_out) => {
                        octets += inner;
                        Some(laid_out)
                    }
                    Err(why) => {
                        failed.note(place, why);
                        None
                    }
                }
            };
            sa.transform.seal_each(run, lay_out, |m, (seq, at)| {
                (m.data_mut().get_mut(at..).unwrap_or_default(), seq, base.wrapping_add(seq))
            })
        };
        if failures.any() || !failed.is_empty() {
            self.take_out(failures, &failed, held, sink);
        }
        if protocol == Protocol::Ah {
            let failures = ah::seal_run(&self.sa, &mut self.run, numbers.first);
            if failures.any() {
                self.take_out(failures, &Failed::of(protocol), held, sink);
            }
        }
        if self.sa.layout.has_checksum() {
            self.run.iter_mut().for_each(natt::fill_checksum);
        }
        Sealed { pending: self, octets }
    }

    /// Takes out what could not be laid out, and what could not be sealed.
    #[cold]
    fn take_out(
        &mut self,
        failures: Failures,
        not_laid_out: &Failed,
        held: &mut Held<'_, impl Before<SaLevel>>,
        sink: &mut impl FnMut(Mbuf, Why),
    ) {
        let mut failed = Failed::of(self.sa.layout.protocol());
        for place in 0..self.run.len() {
            if let Some(why) = not_laid_out.at(place) {
                failed.note(place, why);
            } else if failures.has(place) {
                failed.note(place, Why::EspEngine);
            }
        }
        failed.give_back(&mut self.run, sink);
        self.sa.count_refused(failed.whys(), false, held);
    }
}

/// The number of the packet at a place. Only at the very end of an SA are there fewer numbers than packets.
#[inline(always)]
fn number(numbers: Numbers, place: usize) -> Result<u64, Why> {
    if place < numbers.len as usize { Ok(numbers.first + place as u64) } else { Err(Why::EspSequence) }
}

/// Writes all of a packet but what the cipher writes; where its ESP header is.
#[inline(always)]
fn lay_out(layout: &Layout, m: &mut Mbuf, seq: u64) -> Result<usize, Why> {
    if layout.is_plain() {
        return encapsulate(layout, m, seq).map(|()| layout.esp());
    }
    otherwise(layout, m, seq).map(|()| m.l4() + layout.udp())
}

impl<S, B> Sealed<S, B>
where
    S: Deref<Target = Sa>,
    B: DerefMut<Target = Batch>,
{
    /// Lets the run leave in its turn.
    #[inline(always)]
    fn leave(self, worker: Worker, held: &mut Held<'_, impl Before<SaLevel>>) -> (B, Leave) {
        let Sealed { pending: Pending { sa, mut run, ticket, now, .. }, octets } = self;
        let sent = (run.len(), octets);
        let leave = held.lock(sa.outbound()).0.complete(ticket, worker, &mut *run, sent, now);
        (run, leave)
    }
}

/// Seals the run and lets it leave in its turn.
///
/// Unless the answer is [`Leave::Parked`], what is in the run may be transmitted now, in this order: this run, and
/// perhaps others of the SA behind it. After [`Leave::Taken`] the worker notes the SA in its [`Releasing`](super::Releasing).
#[inline]
pub fn finish<S, B>(
    pending: Pending<S, B>,
    worker: Worker,
    held: &mut Held<'_, impl Before<SaLevel>>,
    mut sink: impl FnMut(Mbuf, Why),
) -> (B, Leave)
where
    S: Deref<Target = Sa>,
    B: DerefMut<Target = Batch>,
{
    pending.seal(held, &mut sink).leave(worker, held)
}

/// `esp_output`: both halves for a run of at most [`Sa::run_max`] packets of one SA, in place. What is in `run`
/// afterwards may be transmitted now, in this order; it may be less than before (parked, or failed) or more (runs of
/// others that waited behind it). Returns the octets that were sealed, as they were before.
///
/// `Err(Busy)`: the SA has too many runs out. Nothing happened; come again with the same packets.
#[inline]
pub fn esp_output(
    sa: &Arc<Sa>,
    run: &mut Batch,
    turn: &mut LoopTurn<'_>,
    held: &mut Held<'_, impl Before<SaLevel>>,
    mut sink: impl FnMut(Mbuf, Why),
) -> Result<u64, Busy> {
    let pending = match begin(&**sa, &mut *run, turn.now, held) {
        Ok(pending) => pending,
        Err(Declined { run, why: NotNow::Over(why) }) => {
            run.drain().for_each(|m| sink(m, why));
            return Ok(0);
        }
        Err(_) => return Err(Busy),
    };
    let sealed = pending.seal(held, &mut sink);
    let octets = sealed.octets;
    if let (_, Leave::Taken) = sealed.leave(turn.worker, held) {
        turn.releasing.note_output(sa);
    }
    Ok(octets)
}
