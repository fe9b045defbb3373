//! ESP on the way out: `esp_output` in two halves, a run of packets of one SA at a time.
//!
//! A packet comes with its data beginning at the inner IP header and ending with it: no Ethernet padding behind, its
//! checksums complete. It leaves with the outer header in front, `family`, `proto`, `flags` and `hash` of its header
//! those of the outer packet, and its `tag`, `queue`, `prio` and `rcvif` those of the inner one.
//!
//! Outer header, unless the SA says otherwise ([`Handling`](crate::sa::Handling)): TTL 64; class copied, DSCP and ECN both
//! (RFC 6040, normal mode); DF copied, and set over IPv6 (whose routers do not fragment); flow label 0.

use super::{
    Declined, Failed, LoopTurn, Releasing, beet, finished,
    layout::{Layout, PADDING, TRAILER},
    transport,
};
use crate::{
    ah, ipcomp, natt,
    sa::{NotNow, Protocol, Sa, SaLevel},
    seq::Numbers,
    transform::Failures,
};
use kern::{
    Batch, Mbuf, Why,
    lock::{Before, Held},
    time::Instant,
};
use std::ops::{Deref, DerefMut};
use wire::{IpProto, ipv4};

pub use crate::transform::RUN;

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
    /// The largest packet that fits the way: none is filled up to more.
    room: usize,
    /// Of the packets as they came.
    octets: u64,
    /// When the SA carried something before.
    before: Instant,
}

