//! What can be wrong with a tree of queues: each message names the queue and by how much.

use crate::{admission::Excess, show::rate_text};

/// Why a [`TreeSpec`](crate::TreeSpec) is no tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Neither the configuration nor the interface says how fast it is.
    #[error("altq on {interface}: interface speed unknown, say `bandwidth`")]
    NoBandwidth {
        /// Interface.
        interface: String,
    },
    /// A bucket without room never sends.
    #[error("altq on {interface}: tbrsize must be at least 1 byte")]
    NoBucket {
        /// Interface.
        interface: String,
    },
    /// A scheduler with classes and none are there.
    #[error("altq on {interface}: {scheduler} needs at least one queue")]
    NoQueues {
        /// Interface.
        interface: String,
        /// Scheduler.
        scheduler: &'static str,
    },
    /// More classes than the scheduler has room for.
    #[error("queue {queue}: {scheduler} has room for {max} queues and {interface} has {count}, {} too many", count - max)]
    TooManyQueues {
        /// First queue too many.
        queue: String,
        /// Interface.
        interface: String,
        /// Scheduler.
        scheduler: &'static str,
        /// How many there may be.
        max: usize,
        /// How many there are.
        count: usize,
    },
    /// No queue is the default one.
    #[error("{interface} should have one default queue and has none")]
    NoDefault {
        /// Interface.
        interface: String,
    },
    /// More than one queue is the default one.
    #[error("queue {queue}: {interface} should have one default queue and {first} is it already")]
    SecondDefault {
        /// Queue.
        queue: String,
        /// The one before it.
        first: String,
        /// Interface.
        interface: String,
    },
    /// The same name twice.
    #[error("queue {queue} already exists on interface {interface}")]
    SameName {
        /// Queue.
        queue: String,
        /// Interface.
        interface: String,
    },
    /// The same number twice, or 0, which means none.
    #[error("queue {queue}: queue id {qid} is not free on {interface}")]
    SameId {
        /// Queue.
        queue: String,
        /// Its number.
        qid: u16,
        /// Interface.
        interface: String,
    },
    /// A priority the scheduler does not have.
    #[error("queue {queue}: priority {priority} out of range: max {max}, {} over", priority - max)]
    Priority {
        /// Queue.
        queue: String,
        /// Its priority.
        priority: u8,
        /// The highest there is.
        max: u8,
    },
    /// PRIQ levels are one queue each.
    #[error("queue {queue}: priority {priority} is {first}'s already")]
    SamePriority {
        /// Queue.
        queue: String,
        /// The one before it.
        first: String,
        /// Their priority.
        priority: u8,
    },
    /// A limit that no pool of buffers would fill, or none at all.
    #[error("queue {queue}: qlimit {qlimit} out of range: 1 to {max}")]
    Limit {
        /// Queue.
        queue: String,
        /// Its limit.
        qlimit: u32,
        /// The longest there may be.
        max: u32,
    },
    /// A percentage over a hundred.
    #[error("queue {queue}: bandwidth {percent}% is {} over 100%", percent - 100)]
    Percent {
        /// Queue.
        queue: String,
        /// Its percentage.
        percent: u32,
    },
    /// Faster than the interface or the parent.
    #[error(
        "queue {queue}: bandwidth {} is {} over {parent}'s {}",
        rate_text(*bandwidth as f64), rate_text((bandwidth - limit) as f64), rate_text(*limit as f64)
    )]
    Bandwidth {
        /// Queue.
        queue: String,
        /// Its bandwidth, in bits a second.
        bandwidth: u64,
        /// Its parent or the interface.
        parent: String,
        /// The parent's.
        limit: u64,
    },
    /// No bandwidth at all.
    #[error("queue {queue}: bandwidth 0 would never send")]
    NoShare {
        /// Queue.
        queue: String,
    },
    /// A child where there can be none.
    #[error("queue {queue}: {scheduler} queues have no children, {parent} cannot be its parent")]
    Parent {
        /// Queue.
        queue: String,
        /// Its parent.
        parent: String,
        /// Scheduler.
        scheduler: &'static str,
    },
    /// A parent that is not there.
    #[error("queue {queue}: parent {parent} not found")]
    NoParent {
        /// Queue.
        queue: String,
        /// Its parent.
        parent: String,
    },
    /// The default queue has children.
    #[error("queue {queue} is the default queue and cannot have children")]
    DefaultParent {
        /// Queue.
        queue: String,
    },
    /// An option of another scheduler.
    #[error("queue {queue}: {option} is no option of {scheduler}")]
    NotHere {
        /// Queue.
        queue: String,
        /// Option.
        option: &'static str,
        /// Scheduler.
        scheduler: &'static str,
    },
    /// Two droppers for one queue.
    #[error("queue {queue}: {first} and {second} cannot both drop its packets")]
    TwoDroppers {
        /// Queue.
        queue: String,
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// Buckets that are no power of two.
    #[error("queue {queue}: {buckets} buckets are not possible: a power of two, at most {max}")]
    Buckets {
        /// Queue.
        queue: String,
        /// How many.
        buckets: u32,
        /// The most there may be.
        max: u32,
    },
    /// A curve that ends flat.
    #[error("queue {queue}: {curve} curve: m2 is 0")]
    FlatEnd {
        /// Queue.
        queue: String,
        /// Curve.
        curve: &'static str,
    },
    /// A convex curve that does not begin flat.
    #[error(
        "queue {queue}: {curve} curve: m1 {} is {} under m2 {}: a convex curve needs m1 0",
        rate_text(*m1 as f64), rate_text((m2 - m1) as f64), rate_text(*m2 as f64)
    )]
    Convex {
        /// Queue.
        queue: String,
        /// Curve.
        curve: &'static str,
        /// First rate.
        m1: u64,
        /// Second rate.
        m2: u64,
    },
    /// Only leaves have packets to be in time for.
    #[error("queue {queue}: realtime is for queues without children")]
    RealtimeInner {
        /// Queue.
        queue: String,
    },
    /// More real-time than the link may promise.
    #[error("queue {queue}: realtime curves of {interface} sum to {}, 80% of the interface", told(excess))]
    Realtime {
        /// The queue that makes it too much.
        queue: String,
        /// Interface.
        interface: String,
        /// By how much.
        excess: Excess,
    },
    /// More link-share than the parent has.
    #[error(
        "queue {queue}: linkshare curves of {parent}'s queues sum to {}, {parent}'s linkshare",
        told(excess)
    )]
    Linkshare {
        /// The queue that makes it too much.
        queue: String,
        /// Its parent.
        parent: String,
        /// By how much.
        excess: Excess,
    },
    /// An upper limit above the interface.
    #[error(
        "queue {queue}: upperlimit {} is {} over {interface}'s {}",
        rate_text(*rate as f64), rate_text((rate - limit) as f64), rate_text(*limit as f64)
    )]
    Upperlimit {
        /// Queue.
        queue: String,
        /// Interface.
        interface: String,
        /// Its rate.
        rate: u64,
        /// The interface's.
        limit: u64,
    },
    /// An upper limit below what was promised.
    #[error("queue {queue}: realtime is {}, its upperlimit", told(excess))]
    UpperBelow {
        /// Queue.
        queue: String,
        /// By how much.
        excess: Excess,
    },
}

