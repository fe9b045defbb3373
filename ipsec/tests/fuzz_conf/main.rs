//! setkey's language under whatever may be typed: no panic, every fault with a place in the text, no key in any message.
//!
//! Texts come from a seeded generator: words of the language in any order, statements that do something, and any statement that can
//! be said, with a few characters changed. What is read is printed and read again: it must be the same. `SOFTNET_SOAK=1` runs
//! ten million.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod print;
mod statements;

use ipsec::conf::{Conf, ValidConf, with_carets};
use kern::testing::{Chance, soak};

const KEY: &str = "8a1fd2c3b4a5968778695a4b3c2d1e0f01234567";

const GOOD: &[&str] = &[
    "add 10.0.0.1 10.0.0.2 esp 0x1000 -m tunnel -r 8 -ps 10 -ph 20 -E aes-gcm-16 0x8a1fd2c3b4a5968778695a4b3c2d1e0f01234567 ;\n",
    "add 10.0.0.1 10.0.0.2 ah 4096 -u 7 -A hmac-sha1 0x8a1fd2c3b4a5968778695a4b3c2d1e0f01234567 ;\n",
    "add ::1 ::2 ipcomp 300 -C deflate -threshold 90 ;\n",
    "add 10.0.0.1 10.0.0.2 esp 0x1001 -m beet -inner ::1 ::2 -E null -A hmac-sha1 0x8a1fd2c3b4a5968778695a4b3c2d1e0f01234567 ;\n",
    "spdadd ::1 ::2 any -P out ipsec esp/beet/10.0.0.1-10.0.0.2/require ;\n",
    "update 10.0.0.1 10.0.0.2 esp 0x1000 -ls 100 -lh 200 ;\n",
    "get 10.0.0.1 10.0.0.2 esp 0x1000 ; delete 10.0.0.1 10.0.0.2 ah 4096 ;\n",
    "deleteall -46n 10.0.0.1 10.0.0.2 esp ; flush ; flush ah ; spdflush ; dump ; spddump ;\n",
    "spdadd 10.0.0.0/8[80] 10.1.0.0-10.2.0.0[1-9] tcp -P out priority 5 ipsec esp/tunnel/10.0.0.1-10.0.0.2/unique:7 ;\n",
    "spdupdate ::/0 ::/0 icmp6 128,0 -P in ipsec ipcomp/transport//use ah/transport//require ;\n",
    "spddelete ::/0 ::/0 icmp6 128,0 -P in ;\n",
    "add 10.0.0.1 10.0.0.2 esp 0x1002 -m tunnel -pcpu-num 1 -u 7 -E aes-gcm-16 0x8a1fd2c3b4a5968778695a4b3c2d1e0f01234567 ;\n",
    "update 10.0.0.1 10.0.0.2 esp 0x1001 -m beet -inner 10.0.0.7 10.0.0.8 -pcpu-num 3 ;\n",
    "add 10.0.0.1[4500] 10.0.0.2[30000] esp-udp 0x1003 -keepalive 9 -E aes-gcm-16-iiv 0x8a1fd2c3b4a5968778695a4b3c2d1e0f01234567 ;\n",
];

#[rustfmt::skip]
const WORDS: &[&str] = &[
    "add", "update", "spdadd", "spdupdate", "spddelete", "spdflush", "spddump", "delete", "deleteall", "flush",
    "dump", "get", "exit", "quit", "bye", "10.0.0.1", "::1", "0.0.0.0/0[80]", "10.0.0.1[4500]", "[4500]", "/24",
    "::1-::9[1-9]", "esp", "esp-udp", "esp-old", "ah", "ah-old", "ipcomp", "tcp", "udp", "icmp", "icmp6", "ip4",
    "any", "999", "0x1234", "0x", "300", "8,0", "-m", "tunnel", "transport", "beet", "-inner", "-u", "-pcpu-num",
    "-r", "-f", "seq-pad", "zero-pad", "random-pad", "nocyclic-seq", "align8", "-lh", "-ls", "-bh", "-bs", "-ph",
    "-ps", "-esn", "-seq", "-df", "copy", "set", "clear", "-frag", "before", "after", "-dscp",
    "-noecn", "-ttl", "-flow-label", "-tfc", "-threshold", "-natt", "-natt_mtu", "-keepalive", "-ctx", "-E", "-A",
    "-C", "-R", "null", "simple", "deflate", "aes-gcm-16", "aes-gcm-16-iiv", "aes-ccm-8-iiv", "chacha20-poly1305",
    "chacha20-poly1305-iiv", "aes-cbc", "aes-ctr", "aes-gmac", "hmac-sha1", "aes-cmac", "-P", "in", "out", "fwd",
    "none", "discard", "ipsec", "priority", "prio", "high", "low", "def", "+", "-", "tagged",
    "esp/tunnel/10.0.0.1-10.0.0.2/require", "esp/beet/::1-::2/use", "esp/beet//require",
    "esp/tunnel/10.0.0.1[4500]-10.0.0.2[any]/unique", "ah/transport//default", "ipcomp/transport//unique:7",
    "esp/any//require", ";", "#", "-4", "-6", "-46n", "é[", "[", "]", "/", "//", "18446744073709551616",
    "18446744073709551615", "4294967295", "65536", "\n", "\"", "0x8a1fd2c3b4a5968778695a4b3c2d1e0f01234567",
    "\"8a1fd2c3b4a5968778695a4b3c2d1e0f01234567\"",
];

