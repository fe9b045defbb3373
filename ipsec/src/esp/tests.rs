//! Two peers in one test: what one sends, the other receives; every packet ends where the test says.

mod beet;
mod fuzz;
mod leaving;
mod lives;
mod modes;
mod natt;
mod outer;
mod reasons;
mod refused;
mod several;
mod window;
mod workers;

use super::{input::esp_input, output::esp_output, *};
use crate::{
    order::{Leave, Worker},
    sa::{Handling, Life, Lifetime, Mode, Padding, Protocol, Sa, SaConfig, SaIndex, Setup, Spi},
    transform::{Engine, RUN, Suite},
};
use kern::{
    Batch, Gso, Mbuf, PktFlags, Why,
    lock::{Leaf, Root, levels},
    secret::SecretBytes,
    testing::{Fixture, soak},
    time::Instant,
};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, atomic},
};
use wire::{IpProto, build, ipv4, ipv6};

const ME: Worker = Worker(0);
pub(super) const V4: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2))];
const V6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 2)),
];

pub(crate) fn config(ends: [IpAddr; 2], suite: Suite) -> SaConfig {
    SaConfig {
        src: ends[0],
        dst: ends[1],
        spi: Spi(0x1000),
        protocol: Protocol::Esp,
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
    }
}

pub(crate) fn material(suite: Suite) -> Arc<SecretBytes> {
    let bytes: Vec<u8> = (0..suite.material_len()).map(|i| (i * 5 + 1) as u8).collect();
    Arc::new(SecretBytes::copy_of(&bytes).unwrap())
}

/// Both ends of one SA, a pool, and the books of what ended why.
struct Peers {
    fixture: Fixture,
    root: Root,
    sender: Arc<Sa>,
    receiver: Arc<Sa>,
    owed: Releasing,
    now: Instant,
    /// What fits the way.
    room: usize,
    ends: BTreeMap<Why, u32>,
}

impl Peers {
    fn new(config: &SaConfig, engines: [Engine; 2]) -> Peers {
        let sa = |index, engine| {
            let setup = Setup { engine, ..Setup::new(Instant::from_secs(1)) };
            Arc::new(Sa::new(SaIndex(index), config.clone(), material(config.suite), &setup).unwrap())
        };
        Peers {
            sender: sa(3, engines[0]),
            receiver: sa(8, engines[1]),
            fixture: Fixture::with_jumbos(256, 80),
            root: Root::claim(),
            owed: Releasing::with_capacity(4),
            now: Instant::from_secs(1),
            room: usize::MAX,
            ends: BTreeMap::new(),
        }
    }

    fn simple() -> Peers {
        Peers::new(&config(V4, Suite::Aes128Gcm16), [Engine::Auto; 2])
    }

    /// Sends packets; what comes out is on the wire.
    fn send(&mut self, packets: &[Vec<u8>]) -> Vec<Mbuf> {
        let mut run = Batch::new();
        for packet in packets {
            run.push(self.fixture.packet(packet)).unwrap();
        }
        self.send_run(&mut run)
    }

    fn send_run(&mut self, run: &mut Batch) -> Vec<Mbuf> {
        let (ends, ledger) = (&mut self.ends, &self.fixture.ledger);
        let protocol = self.sender.config().protocol;
        let mut turn = LoopTurn { worker: ME, now: self.now, releasing: &mut self.owed };
        esp_output(&self.sender, run, self.room, &mut turn, &mut self.root.top(), |m, why| {
            reasons::check(protocol, why);
            *ends.entry(why).or_default() += 1;
            m.end(why, ledger);
        });
        run.drain().collect()
    }

    /// Receives packets as `ip_input` hands them over.
    fn receive(&mut self, packets: impl IntoIterator<Item = Mbuf>) -> Vec<Mbuf> {
        let mut run = Batch::new();
        for mut m in packets {
            let outer = if m.data().first().is_some_and(|b| b >> 4 == 6) { 40 } else { 20 };
            m.set_l4(outer);
            run.push(m).unwrap();
        }
        self.receive_run(&mut run)
    }

