//! States: TCP windows, timeouts, ICMP, limits, reloads, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{net::Ipv4Addr, sync::Arc};

use common::{
    CLIENT, Conversation, IN, LAN, OUT, SERVER, WAN, World,
    either::{INET6, Party, both, echo, echo_reply, raw, udp, unreachable},
};
use kern::Why;
use pf::{Answer, Reset, Verdict};
use wire::{IpProto, build};

const FILTER: &str = "block all\npass in on lan0 proto tcp to port 80 keep state\n";

/// A conversation between a client and port 80 of a server, of either family.
#[derive(Clone, Copy)]
struct Talk {
    party: Party,
    client_port: u16,
}

impl Talk {
    fn web(party: Party) -> Talk {
        Talk { party, client_port: 4000 }
    }

    fn up(self, flags: &str, seq: u32, ack: u32, window: u16, len: usize) -> Vec<u8> {
        self.party.up(self.client_port, flags, (seq, ack), window, len)
    }

    fn down(self, flags: &str, seq: u32, ack: u32, window: u16, len: usize) -> Vec<u8> {
        self.party.down(self.client_port, flags, (seq, ack), window, len)
    }
}

both! {
    a_connection_is_followed_from_handshake_to_the_last_ack
    nothing_but_the_flow_passes_and_its_first_packet_must_open_it
    data_beyond_the_window_and_acks_of_what_was_not_sent_are_dropped
    an_end_whose_fin_stands_where_the_window_ends_still_acknowledges
    a_reset_must_stand_where_the_next_octet_is_expected_or_one_beside
    windows_are_scaled_only_if_both_ends_say_so
    a_syn_is_repeated_until_answered_and_a_wrong_answer_is_reset
    a_syn_sent_twice_does_not_open_the_other_ends_window
    a_new_syn_on_a_closed_state_begins_a_new_one
    packets_within_the_fudge_do_not_keep_a_closed_state_alive
    a_half_seen_flow_is_followed_by_a_sloppy_rule
    udp_goes_from_first_to_single_to_multiple
    a_ping_is_answered_only_to_its_identifier_and_no_reply_makes_a_state
    icmp_errors_pass_by_the_state_of_the_packet_that_they_quote
    other_protocols_are_remembered_by_addresses_alone
    a_bound_state_holds_for_its_interface_only
    limits_refuse_states_and_their_packets
    states_outlive_their_ruleset_and_their_rule_goes_with_the_last
    states_decide_even_where_the_rules_would_pass_everything_unseen
}

/// Opens a connection; both ends have said everything up to these sequence numbers.
fn open(world: &mut World, party: Party, scale: &str) -> Talk {
    let web = Talk::web(party);
    assert!(world.passes(IN, LAN, &web.up(&format!("S{scale}"), 1000, 0, 65_000, 0)));
    assert!(world.passes(OUT, LAN, &web.down(&format!("SA{scale}"), 5000, 1001, 65_000, 0)));
    assert!(world.passes(IN, LAN, &web.up("A", 1001, 5001, 1000, 0)));
    web
}

fn levels(world: &mut World) -> (String, String) {
    let states = world.states();
    assert_eq!(states.len(), 1, "{states:?}");
    (states[0].src.level.to_owned(), states[0].dst.level.to_owned())
}

fn is_mismatch(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Block(Why::PfStateMismatch))
}

