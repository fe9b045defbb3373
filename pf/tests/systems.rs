//! `os "..."`: which SYNs are taken for whose, in the engine. The fixture is `pf.os` beside this file.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;

use common::{CLIENT, IN, LAN, SERVER, World, router};
use pf::{
    PfConf,
    conf::{Reading, Section},
};
use wire::{IpProto, build, ipv4, ipv6};

const MSS: &[u8] = &[2, 4, 0x05, 0xb4];
const NOP: &[u8] = &[1];
const SACK: &[u8] = &[4, 2];
const STAMP: &[u8] = &[8, 10, 0, 0, 0, 9, 0, 0, 0, 0];

/// A segment that one of the systems might send.
#[derive(Clone, Debug)]
struct Sent {
    window: u16,
    ttl: u8,
    df: bool,
    flags: u8,
    options: Vec<u8>,
}

impl Sent {
    fn new(window: u16, ttl: u8, options: &[&[u8]]) -> Sent {
        Sent { window, ttl, df: true, flags: 0x02, options: options.concat() }
    }

    fn linux() -> Sent {
        Sent::new(64240, 64, &[MSS, SACK, STAMP, NOP, &[3, 3, 7]])
    }

    fn openbsd() -> Sent {
        Sent::new(16384, 64, &[MSS, NOP, NOP, SACK, NOP, &[3, 3, 6], NOP, NOP, STAMP])
    }

    fn windows() -> Sent {
        Sent::new(16384, 128, &[MSS, NOP, &[3, 3, 8], NOP, NOP, SACK])
    }

    fn segment(&self) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[..4].copy_from_slice(&[0x0f, 0xa0, 0, 80]);
        segment.extend(&self.options);
        segment.resize(segment.len().next_multiple_of(4), 0);
        (segment[12], segment[13]) = ((segment.len() / 4) as u8 * 16, self.flags);
        segment[14..16].copy_from_slice(&self.window.to_be_bytes());
        segment
    }

    fn inet(&self) -> Vec<u8> {
        let frag = if self.df { 0x4000 } else { 0 };
        let (src, dst, proto) = (CLIENT, SERVER, IpProto::TCP);
        let header = ipv4::Repr { src, dst, proto, frag, ttl: self.ttl, ..ipv4::Repr::default() };
        build::raw4(header, &self.segment())
    }

    fn inet6(&self) -> Vec<u8> {
        let (src, dst) = ("2001:db8:a::9".parse().unwrap(), "2001:db8:c::1".parse().unwrap());
        let header =
            ipv6::Repr { src, dst, next_header: IpProto::TCP, hop_limit: self.ttl, ..ipv6::Repr::default() };
        build::raw6(header, &self.segment())
    }
}

/// The rules that a packet passes by, of these, when each stands alone.
fn passing<'a>(names: &[&'a str], packet: &[u8]) -> Vec<&'a str> {
    let passes = |name: &&&str| {
        let mut w = World::new(&format!(
            "set fingerprints \"tests/pf.os\"\nblock all\npass in proto tcp from any os \"{name}\" no state\n"
        ));
        w.passes(IN, LAN, packet)
    };
    names.iter().filter(passes).copied().collect()
}

const NAMES: [&str; 13] = [
    "Linux",
    "Linux 6",
    "Linux 5-6",
    "Linux 4.15",
    "Linux some",
    "OpenBSD",
    "OpenBSD 7.6",
    "OpenBSD 7.6 no-df",
    "Windows",
    "Windows 10",
    "Windows 11 24H2",
    "Printer",
    "unknown",
];

#[test]
fn a_syn_is_of_the_systems_of_the_first_signature_that_it_fits() {
    let printer = Sent { df: false, ..Sent::new(1024, 255, &[]) };
    let cases: [(Sent, &[&str]); 13] = [
        (Sent::linux(), &["Linux", "Linux 6", "Linux 5-6"]),
        // 44 segments of 1460, though a device on the way has put another size in.
        (
            Sent::new(64240, 64, &[&[2, 4, 5, 0x78], SACK, STAMP, NOP, &[3, 3, 7]]),
            &["Linux", "Linux 6", "Linux 5-6"],
        ),
        (Sent { window: 29200, ..Sent::linux() }, &["Linux", "Linux 4.15"]),
        // Only the last, generic signature.
        (
            Sent { window: 1000, ..Sent::new(0, 64, &[MSS, SACK, STAMP, NOP, &[3, 3, 6]]) },
            &["Linux", "Linux some"],
        ),
        (Sent::new(1000, 64, &[MSS, SACK, STAMP, NOP, &[3, 3, 5]]), &["unknown"]),
        (Sent::openbsd(), &["OpenBSD", "OpenBSD 7.6"]),
        (Sent { df: false, ..Sent::openbsd() }, &["OpenBSD", "OpenBSD 7.6", "OpenBSD 7.6 no-df"]),
        (Sent::windows(), &["Windows", "Windows 10", "Windows 11 24H2"]),
        (Sent { window: 16385, ..Sent::windows() }, &["unknown"]),
        (printer.clone(), &["Printer"]),
        (Sent { options: NOP.to_vec(), ..printer.clone() }, &["unknown"]),
        // Forty hops are allowed for, no more; nobody gains life on the way.
        (Sent { ttl: 64 - 40, ..Sent::linux() }, &["Linux", "Linux 6", "Linux 5-6"]),
        (Sent { ttl: 64 - 41, ..Sent::linux() }, &["unknown"]),
    ];
    for (sent, wanted) in &cases {
        assert_eq!(passing(&NAMES, &sent.inet()), *wanted, "{sent:?}");
    }
    assert_eq!(passing(&NAMES, &Sent { ttl: 65, ..Sent::linux() }.inet()), ["unknown"]);
}

