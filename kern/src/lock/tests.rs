//! The order at run time, the tokens, the profiles.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use super::{levels::*, *};

fn message_of(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("a panic");
    panic
        .downcast_ref::<String>()
        .cloned()
        .unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).to_owned())
}

#[test]
fn the_order_is_the_one_of_the_design() {
    let order = ORDER.join(" > ");
    assert_eq!(
        order,
        "Softnet > Kernel > PfRules > PfSrcNodes > PfStates > PfState > PfFrags > Reass > Sad > Sa > Neighbours > \
         Ifq > HandOver"
    );
}

#[test]
fn a_second_root_in_one_thread_panics_and_a_dropped_one_may_be_claimed_again() {
    let root = Root::claim();
    assert!(message_of(|| drop(Root::claim())).contains("already"));
    drop(root);
    drop(Root::claim());
    let other = thread::spawn(|| drop(Root::claim()));
    other.join().unwrap();
}

#[test]
fn locks_nest_in_order_and_are_released_in_any_order() {
    let mut root = Root::claim();
    let row: SpinMutex<PfStates, u32> = SpinMutex::new(1);
    let state: SpinMutex<PfState, u32> = SpinMutex::new(2);
    let queue: Mutex<Ifq, u32> = Mutex::new(3);
    for _ in 0..2 {
        let mut top = root.top();
        let (row, held) = top.lock(&row);
        let (mut state, mut held) = held.then(&state);
        drop(row);
        let (mut queue, _) = held.lock(&queue);
        *state += *queue;
        *queue += 1;
    }
    assert_eq!((*root.top().lock(&state).0, queue.into_inner()), (2 + 3 + 4, 5));
}

#[test]
fn a_function_that_names_its_level_can_be_called_from_any_level_before() {
    fn deep(held: &mut Held<'_, impl Before<HandOver>>, lock: &Mutex<HandOver, u32>) -> u32 {
        *held.lock(lock).0
    }
    fn at_sa(held: &mut Held<'_, Sa>, lock: &Mutex<HandOver, u32>) -> u32 {
        deep(held, lock)
    }
    let (mut root, lock) = (Root::claim(), Mutex::new(7));
    assert_eq!(at_sa(&mut root.top().at::<Sa>(), &lock), 7);
}

#[test]
#[cfg(debug_assertions)]
fn the_witness_names_both_places_when_the_order_is_broken_behind_the_types() {
    let outer: SpinMutex<PfStates, ()> = SpinMutex::new(());
    let inner: Mutex<Ifq, ()> = Mutex::new(());
    let mut root = Root::claim();
    let message = message_of(|| {
        let mut top = root.top();
        let _inner = top.lock(&inner);
        // What a callback with a proof of its own would do.
        let _outer = Held::<Top>::proof().then(&outer);
    });
    assert!(message.contains("PfStates at "), "{message}");
    assert!(message.contains("while Ifq is held, taken at "), "{message}");
    assert_eq!(message.matches("lock/tests.rs:").count(), 2, "{message}");
    // The books are in order again: unwinding released the lock.
    let _both = root.top().then(&outer);
}

#[test]
#[cfg(debug_assertions)]
fn two_locks_of_one_level_are_refused_at_run_time() {
    let rows: [SpinMutex<PfStates, ()>; 2] = [SpinMutex::new(()), SpinMutex::new(())];
    let message = message_of(|| {
        let _first = Held::<Top>::proof().then(&rows[0]);
        let _second = Held::<Top>::proof().then(&rows[1]);
    });
    assert!(message.contains("PfStates"), "{message}");
}

#[test]
#[cfg(debug_assertions)]
fn nothing_may_be_taken_under_a_leaf() {
    let leaf: Leaf<u32, Log> = Leaf::new(0);
    let pool: Leaf<u32> = Leaf::new(0);
    let lock: SpinMutex<Sa, ()> = SpinMutex::new(());
    let message = message_of(|| leaf.with(|_| drop(Held::<Top>::proof().then(&lock))));
    assert!(message.contains("Sa at") && message.contains("while Log is held"), "{message}");
    assert!(message_of(|| leaf.with(|_| pool.with(|_| ()))).contains("Pool at"));
    let mut root = Root::claim();
    let mut top = root.top();
    let (_guard, _held) = top.lock(&lock);
    leaf.with(|count| *count += 1);
}

