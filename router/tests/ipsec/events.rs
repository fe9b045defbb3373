//! Lives of SAs and what a key manager is told: SADB_EXPIRE, SADB_ACQUIRE, SADB_GETSPI.

use super::bed::{Bed, Datagram, HOST4, HOST6, NAMES, Seen, Shape, classify, policies, sas};
use kern::time::Duration;
use router::control::setkey::{Acquire, GetSpi, SaEvent, SetkeyAnswer};

fn events(bed: &mut Bed, side: usize) -> Vec<SaEvent> {
    bed.net.sa_events(NAMES[side])
}

/// The expiries among events: SPI, whether hard, cause.
fn expiries(events: &[SaEvent]) -> Vec<(u32, bool, String)> {
    let one = |event: &SaEvent| match event {
        SaEvent::Expire { sa, hard, cause, .. } => Some((sa.spi, *hard, cause.clone())),
        _ => None,
    };
    events.iter().filter_map(one).collect()
}

fn bed(options: &str) -> Bed {
    let ipsec = [0, 1].map(|side| sas(0, options) + &policies(side));
    Bed::new(Shape::default(), [None; 2], [&ipsec[0], &ipsec[1]])
}

fn send(bed: &mut Bed, count: usize) -> usize {
    for _ in 0..count {
        assert!(bed.send(0, 0, &Datagram::default().packet()));
        bed.run(1);
    }
    bed.run(50);
    bed.arrived(1).len()
}

fn spis(bed: &mut Bed, side: usize) -> Vec<(u32, String)> {
    let report = bed.setkey(side, "dump;");
    let [SetkeyAnswer::Sas(sas)] = &report.answers[..] else { panic!("{report:?}") };
    sas.iter().map(|sa| (sa.spi, sa.state.clone())).collect()
}

#[test]
fn a_soft_limit_is_told_once_and_a_hard_one_removes_the_sa_and_is_told() {
    for (options, cause) in
        [("-ps 10 -ph 20", "packets"), ("-bs 920 -bh 1840", "bytes"), ("-ls 60 -lh 120", "seconds")]
    {
        let mut bed = bed(options);
        let soft_only = |bed: &mut Bed| {
            let told = events(bed, 0);
            (expiries(&told).iter().filter(|e| e.0 == 0x1000).cloned().collect::<Vec<_>>(), events(bed, 0))
        };
        assert_eq!(send(&mut bed, 5), 5);
        assert!(expiries(&events(&mut bed, 0)).is_empty(), "{options}");
        if cause == "seconds" {
            bed.net.run_for(Duration::from_secs(58));
        }
        assert_eq!(send(&mut bed, 6), 6);
        bed.run(300);
        assert_eq!(soft_only(&mut bed), (vec![(0x1000, false, cause.to_owned())], vec![]), "{options}");
        assert!(spis(&mut bed, 0).contains(&(0x1000, "dying".into())), "{options}");
        if cause == "seconds" {
            bed.net.run_for(Duration::from_mins(1));
        }
        let arrived = send(&mut bed, 20);
        assert_eq!(arrived, if cause == "seconds" { 0 } else { 9 }, "{options}: no more than its hard limit");
        bed.run(300);
        assert_eq!(soft_only(&mut bed).0, [(0x1000, true, cause.to_owned())], "{options}");
        assert!(spis(&mut bed, 0).iter().all(|(spi, _)| *spi != 0x1000), "{options}: it is gone");
        assert!(bed.count(0, "ipsec.expired_hard") >= 1 && bed.count(0, "ipsec.expired_soft") >= 1);
        // The policy stands: nothing leaves in clear, and somebody is asked for an SA.
        assert_eq!(send(&mut bed, 3), 0);
        assert!(bed.count(0, "spd.no_sa") >= 3);
        bed.nothing_in_clear();
        let asked = events(&mut bed, 0).into_iter().filter(|e| matches!(e, SaEvent::Acquire(_))).count();
        assert_eq!(asked, 1, "{options}");
        bed.finish();
    }
}

