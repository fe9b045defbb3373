use std::{collections::HashMap, time::Instant};

use super::*;
use crate::{addr::bits, conf};

fn entry(text: &str) -> Entry {
    parse_entry(text).unwrap()
}

fn entries(texts: &[&str]) -> Vec<Entry> {
    texts.iter().map(|t| entry(t)).collect()
}

fn is_in(tables: &Tables, address: &str) -> bool {
    let address: std::net::IpAddr = address.parse().unwrap();
    tables.find("", "t").is_some_and(|t| t.contains(Family::of(address), bits(address)))
}

fn letters(changes: &Changes) -> String {
    changes.each.iter().map(|(_, f)| f.letter()).collect()
}

fn defined(name: &str, persist: bool, texts: &[&str]) -> conf::Table {
    conf::Table {
        name: name.into(),
        anchor: String::new(),
        constant: false,
        persist,
        counters: true,
        keeps: texts.is_empty(),
        entries: entries(texts),
    }
}

fn stage(tables: &Tables, anchor: &str, defined: &[conf::Table], spoken_of: &[&str]) -> Vec<Staged> {
    let wanted = Wanted {
        anchor,
        defined: defined.iter().collect(),
        spoken_of: spoken_of.iter().map(|&name| (name, 1)).collect(),
        pools: spoken_of.iter().copied().filter(|name| name.starts_with("pool")).collect(),
        fresh: true,
    };
    tables.stage(&[wanted], 0).unwrap()
}

#[test]
fn a_rehearsal_says_what_would_be_done_and_does_nothing() {
    let tables = Tables::new(2);
    let entry = |text: &str| Entry { not: false, prefix: Prefix::host(text.parse().unwrap()) };
    let (one, two) = (entry("192.0.2.1"), entry("192.0.2.2"));
    tables.add("", "t", &[one], 5).unwrap();
    let would = tables.rehearsal("", "t").set("", "t", &[two], 9).unwrap();
    assert_eq!((would.created, would.added, would.deleted), (false, 1, 1));
    assert_eq!(tables.rehearsal("", "t").expire("", "t", 10, 99).unwrap().deleted, 1);
    let made = tables.rehearsal("a", "t").add("a", "t", &[two], 9).unwrap();
    assert!(made.created && tables.find("a", "t").is_none());
    let left: Vec<Entry> = tables.find("", "t").unwrap().entries().iter().map(|e| e.entry).collect();
    assert_eq!(left, [one]);
}

#[test]
fn in_a_rehearsal_the_other_tables_count_against_the_limits() {
    let tables = Tables::new(1);
    tables.set_limits(2, 3);
    tables.add("", "t", &entries(&["10.0.0.1"]), 0).unwrap();
    tables.add("a", "other", &entries(&["10.0.0.1", "10.0.0.2"]), 0).unwrap();
    let one_more = entries(&["10.0.0.9"]);
    let full = Err(TableError::Entries { wanted: 4, limit: 3 });
    assert_eq!(tables.rehearsal("", "t").add("", "t", &one_more, 0), full);
    assert_eq!(tables.rehearsal("", "new").add("", "new", &one_more, 0), Err(TableError::Tables(2)));
    let replaced = tables.rehearsal("", "t").set("", "t", &one_more, 0).unwrap();
    assert_eq!((replaced.added, replaced.deleted), (1, 1));
    tables.set_limits(3, 4);
    assert_eq!(tables.rehearsal("", "new").add("", "new", &one_more, 0).unwrap().added, 1);
    assert_eq!(tables.add("", "new", &one_more, 0).unwrap().added, 1, "and so it is");
}

#[test]
fn the_longest_prefix_decides_and_a_negated_one_takes_out() {
    let tables = Tables::new(1);
    tables
        .add("", "t", &entries(&["10.0.0.0/8", "!10.1.0.0/16", "10.1.2.3", "2001:db8::/32", "!::/0"]), 0)
        .unwrap();
    let expected = [
        ("10.9.9.9", true),
        ("10.1.9.9", false),
        ("10.1.2.3", true),
        ("11.0.0.1", false),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
    ];
    for (address, want) in expected {
        assert_eq!(is_in(&tables, address), want, "{address}");
    }
}

