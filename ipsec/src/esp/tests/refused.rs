//! What does not pass, each for its own reason: cut short, changed, well sealed and senseless, or not to be sealed at all.

use super::*;

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
}
