//! Network namespaces for tests: made with iproute2, gone when dropped, also when a test panics.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
};

/// Runs a command and panics with what it said if it fails.
pub(crate) fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("a command")).args(words).output().expect("runs");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A number that no other test of this machine uses at the moment.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whether tests with namespaces and TAP devices were asked for; then they must be possible.
pub(crate) fn available() -> bool {
    if std::env::var_os("SOFTNET_NET_TESTS").is_none() {
        println!("skipped: SOFTNET_NET_TESTS is not set (make test-net sets it)");
        return false;
    }
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    let name = format!("softnet-probe-{}", unique());
    let made = Command::new("ip").args(["netns", "add", &name]).output().is_ok_and(|o| o.status.success());
    if made {
        run(&format!("ip netns del {name}"));
    }
    assert!(
        tun.is_ok() && made,
        "SOFTNET_NET_TESTS is set, and there is no /dev/net/tun or no leave to make namespaces"
    );
    true
}

/// The program under test: `SOFTNET_BIN`, or cargo's own.
#[allow(dead_code, reason = "not every test file runs it")]
pub(crate) fn softnet() -> PathBuf {
    std::env::var_os("SOFTNET_BIN").map_or_else(|| env!("CARGO_BIN_EXE_softnet").into(), PathBuf::from)
}

/// A process that ends with its test.
#[allow(dead_code, reason = "not every test file has one")]
pub(crate) struct Background(pub(crate) Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace.
pub(crate) struct Namespace {
    name: String,
}

#[allow(dead_code, reason = "not every test file has one")]
impl Namespace {
    /// A fresh one, its loopback up.
    pub(crate) fn new() -> Namespace {
        let namespace = Namespace { name: format!("softnet-{}", unique()) };
        run(&format!("ip netns add {}", namespace.name));
        namespace.ip("link set lo up");
        namespace
    }

    /// Its name, for `ip netns exec`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside.
    pub(crate) fn ip(&self, arguments: &str) {
        run(&format!("ip -n {} {arguments}", self.name));
    }

    /// Takes a device in, gives it addresses and brings it up.
    pub(crate) fn adopt(&self, device: &str, addresses: &[&str]) {
        run(&format!("ip link set {device} netns {}", self.name));
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            self.ip(&format!("addr add {address} dev {device}{nodad}"));
        }
        self.ip(&format!("link set {device} up"));
    }

    /// Runs `body` on a thread inside.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace's file");
        thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("enters");
            body()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}