#[test]
fn each_address_is_answered_with_the_letter_that_pfctl_prints() {
    let tables = Tables::new(1);
    let made = tables.add("", "t", &entries(&["10.0.0.1", "10.0.0.2", "10.0.0.1"]), 5).unwrap();
    assert_eq!((made.created, made.added, letters(&made)), (true, 2, "AAX".into()));
    let again = tables.add("", "t", &entries(&["10.0.0.1", "!10.0.0.2", "10.0.0.3"]), 9).unwrap();
    assert_eq!((again.created, again.added, letters(&again)), (false, 1, " YA".into()));
    let gone = tables.delete("", "t", &entries(&["10.0.0.9", "10.0.0.1", "!10.0.0.2"])).unwrap();
    assert_eq!((gone.deleted, letters(&gone)), (1, " DY".into()));
    let set = tables.set("", "t", &entries(&["!10.0.0.2", "10.0.0.7"]), 9).unwrap();
    assert_eq!((set.added, set.deleted, set.changed, letters(&set)), (1, 1, 1, "CAD".into()));
    let shown: Vec<String> =
        tables.find("", "t").unwrap().entries().iter().map(|e| e.entry.prefix.to_string()).collect();
    assert_eq!(shown, ["10.0.0.2", "10.0.0.7"]);
}

#[test]
fn what_was_added_long_ago_expires_unless_its_counters_were_zeroed_since() {
    let tables = Tables::new(1);
    tables.add("", "t", &entries(&["10.0.0.1", "10.0.0.2"]), 100).unwrap();
    tables.add("", "t", &entries(&["10.0.0.3"]), 150).unwrap();
    tables.zero("", "t", Some(&entries(&["10.0.0.2"])), 150).unwrap();
    let expired = tables.expire("", "t", 40, 160).unwrap();
    assert_eq!(expired.each, [(entry("10.0.0.1"), Feedback::Deleted)]);
}

#[test]
fn a_const_table_a_table_that_is_not_there_and_a_full_one_are_refused_and_unchanged() {
    let tables = Tables::new(1);
    assert_eq!(tables.delete("", "t", &entries(&["10.0.0.1"])), Err(TableError::NoTable));
    let table = conf::Table { constant: true, ..defined("t", false, &["10.0.0.1"]) };
    tables.commit(&stage(&tables, "", &[table], &[]));
    assert_eq!(tables.add("", "t", &entries(&["10.0.0.2"]), 0), Err(TableError::Constant("t".into())));
    assert_eq!(tables.flush("", "t"), Err(TableError::Constant("t".into())));
    tables.set_limits(2, 3);
    let refused = tables.add("", "u", &entries(&["10.0.0.2", "10.0.0.3", "10.0.0.4"]), 0);
    assert_eq!(refused, Err(TableError::Entries { wanted: 4, limit: 3 }));
    assert_eq!(tables.find("", "u").map(|t| t.len()), Some(0));
    assert_eq!(tables.add("", "v", &[], 0), Err(TableError::Tables(2)));
    assert!(matches!(tables.add("", &"n".repeat(32), &[], 0), Err(TableError::Name(_))));
    assert!(is_in(&tables, "10.0.0.1") && !is_in(&tables, "10.0.0.2"));
}

#[test]
fn a_reload_gives_a_table_its_new_contents_and_keeps_those_of_a_table_without_a_list() {
    let tables = Tables::new(1);
    let load = |conf: &[conf::Table], spoken: &[&str]| {
        let staged = stage(&tables, "", conf, spoken);
        let before: Vec<_> = tables.list(None).iter().map(|t| (t.name.clone(), t.addresses)).collect();
        (before, staged)
    };
    let (before, staged) =
        load(&[defined("t", false, &["10.0.0.1"]), defined("kept", true, &[])], &["unknown"]);
    assert!(before.is_empty(), "staging changes nothing");
    tables.commit(&staged);
    tables.add("", "kept", &entries(&["10.0.0.5"]), 0).unwrap();
    let (before, staged) = load(&[defined("t", false, &["10.0.0.2"])], &["kept"]);
    assert_eq!(before, [("kept".into(), 1), ("t".into(), 1), ("unknown".into(), 0)]);
    assert!(is_in(&tables, "10.0.0.1"));
    tables.commit(&staged);
    assert!(is_in(&tables, "10.0.0.2") && !is_in(&tables, "10.0.0.1"));
    let names: Vec<_> = tables.list(None).into_iter().map(|t| (t.name, t.addresses)).collect();
    assert_eq!(names, [("kept".into(), 1), ("t".into(), 1)]);
}

