//! Numbers: copies, packets that come late, and the wrap of what is on the wire.

use super::*;

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
