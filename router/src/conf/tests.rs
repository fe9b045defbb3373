//! Good files mean what they say; bad ones are refused with every fault, each in its place.

use super::{derive, *};
use crate::route::{IfIndex, NextHop, Rib, Source};
use std::time::Duration;

const GOOD: &str = r#"
[router]
name = "gw-a"
workers = 2
cpus = [0, 1]

[[interface]]
name = "lan0"
driver = "tap"
device = "gwa-lan"
address = ["192.0.2.1/24", "2001:db8:a::1/64"]

[interface.router_advertisements]
interval = 60

[[interface]]
name = "wan0"
driver = "tap"
device = "gwa-wan"
address = ["203.0.113.1/24", "2001:db8:ffff::1/64"]
mtu = 9000

[[interface]]
name = "guest"
driver = "vlan"
parent = "lan0"
tag = 100
address = "10.0.0.1/31"
mtu = 1400

[[route]]
to = "198.51.100.0/24"
via = "203.0.113.2"

[[route]]
to = "default"
via = ["203.0.113.2", "203.0.113.3"]

[[route]]
to = "::/0"
via = "fe80::2"
dev = "wan0"

[[route]]
to = "10.0.0.0/8"
type = "blackhole"
"#;

fn host() -> Host {
    Host { cpus: vec![0, 1] }
}

fn good(text: &str) -> ValidConf {
    from_text(Path::new("t.toml"), text, &host()).unwrap_or_else(|invalid| panic!("{invalid}"))
}

/// The complaints, one line each: `line:column: message = hint`.
fn faults(text: &str) -> Vec<String> {
    let invalid = from_text(Path::new("t.toml"), text, &host()).expect_err("a bad file");
    let line = |d: &Diagnostic| {
        let at = d.place.as_ref().map_or(String::new(), |p| format!("{}:{}: ", p.line, p.column));
        format!("{at}{}{}", d.message, d.hint.as_ref().map_or(String::new(), |h| format!(" = {h}")))
    };
    invalid.0.iter().map(line).collect()
}

/// A file with one good interface in lines 1 to 4 and 5 onwards what is given.
fn with(rest: &str) -> String {
    format!("[[interface]]\nname = \"lan0\"\ndriver = \"link\"\naddress = \"192.0.2.1/24\"\n{rest}")
}

#[test]
fn a_good_file_means_what_it_says() {
    let conf = good(GOOD);
    assert_eq!((conf.name.as_str(), conf.workers, &conf.cpus), ("gw-a", 2, &vec![0, 1]));
    assert_eq!(conf.control, Path::new("/run/softnet/gw-a.sock"));
    assert_eq!(
        (conf.spin, conf.enc0, conf.pool),
        (Duration::from_micros(30), true, kern::mbuf::PoolConfig::default())
    );
    let [lan, wan, guest] = &conf.interfaces[..] else { panic!("three interfaces") };
    assert_eq!((lan.index, wan.index, guest.index), (IfIndex(1), IfIndex(2), IfIndex(3)));
    assert_eq!(guest.driver, DriverConf::Vlan { parent: IfIndex(1), tag: 100 });
    assert_eq!((lan.mtu, wan.mtu, guest.mtu, guest.queues), (1500, 9000, 1400, 2));
    assert_eq!((guest.mac, lan.mac), (lan.mac, derive::mac("gw-a", "lan0")));
    assert_eq!(lan.link_local(), Some(lan.mac.link_local()));
    assert_eq!(lan.addrs.len(), 3);
    let advertise = lan.advertise.expect("advertisements");
    assert_eq!((advertise.interval, advertise.lifetime), (Duration::from_mins(1), Duration::from_mins(3)));
    assert!(conf.warnings.is_empty(), "{:?}", conf.warnings);
}

