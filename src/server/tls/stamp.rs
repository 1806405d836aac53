//! Tells whether files have changed, also if they are reached by a link that was replaced.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::files::Files;

/// What the file system says of the files, in order: those of a missing file are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<OfFile>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct OfFile {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Changes also when a copy keeps the time of modification.
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(files: &Files) -> Self {
        let paths = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
        Self(paths.into_iter().flatten().map(|path| of_file(path)).collect())
    }
}

fn of_file(path: &Path) -> Option<OfFile> {
    let metadata = fs::metadata(path).ok()?;
    Some(OfFile {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}
