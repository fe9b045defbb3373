//! Ethernet rules against the manual's order: one rule after the other, each of its fields.

use std::sync::Arc;

use kern::lock::Root;
use proptest::{collection::vec, option::of, prelude::*, sample::select};

use super::*;
use crate::{
    Environment, IfIndex, Names, Pf, PfConf, Ruleset,
    addr::{Family, Prefix, bits},
    conf,
    env::Interface,
    eval::Trial,
    rule::{Host, Rules, Tagged},
    show,
};

fn env() -> Environment {
    let one = |name: &str, index| Interface {
        name: name.into(),
        index: IfIndex(index),
        addresses: Vec::new(),
        mtu: 1500,
        bandwidth: None,
    };
    Environment::new(vec![one("lan0", 1), one("wan0", 2)])
}

/// Few addresses, so that rules and frames meet.
const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 1, 1]];

fn mac() -> impl Strategy<Value = Option<MacMatch>> {
    let mask = select(vec![[0xff; 6], [0xff, 0xff, 0xff, 0xff, 0xff, 0], [0, 0, 0, 0, 0, 0xff]]);
    of((any::<bool>(), select(MACS.to_vec()), mask).prop_map(|(not, addr, mask)| MacMatch {
        not,
        addr,
        mask,
    }))
}

fn within() -> impl Strategy<Value = Peer> {
    let prefix = (0_u8..4, 30_u8..=32).prop_map(|(n, len)| Prefix::new([10, 0, 0, n].into(), len));
    of((any::<bool>(), prefix)).prop_map(|some| {
        some.map_or_else(Peer::default, |(not, prefix)| Peer { not, host: Host::Prefix(prefix), port: None })
    })
}

fn rule() -> impl Strategy<Value = EtherRule> {
    let on =
        of((any::<bool>(), select(vec!["lan0", "wan0"]))
            .prop_map(|(not, name)| On { not, name: name.into() }));
    let tagged =
        of((any::<bool>(), select(vec!["x", "y"])).prop_map(|(not, name)| Tagged { not, name: name.into() }));
    let tag = of(select(vec!["x", "y"]).prop_map(str::to_owned));
    let direction = of(select(vec![Direction::In, Direction::Out]));
    let proto = of(select(vec![0x0800_u16, 0x86dd, 0x0806]));
    let what = (any::<bool>(), prop::bool::weighted(0.2), on, direction, proto);
    (what, mac(), mac(), within(), within(), tag, tagged).prop_map(
        |(what, from, to, l3_from, l3_to, tag, tagged)| {
            let (block, quick, on, direction, proto) = what;
            let all = EtherRule::all(Pos::default());
            EtherRule { block, direction, quick, on, proto, from, to, l3_from, l3_to, tag, tagged, ..all }
        },
    )
}

/// A frame as octets, and how it came or goes.
fn frame() -> impl Strategy<Value = (Vec<u8>, Direction, u16)> {
    let ends = (select(MACS.to_vec()), select(MACS.to_vec()), any::<bool>());
    let packet = (select(vec![0x0800_u16, 0x86dd, 0x0806]), 0_u8..4, 0_u8..4);
    (ends, packet, select(vec![Direction::In, Direction::Out]), 1_u16..3).prop_map(
        |((to, from, tagged), (kind, src, dst), direction, index)| {
            let mut octets = [to, from].concat();
            if tagged {
                octets.extend([0x81, 0, 0, 7]);
            }
            octets.extend(kind.to_be_bytes());
            let mut packet = [0; 40];
            if kind == 0x0800 {
                packet[12..20].copy_from_slice(&[10, 0, 0, src, 10, 0, 0, dst]);
            }
            octets.extend(packet);
            (octets, direction, index)
        },
    )
}

/// Whether a rule is for a frame, by its octets and by name.
fn matches(
    rule: &EtherRule,
    octets: &[u8],
    tag: Option<&str>,
    direction: Direction,
    interface: &str,
) -> bool {
    let inner = if octets[12..14] == [0x81, 0] { 16 } else { 12 };
    let kind = u16::from_be_bytes([octets[inner], octets[inner + 1]]);
    let has = |wanted: Option<MacMatch>, at: usize| {
        wanted.is_none_or(|mac| {
            (0..6).all(|i| octets[at + i] & mac.mask[i] == mac.addr[i] & mac.mask[i]) != mac.not
        })
    };
    let holds = |peer: &Peer, at: usize| match (&peer.host, kind) {
        (Host::Prefix(prefix), 0x0800) => {
            let o = &octets[inner + 2 + at..];
            let (first, last) = prefix.range();
            (first..=last).contains(&bits([o[0], o[1], o[2], o[3]].into())) != peer.not
        }
        // Of the other family: outside of every prefix.
        (Host::Prefix(_), 0x86dd) => peer.not,
        _ => true,
    };
    rule.on.as_ref().is_none_or(|on| (on.name == interface) != on.not)
        && rule.direction.is_none_or(|d| d == direction)
        && rule.proto.is_none_or(|proto| proto == kind)
        && has(rule.from, 6)
        && has(rule.to, 0)
        && holds(&rule.l3_from, 12)
        && holds(&rule.l3_to, 16)
        && rule.tagged.as_ref().is_none_or(|t| (tag == Some(t.name.as_str())) != t.not)
}

