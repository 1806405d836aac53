//! Cuts chunks of bytes into lines without copying each line.

use bytes::{Buf as _, Bytes, BytesMut};

/// Cuts its input into lines. A line ends with `\n`, which is not part of it; a `\r` before that
/// is part of it.
/// Only the beginning of a line over the limit is kept, so memory stays bounded.
pub(super) struct Lines {
    buffer: BytesMut,
    /// The length of the buffer's beginning that is known to contain no line end.
    searched: usize,
    limit: usize,
    /// The offset of the buffer in the input.
    offset: u64,
    /// The number of lines before the buffer.
    number: u64,
    /// A line over the limit whose end has not been read yet.
    long: Option<Long>,
}

struct Long {
    start: u64,
    kept: Bytes,
}

/// What [`Lines`] cuts its input into.
#[derive(Debug, PartialEq)]
pub(super) enum LinePiece {
    Line(Line),
    /// Part of a line over the limit; the line itself follows once its end has been read.
    Overflow(Bytes),
}

/// A line and its place in the input.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// The line, or the beginning of a line over the limit.
    pub(super) bytes: Bytes,
    /// The length of the whole line, without its end.
    pub(super) length: u64,
    /// Counts from 1.
    pub(super) number: u64,
    /// The offset of its first byte.
    pub(super) start: u64,
    /// The offset after its end.
    pub(super) end: u64,
}

impl Line {
    /// Whether `bytes` is the whole line.
    pub(super) fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.length
    }
}

impl Lines {
    /// Lines of an input that is read from `offset` on, after `number` lines.
    pub(super) fn starting_at(offset: u64, number: u64, limit: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, limit, offset, number, long: None }
    }

    /// The buffer to read more input into.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The number of lines so far, including those before the starting offset.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next piece of what has been read, if there is one.
    pub(super) fn next_piece(&mut self) -> Option<LinePiece> {
        let rest = &self.buffer[self.searched..];
        let end = memchr::memchr(b'\n', rest).map(|at| self.searched + at);
        let content = end.unwrap_or(self.buffer.len());
        if content > self.limit || (self.long.is_some() && content > 0) {
            return Some(LinePiece::Overflow(self.overflow(content)));
        }
        if end.is_none() {
            self.searched = self.buffer.len();
            return None;
        }
        let mut line = self.cut_line(content);
        self.buffer.advance(1);
        self.offset += 1;
        line.end += 1;
        Some(LinePiece::Line(line))
    }

    /// The last line of the input, if it has no line end.
    pub(super) fn last_line(&mut self) -> Option<Line> {
        if self.buffer.is_empty() && self.long.is_none() {
            return None;
        }
        Some(self.cut_line(self.buffer.len()))
    }

    fn overflow(&mut self, content: usize) -> Bytes {
        let start = self.offset;
        let bytes = self.split(content);
        if self.long.is_none() {
            self.long = Some(Long { start, kept: bytes.slice(..self.limit) });
        }
        bytes
    }

    fn split(&mut self, length: usize) -> Bytes {
        self.searched = 0;
        self.offset += length as u64;
        self.buffer.split_to(length).freeze()
    }

    /// Cuts the line that ends after `content` bytes of the buffer.
    fn cut_line(&mut self, content: usize) -> Line {
        self.number += 1;
        let start = self.offset;
        let bytes = self.split(content);
        let (start, bytes) = match self.long.take() {
            Some(Long { start, kept }) => (start, kept),
            None => (start, bytes),
        };
        let end = self.offset;
        Line { bytes, length: end - start, number: self.number, start, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(chunks: &[&str], limit: usize) -> Vec<LinePiece> {
        let mut lines = Lines::starting_at(0, 0, limit);
        let mut pieces = Vec::new();
        for chunk in chunks {
            lines.buffer().extend_from_slice(chunk.as_bytes());
            pieces.extend(std::iter::from_fn(|| lines.next_piece()));
        }
        pieces.extend(lines.last_line().map(LinePiece::Line));
        pieces
    }

    fn cut(chunks: &[&str], limit: usize) -> Vec<(String, u64, u64, u64)> {
        let lines = pieces(chunks, limit).into_iter().filter_map(|piece| match piece {
            LinePiece::Line(line) => Some(line),
            LinePiece::Overflow(_) => None,
        });
        let text = |line: &Line| String::from_utf8(line.bytes.to_vec()).unwrap();
        lines.map(|line| (text(&line), line.length, line.start, line.end)).collect()
    }

    #[test]
    fn lines_do_not_depend_on_where_chunks_end() {
        let texts = |chunks: &[&str]| {
            cut(chunks, 100).into_iter().map(|(text, ..)| text).collect::<Vec<_>>()
        };
        assert_eq!(texts(&["a\nb", "c\n", "\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(texts(&["a\r\nb\n"]), ["a\r", "b"]);
        assert_eq!(texts(&["a", "b", "c"]), ["abc"]);
        assert!(texts(&[""]).is_empty());
    }

    #[test]
    fn a_line_knows_its_place() {
        let mut lines = Lines::starting_at(10, 3, 100);
        lines.buffer().extend_from_slice(b"ab\n\nc");
        let mut next = || match lines.next_piece() {
            Some(LinePiece::Line(line)) => Some((line.number, line.start, line.end)),
            _ => None,
        };
        assert_eq!((next(), next(), next()), (Some((4, 10, 13)), Some((5, 13, 14)), None));
        let last = lines.last_line().unwrap();
        assert_eq!((last.number, last.start, last.end, last.length), (6, 14, 15, 1));
    }

    #[test]
    fn a_line_over_the_limit_keeps_its_beginning_and_overflows_whole() {
        let line = |text: &str, length, start, end| (text.to_owned(), length, start, end);
        for chunks in [
            &["ok\n12345678\nend\n"][..],
            &["ok\n1234", "5678", "\nend", "\n"],
            &["ok\n12345", "678\nend\n"],
            &["o", "k", "\n", "1", "2", "3", "4", "5", "6", "7", "8", "\n", "end\n"],
        ] {
            let expected = [line("ok", 2, 0, 3), line("1234", 8, 3, 12), line("end", 3, 12, 16)];
            assert_eq!(cut(chunks, 4), expected, "{chunks:?}");
            let overflow: Vec<u8> = pieces(chunks, 4)
                .into_iter()
                .filter_map(|piece| match piece {
                    LinePiece::Overflow(bytes) => Some(bytes),
                    LinePiece::Line(_) => None,
                })
                .flatten()
                .collect();
            assert_eq!(overflow, b"12345678", "{chunks:?}");
        }
        assert_eq!(cut(&["1234\n"], 4), [line("1234", 4, 0, 5)]);
        assert_eq!(cut(&["12345"], 4), [line("1234", 5, 0, 5)]);
    }
}
