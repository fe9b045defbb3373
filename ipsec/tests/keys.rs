//! Where a key is in this process, and the schedule made of it: in key memory, which is not dumped, and nowhere else; and
//! nowhere at all when its SA is gone.
//!
//! The whole of the writable memory is read as a debugger would read it. One test, so that no other thread's stack is in the
//! way; and what is looked for is kept inverted, so that the search does not find itself.

#![allow(clippy::unwrap_used, reason = "a test")]

use ipsec::{
    sa::{Handling, Lifetime, Mode, Padding, Protocol, Sa, SaConfig, SaIndex, Setup, Spi},
    transform::{Auth, Engine, Suite},
};
use kern::{secret::SecretBytes, time::Instant};
use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

/// A pattern, every octet inverted.
struct Hidden {
    what: &'static str,
    octets: Vec<u8>,
}

impl Hidden {
    fn new(what: &'static str, octets: &mut [u8]) -> Hidden {
        let hidden = Hidden { what, octets: octets.iter().map(|byte| !byte).collect() };
        octets.fill(0);
        hidden
    }

    fn is_at(&self, memory: &[u8]) -> bool {
        memory.len() >= self.octets.len()
            && self.octets.iter().zip(memory).all(|(hidden, byte)| *byte == !hidden)
    }
}

/// A mapping of this process that can be written.
struct Mapping {
    from: usize,
    to: usize,
    /// Neither written to core files nor, where the system lets us, to swap.
    is_key_memory: bool,
    line: String,
}

fn mappings() -> Vec<Mapping> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut all: Vec<Mapping> = vec![];
    for line in smaps.lines() {
        let number = |text| usize::from_str_radix(text, 16).ok();
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        if let Some((from, to)) = range.and_then(|(from, to)| number(from).zip(number(to))) {
            all.push(Mapping { from, to, is_key_memory: false, line: line.to_owned() });
        } else if let (true, Some(last)) = (line.starts_with("VmFlags:"), all.last_mut()) {
            last.is_key_memory = line.split(' ').any(|flag| flag == "dd");
        }
    }
    all.retain(|mapping| mapping.line.contains(" rw"));
    all
}

/// Shows a mapping piece by piece, with where each begins; of two pieces one after the other the second begins 64 octets before
/// the first ends. The buffer it reads into is wiped.
fn read(mapping: &Mapping, mut show: impl FnMut(usize, &[u8])) {
    let memory = File::open("/proc/self/mem").unwrap();
    let mut buffer = vec![0u8; 1 << 20];
    let own = buffer.as_ptr() as usize;
    let mut at = mapping.from;
    while at < mapping.to {
        let len = buffer.len().min(mapping.to - at);
        if memory.read_exact_at(&mut buffer[..len], at as u64).is_err() {
            break;
        }
        // What was read of the buffer is what it held before.
        let (from, to) = (own.saturating_sub(at).min(len), (own + buffer.len()).saturating_sub(at).min(len));
        buffer[from..to].fill(0);
        show(at, &buffer[..len]);
        at += if len == mapping.to - at { len } else { len - 64 };
    }
    buffer.fill(0);
}

/// A pattern that was found.
struct Found {
    what: &'static str,
    is_in_key_memory: bool,
    place: String,
}

/// Where in writable memory the patterns are.
fn search(patterns: &[Hidden]) -> Vec<Found> {
    let pair = |a: u8, b: u8| usize::from(a) << 8 | usize::from(b);
    let mut begins = vec![false; 1 << 16];
    for pattern in patterns {
        begins[pair(!pattern.octets[0], !pattern.octets[1])] = true;
    }
    let mut found = vec![];
    for mapping in mappings() {
        read(&mapping, |start, octets| {
            for (place, window) in octets.windows(16).enumerate() {
                if !begins[pair(window[0], window[1])] {
                    continue;
                }
                for pattern in patterns.iter().filter(|pattern| pattern.is_at(&octets[place..])) {
                    found.push(Found {
                        what: pattern.what,
                        is_in_key_memory: mapping.is_key_memory,
                        place: format!("{} at {:#x} in {}", pattern.what, start + place, mapping.line),
                    });
                }
            }
        });
    }
    found
}

/// Everything that looks like chance in key memory: keys, round keys, GHASH's tables, states of hashes, as whoever made them
/// lays them out.
fn schedule() -> Vec<Hidden> {
    let mut lanes: Vec<Vec<u8>> = vec![];
    for mapping in mappings().iter().filter(|mapping| mapping.is_key_memory) {
        read(mapping, |_, octets| {
            for lane in octets.chunks_exact(16) {
                let mut seen = [false; 256];
                for byte in lane {
                    seen[usize::from(*byte)] = true;
                }
                // Two addresses in a row have four zeros.
                if seen.iter().filter(|seen| **seen).count() >= 14 {
                    lanes.push(lane.iter().map(|byte| !byte).collect());
                }
            }
        });
    }
    lanes.sort_unstable();
    lanes.dedup();
    lanes.into_iter().map(|octets| Hidden { what: "schedule", octets }).collect()
}

