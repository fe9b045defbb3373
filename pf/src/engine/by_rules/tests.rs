//! Workers that meet at one flow, each with a packet of it that had no state when it was looked for.

use std::{net::Ipv4Addr, sync::Arc};

use kern::{lock::Root, testing::Fixture, time::Instant};
use wire::{build, parse};

use crate::{
    Direction, Environment, IfIndex, Names, Pf, PfCx, Ruleset, Verdict, Worker, arbitrary, conf, engine::Seen,
};

const AT: (Direction, IfIndex) = (Direction::Out, IfIndex(1));

/// The context of a worker, for as long as `f` takes.
fn with<R>(pf: &Pf, rules: &Ruleset, worker: &mut Worker, f: impl FnOnce(&mut PfCx<'_>) -> R) -> R {
    let mut root = Root::claim();
    let mut top = root.top();
    f(&mut PfCx::new(pf, rules, worker, top.at(), Instant::from_secs(1000)))
}

/// A translation that has one source for a sender, and that one taken: by the state that the other worker has made.
#[test]
fn a_packet_whose_only_source_is_that_of_its_own_flow_goes_with_the_state_of_the_faster_worker() {
    for text in [
        "binat inet from 192.0.2.9 to any -> 203.0.113.1\n",
        "nat inet to any -> 203.0.113.1 static-port\n",
        "nat inet to any -> 203.0.113.1 port 2000\n",
        "nat inet to any -> 203.0.113.1 endpoint-independent\n",
        "match out inet nat-to 203.0.113.1 endpoint-independent\n",
        "pass out inet nat-to 203.0.113.1 static-port\n",
    ] {
        let read = conf::load_text("pf.conf", text, &Environment::default(), &[]).unwrap();
        let read = conf::PfConf { options: arbitrary::conf().options, ..read };
        let pf = Pf::new(2, 16);
        let rules = pf.compile(&Arc::new(read), &Environment::default(), &mut Names::new()).unwrap();
        pf.enforce(&mut Root::claim().top().at(), &rules);
        let (fixture, mut workers) = (Fixture::new(8), [pf.worker(0), pf.worker(1)]);
        let (from, to) = (Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::new(198, 51, 100, 1));
        let mut packets = [0, 1].map(|_| fixture.packet(&build::udp4(from, to, 4000, 53, b"question")));
        for m in &mut packets {
            m.hdr_mut().family = 4;
        }
        let [first, second] = &mut packets;
        let mut seen = Seen::NOTHING;
        with(&pf, &rules, &mut workers[1], |cx| cx.look(AT.0, second, &mut seen));
        let verdict = with(&pf, &rules, &mut workers[0], |cx| cx.test(AT.0, AT.1, first));
        assert!(matches!(verdict, Verdict::Pass(_)), "{text}");
        let verdict = with(&pf, &rules, &mut workers[1], |cx| cx.by_rules(AT.0, AT.1, second, &seen));
        assert!(matches!(verdict, Verdict::Pass(_)), "{text}: {verdict:?}");
        let sources = packets.map(|m| {
            let p = parse::parse_ip(m.data()).unwrap();
            let source = (p.flow(m.data()).src(), p.src_port);
            fixture.done(m);
            source
        });
        assert_eq!(sources[0], sources[1], "{text}");
        let mut root = Root::claim();
        let mut top = root.top();
        let mappings = pf.mappings(&mut top.at());
        assert!(mappings.iter().all(|mapping| mapping.states == 1), "{text}: {mappings:?}");
        assert_eq!(pf.kill_states(&mut top.at(), |_| true), 1, "{text}");
        assert_eq!(pf.mappings(&mut top.at()), [], "{text}");
    }
}