/// `9Mb in the first 10 ms, 1Mb over 8Mb`.
fn told(excess: &Excess) -> String {
    let Excess { at_ms, sum, limit } = *excess;
    let when = at_ms.map_or(String::new(), |ms| format!(" in the first {ms} ms"));
    let (over, sum, limit) =
        (rate_text((sum - limit) as f64), rate_text(sum as f64), rate_text(limit as f64));
    format!("{sum}{when}, {over} over {limit}")
}

impl TreeError {
    /// The queue the message is about, to find its line by.
    pub fn queue(&self) -> Option<&str> {
        use TreeError as E;
        match self {
            E::NoBandwidth { .. } | E::NoBucket { .. } | E::NoQueues { .. } | E::NoDefault { .. } => None,
            E::TooManyQueues { queue, .. }
            | E::SecondDefault { queue, .. }
            | E::SameName { queue, .. }
            | E::SameId { queue, .. }
            | E::Priority { queue, .. }
            | E::SamePriority { queue, .. }
            | E::Limit { queue, .. }
            | E::Percent { queue, .. }
            | E::Bandwidth { queue, .. }
            | E::NoShare { queue }
            | E::NoParent { queue, .. }
            | E::DefaultParent { queue }
            | E::NotHere { queue, .. }
            | E::TwoDroppers { queue, .. }
            | E::Buckets { queue, .. }
            | E::FlatEnd { queue, .. }
            | E::Convex { queue, .. }
            | E::RealtimeInner { queue }
            | E::Realtime { queue, .. }
            | E::Linkshare { queue, .. }
            | E::Upperlimit { queue, .. }
            | E::UpperBelow { queue, .. }
            | E::Parent { queue, .. } => Some(queue),
        }
    }
}
