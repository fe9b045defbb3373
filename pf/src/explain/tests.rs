use std::sync::Arc;

use kern::{
    lock::{Root, levels::PfRules},
    testing::{Fixture, soak},
    time::Instant,
};
use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    Direction, IfIndex, arbitrary,
    conf::{self, Section},
    env::{IfAddress, Interface},
    eval::linear::Model,
    rule::{Action, Anchor, AnchorCall, Rules},
};

fn env() -> Environment {
    let interface = |name: &str, index, addr: &str| Interface {
        name: name.into(),
        index: IfIndex(index),
        addresses: vec![IfAddress::new(addr.parse().unwrap(), 24)],
        mtu: 1500,
        bandwidth: None,
    };
    Environment::new(vec![interface("lan0", 1, "192.0.2.1"), interface("wan0", 2, "203.0.113.1")])
}

fn ruleset(text: &str, names: &mut Names) -> (Pf, Ruleset) {
    let conf =
        conf::load_text("pf.conf", text, &env(), &[]).unwrap_or_else(|e| panic!("{}", e[0].with_caret()));
    let pf = Pf::new(1, 100);
    let ruleset = pf.compile(&Arc::new(conf), &env(), names).unwrap();
    pf.enforce(&mut Root::claim().top().at(), &ruleset);
    (pf, ruleset)
}

fn explained(rules: &str, packet: &str) -> Explanation {
    let mut names = Names::new();
    let (_pf, ruleset) = ruleset(rules, &mut names);
    let question = Question::parse(packet, &env()).unwrap_or_else(|e| panic!("{e}"));
    let explained = ruleset.explain(&question, &env(), &mut names, Some(&Model), &mut Root::claim().top());
    explained.unwrap()
}

const WEB: &str = "in on lan0 proto tcp from 192.0.2.9 port 4000 to 198.51.100.1 port 443 flags S";

#[test]
fn the_rules_that_match_are_named_with_their_places_and_the_one_that_decides() {
    let rules = "block return all\n\
                 match in on lan0 tag LAN\n\
                 anchor web on lan0 {\n\
                   pass in proto tcp to port 443\n\
                   block in proto tcp to port 444\n\
                 }\n\
                 pass out on wan0\n";
    let said = explained(rules, WEB);
    assert_eq!(
        said.text(false),
        "in inet proto tcp from 192.0.2.9 port 4000 to 198.51.100.1 port 443\n  \
         matches    pf.conf:1 @0 block return all\n  \
         matches    pf.conf:2 @1 match in on lan0 all tag LAN\n  \
         matches    pf.conf:3 @2 anchor \"web\" on lan0 all\n  \
         decides    pf.conf:4 anchor web @0 pass in proto tcp from any to any port = https flags S/SA keep state\n\
         passes, keeps state, tag LAN\n"
    );
    let all = said.text(true);
    assert!(
        all.contains("no match   pf.conf:5 anchor web @1") && all.contains("[destination port]"),
        "{all}"
    );
    assert!(
        all.contains("no match   pf.conf:7 @3 pass out on wan0 all flags S/SA keep state  [interface]"),
        "{all}"
    );
    let blocked = explained(rules, &WEB.replace("lan0", "wan0"));
    assert_eq!(blocked.outcome(), "blocked, answered with a TCP reset");
}

#[test]
fn translation_is_told_with_what_the_packet_becomes() {
    let rules = "rdr on lan0 proto tcp to port 443 -> 198.51.100.77 port 8443\npass all\n";
    let said = explained(rules, WEB);
    let source = "192.0.2.9".parse().unwrap();
    assert_eq!(said.becomes, Some([(source, 4000), ("198.51.100.77".parse().unwrap(), 8443)]));
    assert!(said.text(false).contains("  translates pf.conf:1 @0 rdr on lan0"), "{}", said.text(false));
    let passed = explained(
        "nat pass on wan0 inet from any to any -> 203.0.113.7\nblock all\n",
        &WEB.replace("in on lan0", "out on wan0"),
    );
    assert_eq!((passed.fate, passed.tried.len()), (Fate::Passes, 1));
    assert_eq!(passed.becomes.unwrap()[0].0, "203.0.113.7".parse::<IpAddr>().unwrap());
}

#[test]
fn a_next_hop_that_a_rule_chooses_is_told() {
    let said = explained("pass in on lan0 route-to (wan0 203.0.113.9) inet proto tcp\n", WEB);
    assert!(said.outcome().contains(", goes by 203.0.113.9 on wan0"), "{}", said.outcome());
}

