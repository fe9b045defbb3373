//! CBQ: class-based queueing (Floyd and Jacobson 1995, `altq_rmclass.c`).
//!
//! Each class has a rate and an estimator that says whether it is over its limit; a class that is may `borrow` the
//! account of an ancestor that is not. The formal rule of link-sharing is kept: nobody borrows at a level of the tree
//! while a class below that level is unsatisfied.
//!
//! ```text
//!   key of a backlogged leaf:   level it may send at │ 7 - priority │ round robin tag
//!                               0: on its own account   higher first   served bytes / rate, so that equals share
//!                               n: an ancestor's                       by weight (weighted round robin)
//!   suspended: no key, but the time at which its account, or one it may borrow, is good again
//! ```
//!
//! **Estimator.** For a class with rate r, a packet of L bits is due L / r after the one before; *idle* is by how much
//! later it left. `avgidle` adds idle up, at most to `maxidle` (credit for a burst of sixteen packets after a pause), at
//! least to `minidle` (one packet: what was borrowed is not owed). Below zero the class is over its limit until the
//! moment at which the next packet would bring it back to zero. Departures are read off a clock of the link, which a
//! packet moves on by its own time, so that a burst out of the regulator's bucket does not look like a fast class.
//!
//! Three differences to BSD, for exactness. BSD's avgidle is an average that forgets a 32nd a packet, of credit and of
//! debt: a class that is often late falls 1 to 10 % short of its rate, one that is flooded runs up to 1.6 % fast; the sum
//! is exact. BSD looks at its classes round robin on every call and, for lack of exact timers, lets a suspended class
//! sleep longer (`offtime`) and then burst; here a class wakes at the very moment its account is good, and choosing is
//! O(log n). And BSD borrows from any ancestor above a cut-off; here the lowest first. `efficient`: a class is sent
//! over its limit rather than the link left idle.

use crate::{
    discipline::{ClassId, Discipline, Entry, Refused, Victims, purge_queue},
    queue::{ClassQueue, Counters},
    tournament::{ABSENT, Tournament},
};
use kern::time::Instant;

/// Fraction bits of estimator times, in nanoseconds.
const FRACTION: u32 = 8;
/// Packets a class may send in a burst after a pause.
const MAX_BURST: f64 = 16.0;
/// The same for a class so slow that each of them would take longer than [`LONG`].
const SLOW_BURST: f64 = 4.0;
const LONG: f64 = 10e6;
/// Packets of others that may be in the way of a class whose time has come, without a loss for it.
const LATE: f64 = 4.0;
/// A pause that makes up for everything, in nanoseconds.
const FORGIVEN: u64 = 2_000_000_000;
/// Bits of a round robin tag in a key.
const TAG: u32 = 58;
/// The highest level a key tells apart.
const MAX_LEVEL: u64 = 6;

/// A class as it is built.
pub(crate) struct CbqClass {
    /// Its parent, which comes before it; none for the root, which comes first.
    pub(crate) parent: Option<usize>,
    pub(crate) rate: u64,
    pub(crate) priority: u8,
    pub(crate) borrow: bool,
    pub(crate) efficient: bool,
    pub(crate) queue: ClassQueue,
}

/// What a class has sent beside what it may.
struct Account {
    rate: u64,
    avgidle: i64,
    maxidle: i64,
    minidle: i64,
    /// When its last packet had left the link.
    last: i128,
    /// Until then it is over its limit.
    undertime: u64,
}

struct Class {
    parent: Option<usize>,
    /// Its level in the tree: 0 for a leaf, one more than the highest of its children.
    height: u64,
    account: Account,
    priority: u8,
    borrow: bool,
    efficient: bool,
    queue: ClassQueue,
    /// Service by rate, in nanoseconds: who has the least goes next.
    tag: u64,
}

