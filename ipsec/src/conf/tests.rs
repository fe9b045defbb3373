//! The language: what setkey's manual shows, every error with its place, and what a reload keeps.

mod beet;
mod implicit;
mod natt;
mod open_mode;

use super::{
    statement::{Add, DirectionWord, Extension, FlagWord, ModeWord, PolicyAdd, Request, SaName, Treatment},
    *,
};
use crate::{
    dump,
    sa::{Df, Fragment, Lifetime, Mode, Padding, Sa, SaIndex, Setup, Spi},
    selector::{Addresses, Ports, Prefix, Upper},
    spd::{Action, Direction, Level},
    transform::{Engine, Suite},
};
use kern::{
    lock::{Held, Root, levels},
    secret::SecretBytes,
    time::Instant,
};
use proptest::prelude::*;
use std::{fmt::Write, net::IpAddr, os::unix::fs::PermissionsExt};
use wire::IpProto;

const TWO_GATEWAYS: &str = r#"
# gw-a
flush; spdflush;

add 203.0.113.1 203.0.113.2 esp 0x1001 -m tunnel -r 8 -u 7 -f seq-pad
    -lh 3600 -ls 3000 -bh 1000000 -ph 500
    -E aes-gcm-16 0x00112233445566778899aabbccddeeff01020304 ;   # outbound
add 203.0.113.2 203.0.113.1 esp 4098 -m tunnel -r 4 -esn
    -E chacha20-poly1305 "0123456789abcdef0123456789abcdefsalt";

spdadd 192.0.2.0/24 198.51.100.0/24 any -P out ipsec
    esp/tunnel/203.0.113.1-203.0.113.2/require;
spdadd 198.51.100.0/24[any] 192.0.2.0/24[80] tcp -P in ipsec esp/tunnel/203.0.113.2-203.0.113.1/unique:7;
spdadd ::/0 ::/0 icmp6 135,0 -P in none;
spdadd -4 0.0.0.0/0 192.0.2.9 udp -P fwd discard;
dump esp; spddump;
"#;

fn valid(text: &str) -> ValidConf {
    let conf = Conf::parse("ipsec.conf", text).unwrap_or_else(|e| panic!("{}", lines(&e)));
    conf.check(&ValidConf::default()).unwrap_or_else(|e| panic!("{}", lines(&e)))
}

