//! States: what pf remembers of flows, so that the rules need not be asked again.
//!
//! The table is shared by all workers. A packet's row is read ahead, without its lock, and guesses its state; that the
//! state is live and the packet's is seen under the state's own lock, which is all that a hit takes. Only where the guess
//! was wrong is the row locked, to find the state or to know that there is none. A new state is put in *pending*, key by key, and goes live when all are in; a collision undoes what
//! was done. Never are two rows held at once.
//!
//! ```text
//!        put first key        put second key         go live
//!   Free ────────────▶ Pending ────────────▶ Pending ───────▶ Live ──▶ Dead ──▶ Free
//!                         │    a collision      │                expired, closed, flushed
//!                         └──────────┴──────────┴──▶ Dead
//! ```
//!
//! A state has a wire key and a stack key; they are the same without translation, and then stored once. It refers to its
//! rule by slot. Expiry is found by `PfCx::purge`, a few slots at a time, over the whole table once per
//! `set timeout interval`.

pub(crate) mod cookie;
pub(crate) mod endpoints;
pub(crate) mod entry;
mod icmp;
pub mod info;
pub(crate) mod insert;
pub(crate) mod key;
pub(crate) mod multihome;
mod other;
pub(crate) mod proxy;
mod purge;
pub(crate) mod sctp;
mod table;
pub(crate) mod tcp;
pub(crate) mod timestamps;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use arrayvec::ArrayVec;
use kern::{
    Why,
    lock::{Held, levels::PfRules},
    time::Instant,
};
use wire::IpProto;

use crate::{
    IfIndex,
    intern::Interned,
    limiter::Limiters,
    nat::mapping::{Choices, Mappings},
    packet::{Packet, icmp_query},
    rule::Direction,
    slab::{RuleSlab, RuleSlot, Slot},
    timeout::{SharedTimeouts, Timeout, Timeouts, adapted},
    track::SrcNodes,
};
use cookie::Cookies;
use endpoints::Endpoints;
use entry::{Phase, State, flag};
use key::{Hash, Key, Seed};
use table::{Node, Table};
use tcp::Fit;
use timestamps::{Restamp, Situation, Stamped};

/// Source nodes at most, unless `set limit src-nodes` says.
const LIMIT_SOURCES: u32 = 10_000;
/// Free slots that a worker keeps for itself.
const CACHED: usize = 64;

/// The state table.
#[derive(Debug)]
pub struct States {
    table: Table,
    seed: Seed,
    slab: Arc<RuleSlab>,
    timeouts: SharedTimeouts,
    limit: AtomicU32,
    workers: u32,
    count: Count,
    nodes: SrcNodes,
    pub(crate) limiters: Limiters,
    pub(crate) mappings: Mappings,
    /// What initial sequence numbers are drawn with.
    secret: RandomState,
    drawn: AtomicU64,
    /// Whose the states are (BSD: `hostid`): that of now, by number, and all there have been.
    creator: AtomicU32,
    creators: Interned<u32>,
    purge: purge::Pace,
    pub(crate) cookies: Cookies,
    pub(crate) endpoints: Endpoints,
}

/// How many states there are: in a line of its own, written when states come and go.
#[derive(Debug)]
#[repr(align(128))]
struct Count(AtomicU32);

/// Free slots of one worker.
#[derive(Debug)]
pub struct SlotCache {
    states: Arc<States>,
    slots: ArrayVec<u32, CACHED>,
    /// Segments that pf wants sent.
    pub(crate) outbox: Vec<proxy::Segment>,
}

impl Drop for SlotCache {
    fn drop(&mut self) {
        self.states.table.give_free(self.slots.drain(..));
    }
}

/// A key and where to look for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lookup {
    key: Key,
    hash: Hash,
    kind: LookFor,
    /// TCP sequence number, or SCTP verification tag, of a quoted packet.
    seq: u32,
    /// Which it will be, as the row said without its lock.
    guess: Node,
}

/// Whose state is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LookFor {
    /// The packet is of a kind that has none.
    Nothing,
    /// The packet's own.
    Packet,
    /// That of the packet which an ICMP error quotes.
    Quoted,
}

