//! SAs that leave their mode open (`-m any`, or no `-m`), as most files of setkey(8) do.

use super::*;

const KEY: &str = "-E aes-gcm-16 0x00112233445566778899aabbccddeeff01020304";

/// The outbound and the inbound SA, as built with these policies.
fn sas(policies: &str) -> [Arc<Sa>; 2] {
    let other = KEY.replace("0x0011", "0x1100");
    let text = format!(
        "add 203.0.113.1 203.0.113.2 esp 0x1001 {KEY};\nadd 203.0.113.2 203.0.113.1 esp 0x1002 -m any {other};\n{policies}"
    );
    let mut root = Root::claim();
    let (sad, _) = built(&text, None, &mut root);
    let of = |spi| Arc::clone(sad.iter().find(|sa| sa.config().spi.0 == spi).unwrap());
    [of(0x1001), of(0x1002)]
}

#[test]
fn an_sa_that_leaves_its_mode_open_sends_in_the_mode_of_the_policy_that_wants_it() {
    let transport = "spdadd 203.0.113.1 203.0.113.2 any -P out ipsec esp/transport//require;
                     spdadd 203.0.113.2 203.0.113.1 any -P in ipsec esp/transport//require;";
    let tunnel = "spdadd 192.0.2.0/24 198.51.100.0/24 any -P out ipsec esp/tunnel/203.0.113.1-203.0.113.2/require;
                  spdadd 198.51.100.0/24 192.0.2.0/24 any -P in ipsec esp/tunnel/203.0.113.2-203.0.113.1/require;";
    assert!(!sas(transport)[0].is_tunnel());
    assert!(sas(tunnel)[0].is_tunnel() && sas("")[0].is_tunnel());
    // The first that wants it.
    assert!(sas(&format!("{tunnel}{transport}"))[0].is_tunnel());
    assert!(!sas(&format!("{transport}{tunnel}"))[0].is_tunnel());
    // What arrives may be of either mode, whatever the policy.
    assert!([transport, tunnel, ""].iter().all(|policies| sas(policies)[1].config().mode == Mode::Any));
}

#[test]
fn an_ipcomp_sa_without_a_mode_in_a_bundle_has_that_of_its_place() {
    let text = "add 203.0.113.1 203.0.113.2 ipcomp 0x1001 -C deflate;
                spdadd 203.0.113.1 203.0.113.2 any -P out ipsec ipcomp/transport//use esp/transport//require;";
    let mut root = Root::claim();
    let (sad, _) = built(text, None, &mut root);
    assert!(sad.iter().all(|sa| !sa.is_tunnel()));
}