/// The tree.
pub struct Cbq {
    classes: Vec<Class>,
    /// Leaves that may send, see the key above.
    ready: Tournament,
    /// Backlogged leaves that are not at level 0, by the time at which they may send at a lower level.
    waking: Tournament,
    /// When the link will have sent everything that was given to it.
    link_free: i128,
    link_rate: u64,
    /// The tag of the last one served, by priority.
    round: [u64; 8],
}

impl Account {
    fn new(rate: u64, link: u64, mtu: u32) -> Account {
        let packet = f64::from(mtu) * 8e9 / link as f64;
        let share = (rate as f64 / link as f64).min(1.0);
        let spare = packet * (1.0 / share - 1.0);
        let burst = if spare > LONG { SLOW_BURST } else { MAX_BURST };
        let fixed = |nanos: f64| (nanos * f64::from(1 << FRACTION)).min(1e17) as i64;
        let maxidle = fixed((spare * burst).max(packet * LATE));
        let minidle = -fixed(f64::from(mtu) * 8e9 / rate as f64);
        Account { rate, avgidle: maxidle, maxidle, minidle, last: 0, undertime: 0 }
    }

    fn is_over(&self, now: u64) -> bool {
        self.undertime > now
    }

    /// A packet of so many bytes, which takes the link so long, has left by `done`.
    fn sent(&mut self, bytes: u32, time: i128, done: i128) {
        let due = ((i128::from(bytes) * 8_000_000_000) << FRACTION) / i128::from(self.rate);
        let between = done - self.last;
        self.last = done;
        if between > i128::from(FORGIVEN) << FRACTION {
            self.avgidle = self.maxidle;
        }
        let idle = (between - due).clamp(-(1 << 60), 1 << 52) as i64;
        let floor = self.minidle.min(-due.min(1 << 60) as i64);
        self.avgidle = (self.avgidle + idle).clamp(floor, self.maxidle);
        self.undertime = 0;
        if self.avgidle < 0 {
            // If the next packet begins then, it comes back to zero with it, should it be of the same size.
            let until = (done + due - time - i128::from(self.avgidle)) >> FRACTION;
            self.undertime = u64::try_from(until).unwrap_or(u64::MAX - 1);
        }
    }
}

impl Cbq {
    /// A tree of idle classes on a link of `rate` bits a second.
    pub(crate) fn new(classes: Vec<CbqClass>, rate: u64, mtu: u32) -> Cbq {
        let n = classes.len();
        let class = |c: CbqClass| Class {
            parent: c.parent,
            height: 0,
            account: Account::new(c.rate, rate, mtu),
            priority: c.priority,
            borrow: c.borrow,
            efficient: c.efficient,
            queue: c.queue,
            tag: 0,
        };
        let mut classes: Vec<Class> = classes.into_iter().map(class).collect();
        for i in (0..n).rev() {
            if let Some(parent) = classes[i].parent {
                classes[parent].height = classes[parent].height.max(classes[i].height + 1);
            }
        }
        Cbq {
            classes,
            ready: Tournament::new(n),
            waking: Tournament::new(n),
            link_free: 0,
            link_rate: rate,
            round: [0; 8],
        }
    }

    /// Places a leaf by what its account and its ancestors' say now.
    fn place(&mut self, leaf: usize, now: u64) {
        let class = &self.classes[leaf];
        if class.queue.is_empty() {
            self.ready.set(leaf, ABSENT);
            self.waking.set(leaf, ABSENT);
            return;
        }
        let (level, wakes) = self.standing(leaf, now);
        let class = &self.classes[leaf];
        let key = level.map_or(ABSENT, |level| {
            level.min(MAX_LEVEL) << (TAG + 3) | u64::from(7 - class.priority.min(7)) << TAG | class.tag
        });
        self.ready.set(leaf, key);
        self.waking.set(leaf, wakes);
    }

