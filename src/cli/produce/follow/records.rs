//! Cuts a piece of a file into records: lines, or messages of several lines.

use bytes::Bytes;
use regex::bytes::Regex;

use super::super::super::lines::Line;

/// What to do with the last record of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flush {
    /// It waits for its end.
    Nothing,
    /// Its complete lines are a record.
    CompleteLines,
    /// All of it is a record, even if its last line has no end.
    Everything,
}

/// How a file is cut.
pub(super) struct Cutter {
    /// Lines that match begin a record; without it, each line is one.
    pub(super) start: Option<Regex>,
    /// The most bytes of a record of several lines.
    pub(super) limit: usize,
}

/// A piece of a file that begins where a record does.
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// Its offset in the file.
    pub(super) start: u64,
    /// The number of lines before it.
    pub(super) lines: u64,
}

impl Cutter {
    /// The records of a piece. What is after the last one waits for more.
    pub(super) fn cut(&self, piece: &Piece, flush: Flush) -> Cut {
        let mut records = Records { piece, records: Vec::new(), from: 0, lines: piece.lines };
        match &self.start {
            None => records.cut_lines(),
            Some(start) => records.cut_messages(start, self.limit, flush),
        }
        if flush == Flush::Everything && records.from < piece.bytes.len() {
            let end = piece.bytes.len();
            records.push(end, end, 1);
        }
        let Records { records, lines, .. } = records;
        Cut { records, lines }
    }
}

/// What a piece consists of.
pub(super) struct Cut {
    pub(super) records: Vec<Line>,
    /// The number of lines before the end of the last record.
    pub(super) lines: u64,
}

struct Records<'a> {
    piece: &'a Piece,
    records: Vec<Line>,
    /// Where the next record begins in the piece.
    from: usize,
    /// The number of lines before that.
    lines: u64,
}

impl Records<'_> {
    fn cut_lines(&mut self) {
        for at in memchr::memchr_iter(b'\n', &self.piece.bytes) {
            self.push(at, at + 1, 1);
        }
    }

    fn cut_messages(&mut self, start: &Regex, limit: usize, flush: Flush) {
        let bytes = &self.piece.bytes;
        // The complete lines that the current record has so far.
        let (mut end, mut lines) = (0, 0);
        let line_ends = memchr::memchr_iter(b'\n', bytes).map(|at| (at, at + 1));
        let unfinished = (bytes.len(), bytes.len());
        let unfinished = Some(unfinished)
            .filter(|_| flush == Flush::Everything && bytes.last().is_some_and(|b| *b != b'\n'));
        for (content_end, line_end) in line_ends.chain(unfinished) {
            let is_full = content_end - self.from > limit;
            if lines > 0 && (is_full || start.is_match(&bytes[end..content_end])) {
                self.push(end - 1, end, lines);
                lines = 0;
            }
            end = line_end;
            lines += 1;
        }
        let is_finished = bytes[..end].last() == Some(&b'\n');
        // A long line that has no end yet does not belong to a record that would have no room.
        let is_full = bytes.len() - self.from > limit;
        if lines > 0 && (flush != Flush::Nothing || is_full) {
            self.push(end - usize::from(is_finished), end, lines);
        }
    }

    fn push(&mut self, content_end: usize, end: usize, lines: u64) {
        let bytes = self.piece.bytes.slice(self.from..content_end);
        self.records.push(Line {
            length: bytes.len() as u64,
            bytes,
            number: self.lines + 1,
            start: self.piece.start + self.from as u64,
            end: self.piece.start + end as u64,
        });
        self.from = end;
        self.lines += lines;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(start: Option<&str>, text: &'static str, flush: Flush) -> Vec<(String, u64, u64)> {
        let start = start.map(|start| Regex::new(start).unwrap());
        let piece = Piece { bytes: Bytes::from_static(text.as_bytes()), start: 100, lines: 7 };
        let records = Cutter { start, limit: 10 }.cut(&piece, flush).records;
        let text = |line: &Line| String::from_utf8(line.bytes.to_vec()).unwrap();
        records.iter().map(|line| (text(line), line.number, line.end - 100)).collect()
    }

    fn record(text: &str, number: u64, end: u64) -> (String, u64, u64) {
        (text.to_owned(), number, end)
    }

    #[test]
    fn lines_are_cut_and_an_unfinished_one_waits() {
        let lines = [record("a\r", 8, 3), record("", 9, 4)];
        assert_eq!(cut(None, "a\r\n\nb", Flush::Nothing), lines);
        assert_eq!(cut(None, "a\r\n\nb", Flush::CompleteLines), lines);
        let all = [&lines[..], &[record("b", 10, 5)]].concat();
        assert_eq!(cut(None, "a\r\n\nb", Flush::Everything), all);
        assert_eq!(cut(None, "a\r\n\n", Flush::Everything), lines);
        assert!(cut(None, "", Flush::Everything).is_empty());
    }

    #[test]
    fn lines_that_do_not_match_continue_a_message() {
        let start = Some("^[A-Z]");
        let text = "A\n b\n c\nB\n d\n";
        let first = record("A\n b\n c", 8, 8);
        assert_eq!(cut(start, text, Flush::Nothing), std::slice::from_ref(&first));
        let both = [first.clone(), record("B\n d", 11, 13)];
        assert_eq!(cut(start, text, Flush::CompleteLines), both);
        let text = "A\n b\n c\nB\n d";
        assert_eq!(cut(start, text, Flush::Nothing), std::slice::from_ref(&first));
        assert_eq!(cut(start, text, Flush::CompleteLines), [first.clone(), record("B", 11, 10)]);
        assert_eq!(cut(start, text, Flush::Everything), [first, record("B\n d", 11, 12)]);
        // A file may begin with lines that continue nothing.
        let text = " x\nA\nB";
        let expected = [record(" x", 8, 3), record("A", 9, 5)];
        assert_eq!(cut(start, text, Flush::CompleteLines), expected);
        let expected = [&expected[..], &[record("B", 10, 6)]].concat();
        assert_eq!(cut(start, text, Flush::Everything), expected);
    }

    #[test]
    fn a_message_of_several_lines_is_bounded() {
        let start = Some("^[A-Z]");
        let expected = [record("A\n 34567", 8, 9), record(" 234567", 10, 17)];
        assert_eq!(cut(start, "A\n 34567\n 234567\n 12345", Flush::Nothing), expected);
        assert_eq!(cut(start, "A\n 34567890", Flush::Nothing), [record("A", 8, 2)]);
        assert_eq!(cut(start, "A23456789012345", Flush::Nothing), []);
    }
}
