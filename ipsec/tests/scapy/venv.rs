//! scapy in a virtual environment below the build directory; it is installed from the Python package index if it is not there.

use std::{path::PathBuf, process::Command};

const VERSION: &str = "scapy==2.8.0";

/// The interpreter of that environment.
pub(crate) fn python() -> PathBuf {
    let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("scapy");
    let python = home.join("bin/python3");
    let imports = ["-c", "import scapy.layers.ipsec, cryptography"];
    if !Command::new(&python).args(imports).output().is_ok_and(|out| out.status.success()) {
        assert!(Command::new("python3").args(["-m", "venv"]).arg(&home).status().unwrap().success());
        let install = ["-m", "pip", "install", "--quiet", VERSION, "cryptography"];
        assert!(Command::new(&python).args(install).status().unwrap().success(), "pip cannot install scapy");
    }
    python
}