/// Numbers the packets of `run`, at most [`RUN`] of them.
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
    if want > RUN {
        return Err(Declined { run, why: NotNow::TooMany });
    }
    let octets = run.iter().map(|m| m.len() as u64).sum();
    match sa.reserve(want, octets, now, held) {
        Ok((numbers, before)) => Ok(Pending { sa, run, numbers, room: usize::MAX, octets, before }),
        Err(why) => Err(Declined { run, why: NotNow::Over(why) }),
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
fn encapsulate(layout: &Layout, m: &mut Mbuf, seq: u64, room: usize) -> Result<(), Why> {
    let inner = m.len();
    let (class, df, next) = inherited(m.data())?;
    finished(m)?;
    let mut tfc = layout.tfc(inner, room);
    if tfc > 0 {
        // On a link of long frames a short packet is in a buffer that ends before what is asked for.
        tfc = tfc.min(m.tailroom().saturating_sub(layout.align_mask() + TRAILER + layout.icv()));
    }
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

/// What [`encapsulate`] does to a packet, where the layout is simple and the packet IPv4: the same octets, written word by word.
#[inline(always)]
fn encapsulate_simply(layout: &Layout, m: &mut Mbuf, h: [u8; 8], seq: u64) -> Result<(), Why> {
    let (inner, class, df) = (m.len(), h[1], u16::from_be_bytes([h[6], h[7]]) & ipv4::DF != 0);
    finished(m)?;
    let pad = layout.pad(inner);
    let behind = pad + TRAILER + layout.icv();
    if layout.head() + inner + behind > layout.max() {
        return Err(Why::EspTooBig);
    }
    let data = m.surround(layout.head(), behind)?;
    layout.write_simply(data, inner, pad, (class, df), seq).ok_or(Why::Headroom)?;
    layout.describe_outer(m, df, IpProto::ESP);
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
    fn seal(&mut self, held: &mut Held<'_, impl Before<SaLevel>>, sink: &mut impl FnMut(Mbuf, Why)) {
        let (sa, numbers, room) = (&*self.sa, self.numbers, self.room);
        let protocol = sa.layout.protocol();
        let mut failed = Failed::of(protocol);
        let failures = {
            let (base, run) = (sa.iv_base(), self.run.as_mut_slice());
            let lay_out = |place, m: &mut Mbuf| match number(numbers, place)
                .and_then(|seq| lay_out(&sa.layout, m, seq, room).map(|at| (seq, at)))
            {
                Ok(laid_out) => Some(laid_out),
                Err(why) => {
                    failed.note(place, why);
                    None
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
    }

    /// Takes out what could not be laid out, and what could not be sealed: it does not count as carried.
    #[cold]
    fn take_out(
        &mut self,
        failures: Failures,
        not_laid_out: &Failed,
        held: &mut Held<'_, impl Before<SaLevel>>,
        sink: &mut impl FnMut(Mbuf, Why),
    ) {
        let mut failed = Failed::of(self.sa.layout.protocol());
        let mut octets = 0;
        for (place, m) in self.run.iter().enumerate() {
            if let Some(why) = not_laid_out.at(place) {
                // As it came.
                octets += m.len() as u64;
                failed.note(place, why);
            } else if failures.has(place) {
                octets += m.len().saturating_sub(self.sa.overhead()) as u64;
                failed.note(place, Why::EspEngine);
            }
        }
        failed.give_back(&mut self.run, sink);
        self.sa.count_refused(failed.whys(), false, held);
        let before = self.run.is_empty().then_some(self.before);
        held.lock(self.sa.outbound()).0.take_back(failed.whys().count(), octets, before);
    }
}

/// The number of the packet at a place. Only at the very end of an SA are there fewer numbers than packets.
#[inline(always)]
fn number(numbers: Numbers, place: usize) -> Result<u64, Why> {
    if place < numbers.len as usize { Ok(numbers.first + place as u64) } else { Err(Why::EspSequence) }
}

/// Writes all of a packet but what the cipher writes; where its ESP header is.
#[inline(always)]
fn lay_out(layout: &Layout, m: &mut Mbuf, seq: u64, room: usize) -> Result<usize, Why> {
    if layout.is_simple()
        && let Some(header) = m.data().first_chunk().copied().filter(|h: &[u8; 8]| h[0] >> 4 == 4)
    {
        return encapsulate_simply(layout, m, header, seq).map(|()| layout.esp());
    }
    if layout.is_plain() {
        return encapsulate(layout, m, seq, room).map(|()| layout.esp());
    }
    otherwise(layout, m, seq).map(|()| m.l4() + layout.udp())
}

/// Seals the run. What is in it afterwards may be transmitted now, in this order, and [`Releasing::written_output`] be told
/// when it is; if another worker's run comes before, it is empty, and `releasing` keeps the packets until then.
#[inline]
pub fn finish<S, B>(
    mut pending: Pending<S, B>,
    releasing: &mut Releasing,
    held: &mut Held<'_, impl Before<SaLevel>>,
    mut sink: impl FnMut(Mbuf, Why),
) -> B
where
    S: Deref<Target = Sa>,
    B: DerefMut<Target = Batch>,
{
    pending.seal(held, &mut sink);
    let Pending { sa, mut run, numbers, .. } = pending;
    releasing.leave(&sa, numbers, &mut run);
    run
}

/// `esp_output`: both halves for a run of at most [`RUN`] packets of one SA, in place. What is in `run` afterwards may be
/// transmitted now, in this order; it may be less than before, for some failed or all wait for their turn. Returns the octets
/// of the packets as they came.
///
/// No packet is filled up (`-tfc`) to more than `room` octets, the most that fits the way ([`Sa::inner_mtu`]).
///
/// The caller brings no more packets than [`Releasing::room`]: for so many there is room if they wait. A run of more ends.
#[inline]
pub fn esp_output(
    sa: &Sa,
    run: &mut Batch,
    room: usize,
    turn: &mut LoopTurn<'_>,
    held: &mut Held<'_, impl Before<SaLevel>>,
    mut sink: impl FnMut(Mbuf, Why),
) -> u64 {
    if run.len() > turn.releasing.room() {
        run.drain().for_each(|m| sink(m, Why::PendingFull));
        return 0;
    }
    match begin(sa, &mut *run, turn.now, held) {
        Ok(mut pending) => {
            pending.room = room;
            let octets = pending.octets;
            finish(pending, turn.releasing, held, sink);
            octets
        }
        Err(Declined { run, why }) => {
            let why = if let NotNow::Over(why) = why { why } else { Why::PendingFull };
            run.drain().for_each(|m| sink(m, why));
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        esp::tests::{V4, config},
        sa::{Df, Handling, SaConfig},
        transform::Suite,
    };
    use kern::{PktFlags, testing::Fixture};
    use proptest::prelude::*;
    use std::net::SocketAddr;

    proptest! {
        #[test]
        fn what_is_written_word_by_word_is_what_is_written_otherwise(
            inner in 20usize..1500, class: u8, flags: u8, seq: u32, df in 0usize..3, dscp in proptest::option::of(0u8..64),
            ecn: bool, suite in 0usize..Suite::ALL.len(), others: bool,
        ) {
            let df = [Df::Copy, Df::Set, Df::Clear][df];
            let handling = Handling { df, dscp, ecn, ..Handling::default() };
            let config = SaConfig { handling, ..config(V4, Suite::ALL[suite]) };
            let layout = Layout::new(&config, SocketAddr::new(config.dst, 0), &wire::HashSeed::new(1, 2));
            let mut packet: Vec<u8> = (0..inner).map(|i| i as u8).collect();
            (packet[0], packet[1], packet[6]) = (0x45, class, flags);
            let fixture = Fixture::new(4);
            let (mut one, mut other) = (fixture.packet(&packet), fixture.packet(&packet));
            if others {
                one.hdr_mut().flags.set(PktFlags::LOW_DELAY);
                other.hdr_mut().flags.set(PktFlags::LOW_DELAY);
            }
            let header = *packet.first_chunk().unwrap();
            if layout.is_simple() {
                encapsulate_simply(&layout, &mut one, header, seq.into()).unwrap();
                encapsulate(&layout, &mut other, seq.into(), inner).unwrap();
                // The ICV comes later.
                let end = one.len() - layout.icv();
                prop_assert_eq!(&one.data()[..20 + 8], &other.data()[..20 + 8]);
                prop_assert_eq!(&one.data()[layout.head()..end], &other.data()[layout.head()..end]);
                prop_assert_eq!((one.len(), one.l4(), one.hdr().flags), (other.len(), other.l4(), other.hdr().flags));
                prop_assert_eq!((one.hdr().proto, one.hdr().hash, one.hdr().family), (50, other.hdr().hash, 4));
            }
            fixture.done(one);
            fixture.done(other);
        }
    }
}
