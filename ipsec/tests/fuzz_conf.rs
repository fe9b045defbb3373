//! setkey's language under whatever may be typed: no panic, every fault with a place in the text, no key in any message.
//!
//! Texts come from a seeded generator: words of the language in any order, and good statements with a few characters changed.
//! `SOFTNET_SOAK=1` runs ten million.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

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
];

const WORDS: &[&str] = &[
    "add",
    "update",
    "spdadd",
    "spdupdate",
    "delete",
    "flush",
    "10.0.0.1",
    "::1",
    "0.0.0.0/0[80]",
    "esp",
    "ah",
    "ipcomp",
    "999",
    "0x1234",
    "-m",
    "tunnel",
    "beet",
    "-inner",
    "-E",
    "-A",
    "-C",
    "aes-gcm-16",
    "hmac-sha1",
    "-P",
    "in",
    "out",
    "ipsec",
    "-r",
    "esp/tunnel/10.0.0.1-10.0.0.2/require",
    "any",
    "icmp",
    "8,0",
    ";",
    "\n",
    "\"",
    "#",
    "-4",
    "prio",
    "high",
    "-",
    "é[",
    "18446744073709551616",
    "4294967295",
    "-seq",
    "-esn",
    "/",
    "//",
    "[",
    "]",
    "0x8a1fd2c3b4a5968778695a4b3c2d1e0f01234567",
    "\"8a1fd2c3b4a5968778695a4b3c2d1e0f01234567\"",
];

fn text(random: &mut Chance) -> String {
    let mut text = String::new();
    for _ in 0..=random.below(6) {
        if random.below(3) == 0 {
            for _ in 0..random.below(20) {
                text.push_str(random.one_of(WORDS));
                text.push(' ');
            }
        } else {
            text.push_str(random.one_of(GOOD));
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

#[test]
fn fuzz_of_setkey_s_language_finds_no_panic_no_lost_place_and_no_key() {
    let mut random = Chance::seeded(0x5e7_2013);
    let count = if soak() { 10_000_000 } else { 20_000 };
    let (mut base, mut good) = (ValidConf::default(), 0);
    for _ in 0..count {
        let text = text(&mut random);
        match Conf::parse("fuzz", &text).and_then(|conf| conf.check(&base)) {
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
