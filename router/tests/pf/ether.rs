//! Ethernet rules on the wire between two gateways.

use super::bed::{Bed, Datagram, HOST4, Shape};

fn udp(v6: bool) -> Vec<u8> {
    Datagram { v6, ..Datagram::default() }.packet()
}

/// Both gateways, the first with these rules; sends a datagram of each family, and says how many arrived and how many
/// frames the first has ended by an Ethernet rule.
fn sent(rules: &str) -> ([usize; 2], u64) {
    let mut bed = Bed::new(Shape::default(), [Some(rules), None], ["", ""]);
    let arrived = [false, true].map(|v6| {
        assert!(bed.send(0, 0, &udp(v6)));
        bed.run(20);
        bed.arrived(1).len()
    });
    let blocked = bed.count(0, "pf.ether");
    bed.finish();
    (arrived, blocked)
}

#[test]
fn frames_are_blocked_on_their_way_in_and_out_and_the_books_say_by_what() {
    assert_eq!(sent("ether pass\npass all no state\n"), ([1, 1], 0));
    assert_eq!(sent("ether block in on lan0 proto 0x0800\npass all no state\n"), ([0, 1], 1));
    assert_eq!(sent("ether block out on wan0 proto 0x86dd\npass all no state\n").0, [1, 0]);
    assert_eq!(sent("ether block in on wan0 from 02:00:00:00:00:0a\npass all no state\n").0, [1, 1]);
    let from_host = "ether block in on lan0 from 02:00:00:00:00:0a\nether pass in on lan0 proto 0x86dd\n\
                     pass all no state\n";
    assert_eq!(sent(from_host), ([0, 1], 1), "the last that matches decides");
    let l3 = format!("ether block in on lan0 l3 from {}\npass all no state\n", HOST4[0]);
    assert_eq!(sent(&l3), ([0, 1], 1));
}

#[test]
fn nothing_is_sent_to_a_neighbour_whose_arp_is_blocked() {
    let (arrived, blocked) = sent("ether block out quick on wan0 proto 0x0806\npass all no state\n");
    assert_eq!(arrived, [0, 1]);
    assert!(blocked > 0, "its questions ended");
}

#[test]
fn rules_for_packets_know_the_tags_of_frames() {
    let rules = "ether pass in on lan0 proto 0x0800 from 02:00:00:00:00:0a tag host\nblock all\n\
                 pass quick proto ipv6-icmp no state\npass in on lan0 tagged host no state\n\
                 pass out on wan0 tagged host no state\n";
    assert_eq!(sent(rules), ([1, 0], 0));
}

#[test]
fn a_tagged_frame_is_judged_once_as_one_of_its_vlan() {
    let vlan = |side: usize| {
        let (own, far) = (side + 1, if side == 0 { "198.51.100" } else { "192.0.2" });
        format!(
            "[[interface]]\nname = \"vlan7\"\ndriver = \"vlan\"\nparent = \"wan0\"\ntag = 7\n\
             address = [\"10.7.0.{own}/24\"]\n[[route]]\nto = \"{far}.0/24\"\nvia = \"10.7.0.{}\"\n",
            2 - side
        )
    };
    let shape = || Shape { more: [vlan(0), vlan(1)], routes: false, ..Shape::default() };
    for (rules, arrives) in [
        ("ether block on wan0\npass all no state\n", 1),
        ("ether block out on vlan7 proto 0x0800\npass all no state\n", 0),
        ("ether block in on vlan7 proto 0x0806\npass all no state\n", 0),
    ] {
        let mut bed = Bed::new(shape(), [Some(rules), None], ["", ""]);
        assert!(bed.send(0, 0, &udp(false)));
        bed.run(20);
        assert_eq!(bed.arrived(1).len(), arrives, "{rules}");
        bed.finish();
    }
}
