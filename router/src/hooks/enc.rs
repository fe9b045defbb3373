//! The tap `enc0`: each packet that an SA is about to seal, and each that has come out of one, before policies and pf have a say.

use crate::{
    capture::{Seen, Tap, enc},
    worker::Cx,
};
use ipsec::sa::{Sa, SaIndex};
use kern::{Batch, Mbuf};

/// Shows packets that are about to go into an SA.
#[inline(always)]
pub(super) fn before_seal(cx: &mut Cx<'_>, sa: &Sa, run: &Batch) {
    if cx.local.captures.look_at(Tap::Enc) {
        run.iter().for_each(|m| copy(cx, sa, m, false));
        cx.local.captures.show(Tap::Enc);
    }
}

/// Shows packets that have come out of SAs.
#[inline(always)]
pub(super) fn opened(cx: &mut Cx<'_>, run: &Batch) {
    if cx.local.captures.look_at(Tap::Enc) {
        for m in run {
            if let Some(sa) = SaIndex::from_header(m.hdr().sa).and_then(|index| cx.net.sad.get(index)) {
                copy(cx, sa, m, true);
            }
        }
        cx.local.captures.show(Tap::Enc);
    }
}

#[cold]
fn copy(cx: &mut Cx<'_>, sa: &Sa, m: &Mbuf, inbound: bool) {
    let header = enc::header(m.hdr().family, sa.config());
    let seen = Seen { at: cx.now, inbound, header: &header, packet: m.data() };
    cx.local.captures.copy(Tap::Enc, &seen);
}
