//! A file with keys in it is its owner's alone.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Others can read the file.
#[derive(Debug, thiserror::Error)]
pub enum Exposed {
    /// By mode.
    #[error("{} has keys and can be read by others (mode {mode:04o}); type: chmod 600 {}", .path.display(), .path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It could not be looked at.
    #[error("{}: {cause}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// Refuses a file that group or others may read or write.
pub fn check_private(path: &Path) -> Result<(), Exposed> {
    let meta = fs::metadata(path).map_err(|cause| Exposed::Io { path: path.to_owned(), cause })?;
    let mode = meta.mode() & 0o7777;
    if meta.is_file() && mode & 0o066 != 0 {
        return Err(Exposed::Mode { path: path.to_owned(), mode });
    }
    Ok(())
}