#[test]
fn routes_follow_from_addresses_and_from_the_file() {
    let mut rib = Rib::new();
    rib.replace_all(derive::routes(&good(GOOD)));
    let fib = rib.commit();
    let to = |addr: &str| *fib.route(addr.parse().unwrap(), 7);
    let (lan, wan) = (IfIndex(1), IfIndex(2));
    let via = |addr: &str| NextHop::Gateway { iface: wan, addr: addr.parse().unwrap() };
    assert_eq!(to("192.0.2.1"), NextHop::Local { iface: lan });
    assert_eq!(to("192.0.2.2"), NextHop::Connected { iface: lan });
    assert_eq!(to("192.0.2.255"), NextHop::Broadcast { iface: lan });
    assert_eq!(to("192.0.2.0"), NextHop::Broadcast { iface: lan });
    assert_eq!(to("10.0.0.0"), NextHop::Connected { iface: IfIndex(3) }, "a /31 has no broadcast address");
    assert_eq!(to("10.0.0.2"), NextHop::Blackhole);
    assert_eq!(to("198.51.100.1"), via("203.0.113.2"));
    assert!([via("203.0.113.2"), via("203.0.113.3")].contains(&to("8.8.8.8")));
    assert_eq!(to("2001:db8:a::"), NextHop::Local { iface: lan }, "the subnet-router anycast address");
    assert_eq!(to("2001:db8:a::7"), NextHop::Connected { iface: lan });
    assert_eq!(to("2001:db8:b::7"), via("fe80::2"));
    let defaults = rib.routes().filter(|s| s.route.to.prefix_len() == 0 && s.route.source == Source::Static);
    assert_eq!(defaults.count(), 2);
}

#[test]
fn every_fault_of_a_file_is_found_in_one_run() {
    let text = "[router]\nname = 7\nworkers = \"many\"\nlocking = \"coarse\"\nclusters = 0x10\ncpu = [0]\n\
                [[interface]]\nname = \"lan0\"\ndriver = \"tun\"\nadress = \"192.0.2.1/24\"\n[extra]\n";
    assert_eq!(
        faults(text),
        [
            "2:8: name cannot be an integer = it is a string",
            "3:11: workers cannot be \"many\" = \"auto\" or a number",
            "4:11: locking cannot be \"coarse\" = \"fine\" or \"giant\"",
            "5:12: clusters cannot be 0x10 = from 256 to 8388608",
            "6:1: [router] has no key cpu = did you mean cpus?",
            "9:10: driver cannot be \"tun\" = \"tap\", \"vlan\", \"ipsec\" or \"link\"",
            "10:1: [[interface]] has no key adress = did you mean address?",
            "11:2: the file has no key extra = known are router, ipsec, icmp, interface and route",
        ]
    );
}

#[test]
fn a_text_that_is_no_toml_is_refused_in_its_place() {
    let faults = faults("[router]\nname = \nspin_us = 3\n");
    assert!(faults[0].starts_with("2:"), "{faults:?}");
}

#[test]
fn addresses_must_be_unicast_unique_and_have_a_length() {
    for (address, fault) in [
        (
            "192.0.2.1",
            "4:11: address cannot be \"192.0.2.1\" = an address and its prefix length: \"192.0.2.1/24\", \"2001:db8::1/64\"",
        ),
        (
            "192.0.2.1/33",
            "4:11: address cannot be \"192.0.2.1/33\" = an address and its prefix length: \"192.0.2.1/24\", \"2001:db8::1/64\"",
        ),
        ("192.0.2.0/24", "4:11: 192.0.2.0 is the subnet's own address = for example 192.0.2.1/24"),
        ("192.0.2.255/24", "4:11: 192.0.2.255 is the subnet's broadcast address = for example 192.0.2.1/24"),
        ("224.0.0.1/24", "4:11: 224.0.0.1 is a group's address = an interface has a unicast address"),
        ("127.0.0.1/8", "4:11: 127.0.0.1 is a loopback address = an interface has a unicast address"),
        ("250.1.1.1/8", "4:11: 250.1.1.1 is a reserved address = an interface has a unicast address"),
        ("2001:db8::/64", "4:11: 2001:db8:: is the subnet's own address = for example 2001:db8::1/64"),
        (
            "::ffff:1.2.3.4/96",
            "4:11: ::ffff:1.2.3.4 is an IPv4 address in disguise = an interface has a unicast address",
        ),
    ] {
        let text = format!("[[interface]]\nname = \"lan0\"\ndriver = \"link\"\naddress = \"{address}\"\n");
        let found = faults(&text);
        assert!(found[0].starts_with(fault.split(" = ").next().unwrap()), "{address}: {found:?}");
        if !address.contains(':') {
            assert_eq!(found, [fault], "{address}");
        }
    }
    let second =
        "[[interface]]\nname = \"wan0\"\ndriver = \"link\"\naddress = [\"192.0.2.1/25\", \"192.0.2.9/24\"]\n";
    assert_eq!(
        faults(&with(second)),
        [
            "8:12: 192.0.2.1 belongs to lan0 already = an address has one interface",
            "8:28: 192.0.2.0/24 is the subnet of lan0 already = each link has a subnet of its own",
        ]
    );
}

