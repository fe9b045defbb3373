//! SCTP whose ends are scapy's, an implementation of its own: an association from INIT to SHUTDOWN COMPLETE through a
//! translation, its checksums as scapy has them, and packets with another tag that do not pass.

use super::{Bed, Namespace, available};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

#[path = "../../../ipsec/tests/scapy/venv.rs"]
mod venv;

const RULES: &str = "
nat on wan0 inet from 192.0.2.0/24 to any -> (wan0)
pass all
block in on wan0 inet proto sctp
pass in on lan0 inet proto sctp to port 5000 keep state
";
const CLIENT_TAG: u32 = 0xc11e_0001;
const SERVER_TAG: u32 = 0x5e4e_0002;

/// scapy in a namespace.
struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The IP header of what it sends.
    header: &'static str,
    /// Ports, from and to.
    ports: (u16, u16),
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    fn new(space: &Namespace, header: &'static str, ports: (u16, u16)) -> Peer {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pf_net/peer.py");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space.name()]).arg(venv::python()).args(["-W", "ignore", script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut peer = Peer { child, orders, answers: BufReader::new(answers), header, ports };
        assert_eq!(peer.answer(), "ready");
        peer
    }

    fn answer(&mut self) -> String {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    fn send(&mut self, tag: u32, chunks: &str) {
        let (header, (from, to)) = (self.header, self.ports);
        writeln!(self.orders, "send {header}/SCTP(sport={from}, dport={to}, tag={tag})/{chunks}").unwrap();
        assert_eq!(self.answer(), "sent");
    }

    fn get(&mut self, seconds: f32) -> String {
        writeln!(self.orders, "get {seconds}").unwrap();
        self.answer()
    }
}

#[test]
fn an_association_of_scapy_crosses_a_translation() {
    if !available() {
        return;
    }
    let bed = Bed::new(RULES);
    let said = bed.ping(5);
    assert!(said.contains(" 0% packet loss"), "{said}\n{}", bed.log());
    let mut client = Peer::new(&bed.inside, "IP(src='192.0.2.10', dst='203.0.113.10')", (4000, 5000));
    let mut server = Peer::new(&bed.outside, "IP(src='203.0.113.10', dst='203.0.113.1')", (5000, 4000));
    let states = || String::from_utf8_lossy(&bed.ask("pfctl -s states").stdout).into_owned();
    let levels = |wanted: &str| {
        let all = states();
        let sctp: Vec<&str> = all.lines().filter(|line| line.contains("sctp")).collect();
        assert!(sctp.len() == 2 && sctp.iter().all(|line| line.contains(wanted)), "{wanted}: {all}");
    };
    let init = |kind: &str, tag: u32, more: &str| {
        format!(
            "SCTPChunk{kind}(init_tag={tag}, a_rwnd=65536, n_out_streams=10, n_in_streams=10, init_tsn=1{more})"
        )
    };
    let cookie = ", params=[SCTPChunkParamStateCookie(cookie=b'a cookie of 23 octets..')]";
    let data =
        "SCTPChunkData(beginning=1, ending=1, tsn=1, stream_id=0, stream_seq=0, proto_id=0, data=b'seven..')";
    let handshake = [
        (true, 0, init("Init", CLIENT_TAG, ""), "Init"),
        (false, CLIENT_TAG, init("InitAck", SERVER_TAG, cookie), "InitAck"),
        (true, SERVER_TAG, "SCTPChunkCookieEcho(cookie=b'a cookie of 23 octets..')".to_owned(), "CookieEcho"),
        (false, CLIENT_TAG, "SCTPChunkCookieAck()".to_owned(), "CookieAck"),
        (true, SERVER_TAG, data.to_owned(), "Data"),
        (false, CLIENT_TAG, "SCTPChunkSACK(cumul_tsn_ack=1, a_rwnd=65536)".to_owned(), "SACK"),
    ];
    let shutdown = [
        (true, SERVER_TAG, "SCTPChunkShutdown(cumul_tsn_ack=1)".to_owned(), "Shutdown"),
        (false, CLIENT_TAG, "SCTPChunkShutdownAck()".to_owned(), "ShutdownAck"),
        (true, SERVER_TAG, "SCTPChunkShutdownComplete()".to_owned(), "ShutdownComplete"),
    ];
    let mut exchange = |(up, tag, chunks, names): (bool, u32, String, &str)| {
        let (from, to) = if up { (&mut client, &mut server) } else { (&mut server, &mut client) };
        from.send(tag, &chunks);
        let ends =
            if up { "203.0.113.1:4000 203.0.113.10:5000" } else { "203.0.113.10:5000 192.0.2.10:4000" };
        assert_eq!(
            to.get(5.0),
            format!("{ends} tag {tag:x} {names} sums right"),
            "{}{}",
            states(),
            bed.log()
        );
    };
    handshake.into_iter().for_each(&mut exchange);
    levels("ESTABLISHED:ESTABLISHED");
    shutdown.into_iter().for_each(&mut exchange);
    levels("CLOSED:CLOSED");
    // Anew, with the same ports: whoever has another tag is not heard, and changes nothing.
    for (up, tag, chunks, names) in [
        (true, 0, init("Init", CLIENT_TAG + 1, ""), "Init"),
        (false, CLIENT_TAG + 1, init("InitAck", SERVER_TAG + 1, cookie), "InitAck"),
        (true, SERVER_TAG + 1, "SCTPChunkCookieEcho(cookie=b'another')".to_owned(), "CookieEcho"),
        (false, CLIENT_TAG + 1, "SCTPChunkCookieAck()".to_owned(), "CookieAck"),
    ] {
        exchange((up, tag, chunks, names));
    }
    for (chunks, tag) in [(data, SERVER_TAG), ("SCTPChunkAbort()", CLIENT_TAG + 1)] {
        client.send(tag, chunks);
        assert_eq!(server.get(0.5), "nothing");
    }
    server.send(CLIENT_TAG, "SCTPChunkAbort()");
    assert_eq!(client.get(0.5), "nothing");
    levels("ESTABLISHED:ESTABLISHED");
    let info = String::from_utf8_lossy(&bed.ask("pfctl -s info").stdout).into_owned();
    let mismatches = info.lines().find(|line| line.trim_start().starts_with("state-mismatch")).unwrap();
    assert_eq!(mismatches.split_whitespace().nth(1), Some("3"), "{info}");
    drop((client, server));
    bed.stop();
}
