//! scapy as an oracle: what one seals the other opens, both ways, for ESP and AH in both modes and both families, with packets of
//! chance from a seed that is printed (`SOFTNET_SEED` repeats them).
//!
//! Runs where `SOFTNET_NET_TESTS` is set; installs scapy from the Python package index into a virtual environment below the
//! build directory if it is not there.

#![allow(clippy::unwrap_used, reason = "a test")]

mod oracle;
mod packets;
mod venv;

use ipsec::{
    esp::{LoopTurn, Releasing, input::esp_input, output::esp_output},
    natt::{self, Encap},
    order::Worker,
    sa::{Handling, Lifetime, Mode, Padding, Protocol, Sa, SaConfig, SaIndex, Setup, Spi},
    transform::{Auth, Cipher, Suite},
};
use kern::{
    Batch, Mbuf,
    lock::Root,
    secret::SecretBytes,
    testing::{Chance, Fixture, soak},
    time::Instant,
};
use oracle::{Oracle, chance, hex};
use packets::{Front, packet, piece, travel, upper};
use std::{net::IpAddr, sync::Arc};
use wire::IpProto;

/// What scapy calls an algorithm.
fn auth_name(auth: Auth) -> Option<&'static str> {
    Some(match auth {
        Auth::HmacSha1 => "HMAC-SHA1-96",
        Auth::HmacSha256 => "SHA2-256-128",
        Auth::HmacSha384 => "SHA2-384-192",
        Auth::HmacSha512 => "SHA2-512-256",
        Auth::AesCmac => "AES-CMAC-96",
        #[cfg(feature = "legacy")]
        Auth::HmacMd5 => "HMAC-MD5-96",
        // scapy has no XCBC.
        Auth::AesXcbc => return None,
    })
}

fn crypt_name(suite: Suite) -> Option<&'static str> {
    Some(match suite {
        Suite::Aes128Gcm16 | Suite::Aes256Gcm16 | Suite::Gcm(..) => "AES-GCM",
        Suite::ChaCha20Poly1305 => "CHACHA20-POLY1305",
        Suite::Gmac(_) => "AES-NULL-GMAC",
        Suite::Ccm(..) => "AES-CCM",
        Suite::Pair(Cipher::Null, _) => "NULL",
        Suite::Pair(Cipher::AesCbc(_), _) => "AES-CBC",
        Suite::Pair(Cipher::AesCtr(_), _) => "AES-CTR",
        #[cfg(feature = "legacy")]
        Suite::Pair(Cipher::TripleDes, _) => "3DES",
        Suite::Ah(_) => "-",
        _ => return None,
    })
}

/// All that scapy knows, too. It has neither XCBC nor implicit IVs.
fn suites() -> Vec<(Protocol, Suite)> {
    let knows = |suite: &Suite| {
        crypt_name(*suite).is_some() && suite.auth().is_none_or(|auth| auth_name(auth).is_some())
    };
    let esp = Suite::esp().filter(knows).map(|suite| (Protocol::Esp, suite));
    let ah = Auth::all().map(Suite::Ah).filter(knows).map(|suite| (Protocol::Ah, suite));
    esp.chain(ah).collect()
}

/// An SA, and what goes through it.
struct Case {
    protocol: Protocol,
    suite: Suite,
    mode: Mode,
    encap: Option<Encap>,
    esn: bool,
    /// The number of the packet.
    seq: u64,
    ends: [IpAddr; 2],
    key: Vec<u8>,
}

impl Case {
    /// Of chance, but for the suite.
    fn new(chance: &mut Chance, protocol: Protocol, suite: Suite) -> Case {
        let mode = chance.one_of(&[Mode::Tunnel, Mode::Transport]);
        let esn = chance.is(2);
        let ends = ends(chance, true);
        let in_udp = protocol == Protocol::Esp && chance.is(4);
        // Ports of ours and of theirs; scapy knows ESP by the one that is 4500.
        let encap = in_udp.then(|| Encap {
            src_port: natt::PORT,
            dst_port: 1 + chance.below(u16::MAX),
            original: [None; 2],
            keepalive: 0,
        });
        // A low half of 0 is "not given" for scapy.
        let low = 1 + chance.below(u64::from(u32::MAX));
        let high = if esn { 1 + chance.below(0x7fff_ffff_u64) } else { 0 };
        let key = chance.octets(suite.material_len());
        Case { protocol, suite, mode, encap, esn, seq: high << 32 | low, ends, key }
    }

