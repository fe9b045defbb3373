//! Published vectors through every engine, and the engines against each other.
//!
//! AES-GCM: test cases 2 and 3 (128 bit), 14 and 15 (256 bit) of McGrew and Viega, "The Galois/Counter Mode of Operation";
//! ChaCha20-Poly1305: RFC 7634, Appendix A, a whole ESP packet.

use super::*;
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

const GCM_PLAIN: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255";
const GCM_KEY: &str = "feffe9928665731c6d6a8f9467308308";
const GCM_NONCE: &str = "cafebabefacedbaddecaf888";
const GCM_128: &str = "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
                       21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985";
const GCM_256: &str = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                       8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad";

struct Vector {
    suite: Suite,
    key: Vec<u8>,
    plain: Vec<u8>,
    cipher: Vec<u8>,
    tag: &'static str,
}

/// The cases without additional data: our jobs carry at most the 12 bytes of an ESP header, the papers' have 20.
fn gcm_vectors() -> Vec<Vector> {
    vec![
        Vector {
            suite: Suite::Aes128Gcm16,
            key: hex(GCM_KEY),
            plain: hex(GCM_PLAIN),
            cipher: hex(GCM_128),
            tag: "4d5c2af327cd64a62cf35abd2ba6fab4",
        },
        Vector {
            suite: Suite::Aes256Gcm16,
            key: [hex(GCM_KEY), hex(GCM_KEY)].concat(),
            plain: hex(GCM_PLAIN),
            cipher: hex(GCM_256),
            tag: "b094dac5d93471bdec1a502270e3cc6c",
        },
        Vector {
            suite: Suite::Aes128Gcm16,
            key: vec![0; 16],
            plain: vec![0; 16],
            cipher: hex("0388dace60b6a392f328c2b971b2fe78"),
            tag: "ab6e47d42cec13bdf53a67b21257bddf",
        },
        Vector {
            suite: Suite::Aes256Gcm16,
            key: vec![0; 32],
            plain: vec![0; 16],
            cipher: hex("cea7403d4d606b6e074ec5d3baf39d18"),
            tag: "d0d1c8a799996bf0265b98b5d48ab919",
        },
    ]
}

fn nonce_of(vector: &Vector) -> [u8; 12] {
    if vector.plain.len() == 16 { [0; 12] } else { hex(GCM_NONCE).try_into().unwrap() }
}

#[test]
fn every_engine_seals_the_gcm_vectors_as_published() {
    for vector in gcm_vectors() {
        for engine in Engine::ALL {
            let key = AeadKey::new(engine, vector.suite, &vector.key).unwrap();
            assert_eq!(key.engine(), engine);
            let (mut data, mut tag) = (vector.plain.clone(), [0; 16]);
            let nonce = nonce_of(&vector);
            assert!(key.seal(Seal { nonce, aad: [0; 12], aad_len: 0, data: &mut data, tag: Some(&mut tag) }));
            assert_eq!((&data, tag.to_vec()), (&vector.cipher, hex(vector.tag)), "{engine} {}", vector.suite);
            assert!(key.open(Open { nonce, aad: [0; 12], aad_len: 0, data: &mut data, tag: Some(&mut tag) }));
            assert_eq!(data, vector.plain);
        }
    }
}

/// RFC 7634, Appendix A: an ICMP echo request in tunnel mode.
mod rfc7634 {
    pub(super) const KEY: &str = "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3";
    pub(super) const IV: u64 = 0x1011_1213_1415_1617;
    pub(super) const HEADER: &str = "0102030400000005";
    pub(super) const PLAIN: &str = "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10\
                                    0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223\
                                    2425262728292a2b2c2d2e2f303132333435363701020204";
    pub(super) const SEALED: &str = "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6\
                                     14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3\
                                     cbec163fac469b502773f6fb94e664da9165b82829f641e0\
                                     76aaa8266b7fb0f7b11b369907e1ad43";
}

#[test]
fn every_engine_seals_the_packet_of_rfc_7634_appendix_a() {
    for engine in Engine::ALL {
        let t = Transform::new(Suite::ChaCha20Poly1305, engine, &hex(rfc7634::KEY), false).unwrap();
        let (header, plain) = (hex(rfc7634::HEADER), hex(rfc7634::PLAIN));
        let mut packet = [header.clone(), vec![0; 8], plain.clone(), vec![0; 16]].concat();
        let failures = t.seal_run(std::iter::once((&mut packet[..], 5, rfc7634::IV)));
        assert!(!failures.any());
        let expected = [header, rfc7634::IV.to_be_bytes().to_vec(), hex(rfc7634::SEALED)].concat();
        assert_eq!(packet, expected, "{engine}");
        assert!(!t.open_run(std::iter::once((&mut packet[..], 5))).any());
        assert_eq!(packet[16..packet.len() - 16], plain);
    }
}

fn transforms(suite: Suite, esn: bool) -> Vec<Transform> {
    let material: Vec<u8> = (0..suite.material_len() as u8).collect();
    Engine::ALL.iter().map(|&e| Transform::new(suite, e, &material, esn).unwrap()).collect()
}

fn packet(len: usize) -> Vec<u8> {
    (0..16 + len + 16).map(|i| (i * 7) as u8).collect()
}

