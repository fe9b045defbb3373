//! Nanoseconds per packet of `PfCx::test_batch`: pass-all, state hits among few and many states, rules.
//!
//! `cargo bench -p pf --bench test`. Batches of 256; the least and the median of the rounds.
#![allow(missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::{fmt::Write, net::Ipv4Addr, sync::Arc, time::Instant as Clock};

use common::{LAN, SERVER, router};
use kern::{
    Batch,
    lock::{Root, levels::PfRules},
    mbuf::BATCH,
    testing::Fixture,
    time::Instant,
};
use pf::{Direction, Names, Pf, PfCx, Via};
use wire::{build, tcp};

struct Case {
    name: &'static str,
    rules: String,
    /// Flows to make and to draw from; 0 sends without making states.
    flows: u32,
}

fn main() {
    let mut many = String::from("block all\n");
    for n in 0..1000 {
        let (high, low) = (n / 256, n % 256);
        let _ = writeln!(many, "pass in on wan{n} proto udp from 10.0.{high}.{low} to any port {n} no state");
    }
    many.push_str("pass in on lan0 proto tcp no state flags any\n");
    let stateful = "set limit states 1100000\npass in on lan0 proto tcp flags any keep state\n";
    let ten: String = (0..10)
        .map(|n| format!("block in on lan0 proto tcp from 10.9.0.{n} to any port {n}\n"))
        .chain(["pass in on lan0 proto tcp flags any no state\n".to_owned()])
        .collect();
    let cases = [
        Case { name: "pass all, no state", rules: "pass all no state\n".into(), flows: 0 },
        Case { name: "set skip", rules: "set skip on lan0\nblock all\n".into(), flows: 0 },
        Case { name: "10 rules, no state", rules: ten, flows: 0 },
        Case { name: "1000 rules, skip steps", rules: many, flows: 0 },
        Case { name: "state hit, 256 states", rules: stateful.into(), flows: 256 },
        Case { name: "state hit, 100k states", rules: stateful.into(), flows: 100_000 },
        Case { name: "state hit, 1M states", rules: stateful.into(), flows: 1_000_000 },
    ];
    println!("{:<28} {:>8} {:>8}  ns/packet", "case", "min", "median");
    let only = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    for case in cases.iter().filter(|c| only.as_ref().is_none_or(|o| c.name.contains(o.as_str()))) {
        run(case);
    }
}

fn packet(flow: u32) -> Vec<u8> {
    let header = tcp::Repr {
        src_port: 1024 + (flow % 50_000) as u16,
        dst_port: 80,
        seq: 1000,
        ack: 1,
        flags: tcp::Flags::ACK,
        window: 65_000,
        ..tcp::Repr::default()
    };
    build::tcp4(Ipv4Addr::from_bits(0x0a01_0000 + flow / 50_000), SERVER, &header, &[0; 24])
}

fn run(case: &Case) {
    let env = router();
    let pf = Pf::new(1, case.flows.max(1000));
    let conf = pf::conf::load_text("bench", &case.rules, &env, &[]).unwrap_or_else(|e| panic!("{}", e[0]));
    let ruleset = pf.compile(&Arc::new(conf), &env, &mut Names::new()).expect("rules compile");
    pf.enforce(&mut Root::claim().top().at(), &ruleset);
    let mut worker = pf.worker(0);
    let fixture = Fixture::new(8192);
    let mut root = Root::claim();
    let now = Instant::from_secs(1000);
    let flows = case.flows.max(1);
    // As many packets as the pool has, from flows drawn at random, sent over and over.
    let mut draw = 0x9e37_79b9_u32;
    for flow in 0..case.flows {
        let mut m = fixture.packet(&packet(flow));
        let mut held = root.top();
        let mut cx = PfCx::new(&pf, &ruleset, &mut worker, held.at::<PfRules>(), now);
        let _ = cx.test(Direction::In, LAN, &mut m);
        fixture.done(m);
    }
    let batches = 2;
    let mut samples = Vec::new();
    for _round in 0..if case.flows > 1000 { 400 } else { 9 } {
        let mut ready: Vec<Batch> = Vec::new();
        for _ in 0..batches {
            let mut batch = Batch::new();
            while !batch.is_full() {
                draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let flow = ((u64::from(draw) * u64::from(flows)) >> 32) as u32;
                let mut m = fixture.packet(&packet(flow));
                m.hdr_mut().family = 4;
                assert!(batch.push(m).is_ok());
            }
            ready.push(batch);
        }
        let repeat = if case.flows > 1000 { 1 } else { 400 };
        let begin = Clock::now();
        for _ in 0..repeat {
            for batch in &mut ready {
                let mut held = root.top();
                let mut cx = PfCx::new(&pf, &ruleset, &mut worker, held.at::<PfRules>(), now);
                let _passed = cx.test_batch(Direction::In, Via::One(LAN), batch, |m, _| {
                    fixture.done(m);
                    None
                });
            }
        }
        let nanos = begin.elapsed().as_nanos() as f64;
        samples.push(nanos / (f64::from(repeat) * f64::from(batches) * BATCH as f64));
        let mut left = 0;
        for batch in &mut ready {
            left += batch.len();
            batch.drain().for_each(|m| fixture.done(m));
        }
        assert_eq!(left, batches as usize * BATCH, "{}: packets were refused", case.name);
    }
    samples.sort_by(f64::total_cmp);
    println!("{:<28} {:>8.1} {:>8.1}", case.name, samples[0], samples[samples.len() / 2]);
    drop(worker);
}
