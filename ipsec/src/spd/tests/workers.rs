//! SAs of single workers, and the fallback (RFC 9611).

use super::*;

/// An outbound SA of a worker, or of everybody.
fn of_worker(index: u32, worker: Option<u16>, hard: Lifetime) -> Arc<Sa> {
    let config = SaConfig { worker, hard, ..sa(index, A, B, 0).config().clone() };
    let key = Arc::new(SecretBytes::copy_of(&[index as u8; 20]).unwrap());
    Arc::new(Sa::new(SaIndex(index), config, key, &Setup::new(Instant::ZERO)).unwrap())
}

fn plain(index: u32, worker: Option<u16>) -> Arc<Sa> {
    of_worker(index, worker, Lifetime::default())
}

/// What each of three workers is told.
fn told(spd: &Spd) -> [Decision; 3] {
    let packet = udp(INSIDE, THERE, (1, 2));
    [0, 1, 2].map(|worker| spd.lookup_out(&Packet::of(&packet), &mut FlowCache::of(worker)))
}

/// What a worker asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Nothing,
    /// An SA of everybody's.
    Any,
    /// One of this worker's.
    Own(u16),
}

/// What each of three workers asks for.
fn asked(spd: &Spd) -> [Asks; 3] {
    let packet = udp(INSIDE, THERE, (1, 2));
    [0, 1, 2].map(|worker| match spd.wanted(&Packet::of(&packet), &mut FlowCache::of(worker)) {
        None => Asks::Nothing,
        Some(wanted) => wanted.worker.map_or(Asks::Any, Asks::Own),
    })
}

#[test]
fn a_worker_sends_by_its_own_sa_and_without_one_by_the_fallback_and_asks() {
    let own = |index| Decision::Protect(Hop::new(SaIndex(index), Rest::NONE));
    let shared = |index| Decision::Shared(Hop::new(SaIndex(index), Rest::NONE));
    let spd = |sas: Vec<Arc<Sa>>| Spd::new(two_ways(Level::Require), &Sad::new(sas));
    // Nobody is bound: nobody asks.
    let of_all = spd(vec![plain(1, None)]);
    assert_eq!((told(&of_all), asked(&of_all)), ([own(1); 3], [Asks::Nothing; 3]));
    let two = spd(vec![plain(1, None), plain(2, Some(0)), plain(3, Some(1))]);
    assert_eq!(told(&two), [own(2), own(3), shared(1)]);
    assert_eq!(asked(&two), [Asks::Nothing, Asks::Nothing, Asks::Own(2)]);
    // The newest of its own, and never another's.
    let newer = spd(vec![plain(3, Some(1)), plain(4, Some(1))]);
    assert_eq!(told(&newer), [Decision::NoSa, own(4), Decision::NoSa]);
    assert_eq!(asked(&newer), [Asks::Own(0), Asks::Nothing, Asks::Own(2)]);
    // A newer fallback does not take the place of its own.
    let fallback = spd(vec![plain(3, Some(1)), plain(5, None)]);
    assert_eq!(told(&fallback), [shared(5), own(3), shared(5)]);
    // One without any asks for everybody's.
    let none = spd(vec![]);
    assert_eq!((told(&none), asked(&none)), ([Decision::NoSa; 3], [Asks::Any; 3]));
}

#[test]
fn a_worker_whose_own_sa_is_at_its_end_goes_on_by_the_fallback() {
    let dead = of_worker(2, Some(0), Lifetime { seconds: Some(1), ..Lifetime::default() });
    let mut root = kern::lock::Root::claim();
    dead.news(Instant::from_secs(5), &mut root.top());
    assert_eq!(dead.life(), Life::Dead);
    let spd = Spd::new(two_ways(Level::Require), &Sad::new([plain(1, None), dead]));
    assert_eq!(told(&spd)[0], Decision::Shared(Hop::new(SaIndex(1), Rest::NONE)));
    assert_eq!(asked(&spd)[0], Asks::Own(0));
}

#[test]
fn what_came_by_any_worker_s_sa_is_of_the_policy() {
    let inbound = |index, worker| {
        let config = SaConfig { src: B, dst: A, ..plain(index, worker).config().clone() };
        let key = Arc::new(SecretBytes::copy_of(&[index as u8; 20]).unwrap());
        Arc::new(Sa::new(SaIndex(index), config, key, &Setup::new(Instant::ZERO)).unwrap())
    };
    let sad = Sad::new([inbound(1, None), inbound(2, Some(0)), inbound(3, Some(7)), sa(4, A, B, 0)]);
    let spd = Spd::new(two_ways(Level::Require), &sad);
    let packet = udp(THERE, INSIDE, (1, 2));
    for index in [1, 2, 3] {
        assert_eq!(check_in(&spd, &packet, Some(SaIndex(index))), Ok(()));
    }
    assert_eq!(check_in(&spd, &packet, Some(SaIndex(4))), Err(Why::EspPolicy));
}

#[test]
fn the_successor_of_a_worker_s_sa_is_its_own_or_the_fallback() {
    let before = Sad::new([plain(1, None), plain(2, Some(0)), plain(3, Some(1))]);
    let after = |sas: Vec<Arc<Sa>>| Sad::new(sas).after(&before);
    let successor = |sad: &Sad, of| sad.successor(SaIndex(of)).map(|sa| sa.index().0);
    let sad = after(vec![plain(1, None), plain(4, Some(0)), plain(5, Some(1))]);
    assert_eq!((successor(&sad, 2), successor(&sad, 3)), (Some(4), Some(5)));
    let sad = after(vec![plain(1, None), plain(5, Some(1))]);
    assert_eq!(successor(&sad, 2), Some(1));
    let sad = after(vec![plain(5, Some(1))]);
    assert_eq!((successor(&sad, 2), successor(&sad, 1)), (None, None));
}

#[test]
fn what_other_workers_protect_does_not_leave_in_clear_for_want_of_an_own_sa() {
    let spd = Spd::new(two_ways(Level::Use), &Sad::new([plain(2, Some(0))]));
    assert_eq!(
        told(&spd),
        [Decision::Protect(Hop::new(SaIndex(2), Rest::NONE)), Decision::NoSa, Decision::NoSa]
    );
    assert_eq!(asked(&spd), [Asks::Nothing, Asks::Own(1), Asks::Own(2)]);
}