fn a_connection_is_followed_from_handshake_to_the_last_ack(party: Party) {
    let mut w = World::new(FILTER);
    let web = open(&mut w, party, "");
    assert_eq!(levels(&mut w), ("ESTABLISHED".into(), "ESTABLISHED".into()));
    assert_eq!(w.states()[0].expires, 86_400);
    assert!(w.passes(IN, LAN, &web.up("PA", 1001, 5001, 1000, 500)));
    assert!(w.passes(OUT, LAN, &web.down("PA", 5001, 1501, 1000, 800)));
    assert!(w.passes(OUT, LAN, &web.down("FA", 5801, 1501, 1000, 0)));
    assert_eq!(levels(&mut w), ("ESTABLISHED".into(), "CLOSING".into()));
    assert_eq!(w.states()[0].expires, 900);
    assert!(w.passes(IN, LAN, &web.up("FA", 1501, 5802, 1000, 0)));
    assert_eq!(w.states()[0].expires, 45);
    assert!(w.passes(OUT, LAN, &web.down("A", 5802, 1502, 1000, 0)));
    assert_eq!(levels(&mut w), ("FIN_WAIT_2".into(), "FIN_WAIT_2".into()));
    let state = &w.states()[0];
    assert_eq!((state.expires, state.packets), (90, [4, 4]));
    assert_eq!(
        state.line(None, false),
        format!(
            "all tcp {} <- {}       FIN_WAIT_2:FIN_WAIT_2",
            party.shown(party.server, 80),
            party.shown(party.client, 4000)
        )
    );
    w.advance(89);
    assert_eq!(w.purge(), 0);
    w.advance(2);
    w.purge();
    w.advance(10);
    w.purge();
    assert!(w.states().is_empty());
    assert_eq!((w.pf.counters().inserts.get(), w.pf.counters().removals.get()), (1, 1));
}

fn nothing_but_the_flow_passes_and_its_first_packet_must_open_it(party: Party) {
    let mut w = World::new(FILTER);
    assert!(!w.passes(IN, LAN, &Talk::web(party).up("A", 1, 1, 1000, 0)), "no SYN");
    assert!(!w.passes(OUT, LAN, &Talk::web(party).down("SA", 5000, 1001, 1000, 0)), "nothing asked for it");
    let web = open(&mut w, party, "");
    let other = Talk { client_port: 4001, ..web };
    assert!(!w.passes(OUT, LAN, &other.down("A", 5001, 1001, 1000, 0)));
    assert!(
        !w.passes(IN, WAN, &web.down("A", 5001, 1001, 1000, 0)),
        "the other way through another interface"
    );
    assert!(w.passes(OUT, WAN, &web.down("A", 5001, 1001, 1000, 0)), "the same way, floating");
}

fn data_beyond_the_window_and_acks_of_what_was_not_sent_are_dropped(party: Party) {
    let mut w = World::new(FILTER);
    let web = open(&mut w, party, "");
    assert!(
        is_mismatch(&w.verdict(IN, LAN, &web.up("A", 1001 + 65_001, 5001, 1000, 1))),
        "beyond what the server allowed"
    );
    assert!(w.passes(IN, LAN, &web.up("A", 1001 + 64_000, 5001, 1000, 999)));
    assert!(
        is_mismatch(&w.verdict(IN, LAN, &web.up("A", 1001u32.wrapping_sub(66_000), 5001, 1000, 10))),
        "a window back"
    );
    assert!(
        is_mismatch(&w.verdict(IN, LAN, &web.up("A", 66_000, 5001 + 67_036, 1000, 0))),
        "an ack from the future"
    );
    assert!(w.passes(IN, LAN, &web.up("A", 66_000, 5001 + 67_035, 1000, 0)), "as far as the fudge allows");
    assert_eq!(w.pf.counters().state_mismatch.get(), 3);
}

fn an_end_whose_fin_stands_where_the_window_ends_still_acknowledges(party: Party) {
    let mut w = World::new(FILTER);
    let web = open(&mut w, party, "");
    // A FIN is not data: some systems send it even if the window is full.
    assert!(w.passes(IN, LAN, &web.up("A", 1001 + 64_000, 5001, 1000, 1000)));
    assert!(w.passes(IN, LAN, &web.up("FA", 1001 + 65_000, 5001, 1000, 0)));
    assert!(w.passes(IN, LAN, &web.up("A", 1001 + 65_001, 5001, 2000, 0)), "a wider window");
    assert!(
        is_mismatch(&w.verdict(IN, LAN, &web.up("A", 1001 + 65_001, 5001, 1000, 1))),
        "data is still bounded"
    );
    assert!(w.passes(IN, LAN, &web.up("FA", 1001 + 65_000, 5001, 2000, 0)), "once more");
}

