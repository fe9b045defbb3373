//! Reassembly (RFC 791, 3.2; RFC 815; RFC 8200, 4.5) of datagrams to the router itself; ESP that was fragmented on its way among
//! them. What is only passing through stays in fragments, unless pf is to look at it whole (`scrub`, `set reassemble`): then
//! `gather` puts it together ahead of pf, in a table of its own, and `ip_output` takes it apart again.
//!
//! ```text
//!  forward ─► reass_input ─► describe ─► table, under Reass ─► all there ─► joined ─► esp_input or host_input
//!                                │             │
//!                             refused        waits: 30 s (IPv4), 60 s (IPv6), at most clusters/16 fragments
//! ```
//!
//! Fragments that overlap ruin their datagram (RFC 5722), exact duplicates are ignored. The joined packet has the first
//! fragment's header without the marks of fragmentation, and takes a jumbo buffer where a cluster is too small. No packet
//! ends under the lock. Explicit congestion notification follows RFC 3168, 5.3.

mod gather;
mod piece;
mod table;

use crate::{
    hooks,
    icmp::{self, Error},
    worker::{Cx, Pending, Stage},
};
pub(crate) use gather::gather;
use kern::{
    Batch, Chain, Class, Ledger, Mbuf, PktFlags, Why,
    lock::{
        Before, Held, Level, Mutex,
        levels::{self, Softnet},
    },
    time::Instant,
};
use piece::Piece;
use table::{Complete, Outcome, Overlap, Table, Victims};
use wire::{IpProto, ipv4, ipv6, ipv6_ext::FRAGMENT_LEN, parse};

/// Datagrams that run out in one turn of the timer.
const EXPIRE: usize = 64;
/// The timer runs again after this at the latest, and after this much at the earliest.
const LATEST: u64 = 1_000_000_000;
const SOONEST: u64 = 10_000_000;

/// All datagrams of which fragments have come: the host stack's, or pf's.
pub struct Reassembly<L = levels::Reass> {
    table: Mutex<L, Table>,
}

impl Reassembly {
    /// Room for a pool of so many clusters: a sixteenth of them may be fragments, in half as many datagrams.
    pub fn new(clusters: usize) -> Reassembly {
        Reassembly { table: Mutex::new(Table::new(clusters / 16, clusters / 32, Overlap::Ruin)) }
    }
}

impl Reassembly<levels::PfFrags> {
    /// The same for pf, where IPv4 fragments that overlap are trimmed.
    pub fn of_pf(clusters: usize) -> Reassembly<levels::PfFrags> {
        Reassembly { table: Mutex::new(Table::new(clusters / 16, clusters / 32, Overlap::Trim)) }
    }

    /// `set limit frags`, `set timeout frag`. If more than that wait, the oldest end.
    pub fn limit(
        &self,
        held: &mut Held<'_, impl Before<levels::PfFrags>>,
        fragments: usize,
        seconds: u32,
        ledger: &Ledger,
    ) {
        held.lock(&self.table).0.limit(fragments, u64::from(seconds) * 1_000_000_000);
        self.end_while(held, Why::FragLimit, ledger, Table::shrink);
    }
}

impl<L: Level> Reassembly<L> {
    /// Fragments and datagrams that wait.
    pub fn waiting(&self, held: &mut Held<'_, impl Before<L>>) -> (usize, usize) {
        held.lock(&self.table).0.waiting()
    }

    /// Ends everything that waits: the router stops.
    pub fn purge(&self, held: &mut Held<'_, impl Before<L>>, ledger: &Ledger) {
        self.end_while(held, Why::Shutdown, ledger, Table::drain);
    }

    /// Ends what `take` takes out, a datagram at a time, until there is none.
    fn end_while(
        &self,
        held: &mut Held<'_, impl Before<L>>,
        why: Why,
        ledger: &Ledger,
        take: impl Fn(&mut Table, &mut Victims) -> bool,
    ) {
        loop {
            let mut victims = Victims::new(why);
            if !take(&mut held.lock(&self.table).0, &mut victims) {
                return;
            }
            end(&mut victims, ledger);
        }
    }
}

fn end(victims: &mut Victims, ledger: &Ledger) {
    let why = victims.why;
    victims.packets.drain(..).for_each(|m| m.end(why, ledger));
}

/// Stage: fragments to us, to whole datagrams.
pub(crate) fn reass_input(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    cx.stats.count.fragments_received.add(batch.len() as u64);
    batch.sift(|m| {
        input(cx, held, m, out);
        None
    });
}

fn input(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, m: Mbuf, out: &mut Pending) {
    let piece = match piece::describe(&m) {
        Ok(piece) => piece,
        Err(refusal) => {
            return match refusal.tell {
                Some(error) => icmp::error(cx, m, refusal.why, error, out),
                None => cx.end(m, refusal.why),
            };
        }
    };
    if piece.is_atomic() {
        return atomic(cx, m, &piece, out);
    }
    let mut victims = Victims::new(Why::FragLimit);
    let outcome = {
        let jumbos = cx.shared.pool.count(Class::Jumbo) / 8;
        let (mut table, _held) = held.lock(&cx.shared.reass.table);
        table.insert(m, &piece, cx.now, jumbos, &mut victims)
    };
    end(&mut victims, &cx.stats.ledger);
    match outcome {
        Outcome::Waits => {}
        Outcome::Refused(m, why) => cx.end(m, why),
        Outcome::Whole(complete) => whole(cx, &mut victims.whole, complete, out),
    }
}

/// A whole datagram with a fragment header (RFC 6946).
fn atomic(cx: &mut Cx<'_>, m: Mbuf, piece: &Piece, out: &mut Pending) {
    let complete = Complete { headers: piece.headers, announced_at: piece.announced_at, ecn: 0, largest: 0 };
    deliver(cx, m, complete, out);
}

