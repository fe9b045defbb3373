//! Requests of BEET mode: SAs of single pairs of addresses.

use super::*;

/// Packets between these, in BEET mode between the gateways.
fn policies(inside: &str, there: &str, level: Level) -> Vec<Policy> {
    let beet = |src, dst| {
        let request = Request { mode: Mode::Beet, ..Request::tunnel(src, dst, level) };
        Action::Protect([request].into())
    };
    vec![
        policy(1, Direction::Out, inside, there, Upper::Any, beet(A, B)),
        policy(2, Direction::In, there, inside, Upper::Any, beet(B, A)),
    ]
}

fn networks(level: Level) -> Vec<Policy> {
    policies("192.0.2.0/24", "198.51.100.0/24", level)
}

fn with(base: &Sa, change: impl FnOnce(&mut SaConfig)) -> Arc<Sa> {
    let mut config = base.config().clone();
    change(&mut config);
    let key = Arc::new(SecretBytes::copy_of(&[base.index().0 as u8; 20]).unwrap());
    Arc::new(Sa::new(base.index(), config, key, &Setup::new(Instant::ZERO)).unwrap())
}

/// An SA of BEET mode for a host of ours and one there.
fn of_pair(index: u32, inside: [u8; 4], there: [u8; 4]) -> Arc<Sa> {
    with(&sa_of(Mode::Beet, index, A, B, 0), |config| config.inner = Some((inside.into(), there.into())))
}

#[test]
fn an_sa_that_leaves_its_mode_open_has_no_addresses_inside_and_does_not_do() {
    for mode in [Mode::Any, Mode::Tunnel, Mode::Transport] {
        let sad = Sad::new([sa_of(mode, 1, A, B, 0), sa_of(mode, 2, B, A, 0)]);
        for policies in
            [networks(Level::Require), policies("192.0.2.7/32", "198.51.100.9/32", Level::Require)]
        {
            let spd = Spd::new(policies, &sad);
            assert_eq!(out(&spd, &udp(INSIDE, THERE, (1, 2))), Decision::NoSa, "{mode:?}");
            let back = udp(THERE, INSIDE, (1, 2));
            assert_eq!(check_in(&spd, &back, Some(SaIndex(2))), Err(Why::EspPolicy), "{mode:?}");
        }
    }
    let spd = Spd::new(networks(Level::Require), &Sad::new([of_pair(3, INSIDE, THERE)]));
    assert_eq!(through(out(&spd, &udp(INSIDE, THERE, (1, 2)))), Some(SaIndex(3)));
}

#[test]
fn each_pair_of_addresses_of_one_policy_wants_an_sa_of_its_own() {
    let own = of_pair(3, INSIDE, THERE);
    let spd = Spd::new(networks(Level::Require), &Sad::new([Arc::clone(&own)]));
    let wanted = |inside: [u8; 4]| {
        let packet = udp(inside, THERE, (1, 2));
        spd.wanted(&Packet::of(&packet), &mut FlowCache::new())
    };
    assert_eq!(wanted(INSIDE), None);
    let [first, second] = [[192, 0, 2, 8], [192, 0, 2, 9]].map(|host| wanted(host).unwrap());
    assert_ne!(first, second);
    assert_eq!((first.src, first.dst), (A, B));
    assert_eq!(first.inner, Some((IpAddr::from([192, 0, 2, 8]), IpAddr::from(THERE))));
    assert_eq!(second.inner, Some((IpAddr::from([192, 0, 2, 9]), IpAddr::from(THERE))));
    // An answer is an SA of this pair, mode and protocol, and no other.
    assert!(first.is_answered_by(of_pair(4, [192, 0, 2, 8], THERE).config()));
    for other in [
        of_pair(4, [192, 0, 2, 9], THERE),
        sa_of(Mode::Tunnel, 4, A, B, 0),
        sa_of(Mode::Any, 4, A, B, 0),
        with(&own, |config| config.dst = IpAddr::from([203, 0, 113, 3])),
    ] {
        assert!(!first.is_answered_by(other.config()), "{:?}", other.config());
    }
}

#[test]
fn an_answer_has_the_worker_and_the_number_that_were_asked_for() {
    let spd = Spd::new(two_ways(Level::Unique(7)), &Sad::default());
    let packet = udp(INSIDE, THERE, (1, 2));
    let wanted = spd.wanted(&Packet::of(&packet), &mut FlowCache::new()).unwrap();
    assert_eq!(wanted.inner, None);
    let sa = sa(1, A, B, 7);
    assert!(wanted.is_answered_by(sa.config()));
    assert!(!wanted.is_answered_by(with(&sa, |config| config.reqid = 8).config()));
    let wanted = Wanted { worker: Some(1), ..wanted };
    assert!(!wanted.is_answered_by(sa.config()));
    assert!(wanted.is_answered_by(with(&sa, |config| config.worker = Some(1)).config()));
}
