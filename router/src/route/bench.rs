//! Figures for the tables: nanoseconds a lookup, for a hot set of destinations and for sets larger than the caches; time to
//! build, time of one change, memory.
//!
//! Lookups are independent of each other, as they are in a batch. The yardstick is one flat array of 2^24 entries.

use super::{Fib, IfIndex, NextHop, Rib, Route, Source, fib6};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{
    fmt,
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

/// One line of the table.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    /// Which table: `ipv4`, `ipv6`, or `flat` for the yardstick.
    pub table: &'static str,
    /// Routes in it.
    pub routes: usize,
    /// Nanoseconds a lookup, 16 destinations.
    pub hot_ns: f64,
    /// The same, 16,384 destinations.
    pub warm_ns: f64,
    /// The same, 1,048,576 destinations.
    pub cold_ns: f64,
    /// The last, with a prefetch a batch ahead.
    pub prefetched_ns: f64,
    /// Milliseconds to build it from the routes.
    pub build_ms: f64,
    /// Microseconds to add one long route and commit; the median.
    pub change_us: f64,
    /// Mebibytes.
    pub mib: f64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { table, routes, hot_ns, warm_ns, cold_ns, prefetched_ns, build_ms, change_us, mib } = self;
        write!(
            f,
            "{table:<5} {routes:>8} routes  hot {hot_ns:>5.1}  16k {warm_ns:>5.1}  1M {cold_ns:>5.1}  1M prefetched \
             {prefetched_ns:>5.1} ns  build {build_ms:>7.1} ms  change {change_us:>7.1} us  {mib:>6.1} MiB"
        )
    }
}

/// Measures tables of these sizes.
pub fn run(sizes: &[usize]) -> Vec<Row> {
    sizes.iter().flat_map(|&n| [flat(n), ipv4(n), ipv6(n)]).collect()
}

/// xorshift64*: the same routes and destinations in every run.
pub(crate) struct Random(u64);

impl Random {
    /// From a seed, which is not 0.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

fn hop(random: &mut Random) -> NextHop {
    let n = random.below(64) as u32;
    NextHop::Gateway { iface: IfIndex(1), addr: IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)) }
}

/// Lengths as in the Internet's table: 60 % /24, 3 % longer, the rest shorter.
fn route4(random: &mut Random) -> Route {
    let len = match random.below(100) {
        0..60 => 24,
        60..63 => 25 + random.below(8) as u8,
        _ => 12 + random.below(12) as u8,
    };
    let addr = Ipv4Addr::from_bits(0x0100_0000 + random.below(0xdf00_0000) as u32);
    route(IpNet::V4(Ipv4Net::new_assert(addr, len)), random)
}

/// Half /48, a quarter /32, the rest between /29 and /64, below a hundred /16s.
fn route6(random: &mut Random) -> Route {
    let len = match random.below(4) {
        0 | 1 => 48,
        2 => 32,
        _ => 29 + random.below(36) as u8,
    };
    route(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(destination6(random)), len)), random)
}

fn destination6(random: &mut Random) -> u128 {
    let high = 0x2001 + random.below(100) * 0x13;
    u128::from(high) << 112 | u128::from(random.next()) << 48 | u128::from(random.next() & 0xffff_ffff_ffff)
}

fn route(to: IpNet, random: &mut Random) -> Route {
    Route { to: to.trunc(), source: Source::Static, paths: vec![hop(random)] }
}

struct Built {
    fib: Fib,
    build_ms: f64,
    change_us: f64,
}

fn build(count: usize, mut next: impl FnMut(&mut Random) -> Route) -> Built {
    let mut random = Random::new(0x5eed_f1b5_0000_0001);
    let mut rib = Rib::new();
    let start = Instant::now();
    (0..count).for_each(|_| {
        rib.insert(next(&mut random));
    });
    let mut fib = rib.commit();
    let build_ms = start.elapsed().as_secs_f64() * 1e3;
    let mut changes: Vec<f64> = (0..101)
        .map(|_| {
            let route = next(&mut random);
            let start = Instant::now();
            rib.insert(route);
            fib = rib.commit();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    changes.sort_by(f64::total_cmp);
    Built { fib, build_ms, change_us: changes[changes.len() / 2] }
}

/// The best of several passes, in nanoseconds a destination.
fn time<A: Copy>(destinations: &[A], mut pass: impl FnMut(&[A]) -> u32) -> f64 {
    let rounds = (4_000_000 / destinations.len()).max(3);
    let once = |_| {
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(pass(black_box(destinations)));
        }
        start.elapsed().as_secs_f64() * 1e9 / (rounds * destinations.len()) as f64
    };
    (0..5).map(once).fold(f64::INFINITY, f64::min)
}

fn row<A: Copy>(
    (table, routes): (&'static str, usize),
    all: &[A],
    lookup: impl Fn(A) -> u32,
    prefetch: impl Fn(A),
) -> Row {
    let plain = |set: &[A]| set.iter().fold(0, |acc: u32, &a| acc.wrapping_add(lookup(a)));
    let ahead = |set: &[A]| {
        set.chunks(64).fold(0, |acc: u32, batch| {
            for &a in batch {
                prefetch(a);
            }
            batch.iter().fold(acc, |acc, &a| acc.wrapping_add(lookup(a)))
        })
    };
    Row {
        table,
        routes,
        hot_ns: time(&all[..16], plain),
        warm_ns: time(&all[..16_384], plain),
        cold_ns: time(all, plain),
        prefetched_ns: time(all, ahead),
        build_ms: 0.0,
        change_us: 0.0,
        mib: 0.0,
    }
}

fn destinations4() -> Vec<Ipv4Addr> {
    let mut random = Random::new(0xde57_0000_0000_0001);
    (0..1 << 20).map(|_| Ipv4Addr::from_bits(0x0100_0000 + random.below(0xdf00_0000) as u32)).collect()
}

fn flat(count: usize) -> Row {
    let built = build(count, route4);
    let table: Vec<u32> =
        (0..1 << 24).map(|n: u32| built.fib.v4.lookup(Ipv4Addr::from_bits(n << 8)).0).collect();
    let row = row(
        ("flat", count),
        &destinations4(),
        |a| table[(a.to_bits() >> 8) as usize],
        |a| kern::prefetch(&table[(a.to_bits() >> 8) as usize]),
    );
    Row { mib: 64.0, ..row }
}

fn ipv4(count: usize) -> Row {
    let Built { fib, build_ms, change_us } = build(count, route4);
    let row = row(("ipv4", count), &destinations4(), |a| fib.v4.lookup(a).0, |a| fib.v4.prefetch(a));
    Row { build_ms, change_us, mib: mib(fib.v4.bytes()), ..row }
}

fn ipv6(count: usize) -> Row {
    let Built { fib, build_ms, change_us } = build(count, route6);
    let mut random = Random::new(0xde57_0000_0000_0002);
    let destinations: Vec<_> = (0..1 << 20).map(|_| Ipv6Addr::from_bits(destination6(&mut random))).collect();
    let v6: &fib6::Fib6 = &fib.v6;
    let row = row(("ipv6", count), &destinations, |a| v6.lookup(a).0, |a| v6.prefetch(a));
    Row { build_ms, change_us, mib: mib(v6.bytes()), ..row }
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
