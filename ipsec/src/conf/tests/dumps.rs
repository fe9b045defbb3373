//! Dumps in setkey's layout.

use super::*;

#[test]
fn the_dumps_are_in_setkey_s_layout_and_show_no_key() {
    let mut root = Root::claim();
    let (sad, spd) = built(TWO_GATEWAYS, None, &mut root);
    let text = dump::sa_text(&dump::sas(&sad, &mut root.top()), Instant::from_secs(65));
    let without_dates: String = text
        .lines()
        .map(|l| {
            if l.starts_with("\tcreated: ") {
                "\tcreated: T\tcurrent: T\n".to_owned()
            } else {
                format!("{l}\n")
            }
        })
        .collect();
    let expected = "203.0.113.1 203.0.113.2 \n\
        \tesp mode=tunnel spi=4097(0x00001001) reqid=7(0x00000007)\n\
        \tE: aes-gcm-16  (160 bits)\n\
        \tseq=0x00000000 replay=8 flags=0x00000000 state=mature\n\
        \tcreated: T\tcurrent: T\n\
        \tdiff: 60(s)\thard: 3600(s)\tsoft: 3000(s)\n\
        \tlast:                     \thard: 0(s)\tsoft: 0(s)\n\
        \tcurrent: 0(bytes)\thard: 1000000(bytes)\tsoft: 0(bytes)\n\
        \tallocated: 0\thard: 500\tsoft: 0\n\
        \tsadb_seq=1 pid=0 refcnt=0\n\
        203.0.113.2 203.0.113.1 \n\
        \tesp mode=tunnel spi=4098(0x00001002) reqid=0(0x00000000)\n\
        \tE: chacha20-poly1305  (288 bits)\n";
    assert!(without_dates.starts_with(expected), "{without_dates}");
    let policies = dump::policy_text(&dump::policies(&spd));
    let expected = "192.0.2.0/24[any] 198.51.100.0/24[any] any\n\
        \tout ipsec\n\
        \tesp/tunnel/203.0.113.1-203.0.113.2/require\n\
        \tspid=1 seq=3 pid=0\n\
        \trefcnt=1\n\
        198.51.100.0/24[any] 192.0.2.0/24[80] tcp\n\
        \tin ipsec\n\
        \tesp/tunnel/203.0.113.2-203.0.113.1/unique:7\n\
        \tspid=2 seq=2 pid=0\n\
        \trefcnt=1\n\
        ::/0 ::/0 ipv6-icmp 135,0\n\
        \tin none\n\
        \tspid=3 seq=1 pid=0\n\
        \trefcnt=1\n\
        0.0.0.0/0[any] 192.0.2.9[any] udp\n\
        \tin discard\n\
        \tspid=4 seq=0 pid=0\n\
        \trefcnt=1\n";
    assert_eq!(policies, expected);
    assert_eq!(dump::sa_text(&[], Instant::ZERO), "No SAD entries.\n");
    assert_eq!(dump::policy_text(&[]), "No SPD entries.\n");
}