/// What a state says of its packet.
///
/// Filled in place, as [`Lookup`] and [`Packet`] are: a copy of what has just been written in pieces stalls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    pub(crate) slot: u32,
    node: Node,
    pub(crate) generation: u32,
    pub(crate) rule: RuleSlot,
    pub(crate) tag: u16,
    pub(crate) queue: u16,
    pub(crate) low_delay_queue: u16,
    pub(crate) allow_opts: bool,
    /// The packet is to be translated, to what `key` says.
    pub(crate) translates: bool,
    pub(crate) key: Key,
    /// The rule that translates.
    pub(crate) nat: RuleSlot,
    /// The call in the main ruleset that led to its rule.
    pub(crate) anchor: RuleSlot,
    /// Sequence numbers are to be rewritten: what is added to the sender's, and taken off its acknowledgements.
    pub(crate) modulates: bool,
    pub(crate) diffs: (u32, u32),
    /// Number of what its packets get besides; 0 is nothing.
    pub(crate) treatment: u32,
    /// The packet goes the way of the first.
    pub(crate) forward: bool,
    /// What becomes of its timestamps.
    pub(crate) restamp: Restamp,
}

impl Hit {
    pub(crate) const NONE: Hit = Hit {
        slot: 0,
        node: Node::NONE,
        generation: 0,
        rule: RuleSlot::NONE,
        tag: 0,
        queue: 0,
        low_delay_queue: 0,
        allow_opts: false,
        translates: false,
        key: Key::EMPTY,
        nat: RuleSlot::NONE,
        anchor: RuleSlot::NONE,
        modulates: false,
        diffs: (0, 0),
        treatment: 0,
        forward: true,
        restamp: Restamp::NONE,
    };

    /// Whether the packet is to be changed.
    #[inline(always)]
    pub(crate) fn rewrites(&self) -> bool {
        self.translates || self.modulates || self.restamp.is_some()
    }
}

/// What the table says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracked {
    /// No state: the rules decide.
    None,
    /// It belongs to a state, and the hit is filled in.
    Hit,
    /// It belongs to a state and does not fit it.
    Mismatch,
    /// Its timestamps are not of its connection.
    BadTimestamp,
    /// It does not fit its state, and it answers a SYN: its sender is to be told.
    Reset,
    /// The same, and the state's class has changed: the purge may have to look earlier.
    Changed,
    /// A hit that says something of the further paths of its SCTP association.
    Related,
    /// The router has answered it in the other end's place, if it was worth an answer.
    Proxied,
    /// The same, and both handshakes are complete with it.
    Joined,
    /// It completes a handshake, and its source has more connections than its rule allows: the state has ended.
    Overloads,
    /// It belonged to a state that both ends had closed, and opens a new one: the rules decide. The hit says which slot
    /// is to be freed. So many states have ended: that one, and those of further paths of its association.
    Ended(u32),
}

/// A packet at an interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passing<'a> {
    pub(crate) direction: Direction,
    pub(crate) index: IfIndex,
    pub(crate) p: &'a Packet,
    /// From its IP header on.
    pub(crate) data: &'a [u8],
    /// Seconds of the clock.
    pub(crate) now: u32,
    /// The clock, for what is metered.
    pub(crate) at: Instant,
}

impl Lookup {
    pub(crate) const NOTHING: Lookup =
        Lookup { key: Key::EMPTY, hash: Hash::NONE, kind: LookFor::Nothing, seq: 0, guess: Node::NONE };

    /// Whether the packet is an error about one of the state's packets.
    #[inline(always)]
    pub(crate) fn is_error(&self) -> bool {
        self.kind == LookFor::Quoted
    }

    /// Whether there can be a state at all.
    #[inline(always)]
    pub(crate) fn is_something(&self) -> bool {
        self.kind != LookFor::Nothing
    }

    /// Whether this packet may be the first of a state: no ICMP error, and no answer to a question not seen.
    pub(crate) fn opens_state(&self, p: &Packet) -> bool {
        self.kind == LookFor::Packet
            && (!matches!(IpProto(p.proto), IpProto::ICMP | IpProto::ICMPV6)
                || icmp_query(p.family, p.icmp) == Some(true))
    }
}