fn a_reset_must_stand_where_the_next_octet_is_expected_or_one_beside(party: Party) {
    for (seq, passes) in
        [(1099, false), (1100, true), (1101, true), (1102, true), (1103, false), (1500, false)]
    {
        let mut w = World::new(FILTER);
        let web = open(&mut w, party, "");
        assert!(w.passes(IN, LAN, &web.up("A", 1001, 5001, 1000, 100)));
        assert_eq!(w.passes(IN, LAN, &web.up("R", seq, 0, 0, 0)), passes, "{seq}");
        let expected = if passes { "TIME_WAIT" } else { "ESTABLISHED" };
        assert_eq!(levels(&mut w).0, expected, "{seq}");
    }
}

fn windows_are_scaled_only_if_both_ends_say_so(party: Party) {
    let mut w = World::new(FILTER);
    let web = open(&mut w, party, "w7");
    assert_eq!(w.states()[0].src.wscale, Some(7));
    // The client's last window was 1000, shifted by 7: 128,000 octets.
    assert!(w.passes(OUT, LAN, &web.down("A", 5001 + 127_000, 1001, 1000, 999)));
    assert!(is_mismatch(&w.verdict(OUT, LAN, &web.down("A", 5001 + 129_000, 1001, 1000, 1))));

    let mut w = World::new(FILTER);
    let web = Talk::web(party);
    assert!(w.passes(IN, LAN, &web.up("Sw7", 1000, 0, 65_000, 0)));
    assert!(w.passes(OUT, LAN, &web.down("SA", 5000, 1001, 65_000, 0)));
    assert!(w.passes(IN, LAN, &web.up("A", 1001, 5001, 1000, 0)));
    assert_eq!(w.states()[0].src.wscale, None);
    assert!(is_mismatch(&w.verdict(OUT, LAN, &web.down("A", 5001 + 127_000, 1001, 1000, 999))));
}

fn a_syn_is_repeated_until_answered_and_a_wrong_answer_is_reset(party: Party) {
    let mut w = World::new(FILTER);
    let web = Talk::web(party);
    for _ in 0..3 {
        assert!(w.passes(IN, LAN, &web.up("S", 1000, 0, 65_000, 0)));
    }
    assert_eq!(w.states().len(), 1);
    assert!(w.passes(OUT, LAN, &web.down("SA", 5000, 1001, 65_000, 0)));
    // Both ends are in SYN_SENT for pf no more: the ack established the client's half.
    assert_eq!(levels(&mut w), ("ESTABLISHED".into(), "SYN_SENT".into()));
    assert_eq!(w.states()[0].expires, 30);

    let mut w = World::new(FILTER);
    assert!(w.passes(IN, LAN, &web.up("S", 1000, 0, 65_000, 0)));
    assert!(w.passes(OUT, LAN, &web.down("S", 5000, 0, 1000, 0)), "simultaneous open");
    assert_eq!(levels(&mut w), ("SYN_SENT".into(), "SYN_SENT".into()));
    let verdict = w.verdict(OUT, LAN, &web.down("A", 500_000, 1001, 1000, 100));
    assert!(
        matches!(
            verdict,
            Verdict::Return(Answer::Reset(Reset { acknowledge: false, .. }), Why::PfStateMismatch)
        ),
        "{verdict:?}"
    );
}

fn a_syn_sent_twice_does_not_open_the_other_ends_window(party: Party) {
    for isn in [5000, 0x9000_0000] {
        let mut w = World::new(FILTER);
        let web = Talk::web(party);
        assert!(w.passes(IN, LAN, &web.up("S", 1000, 0, 65_000, 0)));
        assert!(w.passes(IN, LAN, &web.up("S", 1000, 0, 65_000, 0)), "again");
        assert!(w.passes(OUT, LAN, &web.down("SA", isn, 1001, 65_000, 0)));
        assert!(w.passes(IN, LAN, &web.up("A", 1001, isn + 1, 1000, 0)));
        let blind = web.down("PA", isn + 0x0100_0000, 1001, 1000, 10);
        assert!(is_mismatch(&w.verdict(OUT, LAN, &blind)), "sixteen million octets ahead of {isn}");
    }
}

