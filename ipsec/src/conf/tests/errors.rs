//! Every error with its place, and no key in any.

use super::*;

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

proptest! {
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

#[test]
fn padding_of_traffic_flows_is_refused_where_there_would_be_none() {
    let gcm = "-E aes-gcm-16 0x00112233445566778899aabbccddeeff01020304";
    let sha = "-A hmac-sha1 0x0123456789012345678901234567890123456789";
    let add = |rest: &str| format!("add 203.0.113.1 203.0.113.2 {rest};");
    for (text, expected) in [
        (add(&format!("esp 0x1001 -m transport -tfc 900 {gcm}")), "1:53: only ESP in a tunnel is padded"),
        (add(&format!("esp 0x1001 -tfc 900 -m transport {gcm}")), "1:40: only ESP in a tunnel is padded"),
        (add(&format!("ah 0x1001 -m tunnel -tfc 900 {sha}")), "1:49: only ESP in a tunnel is padded"),
        (add("ipcomp 0x1001 -tfc 900 -C deflate"), "1:43: only ESP in a tunnel is padded"),
        (
            format!(
                "{}\nupdate 203.0.113.1 203.0.113.2 esp 0x1001 -m transport;",
                add(&format!("esp 0x1001 -m tunnel -tfc 900 {gcm}"))
            ),
            "2:43: only ESP in a tunnel is padded",
        ),
        (
            format!(
                "{}\nspdadd 203.0.113.1 203.0.113.2 any -P out ipsec esp/transport//require;",
                add(&format!("esp 0x1001 -tfc 900 {gcm}"))
            ),
            "1:1: only ESP in a tunnel is padded",
        ),
    ] {
        refused(&text, expected);
    }
    for text in ["-m tunnel -tfc 900", "-tfc 900", "-m transport -tfc 0"] {
        let found = errors(&add(&format!("esp 0x1001 {text} {gcm}")));
        assert!(found.is_empty(), "{}", lines(&found));
    }
}
