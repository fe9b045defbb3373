//! Which engine is the fastest here: the machine itself is asked, once for each suite.
//!
//! No table of processors can say. Sealing 1400 octets with AES-128-GCM (Zen 4 and 5 by `benches/aead.rs`, Zen 3 by
//! `softnet bench esp` on a busy machine; ns):
//!
//! | | AWS-LC | ring | why |
//! |---|---|---|---|
//! | Zen 5 | 179 | 239 | AVX-512 |
//! | Zen 4 | 264 | 262 | |
//! | Zen 3 | 518 | 326 | VAES, but no AVX-512: AWS-LC falls back to one block an instruction |
//!
//! Timings are taken in turns and the best of each counts, so that a busy machine does not choose by chance.

use super::{
    Engine, Suite,
    aead::{AeadKey, Open, Seal, TAG_LEN},
};
use kern::time::Clock;
use std::sync::OnceLock;

/// Octets that are sealed and opened: a full packet.
const SIZE: usize = 1400;
/// Timings of each engine: some milliseconds in all. A processor wakes its widest vector units slowly, and for the first
/// hundreds of microseconds the engine that uses them looks slow.
const ROUNDS: usize = 250;
/// Packets in one timing.
const PACKETS: usize = 4;

static CHOSEN: [OnceLock<Engine>; Suite::ALL.len()] = [const { OnceLock::new() }; Suite::ALL.len()];

/// The fastest engine for a suite that all have.
pub(super) fn fastest(suite: Suite) -> Engine {
    let place = Suite::ALL.iter().position(|s| *s == suite);
    match place.and_then(|place| CHOSEN.get(place)) {
        Some(chosen) => *chosen.get_or_init(|| measure(suite)),
        None => Engine::RustCrypto,
    }
}

/// The best of some timings, engine by engine in each round. The first of `Engine::ALL` wins a tie.
fn measure(suite: Suite) -> Engine {
    let key: Vec<u8> = (0..suite.key_len() as u8).collect();
    let keys = Engine::ALL.into_iter().filter_map(|engine| AeadKey::new(engine, suite, &key).ok());
    let mut timed: Vec<(AeadKey, u64)> = keys.map(|key| (key, u64::MAX)).collect();
    for _ in 0..ROUNDS {
        for (key, best) in &mut timed {
            *best = (*best).min(time(key));
        }
    }
    timed.iter().min_by_key(|(_, best)| *best).map_or(Engine::AwsLc, |(key, _)| key.engine())
}

/// Nanoseconds that it takes to seal and open some packets.
fn time(key: &AeadKey) -> u64 {
    let (mut data, mut tag) = ([0x5a; SIZE], [0; TAG_LEN]);
    let before = Clock::Real.now();
    for n in 0..PACKETS as u8 {
        let (nonce, aad, aad_len) = ([n; 12], [0; 12], 8);
        let sealed = key.seal(Seal { nonce, aad, aad_len, data: &mut data, tag: Some(&mut tag) });
        let opened = key.open(Open { nonce, aad, aad_len, data: &mut data, tag: Some(&mut tag) });
        std::hint::black_box((sealed, opened));
    }
    Clock::Real.now().nanos_since(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_one_of_the_engines_and_stays() {
        for suite in Suite::ALL {
            let chosen = fastest(suite);
            assert!(Engine::ALL.contains(&chosen));
            assert_eq!(fastest(suite), chosen);
            assert_eq!(Engine::Auto.resolve(suite), chosen);
        }
    }
}
