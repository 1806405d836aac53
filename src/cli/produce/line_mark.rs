//! A line's place in its file.

use bytes::Bytes;

use super::{
    super::lines::Line,
    identity::{FINGERPRINT_BYTES, Fingerprint, Position},
    line_id::LineId,
};

/// A line and its place.
#[derive(Clone)]
pub(super) struct LineMark {
    pub(super) id: LineId,
    /// The offset of its first byte.
    pub(super) start: u64,
    /// The offset after its end.
    end: u64,
    /// Its beginning, if the place is to be stored.
    beginning: Bytes,
    /// Whether `beginning` is the whole line, without its end.
    is_whole: bool,
}

impl LineMark {
    /// Keeps the beginning of the line only if its place `is_stored`.
    pub(super) fn new(file: usize, line: &Line, is_stored: bool) -> Self {
        let kept = if is_stored { line.bytes.len().min(FINGERPRINT_BYTES) } else { 0 };
        let beginning = line.bytes.slice(..kept);
        let is_whole = kept as u64 == line.length;
        let Line { number, start, end, .. } = *line;
        Self { id: LineId { file, number }, start, end, beginning, is_whole }
    }

    /// The position after the line.
    pub(super) fn position(&self) -> Position {
        let mut part = self.beginning.to_vec();
        if self.is_whole && self.start + (part.len() as u64) < self.end {
            part.push(b'\n');
        }
        let last_line = Some(Fingerprint::of(self.start, &part));
        Position { offset: self.end, lines: self.id.number, last_line }
    }
}