fn lines(errors: &[ConfError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// All errors of a text, of whichever step.
fn errors(text: &str) -> Vec<ConfError> {
    match Conf::parse("ipsec.conf", text) {
        Err(errors) => errors,
        Ok(conf) => conf.check(&ValidConf::default()).err().unwrap_or_default(),
    }
}

/// Demands that a text has one error, and which.
fn refused(text: &str, expected: &str) {
    let found = errors(text);
    assert_eq!(found.len(), 1, "{text}: {}", lines(&found));
    let shown = found[0].to_string();
    assert!(shown.starts_with(&format!("ipsec.conf:{expected}")), "{text}\n  {shown}\n  {expected}");
    assert!(!found[0].help.is_empty(), "{text}");
}

fn levels(action: &Action) -> Vec<Level> {
    match action {
        Action::Protect(requests) => requests.iter().map(|r| r.level).collect(),
        _ => vec![],
    }
}

#[test]
fn a_gateway_s_file_means_what_it_says() {
    let conf = valid(TWO_GATEWAYS);
    let [out, inbound] = conf.sas() else { panic!("{conf:?}") };
    let c = &out.config;
    assert_eq!((c.spi, c.mode, c.suite, c.reqid), (Spi(0x1001), Mode::Tunnel, Suite::Aes128Gcm16, 7));
    assert_eq!((c.replay, c.padding, c.esn), (64, Padding::Seq, false));
    assert_eq!(c.hard, Lifetime { bytes: Some(1_000_000), packets: Some(500), seconds: Some(3600) });
    assert_eq!(c.soft, Lifetime { bytes: None, packets: None, seconds: Some(3000) });
    let c = &inbound.config;
    assert_eq!((c.spi, c.suite, c.replay), (Spi(4098), Suite::ChaCha20Poly1305, 32));
    assert!(c.esn && c.padding == Padding::Lenient);
    assert_eq!(inbound.key.expose(), b"0123456789abcdef0123456789abcdefsalt");
    let policies = conf.policies();
    assert_eq!(policies.iter().map(|p| p.id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(levels(&policies[0].action) == [Level::Require]);
    assert_eq!(
        policies[1].selector.upper,
        Upper::Proto { proto: IpProto::TCP, src_port: None, dst_port: Some(Ports::one(80)) }
    );
    assert!(levels(&policies[1].action) == [Level::Unique(7)]);
    assert_eq!(policies[2].selector.upper, Upper::Icmp { proto: IpProto::ICMPV6, kind: 135, code: Some(0) });
    assert_eq!((policies[3].direction, &policies[3].action), (Direction::In, &Action::Discard));
    assert_eq!(conf.warnings().len(), 1, "no inbound SA has -u 7: {}", lines(conf.warnings()));
}

#[test]
fn the_examples_of_the_manual_are_read_and_what_is_not_there_is_named() {
    // From setkey(8) of NetBSD and FreeBSD.
    let text = r#"
add 3ffe:501:4819::1 3ffe:501:481d::1 esp 123457 -E aes-gcm-16 0x3ffe050148193ffe050148193ffe050148193ffe ;
add 10.0.11.41 10.0.11.33 esp 0x10001 -E des-cbc 0x3ffe05014819ffff -A hmac-md5 "authentication!!" ;
add 10.1.10.34 10.1.10.36 tcp 0x1000 -A tcp-md5 "TCP-MD5 BGP secret" ;
get 3ffe:501:4819::1 3ffe:501:481d::1 ah 123456 ;
flush ;
dump esp ;
spdadd 10.0.11.41/32[21] 10.0.11.33/32[any] any -P out ipsec esp/tunnel/192.168.0.1-192.168.1.2/require ;
spdadd 10.0.11.41 10.0.11.33 any -P out prio high - 5 ipsec esp/transport//require ah/transport//require ;
"#;
    let conf = Conf::parse("ipsec.conf", text).unwrap();
    assert_eq!(conf.statements().len(), 8);
    let errors = conf.check(&ValidConf::default()).unwrap_err();
    let found: Vec<_> = errors.iter().map(|e| (e.place.line, e.message.as_str())).collect();
    assert_eq!(
        found,
        [
            (3, "des-cbc is not there: RFC 8221 says MUST NOT"),
            (4, "TCP MD5 signatures (RFC 2385) are not there"),
            (5, "there is no such SA"),
        ]
    );
}

/// Every algorithm word of setkey(8): with a key of the right length it becomes an SA, or its refusal says why.
#[test]
fn every_word_of_the_manual_makes_an_sa_or_is_refused_for_a_reason() {
    let key = |bits: usize, fill: u8| format!("0x{}", format!("{fill:02x}").repeat(bits / 8));
    let with_hash = |cipher: &str| format!("-E {cipher} -A hmac-sha256 {}", key(256, 7));
    let mut good = vec![
        format!("-E aes-gcm-8 {}", key(160, 1)),
        format!("-E aes-gcm-12 {}", key(224, 2)),
        format!("-E aes-gcm-16 {}", key(288, 3)),
        format!("-E aes-ccm-8 {}", key(152, 4)),
        format!("-E aes-ccm-12 {}", key(216, 5)),
        format!("-E aes-ccm-16 {}", key(280, 6)),
        format!("-E aes-gmac {}", key(160, 7)),
        format!("-E chacha20-poly1305 {}", key(288, 8)),
        with_hash("null"),
        with_hash(&format!("aes-cbc {}", key(128, 9))),
        with_hash(&format!("rijndael-cbc {}", key(192, 10))),
        with_hash(&format!("aes-ctr {}", key(160, 11))),
    ];
    let hashes = [
        ("hmac-sha1", 160),
        ("hmac-sha2-256", 256),
        ("hmac-sha384", 384),
        ("hmac-sha2-384", 384),
        ("hmac-sha512", 512),
        ("hmac-sha2-512", 512),
        ("aes-cmac", 128),
        ("aes-xcbc-mac", 128),
    ];
    good.extend(hashes.map(|(hash, bits)| format!("-E null -A {hash} {}", key(bits, 12))));
    let mut root = Root::claim();
    for words in good {
        let text = format!("add 10.0.0.1 10.0.0.2 esp 999 {words};");
        let (sad, _) = built(&text, None, &mut root);
        let shown = dump::sa_text(&dump::sas(&sad, &mut root.top()), Instant::from_secs(9));
        assert!(shown.contains("(bits)") || shown.contains(" bits)"), "{shown}");
        assert!(!shown.contains("0x0707") && !shown.contains("0909"), "a key: {shown}");
    }
    let one = |words: &str| {
        let found = errors(&format!("add 10.0.0.1 10.0.0.2 esp 999 {words};"));
        assert_eq!(found.len(), 1, "{words}: {}", lines(&found));
        found[0].to_string()
    };
    let k = key(128, 1);
    for cipher in ["des-cbc", "des-deriv", "blowfish-cbc", "cast128-cbc", "twofish-cbc", "camellia-cbc"] {
        assert!(one(&format!("-E {cipher} {k}")).contains(&format!("{cipher} is not there: ")));
    }
    for hash in ["keyed-md5", "keyed-sha1", "hmac-ripemd160", "tcp-md5"] {
        let shown = one(&format!("-E aes-cbc {k} -A {hash} {k}"));
        assert!(shown.contains(&format!("{hash} is not there: ")), "{shown}");
    }
    assert!(one(&format!("-E aes-cbc {k}")).contains("1:34: aes-cbc does not authenticate (-A"));
    assert!(
        one(&format!("-E aes-gcm-16 {} -A hmac-sha1 {}", key(160, 1), key(160, 2))).contains("by itself")
    );
    assert!(
        one(&format!("-E aes-cbc {k} -A hmac-sha256 {k}"))
            .contains("the key has 128 bits (for hmac-sha256: 256)")
    );
    assert!(
        one(&format!("-E aes-cbc {} -A hmac-sha2-256 {}", key(64, 1), key(256, 1)))
            .contains("(for aes-cbc: 128, 192 or 256)")
    );
    assert!(one(&format!("-C deflate -E aes-gcm-16 {}", key(160, 1))).contains("ESP does not compress"));
}

#[test]
fn every_error_says_where_it_is_and_what_would_be_right() {
    let key = "-E aes-gcm-16 0x00112233445566778899aabbccddeeff01020304";
    let cases = [
        ("frob;".to_owned(), "1:1: \"frob\" is not a command"),
        ("flush".to_owned(), "1:1: the statement has no end (it ends with ';')"),
        ("flush tcpp;".to_owned(), "1:7: \"tcpp\" is not a security protocol"),
        ("spdflush now;".to_owned(), "1:10: \"now\" is not expected here"),
        (format!("add gw1 10.0.0.2 esp 999 {key};"), "1:5: \"gw1\" is not an address (a numeric"),
        (format!("add 10.0.0.1 10.0.0.2 esp 12 {key};"), "1:27: \"12\" is not an SPI (a number from 256"),
        (format!("add 10.0.0.1 10.0.0.2 esp 0x1ffffffff {key};"), "1:27: this is not an SPI"),
        (format!("add 10.0.0.1 ::2 esp 999 {key};"), "1:14: the ends of an SA are of two families"),
        (
            format!("add 10.0.0.1 10.0.0.2 ah 999 {key} -A hmac-sha1 \"twenty octets of key\";"),
            "1:33: AH only authenticates",
        ),
        ("add 10.0.0.1 10.0.0.2 ah 999;".to_owned(), "1:1: this SA has no algorithm (-A hmac-sha256"),
        ("add 10.0.0.1 10.0.0.2 ipcomp 65536 -C deflate;".to_owned(), "1:30: a CPI has 16 bits"),
        ("add 10.0.0.1 10.0.0.2 ipcomp 999 -C lzs;".to_owned(), "1:37: \"lzs\" is no compression"),
        ("add 10.0.0.1 10.0.0.2 ipcomp 999;".to_owned(), "1:1: this SA has no algorithm (-C deflate)"),
        (
            format!("add 10.0.0.1 10.0.0.2 esp 999 -df maybe {key};"),
            "1:35: \"maybe\" is not what becomes of DF",
        ),
        (format!("add 10.0.0.1 10.0.0.2 esp 999 -dscp 64 {key};"), "1:37: \"64\" is not a DSCP"),
        (
            format!("add 10.0.0.1 10.0.0.2 esp 999 -m tunel {key};"),
            "1:34: \"tunel\" is not a mode (one of transport",
        ),
        (
            format!("add 10.0.0.1 10.0.0.2 esp 999 -r 3 {key};"),
            "1:31: a replay window of 24 packets (4 to 8192",
        ),
        (format!("add 10.0.0.1 10.0.0.2 esp 999 -r x {key};"), "1:34: \"x\" is not a window in bytes"),
        (
            format!("add 10.0.0.1 10.0.0.2 esp 999 -esn {key};"),
            "1:31: extended sequence numbers need a replay",
        ),
        (
            format!("add 10.0.0.1 10.0.0.2 esp 999 -bs 9 -bh 8 {key};"),
            "1:5: the soft lifetime of 9 bytes ends after",
        ),
        (format!("add 10.0.0.1 10.0.0.2 esp 999 -f random-pad {key};"), "1:31: random padding"),
        (format!("add 10.0.0.1 10.0.0.2 esp 999 -z {key};"), "1:31: \"-z\" is not an option of add"),
        ("add 10.0.0.1 10.0.0.2 esp 999;".to_owned(), "1:1: this SA has no algorithm"),
        ("add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16;".to_owned(), "1:34: a key is missing"),
        (
            "add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 0x00;".to_owned(),
            "1:45: the key has 8 bits (for aes-gcm-16: 160",
        ),
        ("add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 0x001;".to_owned(), "1:45: the key has an odd number"),
        ("add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 0x0g;".to_owned(), "1:45: the key has characters"),
        (
            "add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 abc;".to_owned(),
            "1:45: this is not a key (hexadecimal",
        ),
        (
            "add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 \"a\n;".to_owned(),
            "1:45: the key's string has no end",
        ),
        ("add 10.0.0.1 10.0.0.2 esp 999 -E rot13 0x00;".to_owned(), "1:34: \"rot13\" is not a cipher"),
        ("delete 10.0.0.1 10.0.0.2 esp 999;".to_owned(), "1:1: there is no such SA"),
        (
            "spdadd 10.0.0.0/33 0.0.0.0/0 any -P out none;".to_owned(),
            "1:17: \"33\" is not a prefix length (0 to 32)",
        ),
        ("spdadd 0.0.0.0/0[x] 0.0.0.0/0 tcp -P out none;".to_owned(), "1:18: \"x\" is not a port"),
        ("spdadd 0.0.0.0/0[5] 0.0.0.0/0 esp -P out none;".to_owned(), "1:18: esp has no ports"),
        (
            "spdadd 0.0.0.0/0[5] 0.0.0.0/0 icmp -P out none;".to_owned(),
            "1:18: icmp has no ports (type and code",
        ),
        ("spdadd 0.0.0.0/0 0.0.0.0/0 tcp 8,0 -P out none;".to_owned(), "1:32: \"8,0\" does not go with"),
        (
            "spdadd 0.0.0.0/0 0.0.0.0/0 nonsense -P out none;".to_owned(),
            "1:28: \"nonsense\" is not a protocol",
        ),
        (
            "spdadd 0.0.0.0/0 ::/0 any -P out none;".to_owned(),
            "1:18: source and destination are of two families",
        ),
        ("spdadd 0.0.0.0/0 0.0.0.0/0 any none;".to_owned(), "1:28: -P is missing behind this"),
        ("spdadd 0.0.0.0/0 0.0.0.0/0 any -P up none;".to_owned(), "1:35: \"up\" is not a direction"),
        (
            "spdadd 0.0.0.0/0 0.0.0.0/0 any -P out permit;".to_owned(),
            "1:39: \"permit\" is not what a policy can do",
        ),
        (
            "spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec;".to_owned(),
            "1:39: protocol/mode/src-dst/level is missing",
        ),
        ("spdadd tagged \"x\" -P out none;".to_owned(), "1:8: policies by pf tag"),
        ("spddelete 0.0.0.0/0 0.0.0.0/0 any -P out;".to_owned(), "1:1: there is no such policy"),
    ];
    for (text, expected) in cases {
        refused(&text, expected);
    }
}

#[test]
fn the_parts_of_a_policy_s_request_have_their_own_places() {
    let out = "spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec ";
    let cases = [
        ("esp/tunnel/require", "45: \"esp/tunnel/require\" is not protocol/mode/src-dst/level"),
        ("esq/tunnel/10.0.0.1-10.0.0.2/require", "45: \"esq\" is not a security protocol"),
        ("esp/tunel/10.0.0.1-10.0.0.2/require", "49: \"tunel\" is not a mode"),
        ("esp/tunnel/10.0.0.1-10.0.0.x/require", "65: \"10.0.0.x\" is not an address"),
        ("esp/tunnel/10.0.0.1/require", "56: \"10.0.0.1\" is not src-dst"),
        ("esp/tunnel//require", "49: a tunnel needs its ends"),
        ("esp/tunnel/10.0.0.1-::1/require", "65: the ends of the tunnel are of two families"),
        ("esp/tunnel/10.0.0.1-10.0.0.2/requires", "74: \"requires\" is not a level"),
        ("esp/tunnel/10.0.0.1-10.0.0.2/unique:0", "74: \"unique:0\" is not a level"),
        ("esp-old/tunnel/10.0.0.1-10.0.0.2/use", "45: esp-old is the ESP of RFC 1827"),
        ("ah////", "45: \"ah////\" is not protocol/mode/src-dst/level"),
    ];
    for (request, expected) in cases {
        let found = errors(&format!("{out}{request};"));
        assert_eq!(found.len(), 1, "{request}: {}", lines(&found));
        let shown = found[0].to_string();
        assert!(shown.starts_with(&format!("ipsec.conf:1:{expected}")), "{shown}");
    }
}

#[test]
fn all_errors_of_a_file_are_reported_in_one_run_even_two_in_one_statement() {
    let text = "add 10.0.0 10.0.0.2 esp 5 -m x -E aes-gcm-16 0x0;\nfrob a b;\nspdadd 1 2 any -P out none;\nflush\nspdflush;\n";
    let found: Vec<_> = errors(text).iter().map(|e| (e.place.line, e.place.column)).collect();
    assert_eq!(found, [(1, 5), (1, 25), (1, 30), (1, 46), (2, 1), (3, 8), (3, 10), (4, 1)]);
}

#[test]
fn a_forgotten_semicolon_is_found_where_it_was_forgotten() {
    let text = "spdadd 10.0.0.0/8 0.0.0.0/0 any -P out none\nspdadd 11.0.0.0/8 0.0.0.0/0 any -P out nones;\n";
    let found: Vec<_> = errors(text).iter().map(ToString::to_string).collect();
    assert_eq!(found[0], "ipsec.conf:1:40: the statement has no end (it ends with ';')");
    assert!(found.len() == 2 && found[1].starts_with("ipsec.conf:2:40: \"nones\" is not what"), "{found:?}");
}

#[test]
fn a_key_is_in_no_message_and_in_no_debug_output() {
    let secret = "00112233445566778899aabbccddeeff01020304";
    let conf = Conf::parse("f", &format!("add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 0x{secret};")).unwrap();
    let valid = conf.check(&ValidConf::default()).unwrap();
    let texts = [
        format!("{conf:?} {valid:?}"),
        lines(&errors(&format!("add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 0x{secret}0;"))),
        lines(&errors(&format!("add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 {secret};"))),
        lines(&errors(&format!("add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 \"{secret};"))),
        lines(&errors(&format!("add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 0x00 0x{secret};"))),
        lines(&errors(&format!("add 10.0.0.1 10.0.0.2 esp 999 0x{secret};"))),
    ];
    for text in texts {
        assert!(!text.contains("2233") && !text.contains("[0, 17, 34"), "{text}");
    }
}

#[test]
fn the_same_key_twice_and_the_same_spi_twice_are_refused() {
    let key = "0x00112233445566778899aabbccddeeff01020304";
    let text = format!(
        "add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 {key};\nadd 10.0.0.2 10.0.0.1 esp 998 -E aes-gcm-16 {key};"
    );
    assert!(
        lines(&errors(&text))
            .starts_with("ipsec.conf:2:45: the SA of line 1 has the same key (a key of its own")
    );
    let other = "0x10112233445566778899aabbccddeeff01020304";
    let text = format!(
        "add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 {key};\nadd 10.0.0.3 10.0.0.2 esp 999 -E aes-gcm-16 {other};"
    );
    assert!(
        lines(&errors(&text))
            .starts_with("ipsec.conf:2:27: SPI 0x3e7 of 10.0.0.2 is taken by the SA of line 1")
    );
}

#[test]
fn statements_are_carried_out_in_order_on_what_is_there() {
    let base = valid(TWO_GATEWAYS);
    let more =
        Conf::parse("-c", "delete 203.0.113.1 203.0.113.2 esp 0x1001; spdadd ::/0 ::/0 any -P out none;")
            .unwrap();
    let after = more.check(&base).unwrap();
    assert_eq!((after.sas().len(), after.policies().len()), (1, 5));
    let clear = Conf::parse("-c", "deleteall 203.0.113.2 203.0.113.1 esp; spdflush; exit; nonsense").unwrap();
    let after = clear.check(&after).unwrap();
    assert_eq!((after.sas().len(), after.policies().len()), (0, 0));
    let update = "spdadd ::/0 ::/0 any -P in none; spdupdate ::/0 ::/0 any -P in discard;";
    assert_eq!(valid(update).policies()[0].action, Action::Discard);
    let twice = errors("spdadd ::/0 ::/0 any -P in none; spdadd ::/0 ::/0 any -P in discard;");
    assert!(lines(&twice).starts_with("ipsec.conf:1:34: the policy of line 1 has the same selectors"));
}

#[test]
fn policies_are_asked_by_priority_and_then_in_the_order_of_the_file() {
    let text = "spdadd ::/0 ::/0 tcp -P in none;
        spdadd ::/0 ::/0 udp -P in priority -5 none;
        spdadd ::/0 ::/0 esp -P in prio high + 1 none;
        spdadd ::/0 ::/0 ah -P in prio high none;
        spdadd ::/0 ::/0 icmp6 -P in none;";
    let order: Vec<_> = valid(text)
        .policies()
        .iter()
        .map(|p| match p.selector.upper {
            Upper::Proto { proto, .. } => proto.name().unwrap(),
            _ => panic!("{p:?}"),
        })
        .collect();
    assert_eq!(order, ["esp", "ah", "tcp", "ipv6-icmp", "udp"]);
}

fn setup() -> Setup {
    Setup::new(Instant::from_secs(5))
}

fn built(text: &str, previous: Option<&crate::Sad>, root: &mut Root) -> (crate::Sad, crate::Spd) {
    build(&valid(text), previous, &setup(), &mut root.top()).unwrap()
}

#[test]
fn a_reload_keeps_what_did_not_change_and_never_hands_an_index_on_at_once() {
    let mut root = Root::claim();
    let (first, _) = built(TWO_GATEWAYS, None, &mut root);
    let (second, spd) = built(TWO_GATEWAYS, Some(&first), &mut root);
    for (a, b) in first.iter().zip(second.iter()) {
        assert!(Arc::ptr_eq(a, b), "nothing changed");
    }
    assert_eq!(spd.with_sas().map(|(_, sas)| sas.len()).collect::<Vec<_>>(), [1, 0, 0, 0]);

    first.iter().next().unwrap().set_next_sequence(&mut root.top(), 1000);
    let changed = TWO_GATEWAYS.replace("-r 8", "-r 64").replace("-ls 3000", "-ls 2000");
    let (third, _) = built(&changed, Some(&second), &mut root);
    let sas: Vec<_> = third.iter().collect();
    assert_eq!((sas[0].index(), sas[0].config().replay), (SaIndex(0), 512));
    assert_eq!(sas[0].status(&mut root.top()).sequence, 999, "the numbers go on");
    assert!(Arc::ptr_eq(sas[1], first.get(SaIndex(1)).unwrap()));

    let rekeyed = changed.replace("0x0011", "0x1111").replace("0x1001", "0x1003");
    let (fourth, _) = built(&rekeyed, Some(&third), &mut root);
    assert!(fourth.get(SaIndex(0)).is_none(), "the index rests for one snapshot");
    let new = fourth.get(SaIndex(2)).unwrap();
    assert_eq!(new.status(&mut root.top()).sequence, 0);
    let (fifth, _) = built(
        &(rekeyed + "add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 \"a key of twenty byte\";"),
        Some(&fourth),
        &mut root,
    );
    assert_eq!(fifth.get(SaIndex(0)).unwrap().config().spi, Spi(999), "and is free in the next");
}

#[test]
fn an_sa_can_go_on_where_another_machine_left_it() {
    let text = TWO_GATEWAYS.replace("-r 4 -esn", "-r 4 -esn -seq 0x5fffffff0");
    assert!(errors(&text)[0].message.contains("is not a sequence number"));
    let text = TWO_GATEWAYS.replace("-r 4 -esn", "-r 4 -esn -seq 21474836480");
    let mut root = Root::claim();
    let (sad, _) = built(&text, None, &mut root);
    let status = sad.iter().nth(1).unwrap().status(&mut root.top());
    assert_eq!((status.sequence, status.top), (5 << 32, 5 << 32));
    let (again, _) = built(&text, Some(&sad), &mut root);
    assert!(
        Arc::ptr_eq(again.iter().nth(1).unwrap(), sad.iter().nth(1).unwrap()),
        "not put back by a reload"
    );
    let text = TWO_GATEWAYS.replace("-u 7", "-u 7 -seq 4294967296");
    assert!(
        lines(&errors(&text)).contains("5:5: 4294967296 is no sequence number of 32 bits"),
        "{}",
        lines(&errors(&text))
    );
}

#[test]
fn an_engine_chosen_anew_gets_the_old_numbers() {
    let mut root = Root::claim();
    let (first, _) = built(TWO_GATEWAYS, None, &mut root);
    first.iter().next().unwrap().set_next_sequence(&mut root.top(), 50);
    let ring = Setup { engine: Engine::Ring, ..setup() };
    let (second, _) = build(&valid(TWO_GATEWAYS), Some(&first), &ring, &mut root.top()).unwrap();
    let sa: &Arc<Sa> = second.iter().next().unwrap();
    assert_eq!((sa.engine(), sa.status(&mut root.top()).sequence), (Engine::Ring, 49));
}

#[test]
fn the_dumps_are_in_setkey_s_layout_and_show_no_key() {
    let mut root = Root::claim();
    let (sad, spd) = built(TWO_GATEWAYS, None, &mut root);
    let text = dump::sa_text(&dump::sas(&sad, &mut root.top()), Instant::from_secs(65));
    let without_dates: String = text
        .lines()
        .map(|l| {
            if l.starts_with("\tcreated: ") {
                "\tcreated: T\tcurrent: T\n".to_owned()
            } else {
                format!("{l}\n")
            }
        })
        .collect();
    let expected = "203.0.113.1 203.0.113.2 \n\
        \tesp mode=tunnel spi=4097(0x00001001) reqid=7(0x00000007)\n\
        \tE: aes-gcm-16  (160 bits)\n\
        \tseq=0x00000000 replay=8 flags=0x00000000 state=mature\n\
        \tcreated: T\tcurrent: T\n\
        \tdiff: 60(s)\thard: 3600(s)\tsoft: 3000(s)\n\
        \tlast:                     \thard: 0(s)\tsoft: 0(s)\n\
        \tcurrent: 0(bytes)\thard: 1000000(bytes)\tsoft: 0(bytes)\n\
        \tallocated: 0\thard: 500\tsoft: 0\n\
        \tsadb_seq=1 pid=0 refcnt=0\n\
        203.0.113.2 203.0.113.1 \n\
        \tesp mode=tunnel spi=4098(0x00001002) reqid=0(0x00000000)\n\
        \tE: chacha20-poly1305  (288 bits)\n";
    assert!(without_dates.starts_with(expected), "{without_dates}");
    let policies = dump::policy_text(&dump::policies(&spd));
    let expected = "192.0.2.0/24[any] 198.51.100.0/24[any] any\n\
        \tout ipsec\n\
        \tesp/tunnel/203.0.113.1-203.0.113.2/require\n\
        \tspid=1 seq=3 pid=0\n\
        \trefcnt=1\n\
        198.51.100.0/24[any] 192.0.2.0/24[80] tcp\n\
        \tin ipsec\n\
        \tesp/tunnel/203.0.113.2-203.0.113.1/unique:7\n\
        \tspid=2 seq=2 pid=0\n\
        \trefcnt=1\n\
        ::/0 ::/0 ipv6-icmp 135,0\n\
        \tin none\n\
        \tspid=3 seq=1 pid=0\n\
        \trefcnt=1\n\
        0.0.0.0/0[any] 192.0.2.9[any] udp\n\
        \tin discard\n\
        \tspid=4 seq=0 pid=0\n\
        \trefcnt=1\n";
    assert_eq!(policies, expected);
    assert_eq!(dump::sa_text(&[], Instant::ZERO), "No SAD entries.\n");
    assert_eq!(dump::policy_text(&[]), "No SPD entries.\n");
}

#[test]
fn a_file_that_others_can_read_is_refused_with_the_command_to_type() {
    let path = std::env::temp_dir().join(format!("softnet-ipsec-{}.conf", std::process::id()));
    std::fs::write(&path, "flush;").unwrap();
    for (mode, fine) in
        [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false), (0o644, false)]
    {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        match check_private(&path) {
            Ok(()) => assert!(fine, "{mode:o}"),
            Err(e) => {
                let text = e.to_string();
                assert!(!fine && text.contains(&format!("mode {mode:04o}")), "{text}");
                assert!(text.ends_with(&format!("type: chmod 600 {}", path.display())), "{text}");
            }
        }
    }
    std::fs::remove_file(&path).unwrap();
    assert!(check_private(&path).unwrap_err().to_string().contains("softnet-ipsec"));
}

/// Writes statements as a file would have them.
mod print {
    use super::*;

    fn hex(key: &SecretBytes) -> String {
        key.expose().iter().fold("0x".to_owned(), |mut s, b| {
            let _ = write!(s, "{b:02x}");
            s
        })
    }

    fn sa_name(n: &SaName) -> String {
        let [src, dst] = [(&n.src, &n.ports[0], ""), (&n.dst, &n.ports[1], " ")].map(|(addr, port, gap)| {
            let port = port.as_ref().map_or(String::new(), |port| format!("{gap}[{}]", port.value));
            format!("{}{port}", addr.value)
        });
        format!("{src} {dst} {} {:#x}", n.protocol.value.name(), n.spi.value.0)
    }

    fn mode(m: ModeWord) -> &'static str {
        match m {
            ModeWord::Transport => "transport",
            ModeWord::Tunnel => "tunnel",
            ModeWord::Beet => "beet",
            ModeWord::Any => "any",
        }
    }

    fn extension(e: &Extension) -> String {
        match e {
            Extension::Mode(m) => format!("-m {}", mode(*m)),
            Extension::Inner(src, dst) => format!("-inner {src} {dst}"),
            Extension::Reqid(n) => format!("-u {n}"),
            Extension::Worker(n) => format!("-pcpu-num {n}"),
            Extension::Replay(n) => format!("-r {n}"),
            Extension::Flag(FlagWord::ZeroPad) => "-f zero-pad".to_owned(),
            Extension::Flag(FlagWord::RandomPad) => "-f random-pad".to_owned(),
            Extension::Flag(FlagWord::SeqPad) => "-f seq-pad".to_owned(),
            Extension::Flag(FlagWord::NocyclicSeq) => "-f nocyclic-seq".to_owned(),
            Extension::HardSeconds(n) => format!("-lh {n}"),
            Extension::SoftSeconds(n) => format!("-ls {n}"),
            Extension::HardBytes(n) => format!("-bh {n}"),
            Extension::SoftBytes(n) => format!("-bs {n}"),
            Extension::HardPackets(n) => format!("-ph {n}"),
            Extension::SoftPackets(n) => format!("-ps {n}"),
            Extension::Esn => "-esn".to_owned(),
            Extension::Sequence(n) => format!("-seq {n}"),
            Extension::Flag(FlagWord::Align8) => "-f align8".to_owned(),
            Extension::Fragment(Fragment::Before) => "-frag before".to_owned(),
            Extension::Fragment(Fragment::After) => "-frag after".to_owned(),
            Extension::Df(Df::Copy) => "-df copy".to_owned(),
            Extension::Df(Df::Set) => "-df set".to_owned(),
            Extension::Df(Df::Clear) => "-df clear".to_owned(),
            Extension::Dscp(n) => format!("-dscp {n}"),
            Extension::NoEcn => "-noecn".to_owned(),
            Extension::Ttl(n) => format!("-ttl {n}"),
            Extension::FlowLabel => "-flow-label".to_owned(),
            Extension::Tfc(n) => format!("-tfc {n}"),
            Extension::Threshold(n) => format!("-threshold {n}"),
            Extension::Natt([(a, p), (b, q)]) => format!("-natt {a}[{p}] {b}[{q}]"),
            Extension::NattMtu => "-natt_mtu 1200".to_owned(),
            Extension::Keepalive(n) => format!("-keepalive {n}"),
            Extension::Context => "-ctx 1 1 \"name\"".to_owned(),
        }
    }

    pub(super) fn add(a: &Add) -> String {
        let mut text = format!("add {}", sa_name(&a.name));
        for e in &a.extensions {
            let _ = write!(text, "\n  {}", extension(&e.value));
        }
        for (flag, algorithm) in [("-E", &a.encryption), ("-A", &a.authentication)] {
            if let Some(a) = algorithm {
                let key = a.key.as_ref().map(|k| hex(&k.value)).unwrap_or_default();
                let _ = write!(text, " {flag} {} {key}", a.name.value);
            }
        }
        text + ";\n"
    }

    fn range(addresses: Addresses, port: Option<Ports>) -> String {
        format!("{addresses}{}", port.map_or("[any]".to_owned(), |p| format!("[{p}]")))
    }

    pub(super) fn policy(p: &PolicyAdd) -> String {
        let (ports, upper) = match p.name.upper {
            Upper::Any => ((None, None), "any".to_owned()),
            Upper::Ports { src_port, dst_port } => ((src_port, dst_port), "any".to_owned()),
            Upper::Proto { proto, src_port, dst_port } => ((src_port, dst_port), proto.0.to_string()),
            Upper::Icmp { proto, kind, code } => {
                let code = code.map_or(String::new(), |code| format!(",{code}"));
                ((None, None), format!("{} {kind}{code}", proto.0))
            }
        };
        let direction = match p.name.direction.value {
            DirectionWord::In => "in",
            DirectionWord::Out => "out",
            DirectionWord::Fwd => "fwd",
        };
        let mut text = format!(
            "spdadd -n {} {} {upper}\t-P {direction} priority {} ",
            range(p.name.src.value, ports.0),
            range(p.name.dst.value, ports.1),
            p.priority,
        );
        match &p.treatment {
            Treatment::None => text.push_str("none"),
            Treatment::Discard => text.push_str("discard"),
            Treatment::Ipsec(requests) => {
                text.push_str("ipsec");
                for r in requests {
                    text.push_str(&request(r));
                }
            }
        }
        text + " # a comment; with a semicolon\n;\n"
    }

    fn request(r: &Request) -> String {
        let level = match r.level.value {
            Level::Default => "default".to_owned(),
            Level::Use => "use".to_owned(),
            Level::Require => "require".to_owned(),
            Level::Unique(id) => format!("unique:{id}"),
        };
        let [src, dst] =
            r.ports.each_ref().map(|port| port.as_ref().map_or(String::new(), |p| format!("[{}]", p.value)));
        let ends =
            r.ends.as_ref().map(|(s, d)| format!("{}{src}-{}{dst}", s.value, d.value)).unwrap_or_default();
        format!("\n {}/{}/{ends}/{level}", r.protocol.value.name(), mode(r.mode.value))
    }
}

fn here<T>(value: T) -> At<T> {
    At { value, place: Place::default() }
}

fn any_addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn any_protocol() -> impl Strategy<Value = statement::Protocol> {
    (0..statement::Protocol::ALL.len()).prop_map(|i| statement::Protocol::ALL[i].1)
}

fn any_extension() -> impl Strategy<Value = Extension> {
    prop_oneof![
        Just(Extension::Mode(ModeWord::Tunnel)),
        Just(Extension::Mode(ModeWord::Transport)),
        any::<u32>().prop_map(Extension::Reqid),
        any::<u32>().prop_map(Extension::Replay),
        Just(Extension::Flag(FlagWord::ZeroPad)),
        Just(Extension::Flag(FlagWord::NocyclicSeq)),
        any::<u64>().prop_map(Extension::HardSeconds),
        any::<u64>().prop_map(Extension::SoftBytes),
        any::<u64>().prop_map(Extension::HardPackets),
        Just(Extension::Esn),
        (..u64::MAX).prop_map(Extension::Sequence),
        (0u8..64).prop_map(Extension::Dscp),
        (1u8..).prop_map(Extension::Ttl),
        any::<u16>().prop_map(Extension::Tfc),
        Just(Extension::Df(Df::Clear)),
        Just(Extension::Fragment(Fragment::Before)),
        Just(Extension::NoEcn),
        Just(Extension::Context),
        [(any_addr(), 1u16..), (any_addr(), 1u16..)].prop_map(Extension::Natt),
        Just(Extension::NattMtu),
        any::<u16>().prop_map(Extension::Keepalive),
    ]
}

fn any_algorithm() -> impl Strategy<Value = statement::Algorithm> {
    ("[a-z][a-z0-9-]{2,12}", proptest::collection::vec(any::<u8>(), 1..40)).prop_filter_map(
        "keyless words",
        |(name, key)| {
            let key = here(Arc::new(SecretBytes::copy_of(&key).unwrap()));
            (name != "null" && name != "simple")
                .then(|| statement::Algorithm { name: here(name), key: Some(key) })
        },
    )
}

fn any_add() -> impl Strategy<Value = Add> {
    let port = || proptest::option::of((1u16..).prop_map(here));
    let ends = (any_addr(), any_addr(), [port(), port()]);
    let name = (ends, any_protocol(), 256u32..).prop_map(|((src, dst, ports), protocol, spi)| SaName {
        src: here(src),
        dst: here(dst),
        ports,
        protocol: here(protocol),
        spi: here(Spi(spi)),
    });
    (
        name,
        proptest::collection::vec(any_extension().prop_map(here), 0..6),
        any_algorithm(),
        proptest::option::of(any_algorithm()),
    )
        .prop_map(|(name, extensions, encryption, authentication)| Add {
            name,
            extensions,
            encryption: Some(encryption),
            authentication,
            compression: None,
        })
}

fn any_range() -> impl Strategy<Value = Addresses> {
    let prefix = (any_addr(), 0u8..=128).prop_map(|(addr, len)| {
        Prefix::new(addr, if addr.is_ipv4() { len % 33 } else { len }).unwrap().into()
    });
    let span = (any_addr(), any_addr())
        .prop_filter_map("two families", |(a, b)| Addresses::span(a.min(b), a.max(b)));
    prop_oneof![3 => prefix, 1 => span]
}

fn any_policy() -> impl Strategy<Value = PolicyAdd> {
    let one = (1u16..).prop_map(Ports::one);
    let span = (1u16.., 1u16..).prop_map(|(a, b)| Ports::span(a.min(b), a.max(b)).unwrap());
    let ports = prop_oneof![one, span].boxed();
    let port = || proptest::option::of(ports.clone());
    let upper = prop_oneof![
        Just(Upper::Any),
        (ports.clone(), port()).prop_map(|(p, dst_port)| Upper::Ports { src_port: Some(p), dst_port }),
        (port(), port()).prop_map(|(src_port, dst_port)| Upper::Proto {
            proto: IpProto::UDP,
            src_port,
            dst_port
        }),
        (0u8..).prop_map(|p| Upper::Proto { proto: IpProto(p), src_port: None, dst_port: None }),
        any::<(u8, Option<u8>)>().prop_map(|(kind, code)| Upper::Icmp { proto: IpProto::ICMP, kind, code }),
    ];
    let level = prop_oneof![
        Just(Level::Default),
        Just(Level::Use),
        Just(Level::Require),
        (1u32..).prop_map(Level::Unique),
    ];
    let ends = proptest::option::of((any_addr(), any_addr()).prop_map(|(s, d)| (here(s), here(d))));
    let udp = || proptest::option::of((1u16..).prop_map(here));
    let request = (any_protocol(), any::<bool>(), ends, [udp(), udp()], level).prop_map(
        |(protocol, tunnel, ends, ports, level)| Request {
            protocol: here(protocol),
            mode: here(if tunnel { ModeWord::Tunnel } else { ModeWord::Transport }),
            ports: if ends.is_some() { ports } else { [None, None] },
            ends,
            level: here(level),
        },
    );
    let treatment = prop_oneof![
        Just(Treatment::None),
        Just(Treatment::Discard),
        proptest::collection::vec(request, 1..4).prop_map(Treatment::Ipsec),
    ];
    let direction = prop_oneof![Just(DirectionWord::In), Just(DirectionWord::Out), Just(DirectionWord::Fwd)];
    (any_range(), any_range(), upper, direction, any::<i32>(), treatment).prop_map(
        |(src, dst, upper, direction, priority, treatment)| PolicyAdd {
            name: statement::PolicyName { src: here(src), dst: here(dst), upper, direction: here(direction) },
            priority: priority.into(),
            treatment,
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(adds in proptest::collection::vec(any_add(), 0..5), policies in proptest::collection::vec(any_policy(), 0..5)) {
        let text: String = adds.iter().map(print::add).chain(policies.iter().map(print::policy)).collect();
        let conf = Conf::parse("f", &text).map_err(|e| TestCaseError::fail(format!("{text}\n{}", lines(&e))))?;
        prop_assert_eq!(conf.statements().len(), adds.len() + policies.len());
        // Places differ, so what was read is written again and compared as text.
        let again: String = conf.statements().iter().map(|s| match &s.value {
            Command::Add(a) => print::add(a),
            Command::SpdAdd(p) => print::policy(p),
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(again, text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ -~\n\t]{0,300}") {
        let _ = errors(&text);
    }

    #[test]
    fn no_order_of_words_makes_the_parser_panic(words in proptest::collection::vec(prop_oneof![
        Just("add"), Just("spdadd"), Just("delete"), Just("flush"), Just("10.0.0.1"), Just("::1"), Just("0.0.0.0/0[80]"),
        Just("esp"), Just("esp-udp"), Just("[4500]"), Just("-natt"), Just("-keepalive"), Just("ah"), Just("999"), Just("0x1234"), Just("-m"), Just("tunnel"), Just("-E"), Just("aes-gcm-16"),
        Just("-P"), Just("in"), Just("ipsec"), Just("esp/tunnel/10.0.0.1-10.0.0.2/require"), Just("any"), Just("icmp"),
        Just("8,0"), Just(";"), Just("\n"), Just("\""), Just("#"), Just("-4"), Just("prio"), Just("high"), Just("-"), Just("é["),
    ], 0..60)) {
        let text = words.join(" ");
        for e in errors(&text) {
            prop_assert!(e.place.line >= 1 && e.place.column >= 1 && !e.message.is_empty());
        }
    }
}

/// Only to say that a proof of nothing held will do.
#[test]
fn building_needs_no_more_than_what_comes_before_an_sa() {
    let mut root = Root::claim();
    let mut top = root.top();
    let mut sad: Held<'_, levels::Sad> = top.at();
    assert!(build(&ValidConf::default(), None, &setup(), &mut sad).unwrap().0.is_empty());
}
