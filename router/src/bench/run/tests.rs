use super::*;

fn spec(what: What, suite: Suite, engine: Engine) -> Spec {
    Spec {
        what,
        workers: 1,
        size: 64,
        suite,
        engine,
        sas: 2,
        flows: 4,
        routes: 1,
        locking: Locking::Fine,
        pf: false,
        slice: Duration::from_millis(2),
    }
}

#[test]
fn every_suite_runs_with_every_engine_that_serves_it_out_and_in() {
    let mut root = Root::claim();
    let mut rows = 0;
    for suite in Suite::esp() {
        for engine in Engine::ALL.into_iter().filter(|engine| engine.serves(suite)) {
            for what in [What::EspOut, What::EspIn] {
                let row = row(&spec(what, suite, engine), &mut root).unwrap();
                assert!(row.balanced && row.mpps > 0.0, "{row:?}");
                assert_eq!((row.suite, row.engine), (Some(suite.to_string()), Some(engine.to_string())));
                assert!(
                    row.added_ns.is_some_and(|ns| ns < row.ns_per_packet),
                    "its own arithmetic is taken off"
                );
                assert!(row.ceiling_gbps > Some(0.0) && row.ratio > Some(0.0));
                rows += 1;
            }
        }
    }
    // GCM, GMAC and CCM by key and ICV, ChaCha20-Poly1305; seven with implicit IVs; ciphers by authentication. Three of the
    // first and three of the second are done by three engines.
    let pairs = ipsec::transform::Cipher::all().count() * ipsec::transform::Auth::all().count();
    assert_eq!(rows, 2 * (3 * 7 + 1 + 7 + pairs + 2 * (3 + 3)));
}

#[test]
fn the_path_is_measured_with_the_engine_that_is_named() {
    let mut root = Root::claim();
    for engine in Engine::ALL {
        let spec = spec(What::EspOut, Suite::ChaCha20Poly1305, engine);
        let bed = build(&spec, &mut root).unwrap();
        assert!(bed.router.net().sad.iter().all(|sa| sa.engine() == engine), "{engine}");
        bed.stop(&mut root).unwrap();
    }
}