impl States {
    /// A table for `limit` states.
    pub(crate) fn new(workers: usize, limit: u32, slab: Arc<RuleSlab>) -> States {
        let mut timeouts = Timeouts::default();
        timeouts.adapt(limit);
        let states = States {
            table: Table::new(limit),
            seed: Seed::random(),
            slab,
            timeouts: SharedTimeouts::new(&timeouts),
            limit: AtomicU32::new(0),
            workers: workers.max(1) as u32,
            count: Count(AtomicU32::new(0)),
            nodes: SrcNodes::new(LIMIT_SOURCES),
            limiters: Limiters::new(workers.max(1)),
            mappings: Mappings::default(),
            secret: RandomState::new(),
            drawn: AtomicU64::new(0),
            creator: AtomicU32::new(0),
            creators: Interned::new(),
            purge: purge::Pace::default(),
            cookies: Cookies::new(),
            endpoints: Endpoints::new(),
        };
        states.set_creator((RandomState::new().hash_one(0) as u32).max(1));
        states.set_limit(limit);
        states
    }

    /// Sets the number of states at most; a higher one takes more memory, a lower one removes none.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.table.grow(limit.saturating_add(self.workers * CACHED as u32));
        self.limit.store(limit, Relaxed);
    }

    /// Sets the timeouts, for states there are too.
    pub(crate) fn set_timeouts(&self, timeouts: &Timeouts) {
        self.timeouts.store(timeouts);
    }

    /// How many states there are.
    #[inline(always)]
    pub fn count(&self) -> u32 {
        self.count.0.load(Relaxed)
    }

    /// How many states there are rows for: rather more than the limit the table was made with. More are found, too, but
    /// not as fast.
    pub fn rows(&self) -> u32 {
        self.table.rows()
    }

    /// The number of who makes states: what `set hostid` says, before that one drawn when the process started.
    pub fn creator(&self) -> u32 {
        self.creators.get(self.creator.load(Relaxed)).copied().unwrap_or(0)
    }

    /// Sets it, for states that are made from now on.
    pub(crate) fn set_creator(&self, id: u32) {
        // A process that has had thousands of them stays with the last.
        if let Some(number) = self.creators.number(id) {
            self.creator.store(number, Relaxed);
        }
    }

    /// Makes room for mappings: one for every state there may be, and one for every worker that is about to make a state, the
    /// control thread being one more.
    pub(crate) fn keep_mappings(&self) {
        self.mappings.open(self.limit().saturating_add(self.workers + 1));
    }

    /// Gives back the mapping that a source was chosen by and that no state has got.
    #[inline(always)]
    pub(crate) fn let_go(&self, held: &mut Held<'_, PfRules>, choices: &mut Choices) {
        if let Some((mapping, _)) = &choices.mapped {
            self.mappings.leave(held, mapping);
            choices.mapped = None;
        }
    }

    /// How many there may be.
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    pub(crate) fn cache(self: &Arc<Self>) -> SlotCache {
        SlotCache {
            states: Arc::clone(self),
            slots: ArrayVec::new(),
            outbox: Vec::with_capacity(proxy::OUTBOX),
        }
    }

    /// Says in `lookup` what to look for, if packets of this kind have states; `data` begin at the IP header. `before` is
    /// the slot of the state that the packet belonged to at the hook it has come through, if it did.
    #[inline(always)]
    pub(crate) fn lookup(
        &self,
        direction: Direction,
        p: &Packet,
        data: &[u8],
        before: Option<u32>,
        lookup: &mut Lookup,
    ) -> Result<(), Why> {
        (lookup.kind, lookup.guess) = (LookFor::Nothing, Node::NONE);
        if p.fragment {
            return Ok(());
        }
        if matches!(IpProto(p.proto), IpProto::ICMP | IpProto::ICMPV6)
            && icmp_query(p.family, p.icmp).is_none()
        {
            let Some((key, seq)) = icmp::quoted(direction, p, data)? else { return Ok(()) };
            (lookup.key, lookup.seq, lookup.kind) = (key, seq, LookFor::Quoted);
        } else {
            lookup.key.fill(direction, p);
            lookup.kind = LookFor::Packet;
        }
        // An insertion hashes for itself: without states there is nothing to find, and most packets insert nothing.
        if self.count() != 0 {
            lookup.guess = before.map_or(Node::NONE, |slot| self.table.twin(slot));
            if lookup.guess == Node::NONE {
                lookup.hash = self.seed.hash(&lookup.key);
            }
        }
        Ok(())
    }

    /// First of two passes ahead of [`Self::track`]: the row, or the state that is the twin of the one before.
    #[inline(always)]
    pub(crate) fn prefetch(&self, lookup: &Lookup) {
        if lookup.guess == Node::NONE {
            self.table.prefetch_row(lookup.hash);
        } else {
            self.table.prefetch_slot(lookup.guess);
        }
    }

    /// Second of two passes: the state, once the row is near.
    #[inline(always)]
    pub(crate) fn guess(&self, lookup: &mut Lookup) {
        if lookup.guess == Node::NONE {
            lookup.guess = self.table.guess(lookup.hash);
        }
    }

    /// A packet of the state in slot `before` belongs to the one of `hit` at this hook: the next one is looked for there
    /// at once.
    #[inline(always)]
    pub(crate) fn set_twin(&self, before: u32, hit: &Hit) {
        self.table.set_twin(before, hit.node);
    }

    /// Asks for the state that a packet of this hit has at the next hook.
    #[inline(always)]
    pub(crate) fn prefetch_twin(&self, hit: &Hit) {
        self.table.prefetch_slot(self.table.twin(hit.slot));
    }

    /// Finds the live state of a key and runs `f` under its lock alone.
    #[inline(always)]
    fn find<R>(
        &self,
        held: &mut Held<'_, PfRules>,
        lookup: &Lookup,
        direction: Direction,
        index: IfIndex,
        f: impl FnOnce(Node, &mut State) -> R,
    ) -> Option<R> {
        let mut node = lookup.guess;
        loop {
            if let Some(slot) = self.table.slot(node.slot()) {
                let (mut state, _held) = held.lock(&slot.state);
                if state.is_found(node, &lookup.key, direction, index) {
                    return Some(f(node, &mut state));
                }
            }
            // It may be gone again before it is locked: then the row is asked again.
            node = self.find_in_row(held, lookup, direction, index)?;
        }
    }

    /// Finds the node of the live state of a key, by its row.
    #[cold]
    fn find_in_row(
        &self,
        held: &mut Held<'_, PfRules>,
        lookup: &Lookup,
        direction: Direction,
        index: IfIndex,
    ) -> Option<Node> {
        // Anew: the twin has spared the hash; or a packet before this one in its batch has made the first state there is.
        let hash = self.seed.hash(&lookup.key);
        let row = self.table.row(hash);
        let (overflow, mut held) = held.lock(&row.lock);
        self.table.candidates(row, *overflow, hash.tag).find(|&node| {
            self.table.slot(node.slot()).is_some_and(|slot| {
                let (state, _held) = held.lock(&slot.state);
                state.is_found(node, &lookup.key, direction, index)
            })
        })
    }

    /// Whether a state that is not dead has this key, on whichever side.
    pub(crate) fn has_key(&self, held: &mut Held<'_, PfRules>, key: &Key) -> bool {
        let hash = self.seed.hash(key);
        let row = self.table.row(hash);
        let (overflow, mut held) = held.lock(&row.lock);
        for node in self.table.candidates(row, *overflow, hash.tag) {
            let Some(slot) = self.table.slot(node.slot()) else { continue };
            let (state, _held) = held.lock(&slot.state);
            let its = if node.is_stack() { &state.stack } else { &state.wire };
            if matches!(state.phase, Phase::Pending | Phase::Live) && its == key {
                return true;
            }
        }
        false
    }

    /// What the packet was before the state of `hint` translated it on its way out, if that is what happened to it.
    #[cold]
    pub(crate) fn before_translation(
        &self,
        held: &mut Held<'_, PfRules>,
        hint: (u32, u32),
        p: &Packet,
    ) -> Option<Key> {
        let place = self.table.slot(hint.0)?;
        let (state, _held) = held.lock(&place.state);
        let key = p.key(Direction::Out);
        let is_it = state.phase == Phase::Live && state.generation == hint.1 && state.has(flag::TWO_KEYS);
        if !is_it {
            return None;
        }
        // An answer that has changed its family has the key that the question came with.
        let from_wire = state.wire == key;
        let from_stack = state.has(flag::TWO_FAMILIES) && state.stack == key;
        from_wire.then_some(state.stack).or(from_stack.then_some(state.wire))
    }

    /// Finds the state of a packet and tracks the packet in it.
    #[inline]
    pub(crate) fn track(
        &self,
        held: &mut Held<'_, PfRules>,
        cache: &mut SlotCache,
        lookup: &Lookup,
        passing: &Passing,
        hit: &mut Hit,
    ) -> Tracked {
        let outbox = &mut cache.outbox;
        let tracked = self.find(held, lookup, passing.direction, passing.index, |node, state| {
            state.fill(node, hit);
            let slot = node.slot();
            let turned = Passing { direction: state.way(passing.direction, passing.p.family), ..*passing };
            let mut stamped = None;
            if state.flags & flag::LOOKED_AT != 0 && lookup.kind == LookFor::Packet {
                if state.has(flag::METERED) && !self.meters(state, &turned) {
                    return Tracked::None;
                }
                stamped = state.has(flag::STAMPED).then(|| self.stamped(state, &turned));
            }
            if stamped.as_ref().is_some_and(|stamped| !self.fits(slot, stamped)) {
                return Tracked::BadTimestamp;
            }
            let tracked = match lookup.kind {
                LookFor::Quoted => icmp::belongs(state, turned.direction, passing.p, lookup.seq),
                _ => state.step(&turned, self, outbox),
            };
            if state.flags & flag::REWRITTEN != 0 {
                state.fill_rewriting(turned.direction, hit);
            }
            if let Some(stamped) = stamped
                && matches!(tracked, Tracked::Hit | Tracked::Changed)
            {
                hit.restamp = self.restamp(slot, state, &stamped);
            }
            tracked
        });
        match tracked {
            None => Tracked::None,
            Some(Tracked::Changed) => match self.look_sooner(held, hit, passing.now) {
                Some(state) if !self.connect(held, cache, hit, &state, passing.now) => Tracked::Overloads,
                _ => Tracked::Hit,
            },
            Some(Tracked::Related) => {
                self.look_sooner(held, hit, passing.now);
                Tracked::Related
            }
            Some(Tracked::Joined) => match self.look_sooner(held, hit, passing.now) {
                Some(state) if !self.connect(held, cache, hit, &state, passing.now) => Tracked::Overloads,
                _ => Tracked::Proxied,
            },
            Some(Tracked::Ended(states)) => {
                let kin = self.end_kin(held, cache, hit.slot, passing.direction, passing.index);
                self.unlink(held, cache, hit.slot);
                Tracked::Ended(states + kin)
            }
            Some(tracked) => tracked,
        }
    }

    /// Whether the rate of a state's rule has room for a packet. Only the direction of its first packet is metered: mostly
    /// questions are counted, and answers are not.
    #[cold]
    fn meters(&self, state: &State, passing: &Passing) -> bool {
        let rule = self.slab.slot(RuleSlot(state.rule)).filter(|_| passing.direction == state.direction);
        rule.is_none_or(|rule| rule.meters(passing.at.nanos(), passing.p.segments))
    }

    /// What is to be known of a segment whose timestamps are looked at.
    #[cold]
    fn stamped(&self, state: &State, passing: &Passing) -> (Stamped, Situation) {
        let levels = [state.src.level, state.dst.level];
        let about = Situation {
            from: usize::from(passing.direction != state.direction),
            established: levels.iter().all(|level| *level >= tcp::level::ESTABLISHED),
            now: passing.now,
            age: passing.now.saturating_sub(state.created),
            tolerance: self.seconds(RuleSlot(state.rule), Timeout::TcpTsdiff as u8),
        };
        (Stamped::read(passing.p, passing.data), about)
    }

    fn fits(&self, slot: u32, (segment, about): &(Stamped, Situation)) -> bool {
        self.table.timestamps(slot).is_none_or(|kept| kept.with(|t| t.fits(segment, about)))
    }

    #[cold]
    fn restamp(&self, slot: u32, state: &State, (segment, about): &(Stamped, Situation)) -> Restamp {
        let offset = || self.isn(&state.wire, about.now);
        let kept = self.table.timestamps(slot);
        kept.map_or(Restamp::NONE, |kept| kept.with(|t| t.take(segment, about, offset)))
    }

    /// Makes room for the timestamps of connections, as far as there are slots for them.
    pub(crate) fn keep_timestamps(&self) {
        self.table.keep_timestamps();
    }

    /// The class of a state has changed. Returns the state if its handshake is complete and its source is tracked.
    #[cold]
    fn look_sooner(&self, held: &mut Held<'_, PfRules>, hit: &Hit, now: u32) -> Option<State> {
        let (place, due) = (self.table.slot(hit.slot)?, self.table.due(hit.slot)?);
        let (mut state, _held) = held.lock(&place.state);
        // Another worker may have ended it meanwhile, and a slot that is not in use must stay `NEVER`.
        if state.phase == Phase::Live && state.generation == hit.generation {
            due.fetch_min(now.saturating_add(self.seconds(hit.rule, state.class)), Relaxed);
            if state.has(flag::HALF_OPEN) && !is_half_open(state.class) {
                state.flags &= !flag::HALF_OPEN;
                self.cookies.closed();
            }
            let is_new = state.has(flag::TRACKED | flag::TRACKED_GLOBALLY)
                && !state.has(flag::CONNECTED)
                && state.class == Timeout::TcpEstablished as u8;
            if is_new {
                state.flags |= flag::CONNECTED;
                return Some(state.clone());
            }
        }
        None
    }

    /// Counts a connection at its source. Beyond what the rule allows the source is reported and the state ends.
    #[cold]
    fn connect(
        &self,
        held: &mut Held<'_, PfRules>,
        cache: &mut SlotCache,
        hit: &Hit,
        state: &State,
        now: u32,
    ) -> bool {
        let limits = self.slab.slot(hit.rule).map(Slot::source_limits).unwrap_or_default();
        let mut fits = true;
        for key in state.nodes().filter(|key| !key.sticky) {
            if !self.nodes.connected(held, &key, &limits, now) {
                self.nodes.report(hit.rule, &key);
                fits = false;
            }
        }
        if !fits {
            self.end_if(held, cache, hit.slot, |s| s.generation == hit.generation);
        }
        fits
    }

    /// What is added to the sequence numbers of an end that begins at `seq`; not 0.
    #[cold]
    fn draw_diff(&self, key: &Key, seq: u32) -> u32 {
        self.isn(key, seq).wrapping_sub(seq).max(1)
    }

    /// An initial sequence number that nobody outside can foresee.
    #[cold]
    pub(crate) fn isn(&self, key: &Key, salt: u32) -> u32 {
        let drawn = self.drawn.fetch_add(1, Relaxed);
        self.secret.hash_one((key.addr, key.port, salt, drawn)) as u32
    }

    /// The source nodes.
    pub(crate) fn nodes(&self) -> &SrcNodes {
        &self.nodes
    }

    /// Seconds of a class, by the rule or for all.
    fn seconds(&self, rule: RuleSlot, class: u8) -> u32 {
        let own = self.slab.slot(rule).and_then(|s| s.timeout(usize::from(class)));
        own.unwrap_or_else(|| self.timeouts.of_class(class))
    }

    /// When a state ends if no further packet comes, as things are now.
    fn expiry(&self, state: &State) -> u32 {
        let rule = RuleSlot(state.rule);
        let seconds = self.seconds(rule, state.class);
        let own =
            if state.has(flag::ADAPTIVE) { self.slab.slot(rule).and_then(Slot::adaptive) } else { None };
        let (start, end, states) = own.unwrap_or_else(|| {
            (self.timeouts.get(Timeout::AdaptiveStart), self.timeouts.get(Timeout::AdaptiveEnd), self.count())
        });
        state.last.saturating_add(adapted(seconds, states, start, end))
    }
}

