//! What runs of packets share on their way into SAs and out of them: their order, and what waits behind it.

use super::{esp_input, esp_output, natt};
use crate::worker::{Cx, Pending, Stage};
use ipsec::{
    esp::LoopTurn,
    order,
    sa::{Protocol, SaIndex},
};
use kern::{
    Batch, Mbuf, Owner, Why,
    lock::{Held, levels::Top},
};

fn worker(cx: &Cx<'_>) -> order::Worker {
    order::Worker(cx.me as u16)
}

/// What an SA needs to know of the turn of the loop in which a run goes through it.
pub(super) fn loop_turn<'t>(cx: &'t mut Cx<'_>) -> LoopTurn<'t> {
    LoopTurn { worker: worker(cx), now: cx.now, releasing: &mut cx.local.releasing }
}

/// Brings packets of one SA together: order matters within an SA only, and a run is of one SA. Says whether all are of one.
#[inline(always)]
pub(super) fn gather(cx: &mut Cx<'_>, batch: &mut Box<Batch>, sa: impl FnMut(&mut Mbuf) -> u32) -> bool {
    let mut spare = cx.local.run.take().unwrap_or_default();
    let alone = batch.gather(&mut spare, sa);
    cx.local.run = Some(spare);
    alone
}

/// Too many runs of an SA are out on other workers: its packets stay, ahead of the rest.
#[cold]
pub(super) fn keep(cx: &Cx<'_>, batch: &mut Box<Batch>, run: &mut Box<Batch>) {
    batch.move_to(run);
    cx.stats.ledger.end_all(batch, Why::PendingFull);
    std::mem::swap(batch, run);
}

/// What ESP let go has been written: sends on what waited for that.
#[inline]
pub(super) fn written_output(cx: &mut Cx<'_>, spare: &mut Box<Batch>, out: &mut Pending) {
    let room = out.room(Stage::IpOutput);
    if cx.local.releasing.written_output(|sa| cx.net.sad.get(sa), spare, room) {
        esp_output::send_sealed(cx, 0, 0, spare, out);
    }
}

/// The loop has written everything it had: what waited behind it may follow.
#[inline]
pub(crate) fn esp_written(cx: &mut Cx<'_>, top: &mut Held<'_, Top>, out: &mut Pending) {
    natt::tell_moves(cx);
    if cx.local.releasing.is_empty() {
        return;
    }
    let (_softnet, mut held) = cx.shared.locks.enter_softnet(top);
    let mut run = cx.local.run.take().unwrap_or_default();
    // A stage between here and the device may wait for something: then nothing has been written yet.
    if out.at(Stage::IpOutput).is_empty() && out.at(Stage::EtherOutput).is_empty() {
        written_output(cx, &mut run, out);
    }
    cx.local.releasing.keep(|sa| cx.net.sad.get(sa));
    let (ledger, me, now) = (&cx.stats.ledger, worker(cx), cx.now);
    cx.local.releasing.written_input(me, now, &mut run, &mut held, |m, why| ledger.end(m, why));
    run.set_owner(Owner::Worker);
    for m in run.iter() {
        let sa = SaIndex::from_header(m.hdr().sa).and_then(|i| cx.net.sad.get(i));
        let protocol = sa.map_or(Protocol::Esp, |sa| sa.config().protocol);
        cx.stats.count.opened(protocol, 1, m.len() as u64);
    }
    esp_input::take_opened(cx, &mut run, false, out);
    cx.local.run = Some(run);
    natt::tell_moves(cx);
}
