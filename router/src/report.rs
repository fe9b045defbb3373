//! The books of the whole router at one moment.

use crate::stats::WorkerStats;
use kern::{
    Pool,
    mbuf::{Audit, Balance},
};
use std::sync::Arc;

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