    /// Theirs, whose last number was a little before, or ours, which sends the number next.
    fn sa(&self, root: &mut Root, chance: &mut Chance) -> Arc<Sa> {
        let config = SaConfig {
            src: self.ends[0],
            dst: self.ends[1],
            spi: Spi(0x1000),
            protocol: self.protocol,
            mode: self.mode,
            inner: None,
            worker: None,
            encap: self.encap,
            reqid: 0,
            suite: self.suite,
            esn: self.esn,
            replay: 64,
            padding: Padding::Lenient,
            handling: Handling::default(),
            soft: Lifetime::default(),
            hard: Lifetime::default(),
        };
        let key = Arc::new(SecretBytes::copy_of(&self.key).unwrap());
        let sa = Arc::new(Sa::new(SaIndex(0), config, key, &Setup::new(Instant::from_secs(1))).unwrap());
        sa.set_next_sequence(&mut root.top(), self.seq);
        sa.set_window_top(&mut root.top(), self.seq.saturating_sub(1 + chance.below(1000u64)));
        sa
    }

    /// `outer`: a tunnel's IP header. `theirs`: packets come from there.
    fn question(&self, op: &str, theirs: bool, outer: &[u8], seq: u64, packet: &[u8]) -> String {
        let (crypt, auth) = self.key.split_at(self.suite.key_len() + self.suite.salt_len());
        let ports = self.encap.map_or_else(
            || "-".to_owned(),
            |udp| {
                let (src, dst) =
                    if theirs { (udp.dst_port, udp.src_port) } else { (udp.src_port, udp.dst_port) };
                format!("{src}:{dst}")
            },
        );
        format!(
            "{op} {} {} {ports} {} {} {} {} {} {} {seq} {}",
            self.protocol.name(),
            hex(outer),
            crypt_name(self.suite).unwrap(),
            hex(crypt),
            self.suite.auth().and_then(auth_name).unwrap_or("-"),
            hex(auth),
            self.suite.icv_len(),
            u8::from(self.esn),
            hex(packet),
        )
    }
}

/// Two addresses of one family: of gateways, or of hosts.
fn ends(chance: &mut Chance, gateways: bool) -> [IpAddr; 2] {
    let both = match (chance.is(2), gateways) {
        (true, true) => ["203.0.113.1", "203.0.113.2"],
        (true, false) => ["192.0.2.10", "198.51.100.20"],
        (false, true) => ["2001:db8:f::1", "2001:db8:f::2"],
        (false, false) => ["2001:db8:a::10", "2001:db8:b::20"],
    };
    both.map(|text| text.parse().unwrap())
}

struct Ours {
    fixture: Fixture,
    root: Root,
    owed: Releasing,
}

impl Ours {
    fn turn(&mut self) -> (LoopTurn<'_>, &mut Root, &Fixture) {
        let turn = LoopTurn { worker: Worker(0), now: Instant::from_secs(1), releasing: &mut self.owed };
        (turn, &mut self.root, &self.fixture)
    }

    fn run(&self, packet: &[u8], in_udp: bool) -> Batch {
        let mut m = self.fixture.packet(packet);
        let parsed = wire::parse::parse_ip(packet).unwrap();
        m.set_l4(parsed.l4.into());
        m.hdr_mut().proto = parsed.proto.0;
        m.hdr_mut().family = packet[0] >> 4;
        if in_udp {
            assert_eq!(natt::arrive(&mut m), Ok(natt::Arrived::Esp));
        }
        let mut run = Batch::new();
        run.push(m).unwrap();
        run
    }

    fn bytes(&self, run: &mut Batch) -> Vec<u8> {
        let all: Vec<Mbuf> = run.drain().collect();
        all.into_iter()
            .map(|m| {
                let bytes = m.data().to_vec();
                self.fixture.done(m);
                bytes
            })
            .next()
            .unwrap_or_default()
    }

    fn seal(&mut self, sa: &Arc<Sa>, packet: &[u8]) -> Vec<u8> {
        let mut run = self.run(packet, false);
        let (mut turn, root, fixture) = self.turn();
        esp_output(sa, &mut run, usize::MAX, &mut turn, &mut root.top(), |m, why| {
            m.end(why, &fixture.ledger);
        });
        self.bytes(&mut run)
    }

    fn open(&mut self, sa: &Arc<Sa>, packet: &[u8]) -> Vec<u8> {
        let mut run = self.run(packet, sa.config().encap.is_some());
        let (mut turn, root, fixture) = self.turn();
        esp_input(sa, &mut run, &mut turn, &mut root.top(), |m, why| m.end(why, &fixture.ledger)).unwrap();
        self.bytes(&mut run)
    }
}