/// AES's S-box: the inverse in GF(2^8), then the affine map (FIPS 197, 5.1.1).
fn s_box(byte: u8) -> u8 {
    let mul = |mut a: u8, mut b: u8| {
        let mut product = 0;
        while b != 0 {
            product ^= if b & 1 == 1 { a } else { 0 };
            a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
            b >>= 1;
        }
        product
    };
    let inverse = (1..=255).find(|other| mul(byte, *other) == 1).unwrap_or(0);
    (1..5).fold(inverse, |sum, turn| sum ^ inverse.rotate_left(turn)) ^ 0x63
}

/// The first round key behind a 128-bit key (FIPS 197, 5.2).
fn round_key(key: &[u8]) -> [u8; 16] {
    let mut word = [s_box(key[13]) ^ 1, s_box(key[14]), s_box(key[15]), s_box(key[12])];
    let mut next = [0; 16];
    for (place, old) in next.chunks_mut(4).zip(key.chunks(4)) {
        word.iter_mut().zip(old).for_each(|(w, o)| *w ^= o);
        place.copy_from_slice(&word);
    }
    next
}

/// Octets nobody else has.
fn material(len: usize, salt: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(salt * 2 + 1);
    let next = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 24) as u8
    };
    (0..len).map(|_| next(&mut state)).collect()
}

#[inline(never)]
fn patterns_of(suite: Suite, key: &[u8]) -> Vec<Hidden> {
    let mut patterns = vec![];
    if suite.key_len() == 16 {
        patterns.push(Hidden::new("round key", &mut round_key(&key[..16])));
    }
    if suite.auth_key_len() > 0 {
        let mut inner: Vec<u8> =
            key[key.len() - suite.auth_key_len()..].iter().map(|byte| byte ^ 0x36).collect();
        patterns.push(Hidden::new("inner pad", &mut inner));
    }
    let mut copy = key[..16].to_vec();
    patterns.push(Hidden::new("key", &mut copy));
    patterns
}

/// What this test has left on the stack itself, before the SA is made.
#[inline(never)]
#[allow(clippy::large_stack_arrays, reason = "the stack is what it is about")]
fn wipe_stack() {
    let mut used = [0xff_u8; 32 * 1024];
    std::hint::black_box(&mut used);
    used.fill(0);
    std::hint::black_box(&used);
}

#[inline(never)]
fn set_up(suite: Suite, engine: Engine, material: &mut [u8]) -> Sa {
    let address = "203.0.113.1".parse().unwrap();
    let config = SaConfig {
        src: address,
        dst: address,
        spi: Spi(0x1000),
        protocol: if matches!(suite, Suite::Ah(_)) { Protocol::Ah } else { Protocol::Esp },
        mode: Mode::Tunnel,
        inner: None,
        worker: None,
        encap: None,
        reqid: 0,
        suite,
        esn: false,
        replay: 64,
        padding: Padding::Lenient,
        handling: Handling::default(),
        soft: Lifetime::default(),
        hard: Lifetime::default(),
    };
    let key = Arc::new(SecretBytes::take(material).unwrap());
    let setup = Setup { engine, ..Setup::new(Instant::from_secs(1)) };
    Sa::new(SaIndex(1), config, key, &setup).unwrap()
}

/// Of these patterns, what is where it may be read when it should not.
fn outside(found: Vec<Found>) -> Vec<String> {
    found.into_iter().filter(|found| !found.is_in_key_memory).map(|found| found.place).collect()
}

#[test]
fn a_key_lies_in_key_memory_alone_and_nothing_of_it_is_left_when_its_sa_is_gone() {
    let aeads = Suite::ALL.into_iter().flat_map(|suite| Engine::ALL.map(|engine| (suite, engine)));
    let others = Suite::esp().filter(|suite| !suite.has_engines()).map(|suite| (suite, Engine::Auto));
    let ah = Auth::all().map(|auth| (Suite::Ah(auth), Engine::Auto));
    for (n, (suite, engine)) in aeads.chain(others).chain(ah).enumerate() {
        let mut key = material(suite.material_len(), n as u64 + 1);
        let mut patterns = patterns_of(suite, &key);
        wipe_stack();
        let sa = set_up(suite, engine, &mut key);
        drop(key);
        let schedule = schedule();
        println!("{suite} {engine}: {} lanes", schedule.len());
        patterns.extend(schedule);
        let found = search(&patterns);
        for what in ["key", "schedule"] {
            assert!(
                found.iter().any(|found| found.what == what),
                "{suite} {engine}: the search finds the {what}"
            );
        }
        assert_eq!(outside(found), Vec::<String>::new(), "{suite} {engine}, in use");
        drop(sa);
        let left: Vec<_> = search(&patterns).into_iter().map(|found| found.place).collect();
        assert_eq!(left, Vec::<String>::new(), "{suite} {engine}, deleted");
    }
}
