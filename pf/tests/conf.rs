//! The language: what is read, what it expands to, and what is refused, where and with which words.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::fs;

use pf::{Environment, PfConf, conf::ConfError, print};

fn load(text: &str) -> Result<PfConf, Vec<ConfError>> {
    pf::conf::load_text("pf.conf", text, &common::router(), &[])
}

fn rules(text: &str) -> Vec<String> {
    let conf = load(text)
        .unwrap_or_else(|e| panic!("{}", e.iter().map(ConfError::with_caret).collect::<Vec<_>>().join("\n")));
    conf.rules.filter.iter().map(|r| print::rule(r, &common::router())).collect()
}

fn errors(text: &str) -> Vec<String> {
    load(text).expect_err("a rejected file").iter().map(ToString::to_string).collect()
}

/// Each line is a file of its own; the error must begin like this.
const REJECTED: &[(&str, &str)] = &[
    ("pas in all", "1:1: syntax error: unknown statement `pas`"),
    ("pass in on", "1:11: syntax error: expected the name of an interface, found the end of the line"),
    ("pass in all quick", "1:13: syntax error: `quick` is out of place"),
    ("block drop in proto foo", "1:21: unknown protocol `foo`"),
    ("block in proto { tcp, bar }", "1:23: unknown protocol `bar`"),
    ("pass proto tcp from any port 70000 to any", "1:30: port 70000 is out of range"),
    ("pass proto tcp to any port nosuch", "1:28: unknown port `nosuch`"),
    ("pass proto tcp from any port 500:100", "1:30: invalid port range"),
    ("pass proto tcp from any port 5 >< 2", "1:30: invalid port range"),
    ("pass proto tcp from any port = 1:2", "1:30: `=` and a range of ports do not go together"),
    ("pass from any port 22 to any", "1:20: port only applies to tcp/udp/sctp"),
    ("pass from 10.0.0.0/33 to any", "1:20: prefix length 33 is more than 32"),
    ("pass from 192.168 to any", "1:11: `192.168` is no address"),
    ("pass from nowhere.example to any", "1:11: `nowhere.example` is no address"),
    ("pass from enc0 to any", "1:11: no address found for `enc0`"),
    ("pass from lan0:netmask", "1:11: unknown interface modifier `:netmask`"),
    ("pass from { } to any", "1:11: empty list"),
    ("pass from { 10.0.0.1, { 10.0.0.2 } }", "1:23: a list within a list"),
    ("pass from 10.0.0.9 - 10.0.0.1", "1:11: address range"),
    ("pass from 10.0.0.1 to 2001:db8::1", "1:1: rule expands to no valid combination"),
    ("pass inet6 from 10.0.0.1", "1:1: rule expands to no valid combination"),
    ("pass inet6 proto icmp", "1:18: proto icmp doesn't match address family inet6"),
    ("pass inet icmp-type echoreq", "1:21: icmp-type only applies to proto icmp"),
    ("pass proto icmp icmp-type echoreq", "1:27: must indicate address family with icmp-type"),
    ("pass inet proto icmp icmp-type 300", "1:32: unknown icmp-type `300`"),
    ("pass inet proto icmp icmp-type unreach code nope", "1:45: unknown icmp code `nope`"),
    ("block return-rst in proto udp", "1:1: return-rst can only be applied to TCP rules"),
    ("block return-icmp(bogus) in", "1:19: unknown icmp code `bogus`"),
    ("block in keep state", "1:10: keep state is great, but only for pass rules"),
    ("block in allow-opts", "1:10: allow-opts can only be specified for pass rules"),
    ("pass fragment proto tcp port 1", "1:15: syntax error: `proto` is out of place"),
    ("pass proto tcp to port 1 fragment", "1:26: fragments can be filtered only on IP header fields"),
    ("pass proto tcp flags S/XY", "1:24: unknown TCP flag `X`"),
    ("pass proto tcp flags S/A", "1:16: flags are wanted that are not looked at"),
    ("pass tos 0", "1:10: illegal tos value `0`"),
    ("pass keep state (max 0)", "1:22: `max` must be above 0"),
    ("pass queue q", "1:1: queue `q` is not defined"),
    ("pass label $nope", "1:12: macro `nope` is not defined"),
    ("name = { a b }", "1:8: syntax error: expected a value, found `{`"),
    ("pass from { 10.0.0.1", "1:11: `{` is never closed"),
    ("pass label \"abc", "1:12: `\"` is never closed"),
    ("set limit states 0", "1:18: a limit of 0 states"),
    ("set timeout tcp.fist 3", "1:13: unknown timeout `tcp.fist`"),
    ("set skip on ! lan0", "1:13: skip on ! <interface> is not supported"),
    ("set block-policy maybe", "1:18: unknown value `maybe`"),
    ("set bogus 1", "1:5: syntax error: unknown option `set bogus`"),
    ("set syncookies adaptive (start 5%, end 9%)", "1:16: start must be higher than end"),
    ("anchor", "1:1: anchor without a name needs rules"),
    (
        "match in inet6 to 64:ff9b::/96 af-to inet from 192.0.2.1",
        "1:32: af-to is not supported on match rules",
    ),
    ("anchor x in once", "1:13: 'once' only applies to pass/block rules"),
    ("pass from any to urpf-failed", "1:18: \"urpf-failed\" is not permitted in a destination address"),
    (
        "pass out on wan0 inet proto { tcp sctp } nat-to 203.0.113.1 port 2000:3000",
        "1:66: `port of sctp` is not supported: SCTP keeps its ports",
    ),
    ("rdr on wan0 inet proto sctp to 203.0.113.1 port 5 -> 192.0.2.9 port 7", "1:69: `port of sctp`"),
    ("rdr on wan0 inet proto sctp to 203.0.113.1 -> 192.0.2.9 port 7", "1:62: `port of sctp`"),
    ("nat on wan0 inet proto sctp -> 203.0.113.1 map-e-portset 6/8/52", "1:44: `port of sctp`"),
    (
        "binat on wan0 inet from 192.0.2.2 to no-route -> 203.0.113.9",
        "1:38: binat rules do not ask for routes",
    ),
    ("table <t> file \"no/such/file\"", "1:16: `no/such/file` cannot be read"),
    ("table <t> { 1.2.3.4 }\ntable <t> { 1.2.3.4 }", "2:8: table <t> is defined twice"),
    ("include \"no/such/file\"", "1:9: `no/such/file` cannot be read"),
    ("altq on wan0 wfq queue { a }", "1:14: unknown scheduler `wfq`"),
    ("altq on wan0 priq", "1:18: syntax error: expected `queue` and the names"),
    ("altq on wan0 priq queue { a }", "1:1: queue `a` on wan0 is not defined"),
    ("altq on wan0 priq queue { a }\nqueue a", "1:1: wan0 has 0 default queues"),
    ("queue a priq(default)", "1:1: queue `a` has no parent"),
    ("altq on wan0 cbq queue { a }\nqueue a priority 9 cbq(default)", "2:1: priority out of range: max 7"),
    (
        "altq on wan0 priq queue { a b }\nqueue a priq(default)\nqueue b",
        "3:1: two queues of wan0 have priority 1",
    ),
    ("altq on wan0 priq bandwidth 10furlongs queue { a }", "1:29: invalid bandwidth `10furlongs`"),
];