    /// As `receive`, with `l4` set by the test.
    fn receive_run(&mut self, run: &mut Batch) -> Vec<Mbuf> {
        let (ends, ledger) = (&mut self.ends, &self.fixture.ledger);
        let protocol = self.sender.config().protocol;
        let mut turn = LoopTurn { worker: ME, now: self.now, releasing: &mut self.owed };
        esp_input(&self.receiver, run, &mut turn, &mut self.root.top(), |m, why| {
            reasons::check(protocol, why);
            *ends.entry(why).or_default() += 1;
            m.end(why, ledger);
        })
        .unwrap();
        run.drain().collect()
    }

    /// Takes finished packets out of the test; their bytes.
    fn bytes(&self, packets: impl IntoIterator<Item = Mbuf>) -> Vec<Vec<u8>> {
        packets
            .into_iter()
            .map(|m| {
                let bytes = m.data().to_vec();
                self.fixture.done(m);
                bytes
            })
            .collect()
    }

    /// What ended, and why, since the last time.
    fn ended(&mut self) -> Vec<(Why, u32)> {
        std::mem::take(&mut self.ends).into_iter().collect()
    }

    /// A packet on the wire with any payload, trailer included, sealed by the sender's key.
    fn forge(&mut self, seq: u64, payload: &[u8]) -> Mbuf {
        let (sa, esp) = (&self.sender, self.sender.layout.esp());
        let total = sa.layout.head() + payload.len() + sa.layout.icv();
        let mut bytes = vec![0; total];
        sa.layout.write_head(&mut bytes, total, 0, true, seq).unwrap();
        bytes[sa.layout.head()..][..payload.len()].copy_from_slice(payload);
        assert!(!sa.transform.seal_run(std::iter::once((&mut bytes[esp..], seq, seq))).any());
        self.fixture.packet(&bytes)
    }
}

fn v4(len: usize) -> Vec<u8> {
    v4_with(len, ipv4::Repr::default())
}

fn v4_with(len: usize, repr: ipv4::Repr) -> Vec<u8> {
    let (src, dst) = (Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(198, 51, 100, 20));
    let payload: Vec<u8> = (0..len - 20).map(|i| (i * 3) as u8).collect();
    build::raw4(ipv4::Repr { src, dst, proto: IpProto::UDP, ..repr }, &payload)
}

fn v6(len: usize) -> Vec<u8> {
    v6_with(len, ipv6::Repr::default())
}

fn v6_with(len: usize, repr: ipv6::Repr) -> Vec<u8> {
    let (src, dst) = ("2001:db8:a::10".parse().unwrap(), "2001:db8:b::20".parse().unwrap());
    let payload: Vec<u8> = (0..len - 40).map(|i| (i * 3) as u8).collect();
    build::raw6(ipv6::Repr { src, dst, next_header: IpProto::UDP, ..repr }, &payload)
}

#[test]
fn packets_arrive_as_they_were_sent_for_every_family_suite_and_pair_of_engines() {
    for ends in [V4, V6] {
        for suite in Suite::ALL {
            for (sender, receiver) in Engine::ALL.into_iter().zip(Engine::ALL.into_iter().cycle().skip(1)) {
                let mut peers = Peers::new(&config(ends, suite), [sender, receiver]);
                for len in (40..60).chain([570, 1399, 1400, 1446, 8900]) {
                    let sent = vec![v4(len - 20), v6(len), v4(len), v6(len + 7)];
                    let wire = peers.send(&sent);
                    assert!(wire.iter().all(|m| m.len() % 4 == 0));
                    let arrived = peers.receive(wire);
                    for (m, family) in arrived.iter().zip([4, 6, 4, 6]) {
                        assert_eq!((m.hdr().family, m.hdr().sa), (family, 9), "{suite} {len}");
                    }
                    assert_eq!(peers.bytes(arrived), sent, "{suite} {sender} {receiver} {len}");
                }
                assert_eq!(peers.ended(), []);
            }
        }
    }
}