fn a_new_syn_on_a_closed_state_begins_a_new_one(party: Party) {
    let mut w = World::new(FILTER);
    let web = open(&mut w, party, "");
    let id = w.states()[0].id;
    assert!(w.passes(IN, LAN, &web.up("R", 1001, 0, 0, 0)));
    assert!(w.passes(IN, LAN, &web.up("S", 900_000, 0, 65_000, 0)));
    let states = w.states();
    assert_eq!(states.len(), 1);
    assert_ne!(states[0].id, id);
    assert_eq!(states[0].src.level, "SYN_SENT");
    assert_eq!(w.pf.counters().removals.get(), 1);
}

fn packets_within_the_fudge_do_not_keep_a_closed_state_alive(party: Party) {
    let mut w = World::new(FILTER);
    let web = open(&mut w, party, "");
    assert!(w.passes(IN, LAN, &web.up("R", 1001, 0, 0, 0)));
    w.advance(60);
    assert!(w.passes(OUT, LAN, &web.down("A", 5001 + 66_000, 1001, 1000, 100)), "loose");
    assert_eq!(w.states()[0].expires, 30);
    w.advance(31);
    w.purge();
    assert!(w.states().is_empty());
}

fn a_half_seen_flow_is_followed_by_a_sloppy_rule(party: Party) {
    let mut w = World::new("block all\npass in on lan0 proto tcp flags any keep state (sloppy)\n");
    let web = Talk::web(party);
    assert!(w.passes(IN, LAN, &web.up("S", 1000, 0, 100, 0)));
    assert!(w.passes(IN, LAN, &web.up("A", 1001, 5001, 100, 0)));
    assert_eq!(levels(&mut w), ("ESTABLISHED".into(), "ESTABLISHED".into()));
    assert!(w.passes(IN, LAN, &web.up("A", 900_000_000, 5001, 100, 1000)), "no window is looked at");
    assert!(w.passes(IN, LAN, &web.up("FA", 900_001_000, 5001, 100, 0)));
    assert!(w.passes(IN, LAN, &web.up("A", 900_001_001, 5002, 100, 0)));
    assert_eq!(levels(&mut w), ("CLOSING".into(), "CLOSING".into()));
}

fn udp_goes_from_first_to_single_to_multiple(party: Party) {
    let mut w = World::new("block all\npass in on lan0 proto udp keep state\n");
    let ask = udp(party.client, party.server, 5353, 53, b"q");
    let answer = udp(party.server, party.client, 53, 5353, b"a");
    let steps: [(&[u8], u32); 4] = [(&ask, 60), (&answer, 30), (&ask, 60), (&answer, 60)];
    for (n, (packet, expires)) in steps.into_iter().enumerate() {
        let direction = if n % 2 == 0 { IN } else { OUT };
        assert!(w.passes(direction, LAN, packet), "step {n}");
        assert_eq!(w.states()[0].expires, expires, "step {n}");
    }
    let state = &w.states()[0];
    let ends = (party.shown(party.server, 53), party.shown(party.client, 5353));
    assert_eq!(state.line(None, false), format!("all udp {} <- {}       MULTIPLE:MULTIPLE", ends.0, ends.1));
    let octets = 2 * (party.l4() as u64 + 9);
    assert_eq!((state.packets, state.bytes), ([2, 2], [octets; 2]));
}

fn a_ping_is_answered_only_to_its_identifier_and_no_reply_makes_a_state(party: Party) {
    let Party { client, server, .. } = party;
    let mut w = World::new(
        "block all\npass in on lan0 inet proto icmp all icmp-type echoreq keep state\n\
         pass in on lan0 inet6 proto icmp6 all icmp6-type echoreq keep state\n",
    );
    assert!(!w.passes(OUT, LAN, &echo_reply(server, client, 7)));
    assert!(w.passes(IN, LAN, &echo(client, server, 7)));
    assert!(w.passes(OUT, LAN, &echo_reply(server, client, 7)));
    assert!(!w.passes(OUT, LAN, &echo_reply(server, client, 8)));
    assert!(!w.passes(OUT, LAN, &echo(server, client, 7)), "a question is no answer");
    assert_eq!(w.states().len(), 1);
    assert_eq!(w.states()[0].expires, 10);

    let mut w = World::new("pass all\n");
    assert!(w.passes(OUT, LAN, &echo_reply(server, client, 7)));
    assert!(w.states().is_empty(), "an answer opens nothing");
}