#[test]
fn options_are_merged_into_those_there_are() {
    use pf::conf::{Limit, Reading};
    let env = common::router();
    let read = |text: &str, options| {
        let reading =
            Reading { env: &env, defines: &[], anchor: "", fingerprints: None, options, engines: true };
        reading.text("pf.conf", text).unwrap().options
    };
    let first = read(
        "set limit { states 1000, tables 7 }\nset timeout adaptive.start 900\nset block-policy return\n",
        None,
    );
    let merged = read("set limit tables 9\n", Some(&first));
    assert_eq!(merged.limits.get(Limit::Tables), 9);
    assert_eq!(
        (merged.limit_states, &merged.timeouts, merged.block_policy),
        (1000, &first.timeouts, first.block_policy)
    );
    let more = read("set limit states 2000\n", Some(&merged));
    let adaptive = |o: &pf::conf::Options| o.timeouts.get(pf::timeout::Timeout::AdaptiveEnd);
    assert_eq!((adaptive(&more), more.limits.get(Limit::Tables)), (2400, 9), "a limit derives them anew");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, wanted) in REJECTED {
        let errors = errors(text);
        let found = errors.iter().any(|e| e.strip_prefix("pf.conf:").is_some_and(|e| e.starts_with(wanted)));
        assert!(found, "{text:?}\n wanted {wanted}\n said {errors:?}");
    }
}

