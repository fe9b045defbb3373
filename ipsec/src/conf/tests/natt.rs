//! ESP in UDP as NetBSD and as FreeBSD say it.

use super::*;
use crate::natt::Encap;

const KEY: &str = "-E aes-gcm-16 0x00112233445566778899aabbccddeeff01020304";

/// How the one SA of a text goes in UDP.
fn encap(ends: &str, options: &str) -> Option<Encap> {
    let conf = valid(&format!("add {ends} 0x1001 {options} {KEY};"));
    conf.sas()[0].config.encap
}

fn udp(src_port: u16, dst_port: u16, keepalive: u16) -> Encap {
    Encap { src_port, dst_port, original: [None; 2], keepalive }
}

#[test]
fn udp_encapsulation_is_asked_for_in_netbsd_s_words_and_in_freebsd_s() {
    let (v4, v6) = (("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2"));
    for (a, b) in [v4, v6] {
        assert_eq!(encap(&format!("{a} {b} esp"), ""), None);
        assert_eq!(encap(&format!("{a} {b} esp-udp"), ""), Some(udp(4500, 4500, 20)));
        assert_eq!(encap(&format!("{a}[4500] {b}[30001] esp-udp"), ""), Some(udp(4500, 30001, 0)));
        assert_eq!(encap(&format!("{a} [30001] {b} [any] esp-udp"), ""), Some(udp(30001, 4500, 0)));
        assert_eq!(encap(&format!("{a}[0] {b} [4500] esp-udp"), "-keepalive 7"), Some(udp(4500, 4500, 7)));
        assert_eq!(encap(&format!("{a} {b}[30001] esp-udp"), "-keepalive 9"), Some(udp(4500, 30001, 9)));
        assert_eq!(encap(&format!("{a} {b} esp-udp"), "-keepalive 0"), Some(udp(4500, 4500, 0)));
        let original = [Some(a.parse().unwrap()), Some("192.168.1.9".parse().unwrap())];
        let natt = format!("-natt {a}[4500] 192.168.1.9[30001]");
        for word in ["esp", "esp-udp"] {
            let expected = Some(Encap { src_port: 4500, dst_port: 30001, original, keepalive: 0 });
            assert_eq!(encap(&format!("{a} {b} {word}"), &natt), expected);
        }
    }
}

#[test]
fn what_cannot_go_in_udp_is_refused_where_it_says_so() {
    let cases = [
        ("10.0.0.1[500] 10.0.0.2 esp 999 KEY", "1:14: this SA does not go in UDP (esp-udp instead"),
        ("10.0.0.1 10.0.0.2 [500] esp 999 KEY", "1:23: this SA does not go in UDP"),
        ("10.0.0.1 10.0.0.2 esp 999 -keepalive 5 KEY", "1:31: this SA does not go in UDP"),
        ("10.0.0.1[x] 10.0.0.2 esp-udp 999 KEY", "1:14: \"x\" is not a UDP port (a number"),
        ("10.0.0.1[70000] 10.0.0.2 esp-udp 999 KEY", "1:14: \"70000\" is not a UDP port"),
        ("10.0.0.1[4500] [4500] 10.0.0.2 esp-udp 999 KEY", "1:20: a second port of one address"),
        ("10.0.0.1[1] 10.0.0.2[2] esp-udp 999 KEY", "1:14: neither end has port 4500"),
        ("10.0.0.1 10.0.0.2 esp 999 -natt 10.0.0.1[1] 10.0.0.2[2] KEY", "1:31: neither end has port 4500"),
        ("10.0.0.1 10.0.0.2 esp 999 -natt 10.0.0.1 10.0.0.2[4500] KEY", "1:37: the UDP port is missing"),
        (
            "10.0.0.1[4500] 10.0.0.2 esp-udp 999 -natt 10.0.0.1[4500] 10.0.0.2[4500] KEY",
            "1:14: the ports are said twice",
        ),
        ("10.0.0.1 10.0.0.2 esp-udp 999 -natt_mtu 1200 KEY", "1:35: the size of fragments is not told"),
        ("10.0.0.1 10.0.0.2 esp-udp 999 -keepalive 70000 KEY", "1:46: \"70000\" is not a time in seconds"),
        (
            "10.0.0.1[4500] 10.0.0.2 ah 999 -A hmac-sha1 \"twenty octets of key\"",
            "1:14: ah does not go in UDP (RFC 3948",
        ),
        ("10.0.0.1 10.0.0.2 ipcomp 999 -keepalive 5 -C deflate", "1:34: ipcomp does not go in UDP"),
    ];
    for (text, expected) in cases {
        refused(&format!("add {};", text.replace("KEY", KEY)), expected);
    }
}

