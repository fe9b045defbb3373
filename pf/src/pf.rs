//! What lives as long as the process: rule slots, states, counters; and what each worker keeps for itself.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kern::{
    counter::CounterSet,
    lock::{Held, Leaf, levels::PfRules},
};

use crate::{
    addr::{Entry, Prefix},
    anchor::Fresh,
    conf::{Limit, PfConf},
    counters::PfCounters,
    debug::{Debug, Level, Remark},
    engine::{AHEAD, Seen},
    env::Environment,
    ids::Names,
    limiter::{LimiterInfo, Share, TableChange},
    nat::mapping::{Choices, MappingInfo},
    normalise::Ids,
    random::Random,
    ruleset::{CompileError, Ruleset},
    slab::RuleSlab,
    state::{SlotCache, States, info::StateInfo, proxy::Segment},
    table::{TableError, Tables, wall_clock},
    track::{Overloading, SourceInfo},
};

/// What pf keeps as long as the process runs.
#[derive(Debug)]
pub struct Pf {
    pub(crate) slab: Arc<RuleSlab>,
    pub(crate) states: Arc<States>,
    pub(crate) counters: Box<[PfCounters]>,
    tables: Tables,
    pub(crate) debug: Debug,
    /// States removed by the control thread.
    killed: AtomicU64,
    /// Sources that overloaded a rule: put into its table, and their states flushed.
    overloaded: [AtomicU64; 2],
    /// What had been counted when `pfctl -F info` last was said.
    cleared: Leaf<PfCounters>,
}

impl Pf {
    /// A pf for this many workers, whose table of states has rows for so many; a ruleset may allow more.
    pub fn new(workers: usize, limit_states: u32) -> Pf {
        let slab = Arc::new(RuleSlab::new(workers));
        let states = Arc::new(States::new(workers, limit_states, Arc::clone(&slab)));
        let counters = slab.per_worker(PfCounters::new);
        Pf {
            slab,
            states,
            counters,
            tables: Tables::new(workers),
            debug: Debug::default(),
            killed: AtomicU64::new(0),
            overloaded: Default::default(),
            cleared: Leaf::new(PfCounters::default()),
        }
    }

    /// Compiles a checked configuration. To be done again when interfaces or addresses of `env` change.
    pub fn compile(
        &self,
        conf: &Arc<PfConf>,
        env: &Environment,
        names: &mut Names,
    ) -> Result<Ruleset, CompileError> {
        self.check_limiters(conf)?;
        Ruleset::compile(conf, env, names, &self.slab, &self.tables, None)
    }

    /// The same where only a part is fresh: rules of the rest keep their counters and states, tables their contents. The
    /// interfaces and their addresses must be those of `old`, which is in force.
    pub fn compile_over(
        &self,
        old: &Ruleset,
        fresh: &Fresh,
        conf: &Arc<PfConf>,
        env: &Environment,
        names: &mut Names,
    ) -> Result<Ruleset, CompileError> {
        self.check_limiters(conf)?;
        Ruleset::compile(conf, env, names, &self.slab, &self.tables, Some((old, fresh)))
    }

    fn check_limiters(&self, conf: &PfConf) -> Result<(), CompileError> {
        match self.states.limiters.conflict(&conf.limiters) {
            Some(limiter) => Err(CompileError::Limiter(limiter.name.clone())),
            None => Ok(()),
        }
    }

    /// pf switched off (`pfctl -d`, or no pf.conf): everything passes.
    pub fn disabled(&self) -> Ruleset {
        Ruleset::disabled(&self.slab)
    }

    /// Puts limits, timeouts and tables of a ruleset into effect, for states there are too. To be called just before it is
    /// published; [`Pf::retire`] is for afterwards.
    pub fn enforce(&self, held: &mut Held<'_, PfRules>, ruleset: &Ruleset) {
        let options = &ruleset.conf().options;
        self.states.set_limit(options.limit_states);
        self.states.cookies.set(options.syncookies, options.limit_states);
        if ruleset.looks_at_timestamps() {
            self.states.keep_timestamps();
        }
        if ruleset.makes_mappings() {
            self.states.keep_mappings();
        }
        self.states.set_timeouts(&options.timeouts);
        self.tables.set_limits(options.limits.get(Limit::Tables), options.limits.get(Limit::TableEntries));
        self.states.nodes().set_limit(options.limits.get(Limit::SrcNodes));
        // Before the tables: what the ruleset itself puts into one stays there. An entry for which there is no room is
        // owed to nobody, since its limiter is gone.
        for change in self.states.limiters.set(held, &ruleset.conf().limiters) {
            let _ = self.change_table(&change, wall_clock());
        }
        self.tables.commit(ruleset.tables());
        self.debug.set(options.debug);
        if options.keep_counters {
            ruleset.renumber();
        }
        // As with pfctl, one that the file does not say stays.
        if let Some(id) = options.host_id {
            self.states.set_creator(id);
        }
    }