fn icmp_errors_pass_by_the_state_of_the_packet_that_they_quote(party: Party) {
    let mut w = World::new("block all\npass in on lan0 keep state\n");
    let web = open(&mut w, party, "");
    let ask = udp(party.client, party.server, 5353, 53, b"q");
    assert!(w.passes(IN, LAN, &ask));
    let Party { client, router, neighbour, .. } = party;
    assert!(w.passes(OUT, LAN, &unreachable(router, client, &ask)));
    let sent = web.up("A", 1001, 5001, 1000, 100);
    assert!(w.passes(OUT, LAN, &unreachable(router, client, &sent)));
    let never_sent = web.up("A", 500_000, 5001, 1000, 100);
    assert!(is_mismatch(&w.verdict(OUT, LAN, &unreachable(router, client, &never_sent))));
    let other_flow = udp(party.client, party.server, 5354, 53, b"q");
    assert!(matches!(
        w.verdict(OUT, LAN, &unreachable(router, client, &other_flow)),
        Verdict::Block(Why::PfBlock)
    ));
    let not_for_it = unreachable(router, neighbour, &ask);
    assert!(is_mismatch(&w.verdict(OUT, LAN, &not_for_it)), "the outer and the inner address disagree");
}

fn other_protocols_are_remembered_by_addresses_alone(party: Party) {
    let Party { client, server, .. } = party;
    let mut w = World::new("block all\npass in on lan0 proto gre keep state\n");
    assert!(w.passes(IN, LAN, &raw(client, server, IpProto::GRE, &[0; 12])));
    assert!(w.passes(OUT, LAN, &raw(server, client, IpProto::GRE, &[0; 12])));
    let line = format!("all gre {server} <- {client}       SINGLE:MULTIPLE");
    assert_eq!(w.states()[0].line(None, false), line);
}

fn a_bound_state_holds_for_its_interface_only(party: Party) {
    let mut w = World::new("set state-policy if-bound\nblock all\npass in on lan0 keep state\n");
    let web = open(&mut w, party, "");
    let answer = web.down("A", 5001, 1001, 1000, 0);
    assert!(w.passes(OUT, LAN, &answer));
    assert!(!w.passes(OUT, WAN, &answer));
    assert!(w.states()[0].line(Some("lan0"), false).starts_with("lan0 tcp "));
}

fn limits_refuse_states_and_their_packets(party: Party) {
    let mut w = World::new("set limit states 3\npass in on lan0 proto udp keep state\n");
    let flow = |port| udp(party.client, party.server, port, 53, b"q");
    for port in 1..=3 {
        assert!(w.passes(IN, LAN, &flow(port)));
    }
    assert!(matches!(w.verdict(IN, LAN, &flow(4)), Verdict::Block(Why::PfStateLimit)));
    assert!(w.passes(IN, LAN, &flow(3)), "those there are go on");
    assert_eq!(w.kill(|s| s.wire[0].1 == 2), 1);
    assert!(w.passes(IN, LAN, &flow(4)));

    let mut w = World::new("pass in on lan0 proto udp keep state (max 2)\n");
    assert!(w.passes(IN, LAN, &flow(1)) && w.passes(IN, LAN, &flow(2)));
    assert!(matches!(w.verdict(IN, LAN, &flow(3)), Verdict::Block(Why::PfStateLimit)));
    assert_eq!(w.pf.counters().state_limit.get(), 1);
}

