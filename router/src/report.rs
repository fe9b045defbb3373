//! The books of the whole router at one moment.

use crate::stats::WorkerStats;
use kern::{
    Pool,
    mbuf::{Audit, Balance},
};
use std::{fmt, sync::Arc};

/// What a quiet moment showed: the pool's side and the packets' side.
#[derive(Clone, Debug)]
pub struct Books {
    /// Buffers.
    pub audit: Audit,
    /// Packets, over the control thread and all workers.
    pub balance: Balance,
}

impl Books {
    /// Reads them; exact when nothing runs.
    pub fn read(pool: &Pool, stats: &[Arc<WorkerStats>]) -> Books {
        let mut balance = Balance::default();
        for stats in stats {
            balance.add(&stats.ledger.balance());
        }
        Books { audit: pool.audit(), balance }
    }

    /// Whether buffers balance, and packets begun and not ended are just those that are held.
    pub fn balanced(&self) -> bool {
        self.audit.balanced()
            && self.balance.held() == i128::from(self.audit.packets())
            && self.audit.unexplained == 0
    }
}

/// The balance in one sentence.
impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.balanced() { "balanced" } else { "NOT balanced" };
        let Balance { received, created, split, sent, delivered, merged, ended, .. } = &self.balance;
        write!(
            f,
            "{verdict}: held {}, unexplained {}; packets: {received} received + {created} created + {split} split = \
             {sent} sent + {delivered} delivered + {merged} merged + {} ended + {} held",
            self.audit.held(),
            self.audit.unexplained,
            ended.iter().sum::<u64>(),
            self.audit.packets()
        )
    }
}
