//! Recognises files, and positions in them.
//!
//! A path alone does not identify a file: after a rotation, a log's path names a new file. Nor does
//! an inode: its number is reused once its file is gone, and stays the same when the content is
//! replaced. So a file is recognised by its inode together with hashes of its beginning and of the
//! line before the position.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How many bytes of a file's beginning, and of a line, are hashed.
pub(super) const FINGERPRINT_BYTES: usize = 4096;

/// A file's number on its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inode {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Inode {
    /// The inode of no file: inodes are numbered from 1.
    pub(super) const NONE: Self = Self { device: 0, inode: 0 };

    /// The inode of a file or pipe, where readers get what writers write; `None` for a device.
    pub(super) fn of_data(metadata: &Metadata) -> Option<Self> {
        let kind = metadata.file_type();
        (kind.is_file() || kind.is_fifo()).then(|| Self::from(metadata))
    }
}

impl From<&Metadata> for Inode {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The hash of a part of a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fingerprint {
    start: u64,
    bytes: usize,
    sha256: String,
}

impl Fingerprint {
    /// The hash of the bytes at an offset, or of the beginning of a long part.
    pub(super) fn of(start: u64, part: &[u8]) -> Self {
        let part = &part[..part.len().min(FINGERPRINT_BYTES)];
        let sha256 = STANDARD_NO_PAD.encode(Sha256::digest(part));
        Self { start, bytes: part.len(), sha256 }
    }

    fn matches(&self, file: &File) -> io::Result<bool> {
        // A damaged state must not cause a large allocation.
        if self.bytes > FINGERPRINT_BYTES {
            return Ok(false);
        }
        let mut part = vec![0; self.bytes];
        match file.read_exact_at(&mut part, self.start) {
            Ok(()) => Ok(Self::of(self.start, &part) == *self),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A position in a file: after a line, or within its last line if that was shipped unfinished.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// The number of bytes before it.
    pub(super) offset: u64,
    /// The number of lines before it.
    pub(super) lines: u64,
    /// The line before it; `None` at the beginning.
    pub(super) last_line: Option<Fingerprint>,
}

/// Whether a file has the content that led to a position: its beginning, and the line before the
/// position.
pub(super) fn leads_to(file: &File, head: Option<&Fingerprint>, at: &Position) -> io::Result<bool> {
    if file.metadata()?.len() < at.offset {
        return Ok(false);
    }
    for fingerprint in [head, at.last_line.as_ref()].into_iter().flatten() {
        if !fingerprint.matches(file)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads the part of a file's beginning that is hashed, at most up to an offset.
pub(super) fn read_head(file: &File, up_to: u64) -> io::Result<Vec<u8>> {
    let mut head =
        vec![0; FINGERPRINT_BYTES.min(usize::try_from(up_to).unwrap_or(FINGERPRINT_BYTES))];
    file.read_exact_at(&mut head, 0)?;
    Ok(head)
}

/// Whether an offset is within a line.
pub(super) fn is_inside_line(file: &File, offset: u64) -> io::Result<bool> {
    let mut before = [b'\n'];
    if offset > 0 {
        file.read_exact_at(&mut before, offset - 1)?;
    }
    Ok(before != [b'\n'])
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// The path of a file that was at `path` and may have been renamed in its folder, as rotated logs
/// are.
pub(super) fn find_beside(path: &Path, sought: Inode) -> Option<PathBuf> {
    let entries = std::fs::read_dir(path.parent()?).ok()?;
    entries.flatten().map(|entry| entry.path()).find(|path| {
        std::fs::symlink_metadata(path)
            .is_ok_and(|metadata| metadata.is_file() && Inode::from(&metadata) == sought)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn position(text: &str, lines: u64, last: &str) -> Position {
        let offset = text.len() as u64;
        let start = offset - last.len() as u64;
        Position { offset, lines, last_line: Some(Fingerprint::of(start, last.as_bytes())) }
    }

    #[test]
    fn a_file_is_recognised_by_its_beginning_and_the_line_before_the_position() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let at = position("one\ntwo\n", 2, "two\n");
        let head = Fingerprint::of(0, b"one\ntwo\n");
        for (content, known) in [
            ("one\ntwo\n", true),
            ("one\ntwo\nthree", true),
            ("one\ntwo", false),
            ("one\ntwx\nthree", false),
            ("", false),
        ] {
            fs::write(&path, content).unwrap();
            let file = File::open(&path).unwrap();
            assert_eq!(leads_to(&file, Some(&head), &at).unwrap(), known, "{content}");
        }
        // A different beginning, with the same last line.
        fs::write(&path, "two\ntwo\n").unwrap();
        let file = File::open(&path).unwrap();
        assert!(!leads_to(&file, Some(&head), &at).unwrap());
        assert!(leads_to(&file, None, &at).unwrap());
    }

    #[test]
    fn a_renamed_file_is_found_beside_its_old_path() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("log"), dir.path().join("log.1"));
        fs::write(&old, "one\n").unwrap();
        let inode = Inode::from(&fs::metadata(&old).unwrap());
        fs::rename(&old, &new).unwrap();
        assert_eq!(find_beside(&old, inode), Some(new.clone()));
        let file = File::open(&new).unwrap();
        assert!(!is_inside_line(&file, 0).unwrap() && !is_inside_line(&file, 4).unwrap());
        assert!(is_inside_line(&file, 2).unwrap());
        assert_eq!(read_head(&file, 3).unwrap(), b"one");
        assert_eq!(find_beside(&old, Inode { inode: inode.inode + 1_000_000, ..inode }), None);
    }
}