#[test]
fn a_system_is_known_by_its_ipv6_packets_too_which_have_no_df_bit_and_a_longer_header() {
    let wanted: [(Sent, &[&str]); 4] = [
        (Sent::linux(), &["Linux", "Linux 6", "Linux 5-6"]),
        (Sent::openbsd(), &["OpenBSD", "OpenBSD 7.6"]),
        (Sent::new(1024, 255, &[]), &["Printer"]),
        (Sent::new(1025, 255, &[]), &["unknown"]),
    ];
    for (sent, wanted) in &wanted {
        assert_eq!(passing(&NAMES, &sent.inet6()), *wanted, "{sent:?}");
    }
}

#[test]
fn only_a_syn_betrays_anything_and_only_tcp_is_unknown() {
    let odd = [NOP, NOP, &[0xfd, 2][..]].concat();
    let unknown = [
        Sent { options: odd, ..Sent::linux() },
        Sent { options: vec![2, 4, 5], ..Sent::linux() },
        Sent { flags: 0x12, ..Sent::linux() },
        Sent { flags: 0x10, ..Sent::linux() },
    ];
    for sent in unknown {
        assert_eq!(passing(&NAMES, &sent.inet()), ["unknown"], "{sent:?}");
    }
    // Other protocols belong to no rule with `os`.
    let mut w = World::new("block all\npass in from any os unknown no state\n");
    assert!(!w.passes(IN, LAN, &build::udp4(CLIENT, SERVER, 4000, 53, b"")));
    assert!(w.passes(IN, LAN, &Sent::linux().inet()));
}

