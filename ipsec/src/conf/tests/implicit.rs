//! Keys with implicit IVs.

use super::{build, built, errors, lines, setup, valid};
use kern::lock::Root;

fn add(spi: u32, name: &str, key: u8) -> String {
    let octets = format!("{key:02x}").repeat(20);
    format!("add 192.0.2.1 192.0.2.2 esp {spi} -m tunnel -E {name} 0x{octets};\n")
}

#[test]
fn a_key_with_implicit_ivs_is_warned_of() {
    let conf = valid(&(add(1000, "aes-gcm-16-iiv", 1) + &add(1001, "aes-gcm-16-iiv", 2)));
    assert_eq!(conf.sas()[0].config.suite.to_string(), "aes-128-gcm-iiv");
    let warned = lines(conf.warnings());
    assert!(
        warned.contains("aes-128-gcm-iiv has implicit IVs: this key must never be added again"),
        "{warned}"
    );
    assert_eq!(conf.warnings().len(), 2);
    let refused = errors(&(add(1000, "aes-gcm-16", 1) + &add(1001, "aes-gcm-16-iiv", 1)));
    assert_eq!(refused.len(), 1);
    assert!(lines(&refused).contains("the SA of line 1 has the same key"), "{}", lines(&refused));
    assert!(valid(&add(1000, "aes-gcm-16", 1)).warnings().is_empty());
}

#[test]
fn a_key_with_implicit_ivs_is_not_set_up_a_second_time() {
    let mut root = Root::claim();
    let text = add(1000, "aes-gcm-16-iiv", 1);
    let (sad, _) = built(&text, None, &mut root);
    let again = [
        text.replace("-m tunnel", "-m tunnel -r 8 -esn"),
        text.replace("esp 1000", "esp 1001"),
        text.replace("192.0.2.1", "192.0.2.3"),
        String::from("\n") + &add(2000, "aes-gcm-16", 7) + &text.replace("192.0.2.2", "192.0.2.4"),
    ];
    for (text, line) in again.iter().zip([1, 1, 1, 3]) {
        let error = build(&valid(text), Some(&sad), &setup(), &mut root.top()).unwrap_err().to_string();
        let start = format!("ipsec.conf:{line}:1: SA 0x");
        assert!(error.starts_with(&start), "{text}: {error}");
        assert!(error.contains("would begin again"), "{text}: {error}");
    }
    // What goes on with its numbers uses none of them twice, and a new key has all before it.
    let same = text.replace("-m tunnel", "-m tunnel -r 64 -lh 100");
    let (wider, _) = built(&same, Some(&sad), &mut root);
    assert_eq!(wider.iter().next().unwrap().index(), sad.iter().next().unwrap().index());
    let other = add(1000, "aes-gcm-16-iiv", 2).replace("-m tunnel", "-m tunnel -r 8 -esn");
    assert_eq!(built(&other, Some(&sad), &mut root).0.len(), 1);
    // Explicit ones begin elsewhere each time.
    let (sad, _) = built(&add(1000, "aes-gcm-16", 1), None, &mut root);
    let esn = add(1000, "aes-gcm-16", 1).replace("-m tunnel", "-m tunnel -r 8 -esn");
    assert_eq!(built(&esn, Some(&sad), &mut root).0.len(), 1);
}