#[test]
fn timeouts_shrink_as_the_table_fills_up() {
    let mut w = World::new(
        "set limit states 100\nset timeout { adaptive.start 50, adaptive.end 150 }\npass in on lan0 proto udp keep state\n",
    );
    for port in 1..=100 {
        assert!(w.passes(IN, LAN, &build::udp4(CLIENT, SERVER, port, 53, b"q")));
    }
    assert_eq!(w.states()[0].expires, 30, "half of udp.first");
    w.advance(31);
    // As states go, the rest live longer: those above the start go first.
    w.purge();
    let left = w.states().len();
    assert!((50..100).contains(&left), "{left} left");
    w.advance(30);
    w.purge();
    assert!(w.states().is_empty());
}

#[test]
fn a_rule_has_its_own_timeouts() {
    let mut w = World::new("pass in on lan0 proto udp keep state (udp.first 7, udp.single 3)\n");
    assert!(w.passes(IN, LAN, &build::udp4(CLIENT, SERVER, 1, 53, b"q")));
    assert_eq!(w.states()[0].expires, 7);
    assert!(w.passes(OUT, LAN, &build::udp4(SERVER, CLIENT, 53, 1, b"a")));
    assert_eq!(w.states()[0].expires, 3, "shorter than what it was when the purge was told");
    w.advance(4);
    w.purge();
    assert!(w.states().is_empty());
}

fn states_outlive_their_ruleset_and_their_rule_goes_with_the_last(party: Party) {
    let mut w = World::new(FILTER);
    let web = open(&mut w, party, "");
    let slots = w.pf.slab().in_use();
    for _ in 0..100 {
        w.load("block all\n");
    }
    assert_eq!(w.pf.slab().in_use(), 2, "one of the ruleset, one of the state; there were {slots}");
    assert!(w.passes(IN, LAN, &web.up("A", 1001, 5001, 1000, 100)), "the state goes on");
    assert!(!w.passes(IN, LAN, &Talk { client_port: 1, ..web }.up("S", 1, 0, 1, 0)));
    let slot = w.states()[0].slot;
    assert_eq!(w.pf.slab().totals(slot).packets, [3, 1], "and counts for its rule");
    assert_eq!(w.kill(|_| true), 1);
    assert_eq!(w.pf.slab().in_use(), 1);
    assert!(!w.passes(IN, LAN, &web.up("A", 1101, 5001, 1000, 100)));
}

#[test]
fn a_state_has_the_label_of_its_own_rule_whatever_is_loaded_since() {
    let rules = "pass in on lan0 proto udp to port 53 label dns label questions\n";
    let mut w = World::new(rules);
    let udp = |port| build::udp4(CLIENT, SERVER, port, 53, b"question");
    assert!(w.passes(IN, LAN, &udp(4000)));
    w.reload("", &rules.replace("questions", "answers"));
    assert!(w.passes(IN, LAN, &udp(4001)));
    let mut kill = |label| {
        let pf = Arc::clone(&w.pf);
        w.kill(|state| pf.slab().is_labelled(state.slot, label))
    };
    assert_eq!(["nothing", "questions", "dns", "answers"].map(&mut kill), [0, 1, 1, 0]);
    // A slot that another rule gets has that rule's labels.
    w.reload("", "pass in on lan0 proto udp to port 53\n");
    w.reload("", "pass in on lan0 proto udp to port 53\n");
    assert!(w.passes(IN, LAN, &udp(4002)));
    let pf = Arc::clone(&w.pf);
    assert_eq!(w.kill(|state| pf.slab().is_labelled(state.slot, "dns")), 0);
}

fn states_decide_even_where_the_rules_would_pass_everything_unseen(party: Party) {
    let mut w = World::new(FILTER);
    let web = open(&mut w, party, "");
    w.load("pass all no state\n");
    assert!(is_mismatch(&w.verdict(IN, LAN, &web.up("A", 900_000, 5001, 1000, 100))));
    assert!(w.passes(IN, LAN, &udp(party.client, party.server, 1, 2, b"")));
}

