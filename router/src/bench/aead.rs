//! The ceiling: the suite's arithmetic alone, on buffers of the same pool, on the same threads.

use super::frames::Around;
use ipsec::transform::{Engine, KeyError, Suite, Transform};
use kern::{
    Batch, Class, Owner, Pool,
    time::{Clock, Duration},
};

/// Packets sealed in one go, as a batch on the path.
const RUN: usize = 64;

/// One engine with buffers to work on.
pub(super) struct Bare {
    transform: Transform,
    buffers: Batch,
    seq: u64,
    opens: bool,
}

impl Bare {
    /// Buffers of ESP packets around `inner` bytes. With `opens`, opening is what is measured.
    pub(super) fn new(
        pool: &Pool,
        suite: Suite,
        engine: Engine,
        inner: usize,
        opens: bool,
    ) -> Result<Bare, KeyError> {
        let key: Vec<u8> = (0..suite.material_len() as u8).collect();
        let transform = Transform::new(suite, engine, &key, false)?;
        let Around { head, tail, .. } = Around::new(suite, inner);
        let mut buffers = Batch::new();
        for _ in 0..RUN {
            let Some(mut m) = pool.alloc(Class::Cluster, Owner::Control) else { break };
            if let Ok(room) = m.append(head + inner + tail) {
                room.fill(0x5a);
            }
            // A batch that is not full takes it.
            let _ = buffers.push(m);
        }
        Ok(Bare { transform, buffers, seq: 1, opens })
    }

    /// Nanoseconds a packet, over about this long.
    pub(super) fn measure(&mut self, for_: Duration) -> f64 {
        let (mut timed, mut packets) = (0, 0u64);
        let end = Clock::Real.now() + for_;
        while Clock::Real.now() < end {
            for _ in 0..8 {
                let before = Clock::Real.now();
                self.seal();
                let sealed = Clock::Real.now();
                if self.opens {
                    self.open();
                    timed += Clock::Real.now().nanos_since(sealed);
                } else {
                    timed += sealed.nanos_since(before);
                }
                packets += self.buffers.len() as u64;
            }
        }
        timed as f64 / packets.max(1) as f64
    }

    fn seal(&mut self) {
        let first = self.seq;
        self.seq += self.buffers.len() as u64;
        let jobs = self.buffers.iter_mut().zip(first..).map(|(m, seq)| (m.data_mut(), seq, seq));
        let _ = std::hint::black_box(self.transform.seal_run(jobs));
    }

    fn open(&mut self) {
        let first = self.seq - self.buffers.len() as u64;
        let jobs = self.buffers.iter_mut().zip(first..).map(|(m, seq)| (m.data_mut(), seq));
        let _ = std::hint::black_box(self.transform.open_run(jobs));
    }
}