#[test]
fn traffic_is_counted_alike_at_both_ends() {
    let mut peers = Peers::simple();
    for len in 40..90 {
        peers.now = Instant::from_secs(len as u64);
        let wire = peers.send(&[v4(len), v6(len + 3)]);
        let arrived = peers.receive(wire);
        peers.bytes(arrived);
    }
    let (sent, received) =
        (peers.sender.status(&mut peers.root.top()), peers.receiver.status(&mut peers.root.top()));
    assert_eq!(sent.sent, received.received);
    assert_eq!((sent.sent.packets, sent.sequence, received.top), (100, 100, 100));
    assert_eq!(sent.sent.bytes, (40..90).map(|l| 2 * l + 3).sum::<u64>());
    assert_eq!((sent.sent.first, sent.sent.last), (Instant::from_secs(40), Instant::from_secs(89)));
    assert_eq!(sent.received.packets + received.sent.packets, 0);
}

/// RFC 7634, Appendix A: the same bytes come out of the whole of `esp_output`.
#[test]
fn the_packet_of_rfc_7634_comes_out_of_esp_output() {
    let hex = |text: &str| -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap())
            .collect()
    };
    let key: Vec<u8> = (0x80..=0x9f).chain(0xa0..=0xa3).collect();
    let inner = hex(concat!(
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10",
        "0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
        "2425262728292a2b2c2d2e2f3031323334353637",
    ));
    let expected = hex(concat!(
        "01020304000000051011121314151617",
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6",
        "14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3",
        "cbec163fac469b502773f6fb94e664da9165b82829f641e0",
        "76aaa8266b7fb0f7b11b369907e1ad43",
    ));
    for engine in Engine::ALL {
        let mut peers = Peers::simple();
        let config = SaConfig { spi: Spi(0x0102_0304), ..config(V4, Suite::ChaCha20Poly1305) };
        let iv_base = Some(0x1011_1213_1415_1617 - 5);
        let setup = Setup { engine, iv_base, ..Setup::new(peers.now) };
        let secret = Arc::new(SecretBytes::copy_of(&key).unwrap());
        peers.sender = Arc::new(Sa::new(SaIndex(0), config, secret, &setup).unwrap());
        peers.sender.set_next_sequence(&mut peers.root.top(), 5);
        let wire = peers.send(std::slice::from_ref(&inner));
        assert_eq!(peers.bytes(wire)[0][20..], expected, "{engine}");
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape of a sink")]
fn no_failure(m: Mbuf, why: Why) {
    panic!("{why:?}: {m:?}");
}

proptest! {
    #[test]
    fn any_packet_ip_can_carry_arrives_as_it_was(
        lens in proptest::collection::vec((40usize..3000, any::<bool>(), any::<u8>(), any::<bool>()), 1..64),
        outer6: bool, suite in 0usize..3, esn: bool,
    ) {
        let ends = if outer6 { V6 } else { V4 };
        let mut peers =
            Peers::new(&SaConfig { esn, ..config(ends, Suite::ALL[suite]) }, [Engine::Auto, Engine::Ring]);
        let sent: Vec<_> = lens.iter().map(|&(len, six, class, df)| if six {
            v6_with(len, ipv6::Repr { traffic_class: class, flow_label: len as u32, ..Default::default() })
        } else {
            v4_with(len, ipv4::Repr { tos: class, frag: if df { ipv4::DF } else { 0 }, ..Default::default() })
        }).collect();
        let wire = peers.send(&sent);
        let arrived = peers.receive(wire);
        prop_assert_eq!(peers.bytes(arrived), sent);
    }
}