#[test]
fn names_and_devices_are_unique_and_well_formed() {
    let second = "[[interface]]\nname = \"lan0\"\ndriver = \"tap\"\ndevice = \"a/b\"\n\
                  [[interface]]\nname = \"enc0\"\ndriver = \"tap\"\n\
                  [[interface]]\nname = \"0x\"\ndriver = \"tap\"\ndevice = \"t0\"\n\
                  [[interface]]\nname = \"b\"\ndriver = \"tap\"\ndevice = \"t0\"\n";
    assert_eq!(
        faults(&with(second)),
        [
            "6:8: there are two interfaces called lan0 = names are unique",
            "8:10: device cannot be \"a/b\" = 1 to 15 octets without '/', ':', '%' and blanks",
            "9:1: interface enc0 has no device = the kernel's name for the other end of the cable: device = \"gwa-lan\"",
            "10:8: enc0 means something else in pf.conf = for example \"lan0\"",
            "13:8: name cannot be \"0x\" = a letter, then at most 14 letters, digits, '-', '_' and '.': \"lan0\"",
            "19:10: device t0 belongs to 0x already = each interface has a device of its own",
        ]
    );
}

#[test]
fn a_vlan_needs_a_device_below_and_a_tag_of_its_own() {
    let vlan =
        |name: &str, keys: &str| format!("[[interface]]\nname = \"{name}\"\ndriver = \"vlan\"\n{keys}\n");
    assert_eq!(
        faults(&with(&vlan("v", "parent = \"lan1\""))),
        [
            "5:1: a VLAN needs a tag = for example tag = 100",
            "8:10: no interface is called \"lan1\" = did you mean lan0?",
        ]
    );
    assert_eq!(
        faults(&with(&vlan("v", "tag = 4095\nparent = \"lan0\"")))[1],
        "8:7: tag cannot be 4095 = from 1 to 4094"
    );
    let (one, two) = (
        vlan("v", "parent = \"lan0\"\ntag = 5"),
        vlan("w", "parent = \"v\"\ntag = 5\nmtu = 1501\nqueues = 2"),
    );
    assert_eq!(
        faults(&with(&(one.clone() + &two))),
        [
            "13:10: v is a VLAN itself = its parent must be a device",
            "15:7: mtu 1501 is more than that of v, 1500 = at most 1500",
            "16:10: a VLAN has no queues of its own = its parent has",
        ]
    );
    let three = vlan("w", "parent = \"lan0\"\ntag = 5");
    assert_eq!(faults(&with(&(one + &three))), ["14:7: tag 5 on lan0 belongs to v already = another tag"]);
}

#[test]
fn an_mtu_fits_the_family_and_the_device() {
    let mtu = |driver: &str, address: &str, mtu: u32| {
        format!(
            "[[interface]]\nname = \"l\"\ndriver = \"{driver}\"\ndevice = \"d\"\naddress = \"{address}\"\nmtu = {mtu}\n"
        )
    };
    assert_eq!(good(&mtu("link", "10.0.0.1/24", 576)).interfaces[0].addrs.len(), 1, "no IPv6 below 1280");
    assert_eq!(faults(&mtu("link", "10.0.0.1/24", 500)), ["6:7: mtu cannot be 500 = from 576 to 65535"]);
    assert_eq!(
        faults(&mtu("link", "2001:db8::1/64", 1279)),
        ["6:7: mtu 1279 is too small for IPv6 = 1280 or more"]
    );
    assert_eq!(
        faults(&mtu("tap", "10.0.0.1/24", 65_535)),
        ["6:7: mtu 65535 is more than a TAP device carries = at most 65521"]
    );
}

