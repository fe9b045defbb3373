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
    /// Those of as many SAs, each with its share of the buffers: a key is cold again when its turn comes, as on the path.
    transforms: Vec<Transform>,
    buffers: Batch,
    seq: u64,
    opens: bool,
}

impl Bare {
    /// Buffers of ESP packets around `inner` bytes, for this many SAs. With `opens`, opening is what is measured.
    pub(super) fn new(
        pool: &Pool,
        suite: Suite,
        engine: Engine,
        inner: usize,
        sas: usize,
        opens: bool,
    ) -> Result<Bare, KeyError> {
        let key = |sa: usize| -> Vec<u8> { (0..suite.material_len()).map(|i| (i + sa) as u8).collect() };
        let transforms = (0..sas.clamp(1, RUN)).map(|sa| Transform::new(suite, engine, &key(sa), false));
        let transforms = transforms.collect::<Result<Vec<_>, _>>()?;
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
        Ok(Bare { transforms, buffers, seq: 1, opens })
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
        let mut seq = self.seq;
        self.seq += self.buffers.len() as u64;
        let share = self.share();
        for (transform, run) in self.transforms.iter().zip(self.buffers.as_mut_slice().chunks_mut(share)) {
            let jobs = run.iter_mut().zip(seq..).map(|(m, seq)| (m.data_mut(), seq, seq));
            let _ = std::hint::black_box(transform.seal_run(jobs));
            seq += share as u64;
        }
    }

    fn open(&mut self) {
        let mut seq = self.seq - self.buffers.len() as u64;
        let share = self.share();
        for (transform, run) in self.transforms.iter().zip(self.buffers.as_mut_slice().chunks_mut(share)) {
            let jobs = run.iter_mut().zip(seq..).map(|(m, seq)| (m.data_mut(), seq));
            let _ = std::hint::black_box(transform.open_run(jobs));
            seq += share as u64;
        }
    }

    /// Buffers of one SA.
    fn share(&self) -> usize {
        self.buffers.len().div_ceil(self.transforms.len()).max(1)
    }
}
