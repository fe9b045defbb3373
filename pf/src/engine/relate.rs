//! Further paths of SCTP associations (FreeBSD: `pf_sctp_multihome_delayed`).
//!
//! A packet that names addresses of its sender has been passed: for each of them, and each address of the receiver, the rules
//! are asked whether the same packet would pass from there, unless the rule of the association says `allow-related`. What
//! passes gets a state.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use kern::Mbuf;
use wire::sctp::{self, Named, kind};

use super::{PfCx, Seen, by_rules::Judged, walk::Walk};
use crate::{
    IfIndex,
    counters::NOBODY,
    eval::evaluate,
    packet::Packet,
    rule::{Action, Direction},
    state::{
        Hit,
        endpoints::{ADDRESSES, Addresses, paths},
        insert::Made,
        multihome::{Association, Kin, on_path},
    },
};

/// What one packet says of addresses, as far as it is followed.
type Changes = ArrayVec<Named, { 2 * ADDRESSES }>;

impl<'a> PfCx<'a> {
    /// Follows what a packet that has been passed says of the paths of its association.
    #[cold]
    pub(super) fn relate(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        p: &Packet,
        hit: &Hit,
    ) {
        let mut changes = Changes::new();
        let Some(octets) = m.data().get(usize::from(p.l4)..p.bytes as usize) else { return };
        let Ok(scan) = sctp::scan(octets) else { return };
        let Ok(packet) = sctp::Packet::new_checked(octets) else { return };
        for chunk in packet.chunks().flatten() {
            let _ = chunk.addresses(|named| {
                // The same again would be work for nothing.
                if !changes.contains(&named) {
                    let _ = changes.try_push(named);
                }
            });
        }
        let states = &self.pf.states;
        let Some(of) = states.association(&mut self.held, hit, direction, p, scan.names) else { return };
        if let Some(counters) = self.counters().filter(|_| of.is_full) {
            counters.endpoint_limit.inc();
        }
        let (src, dst) = (p.family.address(p.src), p.family.address(p.dst));
        let alone = |address| Addresses::from_iter([address]);
        let (senders, receivers) = if of.translates() {
            (alone(src), alone(dst))
        } else {
            (states.endpoints.of(of.sender, src), states.endpoints.of(of.receiver, dst))
        };
        let over = scan.kinds.has(kind::ABORT) || scan.kinds.has(kind::SHUTDOWN_COMPLETE);
        let what = if over { Kin::Closes } else { Kin::Learns };
        for (from, to) in paths(&senders, &receivers).skip(1) {
            self.kin(index, p, &of, (from, to), what);
        }
        for change in changes {
            match change {
                Named::Added(new) if !new.is_unspecified() && new != src => {
                    self.add_path(index, m, p, &of, new, &receivers);
                }
                Named::Added(_) => {}
                Named::Deleted(gone) => {
                    let all = gone.is_unspecified();
                    for gone in senders.iter().filter(|a| **a != src && (all || **a == gone)) {
                        states.endpoints.remove(of.sender, *gone);
                        for to in &receivers {
                            self.kin(index, p, &of, (*gone, *to), Kin::Leaves);
                        }
                    }
                }
            }
        }
    }

    fn kin(
        &mut self,
        index: IfIndex,
        p: &Packet,
        of: &Association,
        (from, to): (IpAddr, IpAddr),
        what: Kin,
    ) -> bool {
        let Some(q) = on_path(p, from, to) else { return false };
        let (key, now) = (q.key(of.direction()), self.now.secs() as u32);
        self.pf.states.kin(&mut self.held, of, key, index, now, what)
    }

    /// The sender has another address: each path from there that may be gets a state.
    fn add_path(
        &mut self,
        index: IfIndex,
        m: &mut Mbuf,
        p: &Packet,
        of: &Association,
        new: IpAddr,
        receivers: &Addresses,
    ) {
        for to in receivers {
            let Some(q) = on_path(p, new, *to) else { continue };
            let known = self.kin(index, p, of, (new, *to), Kin::Learns);
            if !known && !self.open_path(index, m, of, &q) {
                continue;
            }
            if !of.translates() {
                self.pf.states.endpoints.add(of.sender, new);
            }
        }
    }

    fn open_path(&mut self, index: IfIndex, m: &mut Mbuf, of: &Association, q: &Packet) -> bool {
        let states = &self.pf.states;
        if !of.allows() {
            let Some(hit) = self.open_by_rules(of.direction(), index, m, q) else { return false };
            states.adopt(&mut self.held, of, &hit);
            return true;
        }
        let now = self.now.secs() as u32;
        let slots = &mut self.worker.slots;
        let Some(hit) = states.insert_related(&mut self.held, slots, of, q.key(of.direction()), now) else {
            return false;
        };
        self.count_made([hit.rule, hit.nat, hit.anchor]);
        true
    }

    /// Makes the state of a packet that was not sent, if the rules would pass it and keep state. `m` is left as it is.
    ///
    /// The rules are asked all that they would be asked for a packet (FreeBSD: `pf_test_rule`), but there is none: they
    /// count and log nothing, and `max-pkt-rate` is not used up. The state is one as any other: it counts for its rule, its
    /// source and its limiters, and it spends `once`. Where no state comes to be nothing is spent.
    fn open_by_rules(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        q: &Packet,
    ) -> Option<Hit> {
        let rules = self.rules;
        let mut seen = Seen { p: *q, ..Seen::NOTHING };
        self.pf.states.lookup(direction, q, m.data(), None, &mut seen.lookup).ok()?;
        let mut p = *q;
        let mut translated = None;
        if !rules.main.translation.is_empty(direction) {
            translated = self.translate(direction, index, m, &mut p, NOBODY).ok()?;
        }
        let mut walk = self.asking(direction, index, m, q);
        let outcome = evaluate(rules, NOBODY, direction, index, &mut p, &mut walk).ok()?;
        let mut by = walk.by.or(translated);
        let rule = outcome.rule.filter(|rule| rule.action == Action::Pass && rule.keep.is_some())?;
        if outcome.full.is_some() {
            return None;
        }
        if !rule.translates.is_empty() {
            let mut walk = self.asking(direction, index, m, q);
            walk.translate(rule, &mut p).ok()?;
            by = walk.by;
        }
        let mut treatment = outcome.treated_by(rule);
        self.complete(&mut treatment, rule, q).ok()?;
        if p.family != q.family || !self.takes(rule, true, q) {
            return None;
        }
        let judged = Judged { seen: &seen, p: &p, rule, outcome, by, floats: true };
        let made = self.make_state(direction, index, m.data(), &judged, p.key(direction), treatment);
        self.give_back(q);
        if let Ok(Made::Live(hit)) = made {
            return Some(hit);
        }
        // A state that is there already is another association's, and none of this one's business.
        if let Some(once) = &rule.once {
            once.unspend();
        }
        None
    }

    /// A walk for a packet that was not sent.
    fn asking<'w>(
        &'w mut self,
        direction: Direction,
        index: IfIndex,
        m: &'w Mbuf,
        q: &Packet,
    ) -> Walk<'w, 'a, 'a> {
        let mut walk = self.walk(direction, index, true, m, q);
        walk.counts = walk.counts.asking();
        walk
    }
}