#[test]
fn an_interface_that_pf_skips_and_a_packet_that_no_rule_is_for_are_told_as_such() {
    assert!(explained("set skip on lan0\nblock all\n", WEB).text(false).contains("set skip\npasses"));
    assert!(explained("block out all\n", WEB).text(false).contains("no rule decides\npasses\n"));
}

/// The frame that a packet is in.
const FRAME: &str = " ether from 02:00:00:00:00:01 to 02:00:00:00:00:02";

#[test]
fn ethernet_rules_are_asked_about_the_frame_and_where_it_comes_in_ahead_of_others() {
    let rules = "ether pass in tag WIFI\n\
                 ether anchor \"own\" in on lan0 {\n\
                   ether block from 02:00:00:00:00:01 l3 to 198.51.100.0/24\n\
                 }\n\
                 ether block proto 0x0806\n\
                 pass all\n";
    let said = explained(rules, &format!("{WEB}{FRAME}"));
    assert_eq!(
        said.text(true),
        "in inet proto tcp from 192.0.2.9 port 4000 to 198.51.100.1 port 443 ether from 02:00:00:00:00:01 to \
         02:00:00:00:00:02\n  \
         matches    pf.conf:1 @0 ether pass in l3 all tag WIFI\n  \
         matches    pf.conf:2 @1 ether anchor \"own\" in on lan0 l3 all\n  \
         decides    pf.conf:3 anchor own @0 ether block from 02:00:00:00:00:01 l3 from any to 198.51.100.0/24\n  \
         no match   pf.conf:5 @2 ether block proto 0x0806 l3 all  [EtherType]\n\
         blocked: blocked by Ethernet rule\n"
    );
    let other = explained(rules, &format!("{WEB}{}", FRAME.replace("00:01 to", "00:09 to")));
    assert!(other.text(true).contains("[Ethernet source]\n"), "{}", other.text(true));
    assert_eq!((other.fate, other.tag.as_deref()), (Fate::Passes, Some("WIFI")));
}

#[test]
fn what_an_ethernet_rule_puts_on_a_frame_other_rules_see_and_the_other_way_round() {
    let rules = "ether pass in tag WIFI\nether block out tagged SLOW\nblock all\npass in tagged WIFI\n\
                 pass out tag SLOW\n";
    assert_eq!(explained(rules, &format!("{WEB}{FRAME}")).fate, Fate::Passes);
    let unasked = explained(rules, WEB);
    assert_eq!(unasked.fate, Fate::Blocked(Why::PfBlock));
    assert!(unasked.text(false).contains("Ethernet rules were not asked: `ether from MAC to MAC`"));
    let leaves = explained(rules, &format!("{}{FRAME}", WEB.replace("in on lan0", "out on wan0")));
    let order: Vec<&str> = leaves.rules().filter(|rule| rule.decides).map(|rule| &*rule.place).collect();
    assert_eq!((leaves.fate, order), (Fate::Blocked(Why::PfEther), vec!["pf.conf:5", "pf.conf:2"]));
    let none = explained("pass all\n", WEB);
    assert!(!none.frame_is_missing && !explained("set skip on lan0\nether pass\n", WEB).frame_is_missing);
}

#[test]
fn asking_counts_nothing_and_leaves_no_state() {
    let mut names = Names::new();
    let (pf, ruleset) =
        ruleset("table <t> counters { 192.0.2.0/24 }\nether pass\npass from <t> to any\n", &mut names);
    let question = Question::parse(&format!("{WEB}{FRAME}"), &env()).unwrap();
    ruleset.explain(&question, &env(), &mut names, Some(&Model), &mut Root::claim().top()).unwrap();
    let (slot, evaluations) = ruleset.counted("", Kind::Filter, 0).unwrap();
    assert_eq!((evaluations, pf.slab().totals(slot).packets, pf.states().count()), (0, [0, 0], 0));
    let ether = &crate::show::ether(&ruleset, "")[0];
    assert_eq!((ether.evaluations, ether.packets), (0, [0, 0]));
    let table = &pf.tables().list(None)[0];
    assert_eq!(table.totals, crate::table::Totals::default());
}

#[test]
fn the_length_of_a_packet_can_be_said() {
    let rules = "match in on lan0 max-pkt-size 576\npass max-pkt-rate 1/10\n";
    let packet = "in on lan0 proto udp from 192.0.2.1 port 7 to 192.0.2.9 port 7";
    let fate = |length| explained(rules, &format!("{packet} length {length}")).fate;
    assert_eq!(fate(576), Fate::Passes);
    // Nothing is counted against the rate by who only asks.
    assert_eq!(fate(576), Fate::Passes);
    assert_eq!(fate(577), Fate::Blocked(Why::PfNormalize));
    assert_eq!(fate(9000), Fate::Blocked(Why::PfNormalize));
    let short = Question::parse(&format!("{packet} length 27"), &env()).unwrap_err().to_string();
    assert!(short.contains("its headers alone are 28 octets"), "{short}");
}