/// What is read and printed, except for the last, and refused when it is loaded: a line that uses it, where, and the keyword.
const WITHOUT_ENGINE: &[(&str, &str, &str)] = &[
    ("pass proto tcp user root", "1:16", "user"),
    ("pass out proto { tcp udp } to port 80 group { 0 wheel }", "1:39", "group"),
    ("pass in inet proto tcp divert-to 127.0.0.1 port 8000", "1:24", "divert-to"),
    ("pass in divert-reply", "1:9", "divert-reply"),
    ("pass out divert-packet port 700", "1:10", "divert-packet"),
    ("pass in dnpipe 1", "1:9", "dnpipe"),
    ("match out dnqueue (1, 2)", "1:11", "dnqueue"),
    ("ether pass dnpipe 3", "1:12", "dnpipe"),
    ("ether block out dnqueue 3", "1:17", "dnqueue"),
    ("pass in rtable 1", "1:9", "rtable"),
    ("pass keep state (pflow)", "1:18", "pflow"),
    ("ether pass in on lan0 bridge-to wan0", "1:23", "bridge-to"),
    ("ether pass l3 from no-route", "1:20", "l3 no-route"),
    ("ether pass l3 from urpf-failed", "1:20", "l3 urpf-failed"),
    ("pass on rdomain 3", "1:9", "rdomain"),
];

#[test]
fn what_has_no_engine_is_refused_with_its_place_and_keyword() {
    for (line, place, keyword) in WITHOUT_ENGINE {
        let parsed = pf::conf::parse_text("pf.conf", line, &common::router(), &[]);
        assert_eq!(parsed.is_ok(), *keyword != "rdomain", "{line}: {parsed:?}");
        let errors = errors(line);
        let wanted = format!("pf.conf:{place}: `{keyword}` is not supported: ");
        assert!(
            matches!(&errors[..], [one] if one.starts_with(&wanted)),
            "{line}\n wanted {wanted}\n said {errors:?}"
        );
    }
}

#[test]
fn the_readme_lists_what_is_refused() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, list) = readme.split_once("refused on load by keyword: ").unwrap();
    let (list, _) = list.split_once(" |").unwrap();
    let mut listed: Vec<&str> = list.split(", ").map(|word| word.trim_matches('`')).collect();
    let mut refused: Vec<&str> = WITHOUT_ENGINE.iter().map(|&(_, _, keyword)| keyword).collect();
    listed.sort_unstable();
    refused.sort_unstable();
    refused.dedup();
    assert_eq!(listed, refused);
}

#[test]
fn every_error_of_a_file_is_reported_and_none_twice() {
    let text = "ext = \"wan0\"\npass in on $ext proto tcp to port 70000\nblock in on $int\npass all\nset bogus 1\npass proto tcp user root\npass in from { 1.2.3.4\n";
    let places: Vec<String> =
        errors(text).iter().map(|e| e.splitn(4, ':').take(3).collect::<Vec<_>>().join(":")).collect();
    assert_eq!(places, ["pf.conf:2:35", "pf.conf:3:13", "pf.conf:5:5", "pf.conf:6:16", "pf.conf:7:14"]);
}

#[test]
fn an_error_shows_its_line_with_a_caret() {
    let errors = load("pass in all\n\tblock in proto foo\n").expect_err("a rejected file");
    assert_eq!(
        errors[0].with_caret(),
        "pf.conf:2:17: unknown protocol `foo`; a number from 1 to 255, or a name as tcp, udp, icmp, ipv6-icmp, esp\n  \tblock in proto foo\n  \t               ^"
    );
}

