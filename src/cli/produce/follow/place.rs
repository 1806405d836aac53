//! A place in the content of a file, and whether a file still has the content that led to it.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// How many bytes of a file's beginning are remembered.
pub(super) const HEAD_BYTES: usize = 1024;

/// How many bytes before a place are remembered.
const TAIL_BYTES: usize = 128;

/// A place in a file: after a record, or within a line that was shipped unfinished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of bytes before it.
    pub(super) offset: u64,
    /// The number of lines before it.
    pub(super) lines: u64,
    /// The bytes before it, at most [`TAIL_BYTES`].
    pub(super) tail: Vec<u8>,
}

impl Place {
    /// The place at an offset, after a number of lines.
    pub(super) fn read(file: &File, offset: u64, lines: u64) -> io::Result<Self> {
        let bytes = TAIL_BYTES.min(usize::try_from(offset).unwrap_or(TAIL_BYTES));
        let mut tail = vec![0; bytes];
        file.read_exact_at(&mut tail, offset - bytes as u64)?;
        Ok(Self { offset, lines, tail })
    }

    /// Whether the place is within a line.
    pub(super) fn is_inside_line(&self) -> bool {
        self.tail.last().is_some_and(|byte| *byte != b'\n')
    }

    /// Whether a file is long enough, and has the remembered bytes before the place.
    pub(super) fn is_in(&self, file: &File) -> io::Result<bool> {
        has_bytes(file, self.offset - self.tail.len() as u64, &self.tail)
    }
}

/// Whether a file has these bytes at an offset.
pub(super) fn has_bytes(file: &File, at: u64, bytes: &[u8]) -> io::Result<bool> {
    let mut found = vec![0; bytes.len()];
    match file.read_exact_at(&mut found, at) {
        Ok(()) => Ok(found == bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
