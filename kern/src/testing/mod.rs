//! Fixtures for tests of the crates above: a small pool whose books are checked when the test ends, and chance.

mod chance;

pub use chance::{Chance, soak};

use crate::{
    Class, Ledger, Magazines, Mbuf, Owner, Pool, Why,
    mbuf::{Audit, PoolConfig},
};

/// A pool, a ledger, and the promise that everything comes back.
///
/// Dropping it asserts that no buffer is out, that the identity holds, and that no packet ended without a reason.
pub struct Fixture {
    /// The pool.
    pub pool: Pool,
    /// The ledger.
    pub ledger: Ledger,
}

impl Fixture {
    /// A pool of this many clusters, and a few jumbos.
    pub fn new(clusters: usize) -> Fixture {
        Fixture::with_jumbos(clusters, 16)
    }

    /// A pool of these sizes.
    pub fn with_jumbos(clusters: usize, jumbos: usize) -> Fixture {
        let pool = Pool::new(PoolConfig { clusters, jumbos }).expect("memory for a test's pool");
        Fixture { pool, ledger: Ledger::new() }
    }

    /// Magazines for a thread of the test.
    pub fn magazines(&self) -> Magazines {
        Magazines::new(&self.pool)
    }

    /// A received packet with these bytes; a jumbo if they are many.
    pub fn packet(&self, bytes: &[u8]) -> Mbuf {
        let class = if bytes.len() > 1700 { Class::Jumbo } else { Class::Cluster };
        let mut m = self.pool.alloc(class, Owner::Control).expect("a free buffer for a test's packet");
        m.append(bytes.len()).expect("room for a test's packet").copy_from_slice(bytes);
        self.ledger.receive(&mut m);
        m
    }

    /// Ends a packet that a test has looked at.
    pub fn done(&self, m: Mbuf) {
        self.ledger.end(m, Why::Sink);
    }

    /// The books now.
    pub fn audit(&self) -> Audit {
        self.pool.audit()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let audit = self.audit();
        assert_eq!(audit.held(), 0, "buffers did not come back: {audit:?}");
        assert!(audit.balanced(), "the books do not balance: {audit:?}");
        assert_eq!(audit.unexplained, 0, "packets ended without a reason");
        assert_eq!(
            self.ledger.balance().held(),
            0,
            "packets began and did not end: {:?}",
            self.ledger.balance()
        );
    }
}
