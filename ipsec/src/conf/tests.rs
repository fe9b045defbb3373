//! The language: what setkey's manual shows. That all of it is read as it was meant `tests/fuzz_conf` shows.

mod beet;
mod dumps;
mod errors;
mod implicit;
mod natt;
mod open_mode;
mod reload;

use super::*;
use crate::{
    dump,
    sa::{Lifetime, Mode, Padding, Sa, SaIndex, Setup, Spi},
    selector::{Ports, Upper},
    spd::{Action, Direction, Level},
    transform::{Engine, Suite},
};
use kern::{
    lock::{Held, Root, levels},
    time::Instant,
};
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt;
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
