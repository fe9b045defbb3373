//! Every folder of `configs/` is an example for people: it must be right, in all three languages.

use router::{
    commit::Files,
    conf::{Host, from_text},
};
use std::path::{Path, PathBuf};

fn folders() -> Vec<PathBuf> {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let entries = std::fs::read_dir(configs).expect("configs").map(|e| e.expect("an entry").path());
    let mut folders: Vec<PathBuf> = entries.filter(|p| p.is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 3, "{folders:?}");
    folders
}

#[test]
fn every_example_is_valid_and_says_what_it_is() {
    // Examples are for machines with other processors than this one.
    let host = Host { cpus: (0..64).collect() };
    for folder in folders() {
        let path = folder.join("softnet.toml");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let conf = from_text(&path, &text, &host).unwrap_or_else(|e| panic!("{e}"));
        let read =
            |file: &Option<PathBuf>| file.as_deref().map(|f| std::fs::read_to_string(f).expect("a file"));
        let (pf, ipsec) = (read(&conf.pf), read(&conf.ipsec));
        let files = Files::from_texts(conf, pf.as_deref(), ipsec.as_deref());
        let files = files.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        assert!(files.warnings().is_empty(), "{}: {:?}", folder.display(), files.warnings());
        assert!(folder.join("README.md").is_file(), "{}", folder.display());
    }
}