#[test]
fn lists_expand_in_pfctls_order_and_leave_out_what_has_two_families() {
    assert_eq!(
        rules("pass in on { lan0 wan0 } proto { tcp udp } from { 10.0.0.1 10.0.0.2 } port { 1 5000 } to { 10.0.0.3 2001:db8::9 }\n")
            .iter()
            .map(|r| r.replace(" flags S/SA", "").replace(" keep state", ""))
            .collect::<Vec<_>>()[..5],
        [
            "pass in on lan0 inet proto tcp from 10.0.0.1 port = tcpmux to 10.0.0.3",
            "pass in on lan0 inet proto tcp from 10.0.0.1 port = 5000 to 10.0.0.3",
            "pass in on lan0 inet proto tcp from 10.0.0.2 port = tcpmux to 10.0.0.3",
            "pass in on lan0 inet proto tcp from 10.0.0.2 port = 5000 to 10.0.0.3",
            "pass in on lan0 inet proto udp from 10.0.0.1 port = tcpmux to 10.0.0.3",
        ]
    );
}

#[test]
fn interfaces_stand_for_their_addresses_now_or_later() {
    assert_eq!(
        rules("block in from ! lan0:network to (wan0)\nblock in from (lan0:network) to self\n"),
        [
            "block drop in inet from ! 192.0.2.0/24 to (wan0)",
            "block drop in inet6 from ! 2001:db8:a::/64 to (wan0)",
            "block drop in inet from (lan0:network) to 192.0.2.1",
            "block drop in inet6 from (lan0:network) to 2001:db8:a::1",
            "block drop in inet from (lan0:network) to 203.0.113.1",
            "block drop in inet6 from (lan0:network) to 2001:db8:b::1",
        ]
    );
}

#[test]
fn defaults_and_policies_are_filled_in() {
    assert_eq!(
        rules(
            "set block-policy return\nset state-policy if-bound\nblock\npass\npass keep state (floating)\nblock drop in\n"
        ),
        [
            "block return all",
            "pass all flags S/SA keep state (if-bound)",
            "pass all flags S/SA keep state",
            "block drop in all",
        ]
    );
    assert_eq!(
        rules("set state-defaults no-sync\npass proto udp keep state (max 10)\n"),
        ["pass proto udp all keep state (max 10, no-sync, adaptive.start 6, adaptive.end 12)"]
    );
}

#[test]
fn labels_and_tags_have_macros_and_queues_two_names() {
    assert_eq!(
        rules(
            "altq on wan0 priq bandwidth 1Mb queue { a b }\nqueue a priq(default)\nqueue b priority 3\n\
             pass out on wan0 proto tcp to port { 22 80 } label \"$if:$dstport\" tag \"t$nr\" queue (a b) tagged x\n"
        ),
        [
            "pass out on wan0 proto tcp from any to any port = ssh flags S/SA keep state label \"wan0:22\" queue(a, b) tag t0 tagged x",
            "pass out on wan0 proto tcp from any to any port = http flags S/SA keep state label \"wan0:80\" queue(a, b) tag t1 tagged x",
        ]
    );
}

#[test]
fn options_of_the_file_are_kept_and_printed() {
    let conf = load("set optimization aggressive\nset timeout tcp.closed 7\nset limit states 1000\nset skip on { enc0 lan0 }\nset require-order no\n").unwrap();
    let o = &conf.options;
    use pf::timeout::Timeout;
    let timeouts = [Timeout::TcpFirst, Timeout::TcpClosed, Timeout::AdaptiveStart, Timeout::AdaptiveEnd];
    assert_eq!(timeouts.map(|t| o.timeouts.get(t)), [30, 7, 600, 1200]);
    assert_eq!((o.limit_states, o.skip.clone()), (1000, vec!["enc0".to_owned(), "lan0".to_owned()]));
    assert_eq!(
        print::conf(&conf, &Environment::default()),
        "set optimization aggressive\nset timeout tcp.closed 7\nset limit states 1000\nset skip on { enc0 lan0 }\nset require-order no\n"
    );
}

