//! How an SA ends, and what it keeps when it is configured anew.

use super::*;

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