/// Joins a datagram whose fragments are all there.
fn whole(cx: &mut Cx<'_>, chain: &mut Chain, complete: Complete, out: &mut Pending) {
    match chain.coalesce(&cx.shared.pool, &cx.stats.ledger) {
        Ok(m) => {
            cx.stats.count.reassembled.inc();
            deliver(cx, m, complete, out);
        }
        Err(why) => chain.drain().for_each(|m| cx.end(m, why)),
    }
}

/// Sends a whole datagram on.
fn deliver(cx: &mut Cx<'_>, mut m: Mbuf, complete: Complete, out: &mut Pending) {
    let proto = match mend(cx, &mut m, complete) {
        Ok(proto) => proto,
        Err(why) => return cx.end(m, why),
    };
    let opens = hooks::is_for_sas(cx.net, proto.0) || hooks::is_for_natt(cx.net, &m);
    let next = if opens { Stage::EspInput } else { Stage::HostInput };
    out.push(next, m, &cx.stats.ledger);
}

/// Makes the header say that the datagram is whole, and finds the upper layer anew.
fn mend(cx: &Cx<'_>, m: &mut Mbuf, complete: Complete) -> Result<IpProto, Why> {
    if m.hdr().family == 4 {
        mend4(m, complete)?;
    } else {
        mend6(m, complete)?;
    }
    let parsed = parse::parse_ip(m.data()).map_err(|_| Why::FragMalformed)?;
    m.set_l3(0);
    m.set_l4(parsed.l4.into());
    let hash = parsed.hash(m.data(), &cx.shared.seed);
    let h = m.hdr_mut();
    h.proto = parsed.proto.0;
    h.flags.clear(PktFlags::FRAG.with(PktFlags::CSUM_OK).with(PktFlags::PARTIAL));
    if cx.net.hash_flows {
        h.hash = hash.max(1);
    }
    Ok(parsed.proto)
}

/// What the ECN bits of a datagram are, by those of its fragments (a bit for each code point seen): congestion experienced by
/// one is experienced by all; but marked and not capable do not go together.
fn joint_ecn(seen: u8) -> Result<Option<u8>, Why> {
    const NOT_CAPABLE: u8 = 1;
    const EXPERIENCED: u8 = 1 << 3;
    match (seen & EXPERIENCED != 0, seen & NOT_CAPABLE != 0) {
        (true, true) => Err(Why::FragMalformed),
        (true, false) => Ok(Some(3)),
        (false, _) => Ok(None),
    }
}

fn mend4(m: &mut Mbuf, complete: Complete) -> Result<(), Why> {
    let len = u16::try_from(m.len()).map_err(|_| Why::FragTooBig)?;
    let header: &mut [u8; 20] = m.data_mut().first_chunk_mut().ok_or(Why::FragMalformed)?;
    ipv4::set_word(header, 2, len);
    ipv4::set_word(header, 6, 0);
    if let Some(ecn) = joint_ecn(complete.ecn)? {
        let tos = header[1] & !3 | ecn;
        ipv4::set_tos(header, tos);
    }
    Ok(())
}

/// Takes the fragment header out: what stands before it moves up to what stands behind.
fn mend6(m: &mut Mbuf, complete: Complete) -> Result<(), Why> {
    let headers = usize::from(complete.headers);
    let at = headers.checked_sub(FRAGMENT_LEN).ok_or(Why::FragMalformed)?;
    let data = m.data_mut().get_mut(..headers).ok_or(Why::FragMalformed)?;
    let next = data[at];
    *data.get_mut(usize::from(complete.announced_at)).ok_or(Why::FragMalformed)? = next;
    data.copy_within(..at, FRAGMENT_LEN);
    m.trim_front(FRAGMENT_LEN).map_err(|_| Why::FragMalformed)?;
    let payload = m.len().checked_sub(ipv6::HEADER_LEN).ok_or(Why::FragMalformed)?;
    let len = u16::try_from(payload).map_err(|_| Why::FragTooBig)?;
    let header: &mut [u8; 40] = m.data_mut().first_chunk_mut().ok_or(Why::FragMalformed)?;
    ipv6::Packet::new_unchecked(&mut header[..]).set_payload_len(len);
    if let Some(ecn) = joint_ecn(complete.ecn)? {
        let class = ipv6::Packet::new_unchecked(&header[..]).traffic_class();
        ipv6::set_traffic_class(header, class & !3 | ecn);
    }
    Ok(())
}

/// The timer of both tables.
pub(crate) fn expire(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, out: &mut Pending) -> Instant {
    expire_own(cx, held, out).min(gather::expire(cx, held))
}

/// Datagrams to us that are not complete in time end, and their senders are told where the first fragment came.
fn expire_own(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, out: &mut Pending) -> Instant {
    for _ in 0..EXPIRE {
        let mut victims = Victims::new(Why::FragTimeout);
        let found = {
            let (mut table, _held) = held.lock(&cx.shared.reass.table);
            table.expire(cx.now, &mut victims)
        };
        let has_front = match found {
            Ok(has_front) => has_front,
            Err(next) => return next.min(cx.now.after(LATEST)).max(cx.now.after(SOONEST)),
        };
        let mut packets = victims.packets.into_iter();
        if has_front && let Some(front) = packets.next() {
            icmp::error(cx, front, Why::FragTimeout, Error::ReassemblyTimeout, out);
        }
        packets.for_each(|m| cx.end(m, Why::FragTimeout));
    }
    cx.now.after(SOONEST)
}

#[cfg(test)]
mod tests;
