//! What is left of a key in this process when its SA is gone: nothing, neither the key nor the schedule made of it.
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
        self.octets.iter().zip(memory).all(|(hidden, byte)| *byte == !hidden)
    }
}

/// Where in writable memory the patterns are. The buffer it reads into is wiped and not looked at.
fn search(patterns: &[Hidden]) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut buffer = vec![0u8; 1 << 20];
    let own = buffer.as_ptr() as usize..buffer.as_ptr() as usize + buffer.len();
    let mut found = vec![];
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (usize::from_str_radix(from, 16).unwrap(), usize::from_str_radix(to, 16).unwrap());
        let mut at = from;
        while at < to {
            let len = buffer.len().min(to - at);
            if memory.read_exact_at(&mut buffer[..len], at as u64).is_err() {
                break;
            }
            for pattern in patterns {
                let first = !pattern.octets[0];
                let mut from = 0;
                while let Some(next) = buffer[from..len].iter().position(|byte| *byte == first) {
                    let place = from + next;
                    if len - place >= pattern.octets.len()
                        && pattern.is_at(&buffer[place..len])
                        && !own.contains(&(at + place))
                    {
                        found.push(format!("{} at {:#x} in {line}", pattern.what, at + place));
                    }
                    from = place + 1;
                }
            }
            // A pattern across two reads is seen by the second.
            at += if len == to - at { len } else { len - 64 };
        }
    }
    buffer.fill(0);
    found
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

#[test]
fn nothing_of_a_key_is_left_in_memory_when_its_sa_is_gone() {
    let aeads = Suite::ALL.into_iter().flat_map(|suite| Engine::ALL.map(|engine| (suite, engine)));
    let others = Suite::esp().filter(|suite| !suite.has_engines()).map(|suite| (suite, Engine::Auto));
    let ah = Auth::all().map(|auth| (Suite::Ah(auth), Engine::Auto));
    for (n, (suite, engine)) in aeads.chain(others).chain(ah).enumerate() {
        let mut key = material(suite.material_len(), n as u64 + 1);
        let patterns = patterns_of(suite, &key);
        wipe_stack();
        let sa = set_up(suite, engine, &mut key);
        drop(key);
        assert!(search(&patterns).iter().any(|place| place.starts_with("key ")), "{suite}: the search works");
        drop(sa);
        assert_eq!(search(&patterns), Vec::<String>::new(), "{suite} {engine}");
    }
}