#[test]
fn what_one_engine_seals_every_other_opens() {
    for suite in Suite::ALL {
        for esn in [false, true] {
            let engines = transforms(suite, esn);
            for len in (0..80).chain([569, 570, 1400, 8900]) {
                let sealed: Vec<_> = engines
                    .iter()
                    .map(|t| {
                        let mut p = packet(len);
                        assert!(!t.seal_run(std::iter::once((&mut p[..], 7 << 32 | 9, 77))).any());
                        p
                    })
                    .collect();
                assert!(sealed.iter().all(|p| *p == sealed[0]), "{suite} {len}");
                for t in &engines {
                    let mut p = sealed[0].clone();
                    assert!(!t.open_run(std::iter::once((&mut p[..], 7 << 32 | 9))).any());
                    assert_eq!(p[16..16 + len], packet(len)[16..16 + len]);
                }
            }
        }
    }
}

#[test]
fn the_high_half_of_an_extended_sequence_number_is_authenticated_though_never_sent() {
    for suite in Suite::ALL {
        for t in transforms(suite, true) {
            let mut p = packet(60);
            t.seal_run(std::iter::once((&mut p[..], 1 << 32 | 3, 1)));
            let mut other = p.clone();
            assert!(t.open_run(std::iter::once((&mut other[..], 2 << 32 | 3))).any());
            assert!(!t.open_run(std::iter::once((&mut p[..], 1 << 32 | 3))).any());
        }
    }
}

#[test]
fn a_run_says_which_of_its_packets_failed() {
    for suite in Suite::ALL {
        for t in transforms(suite, false) {
            let mut run: Vec<_> = (0..RUN).map(|i| packet(i + 20)).collect();
            assert!(!t.seal_run(run.iter_mut().zip(1..).map(|(p, seq)| (&mut p[..], seq, seq))).any());
            for i in [0, 17, 63] {
                run[i][20] ^= 1;
            }
            run[30].truncate(12);
            let failures = t.open_run(run.iter_mut().zip(1..).map(|(p, seq)| (&mut p[..], seq)));
            let failed: Vec<_> = (0..RUN).filter(|i| failures.has(*i)).collect();
            assert_eq!((failed, failures.count()), (vec![0, 17, 30, 63], 4), "{suite}");
        }
    }
}

#[test]
fn a_change_of_any_byte_of_a_packet_is_noticed() {
    for suite in Suite::ALL {
        for t in transforms(suite, false) {
            let mut sealed = packet(30);
            t.seal_run(std::iter::once((&mut sealed[..], 3, 3)));
            for at in 0..sealed.len() {
                let mut p = sealed.clone();
                p[at] ^= 0x10;
                assert!(t.open_run(std::iter::once((&mut p[..], 3))).any(), "{suite} byte {at}");
            }
            for len in 0..sealed.len() {
                assert!(
                    t.open_run(std::iter::once((&mut sealed.clone()[..len], 3))).any(),
                    "{suite} length {len}"
                );
            }
        }
    }
}

#[test]
fn sealing_and_opening_out_of_place_gives_the_same_bytes() {
    for suite in Suite::ALL {
        for engine in Engine::ALL {
            let key = AeadKey::new(engine, suite, &vec![5; suite.key_len()]).unwrap();
            let clear: Vec<u8> = (0..1400).map(|i| i as u8).collect();
            let (mut data, mut tag) = (clear.clone(), [0; 16]);
            let (nonce, aad) = ([3; 12], [4; 12]);
            assert!(key.seal(Seal { nonce, aad, aad_len: 8, data: &mut data, tag: Some(&mut tag) }));
            let (mut there, mut other_tag) = (vec![0; 1400], [0; 16]);
            let job = Copied { nonce, aad, aad_len: 8, from: &clear, to: &mut there };
            assert!(key.seal_to(job, &mut other_tag));
            assert_eq!((&data, tag), (&there, other_tag), "{engine} {suite}");
            let mut back = vec![0; 1400];
            assert!(key.open_to(Copied { nonce, aad, aad_len: 8, from: &there, to: &mut back }, &tag));
            assert_eq!(back, clear);
            assert!(!key.open_to(Copied { nonce, aad, aad_len: 8, from: &there, to: &mut back[1..] }, &tag));
        }
    }
}

#[test]
fn a_key_of_the_wrong_length_is_refused_with_both_lengths() {
    let error = Transform::new(Suite::Aes128Gcm16, Engine::Auto, &[0; 16], false).unwrap_err();
    assert_eq!(error.to_string(), "aes-128-gcm takes 20 bytes of key and salt, not 16");
}

#[test]
fn a_key_does_not_show_in_debug_output() {
    for engine in Engine::ALL {
        let t = Transform::new(Suite::Aes128Gcm16, engine, &[0xab; 20], false).unwrap();
        let text = format!("{t:?}");
        assert!(text.contains("Secret(..)") && !text.contains("171"), "{text}");
    }
}

proptest! {
    #[test]
    fn the_engines_agree_on_any_packet(
        len in 0usize..2000, seq: u64, iv: u64, fill: u8, suite in 0usize..3, esn: bool,
    ) {
        let engines = transforms(Suite::ALL[suite], esn);
        let mut sealed = Vec::new();
        for t in &engines {
            let mut p = vec![fill; 16 + len + 16];
            prop_assert!(!t.seal_run(std::iter::once((&mut p[..], seq, iv))).any());
            sealed.push(p);
        }
        prop_assert!(sealed.iter().all(|p| *p == sealed[0]));
        for t in &engines {
            let mut p = sealed[0].clone();
            prop_assert!(!t.open_run(std::iter::once((&mut p[..], seq))).any());
            prop_assert!(p[16..16 + len].iter().all(|b| *b == fill));
        }
    }
}
