//! Several workers at one SA, on threads of their own: the wire and the inside see every packet in order.

use super::*;

/// An SA for three workers, and a receiver's.
fn shared() -> (Fixture, Arc<Sa>, Arc<Sa>) {
    let setup = Setup { workers: 3, ..Setup::new(Instant::from_secs(1)) };
    let config = SaConfig { replay: 32, ..config(V4, Suite::Aes128Gcm16) };
    let sa = |i| Arc::new(Sa::new(SaIndex(i), config.clone(), material(config.suite), &setup).unwrap());
    (Fixture::new(8192), sa(0), sa(1))
}

#[test]
fn several_workers_seal_for_one_sa_and_the_wire_sees_every_number_in_order() {
    let packets = if soak() { 1_000_000 } else { 40_000 };
    let (fixture, sender, _) = shared();
    let device: Leaf<Vec<u32>, levels::Log> = Leaf::new(vec![]);
    let made = atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for w in 0..3 {
            let (pool, sender, device, made) = (&fixture.pool, &sender, &device, &made);
            scope.spawn(move || {
                let (mut root, ledger) = (Root::claim(), kern::Ledger::new());
                let mut owed = Releasing::with_capacity(2);
                let (mut unsealed, mut run) = (Batch::new(), Batch::new());
                let (worker, now, packet) = (Worker(w), Instant::from_secs(2), v4(60));
                loop {
                    if unsealed.is_empty() && made.fetch_add(8, atomic::Ordering::Relaxed) < packets {
                        for _ in 0..8 {
                            let mut m = pool.alloc(kern::Class::Cluster, kern::Owner::Worker).unwrap();
                            m.append(60).unwrap().copy_from_slice(&packet);
                            ledger.receive(&mut m);
                            unsealed.push(m).unwrap();
                        }
                    }
                    if unsealed.is_empty() && owed.is_empty() {
                        break;
                    }
                    let mut turn = LoopTurn { worker, now, releasing: &mut owed };
                    if unsealed.len() <= turn.releasing.room() {
                        esp_output(sender, &mut unsealed, usize::MAX, &mut turn, &mut root.top(), no_failure);
                        std::mem::swap(&mut unsealed, &mut run);
                    }
                    loop {
                        device.with(|log| log.extend(run.iter().map(|m| low_seq(&m.data()[20..]))));
                        ledger.sent_all(&mut run);
                        if !owed.written_output(|_| Some(sender), &mut run, 256) {
                            break;
                        }
                    }
                    std::thread::yield_now();
                }
            });
        }
    });
    let numbers = device.with(std::mem::take);
    assert_eq!(numbers.len() as u32, packets);
    assert!(numbers.iter().zip(1..).all(|(seq, n)| *seq == n), "in sequence, none missing");
}

#[test]
fn several_workers_open_one_tunnel_and_the_inside_sees_every_packet_in_order() {
    let runs = if soak() { 50_000 } else { 1500 };
    let (fixture, sender, receiver) = shared();
    let inside: Leaf<Vec<u32>, levels::Log> = Leaf::new(vec![]);
    std::thread::scope(|scope| {
        let (pool, sender, receiver, inside) = (&fixture.pool, &sender, &receiver, &inside);
        let mut jobs = vec![];
        for w in 0..2 {
            let (give, take) = std::sync::mpsc::sync_channel::<input::Pending<Arc<Sa>, Box<Batch>>>(2);
            jobs.push(give);
            scope.spawn(move || {
                let (mut root, ledger) = (Root::claim(), kern::Ledger::new());
                let mut owed = Releasing::with_capacity(2);
                let (worker, now) = (Worker(w), Instant::from_secs(2));
                for pending in take {
                    let opened = pending.open(&mut root.top(), no_failure);
                    let (mut run, leave) = input::finish(opened, worker, &mut root.top(), no_failure);
                    if leave == Leave::Taken {
                        owed.note_input(receiver);
                    }
                    loop {
                        let number = |m: &Mbuf| u32::from_be_bytes(m.data()[20..24].try_into().unwrap());
                        inside.with(|log| log.extend(run.iter().map(number)));
                        run.drain().for_each(|m| m.end(Why::Sink, &ledger));
                        if !owed.written_input(worker, now, &mut run, &mut root.top(), no_failure) {
                            break;
                        }
                    }
                }
                assert!(owed.is_empty());
            });
        }
        // The reader seals eight packets at a time, as the peer, and gives them to whoever is free.
        let (mut root, ledger) = (Root::claim(), kern::Ledger::new());
        let (worker, now) = (Worker(7), Instant::from_secs(2));
        let (mut owed, mut number) = (Releasing::with_capacity(2), 0u32);
        for turn in 0..runs {
            let mut run = Box::new(Batch::new());
            for _ in 0..=turn % 8 {
                let mut m = pool.alloc(kern::Class::Cluster, kern::Owner::Worker).unwrap();
                m.append(60).unwrap().copy_from_slice(&v4(60));
                m.data_mut()[20..24].copy_from_slice(&number.to_be_bytes());
                number += 1;
                ledger.receive(&mut m);
                run.push(m).unwrap();
            }
            let mut loop_turn = LoopTurn { worker, now, releasing: &mut owed };
            esp_output(sender, &mut run, usize::MAX, &mut loop_turn, &mut root.top(), no_failure);
            owed.written_output(|_| Some(sender), &mut Batch::new(), 256);
            let mut pending = input::begin(Arc::clone(receiver), run, now, &mut root.top(), no_failure);
            let pending = loop {
                match pending {
                    Ok(pending) => break pending,
                    Err(declined) => {
                        assert_eq!(declined.why, NotNow::Busy);
                        std::thread::yield_now();
                        let again = Arc::clone(receiver);
                        pending = input::begin(again, declined.run, now, &mut root.top(), no_failure);
                    }
                }
            };
            assert!(jobs[turn % 2].send(pending).is_ok());
        }
    });
    let numbers = inside.with(std::mem::take);
    let expected = (0..runs).map(|turn| 1 + turn % 8).sum::<usize>();
    assert_eq!(numbers.len(), expected);
    assert!(numbers.iter().zip(0..).all(|(seen, n)| *seen == n), "in order, none missing");
}
