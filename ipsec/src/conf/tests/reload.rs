//! Statements on what is there already: what a reload keeps, and what goes on.

use super::*;

#[test]
fn statements_are_carried_out_in_order_on_what_is_there() {
    let base = valid(TWO_GATEWAYS);
    let more =
        Conf::parse("-c", "delete 203.0.113.1 203.0.113.2 esp 0x1001; spdadd ::/0 ::/0 any -P out none;")
            .unwrap();
    let after = more.check(&base).unwrap();
    assert_eq!((after.sas().len(), after.policies().len()), (1, 5));
    let clear = Conf::parse("-c", "deleteall 203.0.113.2 203.0.113.1 esp; spdflush; exit; nonsense").unwrap();
    let after = clear.check(&after).unwrap();
    assert_eq!((after.sas().len(), after.policies().len()), (0, 0));
    let update = "spdadd ::/0 ::/0 any -P in none; spdupdate ::/0 ::/0 any -P in discard;";
    assert_eq!(valid(update).policies()[0].action, Action::Discard);
    let twice = errors("spdadd ::/0 ::/0 any -P in none; spdadd ::/0 ::/0 any -P in discard;");
    assert!(lines(&twice).starts_with("ipsec.conf:1:34: the policy of line 1 has the same selectors"));
}

#[test]
fn a_reload_keeps_what_did_not_change_and_never_hands_an_index_on_at_once() {
    let mut root = Root::claim();
    let (first, _) = built(TWO_GATEWAYS, None, &mut root);
    let (second, spd) = built(TWO_GATEWAYS, Some(&first), &mut root);
    for (a, b) in first.iter().zip(second.iter()) {
        assert!(Arc::ptr_eq(a, b), "nothing changed");
    }
    assert_eq!(spd.with_sas().map(|(_, sas)| sas.len()).collect::<Vec<_>>(), [1, 0, 0, 0]);

    first.iter().next().unwrap().set_next_sequence(&mut root.top(), 1000);
    let changed = TWO_GATEWAYS.replace("-r 8", "-r 64").replace("-ls 3000", "-ls 2000");
    let (third, _) = built(&changed, Some(&second), &mut root);
    let sas: Vec<_> = third.iter().collect();
    assert_eq!((sas[0].index(), sas[0].config().replay), (SaIndex(0), 512));
    assert_eq!(sas[0].status(&mut root.top()).sequence, 999, "the numbers go on");
    assert!(Arc::ptr_eq(sas[1], first.get(SaIndex(1)).unwrap()));

    let rekeyed = changed.replace("0x0011", "0x1111").replace("0x1001", "0x1003");
    let (fourth, _) = built(&rekeyed, Some(&third), &mut root);
    assert!(fourth.get(SaIndex(0)).is_none(), "the index rests for one snapshot");
    let new = fourth.get(SaIndex(2)).unwrap();
    assert_eq!(new.status(&mut root.top()).sequence, 0);
    let (fifth, _) = built(
        &(rekeyed + "add 10.0.0.1 10.0.0.2 esp 999 -E aes-gcm-16 \"a key of twenty byte\";"),
        Some(&fourth),
        &mut root,
    );
    assert_eq!(fifth.get(SaIndex(0)).unwrap().config().spi, Spi(999), "and is free in the next");
}

#[test]
fn an_sa_can_go_on_where_another_machine_left_it() {
    let text = TWO_GATEWAYS.replace("-r 4 -esn", "-r 4 -esn -seq 0x5fffffff0");
    assert!(errors(&text)[0].message.contains("is not a sequence number"));
    let text = TWO_GATEWAYS.replace("-r 4 -esn", "-r 4 -esn -seq 21474836480");
    let mut root = Root::claim();
    let (sad, _) = built(&text, None, &mut root);
    let status = sad.iter().nth(1).unwrap().status(&mut root.top());
    assert_eq!((status.sequence, status.top), (5 << 32, 5 << 32));
    let (again, _) = built(&text, Some(&sad), &mut root);
    assert!(
        Arc::ptr_eq(again.iter().nth(1).unwrap(), sad.iter().nth(1).unwrap()),
        "not put back by a reload"
    );
    let text = TWO_GATEWAYS.replace("-u 7", "-u 7 -seq 4294967296");
    assert!(
        lines(&errors(&text)).contains("5:5: 4294967296 is no sequence number of 32 bits"),
        "{}",
        lines(&errors(&text))
    );
}

#[test]
fn ipcomp_has_no_numbers_and_so_no_end_of_them_wherever_it_goes_on() {
    for seq in [0, u64::from(u32::MAX), 1 << 40] {
        let text = format!("add 203.0.113.1 203.0.113.2 ipcomp 0x1001 -m tunnel -seq {seq} -C deflate;");
        let mut root = Root::claim();
        let (sad, _) = built(&text, None, &mut root);
        let sa = sad.iter().next().unwrap();
        let used = sa.reserve(64, 6400, Instant::from_secs(6), &mut root.top());
        assert_eq!(used.map(|(numbers, _)| (numbers.first, numbers.len)), Ok((seq + 1, 64)));
        assert_eq!(sa.status(&mut root.top()).sequence, seq + 64);
    }
}

#[test]
fn an_engine_chosen_anew_gets_the_old_numbers() {
    let mut root = Root::claim();
    let (first, _) = built(TWO_GATEWAYS, None, &mut root);
    first.iter().next().unwrap().set_next_sequence(&mut root.top(), 50);
    let ring = Setup { engine: Engine::Ring, ..setup() };
    let (second, _) = build(&valid(TWO_GATEWAYS), Some(&first), &ring, &mut root.top()).unwrap();
    let sa: &Arc<Sa> = second.iter().next().unwrap();
    assert_eq!((sa.engine(), sa.status(&mut root.top()).sequence), (Engine::Ring, 49));
}

/// Only to say that a proof of nothing held will do.
#[test]
fn building_needs_no_more_than_what_comes_before_an_sa() {
    let mut root = Root::claim();
    let mut top = root.top();
    let mut sad: Held<'_, levels::Sad> = top.at();
    assert!(build(&ValidConf::default(), None, &setup(), &mut sad).unwrap().0.is_empty());
}