#[test]
fn packets_are_counted_by_entry_direction_and_fate() {
    let tables = Tables::new(2);
    tables.commit(&stage(&tables, "", &[defined("t", false, &["10.0.0.0/8", "!10.1.0.0/16"])], &[]));
    let table = tables.find("", "t").unwrap();
    let packet = |fate, not| Counted {
        direction: Direction::In,
        family: Family::Inet,
        fate,
        not,
        packets: 2,
        bytes: 100,
    };
    table.count(0, &packet(Fate::Pass, false), 0x0a02_0000);
    table.count(1, &packet(Fate::Block, false), 0x0a02_0000);
    table.count(1, &packet(Fate::Pass, false), 0x0a01_0000);
    let expected = [[[2, 100], [2, 100], [2, 100]], [[0; 2]; 3]];
    assert_eq!(tables.list(None)[0].totals, expected);
    let counts: HashMap<String, Totals> =
        table.entries().into_iter().map(|e| (e.entry.prefix.to_string(), e.counts.unwrap())).collect();
    assert_eq!(counts["10.0.0.0/8"], [[[2, 100], [2, 100], [0; 2]], [[0; 2]; 3]]);
    assert_eq!(counts["10.1.0.0/16"], Totals::default());
    tables.zero("", "t", None, 0).unwrap();
    assert!(table.entries().iter().all(|e| e.counts == Some(Totals::default())));
}

#[test]
fn a_version_is_freed_when_nobody_looks_at_it_any_more() {
    let tables = Tables::new(1);
    tables.add("", "t", &entries(&["10.0.0.1"]), 0).unwrap();
    let table = tables.find("", "t").unwrap();
    let reader = table.current.load_full();
    let watch = Arc::downgrade(&reader);
    tables.add("", "t", &entries(&["10.0.0.2"]), 0).unwrap();
    drop(reader);
    assert!(watch.upgrade().is_some(), "the reader frees nothing");
    tables.collect();
    assert!(watch.upgrade().is_none());
}

#[test]
fn one_address_into_a_table_of_200000_takes_less_than_a_millisecond() {
    let tables = Tables::new(1);
    tables.set_limits(10, 300_000);
    let host = |n: u32| Entry {
        not: false,
        prefix: Prefix::host(Family::Inet.address(u128::from(n.wrapping_mul(2_654_435_761)))),
    };
    let many: Vec<Entry> = (0..200_000).map(host).collect();
    tables.add("", "t", &many, 0).unwrap();
    let mut times: Vec<_> = (0..101)
        .map(|n| {
            let begin = Instant::now();
            tables.add("", "t", &[host(200_000 + n)], 0).unwrap();
            begin.elapsed()
        })
        .collect();
    times.sort();
    println!("one address into 200,000: median {:?}, worst {:?}", times[50], times[100]);
    assert_eq!(tables.find("", "t").unwrap().len(), 200_101);
    assert!(times[50].as_micros() < 1000, "{:?}", times[50]);
}

#[test]
fn before_a_length_trailing_zeros_may_be_left_out() {
    assert_eq!(entries(&["10/8", "!172.16/12"]), entries(&["10.0.0.0/8", "!172.16.0.0/12"]));
    for wrong in ["10", "10.0.0.1/33", "1.2.3.4.5/8", "10./8", "/8"] {
        assert!(parse_entry(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_list_without_entries_empties_a_table_and_of_entries_named_twice_the_first_counts() {
    let tables = Tables::new(1);
    tables.commit(&stage(&tables, "", &[defined("t", true, &["10.0.0.1", "!10.0.0.1", "10.0.0.2"])], &[]));
    assert!(is_in(&tables, "10.0.0.1") && is_in(&tables, "10.0.0.2"));
    tables.commit(&stage(&tables, "", &[defined("t", true, &[])], &[]));
    assert!(is_in(&tables, "10.0.0.1"), "a table without list and file keeps what it holds");
    tables.commit(&stage(&tables, "", &[conf::Table { keeps: false, ..defined("t", true, &[]) }], &[]));
    assert_eq!(tables.find("", "t").map(|t| t.len()), Some(0));
}
