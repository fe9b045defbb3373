//! setkey on running gateways: keys changed under traffic, packet by packet accounted for.

use super::bed::{Bed, Datagram, NAMES, Shape, policies, sas};
use kern::testing::{Chance, soak};
use router::control::setkey::{SetkeyAnswer, SetkeyReport};
use std::fmt::Write;

/// `delete` statements for what [`sas`] added.
fn gone(generation: u32) -> String {
    let added = sas(generation, "");
    added.lines().fold(String::new(), |mut text, line| {
        let name: Vec<_> = line.split(' ').skip(1).take(4).collect();
        writeln!(text, "delete {};", name.join(" ")).unwrap();
        text
    })
}

/// The SAs that have sent something.
fn sent(bed: &mut Bed, side: usize) -> Vec<(u32, u64)> {
    let report = bed.setkey(side, "dump esp;");
    let [SetkeyAnswer::Sas(sas)] = &report.answers[..] else { panic!("{report:?}") };
    sas.iter().filter(|sa| sa.sent.packets > 0).map(|sa| (sa.spi, sa.sent.packets)).collect()
}

#[test]
fn a_statement_that_is_wrong_undoes_all_of_its_input() {
    let mut bed = Bed::with_tunnel(Shape::default(), None);
    let before = bed.setkey(0, "dump; spddump;");
    let wrong = format!("flush;\nspdflush;\n{}delete 203.0.113.1 203.0.113.2 esp 0x9999;\n", sas(1, ""));
    let error = bed.net.setkey(NAMES[0], &wrong).unwrap_err();
    assert_eq!(
        error,
        "stdin:7:1: there is no such SA (one that was added before, with the same ends and SPI)\n  \
         delete 203.0.113.1 203.0.113.2 esp 0x9999;\n  ^"
    );
    let after = bed.setkey(0, "dump; spddump;");
    assert_eq!((after.sas, after.policies), (4, 12));
    let texts = |report: &SetkeyReport| match &report.answers[..] {
        [SetkeyAnswer::Sas(sas), SetkeyAnswer::Policies(policies)] => {
            (sas.iter().map(|sa| sa.spi).collect::<Vec<_>>(), policies.clone())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(texts(&before), texts(&after));
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(100);
    assert_eq!((bed.arrived(1).len(), bed.nothing_in_clear()), (1, 1));
    bed.finish();
}

#[test]
fn questions_before_all_changes_are_about_what_was_and_those_behind_about_what_is() {
    let mut bed = Bed::with_tunnel(Shape::default(), None);
    let report = bed.setkey(
        0,
        "get 203.0.113.1 203.0.113.2 esp 0x1000; dump ah; dump; flush esp; dump; spddump; spdflush;",
    );
    let counts: Vec<_> = report
        .answers
        .iter()
        .map(|answer| match answer {
            SetkeyAnswer::Sas(sas) => sas.len(),
            SetkeyAnswer::Policies(policies) => policies.len() + 100,
        })
        .collect();
    assert_eq!(counts, [1, 0, 4, 0, 100]);
    assert_eq!((report.sas, report.policies), (0, 0));
    bed.finish();
}

#[test]
fn a_policy_without_sas_stops_its_packets_and_one_that_is_gone_lets_them_pass() {
    let mut bed = Bed::with_tunnel(Shape::default(), None);
    bed.on_the_wire();
    let warned = bed.setkey(0, "deleteall 203.0.113.1 203.0.113.2 esp;").warnings;
    assert!(warned[0].contains("what it matches is dropped"), "{warned:?}");
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(100);
    assert_eq!((bed.arrived(1).len(), bed.on_the_wire().len(), bed.count(0, "spd.no_sa")), (0, 0, 1));
    bed.setkey(0, "spddelete 192.0.2.0/24 198.51.100.0/24 any -P out;");
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(100);
    // In clear, as nothing says otherwise any more; the far end still wants it protected.
    assert_eq!((bed.arrived(1).len(), bed.count(1, "spd.clear")), (0, 1));
    bed.setkey(0, "spdadd 192.0.2.0/24 198.51.100.0/24 any -P out discard;");
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(100);
    assert_eq!(bed.count(0, "spd.discard"), 1);
    bed.setkey(
        0,
        &("spdupdate 192.0.2.0/24 198.51.100.0/24 any -P out \
           ipsec esp/tunnel/203.0.113.1-203.0.113.2/require;"
            .to_owned()
            + sas(3, "").lines().next().unwrap()),
    );
    bed.setkey(1, sas(3, "").lines().next().unwrap());
    assert!(bed.send(0, 0, &Datagram::default().packet()));
    bed.run(100);
    assert_eq!(bed.arrived(1).len(), 1);
    bed.finish();
}

#[test]
fn the_newer_of_two_sas_sends_while_the_older_still_opens_and_an_update_keeps_numbers() {
    let mut bed = Bed::with_tunnel(Shape::default(), None);
    let send = |bed: &mut Bed, from: usize| {
        assert!(bed.send(from, 0, &Datagram { from, ..Datagram::default() }.packet()));
        bed.run(50);
        assert_eq!(bed.arrived(1 - from).len(), 1);
    };
    send(&mut bed, 0);
    // Where it receives first. What comes by the older is opened as before.
    bed.setkey(1, &sas(1, ""));
    send(&mut bed, 0);
    assert_eq!(sent(&mut bed, 0), [(0x1000, 2)]);
    bed.setkey(0, &sas(1, ""));
    send(&mut bed, 0);
    send(&mut bed, 1);
    assert_eq!(sent(&mut bed, 0), [(0x1000, 2), (0x1010, 1)]);
    let update = "update 203.0.113.1 203.0.113.2 esp 0x1010 -ps 100 -ph 200;";
    bed.setkey(0, update);
    bed.setkey(0, &gone(0));
    bed.setkey(1, &gone(0));
    send(&mut bed, 0);
    let report = bed.setkey(0, "get 203.0.113.1 203.0.113.2 esp 0x1010;");
    let [SetkeyAnswer::Sas(sas)] = &report.answers[..] else { panic!("{report:?}") };
    assert_eq!((sas[0].sequence, sas[0].sent.packets), (2, 2));
    assert!(sas[0].text.contains("allocated: 2\thard: 200\tsoft: 100"), "{}", sas[0].text);
    let rekeyed = format!("{} -E aes-gcm-16 0x{:040x};", &update[..update.len() - 1], 77);
    let refused = bed.net.setkey(NAMES[0], &rekeyed).unwrap_err();
    assert!(refused.contains("an update leaves algorithm, key"), "{refused}");
    bed.finish();
}

const IN: u8 = 0;
const OUT: u8 = 1;

/// Rekeys under traffic both ways, with several workers in turns as chance has it; says how many packets went through.
fn rekeys(
    (workers, locking): (usize, &'static str),
    generations: u32,
    packets: u64,
    chance: &mut Chance,
) -> u64 {
    let shape = Shape { workers, locking, ..Shape::default() };
    let options = "-r 64";
    let ipsec = [0, 1].map(|side| sas(0, options) + &policies(side));
    let mut bed = Bed::new(shape, [None; 2], [&ipsec[0], &ipsec[1]]);
    let each: [Vec<Vec<u8>>; 2] = [0, 1].map(|from| {
        (0..16)
            .map(|i| {
                Datagram { from, v6: i % 4 == 3, ports: (1000 + i, 2000), ..Datagram::default() }.packet()
            })
            .collect()
    });
    // The gateways find each other.
    for from in [0, 1] {
        for packet in &each[from] {
            assert!(bed.send(from, 0, packet));
        }
        bed.run(500);
        assert_eq!(bed.arrived(1 - from).len(), 16);
    }
    let per_step = (packets / u64::from(generations)).div_ceil(6);
    let (mut sent, mut got) = (0, 0);
    let mut traffic = |bed: &mut Bed, chance: &mut Chance| {
        let mut here = 0;
        while here < per_step {
            for _ in 0..64.min(per_step - here) {
                let from = chance.below(2);
                assert!(bed.send(from, chance.below(workers), &each[from][chance.below(16)]));
                here += 1;
            }
            // Some of it is under way when the keys change.
            for _ in 0..chance.below(8) {
                let (name, worker) = (NAMES[chance.below(2)], chance.below(workers));
                bed.net.with_root(name, |node, root| node.router.step_one(root, worker));
            }
            if here < per_step {
                bed.run(1);
            }
            got += (bed.arrived(0).len() + bed.arrived(1).len()) as u64;
        }
        sent += here;
        bed.nothing_in_clear();
    };
    for generation in 1..=generations {
        let new = sas(generation, options);
        let first = chance.below(2);
        // Each half alone would send by an SA that the other does not know yet, so inbound ones go first.
        for (side, way) in [(first, IN), (1 - first, IN), (first, OUT), (1 - first, OUT)] {
            // Statements of the two ways take turns.
            let text: Vec<_> = new.lines().skip(usize::from((side == 0) == (way == IN))).step_by(2).collect();
            bed.setkey(side, &text.join("\n"));
            traffic(&mut bed, chance);
        }
        bed.run(5);
        for side in [0, 1] {
            bed.setkey(side, &gone(generation - 1));
            traffic(&mut bed, chance);
        }
    }
    bed.run(50);
    got += (bed.arrived(0).len() + bed.arrived(1).len()) as u64;
    bed.nothing_in_clear();
    let lost: Vec<_> = [0, 1]
        .iter()
        .flat_map(|&side| bed.counts(side))
        .filter(|(name, n)| *n > 0 && is_a_loss(name))
        .collect();
    assert_eq!((sent - got, lost), (0, vec![]), "{workers} workers, {generations} rekeys, {sent} packets");
    bed.finish();
    sent
}

/// Whether a counter says that a packet ended which should not have.
fn is_a_loss(name: &str) -> bool {
    ["spd.", "esp.no", "esp.replay", "esp.auth", "esp.policy", "esp.lifetime", "pending."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[test]
fn a_thousand_changes_of_keys_lose_no_packet() {
    let mut chance = Chance::seeded(0x5eed_2013);
    let (generations, packets) = if soak() { (1000, 10_000_000) } else { (12, 12_000) };
    for (workers, locking) in [(1, "fine"), (2, "fine"), (1, "giant"), (2, "giant")] {
        let sent = rekeys((workers, locking), generations / 4, packets / 4, &mut chance);
        println!("{workers} workers, {locking}: {} rekeys, {sent} packets, 0 lost", generations / 4);
    }
}
