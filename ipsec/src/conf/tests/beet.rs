//! BEET mode in setkey's words.

use super::*;

const KEY: &str = "-E aes-gcm-16 0x00112233445566778899aabbccddeeff01020304";

#[test]
fn an_sa_of_beet_mode_has_inner_addresses_of_either_family_and_shows_them() {
    for (inner, addresses) in [
        ("192.0.2.10 198.51.100.20", ("192.0.2.10", "198.51.100.20")),
        ("2001:db8:a::1 2001:db8:b::2", ("2001:db8:a::1", "2001:db8:b::2")),
    ] {
        let text = format!("add 203.0.113.1 203.0.113.2 esp 0x1001 -m beet -inner {inner} {KEY};");
        let (a, b) = addresses;
        let conf = valid(&text);
        let config = &conf.sas()[0].config;
        assert_eq!(config.mode, Mode::Beet);
        assert_eq!(config.inner, Some((a.parse().unwrap(), b.parse().unwrap())));
        let mut root = Root::claim();
        let (sad, _) = built(&text, None, &mut root);
        let dump = dump::sa_text(&dump::sas(&sad, &mut root.top()), Instant::from_secs(65));
        let expected = format!("\tesp mode=beet spi=4097(0x00001001) reqid=0(0x00000000)\n\tinner {a} {b}\n");
        assert!(dump.contains(&expected), "{dump}");
    }
}

#[test]
fn a_policy_asks_for_beet_mode_with_the_ends_of_the_sa_and_is_told_when_there_is_none() {
    let policy = "spdadd 192.0.2.10 198.51.100.20 any -P out ipsec esp/beet/203.0.113.1-203.0.113.2/require;";
    let sa = |inner: &str| format!("add 203.0.113.1 203.0.113.2 esp 0x1001 -m beet -inner {inner} {KEY};");
    let conf = valid(&(sa("192.0.2.10 198.51.100.20") + policy));
    assert_eq!(conf.warnings().len(), 0, "{}", lines(conf.warnings()));
    let Action::Protect(requests) = &conf.policies()[0].action else { panic!("{conf:?}") };
    assert_eq!(requests[0].mode, Mode::Beet);
    let other = valid(&(sa("192.0.2.11 198.51.100.20") + policy));
    assert_eq!(other.warnings().len(), 1, "of another pair of addresses");
    let mut root = Root::claim();
    let (_, spd) = built(&(sa("192.0.2.10 198.51.100.20") + policy), None, &mut root);
    let text = dump::policy_text(&dump::policies(&spd));
    assert!(text.contains("\tesp/beet/203.0.113.1-203.0.113.2/require\n"), "{text}");
}

#[test]
fn what_is_no_beet_mode_is_refused_where_it_says_so() {
    let add = |protocol: &str, options: &str, key: &str| {
        format!("add 203.0.113.1 203.0.113.2 {protocol} 0x1001 {options} {key};")
    };
    let inner = "-inner 10.0.0.1 10.0.0.2";
    let cases = [
        (add("esp", "-m beet", KEY), "1:40: BEET mode without inner addresses"),
        (add("esp", inner, KEY), "1:40: only BEET mode has inner addresses"),
        (add("esp", &format!("-m tunnel {inner}"), KEY), "1:50: only BEET mode has inner addresses"),
        (add("esp", "-m beet -inner 10.0.0.1 ::2", KEY), "1:48: the inner addresses are of two families"),
        (add("esp", &format!("-m beet {inner} -ttl 9"), KEY), "1:73: in BEET mode the outer header"),
        (add("esp", &format!("-m beet {inner} -tfc 9"), KEY), "1:73: in BEET mode the outer header"),
        (
            add("ah", &format!("-m beet {inner}"), "-A hmac-sha1 0x0123456789012345678901234567890123456789"),
            "1:39: only ESP has a BEET mode",
        ),
        (add("ipcomp", &format!("-m beet {inner}"), "-C deflate"), "1:43: only ESP has a BEET mode"),
        (add("esp", "-m beet -inner 10.0.0.1 host", KEY), "1:64: \"host\" is not an address"),
        (
            "spdadd 10.0.0.1 10.0.0.2 any -P out ipsec esp/beet//require;".to_owned(),
            "1:47: BEET mode needs the SA's ends",
        ),
        (
            "spdadd 10.0.0.1 10.0.0.2 any -P out ipsec ah/beet/10.0.0.3-10.0.0.4/require;".to_owned(),
            "1:46: only ESP has a BEET mode",
        ),
    ];
    for (text, expected) in &cases {
        refused(text, expected);
    }
}

#[test]
fn an_update_to_beet_mode_answers_for_what_the_sa_had_before() {
    let name = "203.0.113.1 203.0.113.2 esp 0x1001";
    let updated =
        |options: &str, update: &str| format!("add {name} {options} {KEY};\nupdate {name} {update};");
    let beet = "-m beet -inner 10.0.0.1 10.0.0.2";
    for option in ["-df set", "-frag before", "-dscp 8", "-noecn", "-ttl 9", "-flow-label", "-tfc 1000"] {
        let word = option.split(' ').next().unwrap();
        refused(
            &updated(&format!("-m tunnel {option}"), beet),
            &format!("2:43: the SA has {word}, and in BEET mode"),
        );
    }
    // What is the same in every mode stays, and so do what is as always and what is named together with the mode.
    let kept = valid(&updated("-m tunnel -f align8 -threshold 7 -ttl 64 -ps 9", beet));
    let config = &kept.sas()[0].config;
    assert_eq!((config.mode, config.handling.threshold, config.soft.packets), (Mode::Beet, 7, Some(9)));
    refused(&updated("-m tunnel -ttl 9", &format!("{beet} -ttl 64")), "2:76: in BEET mode the outer header");
}

#[test]
fn the_inner_addresses_go_with_their_mode() {
    let name = "203.0.113.1 203.0.113.2 esp 0x1001";
    let beet = "-m beet -inner 10.0.0.1 10.0.0.2";
    let updated = |update: &str| format!("add {name} {beet} {KEY};\nupdate {name} {update};");
    for (update, mode) in
        [("-m tunnel -ttl 9", Mode::Tunnel), ("-m transport", Mode::Transport), ("-m any", Mode::Any)]
    {
        let config = valid(&updated(update)).sas()[0].config.clone();
        assert_eq!((config.mode, config.inner), (mode, None), "{update}");
    }
    let config = valid(&updated("-inner 10.0.0.1 10.0.0.3 -u 5")).sas()[0].config.clone();
    let pair = ["10.0.0.1", "10.0.0.3"].map(|a| a.parse().unwrap());
    assert_eq!((config.mode, config.inner), (Mode::Beet, Some(pair.into())));
    let config = valid(&updated("-m beet -ps 5")).sas()[0].config.clone();
    assert_eq!(config.inner.map(|(_, dst)| dst.to_string()), Some("10.0.0.2".to_owned()));
    refused(&updated("-m tunnel -inner 10.0.0.1 10.0.0.3"), "2:53: only BEET mode has inner addresses");
}