    /// The lowest level at which a leaf may send, and when it may at a lower one.
    fn standing(&self, leaf: usize, now: u64) -> (Option<u64>, u64) {
        let (mut at, mut wakes) = (leaf, ABSENT);
        loop {
            let class = &self.classes[at];
            // The root's account is the link's, which the regulator keeps.
            if at == 0 || !class.account.is_over(now) {
                return (Some(class.height), wakes);
            }
            wakes = wakes.min(class.account.undertime);
            match class.parent {
                Some(parent) if class.borrow => at = parent,
                _ => break,
            }
        }
        let efficient = self.classes[leaf].efficient || self.classes[0].efficient;
        (efficient.then_some(MAX_LEVEL), wakes)
    }

    /// Moves the leaves whose time has come.
    fn wake(&mut self, now: u64) {
        while self.waking.least() <= now {
            let Some(leaf) = self.waking.winner() else { return };
            self.place(leaf, now);
        }
    }

    /// The leaf that sends next: the first that stands where its key says.
    fn choose(&mut self, now: u64) -> Option<usize> {
        self.wake(now);
        loop {
            let leaf = self.ready.winner()?;
            let key = self.ready.key(leaf);
            // An ancestor may have gone over its limit meanwhile.
            self.place(leaf, now);
            if self.ready.key(leaf) == key {
                return Some(leaf);
            }
        }
    }

    /// A packet of so many bytes leaves a leaf.
    fn charge(&mut self, leaf: usize, bytes: u32, now: u64) {
        let time = ((i128::from(bytes) * 8_000_000_000) << FRACTION) / i128::from(self.link_rate);
        self.link_free = self.link_free.max(i128::from(now) << FRACTION) + time;
        let class = &mut self.classes[leaf];
        let counters = class.queue.counters_mut();
        counters.borrows += u64::from(class.account.is_over(now));
        let priority = usize::from(class.priority.min(7));
        self.round[priority] = self.round[priority].max(class.tag);
        let weighed = u128::from(bytes) * 8_000_000_000 / u128::from(class.account.rate);
        class.tag = (class.tag + weighed as u64) & ((1 << TAG) - 1);
        let mut at = Some(leaf);
        while let Some(i) = at {
            self.classes[i].account.sent(bytes, time, self.link_free);
            at = self.classes[i].parent;
        }
        self.place(leaf, now);
        let class = &mut self.classes[leaf];
        if !class.queue.is_empty() && self.ready.key(leaf) == ABSENT {
            class.queue.counters_mut().suspends += 1;
        }
    }
}

impl Discipline for Cbq {
    #[inline]
    fn enqueue(&mut self, entry: Entry, class: ClassId, now: Instant) -> Result<(), Refused> {
        let leaf = usize::from(class.0);
        let class = &mut self.classes[leaf];
        let idle = class.queue.is_empty();
        let taken = class.queue.push(entry, now);
        if idle && !class.queue.is_empty() {
            // No credit in the round for the time it had nothing to send.
            class.tag = class.tag.max(self.round[usize::from(class.priority.min(7))]);
            self.place(leaf, now.nanos());
        }
        taken
    }

    #[inline]
    fn dequeue(&mut self, now: Instant, victims: &mut Victims) -> Option<Entry> {
        loop {
            let leaf = self.choose(now.nanos())?;
            match self.classes[leaf].queue.pop(now, victims) {
                Some(entry) => {
                    self.charge(leaf, entry.cost, now.nanos());
                    return Some(entry);
                }
                None => self.place(leaf, now.nanos()),
            }
        }
    }

    #[inline]
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        if self.ready.least() != ABSENT {
            return Some(now);
        }
        let wakes = self.waking.least();
        (wakes != ABSENT).then(|| Instant::from_nanos(wakes))
    }

    fn purge(&mut self, take: &mut impl FnMut(ClassId, Entry)) {
        for leaf in 0..self.classes.len() {
            purge_queue(ClassId(leaf as u16), &mut self.classes[leaf].queue, take);
            self.place(leaf, 0);
        }
    }

    fn counters(&self, class: ClassId) -> Counters {
        self.classes[usize::from(class.0)].queue.counters()
    }
}