    /// Ends what only earlier rulesets had: limiters that are defined no more take no further states. To be called when
    /// every worker has seen the ruleset that was [enforced](Self::enforce) last.
    pub fn retire(&self) {
        self.states.limiters.close_undefined();
    }

    /// How much pf says.
    pub fn debug_level(&self) -> Level {
        self.debug.level()
    }

    /// Sets that, until the next ruleset does (`pfctl -x`).
    pub fn set_debug_level(&self, level: Level) {
        self.debug.set(level);
    }

    /// What pf has to say since it was last asked; for the control thread, a few times a second.
    pub fn remarks(&self) -> Vec<Remark> {
        self.debug.remarks(&self.counters())
    }

    /// All tables; for the control thread.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The state table.
    pub fn states(&self) -> &States {
        &self.states
    }

    #[cfg(test)]
    pub(crate) fn shared_states(&self) -> Arc<States> {
        Arc::clone(&self.states)
    }

    /// Removes every state that `doomed` names, and says how many these were; for the control thread.
    pub fn kill_states(&self, held: &mut Held<'_, PfRules>, doomed: impl FnMut(&StateInfo) -> bool) -> u32 {
        let removed = self.states.remove_if(held, &mut self.states.cache(), doomed);
        self.killed.fetch_add(u64::from(removed), Ordering::Relaxed);
        removed
    }

    /// Does what workers have asked for: sources that overload a rule go to its table, and their states go if the rule
    /// says so; those of source limiters come into their tables and leave them. What one table does not take keeps
    /// nothing from the others. For the control thread, a few times a second; `now` is in seconds since 1970.
    pub fn settle(&self, held: &mut Held<'_, PfRules>, now: u64) -> Settled {
        let mut settled = Settled { sources: self.states.nodes().reported(&self.slab), errors: Vec::new() };
        for error in self.settle_limiters(now) {
            settled.fails(error);
        }
        for at in 0..settled.sources.len() {
            let source = &settled.sources[at];
            let prefix = Prefix::host(source.family.address(source.source));
            let (anchor, table) = (&source.anchor, &source.overload.table);
            let entry = Entry { not: false, prefix };
            if source.overload.flush.is_some() {
                self.overloaded[1].fetch_add(1, Ordering::Relaxed);
            }
            match self.tables.add_where_active(anchor, table, &[entry], now) {
                Ok(_) => _ = self.overloaded[0].fetch_add(1, Ordering::Relaxed),
                Err(error) => settled.fails(error),
            }
        }
        if !settled.sources.is_empty() {
            self.kill_states(held, |state| settled.sources.iter().any(|source| source.takes(state)));
        }
        settled
    }

    /// Puts sources of limiters into their tables and takes them out: all that can be, and says what could not for the
    /// first time.
    fn settle_limiters(&self, now: u64) -> Vec<TableError> {
        let mut errors = Vec::new();
        let mut full: Vec<String> = Vec::new();
        for change in self.states.limiters.reported(now) {
            if change.add && full.contains(&change.table) {
                self.states.limiters.owe(&change);
                continue;
            }
            let Err(error) = self.change_table(&change, now) else { continue };
            if change.add {
                self.states.limiters.owe(&change);
                full.push(change.table);
            }
            if !change.again {
                errors.push(error);
            }
        }
        errors
    }

    fn change_table(&self, change: &TableChange, now: u64) -> Result<(), TableError> {
        let entries = [Entry { not: false, prefix: change.prefix }];
        let changed = if change.add {
            self.tables.add_by_rule("", &change.table, &entries, now)
        } else {
            self.tables.delete_by_rule("", &change.table, &entries)
        };
        changed.map(|_| ())
    }

    /// The limiters of a kind, by number.
    pub fn limiters(&self, held: &mut Held<'_, PfRules>, by_source: bool) -> Vec<LimiterInfo> {
        self.states.limiters.dump(held, by_source)
    }

