//! One cell: a profile, virtual CPUs, traffic and its transform, crypto style and family, run once.

use super::{
    cpu::Cpu,
    freight::Freight,
    layout,
    memory::Relaxed,
    profile::{Extra, Profile},
    real::{Real, SetupError},
    run::{Outcome, on_threads},
    world::{Crypto, Placement, Plan, TX_RING, Traffic, World},
};
use ipsec::sa::Protocol;
use kern::{Pool, mbuf::PoolConfig, time::Duration};

/// Clusters of a cell's pool: an epoch, and what may be on its way.
pub const CLUSTERS: u32 = 32_768;
/// Preemption points of which one finds its CPU slow: a few hundred in the input queue's windows of a cell.
pub const STALL: u64 = 1024;
/// Packets between two sweeps.
pub const EPOCH: u32 = 20_000;

/// A cell of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Profile.
    pub profile: Profile,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Traffic.
    pub traffic: Traffic,
    /// What its SAs speak.
    pub transform: Protocol,
    /// Crypto style.
    pub crypto: Crypto,
    /// inet6.
    pub v6: bool,
    /// Where things run.
    pub placement: Placement,
}

/// How cells are run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Packets a cell.
    pub packets: u32,
    /// The seed.
    pub seed: u64,
    /// Give back what a sweep finds.
    pub reclaim: bool,
    /// One preemption point in so many finds its CPU slow; 0: none.
    pub stall: u64,
    /// The cores to use.
    pub cores: Vec<core_affinity::CoreId>,
}

impl Placement {
    /// The NIC on the first virtual CPU, the completion thread on the last, softints where they are raised.
    pub const fn usual(vcpus: u32) -> Placement {
        Placement { nic: 0, soft: None, cryptoret: vcpus - 1 }
    }

    /// As reports have it.
    pub fn name(self) -> String {
        let soft = self.soft.map_or_else(|| "local".to_owned(), |cpu| cpu.to_string());
        format!("nic={} soft={soft} ret={}", self.nic, self.cryptoret)
    }
}

impl Cell {
    /// ESP in the usual placement.
    pub const fn new(profile: Profile, vcpus: u32, traffic: Traffic, crypto: Crypto, v6: bool) -> Cell {
        let (transform, placement) = (Protocol::Esp, Placement::usual(vcpus));
        Cell { profile, vcpus, traffic, transform, crypto, v6, placement }
    }

    /// In a few words.
    pub fn name(&self) -> String {
        format!(
            "{} {} {} {} {} x{}",
            self.profile.name(),
            self.crypto.name(),
            self.traffic.name(),
            self.transform.name(),
            if self.v6 { "inet6" } else { "inet" },
            self.vcpus
        )
    }

    /// Runs it; also whether the pool's own books agree with the sweep.
    pub fn run(&self, setting: &Setting) -> Result<(Outcome, bool), SetupError> {
        let pool =
            Pool::new(PoolConfig { clusters: CLUSTERS as usize, jumbos: 2 }).map_err(SetupError::of)?;
        let freight = Real::new(pool.clone(), self.vcpus, self.v6, self.transform)?;
        let plan = Plan { stall: setting.stall, ..self.plan(setting.seed, CLUSTERS) };
        let world = World::new(Relaxed::new(layout::words(plan.slots)), freight, plan);
        let outcome = on_threads(&world, setting.packets, setting.reclaim, &setting.cores);
        let held = pool.audit().held();
        let still = if setting.reclaim { 0 } else { outcome.found.leaked + outcome.found.stranded };
        let agrees = outcome.stuck.is_some() || (held == still && pool.audit().balanced());
        if !agrees {
            tracing::error!(
                "{}: the sweep left {still}, the pool holds {held}: {:?}",
                self.name(),
                pool.audit()
            );
        }
        // What was left lost goes home with its reason, now that it has been counted.
        world.freight.with_hand(0, &mut |hand| {
            world.sweep(&mut Cpu::new(0, setting.seed, hand), true);
        });
        Ok((outcome, agrees))
    }

    /// The plan of its world.
    pub fn plan(&self, seed: u64, slots: u32) -> Plan {
        Plan {
            vcpus: self.vcpus,
            traffic: self.traffic,
            transform: self.transform,
            crypto: self.crypto,
            v6: self.v6,
            placement: self.placement,
            rules: self.profile.rules(),
            slots,
            burst: 8,
            window: 128,
            maxlen: 256,
            seed,
            epoch: EPOCH,
            // A driver that is always busy, where the interface queue is what is looked at.
            ring: match self.profile.rules().extra {
                Extra::Host6 | Extra::RouteTo => 8,
                _ => TX_RING,
            },
            stall: STALL,
            patience: Duration::from_secs(10),
        }
    }
}

impl Traffic {
    /// As the command line and reports have it.
    pub const fn name(self) -> &'static str {
        match self {
            Traffic::None => "none",
            Traffic::Tunnel => "tunnel",
            Traffic::Transport => "transport",
        }
    }
}

impl Crypto {
    /// As the command line and reports have it.
    pub const fn name(self) -> &'static str {
        match self {
            Crypto::Fast => "fast",
            Crypto::KameSk => "kame-sk",
            Crypto::KameS => "kame-s",
        }
    }
}
