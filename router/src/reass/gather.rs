//! Fragments that pf is to see whole (pf.conf(5): `scrub`, `set reassemble`), ahead of pf on the way in.
//!
//! A datagram that is whole stands in the batch where its last fragment stood. It remembers how large its largest fragment
//! was, and `ip_output` makes fragments of it that are no larger: whoever chose that size knew why. Nobody is told of a
//! fragment that is refused or of a datagram that does not become whole, as in pf.

use super::{Complete, EXPIRE, LATEST, Outcome, SOONEST, Victims, end, mend, piece};
use crate::worker::Cx;
use kern::{
    Batch, Class, Mbuf, PktFlags, Why,
    lock::{Held, levels::Softnet},
    time::Instant,
};

/// Takes fragments out of a batch and puts whole datagrams in. `wanted` says whether pf is to see the datagram of a
/// fragment whole, and whether don't-fragment on it is forgiven.
pub(crate) fn gather(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Batch,
    wanted: impl Fn(&Mbuf) -> Option<bool>,
) {
    batch.sift(|m| {
        if !m.hdr().flags.has(PktFlags::FRAG) {
            return Some(m);
        }
        match wanted(&m) {
            None => Some(m),
            Some(forgiven) if m.hdr().family == 4 && m.hdr().flags.has(PktFlags::DF) && !forgiven => {
                cx.end(m, Why::FragMalformed);
                None
            }
            Some(_) => fragment(cx, held, m),
        }
    });
}

/// A fragment comes; the datagram, if it is whole now.
fn fragment(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, mut m: Mbuf) -> Option<Mbuf> {
    cx.stats.count.pf_fragments.inc();
    let piece = match piece::describe(&m) {
        Ok(piece) => piece,
        Err(refusal) => {
            cx.end(m, refusal.why);
            return None;
        }
    };
    if piece.is_atomic() {
        // A whole datagram with a fragment header (RFC 6946): the header is of no use to anybody.
        let complete =
            Complete { headers: piece.headers, announced_at: piece.announced_at, ecn: 0, largest: 0 };
        return mended(cx, m, complete);
    }
    let mut victims = Victims::new(Why::FragLimit);
    let outcome = {
        let jumbos = cx.shared.pool.count(Class::Jumbo) / 8;
        let (mut table, _held) = held.lock(&cx.shared.pf_frags.table);
        m.hdr_mut().flags.clear(PktFlags::CSUM_OK);
        table.insert(m, &piece, cx.now, jumbos, &mut victims)
    };
    end(&mut victims, &cx.stats.ledger);
    match outcome {
        Outcome::Waits => None,
        Outcome::Refused(m, why) => {
            cx.end(m, why);
            None
        }
        Outcome::Whole(complete) => match victims.whole.coalesce(&cx.shared.pool, &cx.stats.ledger) {
            Ok(m) => {
                cx.stats.count.pf_reassembled.inc();
                mended(cx, m, complete)
            }
            Err(why) => {
                victims.whole.drain().for_each(|m| cx.end(m, why));
                None
            }
        },
    }
}

fn mended(cx: &Cx<'_>, mut m: Mbuf, complete: Complete) -> Option<Mbuf> {
    if let Err(why) = mend(cx, &mut m, complete) {
        cx.end(m, why);
        return None;
    }
    let h = m.hdr_mut();
    if h.family == 4 {
        h.flags.clear(PktFlags::DF);
    }
    if complete.largest != 0 {
        h.flags.set(PktFlags::REFRAG);
        h.gso_size = complete.largest;
    }
    Some(m)
}

/// The timer: datagrams that are not whole in time end.
pub(crate) fn expire(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>) -> Instant {
    for _ in 0..EXPIRE {
        let mut victims = Victims::new(Why::FragTimeout);
        let found = {
            let (mut table, _held) = held.lock(&cx.shared.pf_frags.table);
            table.expire(cx.now, &mut victims)
        };
        end(&mut victims, &cx.stats.ledger);
        if let Err(next) = found {
            return next.min(cx.now.after(LATEST)).max(cx.now.after(SOONEST));
        }
    }
    cx.now.after(SOONEST)
}