#[test]
fn tag_and_queue_of_the_rule_go_to_every_packet_of_the_state() {
    let mut w = World::new(
        "altq on wan0 priq bandwidth 1Mb queue { std fast }\n\
         queue std priq(default)\nqueue fast priority 7\n\
         pass in on lan0 proto tcp keep state queue (std, fast) tag web\n",
    );
    let (std, fast, tag) =
        (w.names.queue("std").unwrap(), w.names.queue("fast").unwrap(), w.names.tag("web").unwrap());
    let web = Conversation::WEB;
    let mut see = |direction, octets: &[u8]| {
        let mut m = w.packet(octets);
        assert!(matches!(w.test(direction, LAN, &mut m), Verdict::Pass(_)));
        let seen = (m.hdr().queue, m.hdr().tag, m.hdr().state_gen != 0);
        w.fixture.done(m);
        seen
    };
    assert_eq!(see(IN, &web.up("S", 1000, 0, 65_000, 0)), (std, tag, true));
    assert_eq!(see(OUT, &web.down("SA", 5000, 1001, 65_000, 0)), (std, tag, true));
    assert_eq!(see(IN, &web.up("A", 1001, 5001, 65_000, 0)), (fast, tag, true), "an empty ACK");
    assert_eq!(see(IN, &web.up("A", 1001, 5001, 65_000, 10)), (std, tag, true));
}

#[test]
fn a_hundred_thousand_states_are_purged_in_small_steps() {
    let limit = if std::env::var_os("SOFTNET_SOAK").is_some() { 1_000_000 } else { 100_000 };
    let mut w = World::new(&format!(
        "set limit states {limit}\nset timeout {{ adaptive.start 0, adaptive.end 0 }}\npass in on lan0 proto udp keep state\n"
    ));
    for n in 0..limit {
        let src = Ipv4Addr::from_bits(0x0a00_0000 + n / 50_000);
        assert!(w.passes(IN, LAN, &build::udp4(src, SERVER, (n % 50_000) as u16 + 1, 53, b"q")), "state {n}");
    }
    assert_eq!(w.pf.states().count(), limit);
    w.advance(61);
    let mut steps = 0;
    while w.pf.states().count() > 0 {
        w.purge();
        w.now += std::time::Duration::from_millis(100);
        steps += 1;
        assert!(steps < 250, "{} left after {steps} steps", w.pf.states().count());
    }
    assert_eq!(w.pf.counters().removals.get(), u64::from(limit));
    assert!(w.passes(IN, LAN, &build::udp4(CLIENT, SERVER, 1, 53, b"q")), "slots are free again");
}

#[test]
fn states_are_whose_they_were_when_they_were_made() {
    let mut w = World::new("pass\n");
    let up = |client_port| Conversation { client_port, server_port: 80 }.up("S", 1000, 0, 8192, 0);
    let drawn = w.pf.states().creator();
    assert!(drawn != 0 && w.passes(IN, LAN, &up(1)));
    w.load("set hostid 0x1234abcd\npass\n");
    assert!(w.passes(IN, LAN, &up(2)));
    // As with pfctl, a file that does not say it leaves it as it is.
    w.load("pass\n");
    assert!(w.passes(IN, LAN, &up(3)));
    let mut all: Vec<_> = w.states().iter().map(|s| (s.wire[0].1, s.creator)).collect();
    all.sort_unstable();
    assert_eq!(all, [(1, drawn), (2, 0x1234_abcd), (3, 0x1234_abcd)]);
}

#[test]
fn neighbour_discovery_and_multicast_listeners_make_no_state() {
    let Party { client, server, .. } = INET6;
    let mut w = World::new("pass all keep state\n");
    // Router solicitation to redirect; the reports of listeners have their own test.
    for kind in 133..=137 {
        let mut packet = raw(client, server, IpProto::ICMPV6, &[&[kind][..], &[0; 39]].concat());
        let end = packet.len();
        wire::checksum::transport_fill(&mut packet, 40, end, IpProto::ICMPV6).unwrap();
        assert!(w.passes(IN, LAN, &packet), "{kind}");
        assert!(w.states().is_empty(), "{kind}");
    }
    assert!(w.passes(IN, LAN, &echo(client, server, 1)));
    assert_eq!(w.states().len(), 1);
}