#[test]
#[cfg(debug_assertions)]
fn what_waits_refuses_while_a_lock_is_held() {
    let lock: SpinMutex<Sa, ()> = SpinMutex::new(());
    witness::assert_nothing_held("a test");
    let message = message_of(|| {
        let _guard = Held::<Top>::proof().then(&lock);
        witness::assert_nothing_held("a test");
    });
    assert!(message.starts_with("a test waits, and Sa is held"), "{message}");
}

#[test]
fn try_lock_gives_up_when_another_thread_holds_the_lock() {
    let spin: SpinMutex<Sa, ()> = SpinMutex::new(());
    let sleep: Mutex<Ifq, ()> = Mutex::new(());
    let mut root = Root::claim();
    let mut top = root.top();
    let (_spin, mut held) = top.lock(&spin);
    let (_sleep, _held) = held.lock(&sleep);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut root = Root::claim();
            let mut top = root.top();
            assert!(top.try_lock(&spin).is_none());
            assert!(top.try_lock(&sleep).is_none());
        });
    });
}

#[test]
fn a_spin_lock_excludes_and_publishes() {
    let count: SpinMutex<Sa, u64> = SpinMutex::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut root = Root::claim();
                for _ in 0..20_000 {
                    *root.top().lock(&count).0 += 1;
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 80_000);
}

#[test]
fn a_spin_lock_is_four_bytes_and_a_proof_none() {
    assert_eq!(size_of::<SpinMutex<Sa, [u32; 3]>>(), 16);
    assert_eq!(size_of::<Held<'_, Sa>>(), 0);
}

/// How many threads were inside at once, at most, when four enter again and again.
fn crowd(locks: &BigLocks, enter: impl Fn(&BigLocks, &mut Root, &dyn Fn()) + Sync) -> u32 {
    let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
    let barrier = std::sync::Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut root = Root::claim();
                barrier.wait();
                for _ in 0..50 {
                    enter(locks, &mut root, &|| {
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::sleep(std::time::Duration::from_micros(50));
                        inside.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        }
    });
    most.into_inner()
}

fn softnet_and_kernel(locks: &BigLocks, root: &mut Root, work: &dyn Fn()) {
    let mut top = root.top();
    let (_softnet, mut held) = locks.enter_softnet(&mut top);
    let (_kernel, _held) = locks.enter_kernel(&mut held);
    work();
}

#[test]
fn giant_lets_one_thread_in_and_fine_lets_all_in() {
    assert_eq!(crowd(&BigLocks::new(Locking::Giant), softnet_and_kernel), 1);
    assert!(crowd(&BigLocks::new(Locking::Fine), softnet_and_kernel) > 1);
}

#[test]
fn a_driver_that_is_not_mp_safe_is_entered_by_one_thread_in_every_profile() {
    for profile in [Locking::Fine, Locking::Giant] {
        let locks = Arc::new(BigLocks::new(profile));
        let most = crowd(&locks, |locks, root, work| {
            let mut top = root.top();
            let (_kernel, _held) = locks.enter_kernel_always(&mut top);
            work();
        });
        assert_eq!(most, 1, "{profile}");
    }
}

#[test]
#[cfg(debug_assertions)]
fn the_order_of_the_big_locks_is_checked_in_fine_too() {
    let locks = BigLocks::new(Locking::Fine);
    let message = message_of(|| {
        let mut held = Held::<Top>::proof();
        let (_kernel, _) = locks.enter_kernel(&mut held);
        let mut behind = Held::<Top>::proof();
        let _softnet: (SoftnetGuard<'_>, Held<'_, Softnet>) = locks.enter_softnet(&mut behind);
    });
    assert!(message.contains("Softnet at") && message.contains("Kernel is held"), "{message}");
    let _: Mutex<Kernel, ()> = Mutex::default();
}

#[test]
fn profiles_are_named_as_in_the_configuration() {
    assert_eq!("giant".parse(), Ok(Locking::Giant));
    assert_eq!(Locking::Fine.to_string(), "fine");
    assert_eq!(
        "netbsd".parse::<Locking>().unwrap_err().to_string(),
        "locking is \"fine\" or \"giant\", not \"netbsd\""
    );
}
