use super::{captures::pair, copier::Copiers, *};
use crate::control::socket::Session;

fn seen(octet: u8, packet: &[u8]) -> Vec<u8> {
    [&[octet; 4], packet].concat()
}

fn copy(copiers: &mut Copiers, at: u64, packet: &[u8]) {
    let seen = Seen { at: Instant::from_nanos(at), inbound: false, header: &[7; 4], packet };
    copiers.copy(Tap::Enc, &seen);
}

#[test]
fn what_is_shown_comes_whole_or_cut() {
    let (copier, mut end) = pair(Session(1), Tap::Enc, 100);
    let mut copiers = Copiers::default();
    assert!(!copiers.look_at(Tap::Enc));
    copiers.add(copier);
    assert!(copiers.look_at(Tap::Enc));
    copy(&mut copiers, 2, &[2; 20]);
    assert!(end.seen.is_empty(), "not shown yet");
    copy(&mut copiers, 3, &[3; 200]);
    copiers.show(Tap::Enc);
    let frames: Vec<_> = std::iter::from_fn(|| end.seen.pop()).collect();
    let told: Vec<_> = frames.iter().map(|f| (f.at.nanos(), f.len, f.octets.clone())).collect();
    assert_eq!(told, [(2, 24, seen(7, &[2; 20])), (3, 204, seen(7, &[3; 96]))]);
    copiers.remove(Session(2));
    assert!(copiers.look_at(Tap::Enc));
    copiers.remove(Session(1));
    assert!(!copiers.look_at(Tap::Enc) && end.seen.is_abandoned());
}

#[test]
fn a_client_that_does_not_take_frames_loses_packets_that_are_counted() {
    let (copier, mut end) = pair(Session(1), Tap::Enc, 65_535);
    let mut copiers = Copiers::default();
    copiers.add(copier);
    for round in 0..3 {
        for n in 0..200 {
            copy(&mut copiers, n, &[0; 64]);
        }
        copiers.show(Tap::Enc);
        // Each frame is somewhere: none is made, none goes missing.
        assert_eq!((end.seen.len(), end.lost.get()), (128, (round + 1) * 72));
        while let Some(frame) = end.seen.pop() {
            assert!(frame.octets.capacity() >= 65_535);
            end.blank.push(frame).unwrap();
        }
    }
}
