//! ESP on the way out: `esp_output` in two halves, a run of packets of one SA at a time.
//!
//! A packet comes with its data beginning at the inner IP header and ending with it: no Ethernet padding behind, its
//! checksums complete. It leaves with the outer header in front, `family`, `proto`, `flags` and `hash` of its header
//! those of the outer packet, and its `tag`, `queue`, `prio` and `rcvif` those of the inner one.
//!
//! Outer header, unless the SA says otherwise ([`Handling`](crate::sa::Handling)): TTL 64; class copied, DSCP and ECN both
//! (RFC 6040, normal mode); DF copied, and set over IPv6 (whose routers do not fragment); flow label 0.

use super::{
    Busy, Declined, Failed, LoopTurn, finished,
    layout::{Layout, TRAILER},
    low_seq, transport,
};
use crate::{
    ah, ipcomp, natt,
    order::{Leave, Ticket, Worker},
    sa::{NotNow, Protocol, Sa, SaLevel},
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

/// A run between [`begin`] and [`finish`]: laid out, numbered, not sealed yet.
///
/// `S` is `&Sa` where both happen on one thread and `Arc<Sa>` where they do not; `B` likewise `&mut Batch` or
/// `Box<Batch>`.
#[must_use = "a run that is not finished holds up the SA"]
#[derive(Debug)]
pub struct Pending<S, B> {
    sa: S,
    run: B,
    first: u64,
    ticket: Ticket,
    bytes: u64,
    now: Instant,
}

/// Numbers the packets of `run`, at most [`Sa::run_max`] of them, and lays them out.
///
/// Packets that cannot be sent go to `sink`; their numbers are not used again.
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
    let want = run.len();
    if want > sa.run_max() {
        return Err(Declined { run, why: NotNow::TooMany });
    }
    let (numbers, ticket) = match sa.reserve(want, now, held) {
        Ok(reserved) => reserved,
        Err(why) => return Err(Declined { run, why }),
    };
    let (mut failed, mut bytes) = (Failed::of(sa.layout.protocol()), 0);
    for (place, m) in run.iter_mut().enumerate() {
        let inner = m.len();
        // Only at the very end of an SA are there fewer numbers than packets.
        let laid_out = if place < numbers.len as usize {
            let seq = numbers.first + place as u64;
            if sa.layout.is_plain() { encapsulate(&sa.layout, m, seq) } else { otherwise(&sa.layout, m, seq) }
        } else {
            Err(Why::EspSequence)
        };
        match laid_out {
            Ok(()) => bytes += inner as u64,
            Err(why) => failed.note(place, why),
        }
    }
    if !failed.is_empty() {
        failed.give_back(&mut run, &mut sink);
        sa.count_refused(failed.whys(), false, held);
    }
    Ok(Pending { sa, run, first: numbers.first, ticket, bytes, now })
}

/// Transport mode, AH, IPComp.
#[inline(never)]
fn otherwise(layout: &Layout, m: &mut Mbuf, seq: u64) -> Result<(), Why> {
    match layout.protocol() {
        Protocol::Esp => transport::encapsulate(layout, m, seq),
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
    // The rest of the tail is the ICV, which sealing fills in.
    if let Some(trailer) = tail.get_mut(..pad + TRAILER) {
        trailer[..pad].copy_from_slice(&layout.padding[..pad]);
        trailer[pad] = pad as u8;
        trailer[pad + 1] = next.0;
    }
    let total = m.len() + layout.head();
    let head = m.prepend(layout.head())?;
    layout.write_head(head, total, class, df, seq)?;
    layout.label(m);
    layout.describe_outer(m, df, if layout.udp() > 0 { IpProto::UDP } else { IpProto::ESP });
    Ok(())
}

impl<S, B: DerefMut<Target = Batch>> Pending<S, B> {
    /// The packets, laid out and not sealed. Whoever gives a run up takes them out and finishes what is left: nothing.
    pub fn run(&mut self) -> &mut Batch {
        &mut self.run
    }
}

#[inline(always)]
fn seal(sa: &Sa, run: &mut Batch, first: u64) -> Failures {
    let (plain, esp, udp, base) = (sa.layout.is_plain(), sa.layout.esp(), sa.layout.udp(), sa.iv_base());
    sa.transform.seal_run(run.iter_mut().map(|m| {
        let at = if plain { esp } else { m.l4() + udp };
        let packet = m.data_mut().get_mut(at..).unwrap_or_default();
        // The run's numbers are fewer than 2^32, so the low half on the wire tells the whole.
        let seq = first + u64::from(low_seq(packet).wrapping_sub(first as u32));
        (packet, seq, base.wrapping_add(seq))
    }))
}

/// Seals the run and lets it leave in its turn.
///
/// Unless the answer is [`Leave::Parked`], what is in the run may be transmitted now, in this order: this run, and
/// perhaps others of the SA behind it. After [`Leave::Taken`] the worker notes the SA in its [`Releasing`](super::Releasing).
#[inline]
pub fn finish<S, B>(
    mut pending: Pending<S, B>,
    worker: Worker,
    held: &mut Held<'_, impl Before<SaLevel>>,
    mut sink: impl FnMut(Mbuf, Why),
) -> (B, Leave)
where
    S: Deref<Target = Sa>,
    B: DerefMut<Target = Batch>,
{
    let sa = &*pending.sa;
    let failures = match sa.layout.protocol() {
        Protocol::Esp => seal(sa, &mut pending.run, pending.first),
        Protocol::Ah => ah::seal_run(sa, &mut pending.run, pending.first),
        Protocol::Ipcomp => Failures::default(),
    };
    if failures.any() {
        let mut failed = Failed::of(sa.layout.protocol());
        (0..pending.run.len()).filter(|i| failures.has(*i)).for_each(|i| failed.note(i, Why::EspEngine));
        failed.give_back(&mut pending.run, &mut sink);
        sa.count_refused(failed.whys(), false, held);
    }
    if sa.layout.has_checksum() {
        pending.run.iter_mut().for_each(natt::fill_checksum);
    }
    let sent = (pending.run.len(), pending.bytes);
    let leave =
        held.lock(sa.outbound()).0.complete(pending.ticket, worker, &mut *pending.run, sent, pending.now);
    (pending.run, leave)
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
    let pending = match begin(&**sa, &mut *run, turn.now, held, &mut sink) {
        Ok(pending) => pending,
        Err(Declined { run, why: NotNow::Over(why) }) => {
            run.drain().for_each(|m| sink(m, why));
            return Ok(0);
        }
        Err(_) => return Err(Busy),
    };
    let octets = pending.bytes;
    if let (_, Leave::Taken) = finish(pending, turn.worker, held, &mut sink) {
        turn.releasing.note_output(sa);
    }
    Ok(octets)
}