    /// Lets a source limiter forget a source: its states go on and hold no share any more. Says how many these were;
    /// nothing if there is no such source.
    pub fn forget_source(&self, held: &mut Held<'_, PfRules>, id: u8, source: IpAddr) -> Option<u32> {
        if !self.states.limiters.forget(held, id, source) {
            return None;
        }
        let states = self.states.forget_source(held, id, source);
        self.states.limiters.forget(held, id, source);
        Some(states)
    }

    /// The endpoint-independent mappings of UDP.
    pub fn mappings(&self, held: &mut Held<'_, PfRules>) -> Vec<MappingInfo> {
        self.states.mappings.dump(held)
    }

    /// The source nodes; `now` is in seconds of the workers' clock.
    pub fn sources(&self, held: &mut Held<'_, PfRules>, now: u32) -> Vec<SourceInfo> {
        self.states.nodes().dump(held, &self.slab, now)
    }

    /// How many source nodes there are.
    pub fn source_count(&self) -> u32 {
        self.states.nodes().count()
    }

    /// Forgets source nodes that `doomed` names by source and by the address it has from a pool; says how many these
    /// were.
    pub fn kill_sources(
        &self,
        held: &mut Held<'_, PfRules>,
        doomed: impl FnMut(IpAddr, Option<IpAddr>) -> bool,
    ) -> u32 {
        self.states.nodes().kill(held, &self.slab, doomed)
    }

    /// The same since they were last cleared.
    pub fn counters_since_cleared(&self) -> PfCounters {
        let sum = self.counters();
        self.cleared.with(|cleared| {
            for (i, _) in PfCounters::DESCRIPTIONS.iter().enumerate() {
                if let (Some(now), Some(then)) = (sum.at(i), cleared.at(i)) {
                    now.add(then.get().wrapping_neg());
                }
            }
        });
        sum
    }

    /// Lets the counters of `pfctl -s info` begin at 0.
    pub fn clear_counters(&self) {
        let now = self.counters();
        self.cleared.with(|cleared| *cleared = now);
    }

    /// The counters of all workers together.
    pub fn counters(&self) -> PfCounters {
        let sum = PfCounters::sum(self.counters.iter());
        sum.removals.add(self.killed.load(Ordering::Relaxed));
        sum.max_states.add(self.slab.refused());
        self.states.nodes().count_into(&sum);
        for (place, count) in [&sum.overload_table, &sum.overload_flush].into_iter().zip(&self.overloaded) {
            place.add(count.load(Ordering::Relaxed));
        }
        sum
    }

    /// Rule slots and their counters.
    pub fn slab(&self) -> &RuleSlab {
        &self.slab
    }

    /// What a worker keeps for itself; `id` is its number, from 0.
    pub fn worker(&self, id: usize) -> Worker {
        Worker {
            id,
            ids: Ids::default(),
            choices: Choices { random: Random::new(), mapped: None },
            share: Share::NONE,
            slots: self.states.cache(),
            ahead: vec![Seen::NOTHING; AHEAD].into_boxed_slice(),
        }
    }
}

/// What was done about what workers have asked for.
#[derive(Debug, Default)]
pub struct Settled {
    /// The sources that overload a rule.
    pub sources: Vec<Overloading>,
    /// What tables did not take, each matter once.
    pub errors: Vec<TableError>,
}

impl Settled {
    fn fails(&mut self, error: TableError) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }
}

impl Worker {
    /// Whether pf itself wants segments sent (`synproxy state`); to be asked after each batch.
    #[inline(always)]
    pub fn has_segments(&self) -> bool {
        !self.slots.outbox.is_empty()
    }

    /// Takes those segments, in order. The vector is to be given back, so that the next ones need no memory.
    pub fn take_segments(&mut self) -> Vec<Segment> {
        std::mem::take(&mut self.slots.outbox)
    }

    /// Gives back what [`take_segments`](Self::take_segments) lent.
    pub fn give_back(&mut self, mut segments: Vec<Segment>) {
        segments.clear();
        self.slots.outbox = segments;
    }
}

/// What one worker keeps for itself.
#[derive(Debug)]
pub struct Worker {
    pub(crate) id: usize,
    pub(crate) ids: Ids,
    pub(crate) slots: SlotCache,
    pub(crate) choices: Choices,
    /// What the state that is about to be made has of limiters.
    pub(crate) share: Share,
    /// Packets that have been read ahead of deciding on them; filled in place, again and again.
    pub(crate) ahead: Box<[Seen]>,
}