/// One packet each way. `front`: the headers of what is protected, `theirs`: those in front of what scapy protects.
fn both_ways(oracle: &mut Oracle, ours: &mut Ours, chance: &mut Chance, case: &Case, fronts: [Front; 2]) {
    let tunnel = case.mode == Mode::Tunnel;
    let what = |who: &str, clear: &[u8]| {
        let udp = if case.encap.is_some() { " in UDP" } else { "" };
        format!(
            "{who}: {:?} {} {:?}{udp} {} esn {} {:#x}, of {}",
            case.protocol,
            case.suite,
            case.mode,
            case.ends[0],
            case.esn,
            case.seq,
            hex(clear)
        )
    };
    let clear_of = |chance: &mut Chance, front: Front| {
        let ends = if tunnel { ends(chance, false) } else { case.ends };
        if tunnel && chance.is(8) {
            return piece(chance, ends);
        }
        // A translator would change what a checksum inside covers: in transport mode it is made anew.
        let bare = !tunnel && case.encap.is_some();
        let (next, payload) = if bare { (253, chance.octets(100)) } else { upper(chance, ends) };
        packet(chance, ends, if bare { Front::Bare } else { front }, next, &payload)
    };
    // On the way both the packet and, in transport mode, what must come out of it change in the same places.
    let go = |chance: &mut Chance, sealed: &mut [u8], clear: &mut [u8]| {
        let way = chance.next();
        travel(sealed, &mut Chance::quiet(way));
        if !tunnel {
            travel(clear, &mut Chance::quiet(way));
        }
    };

    // Theirs.
    let [our_front, their_front] = fronts;
    let mut clear = clear_of(chance, if tunnel { Front::Any } else { their_front });
    let inside = if clear[0] >> 4 == 4 { IpProto::IPV4.0 } else { IpProto::IPV6.0 };
    let front = if case.encap.is_some() { Front::Bare } else { their_front };
    let outer = if tunnel { packet(chance, case.ends, front, inside, &[]) } else { vec![] };
    let mut sealed = oracle.ask(&case.question("seal", true, &outer, case.seq, &clear)).unwrap();
    go(chance, &mut sealed, &mut clear);
    let sa = case.sa(&mut ours.root, chance);
    assert_eq!(hex(&ours.open(&sa, &sealed)), hex(&clear), "{}", what("scapy's", &clear));

    // Ours.
    let mut clear = clear_of(chance, if tunnel { Front::Any } else { our_front });
    let sa = case.sa(&mut ours.root, chance);
    let mut sealed = ours.seal(&sa, &clear);
    assert!(!sealed.is_empty(), "{}", what("not sealed", &clear));
    go(chance, &mut sealed, &mut clear);
    let opened = oracle.ask(&case.question("open", false, &outer, case.seq, &sealed));
    assert_eq!(opened.as_deref().map(hex), Ok(hex(&clear)), "{}", what("ours", &clear));
    if case.esn {
        // The half that is not in the packet is protected, too.
        let other = case.seq ^ 1 << 32;
        let opened = oracle.ask(&case.question("open", false, &outer, other, &sealed));
        assert!(opened.is_err(), "{}", what("with another high half", &clear));
    }
}

fn ours() -> Ours {
    Ours { fixture: Fixture::new(64), root: Root::claim(), owed: Releasing::with_capacity(2) }
}

#[test]
fn what_scapy_seals_we_open_and_what_we_seal_scapy_opens() {
    let Some(mut oracle) = Oracle::start() else { return };
    let (mut ours, mut chance) = (ours(), chance());
    let (suites, rounds) = (suites(), if soak() { 12 } else { 2 });
    for _ in 0..rounds {
        for (protocol, suite) in &suites {
            let case = Case::new(&mut chance, *protocol, *suite);
            both_ways(&mut oracle, &mut ours, &mut chance, &case, [Front::Bare; 2]);
        }
    }
    println!("{} packets of {} suites", 2 * rounds * suites.len(), suites.len());
}

/// What AH covers in front of itself (RFC 4302, 3.3.3.1): options and extension headers, as routers change them. Whoever sends
/// along a route foresees what the header will be at its end; scapy does for IPv6, we do for IPv4.
#[test]
fn options_and_extension_headers_that_change_on_the_way_do_not_break_ah() {
    let Some(mut oracle) = Oracle::start() else { return };
    let (mut ours, mut chance) = (ours(), chance());
    let rounds = if soak() { 400 } else { 40 };
    let suites: Vec<Suite> = suites()
        .into_iter()
        .filter(|(protocol, _)| *protocol == Protocol::Ah)
        .map(|(_, suite)| suite)
        .collect();
    for _ in 0..rounds {
        let suite = chance.one_of(&suites);
        let case = Case::new(&mut chance, Protocol::Ah, suite);
        let fronts =
            if case.ends[0].is_ipv4() { [Front::Stops, Front::Any] } else { [Front::Any, Front::Stops] };
        both_ways(&mut oracle, &mut ours, &mut chance, &case, fronts);
    }
    println!("{} packets", 2 * rounds);
}
