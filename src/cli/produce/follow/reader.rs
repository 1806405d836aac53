//! Reads the next records of a followed file.
//!
//! No bytes are kept between two reads: a record that has no end yet is read again. So the memory of
//! a shipper does not depend on how many files it follows. A line over the limit is searched for its
//! end once, and only as much of it is read as a message may have.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use bytes::Bytes;

use super::{
    super::{super::lines::Line, identity::read_head},
    content::Content,
    place::{HEAD_BYTES, Place},
    records::{Cut, Cutter, Flush, Piece},
};

/// How many bytes of one file are read before it is another file's turn.
pub(super) const READ_BYTES: u64 = 256 * 1024;

/// How far the end of a line over the limit is searched at once.
const SEARCH_BYTES: u64 = 16 * READ_BYTES;

/// What a read found.
pub(super) enum Read {
    /// Records, and the place after them.
    Records(Records),
    /// Nothing to ship, until the file grows or time passes.
    Nothing,
    /// Part of a line over the limit: its end is searched for.
    Searching,
    /// The file does not have the content any more.
    Replaced,
}

pub(super) struct Records {
    pub(super) records: Vec<Line>,
    pub(super) end: Place,
    /// The file's first bytes, as far as they lie before the end.
    pub(super) head: Vec<u8>,
}

impl Content {
    /// Reads the next records. The file must be open.
    pub(super) fn read(
        &mut self,
        cutter: &Cutter,
        flush: impl Fn(&Self) -> Flush,
    ) -> io::Result<Read> {
        let Some(file) = self.file.take() else { return Ok(Read::Nothing) };
        let read = self.read_from(&file, cutter, flush);
        self.file = Some(file);
        read
    }

    fn read_from(
        &mut self,
        file: &File,
        cutter: &Cutter,
        flush: impl Fn(&Self) -> Flush,
    ) -> io::Result<Read> {
        let metadata = file.metadata()?;
        let size = metadata.len();
        // Without a byte that was read, only the size shows that a file was truncated.
        let is_truncated = self.place.offset == 0 && size < self.seen.size && !self.is_gzip;
        if is_truncated || size < self.place.offset {
            return Ok(Read::Replaced);
        }
        let size_before = self.seen.size;
        let is_changed = self.look(&metadata);
        // What was searched may have been written to.
        if is_changed && size <= size_before {
            self.searched = 0;
        }
        if size == self.place.offset {
            let is_same = !is_changed || self.is_in(file)?;
            return Ok(if is_same { Read::Nothing } else { Read::Replaced });
        }
        let flush = flush(self);
        if !is_changed && self.fruitless == Some((size, flush)) {
            return Ok(Read::Nothing);
        }
        let read = match self.cut(file, size, cutter, flush)? {
            Some(cut) if !cut.records.is_empty() => self.records(file, cut)?,
            Some(_) => {
                self.fruitless = Some((size, flush));
                Read::Nothing
            }
            None => self.search(file, size, cutter, flush)?,
        };
        // What was read counts only if the file still has what was read before it.
        match self.is_in(file)? {
            true => Ok(read),
            false => Ok(Read::Replaced),
        }
    }

    /// The next records; `None` if the next one is a line over the limit.
    fn cut(
        &self,
        file: &File,
        size: u64,
        cutter: &Cutter,
        flush: Flush,
    ) -> io::Result<Option<Cut>> {
        let (start, lines) = (self.place.offset, self.place.lines);
        let available = size - start;
        let limit = self.rule.max_line_bytes() as u64;
        let mut wanted = available.min(READ_BYTES);
        if self.searched > start + limit {
            return Ok(None);
        }
        loop {
            let bytes = read_at(file, start, wanted)?;
            let is_last = bytes.len() as u64 == available;
            let flush = if is_last { flush } else { Flush::Nothing };
            let piece = Piece { bytes, start, lines };
            let mut cut = cutter.cut(&piece, flush);
            if let Some(last) = cut.records.last() {
                let used = (last.end - start) as usize;
                release_rest(&mut cut.records, &piece, used);
                return Ok(Some(cut));
            }
            if piece.bytes.len() as u64 > limit {
                return Ok(None);
            }
            if is_last || (piece.bytes.len() as u64) < wanted {
                return Ok(Some(cut));
            }
            wanted = (wanted * 4).min(limit + 1).min(available);
        }
    }

    fn records(&self, file: &File, cut: Cut) -> io::Result<Read> {
        let Cut { records, lines } = cut;
        let end = records.last().map_or(self.place.offset, |last| last.end);
        let end = Place::read(file, end, lines)?;
        let head = match self.head.len() < HEAD_BYTES {
            true => read_head(file, end.offset.min(HEAD_BYTES as u64))?,
            false => self.head.clone(),
        };
        Ok(Read::Records(Records { records, end, head }))
    }

    /// Searches for the end of a line over the limit.
    fn search(
        &mut self,
        file: &File,
        size: u64,
        cutter: &Cutter,
        flush: Flush,
    ) -> io::Result<Read> {
        let start = self.place.offset;
        let mut from = self.searched.max(start);
        let until = size.min(from + SEARCH_BYTES);
        let mut end = None;
        while from < until && end.is_none() {
            let bytes = read_at(file, from, READ_BYTES.min(until - from))?;
            if bytes.is_empty() {
                break;
            }
            end = memchr::memchr(b'\n', &bytes).map(|at| from + at as u64);
            from += bytes.len() as u64;
        }
        self.searched = from;
        let after = match end {
            Some(end) => (end, end + 1),
            None if from == size && flush == Flush::Everything => (size, size),
            None if from == size => {
                self.fruitless = Some((size, flush));
                return Ok(Read::Nothing);
            }
            None => return Ok(Read::Searching),
        };
        let (content_end, end) = after;
        let length = content_end - start;
        let bytes = read_at(file, start, length.min(cutter.limit as u64))?;
        let number = self.place.lines + 1;
        let line = Line { bytes, length, number, start, end };
        self.records(file, Cut { records: vec![line], lines: number })
    }
}

/// Lets the memory go that has no records in it, if that is most of it.
fn release_rest(records: &mut [Line], piece: &Piece, used: usize) {
    if used * 2 >= piece.bytes.len() {
        return;
    }
    let kept = Bytes::copy_from_slice(&piece.bytes[..used]);
    for record in records {
        let from = (record.start - piece.start) as usize;
        record.bytes = kept.slice(from..from + record.bytes.len());
    }
}

/// Reads bytes at an offset, fewer only where the file ends.
pub(super) fn read_at(file: &File, at: u64, bytes: u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}
