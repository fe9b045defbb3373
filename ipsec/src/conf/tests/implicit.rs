//! Keys with implicit IVs.

use super::{errors, lines, valid};

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
