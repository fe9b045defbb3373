//! TCP flags that make no sense together (FreeBSD: `pf_normalize_tcp`): such segments are refused, unless there are scrub rules
//! and none of them is for the segment.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{
    IN, LAN, World,
    either::{BOTH, INET, Party, tcp as segment_of},
    header,
};
use kern::Why;
use pf::Verdict;
use wire::tcp;

fn blocked(w: &mut World, octets: &[u8]) -> Option<Why> {
    match w.verdict(IN, LAN, octets) {
        Verdict::Pass(_) => None,
        Verdict::Block(why) => Some(why),
        other => panic!("{other:?}"),
    }
}

/// Which sets of flags make sense, told by what they say of a segment.
fn makes_sense(flags: u8) -> bool {
    let has = |letter: u8| {
        let bit = pf::rule::FLAG_LETTERS.iter().position(|l| *l == letter).unwrap();
        flags >> bit & 1 != 0
    };
    let (fin, syn, rst, psh, ack, urg) = (has(b'F'), has(b'S'), has(b'R'), has(b'P'), has(b'A'), has(b'U'));
    match (syn, rst, ack) {
        (true, false, true) => !fin,
        (true, false, false) | (false, true, false) => !fin && !psh && !urg,
        (true, true, _) | (false, false, false) => false,
        (false, _, true) => true,
    }
}

fn segment(party: Party, flags: u8) -> Vec<u8> {
    let header = tcp::Repr { flags: tcp::Flags(flags), ..header(4000, 80, "", 1000, 1, 1000) };
    segment_of(party.client, party.server, &header, b"")
}

#[test]
fn flags_that_make_no_sense_are_refused_unless_no_scrub_rule_is_for_the_segment() {
    for party in BOTH {
        for (rules, enforced) in [
            ("pass all no state\nblock in proto udp\n", true),
            ("scrub in proto tcp\npass all no state\n", true),
            ("scrub in proto udp\npass all no state\n", false),
            ("no scrub in proto tcp\nscrub in all\npass all no state\n", false),
        ] {
            let mut w = World::new(rules);
            let mut refused = 0;
            for flags in 0..64 {
                let passes = makes_sense(flags) || !enforced;
                let wanted = (!passes).then_some(Why::PfNormalize);
                assert_eq!(blocked(&mut w, &segment(party, flags)), wanted, "{flags:#04x} under {rules}");
                refused += u64::from(!passes);
            }
            assert_eq!(w.pf.counters().normalize.get(), refused);
            assert_eq!(refused > 20, enforced);
        }
    }
}

#[test]
fn a_segment_that_makes_no_sense_touches_no_state() {
    for party in BOTH {
        let mut w = World::new("pass all\n");
        assert!(w.passes(IN, LAN, &party.up(4000, "S", (1000, 0), 1000, 0)));
        let before = format!("{:?}", w.states());
        for flags in [0x03, 0x06, 0x00, 0x29] {
            assert_eq!(blocked(&mut w, &segment(party, flags)), Some(Why::PfNormalize));
        }
        assert_eq!(format!("{:?}", w.states()), before);
    }
}

#[test]
fn nothing_is_sent_to_the_sender_of_a_segment_that_makes_no_sense() {
    let mut w = World::new("block return all\n");
    assert_eq!(blocked(&mut w, &segment(INET, 0x03)), Some(Why::PfNormalize));
}
