//! What cutting and gathering cost by segment, one core, buffers from magazines, a quarter of a megabyte in flight.

use kern::{Batch, Class, Gso, Ledger, Magazines, Mbuf, Owner, Pool, Why, mbuf::PoolConfig};
use router::iface::{
    cut::{self, Cut},
    driver::Caps,
    gro::{self, Emit, Piece},
};
use std::{hint::black_box, time::Instant};
use wire::{Mac, build, coalesce::SuperFrame, ipv4, tcp, tcp::Flags};

const SIZE: usize = 1398;
const SEGMENTS: usize = 46;
const L3: usize = 14;
const ALL: Caps = Caps { checksum: true, tso: true, uso: true };

fn segment(number: u16, payload: usize) -> Vec<u8> {
    let header = ipv4::Repr {
        src: [192, 0, 2, 1].into(),
        dst: [198, 51, 100, 1].into(),
        ident: number,
        frag: ipv4::DF,
        ..ipv4::Repr::default()
    };
    let tcp = tcp::Repr {
        src_port: 1000,
        dst_port: 80,
        seq: u32::from(number) * SIZE as u32,
        ack: 77,
        flags: Flags::ACK,
        window: 500,
        timestamps: Some((1, 2)),
        ..tcp::Repr::default()
    };
    let data: Vec<u8> = (0..payload).map(|i| (i * 31) as u8).collect();
    build::frame(Mac([2; 6]), Mac([6; 6]), &build::tcp4_with(header, &tcp, &data))
}

fn fill(m: &mut Mbuf, frame: &[u8]) {
    m.rewind(kern::mbuf::HEADROOM);
    m.append(frame.len()).expect("room").copy_from_slice(frame);
    m.set_l3(L3);
    m.hdr_mut().hash = 7;
}

/// Best of many rounds, nanoseconds a segment.
fn best(rounds: usize, mut round: impl FnMut() -> u128) -> f64 {
    (0..rounds).map(|_| round()).min().unwrap_or(0) as f64 / SEGMENTS as f64
}

fn cutting(pool: &Pool, ledger: &Ledger) -> f64 {
    let frame = segment(0, SIZE * SEGMENTS);
    let mut wholes: Vec<Mbuf> =
        (0..4).map(|_| pool.alloc(Class::Jumbo, Owner::Worker).expect("a jumbo")).collect();
    for whole in &mut wholes {
        fill(whole, &frame);
        ledger.create(whole);
        whole.set_partial(34, 16);
    }
    let (mut out, mut turn) = (Batch::new(), 0);
    let nanos = best(4000, || {
        turn = (turn + 1) % wholes.len();
        let whole = &mut wholes[turn];
        whole.set_gso(Gso::Tcp4, SIZE as u16);
        whole.hdr_mut().cursor = 0;
        let start = Instant::now();
        let state = cut::cut(whole, cut::LIMIT, pool, ledger, &mut |m| out.push(m).expect("room"));
        let took = start.elapsed().as_nanos();
        assert_eq!((state, out.len()), (Cut::Done, SEGMENTS));
        ledger.end_all(&mut out, Why::Sink);
        took
    });
    for m in wholes {
        ledger.end(m, Why::Sink);
    }
    nanos
}

struct Nowhere {
    units: usize,
}

impl Emit for Nowhere {
    fn alone(&mut self, packets: &mut [Mbuf], index: usize) {
        self.units += 1;
        black_box(packets[index].len());
    }

    fn together(&mut self, packets: &mut [Mbuf], pieces: &[Piece], shape: &SuperFrame) {
        self.units += 1;
        black_box((packets.len(), pieces.len(), shape.size));
    }
}

fn gathering(pool: &Pool, ledger: &Ledger, verified: bool) -> f64 {
    let frames: Vec<_> = (0..SEGMENTS as u16).map(|n| segment(n, SIZE)).collect();
    let mut batches: Vec<Batch> = (0..4).map(|_| Batch::new()).collect();
    for batch in &mut batches {
        for _ in &frames {
            let mut m = pool.alloc(Class::Cluster, Owner::Worker).expect("a cluster");
            ledger.create(&mut m);
            batch.push(m).expect("room");
        }
    }
    let mut turn = 0;
    let nanos = best(4000, || {
        turn = (turn + 1) % batches.len();
        for (m, frame) in batches[turn].iter_mut().zip(&frames) {
            fill(m, frame);
            if verified {
                m.hdr_mut().flags.set(kern::PktFlags::CSUM_OK);
            }
        }
        let mut sink = Nowhere { units: 0 };
        let start = Instant::now();
        gro::gather(batches[turn].as_mut_slice(), ALL, &mut sink);
        let took = start.elapsed().as_nanos();
        assert_eq!(sink.units, 1);
        took
    });
    for batch in &mut batches {
        ledger.end_all(batch, Why::Sink);
    }
    nanos
}

fn main() {
    let pool = Pool::new(PoolConfig { clusters: 4096, jumbos: 16 }).expect("memory");
    let ledger = Ledger::new();
    let mut magazines = Magazines::new(&pool);
    let _entered = magazines.enter();
    println!("cut       {SIZE} octets a segment: {:6.1} ns", cutting(&pool, &ledger));
    println!("gather    {SIZE} octets, verified: {:6.1} ns", gathering(&pool, &ledger, true));
    println!("gather    {SIZE} octets, summed:   {:6.1} ns", gathering(&pool, &ledger, false));
}
