//! What `softnet capture` writes, read by tcpdump.

use super::{
    bed::{Bed, USUAL},
    netns::{available, run, softnet},
};
use std::{
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

/// `softnet capture enc0` of gateway a, with these words behind it, in a shell.
fn capture(bed: &Bed, words: &str) -> Child {
    let line = format!(
        "exec {} --control {} capture enc0 {words}",
        softnet().display(),
        bed.a.dir.join("control").display()
    );
    Command::new("sh").args(["-c", &line]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn tcpdump_reads_what_is_captured_inside_the_tunnel() {
    if !available() {
        return;
    }
    let bed = Bed::new(USUAL);
    let file = bed.dir.join("enc0.pcapng");
    let few = capture(&bed, &format!("-c 20 -w {}", file.display()));
    let piped = capture(&bed, "-w - | tcpdump -n -c 10 -r - 'udp or icmp6' 2>&1");
    let all = capture(&bed, &format!("-w {}", bed.dir.join("all.pcapng").display()));
    std::thread::sleep(Duration::from_millis(500));
    bed.ping("198.51.100.10", 200).unwrap();
    bed.ping("2001:db8:b::10", 200).unwrap();
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let few = few.wait_with_output().unwrap();
    assert!(few.status.success());
    assert_eq!(text(&few), "20 packets captured\n0 packets lost by the router\n");
    let read = Command::new("tcpdump").args(["-n", "-r"]).arg(&file).output().unwrap();
    let lines = text(&read);
    let is_right =
        |line: &&str| line.contains("(authentic,confidential): SPI 0x") && line.contains("ICMP echo re");
    assert_eq!((lines.lines().count(), lines.lines().filter(is_right).count()), (20, 20), "{lines}");
    let piped = text(&piped.wait_with_output().unwrap());
    assert_eq!(piped.lines().filter(|line| line.contains("ICMP6, echo re")).count(), 10, "{piped}");
    run(&format!("kill -INT {}", all.id()));
    let all = all.wait_with_output().unwrap();
    // Two hundred pings there and back in both families, and the first ones, of which any may have been lost on its way.
    let told = text(&all);
    let (packets, rest) = told.split_once(' ').unwrap();
    assert!((800..=812).contains(&packets.parse::<u32>().unwrap()), "{told}");
    assert_eq!(rest, "packets captured\n0 packets lost by the router\n");
    bed.stop();
}
