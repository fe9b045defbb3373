//! Two peers in one test: what one sends, the other receives; every packet ends where the test says.

mod beet;
mod fuzz;
mod leaving;
mod modes;
mod natt;
mod reasons;
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

pub(super) fn config(ends: [IpAddr; 2], suite: Suite) -> SaConfig {
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

fn material(suite: Suite) -> Arc<SecretBytes> {
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
        esp_output(&self.sender, run, &mut turn, &mut self.root.top(), |m, why| {
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
fn the_outer_header_is_what_rfc_4301_and_6040_say() {
    let mut peers = Peers::simple();
    let inner = ipv4::Repr { tos: 0xb9, frag: ipv4::DF, ttl: 7, ..Default::default() };
    let sent = [
        v4_with(100, inner),
        v4(100),
        v6_with(100, ipv6::Repr { traffic_class: 0x2f, ..Default::default() }),
    ];
    let wire = peers.send(&sent);
    let heads: Vec<_> = wire.iter().map(|m| ipv4::Packet::new_checked(m.data().to_vec()).unwrap()).collect();
    for (n, h) in (1u32..).zip(&heads) {
        assert!(h.checksum_ok());
        let ends = (IpAddr::V4(h.src()), IpAddr::V4(h.dst()));
        assert_eq!((h.ttl(), h.proto(), ends), (64, IpProto::ESP, (V4[0], V4[1])));
        let esp = wire::esp::Packet::new_checked(&h.octets()[20..]).unwrap();
        assert_eq!((esp.spi(), esp.seq()), (0x1000, n));
    }
    assert_eq!((heads[0].tos(), heads[0].dont_fragment(), heads[0].ident()), (0xb9, true, 0));
    assert_eq!((heads[1].tos(), heads[1].dont_fragment(), heads[1].ident()), (0, false, 2));
    assert_eq!(
        (heads[2].tos(), heads[2].dont_fragment(), heads[2].ident()),
        (0x2f, true, 0),
        "IPv6 is never fragmented"
    );
    for m in &wire {
        let (h, df) = (m.hdr(), m.hdr().flags.has(PktFlags::DF));
        assert_eq!((h.family, h.proto, m.l3(), m.l4()), (4, 50, 0, 20));
        assert!(h.flags.has(PktFlags::PROTECTED) && h.hash != 0);
        assert_eq!(df, m.data()[6] & 0x40 != 0);
    }
    let arrived = peers.receive(wire);
    assert_eq!(peers.bytes(arrived), sent);
}

#[test]
fn the_outer_header_over_ipv6_carries_class_length_and_no_flow_label() {
    let mut peers = Peers::new(&config(V6, Suite::Aes256Gcm16), [Engine::Auto; 2]);
    let wire = peers.send(&[v4_with(61, ipv4::Repr { tos: 0xb8, ..Default::default() })]);
    let h = ipv6::Packet::new_checked(wire[0].data().to_vec()).unwrap();
    assert_eq!(
        (h.traffic_class(), h.flow_label(), h.hop_limit(), h.next_header()),
        (0xb8, 0, 64, IpProto::ESP)
    );
    assert_eq!(40 + usize::from(h.payload_len()), wire[0].len());
    assert_eq!((wire[0].hdr().family, wire[0].l4()), (6, 40));
    let arrived = peers.receive(wire);
    peers.bytes(arrived);
}

#[test]
fn tag_and_queue_travel_with_the_outer_packet_and_the_inner_state_does_not() {
    let mut peers = Peers::simple();
    let mut m = peers.fixture.packet(&v4(60));
    let h = m.hdr_mut();
    (h.tag, h.queue, h.prio, h.rcvif, h.state, h.state_gen, h.sa) = (7, 3, 2, 5, 99, 98, 4);
    let mut run = Batch::new();
    run.push(m).unwrap();
    let wire = peers.send_run(&mut run);
    let h = wire[0].hdr();
    assert_eq!((h.tag, h.queue, h.prio, h.rcvif), (7, 3, 2, 5));
    assert_eq!((h.state, h.state_gen, h.sa), (0, 0, 0));
    let arrived = peers.receive(wire);
    let h = arrived[0].hdr();
    assert_eq!((h.tag, h.hash, h.state, h.state_gen, h.flags), (7, 0, 0, 0, PktFlags::empty()));
    peers.bytes(arrived);
}

#[test]
fn congestion_marked_on_the_way_reaches_the_inner_packet_or_ends_it() {
    for ends in [V4, V6] {
        let mut peers = Peers::new(&config(ends, Suite::Aes128Gcm16), [Engine::Auto; 2]);
        let sent = [
            v4_with(60, ipv4::Repr { tos: 0xb8, ..Default::default() }),
            v4_with(60, ipv4::Repr { tos: 0xba, ..Default::default() }),
            v6_with(60, ipv6::Repr { traffic_class: 0x01, ..Default::default() }),
            v6_with(60, ipv6::Repr { traffic_class: 0x00, ..Default::default() }),
        ];
        let mut wire = peers.send(&sent);
        for m in &mut wire {
            let outer = m.data_mut();
            if ends == V4 { outer[1] |= 3 } else { outer[1] |= 0x30 }
        }
        let arrived = peers.receive(wire);
        assert_eq!(peers.ended(), [(Why::EspEcn, 2)]);
        let arrived = peers.bytes(arrived);
        let header = ipv4::Packet::new_checked(&arrived[0]).unwrap();
        assert!(header.tos() == 0xbb && header.checksum_ok());
        assert_eq!(ipv6::Packet::new_checked(&arrived[1]).unwrap().traffic_class(), 0x03);
    }
}

#[test]
fn a_packet_cut_at_any_length_ends_for_the_right_reason() {
    for suite in Suite::ALL {
        for ends in [V4, V6] {
            let mut peers = Peers::new(&config(ends, suite), [Engine::Auto; 2]);
            let wire = peers.send(&[v4(77)]);
            let whole = peers.bytes(wire).remove(0);
            let esp = peers.sender.layout.esp();
            for len in 0..whole.len() {
                let cut = peers.fixture.packet(&whole[..len]);
                let mut run = Batch::new();
                let mut m = cut;
                m.set_l4(esp);
                run.push(m).unwrap();
                let arrived = peers.receive_run(&mut run);
                assert!(arrived.is_empty(), "length {len}");
                let long_enough = len >= esp + 36 && (len - esp).is_multiple_of(4);
                let why = if long_enough { Why::EspAuth } else { Why::EspMalformed };
                assert_eq!(peers.ended(), [(why, 1)], "length {len}");
            }
            let m = peers.fixture.packet(&whole);
            let arrived = peers.receive([m]);
            assert_eq!(arrived.len(), 1, "none of the others moved the window");
            peers.bytes(arrived);
        }
    }
}

#[test]
fn a_packet_changed_in_any_byte_behind_the_outer_header_never_passes() {
    for suite in Suite::ALL {
        let mut peers = Peers::new(&config(V4, suite), [Engine::Auto; 2]);
        let wire = peers.send(&[v4(50)]);
        let whole = peers.bytes(wire).remove(0);
        for at in 20..whole.len() {
            for bit in [0, 7] {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                let m = peers.fixture.packet(&changed);
                assert!(peers.receive([m]).is_empty(), "byte {at}");
                let ended = peers.ended();
                // Number 0 is refused before anything is opened.
                let replayed = changed[24..28] == [0; 4];
                assert_eq!(ended, [(if replayed { Why::EspReplay } else { Why::EspAuth }, 1)], "byte {at}");
            }
        }
        let m = peers.fixture.packet(&whole);
        let arrived = peers.receive([m]);
        assert_eq!(peers.bytes(arrived).len(), 1);
        let status = peers.receiver.status(&mut peers.root.top());
        assert_eq!((status.received.packets, status.received_refused.other), (1, 0));
        assert!(status.received_refused.auth > 100);
    }
}

#[test]
fn a_replayed_packet_is_refused_whether_it_comes_later_or_in_the_same_run() {
    let mut peers = Peers::simple();
    let wire = peers.send(&[v4(60), v4(61), v4(62)]);
    let copies = peers.bytes(wire);
    let run: Vec<_> = [0, 1, 0, 2, 2].iter().map(|i| peers.fixture.packet(&copies[*i])).collect();
    let arrived = peers.receive(run);
    assert_eq!(peers.bytes(arrived), [v4(60), v4(61), v4(62)]);
    assert_eq!(peers.ended(), [(Why::EspReplay, 2)]);
    let again: Vec<_> = copies.iter().map(|c| peers.fixture.packet(c)).collect();
    assert!(peers.receive(again).is_empty());
    assert_eq!(peers.ended(), [(Why::EspReplay, 3)]);
    assert_eq!(peers.receiver.status(&mut peers.root.top()).received_refused.replay, 5);
}

#[test]
fn packets_that_come_late_are_accepted_within_the_window_and_refused_behind_it() {
    let mut peers = Peers::simple();
    let mut wire = vec![];
    for _ in 0..3 {
        let more = peers.send(&vec![v4(40); RUN]);
        wire.extend(peers.bytes(more));
    }
    let newest = peers.fixture.packet(&wire[150]);
    let arrived = peers.receive([newest]);
    peers.bytes(arrived);
    for (n, copy) in wire.iter().enumerate() {
        let m = peers.fixture.packet(copy);
        let arrived = peers.receive([m]);
        let expected = n > 150 || (87..150).contains(&n);
        assert_eq!(peers.bytes(arrived).len(), usize::from(expected), "packet {n}");
    }
}

#[test]
fn without_a_window_a_copy_is_accepted_as_setkey_says() {
    let mut peers = Peers::new(&SaConfig { replay: 0, ..config(V4, Suite::Aes128Gcm16) }, [Engine::Auto; 2]);
    let wire = peers.send(&[v4(60)]);
    let copies = peers.bytes(wire);
    let run = [peers.fixture.packet(&copies[0]), peers.fixture.packet(&copies[0])];
    let arrived = peers.receive(run);
    assert_eq!(peers.bytes(arrived).len(), 2);
}

#[test]
fn extended_sequence_numbers_pass_the_wrap_of_what_is_on_the_wire() {
    for suite in Suite::ALL {
        let mut peers = Peers::new(&SaConfig { esn: true, ..config(V4, suite) }, [Engine::Auto; 2]);
        let start = (5u64 << 32) - 20;
        peers.sender.set_next_sequence(&mut peers.root.top(), start);
        peers.receiver.set_window_top(&mut peers.root.top(), start - 1);
        let sent = vec![v6(80); 40];
        let wire = peers.send(&sent);
        let lows: Vec<_> = wire.iter().map(|m| low_seq(&m.data()[20..])).collect();
        assert_eq!((lows[0], lows[19], lows[20]), (u32::MAX - 19, u32::MAX, 0));
        let arrived = peers.receive(wire.into_iter().rev());
        assert_eq!(peers.bytes(arrived), sent);
        let status = peers.receiver.status(&mut peers.root.top());
        assert_eq!(status.top, start + 39);
    }
}

#[test]
fn an_sa_out_of_numbers_stops_counts_and_is_dead() {
    let mut peers = Peers::simple();
    peers.sender.set_next_sequence(&mut peers.root.top(), u64::from(u32::MAX) - 1);
    let wire = peers.send(&[v4(40), v4(41), v4(42)]);
    assert_eq!(peers.ended(), [(Why::EspSequence, 1)]);
    assert_eq!(peers.bytes(wire).len(), 2);
    assert!(peers.send(&[v4(40)]).is_empty());
    assert_eq!((peers.ended(), peers.sender.life()), (vec![(Why::EspSequence, 1)], Life::Dead));
    assert!(peers.send(&[v4(40)]).is_empty());
    assert_eq!(peers.ended(), [(Why::EspLifetime, 1)]);
    let status = peers.sender.status(&mut peers.root.top());
    assert_eq!(
        (status.sequence, status.sent.packets, status.sent_refused.expired),
        (u64::from(u32::MAX), 2, 3)
    );
}

#[test]
fn lifetimes_make_an_sa_dying_and_then_dead_by_bytes_packets_and_time() {
    let limits = [
        Lifetime { bytes: Some(1000), ..Default::default() },
        Lifetime { packets: Some(10), ..Default::default() },
        Lifetime { seconds: Some(10), ..Default::default() },
    ];
    for hard in limits {
        let soft = Lifetime {
            bytes: hard.bytes.map(|b| b / 2),
            packets: hard.packets.map(|p| p / 2),
            seconds: hard.seconds.map(|s| s / 2),
        };
        let mut peers =
            Peers::new(&SaConfig { soft, hard, ..config(V4, Suite::Aes128Gcm16) }, [Engine::Auto; 2]);
        let mut lives = vec![];
        for second in 1..13 {
            peers.now = Instant::from_secs(second);
            let wire = peers.send(&[v4(100)]);
            lives.push((wire.len(), peers.sender.life()));
            let arrived = peers.receive(wire);
            peers.bytes(arrived);
        }
        let mature = lives.iter().filter(|l| **l == (1, Life::Mature)).count();
        let dying = lives.iter().filter(|l| **l == (1, Life::Dying)).count();
        let dead = lives.iter().filter(|l| **l == (0, Life::Dead)).count();
        assert_eq!((mature, dying, dead), (5, 5, 2), "{hard:?}");
        assert_eq!(peers.ended(), [(Why::EspLifetime, 2)]);
        if hard.seconds.is_some() {
            let m = peers.forge(99, &[v4(40), vec![1, 2, 2, 4]].concat());
            assert!(peers.receive([m]).is_empty());
            assert_eq!(peers.ended(), [(Why::EspLifetime, 1)]);
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

#[test]
fn payloads_that_verify_and_make_no_sense_end_for_the_right_reason() {
    let packet = v4(42);
    let cases: [(Vec<u8>, Option<Why>); 9] = [
        ([packet.clone(), vec![0, 4]].concat(), None),
        ([packet.clone(), vec![9, 9, 9, 9, 4, 4]].concat(), None),
        ([packet.clone(), vec![0, 59]].concat(), Some(Why::EspDummy)),
        ([packet.clone(), vec![0, 17]].concat(), Some(Why::EspProtocol)),
        ([packet.clone(), vec![0, 41]].concat(), Some(Why::EspPadding)),
        ([packet.clone(), vec![43, 4]].concat(), Some(Why::EspPadding)),
        ([packet.clone(), vec![255, 4]].concat(), Some(Why::EspPadding)),
        ([packet.clone(), vec![30, 4]].concat(), Some(Why::EspPadding)),
        (vec![1, 2, 2, 59], Some(Why::EspDummy)),
    ];
    let mut peers = Peers::simple();
    for (seq, (payload, why)) in (1..).zip(cases) {
        let m = peers.forge(seq, &payload);
        let arrived = peers.receive([m]);
        match why {
            None => assert_eq!(peers.bytes(arrived), std::slice::from_ref(&packet)),
            Some(why) => assert_eq!((arrived.len(), peers.ended()), (0, vec![(why, 1)]), "{payload:?}"),
        }
    }
    assert_eq!(
        peers.receiver.status(&mut peers.root.top()).top,
        9,
        "they verified, so their numbers are taken"
    );
}

#[test]
fn what_verifies_and_makes_no_sense_is_marked_in_its_turn_and_makes_none_before_it_late() {
    let sa = SaConfig { replay: 32, ..config(V4, Suite::Aes128Gcm16) };
    let mut peers = Peers::new(&sa, [Engine::Auto; 2]);
    let whole = [v4(42), vec![0, 4]].concat();
    let mut run: Vec<Mbuf> = (1..64).map(|seq| peers.forge(seq, &whole)).collect();
    run.push(peers.forge(64, &[v4(42), vec![0, 59]].concat()));
    let arrived = peers.receive(run);
    assert_eq!((peers.bytes(arrived).len(), peers.ended()), (63, vec![(Why::EspDummy, 1)]));
    // It has been marked, and counts as received.
    let again = peers.forge(64, &whole);
    assert!(peers.receive([again]).is_empty());
    assert_eq!(peers.ended(), [(Why::EspReplay, 1)]);
    assert_eq!(peers.receiver.status(&mut peers.root.top()).received.packets, 64);
}

#[test]
fn padding_is_looked_at_only_if_the_sa_says_what_it_is() {
    let strict = SaConfig { padding: Padding::Seq, ..config(V4, Suite::Aes128Gcm16) };
    let mut peers = Peers::new(&strict, [Engine::Auto; 2]);
    let packet = v4(42);
    let good = peers.forge(1, &[packet.clone(), vec![1, 2, 3, 4, 4, 4]].concat());
    let bad = peers.forge(2, &[packet.clone(), vec![1, 2, 3, 0, 4, 4]].concat());
    let arrived = peers.receive([good, bad]);
    assert_eq!((peers.bytes(arrived), peers.ended()), (vec![packet], vec![(Why::EspPadding, 1)]));
    let zero = SaConfig { padding: Padding::Zero, ..config(V4, Suite::Aes128Gcm16) };
    drop(peers);
    let mut peers = Peers::new(&zero, [Engine::Auto; 2]);
    let wire = peers.send(&[v4(43)]);
    let arrived = peers.receive(wire);
    assert_eq!(peers.bytes(arrived), [v4(43)]);
}

#[test]
fn padding_for_traffic_flow_confidentiality_is_taken_off() {
    let mut peers = Peers::simple();
    for (seq, packet) in [(1, v4(42)), (2, v6(62))] {
        let next = if packet[0] >> 4 == 4 { 4 } else { 41 };
        let m = peers.forge(seq, &[packet.clone(), vec![0; 400], vec![0, next]].concat());
        let arrived = peers.receive([m]);
        assert_eq!(peers.bytes(arrived), [packet]);
    }
}

#[test]
fn an_inner_packet_longer_than_what_came_is_left_to_ip_input() {
    let mut peers = Peers::simple();
    let cut = &v4(142)[..42];
    let m = peers.forge(1, &[cut, &[0, 4]].concat());
    let arrived = peers.receive([m]);
    assert_eq!(peers.bytes(arrived), [cut.to_vec()]);
}

#[test]
fn packets_esp_can_not_carry_are_given_back() {
    let mut peers = Peers::simple();
    let mut strange = v4(60);
    strange[0] = 0x55;
    let wire = peers.send(&[strange, vec![], vec![0x45; 5], v4(60)]);
    assert_eq!(peers.ended(), [(Why::EspProtocol, 3)]);
    assert_eq!(low_seq(&wire[0].data()[20..]), 4, "numbers are not used again");
    peers.bytes(wire);

    let wire = peers.send(&[v4(65_478), v4(65_479)]);
    assert_eq!((peers.ended(), wire.len()), (vec![(Why::EspTooBig, 1)], 1));
    assert_eq!(wire[0].len(), 65_532);
    peers.bytes(wire);

    let mut m = peers.fixture.packet(&v4(60));
    while m.headroom() > 30 {
        m.prepend(1).unwrap()[0] = 0x45;
    }
    let mut run = Batch::new();
    run.push(m).unwrap();
    assert!(peers.send_run(&mut run).is_empty());
    assert_eq!(peers.ended(), [(Why::Headroom, 1)]);
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "cutting and finishing the checksum come before ESP"))]
fn a_packet_that_is_not_finished_is_a_fault_of_the_caller() {
    let mut peers = Peers::simple();
    let mut m = peers.fixture.packet(&v4(60));
    m.set_gso(Gso::Tcp4, 1000);
    let mut run = Batch::new();
    run.push(m).unwrap();
    assert!(peers.send_run(&mut run).is_empty());
    assert_eq!(peers.ended(), [(Why::EspUnfinished, 1)]);
}

#[test]
fn the_inner_mtu_is_the_largest_packet_that_fits() {
    for (ends, expected) in [(V4, 1446), (V6, 1426)] {
        let mut peers = Peers::new(&config(ends, Suite::Aes128Gcm16), [Engine::Auto; 2]);
        assert_eq!(peers.sender.inner_mtu(1500), expected);
        for mtu in 1280..1300 {
            let inner = peers.sender.inner_mtu(mtu);
            let wire = peers.send(&[v4(inner), v4(inner + 1)]);
            assert!(wire[0].len() <= mtu && wire[1].len() > mtu, "{mtu}");
            assert!(wire[0].len() <= inner + peers.sender.overhead());
            peers.bytes(wire);
        }
    }
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

#[test]
fn the_same_key_set_up_again_makes_other_nonces() {
    let ivs: Vec<Vec<u8>> = (0..2)
        .map(|_| {
            let mut peers = Peers::simple();
            let wire = peers.send(&[v4(60)]);
            peers.bytes(wire)[0][28..36].to_vec()
        })
        .collect();
    assert_ne!(ivs[0], ivs[1]);
}

#[test]
fn an_sa_configured_anew_goes_on_counting_and_remembers_what_it_saw() {
    let mut peers = Peers::simple();
    let wire = peers.send(&vec![v4(60); 10]);
    let copies = peers.bytes(wire);
    let all: Vec<_> = copies.iter().map(|c| peers.fixture.packet(c)).collect();
    let arrived = peers.receive(all);
    peers.bytes(arrived);
    let mut config = peers.sender.config().clone();
    config.replay = 4096;
    config.hard.packets = Some(1000);
    let setup = Setup::new(peers.now);
    peers.sender =
        Arc::new(Sa::continuing(&peers.sender, config.clone(), &setup, &mut peers.root.top()).unwrap());
    peers.receiver =
        Arc::new(Sa::continuing(&peers.receiver, config, &setup, &mut peers.root.top()).unwrap());
    assert_eq!(peers.receiver.index(), SaIndex(8));
    let replayed = peers.fixture.packet(&copies[3]);
    assert!(peers.receive([replayed]).is_empty());
    assert_eq!(peers.ended(), [(Why::EspReplay, 1)]);
    let wire = peers.send(&[v4(60)]);
    assert_eq!(low_seq(&wire[0].data()[20..]), 11);
    let arrived = peers.receive(wire);
    assert_eq!(peers.bytes(arrived).len(), 1);
}

/// An SA for three workers, and a receiver's.
fn shared() -> (Fixture, Arc<Sa>, Arc<Sa>) {
    let setup = Setup { workers: 3, ..Setup::new(Instant::from_secs(1)) };
    let config = SaConfig { replay: 32, ..config(V4, Suite::Aes128Gcm16) };
    let sa = |i| Arc::new(Sa::new(SaIndex(i), config.clone(), material(config.suite), &setup).unwrap());
    (Fixture::new(8192), sa(0), sa(1))
}

#[allow(clippy::needless_pass_by_value, reason = "the shape of a sink")]
fn no_failure(m: Mbuf, why: Why) {
    panic!("{why:?}: {m:?}");
}

#[test]
fn several_workers_seal_for_one_sa_and_the_wire_sees_every_number_in_order() {
    let packets = if soak() { 1_000_000 } else { 40_000 };
    let (fixture, sender, _) = shared();
    let device: Leaf<Vec<u32>, levels::Log> = Leaf::new(vec![]);
    let made = atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for w in 0..3 {
            let (pool, sender, device, made) = (&fixture.pool, &sender, &device, &made);
            scope.spawn(move || {
                let (mut root, ledger) = (Root::claim(), kern::Ledger::new());
                let mut owed = Releasing::with_capacity(2);
                let (mut unsealed, mut run) = (Batch::new(), Batch::new());
                let (worker, now, packet) = (Worker(w), Instant::from_secs(2), v4(60));
                loop {
                    if unsealed.is_empty() && made.fetch_add(8, atomic::Ordering::Relaxed) < packets {
                        for _ in 0..8 {
                            let mut m = pool.alloc(kern::Class::Cluster, kern::Owner::Worker).unwrap();
                            m.append(60).unwrap().copy_from_slice(&packet);
                            ledger.receive(&mut m);
                            unsealed.push(m).unwrap();
                        }
                    }
                    if unsealed.is_empty() && owed.is_empty() {
                        break;
                    }
                    let mut turn = LoopTurn { worker, now, releasing: &mut owed };
                    if unsealed.len() <= turn.releasing.room() {
                        esp_output(sender, &mut unsealed, &mut turn, &mut root.top(), no_failure);
                        std::mem::swap(&mut unsealed, &mut run);
                    }
                    loop {
                        device.with(|log| log.extend(run.iter().map(|m| low_seq(&m.data()[20..]))));
                        ledger.sent_all(&mut run);
                        if !owed.written_output(|_| Some(sender), &mut run, 256) {
                            break;
                        }
                    }
                    std::thread::yield_now();
                }
            });
        }
    });
    let numbers = device.with(std::mem::take);
    assert_eq!(numbers.len() as u32, packets);
    assert!(numbers.iter().zip(1..).all(|(seq, n)| *seq == n), "in sequence, none missing");
}

#[test]
fn several_workers_open_one_tunnel_and_the_inside_sees_every_packet_in_order() {
    let runs = if soak() { 50_000 } else { 1500 };
    let (fixture, sender, receiver) = shared();
    let inside: Leaf<Vec<u32>, levels::Log> = Leaf::new(vec![]);
    std::thread::scope(|scope| {
        let (pool, sender, receiver, inside) = (&fixture.pool, &sender, &receiver, &inside);
        let mut jobs = vec![];
        for w in 0..2 {
            let (give, take) = std::sync::mpsc::sync_channel::<input::Pending<Arc<Sa>, Box<Batch>>>(2);
            jobs.push(give);
            scope.spawn(move || {
                let (mut root, ledger) = (Root::claim(), kern::Ledger::new());
                let mut owed = Releasing::with_capacity(2);
                let (worker, now) = (Worker(w), Instant::from_secs(2));
                for pending in take {
                    let opened = pending.open(&mut root.top(), no_failure);
                    let (mut run, leave) = input::finish(opened, worker, &mut root.top(), no_failure);
                    if leave == Leave::Taken {
                        owed.note_input(receiver);
                    }
                    loop {
                        let number = |m: &Mbuf| u32::from_be_bytes(m.data()[20..24].try_into().unwrap());
                        inside.with(|log| log.extend(run.iter().map(number)));
                        run.drain().for_each(|m| m.end(Why::Sink, &ledger));
                        if !owed.written_input(worker, now, &mut run, &mut root.top(), no_failure) {
                            break;
                        }
                    }
                }
                assert!(owed.is_empty());
            });
        }
        // The reader seals eight packets at a time, as the peer, and gives them to whoever is free.
        let (mut root, ledger) = (Root::claim(), kern::Ledger::new());
        let (worker, now) = (Worker(7), Instant::from_secs(2));
        let (mut owed, mut number) = (Releasing::with_capacity(2), 0u32);
        for turn in 0..runs {
            let mut run = Box::new(Batch::new());
            for _ in 0..=turn % 8 {
                let mut m = pool.alloc(kern::Class::Cluster, kern::Owner::Worker).unwrap();
                m.append(60).unwrap().copy_from_slice(&v4(60));
                m.data_mut()[20..24].copy_from_slice(&number.to_be_bytes());
                number += 1;
                ledger.receive(&mut m);
                run.push(m).unwrap();
            }
            let mut loop_turn = LoopTurn { worker, now, releasing: &mut owed };
            esp_output(sender, &mut run, &mut loop_turn, &mut root.top(), no_failure);
            owed.written_output(|_| Some(sender), &mut Batch::new(), 256);
            let mut pending = input::begin(Arc::clone(receiver), run, now, &mut root.top(), no_failure);
            let pending = loop {
                match pending {
                    Ok(pending) => break pending,
                    Err(declined) => {
                        assert_eq!(declined.why, NotNow::Busy);
                        std::thread::yield_now();
                        let again = Arc::clone(receiver);
                        pending = input::begin(again, declined.run, now, &mut root.top(), no_failure);
                    }
                }
            };
            assert!(jobs[turn % 2].send(pending).is_ok());
        }
    });
    let numbers = inside.with(std::mem::take);
    let expected = (0..runs).map(|turn| 1 + turn % 8).sum::<usize>();
    assert_eq!(numbers.len(), expected);
    assert!(numbers.iter().zip(0..).all(|(seen, n)| *seen == n), "in order, none missing");
}

proptest! {
    #[test]
    fn bytes_that_claim_to_be_esp_never_pass_and_never_unbalance(
        runs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..64),
        at in 0usize..60,
    ) {
        let mut peers = Peers::simple();
        let mut run = Batch::new();
        for bytes in &runs {
            let mut m = peers.fixture.packet(bytes);
            m.set_l4(at);
            run.push(m).unwrap();
        }
        prop_assert!(peers.receive_run(&mut run).is_empty());
        prop_assert_eq!(peers.ended().iter().map(|e| e.1 as usize).sum::<usize>(), runs.len());
    }

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