#[test]
fn an_sctp_packet_is_an_init_from_port_to_port() {
    let rules = "block return all\npass in proto sctp to port 5000\n";
    let packet = "in on lan0 proto sctp from 192.0.2.9 port 4000 to 198.51.100.1 port";
    let said = explained(rules, &format!("{packet} 5000")).text(false);
    assert!(
        said.starts_with("in inet proto sctp from 192.0.2.9 port 4000 to 198.51.100.1 port 5000\n"),
        "{said}"
    );
    assert!(said.ends_with("passes, keeps state\n"), "{said}");
    let said = explained(rules, &format!("{packet} 5001")).text(false);
    assert!(said.ends_with("blocked, answered with an SCTP ABORT\n"), "{said}");
}

#[test]
fn a_wrong_description_is_told_with_a_caret_under_the_word() {
    let wrong = |text: &str| Question::parse(text, &env()).unwrap_err().to_string();
    assert_eq!(
        wrong("in on lan9 proto tcp from 1.2.3.4 to 5.6.7.8"),
        "packet:1:7: `lan9` is not an interface\n  in on lan9 proto tcp from 1.2.3.4 to 5.6.7.8\n        ^"
    );
    assert!(wrong("on lan0").starts_with("packet:1:1: `on` is not `in` or `out`"));
    assert!(
        wrong("in on lan0 proto tcp from 1.2.3.4").starts_with("packet:1:34: `to` and an address is missing")
    );
    assert!(wrong("in on lan0 proto udp from 1.2.3.4 to ::1").contains("different families"));
    let ports = wrong("in on lan0 proto icmp from 1.2.3.4 to 5.6.7.8 port 1");
    assert!(ports.contains("only tcp, udp and sctp have ports"), "{ports}");
    let ports = wrong("in on lan0 proto sctp from 1.2.3.4 port 1 to 5.6.7.8");
    assert!(ports.contains("sctp has two ports"), "{ports}");
    let length = wrong("in on lan0 proto sctp from 1.2.3.4 port 1 to 5.6.7.8 port 2 length 900");
    assert!(length.contains("the length that it has"), "{length}");
    assert!(wrong(&format!("{WEB} ether to")).contains("`to` is not `from`"));
    assert!(wrong(&format!("{WEB} ether from 02:00")).contains("`02:00` is not a MAC address"));
    let cut = wrong(&format!("{WEB} ether from 2:0:0:0:0:1"));
    assert!(cut.contains("`to` is missing"), "{cut}");
    assert!(wrong("in on lan0 proto tcp from 1.2.3.4 to 5.6.7.8 flags SX").contains("`SX` is not TCP flags"));
    assert!(
        wrong("in on lan0 proto tcp from 1.2.3.4 to 5.6.7.8 colour").contains("says nothing of a packet")
    );
}

fn question() -> impl Strategy<Value = Question> {
    let ends = arbitrary::packet();
    let more = (any::<bool>(), 1_u16..4, 0_u16..3, prop::option::of(select(vec!["A", "B"])), any::<bool>());
    let length = prop::option::of(120_u16..1600);
    (ends, more, length).prop_map(|(p, (inward, on, received, tag, options), length)| Question {
        direction: if inward { Direction::In } else { Direction::Out },
        on: IfIndex(on),
        received: IfIndex(received),
        proto: p.proto,
        from: (p.family.address(p.src), p.sport),
        to: (p.family.address(p.dst), p.dport),
        flags: p.tcp.flags,
        icmp: (p.icmp, p.code),
        tos: p.tos,
        length,
        tag: tag.map(str::to_owned),
        fragment: p.fragment,
        options: options && p.family == crate::addr::Family::Inet,
        ether: None,
    })
}

/// Some rules are match rules, some call the anchor, some translate.
fn rules(most: usize, calls: bool) -> impl Strategy<Value = Vec<Rule>> {
    let rule = (arbitrary::rule(), 0..8).prop_map(move |(mut rule, n)| {
        match n {
            0 | 1 => (rule.action, rule.keep) = (Action::Match, None),
            2 if calls => {
                let call = AnchorCall { name: "a".into(), path: "a".into(), wildcard: false, inline: false };
                (rule.anchor, rule.action, rule.keep) = (Some(call), Action::Pass, None);
            }
            _ => {}
        }
        rule
    });
    proptest::collection::vec(rule, 0..most)
}