#[test]
fn a_gateway_is_on_a_subnet_of_ours() {
    let route = |keys: &str| with(&format!("[[route]]\n{keys}\n"));
    for (keys, fault) in [
        (
            "to = \"10.0.0.0/8\"\nvia = \"198.51.100.1\"",
            "7:7: gateway 198.51.100.1 is on no subnet of ours = subnets: 192.0.2.0/24",
        ),
        (
            "to = \"10.0.0.0/8\"\nvia = \"192.0.2.1\"",
            "7:7: 192.0.2.1 is our own address, on lan0 = the address of another router",
        ),
        (
            "to = \"10.0.0.0/8\"\nvia = \"gw\"",
            "7:7: via cannot be \"gw\" = a gateway's address (\"203.0.113.2\") or a list of them",
        ),
        (
            "to = \"10.0.0.1/8\"\nvia = \"192.0.2.9\"",
            "6:6: 10.0.0.1/8 has bits beyond its prefix length = 10.0.0.0/8 or 10.0.0.1/32",
        ),
        ("to = \"10.0.0.0/8\"\ndev = \"lan\"", "7:7: no interface is called \"lan\" = did you mean lan0?"),
        (
            "to = \"10.0.0.0/8\"",
            "5:1: the route leads nowhere = via = \"203.0.113.2\", dev = \"wan0\" or type = \"reject\"",
        ),
        (
            "to = \"10.0.0.0/8\"\ntype = \"reject\"\ndev = \"lan0\"",
            "7:8: a route that leads nowhere has no via or dev = leave them away, or type",
        ),
        (
            "to = \"::/0\"\nvia = \"192.0.2.9\"",
            "7:7: 192.0.2.9 is of another family than ::/0 = one line for each family",
        ),
        (
            "to = \"::/0\"\nvia = \"fe80::9\"",
            "7:7: fe80::9 is a link-local address = say on which link: dev = \"wan0\"",
        ),
        (
            "to = \"192.0.2.0/24\"\nvia = \"192.0.2.9\"",
            "6:6: 192.0.2.0/24 is connected on lan0 already = the address of an interface brings its subnet's route",
        ),
        (
            "to = \"224.0.0.0/4\"\nvia = \"192.0.2.9\"",
            "6:6: 224.0.0.0/4 is not routed = groups and link-local addresses stay on their link",
        ),
        (
            "to = \"nowhere\"\nvia = \"192.0.2.9\"",
            "6:6: to cannot be \"nowhere\" = a prefix (\"198.51.100.0/24\"), an address, or \"default\"",
        ),
        ("via = \"192.0.2.9\"", "5:1: [[route]] has no to = for example to = \"198.51.100.0/24\""),
        (
            "to = \"10.0.0.0/8\"\nvia = [\"192.0.2.9\", \"192.0.2.9\"]",
            "7:21: gateway 192.0.2.9 is named twice = each path once",
        ),
    ] {
        assert_eq!(faults(&route(keys)), [fault], "{keys}");
    }
    let twice =
        route("to = \"10.0.0.0/8\"\nvia = \"192.0.2.9\"\n[[route]]\nto = \"10.0.0.0/8\"\ndev = \"lan0\"");
    assert_eq!(
        faults(&twice),
        [
            "9:6: there are two routes to 10.0.0.0/8 = the first is in line 5; for several paths: via = [\"a\", \"b\"]"
        ]
    );
}

