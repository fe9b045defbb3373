//! scapy in a process of its own.

use crate::venv;
use kern::testing::Chance;
use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::LazyLock,
};

/// The Python that has scapy, which is installed by the first test that asks.
static PYTHON: LazyLock<PathBuf> = LazyLock::new(venv::python);

pub(crate) struct Oracle {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Oracle {
    /// `None` where `SOFTNET_NET_TESTS` is not set.
    pub(crate) fn start() -> Option<Oracle> {
        if std::env::var_os("SOFTNET_NET_TESTS").is_none() {
            println!("SOFTNET_NET_TESTS is not set: not asked");
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scapy/oracle.py");
        let mut child = Command::new(&*PYTHON)
            .args(["-W", "ignore", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (ask, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Oracle { child, ask, answers })
    }

    /// What scapy says to a question, or why it refuses.
    pub(crate) fn ask(&mut self, question: &str) -> Result<Vec<u8>, String> {
        writeln!(self.ask, "{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let answer = answer.trim();
        assert!(!answer.is_empty(), "scapy has ended at {question}");
        match answer.strip_prefix("error ") {
            Some(why) => Err(format!("{why}\nto {question}")),
            None => Ok((0..answer.len() / 2)
                .map(|i| u8::from_str_radix(&answer[2 * i..2 * i + 2], 16).unwrap())
                .collect()),
        }
    }
}

/// As a question has octets.
pub(crate) fn hex(octets: &[u8]) -> String {
    if octets.is_empty() {
        return "-".to_owned();
    }
    octets.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The same from run to run in CI; in a soak of its own each time, and printed.
pub(crate) fn chance() -> Chance {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Chance::seeded(if kern::testing::soak() { now.as_nanos() as u64 } else { 0x5eed_0001 })
}