impl State {
    /// The interface it is bound to; 0 is none.
    fn binding(&self) -> u16 {
        if self.has(flag::BOUND) { self.ifindex } else { 0 }
    }

    /// Whether this state, found under `node`, is the one for a key.
    #[inline(always)]
    fn is_found(&self, node: Node, key: &Key, direction: Direction, index: IfIndex) -> bool {
        let its = if node.is_stack() { &self.stack } else { &self.wire };
        let side = !self.has(flag::TWO_KEYS) || self.is_right_side(node.is_stack(), direction);
        self.phase == Phase::Live && its == key && side && (!self.has(flag::BOUND) || self.ifindex == index.0)
    }

    /// Whether packets of a direction are looked for on this side.
    #[inline(always)]
    fn is_right_side(&self, is_stack: bool, direction: Direction) -> bool {
        if self.has(flag::TWO_FAMILIES) {
            direction == Direction::In
        } else {
            is_stack == (direction == Direction::Out)
        }
    }

    /// Says what its packets are to get.
    #[inline(always)]
    fn fill(&self, node: Node, hit: &mut Hit) {
        (hit.slot, hit.node) = (node.slot(), node);
        hit.generation = self.generation;
        hit.rule = RuleSlot(self.rule);
        hit.tag = self.tag;
        hit.queue = self.queue;
        hit.low_delay_queue = self.low_delay_queue;
        hit.allow_opts = self.has(flag::ALLOW_OPTS);
    }