#[test]
fn an_sa_in_udp_is_shown_with_its_ports_and_deleted_by_its_name() {
    let mut root = Root::claim();
    let text = format!("add 10.0.0.1[4500] 10.0.0.2[30001] esp-udp 0x1001 -m tunnel {KEY};");
    let (sad, _) = built(&text, None, &mut root);
    let shown = dump::sa_text(&dump::sas(&sad, &mut root.top()), Instant::from_secs(9));
    assert!(shown.starts_with("10.0.0.1[4500] 10.0.0.2[30001] \n\tesp-udp mode=tunnel spi=4097"), "{shown}");
    assert!(!shown.contains("NAT OA"));
    let natt = format!("add 10.0.0.1 10.0.0.2 esp 0x1001 -natt 10.0.0.1[4500] 192.168.1.9[30001] {KEY};");
    let (sad, _) = built(&natt, None, &mut root);
    let shown = dump::sa_text(&dump::sas(&sad, &mut root.top()), Instant::from_secs(9));
    assert!(shown.contains("\n\tNAT OAI=10.0.0.1\n\tNAT OAR=192.168.1.9\n"), "{shown}");
    for name in
        ["10.0.0.1 10.0.0.2 esp-udp", "10.0.0.1[4500] 10.0.0.2[30001] esp-udp", "10.0.0.1 10.0.0.2 esp"]
    {
        assert!(valid(&format!("{text} delete {name} 0x1001;")).sas().is_empty());
    }
}

#[test]
fn the_ports_of_a_policy_s_ends_tell_peers_behind_one_translator_apart() {
    let mut root = Root::claim();
    let sa = |port: u16| {
        format!("add 10.0.0.1 10.0.0.2[{port}] esp-udp {port} -E aes-gcm-16 0x{:040x};", u128::from(port))
    };
    let policy = |net: u8, ends: &str| {
        format!("spdadd 0.0.0.0/0 10.{net}.0.0/16 any -P out ipsec esp/tunnel/{ends}/require;")
    };
    let text = [
        sa(30_001),
        sa(30_002),
        policy(1, "10.0.0.1-10.0.0.2[30001]"),
        policy(2, "10.0.0.1[4500]-10.0.0.2[30002]"),
        policy(3, "10.0.0.1-10.0.0.2[30003]"),
        policy(4, "10.0.0.1-10.0.0.2"),
    ];
    let conf = valid(&text.concat());
    assert_eq!(conf.warnings().len(), 1, "nobody has port 30003");
    let (_, spd) = built(&text.concat(), None, &mut root);
    let found: Vec<_> = dump::policies(&spd).into_iter().map(|p| p.spis).collect();
    assert_eq!(found, [vec![30_001], vec![30_002], vec![], vec![30_002, 30_001]], "the newest first");
    let shown = dump::policy_text(&dump::policies(&spd));
    assert!(shown.contains("esp/tunnel/10.0.0.1[4500]-10.0.0.2[30002]/require"), "{shown}");
    let head = "spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec ";
    refused(&format!("{head}ah/tunnel/10.0.0.1-10.0.0.2[4500]/require;"), "1:73: only ESP goes in UDP");
    refused(&format!("{head}esp/tunnel/10.0.0.1-10.0.0.2[x]/require;"), "1:74: \"x\" is not a UDP port");
}

#[test]
fn a_port_of_zeros_is_any_port_however_many_they_are() {
    let key = "-E aes-gcm-16 0x00112233445566778899aabbccddeeff01020304";
    for zeros in ["0", "00", "0000", "any"] {
        let sa = valid(&format!("add 10.0.0.1[{zeros}] 10.0.0.2 [{zeros}] esp-udp 999 {key};"));
        let udp = sa.sas()[0].config.encap.unwrap();
        assert_eq!((udp.src_port, udp.dst_port), (4500, 4500), "{zeros}");
        let policy = valid(&format!("spdadd 10.0.0.0/8[{zeros}] 10.0.0.0/8[{zeros}] any -P in none;"));
        assert_eq!(policy.policies()[0].selector.upper, Upper::Any, "{zeros}");
    }
    refused("spdadd 10.0.0.0/8[0-0] 10.0.0.0/8 udp -P in none;", "1:19: \"0-0\" is not a port");
}