#[test]
fn numbers_that_run_out_are_told_before_and_when_they_do() {
    let mut bed = bed("");
    bed.setkey(0, "delete 203.0.113.1 203.0.113.2 esp 0x1000;");
    let near = u32::MAX - 8;
    bed.setkey(0, &format!("{} ", sas(1, &format!("-seq {near}")).lines().next().unwrap()));
    bed.setkey(1, &format!("{} ", sas(1, &format!("-seq {near}")).lines().next().unwrap()));
    bed.run(300);
    assert_eq!(expiries(&events(&mut bed, 0)), [(0x1010, false, "sequence".to_owned())]);
    assert_eq!(send(&mut bed, 12), 8, "as many as there are numbers");
    bed.run(300);
    assert_eq!(expiries(&events(&mut bed, 0)), [(0x1010, true, "sequence".to_owned())]);
    assert_eq!(send(&mut bed, 1), 0);
    bed.nothing_in_clear();
    bed.finish();
}

#[test]
fn a_policy_without_sa_asks_once_for_each_pair_of_ends_until_it_is_answered() {
    let mut bed = Bed::new(Shape::default(), [None; 2], [&policies(0), &policies(1)]);
    assert_eq!(send(&mut bed, 200), 0);
    let asked = acquires(&mut bed);
    let [one] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((one.src.to_string(), one.dst.to_string()), ("203.0.113.1".into(), "203.0.113.2".into()));
    assert_eq!((&*one.proto, &*one.mode, one.reqid, one.policy), ("esp", "tunnel", 0, 1));
    assert_eq!(
        (one.packet_src.to_string(), one.packet_dst.to_string()),
        (HOST4[0].to_string(), HOST4[1].to_string())
    );
    assert_eq!((one.packet_proto, one.packet_ports), (17, Some((1000, 2000))));
    // Another policy is another question; the same one is not asked again before its time.
    assert!(bed.send(0, 0, &Datagram { v6: true, ..Datagram::default() }.packet()));
    send(&mut bed, 50);
    bed.net.run_for(Duration::from_secs(5));
    send(&mut bed, 50);
    let asked = acquires(&mut bed);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].packet_dst.to_string(), HOST6[1].to_string());
    bed.net.run_for(Duration::from_secs(30));
    send(&mut bed, 50);
    assert_eq!(acquires(&mut bed).len(), 1, "nobody has answered");
    for side in [0, 1] {
        bed.setkey(side, &sas(0, ""));
    }
    assert_eq!(send(&mut bed, 10), 10);
    assert!(acquires(&mut bed).is_empty());
    for side in [0, 1] {
        bed.setkey(side, "flush;");
    }
    bed.run(1000);
    assert_eq!(send(&mut bed, 10), 0);
    assert_eq!(acquires(&mut bed).len(), 1, "it was answered, and is another question now");
    assert_eq!(bed.count(0, "ipsec.acquires"), 4);
    bed.nothing_in_clear();
    bed.finish();
}