fn text(random: &mut Chance) -> String {
    let mut text = String::new();
    for _ in 0..=random.below(6) {
        match random.below(3) {
            0 => {
                for _ in 0..random.below(20) {
                    text.push_str(random.one_of(WORDS));
                    text.push(' ');
                }
            }
            1 => text.push_str(random.one_of(GOOD)),
            _ => text.push_str(&print::command(&statements::command(random, &key()))),
        }
    }
    for _ in 0..random.below(4) {
        let mut chars: Vec<char> = text.chars().collect();
        let at = random.below(chars.len().max(1));
        match random.below(3) {
            0 => chars.truncate(at),
            1 if at < chars.len() => drop(chars.remove(at)),
            _ => chars.insert(at, char::from(b' ' + random.below(95) as u8)),
        }
        text = chars.into_iter().collect();
    }
    text
}

/// The octets of `KEY`.
fn key() -> Vec<u8> {
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    KEY.as_bytes().chunks(2).map(octet).collect()
}

/// What a text says, in one way of saying it.
fn printed(conf: &Conf) -> String {
    conf.statements().iter().map(|statement| print::command(&statement.value)).collect()
}

fn read(text: &str) -> Conf {
    Conf::parse("fuzz", text).unwrap_or_else(|errors| panic!("{}", with_carets(&errors, text)))
}

/// The same words with other gaps between them.
fn spread(random: &mut Chance, text: &str) -> String {
    const GAPS: &[&str] = &[" ", "  ", "\t", "\n ", " # a comment; with a semicolon\n"];
    text.split(' ').map(|word| word.to_owned() + random.one_of(GAPS)).collect()
}

#[test]
fn what_is_said_is_read_as_it_was_meant() {
    let mut random = Chance::seeded(0x5e7_9611);
    for _ in 0..if soak() { 1_000_000 } else { 20_000 } {
        let meant: Vec<_> = (0..=random.below(3)).map(|_| statements::command(&mut random, &key())).collect();
        let text: String = meant.iter().map(print::command).collect();
        assert_eq!(printed(&read(&text)), text);
        assert_eq!(printed(&read(&spread(&mut random, &text))), text);
    }
}

#[test]
fn fuzz_of_setkey_s_language_finds_no_panic_no_lost_place_and_no_key() {
    let mut random = Chance::seeded(0x5e7_2013);
    let count = if soak() { 10_000_000 } else { 20_000 };
    let (mut base, mut good) = (ValidConf::default(), 0);
    for _ in 0..count {
        let text = text(&mut random);
        let conf = Conf::parse("fuzz", &text);
        if let Ok(conf) = &conf {
            let once = printed(conf);
            assert_eq!(printed(&read(&once)), once, "{text}");
        }
        match conf.and_then(|conf| conf.check(&base)) {
            Ok(valid) => {
                good += 1;
                base =
                    if valid.sas().len() + valid.policies().len() > 8 { ValidConf::default() } else { valid };
            }
            Err(errors) => {
                let lines = text.lines().count().max(1) as u32 + 1;
                for error in &errors {
                    assert!(
                        (1..=lines).contains(&error.place.line) && error.place.column >= 1,
                        "{text}\n{error}"
                    );
                }
                let shown = with_carets(&errors, &text);
                // A changed character may split a key in two; half of one is still too much.
                let halves = [&KEY[..20], &KEY[20..]];
                assert!(halves.iter().all(|half| !shown.contains(half)), "{text}\n{shown}");
            }
        }
    }
    assert!(good > count / 50, "only {good} of {count} were right");
}
