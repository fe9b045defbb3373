//! What can be wrong with a tree of queues: each message names the queue and by how much.

use crate::show::rate_text;

/// Why a [`TreeSpec`](crate::TreeSpec) is no tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The scheduler is known and not built yet.
    #[error("altq on {interface}: no engine for {scheduler} yet")]
    NoEngine {
        /// Interface.
        interface: String,
        /// Scheduler.
        scheduler: &'static str,
    },
    /// A queue asks for a dropper or a behaviour that is not built yet.
    #[error("queue {queue}: no engine for {option} yet")]
    NoOption {
        /// Queue.
        queue: String,
        /// Option.
        option: &'static str,
    },
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
    /// Faster than the interface.
    #[error(
        "queue {queue}: bandwidth {} is {} over {interface}'s {}",
        rate_text(*bandwidth as f64), rate_text((bandwidth - limit) as f64), rate_text(*limit as f64)
    )]
    Bandwidth {
        /// Queue.
        queue: String,
        /// Its bandwidth, in bits a second.
        bandwidth: u64,
        /// Interface.
        interface: String,
        /// The interface's.
        limit: u64,
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
}

impl TreeError {
    /// The queue the message is about, to find its line by.
    pub fn queue(&self) -> Option<&str> {
        use TreeError as E;
        match self {
            E::NoEngine { .. }
            | E::NoBandwidth { .. }
            | E::NoBucket { .. }
            | E::NoQueues { .. }
            | E::NoDefault { .. } => None,
            E::NoOption { queue, .. }
            | E::TooManyQueues { queue, .. }
            | E::SecondDefault { queue, .. }
            | E::SameName { queue, .. }
            | E::SameId { queue, .. }
            | E::Priority { queue, .. }
            | E::SamePriority { queue, .. }
            | E::Limit { queue, .. }
            | E::Percent { queue, .. }
            | E::Bandwidth { queue, .. }
            | E::Parent { queue, .. } => Some(queue),
        }
    }
}