/// Whether a frame passes, and the tag it then has.
fn plain<'r>(
    rules: &'r [EtherRule],
    octets: &[u8],
    direction: Direction,
    interface: &str,
) -> (bool, Option<&'r str>) {
    let (mut decides, mut tag) = (None, None);
    for rule in rules {
        if matches(rule, octets, tag, direction, interface) {
            tag = rule.tag.as_deref().or(tag);
            decides = Some(rule);
            if rule.quick {
                break;
            }
        }
    }
    (decides.is_none_or(|rule| !rule.block), tag)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if kern::testing::soak() { 100_000 } else { 500 }))]

    #[test]
    fn compiled_rules_judge_frames_as_the_plain_rules_do(rules in vec(rule(), 0..20), frames in vec(frame(), 20)) {
        let conf = PfConf { rules: Rules { ether: rules.clone(), ..Rules::default() }, ..PfConf::default() };
        let (pf, mut names) = (Pf::new(1, 1), Names::new());
        let ruleset = pf.compile(&Arc::new(conf), &env(), &mut names).unwrap();
        let worker = pf.worker(0);
        for (octets, direction, index) in frames {
            let interface = if index == 1 { "lan0" } else { "wan0" };
            let read = Frame::read(&octets, 0, octets.len() as u32).unwrap();
            let (passes, tag) = plain(&rules, &octets, direction, interface);
            let tag = tag.map_or(0, |name| names.tag(name).unwrap());
            let wanted = if passes { FrameVerdict::Pass { tag, queue: 0 } } else { FrameVerdict::Block };
            prop_assert_eq!(ruleset.test_frame(&worker, direction, IfIndex(index), &read), wanted);
            let mut matched = None;
            let tried = &mut |slot, trial| if trial == Trial::Matches { matched = Some(slot) };
            let traced = ruleset.trace_frame(direction, IfIndex(index), &read, tried);
            prop_assert_eq!(traced, (wanted, matched), "the last that matches decides");
        }
    }
}

fn loaded(text: &str) -> (Pf, Ruleset, Names) {
    let conf =
        conf::load_text("pf.conf", text, &env(), &[]).unwrap_or_else(|e| panic!("{}", e[0].with_caret()));
    let (pf, mut names) = (Pf::new(1, 1), Names::new());
    let ruleset = pf.compile(&Arc::new(conf), &env(), &mut names).unwrap();
    pf.enforce(&mut Root::claim().top().at(), &ruleset);
    (pf, ruleset, names)
}

const ARP: Frame =
    Frame { from: 0x0200_0000_0001, to: 0xffff_ffff_ffff, kind: 0x0806, within: None, tag: 0, len: 60 };

#[test]
fn anchors_tables_and_counters_are_those_of_other_rules() {
    let text = "table <friends> { 10.0.0.1 }\nether block in on lan0 proto 0x0806 label \"arp\"\n\
                ether anchor \"a\" quick {\n ether pass from 02:00:00:00:00:01\n}\n\
                ether block in proto 0x0800 l3 from ! <friends>\npass all\n";
    let (pf, ruleset, _) = loaded(text);
    let worker = pf.worker(0);
    let test =
        |frame: Frame| ruleset.test_frame(&worker, Direction::In, IfIndex(1), &frame) != FrameVerdict::Block;
    assert!(test(ARP), "the anchor decides, and ends it");
    assert!(
        !test(Frame { from: 0x0200_0000_0002, ..ARP }),
        "nobody has addresses in ARP: <friends> is no matter"
    );
    let from =
        |n: u128| Frame { kind: 0x0800, within: Some((Family::Inet, 0x0a00_0000 + n, 0)), from: 2, ..ARP };
    assert!(test(from(1)) && !test(from(2)));
    let lines: Vec<_> =
        show::ether(&ruleset, "").iter().map(|r| (r.evaluations, r.packets, r.bytes)).collect();
    assert_eq!(lines[0], (4, [1, 0], [60, 0]));
    assert_eq!((lines[1].0, lines[2]), (4, (3, [1, 0], [60, 0])));
    assert_eq!(show::ether(&ruleset, "a")[0].packets, [1, 0]);
    ruleset.clear_counters("");
    assert_eq!(show::ether(&ruleset, "")[0].packets, [0, 0]);
}

#[test]
fn pf_does_nothing_where_it_is_told_to_skip() {
    let (pf, ruleset, _) = loaded("set skip on lan0\nether block\n");
    let judge = |index| ruleset.test_frame(&pf.worker(0), Direction::In, IfIndex(index), &ARP);
    assert_eq!((judge(1), judge(2)), (FrameVerdict::Pass { tag: 0, queue: 0 }, FrameVerdict::Block));
}

#[test]
fn an_anchor_that_calls_itself_is_refused_and_what_has_no_engine() {
    let text = "ether anchor \"a\"\nanchor a {\n ether anchor \"/a\"\n}\n";
    let conf = conf::load_text("pf.conf", text, &env(), &[]).unwrap();
    assert!(Pf::new(1, 1).compile(&Arc::new(conf), &env(), &mut Names::new()).is_err());
    for option in ["dnpipe 1", "dnqueue 2"] {
        assert!(
            conf::load_text("pf.conf", &format!("ether pass {option}\n"), &env(), &[]).is_err(),
            "{option}"
        );
    }
    assert!(conf::load_text("pf.conf", "ether pass bridge-to wan0\n", &env(), &[]).is_err());
}

#[test]
fn what_is_too_short_is_no_frame() {
    let mut octets = vec![0; 34];
    octets[12..14].copy_from_slice(&[8, 0]);
    assert!(Frame::read(&octets, 0, 34).is_some());
    assert_eq!(Frame::read(&octets[..33], 0, 33), None);
    assert_eq!(Frame::read(&octets[..13], 0, 13), None);
    octets[12..14].copy_from_slice(&[0x81, 0]);
    octets[16..18].copy_from_slice(&[8, 0]);
    assert_eq!(Frame::read(&octets, 0, 34), None, "the tag makes it longer");
}
