//! Algorithms by setkey's words: those that are there, and why others are not.

/// Words of setkey(8) for one kind of algorithm.
pub(super) struct Words {
    pub(super) what: &'static str,
    pub(super) known: &'static [&'static str],
    /// And why.
    pub(super) refused: &'static [(&'static str, &'static str)],
    pub(super) help: &'static str,
}

/// setkey's words for algorithms, those that are refused too.
pub fn algorithm_words() -> impl Iterator<Item = &'static str> {
    let words = |of: &'static Words| of.known.iter().copied().chain(of.refused.iter().map(|(word, _)| *word));
    words(CIPHERS).chain(words(HASHES))
}

const BROKEN: &str = "RFC 8221 says MUST NOT";
const NO_ENGINE: &str = "nobody needs it any more, and no engine has it";

pub(super) const CIPHERS: &Words = &Words {
    what: "a cipher",
    known: &[
        "null",
        "aes-cbc",
        "rijndael-cbc",
        "aes-ctr",
        "aes-gcm-8",
        "aes-gcm-12",
        "aes-gcm-16",
        "aes-gcm-16-iiv",
        "aes-ccm-8",
        "aes-ccm-8-iiv",
        "aes-ccm-12",
        "aes-ccm-16",
        "aes-gmac",
        "chacha20-poly1305",
        "chacha20-poly1305-iiv",
        "3des-cbc",
    ],
    refused: &[
        ("des-cbc", BROKEN),
        ("des-deriv", BROKEN),
        ("des-32iv", BROKEN),
        ("3des-deriv", NO_ENGINE),
        ("simple", NO_ENGINE),
        ("blowfish-cbc", BROKEN),
        ("cast128-cbc", NO_ENGINE),
        ("twofish-cbc", NO_ENGINE),
        ("camellia-cbc", NO_ENGINE),
        ("skipjack-cbc", NO_ENGINE),
    ],
    help: "aes-gcm-16 or chacha20-poly1305; or aes-cbc, aes-ctr or null with -A; see ipsec.conf",
};

pub(super) const HASHES: &Words = &Words {
    what: "an integrity algorithm",
    known: &[
        "null",
        "hmac-sha1",
        "hmac-sha256",
        "hmac-sha2-256",
        "hmac-sha384",
        "hmac-sha2-384",
        "hmac-sha512",
        "hmac-sha2-512",
        "aes-xcbc-mac",
        "aes-cmac",
        "hmac-md5",
    ],
    refused: &[
        ("keyed-md5", BROKEN),
        ("keyed-sha1", BROKEN),
        ("hmac-ripemd160", NO_ENGINE),
        ("tcp-md5", "it is for TCP (RFC 2385)"),
        ("aes-128-gmac", "-E aes-gmac of an SA of esp does this"),
        ("aes-192-gmac", "-E aes-gmac of an SA of esp does this"),
        ("aes-256-gmac", "-E aes-gmac of an SA of esp does this"),
    ],
    help: "hmac-sha256, hmac-sha384, hmac-sha512, hmac-sha1, aes-cmac or aes-xcbc-mac",
};
