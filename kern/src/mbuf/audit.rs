//! The audit: both sides of the books, read at a quiet moment.
//!
//! Per class, total = depot + magazines + held, and *held* is known by owner because every header says who has it.
//! The left side is what the pool believes, the right side is counted by walking all headers; they must agree.

use super::{
    header::{Class, Owner},
    pool::Core,
};

/// One class's books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassAudit {
    /// Which class.
    pub class: Class,
    /// Buffers there are.
    pub total: u64,
    /// Buffers in the depot.
    pub depot: u64,
    /// Buffers in workers' magazines.
    pub magazines: u64,
    /// Buffers that are out, by owner, in the order of [`Owner::ALL`] without `Free`.
    pub by_owner: [u64; Owner::ALL.len() - 1],
    /// Buffers that say they are free.
    pub marked_free: u64,
    /// Buffers asked for so far.
    pub requests: u64,
    /// Buffers given back so far.
    pub releases: u64,
    /// Requests that found none.
    pub fail: u64,
}

impl ClassAudit {
    /// Buffers that are out.
    pub fn held(&self) -> u64 {
        self.by_owner.iter().sum()
    }

    /// Buffers out that hold packets: all but those a device has to read into.
    pub fn packets(&self) -> u64 {
        self.held() - self.owned_by(Owner::Rx)
    }

    /// Buffers that this owner has.
    pub fn owned_by(&self, owner: Owner) -> u64 {
        if owner == Owner::Free { self.marked_free } else { self.by_owner[owner as usize - 1] }
    }

    /// Whether the identity holds, by walking and by counting.
    pub fn balanced(&self) -> bool {
        self.total == self.depot + self.magazines + self.held()
            && self.marked_free == self.depot + self.magazines
            && self.requests == self.releases + self.fail + self.held()
    }
}

/// The books of a pool at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// By class, in the order of [`Class::ALL`].
    pub classes: [ClassAudit; 2],
    /// Packets dropped without a reason since the pool was made.
    pub unexplained: u64,
}

impl Audit {
    pub(super) fn take(core: &Core) -> Audit {
        Audit { classes: Class::ALL.map(|class| audit_class(core, class)), unexplained: core.unexplained() }
    }

    /// Whether every class balances.
    pub fn balanced(&self) -> bool {
        self.classes.iter().all(ClassAudit::balanced)
    }

    /// Buffers of all classes that are out.
    pub fn held(&self) -> u64 {
        self.classes.iter().map(ClassAudit::held).sum()
    }

    /// Buffers of all classes that hold packets.
    pub fn packets(&self) -> u64 {
        self.classes.iter().map(ClassAudit::packets).sum()
    }

    /// Buffers of all classes that this owner has.
    pub fn owned_by(&self, owner: Owner) -> u64 {
        self.classes.iter().map(|c| c.owned_by(owner)).sum()
    }
}

fn audit_class(core: &Core, class: Class) -> ClassAudit {
    let (mut magazines, mut requests, mut releases, mut fail) = (0, 0, 0, 0);
    core.with_gauges(class, |s, rq, rl, f| {
        magazines += s;
        requests += rq;
        releases += rl;
        fail += f;
    });
    let owners = core.owners(class);
    let mut by_owner = [0; Owner::ALL.len() - 1];
    by_owner.copy_from_slice(&owners[1..]);
    ClassAudit {
        class,
        total: core.count(class) as u64,
        depot: core.depot(class).len() as u64,
        magazines,
        by_owner,
        marked_free: owners[0],
        requests,
        releases,
        fail,
    }
}
