//! The pool's identity under random operations: whatever is done to buffers, in whatever order, on however many
//! threads, the books agree at the next quiet moment.

use kern::{
    Batch, Chain, Class, Ledger, Magazines, Mbuf, Owner, Pool, Why, mbuf::PoolConfig, testing::Fixture,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Alloc(Class),
    Blank(Class),
    End(usize),
    Send(usize),
    Own(usize, Owner),
    Grow(usize, usize),
    Join(usize),
    EnterMagazines,
    LeaveMagazines,
}

fn op() -> impl Strategy<Value = Op> {
    let class = prop_oneof![3 => Just(Class::Cluster), 1 => Just(Class::Jumbo)];
    let owner = prop::sample::select(&Owner::ALL[1..]);
    prop_oneof![
        6 => class.clone().prop_map(Op::Alloc),
        1 => class.prop_map(Op::Blank),
        4 => any::<usize>().prop_map(Op::End),
        2 => any::<usize>().prop_map(Op::Send),
        2 => (any::<usize>(), owner).prop_map(|(i, o)| Op::Own(i, o)),
        2 => (any::<usize>(), 0..3000usize).prop_map(|(i, n)| Op::Grow(i, n)),
        1 => any::<usize>().prop_map(Op::Join),
        1 => Just(Op::EnterMagazines),
        1 => Just(Op::LeaveMagazines),
    ]
}

struct World<'a> {
    fixture: &'a Fixture,
    out: Vec<Mbuf>,
}

impl World<'_> {
    fn pick(&mut self, i: usize) -> Option<Mbuf> {
        if self.out.is_empty() { None } else { Some(self.out.swap_remove(i % self.out.len())) }
    }

    fn apply(&mut self, op: &Op) {
        let ledger = &self.fixture.ledger;
        match *op {
            Op::Alloc(class) => {
                if let Some(mut m) = self.fixture.pool.alloc(class, Owner::Control) {
                    ledger.receive(&mut m);
                    self.out.push(m);
                }
            }
            Op::Blank(class) => drop(self.fixture.pool.alloc(class, Owner::Rx)),
            Op::End(i) => {
                if let Some(m) = self.pick(i) {
                    ledger.end(m, Why::Sink);
                }
            }
            Op::Send(i) => {
                if let Some(m) = self.pick(i) {
                    ledger.sent(m);
                }
            }
            Op::Own(i, owner) => {
                if let Some(m) = self.pick(i) {
                    m.set_owner(owner);
                    self.out.push(m);
                }
            }
            Op::Grow(i, n) => {
                if let Some(mut m) = self.pick(i) {
                    let room = m.tailroom();
                    assert_eq!(m.append(n).is_ok(), n <= room);
                    let _ = m.prepend(n % 40);
                    let _ = m.trim_front(n % 50);
                    self.out.push(m);
                }
            }
            Op::Join(i) => self.join(i),
            Op::EnterMagazines | Op::LeaveMagazines => {}
        }
    }

    fn join(&mut self, i: usize) {
        let mut chain = Chain::new();
        for k in 0..3 {
            if let Some(m) = self.pick(i.wrapping_add(k)) {
                chain.push(m).expect("three of many");
            }
        }
        let len = chain.len();
        match chain.coalesce(&self.fixture.pool, &self.fixture.ledger) {
            Ok(whole) => {
                assert_eq!(whole.len(), len);
                self.out.push(whole);
            }
            Err(_) => self.out.extend(chain.drain()),
        }
    }

    fn check(&self) {
        let audit = self.fixture.audit();
        assert!(audit.balanced(), "{audit:?}");
        assert_eq!(audit.held(), self.out.len() as u64);
        assert_eq!(
            i128::from(audit.packets()) + i128::from(audit.owned_by(Owner::Rx)),
            self.fixture.ledger.balance().held()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("SOFTNET_SOAK").is_some() { 20_000 } else { 200 }, ..ProptestConfig::default() })]

    #[test]
    fn the_identity_holds_after_any_operations(ops in prop::collection::vec(op(), 1..200), clusters in 1..80usize) {
        let fixture = Fixture::with_jumbos(clusters, 6);
        let mut magazines = fixture.magazines();
        let mut inside = false;
        let mut world = World { fixture: &fixture, out: Vec::new() };
        for op in &ops {
            match op {
                Op::EnterMagazines => inside = true,
                Op::LeaveMagazines => inside = false,
                _ => {
                    let _guard = inside.then(|| magazines.enter());
                    world.apply(op);
                }
            }
            world.check();
        }
        for m in world.out.drain(..) {
            fixture.done(m);
        }
    }
}

#[test]
fn buffers_freed_on_another_thread_come_home() {
    let fixture = Fixture::new(2000);
    let (tx, rx) = std::sync::mpsc::sync_channel::<Vec<Mbuf>>(2);
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut magazines = fixture.magazines();
            let _entered = magazines.enter();
            for batch in rx {
                batch.into_iter().for_each(drop);
            }
        });
        let mut magazines = Magazines::new(&fixture.pool);
        let _entered = magazines.enter();
        for round in 0..5000 {
            let some =
                (0..round % 60).filter_map(|_| fixture.pool.alloc(Class::Cluster, Owner::HandOver)).collect();
            tx.send(some).unwrap();
        }
        drop(tx);
    });
}

#[test]
fn exhaustion_is_an_answer_and_is_counted() {
    let fixture = Fixture::with_jumbos(3, 0);
    let held: Vec<_> = (0..5).filter_map(|_| fixture.pool.alloc(Class::Cluster, Owner::Control)).collect();
    assert_eq!(held.len(), 3);
    assert!(fixture.pool.alloc(Class::Jumbo, Owner::Control).is_none());
    let audit = fixture.audit();
    assert_eq!((audit.classes[0].fail, audit.classes[1].fail), (2, 1));
    assert_eq!(audit.owned_by(Owner::Control), 3);
}

#[test]
fn a_packet_dropped_without_a_reason_panics_in_debug_and_is_counted() {
    let pool = Pool::new(PoolConfig { clusters: 4, jumbos: 1 }).unwrap();
    let ledger = Ledger::new();
    let mut m = pool.alloc(Class::Cluster, Owner::Control).unwrap();
    ledger.receive(&mut m);
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(m)));
    assert_eq!(dropped.is_err(), cfg!(debug_assertions));
    assert_eq!(pool.audit().unexplained, 1);
}

#[test]
fn a_batch_keeps_order_and_gives_back_what_does_not_fit() {
    let fixture = Fixture::new(600);
    let mut batch = Batch::new();
    for i in 0..256u32 {
        assert!(batch.push(fixture.packet(&i.to_be_bytes())).is_ok());
    }
    let extra = batch.push(fixture.packet(b"more")).unwrap_err();
    fixture.done(extra);
    batch.sift(|m| {
        if m.data()[3] % 2 == 0 {
            Some(m)
        } else {
            fixture.done(m);
            None
        }
    });
    assert_eq!(batch.len(), 128);
    let mut other = Batch::new();
    batch.move_to(&mut other);
    assert!(batch.is_empty() && other.iter().zip(0u8..).all(|(m, i)| m.data()[3] == i * 2));
    fixture.ledger.end_all(&mut other, Why::Sink);
}
