//! Whatever arrives: nothing panics, nothing that was not sealed passes, no buffer is lost.
//!
//! Octets come from a seeded generator in three ways: random; a good packet with a few octets changed; a good packet cut
//! short or grown. `SOFTNET_SOAK=1` runs ten million for each protocol.

use super::*;
use crate::transform::{AesKey, Auth, Cipher};
use kern::testing::Chance;

const SEED: u64 = 0x5eed_e5b0_2013;

/// What arrives: an outer IPv4 header and anything behind it.
fn arriving(random: &mut Chance, good: &[u8]) -> Vec<u8> {
    let mut packet = good.to_vec();
    match random.below(4) {
        0 => {
            packet.truncate(20);
            let len = random.below(180);
            packet.extend(random.octets(len));
        }
        1 => {
            let len = random.below(packet.len());
            packet.truncate(len);
        }
        2 => {
            let len = 1 + random.below(40);
            packet.extend(random.octets(len));
        }
        _ => {
            for _ in 0..=random.below(3) {
                let at = 20 + random.below(packet.len() - 20);
                packet[at] ^= 1 << random.below(8);
            }
        }
    }
    packet
}

/// What comes of packets with an outer IPv4 header, handed over as `ip_input` does.
fn receive(peers: &mut Peers, packets: &[Vec<u8>]) -> Vec<Mbuf> {
    let mut run = Batch::new();
    for packet in packets {
        let mut m = peers.fixture.packet(packet);
        m.set_l4(20);
        m.hdr_mut().proto = packet.get(9).copied().unwrap_or(0);
        run.push(m).unwrap();
    }
    peers.receive_run(&mut run)
}

/// Runs of such packets; says how many came out of the SA.
fn fuzz(protocol: Protocol, suites: &[Suite]) -> usize {
    let (mut random, mut passed) = (Chance::seeded(SEED), 0);
    let count = if soak() { 10_000_000 } else { 20_000 } / suites.len();
    for &suite in suites {
        let mode = if random.below(2) == 0 { Mode::Tunnel } else { Mode::Transport };
        for mode in [mode, Mode::Tunnel] {
            let replay = if protocol == Protocol::Ipcomp { 0 } else { 64 };
            let config = SaConfig { protocol, mode, replay, ..config(V4, suite) };
            let mut peers = Peers::new(&config, [Engine::Auto; 2]);
            // What compresses, for IPComp; all others do not care.
            let inner =
                build::udp4(Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2), 1, 2, &[7; 200]);
            let wire = peers.send(&[inner]);
            let good = peers.bytes(wire).remove(0);
            let mut left = count / 2;
            while left > 0 {
                let run: Vec<_> = (0..left.min(1 + random.below(RUN)))
                    .map(|_| arriving(&mut random, &good))
                    .filter(|packet| *packet != good)
                    .collect();
                left = left.saturating_sub(run.len().max(1));
                let sent = run.len();
                let arrived = receive(&mut peers, &run);
                let ended: u32 = peers.ended().iter().map(|(_, n)| n).sum();
                assert_eq!(arrived.len() + ended as usize, sent);
                passed += arrived.len();
                peers.bytes(arrived);
            }
            let arrived = receive(&mut peers, &[good]);
            assert_eq!(peers.bytes(arrived).len(), 1, "none of the others moved the window");
        }
    }
    passed
}

#[test]
fn fuzz_of_esp_input() {
    let cbc = Suite::Pair(Cipher::AesCbc(AesKey::Bits128), Auth::HmacSha256);
    let null = Suite::Pair(Cipher::Null, Auth::HmacSha1);
    assert_eq!(fuzz(Protocol::Esp, &[Suite::Aes128Gcm16, cbc, null]), 0, "passed without a key");
}

#[test]
fn fuzz_of_ah_input() {
    let suites = [Suite::Ah(Auth::HmacSha256), Suite::Ah(Auth::HmacSha1)];
    assert_eq!(fuzz(Protocol::Ah, &suites), 0, "passed without a key");
}

#[test]
fn fuzz_of_ipcomp_input() {
    // What inflates, inflates: IPComp protects nothing.
    assert!(fuzz(Protocol::Ipcomp, &[Suite::Deflate]) > 0);
}