const TRANSLATION: [&str; 4] = [
    "",
    "nat on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.7\n",
    "rdr on lan0 inet proto tcp from any to any port 3 -> 192.0.2.4 port 5\n",
    "no nat on wan0 inet proto udp\nnat pass on wan0 inet -> 203.0.113.0/30 round-robin\nbinat on lan0 inet from 192.0.2.2 to any -> 203.0.113.9\n",
];

#[test]
fn the_rule_that_passes_everything_unseen_is_named_whatever_the_packet_is() {
    // pf takes no UDP to port 0, where it looks at all.
    let odd = "out on lan0 inet6 proto udp from 2001:db8::1 to 2001:db8::2 port 0";
    let said = explained("pass no state\n", odd);
    assert_eq!(said.fate, Fate::of(&Verdict::pass()));
    assert!(matches!(&said.tried[..], [tried] if tried.decides), "{}", said.text(true));
    let said = explained("pass no state\nblock out on lan0 proto tcp\n", odd);
    assert!(said.tried.is_empty(), "{}", said.text(true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if soak() { 50_000 } else { 250 }))]

    #[test]
    fn what_is_explained_is_what_the_engine_does(
        main in rules(20, true),
        inside in rules(8, false),
        translation in select(TRANSLATION.to_vec()),
        questions in proptest::collection::vec(question(), 12),
    ) {
        let mut conf = conf::load_text("pf.conf", translation, &env(), &[]).unwrap();
        conf.rules.filter = main;
        conf.options = arbitrary::conf().options;
        let anchor = Anchor { path: "a".into(), rules: Rules { filter: inside, ..Rules::NONE }, preamble: Vec::new() };
        let filled = PfConf { anchors: vec![anchor], ..PfConf::default() };
        let (conf, _) = conf.with("a", filled, &Section::ALL);
        let mut names = Names::new();
        let pf = Pf::new(1, 1000);
        let ruleset = pf.compile(&Arc::new(conf), &env(), &mut names).unwrap();
        pf.enforce(&mut Root::claim().top().at(), &ruleset);
        let fixture = Fixture::new(16);
        let (mut root, mut worker) = (Root::claim(), pf.worker(0));
        let known: Vec<RuleSlot> = ruleset
            .by_slot()
            .into_iter()
            .filter(|(_, (_, _, rule))| {
                rule.anchor.is_none() && matches!(rule.action, Action::Pass | Action::Block(_))
            })
            .map(|(slot, _)| slot)
            .collect();
        for question in questions {
            let said = ruleset.explain(&question, &env(), &mut names, Some(&Model), &mut root.top()).unwrap();
            let before: Vec<_> = known.iter().map(|&slot| pf.slab().totals(slot).packets).collect();
            let mut m = fixture.packet(&question.octets());
            let hdr = m.hdr_mut();
            hdr.family = question.octets()[0] >> 4;
            hdr.tag = question.tag.as_deref().map_or(0, |tag| names.tag(tag).unwrap());
            hdr.rcvif = question.received.0;
            if question.fragment {
                hdr.flags.set(PktFlags::FRAG);
            }
            if question.options {
                hdr.flags.set(PktFlags::OPTIONS);
            }
            let mut held = root.top();
            let now = Instant::from_secs(NOW);
            let verdict = PfCx::new(&pf, &ruleset, &mut worker, held.at::<PfRules>(), now)
                .ask(&Model)
                .test(question.direction, question.on, &mut m);
            prop_assert_eq!(said.fate, Fate::of(&verdict), "{}", said.text(true));
            prop_assert_eq!(said.queue.as_deref(), names.queue_name(m.hdr().queue));
            prop_assert_eq!(said.tag.as_deref(), names.tag_name(m.hdr().tag));
            fixture.done(m);
            let counted = |(&slot, before): (&RuleSlot, [u64; 2])| (pf.slab().totals(slot).packets != before).then_some(slot);
            let decided: Vec<RuleSlot> = known.iter().zip(before).filter_map(counted).collect();
            let slot = |tried: &Tried| ruleset.counted(&tried.anchor, tried.kind, tried.number).unwrap().0;
            let decides = |tried: &&Tried| tried.decides && tried.kind == Kind::Filter && tried.fails.is_none();
            let explained: Vec<RuleSlot> = said.tried.iter().filter(decides).map(slot).collect();
            prop_assert_eq!(explained, decided, "{}", said.text(true));
            // No state may answer the next question.
            pf.kill_states(&mut held.at(), |_| true);
        }
    }
}