#[test]
fn a_key_manager_gets_an_spi_makes_an_sa_of_it_and_hears_of_all_that_happens() {
    let mut bed = Bed::new(Shape::default(), [None; 2], [&policies(0), &policies(1)]);
    let ask = |bed: &mut Bed, min, max| {
        let (src, dst) = ("203.0.113.2".parse().unwrap(), "203.0.113.1".parse().unwrap());
        let asked = GetSpi { src, dst, proto: "esp".into(), min: Some(min), max: Some(max) };
        bed.net.with_root(NAMES[0], |node, _| node.sadb.get_spi(&node.router, &mut node.files.ipsec, &asked))
    };
    let mut got: Vec<u32> = (0..4).map(|_| ask(&mut bed, 0x2000, 0x2003).unwrap().spi).collect();
    got.sort_unstable();
    assert_eq!(got, [0x2000, 0x2001, 0x2002, 0x2003]);
    let full = ask(&mut bed, 0x2000, 0x2003).unwrap_err();
    assert_eq!(full, "203.0.113.1 has all SPIs from 8192 to 8195");
    assert!(ask(&mut bed, 10, 300).is_err() && ask(&mut bed, 400, 300).is_err());
    assert!(spis(&mut bed, 0).iter().all(|(_, state)| state == "larval"));
    let sa = |word, src, spi| {
        format!("{word} {src} 203.0.113.1 esp {spi:#x} -u 5 -E aes-gcm-16 0x{:040x};", spi + 1)
    };
    let stranger = bed.net.setkey(NAMES[0], &sa("add", "203.0.113.9", 0x2000)).unwrap_err();
    assert!(stranger.contains("is given away to another peer"), "{stranger}");
    bed.setkey(0, &(sa("update", "203.0.113.2", 0x2000) + &sa("add", "203.0.113.2", 0x2001)));
    bed.setkey(0, "delete 203.0.113.2 203.0.113.1 esp 0x2002;");
    let states: Vec<_> = spis(&mut bed, 0);
    assert_eq!(states, [(0x2000, "mature".into()), (0x2001, "mature".into()), (0x2003, "larval".into())]);
    bed.setkey(
        0,
        "update 203.0.113.2 203.0.113.1 esp 0x2000 -u 6; delete 203.0.113.2 203.0.113.1 esp 0x2001;",
    );
    bed.net.run_for(Duration::from_secs(31));
    let told: Vec<_> = events(&mut bed, 0)
        .iter()
        .map(|event| match event {
            SaEvent::Larval(_) => ("larval", 0, 0),
            SaEvent::Add(sa) => ("add", sa.spi, sa.reqid),
            SaEvent::Update(sa) => ("update", sa.spi, sa.reqid),
            SaEvent::Delete(sa) => ("delete", sa.spi, sa.reqid),
            other => panic!("{other:?}"),
        })
        .collect();
    let larval = ("larval", 0, 0);
    assert_eq!(
        told,
        [
            larval,
            larval,
            larval,
            larval,
            ("add", 0x2000, 5),
            ("add", 0x2001, 5),
            ("delete", 0x2001, 5),
            ("update", 0x2000, 6)
        ]
    );
    assert_eq!(spis(&mut bed, 0), [(0x2000, "mature".into())], "the last larva's time was up");
    bed.finish();
}

/// What SAs were asked for since the last time.
fn acquires(bed: &mut Bed) -> Vec<Acquire> {
    let only = |event| if let SaEvent::Acquire(acquire) = event { Some(acquire) } else { None };
    events(bed, 0).into_iter().filter_map(only).collect()
}

#[test]
fn a_policy_of_level_use_asks_for_an_sa_and_lets_packets_go_meanwhile() {
    let ipsec = [0, 1].map(|side| policies(side).replace("/require", "/use"));
    let mut bed = Bed::new(Shape::default(), [None; 2], [&ipsec[0], &ipsec[1]]);
    assert_eq!(send(&mut bed, 20), 20);
    assert!(bed.on_the_wire().iter().all(|frame| classify(frame) != Seen::Esp));
    let asked = acquires(&mut bed);
    let [one] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((&*one.proto, &*one.mode, one.policy), ("esp", "tunnel", 1));
    for side in [0, 1] {
        bed.setkey(side, &sas(0, ""));
    }
    assert_eq!(send(&mut bed, 20), 20);
    assert_eq!(bed.nothing_in_clear(), 20);
    assert!(acquires(&mut bed).is_empty());
    // 20 datagrams of 64 octets with their headers.
    assert_eq!((bed.count(0, "esp.bytes_out"), bed.count(1, "esp.bytes_in")), (20 * 92, 20 * 92));
    bed.finish();
}