#[test]
fn a_rule_of_translation_may_ask_for_a_system() {
    let mut w = World::new(
        "set fingerprints \"tests/pf.os\"\n\
         rdr on lan0 proto tcp from any os \"Windows\" to any port 80 -> 10.0.0.7\n\
         block all\npass in proto tcp to 10.0.0.7\n",
    );
    assert!(!w.passes(IN, LAN, &Sent::linux().inet()));
    assert!(w.passes(IN, LAN, &Sent::windows().inet()));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let env = router();
    let load = |text: &str| pf::conf::load_text("pf.conf", text, &env, &[]);
    let said = |text: &str| load(text).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>();
    let set = "set fingerprints \"tests/pf.os\"\n";
    assert_eq!(
        said(&format!("{set}pass in proto tcp from any os {{ \"Linux 6\", \"BeOS\" }}\n")),
        [
            "pf.conf:2:44: no fingerprint is of `BeOS`; `pfctl -s osfp` shows the systems there are; `unknown` is any other"
        ]
    );
    assert_eq!(
        said("pass in proto tcp from any os \"Linux\"\n"),
        ["pf.conf:1:31: there are no fingerprints to tell `Linux` by: no file of them is known; \
          `set fingerprints \"FILE\"` names a file in the format of pf.os"]
    );
    let missing = said("set fingerprints \"tests/none\"\npass\n");
    assert!(missing[0].starts_with("pf.conf:1:5: `tests/none` cannot be read: "), "{missing:?}");

    let dir = std::env::temp_dir().join(format!("softnet-osfp-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("pf.os");
    std::fs::write(&file, "# mine\n1024:64:0:40:.:Mine:::fine\n1024:64:0:40:Q:Mine:::wrong\n").unwrap();
    let conf = load(&format!("set fingerprints \"{}\"\nblock from any os Mine\n", file.display())).unwrap();
    let warned: Vec<String> = conf.warnings.iter().map(|w| format!("{w}: {}", w.excerpt)).collect();
    let wanted = "3:14: there is no TCP option `Q`: it is N, S, T, T0, Mn or Wn; the line is left out: \
                  1024:64:0:40:Q:Mine:::wrong";
    assert_eq!(warned, [format!("{}:{wanted}", file.display())]);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_scrub_rule_is_for_the_syns_of_a_system_and_no_other_segment() {
    let rules = "set fingerprints \"tests/pf.os\"\nscrub in proto tcp from any os Linux min-ttl 100\n\
                 scrub in proto tcp from any os unknown min-ttl 200\npass all no state\n";
    let mut w = World::new(rules);
    let mut ttl = |packet: &[u8]| {
        let mut m = w.packet(packet);
        assert!(matches!(w.test(IN, LAN, &mut m), pf::Verdict::Pass(_)));
        let ttl = m.data()[8];
        w.fixture.done(m);
        ttl
    };
    assert_eq!(ttl(&Sent::linux().inet()), 100);
    assert_eq!(ttl(&Sent::openbsd().inet()), 64, "known, and neither");
    assert_eq!(ttl(&Sent { flags: 0x10, ..Sent::linux() }.inet()), 200, "an ACK betrays nothing");
    assert_eq!(ttl(&build::udp4(CLIENT, SERVER, 1, 2, b"x")), 64, "no segment");
}

#[test]
fn a_scrub_rule_matches_once_for_what_it_does_to_the_syn_and_what_it_says_of_the_state() {
    // Behind `min-ttl` the SYN is nobody's.
    let mut w = World::new(
        "set fingerprints \"tests/pf.os\"\n\
         scrub in proto tcp from any os Linux min-ttl 100 reassemble tcp\npass all\n",
    );
    let stamp = |data: &[u8]| data[20 + 20 + MSS.len() + SACK.len() + 2..][..4].to_vec();
    let sent = Sent::linux().inet();
    let mut m = w.packet(&sent);
    m.set_l4(20);
    m.hdr_mut().proto = IpProto::TCP.0;
    assert!(matches!(w.test(IN, LAN, &mut m), pf::Verdict::Pass(_)));
    assert_eq!(m.data()[8], 100);
    assert_ne!(stamp(m.data()), stamp(&sent), "its timestamps are shifted");
    w.fixture.done(m);
}

#[test]
fn what_changes_only_some_options_speaks_of_the_fingerprints_in_force() {
    let env = router();
    let read = |text: &str, loaded: &PfConf| {
        let (fingerprints, options) = (Some(&loaded.fingerprints), Some(&loaded.options));
        let reading = Reading { env: &env, defines: &[], anchor: "", fingerprints, options, engines: true };
        reading.text("pf.conf", text)
    };
    let conf = pf::conf::load_text("pf.conf", "set fingerprints \"tests/pf.os\"\n", &env, &[]).unwrap();
    let merged = read("set limit states 500\npass in proto tcp from any os Printer\n", &conf).unwrap();
    assert_eq!(
        (merged.fingerprints.count(), merged.fingerprints.count() > 0),
        (conf.fingerprints.count(), true)
    );
    // Others that it names itself come first.
    let dir = std::env::temp_dir().join(format!("softnet-osfp-merged-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("pf.os");
    std::fs::write(&file, "1024:64:0:40:.:Mine:::fine\n").unwrap();
    let own = read(&format!("set fingerprints \"{}\"\nblock from any os Mine\n", file.display()), &conf);
    assert_eq!(own.unwrap().fingerprints.count(), 2);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn rules_that_stay_mean_the_same_systems_in_other_fingerprints() {
    let env = router();
    let mut w = World::new("");
    let read = |anchor: &str, text: &str, loaded: Option<&PfConf>| {
        let fingerprints = loaded.map(|conf| &conf.fingerprints);
        let reading = Reading { env: &env, defines: &[], anchor, fingerprints, options: None, engines: true };
        reading.text("pf.conf", text).unwrap_or_else(|e| panic!("{}", e[0].with_caret()))
    };
    let main = "set fingerprints \"tests/pf.os\"\nblock all\nanchor a\n";
    let (conf, _) = PfConf::default().with("", read("", main, None), &Section::ALL);
    let inner = read("a", "pass in proto tcp from any os \"Linux 6\" no state\n", Some(&conf));
    let (conf, _) = conf.with("a", inner, &Section::ALL);
    w.ruleset = w.pf.compile(&Arc::new(conf.clone()), &env, &mut w.names).unwrap();
    assert!(w.passes(IN, LAN, &Sent::linux().inet()));

    // Another main ruleset, whose file says that this SYN is of Windows: the anchor's rule is not compiled again.
    let dir = std::env::temp_dir().join(format!("softnet-osfp-stay-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("pf.os");
    std::fs::write(&file, "*:64:1:60:M*,S,T,N,W7:Windows:6::not Linux\n1:1:1:1:.:Linux:6::Linux\n").unwrap();
    let main = format!("set fingerprints \"{}\"\nblock all\nanchor a\n", file.display());
    let (conf, fresh) = conf.with("", read("", &main, None), &Section::ALL);
    w.ruleset = w.pf.compile_over(&w.ruleset, &fresh, &Arc::new(conf.clone()), &env, &mut w.names).unwrap();
    assert!(!w.passes(IN, LAN, &Sent::linux().inet()));

    // Flushed: nothing is of any system.
    let (conf, fresh) = conf.with("", PfConf::default(), &[Section::Fingerprints]);
    w.ruleset = w.pf.compile_over(&w.ruleset, &fresh, &Arc::new(conf), &env, &mut w.names).unwrap();
    assert!(!w.passes(IN, LAN, &Sent::linux().inet()));
    std::fs::remove_dir_all(&dir).unwrap();
}