#[test]
fn altq_and_queue_lines_become_specs_for_any_scheduler() {
    use pf::conf::{Bandwidth, Scheduler};
    let conf = load(
        "altq on wan0 hfsc(upperlimit 9Mb) bandwidth 10Mb queue { a, b }\n\
         queue a bandwidth 40% hfsc(default realtime (1Mb 10 100Kb) ecn)\n\
         queue b qlimit 200 hfsc(linkshare 2Mb) { c }\nqueue c\n\
         altq on lan0 priq bandwidth 1.5Mb tbrsize 3000 queue { hi lo }\nqueue hi priority 15\nqueue lo priq(default codel)\n",
    )
    .unwrap();
    let hfsc = &conf.altqs[0];
    assert_eq!((hfsc.scheduler, hfsc.rate(), hfsc.bucket()), (Scheduler::Hfsc, Some(10_000_000), 6000));
    let a = &conf.queues[0];
    assert_eq!(a.bandwidth, Some(Bandwidth::Percent(40)));
    assert!(a.options.default && a.options.red && a.options.ecn);
    assert_eq!(a.options.realtime.and_then(|c| c.first), Some((Bandwidth::Bits(1_000_000), 10)));
    assert_eq!(conf.queues[1].children, ["c"]);
    assert_eq!((conf.altqs[1].rate(), conf.altqs[1].bucket()), (Some(1_500_000), 3000));
    assert_eq!(conf.queues[3].priority, Some(15));
    assert_eq!(pf::show::queues(&conf)[1], "altq on lan0 priq bandwidth 1.50Mb tbrsize 3000 queue { hi lo }");
}

#[test]
fn included_files_are_named_in_their_errors_and_the_command_line_wins_over_macros() {
    let dir = std::env::temp_dir().join(format!("softnet-pf-include-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("pf.conf"), "x = \"1.2.3.4\"\ninclude \"more.conf\"\nblock from $x\n").unwrap();
    fs::write(dir.join("more.conf"), "block in\nblock out prot tcp\n").unwrap();
    let wrong =
        pf::conf::load_file(&dir.join("pf.conf"), &common::router(), &[]).expect_err("a rejected file");
    assert!(wrong[0].to_string().contains("more.conf:2:11: syntax error"), "{wrong:?}");
    fs::write(dir.join("more.conf"), "include \"pf.conf\"\n").unwrap();
    let wrong = pf::conf::load_file(&dir.join("pf.conf"), &common::router(), &[]).expect_err("a loop");
    assert!(wrong[0].message.contains("deep"), "{wrong:?}");
    fs::remove_dir_all(&dir).unwrap();

    let defines = [("x".to_owned(), "9.9.9.9".to_owned())];
    let conf =
        pf::conf::load_text("pf.conf", "x = 1.1.1.1\nblock from $x\n", &common::router(), &defines).unwrap();
    assert_eq!(print::rule(&conf.rules.filter[0], &common::router()), "block drop inet from 9.9.9.9 to any");
}

#[test]
fn antispoof_and_log_are_accepted() {
    assert_eq!(
        rules("antispoof quick for wan0 inet\n"),
        [
            "block drop in quick on ! wan0 inet from 203.0.113.0/24 to any",
            "block drop in quick inet from 203.0.113.1 to any",
        ]
    );
    let conf = load("pass in log (all, to pflog1) on lan0\n").unwrap();
    assert!(conf.warnings.is_empty());
    assert_eq!(
        print::rule(&conf.rules.filter[0], &common::router()),
        "pass in log (all, to pflog1) on lan0 all flags S/SA keep state"
    );
}

#[test]
fn a_string_with_quotes_is_printed_as_it_is_read() {
    let env = common::router();
    for (text, wanted) in [
        ("anchor a\"", "anchor \"a\\\"\" all"),
        ("anchor 'a\"b' on lan0", "anchor \"a\\\"b\" on lan0 all"),
        ("pass no state label 'a\"b'", "pass all no state label \"a\\\"b\""),
        // A backslash before a blank would take its meaning.
        ("pass no state label 'a\\\\ b'", "pass all no state label \"a\\\\ b\""),
        ("pass no state label 'a\\b'", "pass all no state label \"a\\b\""),
        ("source limiter ' ' id 2 entries 5 limit 1", "source limiter \" \" id 2 entries 5 limit 1"),
        ("set fingerprints 'a\"b'", "set fingerprints \"a\\\"b\""),
        (
            "pass proto tcp from any os 'a\"b' no state",
            "pass proto tcp from any os \"a\\\"b\" to any no state",
        ),
    ] {
        let read = |text: &str| {
            let conf = pf::conf::parse_text("pf.conf", text, &env, &[]);
            print::conf(&conf.unwrap_or_else(|e| panic!("{}", e[0].with_caret())), &env)
        };
        let printed = read(&format!("{text}\n"));
        assert!(printed.lines().any(|line| line == wanted), "{text}: {printed}");
        assert_eq!(read(&printed), printed, "{text}");
    }
}