#[test]
fn a_default_route_takes_the_family_of_its_gateway() {
    let nets = |keys: &str| {
        let conf = good(&with(&format!("[[route]]\nto = \"default\"\n{keys}\n")));
        conf.routes.iter().map(|r| r.to.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(nets("via = \"192.0.2.9\""), ["0.0.0.0/0"]);
    assert_eq!(nets("via = \"fe80::9\"\ndev = \"lan0\""), ["::/0"]);
    assert_eq!(nets("type = \"reject\""), ["0.0.0.0/0", "::/0"]);
}

#[test]
fn processors_exist_and_files_can_be_read() {
    assert_eq!(
        faults("[router]\ncpus = [0, 7, 0]\npf = \"nowhere/pf.conf\"\nipsec = \"/\"\n"),
        [
            "2:12: there is no processor 7 here = there are 0 and 1",
            "2:15: processor 0 is named twice = one worker a processor",
            "3:6: pf: nowhere/pf.conf: no such file or directory = paths are relative to this file",
            "4:9: ipsec: / is no file = paths are relative to this file",
        ]
    );
    assert_eq!(good("[router]\nworkers = 3\n").warnings.len(), 1);
    assert_eq!(good("").workers, 2);
}

#[test]
fn a_socket_path_and_the_buffers_have_limits() {
    let text = with(&format!("[router]\njumbos = 8\nworkers = 5\ncontrol = \"/{}\"\n", "x".repeat(120)));
    assert_eq!(
        faults(&text),
        [
            "6:10: 8 jumbos are too few for 5 device queues = each queue holds one: 20 or more",
            "7:11: 5 workers for 2 processors = workers that share a processor wait for each other's locks",
            "8:11: control is 121 octets long = at most 107 for a socket",
        ]
    );
}

#[test]
fn keys_that_need_a_restart_are_named() {
    let old = good(GOOD);
    let change = |from: &str, to: &str| restart_needed(&old, &good(&GOOD.replace(from, to)));
    assert!(restart_needed(&old, &old).is_empty());
    assert!(change("198.51.100.0/24", "198.51.0.0/16").is_empty());
    assert!(change("192.0.2.1/24", "192.0.2.7/24").is_empty());
    assert!(change("mtu = 9000", "mtu = 1500").is_empty());
    assert_eq!(change("gwa-wan", "gwb-wan"), ["device of wan0"]);
    assert_eq!(change("tag = 100", "tag = 101"), ["parent or tag of guest"]);
    assert_eq!(
        change("\"guest\"", "\"guests\""),
        ["the list of interfaces (but for tunnels behind all others)"]
    );
    let both =
        change("workers = 2\ncpus = [0, 1]", "workers = 1\ncpus = [0]\nlocking = \"giant\"\nclusters = 512");
    assert_eq!(
        both,
        [
            "router.workers",
            "router.cpus",
            "router.locking",
            "router.clusters",
            "queues of lan0",
            "queues of wan0",
            "queues of guest"
        ]
    );
    assert_eq!(
        sentence(&["router.workers".into(), "router.cpus".into()]),
        "a change of router.workers and router.cpus needs a restart; nothing was changed"
    );
}

#[test]
fn a_complaint_reads_like_a_compilers() {
    let invalid =
        from_text(Path::new("configs/x/softnet.toml"), "[router]\nspin_us = -1\n", &host()).unwrap_err();
    assert_eq!(
        invalid.to_string(),
        "configs/x/softnet.toml:2:11: spin_us cannot be -1\n   2 | spin_us = -1\n     |           ^^\n     = from 0 to 1000000"
    );
    let gone = load(Path::new("/nowhere/softnet.toml")).unwrap_err();
    assert_eq!(gone.to_string(), "/nowhere/softnet.toml: no such file or directory");
}

#[test]
fn random_texts_never_panic() {
    use proptest::prelude::*;
    let words = [
        "[router]\n",
        "[[interface]]\n",
        "[[route]]\n",
        "name",
        "=",
        "\"lan0\"",
        "\n",
        "address",
        "[",
        "]",
        "via",
        "to",
        "\"default\"",
        "7",
        "ü",
        "\"192.0.2.1/24\"",
        "driver",
        "\"vlan\"",
        "parent",
        "tag",
        "{",
        "}",
        ",",
        "-",
    ];
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }, |(picks in prop::collection::vec(0..words.len(), 0..60))| {
        let text = picks.iter().map(|&i| words[i]).collect::<Vec<_>>().join(" ");
        if let Err(invalid) = from_text(Path::new("t.toml"), &text, &host()) {
            prop_assert!(!invalid.to_string().is_empty());
        }
    });
}