    /// Says what a packet of this direction becomes, once it has been tracked.
    #[cold]
    fn fill_rewriting(&self, direction: Direction, hit: &mut Hit) {
        hit.translates = self.has(flag::TWO_KEYS);
        hit.modulates = self.has(flag::MODULATED);
        hit.diffs = self.diffs(direction);
        hit.nat = RuleSlot(self.nat);
        hit.anchor = RuleSlot(self.anchor);
        hit.treatment = u32::from(self.treatment);
        hit.forward = direction == self.direction;
        hit.key = match direction {
            Direction::In => self.stack,
            Direction::Out => self.wire,
        };
    }

    /// The first segment of an end whose sequence numbers are to be others.
    #[cold]
    fn modulate(&mut self, direction: Direction, p: &Packet, states: &States) {
        let from = usize::from(direction != self.direction);
        let seen = self.peers(direction).0.wscale & entry::PEER_SEEN != 0;
        if !seen && self.diff[from] == 0 && self.diff[from ^ 1] != 0 {
            self.diff[from] = states.draw_diff(&self.wire, p.tcp.seq);
        }
    }

    /// Tracks a packet of this state.
    #[inline(always)]
    fn step(&mut self, passing: &Passing, states: &States, outbox: &mut Vec<proxy::Segment>) -> Tracked {
        let Passing { direction, p, data, now, .. } = *passing;
        let class = self.class;
        match IpProto(p.proto) {
            IpProto::TCP => {
                if tcp::reopens(self, p) {
                    self.phase = Phase::Dead;
                    return Tracked::Ended(1);
                }
                if self.src.level >= tcp::level::PROXY_SRC {
                    return self.proxy(direction, p, states, outbox);
                }
                if self.has(flag::MODULATED) {
                    self.modulate(direction, p, states);
                }
                match tcp::track(self, direction, p, data) {
                    Fit::Window => self.last = now,
                    Fit::Loose => {}
                    Fit::Mismatch => return Tracked::Mismatch,
                    Fit::Reset => return Tracked::Reset,
                }
            }
            IpProto::ICMP | IpProto::ICMPV6
                if icmp_query(p.family, p.icmp) != Some(direction == self.direction) =>
            {
                return Tracked::None;
            }
            IpProto::SCTP => match sctp::track(self, direction, p, data) {
                sctp::Fit::Member => self.last = now,
                sctp::Fit::Related => {
                    self.last = now;
                    self.count(direction, p.segments, p.bytes);
                    return Tracked::Related;
                }
                sctp::Fit::Mismatch => return Tracked::Mismatch,
                sctp::Fit::Reopens => {
                    self.phase = Phase::Dead;
                    return Tracked::Ended(1);
                }
            },
            _ => {
                other::track(self, direction, p);
                self.last = now;
            }
        }
        self.count(direction, p.segments, p.bytes);
        if self.class == class { Tracked::Hit } else { Tracked::Changed }
    }
}

/// Whether a state of this class has a handshake that is not complete.
const fn is_half_open(class: u8) -> bool {
    class == Timeout::TcpFirst as u8 || class == Timeout::TcpOpening as u8
}

#[cfg(test)]
mod tests;
