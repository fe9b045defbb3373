//! `pfctl -s info`, to the letter.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{CLIENT, Conversation, IN, LAN, OUT, SERVER, World};
use kern::{counter::Counter, lock::Root};
use pf::show;
use wire::build;

/// What has been counted is in it, what cannot happen here is 0, in FreeBSD's order. Of the eight packets, two come while
/// there are no states, and nothing is searched for them.
const TEXT: &str = "\
Status: Enabled for 1 days 01:01:05           Debug: Urgent

State Table                          Total             Rate
  current entries                        2              \x20
  searches                               6            0.0/s
  inserts                                3            0.0/s
  removals                               1            0.0/s
Counters
  match                                  6            0.0/s
  bad-offset                             0            0.0/s
  fragment                               0            0.0/s
  short                                  0            0.0/s
  normalize                              0            0.0/s
  memory                                 0            0.0/s
  bad-timestamp                          0            0.0/s
  congestion                             0            0.0/s
  ip-option                              0            0.0/s
  proto-cksum                            0            0.0/s
  state-mismatch                         1            0.0/s
  state-insert                           0            0.0/s
  state-limit                            1            0.0/s
  src-limit                              1            0.0/s
  synproxy                               0            0.0/s
  map-failed                             0            0.0/s
  no-route                               0            0.0/s
  endpoint-limit                         0            0.0/s
";

#[test]
fn the_block_has_pfs_counters_in_pfs_order() {
    let w = busy();
    assert_eq!(info(&w, 0), TEXT);
}

#[test]
fn verbosely_it_has_what_limits_and_source_nodes_have_counted_too() {
    let w = busy();
    let (head, rest) = TEXT.split_once("State Table").unwrap();
    let (table, counters) = rest.split_once("Counters\n").unwrap();
    let checksum = w.ruleset.checksum();
    assert_ne!(checksum, 0);
    let host_id = w.pf.states().creator();
    let wanted = format!(
        "{head}Hostid:   0x{host_id:08x}\nChecksum: 0x{checksum:032x}\n\nState Table{table}\
Source Tracking Table
  current entries                        1              \x20
  searches                               2            0.0/s
  inserts                                1            0.0/s
  removals                               0            0.0/s
Counters
{counters}\
Limit Counters
  max states per rule                    1            0.0/s
  max-src-states                         1            0.0/s
  max-src-nodes                          0            0.0/s
  max-src-conn                           0            0.0/s
  max-src-conn-rate                      0            0.0/s
  overload table insertion               0            0.0/s
  overload flush states                  0            0.0/s
  synfloods detected                     0            0.0/s
  syncookies sent                        0            0.0/s
  syncookies validated                   0            0.0/s
Syncookies
  mode                      never
  active                    inactive
Reassemble                      yes no-df
"
    );
    assert_eq!(info(&w, 1), wanted);
    assert_eq!(info(&w, 2), wanted, "marks of high and low water are of `adaptive` alone");
}

/// A pf that has passed, blocked and refused.
fn busy() -> World {
    let mut w = World::new(
        "set reassemble yes no-df\nset timeout src.track 60\nblock in on lan0\n\
         pass in on lan0 proto udp to port 1 keep state (max 1)\n\
         pass in on lan0 proto udp to port 2 keep state (max-src-states 1)\n\
         pass in on lan0 proto tcp to port 80\n",
    );
    let udp = |from, to| build::udp4(CLIENT, SERVER, from, to, b"question");
    assert!(!w.passes(IN, LAN, &udp(4000, 9)));
    for limited in [1, 2] {
        assert!(w.passes(IN, LAN, &udp(4000, limited)) && !w.passes(IN, LAN, &udp(4001, limited)));
    }
    let web = Conversation::WEB;
    assert!(w.passes(IN, LAN, &web.up("S", 1000, 0, 65_000, 0)));
    assert!(w.passes(OUT, LAN, &web.down("SA", 5000, 1001, 65_000, 0)));
    assert!(!w.passes(IN, LAN, &web.up("PA", 500_000, 5001, 65_000, 500)));
    assert_eq!(w.kill(|state| state.proto == 6), 1);
    w
}

fn info(w: &World, verbose: u8) -> String {
    show::info(&w.pf, Some(&w.ruleset), Some(90_065)).text(verbose)
}

#[test]
fn what_overloads_is_counted_and_begins_at_0_when_it_is_cleared() {
    let mut w = World::new(
        "table <bad> persist\nblock in\npass proto tcp to port 80 keep state \
         (max-src-conn 1, max-src-conn-rate 1/60, overload <bad> flush)\n",
    );
    for port in [4000, 4001] {
        let web = Conversation { client_port: port, ..Conversation::WEB };
        assert!(w.passes(IN, LAN, &web.up("S", 1000, 0, 65_000, 0)));
        assert!(w.passes(OUT, LAN, &web.down("SA", 5000, 1001, 65_000, 0)));
        assert_eq!(w.passes(IN, LAN, &web.up("A", 1001, 5001, 1000, 0)), port == 4000);
    }
    let settled = w.pf.settle(&mut Root::claim().top().at(), 1);
    assert_eq!((settled.sources.len(), settled.errors), (1, vec![]));
    let limits = |w: &World| {
        let c = w.pf.counters_since_cleared();
        [&c.max_src_conn, &c.max_src_conn_rate, &c.overload_table, &c.overload_flush].map(Counter::get)
    };
    assert_eq!(limits(&w), [1; 4]);
    w.pf.clear_counters();
    assert_eq!(limits(&w), [0; 4]);
    w.kill(|_| true);
    let c = w.pf.counters();
    assert_eq!((c.src_inserts.get(), c.src_removals.get()), (1, 1), "a node goes with its last state");
}

#[test]
fn the_checksum_tells_rules_apart_and_not_how_they_are_written() {
    let sum = |rules: &str| World::new(rules).ruleset.checksum();
    let first = sum("pass in on lan0 proto udp\nblock out\n");
    assert_eq!(sum("# the same\npass in   on lan0 proto udp\n\nblock out\n"), first);
    for other in [
        "pass in on lan0 proto udp\n",
        "block out\npass in on lan0 proto udp\n",
        "nat on wan0 -> 203.0.113.1\n",
    ] {
        assert_ne!(sum(other), first, "{other}");
        assert_ne!(sum(other), 0, "{other}");
    }
    assert_eq!(sum("scrub in\n"), 0, "rules that scrub do not count");
}
