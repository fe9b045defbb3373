//! scapy as an oracle: what one seals the other opens, both ways, for ESP and AH in both modes and both families.
//!
//! Runs where `SOFTNET_NET_TESTS` is set; installs scapy from the Python package index into a virtual environment below the
//! build directory if it is not there.

#![allow(clippy::unwrap_used, reason = "a test")]

use ipsec::{
    esp::{LoopTurn, Releasing, input::esp_input, output::esp_output},
    order::Worker,
    sa::{Handling, Lifetime, Mode, Padding, Protocol, Sa, SaConfig, SaIndex, Setup, Spi},
    transform::{Auth, Cipher, Suite},
};
use kern::{Batch, Mbuf, lock::Root, secret::SecretBytes, testing::Fixture, time::Instant};
use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
};
use wire::{IpProto, build, ipv4, ipv6};

mod venv;

struct Oracle {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Oracle {
    fn start() -> Oracle {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scapy/oracle.py");
        let mut child = Command::new(venv::python())
            .args(["-W", "ignore", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (ask, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Oracle { child, ask, answers }
    }

    fn ask(&mut self, question: &str) -> Vec<u8> {
        writeln!(self.ask, "{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let answer = answer.trim();
        assert!(!answer.is_empty() && !answer.starts_with("error"), "{answer}\nto {question}");
        (0..answer.len() / 2).map(|i| u8::from_str_radix(&answer[2 * i..2 * i + 2], 16).unwrap()).collect()
    }
}

fn hex(octets: &[u8]) -> String {
    if octets.is_empty() {
        return "-".to_owned();
    }
    octets.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// What scapy calls an algorithm.
fn auth_name(auth: Auth) -> Option<&'static str> {
    Some(match auth {
        Auth::HmacSha1 => "HMAC-SHA1-96",
        Auth::HmacSha256 => "SHA2-256-128",
        Auth::HmacSha384 => "SHA2-384-192",
        Auth::HmacSha512 => "SHA2-512-256",
        Auth::AesCmac => "AES-CMAC-96",
        // scapy has no XCBC; MD5 is not in every build.
        _ => return None,
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
        Suite::Ah(_) => "-",
        _ => return None,
    })
}

/// All that scapy knows, too. It has neither XCBC nor implicit IVs, and no build of it MD5 for sure.
fn suites() -> Vec<(Protocol, Suite)> {
    let knows = |suite: &Suite| {
        crypt_name(*suite).is_some() && suite.auth().is_none_or(|auth| auth_name(auth).is_some())
    };
    let esp = Suite::esp().filter(knows).map(|suite| (Protocol::Esp, suite));
    let ah = Auth::all().map(Suite::Ah).filter(knows).map(|suite| (Protocol::Ah, suite));
    esp.chain(ah).collect()
}

struct Case {
    protocol: Protocol,
    suite: Suite,
    mode: Mode,
    esn: bool,
    ends: [IpAddr; 2],
    key: Vec<u8>,
}

impl Case {
    fn sa(&self) -> Arc<Sa> {
        let config = SaConfig {
            src: self.ends[0],
            dst: self.ends[1],
            spi: Spi(0x1000),
            protocol: self.protocol,
            mode: self.mode,
            inner: None,
            worker: None,
            encap: None,
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
        Arc::new(Sa::new(SaIndex(0), config, key, &Setup::new(Instant::from_secs(1))).unwrap())
    }

    fn question(&self, op: &str, seq: u64, packet: &[u8]) -> String {
        let (crypt, auth) = self.key.split_at(self.suite.key_len() + self.suite.salt_len());
        format!(
            "{op} {} {} {} {} {} {} {} {} {seq} {} {} {}",
            self.protocol.name(),
            if self.mode == Mode::Tunnel { "tunnel" } else { "transport" },
            crypt_name(self.suite).unwrap(),
            hex(crypt),
            self.suite.auth().and_then(auth_name).unwrap_or("-"),
            hex(auth),
            self.suite.icv_len(),
            u8::from(self.esn),
            self.ends[0],
            self.ends[1],
            hex(packet),
        )
    }
}

/// A packet of SCTP, which scapy leaves alone.
fn packet(v6: bool, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|i| (i * 7 + 1) as u8).collect();
    if v6 {
        let (src, dst) = ("2001:db8:a::10".parse().unwrap(), "2001:db8:b::20".parse().unwrap());
        build::raw6(ipv6::Repr { src, dst, next_header: IpProto(253), ..Default::default() }, &payload)
    } else {
        let (src, dst) = ("192.0.2.10".parse().unwrap(), "198.51.100.20".parse().unwrap());
        build::raw4(ipv4::Repr { src, dst, proto: IpProto(253), ..Default::default() }, &payload)
    }
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

    fn run(&self, packet: &[u8]) -> Batch {
        let mut m = self.fixture.packet(packet);
        let parsed = wire::parse::parse_ip(packet).unwrap();
        m.set_l4(parsed.l4.into());
        m.hdr_mut().proto = parsed.proto.0;
        m.hdr_mut().family = packet[0] >> 4;
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
        let mut run = self.run(packet);
        let (mut turn, root, fixture) = self.turn();
        esp_output(sa, &mut run, usize::MAX, &mut turn, &mut root.top(), |m, why| {
            m.end(why, &fixture.ledger);
        });
        self.bytes(&mut run)
    }

    fn open(&mut self, sa: &Arc<Sa>, packet: &[u8]) -> Vec<u8> {
        let mut run = self.run(packet);
        let (mut turn, root, fixture) = self.turn();
        esp_input(sa, &mut run, &mut turn, &mut root.top(), |m, why| m.end(why, &fixture.ledger)).unwrap();
        self.bytes(&mut run)
    }
}

#[test]
fn what_scapy_seals_we_open_and_what_we_seal_scapy_opens() {
    if std::env::var_os("SOFTNET_NET_TESTS").is_none() {
        println!("SOFTNET_NET_TESTS is not set: not asked");
        return;
    }
    let mut oracle = Oracle::start();
    let mut ours = Ours { fixture: Fixture::new(64), root: Root::claim(), owed: Releasing::with_capacity(2) };
    let v4: [IpAddr; 2] = ["203.0.113.1".parse().unwrap(), "203.0.113.2".parse().unwrap()];
    let v6: [IpAddr; 2] = ["2001:db8:f::1".parse().unwrap(), "2001:db8:f::2".parse().unwrap()];
    let mut count = 0;
    for (n, (protocol, suite)) in suites().into_iter().enumerate() {
        for (turn, (mode, outer6, inner6)) in [
            (Mode::Tunnel, false, false),
            (Mode::Tunnel, true, true),
            (Mode::Tunnel, false, true),
            (Mode::Tunnel, true, false),
            (Mode::Transport, false, false),
            (Mode::Transport, true, true),
        ]
        .into_iter()
        .enumerate()
        {
            let esn = (n + turn) % 2 == 1;
            let key: Vec<u8> = (0..suite.material_len()).map(|i| (i * 5 + n + turn) as u8).collect();
            let case = Case { protocol, suite, mode, esn, ends: if outer6 { v6 } else { v4 }, key };
            let what = format!("{protocol:?} {suite} {mode:?} outer6 {outer6} inner6 {inner6} esn {esn}");
            let clear = packet(inner6, 40 + n * 17 % 300);
            // Theirs, with a number of its own; the high half is 0, as ours is at the start.
            let sealed = oracle.ask(&case.question("seal", 7, &clear));
            assert_eq!(same(&ours.open(&case.sa(), &sealed)), same(&clear), "scapy's: {what}");
            let sealed = ours.seal(&case.sa(), &clear);
            assert_eq!(same(&oracle.ask(&case.question("open", 1, &sealed))), same(&clear), "ours: {what}");
            count += 2;
        }
    }
    println!("{count} packets");
}

/// A packet without what scapy sets to its own taste: TTL and checksum.
fn same(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            packet[8] = 0;
            packet[10..12].fill(0);
        }
        Some(6) => packet[7] = 0,
        _ => {}
    }
    packet
}
